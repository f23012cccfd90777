#include "qatx/nn/combine.h"

#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>

#include "qatx/nn/listener.h"

namespace qatx::nn {

at::Tensor QuantStubImpl::forward(const at::Tensor& x) {
  return tell(*this, x, [&] { return finish(x); });
}

void QuantStubImpl::pretty_print(std::ostream& stream) const {
  stream << "qatx::nn::QuantStub()";
  print_settings(stream);
}

at::Tensor AddImpl::forward(const at::Tensor& a, const at::Tensor& b) {
  return tell(*this, {a, b}, [&] { return finish(at::add(a, b)); });
}

void AddImpl::pretty_print(std::ostream& stream) const {
  stream << "qatx::nn::Add()";
  print_settings(stream);
}

at::Tensor MulImpl::forward(const at::Tensor& a, const at::Tensor& b) {
  return tell(*this, {a, b}, [&] { return finish(at::mul(a, b)); });
}

void MulImpl::pretty_print(std::ostream& stream) const {
  stream << "qatx::nn::Mul()";
  print_settings(stream);
}

at::Tensor CatImpl::forward(std::vector<at::Tensor> tensors) {
  TORCH_CHECK_VALUE(!tensors.empty(), "Cat: tensors must hold at least one tensor, got none");
  return tell(*this, tensors, [&] {
    std::vector<at::Tensor> parts;
    for (const at::Tensor& tensor : tensors) parts.push_back(finish(tensor));
    return at::cat(parts, options.dim());
  });
}

void CatImpl::pretty_print(std::ostream& stream) const {
  stream << "qatx::nn::Cat(dim=" << options.dim() << ')';
  print_settings(stream);
}

}  // namespace qatx::nn
