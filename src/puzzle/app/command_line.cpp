#include "puzzle/app/command_line.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "puzzle/app/commands.h"
#include "puzzle/app/failure.h"
#include "puzzle/app/version.h"
#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/base/strings.h"
#include "puzzle/dist/launch.h"
#include "puzzle/dist/launcher_environment.h"

namespace puzzle {
namespace {

constexpr const char* kLaunchedFlag = "--launched-rank";

constexpr const char* kProgramFooter =
    "Examples:\n"
    "  puzzle run MODEL.gguf --corpus texts/ --target llama-server \\\n"
    "      --budget \"generation_tokens_per_s >= 1.3x\"\n"
    "  puzzle plan ...                           the same words as for run: what that will cost\n"
    "  puzzle run recipe.yaml                    all options from a file; `puzzle options` lists "
    "them\n"
    "  puzzle VERB --help                        the options of one verb\n"
    "A run that was interrupted goes on with the same command.\n\n"
    "Exit codes: 0 done, 2 options or recipe, 3 a file's content, 4 disk, network or another "
    "program,\n"
    "5 no child meets the budgets, 6 non-finite numbers, or no answer in search.time_limit_s, 7 "
    "another process of the group died,\n"
    "70 a fault of puzzle itself, 130 stopped by a signal.";
constexpr const char* kVerbFooter =
    "With every verb: --json, --quiet, --debug; with a stage also --launch N (`puzzle --help`).";

// "rank 1: " in a group of several.
std::string rank_prefix() {
  try {
    const auto environment = read_launcher_environment();
    return environment && environment->world_size > 1 ? fmt::format("rank {}: ", environment->rank)
                                                      : "";
  } catch (const Error&) {
    return "";  // the variable that is wrong is what is being reported
  }
}

std::string shell_command(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 0; i < argc; ++i) {
    words.push_back(shell_word(argv[i]));
  }
  return join(words, " ");
}

bool write_answer(const std::string& text) {
  return std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
}

std::string answer_text(const Json& value) {
  return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

int report(const GlobalOptions& global, const Failure& failure) {
  erase_progress_line();
  std::fprintf(stderr, "%spuzzle: %s\n", rank_prefix().c_str(), failure.message.c_str());
  if (global.debug && !failure.backtrace.empty()) {
    std::fprintf(stderr, "%s\n", failure.backtrace.c_str());
  }
  const int code = exit_code(failure.kind);
  if (global.json && !global.is_launched && !global.has_answered) {
    (void)write_answer(answer_text({{"error", error_json(failure.kind, failure.message)}}));
  }
  return code;
}

bool is_launch_option(const std::string& argument) { return argument == "--launch"; }

// The arguments without --launch N, for the ranks.
std::vector<std::string> rank_arguments(const std::vector<std::string>& arguments) {
  std::vector<std::string> rest = {kLaunchedFlag};
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (is_launch_option(arguments[i])) {
      ++i;
    } else if (!arguments[i].starts_with("--launch=")) {
      rest.push_back(arguments[i]);
    }
  }
  return rest;
}

// The first word that is no option of the program itself; empty if there is none.
std::string verb_word(const std::vector<std::string>& arguments) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (is_launch_option(arguments[i])) {
      ++i;
    } else if (!arguments[i].starts_with("-")) {
      return arguments[i];
    }
  }
  return "";
}

// `help` and `help VERB`, as other programs have them, for `--help` and `VERB --help`.
std::vector<std::string> with_help_option(std::vector<std::string> arguments) {
  if (verb_word(arguments) == "help") {
    arguments.erase(std::find(arguments.begin(), arguments.end(), "help"));
    arguments.emplace_back("--help");
  }
  return arguments;
}

void check_verb(const CLI::App& app, const std::vector<std::string>& arguments) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    verbs.push_back(verb->get_name());
  }
  const std::string word = verb_word(arguments);
  if (!word.empty() && std::find(verbs.begin(), verbs.end(), word) == verbs.end()) {
    const std::string close = nearest(word, verbs);
    fail(ErrorKind::kUsage, "there is no verb '{}'; {}", word,
         close.empty() ? "`puzzle --help` lists them all" : "did you mean " + close + "?");
  }
}

void add_global_options(CLI::App& app, GlobalOptions& global) {
  app.set_version_flag("--version",
                       std::string("puzzle ") + kPuzzleVersion + " (" + build_description() + ")");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_flag("--json", global.json,
               "One JSON object on stdout, {\"error\": …} on failure; logs stay on stderr");
  app.add_flag("--quiet", global.quiet, "Only warnings and errors");
  app.add_flag("--debug", global.debug, "More lines, and a backtrace with errors of libtorch");
  app.add_option("--launch", global.launch, "Run a stage as N processes on this machine")
      ->check(CLI::Range(1, 1024));
  app.add_flag(kLaunchedFlag, global.is_launched)->group("");
}

void add_footers(CLI::App& app) {
  app.footer(kProgramFooter);
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) {
    const std::string own = verb->get_footer();
    verb->footer(own + (own.empty() ? "" : "\n") + kVerbFooter);
  }
}

int launch_ranks(GlobalOptions& global, const std::vector<std::string>& arguments) {
  const int code =
      launch({.num_ranks = global.launch, .arguments = rank_arguments(arguments), .program = {}});
  if (code != 0 && global.json) {
    print_json(global, {{"error",
                         {{"kind", "rank"},
                          {"message", "a rank failed; its message is on stderr"},
                          {"exit_code", code}}}});
  }
  return code;
}

int run_selected(GlobalOptions& global, const Action& selected,
                 const std::vector<std::string>& arguments) {
  if (global.launch <= 1) {
    selected.run();
    return 0;
  }
  if (!selected.splits_over_ranks) {
    fail(ErrorKind::kUsage, "--launch {}: {} runs in one process; leave it out", global.launch,
         verb_word(arguments));
  }
  return launch_ranks(global, arguments);
}

}  // namespace

void refuse_empty(CLI::Option& option, const std::string& expected) {
  option.check(CLI::Validator(
      [expected](const std::string& text) {
        return text.empty() ? "is empty, expected " + expected : std::string();
      },
      ""));
}

void print_text(const std::string& text) {
  if (!write_answer(text)) {
    fail(ErrorKind::kIo, "the answer cannot be written: {}", std::strerror(errno));
  }
}

void print_json(GlobalOptions& global, const Json& value) {
  global.has_answered = true;  // or as much of it as could be written
  print_text(answer_text(value));
}

Json error_json(ErrorKind kind, const std::string& message) {
  return {{"kind", kind_name(kind)}, {"message", message}, {"exit_code", exit_code(kind)}};
}

int run_program(int argc, char** argv) {
  const std::vector<std::string> arguments =
      with_help_option(std::vector<std::string>(argv + 1, argv + argc));
  GlobalOptions global;
  // Known before parsing, since a command line that cannot be parsed is answered in JSON, too.
  global.json = std::find(arguments.begin(), arguments.end(), "--json") != arguments.end();
  global.command = shell_command(argc, argv);
  CLI::App app{
      "Puzzle makes a faster, smaller child of a language model for a stated machine and "
      "workload.",
      argv[0]};
  add_global_options(app, global);
  Action selected;
  add_run_commands(app, global, selected);
  add_compare_command(app, global, selected);
  add_folder_commands(app, global, selected);
  add_model_commands(app, global, selected);
  add_footers(app);
  try {
    check_verb(app, arguments);
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // last one first
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      return app.exit(error, std::cout, std::cerr);
    }
    const std::string verb = verb_word(arguments);
    return report(global, {ErrorKind::kUsage,
                           fmt::format("{}; `puzzle {}{}--help` shows what is expected",
                                       error.what(), verb, verb.empty() ? "" : " "),
                           ""});
  } catch (...) {
    return report(global, current_failure(""));
  }
  set_log_level(global.quiet   ? LogLevel::kWarning
                : global.debug ? LogLevel::kDebug
                               : LogLevel::kInfo);
  set_progress_enabled(!global.quiet);
  install_interrupt_handlers();
  try {
    return run_selected(global, selected, arguments);
  } catch (...) {
    return report(global, current_failure(""));
  }
}

}  // namespace puzzle
