#include "qatx/kernels/gemm.h"

#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/grid_cursor.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/packing.h"
#include "qatx/kernels/reference/epilogue.h"

namespace qatx::kernels {
namespace {

constexpr int64_t kBlock = 64;

int64_t block_bytes(int64_t segments, int64_t k) { return kBlock * segments * k; }

// Weights stay in their order; zeros fill the last block up.
struct Order {
  static constexpr int64_t kRun = 1;

  template <class Visit>
  static void visit(int64_t n, int64_t segments, int64_t k, const Visit& visit) {
    const int64_t count = n * segments * k;
    const int64_t all = ceil_div(n, kBlock) * block_bytes(segments, k);
    for (int64_t i = 0; i < all; ++i) visit(i, i < count ? 1 : 0);
  }
};
using Weights = GemmPacking<Order>;

void run(const GemmArgs& args, int64_t block_begin, int64_t block_end) {
  const Grid& grid = args.grid;
  const int64_t products = grid.segments * args.k;
  const auto* weight =
      static_cast<const int8_t*>(args.weight) - args.first_block * kBlock * products;
  const int64_t end = block_end * kBlock < args.n ? block_end * kBlock : args.n;
  GridCursor cursor(grid);
  for (int64_t r = 0; r < grid.rows; ++r, cursor.advance()) {
    for (int64_t c = block_begin * kBlock; c < end; ++c) {
      int32_t acc = args.start[c];
      for (int64_t s = 0; s < grid.segments; ++s) {
        const uint8_t* input = cursor.row() + grid.offsets[s];
        for (int64_t i = 0; i < args.k; ++i) {
          acc += int32_t{input[i]} * int32_t{weight[c * products + s * args.k + i]};
        }
      }
      reference::finish(acc, r, c, out_offset(args.epilogue, grid, r) + c, args.epilogue);
    }
  }
}

}  // namespace

const GemmKernel reference::gemm = {kBlock, 1, 1, block_bytes, Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
