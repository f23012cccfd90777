#include "qatx/model/model.h"

namespace qatx {

ModulePaths paths_of(torch::nn::Module& module) {
  ModulePaths paths;
  // A module in several places goes by the first.
  for (const auto& item : module.named_modules("", /*include_self=*/false)) {
    paths.emplace(item.value().get(), item.key());
  }
  paths.emplace(&module, "");
  return paths;
}

EvaluationMode::EvaluationMode(torch::nn::Module& module) {
  for (const auto& each : module.modules(/*include_self=*/false)) {
    before_.emplace_back(each, each->is_training());
  }
  before_.emplace_back(module.shared_from_this(), module.is_training());
  module.eval();
}

EvaluationMode::~EvaluationMode() {
  // train() reaches all modules below: the outermost, which is last, goes first.
  before_.back().first->train(before_.back().second);
  before_.pop_back();
  for (const auto& [module, training] : before_) module->train(training);
}

}  // namespace qatx
