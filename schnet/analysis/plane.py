"""Planes through crystals, and pictures of values on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from schnet.analysis.surface import COLOURS, limits
from schnet.errors import DataError

MAX_POINTS = 1_000_000
NEAR = 0.1  # Å from the plane within which atoms are marked


@dataclass(frozen=True)
class Plane:
    """A square grid of points in the plane of the first two lattice vectors through the first atom.

    Attributes:
        points: [n², 3] in Å, of all rows one after the other.
        coordinates: [n², 2] in Å, of the points within the plane; the atom is at (0, 0).
        atoms: [m, 2] in Å, the atoms that lie in the plane.
        size: length of the sides in Å.
    """

    points: np.ndarray
    coordinates: np.ndarray
    atoms: np.ndarray
    size: float

    def draw(self, ax, values: np.ndarray, label: str) -> None:
        """Draw values [n²] in a matplotlib panel: colours, contour lines, atoms, colour bar."""
        n = round(len(values) ** 0.5)
        half = self.size / 2
        low, high = limits([values])
        grid = values.reshape(n, n)
        image = ax.imshow(
            grid, extent=(-half, half, -half, half), origin="lower", cmap=COLOURS,
            vmin=low, vmax=high, interpolation="bilinear",
        )  # fmt: skip
        x, y = self.atoms.T
        ax.plot(x, y, "o", ms=4, mfc="white", mec="black", mew=0.7, clip_on=True)
        ax.set(xlim=(-half, half), ylim=(-half, half), xlabel="x / Å", ylabel="y / Å")
        ax.figure.colorbar(image, ax=ax, extend="both", shrink=0.9, pad=0.03, label=label)


def cut_plane(atoms: Atoms, size: float = 10.0, points: int = 101) -> Plane:
    """The plane of the first two lattice vectors through the first atom, which is in the middle.

    Args:
        atoms: a crystal.
        size: length of the sides in Å; the first lattice vector is along x.
        points: along each of them.

    Raises:
        DataError: a size that is not positive, fewer than 2 points, or more than MAX_POINTS in all.
    """
    if not size > 0 or points < 2:
        raise DataError(f"a cut of {size} Å with {points} points a side cannot be made")
    if points**2 > MAX_POINTS:
        raise DataError(
            f"{points} points a side make {points**2:,}, more than {MAX_POINTS:,}; use fewer"
        )
    a, b = atoms.cell.array[:2]
    right = a / np.linalg.norm(a)
    up = b - (b @ right) * right
    up /= np.linalg.norm(up)
    axis = np.linspace(-size / 2, size / 2, points)
    x, y = np.meshgrid(axis, axis)
    coordinates = np.column_stack([x.ravel(), y.ravel()])
    middle = atoms.positions[0]
    return Plane(
        middle + coordinates @ np.stack([right, up]),
        coordinates,
        _atoms_in_plane(atoms, right, up, size),
        size,
    )


def _atoms_in_plane(atoms: Atoms, right: np.ndarray, up: np.ndarray, size: float) -> np.ndarray:
    """Coordinates of all images of atoms that lie in the plane and on the cut, [m, 2]."""
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    reach = np.ceil(size / heights).astype(int) + 1
    steps = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    images = np.stack(steps, -1).reshape(-1, 3) @ atoms.cell.array
    away = (images[:, None] + atoms.positions - atoms.positions[0]).reshape(-1, 3)
    away = away[np.abs(away @ np.cross(right, up)) < NEAR]
    flat = away @ np.stack([right, up]).T
    return flat[(np.abs(flat) <= size / 2).all(1)]
