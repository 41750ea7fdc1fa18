// Libtorch's exceptions as ours, with the place that a user knows: a stage, a layer, a file.
#pragma once

#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <c10/util/Exception.h>

#include "puzzle/base/error.h"

namespace puzzle {

// What an error of libtorch is to a user: kNumeric for linear algebra that fails, kIo with advice
// where memory ran out, kInternal otherwise. One line, without a place.
struct LibtorchError {
  ErrorKind kind = ErrorKind::kInternal;
  std::string message;
};
[[nodiscard]] LibtorchError explained(const c10::Error& error);
[[nodiscard]] LibtorchError explained(const std::bad_alloc& error);

// Throw `error` as an Error that opens with `place`.
[[noreturn]] void rethrow_with_place(std::string_view place, const LibtorchError& error);

// Returns what `work()` returns. Error passes through as it is, so that the innermost place counts.
template <class Work>
decltype(auto) with_place(std::string_view place, Work&& work) {
  try {
    return std::invoke(std::forward<Work>(work));
  } catch (const c10::Error& error) {
    rethrow_with_place(place, explained(error));
  } catch (const std::bad_alloc& error) {
    rethrow_with_place(place, explained(error));
  }
}

}  // namespace puzzle
