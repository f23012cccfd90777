#include "qatx/engine/recording.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>

#include <thread>

#include "../tensor_testing.h"
#include "qatx/engine/program.h"

namespace qatx::engine {
namespace {

using testing::same_bits;

// Quantizes images in steps of 0.5 from a zero point of 3, and gives back what the codes stand for.
Program quantizer() {
  Graph graph;
  const int64_t input = graph.add_value(std::nullopt);
  const int64_t codes = graph.add_value(make_qparams(0.5, 3, 0, 255), "stem.output_fake_quantize");
  const int64_t output = graph.add_value(std::nullopt);
  graph.inputs = {input};
  graph.outputs = {output};
  graph.nodes = {{.op = "quantize", .name = "q", .inputs = {input}, .output = codes},
                 {.op = "dequantize", .name = "d", .inputs = {codes}, .output = output}};
  return Program(std::move(graph));
}

TEST(RecordingTest, KeepsWhatCodesStandForWhileItLives) {
  const Program program = quantizer();
  const at::Tensor x = at::randn({2, 3, 4, 5});
  EXPECT_EQ(Recording::active(), nullptr);
  {
    const Recording recording;
    const at::Tensor y = program.run({x}).at(0);
    ASSERT_EQ(recording.entries().size(), 1u);
    const Recording::Entry& entry = recording.entries()[0];
    EXPECT_EQ(entry.name, "stem.output_fake_quantize");
    EXPECT_EQ(entry.scale, 0.5);
    EXPECT_TRUE(same_bits(entry.value.contiguous(), y.contiguous()));
  }
  EXPECT_EQ(Recording::active(), nullptr);
}

TEST(RecordingTest, BelongsToItsThread) {
  const Program program = quantizer();
  const Recording recording;
  std::thread([&] { program.run({at::ones({1, 1, 1, 1})}); }).join();
  EXPECT_TRUE(recording.entries().empty());
}

TEST(RecordingTest, TheInnermostOneRecords) {
  const Program program = quantizer();
  const Recording outer;
  {
    const Recording inner;
    program.run({at::ones({2})});
    EXPECT_EQ(inner.entries().size(), 1u);
  }
  EXPECT_TRUE(outer.entries().empty());
  program.run({at::ones({2})});
  EXPECT_EQ(outer.entries().size(), 1u);
}

}  // namespace
}  // namespace qatx::engine
