// Any exception as one line for people and a kind for scripts.
#pragma once

#include <string>

#include "puzzle/base/error.h"

namespace puzzle {

struct Failure {
  ErrorKind kind = ErrorKind::kInternal;
  std::string message;
  std::string backtrace;  // of libtorch; empty where there is none
};

// Of the exception being handled: call it inside a catch block. `place` (a stage) opens messages
// that come from outside this program; empty for none. Libtorch's are as with_place() has them.
[[nodiscard]] Failure current_failure(const std::string& place);

}  // namespace puzzle
