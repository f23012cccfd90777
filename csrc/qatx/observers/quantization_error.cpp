#include "qatx/observers/quantization_error.h"

#include <algorithm>
#include <cmath>

#include "qatx/core/qparams.h"

namespace qatx {
namespace {

// The middle of bin i, in bins.
double middle_of(const Distribution& distribution, int64_t i) {
  return static_cast<double>(i - distribution.negative) + 0.5;
}

// Without the zeros.
int64_t count_of(const Distribution& distribution, int64_t i) {
  const int64_t count = distribution.counts[static_cast<size_t>(i)];
  return i == distribution.negative ? count - distribution.zeros : count;
}

}  // namespace

QuantizationError::QuantizationError(const Distribution& distribution)
    : distribution_(distribution) {
  before_.reserve(static_cast<size_t>(distribution.size()) + 1);
  Moments sum{0.0, 0.0, 0.0};
  before_.push_back(sum);
  for (int64_t i = 0; i < distribution.size(); ++i) {
    const auto count = static_cast<double>(count_of(distribution, i));
    const double x = middle_of(distribution, i);
    sum = {sum.count + count, sum.sum + count * x, sum.square + count * x * x};
    before_.push_back(sum);
  }
}

double QuantizationError::mean_square() const {
  return before_.back().square * distribution_.width * distribution_.width /
         static_cast<double>(distribution_.count);
}

double QuantizationError::operator()(const Range& range, const Codes& codes, double norm) const {
  const auto [scale, zero_point] =
      choose_qparams(range.low, range.high, codes.quant_min, codes.quant_max, codes.symmetric);
  const double sum =
      norm == 2.0 ? squared(scale, zero_point, codes) : with_norm(scale, zero_point, codes, norm);
  return sum * std::pow(distribution_.width, norm) / static_cast<double>(distribution_.count);
}

double QuantizationError::squared(double scale, double zero_point, const Codes& codes) const {
  const double step = scale / distribution_.width;  // in bins
  const int64_t size = distribution_.size();
  const auto negative = static_cast<double>(distribution_.negative);
  double sum = 0.0;
  int64_t begin = 0;
  for (int64_t q = codes.quant_min; q <= codes.quant_max && begin < size; ++q) {
    const double level = static_cast<double>(q) - zero_point;
    // The bins whose middles lie below the border to the next code.
    const double border = (level + 0.5) * step + negative - 0.5;
    const bool is_last = q == codes.quant_max || border >= static_cast<double>(size);
    const int64_t end =
        is_last ? size : std::max(begin, static_cast<int64_t>(std::ceil(std::max(border, 0.0))));
    const Moments& to = before_[static_cast<size_t>(end)];
    const Moments& from = before_[static_cast<size_t>(begin)];
    const double x_hat = level * step;
    sum += (to.square - from.square) - 2.0 * x_hat * (to.sum - from.sum) +
           x_hat * x_hat * (to.count - from.count);
    begin = end;
  }
  return std::max(sum, 0.0);
}

double QuantizationError::with_norm(double scale, double zero_point, const Codes& codes,
                                    double norm) const {
  const double step = scale / distribution_.width;
  const double low = static_cast<double>(codes.quant_min) - zero_point;
  const double high = static_cast<double>(codes.quant_max) - zero_point;
  double sum = 0.0;
  for (int64_t i = 0; i < distribution_.size(); ++i) {
    const int64_t count = count_of(distribution_, i);
    if (count == 0) continue;
    const double x = middle_of(distribution_, i);
    const double x_hat = std::clamp(std::nearbyint(x / step), low, high) * step;
    sum += static_cast<double>(count) * std::pow(std::abs(x - x_hat), norm);
  }
  return sum;
}

double QuantizationError::clipped_share(const Range& range, const Codes& codes) const {
  constexpr double kTolerance = 0.01;  // of a bin: scales are rounded to float32
  const auto [scale, zero_point] =
      choose_qparams(range.low, range.high, codes.quant_min, codes.quant_max, codes.symmetric);
  const double step = static_cast<double>(scale) / distribution_.width;
  const double low = (static_cast<double>(codes.quant_min) - zero_point - 0.5) * step;
  const double high = (static_cast<double>(codes.quant_max) - zero_point + 0.5) * step;
  int64_t clipped = 0;
  for (int64_t i = 0; i < distribution_.size(); ++i) {
    const auto left = static_cast<double>(i - distribution_.negative);
    if (left + 1.0 <= low - kTolerance || left >= high + kTolerance) {
      clipped += count_of(distribution_, i);
    }
  }
  return static_cast<double>(clipped) / static_cast<double>(distribution_.count);
}

}  // namespace qatx
