// The verbs of the program: options in, stage calls, results out.
#pragma once

#include <functional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/base/error.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace puzzle {

// What every verb shares.
struct GlobalOptions {
  bool json = false;   // one JSON object on stdout, nothing else there
  bool quiet = false;  // warnings and errors only
  bool debug = false;
  int launch = 0;             // ranks on this machine; 0 = this process alone (or a launcher's)
  bool is_launched = false;   // a rank of --launch, which speaks for all of them
  std::string command;        // as started, to be pasted into a POSIX shell
  bool has_answered = false;  // the one JSON object is out
};

// A verb's action is put into `selected` when the command line names it.
struct Action {
  std::function<void()> run;
  bool splits_over_ranks = false;  // whether --launch makes sense
};

void add_run_commands(CLI::App& app, GlobalOptions& global, Action& selected);
void add_compare_command(CLI::App& app, GlobalOptions& global, Action& selected);
void add_folder_commands(CLI::App& app, GlobalOptions& global, Action& selected);
void add_model_commands(CLI::App& app, GlobalOptions& global, Action& selected);

// An empty value, as of a shell variable that is not set, becomes a mistake of the command line;
// `expected` says in words what belongs there.
void refuse_empty(CLI::Option& option, const std::string& expected);

// Results, on stdout. Throw Error(kIo) if it takes no more.
void print_text(const std::string& text);
void print_json(GlobalOptions& global, const nlohmann::json& value);

// {"kind": "usage", "message": …, "exit_code": 2}: the member "error" of an answer.
[[nodiscard]] nlohmann::json error_json(ErrorKind kind, const std::string& message);

}  // namespace puzzle
