#include "puzzle/stages/throughput.h"

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "puzzle/base/hash.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/results/facts.h"
#include "puzzle/stages/file_quality.h"

namespace puzzle {
namespace {

constexpr std::int64_t kThroughputVersion = 3;

}  // namespace

void ThroughputOptions::visit(OptionList& list) {
  const Range<std::int64_t> tokens{0, std::int64_t{1} << 40};
  list.add("enabled", enabled,
           "Whether exported files are timed in llama.cpp at the end of a run.");
  list.add("quality_tokens", quality_tokens, tokens,
           "Test tokens on which the quantised files are compared by llama.cpp's hidden states; 0 "
           "for none.");
  list.add("log_prob_tokens", log_prob_tokens, tokens,
           "Test tokens on which they are compared by llama.cpp's own log-probabilities, some ten "
           "times slower; 0 for none.");
}

void measure_throughput(RunContext& context, const std::vector<TimedFile>& files,
                        const Scenario& scenario, const TokenPart& test,
                        const ThroughputOptions& options, const TimedEngine& engine) {
  const c10::NoGradGuard no_grad;
  if (context.communicator.is_first() && options.enabled && !files.empty()) {
    const Stopwatch watch;
    const std::string version = find_llama_server_version(engine.llama_server);
    put_engine_version(context.db, version);
    KeyBuilder content;  // of all files together: they are compared with the first
    content.add("stage", "throughput").add("version", kThroughputVersion);
    content.add("quality_tokens", options.quality_tokens);
    content.add("log_prob_tokens", options.log_prob_tokens);
    std::vector<std::string> contents;
    for (const TimedFile& file : files) {
      contents.push_back(model_content_key(file.file));
    }
    add_timing_to_key(content, files, contents, scenario, test, engine, version);
    const std::string key = content.key();
    if (!context.db.has_stage(key)) {
      std::vector<ThroughputRow> rows;
      {
        Progress progress("throughput", most_runs(engine.timing, files.size()), "runs at most");
        rows = time_files(files, scenario, test, engine, "throughput", key,
                          [&] { progress.advance(); });
      }
      std::vector<JudgedFile> judged;
      for (const TimedFile& file : files) {
        judged.push_back({file.model, file.file, key});
      }
      std::vector<EvaluationRow> quality;
      const auto judge = [&](std::int64_t tokens, const auto& quality_of) {
        if (tokens > 0 && test.num_windows() > 0) {
          const std::vector<EvaluationRow> more =
              quality_of(judged, test.first_tokens(tokens), engine.llama_server);
          quality.insert(quality.end(), more.begin(), more.end());
        }
      };
      judge(options.quality_tokens, hidden_state_quality);
      judge(options.log_prob_tokens, log_prob_quality);
      RunTransaction transaction(context.db);
      context.db.put(rows);
      context.db.put(quality);
      context.db.put({.key = key,
                      .stage = "throughput",
                      .what = fmt::format("{} files", files.size()),
                      .seconds = watch.seconds(),
                      .detail_json = "{}"});
      transaction.commit();
    } else {
      context.db.put(recorded_times(context.db, key, files));
    }
    context.db.set_current(RunTable::kThroughput, "throughput", {key});
    context.db.set_current(RunTable::kEvaluations, "throughput", {key});
  }
  context.communicator.barrier();
}

}  // namespace puzzle
