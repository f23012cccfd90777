#include "qatx/model/comparison.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

#include "qatx/engine/recording.h"

namespace qatx {
namespace {

at::Tensor joined(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& tensor : tensors) parts.push_back(tensor.flatten());
  return parts.empty() ? at::empty({0}) : at::cat(parts);
}

void collect(const c10::IValue& value, std::vector<at::Tensor>& tensors) {
  if (value.isTensor()) {
    tensors.push_back(value.toTensor());
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements()) collect(element, tensors);
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) collect(element, tensors);
  } else if (value.isGenericDict()) {
    for (const auto& item : value.toGenericDict()) collect(item.value(), tensors);
  }
}

}  // namespace

std::vector<at::Tensor> tensors_in(const c10::IValue& output) {
  std::vector<at::Tensor> tensors;
  collect(output, tensors);
  return tensors;
}

void Comparison::Total::add(const at::Tensor& expected, const at::Tensor& actual, double scale) {
  const at::Tensor error = expected.to(at::kDouble) - actual.to(at::kDouble);
  const at::Tensor codes = (error / scale).round().abs();
  elements += codes.numel();
  different += codes.count_nonzero().item<int64_t>();
  if (codes.numel() > 0) largest = std::max(largest, codes.max().item().to<int64_t>());
  signal += expected.to(at::kDouble).square().sum().item<double>();
  noise += error.square().sum().item<double>();
}

double Comparison::Total::sqnr() const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (noise == 0.0) return kInfinity;
  return signal == 0.0 ? -kInfinity : 10.0 * std::log10(signal / noise);
}

void Comparison::add(const std::vector<at::Tensor>& inputs, const Values& values,
                     const std::vector<at::Tensor>& outputs) {
  const at::NoGradGuard no_grad;
  const engine::Recording recording;
  const c10::IValue actual = converted_.forward({inputs.begin(), inputs.end()});
  std::map<std::string, std::deque<const engine::Recording::Entry*>> held;
  for (const auto& entry : recording.entries()) held[entry.name].push_back(&entry);
  for (const auto& [name, value] : values) {
    if (!totals_.contains(name)) order_.push_back(name);
    Total& total = totals_[name];
    auto& entries = held[name];
    if (entries.empty()) continue;
    total.add(value, entries.front()->value.reshape(value.sizes()), entries.front()->scale);
    entries.pop_front();
  }
  outputs_.add(joined(outputs), joined(tensors_in(actual)), 1.0);
  ++batches_;
}

Verification Comparison::finish() const {
  TORCH_CHECK_VALUE(batches_ > 0, "qatx.verify: data is empty; give at least one batch");
  Verification result;
  for (const std::string& name : order_) {
    const Total& total = totals_.at(name);
    result.rows.push_back({name, total.elements, total.different, total.largest, total.sqnr()});
  }
  result.outputs_sqnr = outputs_.sqnr();
  return result;
}

}  // namespace qatx
