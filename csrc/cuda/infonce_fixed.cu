// The gradient of logits that the statistics kept in 16 bits: bandwidth only, for any GPU.

#include "fragment.cuh"

namespace fastclip {
namespace {

constexpr int kRows = 64, kColumns = 256, kWarps = 8, kRun = 8;  // a warp takes a row at a time
static_assert(kColumns == 32 * kRun);

using Sides = StagedSides<kColumns, kWarps>;

template <bool ONE_EXPONENTIAL>
__device__ __forceinline__ void write_rows(const Fixed& in, const Gradient& out, int rows,
                                           int columns, int64_t row, int64_t column,
                                           int64_t target_offset, float least,
                                           const Sides& staged) {
  const int first = threadIdx.x % 32 * kRun;
  if (first >= columns) return;
  Side sides[kRun];
#pragma unroll
  for (int k = 0; k < kRun; ++k) sides[k] = {staged.shift[first + k], staged.factor[first + k]};
  for (int r = threadIdx.x / 32; r < rows; r += kWarps) {
    const int64_t at = row + r;
    const Line line = in.lines[offset(at / in.block_rows, in.lines_stride,
                                      (column + first) / in.block_columns)];
    Side side{__ldg(out.rows.shift + at), __ldg(out.rows.factor + at)};
    if (ONE_EXPONENTIAL) side.factor = factor_under(least, side);
    const int64_t target = at + target_offset - column - first;
    const uint4 run = *reinterpret_cast<const uint4*>(
        in.values + offset(at, in.values_stride, column + first));
    const uint32_t words[4] = {run.x, run.y, run.z, run.w};
    float g[kRun];
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
      const float z = dequantise(static_cast<uint16_t>(words[k / 2] >> (16 * (k % 2))), line);
      g[k] = ONE_EXPONENTIAL ? gradient_shared(z, least, side.factor, sides[k].factor)
                             : gradient(z, side, sides[k]);
      if (first + k >= columns || k == target) g[k] = 0.0f;
    }
    *reinterpret_cast<uint4*>(out.out + offset(at, out.stride, column + first)) =
        make_uint4(pack(g[0], g[1]), pack(g[2], g[3]), pack(g[4], g[5]), pack(g[6], g[7]));
  }
}

__global__ void __launch_bounds__(32 * kWarps)
    gradient_fixed(int64_t n, int64_t m, int64_t target_offset,
                   const __grid_constant__ Fixed in, const __grid_constant__ Gradient out) {
  __shared__ Sides staged;
  const int column_tiles = ceil_div(m, kColumns);
  const int64_t row = int64_t{blockIdx.x} / column_tiles * kRows;
  const int64_t column = int64_t{blockIdx.x} % column_tiles * kColumns;
  const Shift shift = stage_sides<kRows>(staged, threadIdx.x, n, m, row, column, out,
                                         [] { __syncthreads(); });
  const int rows = inside(n, row, kRows), columns = inside(m, column, kColumns);
  if (shift.serves)
    write_rows<true>(in, out, rows, columns, row, column, target_offset, shift.least, staged);
  else
    write_rows<false>(in, out, rows, columns, row, column, target_offset, shift.least, staged);
}

}  // namespace

cudaError_t infonce_gradient_fixed(int64_t n, int64_t m, int64_t target_offset, const Fixed& in,
                                   const Gradient& out, cudaStream_t stream) {
  const int64_t blocks = ceil_div(n, kRows) * ceil_div(m, kColumns);
  return launch_kernel(gradient_fixed, blocks, 32 * kWarps, 0, stream, n, m, target_offset, in,
                       out);
}

}  // namespace fastclip
