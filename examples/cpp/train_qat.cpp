// Trains a small residual network on Fashion-MNIST, quantizes it to 8 bits, trains it further, and
// converts it to integers, in C++ alone. What it writes, Python loads (load_into_python.py).

#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/optim/sgd.h>
#include <torch/script.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <numbers>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fashion_mnist_data.h"
#include "fashion_mnist_model.h"

namespace {

namespace fs = std::filesystem;

constexpr const char* kUsage = R"(usage: train_qat [options]

  --data FOLDER     the four gzipped files of Fashion-MNIST (default: /usr/share/datasets/fashion-mnist)
  --out FOLDER      for the results (default: build/demo-cpp)
  --quick           a tenth of the data, one epoch each
  --no-mirror       do not mirror images: for digits
  --epochs N        float training (default: 6)
  --qat-epochs N    quantization-aware training (default: 2)
  --threads N       number of threads (default: LibTorch's)
  --workers N       threads that prepare batches (default: 2)
  --seed N          (default: 0)
)";

constexpr int64_t kBatchSize = 128;
constexpr int64_t kCalibrationImages = 1000;
constexpr double kWeightDecay = 5e-4;
constexpr double kLabelSmoothing = 0.05;

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Options {
  fs::path data = "/usr/share/datasets/fashion-mnist";
  fs::path out = "build/demo-cpp";
  bool quick = false;
  bool mirror = true;
  int epochs = 0;
  int qat_epochs = 0;
  int threads = 0;
  int workers = 2;
  uint64_t seed = 0;
};

int parse_number(const std::string& name, const std::string& text, int least) {
  size_t used = 0;
  int value = least - 1;
  try {
    value = std::stoi(text, &used);
  } catch (const std::logic_error&) {
  }
  if (used != text.size() || value < least) {
    throw UsageError(name + " takes a number of at least " + std::to_string(least) + ", not '" +
                     text + "'");
  }
  return value;
}

Options parse_options(const std::vector<std::string>& arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    const auto value = [&] {
      if (++i == arguments.size()) throw UsageError(name + " takes a value");
      return arguments[i];
    };
    if (name == "--data") {
      options.data = value();
    } else if (name == "--out") {
      options.out = value();
    } else if (name == "--quick") {
      options.quick = true;
    } else if (name == "--no-mirror") {
      options.mirror = false;
    } else if (name == "--epochs") {
      options.epochs = parse_number(name, value(), 1);
    } else if (name == "--qat-epochs") {
      options.qat_epochs = parse_number(name, value(), 1);
    } else if (name == "--threads") {
      options.threads = parse_number(name, value(), 1);
    } else if (name == "--workers") {
      options.workers = parse_number(name, value(), 1);
    } else if (name == "--seed") {
      options.seed = static_cast<uint64_t>(parse_number(name, value(), 0));
    } else {
      throw UsageError("unknown option " + name);
    }
  }
  if (options.epochs == 0) options.epochs = options.quick ? 1 : 6;
  if (options.qat_epochs == 0) options.qat_epochs = options.quick ? 1 : 2;
  return options;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The predicted class of each image, int64 [N].
torch::Tensor predict(const std::function<torch::Tensor(const torch::Tensor&)>& model,
                      const torch::Tensor& images) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> classes;
  for (const torch::Tensor& batch : images.split(250)) classes.push_back(model(batch).argmax(1));
  return torch::cat(classes);
}

double accuracy(const torch::Tensor& classes, const torch::Tensor& labels) {
  return classes.eq(labels).to(torch::kDouble).mean().item<double>();
}

// Linear warm-up to the peak over a fraction of the steps, then a half cosine to zero.
struct Schedule {
  int epochs;
  double peak;
  double warmup = 0.0;

  double learning_rate(int64_t step, int64_t num_steps) const {
    const auto warmup_steps =
        static_cast<int64_t>(std::nearbyint(warmup * static_cast<double>(num_steps)));
    if (step < warmup_steps) {
      return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps + 1);
    }
    return peak * 0.5 *
           (1.0 + std::cos(std::numbers::pi * static_cast<double>(step - warmup_steps) /
                           static_cast<double>(num_steps - warmup_steps)));
  }
};

// One line on a terminal that is written over at each step.
void show_progress(const char* title, int epoch, const Schedule& schedule, int64_t step,
                   int64_t num_steps, double loss, double seconds) {
  static const bool shown = isatty(STDERR_FILENO) == 1;
  if (!shown) return;
  const double left = seconds / static_cast<double>(step) * static_cast<double>(num_steps - step);
  std::fprintf(stderr, "\r  %s  epoch %d of %d  step %lld of %lld  loss %.3f  %.0f s left \033[K",
               title, epoch + 1, schedule.epochs, static_cast<long long>(step),
               static_cast<long long>(num_steps), loss, left);
  if (step == num_steps) std::fputs("\r\033[K", stderr);
}

// Trains the model and leaves it in evaluation mode. The test accuracies are for the screen only:
// no choice depends on them.
void train(
    SmallResNet& model, torch::optim::SGD& optimizer, const FashionMnist& data,
    const Schedule& schedule, const Options& options, const char* title,
    const std::function<void()>& before_last_epoch = [] {}) {
  const int64_t steps_per_epoch = data.train.labels.size(0) / kBatchSize;
  const int64_t num_steps = schedule.epochs * steps_per_epoch;
  const torch::Tensor test_images = data.normalize(data.test.images);
  // The threads of the loader prepare batches while this one trains.
  auto loader = torch::data::make_data_loader<torch::data::samplers::RandomSampler>(
      TrainingSet(data, options.mirror, options.seed),
      torch::data::DataLoaderOptions(kBatchSize).workers(options.workers).drop_last(true));
  const auto criterion_options =
      torch::nn::functional::CrossEntropyFuncOptions().label_smoothing(kLabelSmoothing);
  const auto start = std::chrono::steady_clock::now();
  int64_t step = 0;
  for (int epoch = 0; epoch < schedule.epochs; ++epoch) {
    if (epoch == schedule.epochs - 1) before_last_epoch();
    model->train();
    double sum = 0.0;
    for (const torch::data::Example<>& batch : *loader) {
      for (auto& group : optimizer.param_groups()) {
        group.options().set_lr(schedule.learning_rate(step, num_steps));
      }
      const torch::Tensor loss = torch::nn::functional::cross_entropy(
          model->forward(batch.data), batch.target, criterion_options);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
      sum += loss.item<double>();
      ++step;
      show_progress(title, epoch, schedule, step, num_steps, loss.item<double>(),
                    seconds_since(start));
    }
    model->eval();
    const double test =
        accuracy(predict([&](const torch::Tensor& x) { return model->forward(x); }, test_images),
                 data.test.labels);
    std::printf("  %s epoch %d of %d: loss %.3f, accuracy %.2f %% on test images\n", title,
                epoch + 1, schedule.epochs, sum / static_cast<double>(steps_per_epoch),
                100.0 * test);
    std::fflush(stdout);
  }
}

// One line of the table at the end.
struct Row {
  std::string model;
  double accuracy;
  uintmax_t file_bytes;
  double ms_per_image;  // at batch 1
};

// Median milliseconds that each model takes for an image. They take turns, so that whatever else
// the machine does meets all of them.
std::vector<double> time_models(std::vector<torch::jit::Module>& models,
                                const torch::Tensor& image) {
  constexpr int kWarmUps = 5;  // TorchScript optimizes in its first calls
  constexpr int kRounds = 25;
  constexpr int kCalls = 20;
  std::vector<std::vector<double>> samples(models.size());
  for (int round = -kWarmUps; round < kRounds; ++round) {
    for (size_t i = 0; i < models.size(); ++i) {
      const auto start = std::chrono::steady_clock::now();
      for (int call = 0; call < kCalls; ++call) models[i].forward({image});
      if (round >= 0) samples[i].push_back(1e3 * seconds_since(start) / kCalls);
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& times : samples) {
    std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
    medians.push_back(times[kRounds / 2]);
  }
  return medians;
}

// A row for each file, and the classes that the last one predicts.
std::pair<std::vector<Row>, torch::Tensor> compare(const fs::path& folder,
                                                   const FashionMnist& data) {
  const c10::InferenceMode inference;
  const torch::Tensor images = data.normalize(data.test.images);
  std::vector<Row> rows;
  std::vector<torch::jit::Module> models;
  torch::Tensor classes;
  for (const auto& [name, file] : std::vector<std::pair<std::string, std::string>>{
           {"FP32", "fp32.pt"}, {"PTQ INT8", "ptq_int8.pt"}, {"QAT INT8", "qat_int8.pt"}}) {
    torch::jit::Module& model = models.emplace_back(torch::jit::load((folder / file).string()));
    model.eval();
    classes =
        predict([&](const torch::Tensor& x) { return model.forward({x}).toTensor(); }, images);
    rows.push_back({name, accuracy(classes, data.test.labels), fs::file_size(folder / file), 0.0});
  }
  const std::vector<double> times = time_models(models, images.slice(0, 0, 1));
  for (size_t i = 0; i < rows.size(); ++i) rows[i].ms_per_image = times[i];
  return {rows, classes};
}

void print_table(const std::vector<Row>& rows) {
  std::printf("\n%-10s %10s %10s %14s %8s %10s\n", "model", "accuracy", "file [kB]", "batch 1 [ms]",
              "x FP32", "x faster");
  for (const Row& row : rows) {
    std::printf("%-10s %8.2f %% %10.0f %14.3f %8.3f %10.2f\n", row.model.c_str(),
                100.0 * row.accuracy, static_cast<double>(row.file_bytes) / 1e3, row.ms_per_image,
                static_cast<double>(row.file_bytes) / static_cast<double>(rows[0].file_bytes),
                rows[0].ms_per_image / row.ms_per_image);
  }
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

void write_summary(const fs::path& path, const std::vector<Row>& rows, const Options& options,
                   const FashionMnist& data, double verified, double seconds) {
  std::ofstream file(path);
  file << "{\n  \"machine\": {\"cpu\": \"" << cpu_name()
       << "\", \"threads\": " << torch::get_num_threads() << ", \"torch\": \"" << TORCH_VERSION
       << "\", \"qatx\": \"" << qatx::version() << "\", \"isa\": \"" << qatx::isa()
       << "\"},\n  \"settings\": {"
       << "\"quick\": " << (options.quick ? "true" : "false") << ", \"epochs\": " << options.epochs
       << ", \"qat_epochs\": " << options.qat_epochs << ", \"seed\": " << options.seed
       << ", \"train_images\": " << data.train.labels.size(0)
       << ", \"test_images\": " << data.test.labels.size(0) << "},\n  \"seconds\": " << seconds
       << ",\n  \"converted_predicts_as_qat\": " << verified << ",\n  \"rows\": [";
  for (size_t i = 0; i < rows.size(); ++i) {
    file << (i ? ",\n" : "\n") << "    {\"model\": \"" << rows[i].model
         << "\", \"accuracy\": " << rows[i].accuracy << ", \"file_bytes\": " << rows[i].file_bytes
         << ", \"ms_per_image_batch_1\": " << rows[i].ms_per_image << "}";
  }
  file << "\n  ]\n}\n";
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

// What load_into_python.py compares: the test images and what the converted model makes of them.
void write_predictions(const fs::path& folder, const FashionMnist& data,
                       const torch::Tensor& classes) {
  // A tuple; a dict would carry its type, which torch.load takes for code.
  const std::vector<char> bytes = torch::jit::pickle_save(
      c10::ivalue::Tuple::create({data.normalize(data.test.images), data.test.labels, classes}));
  std::ofstream file(folder / "predictions.pt", std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write into " + folder.string());
}

int run(const Options& options) {
  const auto start = std::chrono::steady_clock::now();
  if (options.threads) torch::set_num_threads(options.threads);
  torch::manual_seed(options.seed);
  FashionMnist data = load_fashion_mnist(options.data);
  if (options.quick) data = data.subset(6000, 1000);
  fs::create_directories(options.out);
  std::printf("%lld training and %lld test images; %d threads\n\nFloat training\n",
              static_cast<long long>(data.train.labels.size(0)),
              static_cast<long long>(data.test.labels.size(0)), torch::get_num_threads());
  const torch::Tensor example = data.normalize(data.test.images.slice(0, 0, 1));

  SmallResNet model;
  // The fastest layout for training on a CPU.
  for (torch::Tensor& parameter : model->parameters()) {
    if (parameter.dim() != 4) continue;
    parameter.set_data(parameter.contiguous(torch::MemoryFormat::ChannelsLast));
  }
  {
    torch::optim::SGD optimizer(
        model->parameters(),
        torch::optim::SGDOptions(0.1).momentum(0.9).nesterov(true).weight_decay(kWeightDecay));
    train(model, optimizer, data, {options.epochs, 0.15, 0.25}, options, "FP32");
  }
  torch::jit::freeze(qatx::trace(model, {example})).save((options.out / "fp32.pt").string());

  std::printf("\nPost-training quantization\n");
  qatx::prepare(model, {example});
  const auto calibration = data.normalize(data.train.images.slice(0, 0, kCalibrationImages));
  std::cout << qatx::calibrate(model, calibration) << std::flush;
  qatx::convert(model, {example}).module.save((options.out / "ptq_int8.pt").string());

  std::printf("\nQuantization-aware training\n");
  const auto sgd = torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(kWeightDecay);
  auto optimizer = qatx::make_optimizer<torch::optim::SGD>(*model, sgd);
  train(model, optimizer, data, {options.qat_epochs, 0.005}, options, "QAT",
        [&] { qatx::freeze_batch_norm(*model); });

  std::printf("\nConversion to integers\n");
  auto [converted, report] = qatx::convert(model, {example});
  converted.save((options.out / "qat_int8.pt").string());
  const torch::Tensor test_images = data.normalize(data.test.images);
  std::cout << report << "\n"
            << qatx::verify(model, converted, test_images.slice(0, 0, 250)).verdict() << "\n";
  const torch::Tensor trained =
      predict([&](const torch::Tensor& x) { return model->forward(x); }, test_images);

  const auto [rows, classes] = compare(options.out, data);
  print_table(rows);
  const double same = accuracy(classes, trained);
  const double seconds = seconds_since(start);
  write_predictions(options.out, data, classes);
  write_summary(options.out / "summary.json", rows, options, data, same, seconds);
  std::printf(
      "\nQAT INT8 is %+.2f points from FP32; it predicts as the trained model for %.2f %% of the "
      "images.\nDone in %.0f seconds. In %s: the models, predictions.pt and summary.json.\n",
      100.0 * (rows[2].accuracy - rows[0].accuracy), 100.0 * same, seconds,
      options.out.string().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments == std::vector<std::string>{"--help"}) {
      std::cout << kUsage;
      return 0;
    }
    return run(parse_options(arguments));
  } catch (const UsageError& error) {
    std::cerr << "error: " << error.what() << "\n\n" << kUsage;
    return 2;
  } catch (const c10::Error& error) {
    std::cerr << "error: " << error.what_without_backtrace() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
  }
  return 1;
}
