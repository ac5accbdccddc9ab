// infonce on Ampere and later: mma.sync on tiles that cp.async loads in stages.
//
// Any depth, stride and alignment: rows that do not start on 16 bytes are loaded by element.

#include <type_traits>

#include "ampere.cuh"
#include "fragment.cuh"

namespace fastclip {
namespace {

using namespace ampere;

constexpr int kRows = kTileSm80.rows, kColumns = kTileSm80.columns, kDepth = 32, kStages = 4;
constexpr int kGroup = 16;  // row tiles that run together
constexpr int kWarpRows = 4, kWarpColumns = 2, kThreads = 32 * kWarpRows * kWarpColumns;
constexpr int kBlockRows = kTileSm80.block_rows, kBlockColumns = kTileSm80.block_columns;
constexpr int MI = kBlockRows / 16, NJ = kBlockColumns / 8;
constexpr int kRunElements = 8, kRuns = kDepth / kRunElements;  // of 16 bytes; in a row of a stage
static_assert(kRows == kWarpRows * kBlockRows && kColumns == kWarpColumns * kBlockColumns);

// Rows of 64 bytes, swizzled as index.cuh says.
struct Stage {
  uint8_t x[kRows * 64], y[kColumns * 64];
};

union Shared {
  Stage stages[kStages];
  struct {
    Partial strips[kWarpRows][kColumns];
    Partial rows[kWarpColumns][kRows];
  };
  StagedSides<kColumns, kThreads / 32> sides;
};

// A thread's part of the loads of one operand: 16-byte runs of rows kStep apart.
struct Loader {
  static constexpr int kStep = kThreads / kRuns;
  const uint16_t* from;  // this thread's run of its first row, at depth 0
  int64_t stride;
  int rows;  // inside the matrix, from this thread's first on
  bool whole_runs;  // rows start on 16 bytes

  __device__ __forceinline__ Loader(const void* matrix, int64_t total, int64_t row, int size,
                                    int64_t stride_)
      : from(static_cast<const uint16_t*>(matrix) +
             offset(row + threadIdx.x / kRuns, stride_, threadIdx.x % kRuns * kRunElements)),
        stride(stride_),
        rows(inside(total, row, size) - static_cast<int>(threadIdx.x) / kRuns),
        whole_runs(reinterpret_cast<uintptr_t>(matrix) % 16 == 0 &&
                   stride_ % kRunElements == 0) {}

  // Depths `depth` on, of which `left` are inside the matrix; zeros outside.
  template <int ROWS>
  __device__ __forceinline__ void load(uint8_t* destination, int depth, int left) const {
    const int row = threadIdx.x / kRuns, run = threadIdx.x % kRuns;
    const int runs_left = inside(left, run * kRunElements, kRunElements);
#pragma unroll
    for (int e = 0; e < ROWS / kStep; ++e) {
      const int count = e * kStep < rows ? runs_left : 0;
      // What is not read is not addressed either.
      const uint16_t* const at = count > 0 ? from + (e * kStep * stride + depth) : from;
      uint8_t* const to = destination + swizzle_64(row + e * kStep, run);
      if (whole_runs) {
        copy_run(to, at, 2 * count);
      } else {
        uint32_t words[kRunElements / 2] = {};
#pragma unroll
        for (int k = 0; k < kRunElements; ++k)
          if (k < count) words[k / 2] |= uint32_t{__ldg(at + k)} << (16 * (k % 2));
        *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
};

template <class T>
__device__ __forceinline__ void multiply(const Stage& stage, int warp_row, int warp_column,
                                         float (&z)[MI][NJ][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < kDepth / 16; ++step) {
    uint32_t a[MI][4], b[NJ / 2][4];
#pragma unroll
    for (int i = 0; i < MI; ++i)
      load_matrices(a[i], stage.x + swizzle_64(warp_row * kBlockRows + 16 * i + lane % 16,
                                               2 * step + lane / 16));
#pragma unroll
    for (int j = 0; j < NJ / 2; ++j)
      load_matrices(b[j], stage.y + swizzle_64(warp_column * kBlockColumns + 16 * j + lane % 8 +
                                                   lane / 16 * 8,
                                               2 * step + lane / 8 % 2));
#pragma unroll
    for (int i = 0; i < MI; ++i)
#pragma unroll
      for (int j = 0; j < NJ; ++j)
        product(z[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], T{});
  }
}

template <bool KEEP>
__device__ __forceinline__ void finish(Shared& shared, const Product& p, const Statistics& out,
                                       TilePosition tile, int warp_row, int warp_column,
                                       const Block& block, float (&z)[MI][NJ][4]) {
  const int lane = threadIdx.x % 32, thread = threadIdx.x;
  write_targets(z, block, p.target_offset, out.target);
  Partial rows[MI][2];
  const float max =
      statistics(z, block, rows, shared.strips[warp_row] + warp_column * kBlockColumns);
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h)
      if (lane % 4 == 0)
        shared.rows[warp_column][warp_row * kBlockRows + fragment_row(lane, i, 2 * h)] = rows[i][h];
  __syncthreads();

  // Half of the threads merge the tile's columns, half its rows.
  static_assert(kThreads == kColumns + kRows);
  Partial total{kLowest, 0.0f};
  if (thread < kColumns) {
#pragma unroll
    for (int w = 0; w < kWarpRows; ++w) total = merge(total, shared.strips[w][thread]);
    const int64_t column = int64_t{tile.column} * kColumns + thread;
    const int64_t at = offset(tile.row, p.m, column);
    if (column < p.m) out.columns.max[at] = total.max, out.columns.sum_exp[at] = total.sum_exp;
  } else {
#pragma unroll
    for (int w = 0; w < kWarpColumns; ++w) total = merge(total, shared.rows[w][thread - kColumns]);
    const int64_t row = int64_t{tile.row} * kRows + thread - kColumns;
    const int64_t at = offset(tile.column, p.n, row);
    if (row < p.n) out.rows.max[at] = total.max, out.rows.sum_exp[at] = total.sum_exp;
  }
  if constexpr (KEEP) {
    if (block.rows > 0 && block.columns > 0)
      store_quantized(z, block, max, out,
                      offset(block.row / kBlockRows, out.affine_stride,
                             block.column / kBlockColumns));
  }
}

template <class T, class Out, bool KEEP>
__global__ void __launch_bounds__(kThreads, 2)
    infonce_sm80(const __grid_constant__ Product p, const __grid_constant__ Out out) {
  Shared& shared = *reinterpret_cast<Shared*>(dynamic_shared());
  const TilePosition tile =
      tile_at(blockIdx.x, ceil_div(p.n, kRows), ceil_div(p.m, kColumns), kGroup);
  const int64_t row = int64_t{tile.row} * kRows, column = int64_t{tile.column} * kColumns;
  const int warp = threadIdx.x / 32, warp_row = warp % kWarpRows, warp_column = warp / kWarpRows;
  const int steps = ceil_div(p.depth, kDepth);

  const int depth = static_cast<int>(p.depth);
  const Loader x(p.x, p.n, row, kRows, p.x_stride), y(p.y, p.m, column, kColumns, p.y_stride);

  const auto start = [&](int k) {
    if (k < steps) {
      Stage& stage = shared.stages[k % kStages];
      x.load<kRows>(stage.x, k * kDepth, depth - k * kDepth);
      y.load<kColumns>(stage.y, k * kDepth, depth - k * kDepth);
    }
    commit_copies();  // empty groups keep the count
  };
  float z[MI][NJ][4] = {};
  for (int k = 0; k < kStages - 1; ++k) start(k);
  for (int k = 0; k < steps; ++k) {
    wait_copies<kStages - 2>();
    __syncthreads();  // stage k is there for all, and all are done with stage k - 1
    start(k + kStages - 1);
    multiply<T>(shared.stages[k % kStages], warp_row, warp_column, z);
  }
  wait_copies<0>();
  __syncthreads();

  const Block block =
      block_at<MI, NJ>(p, row + warp_row * kBlockRows, column + warp_column * kBlockColumns);
  to_logits(z, *p.scale, block);
  if constexpr (std::is_same_v<Out, Statistics>) {
    finish<KEEP>(shared, p, out, tile, warp_row, warp_column, block, z);
  } else {
    const Shift shift = stage_sides<kRows>(shared.sides, threadIdx.x, p.n, p.m, row, column, out,
                                           [] { __syncthreads(); });
    const int first = warp_column * kBlockColumns;
    store_gradient(z, block, p.target_offset, shift, shared.sides.shift + first,
                      shared.sides.factor + first, out);
  }
}

template <class T, class Out, bool KEEP>
cudaError_t launch(const Product& p, const Out& out, cudaStream_t stream) {
  const int64_t tiles = ceil_div(p.n, kRows) * ceil_div(p.m, kColumns);
  const auto kernel = infonce_sm80<T, Out, KEEP>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, tiles, kThreads, sizeof(Shared), stream, p, out);
}

template <class Out, bool KEEP>
cudaError_t launch(const Product& p, const Out& out, cudaStream_t stream) {
  return p.dtype == Dtype::bfloat16 ? launch<__nv_bfloat16, Out, KEEP>(p, out, stream)
                                    : launch<__half, Out, KEEP>(p, out, stream);
}

}  // namespace

cudaError_t infonce_statistics_sm80(const Product& p, const Statistics& out, cudaStream_t stream) {
  return out.kept ? launch<Statistics, true>(p, out, stream)
                  : launch<Statistics, false>(p, out, stream);
}

cudaError_t infonce_gradient_sm80(const Product& p, const Gradient& out, cudaStream_t stream) {
  return launch<Gradient, false>(p, out, stream);
}

}  // namespace fastclip
