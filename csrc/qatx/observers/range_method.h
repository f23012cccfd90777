#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qatx/observers/distribution.h"
#include "qatx/observers/quantization_error.h"

namespace qatx {

// What range methods can be told.
struct RangeOptions {
  double percentile = 99.99;  // 50 < percentile <= 100
  double norm = 2.0;          // of "mse": 1 to 10
};

// Everything that a method may look at.
struct RangeProblem {
  const Distribution& distribution;
  const QuantizationError& error;
  Codes codes;
  RangeOptions options;
};

// A way to choose the range that codes are spread over.
struct RangeMethod {
  std::string_view name;
  Range (*choose)(const RangeProblem& problem);
};

// Every method there is: the one list that C++, Python and the tests use. A new method is a
// function and a line in it.
const std::vector<RangeMethod>& range_methods();
// Throws c10::ValueError that lists the names where there is no such method.
const RangeMethod& find_range_method(std::string_view name);
// Throws c10::ValueError.
void check_range_options(const RangeOptions& options);

// The methods that have files of their own; docs/calibration.md says what they do.
Range mse_range(const RangeProblem& problem);
Range kl_range(const RangeProblem& problem);

// The Kullback-Leibler divergence of the distribution clipped to `negative` and `positive` bins
// from its quantization, as kl_range() minimises it; infinite where everything is clipped.
double kl_divergence(const Distribution& distribution, const Codes& codes, int64_t negative,
                     int64_t positive);

}  // namespace qatx
