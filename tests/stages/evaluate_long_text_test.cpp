#include "puzzle/stages/evaluate_long_text.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "puzzle/base/progress.h"
#include "puzzle/stages/evaluate.h"
#include "stages/scored_run.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

LoadedModel mixed_model() {
  ModelSpec spec = test::tiny_spec(1);
  spec.vocab_size = test::kToyVocabSize;
  spec.eos_tokens = {};
  spec.layers.clear();
  for (const char* block : {"kv4/w96", "none/w96", "kv1/linear", "linear/none"}) {
    spec.layers.push_back(parse_block(block));
  }
  return {"tiny", "tiny-key", random_model(spec, 7), Geometry(spec),
          std::make_shared<test::ToyTokenizer>()};
}

// Likeliest next tokens, each from a whole pass over all tokens before it; no end-of-text.
std::vector<std::int32_t> naive_answer(const LoadedModel& model, const std::string& prompt,
                                       int count) {
  const c10::NoGradGuard no_grad;
  std::vector<std::int32_t> ids = model.tokenizer->encode(prompt);
  std::vector<std::int32_t> made;
  for (int i = 0; i < count; ++i) {
    const at::Tensor tokens = at::tensor(ids, at::TensorOptions(at::kInt)).to(at::kLong);
    const at::Tensor logits =
        forward_logits(model.weights, model.geometry, tokens.unsqueeze(0))[0][-1];
    made.push_back(static_cast<std::int32_t>(logits.argmax().item<std::int64_t>()));
    ids.push_back(made.back());
  }
  return made;
}

double naive_nats(const LoadedModel& model, const EvalChoice& choice) {
  const at::Tensor tokens = at::tensor(choice.ids, at::TensorOptions(at::kInt)).to(at::kLong);
  const at::Tensor log_p = test::naive_log_probs(model.weights, tokens);
  double nats = 0.0;
  for (std::int64_t t = choice.num_context; t < std::ssize(choice.ids); ++t) {
    nats -= log_p[t - 1][choice.ids[static_cast<std::size_t>(t)]].item<double>();
  }
  return nats;
}

LongTextSample sample_of(const LoadedModel& model, const std::string& prompt,
                         const std::string& answer, std::vector<std::string> expected,
                         std::int64_t max_new_tokens) {
  LongTextSample sample;
  sample.text = {prompt, answer, std::move(expected), {}};
  sample.encoded = encode_pair(prompt, answer, *model.tokenizer);
  sample.max_new_tokens = max_new_tokens;
  return sample;
}

struct ScoringRun {
  ScoringRun() { set_progress_enabled(false); }
  LongTextScores score(const LoadedModel& model, const LongTextSet& set) {
    Progress progress("test", std::ssize(set.samples), "texts");
    return score_long_text(context, model.weights, model.geometry, *model.tokenizer, set, progress);
  }

  test::TempDir folder;
  RunDb db{folder / "run.db"};
  SingleCommunicator communicator;
  RunContext context{folder.path(), db, communicator};
};

// Prompts of several lengths, two of them alike, and answers of several lengths, so that batches
// hold rows that end at different times.
const std::vector<std::string>& prompts() {
  static const std::vector<std::string> kPrompts = {
      "hello you", "what now", "hello him", "a longer text than these", "short", "tiny!"};
  return kPrompts;
}

TEST(EvaluateLongText, EqualsWholePassesWithoutACache) {
  const LoadedModel model = mixed_model();
  LongTextSet set;
  std::vector<double> found;
  std::vector<double> nats;
  for (std::size_t i = 0; i < prompts().size(); ++i) {
    const std::vector<std::int32_t> made = naive_answer(model, prompts()[i], 12);
    // Bytes of two tokens of the answer are in it; more than it generates are not.
    const std::string early = model.tokenizer->decode_bytes(std::vector{made[1], made[2]});
    const std::string late = model.tokenizer->decode_bytes(made).substr(1);
    const bool is_short = i % 2 == 0;
    std::vector<std::string> expected = {early, late};
    if (i == 3) {
      expected = {early};
    }
    set.samples.push_back(sample_of(model, prompts()[i], std::string(" answer").substr(0, 2 + i),
                                    expected, is_short ? 5 : 12));
    found.push_back(i == 3 || !is_short ? 1.0 : 0.5);
    nats.push_back(naive_nats(model, set.samples.back().encoded));
  }
  ScoringRun run;
  const LongTextScores scores = run.score(model, set);
  ASSERT_EQ(scores.found.size(), prompts().size());
  for (std::size_t i = 0; i < prompts().size(); ++i) {
    EXPECT_EQ(scores.found[i], found[i]) << i;
    EXPECT_NEAR(scores.answer_nats[i], nats[i], 1e-3) << i;
  }
}

TEST(EvaluateLongText, EndsAtAnEndOfTextToken) {
  LoadedModel model = mixed_model();
  const std::vector<std::int32_t> made = naive_answer(model, "hello you", 8);
  const std::string all = model.tokenizer->decode_bytes(made);
  LongTextSet set;
  set.samples.push_back(sample_of(model, "hello you", " x", {all}, 8));
  ScoringRun run;
  EXPECT_EQ(run.score(model, set).found[0], 1.0);
  model.weights.spec.eos_tokens = {made[5]};
  EXPECT_EQ(run.score(model, set).found[0], 0.0);
}

TEST(EvaluateLongText, RowsCompareSampleBySample) {
  LongTextSet set;
  set.name = "single_needle@512";
  const LongTextScores parent{{1.0, 0.5, 0.0, 1.0}, {1.0, 2.0, 3.0, 6.0}};
  const LongTextScores child{{0.5, 0.5, 0.5, 0.0}, {2.0, 4.0, 3.0, 7.0}};
  std::map<std::string, EvaluationRow> rows;
  for (const EvaluationRow& row : long_text_rows(set, child, &parent, "child", "key")) {
    EXPECT_EQ(row.task, "single_needle@512");
    EXPECT_EQ(row.count, 4);
    rows[row.metric] = row;
  }
  EXPECT_EQ(rows.size(), 5U);
  EXPECT_DOUBLE_EQ(rows.at("found_fraction").value, 0.375);
  EXPECT_DOUBLE_EQ(rows.at("found_fraction").standard_error, 0.125);  // √(0.1875 / 3 / 4)
  EXPECT_DOUBLE_EQ(rows.at("answer_nats").value, 4.0);
  EXPECT_DOUBLE_EQ(rows.at("found_fraction_minus_parent").value, -0.25);
  // Differences −0.5, 0, 0.5, −1: squares about their mean 0.0625 + 0.0625 + 0.5625 + 0.5625.
  EXPECT_DOUBLE_EQ(rows.at("found_fraction_minus_parent").standard_error,
                   std::sqrt(1.25 / 3.0 / 4.0));
  EXPECT_DOUBLE_EQ(rows.at("answer_nats_minus_parent").value, 1.0);
  EXPECT_DOUBLE_EQ(rows.at("retention").value, 0.375 / 0.625);
  // child − 0.6 parent: −0.1, 0.2, 0.5, −0.6, of mean 0.
  EXPECT_NEAR(rows.at("retention").standard_error,
              std::sqrt((0.01 + 0.04 + 0.25 + 0.36) / 3.0 / 4.0) / 0.625, 1e-12);
  const LongTextScores nothing{{0.0, 0.0, 0.0, 0.0}, {1.0, 1.0, 1.0, 1.0}};
  for (const EvaluationRow& row : long_text_rows(set, child, &nothing, "child", "key")) {
    EXPECT_NE(row.metric, "retention") << "of nothing nothing can be kept";
  }
  EXPECT_EQ(long_text_rows(set, parent, nullptr, "parent", "key").size(), 2U);
}

using RowName = std::tuple<std::string, std::string, std::string>;  // model, task, metric

std::map<RowName, EvaluationRow> rows_by_name(const RunDb& db) {
  std::map<RowName, EvaluationRow> named;
  for (const EvaluationRow& row : db.evaluations()) {
    named[{row.model, row.task, row.metric}] = row;
  }
  return named;
}

struct LongTextRun : test::ScoredRun {
  LongTextRun() {
    parent.weights.spec.context_length = 1024;
    child = make_child(parent.weights, library.folder,
                       {parse_block("kv2/w96"), parse_block("kv4/w64"), parse_block("kv4/none")});
    options.num_tokens = 16;
    options.long_text.lengths = {512, 700};
    options.long_text.tasks = {"single_needle", "question"};
    options.long_text.samples = 3;
  }
  void run(RunContext& where) {
    (void)evaluate(where, parent, {{"child", "child-key", &child}}, *validation, options);
  }

  EvaluateOptions options;
  ModelWeights child;
};

TEST(EvaluateLongText, IsPartOfTheStage) {
  LongTextRun run;
  run.run(run.context);
  const auto rows = rows_by_name(run.db);
  for (const char* length : {"512", "700"}) {
    for (const char* model : {"parent", "child"}) {
      double nats = 0.0;
      for (const char* task : {"single_needle@", "question@"}) {
        const EvaluationRow& row = rows.at({model, task + std::string(length), "answer_nats"});
        EXPECT_EQ(row.count, 3);
        nats += row.value / 2;
        EXPECT_TRUE(rows.contains({model, task + std::string(length), "found_fraction"}));
      }
      const EvaluationRow& mean =
          rows.at({model, std::string("long_text@") + length, "answer_nats"});
      EXPECT_DOUBLE_EQ(mean.value, nats);
      EXPECT_EQ(mean.count, 6);
    }
  }
  // Against the texts themselves, made again.
  const auto sets = make_long_text_sets(run.options.long_text, *run.parent.tokenizer);
  double nats = 0.0;
  for (const LongTextSample& sample : sets.at(0).samples) {
    nats += naive_nats(run.parent, sample.encoded) / 3;
  }
  EXPECT_EQ(sets[0].name, "single_needle@512");
  EXPECT_NEAR(rows.at({"parent", "single_needle@512", "answer_nats"}).value, nats, 1e-3);
}

TEST(EvaluateLongText, FinishedTextsAreNotAskedAgain) {
  LongTextRun run;
  run.run(run.context);
  std::vector<EvaluationRow> marked = run.db.evaluations();
  for (EvaluationRow& row : marked) {
    row.value = 123.0;
  }
  run.db.put(marked);
  run.options.long_text.lengths = {700};
  run.run(run.context);
  for (const auto& [name, row] : rows_by_name(run.db)) {
    EXPECT_EQ(row.value, 123.0);
    EXPECT_FALSE(row.task.ends_with("@512")) << "other lengths are no longer current";
  }
  run.options.long_text.seed = 1;
  run.run(run.context);
  for (const auto& [name, row] : rows_by_name(run.db)) {
    EXPECT_EQ(row.value == 123.0, row.task == kTextTask) << row.task;
  }
}

TEST(EvaluateLongText, TwoRanksGiveTheResultOfOne) {
  LongTextRun run;
  run.run(run.context);
  RunDb first(run.folder / "rank0.db");
  RunDb second(run.folder / "rank1.db");
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    RunContext context{run.folder.path(), communicator.rank() == 0 ? first : second, communicator};
    run.run(context);
  });
  const auto rows = rows_by_name(first);
  const auto expected = rows_by_name(run.db);
  ASSERT_EQ(rows.size(), expected.size());
  for (const auto& [name, row] : expected) {
    EXPECT_NEAR(rows.at(name).value, row.value, 1e-6 * std::max(1.0, std::abs(row.value)));
    EXPECT_EQ(rows.at(name).count, row.count);
  }
}

TEST(EvaluateLongText, RefusesWhatTheModelCannotHold) {
  LongTextRun run;
  run.options.long_text.lengths = {512, 2048};
  EXPECT_PUZZLE_ERROR(run.run(run.context), ErrorKind::kUsage,
                      "evaluate.long_text.lengths: 2048, the parent's context 1024");
  run.parent.weights.spec.context_limit = "a window of the parent";
  EXPECT_PUZZLE_ERROR(run.run(run.context), ErrorKind::kUsage,
                      "context 1024: a window of the parent");
  run.options.long_text.lengths = {512, 512};
  EXPECT_PUZZLE_ERROR(run.run(run.context), ErrorKind::kUsage, "lengths names 512 twice");
  run.options.long_text.lengths = {512};
  run.options.long_text.tasks = {"question", "question"};
  EXPECT_PUZZLE_ERROR(run.run(run.context), ErrorKind::kUsage, "tasks names question twice");
}

}  // namespace
}  // namespace puzzle
