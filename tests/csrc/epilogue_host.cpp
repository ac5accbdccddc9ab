// epilogue.cuh and index.cuh over whole matrices of logits in base 2, one block after another.
#include <vector>

#include "epilogue.cuh"

using namespace fastclip;

namespace {

// sum of 2^(z - max) of a block's rows and columns, as a warp computes them.
void statistics(const float* z, int64_t m, int64_t row, int64_t column, int rows, int columns,
                Partial* by_row, Partial* by_column) {
  const auto at = [&](int i, int j) { return z[offset(row + i, m, column + j)]; };
  float max = kLowest;
  for (int i = 0; i < rows; ++i) {
    by_row[i] = {kLowest, 0.0f};
    for (int j = 0; j < columns; ++j) by_row[i].max = larger(by_row[i].max, at(i, j));
    max = larger(max, by_row[i].max);
  }
  for (int j = 0; j < columns; ++j) {
    by_column[j] = {max, 0.0f};
    for (int i = 0; i < rows; ++i) {
      const float e = exponential(at(i, j), by_row[i].max);
      by_row[i].sum_exp += e;
      by_column[j].sum_exp += e * column_factor(by_row[i].max, max);
    }
    if (!needs_rescue(by_column[j].sum_exp)) continue;
    by_column[j] = {kLowest, 0.0f};
    for (int i = 0; i < rows; ++i) by_column[j].max = larger(by_column[j].max, at(i, j));
    for (int i = 0; i < rows; ++i) by_column[j].sum_exp += exponential(at(i, j), by_column[j].max);
  }
}

double log2_sum(Partial partial) { return partial.max + std::log2(double{partial.sum_exp}); }

}  // namespace

extern "C" {

void log_sum_exps(const float* z, int64_t n, int64_t m, int side, double* row_lse,
                  double* column_lse) {
  std::vector<Partial> rows(n, {kLowest, 0.0f}), columns(m, {kLowest, 0.0f});
  std::vector<Partial> by_row(side), by_column(side);
  const int row_tiles = ceil_div(n, side), column_tiles = ceil_div(m, side);
  for (int id = 0; id < row_tiles * column_tiles; ++id) {
    const TilePosition tile = tile_at(id, row_tiles, column_tiles, 4);
    const int64_t row = int64_t{tile.row} * side, column = int64_t{tile.column} * side;
    const int height = inside(n, row, side), width = inside(m, column, side);
    statistics(z, m, row, column, height, width, by_row.data(), by_column.data());
    for (int i = 0; i < height; ++i) rows[row + i] = merge(rows[row + i], by_row[i]);
    for (int j = 0; j < width; ++j) columns[column + j] = merge(columns[column + j], by_column[j]);
  }
  for (int64_t i = 0; i < n; ++i) row_lse[i] = log2_sum(rows[i]);
  for (int64_t j = 0; j < m; ++j) column_lse[j] = log2_sum(columns[j]);
}

// Returns whether one exponential served all.
bool two_sided_gradient(const float* z, int64_t n, int64_t m, const Side* rows, const Side* columns,
                        float* g) {
  float least = INFINITY, most = -INFINITY;
  for (int64_t i = 0; i < n; ++i)
    least = fminf(least, rows[i].shift), most = fmaxf(most, rows[i].shift);
  for (int64_t j = 0; j < m; ++j)
    least = fminf(least, columns[j].shift), most = fmaxf(most, columns[j].shift);
  const bool serves = one_exponential_serves(least, most);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j) {
      const float logit = z[offset(i, m, j)];
      g[offset(i, m, j)] = serves ? gradient_shared(logit, least, factor_under(least, rows[i]),
                                                    factor_under(least, columns[j]))
                                  : gradient(logit, rows[i], columns[j]);
    }
  return serves;
}

// Quantises and takes back; returns the step.
float fixed_point(const float* z, int64_t count, uint16_t* values, float* back) {
  float low = INFINITY, high = -INFINITY;
  for (int64_t k = 0; k < count; ++k) low = fminf(low, z[k]), high = fmaxf(high, z[k]);
  const Affine affine = affine_between(low, high);
  for (int64_t k = 0; k < count; ++k) {
    values[k] = quantise(z[k], low, values_per_unit(low, high));
    back[k] = dequantise(values[k], affine);
  }
  return affine.step;
}

int tile_of(int id, int row_tiles, int column_tiles, int group) {
  const TilePosition tile = tile_at(id, row_tiles, column_tiles, group);
  return tile.row * column_tiles + tile.column;
}

int64_t offset_of(int64_t row, int64_t stride, int64_t column) {
  return offset(row, stride, column);
}

int swizzle(int row, int chunk) { return swizzle_64(row, chunk); }

bool meets_diagonal(int64_t row, int rows, int64_t column, int columns, int64_t target_offset) {
  return on_diagonal(row, rows, column, columns, target_offset);
}

}
