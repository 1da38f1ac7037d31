"""Structures of a converted data set, drawn: atoms, bonds, cells and forces."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from schnet.data.describe import BLUE, VERMILLION, full_title, pyplot
from schnet.data.store import Store, Structure
from schnet.files import atomic, check_picture, write_text

GREY = "#888888"
RADIUS = 0.45  # of a drawn atom, in parts of its covalent radius
LONGEST_ARROW = 1.2  # Å


def first_view(structure: Structure) -> np.ndarray:
    """Rotation [3, 3] whose rows are right, up and towards the viewer.

    A molecule is seen along its thinnest direction, a crystal along its third axis, both tilted.
    """
    axes = np.eye(3)
    if structure.cell is None:
        _, _, axes = np.linalg.svd(structure.positions - structure.positions.mean(0))
        axes[2] *= np.linalg.det(axes)  # no mirror image
    a, b = np.radians([-20.0, 15.0])
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return turn @ tilt @ axes


def draw_structure(ax, structure: Structure, fontsize: float = 7) -> None:
    """Draw a structure in parallel projection: atoms, bonds, cell edges and forces as arrows.

    Args:
        ax: of matplotlib, two-dimensional; its frame is removed.
        structure: forces are its property of that name, where it has one that is not zero.
        fontsize: of the element symbols, in points.
    """
    from matplotlib.patches import Circle

    z, view = structure.atomic_numbers, first_view(structure)
    right, up, depth = view @ structure.positions.T
    radii = RADIUS * covalent_radii[z]
    shown = [np.stack([right - radii, up - radii], 1), np.stack([right + radii, up + radii], 1)]
    layer = np.argsort(np.argsort(depth)) + 1.0
    for a, b in bonds(structure):
        behind = min(layer[a], layer[b]) - 0.5
        ax.plot(right[[a, b]], up[[a, b]], color=GREY, lw=2, zorder=behind)
    for k, number in enumerate(z):
        face = jmol_colors[number]
        place = right[k], up[k]
        ax.add_patch(Circle(place, radii[k], fc=face, ec="black", lw=0.6, zorder=layer[k]))
        middle = {"ha": "center", "va": "center", "zorder": layer[k]}
        ax.text(*place, chemical_symbols[number], fontsize=fontsize, **middle)
    if structure.cell is not None:
        shown += _draw_cell(ax, structure.cell, view)
    arrows = force_arrows(structure)
    if len(arrows):
        arrows = (arrows @ view.T)[:, :2]
        shown.append(np.stack([right, up], 1) + arrows)
        scale = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008}
        ax.quiver(right, up, *arrows.T, color=VERMILLION, zorder=len(z) + 2, **scale)
    points = np.concatenate(shown)
    low, high = points.min(0) - 0.2, points.max(0) + 0.2
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    ax.set_axis_off()


def force_arrows(structure: Structure) -> np.ndarray:
    """Forces as they are drawn, [n, 3] in Å, the longest LONGEST_ARROW; [0, 3] where none acts."""
    forces = structure.properties.get("forces")
    if forces is None or np.abs(forces).max() == 0:
        return np.zeros((0, 3))
    return forces * (LONGEST_ARROW / np.linalg.norm(forces, axis=1).max())


def bonds(structure: Structure) -> list[tuple[int, int]]:
    """Pairs of atoms closer than 1.25 times the sum of their covalent radii; no periodic images."""
    r, radii = structure.positions, covalent_radii[structure.atomic_numbers]
    distances = np.linalg.norm(r[:, None] - r, axis=2)
    close = np.triu(distances < 1.25 * (radii[:, None] + radii), 1)
    return [(int(a), int(b)) for a, b in np.argwhere(close)]


def cell_edges(cell: np.ndarray) -> np.ndarray:
    """Where the twelve edges of a cell [3, 3] begin and end, [12, 2, 3]."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    edges = [(a, b) for a in corners for b in corners if (b - a).sum() == 1 and (b >= a).all()]
    return np.array(edges) @ cell


def _draw_cell(ax, cell: np.ndarray, view: np.ndarray) -> list[np.ndarray]:
    """The edges of a cell [3, 3] behind the atoms; returns where they end, [2, 2] each."""
    ends = list((cell_edges(cell) @ view.T)[..., :2])
    for end in ends:
        ax.plot(*end.T, color=BLUE, lw=0.8, zorder=0)
    return ends


def show(path, index: int, picture) -> None:
    """Draw one structure: atoms, bonds, cell edges and forces as arrows.

    Args:
        path: HDF5 file.
        index: of the structure, from 0.
        picture: image file, or a page (.html) in which the structure can be turned.

    Raises:
        ConfigError: the picture's name says no format.
        DataError: the file is no converted data set, or there is no such structure.
    """
    if Path(picture).suffix != ".html":
        check_picture(picture)
    store = Store(path)
    structure = store.structure(index)
    if Path(picture).suffix == ".html":
        from schnet.viewer import structures_page

        caption = _caption(store, structure)
        write_text(picture, structures_page(store.name, {caption: structure}))
        return
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(5, 5), layout="constrained")
    draw_structure(ax, structure)
    ax.set_title(_caption(store, structure), fontsize=8)
    with atomic(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def _caption(store: Store, structure: Structure) -> str:
    """Name of a structure, its first three scalar properties and the length of the arrows."""
    parts = [
        f"{key} = {value:.6g} {store.properties[key].unit}"
        for key, value in structure.properties.items()
        if np.ndim(value) == 0
    ][:3]
    text = ", ".join(parts)
    if "forces" in structure.properties:
        longest = np.linalg.norm(structure.properties["forces"], axis=1).max()
        unit = store.properties["forces"].unit
        text += f"; arrows: forces, longest {longest:.3g} {unit}"
    lines = (full_title(store), f"structure {structure.id}: {text}")
    return "\n".join(fill(line, 80) for line in lines)
