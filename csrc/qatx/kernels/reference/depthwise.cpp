#include "qatx/kernels/depthwise.h"

#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/packing.h"
#include "qatx/kernels/reference/epilogue.h"
#include "qatx/kernels/window_cursor.h"

namespace qatx::kernels {
namespace {

size_t packed_bytes(int64_t channels, int64_t taps) {
  return static_cast<size_t>(ceil_div(channels * taps, 64) * 64);
}

// Weights stay in their order; zeros fill them up.
struct Order {
  static constexpr int64_t kRun = 1;

  template <class Visit>
  static void visit(int64_t channels, int64_t taps, const Visit& visit) {
    const int64_t count = channels * taps;
    const auto all = static_cast<int64_t>(packed_bytes(channels, taps));
    for (int64_t i = 0; i < all; ++i) visit(i, i < count ? 1 : 0);
  }
};
using Weights = DepthwisePacking<Order, int8_t>;

void run(const DepthwiseArgs& args, int64_t row_begin, int64_t row_end) {
  const auto* weight = static_cast<const int8_t*>(args.weight);
  const int64_t taps = args.window.taps;
  WindowCursor cursor(args.window, row_begin);
  for (int64_t r = row_begin; r < row_end; ++r, cursor.advance()) {
    for (int64_t c = 0; c < args.channels; ++c) {
      int32_t acc = args.start[c];
      for (int64_t t = 0; t < taps; ++t) {
        acc += int32_t{cursor.row().tap(t)[c]} * int32_t{weight[c * taps + t]};
      }
      reference::finish(acc, r, c, r * args.epilogue.out_stride + c, args.epilogue);
    }
  }
}

}  // namespace

const DepthwiseKernel reference::depthwise = {1, packed_bytes, Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
