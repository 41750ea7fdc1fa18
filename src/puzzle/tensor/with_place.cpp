#include "puzzle/tensor/with_place.h"

#include <string>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

[[noreturn]] void fail_without_memory(std::string_view place) {
  fail(ErrorKind::kIo, "{}: out of memory; lower batch sizes and memory options, or free memory",
       place);
}

bool is_out_of_memory(const c10::Error& error) {
  // The CPU's allocator has no exception type of its own.
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         std::string_view(error.what_without_backtrace()).find("can't allocate memory") !=
             std::string_view::npos;
}

}  // namespace

void rethrow_with_place(std::string_view place, const c10::Error& error) {
  if (is_out_of_memory(error)) {
    fail_without_memory(place);
  }
  const bool is_numeric = dynamic_cast<const c10::LinAlgError*>(&error) != nullptr;
  fail(is_numeric ? ErrorKind::kNumeric : ErrorKind::kInternal, "{}: {}", place,
       error.what_without_backtrace());
}

void rethrow_with_place(std::string_view place, const std::bad_alloc& /*error*/) {
  fail_without_memory(place);
}

}  // namespace puzzle
