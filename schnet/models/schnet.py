"""SchNet as in Section II of the paper, in plain PyTorch.

This is the reference that every faster path must equal. Shapes: N atoms of all structures of a
batch, P unordered pairs of neighbours, F features, G Gaussians, T interaction blocks. Lengths in Å;
energies in whatever unit the model was trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.models.contract import MAX_Z, BaseHyperparameters, Components, Model
from schnet.models.layers import dense, ssp


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(BaseHyperparameters):
    """What defines a SchNet; defaults are the paper's for molecules.

    Attributes:
        n_interactions: number of interaction blocks T.
        n_features: number of features F, even.
        r_max: range of the Gaussians in Å.
        spacing: distance between their centres in Å (Delta mu).
        gamma: of the Gaussians in Å^-2.
        normalise_neighbours: whether the filter response is divided by the number of neighbours,
            which needs a cutoff. None: as in the paper, that is with a cutoff (Sec. II D 2).
    """

    SHORT: ClassVar[dict[str, str]] = {"n_interactions": "T", "n_features": "F"}

    n_interactions: int = 6
    n_features: int = 64
    r_max: float = 20.0
    spacing: float = 0.1
    gamma: float = 10.0
    normalise_neighbours: bool | None = None

    def __post_init__(self):
        super().__post_init__()
        self.require_positive("n_interactions", "n_features", "r_max", "spacing", "gamma")
        self.require(
            self.n_features % 2 == 0, f"n_features: {self.n_features} is not an even number"
        )
        self.require(
            self.n_gaussians >= 2,
            f"r_max: {self.r_max} Å has room for one Gaussian only, with a spacing of "
            f"{self.spacing} Å",
        )
        self.require(
            not self.normalise_neighbours or self.cutoff is not None,
            "normalise_neighbours: true needs a cutoff; set one, or leave it out",
        )

    @property
    def n_gaussians(self) -> int:
        """Number of Gaussians G."""
        # linspace as in the authors' code: 200 centres up to 20 Å, 0.1005 Å apart
        return math.ceil(self.r_max / self.spacing - 1e-9)

    @property
    def divides_by_neighbours(self) -> bool:
        """Whether filter responses are divided by the number of neighbours."""
        if self.normalise_neighbours is None:
            return self.cutoff is not None
        return self.normalise_neighbours


class RadialBasis(nn.Module):
    """e_k(d) = exp(-gamma (d - mu_k)^2), [P] -> [P, G] (Sec. II D 1)."""

    centres: Tensor  # mu_k

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.gamma = p.gamma
        self.register_buffer(
            "centres",
            torch.linspace(0, p.r_max, p.n_gaussians, dtype=torch.float64),
            persistent=False,
        )

    def forward(self, d: Tensor) -> Tensor:
        """Distances [P] in Å -> Gaussians [P, G]."""
        return torch.exp(-self.gamma * (d[:, None] - self.centres.to(d.dtype)) ** 2)


class FilterNetwork(nn.Module):
    """Filter-generating network, [P, G] -> [P, F]: two dense layers, ssp after both (Fig. 2)."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.dense1 = dense(p.n_gaussians, p.n_features)
        self.dense2 = dense(p.n_features, p.n_features)

    def forward(self, e: Tensor) -> Tensor:
        """Gaussians [P, G] -> filters [P, F]."""
        return ssp(self.dense2(ssp(self.dense1(e))))


def cfconv(x: Tensor, W: Tensor, batch: Batch, n_neighbours: Tensor | None = None) -> Tensor:
    """Continuous-filter convolution x_i <- sum_j x_j ∘ W(r_j - r_i) (Eq. 3).

    A filter depends on the distance alone, so one W per unordered pair serves both directions.

    Args:
        x: features of the atoms, [N, F].
        W: filters of the pairs, [P, F].
        batch: the structures.
        n_neighbours: [N], what the response is divided by (Sec. II D 2); None: nothing.

    Returns:
        The filter response [N, F].
    """
    i, j = batch.i.long(), batch.j.long()
    if batch.sends is not None:
        x = x * batch.sends[:, None]
    v = torch.zeros_like(x).index_add(0, i, x[j] * W).index_add(0, j, x[i] * W)
    return v if n_neighbours is None else v / n_neighbours[:, None]


class InteractionBlock(nn.Module):
    """atom-wise -> cfconv -> atom-wise -> ssp -> atom-wise, added to its input (Fig. 1, right)."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.in2f = dense(p.n_features, p.n_features, bias=False)
        self.filter_network = FilterNetwork(p)
        self.f2out = dense(p.n_features, p.n_features)
        self.dense = dense(p.n_features, p.n_features)

    def forward(
        self, x: Tensor, e: Tensor, batch: Batch, n_neighbours: Tensor | None = None
    ) -> Tensor:
        """Features [N, F] and Gaussians [P, G] -> refined features [N, F]; see ``cfconv``."""
        v = cfconv(self.in2f(x), self.filter_network(e), batch, n_neighbours)
        return x + self.dense(ssp(self.f2out(v)))


class SchNet(Model):
    """The architecture of Fig. 1: embedding, T interaction blocks, output network.

    Example:
        >>> from schnet.models.schnet import Hyperparameters
        >>> model = SchNet(Hyperparameters(n_interactions=3, n_features=64))
        >>> sum(p.numel() for p in model.parameters())
        96833
    """

    hyperparameters: Hyperparameters
    probes = True

    def __init__(self, hyperparameters: Hyperparameters | None = None):
        super().__init__(hyperparameters or Hyperparameters())
        p = self.hyperparameters
        self.embedding = nn.Embedding(MAX_Z, p.n_features)
        nn.init.normal_(self.embedding.weight, std=p.n_features**-0.25)
        self.radial_basis = RadialBasis(p)
        self.interactions = nn.ModuleList(InteractionBlock(p) for _ in range(p.n_interactions))
        self.output1 = dense(p.n_features, p.n_features // 2)
        self.output2 = dense(p.n_features // 2, 1)
        if p.readout != "dipole":  # the norm of a dipole has no gradient where all charges are zero
            nn.init.zeros_(self.output2.weight)  # training starts from the mean

    def components(self) -> Components:
        """What the model is made of, with its own numbers."""
        p = self.hyperparameters
        divided = ", divided by the number of neighbours" if p.divides_by_neighbours else ""
        return Components(
            source="J. Chem. Phys. 148, 241722 (2018)",
            embedding=f"{p.n_features} numbers per element",
            basis=f"{p.n_gaussians} Gaussians from 0 to {p.r_max:g} Å, γ = {p.gamma:g} Å⁻²",
            message=f"features ∘ filter, two dense layers on the Gaussians{divided}",
            cutoff=self.usual_cutoff,
            update=f"{p.n_interactions} blocks with own weights, residual",
            readout=f"{p.n_features} → {p.n_features // 2} → 1 per atom, {p.readout} over atoms",
        )

    def blocks(self) -> list[InteractionBlock]:
        """The interaction blocks, first to last."""
        return cast(list[InteractionBlock], list(self.interactions))

    def neighbour_counts(self, batch: Batch) -> Tensor | None:
        """What filter responses are divided by, [N]; None where they are not."""
        return batch.n_neighbours if self.hyperparameters.divides_by_neighbours else None

    def representation(self, batch: Batch) -> Tensor:
        """x^T, the atom representations after the last interaction block, [N, F]."""
        e = self.radial_basis(batch.distances())
        x = self.embedding(batch.atomic_numbers)  # Eq. 1
        n_neighbours = self.neighbour_counts(batch)
        for interaction in self.blocks():
            x = interaction(x, e, batch, n_neighbours)
        return x

    def atomwise(self, batch: Batch) -> Tensor:
        """Output network: the contribution of every atom, [N], before scale and offsets."""
        return self.output2(ssp(self.output1(self.representation(batch)))).squeeze(-1)
