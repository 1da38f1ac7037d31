"""DimeNet: messages between atoms that know the angle to the messages before them; DimeNet++.

J. Klicpera, J. Groß, S. Günnemann, Directional Message Passing for Molecular Graphs, ICLR 2020,
arXiv:2003.03123. J. Klicpera, S. Giri, J. T. Margraf, S. Günnemann, arXiv:2011.14115 (++).

Equations of the papers and the variables here, for directed edges ji (a message from atom j to
atom i at distance d_ji < c) and the edges kj that end where ji begins, k ≠ i; σ is x · sigmoid(x),
|| puts side by side::

    e^(ji)  = radial functions of d_ji                                           RadialBasis
    a       = spherical functions of d_kj and the angle between kj and ji        SphericalBasis
    m_ji    = σ([h_j || h_i || σ(W e^(ji) + b)] W + b)                           Embedding
    m_ji   <- residual(σ(W m_ji), sum_k m_kj ⊗ e^(kj) ⊗ a^(kj, ji))              Interaction
    t_i     = dense layers of sum_j W e^(ji) ∘ m_ji                              Output

with h a vector for each element; schnet/models/directional.py has the bases. The radial functions
that multiply m_kj are those of its own edge, as in the authors' code. The bilinear layer of the
triplets is that of DimeNet; in ++ it is a product element by element in a smaller space.

Defaults are those of DimeNet: 6 blocks, 128 features, 8 bilinear, 6 radial and 7 spherical
functions, c = 5 Å, p = 6. The authors' ++ has 4 blocks.

Shapes: N atoms, E edges, T triplets (pairs of edges), F features, R radial, S spherical functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.models.contract import MAX_Z, BaseHyperparameters, Components, Model
from schnet.models.directional import Edges, RadialBasis, SphericalBasis, directed_edges
from schnet.models.layers import orthogonal_dense

silu = nn.functional.silu


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(BaseHyperparameters):
    """What defines a DimeNet.

    Attributes:
        plus_plus: DimeNet++ instead, several times cheaper.
        n_blocks: number of interaction blocks.
        n_features: of a message, F.
        n_radial, n_spherical: number of radial functions R and of degrees S.
        n_bilinear: size of the bilinear layer; DimeNet only.
        n_basis, n_triplet, n_output: sizes of the embedded basis, of messages in triplets and of
            the output layers; DimeNet++ only.
        r_cut: c in Å; the cutoff where that is shorter.
        envelope: exponent p.
    """

    SHORT: ClassVar[dict[str, str]] = {"n_blocks": "T", "n_features": "F"}

    plus_plus: bool = False
    n_blocks: int = 6
    n_features: int = 128
    n_radial: int = 6
    n_spherical: int = 7
    n_bilinear: int = 8
    n_basis: int = 8
    n_triplet: int = 64
    n_output: int = 256
    r_cut: float = 5.0
    envelope: int = 6

    def __post_init__(self):
        super().__post_init__()
        self.require_positive("n_blocks", "n_features", "n_radial", "n_spherical", "n_bilinear")
        self.require_positive("n_basis", "n_triplet", "n_output", "r_cut")
        self.require(self.envelope >= 2, f"envelope: {self.envelope!r} is less than 2")

    @property
    def reach(self) -> float:
        """Where messages end, in Å."""
        return self.r_cut if self.cutoff is None else min(self.r_cut, self.cutoff)


class Residual(nn.Module):
    """x + σ(W_2 σ(W_1 x + b_1) + b_2)."""

    def __init__(self, n: int):
        super().__init__()
        self.dense1, self.dense2 = orthogonal_dense(n, n), orthogonal_dense(n, n)

    def forward(self, x: Tensor) -> Tensor:
        """[E, F] -> [E, F]."""
        return x + silu(self.dense2(silu(self.dense1(x))))


class Embedding(nn.Module):
    """The first messages."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.elements = nn.Embedding(MAX_Z, p.n_features)
        nn.init.uniform_(self.elements.weight, -math.sqrt(3), math.sqrt(3))
        self.radial = nn.Linear(p.n_radial, p.n_features)
        self.dense = nn.Linear(3 * p.n_features, p.n_features)

    def forward(self, atomic_numbers: Tensor, e: Tensor, edges: Edges) -> Tensor:
        """Atomic numbers [N] and e_n [E, R] -> m [E, F]."""
        h = self.elements(atomic_numbers)
        parts = h[edges.target], h[edges.source], silu(self.radial(e))
        return silu(self.dense(torch.cat(parts, 1)))


class Bilinear(nn.Module):
    """sum_k of (W_a a)_b m_kj,l W_ibl, as in DimeNet."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        f = p.n_features
        self.radial = orthogonal_dense(p.n_radial, f, bias=False)
        self.spherical = orthogonal_dense(p.n_spherical * p.n_radial, p.n_bilinear, bias=False)
        self.weight = nn.Parameter(torch.empty(f, p.n_bilinear, f))
        nn.init.normal_(self.weight, std=2 / f)

    def forward(self, m: Tensor, e: Tensor, a: Tensor, edges: Edges) -> Tensor:
        """m [E, F], e [E, R], a [T, S R] -> [E, F]."""
        m, a = m * self.radial(e), self.spherical(a)
        total = torch.zeros_like(m)
        # one bilinear component at a time: all at once need [T, n_bilinear, F]
        for weight, part in zip(self.weight.unbind(1), a.unbind(1), strict=True):
            sent = (m @ weight.T)[edges.kj] * part[:, None]
            total = total.index_add(0, edges.ji, sent)
        return total


class Hadamard(nn.Module):
    """sum_k of (W_a a) ∘ (W_down m_kj), as in DimeNet++."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        f, b, t, n = p.n_features, p.n_basis, p.n_triplet, p.n_spherical * p.n_radial
        self.radial1 = orthogonal_dense(p.n_radial, b, bias=False)
        self.radial2 = orthogonal_dense(b, f, bias=False)
        self.spherical1 = orthogonal_dense(n, b, bias=False)
        self.spherical2 = orthogonal_dense(b, t, bias=False)
        self.down = orthogonal_dense(f, t, bias=False)
        self.up = orthogonal_dense(t, f, bias=False)

    def forward(self, m: Tensor, e: Tensor, a: Tensor, edges: Edges) -> Tensor:
        """As ``Bilinear``."""
        m = silu(self.down(m * self.radial2(self.radial1(e))))
        sent = m[edges.kj] * self.spherical2(self.spherical1(a))
        return silu(self.up(torch.zeros_like(m).index_add(0, edges.ji, sent)))


class Interaction(nn.Module):
    """m_ji from its own past and the messages that end where it begins."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        f = p.n_features
        self.own, self.others = orthogonal_dense(f, f), orthogonal_dense(f, f)
        self.triplets = Hadamard(p) if p.plus_plus else Bilinear(p)
        self.before = Residual(f)
        self.dense = orthogonal_dense(f, f)
        self.after = nn.Sequential(Residual(f), Residual(f))

    def forward(self, m: Tensor, e: Tensor, a: Tensor, edges: Edges) -> Tensor:
        """m [E, F], e [E, R], a [T, S R] -> m [E, F]."""
        h = silu(self.own(m)) + self.triplets(silu(self.others(m)), e, a, edges)
        return self.after(silu(self.dense(self.before(h))) + m)


class Output(nn.Module):
    """Contributions of the atoms from the messages that reach them."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        f, n = p.n_features, p.n_output if p.plus_plus else p.n_features
        self.radial = orthogonal_dense(p.n_radial, f, bias=False)
        self.up = orthogonal_dense(f, n, bias=False) if p.plus_plus else nn.Identity()
        self.dense = nn.ModuleList(orthogonal_dense(n, n) for _ in range(3))
        self.last = orthogonal_dense(n, 1, bias=False, zero=p.readout != "dipole")

    def forward(self, m: Tensor, e: Tensor, edges: Edges, n_atoms: int) -> Tensor:
        """m [E, F] -> [N]."""
        sent = self.radial(e) * m
        t = self.up(sent.new_zeros(n_atoms, sent.shape[1]).index_add(0, edges.target, sent))
        for dense in self.dense:
            t = silu(dense(t))
        return self.last(t).squeeze(-1)


class DimeNet(Model):
    """The network of this file's equations."""

    evaluation_batch = 32  # triplets take memory: 10 GB for 256 molecules of QM9
    hyperparameters: Hyperparameters

    def __init__(self, hyperparameters: Hyperparameters | None = None):
        super().__init__(hyperparameters or Hyperparameters())
        p = self.hyperparameters
        radial = p.reach, p.envelope, p.n_radial
        self.radial_basis = RadialBasis(*radial)
        self.spherical_basis = SphericalBasis(*radial, p.n_spherical)
        self.embedding = Embedding(p)
        self.interactions = nn.ModuleList(Interaction(p) for _ in range(p.n_blocks))
        self.outputs = nn.ModuleList(Output(p) for _ in range(p.n_blocks + 1))

    def components(self) -> Components:
        """What the model is made of, with its own numbers."""
        p = self.hyperparameters
        triplets = f"bilinear layer of {p.n_bilinear}"
        source = "arXiv:2003.03123 (ICLR 2020)"
        if p.plus_plus:
            triplets = f"product in a space of {p.n_triplet}"
            source = "arXiv:2011.14115 (2020)"
        bessel = f"{p.n_radial} radial Bessel functions"
        return Components(
            source=source,
            embedding=f"{p.n_features} numbers per directed pair: both elements and the basis",
            basis=f"{bessel} of d, {p.n_spherical} × {p.n_radial} spherical ones of d and angle",
            message=f"from pair to pair: messages, distances and angles, {triplets}",
            cutoff=f"{p.reach:g} Å, smooth",
            update=f"{p.n_blocks} blocks with own weights, residual blocks",
            readout=f"one output per atom and block, added; {p.readout} over atoms",
        )

    def atomwise(self, batch: Batch) -> Tensor:
        """The contribution of every atom, [N], before scale and offsets."""
        edges = directed_edges(batch, self.hyperparameters.reach)
        e, a = self.radial_basis(edges.d), self.spherical_basis(edges)
        m = self.embedding(batch.atomic_numbers, e, edges)
        first, *others = self.outputs
        n_atoms = len(batch.positions)
        total = first(m, e, edges, n_atoms)
        for interaction, output in zip(self.interactions, others, strict=True):
            m = interaction(m, e, a, edges)
            total = total + output(m, e, edges, n_atoms)
        return total
