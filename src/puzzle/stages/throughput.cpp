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
#include "puzzle/stages/rank_lead.h"

namespace puzzle {
namespace {

constexpr std::int64_t kThroughputVersion = 4;

// Files in an engine of one version. What is found out about them is recorded piece by piece, each
// under a key of its own, so that a failure or another option costs one piece only.
class FilesInEngine {
 public:
  FilesInEngine(RunContext& context, const std::vector<TimedFile>& files, const Scenario& scenario,
                const TimedEngine& engine)
      : context_(context),
        files_(files),
        scenario_(scenario),
        engine_(engine),
        server_(scenario_server(engine.llama_server, scenario)),
        version_(find_llama_server_version(engine.llama_server)) {
    put_engine_version(context.db, version_);
    for (const TimedFile& file : files) {
      contents_.push_back(model_content_key(file.file));
    }
  }

  void time(const TokenPart& text, const KeepStep& keep_step) {
    KeyBuilder content;  // of all files together: they are compared with the first
    content.add("stage", "throughput").add("version", kThroughputVersion).add("what", "times");
    add_timing_to_key(content, files_, contents_, scenario_, text, engine_, version_);
    const std::string key = content.key();
    if (context_.db.has_stage(key)) {
      context_.db.put(recorded_times(context_.db, key, files_));
    } else {
      Progress progress("throughput", most_runs(engine_.timing, files_.size()), "runs at most");
      make(key, "times", [&] {
        return time_files(files_, scenario_, text, engine_, "throughput", key, [&] {
          progress.advance();
          keep_step();
        });
      });
    }
    context_.db.set_current(RunTable::kThroughput, "throughput", {key});
  }

  using Quality = std::vector<EvaluationRow> (*)(const std::vector<TimedFile>& files,
                                                 const TokenPart& part,
                                                 const LlamaServerOptions& server,
                                                 const std::string& key);
  // The key of the rows.
  [[nodiscard]] std::string judge(const char* what, const TokenPart& part, Quality quality) {
    KeyBuilder content;
    content.add("stage", "throughput").add("version", kThroughputVersion).add("what", what);
    for (std::size_t f = 0; f < files_.size(); ++f) {
      content.add("model", files_[f].model).add("file", contents_[f]);
    }
    content.add("text", part.content_key()).add("llama.cpp", version_);
    add_to_key(content, server_);
    const std::string key = content.key();
    if (!context_.db.has_stage(key)) {
      make(key, what, [&] { return quality(files_, part, server_, key); });
    }
    return key;
  }

 private:
  template <class MakeRows>
  void make(const std::string& key, const char* what, const MakeRows& rows) {
    const Stopwatch watch;
    const auto made = rows();
    RunTransaction transaction(context_.db);
    context_.db.put(made);
    context_.db.put({.key = key,
                     .stage = "throughput",
                     .what = fmt::format("{} of {} files", what, files_.size()),
                     .seconds = watch.seconds(),
                     .detail_json = "{}"});
    transaction.commit();
  }

  RunContext& context_;
  const std::vector<TimedFile>& files_;
  const Scenario& scenario_;
  const TimedEngine& engine_;
  LlamaServerOptions server_;
  std::string version_;
  std::vector<std::string> contents_;
};

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
  if (!options.enabled) {
    return;
  }
  lead_alone(context.communicator, [&](const KeepStep& keep_step) {
    if (files.empty()) {
      return;
    }
    // Rows of other files are no longer about these, whatever fails below.
    context.db.set_current(RunTable::kThroughput, "throughput", {});
    context.db.set_current(RunTable::kEvaluations, "throughput", {});
    FilesInEngine in_engine(context, files, scenario, engine);
    in_engine.time(test, keep_step);
    std::vector<std::string> keys;
    const auto judge = [&](const char* what, std::int64_t tokens, FilesInEngine::Quality quality) {
      if (tokens > 0 && test.num_windows() > 0) {
        keep_step();
        keys.push_back(in_engine.judge(what, test.first_tokens(tokens), quality));
        context.db.set_current(RunTable::kEvaluations, "throughput", keys);
      }
    };
    judge("hidden states", options.quality_tokens, hidden_state_quality);
    judge("log-probabilities", options.log_prob_tokens, log_prob_quality);
  });
}

}  // namespace puzzle
