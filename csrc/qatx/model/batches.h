#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <functional>
#include <type_traits>

namespace qatx {

// Batches of samples, as qatx::calibrate and qatx::verify read them: one tensor of samples, or any
// range of tensors, or of what holds one in `data` or in `first`, such as a torch::data loader:
//   qatx::calibrate(model, *loader);
// The first dimension counts samples. It refers to the range and does not copy it.
class C10_EXPORT Batches {
 public:
  // Called with each batch until it returns false.
  using Visit = std::function<bool(const at::Tensor&)>;

  // Batches of at most 64 samples.
  Batches(const at::Tensor& samples);  // NOLINT: implicit
  template <class Range>
    requires(!std::is_same_v<std::decay_t<Range>, at::Tensor> &&
             !std::is_same_v<std::decay_t<Range>, Batches>)
  Batches(Range&& range)  // NOLINT: implicit
      : for_each_([&range](const Visit& visit) {
          for (auto&& batch : range) {
            if (!visit(tensor_of(batch))) return;
          }
        }) {}

  void for_each(const Visit& visit) const { for_each_(visit); }

 private:
  template <class Batch>
  static at::Tensor tensor_of(Batch& batch) {
    if constexpr (std::is_convertible_v<Batch&, at::Tensor>) {
      return batch;
    } else if constexpr (requires { batch.data; }) {
      return batch.data;
    } else {
      return batch.first;
    }
  }

  std::function<void(const Visit&)> for_each_;
};

}  // namespace qatx
