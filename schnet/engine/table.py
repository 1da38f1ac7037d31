"""Filter tables: the filter network and its derivatives on a grid of distances."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from schnet.data.structures import Batch
from schnet.engine.operations import convolve, pairs_class
from schnet.engine.pairs import Pairs
from schnet.errors import ConfigError
from schnet.models.layers import ssp
from schnet.models.schnet import Hyperparameters, SchNet

# : quintic Hermite interpolation at position t of a bin: rows are (value, h W', h^2 W'') of the
# left and
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
LARGEST_SPACING = 0.1  # Å between knots
LARGEST_FROZEN_SPACING = 0.025  # Å, likewise of a table for inference
LARGEST_DISTANCE = 1e4  # Å: positions in single precision are good to 0.001 Å up to there
FADED = 40.0  # exponent of a Gaussian that is too small to count, even in double precision


def knot_spacing(gamma: float, *, frozen: bool = False) -> float:
    """Distance of the knots in Å that keeps the interpolation error below float32 rounding.

    A filter varies on the scale of the Gaussians that it is made of, sigma = 1 / sqrt(2 gamma), so
    the knots must follow it: the error of quintic interpolation grows with the sixth power of their
    distance over sigma, that of its derivative (forces) with the fifth. 0.4 sigma keeps both at the
    rounding errors of the float32 network. Networks of wide Gaussians can be sharper than these,
    hence the upper limits.

    Args:
        gamma: of the Gaussians in Å^-2.
        frozen: for inference, where a table is made once and may be finer: its errors then stay
            below those of the float32 network itself.
    """
    spacing = 0.4 / math.sqrt(2 * gamma)
    if frozen:
        return min(0.28 * spacing, LARGEST_FROZEN_SPACING)
    return min(spacing, LARGEST_SPACING)


def constant_from(p: Hyperparameters) -> float:
    """Distance in Å beyond which all Gaussians are zero, and the filters therefore constant."""
    return p.r_max + math.sqrt(FADED / p.gamma)


class Grid:
    """Knots lo, lo + h, … (in Å) for a range of distances.

    Args:
        distance_range: smallest and largest distance in Å.
        h: between the knots in Å.
        constant: distance in Å beyond which the filters are constant: there are no knots, and
            the last one stands for all distances up to 10⁴ Å.

    Attributes:
        furthest: the largest distance that the grid is good for, in units of h from the first knot.
    """

    def __init__(self, distance_range, h: float, constant: float = math.inf):
        lo, hi = (min(d, constant) for d in distance_range)
        self.h = h
        self.lo = float(np.float32(max(0.0, lo - MARGIN)))
        self.n_knots = max(2, math.ceil((hi + MARGIN - self.lo) / h) + 1)
        self.furthest: float = self.n_knots - 1
        if hi == constant:
            self.furthest = (LARGEST_DISTANCE - self.lo) / h
        self._hermite: dict[tuple, Tensor] = {}

    @classmethod
    def of(cls, model: SchNet, distance_range, *, frozen: bool = False) -> Grid:
        """The grid of a model's filters; frozen: of those that do not change."""
        p = model.hyperparameters
        return cls(distance_range, knot_spacing(p.gamma, frozen=frozen), constant_from(p))

    @property
    def hi(self) -> float:
        """The largest distance that the grid is good for, in Å."""
        return self.lo + self.h * self.furthest

    def hermite(self, order: int, like: Tensor) -> Tensor:
        """d^n/dd^n of the six Hermite weights by powers of the position in a bin, [6 - n, 6]."""
        key = order, like.dtype, like.device
        if key not in self._hermite:
            factors = np.array([math.perm(m, order) / self.h**order for m in range(order, 6)])
            self._hermite[key] = torch.as_tensor((HERMITE[:, order:] * factors).T.copy()).to(like)
        return self._hermite[key]

    def basis(self, model: SchNet) -> Tensor:
        """Gaussians, h × first and h² × second derivatives at the knots, [3 K, G] float64.

        The three rows of a knot follow each other. Derivatives are scaled by h because those by the
        position in a bin are what the interpolation needs.
        """
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
    """All filter networks on a grid, with their derivatives (jets): [T, K, 3, F].

    Args:
        basis: of the grid, [3 K, G].
        w1, b1, w2, b2: stacked weights of the networks, [T, F, G], [T, F], [T, F, F], [T, F].
    """
    t, f = b1.shape
    value = torch.eye(3, 1, dtype=basis.dtype, device=basis.device)
    z = torch.matmul(basis, w1.transpose(1, 2)).view(t, -1, 3, f) + b1[:, None, None] * value
    z = (
        torch.matmul(_ssp_jet(z).reshape(t, -1, f), w2.transpose(1, 2)).view(t, -1, 3, f)
        + b2[:, None, None] * value
    )
    return _ssp_jet(z)


def filter_weights(model: SchNet) -> list[Tensor]:
    """Weights and biases of all filter networks, stacked: the arguments of ``filter_jets``."""
    nets = [block.filter_network for block in model.blocks()]
    return [
        torch.stack([n.dense1.weight for n in nets]),
        torch.stack([n.dense1.bias for n in nets]),
        torch.stack([n.dense2.weight for n in nets]),
        torch.stack([n.dense2.bias for n in nets]),
    ]


def coefficients(model: SchNet, grid: Grid) -> Tensor:
    """Polynomial coefficients of every bin, [T, K - 1, 6, F]: made in float64, then float32."""
    with torch.no_grad():
        jets = filter_jets(grid.basis(model), *(w.double().cpu() for w in filter_weights(model)))
        pair = torch.cat([jets[:, :-1], jets[:, 1:]], 2)  # [T, K - 1, 6, F]
        return torch.einsum("mp,tkmf->tkpf", torch.as_tensor(HERMITE), pair).float().contiguous()


def _sent(y: Tensor, batch: Batch) -> Tensor:
    """What atoms send of their features y [N, F]; probes send nothing."""
    return y if batch.sends is None else y * batch.sends[:, None]


class TableEngine:
    """Energies and forces with tabulated filters, in PyTorch on any device.

    On GPUs with Triton kernels, where the triton package is there.

    Args:
        model: a SchNet.
        distance_range: smallest and largest distance that occur, in Å.
        frozen: a finer table, for parameters that do not change.
    """

    def __init__(self, model: SchNet, distance_range, *, frozen: bool = False):
        self.model = model
        self.grid = Grid.of(model, distance_range, frozen=frozen)
        self.basis = self.grid.basis(model).to(next(model.parameters()))
        self.pairs = pairs_class(self.basis)
        self.name = self.pairs.name
        self.checked = True  # refuse distances outside the grid
        self.table: Tensor | None = None

    def refresh(self) -> Tensor:
        """Freeze the table of the present parameters for ``evaluate``; computed in float64."""
        with torch.no_grad():
            jets = filter_jets(
                self.grid.basis(self.model), *(w.double().cpu() for w in filter_weights(self.model))
            )
        self.table = jets.flatten(1, 2).to(self.basis)
        return self.table

    def _contributions(self, batch: Batch, table: Tensor):
        """Contributions of atoms [N], and what a backward pass needs.

        That is vectors [P, 3] and distances [P] of the pairs, the pairs in their bins, (y, z) of
        every block and z of the output network, where z is what goes into a shifted softplus.
        """
        m = self.model
        n_neighbours = m.neighbour_counts(batch)
        r = batch.vectors()
        d = r.norm(dim=1)
        pairs = self.pairs(batch, self.grid, d.detach(), self.checked)
        x = m.embedding(batch.atomic_numbers)
        tape = []
        for block, rows in zip(m.blocks(), table, strict=True):
            y = _sent(block.in2f(x), batch)
            v = convolve(d, None, rows, y, pairs)
            if n_neighbours is not None:
                v = v / n_neighbours[:, None]
            z = block.f2out(v)
            x = x + block.dense(ssp(z))
            tape.append((y, z))
        z = m.output1(x)
        return m.output2(ssp(z)).squeeze(-1), (r, d, pairs, tape, z)

    def _forward(self, batch: Batch, positions: Tensor, table: Tensor):
        """Energies [B], and what a backward pass needs, see ``_contributions``."""
        batch = replace(batch, positions=positions)
        y, kept = self._contributions(batch, table)
        return self.model.scale.to(y.dtype) * self.model.readout(y, batch), kept

    def __call__(self, batch: Batch, forces: bool):
        """Differentiable energies [B] (without offset) and forces [N, 3] or None."""
        table = filter_jets(self.basis, *filter_weights(self.model)).flatten(1, 2)  # [T, 3 K, F]
        r = batch.positions.detach().requires_grad_() if forces else batch.positions
        energy, (_, _, pairs, *_) = self._forward(batch, r, table)
        if not forces:
            return energy, None
        (gradient,) = torch.autograd.grad(energy.sum(), r, create_graph=True)
        pairs.by_distance = False
        return energy, -gradient

    @torch.no_grad()
    def evaluate(self, batch: Batch, forces: bool):
        """The same without a graph, with the table of the last ``refresh``."""
        if forces and self.model.hyperparameters.readout == "dipole":
            raise ConfigError("forces of a dipole moment: not an energy")
        table = self.refresh() if self.table is None else self.table
        energy, kept = self._forward(batch, batch.positions, table)
        return energy, (self._forces(batch, table, *kept) if forces else None)

    @torch.no_grad()
    def atomwise(self, batch: Batch) -> Tensor:
        """What ``atomwise`` of the model gives, with the table of the last ``refresh``, [N]."""
        table = self.refresh() if self.table is None else self.table
        return self._contributions(batch, table)[0]

    def _forces(self, batch: Batch, table: Tensor, r, d, pairs: Pairs, tape, z) -> Tensor:
        """-dE/dr [N, 3] by hand: for one structure PyTorch's bookkeeping costs more than its work.

        g is dE/dx of the features that leave a block, g_v that of its filter response v; the
        derivative of ssp is the sigmoid. The convolution is its own adjoint.
        """
        m = self.model
        n_neighbours = m.neighbour_counts(batch)
        by_atom = m.scale.to(d.dtype)
        if m.hyperparameters.readout == "mean":
            by_atom = (m.scale / batch.n_atoms)[batch.structure, None].to(d.dtype)
        g = (by_atom * m.output2.weight * torch.sigmoid(z)) @ m.output1.weight
        by_d = torch.zeros_like(d)
        steps = list(zip(m.blocks(), table, tape, strict=True))
        for block, rows, (y, z) in reversed(steps):
            g_v = (g @ block.dense.weight * torch.sigmoid(z)) @ block.f2out.weight
            if n_neighbours is not None:
                g_v = g_v / n_neighbours[:, None]
            by_d += pairs.contract(rows, g_v, y, 1)
            g = g + _sent(pairs.convolve(None, rows, g_v, 0), batch) @ block.in2f.weight
        pull = r * (by_d / d)[:, None]  # dE/dr_j of every pair, the opposite of dE/dr_i
        forces = torch.zeros_like(batch.positions)
        return forces.index_add_(0, batch.i, pull).index_add_(0, batch.j, -pull)
