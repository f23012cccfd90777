#include "qatx/kernels/isa.h"

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "kernel_test.h"

namespace qatx::kernels {
namespace {

constexpr Isa kIsas[] = {Isa::reference, Isa::avx2, Isa::avx512, Isa::vnni, Isa::amx};

bool in_table(Isa isa) {
  for (const Kernels& row : all()) {
    if (row.isa == isa) return true;
  }
  return false;
}

TEST(KernelTableTest, CoversEveryInstructionSetOfThisCpu) {
  std::printf("kernels of these instruction sets are tested:");
  for (const Kernels* row : usable_rows()) std::printf(" %s", std::string(name(row->isa)).c_str());
  std::printf("\n");
  for (const Isa isa : kIsas) {
    if (isa <= detect_isa()) {
      EXPECT_TRUE(in_table(isa)) << "this CPU has " << name(isa) << ", the table has not";
    }
  }
}

TEST(KernelTableTest, HasTheBestRowFirstAndTheReferenceLast) {
  for (size_t i = 1; i < all().size(); ++i) EXPECT_GT(all()[i - 1].isa, all()[i].isa);
  EXPECT_EQ(all().back().isa, Isa::reference);
}

TEST(KernelTableTest, HasNoEmptyEntries) {
  for (const Kernels& row : all()) {
    const auto complete = [](const auto& k) {
      return k.forward_runs && k.forward_rows && k.backward_runs && k.backward_rows &&
             k.quantize_runs && k.quantize_rows && k.dequantize_runs && k.dequantize_rows &&
             k.clip_backward_runs && k.clip_backward_rows && k.range_runs && k.range_rows &&
             k.prepare;
    };
    EXPECT_TRUE(complete(row.fake_quantize.f32) && complete(row.fake_quantize.bf16) &&
                complete(row.fake_quantize.f16) && complete(row.fake_quantize_f64) &&
                row.fake_quantize.noise);
    EXPECT_TRUE(row.gemm.block > 0 && row.gemm.row_tile > 0 && row.gemm.block_bytes &&
                row.gemm.pack && row.gemm.run);
    EXPECT_TRUE(row.depthwise.block > 0 && row.depthwise.packed_bytes && row.depthwise.pack &&
                row.depthwise.run);
    EXPECT_TRUE(row.elementwise.quantize && row.elementwise.dequantize &&
                row.elementwise.quantize_to_nhwc && row.elementwise.dequantize_to_nchw &&
                row.elementwise.add);
    EXPECT_TRUE(row.pool.max && row.pool.average);
  }
}

// The variable is read once, so each of these runs in a process of its own.
class MaxIsaDeathTest : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

[[noreturn]] void print_active_with(const char* value) {
  if (value == nullptr) {
    unsetenv("QATX_MAX_ISA");
  } else {
    setenv("QATX_MAX_ISA", value, 1);
  }
  try {
    const Isa isa = max_isa();
    std::fprintf(stderr, "max_isa=%s active=%s", std::string(name(isa)).c_str(),
                 std::string(name(active().isa)).c_str());
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "runtime_error: %s", error.what());
  }
  std::exit(0);
}

TEST_F(MaxIsaDeathTest, IsTheBestSetByDefault) {
  const std::string best(name(detect_isa()));
  EXPECT_EXIT(print_active_with(nullptr), ::testing::ExitedWithCode(0),
              "max_isa=" + best + " active=" + best);
}

TEST_F(MaxIsaDeathTest, IsCappedByTheVariable) {
  for (const Isa isa : kIsas) {
    if (isa > detect_isa()) continue;
    const std::string cap(name(isa));
    EXPECT_EXIT(print_active_with(cap.c_str()), ::testing::ExitedWithCode(0),
                "max_isa=" + cap + " active=" + cap);
  }
}

TEST_F(MaxIsaDeathTest, NamesTheVariableItsValueAndWhatIsAllowed) {
  const std::string best(name(detect_isa()));
  for (const char* value : {"avx9", "AVX2", ""}) {
    EXPECT_EXIT(
        print_active_with(value), ::testing::ExitedWithCode(0),
        std::string("runtime_error: QATX_MAX_ISA is \"") + value + "\".*allow: reference.*" + best);
  }
}

TEST_F(MaxIsaDeathTest, RefusesASetThatThisCpuLacks) {
  for (const Isa isa : kIsas) {
    if (isa <= detect_isa()) continue;
    EXPECT_EXIT(print_active_with(std::string(name(isa)).c_str()), ::testing::ExitedWithCode(0),
                "runtime_error: QATX_MAX_ISA is \"" + std::string(name(isa)) + "\"");
  }
}

}  // namespace
}  // namespace qatx::kernels
