"""SchNetPack and PyTorch Geometric with the weights and conventions of a SchNet of this project.

Both are given the same ordered pairs and shifts; a second shifted softplus is appended to their
filter networks, their cosine cutoff is replaced by one, and gamma is set, so that they compute the
same function.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.models.schnet import SchNet


@dataclass
class Edges:
    """Ordered pairs: neighbour j of atom i is at r_j + shift; count: structures."""

    z: Tensor
    i: Tensor
    j: Tensor
    structure: Tensor
    count: int
    shift: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch) -> Edges:
        i, j = batch.i.long(), batch.j.long()
        shift = None if batch.shift is None else torch.cat([batch.shift, -batch.shift])
        return cls(
            batch.atomic_numbers.long(),
            torch.cat([i, j]),
            torch.cat([j, i]),
            batch.structure,
            len(batch),
            shift,
        )

    def vectors(self, positions):
        r = positions[self.j] - positions[self.i]
        return r if self.shift is None else r + self.shift


def _linear(source: nn.Linear, target: nn.Linear):
    with torch.no_grad():
        target.weight.copy_(source.weight)
        if source.bias is not None:
            target.bias.copy_(source.bias)


class Peer(nn.Module):
    """Energies, and forces by autograd, of a peer's representation and output network."""

    def energies(self, edges: Edges, positions):
        y = self.atomwise(edges, positions)
        return torch.zeros(edges.count, dtype=y.dtype).index_add(0, edges.structure, y)

    def forward(self, edges: Edges, positions, forces: bool, create_graph: bool):
        if not forces:
            return self.energies(edges, positions), None
        r = positions.detach().requires_grad_()
        e = self.energies(edges, r)
        return e, -torch.autograd.grad(e.sum(), r, create_graph=create_graph)[0]


class SchNetPack(Peer):
    def __init__(self, model: SchNet):
        super().__init__()
        # SchNetPack 2.1.1 imports a name that newer torch versions have dropped
        from typing import TypeVar

        import torch.utils.data.dataloader as dataloader

        if not hasattr(dataloader, "T_co"):
            dataloader.T_co = TypeVar("T_co", covariant=True)
        import schnetpack.nn as snn
        from schnetpack.nn.activations import shifted_softplus
        from schnetpack.representation import SchNet as Representation

        p = model.hyperparameters

        class Activation(nn.Module):
            def forward(self, x):
                return shifted_softplus(x)

        class One(nn.Module):
            cutoff = p.r_max

            def forward(self, d):
                return torch.ones_like(d)

        basis = snn.GaussianRBF(n_rbf=p.n_gaussians, cutoff=p.r_max)
        basis.widths.fill_((2 * p.gamma) ** -0.5)
        self.representation = Representation(p.n_features, p.n_interactions, basis, One())
        with torch.no_grad():
            self.representation.embedding.weight.copy_(model.embedding.weight)
        for ours, theirs in zip(model.interactions, self.representation.interactions, strict=True):
            theirs.filter_network[1].activation = Activation()
            _linear(ours.in2f, theirs.in2f)
            _linear(ours.filter_network.dense1, theirs.filter_network[0])
            _linear(ours.filter_network.dense2, theirs.filter_network[1])
            _linear(ours.f2out, theirs.f2out[0])
            _linear(ours.dense, theirs.f2out[1])
        self.output = nn.Sequential(
            snn.Dense(p.n_features, p.n_features // 2, activation=shifted_softplus),
            snn.Dense(p.n_features // 2, 1),
        )
        _linear(model.output1, self.output[0])
        _linear(model.output2, self.output[1])

    def atomwise(self, edges, positions):
        import schnetpack.properties as k

        inputs = {k.Z: edges.z, k.Rij: edges.vectors(positions), k.idx_i: edges.i, k.idx_j: edges.j}
        return self.output(self.representation(inputs)["scalar_representation"]).squeeze(-1)


class PyG(Peer):
    def __init__(self, model: SchNet):
        super().__init__()
        from torch_geometric.nn.models import SchNet as Reference
        from torch_geometric.nn.models.schnet import ShiftedSoftplus

        p = model.hyperparameters
        self.model = Reference(
            hidden_channels=p.n_features,
            num_filters=p.n_features,
            num_interactions=p.n_interactions,
            num_gaussians=p.n_gaussians,
            cutoff=p.r_max,
            interaction_graph=self.graph,
        )
        self.model.distance_expansion.coeff = -p.gamma
        with torch.no_grad():
            self.model.embedding.weight.copy_(model.embedding.weight)
        for ours, theirs in zip(model.interactions, self.model.interactions, strict=True):
            theirs.mlp.append(ShiftedSoftplus())
            theirs.conv.cutoff = 1e12  # the cosine cutoff becomes one
            _linear(ours.in2f, theirs.conv.lin1)
            _linear(ours.filter_network.dense1, theirs.mlp[0])
            _linear(ours.filter_network.dense2, theirs.mlp[2])
            _linear(ours.f2out, theirs.conv.lin2)
            _linear(ours.dense, theirs.lin)
        _linear(model.output1, self.model.lin1)
        _linear(model.output2, self.model.lin2)

    def graph(self, positions, _):
        return torch.stack([self.edges.j, self.edges.i]), self.edges.vectors(positions).norm(dim=1)

    def energies(self, edges, positions):
        self.edges = edges
        return self.model(edges.z, positions, edges.structure).squeeze(-1)


PEERS = {"SchNetPack": ("schnetpack", SchNetPack), "PyG": ("torch_geometric", PyG)}
