// The launches of csrc for ctypes; the tests compile this with the kernels on emulation/.
#include "infonce.h"

using namespace fastclip;

extern "C" {

void tile_shape(bool hopper, int* shape) {
  const TileShape tile = hopper ? kTileSm90 : kTileSm80;
  shape[0] = tile.rows, shape[1] = tile.columns;
  shape[2] = tile.block_rows, shape[3] = tile.block_columns;
}

int statistics(bool hopper, const Product* p, const Statistics* out) {
  return hopper ? infonce_statistics_sm90(*p, *out, nullptr)
                : infonce_statistics_sm80(*p, *out, nullptr);
}

int gradient(bool hopper, const Product* p, const Gradient* out) {
  return hopper ? infonce_gradient_sm90(*p, *out, nullptr)
                : infonce_gradient_sm80(*p, *out, nullptr);
}

int gradient_quantized(const Product* p, const QuantizedLogits* in, const Gradient* out) {
  return infonce_gradient_quantized(*p, *in, *out, nullptr);
}

int merge_partials(float* max, float* sum_exp, int64_t count, int64_t length, bool running,
                   double* lse) {
  return infonce_merge_partials({max, sum_exp}, count, length, running, lse, nullptr);
}

}
