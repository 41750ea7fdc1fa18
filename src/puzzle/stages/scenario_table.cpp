#include "puzzle/stages/scenario_table.h"

#include <algorithm>
#include <optional>

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/results/facts.h"
#include "puzzle/results/throughput_rows.h"
#include "puzzle/stages/rank_lead.h"
#include "puzzle/stages/timed_files.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

constexpr std::int64_t kScenariosVersion = 1;
constexpr std::int64_t kPromptTokensPerStep = 16;
constexpr std::int64_t kMostTokens = 1 << 20;  // as in a scenario

Workload parse_lengths(const std::string& text) {
  const std::size_t slash = std::min(text.find('/'), text.size());
  const auto tokens = [&](std::size_t begin, std::size_t end) {
    return parse_number<std::int64_t>(std::string_view(text).substr(begin, end - begin))
        .value_or(0);
  };
  const std::int64_t prompt = tokens(0, slash);
  const std::int64_t generated = slash < text.size() ? tokens(slash + 1, text.size()) : 0;
  if (prompt < 1 || generated < 2 || prompt > kMostTokens || generated > kMostTokens) {
    fail(ErrorKind::kUsage,
         "scenarios.lengths: '{}', expected prompt and generated tokens, e.g. 128/1024, of at "
         "least 1 and 2 and at most {}",
         text, kMostTokens);
  }
  return {1, prompt, generated};
}

// The smallest space that holds the models' sub-blocks.
SearchSpace space_of_models(const std::vector<ScenarioModel>& models) {
  SearchSpace space;
  for (const ScenarioModel& model : models) {
    for (const BlockSpec& block : model.layers) {
      space.layers.push_back({{block.attention}, {block.ffn}});
    }
  }
  return space;
}

// Costs of the models' sub-blocks, and which files they are true of.
class Predictor {
 public:
  Predictor(RunContext& context, const LoadedModel& parent,
            const std::vector<ScenarioModel>& models, Scenario scenario,
            const ScenarioTableOptions& options, MeasureOptions measure_options,
            const TimedEngine& engine) {
    const WeightTypes types = deployed_types(measure_options.types, scenario, parent.path);
    for (const ScenarioModel& model : models) {
      is_stored_so_.push_back(is_stored_as(model.file, types));
    }
    measure_options.engine = "llama-server";
    measure_options.contexts = predicted_contexts(options.workloads());
    measure_options.steps = predicted_steps(options.workloads(), measure_options.steps);
    scenario.batch = options.batch;
    // What is extrapolated is judged by these lengths.
    scenario.prompt_tokens = measure_options.contexts.front();
    scenario.generated_tokens = options.longest() - scenario.prompt_tokens;
    costs_.emplace(measure(context, parent, space_of_models(models), scenario, measure_options,
                           engine, MeasureRole::kPrediction)
                       .rows,
                   "scenarios: measured costs");
  }

  // Of the `index`-th model.
  [[nodiscard]] std::optional<Prediction> predict(std::size_t index, const ScenarioModel& model,
                                                  const Workload& workload) const {
    return is_stored_so_[index] ? std::optional(costs_->predict(model.layers, workload))
                                : std::nullopt;
  }

 private:
  std::vector<bool> is_stored_so_;  // by model: in the types that were timed
  std::optional<CostModel> costs_;
};

// One workload of the table.
struct TablePoint {
  Scenario scenario;
  std::vector<TimedFile> files;

  // Tokens by the time they take: a step of generation takes about that of eight of prefill.
  [[nodiscard]] std::int64_t work_per_run() const {
    const std::int64_t batch = files.front().batch;
    return batch * (scenario.prompt_tokens / 8 + scenario.generated_tokens);
  }
  [[nodiscard]] std::string name() const {
    return fmt::format("batch {}, {} + {} tokens", files.front().batch, scenario.prompt_tokens,
                       scenario.generated_tokens);
  }
};

TablePoint make_point(const std::vector<ScenarioModel>& models, const Workload& workload,
                      const Scenario& scenario, const std::optional<Predictor>& predictor) {
  TablePoint point{scenario, {}};
  point.scenario.prompt_tokens = workload.prompt_tokens;
  point.scenario.generated_tokens = workload.generated_tokens;
  for (std::size_t m = 0; m < models.size(); ++m) {
    point.files.push_back({models[m].name, models[m].file,
                           predictor ? predictor->predict(m, models[m], workload) : std::nullopt,
                           workload.batch});
  }
  return point;
}

std::vector<std::string> keys_of(const std::vector<TablePoint>& points,
                                 const std::vector<ScenarioModel>& models, const TokenPart& text,
                                 const TimedEngine& engine, RunDb& db) {
  const std::string version = find_llama_server_version(engine.llama_server);
  put_engine_version(db, version);
  std::vector<std::string> contents;
  for (const ScenarioModel& model : models) {
    contents.push_back(model_content_key(model.file));
  }
  std::vector<std::string> keys;
  for (const TablePoint& point : points) {
    KeyBuilder content;
    content.add("stage", "scenarios").add("version", kScenariosVersion);
    add_timing_to_key(content, point.files, contents, point.scenario, text, engine, version);
    keys.push_back(content.key());
  }
  return keys;
}

void time_point(RunContext& context, const TablePoint& point, const TokenPart& text,
                const TimedEngine& engine, const std::string& key, Progress& progress,
                const KeepStep& keep_step) {
  std::int64_t left = point.work_per_run() * most_runs(engine.timing, point.files.size());
  if (!context.db.has_stage(key)) {
    const Stopwatch watch;
    const std::vector<ThroughputRow> rows = time_files(
        point.files, point.scenario, text, engine, "scenarios, " + point.name(), key, [&] {
          progress.advance(point.work_per_run(), point.name());
          left -= point.work_per_run();
          keep_step();
        });
    RunTransaction transaction(context.db);
    context.db.put(rows);
    context.db.put({.key = key,
                    .stage = "scenarios",
                    .what = point.name(),
                    .seconds = watch.seconds(),
                    .detail_json = "{}"});
    transaction.commit();
  } else {
    context.db.put(recorded_times(context.db, key, point.files));
  }
  progress.skip(left);  // recorded already, or quiet before the last round
}

}  // namespace

void ScenarioTableOptions::visit(OptionList& list) {
  list.add("enabled", enabled,
           "Whether a run ends with the table of workloads; `puzzle scenarios` makes it in any "
           "case.");
  list.add("lengths", lengths,
           "Prompt and generated tokens of every row, prompt/generated; the paper's six.");
  list.add("batch", batch, Range<std::int64_t>{1, 1 << 16},
           "Sequences at once, each at every length.");
  list.add("predict", predict,
           "Whether sub-blocks of parent and child are timed at these lengths, so that each row "
           "says what was predicted.");
}

std::vector<Workload> ScenarioTableOptions::workloads() const {
  std::vector<Workload> workloads;
  for (const std::string& text : lengths) {
    for (const std::int64_t sequences : batch) {
      workloads.push_back(parse_lengths(text));
      workloads.back().batch = sequences;
    }
  }
  return workloads;
}

std::int64_t ScenarioTableOptions::longest() const {
  std::int64_t tokens = 0;
  for (const Workload& workload : workloads()) {
    tokens = std::max(tokens, workload.prompt_tokens + workload.generated_tokens);
  }
  return tokens;
}

std::vector<std::int64_t> predicted_contexts(const std::vector<Workload>& workloads) {
  std::vector<std::int64_t> contexts;
  std::int64_t longest = 0;
  for (const Workload& workload : workloads) {
    contexts.push_back(workload.prompt_tokens);
    longest = std::max(longest, workload.prompt_tokens + workload.generated_tokens);
  }
  std::sort(contexts.begin(), contexts.end());
  contexts.erase(std::unique(contexts.begin(), contexts.end()), contexts.end());
  const std::int64_t slack = CostModel::known_beyond(contexts.front(), contexts.back());
  if (longest > contexts.back() + slack || contexts.size() == 1) {  // one point is no line
    contexts.push_back(longest);
  }
  return contexts;
}

std::int64_t predicted_steps(const std::vector<Workload>& workloads, std::int64_t least) {
  return std::max(least, predicted_contexts(workloads).back() / kPromptTokensPerStep);
}

void measure_scenarios(RunContext& context, const LoadedModel& parent,
                       const std::vector<ScenarioModel>& models, const TokenPart& text,
                       const Scenario& scenario, const ScenarioTableOptions& options,
                       MeasureOptions measure_options, const TimedEngine& engine) {
  const c10::NoGradGuard no_grad;
  const std::vector<Workload> workloads = options.workloads();
  if (context.communicator.is_first()) {
    // Rows of other files are no longer about these, whatever fails below.
    context.db.set_current(RunTable::kThroughput, kScenarioScope, {});
  }
  std::optional<Predictor> predictor;
  if (options.predict) {  // on all ranks, as measure() is
    predictor.emplace(context, parent, models, scenario, options, std::move(measure_options),
                      engine);
  }
  lead_alone(context.communicator, [&](const KeepStep& keep_step) {
    std::vector<TablePoint> points;
    std::int64_t work = 0;
    for (const Workload& workload : workloads) {
      points.push_back(make_point(models, workload, scenario, predictor));
      work += points.back().work_per_run() * most_runs(engine.timing, models.size());
    }
    const std::vector<std::string> keys = keys_of(points, models, text, engine, context.db);
    context.db.set_current(RunTable::kThroughput, kScenarioScope, keys);
    Progress progress("scenarios", work, "tokens at most");
    for (std::size_t i = 0; i < points.size(); ++i) {
      time_point(context, points[i], text, engine, keys[i], progress, keep_step);
    }
  });
}

}  // namespace puzzle
