#include "puzzle/stages/score.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "stages/scored_run.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

struct ScoreRun : test::ScoredRun {
  using ScoredRun::ScoredRun;

  ScoreResult run(const ScoreOptions& options) { return run(options, context); }
  ScoreResult run(const ScoreOptions& options, RunContext& where) {
    return score(where, parent, {library.folder, library.key}, space, *validation, options);
  }
  // The same run with another database.
  [[nodiscard]] RunContext with(RunDb& other) { return {folder.path(), other, communicator}; }
};

ScoreOptions exact() {
  ScoreOptions options;
  options.method = "replace-one";
  return options;
}

ScoreOptions with_pairs(const std::vector<std::string>& pairs = {"kv1/w32", "1:kv2/linear"}) {
  ScoreOptions options = exact();
  options.pairs = pairs;
  options.batch_windows = 5;
  return options;
}

void expect_same_rows(const RunDb& got, const RunDb& want, double tolerance) {
  const auto rows = test::scores_by_name(got.scores());
  const auto expected = test::scores_by_name(want.scores());
  ASSERT_EQ(rows.size(), expected.size());
  for (const auto& [name, row] : expected) {
    ASSERT_TRUE(rows.contains(name));
    EXPECT_EQ(rows.at(name).key, row.key);
    if (tolerance == 0.0) {
      EXPECT_EQ(rows.at(name).value, row.value);
      EXPECT_EQ(rows.at(name).standard_error, row.standard_error);
    } else {
      EXPECT_NEAR(rows.at(name).value, row.value, tolerance);
      EXPECT_NEAR(rows.at(name).standard_error, row.standard_error, tolerance);
    }
  }
}

TEST(Score, EveryCandidateEqualsAPassThroughTheWholeModifiedModel) {
  ScoreRun run;
  const ScoreResult result = run.run(with_pairs());
  // Four attention and four FFN variants per layer, the pair in all three, one more in layer 1.
  EXPECT_EQ(result.num_candidates, 3 * (4 + 4 + 1) + 1);
  EXPECT_EQ(result.num_scored_now, result.num_candidates);
  const auto rows = test::scores_by_name(run.db.scores());
  ASSERT_EQ(std::ssize(rows), 3 * result.num_candidates);
  double largest_kl = 0.0;
  double smallest_kl = 1e9;
  for (const auto& [name, row] : rows) {
    const auto& [layer, block, metric] = name;
    EXPECT_EQ(row.method, "replace-one");
    EXPECT_EQ(row.tokens, 12 * 16);
    if (metric != "kl") {
      continue;
    }
    const auto windows = test::naive_windows(
        run.parent.weights, run.replaced(layer, parse_block(block)), *run.validation);
    const auto expect = [&](const char* what, double tokens,
                            double (*value)(const test::NaiveWindow&)) {
      const auto [mean, error] = test::naive_ratio(windows, value, tokens);
      const ScoreRow& found = rows.at({layer, block, what});
      EXPECT_NEAR(found.value, mean, 1e-3 * std::abs(mean) + 1e-6)
          << layer << " " << block << " " << what;
      EXPECT_NEAR(found.standard_error, error, 1e-3 * error + 1e-6)
          << layer << " " << block << " " << what;
    };
    expect("kl", 16.0, [](const test::NaiveWindow& w) { return w.kl; });
    expect("lm_loss", 15.0, [](const test::NaiveWindow& w) { return w.nll - w.parent_nll; });
    expect("top1", 16.0, [](const test::NaiveWindow& w) { return w.top1; });
    largest_kl = std::max(largest_kl, row.value);
    smallest_kl = std::min(smallest_kl, row.value);
  }
  // The model is one on which the comparison above means something.
  EXPECT_GT(largest_kl, 0.1);
  EXPECT_GT(smallest_kl, 1e-3);
}

TEST(Score, TheParentsOwnBlockIsNoCandidate) {
  ScoreRun run;
  (void)run.run(exact());
  for (const ScoreRow& row : run.db.scores()) {
    EXPECT_NE(row.block, "kv4/w96");
  }
}

TEST(Score, BatchSizesChangeNothing) {
  ScoreRun run;
  (void)run.run(with_pairs());
  for (const std::int64_t batch : {1, 3, 100}) {
    RunDb db(run.folder / ("batch" + std::to_string(batch) + ".db"));
    RunContext context = run.with(db);
    ScoreOptions options = with_pairs();
    options.batch_windows = batch;
    (void)run.run(options, context);
    expect_same_rows(db, run.db, 1e-5);
  }
}

TEST(Score, OneCandidateAtATimeGivesTheSameBits) {
  ScoreRun run;
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i < 130; ++i) {
    starts.push_back(7 * i);
  }
  // 130 windows of 32 tokens: one MiB holds the hidden states of one candidate, not of two.
  const TokenPart large("large", run.corpus.load(), starts, {32, true});
  const auto score_with = [&](std::int64_t mib, RunDb& db) {
    RunContext context = run.with(db);
    ScoreOptions options = exact();
    options.hidden_mib = mib;
    options.batch_windows = 64;
    SearchSpace space = run.space;
    space.layers[0] = {{AttentionSpec::gqa(4)}, {FfnSpec::swiglu(96)}};
    space.layers[1] = space.layers[0];
    (void)score(context, run.parent, {run.library.folder, run.library.key}, space, large, options);
  };
  RunDb one(run.folder / "one.db");
  RunDb all(run.folder / "all.db");
  score_with(1, one);
  score_with(64, all);
  EXPECT_EQ(all.scores().size(), 3U * 8U);
  expect_same_rows(one, all, 0.0);
}

TEST(Score, FinishedCandidatesAreNotScoredAgain) {
  ScoreRun run;
  const ScoreResult first = run.run(with_pairs());
  const ScoreResult second = run.run(with_pairs());
  EXPECT_EQ(second.num_scored_now, 0);
  EXPECT_EQ(second.num_candidates, first.num_candidates);
  EXPECT_EQ(second.key, first.key);
  // How it is computed is no part of what is computed.
  ScoreOptions other = with_pairs();
  other.batch_windows = 2;
  other.hidden_mib = 1;
  EXPECT_EQ(run.run(other).num_scored_now, 0);
  // Another part of the text is.
  other.num_tokens = 64;
  EXPECT_EQ(run.run(other).num_scored_now, first.num_candidates);
  for (const ScoreRow& row : run.db.scores()) {
    EXPECT_EQ(row.tokens, 64);
  }
}

TEST(Score, ARunWithHolesInItComputesTheSameBits) {
  ScoreRun run;
  const ScoreResult whole = run.run(with_pairs());
  // Candidates of each layer are missing, and all of layer 2.
  std::vector<ScoreRow> kept;
  for (const ScoreRow& row : run.db.scores()) {
    if (row.layer == 0 ? row.block != "none/w96" : row.layer == 1 && row.block.starts_with("kv4")) {
      kept.push_back(row);
    }
  }
  RunDb db(run.folder / "resumed.db");
  db.put(kept);
  RunContext context = run.with(db);
  const ScoreResult resumed = run.run(with_pairs(), context);
  EXPECT_EQ(resumed.num_candidates, whole.num_candidates);
  EXPECT_EQ(resumed.num_scored_now, whole.num_candidates - std::ssize(kept) / 3);
  EXPECT_GT(resumed.num_scored_now, 0);
  EXPECT_EQ(resumed.key, whole.key);
  expect_same_rows(db, run.db, 0.0);
}

TEST(Score, TwoRanksGiveTheResultOfOne) {
  ScoreRun run;
  (void)run.run(with_pairs());
  // With 13 ranks, one has no window at all.
  for (const int size : {2, 13}) {
    std::vector<std::unique_ptr<RunDb>> dbs;
    for (int rank = 0; rank < size; ++rank) {
      dbs.push_back(std::make_unique<RunDb>(
          run.folder / ("rank" + std::to_string(size) + "-" + std::to_string(rank) + ".db")));
    }
    std::vector<ScoreResult> results(static_cast<std::size_t>(size));
    test::ThreadGroup::run(size, [&](Communicator& communicator) {
      const auto rank = static_cast<std::size_t>(communicator.rank());
      RunContext context{run.folder.path(), *dbs[rank], communicator};
      ScoreOptions options = with_pairs();
      if (size > 2) {
        options.pairs.clear();
      }
      results[rank] = run.run(options, context);
    });
    EXPECT_EQ(results[0].key, results[1].key);
    EXPECT_EQ(results[0].num_scored_now, results[1].num_scored_now);
    EXPECT_TRUE(dbs[1]->scores(RowSet::kAll).empty());
    if (size > 2) {
      (void)run.run(with_pairs({}));
    }
    expect_same_rows(*dbs[0], run.db, 1e-6);
  }
}

TEST(Score, DocumentsDoNotSeeEachOtherWhereTheDataSaysSo) {
  ScoreRun run(/*cross_documents=*/false);
  ScoreRun open(/*cross_documents=*/true);
  (void)run.run(exact());
  (void)open.run(exact());
  // A window in which each document is scored by itself: 24 letters a document, windows of 16.
  const TokenBatch batch = run.validation->slice(2, 1);
  const at::Tensor ids = batch.document_ids_BT[0];
  ASSERT_NE(ids[0].item<int>(), ids[15].item<int>());
  const BlockSpec block = parse_block("kv4/none");
  const ModelWeights child = run.replaced(1, block);
  double kl = 0.0;
  for (std::int64_t w = 0; w < run.validation->num_windows(); ++w) {
    const TokenBatch window = run.validation->slice(w, 1);
    const at::Tensor documents = window.document_ids_BT[0];
    std::int64_t begin = 0;
    while (begin < 16) {
      std::int64_t end = begin + 1;
      while (end < 16 && documents[end].item<int>() == documents[begin].item<int>()) {
        ++end;
      }
      const at::Tensor tokens = window.tokens_BT[0].slice(0, begin, end);
      const at::Tensor p = test::naive_log_probs(run.parent.weights, tokens);
      const at::Tensor q = test::naive_log_probs(child, tokens);
      kl += (p.exp() * (p - q)).sum().item<double>();
      begin = end;
    }
  }
  const auto rows = test::scores_by_name(run.db.scores());
  const double found = rows.at({1, block.name(), "kl"}).value;
  EXPECT_NEAR(found, kl / (12.0 * 16.0), 1e-4);
  EXPECT_GT(
      std::abs(found - test::scores_by_name(open.db.scores()).at({1, block.name(), "kl"}).value),
      1e-3);
}

TEST(Score, PairsKeepToTheLayersThatAllowThem) {
  ScoreRun run;
  run.space.layers[1] = {{AttentionSpec::gqa(4)}, {FfnSpec::swiglu(96)}};
  ScoreOptions options = exact();
  options.pairs = {"kv1/w32", "none/none"};
  EXPECT_EQ(run.run(options).num_candidates, 2 * (4 + 4 + 2));
  for (const ScoreRow& row : run.db.scores()) {
    EXPECT_NE(row.layer, 1);
  }
  options.pairs = {"1:kv1/w32"};
  EXPECT_PUZZLE_ERROR(check_score(options, run.parent.weights.spec, run.space), ErrorKind::kUsage,
                      "score.pairs: '1:kv1/w32': no layer it names has both halves");
}

TEST(Score, RefusesWhatItCannotScore) {
  ScoreRun run;
  EXPECT_PUZZLE_ERROR(run.run(with_pairs({"3:kv1/w32"})), ErrorKind::kUsage, "from 0 to 2");
  EXPECT_PUZZLE_ERROR(run.run(with_pairs({"kv1"})), ErrorKind::kUsage, "score.pairs: 'kv1': ");
  const auto score_windows = [&](const std::vector<std::int64_t>& starts) {
    const TokenPart part("scoring", run.corpus.load(), starts, {16, true});
    (void)score(run.context, run.parent, {run.library.folder, run.library.key}, run.space, part,
                exact());
  };
  EXPECT_PUZZLE_ERROR(score_windows({}), ErrorKind::kUsage, "has 0 windows");
  EXPECT_PUZZLE_ERROR(score_windows({32}), ErrorKind::kUsage,
                      "has 1 windows, expected at least 2 for a standard error; raise "
                      "data.scoring_tokens");
}

// Of `continuation` behind `context`, token by token: BOS alone where that is empty, else its
// letters, and the space between them is part of the first token behind it.
double naive_log_likelihood(const ScoreRun& run, const ModelWeights& model,
                            const std::string& context, const std::string& continuation) {
  const Tokenizer& tokenizer = *run.parent.tokenizer;
  const bool is_alone = context.empty();
  std::vector<std::int64_t> all;
  if (is_alone) {
    all.push_back(*tokenizer.bos());
  }
  for (const std::int32_t id :
       tokenizer.encode(is_alone ? continuation : context + " " + continuation)) {
    all.push_back(id);
  }
  const at::Tensor log_probs = test::naive_log_probs(model, at::tensor(all));
  double sum = 0.0;
  for (std::size_t t = is_alone ? 1 : context.size(); t < all.size(); ++t) {
    sum += log_probs[static_cast<std::int64_t>(t) - 1][all[t]].item<double>();
  }
  return sum;
}

// A minimal pair is right where the good text has the higher log-likelihood: both by hand.
TEST(Score, DownstreamIsTheAccuracyThatIsLost) {
  ScoreRun run;
  std::string lines;
  std::vector<std::pair<std::string, std::string>> questions;
  for (int i = 0; i < 60; ++i) {
    const char a = static_cast<char>('a' + i % 26);
    const char b = static_cast<char>('a' + (i * 7 + 3) % 26);
    questions.emplace_back(std::string("q") + a + b, std::string("q") + b + a);
    lines += R"({"sentence_good": ")" + questions.back().first + R"(", "sentence_bad": ")" +
             questions.back().second + "\"}\n";
  }
  const auto num_right = [&](const ModelWeights& model) {
    std::vector<double> right;
    for (const auto& question : questions) {
      const bool is_right = naive_log_likelihood(run, model, "", question.first) >
                            naive_log_likelihood(run, model, "", question.second);
      right.push_back(is_right ? 1.0 : 0.0);
    }
    return right;
  };
  ScoreOptions options;
  options.method = "downstream";
  options.questions.minimal_pairs = {(run.folder / "pairs.jsonl").string()};
  write_text_file(options.questions.minimal_pairs[0], lines);
  const ScoreResult result = run.run(options);
  EXPECT_EQ(result.num_candidates, 3 * 8);
  const auto rows = test::scores_by_name(run.db.scores());
  ASSERT_EQ(rows.size(), 3U * 8U);
  const std::vector<double> parent = num_right(run.parent.weights);
  double largest = 0.0;
  for (const std::string block : {"kv1/w96", "none/w96", "kv4/none", "kv4/w32"}) {
    const std::vector<double> child = num_right(run.replaced(1, parse_block(block)));
    double drop = 0.0;
    for (std::size_t q = 0; q < parent.size(); ++q) {
      drop += (parent[q] - child[q]) / 60.0;
    }
    double square = 0.0;
    for (std::size_t q = 0; q < parent.size(); ++q) {
      square += (parent[q] - child[q] - drop) * (parent[q] - child[q] - drop);
    }
    const ScoreRow& row = rows.at({1, block, "downstream"});
    EXPECT_NEAR(row.value, drop, 1e-9) << block;
    EXPECT_NEAR(row.standard_error, std::sqrt(square / 59.0 / 60.0), 1e-9) << block;
    EXPECT_EQ(row.method, "downstream");
    EXPECT_EQ(row.tokens, 60);
    largest = std::max(largest, std::abs(drop));
  }
  EXPECT_GT(largest, 0.01);
  EXPECT_EQ(run.run(options).num_scored_now, 0);
  // The rows of text are not current any more, and come back without being computed again.
  EXPECT_EQ(run.run({}).num_scored_now, 3 * 8);
  EXPECT_EQ(run.run({}).num_scored_now, 0);
  EXPECT_EQ(run.run(options).num_scored_now, 0);
  options.method = "replace-one";
  EXPECT_PUZZLE_ERROR(run.run(options), ErrorKind::kUsage, "set score.method to downstream");
  options = {};
  options.method = "downstream";
  EXPECT_PUZZLE_ERROR(run.run(options), ErrorKind::kUsage, "0 evaluation sets are named");
}

TEST(Score, DownstreamTakesMultipleChoice) {
  ScoreRun run;
  std::string lines;
  for (int i = 0; i < 40; ++i) {
    const std::string a(1, static_cast<char>('a' + i % 26));
    lines += Json{{"context", "q" + a},
                  {"choices", Json::array({"b" + a, "cd", "ef"})},
                  {"answer", i % 3}}
                 .dump();
    lines += "\n";
  }
  ScoreOptions options;
  options.method = "downstream";
  options.questions.multiple_choice = {(run.folder / "choices.jsonl").string()};
  write_text_file(options.questions.multiple_choice[0], lines);
  (void)run.run(options);
  const auto accuracy = [&](const ModelWeights& model) {
    double right = 0.0;
    for (int i = 0; i < 40; ++i) {
      const std::string a(1, static_cast<char>('a' + i % 26));
      std::vector<double> choices;
      for (const std::string& choice : {"b" + a, std::string("cd"), std::string("ef")}) {
        choices.push_back(naive_log_likelihood(run, model, "q" + a, choice));
      }
      right += std::ranges::max_element(choices) - choices.begin() == i % 3 ? 1.0 : 0.0;
    }
    return right / 40.0;
  };
  const auto rows = test::scores_by_name(run.db.scores());
  const double parent = accuracy(run.parent.weights);
  double largest = 0.0;
  for (const std::string block : {"kv1/w96", "none/w96", "kv4/none"}) {
    const double drop = parent - accuracy(run.replaced(1, parse_block(block)));
    EXPECT_NEAR(rows.at({1, block, "downstream"}).value, drop, 1e-9) << block;
    largest = std::max(largest, std::abs(drop));
  }
  EXPECT_GT(largest, 0.01);
}

TEST(Score, NonFiniteActivationsAreAnErrorThatNamesTheVariant) {
  ScoreRun run;
  LayerLibrary variants = run.load(run.library, 1);
  variants.ffn.at(FfnSpec::swiglu(32)).down =
      at::full_like(variants.ffn.at(FfnSpec::swiglu(32)).down, 1e38);
  save_layer_library(layer_file(run.library.folder, 1), variants);
  EXPECT_PUZZLE_ERROR(run.run({}), ErrorKind::kNumeric, "layer 1, kv4/w32");
}

}  // namespace
}  // namespace puzzle
