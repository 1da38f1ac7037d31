"""The interactions of SchNet as one form of pairs, closed under differentiation.

With the interpolated filters W_p = S(d_p) table (n-th derivative by d: S^(n)), every product that SchNet and its
derivatives of any order need is a part of

    Phi = sum_p h_p < W_p^(n), a_i b_j + a_j b_i >        (pairs p = (i, j), n >= 0)

- ``convolve``, dPhi/da: the continuous-filter convolution (Eq. 3) of b (it is its own adjoint),
- ``contract``, dPhi/dh: one number per pair; with n + 1 in place of n it is dPhi/dd (forces, Eq. 4),
- ``tabulate``, dPhi/dtable: how gradients reach the filter networks.

The derivatives of each are the other two, so energies, forces, gradients of losses on both, and Hessians need three
kernels. ``Pairs`` has them in PyTorch; schnet/engine/triton_kernels.py has them for GPUs.
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import Tensor

from schnet.data.structures import Batch
from schnet.errors import OutsideTable

#: quintic Hermite interpolation at position t of a bin: rows are (value, h W', h^2 W'') of the left and
#: the right knot, columns the powers 1, t, ..., t^5
HERMITE = np.array(
    [
        [1, 0, 0, -10, 15, -6],
        [0, 1, 0, -6, 8, -3],
        [0, 0, 0.5, -1.5, 1.5, -0.5],
        [0, 0, 0, 10, -15, 6],
        [0, 0, 0, -4, 7, -3],
        [0, 0, 0, 0.5, -1, 0.5],
    ]
)


class _Groups:
    """Members [P] of n groups by the group's index: ``order`` lists them group by group, from ``offsets`` [n + 1]."""

    def __init__(self, index: Tensor, n: int):
        self.index, self.order = index, torch.argsort(index, stable=True)
        self.offsets = torch.zeros(n + 1, dtype=torch.long, device=index.device)
        self.offsets[1:] = torch.bincount(index, minlength=n).cumsum(0)


def _sums(x: Tensor, groups: _Groups) -> Tensor:
    """Sums over the members of every group. embedding_bag is PyTorch's fastest sum of rows."""
    return torch.nn.functional.embedding_bag(groups.order, x, groups.offsets, mode="sum", include_last_offset=True)


class Pairs:
    """Unordered pairs of a batch at distances d [P] in a grid of knots, and the three operations on them.

    Arguments of the operations: h [P] or None for ones; table [3 K, F]: value, h W', h^2 W'' at every knot;
    a, b, y [N, F]; order: of the derivative by the distance. Raises OutsideTable.
    """

    name = "table"
    #: set to False once nothing but gradients of parameters is wanted: saves those by the distances
    by_distance = True

    def __init__(self, batch: Batch, grid, d: Tensor):
        u = (d - grid.lo) / grid.h
        if len(u):
            lo, hi = torch.aminmax(u)
            if not (lo >= 0 and hi <= grid.n_knots - 1 and d.min() > 0):
                raise OutsideTable(grid.lo, grid.hi)
        self.grid, self.n_atoms = grid, len(batch.positions)
        self.i, self.j = _Groups(batch.i.long(), self.n_atoms), _Groups(batch.j.long(), self.n_atoms)
        bins = u.floor().clamp(0, grid.n_knots - 2)
        self.t = u - bins
        self.bins = _Groups(bins.long(), grid.n_knots - 1)
        self._weights: dict[int, Tensor] = {}
        self._memory: dict[str, Tensor] = {}

    def weights(self, order: int) -> Tensor:
        """d^n/dd^n of the six Hermite weights, [P, 6]."""
        if order not in self._weights:
            powers = [self.t**0]
            for _ in range(5 - order):
                powers.append(powers[-1] * self.t)
            factors = np.array([math.perm(m, order) / self.grid.h**order for m in range(order, 6)])
            self._weights[order] = torch.stack(powers, 1) @ torch.as_tensor(HERMITE[:, order:] * factors).to(self.t).T
        return self._weights[order]

    def _scaled_weights(self, h: Tensor | None, order: int) -> Tensor:
        """The weights of h W instead of W, [P, 6]."""
        return self.weights(order) if h is None else self.weights(order) * h[:, None]

    def _scratch(self, key, *shape) -> Tensor:
        """Memory that is the same at every call: fresh pages cost more than what is done in them."""
        if key not in self._memory or self._memory[key].shape != shape:
            self._memory[key] = self.t.new_empty(shape)
        return self._memory[key]

    def _once(self, key, make):
        if key not in self._memory:
            self._memory[key] = make()
        return self._memory[key]

    def _filters(self, h: Tensor | None, table: Tensor, order: int) -> Tensor:
        """h W, [P, F]"""
        rows = self._once("knots", lambda: (3 * self.bins.index)[:, None] + torch.arange(6, device=self.t.device))
        return torch.nn.functional.embedding_bag(rows, table, mode="sum", per_sample_weights=self._scaled_weights(h, order))

    def _products(self, a: Tensor, b: Tensor) -> Tensor:
        """a_i b_j + a_j b_i, [P, F]; valid until the next call."""
        i, j = self.i.index, self.j.index
        shape = (len(i), a.shape[1])
        out, m = self._scratch("products", *shape), self._scratch("rows", *shape)
        torch.index_select(a, 0, i, out=out).mul_(torch.index_select(b, 0, j, out=m))
        return out.addcmul_(torch.index_select(a, 0, j), torch.index_select(b, 0, i, out=m))

    def convolve(self, h, table, y, order):
        w = self._filters(h, table, order)
        m = torch.index_select(y, 0, self.j.index, out=self._scratch("rows", *w.shape)).mul_(w)
        v = _sums(m, self.i)
        return v.add_(_sums(torch.index_select(y, 0, self.i.index, out=m).mul_(w), self.j))

    def contract(self, table, a, b, order):
        return self._filters(None, table, order).mul_(self._products(a, b)).sum(1)

    def tabulate(self, h, a, b, order):
        """Sums per bin and row, which then go to the knots left and right of the bin."""
        n = len(self.t)
        index = self._once("index", lambda: self.bins.order.repeat(6))
        ends = self._once("ends", lambda: torch.cat([*(self.bins.offsets[:-1] + q * n for q in range(6)), self.bins.offsets.new_tensor([6 * n])]))
        weights = self._scaled_weights(h, order).index_select(0, self.bins.order).T.reshape(-1)
        sums = torch.nn.functional.embedding_bag(index, self._products(a, b), ends, mode="sum", per_sample_weights=weights, include_last_offset=True)
        return self._to_knots(sums.view(2, 3, self.grid.n_knots - 1, -1))

    def _to_knots(self, sums):
        """[2, 3, K - 1, F] by side of the bin -> [3 K, F]"""
        table = sums.new_zeros(self.grid.n_knots, 3, sums.shape[-1])
        table[:-1] += sums[0].transpose(0, 1)
        table[1:] += sums[1].transpose(0, 1)
        return table.view(-1, sums.shape[-1])


def _plain(x: Tensor) -> Tensor:
    """Contiguous, and without requires_grad, for which embedding_bag would prepare a backward of its own."""
    return x.detach().contiguous()


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, d, h, table, y, pairs, order):
        ctx.save_for_backward(d, h, table, y)
        ctx.pairs, ctx.order = pairs, order
        return pairs.convolve(h, _plain(table), _plain(y), order)

    @staticmethod
    def backward(ctx, g):
        (d, h, table, y), n, pairs, need = ctx.saved_tensors, ctx.order, ctx.pairs, ctx.needs_input_grad
        by_d = _times(h, contract(d, table, g, y, pairs, n + 1)) if need[0] and pairs.by_distance else None
        by_h = contract(d, table, g, y, pairs, n) if need[1] else None
        by_table = tabulate(d, h, g, y, pairs, n) if need[2] else None
        by_y = convolve(d, h, table, g, pairs, n) if need[3] else None
        return by_d, by_h, by_table, by_y, None, None


class _Contract(torch.autograd.Function):
    @staticmethod
    def forward(ctx, d, table, a, b, pairs, order):
        ctx.save_for_backward(d, table, a, b)
        ctx.pairs, ctx.order = pairs, order
        return pairs.contract(_plain(table), _plain(a), _plain(b), order)

    @staticmethod
    def backward(ctx, g):
        (d, table, a, b), n, pairs, need = ctx.saved_tensors, ctx.order, ctx.pairs, ctx.needs_input_grad
        by_d = g * contract(d, table, a, b, pairs, n + 1) if need[0] and pairs.by_distance else None
        by_table = tabulate(d, g, a, b, pairs, n) if need[1] else None
        by_a = convolve(d, g, table, b, pairs, n) if need[2] else None
        by_b = convolve(d, g, table, a, pairs, n) if need[3] else None
        return by_d, by_table, by_a, by_b, None, None


class _Tabulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, d, h, a, b, pairs, order):
        ctx.save_for_backward(d, h, a, b)
        ctx.pairs, ctx.order = pairs, order
        return pairs.tabulate(h, _plain(a), _plain(b), order)

    @staticmethod
    def backward(ctx, g):
        (d, h, a, b), n, pairs, need = ctx.saved_tensors, ctx.order, ctx.pairs, ctx.needs_input_grad
        by_d = _times(h, contract(d, g, a, b, pairs, n + 1)) if need[0] and pairs.by_distance else None
        by_h = contract(d, g, a, b, pairs, n) if need[1] else None
        by_a = convolve(d, h, g, b, pairs, n) if need[2] else None
        by_b = convolve(d, h, g, a, pairs, n) if need[3] else None
        return by_d, by_h, by_a, by_b, None, None


def _times(h, x):
    return x if h is None else h * x


def convolve(d, h, table, y, pairs: Pairs, order: int = 0) -> Tensor:
    """v_i = sum over the neighbours j of h_p W^(n)(d_p) y_j, [N, F]; differentiable in d, h, table and y."""
    return _Convolve.apply(d, h, table, y, pairs, order)


def contract(d, table, a, b, pairs: Pairs, order: int = 0) -> Tensor:
    """< W^(n)(d_p), a_i b_j + a_j b_i > for every pair, [P]; differentiable in d, table, a and b."""
    return _Contract.apply(d, table, a, b, pairs, order)


def tabulate(d, h, a, b, pairs: Pairs, order: int = 0) -> Tensor:
    """sum_p S^(n)(d_p)^T h_p (a_i b_j + a_j b_i), [3 K, F]; differentiable in d, h, a and b."""
    return _Tabulate.apply(d, h, a, b, pairs, order)


def pairs_class(like: Tensor) -> type[Pairs]:
    """The implementation of the three operations for tensors like this one."""
    if like.is_cuda or os.environ.get("TRITON_INTERPRET") == "1":
        try:
            from schnet.engine.triton_kernels import TritonPairs
        except ImportError:
            return Pairs
        return TritonPairs
    return Pairs
