#include "qatx/model/calibrate.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <exception>
#include <limits>

#include "qatx/core/text.h"
#include "qatx/model/fake_quantizes.h"
#include "qatx/model/table.h"
#include "qatx/nn/listener.h"
#include "qatx/observers/calibration_checks.h"

namespace qatx {
namespace {

using FakeQuantizes = decltype(fake_quantizes_of(std::declval<torch::nn::Module&>()));

// What fake quantizers were, for the case that calibration fails.
class Before {
 public:
  explicit Before(const FakeQuantizes& fake_quantizes) : fake_quantizes_(fake_quantizes) {
    for (const auto& [path, f] : fake_quantizes) {
      saved_.push_back(std::dynamic_pointer_cast<nn::FakeQuantizeImpl>(f->clone()));
    }
  }

  void restore() const {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < saved_.size(); ++i) {
      nn::FakeQuantizeImpl& f = *fake_quantizes_[i].second;
      const auto copy = [](auto to, const auto& from) {
        for (const auto& item : from) to[item.key()].copy_(item.value());
      };
      copy(f.named_parameters(), saved_[i]->named_parameters());
      copy(f.named_buffers(), saved_[i]->named_buffers());
      f.set_extra_state(saved_[i]->extra_state());
    }
  }

 private:
  const FakeQuantizes& fake_quantizes_;
  std::vector<std::shared_ptr<nn::FakeQuantizeImpl>> saved_;
};

// Of the first batch only: channels that stand out do so for all data, and a look at them is a
// second read of each tensor.
class FirstBatch : public nn::Listener {
 public:
  FirstBatch(const ModulePaths& paths, ChannelCheck& check) : paths_(paths), check_(check) {}

  void enter(const torch::nn::Module& module, at::TensorList inputs) override {
    const auto* f = module.as<nn::FakeQuantizeImpl>();
    if (f && f->options.role() == nn::Role::kActivation) {
      check_.add_activation(paths_.at(&module), inputs[0]);
    }
  }

 private:
  const ModulePaths& paths_;
  ChannelCheck& check_;
};

std::vector<MovingCheck::Range> ranges_of(const FakeQuantizes& fake_quantizes) {
  std::vector<MovingCheck::Range> ranges;
  for (const auto& [path, f] : fake_quantizes) {
    if (f->observer()) ranges.push_back({path, f->observer()->min(), f->observer()->max()});
  }
  return ranges;
}

// What calibration warns of is seen while the data run.
struct Watched {
  DataCheck data;
  MovingCheck moving;
  ChannelCheck channels;
};

// Runs the model on all data, or until there were options.num_samples().
void feed(const Model& model, const Batches& data, const CalibrationOptions& options,
          const FakeQuantizes& fake_quantizes, Watched& watched) {
  const ModulePaths paths = paths_of(model.module());
  bool first = true;
  data.for_each([&](const at::Tensor& batch) {
    std::optional<FirstBatch> listener;
    if (first) listener.emplace(paths, watched.channels);
    first = false;
    model.forward({batch});
    watched.data.add(batch);
    watched.moving.add(watched.data.samples(), ranges_of(fake_quantizes));
    return !options.num_samples() || watched.data.samples() < *options.num_samples();
  });
  TORCH_CHECK_VALUE(!first, "qatx.calibrate: data is empty; give at least one batch");
}

std::vector<Observer*> observers_of(const FakeQuantizes& fake_quantizes) {
  std::vector<Observer*> observers;
  for (const auto& [path, f] : fake_quantizes) {
    if (f->observer()) observers.push_back(&*f->observer());
  }
  return observers;
}

// The histogram of an activation, or of a whole weight.
Observer observed(const nn::FakeQuantizeImpl& f) {
  if (f.observer()) return *f.observer();
  Observer observer{QuantSpec()};
  if (f.last_weight().defined()) observer.observe(f.last_weight().cpu());
  return observer;
}

CalibrationRow finish(const std::string& path, nn::FakeQuantizeImpl& f,
                      const CalibrationOptions& options) {
  const bool is_weight = f.options.role() == nn::Role::kWeight;
  const std::string method =
      is_weight || !options.method() ? f.options.range_method() : *options.method();
  const Observer observer = observed(f);
  ChosenRange choice = f.finish_calibration(method, options.percentile(), options.norm());
  const auto total = [](const at::Tensor& t) { return t.sum().item<int64_t>(); };
  return {.name = path,
          .role = f.options.role(),
          .spec = f.options.spec(),
          .method = method,
          .choice = std::move(choice),
          .min = observer.min().min().item<double>(),
          .max = observer.max().max().item<double>(),
          .count = total(observer.count()),
          .nan_count = total(observer.nan_count()),
          .inf_count = total(observer.inf_count())};
}

std::vector<CalibrationRow> finish(const FakeQuantizes& fake_quantizes,
                                   const CalibrationOptions& options) {
  std::vector<CalibrationRow> rows;
  std::string problems;
  for (const auto& [path, f] : fake_quantizes) {
    try {
      rows.push_back(finish(path, *f, options));
    } catch (const c10::ValueError& error) {
      problems += (problems.empty() ? "" : "; ") + (path.empty() ? "the model" : path) + ": " +
                  error.what_without_backtrace();
    }
  }
  TORCH_CHECK_VALUE(problems.empty(), "qatx.calibrate: ", problems);
  return rows;
}

std::string interval(double low, double high) { return fmt::format("[{:.4g}, {:.4g}]", low, high); }

}  // namespace

double CalibrationRow::clipped_share() const { return choice.clipped_share.mean().item<double>(); }

double CalibrationRow::sqnr() const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double noise = choice.error.sum().item<double>();
  const double signal = choice.mean_square.sum().item<double>();
  if (noise == 0.0) return kInfinity;
  return signal > 0.0 ? 10.0 * std::log10(signal / noise) : -kInfinity;
}

std::ostream& operator<<(std::ostream& stream, const CalibrationReport& report) {
  Table table({{"tensor"},
               {"bits", true},
               {"values", true},
               {"seen", true},
               {"method"},
               {"range", true},
               {"clipped", true},
               {"SQNR [dB]", true}});
  for (const CalibrationRow& row : report.rows) {
    std::string values = with_commas(row.count);
    if (row.nan_count) values += fmt::format(" (and {} NaN)", with_commas(row.nan_count));
    if (row.inf_count) values += fmt::format(" (and {} Inf)", with_commas(row.inf_count));
    table.add_row(
        {row.name, std::to_string(row.spec.bits()), std::move(values), interval(row.min, row.max),
         row.method,
         interval(row.choice.low.min().item<double>(), row.choice.high.max().item<double>()),
         fmt::format("{:.3f}%", 100.0 * row.clipped_share()), fmt::format("{:.1f}", row.sqnr())});
  }
  stream << table.text()
         << fmt::format("Calibrated with {} samples. SQNR: expected, of the histogram.\n",
                        with_commas(report.samples));
  for (const std::string& warning : report.warnings) stream << "Warning: " << warning << "\n";
  return stream;
}

CalibrationReport calibrate(const Model& model, const Batches& data,
                            const CalibrationOptions& options) {
  const FakeQuantizes fake_quantizes = fake_quantizes_of(model.module());
  TORCH_CHECK_VALUE(!fake_quantizes.empty(),
                    "qatx.calibrate: the model has nothing to calibrate; call qatx.prepare first");
  if (options.method()) check_range_method("qatx.calibrate", "method", *options.method());
  TORCH_CHECK_VALUE(!options.num_samples() || *options.num_samples() >= 1,
                    "qatx.calibrate: num_samples must be at least 1, got ",
                    options.num_samples().value_or(0));
  const at::NoGradGuard no_grad;
  Watched watched;
  CalibrationReport report;
  const Before before(fake_quantizes);
  try {
    const EvaluationMode evaluation(model.module());
    for (const auto& [path, f] : fake_quantizes) f->begin_calibration();
    std::exception_ptr failure;
    try {
      feed(model, data, options, fake_quantizes, watched);
    } catch (...) {
      failure = std::current_exception();
    }
    // Or the other ranks would wait for this one.
    const int64_t failures = sum_over_ranks(options.all_gather(), failure ? 1 : 0);
    if (failure) std::rethrow_exception(failure);
    TORCH_CHECK(failures == 0, "qatx.calibrate: ", failures, " other ranks have failed");
    merge_over_ranks(options.all_gather(), observers_of(fake_quantizes));
    report.rows = finish(fake_quantizes, options);
    report.samples = sum_over_ranks(options.all_gather(), watched.data.samples());
  } catch (...) {
    before.restore();
    throw;
  }
  for (const CalibrationRow& row : report.rows) {
    if (row.role == nn::Role::kWeight) {
      watched.channels.add_weight(row.name, row.choice.low, row.choice.high);
    }
  }
  for (const auto& problems : {few_samples_problems(report.samples), watched.data.problems(),
                               watched.moving.problems(), watched.channels.problems()}) {
    report.warnings.insert(report.warnings.end(), problems.begin(), problems.end());
  }
  for (const std::string& warning : report.warnings) TORCH_WARN("qatx.calibrate: ", warning);
  return report;
}

}  // namespace qatx
