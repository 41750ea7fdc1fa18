// Libtorch's exceptions as ours, with the place that a user knows: a stage, a layer, a file.
#pragma once

#include <functional>
#include <new>
#include <string_view>
#include <utility>

#include <c10/util/Exception.h>

namespace puzzle {

// Throw `error` as an Error that opens with `place`: kNumeric for linear algebra that fails, kIo
// where memory ran out, kInternal otherwise.
[[noreturn]] void rethrow_with_place(std::string_view place, const c10::Error& error);
[[noreturn]] void rethrow_with_place(std::string_view place, const std::bad_alloc& error);

// Returns what `work()` returns. Error passes through as it is, so that the innermost place counts.
template <class Work>
decltype(auto) with_place(std::string_view place, Work&& work) {
  try {
    return std::invoke(std::forward<Work>(work));
  } catch (const c10::Error& error) {
    rethrow_with_place(place, error);
  } catch (const std::bad_alloc& error) {
    rethrow_with_place(place, error);
  }
}

}  // namespace puzzle
