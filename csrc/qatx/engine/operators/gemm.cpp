#include "qatx/engine/operators/gemm.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cmath>

#include "qatx/core/rounding.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

// Of weights that are decoded at a time: they stay in a cache close by.
constexpr int64_t kDecodedBytes = 64 * 1024;
// At least so many blocks are: a kernel may take some together.
constexpr int64_t kLeastBlocks = 2;

size_t round_up(int64_t n, int64_t block) {
  return static_cast<size_t>(kernels::ceil_div(n, block) * block);
}

at::Tensor allocate_packed(size_t bytes) {
  return at::empty({static_cast<int64_t>(bytes)}, at::kByte);
}

}  // namespace

LayerWeights read_layer_weights(const NodeReader& node, int64_t dim) {
  return read_layer_weights(node, dim, node.input(0).scale);
}

LayerWeights read_layer_weights(const NodeReader& node, int64_t dim, float input_scale) {
  at::Tensor weight = node.tensor("weight", at::kChar, dim);
  at::Tensor scale = node.tensor("weight_scale", at::kFloat, 1);
  at::Tensor bias = node.tensor("bias", at::kFloat, 1);
  const int64_t n = weight.size(0);
  TORCH_CHECK_VALUE(scale.numel() == n && bias.numel() == n, "qatx program: '", node.name(),
                    "': weight_scale and bias must have ", n,
                    " elements, one for each output "
                    "channel, got ",
                    scale.numel(), " and ", bias.numel());
  TORCH_CHECK_VALUE(weight.numel() / n <= kMostProducts, "qatx program: '", node.name(),
                    "': an output may sum at most ", kMostProducts, " products, has ",
                    weight.numel() / n);
  const float* s = scale.const_data_ptr<float>();
  const float* b = bias.const_data_ptr<float>();
  for (int64_t c = 0; c < n; ++c) {
    TORCH_CHECK_VALUE(is_valid_scale(s[c] * input_scale) && is_valid_scale(s[c]), "qatx program: '",
                      node.name(), "': weight_scale[", c,
                      "] times the input's scale must be in [2^-126, 2^126], got ", s[c], " times ",
                      input_scale);
    TORCH_CHECK_VALUE(std::isfinite(b[c]), "qatx program: '", node.name(), "': bias[", c,
                      "] must be finite, got ", b[c]);
  }
  const int64_t k = dim > 1 ? weight.size(1) : 1;
  const int64_t taps = weight.numel() / (n * k);
  return {weight.view({n, k, taps}).permute({0, 2, 1}).contiguous(), scale, bias};
}

at::Tensor to_node_weight(const at::Tensor& weight, at::IntArrayRef sizes) {
  const int64_t n = sizes[0];
  const int64_t k = sizes.size() > 1 ? sizes[1] : 1;
  return weight.view({n, -1, k}).permute({0, 2, 1}).contiguous().view(sizes);
}

ChannelTerms::ChannelTerms(const LayerWeights& weights, const kernels::QParams& input,
                           int64_t block) {
  const int64_t n = weights.weight.size(0);
  const int64_t products = weights.weight.numel() / n;
  const size_t padded = round_up(n, block);
  start_.assign(padded, 0);
  scale_.assign(padded, 1.0f);
  bias_.assign(padded, 0.0f);
  const int8_t* w = weights.weight.const_data_ptr<int8_t>();
  for (int64_t c = 0; c < n; ++c) {
    int32_t sum = 0;
    for (int64_t i = 0; i < products; ++i) sum += w[c * products + i];
    const auto i = static_cast<size_t>(c);
    start_[i] = -input.zero_point * sum;
    scale_[i] = input.scale * weights.weight_scale.const_data_ptr<float>()[c];
    bias_[i] = weights.bias.const_data_ptr<float>()[c];
  }
}

void ChannelTerms::set(kernels::Epilogue& epilogue) const {
  epilogue.scale = scale_.data();
  epilogue.bias = bias_.data();
}

PackedGemm::PackedGemm(const LayerWeights& weights, const kernels::QParams& input, int64_t groups)
    : kernel_(kernels::active().gemm),
      n_(weights.weight.size(0) / groups),
      segments_(weights.weight.size(1)),
      k_(weights.weight.size(2)),
      block_bytes_(kernel_.block_bytes(segments_, k_)) {
  for (int64_t g = 0; g < groups; ++g) {
    const auto part = [&](const at::Tensor& all) { return all.narrow(0, g * n_, n_).contiguous(); };
    const LayerWeights own{part(weights.weight), part(weights.weight_scale), part(weights.bias)};
    const at::Tensor packed = allocate_packed(kernels::packed_bytes(kernel_, n_, segments_, k_));
    kernel_.pack(own.weight.const_data_ptr<int8_t>(), n_, segments_, k_, packed.mutable_data_ptr());
    groups_.push_back({encode_bytes(packed), ChannelTerms(own, input, kernel_.block)});
  }
}

at::Tensor PackedGemm::unpack() const {
  at::Tensor weight = at::empty({n_ * groups(), segments_, k_}, at::kChar);
  const int64_t bytes = blocks() * block_bytes_;
  const at::Tensor packed = allocate_packed(static_cast<size_t>(bytes));
  for (int64_t g = 0; g < groups(); ++g) {
    decode_bytes(groups_[static_cast<size_t>(g)].packed, 0, bytes, packed.mutable_data_ptr());
    kernel_.unpack(packed.const_data_ptr(), n_, segments_, k_,
                   weight.mutable_data_ptr<int8_t>() + g * n_ * products());
  }
  return weight;
}

std::vector<at::Tensor*> PackedGemm::packed() {
  std::vector<at::Tensor*> tensors;
  for (Group& group : groups_) tensors.push_back(&group.packed.data);
  return tensors;
}

void PackedGemm::run_group(const Group& group, const kernels::Grid& grid,
                           const kernels::Epilogue& epilogue, int64_t block_begin,
                           int64_t block_end) const {
  kernels::GemmArgs args{
      grid, k_, n_, group.packed.data.const_data_ptr(), 0, group.terms.start(), epilogue};
  if (group.packed.codebook.empty()) {
    kernel_.run(args, block_begin, block_end);
    return;
  }
  const int64_t fit = std::max(kDecodedBytes / block_bytes_, kLeastBlocks);
  const int64_t together = std::min(fit, block_end - block_begin);
  const at::Tensor decoded = allocate_packed(static_cast<size_t>(together * block_bytes_));
  args.weight = decoded.const_data_ptr();
  for (int64_t block = block_begin; block < block_end; block += together) {
    const int64_t end = std::min(block + together, block_end);
    decode_bytes(group.packed, block * block_bytes_, (end - block) * block_bytes_,
                 decoded.mutable_data_ptr());
    args.first_block = block;
    kernel_.run(args, block, end);
  }
}

void PackedGemm::run(kernels::Grid grid, kernels::Epilogue epilogue, int64_t block_begin,
                     int64_t block_end) const {
  std::vector<kernels::Grid::Piece> pieces(grid.pieces, grid.pieces + grid.piece_count);
  grid.pieces = pieces.data();
  for (const Group& group : groups_) {
    group.terms.set(epilogue);
    run_group(group, grid, epilogue, block_begin, block_end);
    for (kernels::Grid::Piece& piece : pieces) piece.input += k_;
    if (epilogue.residual) epilogue.residual += n_;
    if (epilogue.out_u8) epilogue.out_u8 += n_;
    if (epilogue.out_f32) epilogue.out_f32 += n_;
  }
}

void run_product(const GemmInput& input, const uint8_t* codes, const PackedGemm& gemm,
                 const EpilogueOf& epilogue_of) {
  const int64_t block = kernels::active().gemm.block;
  const int64_t row_tile = kernels::active().gemm.row_tile;
  const int64_t lines = input.lines();
  const int64_t unit = std::max<int64_t>(row_tile / input.width(), 1);
  const int64_t units = (lines + unit - 1) / unit;
  const int64_t blocks = gemm.blocks();
  const int64_t work = unit * input.width() * block * gemm.products() * gemm.groups() / 32;
  const auto run = [&](int64_t line_begin, int64_t line_end, int64_t block_begin,
                       int64_t block_end) {
    input.for_each_part(codes, line_begin, line_end,
                        [&](const kernels::Grid& grid, int64_t first_row) {
                          gemm.run(grid, epilogue_of(first_row), block_begin, block_end);
                        });
  };
  // Threads share the rows, and each reads all weights, or the columns, and each reads all input:
  // whichever is less to read, as long as there is enough to share.
  const int64_t threads = at::get_num_threads();
  const bool more_weights = gemm.columns() > lines * input.width();
  if (more_weights ? blocks < threads && units > blocks : units >= threads || units >= blocks) {
    parallel_rows(units, work * blocks, [&](int64_t begin, int64_t end) {
      run(begin * unit, std::min(end * unit, lines), 0, blocks);
    });
  } else {
    parallel_rows(blocks, work * units,
                  [&](int64_t begin, int64_t end) { run(0, lines, begin, end); });
  }
}

PackedDepthwise::PackedDepthwise(const LayerWeights& weights, const kernels::QParams& input)
    : kernel_(kernels::active().depthwise),
      channels_(weights.weight.size(0)),
      taps_(weights.weight.size(1)),
      packed_(allocate_packed(kernel_.packed_bytes(channels_, taps_))),
      terms_(weights, input, kernel_.block) {
  kernel_.pack(weights.weight.const_data_ptr<int8_t>(), channels_, taps_,
               packed_.mutable_data_ptr());
}

at::Tensor PackedDepthwise::unpack() const {
  at::Tensor weight = at::empty({channels_, taps_, 1}, at::kChar);
  kernel_.unpack(packed_.const_data_ptr(), channels_, taps_, weight.mutable_data_ptr<int8_t>());
  return weight;
}

void PackedDepthwise::run(const kernels::Window& window, int64_t rows,
                          kernels::Epilogue epilogue) const {
  terms_.set(epilogue);
  const kernels::DepthwiseArgs args{window, channels_, packed_.const_data_ptr(), terms_.start(),
                                    epilogue};
  parallel_rows(rows, window.taps * channels_ / 4,
                [&](int64_t begin, int64_t end) { kernel_.run(args, begin, end); });
}

}  // namespace qatx::engine
