#include "qatx/engine/node_reader.h"

#include <c10/util/Exception.h>

namespace qatx::engine {

#define QATX_CHECK_NODE(condition, ...) \
  TORCH_CHECK_VALUE(condition, "qatx program: ", node_.op, " '", node_.name, "': ", __VA_ARGS__)

void NodeReader::check_input_count(size_t least, size_t most) const {
  QATX_CHECK_NODE(node_.inputs.size() >= least && node_.inputs.size() <= most, "has ",
                  node_.inputs.size(), " inputs, must have ", least, " to ", most);
}

const Value& NodeReader::input_value(size_t i) const {
  QATX_CHECK_NODE(i < node_.inputs.size(), "lacks input ", i);
  return graph_.values.at(static_cast<size_t>(node_.inputs[i]));
}

const kernels::QParams& NodeReader::input(size_t i) const {
  const Value& value = input_value(i);
  QATX_CHECK_NODE(value.quantized(), "input ", i, " must be quantized");
  return *value.qparams;
}

const Value& NodeReader::output() const {
  return graph_.values.at(static_cast<size_t>(node_.output));
}

void NodeReader::check_same_qparams() const {
  const kernels::QParams& in = input(0);
  QATX_CHECK_NODE(output().quantized(), "output must be quantized");
  QATX_CHECK_NODE(in == *output().qparams,
                  "input and output must have the same quantization parameters");
}

bool NodeReader::has_ints(std::string_view key) const {
  return node_.ints.contains(std::string(key));
}

bool NodeReader::has_floats(std::string_view key) const {
  return node_.floats.contains(std::string(key));
}

bool NodeReader::has_tensor(std::string_view key) const {
  return node_.tensors.contains(std::string(key));
}

std::vector<int64_t> NodeReader::int_list(std::string_view key) const {
  const auto found = node_.ints.find(std::string(key));
  QATX_CHECK_NODE(found != node_.ints.end(), "attribute '", key, "' is missing");
  return found->second;
}

std::vector<int64_t> NodeReader::ints(std::string_view key, size_t count, int64_t least,
                                      int64_t most) const {
  std::vector<int64_t> numbers = int_list(key);
  QATX_CHECK_NODE(numbers.size() == count, "attribute '", key, "' must have ", count,
                  " numbers, has ", numbers.size());
  for (const int64_t number : numbers) {
    QATX_CHECK_NODE(number >= least && number <= most, "attribute '", key, "' must be in ", least,
                    "..", most, ", got ", number);
  }
  return numbers;
}

std::vector<double> NodeReader::float_list(std::string_view key) const {
  const auto found = node_.floats.find(std::string(key));
  QATX_CHECK_NODE(found != node_.floats.end(), "attribute '", key, "' is missing");
  return found->second;
}

at::Tensor NodeReader::tensor(std::string_view key, at::ScalarType dtype, int64_t dim) const {
  const auto found = node_.tensors.find(std::string(key));
  QATX_CHECK_NODE(found != node_.tensors.end() && found->second.defined(), "tensor '", key,
                  "' is missing");
  const at::Tensor& t = found->second;
  QATX_CHECK_NODE(t.scalar_type() == dtype && t.dim() == dim && t.numel() > 0, "tensor '", key,
                  "' must be ", c10::toString(dtype), " with ", dim,
                  " dimensions, none of them 0, got ", c10::toString(t.scalar_type()), " ",
                  t.sizes());
  QATX_CHECK_NODE(t.device().is_cpu() && t.layout() == at::kStrided, "tensor '", key,
                  "' must be a dense CPU tensor");
  return t.contiguous();
}

std::optional<std::pair<double, double>> NodeReader::clamp() const {
  const auto found = node_.floats.find("clamp");
  if (found == node_.floats.end()) return std::nullopt;
  const std::vector<double>& limits = found->second;
  QATX_CHECK_NODE(limits.size() == 2 && limits[0] <= limits[1],
                  "attribute 'clamp' must be [min, max] with min <= max");
  return {{limits[0], limits[1]}};
}

}  // namespace qatx::engine
