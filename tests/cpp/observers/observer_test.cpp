#include "qatx/observers/observer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "../tensor_testing.h"
#include "qatx/observers/state.h"

namespace qatx {
namespace {

using testing::floats;
using testing::Random;
using testing::random_floats;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const QuantSpec kSpec(8, false, false);

bool same_state(const Observer& a, const Observer& b) { return a.state().equal(b.state()); }

// Values whose magnitudes differ by up to 2^40.
at::Tensor wide_values(Random& random, int64_t n) {
  at::Tensor x = at::empty({n}, at::kFloat);
  auto* values = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) {
    values[i] = std::ldexp(random.real(-1.0f, 1.0f), static_cast<int>(random.integer(-20, 20)));
  }
  return x;
}

TEST(Observer, CountsEachValueInItsBin) {
  Observer observer(kSpec, {}, 16);
  // The largest magnitude, 12, needs bins of width 1.
  observer.observe(floats({0.0f, 0.5f, -0.5f, -0.0f, 12.0f, 11.99f, -3.0f, 3.0f}));
  std::vector<int64_t> expected(32, 0);
  expected[16] = 3;
  expected[15] = 1;
  expected[16 + 12] = 1;
  expected[16 + 11] = 1;
  expected[16 - 1 - 3] = 1;
  expected[16 + 3] = 1;
  const at::Tensor histogram = observer.histogram();
  for (int64_t i = 0; i < 32; ++i) {
    EXPECT_EQ(histogram[0][i].item<int64_t>(), expected[static_cast<size_t>(i)]) << i;
  }
  EXPECT_EQ(observer.bin_width().item<double>(), 1.0);
  EXPECT_EQ(observer.min().item<double>(), -3.0);
  EXPECT_EQ(observer.max().item<double>(), 12.0);
  EXPECT_EQ(observer.count().item<int64_t>(), 8);
}

TEST(Observer, GrowsWithoutLosingCounts) {
  Observer grown(kSpec);
  Observer at_once(kSpec);
  Random random(1);
  const at::Tensor small = random_floats(random, {5000}, -1.0f, 1.0f);
  const at::Tensor large = random_floats(random, {5000}, -3000.0f, 100.0f);
  grown.observe(small);
  grown.observe(large);
  at_once.observe(large);
  at_once.observe(small);
  EXPECT_TRUE(grown.histogram().equal(at_once.histogram()));
  EXPECT_EQ(grown.histogram().sum().item<int64_t>(), 10000);
  EXPECT_TRUE(same_state(grown, at_once));
}

TEST(Observer, OrderMergingAndThreadsDoNotMatter) {
  Random random(2);
  std::vector<at::Tensor> batches;
  for (const int64_t n : {1, 10, 70000, 4096, 300000}) batches.push_back(wide_values(random, n));
  Observer expected(kSpec);
  {
    const testing::Threads threads(1);
    for (const at::Tensor& batch : batches) expected.observe(batch);
  }
  for (const int count : {1, 2, 5}) {
    const testing::Threads threads(count);
    Observer backwards(kSpec);
    for (auto batch = batches.rbegin(); batch != batches.rend(); ++batch) {
      backwards.observe(*batch);
    }
    EXPECT_TRUE(same_state(backwards, expected)) << count;
    Observer first(kSpec);
    Observer second(kSpec);
    for (size_t i = 0; i < batches.size(); ++i) (i % 2 == 0 ? first : second).observe(batches[i]);
    Observer merged = Observer(kSpec);
    merged.merge(second);
    merged.merge(first);
    EXPECT_TRUE(same_state(merged, expected)) << count;
  }
}

TEST(Observer, MergingLeavesTheOtherAlone) {
  Observer small(kSpec);
  Observer large(kSpec);
  small.observe(floats({0.001f}));
  large.observe(floats({1000.0f}));
  const at::Tensor before = small.state().clone();
  large.merge(small);
  EXPECT_TRUE(small.state().equal(before));
  EXPECT_EQ(large.count().item<int64_t>(), 2);
}

TEST(Observer, CountsBeyond32Bits) {
  Observer observer(kSpec, {}, 16);
  observer.observe(floats({1.0f, 1.0f, 2.0f}));
  for (int i = 0; i < 40; ++i) {
    const Observer copy = observer;
    observer.merge(copy);
  }
  EXPECT_EQ(observer.count().item<int64_t>(), int64_t{3} << 40);
  EXPECT_EQ(observer.histogram().max().item<int64_t>(), int64_t{2} << 40);
  EXPECT_EQ(observer.mean_magnitude().item<double>(), 4.0 / 3.0);
}

TEST(Observer, LeavesOutAndCountsWhatIsNotFinite) {
  Observer observer(kSpec);
  observer.observe(floats({kNan, 1.0f, kInf, -kInf, kNan, -2.0f}));
  observer.observe(floats({kNan, kInf}));
  EXPECT_EQ(observer.count().item<int64_t>(), 2);
  EXPECT_EQ(observer.nan_count().item<int64_t>(), 3);
  EXPECT_EQ(observer.inf_count().item<int64_t>(), 3);
  EXPECT_EQ(observer.min().item<double>(), -2.0);
  EXPECT_EQ(observer.max().item<double>(), 1.0);
  EXPECT_EQ(observer.mean_magnitude().item<double>(), 1.5);
}

TEST(Observer, ExtremeMagnitudesHaveBins) {
  const float largest = std::numeric_limits<float>::max();
  const float denormal = std::numeric_limits<float>::denorm_min();
  Observer observer(QuantSpec(8, true, true));
  observer.observe(floats({denormal, -denormal}));
  EXPECT_EQ(observer.count().item<int64_t>(), 2);
  EXPECT_EQ(observer.max().item<double>(), static_cast<double>(denormal));
  observer.observe(floats({largest, -largest}));
  const at::Tensor histogram = observer.histogram()[0];
  EXPECT_EQ(histogram[0].item<int64_t>(), 1);
  EXPECT_EQ(histogram[-1].item<int64_t>(), 1);
  EXPECT_EQ(histogram[Observer::kBins].item<int64_t>(), 1);
  EXPECT_EQ(histogram[Observer::kBins - 1].item<int64_t>(), 1);
  Observer doubles(kSpec);
  doubles.observe(at::full({3}, 1e300, at::kDouble));
  EXPECT_EQ(doubles.max().item<double>(), 1e300);
  EXPECT_EQ(doubles.histogram().sum().item<int64_t>(), 3);
}

TEST(Observer, EveryChannelIsAnObserverOfItsOwn) {
  Random random(4);
  const at::Tensor x = random_floats(random, {3, 5, 7, 2}, -4.0f, 4.0f);
  for (const int64_t axis : {0, 1, 3, -2}) {
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      const QuantSpec spec(8, true, true, axis);
      Observer observer(spec, spec.scale_shape(x.sizes()), 256);
      observer.observe(x.contiguous(format));
      for (int64_t c = 0; c < x.size(axis); ++c) {
        Observer single(kSpec, {}, 256);
        single.observe(x.select(axis, c));
        EXPECT_TRUE(observer.histogram()[c].equal(single.histogram()[0])) << axis << " " << c;
        EXPECT_EQ(observer.min()[c].item<double>(), single.min().item<double>());
      }
    }
  }
}

TEST(Observer, EveryGroupIsAnObserverOfItsOwn) {
  Random random(5);
  const at::Tensor x = random_floats(random, {3, 10, 2}, -4.0f, 4.0f);
  const QuantSpec spec(4, true, true, 1, false, 4);
  Observer observer(spec, spec.scale_shape(x.sizes()));
  observer.observe(x);
  const ChosenRange chosen = observer.choose(spec, "min_max");
  ASSERT_EQ(chosen.low.sizes(), (std::vector<int64_t>{3, 3, 2}));
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t group = 0; group < 3; ++group) {
      for (int64_t j = 0; j < 2; ++j) {
        const at::Tensor part = x.select(0, i).select(1, j).slice(0, 4 * group, 4 * group + 4);
        EXPECT_EQ(chosen.low[i][group][j].item<float>(), part.min().item<float>());
        EXPECT_EQ(chosen.high[i][group][j].item<float>(), part.max().item<float>());
        EXPECT_EQ(observer.count()[i][group][j].item<int64_t>(), part.numel());
      }
    }
  }
}

TEST(Observer, OneTensorNeedsNoObserver) {
  Random random(6);
  const at::Tensor x = random_floats(random, {6, 900}, -4.0f, 4.0f);
  const QuantSpec spec(4, true, true, 0);
  Observer observer(spec, {6});
  observer.observe(x);
  for (const std::string& method : range_method_names()) {
    const ChosenRange expected = observer.choose(spec, method);
    const ChosenRange actual = Observer::choose_for(x, spec, method);
    EXPECT_TRUE(actual.low.equal(expected.low)) << method;
    EXPECT_TRUE(actual.high.equal(expected.high)) << method;
    EXPECT_TRUE(actual.error.equal(expected.error)) << method;
  }
}

TEST(Observer, ElementTypesAreObservedAsTheyAre) {
  Random random(7);
  const at::Tensor x = random_floats(random, {9000}, -4.0f, 4.0f);
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    Observer narrow(kSpec);
    Observer widened(kSpec);
    narrow.observe(x.to(dtype));
    widened.observe(x.to(dtype).to(at::kFloat));
    EXPECT_TRUE(same_state(narrow, widened)) << dtype;
  }
  Observer floats_seen(kSpec);
  Observer doubles_seen(kSpec);
  floats_seen.observe(x);
  doubles_seen.observe(x.to(at::kDouble));
  EXPECT_TRUE(floats_seen.histogram().equal(doubles_seen.histogram()));
}

TEST(Observer, EmptyTensorsChangeNothing) {
  Observer observer(kSpec);
  const at::Tensor before = observer.state().clone();
  observer.observe(at::zeros({0, 4}));
  EXPECT_TRUE(observer.state().equal(before));
}

TEST(Observer, StateIsSavedAndRestored) {
  Observer observer(kSpec);
  observer.observe(floats({1.0f, -2.0f}));
  Observer other(kSpec);
  other.set_state(observer.state());
  other.observe(floats({5.0f}));
  EXPECT_EQ(observer.count().item<int64_t>(), 2);
  observer.observe(floats({5.0f}));
  EXPECT_TRUE(same_state(other, observer));
  at::Tensor damaged = observer.state().clone();
  damaged[0][kStateWords] += 1;
  EXPECT_ERROR(c10::ValueError, "state is damaged", other.set_state(damaged));
  EXPECT_ERROR(c10::ValueError, "state must have shape", other.set_state(damaged.slice(1, 1)));
  EXPECT_ERROR(c10::TypeError, "state must be int64", other.set_state(damaged.to(at::kInt)));
  EXPECT_TRUE(same_state(other, observer));
}

TEST(Observer, RefusesWhatItCannotObserve) {
  Observer observer(QuantSpec(8, true, true, 0), {3});
  EXPECT_ERROR(c10::TypeError, "x must be float32", observer.observe(at::zeros({3}, at::kLong)));
  EXPECT_ERROR(c10::ValueError, "x must have scales of shape [3]",
               observer.observe(at::zeros({4})));
  EXPECT_ERROR(c10::ValueError, "bins must be a power of two", Observer(kSpec, {}, 100));
  EXPECT_ERROR(c10::ValueError, "scale_shape must be", Observer(kSpec, {3}));
  EXPECT_ERROR(c10::ValueError, "other must have 512 bins", observer.merge(Observer(kSpec)));
  EXPECT_ERROR(c10::ValueError, "spec must have the axis", observer.choose(kSpec, "kl"));
  observer.observe(floats({1.0f, kNan, kInf}));
  EXPECT_ERROR(c10::ValueError, "no finite value was observed in 2 of 3 channels",
               observer.choose(QuantSpec(8, true, true, 0), "kl"));
}

}  // namespace
}  // namespace qatx
