#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>

namespace qatx::ptq {

// How far a layer's output is from the wanted one, as a function of the layer's weights.
//
// A layer multiplies each row x of its inputs (what one output element sees: a patch of an image,
// or a vector) by its weights. With y the wanted outputs, the squared error over all rows is
//   |W x - y|^2 = tr(W A W^T) - 2 tr(W B^T) + c,   A = sum x x^T,  B = sum y x^T,  c = sum y^2,
// so these sums, of a fixed size whatever the number of samples, are all that choosing weights
// needs. x may come from the quantized model and y from the float one, so that a layer makes up for
// the errors of those before it.
//
// All sums are in float64. Groups of a convolution are independent of each other.
class C10_EXPORT OutputError {
 public:
  // Of each group: `outputs` output channels, and `inputs` elements in a row.
  OutputError(int64_t groups, int64_t outputs, int64_t inputs);

  // Adds samples. x: [N, groups, inputs, rows]; y: [N, groups, outputs, rows]; floating point.
  // Throws c10::Error for other shapes.
  void add(const at::Tensor& x, const at::Tensor& y);

  // The squared error of each output channel with these weights, [groups, outputs, inputs];
  // float64, [groups, outputs], not negative. Throws c10::Error for another shape.
  at::Tensor operator()(const at::Tensor& weight) const;

  const at::Tensor& gram() const { return gram_; }        // A: [groups, inputs, inputs]
  const at::Tensor& cross() const { return cross_; }      // B: [groups, outputs, inputs]
  const at::Tensor& squares() const { return squares_; }  // c: [groups, outputs]
  int64_t rows() const { return rows_; }

  // Throws c10::Error unless `weight` has the shape that operator() takes.
  void check_weight(const at::Tensor& weight) const;

 private:
  at::Tensor gram_;
  at::Tensor cross_;
  at::Tensor squares_;
  int64_t rows_ = 0;
};

}  // namespace qatx::ptq
