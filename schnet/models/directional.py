"""Directed edges between atoms, their triplets, and bases of distances and angles (DimeNet).

J. Klicpera, J. Groß, S. Günnemann, arXiv:2003.03123. For an edge of length d < c and x = d / c::

    u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2)              envelope
    e_n  = u(x) sin(f_n x) / x,  f_n = n π at first, then learned                RadialBasis
    a_ln = u(x) / x j_l(z_ln x) sqrt(2) / |j_(l+1)(z_ln)| Y_l^0(α)               SphericalBasis

with z_ln the n-th root of the spherical Bessel function j_l and Y_l^0 a Legendre polynomial of the
angle α between the two edges of a triplet. As in the authors' code the radial functions of a
triplet are those of its first edge, the envelope of a_ln has the factor 1/x, and factors with c are
left to the weights.

Shapes: E edges, T triplets (pairs of edges), R radial, S spherical functions.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor, nn

from schnet.data.structures import Batch


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
    """e_n, [E] -> [E, R].

    Args:
        reach: c in Å.
        envelope: exponent p.
        n_radial: R.
    """

    def __init__(self, reach: float, envelope: int, n_radial: int):
        super().__init__()
        self.reach, self.envelope = reach, envelope
        self.frequencies = nn.Parameter(math.pi * torch.arange(1.0, n_radial + 1))

    def forward(self, d: Tensor) -> Tensor:
        """Distances in Å -> e_n."""
        x = (d / self.reach)[:, None]
        return envelope_over_x(x, self.envelope) * torch.sin(self.frequencies * x)


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
    """a_ln, [T, S R]; in float64, where the recurrence of the Bessel functions loses nothing.

    Args:
        reach: c in Å.
        envelope: exponent p.
        n_radial, n_spherical: R, and number of degrees S.
    """

    roots: Tensor  # z_ln
    norms: Tensor  # sqrt(2) / |j_(l+1)(z_ln)|

    def __init__(self, reach: float, envelope: int, n_radial: int, n_spherical: int):
        super().__init__()
        self.reach, self.envelope, self.degrees = reach, envelope, n_spherical
        roots = bessel_roots(n_spherical, n_radial)
        next_degree = np.arange(1, n_spherical + 1)[:, None]
        norms = math.sqrt(2) / np.abs(spherical_jn(next_degree, roots))
        self.register_buffer("roots", torch.from_numpy(roots), persistent=False)
        self.register_buffer("norms", torch.from_numpy(norms), persistent=False)

    def forward(self, edges: Edges) -> Tensor:
        """Distances of kj and angles -> a_ln."""
        x = edges.d.double() / self.reach
        radial = torch.stack(self._bessel(x), 1)
        radial = radial * self.norms * envelope_over_x(x, self.envelope)[:, None, None]
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
