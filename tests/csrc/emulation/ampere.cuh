// csrc/cuda/ampere.cuh on a CPU.
#pragma once

#include "emulation.h"

namespace fastclip::ampere {

inline uint8_t* dynamic_shared() { return emulation::shared_memory; }

// A thread's copies: groups are carried out when it waits for them.
inline std::map<unsigned, std::deque<std::vector<std::function<void()>>>> groups;

inline void copy_run(void* to, const void* from, int bytes) {
  auto& mine = groups[threadIdx.x];
  if (mine.empty()) mine.emplace_back();
  mine.back().push_back([=] {
    std::memset(to, 0, 16);
    std::memcpy(to, from, bytes);
  });
}
inline void commit_copies() {
  auto& mine = groups[threadIdx.x];
  if (mine.empty()) mine.emplace_back();
  mine.emplace_back();
}
template <int PENDING>
void wait_copies() {
  auto& mine = groups[threadIdx.x];  // the last is open
  while (mine.size() > PENDING + 1) {
    for (const auto& copy : mine.front()) copy();
    mine.pop_front();
  }
}

inline void load_matrices(uint32_t (&r)[4], const void* from) {
  emulation::exchange(&from, sizeof from, [&](auto at) {
    for (int m = 0; m < 4; ++m) {
      const uint8_t* row;
      std::memcpy(&row, at(8 * m + emulation::lane() / 4), sizeof row);
      std::memcpy(&r[m], row + emulation::lane() % 4 * 4, 4);
    }
    return 0;
  });
}

template <class T>
void product(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T) {
  const uint32_t words[6] = {a[0], a[1], a[2], a[3], b0, b1};
  emulation::exchange(words, sizeof words, [&](auto at) {
    // Element `k` of row or column `line`, from its lane's registers `first` + depth half * `step`.
    const auto element = [&](int line, int k, int first, int step) {
      const auto* held = static_cast<const uint32_t*>(at(line * 4 + k % 8 / 2));
      return T::widen(static_cast<uint16_t>(held[first + k / 8 * step] >> (16 * (k % 2))));
    };
    const int octet = emulation::lane() / 4, quad = emulation::lane() % 4;
    for (int r = 0; r < 4; ++r)
      for (int k = 0; k < 16; ++k)
        d[r] += element(octet, k, r / 2, 2) * element(2 * quad + r % 2, k, 4, 1);
    return 0;
  });
}

}  // namespace fastclip::ampere
