// Enough of CUDA in plain C++ to run the kernels of csrc on a CPU, one block at a time: each thread
// of a block is a fiber, and waiting is yielding. Asynchronous work happens as late as the program
// allows (copies and warpgroup products when someone waits for them), so that a missing wait or a
// stage freed too early gives wrong numbers. What hardware does is taken from NVIDIA's PTX manual.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1) : x(x_) {}
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

struct __nv_bfloat16 {
  static float widen(uint16_t bits) {
    const uint32_t wide = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
};
struct __half {
  uint16_t bits;
  static float widen(uint16_t bits) {
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return static_cast<float>(value);
  }
};
struct __half2 { _Float16 x, y; };
inline __half2 __floats2half2_rn(float x, float y) {
  return {static_cast<_Float16>(x), static_cast<_Float16>(y)};
}
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline float __half2float(__half value) { return __half::widen(value.bits); }
template <class T>
T __ldg(const T* pointer) {
  return *pointer;
}

namespace emulation {

struct Fiber {
  ucontext_t context;  // where it starts
  jmp_buf place;       // where it waits, once it has
  bool started = false, done = false;
};

// One cooperative barrier: its generation moves when all have arrived.
struct Barrier {
  int arrived = 0, generation = 0;
};

struct Warp {
  Barrier barrier;
  int size = 0;
  uint64_t words[32][8];  // what each lane shows to the others
};

constexpr size_t kStack = 256 << 10, kSharedBytes = 256 << 10;

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::map<int, Barrier> named;
  std::deque<std::function<void()>> copies;  // of the copy engine, in flight
  std::function<void()> body;
  ucontext_t start;
  jmp_buf scheduler;
  int current = 0;
  long progress = 0;
};

inline Block* block = nullptr;
alignas(4096) inline uint8_t shared_memory[kSharedBytes];

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulation: %s\n", what);
  std::abort();
}

}  // namespace emulation

struct Index { unsigned x; };
inline Index threadIdx, blockIdx, gridDim;

namespace emulation {

// Contexts only start a fiber: each switch of theirs is a system call, a jump is none.
inline void yield() {
  Block& b = *block;
  if (!_setjmp(b.fibers[b.current].place)) _longjmp(b.scheduler, 1);
}

inline void resume(Block& b) {
  Fiber& fiber = b.fibers[b.current];
  if (_setjmp(b.scheduler)) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  swapcontext(&b.start, &fiber.context);
}

// Stacks are kept from block to block: fresh memory is a page fault for each page.
inline char* stack_of(size_t thread) {
  static std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() <= thread) stacks.emplace_back(new char[kStack]);
  return stacks[thread].get();
}

inline void enter() {
  block->body();
  block->fibers[block->current].done = true;
  ++block->progress;
  yield();
}

template <class Condition>
void wait_until(Condition condition) {
  while (!condition()) yield();
  ++block->progress;
}

inline void arrive(Barrier& barrier, int threads) {
  ++block->progress;
  if (++barrier.arrived == threads) barrier.arrived = 0, ++barrier.generation;
}
inline void synchronise(Barrier& barrier, int threads) {
  const int generation = barrier.generation;
  arrive(barrier, threads);
  wait_until([&] { return barrier.generation != generation; });
}

inline Warp& warp() { return block->warps[threadIdx.x / 32]; }
inline int lane() { return threadIdx.x % 32; }

// Every lane shows `words`, then reads any lane's with the function it gets.
template <class Read>
auto exchange(const void* words, size_t bytes, Read read) {
  Warp& w = warp();
  std::memcpy(w.words[lane()], words, bytes);
  synchronise(w.barrier, w.size);
  const auto result = read([&w](int from) -> const void* { return w.words[from]; });
  synchronise(w.barrier, w.size);
  return result;
}

inline void run_block(int threads, std::function<void()> body) {
  Block b;
  block = &b;
  b.body = std::move(body);
  b.fibers.resize(threads);
  b.warps.resize((threads + 31) / 32);
  for (int t = 0; t < threads; ++t) {
    ++b.warps[t / 32].size;
    Fiber& fiber = b.fibers[t];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack_of(t);
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  std::memset(shared_memory, 0xff, sizeof shared_memory);  // NaN wherever nothing was written
  int left = threads, idle = 0;
  static unsigned turn = 1;
  while (left > 0) {
    const long before = b.progress;
    // Another order each round, so that what must not depend on it shows: warps in any order, and
    // either end of a warp first.
    turn = turn * 1664525u + 1013904223u;
    const unsigned first = turn >> 16, flip = turn >> 15 & 1 ? 31 : 0;
    for (int k = 0; k < threads; ++k) {
      const int t = (first % b.warps.size() * 32 + (k ^ flip)) % threads;
      if (b.fibers[t].done) continue;
      b.current = t;
      threadIdx.x = t;
      resume(b);
      left -= b.fibers[t].done;
    }
    // The copy engine is slow: one copy each time that all threads have had a turn.
    if (!b.copies.empty()) {
      b.copies.front()();
      b.copies.pop_front();
      continue;
    }
    idle = b.progress == before ? idle + 1 : 0;
    if (idle > 64) fail("the block hangs");
  }
  block = nullptr;
}

}  // namespace emulation

inline void __syncthreads() {
  emulation::synchronise(emulation::block->named[0], emulation::block->fibers.size());
}
inline void __syncwarp() {
  emulation::synchronise(emulation::warp().barrier, emulation::warp().size);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::exchange(&value, sizeof value, [&](auto at) {
    T other;
    std::memcpy(&other, at(emulation::lane() ^ mask), sizeof other);
    return other;
  });
}
inline bool __any_sync(unsigned, bool value) {
  return emulation::exchange(&value, sizeof value, [&](auto at) {
    bool any = false;
    for (int l = 0; l < emulation::warp().size; ++l) any |= *static_cast<const bool*>(at(l));
    return any;
  });
}

// ---- the runtime's part

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorNotSupported };
using cudaStream_t = void*;
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess };
enum { cudaEnableDefault };
enum { cudaDevAttrMultiProcessorCount };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  if (config->dynamicSmemBytes + 1024 > emulation::kSharedBytes) return cudaErrorInvalidValue;
  const std::tuple<Parameters...> held(arguments...);
  gridDim.x = config->gridDim.x;
  for (unsigned b = 0; b < gridDim.x; ++b) {
    blockIdx.x = b;
    emulation::run_block(config->blockDim.x, [&] { std::apply(kernel, held); });
  }
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, size_t) {
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
// Few multiprocessors, so that persistent blocks take several tiles.
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) { return *value = 2, cudaSuccess; }

// ---- the driver's part: tensor maps

using cuuint64_t = uint64_t;
using cuuint32_t = uint32_t;
enum CUresult { CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE };
enum CUtensorMapDataType { CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_DATA_TYPE_FLOAT16 };
enum { CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
       CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE };

struct CUtensorMap {
  const uint8_t* data;
  uint64_t columns, rows, stride;  // elements, rows, bytes
  uint32_t box_columns, box_rows;
};

inline CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType, uint32_t rank,
                                       void* data, const cuuint64_t* sizes,
                                       const cuuint64_t* strides, const cuuint32_t* box,
                                       const cuuint32_t* steps, int, int, int, int) {
  const bool taken = rank == 2 && reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
                     strides[0] % 16 == 0 && box[0] * 2 <= 128 && box[1] <= 256 && steps[0] == 1 &&
                     steps[1] == 1 && sizes[0] > 0 && sizes[1] > 0;
  if (!taken) return CUDA_ERROR_INVALID_VALUE;
  *map = {static_cast<const uint8_t*>(data), sizes[0], sizes[1], strides[0], box[0], box[1]};
  return CUDA_SUCCESS;
}
inline cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** found, unsigned, int,
                                                    cudaDriverEntryPointQueryResult* result) {
  *found = reinterpret_cast<void*>(&cuTensorMapEncodeTiled);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
