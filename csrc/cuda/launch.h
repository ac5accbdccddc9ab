// A launch in one dimension.
#pragma once

#include <cuda_runtime.h>

#include <climits>
#include <utility>

#include "infonce.h"

namespace fastclip {

template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t bytes,
                          cudaStream_t stream, Arguments&&... arguments) {
  if (blocks > INT_MAX) return cudaErrorInvalidValue;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace fastclip
