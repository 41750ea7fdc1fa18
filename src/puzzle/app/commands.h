// The verbs of the program: options in, stage calls, results out.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace puzzle {

// What every verb shares.
struct GlobalOptions {
  bool json = false;   // one JSON object on stdout, nothing else there
  bool quiet = false;  // warnings and errors only
  bool debug = false;
  int launch = 0;       // ranks on this machine; 0 = this process alone (or a launcher's)
  std::string command;  // as started
};

// A verb's action is put into `selected` when the command line names it.
using Action = std::function<void()>;

void add_run_commands(CLI::App& app, GlobalOptions& global, Action& selected);
void add_model_commands(CLI::App& app, GlobalOptions& global, Action& selected);

}  // namespace puzzle
