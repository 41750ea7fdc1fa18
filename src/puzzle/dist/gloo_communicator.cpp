#include "puzzle/dist/gloo_communicator.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <fmt/ranges.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/log.h"

namespace puzzle {
namespace {

constexpr std::size_t kMaxDims = 8;

enum class Collective : std::int64_t {
  kAllReduceSum,
  kBroadcast,
  kAllGather,
  kBarrier,
};

const char* collective_name(std::int64_t collective) {
  constexpr std::array<const char*, 4> kNames = {"all_reduce_sum", "broadcast", "all_gather",
                                                 "barrier"};
  return collective >= 0 && collective < std::ssize(kNames)
             ? kNames[static_cast<std::size_t>(collective)]
             : "an unknown collective";
}

constexpr std::array kWireTypes = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16,
                                   at::kLong,   at::kInt,   at::kChar, at::kByte};

// What a rank is about to do, as the other ranks see it. Its own size never changes.
struct CallHeader {
  static constexpr std::int64_t kWords = 4 + static_cast<std::int64_t>(kMaxDims);

  std::int64_t collective = 0;
  std::int64_t root = -1;  // of a broadcast; otherwise -1
  std::int64_t type = 0;   // index in kWireTypes
  std::int64_t num_dims = 0;
  std::array<std::int64_t, kMaxDims> sizes{};

  bool operator==(const CallHeader&) const = default;

  [[nodiscard]] at::Tensor words() const {
    at::Tensor words = at::empty({kWords}, at::kLong);
    auto* out = words.mutable_data_ptr<std::int64_t>();
    out[0] = collective;
    out[1] = root;
    out[2] = type;
    out[3] = num_dims;
    std::copy(sizes.begin(), sizes.end(), out + 4);
    return words;
  }

  static CallHeader from_words(const std::int64_t* words) {
    CallHeader header{words[0], words[1], words[2], words[3], {}};
    std::copy(words + 4, words + kWords, header.sizes.begin());
    return header;
  }

  // A peer's header may be anything: a mixed-up group, another version.
  [[nodiscard]] bool is_plausible() const {
    return type >= 0 && type < std::ssize(kWireTypes) && num_dims >= 0 &&
           num_dims <= static_cast<std::int64_t>(kMaxDims) &&
           std::all_of(sizes.begin(), sizes.end(), [](std::int64_t n) { return n >= 0; });
  }

  [[nodiscard]] std::vector<std::int64_t> shape() const {
    return {sizes.begin(), sizes.begin() + num_dims};
  }

  [[nodiscard]] std::string describe() const {
    if (!is_plausible()) {
      return "something unreadable";
    }
    if (collective == static_cast<std::int64_t>(Collective::kBarrier)) {
      return "barrier";
    }
    std::string text = fmt::format("{} of {} [{}]", collective_name(collective),
                                   c10::toString(kWireTypes[static_cast<std::size_t>(type)]),
                                   fmt::join(shape(), ", "));
    return root >= 0 ? text + fmt::format(" from rank {}", root) : text;
  }
};

CallHeader make_call_header(Collective collective, const at::Tensor& tensor, int root = -1) {
  const char* name = collective_name(static_cast<std::int64_t>(collective));
  PUZZLE_CHECK(tensor.defined(), "{} of an undefined tensor", name);
  const auto type = std::find(kWireTypes.begin(), kWireTypes.end(), tensor.scalar_type());
  PUZZLE_CHECK(type != kWireTypes.end(), "{} of {}, which does not travel", name,
               c10::toString(tensor.scalar_type()));
  PUZZLE_CHECK(tensor.dim() <= static_cast<std::int64_t>(kMaxDims),
               "{} of {} dimensions, at most {}", name, tensor.dim(), kMaxDims);
  CallHeader header{
      static_cast<std::int64_t>(collective), root, type - kWireTypes.begin(), tensor.dim(), {}};
  std::copy(tensor.sizes().begin(), tensor.sizes().end(), header.sizes.begin());
  return header;
}

// The tensor itself where gloo can work on it, else a contiguous copy on the host.
at::Tensor host_tensor(const at::Tensor& tensor) {
  if (!tensor.is_cpu()) {
    static std::once_flag once;
    std::call_once(once, [&] {
      log_warning("collectives of {} tensors go through host memory", tensor.device().str());
    });
  }
  return tensor.detach().to(at::kCPU).contiguous();
}

// What gloo or c10d says, without its source position, advice and backtrace.
std::string short_reason(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  text.resize(std::min({text.size(), text.find('\n'), text.find(". ")}));
  const std::size_t position_end = text.starts_with('[') ? text.find("] ") : std::string::npos;
  return position_end == std::string::npos ? text : text.substr(position_end + 2);
}

// While ranks look for each other c10d logs every attempt with a backtrace; the last one arrives as
// an exception anyway.
class QuietC10d {
 public:
  QuietC10d() : level_(FLAGS_caffe2_log_level) { FLAGS_caffe2_log_level = c10::GLOG_FATAL; }
  ~QuietC10d() { FLAGS_caffe2_log_level = level_; }
  QuietC10d(const QuietC10d&) = delete;
  QuietC10d& operator=(const QuietC10d&) = delete;

 private:
  int level_;
};

std::chrono::milliseconds to_milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000.0));
}

class GlooCommunicator final : public Communicator {
 public:
  using Communicator::all_reduce_sum;

  GlooCommunicator(const LauncherEnvironment& environment, const CommunicatorOptions& options);

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  [[nodiscard]] int local_rank() const override { return local_rank_; }
  void all_reduce_sum(at::Tensor& tensor) override;
  void broadcast(at::Tensor& tensor, int root) override;
  [[nodiscard]] at::Tensor all_gather(const at::Tensor& part) override;
  void barrier() override;

 private:
  using WorkPointer = c10::intrusive_ptr<c10d::Work>;

  void connect(const LauncherEnvironment& environment);
  void agree_on_call(const CallHeader& mine);
  void wait_for(const std::string& what, const std::function<WorkPointer()>& start);
  [[noreturn]] void fail_peer(const std::string& what, const std::exception& error,
                              std::chrono::steady_clock::time_point start) const;

  int rank_;
  int size_;
  int local_rank_;
  std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<c10d::Store> store_;  // outlives the group
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
};

GlooCommunicator::GlooCommunicator(const LauncherEnvironment& environment,
                                   const CommunicatorOptions& options)
    : rank_(environment.rank),
      size_(environment.world_size),
      local_rank_(environment.local_rank),
      timeout_(to_milliseconds(options.join_timeout_s)) {
  const auto start = std::chrono::steady_clock::now();
  try {
    connect(environment);
  } catch (const std::exception& error) {
    fail_peer(fmt::format("joining the group at {}:{}", environment.master_address,
                          environment.master_port),
              error, start);
  }
  timeout_ = to_milliseconds(options.timeout_s);
  group_->setTimeout(timeout_);
}

void GlooCommunicator::connect(const LauncherEnvironment& environment) {
  const QuietC10d quiet;
  c10d::TCPStoreOptions store_options;
  store_options.port = environment.master_port;
  store_options.isServer = !environment.agent_store && rank_ == 0;
  store_options.numWorkers = static_cast<std::size_t>(size_);
  store_options.waitWorkers = !environment.agent_store;
  store_options.timeout = timeout_;
  store_options.multiTenant = !environment.agent_store;
  const auto tcp_store =
      c10::make_intrusive<c10d::TCPStore>(environment.master_address, store_options);
  // A restarted attempt must not find the addresses of the one before in torchrun's store.
  store_ = c10::make_intrusive<c10d::PrefixStore>("puzzle/attempt_" + environment.restart_count,
                                                  tcp_store);
  const auto group_options = c10d::ProcessGroupGloo::Options::create(timeout_);
  const bool is_loopback =
      environment.master_address.starts_with("127.") || environment.master_address == "localhost";
  if (!environment.network_interface.empty()) {
    group_options->devices.push_back(
        c10d::ProcessGroupGloo::createDeviceForInterface(environment.network_interface));
  } else if (is_loopback) {  // all on this machine, whose host name may not resolve
    group_options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  } else {
    group_options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
  }
  group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store_, rank_, size_, group_options);
  // A rank that ended now would break the connections that others are still making.
  group_->barrier()->wait();
}

void GlooCommunicator::fail_peer(const std::string& what, const std::exception& error,
                                 std::chrono::steady_clock::time_point start) const {
  throw_if_interrupted();  // the peers were told to stop, too: not their fault
  const bool timed_out = std::chrono::steady_clock::now() - start >= timeout_;
  fail(ErrorKind::kPeer,
       "{} on rank {} of {}: {} ({}); what is finished is kept, run the same "
       "command again",
       what, rank_, size_,
       timed_out ? fmt::format("no answer from another rank within {} s, it hangs or is gone",
                               static_cast<double>(timeout_.count()) / 1000.0)
                 : "the connection to another rank broke, it has ended",
       short_reason(error));
}

void GlooCommunicator::wait_for(const std::string& what,
                                const std::function<WorkPointer()>& start) {
  const auto begin = std::chrono::steady_clock::now();
  try {
    start()->wait();
  } catch (const std::exception& error) {
    fail_peer(what, error, begin);
  }
}

void GlooCommunicator::agree_on_call(const CallHeader& mine) {
  at::Tensor words = mine.words();
  at::Tensor all = at::empty({size_ * CallHeader::kWords}, at::kLong);
  wait_for(mine.describe(), [&] { return group_->_allgather_base(all, words); });
  const auto* rows = all.const_data_ptr<std::int64_t>();
  const CallHeader first = CallHeader::from_words(rows);
  for (int r = 1; r < size_; ++r) {
    const CallHeader other = CallHeader::from_words(rows + r * CallHeader::kWords);
    if (other != first) {
      fail(ErrorKind::kPeer,
           "{} on rank {} of {}: rank 0 is at {}, but rank {} is at {}; all ranks have to call the "
           "same collectives with the same sizes, do they run the same recipe?",
           mine.describe(), rank_, size_, first.describe(), r, other.describe());
    }
  }
}

void GlooCommunicator::all_reduce_sum(at::Tensor& tensor) {
  const at::NoGradGuard no_grad;
  const CallHeader header = make_call_header(Collective::kAllReduceSum, tensor);
  agree_on_call(header);
  if (tensor.numel() == 0) {
    return;
  }
  std::vector<at::Tensor> host = {host_tensor(tensor)};
  wait_for(header.describe(), [&] { return group_->allreduce(host); });
  if (!host.front().is_alias_of(tensor)) {
    tensor.copy_(host.front());
  }
}

void GlooCommunicator::broadcast(at::Tensor& tensor, int root) {
  const at::NoGradGuard no_grad;
  PUZZLE_CHECK(root >= 0 && root < size_, "broadcast from rank {} of {}", root, size_);
  const CallHeader header = make_call_header(Collective::kBroadcast, tensor, root);
  agree_on_call(header);
  if (tensor.numel() == 0) {
    return;
  }
  std::vector<at::Tensor> host = {host_tensor(tensor)};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  wait_for(header.describe(), [&] { return group_->broadcast(host, options); });
  if (rank_ != root && !host.front().is_alias_of(tensor)) {
    tensor.copy_(host.front());
  }
}

at::Tensor GlooCommunicator::all_gather(const at::Tensor& part) {
  const at::NoGradGuard no_grad;
  const CallHeader header = make_call_header(Collective::kAllGather, part);
  agree_on_call(header);
  std::vector<std::int64_t> shape = header.shape();
  shape.insert(shape.begin(), size_);
  at::Tensor all = at::empty(shape, at::TensorOptions(part.scalar_type()));
  if (all.numel() > 0) {
    at::Tensor flat_all = all.view(-1);
    at::Tensor flat_part = host_tensor(part).view(-1);
    wait_for(header.describe(), [&] { return group_->_allgather_base(flat_all, flat_part); });
  }
  return all.to(part.device());
}

void GlooCommunicator::barrier() {
  CallHeader header;
  header.collective = static_cast<std::int64_t>(Collective::kBarrier);
  agree_on_call(header);
}

}  // namespace

std::unique_ptr<Communicator> make_gloo_communicator(const LauncherEnvironment& environment,
                                                     const CommunicatorOptions& options) {
  return std::make_unique<GlooCommunicator>(environment, options);
}

}  // namespace puzzle
