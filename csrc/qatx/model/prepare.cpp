#include "qatx/model/prepare.h"

#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "qatx/model/fake_quantizes.h"
#include "qatx/model/qconfigs.h"
#include "qatx/model/swap.h"
#include "qatx/model/trace.h"
#include "qatx/nn/attention.h"
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
  nn::QuantizedLayer* layer;                     // or nullptr,
  nn::ScaledDotProductAttentionImpl* attention;  // where it is this
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
    auto& mutable_module = const_cast<torch::nn::Module&>(module);
    Call call{dynamic_cast<nn::QuantizedLayer*>(&mutable_module),
              dynamic_cast<nn::ScaledDotProductAttentionImpl*>(&mutable_module),
              {},
              {}};
    if (!call.layer && !call.attention) return;
    call.path = paths_.at(&module);
    for (const at::Tensor& input : inputs) {
      call.inputs.push_back(jit::tracer::getValueTrace(input));
    }
    open_.push_back(std::move(call));
  }

  void leave(const torch::nn::Module& module, const at::Tensor& output) override {
    Tracing::leave(module, output);
    if (!dynamic_cast<const nn::QuantizedLayer*>(&module) &&
        !dynamic_cast<const nn::ScaledDotProductAttentionImpl*>(&module)) {
      return;
    }
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
                                                          "unbind",
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
                                                          "batch_norm",
                                                          "elu",
                                                          "gelu",
                                                          "hardsigmoid",
                                                          "hardswish",
                                                          "hardtanh",
                                                          "leaky_relu",
                                                          "mean",
                                                          "mish",
                                                          "prelu",
                                                          "relu",
                                                          "relu6",
                                                          "sigmoid",
                                                          "silu",
                                                          "softplus",
                                                          "tanh",
                                                          "upsample_bilinear2d"};
  return kinds.contains(kind_of(node));
}

// Operators that run in float within an integer program, where their results are quantized.
bool normalizes(const jit::Node* node) {
  return kind_of(node) == "layer_norm" || kind_of(node) == "softmax";
}

// How an output is quantized.
struct OutputWish {
  std::optional<QConfig> qconfig;  // of the finest layer that reads it
  bool symmetric = false;          // a product reads it in the place of its weight
};

// Decides which layers quantize their outputs.
class Quantization {
 public:
  // keep_float: what lies there reads no integers.
  Quantization(const std::vector<Call>& calls, QConfigs& qconfigs,
               const std::vector<std::string>& keep_float)
      : qconfigs_(qconfigs), keep_float_(keep_float) {
    // The last that returned a value: a QuantStub passes it through.
    for (const Call& call : calls) {
      if (call.layer) makers_[call.output] = &call;
    }
    // From the end: what a product or a pooling reads is quantized where its own result is.
    for (auto call = calls.rbegin(); call != calls.rend(); ++call) {
      if (!stays_float(call->path)) find_read_by(*call);
    }
  }

  void apply() const {
    for (auto& [layer, wish] : found_) {
      QConfig qconfig = wish.qconfig.value_or(qconfigs_.for_all());
      layer->quantize_output(wish.symmetric ? symmetric(std::move(qconfig)) : std::move(qconfig));
    }
    for (nn::ScaledDotProductAttentionImpl* attention : attentions_) {
      attention->quantize_probabilities(qconfigs_.for_all());
    }
  }

 private:
  bool stays_float(const std::string& path) const {
    return std::any_of(keep_float_.begin(), keep_float_.end(), [&](const std::string& kept) {
      return path == kept || path.starts_with(kept + ".");
    });
  }

  static QConfig symmetric(QConfig qconfig) {
    if (qconfig.activation_quantizer() == ActivationQuantizer::kPact) {
      qconfig.activation_quantizer(ActivationQuantizer::kLsq);  // PACT is for what is not negative
    }
    return qconfig.activation(QuantSpec(qconfig.activation().bits(), true, true));
  }

  // Whether what has no weight reads no integers of its own accord.
  bool leaves_float() const {
    return qconfigs_.for_all().activation_quantizer() == ActivationQuantizer::kDynamic;
  }

  void find_read_by(const Call& call) {
    if (call.attention) {
      if (leaves_float()) return;
      attentions_.insert(call.attention);
      read(call, call.inputs[0], {});
      for (size_t i = 1; i < call.inputs.size(); ++i) {
        read(call, call.inputs[i], {std::nullopt, /*symmetric=*/true});
      }
      return;
    }
    if (dynamic_cast<nn::WeightedLayer*>(call.layer)) {
      const QConfig& qconfig = qconfigs_.of(call.path);
      const bool takes_indices = dynamic_cast<nn::EmbeddingImpl*>(call.layer) != nullptr;
      if (!takes_indices && !is_dynamic(call)) read(call, call.inputs[0], {qconfig});
    }
    if (dynamic_cast<nn::AddImpl*>(call.layer) && !leaves_float()) {
      const jit::Value* fused = fused_operand(call);
      for (jit::Value* input : call.inputs) {
        if (input != fused) read(call, input, {});
      }
    }
    if (!found_.contains(call.layer)) return;
    if (dynamic_cast<nn::MulImpl*>(call.layer)) {
      for (jit::Value* input : call.inputs) read(call, input, {});
    }
    if (dynamic_cast<nn::QuantStubImpl*>(call.layer)) quantize_behind(call.inputs[0]);
  }

  // Quantizes what a value that is quantized is made of, where operators with an integer form make
  // it.
  void quantize_behind(jit::Value* value) {
    for (jit::Node* node = origin(value)->node(); has_integer_form(node) || normalizes(node);) {
      jit::Value* source = node->input(0);
      if (const Call* maker = maker_of(source)) {
        // A program normalizes what a layer makes before it is rounded, where nobody else reads it.
        const bool unrounded =
            normalizes(node) && makers_.contains(source) && source->uses().size() == 1;
        if (!unrounded) found_.try_emplace(maker->layer);
        return;
      }
      node = origin(source)->node();
    }
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

  void read(const Call& reader, jit::Value* value, const OutputWish& wish) {
    if (const Call* maker = maker_of(value)) {
      OutputWish& all = found_[maker->layer];
      const bool finer = wish.qconfig && (!all.qconfig || wish.qconfig->activation().bits() >=
                                                              all.qconfig->activation().bits());
      if (finer) all.qconfig = wish.qconfig;
      all.symmetric |= wish.symmetric;
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

  // Whether a layer quantizes what it reads itself.
  static bool is_dynamic(const Call& call) {
    const auto* linear = dynamic_cast<nn::LinearImpl*>(call.layer);
    return linear && linear->is_dynamic();
  }

  static bool can_add(const Call& call) {
    const bool adds = dynamic_cast<nn::WeightedLayer*>(call.layer) && !is_dynamic(call) &&
                      !dynamic_cast<nn::ConvTranspose1dImpl*>(call.layer) &&
                      !dynamic_cast<nn::ConvTranspose2dImpl*>(call.layer) &&
                      !dynamic_cast<nn::ConvTranspose3dImpl*>(call.layer) &&
                      !dynamic_cast<nn::EmbeddingImpl*>(call.layer);
    return adds && call.layer->settings.relu == nn::Relu::kNone;
  }

  QConfigs& qconfigs_;
  const std::vector<std::string>& keep_float_;
  std::unordered_map<const jit::Value*, const Call*> makers_;
  std::unordered_map<nn::QuantizedLayer*, OutputWish> found_;
  std::unordered_set<nn::ScaledDotProductAttentionImpl*> attentions_;
};

// Layers of qatx::nn have weights that are not quantized yet; anything more was prepared.
void check_float(torch::nn::Module& model) {
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    const auto* f = item.value()->as<nn::FakeQuantizeImpl>();
    const bool is_float =
        !f || (f->options.role() == nn::Role::kWeight && f->state() == nn::State::kUncalibrated);
    TORCH_CHECK_VALUE(is_float, "qatx.prepare: the model is prepared already: ", item.key(),
                      " is a fake quantizer");
  }
}

// Lets a model run in float while it lives: weights are only looked at.
class InFloat {
 public:
  explicit InFloat(torch::nn::Module& model) : fake_quantizes_(fake_quantizes_of(model)) {
    for (const auto& [path, f] : fake_quantizes_) f->begin_calibration();
  }
  ~InFloat() {
    for (const auto& [path, f] : fake_quantizes_) f->reset_parameters();
  }
  InFloat(const InFloat&) = delete;
  InFloat& operator=(const InFloat&) = delete;

 private:
  decltype(fake_quantizes_of(std::declval<torch::nn::Module&>())) fake_quantizes_;
};

}  // namespace

void prepare(const Model& model, const std::vector<at::Tensor>& example_inputs,
             const QConfig& qconfig, const PrepareOptions& options) {
  QConfigs qconfigs(qconfig, options.overrides());
  torch::nn::Module& module = model.module();
  check_float(module);
  LayerSwap swap(module, qconfigs, options.keep_float());
  const ModulePaths paths = paths_of(module);
  std::vector<Call> calls;
  // The graph has to live as long as the calls' values.
  const jit::Module traced = [&] {
    const InFloat in_float(module);
    return detail::trace(model, example_inputs,
                         [&] { return std::make_unique<Calls>(paths, calls); });
  }();
  TORCH_CHECK_VALUE(!calls.empty(),
                    "qatx.prepare: the model has nothing to quantize: no convolution, linear layer "
                    "or addition in a torch::nn::Sequential or of qatx::nn");
  const Quantization quantization(calls, qconfigs, options.keep_float());
  qconfigs.check_all_used();
  quantization.apply();
  swap.keep();
}

}  // namespace qatx
