"""Structures in memory as flat tensors, and batches of them without a Python loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from schnet.data.store import Store, neighbour_pairs
from schnet.errors import DataError


@dataclass
class Batch:
    """B structures with N atoms and P unordered pairs of neighbours in all.

    atomic_numbers [N] int32; positions [N, 3] Å; atom_ptr [B + 1] int64: structure b owns atoms
    atom_ptr[b]:atom_ptr[b + 1]; pair_ptr [B + 1] likewise for pairs; i, j [P] int32; shift [P, 3] Å
    or None: the neighbour of atom i is the image of atom j at positions[j] + shift; n_neighbours [N]
    or None where a model does not ask for it; rows [N] the atoms' places in the Structures that they are from.
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

    @property
    def n_atoms(self) -> Tensor:
        return self.atom_ptr[1:] - self.atom_ptr[:-1]

    @property
    def structure(self) -> Tensor:
        """[N] the structure each atom belongs to."""
        structures = torch.arange(len(self), device=self.atom_ptr.device)
        return torch.repeat_interleave(structures, self.n_atoms, output_size=len(self.positions))

    def __len__(self):
        return len(self.atom_ptr) - 1

    def to(self, device=None, dtype=None) -> Batch:
        def move(t):
            if t is None:
                return None
            return t.to(device=device, dtype=dtype if t.is_floating_point() else None)

        return Batch(*(move(getattr(self, f)) for f in self.__dataclass_fields__))


@dataclass(frozen=True)
class Room:
    """A fixed size for batches, numbers of atoms and pairs: one more structure takes what is missing.

    Its pairs join atoms with images of themselves and so exert no forces, at distances (in Å) from one to the other:
    were they the same, one bin of a filter table would have them all.
    """

    n_atoms: int
    n_pairs: int
    distances: tuple[float, float]


def _fill(start: Tensor, count: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """One more range, from 0, that makes total numbers in all."""
    return torch.cat([start, start.new_zeros(1)]), torch.cat([count, (total - count.sum())[None]])


def _ranges(start: Tensor, count: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Concatenation of start[b] + (0 … count[b] - 1), total numbers in all, and the pointers [B + 1] to its parts."""
    ptr = torch.zeros(len(count) + 1, dtype=torch.int64, device=count.device)
    torch.cumsum(count, 0, out=ptr[1:])
    rows = torch.arange(total, device=count.device) + torch.repeat_interleave(start - ptr[:-1], count, output_size=total)
    return rows, ptr


class Structures:
    """A set of structures, resident on one device.

    Pairs are stored as indices local to their structure. Molecules without a cutoff share one
    triangular list per number of atoms, so all-pairs lists cost no memory.
    """

    def __init__(self, atomic_numbers, positions, offsets, *, cell=None, pairs=None, properties=None, device="cpu", dtype=torch.float32):
        """atomic_numbers [N], positions [N, 3], offsets [M + 1]; pairs: (pair_offsets [M + 1], i, j, shift) or None
        for all pairs of each structure; properties: {name: array [M] or [N, 3]} kept in float64."""

        def tensor(array, dtype):
            return torch.as_tensor(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

        self.atomic_numbers = tensor(atomic_numbers, torch.int32)
        self.positions = tensor(positions, dtype)
        self.offsets = tensor(offsets, torch.int64)
        self.counts = self.offsets[1:] - self.offsets[:-1]
        self.properties = {name: tensor(value, torch.float64) for name, value in (properties or {}).items()}
        self.cell = None if cell is None else tensor(cell, dtype)
        self.n_neighbours = None
        counts = np.diff(np.asarray(offsets))
        index = torch.int16 if counts.max(initial=0) < 32768 else torch.int32
        if pairs is None:
            sizes = np.unique(counts)
            starts = np.zeros(sizes.max(initial=0) + 1, np.int64)
            parts, total = [], 0
            for n in sizes:
                starts[n] = total
                parts.append(np.stack(np.triu_indices(n, 1)))
                total += parts[-1].shape[1]
            table = np.concatenate(parts, 1)
            self.pair_i, self.pair_j = tensor(table[0], index), tensor(table[1], index)
            self.pair_start = tensor(starts[counts], torch.int64)
            self.pair_count = tensor(counts * (counts - 1) // 2, torch.int64)
            self.pair_shift = None
        else:
            pair_offsets, i, j, shift = pairs
            self.pair_i, self.pair_j = tensor(i, index), tensor(j, index)
            self.pair_start = tensor(pair_offsets[:-1], torch.int64)
            self.pair_count = tensor(np.diff(pair_offsets), torch.int64)
            self.pair_shift = None if shift is None else tensor(shift, torch.int8)
            first = np.repeat(np.asarray(offsets)[:-1] - offsets[0], np.diff(pair_offsets))
            n = np.bincount(np.asarray(i) + first, minlength=len(atomic_numbers))
            n += np.bincount(np.asarray(j) + first, minlength=len(atomic_numbers))
            self.n_neighbours = tensor(n, dtype)

        self._n_atoms, self._n_pairs = self.counts.cpu().numpy(), self.pair_count.cpu().numpy()

    def __len__(self):
        return len(self.counts)

    def on_device(self, indices: Tensor) -> Tensor:
        """Indices where the data are, without waiting for what a GPU has still to do."""
        return indices.to(self.offsets.device, non_blocking=True)

    def size(self, indices: Tensor) -> tuple[int, int]:
        """Numbers of atoms and pairs of the given structures; indices in the memory of the CPU need no look at a GPU."""
        indices = indices.cpu().numpy()
        return int(self._n_atoms[indices].sum()), int(self._n_pairs[indices].sum())

    def fits(self, indices: Tensor, room: Room) -> bool:
        """Whether a batch of the given structures has room, with one atom to spare."""
        n_atoms, n_pairs = self.size(indices)
        return n_atoms < room.n_atoms and n_pairs <= room.n_pairs

    def batch(self, indices: Tensor, room: Room | None = None) -> Batch:
        """The given structures; with room for them (see ``fits``) the host asks nothing of a GPU, whatever they are."""
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
            rows, pair_rows = rows.clamp_(max=len(self.positions) - 1), pair_rows.clamp_(max=len(self.pair_i) - 1)
        first = torch.repeat_interleave(atom_ptr[:-1].to(torch.int32), pair_count, output_size=n_pairs)
        i, j, shift = self.pair_i[pair_rows] + first, self.pair_j[pair_rows] + first, None
        if self.pair_shift is not None:
            cell = torch.repeat_interleave(self.cell[indices], pair_count, dim=0, output_size=n_pairs)
            shift = torch.einsum("pk,pkc->pc", self.pair_shift[pair_rows].to(self.positions.dtype), cell)
        if room:
            k = torch.arange(n_pairs, device=i.device)
            real, ghost = k < pair_ptr[-2], (atom_ptr[-2] + k % count[-1]).to(i.dtype)
            i, j = torch.where(real, i, ghost), torch.where(real, j, ghost)
            away = torch.linspace(*room.distances, 64, dtype=self.positions.dtype, device=i.device)[k % 64] / math.sqrt(3)
            away = away.masked_fill(real, 0)[:, None].expand(-1, 3)
            shift = away if shift is None else torch.where(real[:, None], shift, away)
        return Batch(
            self.atomic_numbers[rows],
            self.positions[rows],
            atom_ptr,
            pair_ptr,
            i,
            j,
            shift,
            None if self.n_neighbours is None else self.n_neighbours[rows],
            rows,
        )

    def distance_range(self) -> tuple[float, float]:
        """Smallest and largest distance of all pairs, in Å."""
        lo, hi = float("inf"), 0.0
        for part in torch.arange(len(self)).split(4096):
            b = self.batch(part)
            if len(b.i):
                d = b.positions[b.j.long()] - b.positions[b.i.long()]
                d = (d if b.shift is None else d + b.shift).norm(dim=1)
                lo, hi = min(lo, d.min().item()), max(hi, d.max().item())
        return (lo, hi) if lo <= hi else (0.0, 1.0)


def load(store: Store, indices, properties, *, cutoff: float | None = None, device="cpu", dtype=torch.float32) -> Structures:
    """Read the given structures (any order, kept) and properties of a store into memory.

    Raises DataError for an unknown property and when the store's neighbour lists have another cutoff.
    """
    for name in properties:
        store.require(name)
    if cutoff is not None and store.cutoff != cutoff:
        raise DataError(f"{store.path}: has neighbours within {store.cutoff} Å, the model wants {cutoff} Å; convert it again with --cutoff {cutoff}")
    indices = np.asarray(indices, np.int64)
    order = np.argsort(indices, kind="stable")
    back = np.argsort(order, kind="stable")

    def ragged(dataset, offsets):
        """Rows of all wanted structures, read in few large pieces."""
        starts, ends = offsets[indices], offsets[indices + 1]
        lo, hi = starts.min(initial=len(dataset)), ends.max(initial=0)
        if hi - lo <= 4 * (ends - starts).sum():  # dense enough: one read
            everything = dataset[lo:hi]
            return np.concatenate([everything[a - lo : b - lo] for a, b in zip(starts, ends, strict=True)])
        parts = [dataset[starts[k] : ends[k]] for k in order]
        return np.concatenate([parts[k] for k in back])

    def rows(dataset):
        return dataset[:][indices]

    with store.open() as h5:
        counts = np.diff(store.offsets)[indices]
        values = {}
        for name in properties:
            d = h5[f"properties/{name}"]
            values[name] = ragged(d, store.offsets) if store.properties[name].per_atom else rows(d)
        cell = pairs = None
        if cutoff is not None:
            cell = rows(h5["cell"])
            offsets = h5["neighbours/offsets"][:]
            i, j, shift = (ragged(h5[f"neighbours/{key}"], offsets) for key in ("i", "j", "shift"))
            pairs = (np.concatenate([[0], np.cumsum(np.diff(offsets)[indices])]), i, j, shift)
        return Structures(
            ragged(h5["atomic_numbers"], store.offsets),
            ragged(h5["positions"], store.offsets),
            np.concatenate([[0], np.cumsum(counts)]),
            cell=cell,
            pairs=pairs,
            properties=values,
            device=device,
            dtype=dtype,
        )


def from_atoms(atoms_list, *, cutoff: float | None = None, device="cpu", dtype=torch.float32) -> Structures:
    """Structures from ase.Atoms; with ``cutoff``, neighbour lists with periodic images (vesin)."""
    numbers = [a.numbers for a in atoms_list]
    offsets = np.concatenate([[0], np.cumsum([len(n) for n in numbers])])
    positions = np.concatenate([a.positions for a in atoms_list])
    cell = pairs = None
    for a in atoms_list:
        if cutoff is None and a.pbc.any():
            raise DataError(f"{a.get_chemical_formula()}: periodic, but the model has no cutoff; it was trained on molecules")
        if cutoff is not None and a.pbc.any() and not a.pbc.all():
            raise DataError(f"{a.get_chemical_formula()}: periodic in some directions only; add vacuum and set pbc=True")
        if a.pbc.any() and abs(np.linalg.det(a.cell.array)) < 1e-3:
            raise DataError(f"{a.get_chemical_formula()}: the cell has no volume")
    if cutoff is not None:
        lists = [neighbour_pairs(a.positions, a.cell.array if a.pbc.any() else None, cutoff) for a in atoms_list]
        for a, (i, j, _) in zip(atoms_list, lists, strict=True):
            missing = np.setdiff1d(np.arange(len(a)), np.concatenate([i, j]))
            if len(missing):
                raise DataError(f"{a.get_chemical_formula()}: atom {missing[0]} has no neighbour within {cutoff} Å")
        pairs = (
            np.concatenate([[0], np.cumsum([len(p[0]) for p in lists])]),
            *(np.concatenate([p[k] for p in lists]) for k in range(3)),
        )
        cell = np.stack([a.cell.array for a in atoms_list])
    return Structures(np.concatenate(numbers), positions, offsets, cell=cell, pairs=pairs, device=device, dtype=dtype)
