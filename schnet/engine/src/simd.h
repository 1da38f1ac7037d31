// Portable SIMD: compiler vector extensions, one width per instruction set, no intrinsics.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define SCHNET_WIDTH 16
#define SCHNET_ROWS 12  // rows of a matrix-product tile: 2 * ROWS + 3 vector registers
#define SCHNET_BLOCK 2  // vectors of a table row in registers: 6 * BLOCK + 8 registers
#elif defined(__AVX2__)
#define SCHNET_WIDTH 8
#define SCHNET_ROWS 6
#define SCHNET_BLOCK 1
#else
#define SCHNET_WIDTH 4
#define SCHNET_ROWS 6
#define SCHNET_BLOCK 1
#endif
#define UNROLL _Pragma("GCC unroll 8")

namespace {

constexpr int W = SCHNET_WIDTH, BLOCK = SCHNET_BLOCK;
typedef float vec __attribute__((vector_size(W * 4)));
typedef int32_t ivec __attribute__((vector_size(W * 4)));
typedef float vec_unaligned __attribute__((vector_size(W * 4), aligned(4), may_alias));

inline vec load(const float* p) { return *(const vec_unaligned*)p; }
inline void store(float* p, vec v) { *(vec_unaligned*)p = v; }
// minus zero: adding it would be an instruction, since -0 + 0 is not -0
inline vec splat(float x) { return x - vec{}; }
#if defined(__clang__)
inline float sum(vec v) {
  float s[W];
  std::memcpy(s, &v, sizeof v);
  for (int n = W / 2; n > 0; n /= 2)
    for (int i = 0; i < n; i++) s[i] += s[i + n];
  return s[0];
}
#else  // GCC would do that in memory, number by number
template <int N>
inline vec fold(vec v) {  // v[i] += v[i ^ n] for n = N, N / 2, …, 1
  if constexpr (N > 0) {
    ivec other;
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) other[i] = i ^ N;
    return fold<N / 2>(v + __builtin_shuffle(v, other));
  }
  return v;
}
inline float sum(vec v) { return fold<W / 2>(v)[0]; }
#endif
inline vec select(ivec mask, vec a, vec b) { return mask ? a : b; }
inline vec max0(vec x) { return select(x > vec{}, x, vec{}); }

// e^x for x <= 0: 2^n times a degree-6 polynomial of the remainder (relative error 1e-7).
inline vec exp_negative(vec x) {
  const float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = select(x > splat(-87.0f), x, splat(-87.0f));
  vec shifted = x * 1.44269504088896341f + round_magic;
  vec n = shifted - round_magic;
  vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vec p = splat(1.9875691500E-4f);
  p = p * r + 1.3981999507E-3f;
  p = p * r + 8.3334519073E-3f;
  p = p * r + 4.1665795894E-2f;
  p = p * r + 1.6666665459E-1f;
  p = p * r + 5.0000001201E-1f;
  p = p * (r * r) + (r + 1.0f);
  ivec bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + (127 - 0x4B400000)) << 23;  // the low bits of `shifted` hold n
  vec power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

constexpr float LOG2 = 0.693147180559945f;

// Shifted softplus y = ln(0.5 e^x + 0.5) = max(x, 0) + ln(1 + e^-|x|) - ln 2 and its derivative,
// the logistic function s. ln(1 + z) = 2 artanh(z / (2 + z)).
inline void ssp(vec x, vec& y, vec& s) {
  vec z = exp_negative(select(x > vec{}, -x, x));
  vec inverse = 1.0f / (1.0f + z);
  s = select(x >= vec{}, inverse, z * inverse);
  vec t = z / (2.0f + z), q = t * t;
  vec p = q * (2.0f / 15) + (2.0f / 13);
  p = p * q + (2.0f / 11);
  p = p * q + (2.0f / 9);
  p = p * q + (2.0f / 7);
  p = p * q + (2.0f / 5);
  p = p * q + (2.0f / 3);
  p = p * q + 2.0f;
  y = max0(x) + t * p - LOG2;
}

inline void ssp_array(int64_t n, const float* x, float* y, float* s) {
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    vec a, b;
    ssp(load(x + i), a, b);
    store(y + i, a);
    store(s + i, b);
  }
  for (; i < n; i++) {
    float v = x[i], z = std::exp(-std::fabs(v));
    y[i] = (v > 0 ? v : 0) + std::log1p(z) - LOG2;
    s[i] = v >= 0 ? 1 / (1 + z) : z / (1 + z);
  }
}

inline void multiply(int64_t n, const float* a, const float* b, float* c) {
  for (int64_t i = 0; i < n; i++) c[i] = a[i] * b[i];
}

typedef float quad __attribute__((vector_size(16)));
typedef float quad_unaligned __attribute__((vector_size(16), aligned(4), may_alias));
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t iquad __attribute__((vector_size(16)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, iquad{__VA_ARGS__})
#endif

inline void transpose(const float* a, int rows, int columns, float* out) {
  const int m = rows / 4 * 4, n = columns / 4 * 4;
  for (int j = 0; j < n; j += 4)
    for (int i = 0; i < m; i += 4) {  // 4 x 4 tiles
      quad r[4];
      for (int k = 0; k < 4; k++) r[k] = *(const quad_unaligned*)(a + (int64_t)(i + k) * columns + j);
      const quad p = SHUFFLE(r[0], r[1], 0, 4, 1, 5), q = SHUFFLE(r[2], r[3], 0, 4, 1, 5);
      const quad s = SHUFFLE(r[0], r[1], 2, 6, 3, 7), t = SHUFFLE(r[2], r[3], 2, 6, 3, 7);
      *(quad_unaligned*)(out + (int64_t)j * rows + i) = SHUFFLE(p, q, 0, 1, 4, 5);
      *(quad_unaligned*)(out + (int64_t)(j + 1) * rows + i) = SHUFFLE(p, q, 2, 3, 6, 7);
      *(quad_unaligned*)(out + (int64_t)(j + 2) * rows + i) = SHUFFLE(s, t, 0, 1, 4, 5);
      *(quad_unaligned*)(out + (int64_t)(j + 3) * rows + i) = SHUFFLE(s, t, 2, 3, 6, 7);
    }
  for (int i = 0; i < rows; i++)
    for (int j = i < m ? n : 0; j < columns; j++) out[(int64_t)j * rows + i] = a[(int64_t)i * columns + j];
}

// ---- matrix products ---------------------------------------------------------------------
// One tile of C[MR, NV * W] (+)= A B; A(i, k) = a[i * ai + k * ak], B row-major.
template <int MR, int NV>
inline void tile(int K, const float* a, int64_t ai, int64_t ak, const float* b, int ldb, float* c, int ldc,
                 bool accumulate, const float* bias) {
  vec acc[MR][NV];
#pragma GCC unroll 12
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int v = 0; v < NV; v++)
      acc[i][v] = accumulate ? load(c + (int64_t)i * ldc + v * W) : bias ? load(bias + v * W) : vec{};
  for (int k = 0; k < K; k++) {
    vec bv[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; v++) bv[v] = load(b + (int64_t)k * ldb + v * W);
#pragma GCC unroll 12
    for (int i = 0; i < MR; i++) {
      vec x = splat(a[i * ai + k * ak]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; v++) acc[i][v] += x * bv[v];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int v = 0; v < NV; v++) store(c + (int64_t)i * ldc + v * W, acc[i][v]);
}

template <int MR, int NV>
inline void last_rows(int rows, int K, const float* a, int64_t ai, int64_t ak, const float* b, int ldb, float* c,
                      int ldc, bool accumulate, const float* bias) {
  if constexpr (MR > 0) {
    if (rows == MR)
      tile<MR, NV>(K, a, ai, ak, b, ldb, c, ldc, accumulate, bias);
    else
      last_rows<MR - 1, NV>(rows, K, a, ai, ak, b, ldb, c, ldc, accumulate, bias);
  }
}

template <int NV>
inline void columns(int M, int K, const float* a, int64_t ai, int64_t ak, const float* b, int ldb, float* c, int ldc,
                    bool accumulate, const float* bias) {
  int i = 0;
  for (; i + SCHNET_ROWS <= M; i += SCHNET_ROWS)
    tile<SCHNET_ROWS, NV>(K, a + i * ai, ai, ak, b, ldb, c + (int64_t)i * ldc, ldc, accumulate, bias);
  last_rows<SCHNET_ROWS - 1, NV>(M - i, K, a + i * ai, ai, ak, b, ldb, c + (int64_t)i * ldc, ldc, accumulate, bias);
}

inline void gemm(int M, int N, int K, const float* a, int64_t ai, int64_t ak, const float* b, int ldb, float* c,
                 int ldc, bool accumulate, const float* bias) {
  int j = 0;
  for (; j + 2 * W <= N; j += 2 * W)
    columns<2>(M, K, a, ai, ak, b + j, ldb, c + j, ldc, accumulate, bias ? bias + j : nullptr);
  for (; j + W <= N; j += W)
    columns<1>(M, K, a, ai, ak, b + j, ldb, c + j, ldc, accumulate, bias ? bias + j : nullptr);
  for (; j < N; j++)
    for (int i = 0; i < M; i++) {
      float s = accumulate ? c[(int64_t)i * ldc + j] : bias ? bias[j] : 0;
      for (int k = 0; k < K; k++) s += a[i * ai + k * ak] * b[(int64_t)k * ldb + j];
      c[(int64_t)i * ldc + j] = s;
    }
}

// C[M, N] = A[M, K] B[K, N] (+ bias)
inline void product(int M, int N, int K, const float* a, const float* b, float* c, const float* bias = nullptr) {
  gemm(M, N, K, a, K, 1, b, N, c, N, false, bias);
}
// C[M, N] += A[M, K] B[K, N]
inline void product_add(int M, int N, int K, const float* a, const float* b, float* c) {
  gemm(M, N, K, a, K, 1, b, N, c, N, true, nullptr);
}
// C[K, N] += A[M, K]^T B[M, N]
inline void outer_add(int M, int K, int N, const float* a, const float* b, float* c) {
  gemm(K, N, M, a, 1, K, b, N, c, N, true, nullptr);
}
// c[N] += sum over rows of A[M, N]
inline void rows_add(int M, int N, const float* a, float* c) {
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) c[j] += a[(int64_t)i * N + j];
}

}  // namespace
