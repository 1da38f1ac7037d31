"""SchNet as in Section II of the paper, in plain PyTorch: the reference that every faster path must equal.

Shapes: N atoms of all structures of a batch, P unordered pairs of neighbours, F features, G Gaussians,
T interaction blocks. Lengths in Å; energies in whatever unit the model was trained on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.errors import ConfigError

LOG2 = math.log(2.0)
MAX_Z = 100


@dataclass(frozen=True)
class Hyperparameters:
    """What defines a SchNet; defaults are the paper's for molecules.

    n_interactions: T. n_features: F. r_max: range of the Gaussians in Å. spacing: distance between
    their centres in Å. gamma: Å^-2. cutoff: Å, or None for all pairs; with a cutoff the filter
    response is divided by the number of neighbours (Sec. II D 2). readout: how atomwise
    contributions make the property: sum, mean, or dipole (norm of the sum of charges times positions).
    """

    n_interactions: int = 6
    n_features: int = 64
    r_max: float = 20.0
    spacing: float = 0.1
    gamma: float = 10.0
    cutoff: float | None = None
    readout: str = "sum"

    def __post_init__(self):
        if self.readout not in ("sum", "mean", "dipole"):
            raise ConfigError(f"readout: {self.readout!r} is none of sum, mean, dipole")
        if self.n_interactions < 1 or self.n_features < 2 or self.n_features % 2:
            raise ConfigError("n_interactions must be at least 1 and n_features a positive even number")

    @property
    def n_gaussians(self) -> int:
        # linspace as in the authors' code: 200 centres up to 20 Å, 0.1005 Å apart
        return math.ceil(self.r_max / self.spacing - 1e-9)


def ssp(x: Tensor) -> Tensor:
    """Shifted softplus ln(0.5 e^x + 0.5); ssp(0) = 0 and infinitely often differentiable (Sec. II C)."""
    return nn.functional.softplus(x) - LOG2


def dense(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
    """Atom-wise layer x W^T + b (Eq. 2), Glorot uniform weights and zero bias."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class RadialBasis(nn.Module):
    """e_k(d) = exp(-gamma (d - mu_k)^2), [P] -> [P, G] (Sec. II D 1)."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.gamma = p.gamma
        self.register_buffer("centres", torch.linspace(0, p.r_max, p.n_gaussians, dtype=torch.float64), persistent=False)

    def forward(self, d: Tensor) -> Tensor:
        return torch.exp(-self.gamma * (d[:, None] - self.centres.to(d.dtype)) ** 2)


class FilterNetwork(nn.Module):
    """Filter-generating network, [P, G] -> [P, F]: two dense layers, ssp after both (Fig. 2)."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.dense1 = dense(p.n_gaussians, p.n_features)
        self.dense2 = dense(p.n_features, p.n_features)

    def forward(self, e: Tensor) -> Tensor:
        return ssp(self.dense2(ssp(self.dense1(e))))


def cfconv(x: Tensor, W: Tensor, batch: Batch) -> Tensor:
    """Continuous-filter convolution x_i <- sum_j x_j ∘ W(r_j - r_i) (Eq. 3), [N, F].

    A filter depends on the distance alone, so one W per unordered pair serves both directions.
    With a cutoff the response is divided by the number of neighbours (Sec. II D 2).
    """
    i, j = batch.i.long(), batch.j.long()
    v = torch.zeros_like(x).index_add(0, i, x[j] * W).index_add(0, j, x[i] * W)
    return v if batch.n_neighbours is None else v / batch.n_neighbours[:, None]


class InteractionBlock(nn.Module):
    """atom-wise -> cfconv -> atom-wise -> ssp -> atom-wise, added to its input (Fig. 1, right)."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.in2f = dense(p.n_features, p.n_features, bias=False)
        self.filter_network = FilterNetwork(p)
        self.f2out = dense(p.n_features, p.n_features)
        self.dense = dense(p.n_features, p.n_features)

    def forward(self, x: Tensor, e: Tensor, batch: Batch) -> Tensor:
        v = cfconv(self.in2f(x), self.filter_network(e), batch)
        return x + self.dense(ssp(self.f2out(v)))


class SchNet(nn.Module):
    """The architecture of Fig. 1.

    ``model(batch)`` gives the property [B] of every structure; ``model.energy_and_forces(batch)`` also
    F_i = -dE/dr_i [N, 3] (Eq. 4). Predictions are ``scale`` times the network's output plus
    ``offset(batch)`` in float64: the mean per atom (or per structure for a mean readout) and
    single-atom references, so that large constants never enter float32.
    """

    name = "schnet"

    def __init__(self, hyperparameters: Hyperparameters | None = None):
        super().__init__()
        p = self.hyperparameters = hyperparameters or Hyperparameters()
        self.embedding = nn.Embedding(MAX_Z, p.n_features)
        nn.init.normal_(self.embedding.weight, std=p.n_features**-0.25)
        self.radial_basis = RadialBasis(p)
        self.interactions = nn.ModuleList(InteractionBlock(p) for _ in range(p.n_interactions))
        self.output1 = dense(p.n_features, p.n_features // 2)
        self.output2 = dense(p.n_features // 2, 1)
        if p.readout != "dipole":  # the norm of a dipole has no gradient where all charges are zero
            nn.init.zeros_(self.output2.weight)  # training starts from the mean
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("atomrefs", torch.zeros(MAX_Z, dtype=torch.float64))
        from ase.data import atomic_masses

        self.register_buffer("masses", torch.tensor(atomic_masses[:MAX_Z], dtype=torch.float64), persistent=False)

    def _apply(self, fn, recurse=True):
        """Module.to / .float() / .double() for everything but the float64 buffers, which only change device."""
        kept = {(m, k): b for m in self.modules() for k, b in m._buffers.items() if b is not None}
        super()._apply(fn, recurse)
        for (m, k), b in kept.items():
            m._buffers[k] = b.to(m._buffers[k].device)
        return self

    def representation(self, batch: Batch) -> Tensor:
        """x^T, the atom representations after the last interaction block, [N, F]."""
        r = batch.positions
        d = r[batch.j.long()] - r[batch.i.long()]
        d = (d if batch.shift is None else d + batch.shift).norm(dim=1)
        e = self.radial_basis(d)
        x = self.embedding(batch.atomic_numbers)  # Eq. 1
        for interaction in self.interactions:
            x = interaction(x, e, batch)
        return x

    def atomwise(self, batch: Batch) -> Tensor:
        """Output network: the contribution of every atom, [N], before scale and offsets."""
        return self.output2(ssp(self.output1(self.representation(batch)))).squeeze(-1)

    def readout(self, y: Tensor, batch: Batch) -> Tensor:
        """Sum or mean over the atoms (Sec. II E), or the dipole layer |sum_i q_i (r_i - r_0)|, [N] -> [B].

        r_0 is the centre of mass; the dipole layer is an addition to the paper (K. T. Schütt's later work).
        """
        structure = batch.structure
        zeros = torch.zeros(len(batch), dtype=y.dtype, device=y.device)
        if self.hyperparameters.readout == "dipole":
            mass = self.masses.to(y)[batch.atomic_numbers.long()]
            total = zeros.index_add(0, structure, mass)
            weighted = torch.zeros(len(batch), 3, dtype=y.dtype, device=y.device)
            centre = weighted.index_add(0, structure, mass[:, None] * batch.positions) / total[:, None]
            mu = weighted.index_add(0, structure, y[:, None] * (batch.positions - centre[structure]))
            return (mu.square().sum(1) + 1e-12).sqrt()
        sums = zeros.index_add(0, structure, y)
        return sums / batch.n_atoms if self.hyperparameters.readout == "mean" else sums

    def forward(self, batch: Batch) -> Tensor:
        """Scaled network output [B], without the offset; add ``offset(batch)`` for the property."""
        return self.scale.to(batch.positions.dtype) * self.readout(self.atomwise(batch), batch)

    def energy_and_forces(self, batch: Batch, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Energies [B] without the offset and forces -dE/dr [N, 3] (Eq. 4)."""
        with torch.enable_grad():
            r = batch.positions.detach().requires_grad_()
            moved = Batch(**{**batch.__dict__, "positions": r})
            energy = self(moved)
            (gradient,) = torch.autograd.grad(energy.sum(), r, create_graph=create_graph)
        return (energy, -gradient) if create_graph else (energy.detach(), -gradient)

    def offset(self, batch: Batch) -> Tensor:
        """What is added to the network's output, [B] in float64."""
        refs = self.atomrefs[batch.atomic_numbers.long()]
        n = batch.n_atoms.to(torch.float64)
        total = torch.zeros(len(batch), dtype=torch.float64, device=refs.device).index_add(0, batch.structure, refs)
        if self.hyperparameters.readout == "sum":
            return n * self.mean + total
        return self.mean + (total / n if self.hyperparameters.readout == "mean" else 0.0)

    def set_offsets(self, *, scale: float, mean: float, atomrefs=None):
        self.scale.fill_(scale)
        self.mean.fill_(mean)
        if atomrefs is not None:
            self.atomrefs.copy_(torch.as_tensor(atomrefs, dtype=torch.float64))

    def describe(self) -> dict:
        return asdict(self.hyperparameters)
