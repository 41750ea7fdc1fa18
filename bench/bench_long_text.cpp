// Long-text questions (stages/evaluate_long_text.h) for any models beside each other, without a
// run:
//
//   bench_long_text "512 1024" SAMPLES PARENT CHILD…
//
// Each is a .gguf file or a Hugging Face folder; the texts are made with PARENT's tokenizer.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

#include "puzzle/base/progress.h"
#include "puzzle/dist/single_communicator.h"
#include "puzzle/stages/evaluate_long_text.h"
#include "puzzle/tensor/device.h"

namespace {

void ask(puzzle::RunContext& context, const puzzle::LongTextOptions& options,
         const std::vector<std::string>& paths) {
  using namespace puzzle;  // NOLINT(google-build-using-namespace): a program of one function
  std::vector<LoadedModel> models;
  for (const std::string& path : paths) {
    models.push_back(open_model(path, at::kCPU, at::kFloat));
  }
  std::printf("%-24s %-32s %6s %6s %8s %6s\n", "task", "model", "found", "±", "nats", "±");
  for (const LongTextSet& set : make_long_text_sets(options, *models.front().tokenizer)) {
    for (const LoadedModel& model : models) {
      Progress progress(set.name, std::ssize(set.samples), "texts");
      const LongTextScores scores = score_long_text(context, model.weights, model.geometry,
                                                    *models.front().tokenizer, set, progress);
      const auto rows = long_text_rows(set, scores, nullptr, model.path.filename().string(), "");
      std::printf("%-24s %-32s %6.3f %6.3f %8.2f %6.2f\n", set.name.c_str(), rows[0].model.c_str(),
                  rows[0].value, rows[0].standard_error, rows[1].value, rows[1].standard_error);
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fputs("usage: bench_long_text \"LENGTH…\" SAMPLES MODEL…\n", stderr);
    return 2;
  }
  puzzle::set_num_threads(0);
  puzzle::keep_freed_memory();
  puzzle::LongTextOptions options;
  std::istringstream lengths(argv[1]);
  for (std::int64_t length = 0; lengths >> length;) {
    options.lengths.push_back(length);
  }
  options.samples = std::atoll(argv[2]);
  const auto folder =
      std::filesystem::temp_directory_path() / ("bench-long-text-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  int status = 0;
  try {
    puzzle::RunDb db(folder / "run.db");
    puzzle::SingleCommunicator communicator;
    puzzle::RunContext context{folder, db, communicator};
    ask(context, options, {argv + 3, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_long_text: %s\n", error.what());
    status = 1;
  }
  std::filesystem::remove_all(folder);
  return status;
}
