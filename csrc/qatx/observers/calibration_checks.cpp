#include "qatx/observers/calibration_checks.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string_view>

#include "qatx/core/text.h"

namespace qatx {
namespace {

constexpr int64_t kFewSamples = 100;
constexpr int64_t kEnoughPairs = 1000;  // of neighbouring pixels, to tell a correlation from chance
constexpr double kNoiseCorrelation = 0.1;
constexpr double kDuplicateShare = 0.1;
constexpr double kMoving = 0.2;  // growth of a range in the last quarter of the samples
constexpr size_t kFewBatches = 4;
constexpr double kOutlier = 100.0;  // times the median of the channels
constexpr int64_t kFewChannels = 8;

double growth(const MovingCheck::Range& before, const MovingCheck::Range& after) {
  const auto width = [](const MovingCheck::Range& r) {
    return r.max.clamp_min(0.0) - r.min.clamp_max(0.0);
  };
  const at::Tensor was = width(before);
  const at::Tensor was_there = was > 0;
  if (!was_there.any().item<bool>()) return 0.0;
  const at::Tensor ratios = width(after).masked_select(was_there) / was.masked_select(was_there);
  return ratios.max().item<double>() - 1.0;
}

}  // namespace

void DataCheck::add(const at::Tensor& batch) {
  if (batch.dim() == 0) return;
  const at::Tensor x = batch.detach().cpu();
  samples_ += x.size(0);
  for (int64_t i = 0; i < x.size(0); ++i) {
    const at::Tensor sample = x.select(0, i).contiguous();
    const std::string_view content(static_cast<const char*>(sample.const_data_ptr()),
                                   sample.nbytes());
    hashes_.insert(std::hash<std::string_view>()(content));
  }
  if (x.dim() == 4 && x.is_floating_point()) correlate(x.to(at::kFloat));
}

void DataCheck::correlate(const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  const at::Tensor x =
      at::nan_to_num(images - images.mean({0, 2, 3}, /*keepdim=*/true), 0.0, 0.0, 0.0);
  int64_t fewest = std::numeric_limits<int64_t>::max();
  for (size_t i = 0; i < 2; ++i) {
    const int64_t dim = i == 0 ? 3 : 2;
    const int64_t size = std::max<int64_t>(x.size(dim) - 1, 0);
    const at::Tensor a = x.narrow(dim, 0, size);
    const at::Tensor b = x.narrow(dim, x.size(dim) - size, size);
    // Image by image, so that one with a glitch does not speak for all.
    const auto sums = [](const at::Tensor& t) { return t.sum({1, 2, 3}).to(at::kDouble); };
    const at::Tensor squares = sums(a.square() + b.square()) / 2.0;
    const at::Tensor varied = squares > 0.0;
    const at::Tensor correlations =
        sums(a * b).masked_select(varied) / squares.masked_select(varied);
    correlations_[i] += correlations.sum().item<double>();
    images_[i] += correlations.numel();
    fewest = std::min(fewest, a.numel());
  }
  pairs_ += fewest;
}

double DataCheck::correlation() const {
  if (pairs_ < kEnoughPairs || images_[0] == 0 || images_[1] == 0) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return std::max(correlations_[0] / static_cast<double>(images_[0]),
                  correlations_[1] / static_cast<double>(images_[1]));
}

std::vector<std::string> DataCheck::problems() const {
  std::vector<std::string> found;
  const double noise = correlation();
  if (std::abs(noise) < kNoiseCorrelation) {
    found.push_back(
        fmt::format("the images look like random noise: neighbouring pixels correlate by {:.3f} "
                    "(photographs: 0.8 and more). Ranges from noise are not those of real data",
                    noise));
  }
  const int64_t duplicates = samples_ - static_cast<int64_t>(hashes_.size());
  if (static_cast<double>(duplicates) > kDuplicateShare * static_cast<double>(samples_)) {
    found.push_back(fmt::format("{} of {} samples are duplicates of others and tell nothing new",
                                with_commas(duplicates), with_commas(samples_)));
  }
  return found;
}

void MovingCheck::add(int64_t samples, std::vector<Range> ranges) {
  history_.emplace_back(samples, std::move(ranges));
}

std::vector<std::string> MovingCheck::problems() const {
  if (history_.size() < kFewBatches) return {};
  const auto& [total, last] = history_.back();
  const std::vector<Range>* before = nullptr;
  for (const auto& [samples, ranges] : history_) {
    if (static_cast<double>(samples) <= 0.75 * static_cast<double>(total)) before = &ranges;
  }
  if (!before) return {};
  size_t moving = 0;
  size_t worst = 0;
  double most = 0.0;
  for (size_t i = 0; i < last.size(); ++i) {
    const double grown = growth((*before)[i], last[i]);
    if (grown <= kMoving) continue;
    ++moving;
    if (grown > most) {
      most = grown;
      worst = i;
    }
  }
  if (moving == 0) return {};
  return {
      fmt::format("the ranges of {} of {} tensors still move at the end: that of {} grew by "
                  "{:.0f}% in the last quarter of the samples. Use more",
                  moving, last.size(), last[worst].name, 100.0 * most)};
}

void ChannelCheck::add_activation(const std::string& name, const at::Tensor& x) {
  if (x.dim() < 2 || x.dim() > 4 || x.numel() == 0) return;
  const int64_t channel = x.dim() == 3 ? 2 : 1;
  std::vector<int64_t> others;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d != channel) others.push_back(d);
  }
  add(name, at::nan_to_num(x.detach().to(at::kFloat).abs(), 0.0, 0.0, 0.0).amax(others));
}

void ChannelCheck::add_weight(const std::string& name, const at::Tensor& low,
                              const at::Tensor& high) {
  if (low.dim() == 1) add(name, at::maximum(-low, high));
}

void ChannelCheck::add(const std::string& name, at::Tensor sizes) {
  for (auto& [known, value] : largest_) {
    if (known == name) {
      value = std::move(sizes);
      return;
    }
  }
  largest_.emplace_back(name, std::move(sizes));
}

std::vector<std::string> ChannelCheck::problems() const {
  size_t found = 0;
  double most = 0.0;
  int64_t channel = 0;
  const std::string* worst = nullptr;
  for (const auto& [name, sizes] : largest_) {
    const double median = sizes.median().item<double>();
    if (sizes.numel() < kFewChannels || !(median > 0.0)) continue;
    const double ratio = sizes.max().item<double>() / median;
    if (ratio < kOutlier) continue;
    ++found;
    if (!worst || ratio > most) {
      most = ratio;
      channel = sizes.argmax().item<int64_t>();
      worst = &name;
    }
  }
  if (!worst) return {};
  return {
      fmt::format("channels stand out in {} tensors: the range of channel {} of {} is {} times "
                  "the median of its neighbours",
                  found, channel, *worst, with_commas(most))};
}

std::vector<std::string> few_samples_problems(int64_t samples) {
  if (samples == 0 || samples >= kFewSamples) return {};
  return {fmt::format("{} samples are few: ranges may miss what comes later; use 1,000 to 5,000",
                      samples)};
}

}  // namespace qatx
