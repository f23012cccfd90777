#pragma once

#include <cstdint>

#include "qatx/engine/graph.h"

namespace qatx::engine {

// Covers everything in a graph. LibTorch does not look at the checksums of the archives that it
// loads: without one of our own, a flipped bit in a weight would go unnoticed.
int64_t checksum(const Graph& graph);

}  // namespace qatx::engine
