// The epilogues on a warp's accumulators: MI x NJ blocks of 16 x 8, laid out as index.cuh says.
#pragma once

#include <cuda_fp16.h>

#include "launch.h"

namespace fastclip {

constexpr unsigned kWarp = 0xffffffffu;

__device__ __forceinline__ uint32_t pack(float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  return reinterpret_cast<const uint32_t&>(pair);
}

// A warp's block of the matrix: where it starts and how much of it lies inside.
struct Block {
  int64_t row, column;
  int rows, columns;
};

template <int MI, int NJ>
__device__ __forceinline__ Block block_at(const Product& p, int64_t row, int64_t column) {
  return {row, column, inside(p.n, row, 16 * MI), inside(p.m, column, 8 * NJ)};
}

// Accumulators to logits in base 2; outside the matrix -inf.
template <int MI, int NJ>
__device__ __forceinline__ void to_logits(float (&z)[MI][NJ][4], float scale, const Block& block) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int j = 0; j < NJ; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) z[i][j][r] *= scale;
  if (block.rows == 16 * MI && block.columns == 8 * NJ) return;
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int j = 0; j < NJ; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r)
        if (fragment_row(lane, i, r) >= block.rows || fragment_column(lane, j, r) >= block.columns)
          z[i][j][r] = -INFINITY;
}

template <int MI, int NJ>
__device__ __forceinline__ void write_targets(const float (&z)[MI][NJ][4], const Block& block,
                                              int64_t target_offset, double* target) {
  if (!on_diagonal(block.row, 16 * MI, block.column, 8 * NJ, target_offset)) return;
  const int lane = threadIdx.x & 31;
  const int shift = static_cast<int>(block.row + target_offset - block.column);
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int j = 0; j < NJ; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int row = fragment_row(lane, i, r);
        if (row < block.rows && fragment_column(lane, j, r) == row + shift)
          target[block.row + row] = z[i][j][r];
      }
}

// Sums N values over the 8 lanes that share columns: each lane ends with N / 8 of the sums, those
// of index (lane / 4) * N / 8 and on, at the front of v. The order is fixed. Each step halves what
// a lane holds; steps are template arguments to keep v in registers.
template <int N, int MASK = 16, int ALL>
__device__ __forceinline__ void sum_columns(float (&v)[ALL]) {
  constexpr int kHalf = N / 2;
  const bool upper = threadIdx.x & MASK;
#pragma unroll
  for (int k = 0; k < kHalf; ++k) {
    const float sent = upper ? v[k] : v[k + kHalf];
    const float kept = upper ? v[k + kHalf] : v[k];
    v[k] = kept + __shfl_xor_sync(kWarp, sent, MASK);
  }
  if constexpr (MASK > 4) sum_columns<kHalf, MASK / 2>(v);
}

// Two-sided statistics of the block. Every lane gets the partials of its rows; those of the 8 * NJ
// columns go to shared memory. Returns the block's largest logit.
template <int MI, int NJ>
__device__ __forceinline__ float statistics(const float (&z)[MI][NJ][4], const Block& block,
                                            Partial (&rows)[MI][2], Partial* columns) {
  constexpr int kGroup = NJ < 16 ? NJ : 16;  // 8-column blocks summed together: registers
  constexpr int kOwn = 2 * kGroup / 8;       // sums that a lane ends with
  const int lane = threadIdx.x & 31, octet = lane >> 2, quad = lane & 3;

  float max = kLowest;
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float row_max = kLowest;
#pragma unroll
      for (int j = 0; j < NJ; ++j)
        row_max = larger(row_max, larger(z[i][j][2 * h], z[i][j][2 * h + 1]));
      row_max = larger(row_max, __shfl_xor_sync(kWarp, row_max, 1));
      row_max = larger(row_max, __shfl_xor_sync(kWarp, row_max, 2));
      rows[i][h] = {row_max, 0.0f};
      max = larger(max, row_max);
    }
#pragma unroll
  for (int mask = 4; mask <= 16; mask <<= 1) max = larger(max, __shfl_xor_sync(kWarp, max, mask));

  float factor[MI][2];
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) factor[i][h] = column_factor(rows[i][h].max, max);

#pragma unroll
  for (int first = 0; first < NJ; first += kGroup) {
    float sums[2 * kGroup];
#pragma unroll
    for (int j = 0; j < kGroup; ++j)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < MI; ++i)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const float e = exponential(z[i][first + j][2 * h + c], rows[i][h].max);
            rows[i][h].sum_exp += e;
            sum = fmaf(e, factor[i][h], sum);
          }
        sums[2 * j + c] = sum;
      }
    sum_columns<2 * kGroup>(sums);

    bool low = false;
#pragma unroll
    for (int k = 0; k < kOwn; k += 2) {
      const int j = first + (octet * kOwn + k) / 2, column = 8 * j + 2 * quad;
      low |= column < block.columns && needs_rescue(sums[k]);
      low |= column + 1 < block.columns && needs_rescue(sums[k + 1]);
      *reinterpret_cast<float4*>(columns + column) = make_float4(max, sums[k], max, sums[k + 1]);
    }
    if (block.rows == 0 || !__any_sync(kWarp, low)) continue;

    __syncwarp();
#pragma unroll
    for (int j = 0; j < kGroup; ++j)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float column_max = kLowest, sum = 0.0f;
#pragma unroll
        for (int i = 0; i < MI; ++i)
#pragma unroll
          for (int h = 0; h < 2; ++h)
            column_max = larger(column_max, z[i][first + j][2 * h + c]);
#pragma unroll
        for (int mask = 4; mask <= 16; mask <<= 1)
          column_max = larger(column_max, __shfl_xor_sync(kWarp, column_max, mask));
#pragma unroll
        for (int i = 0; i < MI; ++i)
#pragma unroll
          for (int h = 0; h < 2; ++h)
            sum += exponential(z[i][first + j][2 * h + c], column_max);
#pragma unroll
        for (int mask = 4; mask <= 16; mask <<= 1) sum += __shfl_xor_sync(kWarp, sum, mask);
        if (octet == 0) columns[8 * (first + j) + 2 * quad + c] = {column_max, sum};
      }
  }

#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      rows[i][h].sum_exp += __shfl_xor_sync(kWarp, rows[i][h].sum_exp, 1);
      rows[i][h].sum_exp += __shfl_xor_sync(kWarp, rows[i][h].sum_exp, 2);
    }
  return max;
}

// The block's smallest logit; entries outside the matrix do not count.
template <int MI, int NJ>
__device__ __forceinline__ float smallest(const float (&z)[MI][NJ][4]) {
  float low = INFINITY;
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int j = 0; j < NJ; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) low = z[i][j][r] == -INFINITY ? low : fminf(low, z[i][j][r]);
#pragma unroll
  for (int mask = 1; mask <= 16; mask <<= 1) low = fminf(low, __shfl_xor_sync(kWarp, low, mask));
  return low;
}

// Writes 16-bit values of columns 8 * j to 8 * j + 31 of a block, two columns to a word from
// `word(i, k, h)` for block j + k: whole 16-byte runs of 8 columns at a time, so the matrix must
// have room for them past its last column.
template <int MI, class Word>
__device__ __forceinline__ void store_columns(const Block& block, int j, uint16_t* matrix,
                                              int64_t stride, Word word) {
  const int lane = threadIdx.x & 31, quad = lane & 3;
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // A transpose of 4 x 4 words among 4 lanes: lane k of them gets the whole of block j + k.
      uint32_t w[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) w[k] = word(i, k, h);
#pragma unroll
      for (int step = 1; step <= 2; step <<= 1) {
        const bool upper = quad & step;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (k & step) continue;
          const uint32_t got = __shfl_xor_sync(kWarp, upper ? w[k] : w[k + step], step);
          w[k] = upper ? got : w[k];
          w[k + step] = upper ? w[k + step] : got;
        }
      }
      const int row = fragment_row(lane, i, 2 * h), column = 8 * (j + quad);
      if (row < block.rows && column < block.columns)
        *reinterpret_cast<uint4*>(matrix +
                                  offset(block.row + row, stride, block.column + column)) =
            make_uint4(w[0], w[1], w[2], w[3]);
    }
}

// 16-bit logits of the block, and the affine map that gives them back.
template <int MI, int NJ>
__device__ __forceinline__ void store_quantized(const float (&z)[MI][NJ][4], const Block& block,
                                                float max, const Statistics& out, int64_t at) {
  const float low = smallest(z), per_unit = values_per_unit(low, max);
  if ((threadIdx.x & 31) == 0) out.affine[at] = affine_between(low, max);
#pragma unroll
  for (int j = 0; j < NJ; j += 4)
    store_columns<MI>(block, j, out.kept, out.kept_stride, [&](int i, int k, int h) {
      return uint32_t{quantise(z[i][j + k][2 * h], low, per_unit)} |
             uint32_t{quantise(z[i][j + k][2 * h + 1], low, per_unit)} << 16;
    });
}

// What the threads that share columns stage in shared memory before a gradient.
template <int COLUMNS, int WARPS>
struct StagedSides {
  float shift[COLUMNS], factor[COLUMNS];
  float least[WARPS], most[WARPS];
};

// The least shift of a group of 32 * WARPS threads' rows and columns, and whether one exponential
// serves them all; then `staged.factor` are factors under it. `sync` is the group's barrier.
struct Shift {
  float least;
  bool serves;
};

template <int ROWS, int COLUMNS, int WARPS, class Sync>
__device__ __forceinline__ Shift stage_sides(StagedSides<COLUMNS, WARPS>& staged, int thread,
                                             int64_t n, int64_t m, int64_t row, int64_t column,
                                             const Gradient& in, Sync sync) {
  constexpr int kThreads = 32 * WARPS, kEach = (COLUMNS + kThreads - 1) / kThreads;
  const int rows = inside(n, row, ROWS), columns = inside(m, column, COLUMNS);
  float least = INFINITY, most = -INFINITY;
  for (int k = thread; k < rows; k += kThreads) {
    const float shift = __ldg(in.rows.shift + row + k);
    least = fminf(least, shift), most = fmaxf(most, shift);
  }
  Side sides[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int k = thread + e * kThreads;
    // Past the last column come zeros, so that a product over padded columns stays right.
    sides[e] = {0.0f, 0.0f};
    if (k >= columns) continue;
    sides[e] = {__ldg(in.columns.shift + column + k), __ldg(in.columns.factor + column + k)};
    least = fminf(least, sides[e].shift), most = fmaxf(most, sides[e].shift);
  }
#pragma unroll
  for (int mask = 1; mask <= 16; mask <<= 1) {
    least = fminf(least, __shfl_xor_sync(kWarp, least, mask));
    most = fmaxf(most, __shfl_xor_sync(kWarp, most, mask));
  }
  if (thread % 32 == 0) staged.least[thread / 32] = least, staged.most[thread / 32] = most;
  sync();
#pragma unroll
  for (int w = 0; w < WARPS; ++w) {
    least = fminf(least, staged.least[w]);
    most = fmaxf(most, staged.most[w]);
  }
  const bool serves = one_exponential_serves(least, most);
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int k = thread + e * kThreads;
    if (k >= COLUMNS) continue;
    staged.shift[k] = sides[e].shift;
    staged.factor[k] = serves ? factor_under(least, sides[e]) : sides[e].factor;
  }
  sync();
  return {least, serves};
}

// The gradient of the block to memory, 32 columns at a time to spare registers. `shifts` and
// `factors` are the staged ones of the block's first column and on.
template <bool ONE_EXPONENTIAL, int MI, int NJ>
__device__ __forceinline__ void store_gradient_from(float (&z)[MI][NJ][4], const Block& block,
                                                    int64_t target_offset, float least,
                                                    const float* shifts, const float* factors,
                                                    const Gradient& out) {
  const int lane = threadIdx.x & 31;
  Side rows[MI][2];
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = fragment_row(lane, i, 2 * h);
      rows[i][h] = {0.0f, 0.0f};
      if (row >= block.rows) continue;
      const int64_t at = block.row + row;
      rows[i][h] = {__ldg(out.rows.shift + at), __ldg(out.rows.factor + at)};
      if (ONE_EXPONENTIAL) rows[i][h].factor = factor_under(least, rows[i][h]);
    }
  const int shift = static_cast<int>(block.row + target_offset - block.column);
  const bool targets = on_diagonal(block.row, 16 * MI, block.column, 8 * NJ, target_offset);
#pragma unroll
  for (int first = 0; first < NJ; first += 4) {
#pragma unroll
    for (int j = first; j < first + 4; ++j) {
      const int column = fragment_column(lane, j, 0);
      const float2 factor = *reinterpret_cast<const float2*>(factors + column);
      float2 column_shift;
      if constexpr (!ONE_EXPONENTIAL)
        column_shift = *reinterpret_cast<const float2*>(shifts + column);
#pragma unroll
      for (int i = 0; i < MI; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float& even = z[i][j][2 * h];
          float& odd = z[i][j][2 * h + 1];
          if constexpr (ONE_EXPONENTIAL) {
            even = gradient_shared(even, least, rows[i][h].factor, factor.x);
            odd = gradient_shared(odd, least, rows[i][h].factor, factor.y);
          } else {
            even = gradient(even, rows[i][h], {column_shift.x, factor.x});
            odd = gradient(odd, rows[i][h], {column_shift.y, factor.y});
          }
        }
    }
    if (targets) {
#pragma unroll
      for (int i = 0; i < MI; ++i)
#pragma unroll
        for (int j = first; j < first + 4; ++j)
#pragma unroll
          for (int r = 0; r < 4; ++r)
            if (fragment_column(lane, j, r) == fragment_row(lane, i, r) + shift)
              z[i][j][r] = 0.0f;
    }
    store_columns<MI>(block, first, out.out, out.stride, [&](int i, int k, int h) {
      return pack(z[i][first + k][2 * h], z[i][first + k][2 * h + 1]);
    });
  }
}

template <int MI, int NJ>
__device__ __forceinline__ void store_gradient(float (&z)[MI][NJ][4], const Block& block,
                                               int64_t target_offset, Shift shift,
                                               const float* shifts, const float* factors,
                                               const Gradient& out) {
  if (shift.serves)
    store_gradient_from<true>(z, block, target_offset, shift.least, shifts, factors, out);
  else
    store_gradient_from<false>(z, block, target_offset, shift.least, shifts, factors, out);
}

}  // namespace fastclip
