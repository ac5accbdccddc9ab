// Index arithmetic of tiled n x m matrices: compiles as host C++ too, where the tests read it.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define FASTCLIP_INLINE __host__ __device__ __forceinline__
#else
#define FASTCLIP_INLINE inline
#endif

namespace fastclip {

FASTCLIP_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct TilePosition {
  int row, column;  // of the tile, in tiles
};

// Program order: `group` tiles of one column of tiles, then the next column, so that the tiles that
// run together share their rows and columns in the L2 cache.
FASTCLIP_INLINE TilePosition tile_at(int id, int row_tiles, int column_tiles, int group) {
  const int whole = group * column_tiles;
  const int first = id / whole * group;
  const int rows = row_tiles - first < group ? row_tiles - first : group;
  const int rest = id - first * column_tiles;
  return {first + rest % rows, rest / rows};
}

// Rows (or columns) of a tile of `size` that starts at `start` and lie inside `total`.
FASTCLIP_INLINE int inside(int64_t total, int64_t start, int size) {
  const int64_t left = total - start;
  return left <= 0 ? 0 : left < size ? static_cast<int>(left) : size;
}

// Offset of an element, in elements: beyond 2^31 for the matrices of this project.
FASTCLIP_INLINE int64_t offset(int64_t row, int64_t stride, int64_t column) {
  return row * stride + column;
}

// The byte where 16-byte chunk `chunk` of a row of 64 bytes lies in shared memory, such that the
// same chunk of 8 consecutive rows falls on different banks (ldmatrix reads them at once).
FASTCLIP_INLINE int swizzle_64(int row, int chunk) {
  return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4);
}

// Hopper's descriptor of a wgmma operand whose rows of 128 bytes lie one after another in shared
// memory, swizzled in groups of 8 rows (1,024 bytes, aligned to as much), as a tensor copy with
// CU_TENSOR_MAP_SWIZZLE_128B leaves them.
FASTCLIP_INLINE uint64_t descriptor_128(uint32_t shared_address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kGroupStride = uint64_t{1024 >> 4} << 32;
  constexpr uint64_t kLeadingUnused = uint64_t{1} << 16;
  return kSwizzle128 | kGroupStride | kLeadingUnused | ((shared_address & 0x3ffff) >> 4);
}
// From one depth of 16 to the next along the rows, in the descriptor's units of 16 bytes.
constexpr uint64_t kDescriptorStep = 16 * sizeof(uint16_t) >> 4;

// Tensor-core accumulators of a warp: 16 x 8 blocks in which lane `l` holds, at `r` of 4, row
// l / 4 + 8 * (r / 2) and column 2 * (l % 4) + r % 2. mma.m16n8k16 and wgmma share this layout.
FASTCLIP_INLINE int fragment_row(int lane, int block, int r) {
  return 16 * block + (lane >> 2) + 8 * (r >> 1);
}
FASTCLIP_INLINE int fragment_column(int lane, int block, int r) {
  return 8 * block + 2 * (lane & 3) + (r & 1);
}

// Whether the targets `row + target_offset` of a block of rows meet a block of columns.
FASTCLIP_INLINE bool on_diagonal(int64_t row, int rows, int64_t column, int columns,
                                 int64_t target_offset) {
  const int64_t first = row + target_offset;
  return first < column + columns && first + rows > column;
}

}  // namespace fastclip
