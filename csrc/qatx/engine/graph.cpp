#include "qatx/engine/graph.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "qatx/core/rounding.h"
#include "qatx/engine/codebook.h"

namespace qatx::engine {
namespace {

// Of values, in a file.
constexpr int64_t kFloat32 = 0;
constexpr int64_t kCodes = 1;
constexpr int64_t kIndices = 2;
constexpr int64_t kMask = 3;

// Of a value that is no codes.
int64_t type_number(at::ScalarType dtype) {
  return dtype == at::kLong ? kIndices : dtype == at::kBool ? kMask : kFloat32;
}

template <typename T>
std::vector<std::tuple<std::string, T>> to_list(const std::map<std::string, T>& map) {
  return {map.begin(), map.end()};
}

template <typename T>
std::map<std::string, T> to_map(const std::vector<std::tuple<std::string, T>>& list) {
  std::map<std::string, T> map;
  for (const auto& [key, value] : list) {
    TORCH_CHECK_VALUE(map.emplace(key, value).second, "qatx program: attribute '", key,
                      "' stands twice in one node");
  }
  return map;
}

// ---- Tensors of 8 bits in the file

const std::string kCodebook = ".codebook";
const std::string kShape = ".shape";

bool is_of_bytes(const at::Tensor& tensor) {
  return tensor.defined() && tensor.numel() > 0 &&
         (tensor.scalar_type() == at::kChar || tensor.scalar_type() == at::kByte);
}

// Replaces tensors by their codes where these have fewer bits.
void encode_tensors(Node& node) {
  for (auto& [key, tensor] : node.tensors) {
    if (!is_of_bytes(tensor)) continue;
    CodedBytes coded = encode_bytes(tensor.cpu().contiguous());
    if (coded.codebook.empty()) continue;
    std::vector<int64_t> shape = tensor.sizes().vec();
    shape.insert(shape.begin(), tensor.scalar_type() == at::kChar ? 1 : 0);
    node.ints[key + kCodebook] = {coded.codebook.begin(), coded.codebook.end()};
    node.ints[key + kShape] = std::move(shape);
    tensor = std::move(coded.data);
  }
}

void decode_tensors(Node& node) {
  for (auto& [key, tensor] : node.tensors) {
    const auto codebook = node.ints.find(key + kCodebook);
    if (codebook == node.ints.end()) continue;
    const auto shape = node.ints.find(key + kShape);
    TORCH_CHECK_VALUE(shape != node.ints.end() && shape->second.size() > 1 &&
                          (shape->second[0] == 0 || shape->second[0] == 1),
                      "qatx program: '", node.name, "': the shape of tensor '", key,
                      "' is missing or not one");
    TORCH_CHECK_VALUE(tensor.defined() && tensor.scalar_type() == at::kByte && tensor.dim() == 1 &&
                          tensor.is_contiguous() && tensor.device().is_cpu(),
                      "qatx program: '", node.name, "': tensor '", key,
                      "' has a codebook, so it must be uint8 with one dimension");
    const std::vector<int64_t>& values = codebook->second;
    const auto fits = [](int64_t value) { return value >= 0 && value <= 255; };
    TORCH_CHECK_VALUE((values.size() == 4 || values.size() == 16) &&
                          std::all_of(values.begin(), values.end(), fits),
                      "qatx program: '", node.name, "': the codebook of tensor '", key,
                      "' must consist of 4 or 16 numbers in 0..255, got ", values);
    tensor = decode_tensor({{values.begin(), values.end()}, tensor},
                           at::IntArrayRef(shape->second).slice(1),
                           shape->second[0] == 1 ? at::kChar : at::kByte);
    node.ints.erase(shape);
    node.ints.erase(key + kCodebook);
  }
}

}  // namespace

int64_t Graph::add_value(std::optional<kernels::QParams> qparams, std::string name) {
  values.push_back({qparams, std::move(name)});
  return static_cast<int64_t>(values.size()) - 1;
}

const Node* producer(const Graph& graph, int64_t value) {
  const auto found = std::find_if(graph.nodes.begin(), graph.nodes.end(),
                                  [&](const Node& node) { return node.output == value; });
  return found == graph.nodes.end() ? nullptr : &*found;
}

int64_t count_uses(const Graph& graph, int64_t value) {
  int64_t uses = std::count(graph.outputs.begin(), graph.outputs.end(), value);
  for (const Node& node : graph.nodes) {
    uses += std::count(node.inputs.begin(), node.inputs.end(), value);
  }
  return uses;
}

bool takes_mask(const Node& node) {
  return (node.op == "affine" || node.op == "softmax") && node.inputs.size() == 2;
}

bool fits_weight(const kernels::QParams& q) {
  return q.quant_min - q.zero_point >= -128 && q.quant_max - q.zero_point <= 127;
}

void check_qparams(const kernels::QParams& q) {
  TORCH_CHECK_VALUE(is_valid_scale(q.scale), "qatx program: scale must be in [2^-126, 2^126], got ",
                    q.scale);
  TORCH_CHECK_VALUE(0 <= q.quant_min && q.quant_min < q.quant_max && q.quant_max <= 255,
                    "qatx program: codes must satisfy 0 <= quant_min < quant_max <= 255, got ",
                    q.quant_min, " and ", q.quant_max);
  TORCH_CHECK_VALUE(q.quant_min <= q.zero_point && q.zero_point <= q.quant_max,
                    "qatx program: zero_point must be one of the codes ", q.quant_min, "..",
                    q.quant_max, ", got ", q.zero_point);
}

kernels::QParams make_qparams(double scale, int64_t zero_point, int64_t quant_min,
                              int64_t quant_max) {
  const auto narrow = [](int64_t code) {
    TORCH_CHECK_VALUE(code >= 0 && code <= 255, "qatx program: a code must be in 0..255, got ",
                      code);
    return static_cast<int32_t>(code);
  };
  const auto s = static_cast<float>(scale);
  const kernels::QParams qparams{s, 1.0f / s, narrow(zero_point), narrow(quant_min),
                                 narrow(quant_max)};
  check_qparams(qparams);
  return qparams;
}

void check_graph(const Graph& graph) {
  std::vector<bool> made(graph.values.size(), false);
  const auto index = [&](int64_t value) {
    TORCH_CHECK_VALUE(value >= 0 && value < static_cast<int64_t>(graph.values.size()),
                      "qatx program: value ", value, " is not one of the ", graph.values.size(),
                      " values");
    return static_cast<size_t>(value);
  };
  const auto make = [&](int64_t value) {
    TORCH_CHECK_VALUE(!made[index(value)], "qatx program: value ", value, " is made twice");
    made[index(value)] = true;
  };
  const auto use = [&](int64_t value) {
    TORCH_CHECK_VALUE(made[index(value)], "qatx program: value ", value,
                      " is used before it is made");
  };
  for (const int64_t input : graph.inputs) {
    make(input);
    TORCH_CHECK_VALUE(!graph.values[index(input)].quantized(),
                      "qatx program: an input must be float32, indices or a mask, not codes");
  }
  for (const Node& node : graph.nodes) {
    for (const int64_t& input : node.inputs) {
      use(input);
      const at::ScalarType dtype = graph.values[index(input)].dtype;
      TORCH_CHECK_VALUE(dtype != at::kLong || node.op == "embedding", "qatx program: ", node.op,
                        " '", node.name, "' takes no indices");
      TORCH_CHECK_VALUE(dtype != at::kBool || (takes_mask(node) && &input != node.inputs.data()),
                        "qatx program: ", node.op, " '", node.name, "' takes no mask there");
    }
    make(node.output);
    TORCH_CHECK_VALUE(graph.values[index(node.output)].dtype == at::kFloat,
                      "qatx program: ", node.op, " '", node.name, "' makes no indices and no mask");
  }
  for (const int64_t output : graph.outputs) {
    use(output);
    TORCH_CHECK_VALUE(!graph.values[index(output)].quantized(),
                      "qatx program: an output must be float32");
    // Every output has memory of its own, which one node fills.
    TORCH_CHECK_VALUE(std::count(graph.outputs.begin(), graph.outputs.end(), output) == 1 &&
                          std::count(graph.inputs.begin(), graph.inputs.end(), output) == 0,
                      "qatx program: output ", output,
                      " must be made by a node and be listed once");
  }
  for (const Value& value : graph.values) {
    if (value.quantized()) check_qparams(*value.qparams);
    TORCH_CHECK_VALUE(value.dtype == at::kFloat || !value.quantized(),
                      "qatx program: a value is both codes and ", c10::toString(value.dtype));
    TORCH_CHECK_VALUE(value.quantized() || value.name.empty(), "qatx program: value \"", value.name,
                      "\" has a name, which only quantized values have");
  }
}

GraphState to_state(const Graph& graph) {
  std::vector<ValueState> values;
  for (const Value& value : graph.values) {
    if (value.quantized()) {
      const auto& q = *value.qparams;
      values.emplace_back(kCodes, q.scale, q.zero_point, q.quant_min, q.quant_max, value.name);
    } else {
      values.emplace_back(type_number(value.dtype), 0.0, 0, 0, 0, value.name);
    }
  }
  std::vector<NodeState> nodes;
  for (Node node : graph.nodes) {
    encode_tensors(node);
    nodes.emplace_back(node.op, node.name, node.inputs, node.output, to_list(node.ints),
                       to_list(node.floats), to_list(node.tensors));
  }
  return {kFormatVersion, values, graph.inputs, graph.outputs, nodes};
}

Graph from_state(const GraphState& state) {
  const auto& [version, values, inputs, outputs, nodes] = state;
  // A file of version 2 is one without codebooks.
  TORCH_CHECK_VALUE(version == kFormatVersion || version == 2, "qatx program: format version ",
                    version, " is not known to this qatx, which reads versions 2 to ",
                    kFormatVersion, "; a newer qatx may");
  Graph graph;
  for (const auto& [type, scale, zero_point, quant_min, quant_max, name] : values) {
    TORCH_CHECK_VALUE(type >= kFloat32 && type <= kMask,
                      "qatx program: a value is of the unknown type ", type);
    graph.add_value(type == kCodes
                        ? std::optional(make_qparams(scale, zero_point, quant_min, quant_max))
                        : std::nullopt,
                    name);
    if (type == kIndices) graph.values.back().dtype = at::kLong;
    if (type == kMask) graph.values.back().dtype = at::kBool;
  }
  graph.inputs = inputs;
  graph.outputs = outputs;
  for (const auto& [op, name, node_inputs, output, ints, floats, tensors] : nodes) {
    graph.nodes.push_back(
        {op, name, node_inputs, output, to_map(ints), to_map(floats), to_map(tensors)});
    decode_tensors(graph.nodes.back());
  }
  check_graph(graph);
  return graph;
}

}  // namespace qatx::engine
