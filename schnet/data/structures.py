"""Structures in memory as flat tensors, and batches of them without a Python loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from schnet.data.neighbours import (
    checked_pairs,
    find_neighbours,
    read_neighbours,
    read_ragged,
    read_rows,
)
from schnet.data.store import MAX_Z, Store
from schnet.errors import DataError, first_line

if TYPE_CHECKING:
    from ase import Atoms


@dataclass
class Batch:
    """B structures with N atoms and P unordered pairs of neighbours in all.

    Attributes:
        atomic_numbers: [N] int32.
        positions: [N, 3] in Å.
        atom_ptr: [B + 1] int64: structure b owns atoms atom_ptr[b]:atom_ptr[b + 1].
        pair_ptr: [B + 1], likewise for pairs.
        i, j: [P] int32, the atoms of a pair.
        shift: [P, 3] in Å: the neighbour of atom i is the image of atom j at positions[j] + shift;
            None without periodicity.
        n_neighbours: [N], at least 1; None without a cutoff.
        rows: [N], the atoms' places in the Structures that they are from.
        sends: [N], what every message of an atom to others is multiplied by: 0 for probes, which
            sense without being sensed; None: 1. Heeded by models with ``probes`` only.
    """

    atomic_numbers: Tensor
    positions: Tensor
    atom_ptr: Tensor
    pair_ptr: Tensor
    i: Tensor
    j: Tensor
    shift: Tensor | None = None
    n_neighbours: Tensor | None = None
    rows: Tensor | None = None
    sends: Tensor | None = None

    @property
    def n_atoms(self) -> Tensor:
        """[B] the number of atoms of each structure."""
        return self.atom_ptr[1:] - self.atom_ptr[:-1]

    @property
    def structure(self) -> Tensor:
        """[N] the structure each atom belongs to."""
        structures = torch.arange(len(self), device=self.atom_ptr.device)
        return torch.repeat_interleave(structures, self.n_atoms, output_size=len(self.positions))

    def vectors(self) -> Tensor:
        """r_j - r_i of every pair, from an atom to its neighbour, [P, 3] in Å."""
        r = self.positions.index_select(0, self.j) - self.positions.index_select(0, self.i)
        return r if self.shift is None else r + self.shift

    def distances(self) -> Tensor:
        """Distance of every pair, [P] in Å."""
        return self.vectors().norm(dim=1)

    def __len__(self):
        return len(self.atom_ptr) - 1

    def to(self, device=None, dtype=None) -> Batch:
        """The same on another device, with another type of floating-point numbers."""

        def move(t):
            if t is None:
                return None
            return t.to(device=device, dtype=dtype if t.is_floating_point() else None)

        return Batch(*(move(getattr(self, f)) for f in self.__dataclass_fields__))


@dataclass(frozen=True)
class Room:
    """A fixed size for batches, in atoms and pairs: one more structure takes what is missing.

    Its pairs join atoms with images of themselves and so exert no forces. Their distances spread
    over the range ``distances`` (in Å): were they the same, one bin of a filter table would have
    them all.
    """

    n_atoms: int
    n_pairs: int
    distances: tuple[float, float]


def _fill(start: Tensor, count: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """One more range, from 0, that makes total numbers in all."""
    return torch.cat([start, start.new_zeros(1)]), torch.cat([count, (total - count.sum())[None]])


def _ranges(start: Tensor, count: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Ranges start[b] + (0 … count[b] - 1), one after the other: ``total`` numbers in all.

    Returns them and the pointers [B + 1] to where each range begins.
    """
    ptr = torch.zeros(len(count) + 1, dtype=torch.int64, device=count.device)
    torch.cumsum(count, 0, out=ptr[1:])
    rows = torch.arange(total, device=count.device) + torch.repeat_interleave(
        start - ptr[:-1], count, output_size=total
    )
    return rows, ptr


def _all_pairs(counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """One triangular list of pairs for every number of atoms that occurs.

    Returns where the list of each structure starts [M], how many pairs it has [M], and the lists i
    and j, one after the other.
    """
    starts = np.zeros(counts.max(initial=0) + 1, np.int64)
    lists, total = [np.zeros((2, 0), np.int64)], 0
    for n in np.unique(counts):
        starts[n] = total
        lists.append(np.stack(np.triu_indices(n, 1)))
        total += lists[-1].shape[1]
    i, j = np.concatenate(lists, 1)
    return starts[counts], counts * (counts - 1) // 2, i, j


def _not_empty(rows) -> np.ndarray:
    """The rows, or one of zeros where there are none: batches that are filled up copy some."""
    rows = np.asarray(rows)
    return rows if len(rows) else np.zeros((1, *rows.shape[1:]), np.int64)


def _with_ghosts(batch: Batch, room: Room) -> Batch:
    """A batch whose last structure has pairs of atoms with images of themselves only."""
    i, j = batch.i, batch.j
    atom_ptr, pair_ptr = batch.atom_ptr, batch.pair_ptr
    n_ghosts = atom_ptr[-1] - atom_ptr[-2]
    k = torch.arange(len(i), device=i.device)
    real = k < pair_ptr[-2]
    ghost = (atom_ptr[-2] + k % n_ghosts).to(i.dtype)
    dtype = batch.positions.dtype
    distances = torch.linspace(*room.distances, 64, dtype=dtype, device=i.device)[k % 64]
    # along the diagonal: the same in x, y and z
    away = (distances / math.sqrt(3)).masked_fill(real, 0)[:, None].expand(-1, 3)
    return replace(
        batch,
        i=torch.where(real, i, ghost),
        j=torch.where(real, j, ghost),
        shift=away if batch.shift is None else torch.where(real[:, None], batch.shift, away),
    )


class Structures:
    """A set of structures, resident on one device.

    Pairs are stored as indices local to their structure. Molecules without a cutoff share one
    triangular list per number of atoms, so all-pairs lists cost no memory.
    """

    def __init__(
        self,
        atomic_numbers,
        positions,
        offsets,
        *,
        cell=None,
        pairs=None,
        properties=None,
        device="cpu",
        dtype=torch.float32,
    ):
        """Move the structures to a device.

        Args:
            atomic_numbers: [N], from 1 to 99.
            positions: [N, 3] in Å.
            offsets: [M + 1]: structure m owns atoms offsets[m]:offsets[m + 1].
            cell: [M, 3, 3] in Å, of crystals.
            pairs: (pair_offsets [M + 1], i, j, shift or None) with a cutoff; None: all pairs.
            properties: arrays [M] or [N, 3] by name, kept in float64.
            device, dtype: where the structures are kept, and the type of the positions.

        Raises:
            DataError: an atomic number that does not exist.
        """
        numbers = np.asarray(atomic_numbers)
        check_numbers(numbers)

        def tensor(array, dtype):
            return torch.as_tensor(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

        self.atomic_numbers = tensor(atomic_numbers, torch.int32)
        self.positions = tensor(positions, dtype)
        self.offsets = tensor(offsets, torch.int64)
        self.counts = self.offsets[1:] - self.offsets[:-1]
        self.properties = {
            name: tensor(value, torch.float64) for name, value in (properties or {}).items()
        }
        self.cell = None if cell is None else tensor(cell, dtype)
        counts = np.diff(np.asarray(offsets))
        self.n_neighbours = self.pair_shift = None
        if pairs is None:
            starts, pair_counts, i, j = _all_pairs(counts)
        else:
            pair_offsets, i, j, shift = pairs
            starts, pair_counts = pair_offsets[:-1], np.diff(pair_offsets)
            self.pair_shift = None if shift is None else tensor(_not_empty(shift), torch.int8)
            first = np.repeat(np.asarray(offsets)[:-1] - offsets[0], pair_counts)
            n = np.bincount(np.asarray(i) + first, minlength=len(numbers))
            n += np.bincount(np.asarray(j) + first, minlength=len(numbers))
            # at least 1: an atom without neighbours has no response that could be divided
            self.n_neighbours = tensor(np.maximum(n, 1), dtype)
        index = torch.int16 if counts.max(initial=0) < 32768 else torch.int32
        self.pair_i, self.pair_j = tensor(_not_empty(i), index), tensor(_not_empty(j), index)
        self.pair_start = tensor(starts, torch.int64)
        self.pair_count = tensor(pair_counts, torch.int64)
        # on the host as well: sizes of batches are asked for at every step
        self._n_atoms, self._n_pairs = counts, np.asarray(pair_counts)

    def __len__(self):
        return len(self.counts)

    def on_device(self, indices: Tensor) -> Tensor:
        """Indices where the data are, without waiting for what a GPU has still to do."""
        return indices.to(self.offsets.device, non_blocking=True)

    def size(self, indices: Tensor) -> tuple[int, int]:
        """Numbers of atoms and pairs of the given structures.

        Indices in the memory of the CPU need no look at a GPU.
        """
        which = indices.cpu().numpy()
        return int(self._n_atoms[which].sum()), int(self._n_pairs[which].sum())

    def batch(self, indices: Tensor, room: Room | None = None) -> Batch:
        """The given structures as a batch.

        Args:
            indices: [B] int64.
            room: fill the batch up to this size, at least one atom more than it has. Then the host
                asks nothing of a GPU, and shapes are the same whatever the structures are.
        """
        n_atoms, n_pairs = (room.n_atoms, room.n_pairs) if room else self.size(indices)
        indices = self.on_device(indices)
        start, count = self.offsets[indices], self.counts[indices]
        pair_start, pair_count = self.pair_start[indices], self.pair_count[indices]
        if room:
            start, count = _fill(start, count, n_atoms)
            pair_start, pair_count = _fill(pair_start, pair_count, n_pairs)
            indices = torch.cat([indices, indices[:1]])
        rows, atom_ptr = _ranges(start, count, n_atoms)
        pair_rows, pair_ptr = _ranges(pair_start, pair_count, n_pairs)
        if room:  # what fills up are copies of the first rows, as far as there are some
            rows.clamp_(max=len(self.positions) - 1)
            pair_rows.clamp_(max=len(self.pair_i) - 1)
        first = torch.repeat_interleave(
            atom_ptr[:-1].to(torch.int32), pair_count, output_size=n_pairs
        )
        batch = Batch(
            self.atomic_numbers[rows],
            self.positions[rows],
            atom_ptr,
            pair_ptr,
            self.pair_i[pair_rows] + first,
            self.pair_j[pair_rows] + first,
            self._shift(indices, pair_rows, pair_count),
            None if self.n_neighbours is None else self.n_neighbours[rows],
            rows,
        )
        return _with_ghosts(batch, room) if room else batch

    def _shift(self, indices: Tensor, pair_rows: Tensor, pair_count: Tensor) -> Tensor | None:
        """The shifts of the pairs of a batch, [P, 3] in Å."""
        if self.pair_shift is None:
            return None
        cell = torch.repeat_interleave(
            self.cell[indices], pair_count, dim=0, output_size=len(pair_rows)
        )
        vectors = self.pair_shift[pair_rows].to(self.positions.dtype)
        return torch.einsum("pk,pkc->pc", vectors, cell)

    def distance_range(self) -> tuple[float, float]:
        """Smallest and largest distance of all pairs, in Å."""
        lo, hi = float("inf"), 0.0
        for part in torch.arange(len(self)).split(4096):
            b = self.batch(part)
            if len(b.i):
                d = b.distances()
                lo, hi = min(lo, d.min().item()), max(hi, d.max().item())
        return (lo, hi) if lo <= hi else (0.0, 1.0)


def load(
    store: Store,
    indices,
    properties,
    *,
    cutoff: float | None = None,
    neighbours=None,
    device="cpu",
    dtype=torch.float32,
) -> Structures:
    """Read the given structures and properties of a data set into memory.

    Args:
        store: the data set.
        indices: of the structures, in any order, which is kept.
        properties: names of the properties.
        cutoff: neighbours within this distance in Å; None: all pairs of each structure.
        neighbours: file of ``schnet data neighbours`` with this cutoff; None: the lists are
            computed here, which takes about a millisecond for a crystal.
        device, dtype: see Structures.

    Raises:
        DataError: an unknown property, a file of neighbours that does not fit, or an atom of a
            crystal without neighbours.
    """
    for name in properties:
        store.require(name)
    indices = np.asarray(indices, np.int64)
    pairs = None
    if cutoff is not None and neighbours is None:
        pairs = find_neighbours(store, indices, cutoff)
    elif cutoff is not None:
        pairs = read_neighbours(neighbours, store, indices, cutoff)
    with store.open() as h5:
        values = {}
        for name in properties:
            dataset = h5[f"properties/{name}"]
            if store.properties[name].per_atom:
                values[name] = read_ragged(dataset, store.offsets, indices)
            else:
                values[name] = read_rows(dataset, indices)
        counts = np.diff(store.offsets)[indices]
        return Structures(
            read_ragged(h5["atomic_numbers"], store.offsets, indices),
            read_ragged(h5["positions"], store.offsets, indices),
            np.concatenate([[0], np.cumsum(counts)]),
            cell=read_rows(h5["cell"], indices) if store.periodic else None,
            pairs=pairs,
            properties=values,
            device=device,
            dtype=dtype,
        )


def check_lengths(path) -> None:
    """Look whether an XYZ file holds the atoms that it announces: ASE looks for them for ever.

    Raises:
        DataError: it ends before.
    """
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            word = line.strip()
            if not word.isdecimal():
                return  # the end, or nothing that ASE takes for the beginning of a structure
            count = int(word[:18]) + 1  # atoms and a comment
            if sum(1 for _ in islice(lines, count)) < count:
                raise DataError(f"{path}: ends before the {word} atoms that it announces")


def read_images(path, index: str | None = ":") -> list[Atoms]:
    """Structures of any file that ASE reads.

    Args:
        path: the file.
        index: which of them, as in ase.io.read; None: what ``FILE@INDEX`` says, or the last.

    Raises:
        DataError: there is no such file, ASE cannot read it, or a structure has no atoms or
            elements that models do not know.
    """
    from ase import Atoms
    from ase.io import read

    if str(path).endswith("xyz") and Path(path).exists():
        check_lengths(path)
    try:
        images = read(path, index=index)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # ASE's readers raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"{path}: cannot be read by ASE ({reason})") from error
    images = [images] if isinstance(images, Atoms) else list(images)
    for k, atoms in enumerate(images):
        if not len(atoms):
            raise DataError(f"{path}: structure {k} has no atoms")
        try:
            check_numbers(atoms.numbers)
        except DataError as error:
            raise DataError(f"{path}: structure {k}: {error}") from error
    return images


def check_numbers(numbers: np.ndarray) -> None:
    """Raise DataError unless models know all elements."""
    wrong = numbers[(numbers < 1) | (numbers >= MAX_Z)]
    if len(wrong):
        raise DataError(f"atomic number {wrong[0]}: models know elements 1–{MAX_Z - 1}")


def from_atoms(
    atoms_list, *, cutoff: float | None = None, device="cpu", dtype=torch.float32
) -> Structures:
    """Structures from ase.Atoms.

    Args:
        atoms_list: the structures; periodic ones need a cutoff.
        cutoff: neighbours within this distance in Å, with periodic images; None: all pairs.
        device, dtype: see Structures.

    Raises:
        DataError: periodic without a cutoff or in some directions only, a cell without volume, an
            atom of a crystal without neighbours, a position that is not a finite number, or an
            element that models do not know.
    """
    for atoms in atoms_list:
        _check_periodicity(atoms, cutoff)
        lost = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
        if len(lost):
            raise DataError(f"the position of atom {lost[0]} is not a finite number")
    cell = pairs = None
    if cutoff is not None:
        lists = [
            checked_pairs(
                atoms.positions,
                atoms.cell.array if atoms.pbc.any() else None,
                cutoff,
                atoms.get_chemical_formula(),
            )
            for atoms in atoms_list
        ]
        pair_offsets = np.concatenate([[0], np.cumsum([len(i) for i, _, _ in lists])])
        i, j, shift = (np.concatenate([each[k] for each in lists]) for k in range(3))
        pairs = pair_offsets, i, j, shift
        cell = np.stack([atoms.cell.array for atoms in atoms_list])
    return Structures(
        np.concatenate([atoms.numbers for atoms in atoms_list]),
        np.concatenate([atoms.positions for atoms in atoms_list]),
        np.concatenate([[0], np.cumsum([len(atoms) for atoms in atoms_list])]),
        cell=cell,
        pairs=pairs,
        device=device,
        dtype=dtype,
    )


def _check_periodicity(atoms, cutoff: float | None) -> None:
    """Raise DataError where the periodicity of ase.Atoms is not what a model can take."""
    if not atoms.pbc.any():
        return
    formula = atoms.get_chemical_formula()
    if cutoff is None:
        raise DataError(
            f"{formula}: periodic, but the model has no cutoff; it was trained on molecules"
        )
    if not atoms.pbc.all():
        raise DataError(f"{formula}: periodic in some directions only; add vacuum and set pbc=True")
    if abs(np.linalg.det(atoms.cell.array)) < 1e-3:
        raise DataError(f"{formula}: the cell has no volume")
