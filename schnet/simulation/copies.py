"""Copies of one structure at changing positions, with pairs that are kept from step to step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from schnet.data.neighbours import checked_pairs
from schnet.data.structures import Batch, from_atoms
from schnet.errors import DataError
from schnet.training_range import distances_of

SKIN = 0.5  # Å beyond the cutoff in which pairs are kept from step to step


class NeighbourList:
    """Pairs of one structure within a cutoff; found anew only when atoms have moved far.

    Pairs within the cutoff plus a skin are kept until an atom has moved by half of the skin, or the
    cell has changed; those within the cutoff are picked from them every time. Their order depends
    on nothing but which pairs they are, so neither do the bits of what is computed from them.

    Args:
        cutoff, skin: in Å.

    Attributes:
        searches: how often pairs were looked for.
    """

    def __init__(self, cutoff: float, skin: float = SKIN):
        self.cutoff, self.skin = cutoff, skin
        self.searches = 0
        self._reference: np.ndarray | None = None
        self._cell: np.ndarray | None = None

    def pairs(self, positions: np.ndarray, cell: np.ndarray | None, where: str = "structure"):
        """i [P], j [P] and shift [P, 3] in Å: the neighbour of i is at positions[j] + shift.

        Args:
            positions: [n, 3] in Å.
            cell: [3, 3] in Å; None without periodicity.
            where: the structure's name in errors.

        Raises:
            DataError: an atom of a crystal has no neighbour.
        """
        if self._outdated(positions, cell):
            self._search(positions, cell, where)
        r = positions[self._j] - positions[self._i] + self._shift
        near = np.einsum("pc,pc->p", r, r) < self.cutoff**2
        return self._i[near], self._j[near], self._shift[near]

    def _outdated(self, positions, cell) -> bool:
        if self._reference is None or len(self._reference) != len(positions):
            return True
        if (cell is None) != (self._cell is None):
            return True
        if cell is not None and (cell != self._cell).any():
            return True
        moved = positions - self._reference
        return np.einsum("nc,nc->n", moved, moved).max() > (0.5 * self.skin) ** 2

    def _search(self, positions, cell, where) -> None:
        i, j, images = checked_pairs(positions, cell, self.cutoff + self.skin, where)
        backwards = (i > j) | ((i == j) & (_leading_sign(images) < 0))
        i, j = np.where(backwards, j, i), np.where(backwards, i, j)
        images = np.where(backwards[:, None], -images, images)
        order = np.lexsort((*images.T, j, i))
        self._i, self._j = i[order], j[order]
        shift = images[order].astype(float)
        self._shift = shift @ cell if cell is not None else shift
        self._reference = positions.copy()
        self._cell = None if cell is None else np.array(cell, float)
        self.searches += 1


def _leading_sign(images: np.ndarray) -> np.ndarray:
    """Sign of the first number that is not zero, [P]."""
    a, b, c = np.sign(images).T
    return np.where(a != 0, a, np.where(b != 0, b, c))


class Copies:
    """Batches of copies of one structure at changing positions, made with as little work as can be.

    Args:
        atoms: the structure.
        cutoff: of the model in Å, or None.
        copies: how many, B.
        skin: of the neighbour lists in Å.
        device, dtype: of the batches.

    Raises:
        DataError: see ``from_atoms``.
    """

    def __init__(self, atoms: Atoms, cutoff: float | None, copies: int, skin: float, device, dtype):
        self.cutoff, self.device, self.dtype = cutoff, device, dtype
        self._rounded = torch.empty(0, dtype=dtype).numpy().dtype
        self.name = atoms.get_chemical_formula()
        self.lists = [NeighbourList(cutoff, skin) for _ in range(copies)] if cutoff else []
        # also checks periodicity and elements; without a cutoff its pairs stay
        structures = from_atoms([atoms] * copies, cutoff=cutoff, device=device, dtype=dtype)
        self._batch = structures.batch(torch.arange(copies, device=device))

    def distances(self) -> tuple[float, float]:
        """Smallest and largest distance in Å of the pairs of the present batch."""
        return distances_of(self._batch)

    def batch(self, positions: np.ndarray, cell: np.ndarray | None) -> Batch:
        """The copies at positions [B, n, 3] in Å; cell [3, 3] in Å or None."""
        finite = np.isfinite(positions)
        if not finite.all():
            atom = int(np.argwhere(~finite)[0, 1])
            raise DataError(f"{self.name}: the position of atom {atom} is not a finite number")
        # about the centre of each: far from the origin float32 would round the distances
        centred = positions - positions.mean(1, keepdims=True)
        # rounded by numpy: PyTorch's conversion costs more than it does
        rounded = centred.reshape(-1, 3).astype(self._rounded)
        moved = torch.from_numpy(rounded).to(self.device)
        if self.cutoff is None:
            self._batch.positions = moved
            return self._batch
        n = positions.shape[1]
        found = [
            each.pairs(r, cell, self.name) for each, r in zip(self.lists, positions, strict=True)
        ]
        counts = [len(i) for i, _, _ in found]
        i = np.concatenate([i + k * n for k, (i, _, _) in enumerate(found)])
        j = np.concatenate([j + k * n for k, (_, j, _) in enumerate(found)])
        neighbours = np.bincount(i, minlength=len(moved)) + np.bincount(j, minlength=len(moved))
        self._batch = replace(
            self._batch,
            positions=moved,
            pair_ptr=self._tensor(np.concatenate([[0], np.cumsum(counts)]), torch.int64),
            i=self._tensor(i, torch.int32),
            j=self._tensor(j, torch.int32),
            shift=self._tensor(np.concatenate([s for *_, s in found]), self.dtype),
            # at least 1: an atom without neighbours has no response that could be divided
            n_neighbours=self._tensor(np.maximum(neighbours, 1), self.dtype),
        )
        return self._batch

    def _tensor(self, array, dtype) -> Tensor:
        return torch.as_tensor(array).to(device=self.device, dtype=dtype)
