// The gradient of logits that the statistics kept in 16 bits: bandwidth only, for any GPU.
//
// Blocks whose logits are too far apart for 16 bits are multiplied again, without tensor cores:
// they are few where the scale is one that models are trained with.

#include <cuda_bf16.h>

#include "fragment.cuh"

namespace fastclip {
namespace {

constexpr int kRows = 64, kColumns = 256, kWarps = 8, kRun = 8;  // a warp takes a row at a time
static_assert(kColumns == 32 * kRun);

using Sides = StagedSides<kColumns, kWarps>;

// A run of 16-bit entries as it lies in memory.
struct Run {
  uint32_t words[kRun / 2];
  __device__ __forceinline__ uint16_t operator[](int k) const {
    return static_cast<uint16_t>(words[k / 2] >> (16 * (k % 2)));
  }
};
__device__ __forceinline__ Run run_of(uint4 run) { return {{run.x, run.y, run.z, run.w}}; }

__device__ __forceinline__ float widen(uint16_t bits, __nv_bfloat16) {
  return __uint_as_float(uint32_t{bits} << 16);
}
__device__ __forceinline__ float widen(uint16_t bits, __half) {
  return __half2float(__ushort_as_half(bits));
}

// One operand of a product: rows of 16-bit features.
struct Rows {
  const uint16_t* at;
  int64_t stride;
  bool whole_runs;  // rows start on 16 bytes

  __device__ __forceinline__ Rows(const void* matrix, int64_t stride_)
      : at(static_cast<const uint16_t*>(matrix)),
        stride(stride_),
        whole_runs(reinterpret_cast<uintptr_t>(matrix) % 16 == 0 && stride_ % kRun == 0) {}

  // The features of `row` from `depth` on, of which `left` are inside the matrix; then zeros.
  __device__ __forceinline__ Run load(int64_t row, int depth, int left) const {
    const uint16_t* const from = at + offset(row, stride, depth);
    if (whole_runs && left >= kRun) return run_of(__ldg(reinterpret_cast<const uint4*>(from)));
    Run run = {};
#pragma unroll
    for (int d = 0; d < kRun; ++d)
      if (d < left) run.words[d / 2] |= uint32_t{__ldg(from + d)} << (16 * (d % 2));
    return run;
  }
};

// The logits of a row and a run of columns, those beyond the matrix copies of the last.
template <class T>
__device__ __forceinline__ void multiply(float (&z)[kRun], const Product& p, int64_t row,
                                         int64_t column) {
  const Rows x(p.x, p.x_stride), y(p.y, p.y_stride);
  const int width = static_cast<int>(p.depth);
#pragma unroll
  for (int k = 0; k < kRun; ++k) z[k] = 0.0f;
#pragma unroll 1
  for (int depth = 0; depth < width; depth += kRun) {
    const Run a = x.load(row, depth, width - depth);
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
      const Run b = y.load(column + k < p.m ? column + k : p.m - 1, depth, width - depth);
#pragma unroll
      for (int d = 0; d < kRun; ++d) z[k] = fmaf(widen(a[d], T{}), widen(b[d], T{}), z[k]);
    }
  }
  const float scale = __ldg(p.scale);
#pragma unroll
  for (int k = 0; k < kRun; ++k) z[k] *= scale;
}

template <class T, bool ONE_EXPONENTIAL>
__device__ __forceinline__ void write_rows(const Product& p, const QuantizedLogits& in,
                                           const Gradient& out, int rows, int columns, int64_t row,
                                           int64_t column, float least, const Sides& staged) {
  const int first = threadIdx.x % 32 * kRun;
  if (first >= columns) return;
  Side sides[kRun];
#pragma unroll
  for (int k = 0; k < kRun; ++k) sides[k] = {staged.shift[first + k], staged.factor[first + k]};
  for (int r = threadIdx.x / 32; r < rows; r += kWarps) {
    const int64_t at = row + r;
    const Affine affine = in.affine[offset(at / in.block_rows, in.affine_stride,
                                           (column + first) / in.block_columns)];
    Side side{__ldg(out.rows.shift + at), __ldg(out.rows.factor + at)};
    if (ONE_EXPONENTIAL) side.factor = factor_under(least, side);
    const int64_t target = at + p.target_offset - column - first;
    float g[kRun];  // the logits first
    if (too_coarse(affine)) {
      multiply<T>(g, p, at, column + first);
    } else {
      const Run run = run_of(*reinterpret_cast<const uint4*>(
          in.values + offset(at, in.values_stride, column + first)));
#pragma unroll
      for (int k = 0; k < kRun; ++k) g[k] = dequantise(run[k], affine);
    }
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
      g[k] = ONE_EXPONENTIAL ? gradient_shared(g[k], least, side.factor, sides[k].factor)
                             : gradient(g[k], side, sides[k]);
      if (first + k >= columns || k == target) g[k] = 0.0f;
    }
    *reinterpret_cast<uint4*>(out.out + offset(at, out.stride, column + first)) =
        make_uint4(pack(g[0], g[1]), pack(g[2], g[3]), pack(g[4], g[5]), pack(g[6], g[7]));
  }
}

template <class T>
__global__ void __launch_bounds__(32 * kWarps, 3)
    gradient_quantized(const __grid_constant__ Product p,
                       const __grid_constant__ QuantizedLogits in,
                       const __grid_constant__ Gradient out) {
  __shared__ Sides staged;
  const int column_tiles = ceil_div(p.m, kColumns);
  const int64_t row = int64_t{blockIdx.x} / column_tiles * kRows;
  const int64_t column = int64_t{blockIdx.x} % column_tiles * kColumns;
  const Shift shift = stage_sides<kRows>(staged, threadIdx.x, p.n, p.m, row, column, out,
                                         [] { __syncthreads(); });
  const int rows = inside(p.n, row, kRows), columns = inside(p.m, column, kColumns);
  if (shift.serves)
    write_rows<T, true>(p, in, out, rows, columns, row, column, shift.least, staged);
  else
    write_rows<T, false>(p, in, out, rows, columns, row, column, shift.least, staged);
}

}  // namespace

cudaError_t infonce_gradient_quantized(const Product& p, const QuantizedLogits& in,
                                       const Gradient& out, cudaStream_t stream) {
  const int64_t blocks = ceil_div(p.n, kRows) * ceil_div(p.m, kColumns);
  const auto kernel =
      p.dtype == Dtype::bfloat16 ? gradient_quantized<__nv_bfloat16> : gradient_quantized<__half>;
  return launch_kernel(kernel, blocks, 32 * kWarps, 0, stream, p, in, out);
}

}  // namespace fastclip
