"""Coulomb-like matrices of molecules and crystals, [n, n] for n atoms, and distances between them.

Molecules: the Coulomb matrix (Rupp et al., PRL 108, 058301, 2012). Crystals: the generalisations of
Faber et al., Int. J. Quantum Chem. 115, 1094 (2015), as far as ``extended_coulomb``, ``ewald`` and
``sine`` say. Rows and columns are sorted by the norm of the rows, descending, so the order of the
atoms does not matter (where no two norms are equal). None of the crystals' matrices is the same
for a supercell, which has more rows; the sine matrix also depends on the choice of the lattice
vectors. Any element is covered: matrices are functions of the nuclear charge.

Matrices of different sizes are compared as if padded with zeros to one size. The zeros are never
stored: a few large cells make neither long descriptors nor long computations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from schnet.data.neighbours import neighbour_pairs
from schnet.data.structures import Structures
from schnet.errors import DataError, SchNetError

RANGE = 15.0  # Å; exp(-15) is 3e-7
NUMBER = 8  # bytes


def _dscribe(name: str) -> Callable:
    """A class of dscribe.descriptors. Raises SchNetError where the package is missing."""
    try:
        from dscribe import descriptors
    except ImportError as error:
        raise SchNetError(f"dscribe is missing ({error}); pip install dscribe") from error
    return getattr(descriptors, name)


def coulomb(numbers: np.ndarray, positions: np.ndarray, cell: None = None) -> np.ndarray:
    """The sorted Coulomb matrix: C_ii = 0.5 Z_i^2.4 and C_ij = Z_i Z_j / |r_i - r_j|.

    From dscribe.

    Args:
        numbers: nuclear charges Z, [n].
        positions: r in Å, [n, 3].
        cell: not used.

    Returns:
        [n, n], of unit e²/Å off the diagonal.
    """
    from ase import Atoms

    matrix = _dscribe("CoulombMatrix")(n_atoms_max=len(numbers), permutation="sorted_l2")
    return matrix.create(Atoms(numbers, positions)).reshape(len(numbers), -1)


def extended_coulomb(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """A Coulomb-like matrix that takes neighbouring cells into account, summed over them, sorted.

    X_ij = 0.5 Z_i^2.4 δ_ij + Z_i Z_j Σ_L exp(-d / Å), d = |r_i - r_j + L|, over all lattice vectors
    L with 0 < d < 15 Å: an atom and its own images included, an atom and itself not.

    This is in place of the extended Coulomb-like matrix of Faber et al. (2015), which has a column
    for every atom of the neighbouring cells, and a rapidly decaying interaction in place of 1/d.
    Which one, how many cells, and how their columns are sorted could not be looked up. The sum
    needs neither number nor order, and is the same for any cell of the same volume.

    Args:
        numbers: nuclear charges Z, [n].
        positions: r in Å, [n, 3].
        cell: rows are lattice vectors in Å, [3, 3].
    """
    i, j, shift = neighbour_pairs(positions, cell, RANGE)
    distances = np.linalg.norm(positions[j] + shift @ cell - positions[i], axis=1)
    charges = numbers.astype(float)
    matrix = np.zeros((len(numbers), len(numbers)))
    np.add.at(matrix, (i, j), charges[i] * charges[j] * np.exp(-distances))
    # a pair is listed once, also that of an atom with its image at L, which has one at -L
    matrix += matrix.T
    matrix[np.diag_indices_from(matrix)] += 0.5 * charges**2.4
    return _sorted(matrix)


def ewald(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The sorted Ewald sum matrix.

    X_ij is the electrostatic energy (e²/Å) per cell of the charges Z of atoms i and j with all
    images, in a neutralising background; X_ii that of atom i and its images. So the energy of the
    crystal is the sum of the diagonal and of one triangle. From dscribe, converged to about 10⁻⁵.

    Off the diagonal, Faber et al. (2015), Eq. 20, have -(Z_i² + Z_j²) α/√π - (Z_i + Z_j)² π/(2Vα²)
    in place of the background's -Z_i Z_j π/(Vα²), which makes the matrix depend on the screening α;
    dscribe's documentation says so and why.

    Args:
        numbers: nuclear charges Z, [n].
        positions: r in Å, [n, 3].
        cell: rows are lattice vectors in Å, [3, 3].
    """
    from ase import Atoms

    matrix = _dscribe("EwaldSumMatrix")(n_atoms_max=len(numbers), permutation="sorted_l2")
    atoms = Atoms(numbers, positions, cell=cell, pbc=True)
    return matrix.create(atoms).reshape(len(numbers), -1)


def sine(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The sorted sine matrix (Faber et al., 2015).

    X_ii = 0.5 Z_i^2.4 and X_ij = Z_i Z_j / |B · Σ_k e_k sin²(π e_k · B⁻¹ · (r_i - r_j))|, the
    columns of B being the lattice vectors. A cell of one atom has X = 0.5 Z^2.4, whatever its size.

    Args:
        numbers: nuclear charges Z, [n].
        positions: r in Å, [n, 3].
        cell: rows are lattice vectors in Å, [3, 3].
    """
    # dscribe's SineMatrix fails with ase 3.28 and newer
    charges = numbers.astype(float)
    fractional = (positions[:, None] - positions) @ np.linalg.inv(cell)
    lengths = np.linalg.norm(np.sin(np.pi * fractional) ** 2 @ cell, axis=2)
    np.fill_diagonal(lengths, 1.0)
    matrix = charges[:, None] * charges / lengths
    np.fill_diagonal(matrix, 0.5 * charges**2.4)
    return _sorted(matrix)


MOLECULES = {"coulomb": coulomb}
CRYSTALS = {"extended_coulomb": extended_coulomb, "ewald": ewald, "sine": sine}
DESCRIPTORS = MOLECULES | CRYSTALS
FROM_DSCRIBE = ("coulomb", "ewald")


def _sorted(matrix: np.ndarray) -> np.ndarray:
    """Rows and columns by the norm of the rows, descending."""
    order = np.argsort(-np.linalg.norm(matrix, axis=1), kind="stable")
    return matrix[order][:, order]


def check_periodic(descriptor: str, periodic: bool, where: str) -> None:
    """Raise DataError for crystals where molecules are described, or the other way round."""
    if periodic and descriptor in MOLECULES:
        others = ", ".join(CRYSTALS)
        raise DataError(
            f"{where}: the descriptor {descriptor} takes molecules only; for crystals: {others}"
        )
    if not periodic and descriptor in CRYSTALS:
        others = ", ".join(MOLECULES)
        raise DataError(
            f"{where}: the descriptor {descriptor} takes crystals only; for molecules: {others}"
        )


@dataclass(frozen=True)
class Matrices:
    """Matrices of M structures with n_1, …, n_M atoms.

    Attributes:
        values: one matrix after the other, row by row, [Σ n²] float64.
        sizes: n of every structure, [M].
    """

    values: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, k: int) -> np.ndarray:
        """The matrix of structure k, [n, n]."""
        start = (self.sizes[:k] ** 2).sum()
        return self.values[start : start + self.sizes[k] ** 2].reshape(self.sizes[k], -1)

    def by_size(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For every size n that occurs: which structures have it [K], their matrices [K, n, n]."""
        starts = np.concatenate([[0], np.cumsum(self.sizes**2)])
        groups = []
        for n in np.unique(self.sizes):
            which = np.flatnonzero(self.sizes == n)
            matrices = [self.values[starts[k] : starts[k + 1]] for k in which]
            groups.append((which, np.stack(matrices).reshape(-1, n, n)))
        return groups


def memory(sizes: np.ndarray) -> int:
    """Bytes that the matrices of structures with so many atoms each take."""
    return NUMBER * int((np.asarray(sizes, np.int64) ** 2).sum())


def matrices(descriptor: str, structures: Structures) -> Matrices:
    """The sorted matrices of structures.

    Of 3,000 crystals of the Materials Project with at most 60 atoms, 20 on average, they took 46 s
    by ``ewald``, 9 s by ``extended_coulomb`` and 0.5 s by ``sine`` on one core (processor time),
    the distances of all pairs 5 s. Ewald sums of 300 atoms took 1.6 s each.

    Args:
        descriptor: one of DESCRIPTORS.
        structures: M molecules, or crystals with their cells.

    Raises:
        DataError: molecules where the descriptor is for crystals, or the other way round.
        SchNetError: dscribe is needed and not there.
    """
    check_periodic(descriptor, structures.cell is not None, "structures")
    function = DESCRIPTORS[descriptor]
    numbers = structures.atomic_numbers.cpu().numpy()
    positions = structures.positions.cpu().numpy()
    sizes = structures.counts.cpu().numpy()
    cells = [None] * len(sizes) if structures.cell is None else structures.cell.cpu().numpy()
    cuts = pairwise(structures.offsets.cpu().numpy())
    found = [
        function(numbers[a:b], positions[a:b], cell).ravel()
        for (a, b), cell in zip(cuts, cells, strict=True)
    ]
    return Matrices(np.concatenate(found), sizes)


def distances(power: int, x: Matrices, y: Matrices) -> np.ndarray:
    """Σ|x - y|^power over the elements of all pairs of matrices, [len(x), len(y)].

    Args:
        power: 1 or 2.
        x, y: as if padded with zeros to one size.
    """
    out = np.empty((len(x), len(y)))
    groups = y.by_size()
    for rows, a in x.by_size():
        for columns, b in groups:
            out[np.ix_(rows, columns)] = _between(power, a, b)
    return out


def _between(power: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same for matrices of one size [K, n, n] and those of another [L, m, m]: [K, L]."""
    from sklearn.metrics.pairwise import euclidean_distances, manhattan_distances

    common = min(a.shape[1], b.shape[1])
    inner = [m[:, :common, :common].reshape(len(m), -1) for m in (a, b)]
    if power == 1:
        between = manhattan_distances(*inner)
    else:
        between = euclidean_distances(*inner, squared=True)
    return between + _outside(power, a, common)[:, None] + _outside(power, b, common)


def _outside(power: int, matrices: np.ndarray, common: int) -> np.ndarray:
    """What the elements beyond the first ``common`` rows and columns add, [K]."""
    below = np.abs(matrices[:, common:]) ** power
    right = np.abs(matrices[:, :common, common:]) ** power
    return below.sum((1, 2)) + right.sum((1, 2))
