#include "puzzle/engine/python_script.h"

#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/child_process.h"

namespace puzzle {
namespace {

// Linux takes up to 128 KiB in one argument.
constexpr std::size_t kMaxArgumentBytes = 100'000;

std::vector<std::string> script_arguments(const std::string& program, const std::string& source,
                                          const Json& request) {
  std::vector<std::string> arguments = {program, "-c", source};
  const std::string text =
      request.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  for (std::size_t at = 0; at < text.size(); at += kMaxArgumentBytes) {
    arguments.push_back(text.substr(at, kMaxArgumentBytes));
  }
  return arguments;
}

struct Ended {
  std::string log;     // all that the process printed, to stdout and stderr
  std::string status;  // "exit status 1", "signal 9 (Killed)"
};

// Nothing if it does not end in time.
std::optional<Ended> run_to_end(const std::vector<std::string>& arguments, double time_limit_s) {
  const ChildProcess child({arguments, {"PYTHONUNBUFFERED=1"}, ""});
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(time_limit_s);
  while (!child.ended()) {
    throw_if_interrupted();
    if (std::chrono::steady_clock::now() > end) {
      return std::nullopt;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return Ended{child.log(), *child.ended()};
}

// The last line that is one; packages may say something on stderr behind it. Null without one.
Json last_object(const std::string& log) {
  const std::vector<std::string> lines = split(trim(log), '\n');
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    Json answer = Json::parse(*line, nullptr, /*allow_exceptions=*/false);
    if (answer.is_object()) {
      return answer;
    }
  }
  return {};
}

}  // namespace

Json run_python_script(const PythonScript& script, const Json& request, const std::string& python) {
  const auto program = python.empty() ? find_python() : find_program(python);
  if (!program) {
    fail(ErrorKind::kIo, "{}: no such program, so {}; {}", python.empty() ? "python3" : python,
         script.without, script.advice);
  }
  const std::optional<Ended> ended =
      run_to_end(script_arguments(program->string(), script.source, request), script.time_limit_s);
  if (!ended) {
    return {{"late", program->string()}};
  }
  Json answer = last_object(ended->log);
  if (answer.is_null()) {
    const std::string_view said = trim(ended->log);
    fail(ErrorKind::kIo, "{}: {}, but ends with {} and says {}; {}", program->string(),
         script.silent, ended->status, said.empty() ? "nothing" : said, script.advice);
  }
  if (const auto missing = answer.find("missing"); missing != answer.end()) {
    fail(ErrorKind::kIo, "{}: {}, {}; {}", program->string(), missing->get<std::string>(),
         script.needed, script.advice);
  }
  return answer;
}

}  // namespace puzzle
