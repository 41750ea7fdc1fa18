#include "puzzle/stages/throughput.h"

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/weight_types.h"
#include "stages/stack_server.h"

namespace puzzle {
namespace {

constexpr const char* kHidden = "quantised file";
constexpr const char* kLogProbs = "quantised file, llama.cpp's log-probabilities";

// A parent and a child as F32 files; the child is one of half the width.
struct ThroughputRun : test::StackServerRun {
  ThroughputRun() : child(random_model(child_spec(parent.weights.spec), 8)) {
    scenario.prompt_tokens = 8;
    scenario.generated_tokens = 5;
    options.quality_tokens = 64;
    options.log_prob_tokens = 32;
    write("parent", parent.weights);
    write("child", child);
  }
  static ModelSpec child_spec(const ModelSpec& parent) {
    return with_layers(parent, Architecture(3, {AttentionSpec::gqa(1), FfnSpec::swiglu(32)}));
  }
  void write(const std::string& name, const ModelWeights& model) {
    files.push_back({name, folder / (name + ".gguf"), std::nullopt, 1});
    write_model_gguf(files.back().file, model,
                     {.name = name,
                      .license = "",
                      .parent_name = "",
                      .tokenizer_source = parent.path,
                      .types = gguf_weight_types("f32", parent.path)});
  }
  void make() { measure_throughput(context, files, scenario, *validation, options, engine); }
  [[nodiscard]] ThroughputRow row(const std::string& model) const {
    for (const ThroughputRow& found : db.throughput()) {
      if (found.model == model) {
        return found;
      }
    }
    ADD_FAILURE() << "no row of " << model;
    return {};
  }
  [[nodiscard]] EvaluationRow quality(const std::string& model, const std::string& task,
                                      const std::string& metric) const {
    for (const EvaluationRow& found : db.evaluations()) {
      if (found.model == model && found.task == task && found.metric == metric) {
        return found;
      }
    }
    ADD_FAILURE() << "no " << metric << " of " << model << " in " << task;
    return {};
  }

  ModelWeights child;
  Scenario scenario;
  ThroughputOptions options;
  std::vector<TimedFile> files;
};

double parent_seconds(const ThroughputRun& run) {
  return test::made_up_seconds(run.parent.weights.spec.layers);
}
double child_seconds(const ThroughputRun& run) {
  return test::made_up_seconds(run.child.spec.layers);
}

TEST(Throughput, TimesAllFilesInTurn) {
  ThroughputRun run;
  run.options.quality_tokens = run.options.log_prob_tokens = 0;
  run.engine.llama_server.log_file = run.folder / "log";
  run.make();
  EXPECT_NEAR(*run.row("parent").measured_prefill_s, 8 * parent_seconds(run), 1e-9);
  EXPECT_NEAR(*run.row("child").measured_prefill_s, 8 * child_seconds(run), 1e-9);
  EXPECT_NEAR(*run.row("child").measured_generation_per_s, 1.0 / child_seconds(run), 1e-6);
  EXPECT_NEAR(*run.row("child").generation_p10_per_s, 1.0 / child_seconds(run), 1e-6);
  EXPECT_EQ(run.row("child").samples, 3);
  EXPECT_EQ(run.num_requests(), 2 * (1 + 3));
  EXPECT_TRUE(run.db.evaluations().empty());
  EXPECT_FALSE(run.row("child").predicted_prefill_s.has_value());
  EXPECT_TRUE(std::filesystem::exists(run.folder / "log"));
  EXPECT_TRUE(std::filesystem::exists(run.folder / "log.1")) << "each server has its own";
}

TEST(Throughput, NoisyRoundsAreFollowedByOthers) {
  ThroughputRun run;
  run.options.quality_tokens = run.options.log_prob_tokens = 0;
  run.use("stacks-noisy");  // the first six calls of each server
  run.engine.timing = {.warmup_calls = 0, .samples = 3, .max_rounds = 5};
  run.make();
  EXPECT_EQ(run.num_requests(), 2 * 3 * 3) << "the third round was quiet";
  EXPECT_NEAR(*run.row("child").measured_generation_per_s, 1.0 / child_seconds(run), 1e-6);
  EXPECT_NEAR(*run.row("parent").prefill_p90_s, 8 * parent_seconds(run), 1e-9);
}

TEST(Throughput, ReportsTheSpreadWhereNoRoundWasQuiet) {
  ThroughputRun run;
  run.options.quality_tokens = run.options.log_prob_tokens = 0;
  run.use("stacks-noisy");
  run.engine.timing = {.warmup_calls = 0, .samples = 3, .max_rounds = 2};
  run.make();
  EXPECT_EQ(run.num_requests(), 2 * 3 * 2);
  const ThroughputRow row = run.row("child");
  EXPECT_LT(*row.prefill_p10_s, 0.8 * *row.prefill_p90_s);
  EXPECT_LT(*row.generation_p10_per_s, *row.measured_generation_per_s);
  EXPECT_GT(*row.generation_p90_per_s, *row.measured_generation_per_s);
}

TEST(Throughput, WhatIsTimedIsNotTimedAgainForAnotherPrediction) {
  ThroughputRun run;
  run.make();
  const std::int64_t requests = run.num_requests();
  run.make();
  EXPECT_EQ(run.num_requests(), requests);
  Prediction prediction;
  prediction.seconds = {0.5, 0.25};
  prediction.generation_tokens_per_s = 16.0;
  run.files[1].prediction = prediction;
  run.make();
  EXPECT_EQ(run.num_requests(), requests);
  EXPECT_DOUBLE_EQ(*run.row("child").predicted_prefill_s, 0.5);
  EXPECT_DOUBLE_EQ(*run.row("child").predicted_generation_per_s, 16.0);
  EXPECT_FALSE(run.row("parent").predicted_prefill_s.has_value());
}

TEST(Throughput, AnotherOptionCostsOnlyWhatDependsOnIt) {
  ThroughputRun run;
  run.make();
  const std::int64_t requests = run.num_requests();
  run.scenario.generated_tokens += 1;
  run.make();
  EXPECT_EQ(run.num_requests() - requests, 2 * (1 + 3)) << "files are as good as they were";
  run.options.log_prob_tokens = 16;
  run.make();
  EXPECT_EQ(run.quality("child", kLogProbs, "loss").count, 15);
  EXPECT_EQ(run.quality("child", kHidden, "loss").count, 60);
  std::map<std::string, int> made;
  for (const StageRecord& record : run.db.stages_of("throughput", RowSet::kAll)) {
    ++made[record.what];
  }
  EXPECT_EQ(made["times of 2 files"], 2);
  EXPECT_EQ(made["hidden states of 2 files"], 1);
  EXPECT_EQ(made["log-probabilities of 2 files"], 2);
}

TEST(Throughput, TheFileIsJudgedWithTheCacheItWasTimedWith) {
  ThroughputRun run;
  run.make();
  run.scenario.cache_type = "q8_0";
  run.make();
  EXPECT_EQ(run.db.stages_of("throughput", RowSet::kAll).size(), 6U);
}

// log p of every token after `token` in the made-up hidden states, by the formula.
std::vector<double> hidden_log_probs(const ModelWeights& model, double milliseconds,
                                     std::int64_t token) {
  const at::Tensor head = model.head.to(at::kDouble).contiguous();
  const auto weights = head.accessor<double, 2>();
  std::vector<double> logits;
  double sum = 0.0;
  for (std::int64_t v = 0; v < head.size(0); ++v) {
    double logit = 0.0;
    for (std::int64_t i = 0; i < head.size(1); ++i) {
      logit += weights[v][i] *
               std::sin(milliseconds * static_cast<double>(token + 1) * static_cast<double>(i + 1));
    }
    logits.push_back(logit);
    sum += std::exp(logit);
  }
  for (double& logit : logits) {
    logit -= std::log(sum);
  }
  return logits;
}

TEST(Throughput, HiddenStatesTimesHeadGiveLossAndKl) {
  ThroughputRun run;
  run.make();
  double parent_loss = 0.0, child_loss = 0.0, kl = 0.0;
  const std::int64_t windows = 64 / run.validation->window();
  for (std::int64_t w = 0; w < windows; ++w) {
    const at::Tensor tokens = run.validation->slice(w, 1).tokens_BT[0];
    for (std::int64_t t = 0; t < tokens.size(0); ++t) {
      const auto token = tokens[t].item<std::int64_t>();
      const auto p = hidden_log_probs(run.parent.weights, 1e3 * parent_seconds(run), token);
      const auto q = hidden_log_probs(run.child, 1e3 * child_seconds(run), token);
      for (std::size_t v = 0; v < p.size(); ++v) {
        kl += std::exp(p[v]) * (p[v] - q[v]);
      }
      if (t + 1 < tokens.size(0)) {
        const auto next = static_cast<std::size_t>(tokens[t + 1].item<std::int64_t>());
        parent_loss -= p[next];
        child_loss -= q[next];
      }
    }
  }
  const double tokens = 64.0;
  const double labels = tokens - static_cast<double>(windows);
  EXPECT_NEAR(run.quality("parent", kHidden, "loss").value, parent_loss / labels, 1e-4);
  EXPECT_NEAR(run.quality("child", kHidden, "loss").value, child_loss / labels, 1e-4);
  EXPECT_NEAR(run.quality("child", kHidden, "kl").value, kl / tokens, 1e-4);
  const EvaluationRow difference = run.quality("child", kHidden, "loss_minus_parent");
  EXPECT_NEAR(difference.value, (child_loss - parent_loss) / labels, 1e-4);
  EXPECT_GT(difference.standard_error, 0.0);
  EXPECT_EQ(difference.count, static_cast<std::int64_t>(labels));
}

TEST(Throughput, LlamaCppsOwnLogProbabilitiesAreRecordedBeside) {
  ThroughputRun run;
  run.make();
  // The made-up server gives token t >= 100 the log-probability 99 - t, times its milliseconds.
  double sum = 0.0;
  for (std::int64_t w = 0; w < 2; ++w) {
    const at::Tensor tokens = run.validation->slice(w, 1).tokens_BT[0];
    for (std::int64_t t = 1; t < tokens.size(0); ++t) {
      sum += static_cast<double>(tokens[t].item<std::int64_t>()) - 99.0;
    }
  }
  const double mean = sum / 30.0;
  const double parent = 1e3 * parent_seconds(run) * mean;
  const double own = 1e3 * child_seconds(run) * mean;
  EXPECT_NEAR(run.quality("parent", kLogProbs, "loss").value, parent, 1e-6);
  EXPECT_NEAR(run.quality("child", kLogProbs, "loss").value, own, 1e-6);
  EXPECT_NEAR(run.quality("child", kLogProbs, "loss_minus_parent").value, own - parent, 1e-6);
  EXPECT_EQ(run.quality("child", kLogProbs, "loss").count, 30);
}

TEST(WeightTypes, AFileIsComparedWithWhatWasMeasured) {
  ThroughputRun run;
  const auto stored_as = [&](const std::string& types) {
    return is_stored_as(run.files[0].file, deployed_types(types, run.scenario, run.parent.path));
  };
  EXPECT_TRUE(stored_as("f32"));
  EXPECT_FALSE(stored_as("f16"));
  EXPECT_FALSE(stored_as("fp8"));
  run.scenario.cache_type = "q8_0";
  EXPECT_EQ(deployed_types("f16", run.scenario, run.parent.path).kv, DType::kQ8_0);
  EXPECT_EQ(deployed_types("fp8", run.scenario, run.parent.path).matrix, DType::kF8E4M3);
}

}  // namespace
}  // namespace puzzle
