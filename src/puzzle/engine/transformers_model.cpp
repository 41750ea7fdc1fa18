#include "puzzle/engine/transformers_model.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/engine/python_script.h"
#include "puzzle/engine/transformers_script.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTransformersAdvice =
    "tools/setup.sh --with-tests installs one in .venv, or pip install torch transformers";

// A file in a folder that only this user may enter, removed at the end.
class TemporaryOutput {
 public:
  TemporaryOutput() {
    std::string name = (fs::temp_directory_path() / "puzzle-logits-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      fail(ErrorKind::kIo, "{}: no temporary folder for logits: {}", name, std::strerror(errno));
    }
    path_ = fs::path(name) / "logits";
  }
  ~TemporaryOutput() {
    std::error_code ignored;
    fs::remove_all(path_.parent_path(), ignored);
  }
  TemporaryOutput(const TemporaryOutput&) = delete;
  TemporaryOutput& operator=(const TemporaryOutput&) = delete;

  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

TransformersLogits transformers_logits(const fs::path& folder,
                                       const std::vector<std::vector<std::int32_t>>& sequences,
                                       const std::string& python, double time_limit_s) {
  const TemporaryOutput output;
  const Json request = {{"folder", fs::absolute(folder).string()},
                        {"sequences", sequences},
                        {"output", output.path().string()}};
  const PythonScript script = {.source = transformers_script(),
                               .time_limit_s = time_limit_s,
                               .without = "nothing runs transformers",
                               .silent = "runs no transformers model",
                               .needed = "which runs Hugging Face folders",
                               .advice = kTransformersAdvice};
  const Json answer = run_python_script(script, request, python);
  if (const auto late = answer.find("late"); late != answer.end()) {
    fail(ErrorKind::kIo, "{}: transformers is not done after {} s", late->get<std::string>(),
         time_limit_s);
  }
  if (const auto error = answer.find("error"); error != answer.end()) {
    fail(ErrorKind::kFormat, "{}: transformers does not run it: {}", folder.string(),
         error->get<std::string>());
  }
  TransformersLogits logits;
  logits.engine = json_string(answer, "engine", "transformers");
  logits.vocab_size = json_int(answer, "vocabulary", "transformers");
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
