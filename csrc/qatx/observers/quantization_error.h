#pragma once

#include <vector>

#include "qatx/observers/distribution.h"

namespace qatx {

// What quantization does to a distribution: every value counts as the middle of its bin, and zeros
// as 0, which is always exact.
class QuantizationError {
 public:
  // The distribution has to outlive this.
  explicit QuantizationError(const Distribution& distribution);

  // The mean of |x - x_hat|^norm with the parameters that choose_qparams() gives for the range in
  // float32. Takes time in proportion to the number of codes where the norm is 2, otherwise to the
  // number of bins.
  double operator()(const Range& range, const Codes& codes, double norm = 2.0) const;
  // The share of the values that would round to a code beyond the last ones; whole bins only.
  double clipped_share(const Range& range, const Codes& codes) const;
  // The mean of x^2.
  double mean_square() const;

 private:
  struct Moments {
    double count;
    double sum;     // in bins
    double square;  // in bins^2
  };

  double squared(double scale, double zero_point, const Codes& codes) const;
  double with_norm(double scale, double zero_point, const Codes& codes, double norm) const;

  const Distribution& distribution_;
  std::vector<Moments> before_;  // of the bins before bin i
};

}  // namespace qatx
