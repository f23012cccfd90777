#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <string>
#include <vector>

#include "qatx/engine/operator.h"
#include "qatx/kernels/epilogue.h"

namespace qatx::engine {

// While one lives, programs that run on its thread keep what the codes of their fake quantizers
// stand for. For comparing a converted model with the trained one; it costs memory and time.
class C10_EXPORT Recording {
 public:
  struct Entry {
    std::string name;  // of the fake quantizer in the model
    double scale;
    at::Tensor value;  // float32: (code - zero_point) * scale
  };

  Recording();
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // That of this thread, or nullptr.
  static Recording* active();

  // A value of these sizes, to be filled by write_floats().
  at::Tensor add(const std::string& name, const kernels::QParams& qparams, at::IntArrayRef sizes);
  // In the order in which they were made.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  Recording* outer_;
  std::vector<Entry> entries_;
};

// What the codes of a buffer stand for; `out` lies in memory like all values of a program.
void write_floats(const kernels::QParams& qparams, const Buffer& buffer, const at::Tensor& out);

}  // namespace qatx::engine
