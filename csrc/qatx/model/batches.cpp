#include "qatx/model/batches.h"

#include <algorithm>

namespace qatx {

Batches::Batches(const at::Tensor& samples)
    : for_each_([samples](const Visit& visit) {
        constexpr int64_t kBatchSize = 64;
        TORCH_CHECK_VALUE(samples.defined() && samples.dim() > 0,
                          "samples must be a tensor whose first dimension counts them");
        for (int64_t begin = 0; begin < samples.size(0); begin += kBatchSize) {
          const int64_t size = std::min(kBatchSize, samples.size(0) - begin);
          if (!visit(samples.narrow(0, begin, size))) return;
        }
      }) {}

}  // namespace qatx
