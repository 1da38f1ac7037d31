// The whole SchNet on batches of structures, with the filters from a table.
//
//   forward    energies of the structures (sums of atomwise outputs), or the atomwise outputs themselves:
//              whoever makes something else of them, like a dipole moment, differentiates that by them
//   adjoint    forces F = -dE/dr, by one reverse sweep
//   backward   gradients of any loss L(E, F), or L(atomwise outputs), by the parameters: a tangent sweep along dr = -dL/dF
//              and a second reverse sweep (no double backward)
//
// Threads own whole structures: chunks of structures are handed out statically, gradients are summed
// in the order of the threads, so the same number of threads gives bitwise the same result.
// Nothing is global; an Engine owns all of its memory.
#pragma once
#include <algorithm>
#include <limits>
#include <memory>
#include <thread>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "cfconv.h"
#include "filter_table.h"

namespace {

// f(0) … f(n_tasks - 1), one thread each. With OpenMP the threads are those that PyTorch uses; threads of our own
// would compete with PyTorch's, which stay awake for a while after every operation.
template <class Function>
void parallel(int n_tasks, Function f) {
  if (n_tasks <= 1) return f(0);
#ifdef _OPENMP
#pragma omp parallel num_threads(n_tasks)
  for (int t = omp_get_thread_num(); t < n_tasks; t += omp_get_num_threads()) f(t);
#else
  std::vector<std::thread> others;
  for (int t = 1; t < n_tasks; t++) others.emplace_back([&f, t] { f(t); });
  f(0);
  for (auto& t : others) t.join();
#endif
}

// Parameters in the order of SchNet.parameters(), torch layout (weight [out, in]).
struct Layer {
  const float *in2f, *w1, *b1, *w2, *b2, *f2out, *f2out_bias, *dense, *dense_bias;
};
constexpr int PER_LAYER = 9;

struct Batch {
  int64_t n_structures, n_atoms, n_pairs;
  const int64_t *atom_ptr, *pair_ptr;      // [B + 1]
  const int32_t *atomic_numbers, *i, *j;   // [N], [P], [P]
  const float *positions, *shift, *scale;  // [N, 3], [P, 3] or null, [N] (1 / n_neighbours) or null
};

enum Status { OK = 0, OUTSIDE_TABLE = 1, WRONG_ELEMENT = 2 };  // native.py knows these numbers

struct Chunk {
  int64_t b0, b1, a0, a1, p0, p1;
};

struct Engine {
  const int T, F, G, H, n_elements, n_threads;
  const bool per_atom;  // results are atomwise outputs instead of energies
  FilterTable filters;
  std::vector<float> coefficients;  // frozen table, [T, K, 6, F]
  bool frozen = false;
  float lo = 0, h = 1;
  int K = 0;
  float furthest = 0;  // in units of h from lo: what lies beyond the last knot and before this is taken to it
  float shortest = 0;  // distance in the last batch

  std::vector<const float*> raw;
  std::vector<Layer> layers;
  const float *embedding, *out1, *out1_bias, *out2, *out2_bias;
  std::vector<float> in2f_t, f2out_t, dense_t, out1_t;  // transposed weights

  Batch batch{};
  std::vector<Chunk> chunks;
  bool kept = false;
  // per pair, sorted by bin in portions
  std::vector<int32_t> i, j, bin;
  std::vector<float> weight, slope, rij, inverse_d, d_bar;
  std::vector<float> place;  // (d - lo) / h, in the batch's order
  // per atom and layer
  std::vector<float> x, y, v, a, s, x_last, o1, o_s, X, lam, tangent, mu;
  std::vector<float> force;

  Engine(int T_, int F_, int G_, int n_elements_, int n_threads_, bool per_atom_)
      : T(T_), F(F_), G(G_), H(F_ / 2), n_elements(n_elements_), n_threads(std::max(1, n_threads_)),
        per_atom(per_atom_), layers(T_) {}

  void set_parameters(const float* const* p) {
    raw.assign(p, p + 1 + PER_LAYER * T + 4);
    embedding = p[0];
    for (int l = 0; l < T; l++) {
      const float* const* q = p + 1 + PER_LAYER * l;
      layers[l] = {q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7], q[8]};
    }
    const float* const* q = p + 1 + PER_LAYER * T;
    out1 = q[0], out1_bias = q[1], out2 = q[2], out2_bias = q[3];
    const size_t n = (size_t)F * F;
    for (auto* t : {&in2f_t, &f2out_t, &dense_t}) t->resize(n * T);
    out1_t.resize((size_t)F * H);
    for (int l = 0; l < T; l++) {
      transpose(layers[l].in2f, F, F, in2f_t.data() + n * l);
      transpose(layers[l].f2out, F, F, f2out_t.data() + n * l);
      transpose(layers[l].dense, F, F, dense_t.data() + n * l);
    }
    transpose(out1, H, F, out1_t.data());
  }

  // Knots lo, lo + h, ...; basis [3K, G] holds the Gaussians there and their scaled derivatives.
  void set_grid(float lo_, float h_, int n_knots, float furthest_, const float* basis) {
    lo = lo_, h = h_, K = n_knots, furthest = furthest_, frozen = false;
    filters.set_basis(T, F, G, K, basis);
  }
  void build_table() {
    parallel(std::min(n_threads, T), [&](int t) {
      const int nt = std::min(n_threads, T);
      for (int l = t; l < T; l += nt) filters.forward_layer(l, {layers[l].w1, layers[l].b1, layers[l].w2, layers[l].b2});
    });
  }
  // Polynomial coefficients per bin, [T, n_bins, 6, F]
  void set_coefficients(float lo_, float h_, int n_bins, float furthest_, const float* c) {
    lo = lo_, h = h_, K = n_bins + 1, furthest = furthest_, frozen = true;
    coefficients.assign(c, c + (size_t)T * n_bins * M * F);
  }
  const float* table(int l) const {
    return frozen ? coefficients.data() + (size_t)l * (K - 1) * M * F : filters.values.data() + (size_t)l * 3 * K * F;
  }
  int stride() const { return frozen ? M : 3; }

  void make_chunks() {
    const int64_t B = batch.n_structures, *ap = batch.atom_ptr, *pp = batch.pair_ptr;
    // of about 80 atoms (160 where nothing is kept), which fit the cache, and as many for every thread
    const int64_t fitting = (kept ? 80 : 160) * n_threads, each = std::max<int64_t>(1, batch.n_atoms / fitting);
    const int64_t wanted = std::min(B, each * n_threads);
    auto cost = [&](int64_t b) { return (double)ap[b] + 0.25 * pp[b]; };  // of the structures before b
    chunks.clear();
    int64_t b0 = 0;
    for (int64_t b = 1; b <= B; b++)
      if (cost(b) >= cost(B) * (chunks.size() + 1) / wanted - 1e-9 || b == B) {
        chunks.push_back({b0, b, ap[b0], ap[b], pp[b0], pp[b]});
        b0 = b;
      }
  }
  template <class Function>
  void for_chunks(Function f) {
    const int nc = chunks.size(), nt = std::min(n_threads, nc);
    parallel(nt, [&](int t) {
      for (int c = nc * t / nt; c < nc * (t + 1) / nt; c++) f(t, chunks[c]);
    });
  }

  // Distances, bins and interpolation weights of a chunk's pairs; false where a distance lies outside the table.
  // Sorted by bin in portions: a large structure's pairs stay near their neighbours in memory.
  bool geometry(const Chunk& c, float& nearest) {
    constexpr int64_t PORTION = 4096;
    std::vector<int64_t> next(K);
    for (int64_t p = c.p0; p < c.p1; p += PORTION)
      if (!sort_pairs(p, std::min(p + PORTION, c.p1), next, nearest)) return false;
    return true;
  }
  bool sort_pairs(int64_t p0, int64_t p1, std::vector<int64_t>& next, float& nearest) {
    const float inverse_h = 1 / h;
    std::fill(next.begin(), next.end(), 0);  // pairs per bin, then the place of the bin's next pair
    for (int64_t p = p0; p < p1; p++) {
      float r[3];
      const float d = separation(p, r), u = (d - lo) * inverse_h;
      if (!(u >= 0 && u <= furthest) || (r[0] == 0 && r[1] == 0 && r[2] == 0)) return false;  // also for NaN
      nearest = std::min(nearest, d);
      place[p] = std::min(u, (float)(K - 1));
      next[std::min((int)place[p], K - 2) + 1]++;
    }
    next[0] = p0;
    for (int k = 1; k < K; k++) next[k] += next[k - 1];
    for (int64_t p = p0; p < p1; p++) {
      const int k = std::min((int)place[p], K - 2);
      const int64_t q = next[k]++;
      i[q] = batch.i[p], j[q] = batch.j[p], bin[q] = k;
      inverse_d[q] = 1 / separation(p, &rij[3 * q]);
      (frozen ? monomial_weights : hermite_weights)(place[p] - k, inverse_h, &weight[q * M], &slope[q * M]);
    }
    return true;
  }
  // r_j - r_i of the batch's pair p and its length
  float separation(int64_t p, float* r) const {
    const float *ri = batch.positions + 3 * (int64_t)batch.i[p], *rj = batch.positions + 3 * (int64_t)batch.j[p];
    for (int k = 0; k < 3; k++) r[k] = rj[k] - ri[k] + (batch.shift ? batch.shift[3 * p + k] : 0);
    return std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
  }
  Pairs pairs() const { return {i.data(), j.data(), bin.data(), weight.data(), slope.data()}; }

  void scale_rows(const Chunk& c, float* rows) const {
    if (batch.scale)
      for (int64_t k = c.a0; k < c.a1; k++)
        for (int f = 0; f < F; f++) rows[k * F + f] *= batch.scale[k];
  }

  float* at(std::vector<float>& buffer, int l) { return buffer.data() + (size_t)l * batch.n_atoms * F; }

  // energies [B], or atomwise outputs [N]; forces [N, 3] or null. keep: store what backward() needs.
  Status forward(const Batch& b, double* energies, float* forces, bool keep) {
    for (int64_t k = 0; k < b.n_atoms; k++)  // these are indices into the embedding
      if (b.atomic_numbers[k] < 1 || b.atomic_numbers[k] >= n_elements) return WRONG_ELEMENT;
    batch = b, kept = keep;
    const size_t N = b.n_atoms, P = b.n_pairs, NF = N * F, L = keep ? T : 1, LF = keep || forces ? T : 1;
    i.resize(P), j.resize(P), bin.resize(P), place.resize(P), weight.resize(P * M), slope.resize(P * M), rij.resize(3 * P), inverse_d.resize(P), d_bar.resize(P);
    x.resize(NF * L), v.resize(NF * L), a.resize(NF * L), y.resize(NF * LF), s.resize(NF * LF), x_last.resize(NF);
    o1.resize(N * H), o_s.resize(N * H), X.resize(NF);
    if (forces) lam.resize(4 * NF * L), force.resize(3 * N);
    make_chunks();
    std::vector<char> inside(n_threads, 1);
    std::vector<float> nearest(n_threads, std::numeric_limits<float>::infinity());
    for_chunks([&](int t, const Chunk& c) {
      if (geometry(c, nearest[t])) sweep(c, energies, forces);
      else inside[t] = 0;
    });
    shortest = *std::min_element(nearest.begin(), nearest.end());
    return std::all_of(inside.begin(), inside.end(), [](char ok) { return ok; }) ? OK : OUTSIDE_TABLE;
  }

  void sweep(const Chunk& c, double* energies, float* forces) {
    const Pairs pairs = this->pairs();
    const int n = c.a1 - c.a0;
    const int64_t o = c.a0 * F, nf = (int64_t)n * F, FxF = (int64_t)F * F;
    for (int k = 0; k < n; k++)
      std::memcpy(at(x, 0) + o + (int64_t)k * F, embedding + (int64_t)batch.atomic_numbers[c.a0 + k] * F, F * 4);
    for (int l = 0; l < T; l++) {
      const int one = kept ? l : 0, two = kept || forces ? l : 0;
      float *xl = at(x, one) + o, *xn = (l + 1 == T ? x_last.data() : at(x, kept ? l + 1 : 0)) + o;
      float *vl = at(v, one), *al = at(a, one) + o;
      product(n, F, F, xl, in2f_t.data() + l * FxF, at(y, two) + o);
      std::memset(vl + o, 0, nf * 4);
      convolve(c.p0, c.p1, pairs, F, table(l), stride(), at(y, two), vl);
      scale_rows(c, vl);
      product(n, F, F, vl + o, f2out_t.data() + l * FxF, al, layers[l].f2out_bias);
      ssp_array(nf, al, al, at(s, two) + o);
      for (int k = 0; k < n; k++)
        for (int f = 0; f < F; f++) xn[(int64_t)k * F + f] = xl[(int64_t)k * F + f] + layers[l].dense_bias[f];
      product_add(n, F, F, al, dense_t.data() + l * FxF, xn);
    }
    float *q = o1.data() + c.a0 * H, *qs = o_s.data() + c.a0 * H;
    product(n, H, F, x_last.data() + o, out1_t.data(), q, out1_bias);
    ssp_array((int64_t)n * H, q, q, qs);
    for (int64_t b = c.b0; b < c.b1; b++) {
      double energy = 0;
      for (int64_t k = batch.atom_ptr[b]; k < batch.atom_ptr[b + 1]; k++) {
        float e = out2_bias[0];
        for (int m = 0; m < H; m++) e += o1[k * H + m] * out2[m];
        energy += e;
        if (per_atom) energies[k] = e;
      }
      if (!per_atom) energies[b] = energy;
    }
    if (!forces) return;

    // reverse sweep with dE/dE = 1; lam: [L, 4] blocks of X (by x_{l+1}), u (before ssp), v, y
    std::vector<float> lo1((size_t)n * H);
    for (int k = 0; k < n; k++)
      for (int m = 0; m < H; m++) lo1[(size_t)k * H + m] = out2[m] * qs[k * H + m];
    float* Xc = X.data() + o;
    product(n, F, H, lo1.data(), out1, Xc);
    std::memset(d_bar.data() + c.p0, 0, (c.p1 - c.p0) * 4);
    for (int l = T - 1; l >= 0; l--) {
      float *lx = lambda(l, 0), *lu = lambda(l, 1), *lv = lambda(l, 2), *ly = lambda(l, 3);
      if (kept) std::memcpy(lx + o, Xc, nf * 4);
      product(n, F, F, Xc, layers[l].dense, lu + o);
      multiply(nf, lu + o, at(s, l) + o, lu + o);
      product(n, F, F, lu + o, layers[l].f2out, lv + o);
      scale_rows(c, lv);
      std::memset(ly + o, 0, nf * 4);
      convolve_adjoint(c.p0, c.p1, pairs, F, table(l), stride(), at(y, l), lv, ly, d_bar.data());
      if (l > 0) product_add(n, F, F, ly + o, layers[l].in2f, Xc);
    }
    std::memset(forces + 3 * c.a0, 0, (size_t)n * 12);
    for (int64_t p = c.p0; p < c.p1; p++)
      for (int k = 0; k < 3; k++) {
        const float f = d_bar[p] * inverse_d[p] * rij[3 * p + k];
        forces[3 * (int64_t)i[p] + k] += f;
        forces[3 * (int64_t)j[p] + k] -= f;
      }
  }
  float* lambda(int l, int which) {
    return lam.data() + ((size_t)(kept ? l : 0) * 4 + which) * batch.n_atoms * F;
  }

  // Gradients of sum_b g_e[b] E_b + sum_i g_f[i] . F_i by all parameters, added to gradients[k]; g_e is [N]
  // where results are atomwise outputs.
  void backward(const float* g_e, const float* g_f, float* const* gradients) {
    const size_t NF = (size_t)batch.n_atoms * F, table_size = (size_t)3 * K * F;
    mu.resize(4 * NF);
    if (g_f) tangent.resize(4 * NF * T);
    // every thread but the first has gradients of its own; filter weights get theirs from the table
    std::vector<size_t> size{(size_t)n_elements * F};
    for (int l = 0; l < T; l++)
      for (size_t n : {(size_t)F * F, (size_t)0, (size_t)0, (size_t)0, (size_t)0, (size_t)F * F, (size_t)F,
                       (size_t)F * F, (size_t)F})
        size.push_back(n);
    for (size_t n : {(size_t)H * F, (size_t)H, (size_t)H, (size_t)1}) size.push_back(n);
    std::vector<size_t> offset{0};
    for (size_t n : size) offset.push_back(offset.back() + n);
    const int nt = std::min<int>(n_threads, chunks.size());
    std::vector<std::vector<float>> own(std::max(0, nt - 1));
    std::vector<std::vector<float>> table_bar(nt);
    for_chunks([&](int t, const Chunk& c) {
      if (table_bar[t].empty()) {
        table_bar[t].assign(table_size * T, 0);
        if (t) own[t - 1].assign(offset.back(), 0);
      }
      auto g = [&](int k) { return t ? own[t - 1].data() + offset[k] : gradients[k]; };
      second_sweep(c, g_e, g_f, g, table_bar[t].data());
    });
    for (auto& part : own)
      for (size_t k = 0; k < size.size(); k++)
        for (size_t m = 0; m < size[k]; m++) gradients[k][m] += part[offset[k] + m];
    const int lt = std::min(n_threads, T);
    parallel(lt, [&](int t) {
      for (int l = t; l < T; l += lt) {
        float* sum = table_bar[0].data() + l * table_size;
        for (int k = 1; k < nt; k++)
          for (size_t m = 0; m < table_size; m++) sum[m] += table_bar[k][l * table_size + m];
        float* const* g = gradients + 1 + PER_LAYER * l;
        filters.backward_layer(l, {layers[l].w1, layers[l].b1, layers[l].w2, layers[l].b2}, sum, g[1], g[2], g[3], g[4]);
      }
    });
  }

  template <class Gradient>
  void second_sweep(const Chunk& c, const float* g_e, const float* g_f, Gradient g, float* table_bar) {
    const Pairs pairs = this->pairs();
    const int n = c.a1 - c.a0, head = 1 + PER_LAYER * T;
    const int64_t o = c.a0 * F, nf = (int64_t)n * F, FxF = (int64_t)F * F, NF = batch.n_atoms * F;
    auto tan = [&](int l, int which) { return tangent.data() + ((size_t)l * 4 + which) * NF; };  // x, y, v, a
    std::vector<float> xd_last, o1d;
    float* dd = d_bar.data();  // reused: the distances' tangents
    if (g_f) {
      for (int64_t p = c.p0; p < c.p1; p++) {
        const float *gi = g_f + 3 * (int64_t)i[p], *gj = g_f + 3 * (int64_t)j[p], *r = &rij[3 * p];
        dd[p] = inverse_d[p] * (r[0] * (gi[0] - gj[0]) + r[1] * (gi[1] - gj[1]) + r[2] * (gi[2] - gj[2]));
      }
      xd_last.resize(nf), o1d.resize((size_t)n * H);
      std::memset(tan(0, 0) + o, 0, nf * 4);
      for (int l = 0; l < T; l++) {
        float *xd = tan(l, 0) + o, *yd = tan(l, 1), *vd = tan(l, 2), *ad = tan(l, 3) + o;
        float* xn = l + 1 < T ? tan(l + 1, 0) + o : xd_last.data();
        if (l) product(n, F, F, xd, in2f_t.data() + l * FxF, yd + o);
        else std::memset(yd + o, 0, nf * 4);
        std::memset(vd + o, 0, nf * 4);
        convolve_tangent(c.p0, c.p1, pairs, F, table(l), stride(), dd, yd, at(y, l), vd);
        scale_rows(c, vd);
        product(n, F, F, vd + o, f2out_t.data() + l * FxF, ad);
        multiply(nf, ad, at(s, l) + o, ad);
        std::memcpy(xn, xd, nf * 4);
        product_add(n, F, F, ad, dense_t.data() + l * FxF, xn);
      }
      product(n, H, F, xd_last.data(), out1_t.data(), o1d.data());
    }
    // output network
    std::vector<float> mo((size_t)n * H), lo1((size_t)n * H);
    float *g_out1_bias = g(head + 1), *g_out2 = g(head + 2), *g_out2_bias = g(head + 3);
    for (int64_t b = c.b0; b < c.b1; b++)
      for (int64_t k = batch.atom_ptr[b]; k < batch.atom_ptr[b + 1]; k++) {
        const float g_k = g_e[per_atom ? k : b];
        g_out2_bias[0] += g_k;
        const float *q = &o1[k * H], *qs = &o_s[k * H];
        float *m_ = &mo[(k - c.a0) * H], *l_ = &lo1[(k - c.a0) * H], *pd = g_f ? &o1d[(k - c.a0) * H] : nullptr;
        for (int m = 0; m < H; m++) {
          m_[m] = g_k * out2[m] * qs[m];
          g_out2[m] += g_k * q[m];
          if (g_f) {
            m_[m] += out2[m] * qs[m] * (1 - qs[m]) * pd[m];
            g_out2[m] += qs[m] * pd[m];
            l_[m] = out2[m] * qs[m];
          }
          g_out1_bias[m] += m_[m];
        }
      }
    outer_add(n, H, F, mo.data(), x_last.data() + o, g(head));
    if (g_f) outer_add(n, H, F, lo1.data(), xd_last.data(), g(head));
    float *Xc = mu.data() + o, *mu_u = mu.data() + NF + o, *mu_v = mu.data() + 2 * NF, *mu_y = mu.data() + 3 * NF;
    product(n, F, H, mo.data(), out1, Xc);
    for (int l = T - 1; l >= 0; l--) {
      const int first = 1 + PER_LAYER * l;
      outer_add(n, F, F, Xc, at(a, l) + o, g(first + 7));
      if (g_f) outer_add(n, F, F, lambda(l, 0) + o, tan(l, 3) + o, g(first + 7));
      rows_add(n, F, Xc, g(first + 8));
      product(n, F, F, Xc, layers[l].dense, mu_u);
      const float* sl = at(s, l) + o;
      if (g_f) {
        // lambda_a ssp''(u) du/dt with lambda_u = s lambda_a, da/dt = s du/dt, ssp'' = s (1 - s)
        const float *lu = lambda(l, 1) + o, *ad = tan(l, 3) + o;
        for (int64_t k = 0; k < nf; k++)
          mu_u[k] = mu_u[k] * sl[k] + lu[k] * ad[k] * (1 - sl[k]) / std::max(sl[k], 1e-30f);
      } else {
        multiply(nf, mu_u, sl, mu_u);
      }
      outer_add(n, F, F, mu_u, at(v, l) + o, g(first + 5));
      if (g_f) outer_add(n, F, F, lambda(l, 1) + o, tan(l, 2) + o, g(first + 5));
      rows_add(n, F, mu_u, g(first + 6));
      product(n, F, F, mu_u, layers[l].f2out, mu_v + o);
      scale_rows(c, mu_v);
      std::memset(mu_y + o, 0, nf * 4);
      float* tb = table_bar + (size_t)l * 3 * K * F;
      if (g_f) {
        convolve_tangent(c.p0, c.p1, pairs, F, table(l), 3, dd, mu_v, lambda(l, 2), mu_y);
        table_gradient<true>(c.p0, c.p1, pairs, F, 3, dd, mu_v, at(y, l), lambda(l, 2), tan(l, 1), tb);
      } else {
        convolve(c.p0, c.p1, pairs, F, table(l), 3, mu_v, mu_y);
        table_gradient<false>(c.p0, c.p1, pairs, F, 3, nullptr, mu_v, at(y, l), nullptr, nullptr, tb);
      }
      outer_add(n, F, F, mu_y + o, at(x, l) + o, g(first));
      if (g_f && l) outer_add(n, F, F, lambda(l, 3) + o, tan(l, 0) + o, g(first));
      product_add(n, F, F, mu_y + o, layers[l].in2f, Xc);
    }
    float* g_embedding = g(0);
    for (int k = 0; k < n; k++) {
      float* row = g_embedding + (int64_t)batch.atomic_numbers[c.a0 + k] * F;
      for (int f = 0; f < F; f++) row[f] += Xc[(int64_t)k * F + f];
    }
  }
};

}  // namespace

// ---- plain C interface -------------------------------------------------------------------
extern "C" {

// 2: this CPU runs the AVX-512 build, 1: the AVX2 build, 0: the portable one.
int schnet_cpu_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}
// Changes with the functions below; native.py knows it, so that a build of older sources is not called wrongly.
int schnet_interface() { return 2; }
int schnet_width() { return W; }
void* schnet_create(int T, int F, int G, int n_elements, int n_threads, int per_atom) {
  return new Engine(T, F, G, n_elements, n_threads, per_atom);
}
void schnet_destroy(void* e) { delete (Engine*)e; }
void schnet_set_grid(void* e, float lo, float h, int K, float furthest, const float* basis) {
  ((Engine*)e)->set_grid(lo, h, K, furthest, basis);
}
void schnet_set_parameters(void* e, const float* const* p) { ((Engine*)e)->set_parameters(p); }
void schnet_build_table(void* e) { ((Engine*)e)->build_table(); }
void schnet_set_coefficients(void* e, float lo, float h, int n_bins, float furthest, const float* c) {
  ((Engine*)e)->set_coefficients(lo, h, n_bins, furthest, c);
}
float schnet_shortest(void* e) { return ((Engine*)e)->shortest; }
int schnet_forward(void* e, int64_t B, int64_t N, int64_t P, const int64_t* atom_ptr, const int64_t* pair_ptr,
                   const int32_t* Z, const int32_t* i, const int32_t* j, const float* R, const float* shift,
                   const float* scale, double* energies, float* forces, int keep) {
  return ((Engine*)e)->forward({B, N, P, atom_ptr, pair_ptr, Z, i, j, R, shift, scale}, energies, forces, keep);
}
void schnet_backward(void* e, const float* g_e, const float* g_f, float* const* gradients) {
  ((Engine*)e)->backward(g_e, g_f, gradients);
}
}
