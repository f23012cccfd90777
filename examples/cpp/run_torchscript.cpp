// Evaluates a TorchScript classifier on a test set, without Python: accuracy, predicted classes,
// speed. A model that qatx converted needs nothing but libqatx beside LibTorch.

#include <ATen/Parallel.h>
#include <qatx/qatx.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/script.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr const char* kUsage =
    R"(usage: run_torchscript MODEL TEST_SET [--predictions FILE] [--json FILE] [--threads N]

  MODEL               TorchScript file: images [N, C, H, W] to scores [N, classes]
  TEST_SET            file written by torch.save({"images": float32 [N, C, H, W], "labels": int64 [N]})
  --predictions FILE  write the predicted classes, one a line
  --json FILE         measure the speed as well, and write all figures
  --threads N         number of threads (default: LibTorch's)
)";

constexpr int64_t kEvaluationBatch = 250;
constexpr int kWarmUps = 5;
constexpr int kRounds = 25;
constexpr double kRoundSeconds = 0.02;  // long enough for the clock, short enough for many rounds

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Options {
  std::string model;
  std::string test_set;
  std::optional<std::string> predictions;
  std::optional<std::string> json;
  std::optional<int> threads;
};

struct TestSet {
  at::Tensor images;
  at::Tensor labels;
};

int parse_threads(const std::string& text) {
  size_t used = 0;
  int threads = 0;
  try {
    threads = std::stoi(text, &used);
  } catch (const std::logic_error&) {
  }
  if (used != text.size() || threads < 1) {
    throw UsageError("--threads takes a number of at least 1, not '" + text + "'");
  }
  return threads;
}

Options parse_options(const std::vector<std::string>& arguments) {
  Options options;
  std::vector<std::string> paths;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (name.rfind("--", 0) != 0) {
      paths.push_back(name);
      continue;
    }
    if (name != "--predictions" && name != "--json" && name != "--threads") {
      throw UsageError("unknown option " + name);
    }
    if (++i == arguments.size()) {
      throw UsageError(name + " takes a value");
    }
    if (name == "--predictions") {
      options.predictions = arguments[i];
    } else if (name == "--json") {
      options.json = arguments[i];
    } else {
      options.threads = parse_threads(arguments[i]);
    }
  }
  if (paths.size() != 2) {
    throw UsageError("expected MODEL and TEST_SET, got " + std::to_string(paths.size()) + " paths");
  }
  options.model = paths[0];
  options.test_set = paths[1];
  return options;
}

void check_exists(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) {
    throw std::runtime_error("there is no file " + path);
  }
}

// Opened before the evaluation, so that a path that cannot be written costs no time.
std::ofstream open_for_writing(const std::string& path) {
  std::ofstream file(path);
  if (!file) {
    throw std::runtime_error("cannot write " + path);
  }
  return file;
}

// What LibTorch says of a file, which is about archives and records: the first line is enough.
std::runtime_error cannot_load(const std::string& path, const std::exception& error) {
  const std::string message = error.what();
  return std::runtime_error("cannot load " + path + ": " + message.substr(0, message.find('\n')));
}

TestSet load_test_set(const std::string& path) {
  check_exists(path);
  c10::IValue value;
  try {
    std::ifstream file(path, std::ios::binary);
    value = torch::jit::pickle_load({std::istreambuf_iterator<char>(file), {}});
  } catch (const std::exception& error) {
    throw cannot_load(path, error);
  }
  const auto tensor = [&](const char* name) {
    if (value.isGenericDict()) {
      const auto entries = value.toGenericDict();
      const auto entry = entries.find(name);
      if (entry != entries.end() && entry->value().isTensor()) {
        return entry->value().toTensor();
      }
    }
    return at::Tensor();
  };
  const TestSet test_set{tensor("images"), tensor("labels")};
  const auto& [images, labels] = test_set;
  if (!images.defined() || images.scalar_type() != at::kFloat || images.dim() != 4 ||
      !labels.defined() || labels.scalar_type() != at::kLong || labels.dim() != 1 ||
      labels.size(0) != images.size(0) || labels.size(0) == 0) {
    throw std::runtime_error("the test set " + path +
                             " must be a dict with float32 images [N, C, H, W] and int64 labels "
                             "[N], N >= 1");
  }
  return test_set;
}

torch::jit::Module load_model(const std::string& path) {
  check_exists(path);
  try {
    torch::jit::Module model = torch::jit::load(path);
    model.eval();
    return model;
  } catch (const std::exception& error) {
    throw cannot_load(path, error);
  }
}

at::Tensor predict(torch::jit::Module& model, const at::Tensor& images) {
  std::vector<at::Tensor> classes;
  for (const at::Tensor& batch : images.split(kEvaluationBatch)) {
    const at::Tensor scores = model.forward({batch}).toTensor();
    if (scores.dim() != 2 || scores.size(0) != batch.size(0)) {
      throw std::runtime_error("the model must return scores [N, classes], one row for each image");
    }
    classes.push_back(scores.argmax(1));
  }
  return at::cat(classes);
}

// Seconds per call, over as many calls as fill a round.
double mean_seconds(torch::jit::Module& model, const at::Tensor& batch) {
  const auto start = std::chrono::steady_clock::now();
  std::chrono::duration<double> elapsed{};
  int calls = 0;
  for (; elapsed.count() < kRoundSeconds; ++calls) {
    model.forward({batch});
    elapsed = std::chrono::steady_clock::now() - start;
  }
  return elapsed.count() / calls;
}

// Median over the rounds of the seconds that a call takes.
double median_seconds(torch::jit::Module& model, const at::Tensor& batch) {
  for (int i = 0; i < kWarmUps; ++i) {  // TorchScript optimizes in its first calls
    model.forward({batch});
  }
  std::vector<double> samples(kRounds);
  for (double& sample : samples) {
    sample = mean_seconds(model, batch);
  }
  std::nth_element(samples.begin(), samples.begin() + kRounds / 2, samples.end());
  return samples[kRounds / 2];
}

void run(const Options& options) {
  if (options.threads) {
    at::set_num_threads(*options.threads);
  }
  const TestSet test_set = load_test_set(options.test_set);
  torch::jit::Module model = load_model(options.model);
  std::ofstream predictions_file;
  std::ofstream json_file;
  if (options.predictions) {
    predictions_file = open_for_writing(*options.predictions);
  }
  if (options.json) {
    json_file = open_for_writing(*options.json);
  }

  const c10::InferenceMode inference_mode;
  const at::Tensor classes = predict(model, test_set.images);
  const int64_t count = classes.numel();
  const int64_t correct = classes.eq(test_set.labels).sum().item<int64_t>();
  const double accuracy = static_cast<double>(correct) / static_cast<double>(count);
  std::cout << "accuracy " << std::fixed << std::setprecision(2) << 100.0 * accuracy << " % ("
            << correct << " of " << count << ")\n";

  if (options.predictions) {
    const int64_t* begin = classes.const_data_ptr<int64_t>();
    std::copy(begin, begin + count, std::ostream_iterator<int64_t>(predictions_file, "\n"));
    if (!predictions_file.flush()) {
      throw std::runtime_error("cannot write " + *options.predictions);
    }
  }
  if (options.json) {
    const int64_t large = std::min<int64_t>(64, count);
    const double one = median_seconds(model, test_set.images.narrow(0, 0, 1));
    const double many = median_seconds(model, test_set.images.narrow(0, 0, large));
    const double rate = static_cast<double>(large) / many;
    std::cout << std::setprecision(3) << one * 1e3 << " ms an image at batch 1, "
              << std::setprecision(0) << rate << " images/s at batch " << large << "\n";
    json_file << std::setprecision(9) << "{\"images\": " << count << ", \"correct\": " << correct
              << ", \"accuracy\": " << accuracy << ", \"threads\": " << at::get_num_threads()
              << ", \"ms_per_image_batch_1\": " << one * 1e3
              << ", \"images_per_second_batch_64\": " << rate << "}\n";
    if (!json_file.flush()) {
      throw std::runtime_error("cannot write " + *options.json);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments == std::vector<std::string>{"--help"}) {
      std::cout << kUsage;
    } else {
      run(parse_options(arguments));
    }
    return 0;
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
