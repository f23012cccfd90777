#include "qatx/model/fake_quantizes.h"

namespace qatx {

std::vector<std::pair<std::string, std::shared_ptr<nn::FakeQuantizeImpl>>> fake_quantizes_of(
    torch::nn::Module& module) {
  std::vector<std::pair<std::string, std::shared_ptr<nn::FakeQuantizeImpl>>> found;
  const auto add = [&](const std::string& path, const std::shared_ptr<torch::nn::Module>& each) {
    if (auto f = std::dynamic_pointer_cast<nn::FakeQuantizeImpl>(each)) {
      found.emplace_back(path, std::move(f));
    }
  };
  add("", module.shared_from_this());
  for (const auto& item : module.named_modules("", /*include_self=*/false)) {
    add(item.key(), item.value());
  }
  return found;
}

}  // namespace qatx
