"""The interactions of SchNet as one form of pairs, closed under differentiation.

With the interpolated filters W_p = S(d_p) table (n-th derivative by d: S^(n)), every product that
SchNet and its derivatives of any order need is a part of

    Phi = sum_p h_p < W_p^(n), a_i b_j + a_j b_i >        (pairs p = (i, j), n >= 0)

- ``convolve``, dPhi/da: the continuous-filter convolution (Eq. 3) of b (it is its own adjoint),
- ``contract``, dPhi/dh: one number per pair; with n + 1 in place of n it is dPhi/dd (forces, Eq.
4), - ``tabulate``, dPhi/dtable: how gradients reach the filter networks.

The derivatives of each are the other two, so energies, forces, gradients of losses on both, and
Hessians need three kernels. schnet/engine/pairs.py has them in PyTorch, triton_kernels.py for GPUs;
here are their derivatives, and the choice between the two.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from schnet.engine.pairs import Pairs


def _plain(x: Tensor) -> Tensor:
    """Contiguous and without requires_grad: embedding_bag would prepare a backward of its own."""
    return x.detach().contiguous()


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, d, h, table, y, pairs, order):
        ctx.save_for_backward(d, h, table, y)
        ctx.pairs, ctx.order = pairs, order
        return pairs.convolve(h, _plain(table), _plain(y), order)

    @staticmethod
    def backward(ctx, g):
        (d, h, table, y), n, pairs, need = (
            ctx.saved_tensors,
            ctx.order,
            ctx.pairs,
            ctx.needs_input_grad,
        )
        by_d = (
            _times(h, contract(d, table, g, y, pairs, n + 1))
            if need[0] and pairs.by_distance
            else None
        )
        by_h = contract(d, table, g, y, pairs, n) if need[1] else None
        by_table = tabulate(d, h, g, y, pairs, n) if need[2] else None
        by_y = convolve(d, h, table, g, pairs, n) if need[3] else None
        return by_d, by_h, by_table, by_y, None, None


class _Contract(torch.autograd.Function):
    @staticmethod
    def forward(ctx, d, table, a, b, pairs, order):
        ctx.save_for_backward(d, table, a, b)
        ctx.pairs, ctx.order = pairs, order
        return pairs.contract(_plain(table), _plain(a), _plain(b), order)

    @staticmethod
    def backward(ctx, g):
        (d, table, a, b), n, pairs, need = (
            ctx.saved_tensors,
            ctx.order,
            ctx.pairs,
            ctx.needs_input_grad,
        )
        by_d = g * contract(d, table, a, b, pairs, n + 1) if need[0] and pairs.by_distance else None
        by_table = tabulate(d, g, a, b, pairs, n) if need[1] else None
        by_a = convolve(d, g, table, b, pairs, n) if need[2] else None
        by_b = convolve(d, g, table, a, pairs, n) if need[3] else None
        return by_d, by_table, by_a, by_b, None, None


class _Tabulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, d, h, a, b, pairs, order):
        ctx.save_for_backward(d, h, a, b)
        ctx.pairs, ctx.order = pairs, order
        return pairs.tabulate(h, _plain(a), _plain(b), order)

    @staticmethod
    def backward(ctx, g):
        (d, h, a, b), n, pairs, need = ctx.saved_tensors, ctx.order, ctx.pairs, ctx.needs_input_grad
        by_d = (
            _times(h, contract(d, g, a, b, pairs, n + 1)) if need[0] and pairs.by_distance else None
        )
        by_h = contract(d, g, a, b, pairs, n) if need[1] else None
        by_a = convolve(d, h, g, b, pairs, n) if need[2] else None
        by_b = convolve(d, h, g, a, pairs, n) if need[3] else None
        return by_d, by_h, by_a, by_b, None, None


def _times(h, x):
    return x if h is None else h * x


def convolve(d, h, table, y, pairs: Pairs, order: int = 0) -> Tensor:
    """v_i = sum over the neighbours j of h_p W^(n)(d_p) y_j, [N, F].

    Differentiable in d, h, table and y.
    """
    if not torch.is_grad_enabled():
        return pairs.convolve(h, table, y, order)
    return _Convolve.apply(d, h, table, y, pairs, order)


def contract(d, table, a, b, pairs: Pairs, order: int = 0) -> Tensor:
    """< W^(n)(d_p), a_i b_j + a_j b_i > for every pair, [P].

    Differentiable in d, table, a and b.
    """
    return _Contract.apply(d, table, a, b, pairs, order)


def tabulate(d, h, a, b, pairs: Pairs, order: int = 0) -> Tensor:
    """sum_p S^(n)(d_p)^T h_p (a_i b_j + a_j b_i), [3 K, F].

    Differentiable in d, h, a and b.
    """
    return _Tabulate.apply(d, h, a, b, pairs, order)


def pairs_class(like: Tensor) -> type[Pairs]:
    """The implementation of the three operations for tensors like this one."""
    if like.is_cuda or os.environ.get("TRITON_INTERPRET") == "1":
        try:
            from schnet.engine.triton_kernels import TritonPairs
        except ImportError:
            return Pairs
        return TritonPairs
    return Pairs
