"""Message passing with an edge network, and a set-to-set readout (enn-s2s).

J. Gilmer, S. S. Schoenholz, P. F. Riley, O. Vinyals, G. E. Dahl, ICML 2017, arXiv:1704.01212. The
readout is that of O. Vinyals, S. Bengio, M. Kudlur, ICLR 2016, arXiv:1511.06391.

Equations of the papers and the variables here, for atoms v and w at distance d_vw and passes
t = 0 … T - 1::

    h_v^0     = vector of the element
    m_v^(t+1) = sum_w A(d_vw) h_w^t                      edge_network: R -> R^(F x F)
    h_v^(t+1) = GRU(h_v^t, m_v^(t+1))                    the same for every pass
    x_v       = W [h_v^T || h_v^0]                       project
    q_m       = LSTM(q*_(m-1)),  a_vm = softmax over the molecule of x_v · q_m
    q*_m      = [q_m || sum_v a_vm x_v],  m = 1 … M      SetToSet
    y         = network of q*_M                          output

The paper's atoms and edges also carry what a chemist's toolkit finds (bond types, hybridisation,
aromaticity, donors and acceptors). The data sets here have elements and positions alone, so the
edge feature is the raw distance: this is less than what the published errors belong to. Shifted
softplus takes the place of ReLU, so that forces are smooth. The output is that of the molecule,
not a sum over atoms.

Shapes: N atoms, P unordered pairs, B structures, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.models.contract import MAX_Z, BaseHyperparameters, Components, Model
from schnet.models.layers import dense, ssp


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(BaseHyperparameters):
    """What defines an enn-s2s.

    Attributes:
        n_passes: passes of messages T (the paper: 3 to 8).
        n_features: size of an atom's state F (the paper: up to 200).
        n_edge: hidden size of the edge network.
        n_readout: steps M of the set-to-set readout.
    """

    SHORT: ClassVar[dict[str, str]] = {"n_passes": "T", "n_features": "F"}

    n_passes: int = 3
    n_features: int = 64
    n_edge: int = 64
    n_readout: int = 12

    def __post_init__(self):
        super().__post_init__()
        self.require_positive("n_passes", "n_features", "n_edge", "n_readout")
        self.require(
            self.readout != "dipole",
            "readout: enn_s2s has no charges of atoms that a dipole could be made of",
        )


class EdgeNetwork(nn.Module):
    """A(d), [P] -> [P, F, F]."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.n_features = p.n_features
        self.dense1, self.dense2 = dense(1, p.n_edge), dense(p.n_edge, p.n_edge)
        self.dense3 = dense(p.n_edge, p.n_features**2)

    def forward(self, d: Tensor) -> Tensor:
        """Distances in Å -> matrices."""
        z = ssp(self.dense2(ssp(self.dense1(d[:, None]))))
        return self.dense3(z).view(-1, self.n_features, self.n_features)


class SetToSet(nn.Module):
    """A molecule's vector from its atoms, whatever their order, [N, F] -> [B, 2 F]."""

    def __init__(self, n_features: int, steps: int):
        super().__init__()
        self.steps = steps
        self.lstm = nn.LSTMCell(2 * n_features, n_features)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """x [N, F] -> q* [B, 2 F]."""
        molecule, n = batch.structure, len(batch)
        zeros = x.new_zeros(n, x.shape[1])
        state, query = (zeros, zeros), torch.cat([zeros, zeros], 1)
        for _ in range(self.steps):
            state = self.lstm(query, state)
            q = state[0]
            score = (x * q[molecule]).sum(1)
            # of a softmax the largest can be taken away: it only keeps exp in range
            largest = score.detach().new_full((n,), -torch.inf)
            largest = largest.scatter_reduce(0, molecule, score.detach(), "amax")
            weight = torch.exp(score - largest[molecule])
            total = weight.new_zeros(n).index_add(0, molecule, weight)
            share = weight / total[molecule]
            query = torch.cat([q, zeros.index_add(0, molecule, share[:, None] * x)], 1)
        return query


class EnnS2S(Model):
    """The network of this file's equations."""

    hyperparameters: Hyperparameters

    def __init__(self, hyperparameters: Hyperparameters | None = None):
        super().__init__(hyperparameters or Hyperparameters())
        p, f = self.hyperparameters, self.hyperparameters.n_features
        self.embedding = nn.Embedding(MAX_Z, f)
        nn.init.normal_(self.embedding.weight, std=f**-0.25)
        self.edge_network = EdgeNetwork(p)
        self.update = nn.GRUCell(f, f)
        self.project = dense(2 * f, f)
        self.set_to_set = SetToSet(f, p.n_readout)
        self.output1, self.output2 = dense(2 * f, f), dense(f, 1, zero=True)

    def components(self) -> Components:
        """What the model is made of, with its own numbers."""
        p, f = self.hyperparameters, self.hyperparameters.n_features
        return Components(
            source="arXiv:1704.01212 (ICML 2017)",
            embedding=f"{f} numbers per element",
            basis="none: the distance itself",
            message=f"features times a {f} × {f} matrix from three dense layers on the distance",
            cutoff=self.usual_cutoff,
            update=f"{p.n_passes} passes with shared weights, gated recurrent unit",
            readout=f"set-to-set, {p.n_readout} steps, then {2 * f} → {f} → 1 per molecule",
        )

    def forward(self, batch: Batch) -> Tensor:
        """Scaled output [B] without the offset."""
        i, j = batch.i.long(), batch.j.long()
        matrices = self.edge_network(batch.distances())
        first = h = self.embedding(batch.atomic_numbers)
        for _ in range(self.hyperparameters.n_passes):
            to_i = torch.bmm(matrices, h[j, :, None]).squeeze(2)
            to_j = torch.bmm(matrices, h[i, :, None]).squeeze(2)
            h = self.update(torch.zeros_like(h).index_add(0, i, to_i).index_add(0, j, to_j), h)
        q = self.set_to_set(self.project(torch.cat([h, first], 1)), batch)
        y = self.output2(ssp(self.output1(q))).squeeze(1)
        return self.scale.to(y.dtype) * y
