#include "qatx/nn/qconfig.h"

#include <c10/util/Exception.h>

#include "qatx/observers/observer.h"

namespace qatx {
namespace {

std::string to_string(std::optional<int64_t> axis) { return axis ? std::to_string(*axis) : "none"; }

}  // namespace

void QConfig::check() const {
  const auto axis = weight().axis();
  if (weight().group_size()) {
    TORCH_CHECK_VALUE(axis == 1, "QConfig: weight.axis must be 1 with a group_size, got ",
                      to_string(axis));
  } else {
    TORCH_CHECK_VALUE(!axis || axis == 0, "QConfig: weight.axis must be 0 or none, got ",
                      to_string(axis));
  }
  TORCH_CHECK_VALUE(!activation().axis(), "QConfig: activation.axis must be none, got ",
                    to_string(activation().axis()));
  if (weight_range()) check_range_method("QConfig", "weight_range", *weight_range());
  if (activation_range()) check_range_method("QConfig", "activation_range", *activation_range());
}

}  // namespace qatx
