#include "qatx/engine/operators/gemm_input.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/registry.h"
#include "qatx/kernels/window.h"

namespace qatx::engine {
namespace {

// What is read stays in the second cache while all weights pass.
constexpr int64_t kPartBytes = 512 * 1024;
constexpr int64_t kTile = 192;

bool needs_padding(const Axis& axis) {
  return axis.taps.front() < 0 || (axis.output - 1) * axis.stride + axis.taps.back() >= axis.size;
}

// As many lines of one row as stay in the cache, a multiple of every kernel's tile.
int64_t lines_in_part(int64_t bytes) {
  return std::max<int64_t>(kPartBytes / bytes / kTile * kTile, kTile);
}

// Whether the pixels of a copied line are sorted by their phase, so that those of a tile follow one
// another: pixels far apart fall into few sets of a cache.
bool splits_lines(int64_t stride, int64_t channels) { return stride > 1 && channels >= 64; }

// The different values of (tap - first tap) modulo the stride, ascending.
std::vector<int64_t> phases_of(const Axis& axis) {
  std::vector<int64_t> phases;
  for (const int64_t tap : axis.taps) {
    phases.push_back((tap - axis.taps.front()) % axis.stride);
  }
  std::sort(phases.begin(), phases.end());
  phases.erase(std::unique(phases.begin(), phases.end()), phases.end());
  return phases;
}

// Which phase a tap belongs to, and how many strides behind the first tap it lies.
std::pair<int64_t, int64_t> place_of(const Axis& axis, const std::vector<int64_t>& phases,
                                     int64_t tap) {
  const int64_t distance = tap - axis.taps.front();
  const auto phase = std::lower_bound(phases.begin(), phases.end(), distance % axis.stride);
  return {phase - phases.begin(), distance / axis.stride};
}

}  // namespace

int64_t best_pitch_of(int64_t bytes) {
  const int64_t line = kernels::active().gemm.row_line;
  const int64_t whole = kernels::ceil_div(bytes, line) * line;
  return 3 * whole <= 4 * bytes ? whole : bytes;
}

int64_t taps_together(const std::vector<int64_t>& taps, int64_t stride, int64_t channels,
                      int64_t groups) {
  const auto count = static_cast<int64_t>(taps.size());
  const bool side_by_side = taps.back() - taps.front() == count - 1;
  if (!side_by_side || groups > 1 || splits_lines(stride, channels)) return 1;
  // What each tap is filled up with is multiplied, too.
  const int64_t line = kernels::active().gemm.row_line;
  const int64_t apart = count * kernels::ceil_div(channels, line);
  const bool hardly_more = 10 * apart <= 11 * kernels::ceil_div(count * channels, line);
  return best_pitch_of(channels) > channels && hardly_more ? 1 : count;
}

GemmInput::GemmInput(int64_t rows, int64_t bytes) : lines_(rows), step_(bytes) {
  piece_lines_ = lines_in_part(bytes);
}

GemmInput::GemmInput(const std::string& name, std::array<Axis, 3> axes, int64_t images,
                     int64_t channels, int64_t together, uint8_t padding)
    : planes_(images * axes[0].output),
      lines_(axes[1].output),
      width_(axes[2].output),
      axes_(std::move(axes)),
      channels_(channels),
      padding_(padding) {
  const auto& [depth, height, width] = axes_;
  copies_ = needs_padding(depth) || needs_padding(height) || needs_padding(width) ||
            (lines_ > 1 && (height.stride > 1 || width.size % width.stride != 0));
  if (copies_) {
    plan_copies(name);
  } else {
    step_ = width.stride * channels;
    pitch_ = lines_ > 1 ? width.size / width.stride : width_;
    line_bytes_ = width.size * channels;
    piece_lines_ = std::clamp<int64_t>(kPartBytes / line_bytes_, 1, lines_);
    piece_bytes_ = piece_lines_ * line_bytes_;
  }
  pieces_ = std::max<int64_t>(kPartBytes / piece_bytes_, 1);
  offsets_.clear();
  for (size_t d = 0; d < depth.taps.size(); ++d) {
    for (const int64_t h : height.taps) {
      for (size_t w = 0; w < width.taps.size(); w += static_cast<size_t>(together)) {
        offsets_.push_back(
            copies_ ? copied_offset(static_cast<int64_t>(d), h, width.taps[w])
                    : ((depth.taps[d] * height.size + h) * width.size + width.taps[w]) * channels);
      }
    }
  }
}

void GemmInput::plan_copies(const std::string& name) {
  const auto& [depth, height, width] = axes_;
  line_phases_ = phases_of(height);
  more_lines_ = (height.taps.back() - height.taps.front()) / height.stride;
  split_ = splits_lines(width.stride, channels_);
  if (split_) {
    column_phases_ = phases_of(width);
    pitch_ = width_ + (width.taps.back() - width.taps.front()) / width.stride;
    step_ = channels_;
  } else {
    column_phases_ = {0};
    const int64_t first = width.taps.front();
    const int64_t end = (width.output - 1) * width.stride + width.taps.back() + 1;
    const int64_t left = std::max<int64_t>(-first, 0);
    const int64_t source = std::max<int64_t>(first, 0);
    const int64_t copied = std::max<int64_t>(std::min(width.size, end) - source, 0);
    const int64_t right = std::max<int64_t>(end - source - copied, 0);
    // The padding at the end of a line and that at the begin of the next one are the same.
    const int64_t pixels = std::max(copied + std::max(left, right), width.output * width.stride);
    pitch_ = (pixels + width.stride - 1) / width.stride;
    step_ = width.stride * channels_;
    left_ = left * channels_;
    source_ = source * channels_;
    copied_ = copied * channels_;
    overflow_ = std::max<int64_t>((left + copied + right) * channels_ - pitch_ * step_, 0);
  }
  line_bytes_ = pitch_ * step_;
  const auto blocks =
      static_cast<int64_t>(depth.taps.size() * line_phases_.size() * column_phases_.size());
  TORCH_CHECK_VALUE(static_cast<double>(blocks) * static_cast<double>(more_lines_ + 1) *
                            static_cast<double>(line_bytes_) <
                        std::numeric_limits<int32_t>::max(),
                    "qatx program: '", name,
                    "': the input of a line of output and its padding must be less than 2^31 "
                    "elements, are ",
                    blocks, " times ", more_lines_ + 1, " lines of ", line_bytes_);
  piece_lines_ = std::clamp<int64_t>(kPartBytes / (blocks * line_bytes_) - more_lines_, 1, lines_);
  block_lines_ = piece_lines_ + more_lines_;
  piece_bytes_ = blocks * block_lines_ * line_bytes_;
}

int64_t GemmInput::copied_offset(int64_t depth_tap, int64_t height_tap, int64_t width_tap) const {
  const auto& [depth, height, width] = axes_;
  const auto [line_phase, line] = place_of(height, line_phases_, height_tap);
  auto [column_phase, column] = place_of(width, column_phases_, width_tap);
  if (!split_) {
    column_phase = 0;
    column = width_tap - width.taps.front();
  }
  const auto line_phases = static_cast<int64_t>(line_phases_.size());
  const auto column_phases = static_cast<int64_t>(column_phases_.size());
  const int64_t block = (depth_tap * line_phases + line_phase) * column_phases + column_phase;
  return (block * block_lines_ + line) * line_bytes_ + column * channels_;
}

void GemmInput::join_lines() {
  const auto& [depth, height, width] = axes_;
  if (copies_ || width.size != width_ * width.stride || lines_ != height.size ||
      depth.output != depth.size) {
    return;
  }
  lines_ *= planes_ * width_;
  planes_ = width_ = pitch_ = pieces_ = 1;
  piece_lines_ = lines_in_part(step_);
}

const uint8_t* GemmInput::find(const uint8_t* input, int64_t plane, int64_t line, int64_t lines,
                               uint8_t* copy) const {
  const auto& [depth, height, width] = axes_;
  const uint8_t* image =
      input + plane / depth.output * depth.size * height.size * width.size * channels_;
  const int64_t first_plane = plane % depth.output * depth.stride;
  const int64_t image_line = width.size * channels_;
  if (!copies_) return image + first_plane * height.size * image_line + line * pitch_ * step_;
  uint8_t* block = copy;
  for (const int64_t tap : depth.taps) {
    const int64_t deep = first_plane + tap;
    for (const int64_t line_phase : line_phases_) {
      for (const int64_t column_phase : column_phases_) {
        uint8_t* to = block;
        for (int64_t l = 0; l < lines + more_lines_; ++l, to += line_bytes_) {
          const int64_t row = (line + l) * height.stride + line_phase + height.taps.front();
          const bool inside = deep >= 0 && deep < depth.size && row >= 0 && row < height.size;
          copy_line(inside ? image + (deep * height.size + row) * image_line : nullptr,
                    column_phase, to);
        }
        std::memset(to, padding_, static_cast<size_t>(overflow_));
        block += block_lines_ * line_bytes_;
      }
    }
  }
  return copy;
}

void GemmInput::copy_line(const uint8_t* from, int64_t column_phase, uint8_t* to) const {
  const auto fill = [&](int64_t bytes) {
    std::memset(to, padding_, static_cast<size_t>(bytes));
    to += bytes;
  };
  const auto copy = [&](int64_t first, int64_t bytes) {
    std::memcpy(to, from + first, static_cast<size_t>(bytes));
    to += bytes;
  };
  if (from == nullptr) {
    fill(line_bytes_);
  } else if (split_) {
    const Axis& width = axes_[2];
    int64_t column = width.taps.front() + column_phase;
    for (int64_t i = 0; i < pitch_; ++i, column += width.stride) {
      if (column >= 0 && column < width.size) {
        copy(column * channels_, channels_);
      } else {
        fill(channels_);
      }
    }
  } else {
    fill(left_);
    copy(source_, copied_);
    fill(line_bytes_ - left_ - copied_);
  }
}

void GemmInput::for_each_part(const uint8_t* input, int64_t begin, int64_t end,
                              const Use& use) const {
  std::vector<kernels::Grid::Piece> pieces;
  at::Tensor copies;  // begins with a cache line, so that rows do where they consist of whole ones
  for (int64_t line = begin; line < end;) {
    const int64_t first = line;
    pieces.clear();
    while (line < end && static_cast<int64_t>(pieces.size()) < pieces_) {
      const int64_t plane = line / lines_;
      const int64_t lines = std::min({end - line, lines_ - line % lines_, piece_lines_});
      uint8_t* copy = nullptr;
      if (copies_) {
        if (!copies.defined()) {
          const int64_t most = std::min(pieces_, (end - begin + lines_ - 1) / lines_ + 1);
          const int64_t bytes = most * piece_bytes_ + overflow_;
          copies = at::empty({bytes + kernels::kOverRead}, at::kByte);
          std::memset(copies.mutable_data_ptr<uint8_t>() + bytes, 0, kernels::kOverRead);
        }
        copy =
            copies.mutable_data_ptr<uint8_t>() + static_cast<int64_t>(pieces.size()) * piece_bytes_;
      }
      pieces.push_back({find(input, plane, line % lines_, lines, copy), lines});
      line += lines;
    }
    use({pieces.data(), static_cast<int64_t>(pieces.size()), (line - first) * width_, width_,
         pitch_, step_, offsets_.data(), static_cast<int64_t>(offsets_.size())},
        first * width_);
  }
}

}  // namespace qatx::engine
