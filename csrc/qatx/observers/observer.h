#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qatx/core/quant_spec.h"

namespace qatx {

// The names of all ways to choose a range; docs/calibration.md says what they do.
C10_EXPORT std::vector<std::string> range_method_names();
// Throws c10::Error (ValueError) that names `owner`, its argument and the methods unless there is a
// method `value`.
C10_EXPORT void check_range_method(std::string_view owner, std::string_view argument,
                                   std::string_view value);

// What a range method chose. float64 tensors of the shape of the scales.
struct ChosenRange {
  at::Tensor low;
  at::Tensor high;
  at::Tensor clipped_share;  // of the values, 0 to 1
  at::Tensor error;          // the expected mean of (x - x_hat)^2
  at::Tensor mean_square;    // the mean of x^2
};

// Collects what is needed to choose quantization parameters: for each scale a histogram and exact
// statistics, in memory of a fixed size, in one read of each batch. NaN and infinities are counted
// and left out.
//
// Values may come in any order and may be divided among observers that are merged later: every
// range but that of "moving_average", which needs to know what a batch is, is the same, bit for
// bit, and so is it for any number of threads.
class C10_EXPORT Observer {
 public:
  // Bins on either side of 0: the default for one scale, and for many.
  static constexpr int64_t kBins = 4096;
  static constexpr int64_t kBinsOfMany = 512;

  // - spec: which elements share a scale (axis, group_size).
  // - scale_shape: spec.scale_shape() of what will be observed.
  // - bins: on either side of 0; a power of two from 16 to 32768. 0: the default.
  explicit Observer(const QuantSpec& spec, const std::vector<int64_t>& scale_shape = {},
                    int64_t bins = 0);

  // x: float32, bfloat16, float16 or float64, on the CPU, whose scales have the shape that was
  // given at the beginning. Throws c10::Error otherwise; nothing is changed then.
  void observe(const at::Tensor& x);

  // Adds what another observer, of the same shape and number of bins, has seen.
  void merge(const Observer& other);

  // The range that a method chooses for each scale; codes are those of `spec`, which may differ
  // from that of the constructor in bits, sign and symmetry. Where the values of a scale have no
  // finite one among them: an error that says for how many.
  //
  // - percentile: of "percentile"; more than 50, at most 100.
  // - norm: of "mse": the power of the error; 1 to 10.
  ChosenRange choose(const QuantSpec& spec, std::string_view method, double percentile = 99.99,
                     double norm = 2.0) const;

  // The same for one tensor, with kBinsOfMany bins for each scale, but memory for one scale a
  // thread only.
  static ChosenRange choose_for(const at::Tensor& x, const QuantSpec& spec, std::string_view method,
                                double percentile = 99.99, double norm = 2.0);

  // Everything that was seen: int64, [scales, words]; to be saved, and handed to set_state() of an
  // observer that was made alike. It is the state itself, not a copy.
  const at::Tensor& state() const { return state_; }
  // Throws c10::Error where the state does not fit.
  void set_state(const at::Tensor& state);

  // Statistics, each of the shape of the scales.
  at::Tensor min() const;    // float64; +Inf where there was no finite value
  at::Tensor max() const;    // float64; -Inf
  at::Tensor count() const;  // int64, of finite values
  at::Tensor nan_count() const;
  at::Tensor inf_count() const;
  at::Tensor mean_magnitude() const;  // float64; NaN where there was no finite value
  // int64, [scales, 2 * bins], in the order of the values: bin i holds the values from
  // (i - bins) * width, away from 0.
  at::Tensor histogram() const;
  // float64, the width of the bins for each of the scales.
  at::Tensor bin_width() const;

  const QuantSpec& spec() const { return spec_; }
  const std::vector<int64_t>& scale_shape() const { return scale_shape_; }
  int64_t bins() const { return bins_; }

 private:
  template <class Of>
  at::Tensor statistic(at::ScalarType dtype, const Of& of) const;

  QuantSpec spec_;
  std::vector<int64_t> scale_shape_;
  int64_t bins_;
  at::Tensor state_;
};

}  // namespace qatx
