// The filter network (two dense layers, shifted softplus after both) at the knots of a distance
// grid: value, h W'(d) and h^2 W''(d) for every layer, and the gradient back to its weights.
#pragma once
#include <algorithm>
#include <vector>

#include "simd.h"

namespace {

// (z, z1, z2) = (value, first, second scaled derivative) through y = ssp(z) by the chain rule.
inline void ssp_jet(int F, float* z, float* y, float* s_out) {
  for (int f = 0; f < F; f += W) {
    vec value, s, z1 = load(z + F + f);
    ssp(load(z + f), value, s);
    store(y + f, value);
    store(s_out + f, s);
    store(y + F + f, s * z1);
    store(y + 2 * F + f, s * ((1.0f - s) * z1 * z1 + load(z + 2 * F + f)));
  }
}

// Adjoint of ssp_jet, in place on g: (gy, gy1, gy2) -> (gz, gz1, gz2).
inline void ssp_jet_adjoint(int F, const float* z, const float* s_in, float* g) {
  for (int f = 0; f < F; f += W) {
    vec s = load(s_in + f), s1 = s * (1.0f - s), z1 = load(z + F + f), z2 = load(z + 2 * F + f);
    vec g0 = load(g + f), g1 = load(g + F + f), g2 = load(g + 2 * F + f);
    store(g + f, g0 * s + g1 * s1 * z1 + g2 * (s1 * (1.0f - 2.0f * s) * z1 * z1 + s1 * z2));
    store(g + F + f, g1 * s + 2.0f * g2 * s1 * z1);
    store(g + 2 * F + f, g2 * s);
  }
}

struct FilterWeights {
  const float *w1, *b1, *w2, *b2;  // torch layout: w1 [F, G], w2 [F, F]
};

struct FilterTable {
  int T, F, G, K = 0, rows = 0;
  std::vector<float> basis;                             // [3K, G] Gaussians and scaled derivatives
  std::vector<int> row_lo, row_hi, column_lo, column_hi;  // the band of non-zero entries, in blocks
  std::vector<float> z1, y1, s1, z2, s2, values;        // [T, 3K, F], s: [T, K, F]
  static constexpr int BLOCK = 12;                      // a multiple of 3: whole knots

  void set_basis(int n_layers, int n_features, int n_gaussians, int n_knots, const float* e) {
    T = n_layers, F = n_features, G = n_gaussians, K = n_knots, rows = 3 * K;
    basis.assign(e, e + (size_t)rows * G);
    auto band = [](int n, int m, auto nonzero, std::vector<int>& lo, std::vector<int>& hi) {
      lo.clear(), hi.clear();
      for (int b = 0; b < n; b += BLOCK) {
        int first = m, last = 0;
        for (int r = b; r < std::min(n, b + BLOCK); r++)
          for (int c = 0; c < m; c++)
            if (nonzero(r, c)) first = std::min(first, c), last = std::max(last, c + 1);
        lo.push_back(std::min(first, last)), hi.push_back(last);
      }
    };
    band(rows, G, [&](int r, int g) { return std::fabs(basis[(size_t)r * G + g]) > 1e-9f; }, row_lo, row_hi);
    band(G, rows, [&](int g, int r) { return std::fabs(basis[(size_t)r * G + g]) > 1e-9f; }, column_lo, column_hi);
    size_t n = (size_t)T * rows * F;
    for (auto* a : {&z1, &y1, &z2, &values}) a->resize(n);
    s1.resize(n / 3), s2.resize(n / 3);
  }

  void forward_layer(int l, const FilterWeights& w) {
    std::vector<float> w1t((size_t)G * F), w2t((size_t)F * F);
    transpose(w.w1, F, G, w1t.data());
    transpose(w.w2, F, F, w2t.data());
    for (size_t b = 0; b < row_lo.size(); b++) {
      const int r = b * BLOCK, m = std::min(BLOCK, rows - r);
      const size_t o = ((size_t)l * rows + r) * F;
      gemm(m, F, row_hi[b] - row_lo[b], basis.data() + (size_t)r * G + row_lo[b], G, 1,
           w1t.data() + (size_t)row_lo[b] * F, F, z1.data() + o, F, false, nullptr);
      for (int k = 0; k < m; k += 3) {
        float* z = z1.data() + o + (size_t)k * F;
        for (int f = 0; f < F; f++) z[f] += w.b1[f];
        ssp_jet(F, z, y1.data() + o + (size_t)k * F, s1.data() + ((size_t)l * K + (r + k) / 3) * F);
      }
      product(m, F, F, y1.data() + o, w2t.data(), z2.data() + o);
      for (int k = 0; k < m; k += 3) {
        float* z = z2.data() + o + (size_t)k * F;
        for (int f = 0; f < F; f++) z[f] += w.b2[f];
        ssp_jet(F, z, values.data() + o + (size_t)k * F, s2.data() + ((size_t)l * K + (r + k) / 3) * F);
      }
    }
  }

  // gradient: [rows, F] by the table of this layer, overwritten. Adds to the gradients of the weights.
  void backward_layer(int l, const FilterWeights& w, float* g, float* g_w1, float* g_b1, float* g_w2, float* g_b2) {
    const size_t o = (size_t)l * rows * F;
    for (int k = 0; k < K; k++)
      ssp_jet_adjoint(F, z2.data() + o + (size_t)k * 3 * F, s2.data() + ((size_t)l * K + k) * F, g + (size_t)k * 3 * F);
    outer_add(rows, F, F, g, y1.data() + o, g_w2);
    for (int k = 0; k < K; k++)
      for (int f = 0; f < F; f++) g_b2[f] += g[(size_t)k * 3 * F + f];
    std::vector<float> h((size_t)rows * F), g_w1t((size_t)G * F);
    product(rows, F, F, g, w.w2, h.data());
    for (int k = 0; k < K; k++) {
      float* x = h.data() + (size_t)k * 3 * F;
      ssp_jet_adjoint(F, z1.data() + o + (size_t)k * 3 * F, s1.data() + ((size_t)l * K + k) * F, x);
      for (int f = 0; f < F; f++) g_b1[f] += x[f];
    }
    for (size_t b = 0; b < column_lo.size(); b++) {
      const int c = b * BLOCK, m = std::min(BLOCK, G - c), lo = column_lo[b], n = column_hi[b] - lo;
      gemm(m, F, n, basis.data() + (size_t)lo * G + c, 1, G, h.data() + (size_t)lo * F, F, g_w1t.data() + (size_t)c * F,
           F, false, nullptr);
    }
    for (int f = 0; f < F; f++)
      for (int c = 0; c < G; c++) g_w1[(size_t)f * G + c] += g_w1t[(size_t)c * F + f];
  }
};

}  // namespace
