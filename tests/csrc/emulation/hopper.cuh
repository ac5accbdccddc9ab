// csrc/cuda/hopper.cuh on a CPU.
#pragma once

#include "emulation.h"

namespace fastclip::hopper {

// Not where the swizzle begins anew: kernels align for themselves.
inline uint8_t* dynamic_shared() { return emulation::shared_memory + 16; }

inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(pointer) - emulation::shared_memory);
}

// ---- mbarriers: arrivals and bytes that the current phase still waits for

struct Mbarrier {
  int arrivals, pending;
  int64_t bytes;
  uint32_t phase;
};
inline std::map<const uint64_t*, Mbarrier> barriers;

inline void turn(Mbarrier& b) {
  ++emulation::block->progress;
  if (b.pending == 0 && b.bytes == 0) b.pending = b.arrivals, ++b.phase;
}
inline Mbarrier& at(const uint64_t* barrier) {
  const auto found = barriers.find(barrier);
  if (found == barriers.end()) emulation::fail("an mbarrier is used before it is initialised");
  return found->second;
}
inline void init_barrier(uint64_t* barrier, uint32_t arrivals) {
  barriers[barrier] = {static_cast<int>(arrivals), static_cast<int>(arrivals), 0, 0};
}
inline void fence_barrier_init() {}
inline void arrive(uint64_t* barrier) {
  Mbarrier& b = at(barrier);
  if (b.pending == 0) emulation::fail("too many arrivals at an mbarrier");
  --b.pending;
  turn(b);
}
inline void arrive_expecting(uint64_t* barrier, uint32_t bytes) {
  at(barrier).bytes += bytes;
  arrive(barrier);
}
inline void wait(uint64_t* barrier, uint32_t parity) {
  const Mbarrier& b = at(barrier);
  emulation::wait_until([&] { return (b.phase & 1) != parity; });
}

inline void bar_sync(int id, int threads) {
  emulation::synchronise(emulation::block->named[id], threads);
}
inline void bar_arrive(int id, int threads) {
  emulation::arrive(emulation::block->named[id], threads);
}

// ---- the copy engine

inline void prefetch(const CUtensorMap*) {}

// Swizzling moves 16-byte chunks within 128 bytes by bits 7 to 9 of the address.
inline uint32_t swizzled(uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

inline void load_box(void* destination, const CUtensorMap* map, int column, int row,
                     uint64_t* barrier) {
  const uint32_t base = shared_address(destination);
  if (base % 1024) emulation::fail("a swizzled box is not aligned");
  const CUtensorMap m = *map;
  emulation::block->copies.push_back([=] {
    for (uint32_t r = 0; r < m.box_rows; ++r)
      for (uint32_t c = 0; c < m.box_columns; ++c) {
        uint16_t value = 0;
        if (row + r < m.rows && column + c < m.columns)
          std::memcpy(&value, m.data + (row + r) * m.stride + 2 * (column + c), 2);
        std::memcpy(emulation::shared_memory + swizzled(base + r * m.box_columns * 2 + 2 * c),
                    &value, 2);
      }
    Mbarrier& b = at(barrier);
    b.bytes -= m.box_rows * m.box_columns * 2;
    turn(b);
  });
}

// ---- warpgroup matrix products: a thread's groups are carried out when it waits for them

inline std::map<unsigned, std::deque<std::vector<std::function<void()>>>> groups;

// Consumers are slow: copies into stages that they gave back arrive while products are pending.
inline void product_fence() {
  for (int turn = 0; turn < 8; ++turn) emulation::yield();
}
inline void product_commit() { groups[threadIdx.x].emplace_back(); }
template <int PENDING>
void product_wait() {
  auto& mine = groups[threadIdx.x];  // the last is open
  while (mine.size() > PENDING + 1) {
    for (const auto& one : mine.front()) one();
    mine.pop_front();
  }
  __syncwarp();  // a warp waits as one
}
inline void pin(float (&)[32][4]) {}

// 16 elements of row `line` of the operand that a descriptor names.
template <class T>
void operand(uint64_t descriptor, int line, float (&values)[16]) {
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
    emulation::fail("a descriptor is not of 128-byte swizzle");
  const uint32_t start = (descriptor & 0x3fff) << 4;
  const uint32_t groups_apart = (descriptor >> 32 & 0x3fff) << 4;
  for (int k = 0; k < 16; ++k) {
    uint16_t bits;
    const uint32_t address = start + line / 8 * groups_apart + line % 8 * 128 + 2 * k;
    std::memcpy(&bits, emulation::shared_memory + swizzled(address), 2);
    values[k] = T::widen(bits);
  }
}

template <class T>
void product(float (&d)[32][4], uint64_t a, uint64_t b, int accumulate, T) {
  auto& mine = groups[threadIdx.x];
  if (mine.empty()) mine.emplace_back();
  const int thread = threadIdx.x % 128;
  float(*const out)[4] = d;
  mine.back().push_back([=] {
    float rows[2][16];
    for (int h = 0; h < 2; ++h)
      operand<T>(a, thread / 32 * 16 + thread % 32 / 4 + 8 * h, rows[h]);
    for (int j = 0; j < 32; ++j)
      for (int c = 0; c < 2; ++c) {
        float column[16];
        operand<T>(b, 8 * j + 2 * (thread % 4) + c, column);
        for (int h = 0; h < 2; ++h) {
          float sum = accumulate ? out[j][2 * h + c] : 0.0f;
          for (int k = 0; k < 16; ++k) sum += rows[h][k] * column[k];
          out[j][2 * h + c] = sum;
        }
      }
  });
}

template <int COUNT>
void give_registers() {}
template <int COUNT>
void take_registers() {}

}  // namespace fastclip::hopper
