#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/engine/operators/resize.h"

namespace qatx::engine {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;

// Where the elements along one dimension come from: an index for each, or -1 for the code that
// stands for 0.
using Map = std::vector<int64_t>;

Map identity(int64_t size) {
  Map map(static_cast<size_t>(size));
  std::iota(map.begin(), map.end(), int64_t{0});
  return map;
}

// One of the operators below: which elements, along each dimension.
class Selection {
 public:
  virtual ~Selection() = default;
  virtual std::vector<Map> maps(const Shape& in) const = 0;
};

// Elements of a code tensor, chosen along each dimension for itself.
class Gather final : public Operator {
 public:
  Gather(const NodeReader& node, std::unique_ptr<Selection> selection)
      : selection_(std::move(selection)) {
    node.check_input_count(1, 1);
    node.check_same_qparams();
    zero_ = static_cast<uint8_t>(node.input(0).zero_point);
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    Shape out;
    for (const Map& map : selection_->maps(inputs[0])) {
      out.push_back(static_cast<int64_t>(map.size()));
    }
    return out;
  }

  bool keeps_samples(std::span<const Shape> inputs, const std::vector<bool>& /*by_sample*/,
                     int64_t /*samples*/) const override {
    return selection_->maps(inputs[0])[0] == identity(inputs[0][0]);
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

 private:
  std::unique_ptr<Selection> selection_;
  uint8_t zero_ = 0;
};

class GatherStep final : public Step {
 public:
  GatherStep(const Shape& in, const std::vector<Map>& maps, uint8_t zero) : zero_(zero) {
    const Shape strides = strides_of(in);
    auto order = memory_order(in.size());
    while (!order.empty() && maps[order.back()] == identity(in[order.back()])) {
      unit_ *= in[order.back()];
      order.pop_back();
    }
    if (order.empty()) {
      runs_.push_back({0, 0, unit_});
      row_bytes_ = unit_;
      return;
    }
    set_runs(maps[order.back()]);
    order.pop_back();
    for (const size_t d : order) {
      offsets_.push_back(maps[d]);
      for (int64_t& offset : offsets_.back()) offset = offset < 0 ? -1 : offset * strides[d];
      rows_ *= static_cast<int64_t>(maps[d].size());
    }
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const uint8_t* in = inputs[0].codes();
    parallel_rows(rows_, row_bytes_, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        uint8_t* out = static_cast<uint8_t*>(output.data) + row * row_bytes_;
        const int64_t offset = row_offset(row);
        for (const Run& run : runs_) {
          const auto bytes = static_cast<size_t>(run.bytes);
          if (offset < 0 || run.from < 0) {
            std::memset(out + run.to, zero_, bytes);
          } else {
            std::memcpy(out + run.to, in + offset + run.from, bytes);
          }
        }
      }
    });
  }

 private:
  // Bytes that lie side by side in the output and in the input (or are zeros: from is -1).
  struct Run {
    int64_t to;
    int64_t from;
    int64_t bytes;
  };

  void set_runs(const Map& map) {
    for (const int64_t index : map) {
      const int64_t from = index < 0 ? -1 : index * unit_;
      Run* last = runs_.empty() ? nullptr : &runs_.back();
      const int64_t expected = !last ? -2 : last->from < 0 ? -1 : last->from + last->bytes;
      if (from == expected) {
        last->bytes += unit_;
      } else {
        runs_.push_back({row_bytes_, from, unit_});
      }
      row_bytes_ += unit_;
    }
  }

  // -1: the row is zeros.
  int64_t row_offset(int64_t row) const {
    int64_t sum = 0;
    for (auto d = offsets_.rbegin(); d != offsets_.rend(); ++d) {
      const auto size = static_cast<int64_t>(d->size());
      const int64_t offset = (*d)[static_cast<size_t>(row % size)];
      if (offset < 0) return -1;
      sum += offset;
      row /= size;
    }
    return sum;
  }

  uint8_t zero_;
  int64_t unit_ = 1;  // bytes of the dimensions that stay as they are, behind all others
  std::vector<Run> runs_;
  int64_t row_bytes_ = 0;
  std::vector<Map> offsets_;
  int64_t rows_ = 1;
};

std::unique_ptr<Step> Gather::plan(std::span<const Shape> inputs) const {
  return std::make_unique<GatherStep>(inputs[0], selection_->maps(inputs[0]), zero_);
}

std::vector<Map> identities(const Shape& in) {
  std::vector<Map> maps;
  for (const int64_t size : in) maps.push_back(identity(size));
  return maps;
}

// Attribute "range" [dimension, start, end, step], start and end as in Python; or "chunk"
// [dimension, index, count], one of so many equal parts (the last may be smaller).
class Slice final : public Selection {
 public:
  explicit Slice(const NodeReader& node) : name_(node.name()), chunk_(node.has_ints("chunk")) {
    constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
    numbers_ = chunk_ ? node.ints("chunk", 3, 0, kMost) : node.ints("range", 4, -kAny, kAny);
    const bool valid = chunk_ ? numbers_[1] < numbers_[2] : numbers_[0] >= 0 && numbers_[3] > 0;
    TORCH_CHECK_VALUE(
        valid, "qatx program: slice '", name_,
        "': its dimension, step or index are out of range: ", at::IntArrayRef(numbers_));
  }

  std::vector<Map> maps(const Shape& in) const override {
    TORCH_CHECK_VALUE(numbers_[0] < static_cast<int64_t>(in.size()), "qatx program: slice '", name_,
                      "' takes dimension ", numbers_[0], ", which an input of shape ",
                      at::IntArrayRef(in), " lacks");
    const int64_t size = in[static_cast<size_t>(numbers_[0])];
    auto maps = identities(in);
    Map& map = maps[static_cast<size_t>(numbers_[0])];
    map.clear();
    const auto [start, end, step] = range(size);
    for (int64_t i = start; i < end; i += step) {
      map.push_back(i);
      if (step >= size) break;
    }
    return maps;
  }

 private:
  std::array<int64_t, 3> range(int64_t size) const {
    if (chunk_) {
      const int64_t part = (size + numbers_[2] - 1) / numbers_[2];
      return {std::min(numbers_[1] * part, size), std::min((numbers_[1] + 1) * part, size), 1};
    }
    const auto bound = [&](int64_t i) {
      return std::clamp<int64_t>(i < 0 ? i + size : i, 0, size);
    };
    return {bound(numbers_[1]), bound(numbers_[2]), numbers_[3]};
  }

  std::string name_;
  bool chunk_;
  std::vector<int64_t> numbers_;
};

// Attribute "pads": before and behind the last dimension, then the one before it, and so on, as in
// PyTorch; negative ones cut off. "mode": 0 zeros, 1 reflection, 2 the nearest element, 3 circular.
class Pad final : public Selection {
 public:
  explicit Pad(const NodeReader& node)
      : name_(node.name()), pads_(node.int_list("pads")), mode_(node.ints("mode", 1, 0, 3)[0]) {
    TORCH_CHECK_VALUE(
        pads_.size() % 2 == 0 && std::all_of(pads_.begin(), pads_.end(),
                                             [](int64_t pad) { return std::abs(pad) < kMost; }),
        "qatx program: pad '", name_, "': pads must be two for each dimension, got ",
        at::IntArrayRef(pads_));
  }

  std::vector<Map> maps(const Shape& in) const override {
    TORCH_CHECK_VALUE(pads_.size() <= 2 * in.size(), "qatx program: pad '", name_,
                      "' has pads for ", pads_.size() / 2, " dimensions, got an input of shape ",
                      at::IntArrayRef(in));
    auto maps = identities(in);
    for (size_t p = 0; p < pads_.size(); p += 2) {
      const size_t d = in.size() - 1 - p / 2;
      maps[d] = padded(in[d], pads_[p], pads_[p + 1], in);
    }
    return maps;
  }

 private:
  Map padded(int64_t size, int64_t before, int64_t behind, const Shape& in) const {
    const int64_t longest = mode_ == 1 ? size - 1 : mode_ == 3 ? size : kMost;
    TORCH_CHECK_VALUE(before <= longest && behind <= longest && size + before + behind >= 0 &&
                          (size > 0 || mode_ == 0),
                      "qatx program: pad '", name_, "' cannot add ", before, " and ", behind,
                      " to a dimension of an input of shape ", at::IntArrayRef(in));
    Map map;
    for (int64_t i = -before; i < size + behind; ++i) {
      const bool inside = i >= 0 && i < size;
      switch (mode_) {
        case 0:
          map.push_back(inside ? i : -1);
          break;
        case 1:
          map.push_back(i < 0 ? -i : i < size ? i : 2 * (size - 1) - i);
          break;
        case 2:
          map.push_back(std::clamp<int64_t>(i, 0, size - 1));
          break;
        default:
          map.push_back((i + size) % size);
      }
    }
    return map;
  }

  std::string name_;
  std::vector<int64_t> pads_;
  int64_t mode_;
};

// Attribute "size" (of each spatial dimension) or "scale", and "exact": 1 takes the middle of each
// element, as PyTorch's "nearest-exact" does.
class Nearest final : public Selection {
 public:
  explicit Nearest(const NodeReader& node)
      : resize_(node), exact_(node.ints("exact", 1, 0, 1)[0]) {}

  std::vector<Map> maps(const Shape& in) const override {
    resize_.check(in);
    auto maps = identities(in);
    for (size_t d = 2; d < in.size(); ++d) {
      const auto [size, step] = resize_.dimension(in, d);
      maps[d].clear();
      for (int64_t i = 0; i < size; ++i) {
        const float at = (static_cast<float>(i) + (exact_ ? 0.5f : 0.0f)) * step;
        const int64_t index = std::min(static_cast<int64_t>(std::floor(at)), in[d] - 1);
        // As PyTorch has it, the same and twice the size do not depend on a factor that is not 1
        // or 2.
        const bool whole = !exact_ && (size == in[d] || size == 2 * in[d]);
        maps[d].push_back(whole ? i * in[d] / size : index);
      }
    }
    return maps;
  }

 private:
  Resize resize_;
  bool exact_;
};

}  // namespace

std::unique_ptr<Operator> make_slice(const NodeReader& node) {
  return std::make_unique<Gather>(node, std::make_unique<Slice>(node));
}

std::unique_ptr<Operator> make_pad(const NodeReader& node) {
  return std::make_unique<Gather>(node, std::make_unique<Pad>(node));
}

std::unique_ptr<Operator> make_upsample_nearest(const NodeReader& node) {
  return std::make_unique<Gather>(node, std::make_unique<Nearest>(node));
}

}  // namespace qatx::engine
