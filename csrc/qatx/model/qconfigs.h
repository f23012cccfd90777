#pragma once

#include <set>
#include <string>

#include "qatx/model/prepare.h"
#include "qatx/nn/qconfig.h"

namespace qatx {

// Which QConfig belongs to which layer.
class QConfigs {
 public:
  // Throws c10::Error (ValueError) where one of them is none.
  QConfigs(QConfig for_all, QConfigOverrides overrides);

  // Where nothing is said of a layer.
  const QConfig& for_all() const { return for_all_; }
  // That of the layer at `path`: of the longest path that leads to it.
  const QConfig& of(const std::string& path);
  // Throws c10::Error (ValueError) where there are overrides that of() was never asked for.
  void check_all_used() const;

 private:
  QConfig for_all_;
  QConfigOverrides overrides_;
  std::set<std::string> used_;
};

}  // namespace qatx
