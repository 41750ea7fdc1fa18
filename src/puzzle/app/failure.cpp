#include "puzzle/app/failure.h"

#include <filesystem>
#include <new>

#include <c10/util/Exception.h>

namespace puzzle {
namespace {

constexpr const char* kMemoryAdvice =
    "lower the stage's batch or micro batch (`puzzle options` lists them), or free memory";

bool is_out_of_memory(const std::string& message) {
  for (const char* words : {"can't allocate memory", "not enough memory", "out of memory"}) {
    if (message.find(words) != std::string::npos) {
      return true;
    }
  }
  return false;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

Failure current_failure(const std::string& place) {
  const std::string opening = place.empty() ? "" : place + ": ";
  try {
    throw;
  } catch (const Error& error) {
    return {error.kind(), error.what(), ""};
  } catch (const c10::Error& error) {
    const std::string message = first_line(error.what_without_backtrace());
    if (is_out_of_memory(message)) {
      return {ErrorKind::kIo,
              fmt::format("{}out of memory: {}; {}", opening, message, kMemoryAdvice),
              error.what()};
    }
    return {ErrorKind::kInternal, fmt::format("{}libtorch: {}", opening, message), error.what()};
  } catch (const std::bad_alloc&) {
    return {ErrorKind::kIo, fmt::format("{}out of memory; {}", opening, kMemoryAdvice), ""};
  } catch (const std::filesystem::filesystem_error& error) {
    return {ErrorKind::kIo, opening + error.what(), ""};
  } catch (const std::exception& error) {
    return {ErrorKind::kInternal, opening + error.what(), ""};
  } catch (...) {
    return {ErrorKind::kInternal, opening + "an exception of an unknown type", ""};
  }
}

}  // namespace puzzle
