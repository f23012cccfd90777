#include <algorithm>
#include <numeric>

#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/sizes.h"
#include "qatx/engine/moves.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

using engine::MoveKind;
using engine::one_step;
using Steps = std::vector<int64_t>;

const char* const kNoCodes = "input is not fake-quantized";
const char* const kUnknown = "its dimensions are not known";

std::string add_permutation(Lowering& lowering, jit::Node* node, const std::vector<int64_t>& dims) {
  return add_moves(lowering, node->input(0), node->output(), one_step(MoveKind::permute, dims));
}

}  // namespace

std::string lower_flatten(Lowering& lowering, jit::Node* node) {
  if (!can_move(lowering, node->input(0))) return kNoCodes;
  const auto first = dimension(lowering, node->input(1), node->input(0));
  const auto last = dimension(lowering, node->input(2), node->input(0));
  if (!first || !last) return kUnknown;
  return add_moves(lowering, node->input(0), node->output(),
                   one_step(MoveKind::merge, {*first, *last}));
}

std::string lower_reshape(Lowering& lowering, jit::Node* node) {
  const jit::Value* input = node->input(0);
  if (!can_move(lowering, input)) return kNoCodes;
  std::vector<int64_t> sizes;
  if (const auto constant = lowering.ints(node->input(1))) {
    sizes = *constant;
  } else {
    const jit::Node* list = node->input(1)->node();
    if (list->kind() != c10::prim::ListConstruct) return "its sizes are not known";
    std::optional<size_t> unknown;
    for (const jit::Value* element : list->inputs()) {
      if (const auto number = fixed_number(lowering, element)) {
        sizes.push_back(*number);
      } else if (const auto d = size_of(lowering, element, input)) {
        sizes.push_back(-2 - *d);
      } else if (!unknown) {
        unknown = sizes.size();
        sizes.push_back(-1);  // one size follows from the others
      } else {
        return "several sizes are neither constant nor those of its input";
      }
    }
    if (std::count(sizes.begin(), sizes.end(), -1) > 1) {
      return "several sizes are neither constant nor those of its input";
    }
  }
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) return "makes an empty tensor";
  return add_moves(lowering, node->input(0), node->output(), one_step(MoveKind::reshape, sizes));
}

std::string lower_unflatten(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!can_move(lowering, input)) return kNoCodes;
  const auto* sizes = lowering.sizes(input);
  const auto dim = dimension(lowering, node->input(1), input);
  const auto parts = lowering.ints(node->input(2));
  if (!sizes || !dim || !parts) return kUnknown;
  std::vector<int64_t> all = kept_sizes(sizes->size());
  all.erase(all.begin() + *dim);
  all.insert(all.begin() + *dim, parts->begin(), parts->end());
  return add_moves(lowering, input, node->output(), one_step(MoveKind::reshape, all));
}

std::string lower_permute(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!can_move(lowering, input)) return kNoCodes;
  const auto* sizes = lowering.sizes(input);
  auto dims = lowering.ints(node->input(1));
  if (!sizes || !dims || dims->size() != sizes->size()) return kUnknown;
  for (int64_t& d : *dims) d += d < 0 ? static_cast<int64_t>(sizes->size()) : 0;
  return add_permutation(lowering, node, *dims);
}

std::string lower_transpose(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!can_move(lowering, input)) return kNoCodes;
  const auto* sizes = lowering.sizes(input);
  if (!sizes) return kUnknown;
  std::vector<int64_t> dims(sizes->size());
  std::iota(dims.begin(), dims.end(), int64_t{0});
  if (node->inputs().size() == 1) {  // aten::t
    std::reverse(dims.begin(), dims.end());
    return add_permutation(lowering, node, dims);
  }
  const auto a = dimension(lowering, node->input(1), input);
  const auto b = dimension(lowering, node->input(2), input);
  if (!a || !b) return kUnknown;
  std::swap(dims[static_cast<size_t>(*a)], dims[static_cast<size_t>(*b)]);
  return add_permutation(lowering, node, dims);
}

std::string lower_squeeze(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!can_move(lowering, input)) return kNoCodes;
  const auto* sizes = lowering.sizes(input);
  if (node->inputs().size() == 1) return "what it removes depends on the input";
  const auto dims = lowering.ints(node->input(1));
  if (!sizes || !dims) return kUnknown;
  std::vector<bool> removed(sizes->size(), false);
  for (const int64_t dim : *dims) {
    const auto d = static_cast<size_t>(dim + (dim < 0 ? static_cast<int64_t>(sizes->size()) : 0));
    removed.at(d) = (*sizes)[d] == 1;
  }
  std::vector<int64_t> kept;
  for (size_t d = 0; d < sizes->size(); ++d) {
    if (!removed[d]) kept.push_back(-2 - static_cast<int64_t>(d));
  }
  return add_moves(lowering, input, node->output(), one_step(MoveKind::reshape, kept));
}

std::string lower_unsqueeze(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!can_move(lowering, input)) return kNoCodes;
  const auto* sizes = lowering.sizes(input);
  const auto dim = lowering.ints(node->input(1));
  if (!sizes || !dim) return kUnknown;
  std::vector<int64_t> kept = kept_sizes(sizes->size());
  const int64_t d = (*dim)[0] + ((*dim)[0] < 0 ? static_cast<int64_t>(sizes->size()) + 1 : 0);
  kept.insert(kept.begin() + d, 1);
  return add_moves(lowering, input, node->output(), one_step(MoveKind::reshape, kept));
}

// Channel c r r + i r + j of pixel (h, w) becomes channel c of pixel (h r + i, w r + j).
std::string lower_pixel_shuffle(Lowering& lowering, jit::Node* node) {
  if (!can_move(lowering, node->input(0))) return kNoCodes;
  const auto* sizes = lowering.sizes(node->input(0));
  const auto factor = fixed_number(lowering, node->input(1));
  if (!sizes || sizes->size() != 4 || !factor) return kUnknown;
  Steps steps;
  engine::add_move(steps, MoveKind::split, {1, *factor});
  engine::add_move(steps, MoveKind::split, {1, *factor});
  engine::add_move(steps, MoveKind::permute, {0, 1, 4, 2, 5, 3});
  engine::add_move(steps, MoveKind::merge, {4, 5});
  engine::add_move(steps, MoveKind::merge, {2, 3});
  return add_moves(lowering, node->input(0), node->output(), std::move(steps));
}

std::string lower_pixel_unshuffle(Lowering& lowering, jit::Node* node) {
  if (!can_move(lowering, node->input(0))) return kNoCodes;
  const auto* sizes = lowering.sizes(node->input(0));
  const auto factor = fixed_number(lowering, node->input(1));
  if (!sizes || sizes->size() != 4 || !factor) return kUnknown;
  Steps steps;
  engine::add_move(steps, MoveKind::split, {3, *factor});
  engine::add_move(steps, MoveKind::split, {2, *factor});
  engine::add_move(steps, MoveKind::permute, {0, 1, 3, 5, 2, 4});
  engine::add_move(steps, MoveKind::merge, {1, 3});
  return add_moves(lowering, node->input(0), node->output(), std::move(steps));
}

std::string lower_channel_shuffle(Lowering& lowering, jit::Node* node) {
  if (!can_move(lowering, node->input(0))) return kNoCodes;
  const auto* sizes = lowering.sizes(node->input(0));
  const auto groups = fixed_number(lowering, node->input(1));
  if (!sizes || sizes->size() < 3 || !groups) return kUnknown;
  std::vector<int64_t> order(sizes->size() + 1);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::swap(order[1], order[2]);
  Steps steps;
  engine::add_move(steps, MoveKind::split, {1, (*sizes)[1] / *groups});
  engine::add_move(steps, MoveKind::permute, order);
  engine::add_move(steps, MoveKind::merge, {1, 2});
  return add_moves(lowering, node->input(0), node->output(), std::move(steps));
}

// Dropout in evaluation mode, contiguous: the same values.
std::string lower_identity(Lowering& lowering, jit::Node* node) {
  if (!lowering.codes(node->input(0))) return kNoCodes;
  if (std::string_view(node->kind().toQualString()).ends_with("dropout")) {
    const auto train = lowering.constant(node->input(2));
    if (!train || train->toBool()) return "is in training mode";
  }
  lowering.alias(node->output(), node->input(0));
  return "";
}

}  // namespace qatx::torchscript
