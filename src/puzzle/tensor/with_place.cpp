#include "puzzle/tensor/with_place.h"

namespace puzzle {
namespace {

constexpr const char* kMemoryAdvice =
    "lower the stage's batch or micro batch (`puzzle options` lists them), or free memory";

bool is_out_of_memory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) {
    return true;
  }
  // The CPU's allocator has no exception type of its own.
  const std::string_view message = error.what_without_backtrace();
  for (const char* words : {"can't allocate memory", "not enough memory", "out of memory"}) {
    if (message.find(words) != std::string_view::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

LibtorchError explained(const c10::Error& error) {
  std::string message = error.what_without_backtrace();
  message = message.substr(0, message.find('\n'));
  if (is_out_of_memory(error)) {
    return {ErrorKind::kIo, fmt::format("out of memory: {}; {}", message, kMemoryAdvice)};
  }
  if (dynamic_cast<const c10::LinAlgError*>(&error) != nullptr) {
    return {ErrorKind::kNumeric, message};
  }
  return {ErrorKind::kInternal, "libtorch: " + message};
}

LibtorchError explained(const std::bad_alloc& /*error*/) {
  return {ErrorKind::kIo, fmt::format("out of memory; {}", kMemoryAdvice)};
}

void rethrow_with_place(std::string_view place, const LibtorchError& error) {
  fail_with(error.kind, fmt::format("{}: {}", place, error.message));
}

}  // namespace puzzle
