#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <array>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

// What qatx::calibrate warns of, in C++ and in Python. Each check is fed while data run, and then
// says what is wrong, for the user, with figures.

namespace qatx {

// Counts samples, and notices noise and duplicates among them. The first dimension counts samples.
//
// - Noise: the correlation of each pixel with its neighbour to the right and below, the mean over
//   all floating-point images [N, C, H, W], each channel less its mean over the batch. It is about
//   1 / sqrt(pairs) for independent values; photographs have 0.8 and more.
// - Duplicates: samples whose bytes have the 64-bit hash of an earlier sample.
class C10_EXPORT DataCheck {
 public:
  // Looks at one batch.
  void add(const at::Tensor& batch);
  int64_t samples() const { return samples_; }
  // Of neighbouring pixels, the larger of both directions; NaN where there are too few.
  double correlation() const;
  std::vector<std::string> problems() const;

 private:
  void correlate(const at::Tensor& images);

  int64_t samples_ = 0;
  std::unordered_set<size_t> hashes_;
  int64_t pairs_ = 0;
  std::array<int64_t, 2> images_{};  // right, below
  std::array<double, 2> correlations_{};
};

// Notices a tensor whose range still grows in the last quarter of the samples.
class C10_EXPORT MovingCheck {
 public:
  struct Range {
    std::string name;
    at::Tensor min;  // float64, of the shape of the scales
    at::Tensor max;
  };

  // After a batch; `samples` were seen until now. The same names, in the same order, each time.
  void add(int64_t samples, std::vector<Range> ranges);
  std::vector<std::string> problems() const;

 private:
  std::vector<std::pair<int64_t, std::vector<Range>>> history_;
};

// Notices a channel whose values are far larger than those of its neighbours. One batch is enough:
// channels that stand out do so for all data. Channels of an activation are dimension 1 of tensors
// with two or four dimensions and the last of those with three; of a weight they are what has
// scales of its own.
class C10_EXPORT ChannelCheck {
 public:
  void add_activation(const std::string& name, const at::Tensor& x);
  // low, high: the range that was chosen.
  void add_weight(const std::string& name, const at::Tensor& low, const at::Tensor& high);
  std::vector<std::string> problems() const;

 private:
  void add(const std::string& name, at::Tensor sizes);

  std::vector<std::pair<std::string, at::Tensor>> largest_;  // in the order of coming
};

// That the data are few; nothing where there are enough, or their number is not known.
C10_EXPORT std::vector<std::string> few_samples_problems(int64_t samples);

}  // namespace qatx
