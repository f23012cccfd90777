#pragma once

#include <span>

#include "qatx/engine/node_reader.h"
#include "qatx/engine/operator.h"
#include "qatx/kernels/epilogue.h"

namespace qatx::engine {

// What an operator does after its sums, but for where it writes: attribute "clamp" (default: none)
// and the output's type.
class Output {
 public:
  explicit Output(const NodeReader& node);

  // The second input of a convolution or linear layer is added inside it.
  void add_residual(const kernels::QParams& residual);
  bool has_residual() const { return has_residual_; }
  // Operator::in_place: the residual, where the output consists of codes, too.
  std::optional<size_t> in_place() const {
    return has_residual_ && quantized_ ? std::optional<size_t>(1) : std::nullopt;
  }

  // For rows of `stride` elements, of which this part of the operator's work starts `offset`
  // elements into the output (and into the residual).
  kernels::Epilogue to(std::span<const Buffer> inputs, Buffer output, int64_t stride,
                       int64_t offset = 0) const;
  // For rows of `columns` elements from `first_row` on, which may lie apart.
  kernels::Epilogue to_rows(std::span<const Buffer> inputs, Buffer output, int64_t columns,
                            int64_t first_row) const;

 private:
  kernels::Epilogue prototype_{};
  bool quantized_;
  bool has_residual_ = false;
};

}  // namespace qatx::engine
