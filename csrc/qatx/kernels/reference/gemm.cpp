#include "qatx/kernels/gemm.h"

#include "qatx/kernels/grid_cursor.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/reference/epilogue.h"
#include "qatx/kernels/reference/plain_weights.h"

namespace qatx::kernels {
namespace {

constexpr int64_t kBlock = 16;

size_t packed_bytes(int64_t n, int64_t segments, int64_t k) {
  return reference::plain_bytes(n * segments * k);
}

void pack(const int8_t* weight, int64_t n, int64_t segments, int64_t k, void* packed) {
  reference::pack_plain(weight, n * segments * k, packed);
}

void run(const GemmArgs& args, int64_t block_begin, int64_t block_end) {
  const auto* weight = static_cast<const int8_t*>(args.weight);
  const Grid& grid = args.grid;
  const int64_t end = block_end * kBlock < args.n ? block_end * kBlock : args.n;
  GridCursor cursor(grid);
  for (int64_t r = 0; r < grid.rows; ++r, cursor.advance()) {
    for (int64_t c = block_begin * kBlock; c < end; ++c) {
      int32_t acc = args.start[c];
      for (int64_t s = 0; s < grid.segments; ++s) {
        const uint8_t* input = cursor.row() + grid.offsets[s];
        for (int64_t i = 0; i < args.k; ++i) {
          acc += int32_t{input[i]} * int32_t{weight[(c * grid.segments + s) * args.k + i]};
        }
      }
      reference::finish(acc, r, c, args.epilogue);
    }
  }
}

}  // namespace

const GemmKernel reference::gemm = {kBlock, 1, packed_bytes, pack, run};

}  // namespace qatx::kernels
