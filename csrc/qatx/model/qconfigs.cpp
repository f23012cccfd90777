#include "qatx/model/qconfigs.h"

#include <c10/util/Exception.h>

namespace qatx {

QConfigs::QConfigs(QConfig for_all, QConfigOverrides overrides)
    : for_all_(std::move(for_all)), overrides_(std::move(overrides)) {
  for_all_.check();
  for (const auto& [path, qconfig] : overrides_) qconfig.check();
}

const QConfig& QConfigs::of(const std::string& path) {
  for (std::string prefix = path; !prefix.empty();) {
    if (const auto found = overrides_.find(prefix); found != overrides_.end()) {
      used_.insert(prefix);
      return found->second;
    }
    const size_t dot = prefix.rfind('.');
    prefix.resize(dot == std::string::npos ? 0 : dot);
  }
  return for_all_;
}

void QConfigs::check_all_used() const {
  std::string unused;
  for (const auto& [path, qconfig] : overrides_) {
    if (!used_.contains(path)) unused += (unused.empty() ? "'" : ", '") + path + "'";
  }
  TORCH_CHECK_VALUE(unused.empty(),
                    "qatx.prepare: overrides has no convolution or linear layer at [", unused, "]");
}

}  // namespace qatx
