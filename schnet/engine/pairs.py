"""The three operations of SchNet on pairs (schnet/engine/operations.py) in PyTorch."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from schnet.data.structures import Batch
from schnet.errors import OutsideTable


class _Groups:
    """Members [P] of n groups, given by the index of each member's group.

    ``order`` lists the members group by group; those of group k begin at ``offsets``[k], [n + 1].
    """

    def __init__(self, index: Tensor, n: int):
        self.index, self.order = index, torch.argsort(index, stable=True)
        # like every operation here, without a look from the host at what is on the GPU
        self.offsets = torch.searchsorted(
            index[self.order], torch.arange(n + 1, device=index.device)
        )


def _sums(x: Tensor, index: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sums of (weighted) rows x[index] from one offset to the next.

    Nothing in PyTorch sums rows faster.
    """
    return torch.embedding_bag(x, index, offsets, False, 0, False, weights, True)[0]


class Pairs:
    """Unordered pairs of a batch at distances d [P] in a grid of knots, and the operations on them.

    Arguments of the operations:
        h: factor of every pair [P], or None for ones.
        table: value, h W', h^2 W'' at every knot, [3 K, F].
        a, b, y: one row for every atom, [N, F].
        order: of the derivative by the distance.
    """

    name = "table"
    #: set to False once nothing but gradients of parameters is wanted: saves those by the distances
    by_distance = True

    def __init__(self, batch: Batch, grid, d: Tensor, checked: bool = True):
        """Sort the pairs of a batch into the bins of a grid.

        Raises:
            OutsideTable: where ``checked`` and a distance is outside the grid. On a GPU this waits
                for all that it has still to do.
        """
        if checked and len(d):
            lo, hi = torch.stack(torch.aminmax(d)).tolist()
            if not (lo > 0 and grid.lo <= lo and hi <= grid.hi):
                raise OutsideTable(grid.lo, grid.hi)
        u = ((d - grid.lo) / grid.h).clamp(max=grid.n_knots - 1)
        self.grid, self.n_pairs, n_atoms = grid, len(d), len(batch.positions)
        # every pair twice, once for either receiver
        self.receivers = _Groups(torch.cat([batch.i, batch.j]).long(), n_atoms)
        self.senders = torch.cat([batch.j, batch.i]).long()
        self.bin = u.floor().clamp(0, grid.n_knots - 2)
        self.t = u - self.bin
        self.bin = self.bin.long()
        self._weights: dict[int, Tensor] = {}
        self._memory: dict[str, Tensor] = {}

    @cached_property
    def bins(self) -> _Groups:
        """The pairs by the bin of the grid that their distance is in."""
        return _Groups(self.bin, self.grid.n_knots - 1)

    @cached_property
    def _powers(self) -> Tensor:
        """1, t, ..., t^5: [P, 6]"""
        t = self.t
        t2 = t * t
        t3 = t2 * t
        return torch.stack([torch.ones_like(t), t, t2, t3, t2 * t2, t3 * t2], 1)

    def weights(self, order: int) -> Tensor:
        """d^n/dd^n of the six Hermite weights, [P, 6]."""
        if order not in self._weights:
            self._weights[order] = self._powers[:, : 6 - order] @ self.grid.hermite(order, self.t)
        return self._weights[order]

    def _scaled_weights(self, h: Tensor | None, order: int) -> Tensor:
        """The weights of h W instead of W, [P, 6]."""
        return self.weights(order) if h is None else self.weights(order) * h[:, None]

    def _scratch(self, key, *shape) -> Tensor:
        """Memory that is the same at every call: fresh pages cost more than what they are for."""
        if key not in self._memory or self._memory[key].shape != shape:
            self._memory[key] = self.t.new_empty(shape)
        return self._memory[key]

    @cached_property
    def _knots(self) -> tuple[Tensor, Tensor]:
        """The six rows of the table for every pair [6 P], and where those of each begin [P + 1]."""
        six = torch.arange(6, device=self.t.device)
        return (3 * self.bin[:, None] + six).view(-1), torch.arange(
            0, 6 * self.n_pairs + 1, 6, device=self.t.device
        )

    def _filters(self, h: Tensor | None, table: Tensor, order: int) -> Tensor:
        """h W, [P, F]"""
        return _sums(table, *self._knots, self._scaled_weights(h, order).view(-1))

    def _rows(self, x: Tensor, index: Tensor, key: str) -> Tensor:
        """x of every pair twice, [2, P, F]; valid until the next call with this key."""
        out = self._scratch(key, len(index), x.shape[1])
        return torch.index_select(x, 0, index, out=out).view(2, self.n_pairs, x.shape[1])

    def _products(self, a: Tensor, b: Tensor) -> Tensor:
        """a_i b_j + a_j b_i, [P, F]; valid until the next call."""
        m = self._rows(a, self.receivers.index, "rows").mul_(
            self._rows(b, self.senders, "products")
        )
        return m[0].add_(m[1])

    def convolve(self, h, table, y, order):
        """v_i = sum over the neighbours j of h_p W^(n)(d_p) y_j, [N, F]."""
        m = self._rows(y, self.senders, "rows").mul_(self._filters(h, table, order))
        return _sums(m.view(-1, y.shape[1]), self.receivers.order, self.receivers.offsets)

    def contract(self, table, a, b, order):
        """< W^(n)(d_p), a_i b_j + a_j b_i > for every pair, [P]."""
        return self._filters(None, table, order).mul_(self._products(a, b)).sum(1)

    @cached_property
    def _by_bin(self) -> tuple[Tensor, Tensor]:
        """The pairs bin by bin, once for each of the six rows, and where each bin's begin."""
        starts = [self.bins.offsets[:-1] + q * self.n_pairs for q in range(6)]
        return self.bins.order.repeat(6), torch.cat(
            [*starts, self.bins.offsets[-1:] + 5 * self.n_pairs]
        )

    def tabulate(self, h, a, b, order):
        """sum_p S^(n)(d_p)^T h_p (a_i b_j + a_j b_i), [3 K, F].

        Summed by bin and row, and then added to the knots left and right of the bin.
        """
        weights = self._scaled_weights(h, order).index_select(0, self.bins.order).T.reshape(-1)
        sums = _sums(self._products(a, b), *self._by_bin, weights)
        return self._to_knots(sums.view(2, 3, self.grid.n_knots - 1, -1))

    def _to_knots(self, sums):
        """[2, 3, K - 1, F] by side of the bin -> [3 K, F]"""
        table = sums.new_zeros(self.grid.n_knots, 3, sums.shape[-1])
        table[:-1] += sums[0].transpose(0, 1)
        table[1:] += sums[1].transpose(0, 1)
        return table.view(-1, sums.shape[-1])
