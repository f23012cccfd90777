// Makes the state of a program, as a file holds it, of whatever bytes libFuzzer comes up with: it
// must be an error or a program, and such a program must run or refuse its inputs.

#include "qatx/engine/program.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "qatx/engine/graph.h"

namespace {

using namespace qatx::engine;

constexpr const char* kOperators[] = {"add",
                                      "affine",
                                      "amax",
                                      "avg_pool2d",
                                      "avg_pool3d",
                                      "cat",
                                      "conv2d",
                                      "conv3d",
                                      "conv_transpose2d",
                                      "conv_transpose3d",
                                      "dequantize",
                                      "div",
                                      "dynamic_fake_quantize",
                                      "dynamic_linear",
                                      "embedding",
                                      "layer_norm",
                                      "linear",
                                      "matmul",
                                      "max_pool2d",
                                      "max_pool3d",
                                      "mean",
                                      "move",
                                      "mul",
                                      "pad",
                                      "quantize",
                                      "slice",
                                      "softmax",
                                      "sub",
                                      "table",
                                      "upsample_bilinear",
                                      "upsample_nearest"};
constexpr const char* kInts[] = {"stride",
                                 "dilation",
                                 "padding",
                                 "groups",
                                 "kernel",
                                 "ceil_mode",
                                 "count_include_pad",
                                 "divisor_override",
                                 "adaptive",
                                 "squeeze",
                                 "axis",
                                 "quant_max",
                                 "dim",
                                 "dims",
                                 "steps",
                                 "range",
                                 "chunk",
                                 "pads",
                                 "mode",
                                 "size",
                                 "exact",
                                 "align_corners",
                                 "output_padding",
                                 "divide",
                                 "bags",
                                 "keep"};
constexpr const char* kFloats[] = {"clamp", "scale", "eps", "fill"};
constexpr const char* kTensors[] = {"weight", "weight_scale", "bias", "values"};

class Maker {
 public:
  Maker(const uint8_t* data, size_t size) : data_(data, size) {}

  // Mostly numbers that make sense; `wild_` is set where others went in.
  int64_t integer(int64_t low, int64_t high) {
    if (data_.ConsumeIntegralInRange<int>(0, 60) != 0) {
      return data_.ConsumeIntegralInRange(low, high);
    }
    wild_ = true;
    return data_.ConsumeIntegral<int64_t>();
  }

  GraphState state() {
    std::vector<ValueState> values;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(1, 12); n > 0; --n)
      values.push_back(value());
    const auto count = static_cast<int64_t>(values.size());
    std::vector<int64_t> inputs;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(0, 3); n > 0; --n) {
      inputs.push_back(integer(0, count - 1));
    }
    std::vector<NodeState> nodes;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(0, 8); n > 0; --n) {
      nodes.push_back(node(count));
    }
    const std::vector<int64_t> outputs{integer(0, count - 1)};
    return {integer(kFormatVersion, kFormatVersion), values, inputs, outputs, nodes};
  }

  bool is_wild() const { return wild_; }

  std::vector<at::Tensor> inputs(const Graph& graph) {
    std::vector<at::Tensor> tensors;
    for (const int64_t input : graph.inputs) {
      const at::ScalarType dtype = graph.values[static_cast<size_t>(input)].dtype;
      std::vector<int64_t> sizes;
      for (auto n = data_.ConsumeIntegralInRange<size_t>(0, 5); n > 0; --n) {
        sizes.push_back(data_.ConsumeIntegralInRange<int64_t>(0, 6));
      }
      tensors.push_back(dtype == at::kFloat
                            ? at::full(sizes, single(), at::kFloat)
                            : at::full(sizes, data_.ConsumeIntegral<int8_t>(), dtype));
    }
    return tensors;
  }

 private:
  double real() {
    switch (data_.ConsumeIntegralInRange<int>(0, 6)) {
      case 0:
        return data_.ConsumeFloatingPoint<double>();
      case 1:
        return std::numeric_limits<double>::quiet_NaN();
      case 2:
        return 0.0;
      default:
        return data_.ConsumeFloatingPointInRange<double>(-2.0, 2.0);
    }
  }

  // What a float32 tensor can hold.
  double single() { return static_cast<float>(real()); }

  ValueState value() {
    const bool codes = data_.ConsumeBool();
    const double scale = data_.ConsumeIntegralInRange<int>(0, 20) == 0 ? real() : 0.25;
    return {codes ? integer(1, 1) : data_.PickValueInArray<int64_t>({0, 2, 3}),
            scale,
            integer(0, 255),
            integer(0, 1),
            integer(200, 255),
            codes && data_.ConsumeBool() ? "name" : ""};
  }

  NodeState node(int64_t values) {
    std::vector<int64_t> inputs;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(0, 3); n > 0; --n) {
      inputs.push_back(integer(0, values - 1));
    }
    std::vector<std::tuple<std::string, std::vector<int64_t>>> ints;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(0, 7); n > 0; --n) {
      std::vector<int64_t> list;
      for (auto m = data_.ConsumeIntegralInRange<size_t>(0, 8); m > 0; --m) {
        list.push_back(integer(-3, 7));
      }
      ints.emplace_back(data_.PickValueInArray(kInts), std::move(list));
    }
    std::vector<std::tuple<std::string, std::vector<double>>> floats;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(0, 2); n > 0; --n) {
      std::vector<double> list;
      for (auto m = data_.ConsumeIntegralInRange<size_t>(0, 3); m > 0; --m) list.push_back(real());
      floats.emplace_back(data_.PickValueInArray(kFloats), std::move(list));
    }
    std::vector<std::tuple<std::string, at::Tensor>> tensors;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(0, 4); n > 0; --n) {
      const std::string key = data_.PickValueInArray(kTensors);
      tensors.emplace_back(key, tensor());
      if (data_.ConsumeIntegralInRange<int>(0, 4) == 0)
        encode(key, ints, std::get<1>(tensors.back()));
    }
    return {data_.PickValueInArray(kOperators),
            "node",
            std::move(inputs),
            integer(0, values - 1),
            std::move(ints),
            std::move(floats),
            std::move(tensors)};
  }

  // Makes a tensor one of indices into a codebook, mostly a valid one.
  void encode(const std::string& key,
              std::vector<std::tuple<std::string, std::vector<int64_t>>>& ints,
              at::Tensor& tensor) {
    std::vector<int64_t> codebook(data_.ConsumeBool() ? 4 : 16);
    for (int64_t& value : codebook) value = integer(0, 255);
    std::vector<int64_t> shape{integer(0, 1)};
    int64_t count = 1;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(1, 5); n > 0; --n) {
      shape.push_back(data_.ConsumeIntegralInRange<int64_t>(1, 5));
      count *= shape.back();
    }
    if (data_.ConsumeIntegralInRange<int>(0, 20) == 0) shape.back() = integer(0, 9);
    const int64_t bits = codebook.size() == 4 ? 2 : 4;
    const int64_t bytes = (count * bits + 7) / 8 + (integer(0, 20) == 0 ? 1 : 0);
    tensor = at::full({bytes}, data_.ConsumeIntegral<uint8_t>(), at::kByte);
    ints.emplace_back(key + ".codebook", std::move(codebook));
    ints.emplace_back(key + ".shape", std::move(shape));
  }

  at::Tensor tensor() {
    constexpr at::ScalarType kTypes[] = {at::kChar, at::kFloat, at::kByte, at::kLong};
    const at::ScalarType type = data_.PickValueInArray(kTypes);
    if (data_.ConsumeIntegralInRange<int>(0, 10) == 0) return at::full({256}, single(), at::kFloat);
    if (data_.ConsumeIntegralInRange<int>(0, 40) == 0) return {};
    std::vector<int64_t> sizes;
    for (auto n = data_.ConsumeIntegralInRange<size_t>(0, 5); n > 0; --n) {
      sizes.push_back(data_.ConsumeIntegralInRange<int64_t>(0, 5));
    }
    const double number = type == at::kFloat ? single() : data_.ConsumeIntegral<int8_t>();
    return type == at::kByte ? at::full(sizes, data_.ConsumeIntegral<uint8_t>(), type)
                             : at::full(sizes, number, type);
  }

  FuzzedDataProvider data_;
  bool wild_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  c10::SetStackTraceFetcher([] { return std::string(); });  // it takes longer than all else
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Maker maker(data, size);
  try {
    const Program program(from_state(maker.state()));
    // Sizes that a file may ask for, but no test.
    if (maker.is_wild()) return 0;
    for (int call = 0; call < 2; ++call) program.run(maker.inputs(program.graph()));
  } catch (const c10::Error&) {
    // What a bad state or input is to be.
  }
  return 0;
}
