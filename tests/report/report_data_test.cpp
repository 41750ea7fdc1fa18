#include "puzzle/report/report_data.h"

#include <cmath>

#include <gtest/gtest.h>

#include "puzzle/base/error.h"
#include "puzzle/report/estimate_figure.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

EvaluationRow evaluation(const std::string& model, const std::string& task,
                         const std::string& metric, double value, double error) {
  return {.key = "k",
          .model = model,
          .task = task,
          .metric = metric,
          .value = value,
          .standard_error = error,
          .count = 100};
}

ThroughputRow speed(const std::string& model, const std::string& engine, double rate, double half) {
  ThroughputRow row{.key = "k", .model = model, .engine = engine};
  row.measured_generation_per_s = rate;
  row.generation_p10_per_s = rate - half;
  row.generation_p90_per_s = rate + half;
  return row;
}

TEST(ReportData, RetentionCombinesErrors) {
  ReportData data;
  data.evaluations = {evaluation("child", "a", "accuracy", 0.6, 0.03),
                      evaluation("child", "b", "accuracy", 0.9, 0.01),
                      evaluation("child", "b", "accuracy_norm", 0.36, 0.02),
                      evaluation("child", "c", "kl", 0.1, 0.01),
                      evaluation("parent", "a", "accuracy", 0.8, 0.04),
                      evaluation("parent", "b", "accuracy", 0.9, 0.01),
                      evaluation("parent", "b", "accuracy_norm", 0.4, 0.02)};
  const auto a = relative_to_parent(data, data.evaluations[0]);
  ASSERT_TRUE(a.has_value());
  EXPECT_DOUBLE_EQ(a->value, 0.75);
  // d(c/p) = sqrt((dc/p)^2 + (c dp/p^2)^2)
  const double error_a = std::sqrt(std::pow(0.03 / 0.8, 2) + std::pow(0.6 * 0.04 / 0.64, 2));
  EXPECT_NEAR(a->error, error_a, 1e-12);
  EXPECT_FALSE(relative_to_parent(data, data.evaluations[3]).has_value());

  const auto mean = mean_retention(data, "child");
  ASSERT_TRUE(mean.has_value());
  EXPECT_EQ(mean->num_tasks, 2U);
  EXPECT_NEAR(mean->mean.value, (0.75 + 0.9) / 2, 1e-12);
  const double error_b = std::sqrt(std::pow(0.02 / 0.4, 2) + std::pow(0.36 * 0.02 / 0.16, 2));
  EXPECT_NEAR(mean->mean.error, std::sqrt(error_a * error_a + error_b * error_b) / 2, 1e-12);
  EXPECT_FALSE(mean_retention(data, "stranger").has_value());
}

TEST(ReportData, APairedDifferenceGivesTheError) {
  ReportData data;
  data.evaluations = {evaluation("child", "a", "accuracy", 0.6, 0.03),
                      evaluation("child", "a", "accuracy_minus_parent", -0.2, 0.02),
                      evaluation("parent", "a", "accuracy", 0.8, 0.04)};
  const auto relative = relative_to_parent(data, data.evaluations[0]);
  ASSERT_TRUE(relative.has_value());
  // Var(x − y) = Var x + Var y − 2 Cov(x, y); the error is that of x − 0.75 y, over the parent's
  // 0.8.
  const double covariance = (0.03 * 0.03 + 0.04 * 0.04 - 0.02 * 0.02) / 2.0;
  const double variance = 0.03 * 0.03 - 2.0 * 0.75 * covariance + 0.75 * 0.75 * 0.04 * 0.04;
  EXPECT_NEAR(relative->error, std::sqrt(variance) / 0.8, 1e-12);
}

TEST(ReportData, SpeedsAreComparedInOneWorkload) {
  ReportData data;
  data.throughput = {speed("child", "llama-server", 150, 3), speed("child", "native", 30, 1),
                     speed("parent", "llama-server", 100, 4), speed("parent", "native", 20, 1)};
  data.throughput[3].batch = 8;
  const auto pairs = speed_pairs(data, "child");
  ASSERT_EQ(pairs.size(), 1U);
  EXPECT_EQ(pairs[0].model->engine, "llama-server");
  const Estimate ratio = generation_speed_up(pairs[0]);
  EXPECT_DOUBLE_EQ(ratio.value, 1.5);
  EXPECT_NEAR(ratio.error, 1.5 * std::sqrt(0.04 * 0.04 + 0.02 * 0.02), 1e-12);
  data.throughput[3].batch = 1;
  EXPECT_EQ(speed_pairs(data, "child").size(), 2U);
}

TEST(ReportData, FindsTheChildsArchitecture) {
  ReportData data;
  EXPECT_EQ(child_architecture(data), nullptr);
  data.architectures = {{.key = "1",
                         .name = "a-sweep",
                         .method = "mip",
                         .detail_json = R"({"swept_cost": "parameters"})"},
                        {.key = "2",
                         .name = "best",
                         .method = "mip",
                         .costs_json = R"({"parameters": 10, "note": "x", "total_s": 0.5})",
                         .detail_json = R"({"batch": 0.5})"},
                        {.key = "3", .name = "greedy", .method = "greedy"}};
  EXPECT_EQ(child_architecture(data)->name, "best");
  data.models = {{.key = "m", .name = "small", .role = "child", .architecture = "greedy"}};
  EXPECT_EQ(child_architecture(data)->name, "greedy");
  EXPECT_EQ(child_name(data), "small");
  const ArchitectureRow& best = data.architectures[1];
  EXPECT_EQ(costs_of(best).size(), 2U);
  EXPECT_EQ(cost_of(best, "total_s"), 0.5);
  EXPECT_EQ(cost_of(best, "absent"), std::nullopt);
  EXPECT_EQ(detail_number(best, "batch"), 0.5);
  EXPECT_EQ(detail_text(data.architectures[0], "swept_cost"), "parameters");
}

TEST(ReportData, CostsAreShownInTheirUnits) {
  EXPECT_EQ(cost_text("weight_bytes", 1536.0 * 1024), "1.5 MiB");
  EXPECT_EQ(cost_text("memory_mib", 2048), "2.0 GiB");
  EXPECT_EQ(cost_text("generation_tokens_per_s", 139.44), "139.4/s");
  EXPECT_EQ(cost_text("total_s", 1.5), "1.500 s");
  EXPECT_EQ(cost_text("parameters", 134'515'008), "134.5 M");
}

TEST(ReportData, ThinsOutCurvesByMeans) {
  std::vector<ChartPoint> points;
  for (int i = 0; i < 1000; ++i) {
    points.push_back({static_cast<double>(i), 2.0 * i});
  }
  const auto thin = thin_out(points, 10);
  ASSERT_EQ(thin.size(), 10U);
  EXPECT_NEAR(thin[0].x, 49.5, 1e-9);
  EXPECT_NEAR(thin[9].y, 2 * 949.5, 1e-9);
  EXPECT_EQ(thin_out(points, 1000).size(), 1000U);
}

TEST(ReportData, EveryScoreMetricHasALabel) {
  for (const char* metric : {"kl", "lm_loss", "top1", "downstream"}) {
    EXPECT_NE(metric_label(metric), metric);
  }
  EXPECT_EQ(metric_label("downstream"), "accuracy lost on questions");
  EXPECT_EQ(metric_label("loss_minus_parent"), "loss minus parent");
}

TEST(ReportData, LongTextsAreShownWithTheQuestionsAndCountInNoMean) {
  ReportData data;
  data.evaluations = {evaluation("child", "blimp", "accuracy", 0.6, 0.03),
                      evaluation("parent", "blimp", "accuracy", 0.8, 0.04),
                      evaluation("child", "question@512", "found_fraction", 0.25, 0.05),
                      evaluation("parent", "question@512", "found_fraction", 0.5, 0.05),
                      evaluation("child", "question@512", "answer_nats", 6.0, 0.0),
                      evaluation("parent", "question@512", "answer_nats", 3.0, 0.0),
                      evaluation("child", "text", "loss", 3.0, 0.1)};
  const std::string body = evaluation_section(data).body;
  EXPECT_LT(body.find("text"), body.find("blimp"));
  EXPECT_LT(body.find("blimp"), body.find("question@512"));
  EXPECT_NE(body.find("expected strings found"), std::string::npos);
  EXPECT_NE(body.find("50<span class=\"pm\"> ± 11 %"), std::string::npos) << body;
  EXPECT_NE(body.find("+100 %"), std::string::npos) << body;
  EXPECT_EQ(mean_retention(data, "child")->num_tasks, 1U);
}

TEST(ReportData, QuestionsAreNotCalledTokens) {
  ReportData data;
  data.parent = ParentFacts{};
  data.parent->blocks = {{AttentionSpec::gqa(2), FfnSpec::swiglu(64)}};
  data.scores = {{"k", 0, "none/w64", "downstream", "downstream", 0.25, 0.01, 40}};
  const std::string body = score_section(data).body;
  EXPECT_NE(body.find("Scored on 40 questions."), std::string::npos);
  EXPECT_NE(body.find("accuracy lost on questions"), std::string::npos);
}

TEST(ReportData, ScoresOfMethodHybridSayHowManyAreExact) {
  ReportData data;
  data.parent = ParentFacts{};
  data.parent->blocks.assign(2, {AttentionSpec::gqa(2), FfnSpec::swiglu(64)});
  for (const std::int64_t layer : {0, 1}) {
    for (const char* block : {"none/w64", "kv2/none", "none/none"}) {
      data.scores.push_back({"g", layer, block, "gradient", "kl", 0.25, 0.01, 40});
    }
  }
  EXPECT_NE(score_section(data).body.find(
                "nats per token (estimates by gradient: 0 of 4 variants scored exactly)"),
            std::string::npos);
  data.scores.push_back({"e", 1, "kv2/none", "replace-one", "kl", 0.25, 0.01, 40});
  const std::string body = score_section(data).body;
  EXPECT_NE(body.find("(hybrid: 1 of 4 variants scored exactly, here the estimates)"),
            std::string::npos);
  EXPECT_NE(body.find("(hybrid: the 1 of 4 variants scored exactly)"), std::string::npos);
}

TEST(ReportData, EstimatesAreShownBesideExactScores) {
  ReportData data;
  data.parent = ParentFacts{};
  data.parent->blocks.assign(5, {AttentionSpec::gqa(2), FfnSpec::swiglu(64)});
  const auto add = [&data](std::int64_t layer, const char* method, const char* metric,
                           double value) {
    data.scores.push_back({method, layer, "none/w64", method, metric, value, 0.01, 40});
  };
  // Exact 1 … 5. Combined: all in order, at 0.8; per sequence: 1 and 2 swapped, 1 - 6·2/(5·24) =
  // 0.9, ratios 2, ½, 1, 1, 1; per token: reversed, ratios 5, 2, 1, ½, ⅕.
  const std::vector<double> per_sequence = {2, 1, 3, 4, 5};
  for (std::int64_t layer = 0; layer < 5; ++layer) {
    EXPECT_EQ(score_section(data).body.find("Spearman"), std::string::npos) << layer;
    const auto exact = static_cast<double>(layer + 1);
    add(layer, "gradient", "kl", 0.8 * exact);
    add(layer, "gradient", "kl_per_sequence", per_sequence[static_cast<std::size_t>(layer)]);
    add(layer, "gradient", "kl_per_token", 6 - exact);
    add(layer, "replace-one", "kl", exact);
  }
  const std::string body = score_section(data).body;
  const auto row = [](const std::string& name, const std::string& spearman,
                      const std::string& ratio) {
    return name + R"(</th><td class="n">5</td><td class="n">)" + spearman +
           R"(</td><td class="n">)" + ratio;
  };
  for (const std::string& expected :
       {row("per sequence", "0.900", "1.00"), row("per token", "−1.00", "1.00"),
        row("combined", "1.00", "0.800")}) {
    EXPECT_NE(body.find(expected), std::string::npos) << expected << "\n" << body;
  }
}

TEST(ReportData, RankCorrelationSharesRanksOfEqualValues) {
  // Ranks 0, 1½, 1½, 3 and 0, 1, 2, 3: 4.5 / √(4.5 · 5).
  EXPECT_NEAR(rank_correlation({1, 2, 2, 3}, {1, 2, 3, 4}), 4.5 / std::sqrt(4.5 * 5), 1e-12);
  EXPECT_TRUE(std::isnan(rank_correlation({1, 1}, {1, 2})));
  EXPECT_THROW((void)rank_correlation({1}, {1, 2}), Error);
}

TEST(ReportData, OurChildIsWhatItsStepsMadeOfIt) {
  ReportData data;
  data.models = {{.key = "m", .name = "child", .role = "child"}};
  const auto lead = [&data] { return comparison_section(data).lead; };
  EXPECT_NE(lead().find("distilled; so is our child."), std::string::npos) << lead();
  data.models.push_back({.key = "a", .name = "child-assembled", .role = "before"});
  data.stages = {
      {.key = "old", .stage = "repair", .what = "child-repaired"},
      {.key = "r", .stage = "repair", .what = "child", .detail_json = R"({"refitted": 5})"}};
  EXPECT_NE(lead().find("our child was repaired in closed form."), std::string::npos) << lead();
  data.stages.back().detail_json = R"({"refitted": 0})";
  EXPECT_NE(lead().find("so is our child."), std::string::npos) << "the repair was not kept";
  data.models.push_back({.key = "r", .name = "child-repaired", .role = "before"});
  data.curves = {
      {.key = "t", .stage = "distill-child", .series = "child", .metric = "kl", .value = 0.5}};
  EXPECT_NE(lead().find("our child was repaired in closed form, then distilled from the parent."),
            std::string::npos)
      << lead();
  data.stages.push_back(
      {.key = "t", .stage = "distill-child", .detail_json = R"({"best_step": 0})"});
  EXPECT_NE(lead().find("our child was repaired in closed form."), std::string::npos)
      << "the training was not kept: " << lead();
}

TEST(ReportData, FilesWithoutPredictionsAreShownWithoutThem) {
  ReportData data;
  data.throughput = {speed("child", "llama-server", 150, 3),
                     speed("parent", "llama-server", 100, 4)};
  const PageSection section = speed_section(data);
  EXPECT_EQ(section.lead.find("predict"), std::string::npos);
  EXPECT_EQ(section.body.find(">predicted"), std::string::npos);
  EXPECT_EQ(section.body.find("deviation"), std::string::npos);
  EXPECT_NE(section.body.find("no times of sub-blocks were measured"), std::string::npos);
  data.costs = {{.key = "c", .engine = "native"}};
  EXPECT_NE(speed_section(data).body.find("are of another engine, native"), std::string::npos);
  data.costs.front().engine = "llama-server";
  EXPECT_NE(speed_section(data).body.find("with other weight types"), std::string::npos);
  data.throughput.front().predicted_generation_per_s = 140;
  const std::string body = speed_section(data).body;
  EXPECT_NE(body.find(">predicted"), std::string::npos);
  EXPECT_NE(body.find("−6.7 %"), std::string::npos) << body;
  EXPECT_EQ(body.find("Without predictions"), std::string::npos);
}

TEST(ReportData, WhatTheSearchPredictsIsSaidWhereNoFileWasTimed) {
  ReportData data;
  data.costs = {{.key = "c", .engine = "native"}};
  data.architectures = {
      {.key = "a",
       .name = "child",
       .method = "mip",
       .costs_json = R"({"generation_tokens_per_s": 896.7, "prefill_s": 0.004198})"}};
  EXPECT_NE(speed_section(data).body.find(
                "No exported file has been timed. The search predicts for the child, from times of "
                "sub-blocks in native: generation 896.7 tokens/s, prefill 0.004198 s."),
            std::string::npos)
      << speed_section(data).body;
}

TEST(ReportData, MeasuredDamageIsToldFromPredictedDamage) {
  ReportData data;
  data.architectures = {{.key = "a",
                         .name = "child",
                         .method = "mip",
                         .objective = 0.25,
                         .costs_json = R"({"parameters": 10})"}};
  EXPECT_NE(search_section(data).body.find("Predicted damage against cost"), std::string::npos);
  data.models = {{.key = "m", .name = "child", .role = "child", .architecture = "child"}};
  data.evaluations = {evaluation("child", "text", "kl", 0.5, 0.1)};
  const std::string body = search_section(data).body;
  EXPECT_NE(body.find("Damage against cost: predicted, and measured KL"), std::string::npos);
  EXPECT_NE(body.find("child: parameters 10.00, sum of scores (predicted), nats/token 0.2500<"),
            std::string::npos)
      << body;
  EXPECT_NE(body.find("model: parameters 10.00, measured KL, nats/token 0.50 ± 0.10<"),
            std::string::npos)
      << body;
}

TEST(ReportData, CurvesOfTheLibraryAreNotOfTheTablesTokens) {
  ReportData data;
  data.variants = {{.key = "v",
                    .variant = "ffn/w8",
                    .stage = "init-library",
                    .init = "least-squares",
                    .error_before = 0.5,
                    .kept = "before"}};
  EXPECT_EQ(block_distillation_section(data).lead.find("trained"), std::string::npos);
  data.variants.front().stage = "distill-blocks";
  data.curves = {{.key = "v",
                  .stage = "distill-blocks",
                  .series = "layer 0/ffn/w8",
                  .metric = "heldout_error",
                  .value = 0.4}};
  const PageSection section = block_distillation_section(data);
  EXPECT_NE(section.lead.find("fitted, then trained"), std::string::npos);
  EXPECT_NE(section.body.find("by variant, on the first held-out batches"), std::string::npos);
  EXPECT_NE(section.body.find("(distill_blocks.curve_batches), the table is of all held-out"),
            std::string::npos);
}

}  // namespace
}  // namespace puzzle
