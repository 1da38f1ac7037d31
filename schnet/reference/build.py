"""Start geometries of organic molecules: replace hydrogen atoms by small groups, relax later."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii

from schnet.errors import SchNetError

#: group -> element and position (Å) of its atoms, attached at the origin along +z
GROUPS: dict[str, list[tuple[str, float, float, float]]] = {
    "F": [("F", 0, 0, 0)],
    "OH": [("O", 0, 0, 0), ("H", 0.92, 0, 0.30)],
    "NH2": [("N", 0, 0, 0), ("H", 0.94, 0, 0.33), ("H", -0.47, 0.82, 0.33)],
    "CH3": [
        ("C", 0, 0, 0),
        ("H", 1.02, 0, 0.36),
        ("H", -0.51, 0.89, 0.36),
        ("H", -0.51, -0.89, 0.36),
    ],
    "CN": [("C", 0, 0, 0), ("N", 0, 0, 1.16)],
    "CCH": [("C", 0, 0, 0), ("C", 0, 0, 1.20), ("H", 0, 0, 2.26)],
    "CHO": [("C", 0, 0, 0), ("O", 1.04, 0, 0.60), ("H", -0.94, 0, 0.58)],
}


def bonds(atoms: Atoms) -> np.ndarray:
    """Which atoms are bonded, boolean [n, n]: closer than 1.25 times the sum of covalent radii."""
    r = covalent_radii[atoms.numbers]
    d = atoms.get_all_distances()
    return (d < 1.25 * (r[:, None] + r)) & ~np.eye(len(atoms), dtype=bool)


def fingerprint(atoms: Atoms) -> tuple:
    """What equal molecular graphs share, whatever the order of atoms (Weisfeiler–Lehman)."""
    adjacency = bonds(atoms)
    labels = [int(z) for z in atoms.numbers]
    for _ in range(6):
        labels = [
            hash((labels[k], *sorted(labels[m] for m in np.flatnonzero(adjacency[k]))))
            for k in range(len(labels))
        ]
    return tuple(sorted(labels))


def connected(atoms: Atoms) -> bool:
    """Whether the bonds make one molecule of all atoms."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(bonds(atoms))[0] == 1


def substitute(atoms: Atoms, hydrogen: int, group: str) -> Atoms:
    """Replace one hydrogen by a group, turned about the new bond to where it has most room.

    Args:
        atoms: the molecule.
        hydrogen: index of the atom that goes.
        group: key of GROUPS; its atoms come last.
    """
    numbers, positions = atoms.numbers, atoms.positions
    distances = np.linalg.norm(positions - positions[hydrogen], axis=1)
    distances[hydrogen] = np.inf
    anchor = int(np.argmin(distances))
    axis = positions[hydrogen] - positions[anchor]
    axis /= np.linalg.norm(axis)
    side = np.cross(axis, [1.0, 0, 0] if abs(axis[0]) < 0.9 else [0, 1.0, 0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    kept = np.delete(np.arange(len(atoms)), hydrogen)
    rest = kept[kept != anchor]
    new = Atoms([symbol for symbol, _, _, _ in GROUPS[group]])
    local = np.array([(x, y, z) for _, x, y, z in GROUPS[group]], float)
    length = covalent_radii[numbers[anchor]] + covalent_radii[new.numbers[0]]
    best, room = positions[:0], -1.0
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([c * side + s * other, -s * side + c * other, axis])
        placed = positions[anchor] + length * axis + local @ rotation
        clearance = 9.0
        if len(rest):
            clearance = np.linalg.norm(placed[:, None] - positions[rest], axis=2).min()
        if clearance > room:
            best, room = placed, clearance
    return Atoms(
        np.concatenate([numbers[kept], new.numbers]), np.concatenate([positions[kept], best])
    )


def hydrogens_on(atoms: Atoms, heavy: int) -> list[int]:
    """Indices of the hydrogens bonded to an atom."""
    return [int(k) for k in np.flatnonzero(bonds(atoms)[heavy]) if atoms.numbers[k] == 1]


def ring(elements: str, bond: float = 1.39) -> Atoms:
    """A planar ring with one hydrogen (lower case: none) on every atom, e.g. "CCCCCC".

    Args:
        elements: one letter per atom of the ring.
        bond: their distance in Å.
    """
    n = len(elements)
    radius = bond / (2 * np.sin(np.pi / n))
    symbols, positions = [], []
    for k, e in enumerate(elements):
        direction = np.array([np.cos(2 * np.pi * k / n), np.sin(2 * np.pi * k / n), 0])
        symbols.append(e.upper())
        positions.append(radius * direction)
        if e.isupper():
            symbols.append("H")
            positions.append((radius + 1.09) * direction)
    return Atoms(symbols, positions)


def _on(atoms: Atoms, heavy: int, group: str) -> Atoms:
    """Replace the first hydrogen on an atom by a group."""
    return substitute(atoms, hydrogens_on(atoms, heavy)[0], group)


def _carboxyl(atoms: Atoms, heavy: int) -> Atoms:
    """COOH: a formyl group whose hydrogen becomes OH."""
    atoms = _on(atoms, heavy, "CHO")
    return substitute(atoms, len(atoms) - 1, "OH")


def _naphthalene() -> Atoms:
    """Two hexagons that share an edge."""
    a = 1.40  # Å
    x = a * np.sqrt(3) / 2
    carbon = np.array(
        [
            [0, a / 2],
            [0, -a / 2],
            [x, a],
            [2 * x, a / 2],
            [2 * x, -a / 2],
            [x, -a],
            [-x, a],
            [-2 * x, a / 2],
            [-2 * x, -a / 2],
            [-x, -a],
        ]
    )
    centre = np.where(carbon[:, :1] >= 0, 1, -1) * np.array([x, 0])
    out = (carbon - centre)[2:] / a
    hydrogen = carbon[2:] + 1.09 * out
    plane = np.concatenate([carbon, hydrogen])
    return Atoms("C10H8", np.c_[plane, np.zeros(len(plane))])


def _uracil() -> Atoms:
    """N1H-C2(=O)-N3H-C4(=O)-C5H=C6H as a hexagon with atoms attached radially."""
    base = ring("NCNCCC")
    symbols, positions = base.get_chemical_symbols(), base.positions.copy()
    for k in (1, 3):
        symbols[2 * k + 1] = "O"
        direction = positions[2 * k] / np.linalg.norm(positions[2 * k])
        positions[2 * k + 1] = positions[2 * k] + 1.22 * direction
    return Atoms(symbols, positions)


def named(name: str) -> Atoms:
    """Crude geometry of one of the molecules of MD17; relax it before use.

    Raises:
        SchNetError: there is none for this molecule.
    """
    benzene = ring("CCCCCC")
    if name == "benzene":
        return benzene
    if name == "ethanol":
        return molecule("CH3CH2OH")
    if name == "toluene":
        return _on(benzene, 0, "CH3")
    if name == "malonaldehyde":
        methane = molecule("CH4")
        first = _on(methane, 0, "CHO")
        return _on(first, 0, "CHO")
    if name in ("salicylic_acid", "aspirin"):
        acid = _carboxyl(benzene, 0)
        neighbour = int(np.flatnonzero(bonds(acid)[0] & (acid.numbers == 6))[0])
        phenol = _on(acid, neighbour, "OH")
        if name == "salicylic_acid":
            return phenol
        ester = substitute(phenol, len(phenol) - 1, "CHO")
        return substitute(ester, len(ester) - 1, "CH3")
    if name == "uracil":
        return _uracil()
    if name == "naphthalene":
        return _naphthalene()
    if name == "paracetamol":
        phenol = _on(benzene, 0, "OH")
        far = np.linalg.norm(phenol.positions - phenol.positions[0], axis=1)
        opposite = int(np.argmax(np.where(phenol.numbers == 6, far, 0)))
        aniline = _on(phenol, opposite, "NH2")
        amide = substitute(aniline, len(aniline) - 1, "CHO")
        return substitute(amide, len(amide) - 1, "CH3")
    raise SchNetError(
        f"no start geometry for {name}; it can be fetched (scale small or paper), not made"
    )
