// The operators of the CUDA backend, on torch's stable ABI: checks, streams, launches.
//
// Names and shapes are those of fastclip.kernels.infonce, whose launchers these stand in for.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>

#include "cuda/infonce.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kAny = -1;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error("fastclip_cuda: " + message.str());
}

std::string shape(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int64_t d = 0; d < tensor.dim(); ++d) text << (d ? ", " : "") << tensor.size(d);
  text << "]";
  return text.str();
}

void check_shape(const Tensor& tensor, const char* name, std::initializer_list<int64_t> sizes) {
  bool fits = tensor.dim() == static_cast<int64_t>(sizes.size());
  std::ostringstream accepted;
  int64_t d = 0;
  for (const int64_t size : sizes) {
    fits = fits && (size == kAny || tensor.size(d) == size);
    accepted << (d ? ", " : "");
    size == kAny ? accepted << "any" : accepted << size;
    ++d;
  }
  if (!fits) fail(name, " has shape ", shape(tensor), "; accepted: [", accepted.str(), "]");
}

void check_device(const Tensor& tensor, const char* name, const Tensor& other) {
  if (!tensor.is_cuda()) fail(name, " is not on a GPU; accepted: CUDA tensors");
  if (tensor.get_device_index() != other.get_device_index())
    fail(name, " is on GPU ", tensor.get_device_index(), " but another tensor is on GPU ",
         other.get_device_index());
}

// A contiguous tensor of one type.
template <class T>
T* contiguous(const Tensor& tensor, const char* name, ScalarType dtype, const char* dtype_name,
              std::initializer_list<int64_t> sizes, const Tensor& device_of) {
  check_device(tensor, name, device_of);
  if (tensor.scalar_type() != dtype) fail(name, " is not ", dtype_name);
  check_shape(tensor, name, sizes);
  if (!tensor.is_contiguous()) fail(name, " is not contiguous");
  return static_cast<T*>(tensor.data_ptr());
}

float* floats(const Tensor& tensor, const char* name, std::initializer_list<int64_t> sizes,
              const Tensor& device_of) {
  return contiguous<float>(tensor, name, ScalarType::Float, "float32", sizes, device_of);
}

fastclip::Dtype half_dtype(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::BFloat16:
      return fastclip::Dtype::bfloat16;
    case ScalarType::Half:
      return fastclip::Dtype::float16;
    default:
      fail(name, " is of a dtype that has no kernel; accepted: bfloat16, float16");
  }
}

bool on_16_bytes(const Tensor& matrix) {
  return reinterpret_cast<uintptr_t>(matrix.data_ptr()) % 16 == 0 && matrix.stride(0) % 8 == 0;
}

// A [rows, columns] matrix of 16-bit values that kernels read or write in runs of 16 bytes.
void check_runs(const Tensor& matrix, const char* name) {
  check_shape(matrix, name, {kAny, kAny});
  if (matrix.stride(1) != 1 || !on_16_bytes(matrix) ||
      matrix.stride(0) < (matrix.size(1) + 7) / 8 * 8)
    fail(name, " has strides (", matrix.stride(0), ", ", matrix.stride(1),
         "); accepted: (a multiple of 8 no less than the columns, 1), on 16 bytes");
}

void check_operand(const Tensor& matrix, const char* name, bool hopper) {
  check_shape(matrix, name, {kAny, kAny});
  if (matrix.size(1) == 0 || matrix.size(1) >= int64_t{1} << 31)
    fail(name, " has ", matrix.size(1), " features; accepted: 1 to 2^31 - 1");
  const bool rows_apart = matrix.size(0) <= 1 || matrix.stride(0) >= matrix.size(1);
  if ((matrix.size(1) > 1 && matrix.stride(1) != 1) || !rows_apart)
    fail(name, " has strides (", matrix.stride(0), ", ", matrix.stride(1),
         "); accepted: (at least the width, 1)");
  if (hopper && !on_16_bytes(matrix))
    fail(name, " has rows that do not start on 16 bytes, which the sm_90a kernel needs");
}

fastclip::Product product(const Tensor& x, const Tensor& y, const Tensor& scale,
                          int64_t target_offset, bool hopper) {
  check_device(x, "x", x);
  check_device(y, "y", x);
  const fastclip::Dtype dtype = half_dtype(x, "x");
  if (y.scalar_type() != x.scalar_type()) fail("x and y are of different dtypes");
  check_operand(x, "x", hopper);
  check_operand(y, "y", hopper);
  check_shape(y, "y", {kAny, x.size(1)});
  if (scale.numel() != 1) fail("scale has ", scale.numel(), " elements; accepted: 1");
  check_device(scale, "scale", x);
  if (scale.scalar_type() != ScalarType::Float) fail("scale is not float32");
  return {x.data_ptr(), y.data_ptr(), x.size(0),     y.size(0),
          x.size(1),    x.stride(0),  y.stride(0),   target_offset,
          static_cast<const float*>(scale.data_ptr()), dtype};
}

// Makes a tensor's GPU current, for torch and for the runtime linked into this library.
class Launch {
 public:
  explicit Launch(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    check(cudaSetDevice(tensor.get_device_index()));
    void* stream = nullptr;
    if (aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) != TORCH_SUCCESS)
      fail("torch has no current stream on GPU ", tensor.get_device_index());
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }
  static void check(cudaError_t error) {
    if (error != cudaSuccess) fail(cudaGetErrorString(error));
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

fastclip::TileShape tile_shape(bool hopper) {
  return hopper ? fastclip::kTileSm90 : fastclip::kTileSm80;
}

std::tuple<int64_t, int64_t, int64_t, int64_t> infonce_tile(bool hopper) {
  const fastclip::TileShape shape = tile_shape(hopper);
  return {shape.rows, shape.columns, shape.block_rows, shape.block_columns};
}

// The affine maps of n x m logits in blocks: [>= blocks of rows, >= blocks of columns, 2].
const fastclip::Affine* check_affine(const Tensor& affine, int64_t n, int64_t m,
                                     int64_t block_rows, int64_t block_columns,
                                     const Tensor& device_of) {
  check_device(affine, "affine", device_of);
  if (affine.scalar_type() != ScalarType::Float) fail("affine is not float32");
  check_shape(affine, "affine", {kAny, kAny, 2});
  if (affine.size(0) < fastclip::ceil_div(n, block_rows) ||
      affine.size(1) < fastclip::ceil_div(m, block_columns))
    fail("affine has shape ", shape(affine), ", too small for ", n, " x ", m, " logits");
  if (affine.stride(2) != 1 || affine.stride(1) != 2 || affine.stride(0) % 2 != 0)
    fail("affine does not hold its pairs one after another");
  return static_cast<const fastclip::Affine*>(affine.data_ptr());
}

void infonce_statistics(const Tensor x, const Tensor y, const Tensor scale, int64_t target_offset,
                        Tensor row_max, Tensor row_sum_exp, Tensor column_max,
                        Tensor column_sum_exp, Tensor target, std::optional<Tensor> values,
                        std::optional<Tensor> affine, bool hopper) {
  const fastclip::Product p = product(x, y, scale, target_offset, hopper);
  const fastclip::TileShape tile = tile_shape(hopper);
  const int64_t tile_rows = fastclip::ceil_div(p.n, tile.rows);
  const int64_t tile_columns = fastclip::ceil_div(p.m, tile.columns);
  fastclip::Statistics out{};
  out.rows = {floats(row_max, "row_max", {tile_columns, p.n}, x),
              floats(row_sum_exp, "row_sum_exp", {tile_columns, p.n}, x)};
  out.columns = {floats(column_max, "column_max", {tile_rows, p.m}, x),
                 floats(column_sum_exp, "column_sum_exp", {tile_rows, p.m}, x)};
  out.target = contiguous<double>(target, "target", ScalarType::Double, "float64", {p.n}, x);
  if (values.has_value() != affine.has_value()) fail("values and affine belong together");
  if (values.has_value()) {
    check_device(*values, "values", x);
    if (values->scalar_type() != ScalarType::Short) fail("values is not int16");
    check_shape(*values, "values", {p.n, p.m});
    check_runs(*values, "values");
    out.kept = static_cast<uint16_t*>(values->data_ptr());
    out.kept_stride = values->stride(0);
    out.affine = const_cast<fastclip::Affine*>(
        check_affine(*affine, p.n, p.m, tile.block_rows, tile.block_columns, x));
    out.affine_stride = affine->stride(0) / 2;
  }
  if (p.n == 0 || p.m == 0) return;
  const Launch launch(x);
  Launch::check(hopper ? fastclip::infonce_statistics_sm90(p, out, launch.stream())
                       : fastclip::infonce_statistics_sm80(p, out, launch.stream()));
}

fastclip::Gradient gradient(const Tensor& row_shift, const Tensor& row_factor,
                            const Tensor& column_shift, const Tensor& column_factor,
                            const Tensor& out, int64_t n, int64_t m) {
  if (out.scalar_type() != ScalarType::Half) fail("out is not float16");
  check_shape(out, "out", {n, m});
  check_runs(out, "out");
  return {{floats(row_shift, "row_shift", {n}, out), floats(row_factor, "row_factor", {n}, out)},
          {floats(column_shift, "column_shift", {m}, out),
           floats(column_factor, "column_factor", {m}, out)},
          static_cast<uint16_t*>(out.data_ptr()),
          out.stride(0)};
}

void infonce_gradient(const Tensor x, const Tensor y, const Tensor scale, int64_t target_offset,
                      const Tensor row_shift, const Tensor row_factor, const Tensor column_shift,
                      const Tensor column_factor, Tensor out, bool hopper) {
  const fastclip::Product p = product(x, y, scale, target_offset, hopper);
  check_device(out, "out", x);
  const fastclip::Gradient g =
      gradient(row_shift, row_factor, column_shift, column_factor, out, p.n, p.m);
  if (p.n == 0 || p.m == 0) return;
  const Launch launch(x);
  Launch::check(hopper ? fastclip::infonce_gradient_sm90(p, g, launch.stream())
                       : fastclip::infonce_gradient_sm80(p, g, launch.stream()));
}

void infonce_gradient_quantized(const Tensor x, const Tensor y, const Tensor scale,
                                const Tensor values, const Tensor affine, int64_t target_offset,
                                const Tensor row_shift, const Tensor row_factor,
                                const Tensor column_shift, const Tensor column_factor, Tensor out,
                                int64_t block_rows, int64_t block_columns) {
  const fastclip::Product p = product(x, y, scale, target_offset, false);
  check_device(values, "values", x);
  if (values.scalar_type() != ScalarType::Short) fail("values is not int16");
  check_shape(values, "values", {p.n, p.m});
  check_runs(values, "values");
  check_device(out, "out", x);
  if (block_rows < 1 || block_columns < 8 || block_columns % 8 != 0)
    fail("blocks of ", block_rows, " x ", block_columns,
         "; accepted: any rows, a multiple of 8 columns");
  const fastclip::QuantizedLogits kept{
      static_cast<const uint16_t*>(values.data_ptr()),
      check_affine(affine, p.n, p.m, block_rows, block_columns, x),
      values.stride(0),
      affine.stride(0) / 2,
      static_cast<int>(block_rows),
      static_cast<int>(block_columns)};
  const fastclip::Gradient g =
      gradient(row_shift, row_factor, column_shift, column_factor, out, p.n, p.m);
  if (p.n == 0 || p.m == 0) return;
  const Launch launch(x);
  Launch::check(fastclip::infonce_gradient_quantized(p, kept, g, launch.stream()));
}

void infonce_merge_partials(const Tensor max, const Tensor sum_exp, Tensor lse, bool running) {
  const int64_t length = lse.numel();
  double* const out =
      contiguous<double>(lse, "lse", ScalarType::Double, "float64", {length}, lse);
  const fastclip::Partials partials{floats(max, "max", {kAny, length}, lse),
                                    floats(sum_exp, "sum_exp", {max.size(0), length}, lse)};
  if (length == 0) return;
  const Launch launch(lse);
  Launch::check(fastclip::infonce_merge_partials(partials, max.size(0), length, running, out,
                                                 launch.stream()));
}

}  // namespace

STABLE_TORCH_LIBRARY(fastclip_cuda, library) {
  library.def("infonce_tile(bool hopper) -> (int, int, int, int)");
  library.def(
      "infonce_statistics(Tensor x, Tensor y, Tensor scale, int target_offset,"
      " Tensor(a!) row_max, Tensor(b!) row_sum_exp, Tensor(c!) column_max,"
      " Tensor(d!) column_sum_exp, Tensor(e!) target, Tensor(f!)? values, Tensor(g!)? affine,"
      " bool hopper) -> ()");
  library.def(
      "infonce_gradient(Tensor x, Tensor y, Tensor scale, int target_offset,"
      " Tensor row_shift, Tensor row_factor, Tensor column_shift, Tensor column_factor,"
      " Tensor(a!) out, bool hopper) -> ()");
  library.def(
      "infonce_gradient_fixed(Tensor x, Tensor y, Tensor scale,"
      " Tensor values, Tensor affine, int target_offset,"
      " Tensor row_shift, Tensor row_factor, Tensor column_shift, Tensor column_factor,"
      " Tensor(a!) out, int block_rows, int block_columns) -> ()");
  library.def("infonce_fold(Tensor max, Tensor sum_exp, Tensor(a!) lse, bool running) -> ()");
}

// For every device, so that a tensor on the wrong one gets this library's own sentence.
STABLE_TORCH_LIBRARY_IMPL(fastclip_cuda, CompositeExplicitAutograd, library) {
  library.impl("infonce_tile", TORCH_BOX(&infonce_tile));
  library.impl("infonce_statistics", TORCH_BOX(&infonce_statistics));
  library.impl("infonce_gradient", TORCH_BOX(&infonce_gradient));
  library.impl("infonce_gradient_fixed", TORCH_BOX(&infonce_gradient_quantized));
  library.impl("infonce_fold", TORCH_BOX(&infonce_merge_partials));
}
