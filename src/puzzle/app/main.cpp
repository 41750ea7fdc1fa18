// Parses the command line, runs one verb, turns errors into one line and an exit code.
#include <cstdio>
#include <cstdlib>

#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>
#include <unistd.h>

#include "puzzle/app/commands.h"
#include "puzzle/app/version.h"
#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/dist/launch.h"

namespace puzzle {
namespace {

// OpenMP reads the policy when it is loaded, before main. Spinning threads make everything many
// times slower on a machine that does anything else, so start again with the other policy.
void prefer_passive_waiting(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    ::setenv("OMP_WAIT_POLICY", "PASSIVE", 1);
    ::execv("/proc/self/exe", argv);
  }
}

int report_error(const std::string& message, int code) {
  erase_progress_line();
  std::fprintf(stderr, "puzzle: %s\n", message.c_str());
  return code;
}

// The arguments without --launch N, for the ranks.
std::vector<std::string> rank_arguments(int argc, char** argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--launch") {
      ++i;
    } else if (!argument.starts_with("--launch=")) {
      arguments.push_back(argument);
    }
  }
  return arguments;
}

int run_program(int argc, char** argv) {
  CLI::App app{
      "Puzzle makes a faster, smaller child of a language model for a stated machine and "
      "workload."};
  app.set_version_flag("--version",
                       std::string("puzzle ") + kPuzzleVersion + " (" + build_description() + ")");
  app.require_subcommand(1);
  app.fallthrough();
  GlobalOptions global;
  for (int i = 0; i < argc; ++i) {
    global.command += (i > 0 ? " " : "") + std::string(argv[i]);
  }
  app.add_flag("--json", global.json, "One JSON object on stdout; logs stay on stderr");
  app.add_flag("--quiet", global.quiet, "Only warnings and errors");
  app.add_flag("--debug", global.debug, "More lines, and a backtrace with errors of libtorch");
  app.add_option("--launch", global.launch, "Run as N processes on this machine")
      ->check(CLI::Range(1, 1024));
  Action selected;
  add_run_commands(app, global, selected);
  add_model_commands(app, global, selected);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, std::cout, std::cerr);
    return code == 0 ? 0 : exit_code(ErrorKind::kUsage);
  }
  set_log_level(global.quiet   ? LogLevel::kWarning
                : global.debug ? LogLevel::kDebug
                               : LogLevel::kInfo);
  set_progress_enabled(!global.quiet);
  install_interrupt_handlers();
  try {
    if (global.launch > 1) {
      return launch(
          {.num_ranks = global.launch, .arguments = rank_arguments(argc, argv), .program = {}});
    }
    selected();
    return 0;
  } catch (const Error& error) {
    return report_error(error.what(), exit_code(error.kind()));
  } catch (const c10::Error& error) {
    return report_error(global.debug ? error.what() : error.what_without_backtrace(),
                        exit_code(ErrorKind::kInternal));
  } catch (const std::bad_alloc&) {
    return report_error("out of memory; lower batch sizes, or free memory",
                        exit_code(ErrorKind::kIo));
  } catch (const std::exception& error) {
    return report_error(error.what(), exit_code(ErrorKind::kInternal));
  }
}

}  // namespace
}  // namespace puzzle

int main(int argc, char** argv) {
  puzzle::prefer_passive_waiting(argv);
  return puzzle::run_program(argc, argv);
}
