#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qatx/engine/node_reader.h"
#include "qatx/engine/operator.h"

namespace qatx::engine {

// The sizes that an upsampling gives the spatial dimensions of [N, C, ...]: attribute "size", one
// number for each, or "scale", a factor for each.
class Resize {
 public:
  explicit Resize(const NodeReader& node);

  struct Dimension {
    int64_t size;
    float step;  // how far apart neighbours of the output lie in the input
  };
  // Throws c10::Error where the input has another number of dimensions.
  void check(const Shape& in) const;
  Dimension dimension(const Shape& in, size_t d) const;
  // With the first and last elements of both in the same places.
  static float aligned_step(int64_t in, int64_t out);

 private:
  std::string name_;
  std::vector<int64_t> sizes_;
  std::vector<double> scales_;
};

}  // namespace qatx::engine
