#pragma once

#include "qatx/kernels/window.h"

namespace qatx::kernels {
namespace {  // compiled for several instruction sets: nothing here may be shared between them

// One output row's view of its inputs.
class WindowRow {
 public:
  WindowRow() = default;
  WindowRow(const uint8_t* image, const int32_t* offsets, const uint8_t* pad)
      : image_(reinterpret_cast<uintptr_t>(image)),
        pad_(reinterpret_cast<uintptr_t>(pad) - image_),
        offsets_(offsets) {}

  bool is_padding(int64_t t) const { return offsets_[t] < 0; }

  // The input of tap t. One addition to a selected offset, which compiles to code without a branch:
  // at the borders of an image it would be mispredicted.
  const uint8_t* tap(int64_t t) const {
    const int32_t offset = offsets_[t];
    const uintptr_t selected = offset < 0 ? pad_ : static_cast<uintptr_t>(offset);
    return reinterpret_cast<const uint8_t*>(image_ + selected);
  }

 private:
  uintptr_t image_;
  uintptr_t pad_;  // counted from image_
  const int32_t* offsets_;
};

// Walks over consecutive rows without a division for each.
class WindowCursor {
 public:
  WindowCursor(const Window& window, int64_t row)
      : window_(window),
        image_(window.input + row / window.pixels * window.image_stride),
        pixel_(row % window.pixels) {}

  WindowRow row() const { return {image_, window_.offsets + pixel_ * window_.taps, window_.pad}; }
  int64_t pixel() const { return pixel_; }

  void advance() {
    if (++pixel_ == window_.pixels) {
      pixel_ = 0;
      image_ += window_.image_stride;
    }
  }

 private:
  const Window& window_;
  const uint8_t* image_;
  int64_t pixel_;
};

}  // namespace
}  // namespace qatx::kernels
