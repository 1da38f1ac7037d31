"""DimeNet: messages between atoms that know the angle to the messages before them; DimeNet++.

J. Klicpera, J. Groß, S. Günnemann, Directional Message Passing for Molecular Graphs, ICLR 2020,
arXiv:2003.03123. J. Klicpera, S. Giri, J. T. Margraf, S. Günnemann, arXiv:2011.14115 (++).

Equations of the papers and the variables here, for directed edges ji (a message from atom j to
atom i at distance d_ji < c) and the edges kj that end where ji begins, k ≠ i; σ is x · sigmoid(x),
|| puts side by side::

    u(d)    = 1 - (p+1)(p+2)/2 d^p + p(p+2) d^(p+1) - p(p+1)/2 d^(p+2)           envelope
    e_n     = u(d/c) sin(f_n d/c) / (d/c),  f_n = n π at first, then learned     RadialBasis
    a_ln    = u(d/c) / (d/c) j_l(z_ln d/c) sqrt(2) / |j_(l+1)(z_ln)| Y_l^0(α)    SphericalBasis
    m_ji    = σ([h_j || h_i || σ(W e^(ji) + b)] W + b)                           Embedding
    m_ji   <- residual(σ(W m_ji), sum_k m_kj ⊗ e^(kj) ⊗ a^(kj, ji))              Interaction
    t_i     = dense layers of sum_j W e^(ji) ∘ m_ji                              Output

with z_ln the n-th root of the spherical Bessel function j_l, Y_l^0 a Legendre polynomial of the
angle α between ji and kj, both at atom j, and h a vector for each element. As in the authors' code
the radial functions that multiply m_kj are those of its own edge, the envelope of a_ln has the
factor c/d, and factors with c are left to the weights. The bilinear layer of the triplets is that
of DimeNet; in ++ it is a product element by element in a smaller space.

Defaults are those of DimeNet: 6 blocks, 128 features, 8 bilinear, 6 radial and 7 spherical
functions, c = 5 Å, p = 6. The authors' ++ has 4 blocks.

Shapes: N atoms, E edges, T triplets (pairs of edges), F features, R radial, S spherical functions.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.models.contract import MAX_Z, BaseHyperparameters, Components, Model
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


class Edges(NamedTuple):
    """Directed edges within reach, and the triplets that they form.

    Attributes:
        source, target: [E] atoms j and i. d: [E] distances in Å.
        kj, ji: [T] edges of a triplet. cosine: [T] of the angle between them.
    """

    source: Tensor
    target: Tensor
    d: Tensor
    kj: Tensor
    ji: Tensor
    cosine: Tensor


def directed_edges(batch: Batch, reach: float) -> Edges:
    """Both directions of every pair within reach, and all triplets k -> j -> i with k ≠ i."""
    vectors = batch.vectors()
    near = (vectors.square().sum(1) < reach * reach).nonzero().squeeze(1)
    vectors, i, j = vectors[near], batch.i.long()[near], batch.j.long()[near]
    source, target = torch.cat([j, i]), torch.cat([i, j])
    d = vectors.norm(dim=1).repeat(2)
    unit = torch.cat([-vectors, vectors]) / d[:, None]  # from source to target
    by_target = torch.argsort(target, stable=True)
    ends = torch.bincount(target, minlength=len(batch.positions))
    first, count = (ends.cumsum(0) - ends)[source], ends[source]  # the edges that end at a source
    edges = torch.arange(len(source), device=source.device)
    ji = edges.repeat_interleave(count)
    before = (count.cumsum(0) - count)[ji]
    place = torch.arange(len(ji), device=ji.device) - before
    kj = by_target[first[ji] + place]
    back = (ji + len(near)) % max(1, 2 * len(near))  # the same pair, the other way
    kj, ji = kj[kj != back], ji[kj != back]
    return Edges(source, target, d, kj, ji, -(unit[ji] * unit[kj]).sum(1))


def envelope_over_x(x: Tensor, p: int) -> Tensor:
    """u(x) / x for 0 < x <= 1."""
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    return 1 / x + x ** (p - 1) * (a + b * x + c * x * x)


class RadialBasis(nn.Module):
    """e_n, [E] -> [E, R]."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.reach, self.p = p.reach, p.envelope
        self.frequencies = nn.Parameter(math.pi * torch.arange(1.0, p.n_radial + 1))

    def forward(self, d: Tensor) -> Tensor:
        """Distances in Å -> e_n."""
        x = (d / self.reach)[:, None]
        return envelope_over_x(x, self.p) * torch.sin(self.frequencies * x)


def bessel_roots(degrees: int, count: int) -> np.ndarray:
    """z_ln, [degrees, count]: those of j_l lie between those of j_(l-1)."""
    roots = math.pi * np.arange(1, count + degrees, dtype=float)
    found = [roots[:count]]
    for degree in range(1, degrees):
        between = itertools.pairwise(roots)
        roots = np.array([brentq(lambda x, n=degree: spherical_jn(n, x), *ab) for ab in between])
        found.append(roots[:count])
    return np.stack(found)


class SphericalBasis(nn.Module):
    """a_ln, [T, S R]; in float64, where the recurrence of the Bessel functions loses nothing."""

    roots: Tensor  # z_ln
    norms: Tensor  # sqrt(2) / |j_(l+1)(z_ln)|

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.reach, self.p, self.degrees = p.reach, p.envelope, p.n_spherical
        roots = bessel_roots(p.n_spherical, p.n_radial)
        next_degree = np.arange(1, p.n_spherical + 1)[:, None]
        norms = math.sqrt(2) / np.abs(spherical_jn(next_degree, roots))
        self.register_buffer("roots", torch.from_numpy(roots), persistent=False)
        self.register_buffer("norms", torch.from_numpy(norms), persistent=False)

    def forward(self, edges: Edges) -> Tensor:
        """Distances of kj and angles -> a_ln."""
        x = edges.d.double() / self.reach
        radial = torch.stack(self._bessel(x), 1)
        radial = radial * self.norms * envelope_over_x(x, self.p)[:, None, None]
        angular = torch.stack(self._legendre(edges.cosine.double()), 1)
        return (radial[edges.kj] * angular[:, :, None]).flatten(1).to(edges.d.dtype)

    def _bessel(self, x: Tensor) -> list[Tensor]:
        """j_l(z_ln x) for every l, [E, R] each: j_(l+1) = (2l + 1) / x j_l - j_(l-1)."""
        values = []
        for degree, roots in enumerate(self.roots):
            y = roots * x[:, None]
            before, value = torch.cos(y) / y, torch.sin(y) / y
            for k in range(degree):
                before, value = value, (2 * k + 1) / y * value - before
            values.append(value)
        return values

    def _legendre(self, cosine: Tensor) -> list[Tensor]:
        """Y_l^0 for every l, [T] each: (l + 1) P_(l+1) = (2l + 1) x P_l - l P_(l-1)."""
        before, value, values = torch.zeros_like(cosine), torch.ones_like(cosine), []
        for k in range(self.degrees):
            values.append(math.sqrt((2 * k + 1) / (4 * math.pi)) * value)
            before, value = value, ((2 * k + 1) * cosine * value - k * before) / (k + 1)
        return values


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

    hyperparameters: Hyperparameters

    def __init__(self, hyperparameters: Hyperparameters | None = None):
        super().__init__(hyperparameters or Hyperparameters())
        p = self.hyperparameters
        self.radial_basis, self.spherical_basis = RadialBasis(p), SphericalBasis(p)
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
