#pragma once

#include <torch/arg.h>

#include <ostream>
#include <string>
#include <vector>

#include "qatx/model/batches.h"
#include "qatx/model/model.h"
#include "qatx/nn/fake_quantize.h"
#include "qatx/observers/observer.h"
#include "qatx/observers/ranks.h"

namespace qatx {

// What was seen of one quantized tensor, and what was made of it.
struct CalibrationRow {
  std::string name;  // path of the fake quantizer
  nn::Role role;
  QuantSpec spec;
  std::string method;  // how the range was chosen
  ChosenRange choice;
  // Finite values: the smallest, the largest, and how many. NaN and infinities were left out.
  double min;
  double max;
  int64_t count;
  int64_t nan_count;
  int64_t inf_count;

  // The share of the values that the codes do not reach, 0 to 1.
  double clipped_share() const;
  // The expected signal to quantization noise, in decibels; infinite without noise.
  double sqnr() const;
};

// What was seen and chosen; << prints it as a table.
struct CalibrationReport {
  std::vector<CalibrationRow> rows;   // one for each quantized tensor, in the order of the modules
  int64_t samples = 0;                // of all ranks
  std::vector<std::string> warnings;  // what was warned of
};
C10_EXPORT std::ostream& operator<<(std::ostream& stream, const CalibrationReport& report);

struct CalibrationOptions {
  // How to choose the ranges of activations, one of range_method_names(); nullopt: as their QConfig
  // says. The ranges of weights are always chosen as their QConfig says.
  TORCH_ARG(std::optional<std::string>, method) = std::nullopt;
  // Stop with the batch that reaches so many (on each rank); nullopt: all data.
  TORCH_ARG(std::optional<int64_t>, num_samples) = std::nullopt;
  // Of "percentile": the share in percent that is kept on each side; more than 50, at most 100.
  TORCH_ARG(double, percentile) = 99.99;
  // The power of the error that "mse" minimizes; 1 to 10.
  TORCH_ARG(double, norm) = 2.0;
  // Where several processes calibrate a model together, each with a part of the data: how they
  // reach each other. All have to call calibrate, and get the scales that belong to the data of
  // all, the same bits as one process with all data.
  TORCH_ARG(AllGather, all_gather) = nullptr;
};

// Sets the scales and zero points of a prepared model from the values that data leads to.
//
// The model runs in float, in evaluation mode and without gradients; its modes are restored.
// Afterwards it is ready for evaluation (post-training quantization), training and conversion. It
// may be calibrated again, which forgets what was learned about scales. 1,000 to 5,000
// representative samples are usual; each batch is forward's only argument.
//
// Warns (TORCH_WARN) of fewer than 100 samples, of images that look like noise, of duplicates, of
// ranges that still move at the end, and of channels that stand out by far; docs/calibration.md has
// the figures. Throws c10::Error where the model has nothing to calibrate, data is empty, an
// argument is out of range, a quantized value was never seen or never finite, or another rank has
// failed; the model is then as it was before.
C10_EXPORT CalibrationReport calibrate(const Model& model, const Batches& data,
                                       const CalibrationOptions& options = {});

}  // namespace qatx
