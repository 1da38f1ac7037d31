"""Deep tensor neural network, SchNet's predecessor.

K. T. Schütt, F. Arbabzadah, S. Chmiela, K.-R. Müller, A. Tkatchenko, Nat. Commun. 8, 13890 (2017).

Equations of the paper's Methods and the variables here, for atoms i, their neighbours j at distance
D_ij, and interaction passes t = 0 … T - 1::

    c_i^(0)   = c_Z_i                                            embedding
    d_ij      = exp(-(D_ij - (mu_min + k dmu))^2 / (2 sigma^2)),
                k = 0 … mu_max / dmu                             GaussianExpansion
    v_ij      = tanh[W^fc ((W^cf c_j + b^f1) ∘ (W^df d_ij + b^f2))]    w_fc, w_cf, w_df
    c_i^(t+1) = c_i^(t) + sum_{j ≠ i} v_ij
    o_i       = tanh(W^out1 c_i^(T) + b^out1)                    out1
    E_i       = W^out2 o_i + b^out2                              out2
    E         = sum_i (E_sigma E_i + E_mu)                       scale, mean of the contract

All passes share the weights of the interaction. Defaults are those of the paper's Methods: 30
coefficients, 60 factors, dmu = sigma = 0.2 Å, mu_min = -1 Å, mu_max = 20 Å (its value for QM9; 10
and 15 Å for the smaller molecules), 15 neurons in the output layer. The default of T = 3 and what
the paper leaves open follow the authors' code (github.com/atomistic-machine-learning/dtnn): Glorot
uniform weights, zero biases, W^fc and W^out2 zero at first, embedding N(0, B^(-1/4)). The paper
knows molecules only; with a cutoff, messages come from the neighbours within it.

Shapes: N atoms, P unordered pairs, B coefficients, K factors, G Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.models.contract import MAX_Z, BaseHyperparameters, Components, Model
from schnet.models.layers import dense


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(BaseHyperparameters):
    """What defines a DTNN.

    Attributes:
        n_interactions: number of interaction passes T.
        n_basis: coefficients of an atom, B.
        n_factors: factors of the tensor layer, K.
        n_output: neurons of the output layer.
        mu_min: first centre of the Gaussians in Å.
        mu_max: range of the Gaussians in Å; there are mu_max / spacing + 1.
        spacing: distance between their centres in Å (dmu).
        sigma: their width in Å.
    """

    SHORT: ClassVar[dict[str, str]] = {"n_interactions": "T", "n_basis": "B", "n_factors": "K"}

    n_interactions: int = 3
    n_basis: int = 30
    n_factors: int = 60
    n_output: int = 15
    mu_min: float = -1.0
    mu_max: float = 20.0
    spacing: float = 0.2
    sigma: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        self.require_positive("n_interactions", "n_basis", "n_factors", "n_output")
        self.require_positive("mu_max", "spacing", "sigma")

    @property
    def n_gaussians(self) -> int:
        """Number of Gaussians G."""
        return math.floor(self.mu_max / self.spacing + 1e-9) + 1


class GaussianExpansion(nn.Module):
    """Distances as vectors of Gaussians, [P] -> [P, G]."""

    centres: Tensor  # mu_min + k dmu

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.sigma = p.sigma
        k = torch.arange(p.n_gaussians, dtype=torch.float64)
        self.register_buffer("centres", p.mu_min + k * p.spacing, persistent=False)

    def forward(self, d: Tensor) -> Tensor:
        """Distances D_ij [P] in Å -> d_ij [P, G]."""
        u = (d[:, None] - self.centres.to(d.dtype)) / self.sigma
        return torch.exp(-0.5 * u * u)


class DTNN(Model):
    """The network of the module's equations."""

    hyperparameters: Hyperparameters
    probes = True

    def __init__(self, hyperparameters: Hyperparameters | None = None):
        super().__init__(hyperparameters or Hyperparameters())
        p = self.hyperparameters
        self.embedding = nn.Embedding(MAX_Z, p.n_basis)
        nn.init.normal_(self.embedding.weight, std=p.n_basis**-0.25)
        self.expansion = GaussianExpansion(p)
        self.w_cf = dense(p.n_basis, p.n_factors)
        self.w_df = dense(p.n_gaussians, p.n_factors)
        self.w_fc = dense(p.n_factors, p.n_basis, bias=False, zero=True)
        self.out1 = dense(p.n_basis, p.n_output)
        # a dipole's norm has no gradient where all charges are zero
        self.out2 = dense(p.n_output, 1, zero=p.readout != "dipole")

    def components(self) -> Components:
        """What the model is made of, with its own numbers."""
        p = self.hyperparameters
        last = p.mu_min + (p.n_gaussians - 1) * p.spacing
        return Components(
            source="Nat. Commun. 8, 13890 (2017)",
            embedding=f"{p.n_basis} numbers per element",
            basis=f"{p.n_gaussians} Gaussians from {p.mu_min:g} to {last:g} Å, σ = {p.sigma:g} Å",
            message=f"tanh of a tensor layer, {p.n_factors} factors: atom ∘ one layer on Gaussians",
            cutoff=self.usual_cutoff,
            update=f"{p.n_interactions} passes with shared weights, messages added",
            readout=f"{p.n_basis} → {p.n_output} → 1 per atom, {p.readout} over atoms",
        )

    def atomwise(self, batch: Batch) -> Tensor:
        """The contribution E_i of every atom, [N], before scale and offsets."""
        i, j = batch.i.long(), batch.j.long()
        receivers, senders = torch.cat([i, j]), torch.cat([j, i])  # a pair sends both ways
        factors = self.w_df(self.expansion(batch.distances())).repeat(2, 1)  # [2 P, K]
        c = self.embedding(batch.atomic_numbers)
        for _ in range(self.hyperparameters.n_interactions):
            messages = torch.tanh(self.w_fc(self.w_cf(c)[senders] * factors))
            if batch.sends is not None:
                messages = messages * batch.sends[senders, None]
            c = c.index_add(0, receivers, messages)
        return self.out2(torch.tanh(self.out1(c))).squeeze(-1)
