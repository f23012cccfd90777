#pragma once

#include <torch/data.h>

#include <cstdint>
#include <filesystem>

// Fashion-MNIST (or what has its format) from gzipped IDX files, for torch::data loaders.

struct Images {
  torch::Tensor images;  // uint8 [N, 1, 28, 28]
  torch::Tensor labels;  // int64 [N]
};

struct FashionMnist {
  Images train;
  Images test;
  double mean;  // of the training images
  double std;

  // uint8 images as float32 with zero mean and unit variance, in channels_last.
  torch::Tensor normalize(const torch::Tensor& images) const;
  // The first images of each part; the statistics stay those of the whole.
  FashionMnist subset(int64_t num_train, int64_t num_test) const;
};

// Reads the four files. Throws std::runtime_error that names a file that is missing or damaged.
FashionMnist load_fashion_mnist(const std::filesystem::path& folder);

// Batches of augmented, normalized training images: shifted by up to a pixel, and half of them
// mirrored where a mirrored image keeps its label. A loader may call it from many threads; what an
// image becomes depends on the seed, the epoch and the batch, not on the thread.
class TrainingSet
    : public torch::data::datasets::BatchDataset<TrainingSet, torch::data::Example<>> {
 public:
  TrainingSet(FashionMnist data, bool mirror, uint64_t seed)
      : data_(std::move(data)), mirror_(mirror), seed_(seed) {}

  torch::data::Example<> get_batch(c10::ArrayRef<size_t> indices) override;
  std::optional<size_t> size() const override;

 private:
  FashionMnist data_;
  bool mirror_;
  uint64_t seed_;
};
