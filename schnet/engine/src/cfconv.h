// Continuous-filter convolution (Eq. 3 of the paper) on unordered pairs with tabulated filters.
//
// A filter depends on one distance, so it is interpolated: W(d) = sum_m weight_m(t) row_{m}(bin),
// where d lies at position t of its bin and m runs over six rows of the table. Two tables share
// the kernels below: quintic Hermite data at the knots (value, h W', h^2 W'': three rows per knot,
// a bin uses those of its two knots) and polynomial coefficients (six rows per bin).
// Every pair (i, j) is visited once: the filter is the same in both directions, which also makes
// the convolution its own adjoint. Pairs come sorted by bin.
#pragma once
#include <type_traits>

#include "simd.h"

namespace {

constexpr int M = 6;  // table rows that contribute to one filter

struct Pairs {  // sorted by bin, in portions
  const int32_t *i, *j, *bin;
  const float *weight, *slope;  // [P, 6]: interpolation weights and their derivatives by d
};

// f(first, last, columns): every run of pairs in one bin times every block of columns. A block is as wide as
// the registers hold the six rows of a bin, which are then loaded once per run instead of once per pair.
template <class Function>
inline void for_runs(int64_t p0, int64_t p1, const Pairs& pairs, int n, Function f) {
  for (int64_t first = p0, last; first < p1; first = last) {
    last = first + 1;
    while (last < p1 && pairs.bin[last] == pairs.bin[first]) last++;
    int o = 0;
    for (; o + BLOCK * W <= n; o += BLOCK * W) f(first, last, o, std::integral_constant<int, BLOCK>());
    for (; o < n; o += W) f(first, last, o, std::integral_constant<int, 1>());
  }
}

template <int Q>
inline void load_rows(const float* t, int n, vec (&row)[M][Q]) {
  UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int q = 0; q < Q; q++) row[m][q] = load(t + m * n + q * W);
}

// w += sum_m s_m row_m
template <int Q>
inline void interpolate(const vec (&row)[M][Q], const float* s, vec (&w)[Q]) {
  UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int q = 0; q < Q; q++) w[q] += row[m][q] * s[m];
}

// v_i += W y_j,  v_j += W y_i
inline void convolve(int64_t p0, int64_t p1, const Pairs& pairs, int n, const float* table, int stride, const float* y,
                     float* v) {
  for_runs(p0, p1, pairs, n, [=](int64_t first, int64_t last, int o, auto block) {
    constexpr int Q = block;
    vec row[M][Q];
    load_rows(table + (int64_t)pairs.bin[first] * stride * n + o, n, row);
    for (int64_t p = first; p < last; p++) {
      const float* s = pairs.weight + p * M;
      const int64_t i = (int64_t)pairs.i[p] * n + o, j = (int64_t)pairs.j[p] * n + o;
      vec w[Q] = {};
      interpolate(row, s, w);
      UNROLL for (int q = 0; q < Q; q++) {
        const vec a = w[q] * load(y + j + q * W), b = w[q] * load(y + i + q * W);
        store(v + i + q * W, load(v + i + q * W) + a);
        store(v + j + q * W, load(v + j + q * W) + b);
      }
    }
  });
}

// Adjoint: ly += W lv (both directions) and d_bar_p += <lv_i y_j + lv_j y_i, W'(d_p)>
inline void convolve_adjoint(int64_t p0, int64_t p1, const Pairs& pairs, int n, const float* table, int stride,
                             const float* y, const float* lv, float* ly, float* d_bar) {
  for_runs(p0, p1, pairs, n, [=](int64_t first, int64_t last, int o, auto block) {
    constexpr int Q = block;
    vec row[M][Q];
    load_rows(table + (int64_t)pairs.bin[first] * stride * n + o, n, row);
    for (int64_t p = first; p < last; p++) {
      const float *s = pairs.weight + p * M, *ds = pairs.slope + p * M;
      const int64_t i = (int64_t)pairs.i[p] * n + o, j = (int64_t)pairs.j[p] * n + o;
      vec w[Q] = {}, dw[Q] = {}, acc = {};
      interpolate(row, s, w);
      interpolate(row, ds, dw);
      UNROLL for (int q = 0; q < Q; q++) {
        const vec li = load(lv + i + q * W), lj = load(lv + j + q * W);
        acc += (li * load(y + j + q * W) + lj * load(y + i + q * W)) * dw[q];
        store(ly + i + q * W, load(ly + i + q * W) + w[q] * lj);
        store(ly + j + q * W, load(ly + j + q * W) + w[q] * li);
      }
      d_bar[p] += sum(acc);
    }
  });
}

// Tangent along a change dd_p of the distances: o_i += W a_j + dd W' b_j (both directions)
inline void convolve_tangent(int64_t p0, int64_t p1, const Pairs& pairs, int n, const float* table, int stride,
                             const float* dd, const float* a, const float* b, float* out) {
  for_runs(p0, p1, pairs, n, [=](int64_t first, int64_t last, int o, auto block) {
    constexpr int Q = block;
    vec row[M][Q];
    load_rows(table + (int64_t)pairs.bin[first] * stride * n + o, n, row);
    for (int64_t p = first; p < last; p++) {
      const float *s = pairs.weight + p * M, *ds = pairs.slope + p * M;
      const int64_t i = (int64_t)pairs.i[p] * n + o, j = (int64_t)pairs.j[p] * n + o;
      vec w[Q] = {}, dw[Q] = {};
      interpolate(row, s, w);
      interpolate(row, ds, dw);
      UNROLL for (int q = 0; q < Q; q++) {
        const vec d = dw[q] * dd[p];
        const vec oi = w[q] * load(a + j + q * W) + d * load(b + j + q * W);
        const vec oj = w[q] * load(a + i + q * W) + d * load(b + i + q * W);
        store(out + i + q * W, load(out + i + q * W) + oi);
        store(out + j + q * W, load(out + j + q * W) + oj);
      }
    }
  });
}

// Gradient of the table from <a, W y>: row_m += weight_m (a_i y_j + a_j y_i); with TANGENT also from
// <b, W yd> + <b, dd W' y>: row_m += weight_m (b_i yd_j + b_j yd_i) + dd slope_m (b_i y_j + b_j y_i)
template <bool TANGENT>
void table_gradient(int64_t p0, int64_t p1, const Pairs& pairs, int n, int stride, const float* dd, const float* a,
                    const float* y, const float* b, const float* yd, float* table_bar) {
  for_runs(p0, p1, pairs, n, [=](int64_t first, int64_t last, int o, auto block) {
    constexpr int Q = block;
    vec row[M][Q] = {};
    for (int64_t p = first; p < last; p++) {
      const float *s = pairs.weight + p * M, *ds = pairs.slope + p * M;
      const int64_t i = (int64_t)pairs.i[p] * n + o, j = (int64_t)pairs.j[p] * n + o;
      vec g[Q], r[Q];
      UNROLL for (int q = 0; q < Q; q++) {
        const vec yi = load(y + i + q * W), yj = load(y + j + q * W);
        g[q] = load(a + i + q * W) * yj + load(a + j + q * W) * yi;
        if (TANGENT) {
          const vec bi = load(b + i + q * W), bj = load(b + j + q * W);
          g[q] += bi * load(yd + j + q * W) + bj * load(yd + i + q * W);
          r[q] = (bi * yj + bj * yi) * dd[p];
        }
      }
      UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int q = 0; q < Q; q++) {
          row[m][q] += g[q] * s[m];
          if (TANGENT) row[m][q] += r[q] * ds[m];
        }
    }
    float* t = table_bar + (int64_t)pairs.bin[first] * stride * n + o;
    UNROLL for (int m = 0; m < M; m++)
      UNROLL for (int q = 0; q < Q; q++) store(t + m * n + q * W, load(t + m * n + q * W) + row[m][q]);
  });
}

// Quintic Hermite weights at position t of a bin of width h, and their derivatives by distance.
inline void hermite_weights(float t, float inverse_h, float* s, float* ds) {
  const float t2 = t * t, t3 = t2 * t, t4 = t2 * t2, t5 = t4 * t;
  s[0] = 1 - 10 * t3 + 15 * t4 - 6 * t5;
  s[1] = t - 6 * t3 + 8 * t4 - 3 * t5;
  s[2] = 0.5f * t2 - 1.5f * t3 + 1.5f * t4 - 0.5f * t5;
  s[3] = 10 * t3 - 15 * t4 + 6 * t5;
  s[4] = -4 * t3 + 7 * t4 - 3 * t5;
  s[5] = 0.5f * t3 - t4 + 0.5f * t5;
  ds[0] = (-30 * t2 + 60 * t3 - 30 * t4) * inverse_h;
  ds[1] = (1 - 18 * t2 + 32 * t3 - 15 * t4) * inverse_h;
  ds[2] = (t - 4.5f * t2 + 6 * t3 - 2.5f * t4) * inverse_h;
  ds[3] = -ds[0];
  ds[4] = (-12 * t2 + 28 * t3 - 15 * t4) * inverse_h;
  ds[5] = (1.5f * t2 - 4 * t3 + 2.5f * t4) * inverse_h;
}

// Monomials 1, t, ..., t^5 and their derivatives by distance.
inline void monomial_weights(float t, float inverse_h, float* s, float* ds) {
  s[0] = 1, ds[0] = 0;
  for (int m = 1; m < M; m++) s[m] = s[m - 1] * t, ds[m] = m * s[m - 1] * inverse_h;
}

}  // namespace
