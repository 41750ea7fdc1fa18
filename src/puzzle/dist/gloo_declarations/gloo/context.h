// gloo::Context is only pointed to; setTimeout is called by an inline function of
// ProcessGroupGloo.hpp and lives in libtorch_cpu.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
