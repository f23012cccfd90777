#include "qatx/model/verify.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <map>

#include "qatx/core/text.h"
#include "qatx/engine/recording.h"
#include "qatx/model/table.h"
#include "qatx/nn/fake_quantize.h"
#include "qatx/nn/listener.h"

namespace qatx {
namespace {

constexpr double kRoundingShare = 1e-4;
// What differs behind values that differ by rounding agrees at least so well, in decibels.
constexpr double kLeastSqnrBehind = 30.0;
// Outputs that agree less differ for another reason than rounding.
constexpr double kLeastOutputsSqnr = 20.0;

// Sums over batches.
struct Total {
  VerificationRow row;
  double signal = 0.0;
  double noise = 0.0;

  void add(const at::Tensor& expected, const at::Tensor& actual, double scale) {
    const at::Tensor error = expected.to(at::kDouble) - actual.to(at::kDouble);
    const at::Tensor codes = (error / scale).round().abs();
    row.elements += codes.numel();
    row.different += codes.count_nonzero().item<int64_t>();
    if (codes.numel() > 0) row.largest = std::max(row.largest, codes.max().item().to<int64_t>());
    signal += expected.to(at::kDouble).square().sum().item<double>();
    noise += error.square().sum().item<double>();
  }

  VerificationRow finish() const {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    VerificationRow done = row;
    done.sqnr = noise == 0.0    ? kInfinity
                : signal == 0.0 ? -kInfinity
                                : 10.0 * std::log10(signal / noise);
    return done;
  }
};

// Keeps what the activations' fake quantizers of a model return.
class Values : public nn::Listener {
 public:
  explicit Values(const ModulePaths& paths) : paths_(paths) {}

  void leave(const torch::nn::Module& module, const at::Tensor& output) override {
    const auto* f = module.as<nn::FakeQuantizeImpl>();
    if (!f || f->options.role() != nn::Role::kActivation) return;
    made.emplace_back(paths_.at(&module), output);
  }

  std::vector<std::pair<std::string, at::Tensor>> made;

 private:
  const ModulePaths& paths_;
};

// All tensors of an output, one after the other.
at::Tensor flat(const c10::IValue& output) {
  std::vector<at::Tensor> parts;
  const auto add = [&](const auto& self, const c10::IValue& value) -> void {
    if (value.isTensor()) {
      parts.push_back(value.toTensor().flatten());
    } else if (value.isTuple()) {
      for (const c10::IValue& element : value.toTupleRef().elements()) self(self, element);
    } else if (value.isList()) {
      for (const c10::IValue& element : value.toListRef()) self(self, element);
    }
  };
  add(add, output);
  return parts.empty() ? at::empty({0}) : at::cat(parts);
}

}  // namespace

bool VerificationRow::rounding_only() const {
  return largest <= 1 &&
         static_cast<double>(different) <= kRoundingShare * static_cast<double>(elements);
}

// The first value that differs by more than rounding. Behind values that differ by rounding others
// do, too, and by more than one code where a function is steep.
const VerificationRow* Verification::first_different() const {
  bool rounded = false;
  for (const VerificationRow& row : rows) {
    if (!row.rounding_only() && !(rounded && row.sqnr >= kLeastSqnrBehind)) return &row;
    rounded |= row.different > 0;
  }
  return nullptr;
}

bool Verification::ok() const {
  return first_different() == nullptr && outputs_sqnr >= kLeastOutputsSqnr;
}

std::string Verification::verdict() const {
  int64_t compared = 0;
  int64_t largest = 0;
  double share = 0.0;
  for (const VerificationRow& row : rows) {
    if (row.elements == 0) continue;
    ++compared;
    largest = std::max(largest, row.largest);
    share = std::max(share, static_cast<double>(row.different) / static_cast<double>(row.elements));
  }
  if (compared == 0) return "Nothing runs in integers: there is nothing to compare.";
  if (const VerificationRow* wrong = first_different()) {
    return fmt::format("Different: first at {}, where {} of {} codes differ, by up to {}.",
                       wrong->name, with_commas(wrong->different), with_commas(wrong->elements),
                       wrong->largest);
  }
  if (!(outputs_sqnr >= kLeastOutputsSqnr)) {
    return fmt::format(
        "Different: no quantized value shows why, but the outputs agree to {:.1f} dB only, less "
        "than {:.0f} dB.",
        outputs_sqnr, kLeastOutputsSqnr);
  }
  if (share == 0.0) return fmt::format("Equal: no code differs in {} quantized values.", compared);
  return fmt::format(
      "Equal but for rounding: codes differ in {:.4f}% of the elements of a value at most, by {} "
      "at "
      "most.",
      100.0 * share, largest);
}

std::ostream& operator<<(std::ostream& stream, const Verification& verification) {
  Table table({{"value"},
               {"elements", true},
               {"different codes", true},
               {"largest", true},
               {"SQNR [dB]", true}});
  for (const VerificationRow& row : verification.rows) {
    if (row.elements == 0) {
      table.add_row({row.name, "not in integers", "", "", ""});
      continue;
    }
    table.add_row({row.name, with_commas(row.elements), with_commas(row.different),
                   std::to_string(row.largest),
                   std::isinf(row.sqnr) ? "" : fmt::format("{:.1f}", row.sqnr)});
  }
  return stream << table.text()
                << fmt::format("Outputs: {:.1f} dB. {}\n", verification.outputs_sqnr,
                               verification.verdict());
}

Verification verify(const Model& model, torch::jit::Module converted, const Batches& data) {
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model.module());
  const ModulePaths paths = paths_of(model.module());
  std::vector<std::string> order;
  std::map<std::string, Total> totals;
  Total outputs;
  data.for_each([&](const at::Tensor& x) {
    Values values(paths);
    const c10::IValue expected = model.forward({x});
    TORCH_CHECK_VALUE(!values.made.empty(),
                      "qatx.verify: model has no quantization; give what qatx.convert took, not "
                      "the float model");
    const engine::Recording recording;
    const c10::IValue actual = converted.forward({x});
    std::map<std::string, std::deque<const engine::Recording::Entry*>> held;
    for (const auto& entry : recording.entries()) held[entry.name].push_back(&entry);
    for (const auto& [name, value] : values.made) {
      if (!totals.contains(name)) order.push_back(name);
      Total& total = totals[name];
      total.row.name = name;
      auto& entries = held[name];
      if (entries.empty()) continue;
      total.add(value, entries.front()->value.reshape(value.sizes()), entries.front()->scale);
      entries.pop_front();
    }
    outputs.add(flat(expected), flat(actual), 1.0);
    return true;
  });
  TORCH_CHECK_VALUE(!totals.empty(), "qatx.verify: data is empty; give at least one batch");
  Verification result;
  for (const std::string& name : order) result.rows.push_back(totals.at(name).finish());
  result.outputs_sqnr = outputs.finish().sqnr;
  return result;
}

}  // namespace qatx
