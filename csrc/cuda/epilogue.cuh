// What happens to one logit: softmax statistics, two-sided gradient, 16-bit fixed point.
//
// Logits and log-sum-exps are in base 2 (z log2 e). Compiles as host C++ too, where the tests run
// it over whole matrices against the textbook.
#pragma once

#include <cmath>
#include <cstdint>

#include "index.cuh"

namespace fastclip {

// The maximum of no entries. Finite, so that differences of maxima are never NaN.
constexpr float kLowest = -3.0e38f;

// A column's sum under the maximum of a block is kept where terms flushed to zero (each below
// 2^-126, at most 128 of them) cannot show in its 24 bits.
constexpr float kSumFloor = 1.262177448e-29f;  // 2^-96

// The widest range of log-sum-exps, in base 2, that one exponential can serve.
constexpr float kWidest = 100.0f;

FASTCLIP_INLINE float exp2_flushed(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return x < -126.0f ? 0.0f : std::exp2(x);
#endif
}

FASTCLIP_INLINE float larger(float a, float b) { return fmaxf(a, b); }

// ---- statistics

// sum of 2^(z - max) over some entries
struct Partial {
  float max, sum_exp;
};

FASTCLIP_INLINE Partial merge(Partial a, Partial b) {
  const float max = larger(a.max, b.max);
  return {max, a.sum_exp * exp2_flushed(a.max - max) + b.sum_exp * exp2_flushed(b.max - max)};
}

// Rows take exponentials under their own maximum, so that a softmax that is nearly 1 keeps its
// digits; the same exponential times 2^(row maximum - block maximum) counts for the column.
FASTCLIP_INLINE float exponential(float z, float max) { return exp2_flushed(z - max); }
FASTCLIP_INLINE float column_factor(float row_max, float block_max) {
  return exp2_flushed(row_max - block_max);
}
// A column so far below its block's maximum takes exponentials under its own.
FASTCLIP_INLINE bool needs_rescue(float column_sum) { return column_sum < kSumFloor; }

// ---- gradient

// One direction of the softmax at a row or column: weight * 2^(z - lse) as factor * 2^(z - shift).
// shift is the lse rounded to float, the factor makes up for the rounding.
struct Side {
  float shift, factor;
};

FASTCLIP_INLINE float gradient(float z, Side row, Side column) {
  return row.factor * exp2_flushed(z - row.shift) + column.factor * exp2_flushed(z - column.shift);
}

// The same from one exponential, under the least shift of rows and columns. No logit is above its
// row's or column's lse, so that nothing overflows, and what underflows is nothing to either.
FASTCLIP_INLINE bool one_exponential_serves(float least, float most) {
  return most - least < kWidest;
}
FASTCLIP_INLINE float factor_under(float least, Side side) {
  return side.factor * exp2_flushed(least - side.shift);
}
FASTCLIP_INLINE float gradient_shared(float z, float least, float row_factor, float column_factor) {
  return exp2_flushed(z - least) * (row_factor + column_factor);
}

// ---- 16-bit fixed point between the smallest and the largest logit of a block

// z = middle + step * value for values from -32768 to 32767
struct Affine {
  float middle, step;
};

// The coarsest steps, in base 2, whose error in a softmax is well below a gradient's rounding to
// bfloat16 (that of fastclip.kernels.logits). A coarser block takes its product again.
constexpr float kCoarsestStep = 1.0f / 512.0f;
FASTCLIP_INLINE bool too_coarse(Affine affine) { return !(affine.step <= kCoarsestStep); }

FASTCLIP_INLINE Affine affine_between(float low, float high) {
  const float step = high > low ? (high - low) * (1.0f / 65535.0f) : 0.0f;
  return {low + 32768.0f * step, step};
}
FASTCLIP_INLINE float values_per_unit(float low, float high) {
  return high > low ? 65535.0f / (high - low) : 0.0f;
}
// z outside of the block's range, which is -inf alone, gives the lowest value.
FASTCLIP_INLINE uint16_t quantise(float z, float low, float per_unit) {
  const float q = fminf(larger(z - low, 0.0f) * per_unit + 0.5f, 65535.0f);
  return static_cast<uint16_t>(static_cast<int32_t>(q) - 32768);
}
FASTCLIP_INLINE float dequantise(uint16_t value, Affine affine) {
  return affine.middle + affine.step * static_cast<float>(static_cast<int16_t>(value));
}

}  // namespace fastclip
