// A group of several processes over c10d's Gloo.
#pragma once

#include <memory>

#include "puzzle/dist/communicator.h"
#include "puzzle/dist/launcher_environment.h"

namespace puzzle {

// Connects every rank with every other one. Throws Error(kPeer) if they do not come within
// join_timeout_s.
[[nodiscard]] std::unique_ptr<Communicator> make_gloo_communicator(
    const LauncherEnvironment& environment, const CommunicatorOptions& options);

}  // namespace puzzle
