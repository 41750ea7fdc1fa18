#include "puzzle/engine/transformers_model.h"

#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/child_process.h"
#include "puzzle/engine/transformers_script.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxScriptArgument = 100'000;  // Linux takes up to 128 KiB in one
constexpr const char* kTransformersAdvice =
    "tools/setup.sh installs one in .venv, or pip install torch transformers";

// A name that no other process uses, removed at the end.
class TemporaryOutput {
 public:
  TemporaryOutput()
      : path_(fs::temp_directory_path() / fmt::format("puzzle-logits-{}-{}", ::getpid(),
                                                      reinterpret_cast<std::uintptr_t>(this))) {}
  ~TemporaryOutput() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  TemporaryOutput(const TemporaryOutput&) = delete;
  TemporaryOutput& operator=(const TemporaryOutput&) = delete;

  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// All that the process prints.
std::string run_script(const std::string& python, const Json& request, double time_limit_s) {
  std::vector<std::string> arguments = {python, "-c", transformers_script()};
  const std::string text =
      request.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  for (std::size_t at = 0; at < text.size(); at += kMaxScriptArgument) {
    arguments.push_back(text.substr(at, kMaxScriptArgument));
  }
  const ChildProcess child({arguments, {"PYTHONUNBUFFERED=1"}, ""});
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(time_limit_s);
  while (!child.ended()) {
    throw_if_interrupted();
    if (std::chrono::steady_clock::now() > end) {
      fail(ErrorKind::kIo, "{}: transformers is not done after {} s", python, time_limit_s);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return child.log();
}

Json parse_script_answer(const std::string& log, const std::string& python,
                         const fs::path& folder) {
  const std::vector<std::string> lines = split(trim(log), '\n');
  Json answer = Json::parse(lines.empty() ? "" : lines.back(), nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) {
    fail(ErrorKind::kIo, "{}: runs no transformers model, but says {}; {}", python, trim(log),
         kTransformersAdvice);
  }
  if (const auto missing = answer.find("missing"); missing != answer.end()) {
    fail(ErrorKind::kIo, "{}: {}, which runs Hugging Face folders; {}", python,
         missing->get<std::string>(), kTransformersAdvice);
  }
  if (const auto error = answer.find("error"); error != answer.end()) {
    fail(ErrorKind::kFormat, "{}: transformers does not run it: {}", folder.string(),
         error->get<std::string>());
  }
  return answer;
}

}  // namespace

TransformersLogits transformers_logits(const fs::path& folder,
                                       const std::vector<std::vector<std::int32_t>>& sequences,
                                       const std::string& python, double time_limit_s) {
  const auto program = python.empty() ? find_python() : find_program(python);
  if (!program) {
    fail(ErrorKind::kIo, "{}: no such program, so nothing runs transformers; {}",
         python.empty() ? "python3" : python, kTransformersAdvice);
  }
  const TemporaryOutput output;
  const Json request = {{"folder", fs::absolute(folder).string()},
                        {"sequences", sequences},
                        {"output", output.path().string()}};
  const Json answer =
      parse_script_answer(run_script(program->string(), request, time_limit_s), *program, folder);
  TransformersLogits logits;
  logits.engine = answer.at("engine").get<std::string>();
  logits.vocab_size = answer.at("vocabulary").get<std::int64_t>();
  std::size_t tokens = 0;
  for (const auto& sequence : sequences) {
    tokens += sequence.size();
  }
  logits.values.resize(tokens * static_cast<std::size_t>(logits.vocab_size));
  const std::string bytes = read_text_file(output.path());
  PUZZLE_CHECK(bytes.size() == logits.values.size() * sizeof(float),
               "transformers wrote {} bytes for {} logits", bytes.size(), logits.values.size());
  std::memcpy(logits.values.data(), bytes.data(), bytes.size());
  return logits;
}

}  // namespace puzzle
