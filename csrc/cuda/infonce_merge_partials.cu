// Partials of tiles to log-sum-exps, in a fixed order.

#include "launch.h"

namespace fastclip {
namespace {

constexpr int kLengths = 32, kSlices = 16;  // neighbours in memory; parts of the tiles

__global__ void __launch_bounds__(kLengths* kSlices)
    merge_partials(const Partials in, int64_t count, int64_t length, bool running, double* lse) {
  __shared__ float maxima[kSlices][kLengths];
  __shared__ double sums[kSlices][kLengths];
  const int lane = threadIdx.x % kLengths, slice = threadIdx.x / kLengths;
  const int64_t id = int64_t{blockIdx.x} * kLengths + lane;
  const bool valid = id < length;

  float max = kLowest;
  for (int64_t t = slice; valid && t < count; t += kSlices)
    max = larger(max, in.max[offset(t, length, id)]);
  maxima[slice][lane] = max;
  __syncthreads();
  for (int s = 0; s < kSlices; ++s) max = larger(max, maxima[s][lane]);

  double sum = 0.0;
  for (int64_t t = slice; valid && t < count; t += kSlices) {
    const int64_t at = offset(t, length, id);
    sum += static_cast<double>(in.sum_exp[at] * exponential(in.max[at], max));
  }
  sums[slice][lane] = sum;
  __syncthreads();
  if (slice != 0 || !valid) return;
  for (int s = 1; s < kSlices; ++s) sum += sums[s][lane];
  double value = log2(sum) + static_cast<double>(max);
  if (running && lse[id] != -INFINITY) {
    const double before = lse[id];
    value = fmax(before, value) + log1p(exp2(-fabs(before - value))) * M_LOG2E;
  }
  lse[id] = value;
}

}  // namespace

cudaError_t infonce_merge_partials(Partials in, int64_t count, int64_t length, bool running,
                                   double* lse, cudaStream_t stream) {
  const int64_t blocks = ceil_div(length, kLengths);
  return launch_kernel(merge_partials, blocks, kLengths * kSlices, 0, stream, in, count, length,
                       running, lse);
}

}  // namespace fastclip
