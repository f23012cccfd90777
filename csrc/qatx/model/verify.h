#pragma once

#include <torch/csrc/jit/api/module.h>

#include <ostream>
#include <string>
#include <vector>

#include "qatx/model/batches.h"
#include "qatx/model/model.h"

namespace qatx {

// One quantized value of the trained model, in both models, over all data.
struct VerificationRow {
  std::string name;  // path of the fake quantizer
  // Compared; 0 where the converted model does not hold the value in integers.
  int64_t elements = 0;
  int64_t different = 0;  // elements whose codes differ
  int64_t largest = 0;    // the largest difference, in codes
  double sqnr = 0.0;      // signal to noise in decibels, the noise being the difference

  // Codes differ by one at most, in a share of 1e-4 at most: where float sums of the trained model
  // round otherwise than exact integer sums.
  bool rounding_only() const;
};

// What qatx::verify found; << prints it as a table.
struct C10_EXPORT Verification {
  // One for each quantized value, in the order in which the trained model makes them.
  std::vector<VerificationRow> rows;
  double outputs_sqnr = 0.0;  // signal to noise of the models' outputs, in decibels

  // Whether nothing differs but by rounding and what follows from it, and the outputs agree.
  bool ok() const;
  // One sentence.
  std::string verdict() const;

 private:
  const VerificationRow* first_different() const;
};
C10_EXPORT std::ostream& operator<<(std::ostream& stream, const Verification& verification);

// Compares a converted model with the model in training form that it was made of.
//
// Both run on the data in evaluation mode. Each value that the model quantizes is compared with the
// codes that the converted model holds for it. The trained model adds its products in float32, the
// converted one exactly, so single codes on the border between two may differ. Throws c10::Error
// (ValueError) where data is empty or the model has no quantization.
C10_EXPORT Verification verify(const Model& model, torch::jit::Module converted,
                               const Batches& data);

}  // namespace qatx
