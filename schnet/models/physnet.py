"""PhysNet: messages through a learned attention mask, and an output after every module.

O. T. Unke, M. Meuwly, J. Chem. Theory Comput. 15, 3678 (2019), arXiv:1902.08408.

Equations of the paper and the variables here, for atoms i, their neighbours j at distance r_ij, and
modules m = 1 … M; σ is the shifted softplus::

    x_i^0   = e_Z_i                                                     embedding
    g_k(r)  = φ(r) exp(-β_k (exp(-r) - μ_k)^2)                          RadialBasis
    φ(r)    = 1 - 6 (r/r_cut)^5 + 15 (r/r_cut)^4 - 10 (r/r_cut)^3
    residual block:  x + W_2 σ(W_1 σ(x) + b_1) + b_2                    Residual
    ṽ_i     = σ(W_I σ(x_i) + b_I) + sum_j G g(r_ij) ∘ σ(W_J σ(x_j) + b_J)
    v_i     = residual blocks of ṽ_i                                    Module.interaction
    x_i     = residual blocks of u ∘ x_i + W σ(v_i) + b                 Module.atomic
    y_i^m   = W_out σ(residual blocks of x_i) + b_out                   Module.output
    E_i     = s_Z_i sum_m y_i^m + c_Z_i                                 scales, shifts

Centres μ_k and widths β_k are learned; they start equally spaced from exp(-r_cut) to 1, with β =
[2/K (1 - exp(-r_cut))]^-2. Defaults are the paper's: F = 128, K = 64, 5 modules of 2 atomic, 3
interaction and 1 output blocks, r_cut = 10 Å. Weights start orthogonal with Glorot's variance, the
masks G, the second layers of residual blocks and W_out at zero (with a dipole readout W_out does
not, whose norm has no gradient at zero).

Left out: the electrostatic and dispersion terms and the penalty on outputs that do not fall from
module to module; both belong to what is trained on charges and dipoles beside energies.

Shapes: N atoms, P unordered pairs, F features, K radial functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.models.contract import MAX_Z, BaseHyperparameters, Components, Model
from schnet.models.layers import orthogonal_dense, ssp
from schnet.models.schnet import cfconv


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(BaseHyperparameters):
    """What defines a PhysNet.

    Attributes:
        n_modules: number of modules M.
        n_features: number of features F.
        n_radial: number of radial functions K.
        n_atomic, n_interaction, n_output: residual blocks of each kind in a module.
        r_cut: messages end at this distance in Å, or at the cutoff where that is shorter.
    """

    SHORT: ClassVar[dict[str, str]] = {"n_modules": "M", "n_features": "F"}

    n_modules: int = 5
    n_features: int = 128
    n_radial: int = 64
    n_atomic: int = 2
    n_interaction: int = 3
    n_output: int = 1
    r_cut: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        self.require_positive("n_modules", "n_features", "n_radial", "r_cut")
        for name in ("n_atomic", "n_interaction", "n_output"):
            value = getattr(self, name)
            self.require(value >= 0, f"{name}: {value!r} is negative")

    @property
    def reach(self) -> float:
        """Where messages end, in Å."""
        return self.r_cut if self.cutoff is None else min(self.r_cut, self.cutoff)


def smooth_cutoff(r: Tensor, reach: float) -> Tensor:
    """φ(r), from 1 at zero to 0 at ``reach`` with two continuous derivatives."""
    x = (r / reach).clamp(max=1)
    return 1 - x**3 * (10 - 15 * x + 6 * x * x)


def inverse_softplus(x: Tensor) -> Tensor:
    """What softplus turns into x."""
    return x + torch.log(-torch.expm1(-x))


class RadialBasis(nn.Module):
    """g(r), [P] -> [P, K]; softplus keeps centres and widths positive."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        self.reach = p.reach
        nearest = math.exp(-p.reach)
        centres = torch.linspace(1, nearest, p.n_radial, dtype=torch.float64)
        width = (2 / p.n_radial * (1 - nearest)) ** -2
        widths = torch.full((p.n_radial,), width, dtype=torch.float64)
        dtype = torch.get_default_dtype()
        self.centres = nn.Parameter(inverse_softplus(centres).to(dtype))
        self.widths = nn.Parameter(inverse_softplus(widths).to(dtype))

    def forward(self, r: Tensor) -> Tensor:
        """Distances r_ij [P] in Å -> g(r_ij) [P, K]."""
        centres, widths = map(nn.functional.softplus, (self.centres, self.widths))
        u = torch.exp(-r)[:, None] - centres
        return smooth_cutoff(r, self.reach)[:, None] * torch.exp(-widths * u * u)


class Residual(nn.Module):
    """x + W_2 σ(W_1 σ(x) + b_1) + b_2, [N, F] -> [N, F]."""

    def __init__(self, n_features: int):
        super().__init__()
        self.dense1 = orthogonal_dense(n_features, n_features)
        self.dense2 = orthogonal_dense(n_features, n_features, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, F] -> [N, F]."""
        return x + self.dense2(ssp(self.dense1(ssp(x))))


def residuals(count: int, n_features: int) -> nn.Sequential:
    """Residual blocks, one after the other."""
    return nn.Sequential(*(Residual(n_features) for _ in range(count)))


class Module(nn.Module):
    """One module: messages, residual blocks and an output of its own."""

    def __init__(self, p: Hyperparameters):
        super().__init__()
        f = p.n_features
        self.own = orthogonal_dense(f, f)  # W_I
        self.others = orthogonal_dense(f, f)  # W_J
        self.mask = orthogonal_dense(p.n_radial, f, bias=False, zero=True)  # G
        self.interaction = residuals(p.n_interaction, f)
        self.dense = orthogonal_dense(f, f)  # W
        self.gate = nn.Parameter(torch.ones(f))  # u
        self.atomic = residuals(p.n_atomic, f)
        self.output = residuals(p.n_output, f)
        self.last = orthogonal_dense(f, 1, zero=p.readout != "dipole")  # W_out

    def forward(self, x: Tensor, g: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features x [N, F] and radial functions g [P, K] -> features and outputs y^m [N]."""
        activated = ssp(x)
        sent = cfconv(ssp(self.others(activated)), self.mask(g), batch)
        v = ssp(self.own(activated)) + sent
        x = self.atomic(self.gate * x + self.dense(ssp(self.interaction(v))))
        return x, self.last(ssp(self.output(x))).squeeze(-1)


class PhysNet(Model):
    """The network of this file's equations."""

    hyperparameters: Hyperparameters
    probes = True

    def __init__(self, hyperparameters: Hyperparameters | None = None):
        super().__init__(hyperparameters or Hyperparameters())
        p = self.hyperparameters
        self.embedding = nn.Embedding(MAX_Z, p.n_features)
        nn.init.uniform_(self.embedding.weight, -math.sqrt(3), math.sqrt(3))
        self.radial_basis = RadialBasis(p)
        self.blocks = nn.ModuleList(Module(p) for _ in range(p.n_modules))
        self.scales = nn.Parameter(torch.ones(MAX_Z))  # s_Z
        self.shifts = nn.Parameter(torch.zeros(MAX_Z))  # c_Z

    def components(self) -> Components:
        """What the model is made of, with its own numbers."""
        p = self.hyperparameters
        return Components(
            source="J. Chem. Theory Comput. 15, 3678 (2019)",
            embedding=f"{p.n_features} numbers per element",
            basis=f"{p.n_radial} Gaussians of exp(-r), centres and widths learned",
            message="features ∘ attention mask, one linear layer on the basis",
            cutoff=f"{p.reach:g} Å, smooth",
            update=f"{p.n_modules} modules with own weights, gate and residual blocks",
            readout=f"one output per atom and module, added; {p.readout} over atoms",
        )

    def atomwise(self, batch: Batch) -> Tensor:
        """The contribution E_i of every atom, [N], before scale and offsets."""
        g = self.radial_basis(batch.distances())
        x = self.embedding(batch.atomic_numbers)
        total = x.new_zeros(len(x))
        for module in self.blocks:
            x, y = module(x, g, batch)
            total = total + y
        z = batch.atomic_numbers.long()
        return self.scales[z] * total + self.shifts[z]
