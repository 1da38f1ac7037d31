"""Layers that several architectures have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LOG2 = math.log(2.0)


def ssp(x: Tensor) -> Tensor:
    """Shifted softplus ln(0.5 e^x + 0.5), zero at zero and infinitely smooth (Sec. II C)."""
    return nn.functional.softplus(x) - LOG2


def dense(n_in: int, n_out: int, *, bias: bool = True, zero: bool = False) -> nn.Linear:
    """A layer x W^T + b with Glorot uniform (or zero) weights and zero bias."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def orthogonal_dense(n_in: int, n_out: int, *, bias: bool = True, zero: bool = False) -> nn.Linear:
    """As ``dense``, with orthogonal weights of the variance 2 / (n_in + n_out) of Glorot's."""
    layer = dense(n_in, n_out, bias=bias, zero=zero)
    if not zero:
        nn.init.orthogonal_(layer.weight)
        with torch.no_grad():
            variance = layer.weight.var(correction=0)
            layer.weight.mul_((2 / (n_in + n_out) / variance).sqrt())
    return layer
