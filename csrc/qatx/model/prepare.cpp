#include "qatx/model/prepare.h"

#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "qatx/model/swap.h"
#include "qatx/model/trace.h"
#include "qatx/nn/combine.h"
#include "qatx/nn/conv.h"
#include "qatx/nn/conv_bn.h"
#include "qatx/nn/embedding.h"
#include "qatx/nn/linear.h"

namespace qatx {
namespace {

namespace jit = torch::jit;

// One call of a layer of qatx::nn, in the traced graph.
struct Call {
  nn::QuantizedLayer* layer;
  std::string path;
  std::vector<jit::Value*> inputs;
  jit::Value* output = nullptr;
};

class Calls : public detail::Tracing {
 public:
  Calls(const ModulePaths& paths, std::vector<Call>& calls)
      : Tracing(paths), paths_(paths), calls_(calls) {}

  void enter(const torch::nn::Module& module, at::TensorList inputs) override {
    Tracing::enter(module, inputs);
    // LibTorch's as() gives torch::nn::Module's only.
    auto* layer = dynamic_cast<nn::QuantizedLayer*>(const_cast<torch::nn::Module*>(&module));
    if (!layer) return;
    Call call{layer, paths_.at(&module), {}};
    for (const at::Tensor& input : inputs) {
      call.inputs.push_back(jit::tracer::getValueTrace(input));
    }
    open_.push_back(std::move(call));
  }

  void leave(const torch::nn::Module& module, const at::Tensor& output) override {
    Tracing::leave(module, output);
    if (!dynamic_cast<const nn::QuantizedLayer*>(&module)) return;
    open_.back().output = jit::tracer::getValueTrace(output);
    calls_.push_back(std::move(open_.back()));
    open_.pop_back();
  }

 private:
  const ModulePaths& paths_;
  std::vector<Call>& calls_;
  std::vector<Call> open_;
};

// Kinds without their namespace, "aten".
std::string_view kind_of(const jit::Node* node) {
  return node->kind().is_aten() ? node->kind().toUnqualString() : "";
}

bool pads_with_zeros(const jit::Node* node) {
  if (kind_of(node) != "constant_pad_nd" && kind_of(node) != "pad") return false;
  const auto value = jit::toIValue(node->namedInput("value"));
  return value && (value->isNone() || value->toScalar().toDouble() == 0.0);
}

// Operators whose output consists of values of their first input.
bool keeps_values(const jit::Node* node) {
  static const std::unordered_set<std::string_view> kinds{"adaptive_max_pool1d",
                                                          "adaptive_max_pool2d",
                                                          "alias",
                                                          "amax",
                                                          "channel_shuffle",
                                                          "chunk",
                                                          "clone",
                                                          "contiguous",
                                                          "detach",
                                                          "dropout",
                                                          "dropout_",
                                                          "expand",
                                                          "feature_dropout",
                                                          "flatten",
                                                          "max_pool1d",
                                                          "max_pool2d",
                                                          "narrow",
                                                          "permute",
                                                          "pixel_shuffle",
                                                          "pixel_unshuffle",
                                                          "reflection_pad1d",
                                                          "reflection_pad2d",
                                                          "replication_pad1d",
                                                          "replication_pad2d",
                                                          "reshape",
                                                          "select",
                                                          "slice",
                                                          "split",
                                                          "squeeze",
                                                          "t",
                                                          "transpose",
                                                          "unflatten",
                                                          "unsqueeze",
                                                          "upsample_nearest2d",
                                                          "view"};
  return kinds.contains(kind_of(node)) || node->kind() == c10::prim::ListUnpack ||
         pads_with_zeros(node);
}

// Operators that run in integers where what they read is quantized.
bool has_integer_form(const jit::Node* node) {
  static const std::unordered_set<std::string_view> kinds{"adaptive_avg_pool1d",
                                                          "adaptive_avg_pool2d",
                                                          "avg_pool1d",
                                                          "avg_pool2d",
                                                          "elu",
                                                          "gelu",
                                                          "hardsigmoid",
                                                          "hardswish",
                                                          "hardtanh",
                                                          "leaky_relu",
                                                          "mean",
                                                          "mish",
                                                          "relu",
                                                          "relu6",
                                                          "sigmoid",
                                                          "silu",
                                                          "softplus",
                                                          "tanh",
                                                          "upsample_bilinear2d"};
  return kinds.contains(kind_of(node));
}

// Decides which layers quantize their outputs.
class Quantization {
 public:
  // keep_float: what lies there reads no integers.
  Quantization(const std::vector<Call>& calls, const std::vector<std::string>& keep_float)
      : calls_(calls), keep_float_(keep_float) {
    // The last that returned a value: a QuantStub passes it through.
    for (const Call& call : calls) makers_[call.output] = &call;
  }

  std::unordered_set<nn::QuantizedLayer*> find() {
    // From the end: what a product or a pooling reads is quantized where its own result is.
    for (auto call = calls_.rbegin(); call != calls_.rend(); ++call) {
      if (stays_float(call->path)) continue;
      const bool takes_indices = dynamic_cast<nn::EmbeddingImpl*>(call->layer) != nullptr;
      if (dynamic_cast<nn::WeightedLayer*>(call->layer) && !takes_indices) {
        read(*call, call->inputs[0]);
      }
      if (dynamic_cast<nn::AddImpl*>(call->layer)) {
        const jit::Value* fused = fused_operand(*call);
        for (jit::Value* input : call->inputs) {
          if (input != fused) read(*call, input);
        }
      }
      if (!found_.contains(call->layer)) continue;
      if (dynamic_cast<nn::MulImpl*>(call->layer)) {
        for (jit::Value* input : call->inputs) read(*call, input);
      }
      if (dynamic_cast<nn::QuantStubImpl*>(call->layer)) {
        jit::Node* node = origin(call->inputs[0])->node();
        while (has_integer_form(node)) {
          if (const Call* maker = maker_of(node->input(0))) {
            found_.insert(maker->layer);
            break;
          }
          node = origin(node->input(0))->node();
        }
      }
    }
    return found_;
  }

 private:
  bool stays_float(const std::string& path) const {
    return std::any_of(keep_float_.begin(), keep_float_.end(), [&](const std::string& kept) {
      return path == kept || path.starts_with(kept + ".");
    });
  }

  static jit::Value* origin(jit::Value* value) {
    while (keeps_values(value->node())) value = value->node()->input(0);
    return value;
  }

  const Call* maker_of(jit::Value* value) const {
    for (;;) {
      if (const auto maker = makers_.find(value); maker != makers_.end()) return maker->second;
      if (!keeps_values(value->node())) return nullptr;
      value = value->node()->input(0);
    }
  }

  void read(const Call& reader, jit::Value* value) {
    if (const Call* maker = maker_of(value)) {
      found_.insert(maker->layer);
      return;
    }
    const jit::Node* node = origin(value)->node();
    TORCH_CHECK_VALUE(
        node->kind() != c10::prim::Param, "qatx.prepare: ", reader.path,
        " reads an input of the model, which nothing quantizes. Pass it through a "
        "qatx::nn::QuantStub(qatx::nn::QuantStubOptions().quantize_output(false)) first");
    TORCH_CHECK_VALUE(
        false, "qatx.prepare: ", reader.path, " reads what ", node->kind().toQualString(),
        " makes, which nothing quantizes. Write a sum, a product or a concatenation as "
        "qatx::nn::Add, Mul or Cat and a ReLU as an option of the layer before it, or pass the "
        "value through a qatx::nn::QuantStub, each made with quantize_output(false)");
  }

  // The operand inside whose layer the addition is done: of two the later one, because the other
  // must be there by then.
  const jit::Value* fused_operand(const Call& add) const {
    const jit::Value* fused = nullptr;
    const Call* latest = nullptr;
    for (jit::Value* input : add.inputs) {
      const auto maker = makers_.find(input);
      if (maker == makers_.end() || !can_add(*maker->second) || input->uses().size() != 1) continue;
      if (latest && maker->second < latest) continue;  // calls lie in the order of their ends
      latest = maker->second;
      fused = input;
    }
    return add.inputs[0] == add.inputs[1] ? nullptr : fused;
  }

  static bool can_add(const Call& call) {
    const bool adds = dynamic_cast<nn::WeightedLayer*>(call.layer) &&
                      !dynamic_cast<nn::ConvTranspose2dImpl*>(call.layer) &&
                      !dynamic_cast<nn::EmbeddingImpl*>(call.layer);
    return adds && call.layer->settings.relu == nn::Relu::kNone;
  }

  const std::vector<Call>& calls_;
  const std::vector<std::string>& keep_float_;
  std::unordered_map<const jit::Value*, const Call*> makers_;
  std::unordered_set<nn::QuantizedLayer*> found_;
};

void check_float(torch::nn::Module& model) {
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    TORCH_CHECK_VALUE(!item.value()->as<nn::FakeQuantizeImpl>(),
                      "qatx.prepare: the model is prepared already: ", item.key(),
                      " is a fake quantizer");
  }
}

// Lets the model run in float: weights are only looked at.
void pass_weights_through(const std::vector<std::shared_ptr<torch::nn::Module>>& modules, bool on) {
  for (const auto& module : modules) {
    if (auto* f = module->as<nn::FakeQuantizeImpl>()) {
      if (on) {
        f->begin_calibration();
      } else {
        f->reset_parameters();
      }
    }
  }
}

}  // namespace

void prepare(const Model& model, const std::vector<at::Tensor>& example_inputs,
             const QConfig& qconfig, const PrepareOptions& options) {
  qconfig.check();
  torch::nn::Module& module = model.module();
  check_float(module);
  LayerSwap swap(module, qconfig, options.keep_float());
  const ModulePaths paths = paths_of(module);
  const auto modules = module.modules(/*include_self=*/false);
  pass_weights_through(modules, true);
  std::vector<Call> calls;
  // The graph has to live as long as the calls' values.
  const jit::Module traced =
      detail::trace(model, example_inputs, [&] { return std::make_unique<Calls>(paths, calls); });
  pass_weights_through(modules, false);
  TORCH_CHECK_VALUE(!calls.empty(),
                    "qatx.prepare: the model has nothing to quantize: no convolution, linear layer "
                    "or addition in a torch::nn::Sequential or of qatx::nn");
  const auto found = Quantization(calls, options.keep_float()).find();
  for (nn::QuantizedLayer* layer : found) layer->quantize_output(qconfig);
  swap.keep();
}

}  // namespace qatx
