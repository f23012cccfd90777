#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <limits>
#include <new>

#include "kernel_test.h"

// Random inputs and outputs of the kernels that read through a Window and write through an
// Epilogue.

namespace qatx::kernels {

// Bytes that end, with `readable` more behind them, where memory ends: reading any further is a
// segmentation fault.
class GuardedBytes {
 public:
  explicit GuardedBytes(int64_t size, int64_t readable = 0) : size_(size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const auto bytes = static_cast<size_t>(size + readable);
    mapped_ = (bytes + page - 1) / page * page + page;
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + mapped_ - page, page, PROT_NONE) != 0) {
      throw std::bad_alloc();
    }
    data_ = base_ + mapped_ - page - bytes;
    std::memset(data_, 0xa5, bytes);
  }
  ~GuardedBytes() { munmap(base_, mapped_); }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;

  const uint8_t* data() const { return data_; }
  uint8_t operator[](int64_t i) const { return data_[i]; }
  uint8_t* begin() { return data_; }
  uint8_t* end() { return data_ + size_; }

 private:
  int64_t size_;
  size_t mapped_;
  uint8_t* base_;
  uint8_t* data_;
};

struct LayerShape {
  int64_t images = 1;
  int64_t pixels = 1;  // output pixels per image
  int64_t taps = 1;
  int64_t channels = 1;  // input channels
  int64_t columns = 1;   // output channels
  int64_t rows() const { return images * pixels; }
};

struct LayerOptions {
  bool floats = false;  // float output
  bool residual = false;
  bool clamp = false;      // finite clamp bounds
  bool extremes = false;   // only the largest codes and weights, which saturate 16-bit sums
  bool no_finite = false;  // some biases are NaN or infinite
  bool huge = false;       // some results are far outside of int32
  bool no_start = false;   // accumulators start with zero
  int64_t step = -1;       // bytes from a row to the next; -1: any
};

class LayerTest : public KernelTest {
 protected:
  // Pixels anywhere in a buffer, at any alignment and pitch, some taps in the padding.
  class Input {
   public:
    Input(LayerTest& test, const LayerShape& shape, const LayerOptions& options)
        : pitch_(shape.channels + test.integer(0, 3)),
          image_stride_((kPixels - 1) * pitch_ + shape.channels + test.integer(0, 5)),
          codes_((shape.images - 1) * image_stride_ + (kPixels - 1) * pitch_ + shape.channels,
                 kOverRead),
          pad_(shape.channels, kOverRead),
          shape_(shape) {
      for (uint8_t& code : codes_) code = code_of(test, options);
      for (uint8_t& code : pad_) code = code_of(test, options);
      for (int64_t p = 0; p < shape.pixels; ++p) {
        for (int64_t t = 0; t < shape.taps; ++t) {
          // Never the first tap: pooling needs one that is none.
          const bool padding = t > 0 && !options.extremes && test.chance(0.2);
          offsets_.push_back(padding ? -1
                                     : static_cast<int32_t>(pitch_ * test.integer(0, kPixels - 1)));
        }
      }
    }

    Window window() const {
      return {codes_.data(), image_stride_,   shape_.pixels,
              shape_.taps,   offsets_.data(), pad_.data()};
    }
    bool is_padding(int64_t row, int64_t tap) const { return offset(row, tap) < 0; }
    int64_t code(int64_t row, int64_t tap, int64_t channel) const {
      if (is_padding(row, tap)) return pad_[channel];
      return codes_[row / shape_.pixels * image_stride_ + offset(row, tap) + channel];
    }

   private:
    static constexpr int64_t kPixels = 13;

    static uint8_t code_of(LayerTest& test, const LayerOptions& options) {
      return static_cast<uint8_t>(options.extremes ? 255 : test.integer(0, 255));
    }
    int32_t offset(int64_t row, int64_t tap) const {
      return offsets_[static_cast<size_t>(row % shape_.pixels * shape_.taps + tap)];
    }

    int64_t pitch_;
    int64_t image_stride_;
    GuardedBytes codes_;
    GuardedBytes pad_;
    std::vector<int32_t> offsets_;
    LayerShape shape_;
  };

  // Parameters of an epilogue, and where it writes. The arrays for each column are padded to whole
  // blocks with values that would be seen.
  class Output {
   public:
    // Behind each `width` rows, `gap` elements are left out.
    Output(LayerTest& test, const LayerShape& shape, const LayerOptions& options, int64_t block,
           int64_t width = 1, int64_t gap = 0)
        : stride_(shape.columns + test.integer(0, 70)),
          width_(width),
          gap_(gap),
          options_(options),
          start_(padded(shape.columns, block), 4 * test.integer(0, 15)),
          scale_(start_.size(), 4 * test.integer(0, 15)),
          bias_(start_.size(), 4 * test.integer(0, 15)),
          residual_stride_(shape.columns + test.integer(0, 9)),
          residual_((shape.rows() - 1) * residual_stride_ + shape.columns),
          codes_(at(shape.rows()), test.integer(0, 3)),
          floats_(at(shape.rows()), 4 * test.integer(0, 3)) {
      constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
      constexpr float kInf = std::numeric_limits<float>::infinity();
      for (int32_t& value : start_) {
        value = options.no_start ? 0 : static_cast<int32_t>(test.integer(-30000, 30000));
      }
      // So that accumulators spread over the codes.
      const auto spread = static_cast<float>(shape.taps * shape.channels) * 20000.0f;
      for (float& value : scale_)
        value = test.real(-4.0f, 4.0f) / spread * (test.chance(0.1) ? 50.0f : 1.0f) *
                (options.huge && test.chance(0.5) ? 1e12f : 1.0f);
      for (float& value : bias_) value = test.real(-1.0f, 3.0f);
      if (options.no_finite) {
        for (int64_t c = 0; c < shape.columns; ++c) {
          const float values[] = {bias_[c], kNan, kInf, -kInf};
          bias_[c] = values[test.integer(0, 3)];
        }
      }
      for (uint8_t& value : residual_) value = static_cast<uint8_t>(test.integer(0, 255));
      const int64_t quant_min = test.chance(0.5) ? 0 : test.integer(0, 100);
      const int64_t quant_max = test.chance(0.5) ? 255 : test.integer(quant_min + 3, 255);
      const float scale = test.real(0.005f, 0.03f);
      qparams_ = {scale, 1.0f / scale, static_cast<int32_t>(test.integer(quant_min, quant_max)),
                  static_cast<int32_t>(quant_min), static_cast<int32_t>(quant_max)};
      residual_scale_ = test.real(0.005f, 0.03f);
      residual_zero_point_ = static_cast<int32_t>(test.integer(0, 255));
      clamp_min_ = options.clamp ? test.real(-1.0f, 1.0f) : test.chance(0.5) ? 0.0f : -kInf;
      clamp_max_ = options.clamp ? test.real(1.0f, 2.0f) : kInf;
    }

    const int32_t* start() const { return start_.data(); }
    int64_t start(int64_t column) const { return start_[column]; }

    Epilogue epilogue() {
      return {scale_.data(),
              bias_.data(),
              options_.residual ? residual_.data() : nullptr,
              residual_stride_,
              residual_scale_,
              residual_zero_point_,
              clamp_min_,
              clamp_max_,
              options_.floats ? nullptr : codes_.data(),
              options_.floats ? floats_.data() : nullptr,
              stride_,
              gap_,
              qparams_};
    }

    // The steps in the header, for an accumulator.
    ::testing::AssertionResult is_finished(int64_t row, int64_t column, int64_t sum) const {
      EXPECT_EQ(sum, static_cast<int32_t>(sum)) << "the test leaves the range of int32";
      const float product = static_cast<float>(static_cast<int32_t>(sum)) * scale_[column];
      float y = product + bias_[column];
      if (options_.residual) {
        const int32_t code = residual_[row * residual_stride_ + column];
        const float addend = static_cast<float>(code - residual_zero_point_) * residual_scale_;
        y = y + addend;
      }
      return is_output(row, column, y);
    }

    // For y before the clamp.
    ::testing::AssertionResult is_output(int64_t row, int64_t column, float y) const {
      y = expected_clamp(y, clamp_min_, clamp_max_);
      const int64_t i = at(row) + column;
      ::testing::AssertionResult result =
          options_.floats ? same(floats_[i], y) : same(codes_[i], expected_code(y, qparams_));
      return result << " (row " << row << ", column " << column << ")";
    }

    // Columns behind the last one, and what a call was not asked for.
    bool is_untouched(int64_t row, int64_t column) const {
      const int64_t i = at(row) + column;
      return options_.floats ? floats_.untouched(i) : codes_.untouched(i);
    }
    // From a row to the next, with the gap if there is one between them.
    int64_t columns(int64_t row) const { return at(row + 1) - at(row); }
    bool zones_intact() const { return codes_.zones_intact() && floats_.zones_intact(); }

   private:
    int64_t at(int64_t row) const { return row * stride_ + row / width_ * gap_; }
    static int64_t padded(int64_t columns, int64_t block) {
      return (columns + block - 1) / block * block;
    }

    int64_t stride_;
    int64_t width_;
    int64_t gap_;
    LayerOptions options_;
    Buffer<int32_t> start_;
    Buffer<float> scale_;
    Buffer<float> bias_;
    int64_t residual_stride_;
    GuardedBytes residual_;
    Buffer<uint8_t> codes_;
    Buffer<float> floats_;
    QParams qparams_;
    float residual_scale_;
    int32_t residual_zero_point_;
    float clamp_min_;
    float clamp_max_;
  };

  // Weights of full range, or the ones with the largest products.
  Buffer<int8_t> random_weights(int64_t count, const LayerOptions& options) {
    Buffer<int8_t> weights(count, integer(0, 3));
    const auto extreme = static_cast<int8_t>(chance(0.5) ? -128 : 127);
    for (int8_t& weight : weights) {
      weight = options.extremes ? extreme : static_cast<int8_t>(integer(-128, 127));
    }
    return weights;
  }

  LayerOptions random_options() {
    return {.floats = chance(0.4),
            .residual = chance(0.3),
            .clamp = chance(0.3),
            .extremes = chance(0.2),
            .no_finite = chance(0.1),
            .huge = chance(0.2),
            .no_start = chance(0.3)};
  }

  // Checks rows [row_begin, row_end) x columns [column_begin, column_end) against sum(row, column),
  // and that nothing else was written.
  template <class Sum>
  static void check_output(const Output& output, const LayerShape& shape, int64_t row_begin,
                           int64_t row_end, int64_t column_begin, int64_t column_end,
                           const Sum& sum) {
    for (int64_t row = 0; row < shape.rows(); ++row) {
      for (int64_t column = 0; column < output.columns(row); ++column) {
        if (row >= row_begin && row < row_end && column >= column_begin && column < column_end) {
          ASSERT_TRUE(output.is_finished(row, column, sum(row, column)));
        } else {
          ASSERT_TRUE(output.is_untouched(row, column)) << "row " << row << ", column " << column;
        }
      }
    }
    ASSERT_TRUE(output.zones_intact());
  }
};

}  // namespace qatx::kernels
