// How everything that runs is timed: shared by the stages that measure, so that what one predicts
// is what the other sees.
#pragma once

#include "puzzle/engine/llama_server_options.h"
#include "puzzle/engine/timing.h"

namespace puzzle {

struct TimedEngine {
  LlamaServerOptions llama_server;
  TimingPolicy timing;
};

}  // namespace puzzle
