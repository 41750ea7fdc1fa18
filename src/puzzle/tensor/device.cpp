#include "puzzle/tensor/device.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <set>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/Utils.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>
#include <malloc.h>
#include <sys/resource.h>

#include "puzzle/base/cores.h"
#include "puzzle/base/error.h"
#include "puzzle/base/log.h"

namespace puzzle {

namespace {

class LoggedOnce final : public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override {
    const std::scoped_lock lock(mutex_);
    if (seen_.insert(warning.msg()).second) {
      log_warning("libtorch: {}", warning.msg());
    }
  }

 private:
  std::mutex mutex_;
  std::set<std::string> seen_;
};

}  // namespace

int parse_gpu_index(const std::string& text, int local_rank, int num_gpus) {
  if (text != "cuda" && !text.starts_with("cuda:")) {
    fail(ErrorKind::kUsage, "device '{}': expected cpu, cuda or cuda:N", text);
  }
  int index = 0;
  if (text != "cuda") {
    const std::string number = text.substr(5);
    if (number.empty() || number.size() > 3 ||
        !std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      fail(ErrorKind::kUsage, "device '{}': expected a number after cuda:", text);
    }
    index = std::stoi(number);
  }
  if (num_gpus == 0) {
    fail(ErrorKind::kUsage,
         "device '{}': this libtorch sees no CUDA GPU; install the CUDA wheel of torch, or use cpu",
         text);
  }
  if (index >= num_gpus) {
    fail(ErrorKind::kUsage, "device '{}': there are {} GPUs", text, num_gpus);
  }
  return text == "cuda" ? local_rank % num_gpus : index;
}

c10::Device parse_device(const std::string& text, int local_rank) {
  if (text == "cpu") {
    return c10::Device(c10::kCPU);
  }
  const bool has_cuda = at::globalContext().hasCUDA();
  const auto* guard = has_cuda ? c10::impl::getDeviceGuardImpl(c10::kCUDA) : nullptr;
  const int num_gpus = guard == nullptr ? 0 : guard->deviceCount();
  const int index = parse_gpu_index(text, local_rank, num_gpus);
  const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
  guard->setDevice(device);
  return device;
}

c10::ScalarType fastest_type(const c10::Device& device) {
  if (!device.is_cpu()) {
    return at::kBFloat16;
  }
  const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto has = [&](const char* name) {
    const auto found = capabilities.find(name);
    return found != capabilities.end() && found->second.isBool() && found->second.toBool();
  };
  return has("avx512_bf16") || has("amx_bf16") ? at::kBFloat16 : at::kFloat;
}

void set_num_threads(std::int64_t threads) {
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : usable_cores()));
}

std::int64_t num_threads() { return at::get_num_threads(); }

void keep_freed_memory() {
#ifdef __GLIBC__
  // Larger ones (a pass's logits) are still mapped on their own and unmapped when freed.
  ::mallopt(M_MMAP_THRESHOLD, 64 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 512 << 20);
  ::mallopt(M_TOP_PAD, 32 << 20);
#endif
}

void make_deterministic() {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

void log_torch_warnings() {
  static LoggedOnce handler;
  c10::WarningUtils::set_warning_handler(&handler);
}

void release_cached_memory(const c10::Device& device) {
  if (device.is_cuda()) {
    c10::getDeviceAllocator(device.type())->emptyCache();
  }
}

void synchronize(const c10::Device& device) {
  if (device.is_cuda()) {
    const auto* guard = c10::impl::getDeviceGuardImpl(c10::kCUDA);
    guard->synchronizeDevice(device.index());
  }
}

std::string describe_device(const c10::Device& device) {
  if (device.is_cuda()) {
    return device.str();
  }
  const char* policy = std::getenv("OMP_WAIT_POLICY");
  return fmt::format("cpu, {} threads, OMP_WAIT_POLICY={}", num_threads(),
                     policy == nullptr ? "unset" : policy);
}

std::int64_t peak_resident_bytes() {
  struct rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace puzzle
