// Continuous-filter convolution (Eq. 3 of the paper) on unordered pairs with tabulated filters.
//
// A filter depends on one distance, so it is interpolated: W(d) = sum_m weight_m(t) row_{m}(bin),
// where d lies at position t of its bin and m runs over six rows of the table. Two tables share
// the kernels below: quintic Hermite data at the knots (value, h W', h^2 W'': three rows per knot,
// a bin uses those of its two knots) and polynomial coefficients (six rows per bin).
// Every pair (i, j) is visited once: the filter is the same in both directions, which also makes
// the convolution its own adjoint.
#pragma once
#include "simd.h"

namespace {

constexpr int M = 6;  // table rows that contribute to one filter

struct Pairs {
  const int32_t *i, *j, *bin;
  const float *weight, *slope;  // [P, 6]: interpolation weights and their derivatives by d
};

template <int F>
inline int vectors(int n_features) {
  return F > 0 ? F / W : n_features / W;
}

// v_i += W y_j,  v_j += W y_i
template <int F>
void convolve(int64_t p0, int64_t p1, const Pairs& pairs, int nf, const float* table, int stride, const float* y,
              float* v) {
  const int nv = vectors<F>(nf), n = nv * W;
  for (int64_t p = p0; p < p1; p++) {
    const float *t = table + (int64_t)pairs.bin[p] * stride * n, *s = pairs.weight + p * M;
    const int64_t i = (int64_t)pairs.i[p] * n, j = (int64_t)pairs.j[p] * n;
    vec c[M];
    for (int m = 0; m < M; m++) c[m] = splat(s[m]);
#pragma GCC unroll 8
    for (int q = 0; q < nv; q++) {
      const int o = q * W;
      vec w = load(t + o) * c[0];
#pragma GCC unroll 6
      for (int m = 1; m < M; m++) w += load(t + m * n + o) * c[m];
      vec a = w * load(y + j + o), b = w * load(y + i + o);
      store(v + i + o, load(v + i + o) + a);
      store(v + j + o, load(v + j + o) + b);
    }
  }
}

// Adjoint: ly += W lv (both directions) and d_bar_p += <lv_i y_j + lv_j y_i, W'(d_p)>
template <int F>
void convolve_adjoint(int64_t p0, int64_t p1, const Pairs& pairs, int nf, const float* table, int stride,
                      const float* y, const float* lv, float* ly, float* d_bar) {
  const int nv = vectors<F>(nf), n = nv * W;
  for (int64_t p = p0; p < p1; p++) {
    const float *t = table + (int64_t)pairs.bin[p] * stride * n, *s = pairs.weight + p * M, *ds = pairs.slope + p * M;
    const int64_t i = (int64_t)pairs.i[p] * n, j = (int64_t)pairs.j[p] * n;
    vec c[M], dc[M], acc = vec{};
    for (int m = 0; m < M; m++) c[m] = splat(s[m]), dc[m] = splat(ds[m]);
#pragma GCC unroll 8
    for (int q = 0; q < nv; q++) {
      const int o = q * W;
      vec row = load(t + o), w = row * c[0], dw = row * dc[0];
#pragma GCC unroll 6
      for (int m = 1; m < M; m++) row = load(t + m * n + o), w += row * c[m], dw += row * dc[m];
      vec li = load(lv + i + o), lj = load(lv + j + o);
      acc += (li * load(y + j + o) + lj * load(y + i + o)) * dw;
      store(ly + i + o, load(ly + i + o) + w * lj);
      store(ly + j + o, load(ly + j + o) + w * li);
    }
    d_bar[p] += sum(acc);
  }
}

// Tangent along a change dd_p of the distances: o_i += W a_j + dd W' b_j (both directions)
template <int F>
void convolve_tangent(int64_t p0, int64_t p1, const Pairs& pairs, int nf, const float* table, int stride,
                      const float* dd, const float* a, const float* b, float* out) {
  const int nv = vectors<F>(nf), n = nv * W;
  for (int64_t p = p0; p < p1; p++) {
    const float *t = table + (int64_t)pairs.bin[p] * stride * n, *s = pairs.weight + p * M, *ds = pairs.slope + p * M;
    const int64_t i = (int64_t)pairs.i[p] * n, j = (int64_t)pairs.j[p] * n;
    vec c[M], dc[M];
    for (int m = 0; m < M; m++) c[m] = splat(s[m]), dc[m] = splat(ds[m] * dd[p]);
#pragma GCC unroll 8
    for (int q = 0; q < nv; q++) {
      const int o = q * W;
      vec row = load(t + o), w = row * c[0], dw = row * dc[0];
#pragma GCC unroll 6
      for (int m = 1; m < M; m++) row = load(t + m * n + o), w += row * c[m], dw += row * dc[m];
      vec oi = w * load(a + j + o) + dw * load(b + j + o), oj = w * load(a + i + o) + dw * load(b + i + o);
      store(out + i + o, load(out + i + o) + oi);
      store(out + j + o, load(out + j + o) + oj);
    }
  }
}

// Gradient of the table from <a, W y>: row_m += weight_m (a_i y_j + a_j y_i); with TANGENT also from
// <b, W yd> + <b, dd W' y>: row_m += weight_m (b_i yd_j + b_j yd_i) + dd slope_m (b_i y_j + b_j y_i)
template <int F, bool TANGENT>
void table_gradient(int64_t p0, int64_t p1, const Pairs& pairs, int nf, int stride, const float* dd, const float* a,
                    const float* y, const float* b, const float* yd, float* table_bar) {
  const int nv = vectors<F>(nf), n = nv * W;
  for (int64_t p = p0; p < p1; p++) {
    float* t = table_bar + (int64_t)pairs.bin[p] * stride * n;
    const float *s = pairs.weight + p * M, *ds = pairs.slope + p * M;
    const int64_t i = (int64_t)pairs.i[p] * n, j = (int64_t)pairs.j[p] * n;
    vec c[M], dc[M];
    for (int m = 0; m < M; m++) {
      c[m] = splat(s[m]);
      if (TANGENT) dc[m] = splat(ds[m] * dd[p]);
    }
#pragma GCC unroll 8
    for (int q = 0; q < nv; q++) {
      const int o = q * W;
      vec yi = load(y + i + o), yj = load(y + j + o);
      vec g = load(a + i + o) * yj + load(a + j + o) * yi, r = vec{};
      if (TANGENT) {
        vec bi = load(b + i + o), bj = load(b + j + o);
        g += bi * load(yd + j + o) + bj * load(yd + i + o);
        r = bi * yj + bj * yi;
      }
#pragma GCC unroll 6
      for (int m = 0; m < M; m++) {
        vec x = load(t + m * n + o) + g * c[m];
        if (TANGENT) x += r * dc[m];
        store(t + m * n + o, x);
      }
    }
  }
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
