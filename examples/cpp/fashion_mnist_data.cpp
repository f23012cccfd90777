#include "fashion_mnist_data.h"

#include <ATen/CPUGeneratorImpl.h>
#include <zlib.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int64_t kImageSize = 28;
constexpr int64_t kMaxShift = 1;
constexpr unsigned char kUnsignedByte = 0x08;  // element type in the header of an IDX file

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw std::runtime_error(path.string() + ": " + what);
}

std::vector<unsigned char> read_gzip(const std::filesystem::path& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) fail(path, "cannot be opened");
  std::vector<unsigned char> content;
  std::vector<unsigned char> buffer(1 << 16);
  int count = 0;
  while ((count = gzread(file.get(), buffer.data(), static_cast<unsigned>(buffer.size()))) > 0) {
    content.insert(content.end(), buffer.begin(), buffer.begin() + count);
  }
  if (count < 0) fail(path, "is damaged");
  return content;
}

torch::Tensor read_idx(const std::filesystem::path& path) {
  const std::vector<unsigned char> content = read_gzip(path);
  if (content.size() < 4 || content[0] != 0 || content[1] != 0 || content[2] != kUnsignedByte) {
    fail(path, "not an IDX file of unsigned bytes");
  }
  const size_t header = 4 + 4 * size_t{content[3]};
  std::vector<int64_t> sizes;
  size_t count = 1;
  for (size_t i = 4; i < header && header <= content.size(); i += 4) {
    const size_t size = (size_t{content[i]} << 24) | (size_t{content[i + 1]} << 16) |
                        (size_t{content[i + 2]} << 8) | size_t{content[i + 3]};
    sizes.push_back(static_cast<int64_t>(size));
    count *= size;
  }
  if (sizes.empty() || count == 0 || content.size() != header + count) {
    fail(path, "does not hold the array that its header promises");
  }
  torch::Tensor values = torch::empty(sizes, torch::kUInt8);
  std::memcpy(values.mutable_data_ptr(), content.data() + header, count);
  return values;
}

Images read_part(const std::filesystem::path& folder, const std::string& prefix) {
  const auto path = folder / (prefix + "-images-idx3-ubyte.gz");
  const torch::Tensor images = read_idx(path);
  const torch::Tensor labels = read_idx(folder / (prefix + "-labels-idx1-ubyte.gz"));
  if (images.dim() != 3 || images.size(1) != kImageSize || images.size(2) != kImageSize) {
    fail(path, "does not hold images of 28 x 28");
  }
  if (labels.dim() != 1 || labels.size(0) != images.size(0))
    fail(path, "has no label for each image");
  return {images.unsqueeze(1), labels.to(torch::kLong)};
}

}  // namespace

torch::Tensor FashionMnist::normalize(const torch::Tensor& images) const {
  return images.to(torch::kFloat)
      .sub_(mean)
      .div_(std)
      .contiguous(torch::MemoryFormat::ChannelsLast);
}

FashionMnist FashionMnist::subset(int64_t num_train, int64_t num_test) const {
  const auto first = [](const Images& all, int64_t count) {
    return Images{all.images.slice(0, 0, count), all.labels.slice(0, 0, count)};
  };
  return {first(train, num_train), first(test, num_test), mean, std};
}

FashionMnist load_fashion_mnist(const std::filesystem::path& folder) {
  FashionMnist data{read_part(folder, "train"), read_part(folder, "t10k"), 0.0, 1.0};
  const auto [std, mean] = torch::std_mean(data.train.images.to(torch::kFloat));
  data.std = std.item<double>();
  data.mean = mean.item<double>();
  return data;
}

torch::data::Example<> TrainingSet::get_batch(c10::ArrayRef<size_t> indices) {
  const std::vector<int64_t> chosen(indices.begin(), indices.end());
  const torch::Tensor index = torch::tensor(chosen);
  const auto count = static_cast<int64_t>(chosen.size());
  // The order of the epoch is part of it by way of the first image.
  auto generator =
      at::make_generator<at::CPUGeneratorImpl>(seed_ * 1'000'003 + indices[0] * 7919 + indices[1]);
  // Shift and mirror are one gather: each image picks its own rows and columns from the
  // zero-padded image.
  const torch::Tensor padded =
      torch::constant_pad_nd(data_.train.images.index_select(0, index).squeeze(1),
                             {kMaxShift, kMaxShift, kMaxShift, kMaxShift});
  const torch::Tensor corner = torch::randint(2 * kMaxShift + 1, {2, count, 1}, generator);
  const torch::Tensor steps = torch::arange(kImageSize);
  const torch::Tensor rows = corner[0] + steps;
  torch::Tensor columns = corner[1] + steps;
  if (mirror_) {
    const torch::Tensor flip = torch::rand({count, 1}, generator).lt(0.5);
    columns = torch::where(flip, columns.flip(1), columns);
  }
  const torch::Tensor image = torch::arange(count).reshape({count, 1, 1});
  const torch::Tensor augmented =
      padded.index({image, rows.unsqueeze(2), columns.unsqueeze(1)}).unsqueeze(1);
  return {data_.normalize(augmented), data_.train.labels.index_select(0, index)};
}

std::optional<size_t> TrainingSet::size() const {
  return static_cast<size_t>(data_.train.labels.size(0));
}
