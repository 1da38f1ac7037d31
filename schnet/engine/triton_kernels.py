"""The three operations on pairs (schnet/engine/operations.py) as Triton kernels.

Filters are interpolated in registers and never written to memory, and every output row is summed in
a fixed order, so results do not change from run to run. Importing this needs the triton package.

A load waits for the one that tells its address, so a program handles a tile of pairs at a time: the
waiting is that of one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from schnet.engine.pairs import Pairs

TILE = 16  # pairs that a program handles at a time
PARTS = 8  # programs that share a bin of the table: distances of bonds crowd in few bins


@triton.jit
def _rows(x, index, there, columns, F: tl.constexpr):
    """x[index], [TILE, BLOCK], with zeros where there is none"""
    return tl.load(
        x + index[:, None] * F + columns[None, :],
        mask=there[:, None] & (columns < F)[None, :],
        other=0,
    )


@triton.jit
def _filters(table, bins, weights, p, there, columns, F: tl.constexpr):
    """The filters of pairs p: sum_m weights[p, m] table[3 bins[p] + m]"""
    row = 3 * tl.load(bins + p, mask=there, other=0)
    w = tl.zeros([there.shape[0], columns.shape[0]], dtype=table.dtype.element_ty)
    for m in tl.static_range(6):
        w += tl.load(weights + 6 * p + m, mask=there, other=0)[:, None] * _rows(
            table, row + m, there, columns, F
        )
    return w


@triton.jit
def _products(a, b, i, j, p, there, columns, F: tl.constexpr):
    """a_i b_j + a_j b_i of pairs p"""
    at_i, at_j = tl.load(i + p, mask=there, other=0), tl.load(j + p, mask=there, other=0)
    product = _rows(a, at_i, there, columns, F) * _rows(b, at_j, there, columns, F)
    return product + _rows(a, at_j, there, columns, F) * _rows(b, at_i, there, columns, F)


@triton.jit
def _convolve_kernel(
    entries,
    senders,
    offsets,
    bins,
    P,
    weights,
    table,
    y,
    out,
    F: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """One program per atom: out_i = sum over its neighbours of W y_j."""
    atom = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    acc = tl.zeros([TILE, BLOCK], dtype=y.dtype.element_ty)
    end = tl.load(offsets + atom + 1)
    for start in range(tl.load(offsets + atom), end, TILE):
        e = start + tl.arange(0, TILE)
        there = e < end
        entry = tl.load(entries + e, mask=there, other=0)
        w = _filters(table, bins, weights, entry % P, there, columns, F)
        acc += w * _rows(y, tl.load(senders + entry, mask=there, other=0), there, columns, F)
    tl.store(out + atom * F + columns, tl.sum(acc, 0), mask=columns < F)


@triton.jit
def _contract_kernel(
    i,
    j,
    bins,
    P,
    weights,
    table,
    a,
    b,
    out,
    F: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """One program per tile of pairs: out_p = < W, a_i b_j + a_j b_i >."""
    p = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = p < P
    columns = tl.arange(0, BLOCK)
    w = _filters(table, bins, weights, p, there, columns, F)
    tl.store(out + p, tl.sum(w * _products(a, b, i, j, p, there, columns, F), 1), mask=there)


@triton.jit
def _tabulate_kernel(
    order,
    offsets,
    i,
    j,
    weights,
    a,
    b,
    out,
    K,
    F: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
):
    """One program per bin k and part s of its tiles.

    out[s, m, k] = sum over the pairs of weight_m (a_i b_j + a_j b_i).
    """
    k, s = tl.program_id(0), tl.program_id(1)
    columns, m = tl.arange(0, BLOCK), tl.arange(0, 16)  # six rows; a dot takes no fewer than 16
    acc = tl.zeros([16, BLOCK], dtype=a.dtype.element_ty)
    end = tl.load(offsets + k + 1)
    for start in range(tl.load(offsets + k) + s * TILE, end, PARTS * TILE):
        e = start + tl.arange(0, TILE)
        there = e < end
        p = tl.load(order + e, mask=there, other=0)
        w = tl.load(
            weights + 6 * p[None, :] + m[:, None], mask=(m < 6)[:, None] & there[None, :], other=0
        )
        acc += tl.dot(w, _products(a, b, i, j, p, there, columns, F), input_precision="ieee")
    to = out + ((s * 6 + m[:, None]) * K + k) * F + columns[None, :]
    tl.store(to, acc, mask=(m < 6)[:, None] & (columns < F)[None, :])


class TritonPairs(Pairs):
    """Pairs with the operations on a GPU (or in Triton's interpreter, TRITON_INTERPRET=1)."""

    name = "table (Triton)"

    @staticmethod
    def _sizes(x):
        block = max(16, triton.next_power_of_2(x.shape[1]))
        return {"F": x.shape[1], "BLOCK": block, "TILE": TILE, "num_warps": block // 16}

    def convolve(self, h, table, y, order):
        """See ``Pairs.convolve``: one program per atom."""
        out = torch.empty_like(y)
        _convolve_kernel[(len(y),)](
            self.receivers.order, self.senders, self.receivers.offsets, self.bin, self.n_pairs,
            self._scaled_weights(h, order), table, y, out, **self._sizes(y)
        )  # fmt: skip
        return out

    def contract(self, table, a, b, order):
        """See ``Pairs.contract``: one program per tile of pairs."""
        out = a.new_empty(self.n_pairs)
        if len(out):
            _contract_kernel[(triton.cdiv(len(out), TILE),)](
                self.receivers.index, self.senders, self.bin, len(out), self.weights(order), table,
                a, b, out, **self._sizes(a)
            )  # fmt: skip
        return out

    def tabulate(self, h, a, b, order):
        """See ``Pairs.tabulate``: PARTS programs per bin, whose sums are added up."""
        bins = self.grid.n_knots - 1
        sums = a.new_empty(PARTS, 6, bins, a.shape[1])
        _tabulate_kernel[(bins, PARTS)](
            self.bins.order, self.bins.offsets, self.receivers.index, self.senders,
            self._scaled_weights(h, order), a, b, sums, bins, **self._sizes(a), PARTS=PARTS
        )  # fmt: skip
        return self._to_knots(sums.sum(0).view(2, 3, bins, -1))
