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

void check_calibrated(const char* owner, torch::nn::Module& module) {
  const auto fake_quantizes = fake_quantizes_of(module);
  TORCH_CHECK_VALUE(!fake_quantizes.empty(), owner,
                    ": the model has no quantization; call qatx.prepare first");
  std::string missing;
  for (const auto& [path, f] : fake_quantizes) {
    if (!f->is_calibrated()) missing += (missing.empty() ? "" : ", ") + path;
  }
  TORCH_CHECK_VALUE(missing.empty(), owner,
                    ": the model is not calibrated; call qatx.calibrate(model, data) first. "
                    "Without a scale: ",
                    missing);
}

}  // namespace qatx
