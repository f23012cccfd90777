#include "qatx/observers/ranks.h"

#include <ATen/ATen.h>

#include "../tensor_testing.h"

namespace qatx {
namespace {

using testing::Random;
using testing::random_floats;

const QuantSpec kPerChannel(8, true, true, 0);

// The observers of a rank: of a tensor, and of a tensor with three channels.
std::vector<Observer> observers_of(const std::vector<at::Tensor>& batches) {
  std::vector<Observer> observers{Observer{QuantSpec()}, Observer(kPerChannel, {3})};
  for (const at::Tensor& x : batches) {
    for (Observer& observer : observers) observer.observe(x);
  }
  return observers;
}

at::Tensor state_of(const std::vector<Observer>& observers) {
  return at::cat({observers[0].state().flatten(), observers[1].state().flatten()});
}

TEST(RanksTest, EachRankGetsWhatOneThatSawEverythingHas) {
  Random random(1);
  std::vector<at::Tensor> batches;
  std::vector<at::Tensor> states;
  for (const float largest : {1e-3f, 8.0f, 300.0f}) {  // other widths of bins on each rank
    batches.push_back(random_floats(random, {3, 500}, -largest, largest / 3));
    states.push_back(state_of(observers_of({batches.back()})));
  }
  const at::Tensor expected = state_of(observers_of(batches));
  for (const at::Tensor& batch : batches) {
    std::vector<Observer> own = observers_of({batch});
    merge_over_ranks([&](const at::Tensor&) { return states; }, {&own[0], &own[1]});
    EXPECT_TRUE(at::equal(state_of(own), expected));
  }
}

TEST(RanksTest, AddsUpNumbers) {
  const auto others = [](const at::Tensor& own) {
    return std::vector<at::Tensor>{own + 5, own, own - 1};
  };
  EXPECT_EQ(sum_over_ranks(others, 7), 12 + 7 + 6);
}

TEST(RanksTest, WithoutOtherRanksNothingHappens) {
  std::vector<Observer> own = observers_of({at::ones({3, 2})});
  const at::Tensor before = state_of(own);
  merge_over_ranks(nullptr, {&own[0], &own[1]});
  EXPECT_TRUE(at::equal(state_of(own), before));
  EXPECT_EQ(sum_over_ranks(nullptr, 7), 7);
}

TEST(RanksTest, NamesWhatIsWrong) {
  using Tensors = std::vector<at::Tensor>;
  std::vector<Observer> own = observers_of({at::ones({3, 2})});
  const at::Tensor before = state_of(own);
  const auto merge_with = [&](const AllGather& all_gather) {
    merge_over_ranks(all_gather, {&own[0], &own[1]});
  };
  EXPECT_ERROR(c10::ValueError, "that of this rank is not among the 1 that it returned",
               merge_with([](const at::Tensor& t) { return Tensors{t + 1}; }));
  EXPECT_ERROR(c10::ValueError, "is not among the 0 that it returned",
               merge_with([](const at::Tensor&) { return Tensors(); }));
  EXPECT_ERROR(c10::ValueError, "all_gather must return tensors like its argument (int64, [",
               merge_with([](const at::Tensor& t) { return Tensors{t, t.to(at::kFloat)}; }));
  EXPECT_ERROR(c10::ValueError, "got CPULongType of sizes [2]",
               merge_with([](const at::Tensor& t) { return Tensors{t, t.slice(0, 0, 2)}; }));
  EXPECT_ERROR(c10::ValueError, "got UndefinedType of sizes []",
               merge_with([](const at::Tensor& t) { return Tensors{t, {}}; }));
  EXPECT_ERROR(c10::ValueError, "state is damaged",
               merge_with([](const at::Tensor& t) { return Tensors{t, -t}; }));
  EXPECT_TRUE(at::equal(state_of(own), before));
}

}  // namespace
}  // namespace qatx
