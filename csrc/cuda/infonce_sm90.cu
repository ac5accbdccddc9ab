// infonce on Hopper: wgmma on tiles that the tensor copy engine loads, epilogues in registers.
//
// A persistent block has one loading warp and two consumer warpgroups of 64 x 256 logits each, so
// that the loads of the next tile run under the epilogue, and one consumer's products under the
// other's epilogue.

#include <climits>
#include <type_traits>

#include "fragment.cuh"
#include "hopper.cuh"

namespace fastclip {
namespace {

using namespace hopper;

constexpr int kRows = kTileSm90.rows, kColumns = kTileSm90.columns, kDepth = 64, kStages = 4;
constexpr int kGroup = 16;  // row tiles that run together
constexpr int kConsumers = 2, kWarpgroup = 128, kThreads = (1 + kConsumers) * kWarpgroup;
constexpr int kStrips = 4 * kConsumers;  // 16 rows each, one a warp

struct Stage {
  uint16_t x[kRows][kDepth];
  uint16_t y[kColumns][kDepth];
};

struct alignas(1024) Shared {
  Stage stages[kStages];
  union {
    Partial strips[kStrips][kColumns];
    StagedSides<kColumns, 4> sides[kConsumers];
  };
  uint64_t full[kStages], empty[kStages];
};
static_assert(sizeof(Stage) % 1024 == 0, "the swizzle repeats every 1024 bytes");

// Named barriers; 0 is __syncthreads.
enum { kStripsWritten = 1, kStripsFree, kConsumerReady };  // the last plus the consumer

struct Slot {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

__device__ __forceinline__ void load_tiles(Shared& shared, const CUtensorMap* x,
                                           const CUtensorMap* y, int row_tiles, int column_tiles,
                                           int steps) {
  Slot slot;
  for (int id = blockIdx.x; id < row_tiles * column_tiles; id += gridDim.x) {
    const TilePosition tile = tile_at(id, row_tiles, column_tiles, kGroup);
    for (int k = 0; k < steps; ++k, slot.advance()) {
      Stage& stage = shared.stages[slot.stage];
      uint64_t* const full = &shared.full[slot.stage];
      wait(&shared.empty[slot.stage], slot.parity ^ 1);
      arrive_expecting(full, sizeof(Stage));
      load_box(stage.x, x, k * kDepth, tile.row * kRows, full);
      load_box(stage.y, y, k * kDepth, tile.column * kColumns, full);
    }
  }
}

template <class T>
__device__ __forceinline__ void multiply(Shared& shared, Slot& slot, int consumer, int steps,
                                         float (&z)[32][4]) {
  const bool signals = threadIdx.x % 32 == 0;
  int last = 0;
  pin(z);
  for (int k = 0; k < steps; ++k, slot.advance()) {
    const Stage& stage = shared.stages[slot.stage];
    wait(&shared.full[slot.stage], slot.parity);
    __syncwarp();  // products want whole warps, and waiting may have split them
    const uint64_t a = descriptor_128(shared_address(stage.x[64 * consumer]));
    const uint64_t b = descriptor_128(shared_address(stage.y));
    product_fence();
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step)
      product(z, a + step * kDescriptorStep, b + step * kDescriptorStep, k + step > 0, T{});
    product_commit();
    // One product stays in flight while the stage before it goes back.
    product_wait<1>();
    if (k > 0 && signals) arrive(&shared.empty[last]);
    last = slot.stage;
  }
  product_wait<0>();
  pin(z);
  if (signals) arrive(&shared.empty[last]);
}

// One partial a column out of the block's strips, two columns a thread.
__device__ __forceinline__ void merge_strips(const Shared& shared, const Product& p, int tile_row,
                                             int64_t column, const Partials& out) {
  const int first = 2 * (threadIdx.x % kWarpgroup);
  Partial a{kLowest, 0.0f}, b{kLowest, 0.0f};
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
    const float4 pair = *reinterpret_cast<const float4*>(&shared.strips[strip][first]);
    a = merge(a, {pair.x, pair.y});
    b = merge(b, {pair.z, pair.w});
  }
  const int64_t at = offset(tile_row, p.m, column + first);
  if (column + first < p.m) out.max[at] = a.max, out.sum_exp[at] = a.sum_exp;
  if (column + first + 1 < p.m) out.max[at + 1] = b.max, out.sum_exp[at + 1] = b.sum_exp;
}

template <bool KEEP>
__device__ __forceinline__ void finish(Shared& shared, const Product& p, const Statistics& out,
                                       TilePosition tile, int consumer, bool first, bool last,
                                       const Block& block, float (&z)[1][32][4]) {
  const int lane = threadIdx.x % 32, strip = threadIdx.x / 32 - 4;
  write_targets(z, block, p.target_offset, out.target);

  // The second consumer merges the strips of both; the first may be ahead by what is free.
  if (!first) consumer == 0 ? bar_sync(kStripsFree, 256) : bar_sync(kConsumerReady, kWarpgroup);
  Partial rows[1][2];
  const float max = statistics(z, block, rows, shared.strips[strip]);
  __syncwarp();
  if (consumer == 0) {
    bar_arrive(kStripsWritten, 256);
  } else {
    bar_sync(kStripsWritten, 256);
    merge_strips(shared, p, tile.row, block.column, out.columns);
    if (!last) bar_arrive(kStripsFree, 256);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = fragment_row(lane, 0, 2 * h);
    if (lane % 4 != 0 || row >= block.rows) continue;
    const int64_t at = offset(tile.column, p.n, block.row + row);
    out.rows.max[at] = rows[0][h].max, out.rows.sum_exp[at] = rows[0][h].sum_exp;
  }
  if constexpr (KEEP) {
    if (block.rows > 0)
      store_quantized(z, block, max, out,
                      offset(block.row / kTileSm90.block_rows, out.affine_stride, tile.column));
  }
}

template <class T, class Out, bool KEEP>
__global__ void __launch_bounds__(kThreads, 1)
    infonce_sm90(const __grid_constant__ CUtensorMap x_map,
                 const __grid_constant__ CUtensorMap y_map, const __grid_constant__ Product p,
                 const __grid_constant__ Out out) {
  uint8_t* const raw = dynamic_shared();
  Shared& shared = *reinterpret_cast<Shared*>(
      raw + (1024 - shared_address(raw) % 1024) % 1024);
  const int row_tiles = ceil_div(p.n, kRows), column_tiles = ceil_div(p.m, kColumns);
  const int steps = ceil_div(p.depth, kDepth);

  if (threadIdx.x == 0) {
    prefetch(&x_map);
    prefetch(&y_map);
    for (int s = 0; s < kStages; ++s) {
      init_barrier(&shared.full[s], 1);
      init_barrier(&shared.empty[s], kStrips);
    }
    fence_barrier_init();
  }
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x == 0) load_tiles(shared, &x_map, &y_map, row_tiles, column_tiles, steps);
  } else {
    take_registers<240>();
    const int consumer = threadIdx.x / kWarpgroup - 1, strip = threadIdx.x / 32 - 4;
    const int tiles = row_tiles * column_tiles;
    const float scale = *p.scale;
    Slot slot;
    float z[1][32][4];
    for (int id = blockIdx.x; id < tiles; id += gridDim.x) {
      const TilePosition tile = tile_at(id, row_tiles, column_tiles, kGroup);
      const int64_t row = int64_t{tile.row} * kRows, column = int64_t{tile.column} * kColumns;
      Shift shift{};
      if constexpr (std::is_same_v<Out, Gradient>)
        shift = stage_sides<64>(shared.sides[consumer], threadIdx.x % kWarpgroup, p.n, p.m,
                                row + 64 * consumer, column, out,
                                [&] { bar_sync(kConsumerReady + consumer, kWarpgroup); });
      multiply<T>(shared, slot, consumer, steps, z[0]);
      const Block block = block_at<1, 32>(p, row + 16 * strip, column);
      to_logits(z, scale, block);
      if constexpr (std::is_same_v<Out, Statistics>) {
        const bool last = tiles - id <= static_cast<int>(gridDim.x);
        finish<KEEP>(shared, p, out, tile, consumer, id == blockIdx.x, last, block, z);
      } else {
        const auto& sides = shared.sides[consumer];
        store_gradient(z, block, p.target_offset, shift, sides.shift, sides.factor, out);
      }
    }
  }
}

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function by the runtime, so that nothing links to libcuda.
cudaError_t find_encode(Encode* encode) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  const cudaError_t error = cudaGetDriverEntryPointByVersion(
      "cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
  if (error != cudaSuccess) return error;
  if (result != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  *encode = reinterpret_cast<Encode>(found);
  return cudaSuccess;
}

// Boxes of `box_rows` x 64 of a matrix [rows, depth], swizzled; zeros outside.
cudaError_t tensor_map(const void* data, int64_t rows, int64_t depth, int64_t stride, int box_rows,
                       Dtype dtype, CUtensorMap* map) {
  Encode encode;
  if (const cudaError_t error = find_encode(&encode); error != cudaSuccess) return error;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(depth), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(stride) * sizeof(uint16_t)};
  const cuuint32_t box[] = {kDepth, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  const CUtensorMapDataType type = dtype == Dtype::bfloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                            : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const CUresult result =
      encode(map, type, 2, const_cast<void*>(data), sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <class T, class Out, bool KEEP>
cudaError_t launch(const Product& p, const Out& out, cudaStream_t stream) {
  const int64_t tiles = ceil_div(p.n, kRows) * ceil_div(p.m, kColumns);
  if (tiles > INT_MAX - (1 << 16)) return cudaErrorInvalidValue;
  CUtensorMap x_map, y_map;
  cudaError_t error = tensor_map(p.x, p.n, p.depth, p.x_stride, kRows, p.dtype, &x_map);
  if (error == cudaSuccess)
    error = tensor_map(p.y, p.m, p.depth, p.y_stride, kColumns, p.dtype, &y_map);
  int device = 0, processors = 0;
  if (error == cudaSuccess) error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  const auto kernel = infonce_sm90<T, Out, KEEP>;
  constexpr int kBytes = sizeof(Shared) + 1024;  // the base of shared memory is aligned to less
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const int64_t blocks = tiles < processors ? tiles : processors;
  return launch_kernel(kernel, blocks, kThreads, kBytes, stream, x_map, y_map, p, out);
}

}  // namespace

cudaError_t infonce_statistics_sm90(const Product& p, const Statistics& out, cudaStream_t stream) {
  if (p.dtype == Dtype::bfloat16)
    return out.kept ? launch<__nv_bfloat16, Statistics, true>(p, out, stream)
                    : launch<__nv_bfloat16, Statistics, false>(p, out, stream);
  return out.kept ? launch<__half, Statistics, true>(p, out, stream)
                  : launch<__half, Statistics, false>(p, out, stream);
}

cudaError_t infonce_gradient_sm90(const Product& p, const Gradient& out, cudaStream_t stream) {
  return p.dtype == Dtype::bfloat16 ? launch<__nv_bfloat16, Gradient, false>(p, out, stream)
                                    : launch<__half, Gradient, false>(p, out, stream);
}

}  // namespace fastclip
