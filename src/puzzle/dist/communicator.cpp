#include "puzzle/dist/communicator.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "puzzle/base/error.h"
#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/dist/gloo_communicator.h"
#include "puzzle/dist/launcher_environment.h"
#include "puzzle/dist/single_communicator.h"

namespace puzzle {
namespace {

at::Tensor byte_tensor(std::string_view bytes, std::int64_t padded_size) {
  at::Tensor tensor = at::zeros({padded_size}, at::kByte);
  if (!bytes.empty()) {
    std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  }
  return tensor;
}

}  // namespace

double Communicator::all_reduce_sum(double value) {
  const at::Tensor all = all_gather(at::full({1}, value, at::kDouble)).contiguous();
  double sum = 0.0;
  for (std::int64_t i = 0; i < size(); ++i) {
    sum += all.const_data_ptr<double>()[i];
  }
  return sum;
}

double Communicator::all_reduce_max(double value) {
  const at::Tensor all = all_gather(at::full({1}, value, at::kDouble)).contiguous();
  const double* values = all.const_data_ptr<double>();
  return *std::max_element(values, values + size());
}

std::vector<std::string> Communicator::all_gather_strings(std::string_view mine) {
  const auto mine_size = static_cast<std::int64_t>(mine.size());
  const at::Tensor sizes = all_gather(at::full({1}, mine_size, at::kLong)).contiguous();
  const std::int64_t* lengths = sizes.const_data_ptr<std::int64_t>();
  const std::int64_t longest = *std::max_element(lengths, lengths + size());
  const at::Tensor bytes = all_gather(byte_tensor(mine, longest)).contiguous();
  const auto* data = reinterpret_cast<const char*>(bytes.const_data_ptr<std::uint8_t>());
  std::vector<std::string> strings;
  for (std::int64_t i = 0; i < size(); ++i) {
    strings.emplace_back(data + i * longest, static_cast<std::size_t>(lengths[i]));
  }
  return strings;
}

std::string Communicator::broadcast_string(std::string_view mine, int root) {
  at::Tensor length = at::full({1}, static_cast<std::int64_t>(mine.size()), at::kLong);
  broadcast(length, root);
  const auto num_bytes = length.item<std::int64_t>();
  at::Tensor bytes = byte_tensor(rank() == root ? mine : std::string_view(), num_bytes);
  broadcast(bytes, root);
  return {reinterpret_cast<const char*>(bytes.const_data_ptr<std::uint8_t>()),
          static_cast<std::size_t>(num_bytes)};
}

void Communicator::agree(std::string_view what, std::string_view value) {
  const std::vector<std::string> all = all_gather_strings(value);
  std::vector<int> others;
  for (int r = 1; r < size(); ++r) {
    if (all[static_cast<std::size_t>(r)] != all.front()) {
      others.push_back(r);
    }
  }
  if (!others.empty()) {
    fail(ErrorKind::kUsage,
         "{} on rank {} of {}: rank 0 has '{}', but rank {} has '{}'{}; give every rank the same "
         "files and options",
         what, rank(), size(), all.front(), others.front(),
         all[static_cast<std::size_t>(others.front())],
         others.size() > 1 ? fmt::format(" (ranks {} differ)", fmt::join(others, ", ")) : "");
  }
}

std::unique_ptr<Communicator> make_communicator(const CommunicatorOptions& options) {
  const std::optional<LauncherEnvironment> environment = read_launcher_environment();
  if (!environment || environment->world_size == 1) {
    return std::make_unique<SingleCommunicator>();
  }
  set_log_prefix(fmt::format("rank {}: ", environment->rank));
  set_progress_enabled(environment->rank == 0);
  return make_gloo_communicator(*environment, options);
}

}  // namespace puzzle
