"""The three operations on pairs (schnet/engine/pairs.py) as Triton kernels: filters are interpolated in registers and
never written to memory, every output row is summed by one program in a fixed order, so results do not change from run
to run. Importing this needs the triton package."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from schnet.engine.pairs import Pairs


@triton.jit
def _filter(table, weights, p, k, columns, valid, F: tl.constexpr):
    """The filter of pair p in bin k: sum_m weights[p, m] table[3 k + m]"""
    w = tl.zeros_like(columns).to(weights.dtype.element_ty)
    for m in tl.static_range(6):
        w += tl.load(weights + 6 * p + m) * tl.load(table + (3 * k + m) * F + columns, mask=valid, other=0)
    return w


@triton.jit
def _convolve_kernel(entries, senders, offsets, bins, P, weights, table, y, out, F: tl.constexpr, BLOCK: tl.constexpr):
    """One program per atom: out_i = sum over its neighbours of W y_j."""
    atom = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    valid = columns < F
    acc = tl.zeros([BLOCK], dtype=y.dtype.element_ty)
    for e in range(tl.load(offsets + atom), tl.load(offsets + atom + 1)):
        entry = tl.load(entries + e)
        p = entry % P
        w = _filter(table, weights, p, tl.load(bins + p), columns, valid, F)
        acc += w * tl.load(y + tl.load(senders + entry) * F + columns, mask=valid, other=0)
    tl.store(out + atom * F + columns, acc, mask=valid)


@triton.jit
def _product(a, b, i, j, columns, valid, F: tl.constexpr):
    """a_i b_j + a_j b_i"""
    ai = tl.load(a + i * F + columns, mask=valid, other=0)
    aj = tl.load(a + j * F + columns, mask=valid, other=0)
    bi = tl.load(b + i * F + columns, mask=valid, other=0)
    bj = tl.load(b + j * F + columns, mask=valid, other=0)
    return ai * bj + aj * bi


@triton.jit
def _contract_kernel(i, j, bins, weights, table, a, b, out, F: tl.constexpr, BLOCK: tl.constexpr):
    """One program per pair: out_p = < W, a_i b_j + a_j b_i >."""
    p = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    valid = columns < F
    w = _filter(table, weights, p, tl.load(bins + p), columns, valid, F)
    tl.store(out + p, tl.sum(w * _product(a, b, tl.load(i + p), tl.load(j + p), columns, valid, F)))


@triton.jit
def _tabulate_kernel(order, offsets, i, j, weights, a, b, out, K, F: tl.constexpr, BLOCK: tl.constexpr):
    """One program per bin k and row m: out[m, k] = sum over the pairs of the bin of weight_m (a_i b_j + a_j b_i)."""
    k, m = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BLOCK)
    valid = columns < F
    acc = tl.zeros([BLOCK], dtype=a.dtype.element_ty)
    for e in range(tl.load(offsets + k), tl.load(offsets + k + 1)):
        p = tl.load(order + e)
        acc += tl.load(weights + 6 * p + m) * _product(a, b, tl.load(i + p), tl.load(j + p), columns, valid, F)
    tl.store(out + (m * K + k) * F + columns, acc, mask=valid)


class TritonPairs(Pairs):
    """Pairs with the operations on a GPU (or in Triton's interpreter, TRITON_INTERPRET=1)."""

    name = "table (Triton)"

    @staticmethod
    def _sizes(x):
        return {"F": x.shape[1], "BLOCK": triton.next_power_of_2(x.shape[1]), "num_warps": 1 if x.shape[1] <= 64 else 2}

    def convolve(self, h, table, y, order):
        out = torch.empty_like(y)
        _convolve_kernel[(len(y),)](
            self.receivers.order, self.senders, self.receivers.offsets, self.bin, self.n_pairs, self._scaled_weights(h, order), table, y, out, **self._sizes(y)
        )  # fmt: skip
        return out

    def contract(self, table, a, b, order):
        out = a.new_empty(self.n_pairs)
        if len(out):
            _contract_kernel[(len(out),)](
                self.receivers.index, self.senders, self.bin, self.weights(order), table, a, b, out, **self._sizes(a)
            )  # fmt: skip
        return out

    def tabulate(self, h, a, b, order):
        bins = self.grid.n_knots - 1
        sums = a.new_empty(6, bins, a.shape[1])
        _tabulate_kernel[(bins, 6)](
            self.bins.order, self.bins.offsets, self.receivers.index, self.senders, self._scaled_weights(h, order), a, b, sums, bins, **self._sizes(a)
        )  # fmt: skip
        return self._to_knots(sums.view(2, 3, bins, -1))
