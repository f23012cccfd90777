// The guide's example of several processes that calibrate a model together (docs/cpp.md):
//   calibrate_ranks RANK RANKS FILE
// for each RANK from 0 to RANKS - 1, at the same time. FILE, which is not there yet, is where they
// meet. Each writes calibrated_RANK.pt; all are the same.

#include <qatx/qatx.h>
#include <torch/torch.h>

#include <cstring>
#include <iostream>
#include <torch/csrc/distributed/c10d/FileStore.hpp>

// Through a store of c10d, which every LibTorch for Linux has: a FileStore, or a TCPStore between
// machines.
qatx::AllGather all_gather_over(c10d::Store& store, int rank, int ranks) {
  const auto calls = std::make_shared<int>(0);  // of all copies of the function
  return [&store, rank, ranks, calls](const torch::Tensor& own) {
    const std::string key = "calibrate/" + std::to_string((*calls)++) + "/";
    const auto* bytes = static_cast<const uint8_t*>(own.const_data_ptr());
    store.set(key + std::to_string(rank), std::vector<uint8_t>(bytes, bytes + own.nbytes()));
    std::vector<torch::Tensor> all;
    for (int other = 0; other < ranks; ++other) {
      const std::vector<uint8_t> got = store.get(key + std::to_string(other));  // waits for it
      TORCH_CHECK(got.size() == own.nbytes(), "rank ", other, " has another model");
      std::memcpy(all.emplace_back(torch::empty_like(own)).mutable_data_ptr(), got.data(),
                  got.size());
    }
    return all;
  };
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: calibrate_ranks RANK RANKS FILE\n";
    return 2;
  }
  const int rank = std::stoi(argv[1]);
  const int ranks = std::stoi(argv[2]);
  c10d::FileStore store(argv[3], ranks);

  // The same model everywhere, and a part of the data.
  torch::manual_seed(0);
  torch::nn::Sequential model(
      qatx::nn::QuantStub(qatx::nn::QuantStubOptions().quantize_output(false)),
      torch::nn::Linear(16, 32), torch::nn::ReLU(), torch::nn::Linear(32, 4));
  const torch::Tensor samples = torch::randn({1024, 16});
  qatx::prepare(model, {samples.slice(0, 0, 1)});
  const auto options = qatx::CalibrationOptions().all_gather(all_gather_over(store, rank, ranks));
  const torch::Tensor part = samples.slice(0, rank, std::nullopt, ranks);
  std::cout << qatx::calibrate(model, part, options);
  torch::save(model, "calibrated_" + std::to_string(rank) + ".pt");
}
