#include "qatx/observers/ranks.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

namespace qatx {
namespace {

std::vector<at::Tensor> gathered(const AllGather& all_gather, const at::Tensor& own) {
  std::vector<at::Tensor> all = all_gather(own);
  for (at::Tensor& of_rank : all) {
    TORCH_CHECK_VALUE(of_rank.defined() && of_rank.scalar_type() == own.scalar_type() &&
                          of_rank.sizes() == own.sizes(),
                      "all_gather must return tensors like its argument (int64, ", own.sizes(),
                      "), got ", of_rank.toString(), " of sizes ",
                      of_rank.defined() ? of_rank.sizes() : at::IntArrayRef());
    of_rank = of_rank.cpu();
  }
  TORCH_CHECK_VALUE(
      std::any_of(all.begin(), all.end(), [&](const at::Tensor& t) { return at::equal(t, own); }),
      "all_gather must return the tensors of all ranks; that of this rank is not among the ",
      all.size(), " that it returned");
  return all;
}

}  // namespace

int64_t sum_over_ranks(const AllGather& all_gather, int64_t value) {
  if (!all_gather) return value;
  int64_t sum = 0;
  for (const at::Tensor& of_rank : gathered(all_gather, at::full({1}, value, at::kLong))) {
    sum += of_rank.item<int64_t>();
  }
  return sum;
}

void merge_over_ranks(const AllGather& all_gather, const std::vector<Observer*>& observers) {
  if (!all_gather || observers.empty()) return;
  std::vector<at::Tensor> states;
  std::vector<int64_t> words;
  std::vector<Observer> merged;
  const auto like = [](const Observer& o) { return Observer(o.spec(), o.scale_shape(), o.bins()); };
  for (const Observer* observer : observers) {
    states.push_back(observer->state().flatten());
    words.push_back(observer->state().numel());
    merged.push_back(like(*observer));
  }
  for (const at::Tensor& of_rank : gathered(all_gather, at::cat(states))) {
    const std::vector<at::Tensor> parts = of_rank.split_with_sizes(words);
    for (size_t i = 0; i < observers.size(); ++i) {
      Observer seen = like(*observers[i]);
      seen.set_state(parts[i].reshape(seen.state().sizes()));
      merged[i].merge(seen);
    }
  }
  for (size_t i = 0; i < observers.size(); ++i) *observers[i] = std::move(merged[i]);
}

}  // namespace qatx
