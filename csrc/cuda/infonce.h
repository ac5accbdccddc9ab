// The launches of infonce: raw pointers and a stream, so that .cu files need no torch header.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "epilogue.cuh"

namespace fastclip {

enum class Dtype { bfloat16, float16 };

// z = scale * x @ y.T in bits, x [n, depth] and y [m, depth] in 16 bits with unit column strides.
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
  float* top;
  float* sum;
};

struct Statistics {
  Partials rows;     // [column tiles, n]
  Partials columns;  // [row tiles, m]
  double* target;    // [n] target logits
  uint16_t* kept;    // [n, kept_stride] fixed-point logits, or null
  Line* lines;       // [blocks of rows, lines_stride >= blocks of columns] of kept
  int64_t kept_stride, lines_stride;
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

// Rows and columns of a tile (one partial each) and of a fixed-point block (one line each).
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
struct Fixed {
  const uint16_t* values;
  const Line* lines;
  int64_t values_stride, lines_stride;
  int block_rows, block_columns;
};

// The gradient of kept logits; `out` may lie where their values do. Blocks of too coarse a line are
// not read: they come from the product.
cudaError_t infonce_gradient_fixed(const Product&, const Fixed&, const Gradient&, cudaStream_t);

// lse [length], float64 in bits: log2 of the sum of 2^lse (where running) and all partials.
cudaError_t infonce_fold(Partials, int64_t count, int64_t length, bool running, double* lse,
                         cudaStream_t);

}  // namespace fastclip
