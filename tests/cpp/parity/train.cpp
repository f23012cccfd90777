// Trains a small network in C++ and writes down all that happens, for
// tests/python/test_cpp_parity.py, which does the same in Python and wants the same bits.
//   qatx_parity CONFIG FOLDER     CONFIG: lsq, ranges, rounding or dynamic; writes run.pt and
//   converted.pt

#include <qatx/qatx.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/nn/functional/loss.h>
#include <torch/optim/sgd.h>

#include <fstream>
#include <iostream>

namespace {

namespace qnn = qatx::nn;

constexpr int kSteps = 100;

qatx::QConfig qconfig(const std::string& name) {
  qatx::QConfig config;
  if (name == "ranges") {
    config.weight(qatx::QuantSpec(4, true, true, 0))
        .weight_quantizer(qatx::WeightQuantizer::kDoReFa)
        .activation_quantizer(qatx::ActivationQuantizer::kMovingAverage)
        .activation_range("percentile");
  } else if (name == "rounding") {
    config.activation_quantizer(qatx::ActivationQuantizer::kPact)
        .power_of_two(true)
        .stochastic_rounding(true);
  } else if (name == "dynamic") {
    config.activation_quantizer(qatx::ActivationQuantizer::kDynamic);
  } else {
    TORCH_CHECK(name == "lsq", "unknown CONFIG ", name);
  }
  return config;
}

// For what takes the place of weights.
qatx::QConfig symmetric(qatx::QConfig config) {
  return config.activation(qatx::QuantSpec(8, true, true));
}

struct NetImpl : torch::nn::Module {
  explicit NetImpl(const qatx::QConfig& q)
      : stub(qnn::QuantStubOptions().qconfig(q)),
        stem(qnn::ConvBn2dOptions(3, 8, 3).padding(1).qconfig(q).relu(qnn::Relu::kRelu)),
        body(qnn::Conv2dOptions(8, 8, 3).padding(1).qconfig(q).quantize_output(false)),
        add(qnn::AddOptions().qconfig(q).relu(qnn::Relu::kRelu)),
        up(qnn::ConvTranspose2dOptions(8, 4, 2).stride(2).groups(2).qconfig(q).relu(
            qnn::Relu::kRelu6)),
        line(qnn::Conv1dOptions(4, 4, 3).stride(4).qconfig(q)),
        memory(qnn::LinearOptions(16, 16).qconfig(symmetric(q))),
        attention(qnn::ScaledDotProductAttentionOptions().qconfig(q)),
        attended(qnn::QuantStubOptions().qconfig(q)),
        head(qnn::LinearOptions(256, 5).qconfig(q).quantize_output(false)) {
    register_module("stub", stub);
    register_module("stem", stem);
    register_module("body", body);
    register_module("add", add);
    register_module("up", up);
    register_module("line", line);
    register_module("memory", memory);
    register_module("attention", attention);
    register_module("attended", attended);
    register_module("head", head);
  }

  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = stem->forward(stub->forward(x));
    y = add->forward(y, body->forward(y));
    y = line->forward(up->forward(y).flatten(2)).reshape({-1, 16, 16});
    const at::Tensor keys = memory->forward(y);
    y = attended->forward(attention->forward(y, keys, keys));
    return head->forward(y.flatten(1));
  }

  qnn::QuantStub stub;
  qnn::ConvBn2d stem;
  qnn::Conv2d body;
  qnn::Add add;
  qnn::ConvTranspose2d up;
  qnn::Conv1d line;
  qnn::Linear memory;
  qnn::ScaledDotProductAttention attention;
  qnn::QuantStub attended;
  qnn::Linear head;
};
TORCH_MODULE(Net);

void run(const std::string& config, const std::string& folder) {
  at::set_num_threads(1);
  torch::manual_seed(0);
  Net net(qconfig(config));
  const at::Tensor images = at::randn({kSteps, 4, 3, 8, 8}).cumsum(3);
  const at::Tensor labels = images.select(4, 7).mean({2, 3}).gt(0).to(at::kLong);
  qatx::calibrate(net, images.flatten(0, 1));

  const auto options = torch::optim::SGDOptions(0.005).momentum(0.9).weight_decay(1e-3);
  auto optimizer = qatx::make_optimizer<torch::optim::SGD>(*net, options);
  // Pairs of names and tensors; a dict would carry its type, which torch.load takes for code.
  std::vector<c10::IValue> result;
  const auto add = [&](const std::string& name, const at::Tensor& value) {
    result.emplace_back(c10::ivalue::Tuple::create({name, value}));
  };
  std::vector<at::Tensor> losses;
  for (int64_t step = 0; step < kSteps; ++step) {
    if (step == kSteps - 10) qatx::freeze_batch_norm(*net);
    const at::Tensor loss =
        torch::nn::functional::cross_entropy(net->forward(images[step]), labels[step]);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    losses.push_back(loss.detach());
    if (step > 0) continue;
    for (const auto& item : net->named_parameters()) {
      if (item.value().grad().defined()) add("gradient." + item.key(), item.value().grad().clone());
    }
  }

  add("losses", at::stack(losses));
  for (const auto& item : net->named_parameters()) {
    add("state." + item.key(), item.value().detach());
  }
  for (const auto& item : net->named_buffers()) add("state." + item.key(), item.value());
  const std::vector<char> bytes = torch::jit::pickle_save(c10::ivalue::Tuple::create(result));
  std::ofstream(folder + "/run.pt", std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  qatx::convert(net, {images[0]}).module.save(folder + "/converted.pt");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    TORCH_CHECK(argc == 3, "usage: qatx_parity CONFIG FOLDER");
    run(argv[1], argv[2]);
    return 0;
  } catch (const c10::Error& error) {
    std::cerr << error.what_without_backtrace() << "\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
  }
  return 1;
}
