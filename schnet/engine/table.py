"""Filter tables: the filter network and its derivatives on a grid of distances."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from schnet.data.structures import Batch
from schnet.errors import DataError
from schnet.models.schnet import SchNet, ssp

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
MARGIN = 0.05  # Å beyond the distances that occur


def knot_spacing(gamma: float) -> float:
    """0.4 sigma of the Gaussians: the error of a trained filter stays below float32 rounding."""
    return 0.4 / math.sqrt(2 * gamma)


class Grid:
    """Knots lo, lo + h, …, hi (in Å)."""

    def __init__(self, distance_range, h: float):
        lo, hi = distance_range
        self.h = h
        self.lo = float(np.float32(max(0.0, lo - MARGIN)))
        self.n_knots = max(2, math.ceil((hi + MARGIN - self.lo) / h) + 1)

    def basis(self, model: SchNet) -> Tensor:
        """Gaussians, h × first and h² × second derivatives at the knots, [3 K, G] float64 (rows interleaved)."""
        p = model.hyperparameters
        d = self.lo + self.h * torch.arange(self.n_knots, dtype=torch.float64)
        u = d[:, None] - model.radial_basis.centres.cpu()
        e = torch.exp(-p.gamma * u * u)
        first = -2 * p.gamma * u * e * self.h
        second = (4 * p.gamma**2 * u * u - 2 * p.gamma) * e * self.h**2
        return torch.stack([e, first, second], 1).reshape(3 * self.n_knots, -1)


def _ssp_jet(z: Tensor) -> Tensor:
    """(value, first, second derivative) in dimension -2 through ssp, by the chain rule."""
    z0, z1, z2 = z.unbind(-2)
    s = torch.sigmoid(z0)
    return torch.stack([ssp(z0), s * z1, s * ((1 - s) * z1 * z1 + z2)], -2)


def filter_jets(basis: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """All filter networks on a grid: basis [3 K, G], stacked weights [T, F, G], [T, F], [T, F, F], [T, F] -> [T, K, 3, F]."""
    t, f = b1.shape
    value = basis.new_tensor([1.0, 0.0, 0.0])[:, None]
    z = torch.matmul(basis, w1.transpose(1, 2)).view(t, -1, 3, f) + b1[:, None, None] * value
    z = torch.matmul(_ssp_jet(z).reshape(t, -1, f), w2.transpose(1, 2)).view(t, -1, 3, f) + b2[:, None, None] * value
    return _ssp_jet(z)


def filter_weights(model: SchNet) -> list[Tensor]:
    nets = [block.filter_network for block in model.interactions]
    return [
        torch.stack([n.dense1.weight for n in nets]),
        torch.stack([n.dense1.bias for n in nets]),
        torch.stack([n.dense2.weight for n in nets]),
        torch.stack([n.dense2.bias for n in nets]),
    ]


def coefficients(model: SchNet, grid: Grid) -> Tensor:
    """Polynomial coefficients of every bin, [T, K - 1, 6, F], computed in float64 and rounded to float32."""
    with torch.no_grad():
        jets = filter_jets(grid.basis(model), *(w.double().cpu() for w in filter_weights(model)))
        pair = torch.cat([jets[:, :-1], jets[:, 1:]], 2)  # [T, K - 1, 6, F]
        return torch.einsum("mp,tkmf->tkpf", torch.as_tensor(HERMITE), pair).float().contiguous()


class _Groups:
    """Members [P] of n groups by the group's index: ``order`` lists them group by group, from ``offsets`` [n + 1]."""

    def __init__(self, index: Tensor, n: int):
        self.index, self.order = index, torch.argsort(index, stable=True)
        self.offsets = torch.zeros(n + 1, dtype=torch.long, device=index.device)
        self.offsets[1:] = torch.bincount(index, minlength=n).cumsum(0)


class _Pairs:
    """Unordered pairs (i, j), also grouped by either atom."""

    def __init__(self, i: Tensor, j: Tensor, n_atoms: int):
        self.i, self.j = _Groups(i.long(), n_atoms), _Groups(j.long(), n_atoms)
        self._scratch = None

    def scratch(self, x: Tensor) -> Tensor:
        """Memory for one row of x per pair, the same at every call: fresh memory costs more than what is done in it."""
        if self._scratch is None or self._scratch.shape[1] != x.shape[1]:
            self._scratch = x.new_empty(len(self.i.index), x.shape[1])
        return self._scratch


def _rows(x: Tensor, at: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.index_select(x, 0, at, out=out)


def _sums(x: Tensor, groups: _Groups) -> Tensor:
    """Sums over the members of every group. embedding_bag is PyTorch's fastest sum of rows."""
    return torch.nn.functional.embedding_bag(groups.order, x, groups.offsets, mode="sum", include_last_offset=True)


class _CfConv(torch.autograd.Function):
    """v_i = sum_j w_ij y_j over both directions of every pair, w [P, F], y [N, F]. With _PairProduct it is closed
    under differentiation: the convolution is its own adjoint."""

    @staticmethod
    def forward(ctx, w, y, pairs):
        ctx.save_for_backward(w, y)
        ctx.pairs = pairs
        m = _rows(y, pairs.j.index, out=pairs.scratch(y)).mul_(w)
        v = _sums(m, pairs.i)
        return v.add_(_sums(_rows(y, pairs.i.index, out=m).mul_(w), pairs.j))

    @staticmethod
    def backward(ctx, g):
        w, y = ctx.saved_tensors
        by_w = _PairProduct.apply(g, y, ctx.pairs) if ctx.needs_input_grad[0] else None
        by_y = _CfConv.apply(w, g, ctx.pairs) if ctx.needs_input_grad[1] else None
        return by_w, by_y, None


class _PairProduct(torch.autograd.Function):
    """a_i y_j + a_j y_i for every pair, [P, F]."""

    @staticmethod
    def forward(ctx, a, y, pairs):
        ctx.save_for_backward(a, y)
        ctx.pairs = pairs
        i, j = pairs.i.index, pairs.j.index
        out = _rows(a, i).mul_(_rows(y, j, out=pairs.scratch(y)))
        m = _rows(a, j, out=pairs.scratch(y))
        return out.addcmul_(m, _rows(y, i))

    @staticmethod
    def backward(ctx, g):
        a, y = ctx.saved_tensors
        by_a = _CfConv.apply(g, y, ctx.pairs) if ctx.needs_input_grad[0] else None
        by_y = _CfConv.apply(g, a, ctx.pairs) if ctx.needs_input_grad[1] else None
        return by_a, by_y, None


class _Difference(torch.autograd.Function):
    """x_j - x_i for every pair; linear, _Divergence is its adjoint."""

    @staticmethod
    def forward(ctx, x, pairs):
        ctx.pairs = pairs
        return _rows(x, pairs.j.index).sub_(_rows(x, pairs.i.index))

    @staticmethod
    def backward(ctx, g):
        return _Divergence.apply(g, ctx.pairs), None


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, pairs):
        ctx.pairs = pairs
        g = g.contiguous()
        return _sums(g, pairs.j).sub_(_sums(g, pairs.i))

    @staticmethod
    def backward(ctx, h):
        return _Difference.apply(h, ctx.pairs), None


class _Interpolation:
    """Where every distance lies in the table, and the interpolation weights of any derivative."""

    def __init__(self, grid: Grid, d: Tensor):
        self.grid = grid
        u = (d - grid.lo) / grid.h
        if len(u):
            lo, hi = torch.aminmax(u)
            if not (lo >= 0 and hi <= grid.n_knots - 1):
                raise DataError(f"a distance lies outside the tabulated range {grid.lo:.3f}–{grid.lo + grid.h * (grid.n_knots - 1):.3f} Å")
        k = u.floor().clamp(0, grid.n_knots - 2)
        self.t = u - k
        self.rows = (3 * k.long())[:, None] + torch.arange(6, device=d.device)  # [P, 6]
        self.bins = _Groups(k.long(), grid.n_knots - 1)
        n = len(d)
        ends = [self.bins.offsets[:-1] + q * n for q in range(6)]
        self.offsets = torch.cat([*ends, self.bins.offsets.new_tensor([6 * n])])
        self.order = self.bins.order.repeat(6)
        self.cache: dict[int, tuple[Tensor, Tensor]] = {}

    def weights(self, order: int) -> tuple[Tensor, Tensor]:
        """d^n/dd^n of the six Hermite weights, [P, 6], and the same sorted by bin, [6 P]."""
        if order not in self.cache:
            polynomials = torch.as_tensor(HERMITE).to(self.t)
            powers = [self.t**0]
            for _ in range(5 - order):
                powers.append(powers[-1] * self.t)
            factors = [math.perm(m, order) / self.grid.h**order for m in range(order, 6)]
            w = torch.stack(powers, 1) @ (polynomials[:, order:] * torch.tensor(factors).to(self.t)).T
            self.cache[order] = (w, w.index_select(0, self.bins.order).T.reshape(-1))
        return self.cache[order]

    def interpolate(self, table: Tensor, order: int) -> Tensor:
        """[3 K, F] -> [P, F]"""
        return torch.nn.functional.embedding_bag(self.rows, table.contiguous(), mode="sum", per_sample_weights=self.weights(order)[0])

    def adjoint(self, x: Tensor, order: int) -> Tensor:
        """[P, F] -> [3 K, F]: sums per bin and row, which then go to the knots left and right of the bin."""
        sums = torch.nn.functional.embedding_bag(
            self.order, x.contiguous(), self.offsets, mode="sum", per_sample_weights=self.weights(order)[1], include_last_offset=True
        ).view(2, 3, self.grid.n_knots - 1, -1)
        table = x.new_zeros(self.grid.n_knots, 3, x.shape[1])
        table[:-1] += sums[0].transpose(0, 1)
        table[1:] += sums[1].transpose(0, 1)
        return table.view(-1, x.shape[1])


class _Interpolate(torch.autograd.Function):
    """n-th derivative of the tabulated filters at distances d [P]; differentiable to any order in d and the table."""

    @staticmethod
    def forward(ctx, d, table, at, order):
        ctx.save_for_backward(d, table)
        ctx.at, ctx.order = at, order
        return at.interpolate(table, order)

    @staticmethod
    def backward(ctx, g):
        d, table = ctx.saved_tensors
        by_d = (g * _Interpolate.apply(d, table, ctx.at, ctx.order + 1)).sum(1) if ctx.needs_input_grad[0] else None
        by_table = _InterpolateAdjoint.apply(d, g, ctx.at, ctx.order) if ctx.needs_input_grad[1] else None
        return by_d, by_table, None, None


class _InterpolateAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, d, x, at, order):
        ctx.save_for_backward(d, x)
        ctx.at, ctx.order = at, order
        return at.adjoint(x, order)

    @staticmethod
    def backward(ctx, g):
        d, x = ctx.saved_tensors
        by_d = (x * _Interpolate.apply(d, g, ctx.at, ctx.order + 1)).sum(1) if ctx.needs_input_grad[0] else None
        by_x = _Interpolate.apply(d, g, ctx.at, ctx.order) if ctx.needs_input_grad[1] else None
        return by_d, by_x, None, None


class TableEngine:
    """Energies and forces with tabulated filters, in plain PyTorch on any device; differentiable to any order."""

    name = "table"

    def __init__(self, model: SchNet, distance_range):
        self.model = model
        self.grid = Grid(distance_range, knot_spacing(model.hyperparameters.gamma))
        self.basis = self.grid.basis(model).to(next(model.parameters()))

    def _energy(self, batch: Batch, positions: Tensor) -> Tensor:
        m = self.model
        pairs = _Pairs(batch.i, batch.j, len(positions))
        r = _Difference.apply(positions, pairs)
        d = (r if batch.shift is None else r + batch.shift).norm(dim=1)
        at = _Interpolation(self.grid, d.detach())
        table = filter_jets(self.basis, *filter_weights(m)).flatten(1, 2)  # [T, 3 K, F]
        x = m.embedding(batch.atomic_numbers)
        for block, rows in zip(m.interactions, table, strict=True):
            v = _CfConv.apply(_Interpolate.apply(d, rows, at, 0), block.in2f(x), pairs)
            if batch.n_neighbours is not None:
                v = v / batch.n_neighbours[:, None]
            x = x + block.dense(ssp(block.f2out(v)))
        atomwise = m.output2(ssp(m.output1(x))).squeeze(-1)
        moved = Batch(**{**batch.__dict__, "positions": positions})
        return m.scale.to(positions.dtype) * m.readout(atomwise, moved)

    def __call__(self, batch: Batch, forces: bool):
        if not forces:
            return self._energy(batch, batch.positions), None
        r = batch.positions.detach().requires_grad_()
        energy = self._energy(batch, r)
        return energy, -torch.autograd.grad(energy.sum(), r, create_graph=True)[0]

    def evaluate(self, batch: Batch, forces: bool):
        if not forces:
            with torch.no_grad():
                return self._energy(batch, batch.positions), None
        with torch.enable_grad():
            r = batch.positions.detach().requires_grad_()
            energy = self._energy(batch, r)
            (gradient,) = torch.autograd.grad(energy.sum(), r)
        return energy.detach(), -gradient

    def refresh(self):
        pass
