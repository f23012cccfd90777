#pragma once

#include "qatx/engine/graph.h"

namespace qatx::engine {

// Lowering gives nodes that take codes and make float32 (conv2d, linear, add, mul, table,
// avg_pool2d), followed by nodes that exist only to be fused: "clamp" (an activation), "add" of a
// float32 value and codes (a residual), and "quantize". This pass merges each into the node before
// it, whose kernel does all of it in one go. The order of float operations stays that of the
// training graph.
void fuse(Graph& graph);

// Lets what limits or quantizes float32 values do so before they are moved, so that it can be
// merged into what makes them. Call before fuse().
void sink_moves(Graph& graph);

// Lets softmax scale and mask its input itself ("affine" before it). Call before fuse().
void fuse_scores(Graph& graph);

// Whether the node that makes this float32 value can still take a clamp, or a residual. The
// lowering rules ask before they add a node that fuse() must be able to merge.
bool can_fuse_clamp(const Graph& graph, int64_t value);
bool can_fuse_residual(const Graph& graph, int64_t value);

// Makes one node of moves that follow each other, so that their elements are copied once, none of
// those that undo each other, and one of those that do the same.
void fuse_moves(Graph& graph);

// Lets tables of embeddings whose rows become codes consist of those codes, so that rows are only
// copied. Call after fuse().
void fold_tables(Graph& graph);

// Removes nodes whose values nobody needs.
void eliminate_dead_nodes(Graph& graph);

// Removes values that no node and no input makes, and numbers the others anew.
void compact_values(Graph& graph);

}  // namespace qatx::engine
