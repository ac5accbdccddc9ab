// The launches of infonce: raw pointers and a stream, so that .cu files need no torch header.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "epilogue.cuh"

namespace fastclip {

enum class Dtype { bfloat16, float16 };

// z = scale * x @ y.T in base 2; x [n, depth] and y [m, depth] in 16 bits, unit column strides.
struct Product {
  const void* x;
  const void* y;
  int64_t n, m, depth;
  int64_t x_stride, y_stride;  // elements between rows
  int64_t target_offset;       // the target of row i is column i + target_offset
  const float* scale;          // on the device
  Dtype dtype;
};

// One partial a tile: [tiles, length], tile columns by rows or tile rows by columns.
struct Partials {
  float* max;
  float* sum_exp;
};

struct Statistics {
  Partials rows;     // [column tiles, n]
  Partials columns;  // [row tiles, m]
  double* target;    // [n] target logits
  uint16_t* kept;    // [n, kept_stride] fixed-point logits, or null
  Affine* affine;    // [blocks of rows, affine_stride >= blocks of columns] of kept
  int64_t kept_stride, affine_stride;
};

struct Sides {
  const float* shift;
  const float* factor;
};

struct Gradient {
  Sides rows;     // [n]
  Sides columns;  // [m]
  uint16_t* out;  // [n, stride] float16; 0 at the targets, whose part of the products is exact
  int64_t stride;
};

// Rows and columns of a tile (one partial each) and of a block of kept logits (one affine map).
struct TileShape {
  int rows, columns, block_rows, block_columns;
};
constexpr TileShape kTileSm80{128, 128, 32, 64};
constexpr TileShape kTileSm90{128, 256, 16, 256};

cudaError_t infonce_statistics_sm80(const Product&, const Statistics&, cudaStream_t);
cudaError_t infonce_gradient_sm80(const Product&, const Gradient&, cudaStream_t);

// x, y and their row strides in bytes must be multiples of 16.
cudaError_t infonce_statistics_sm90(const Product&, const Statistics&, cudaStream_t);
cudaError_t infonce_gradient_sm90(const Product&, const Gradient&, cudaStream_t);

// Kept logits [n, m], as the statistics of a tile shape leave them.
struct QuantizedLogits {
  const uint16_t* values;
  const Affine* affine;
  int64_t values_stride, affine_stride;
  int block_rows, block_columns;
};

// The gradient of kept logits; `out` may lie where their values do. Blocks of too coarse a step are
// not read: they come from the product.
cudaError_t infonce_gradient_quantized(const Product&, const QuantizedLogits&, const Gradient&,
                                       cudaStream_t);

// lse [length], float64 in base 2: log2 of the sum of 2^lse (where running) and all partials.
cudaError_t infonce_merge_partials(Partials, int64_t count, int64_t length, bool running,
                                   double* lse, cudaStream_t);

}  // namespace fastclip
