#include "puzzle/stages/evaluate.h"

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "stages/scored_run.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

using RowName = std::tuple<std::string, std::string, std::string>;  // model, task, metric

std::map<RowName, EvaluationRow> by_name(const RunDb& db) {
  std::map<RowName, EvaluationRow> named;
  for (const EvaluationRow& row : db.evaluations()) {
    named[{row.model, row.task, row.metric}] = row;
  }
  return named;
}

// Log-likelihood of the tokens from `first` on, and whether each was the likeliest one.
std::pair<double, bool> naive_choice(const ModelWeights& model,
                                     const std::vector<std::int64_t>& ids, std::size_t first) {
  const at::Tensor log_p = test::naive_log_probs(model, at::tensor(ids));
  const auto at = log_p.accessor<double, 2>();
  double sum = 0.0;
  bool greedy = true;
  for (std::size_t t = first; t < ids.size(); ++t) {
    const auto position = static_cast<std::int64_t>(t) - 1;
    sum += at[position][ids[t]];
    for (std::int64_t v = 0; v < log_p.size(1); ++v) {
      greedy = greedy && at[position][v] <= at[position][ids[t]];
    }
  }
  return {sum, greedy};
}

std::vector<std::int64_t> letters(std::vector<std::int64_t> ids, const std::string& text) {
  for (const char c : text) {
    ids.push_back(test::toy(c));
  }
  return ids;
}

struct EvaluateRun : test::ScoredRun {
  explicit EvaluateRun(bool cross_documents = true) : ScoredRun(cross_documents) { set_evaluate(); }
  std::vector<std::string> run(const std::vector<NamedModel>& children, RunContext& where) {
    return evaluate(where, parent, children, *validation, options);
  }
  std::vector<std::string> run(const std::vector<NamedModel>& children) {
    return run(children, context);
  }
  std::string write(const std::string& name, const std::string& text) {
    write_text_file(folder / name, text);
    return (folder / name).string();
  }
  // A set of pairs of one letter's difference, and the pairs.
  std::vector<std::pair<std::string, std::string>> add_pairs() {
    std::vector<std::pair<std::string, std::string>> pairs;
    std::string lines;
    for (int i = 0; i < 40; ++i) {
      const char a = static_cast<char>('a' + i % 26);
      const char b = static_cast<char>('a' + (i * 7 + 3) % 26);
      pairs.emplace_back(std::string("xy") + a + b, std::string("xy") + b + a);
      lines += R"({"sentence_good": ")" + pairs.back().first + R"(", "sentence_bad": ")" +
               pairs.back().second + "\"}\n";
    }
    options.questions.minimal_pairs = {write("pairs.jsonl", lines)};
    return pairs;
  }

  EvaluateOptions options;
  ModelWeights child;

 private:
  void set_evaluate() {
    options.batch_windows = 5;
    child = make_child(parent.weights, library.folder,
                       {parse_block("kv2/w96"), parse_block("kv4/w64"), parse_block("kv4/none")});
  }
};

TEST(Evaluate, TextMetricsEqualLoopsOverWholeVocabularies) {
  EvaluateRun run;
  (void)run.run({{"child", "child-key", &run.child}});
  const auto rows = by_name(run.db);
  EXPECT_EQ(rows.size(), 3U + 8U);
  const auto windows = test::naive_windows(run.parent.weights, run.child, *run.validation);
  const auto expect = [&](const std::string& model, const std::string& metric, double divisor,
                          auto value) {
    const auto [mean, error] = test::naive_ratio(windows, value, divisor);
    const EvaluationRow& row = rows.at({model, "held-out text", metric});
    EXPECT_NEAR(row.value, mean, 1e-4) << model << " " << metric;
    EXPECT_NEAR(row.standard_error, error, 1e-4) << model << metric;
    return mean;
  };
  using W = test::NaiveWindow;
  const double nll = expect("child", "loss", 15.0, [](const W& w) { return w.nll; });
  const double own = expect("parent", "loss", 15.0, [](const W& w) { return w.parent_nll; });
  // Each of these letters is one token of one byte; 15 of 16 are predicted.
  expect("child", "bits_per_byte", 15.0 * std::log(2.0), [](const W& w) { return w.nll; });
  expect("parent", "bits_per_byte", 15.0 * std::log(2.0), [](const W& w) { return w.parent_nll; });
  expect("child", "loss_minus_parent", 15.0, [](const W& w) { return w.nll - w.parent_nll; });
  expect("child", "bits_per_byte_minus_parent", 15.0 * std::log(2.0),
         [](const W& w) { return w.nll - w.parent_nll; });
  const double kl = expect("child", "kl", 16.0, [](const W& w) { return w.kl; });
  const double top1 = expect("child", "top1", 16.0, [](const W& w) { return w.top1; });
  const auto value = [&](const char* model, const char* metric) {
    return rows.at({model, "held-out text", metric}).value;
  };
  EXPECT_NEAR(value("child", "perplexity") / std::exp(nll), 1.0, 1e-4);
  EXPECT_NEAR(value("parent", "perplexity") / std::exp(own), 1.0, 1e-4);
  EXPECT_NEAR(value("child", "retention"), std::exp(own - nll), 1e-4);
  EXPECT_EQ(rows.at({"child", "held-out text", "loss"}).count, 12 * 15);
  EXPECT_EQ(rows.at({"child", "held-out text", "kl"}).count, 12 * 16);
  EXPECT_GT(kl, 0.01);
  EXPECT_LT(top1, 1.0);
}

TEST(Evaluate, KeepsTheKlByUnits) {
  EvaluateRun run;
  (void)run.run({{"child", "child-key", &run.child}});
  const UnitSums units = heldout_kl_units(run.db, "child");
  ASSERT_FALSE(units.numerators.empty());
  const SumRatio mean = ratio_of_sums(units.numerators, units.denominators);
  const EvaluationRow row = by_name(run.db).at({"child", kTextTask, "kl"});
  EXPECT_DOUBLE_EQ(mean.value, row.value);
  EXPECT_DOUBLE_EQ(mean.standard_error, row.standard_error);
  EXPECT_EQ(mean.count, run.validation->num_tokens());
  EXPECT_TRUE(heldout_kl_units(run.db, "parent").numerators.empty());
  EXPECT_TRUE(heldout_kl_units(run.db, "no child").numerators.empty());
}

TEST(Evaluate, TheParentAgreesWithItself) {
  EvaluateRun run;
  (void)run.add_pairs();
  (void)run.run({{"twin", "twin-key", &run.parent.weights}});
  const auto rows = by_name(run.db);
  const auto value = [&](const char* task, const char* metric) {
    return rows.at({"twin", task, metric}).value;
  };
  EXPECT_NEAR(value("held-out text", "kl"), 0.0, 1e-6);
  EXPECT_EQ(value("held-out text", "top1"), 1.0);
  EXPECT_EQ(value("held-out text", "loss_minus_parent"), 0.0);
  EXPECT_EQ(value("held-out text", "retention"), 1.0);
  EXPECT_EQ(value("held-out text", "loss"), rows.at({"parent", "held-out text", "loss"}).value);
  EXPECT_EQ(value("pairs", "accuracy_minus_parent"), 0.0);
  EXPECT_EQ(value("pairs", "retention"), 1.0);
  EXPECT_EQ(value("pairs", "accuracy"), rows.at({"parent", "pairs", "accuracy"}).value);
}

TEST(Evaluate, DocumentsAreScoredByThemselvesWhereTheDataSaysSo) {
  EvaluateRun run(/*cross_documents=*/false);
  (void)run.run({});
  double nll = 0.0;
  std::int64_t predicted = 0;
  for (std::int64_t w = 0; w < run.validation->num_windows(); ++w) {
    const TokenBatch batch = run.validation->slice(w, 1);
    const at::Tensor documents = batch.document_ids_BT[0];
    std::vector<std::int64_t> ids;
    for (std::int64_t t = 0; t < 16; ++t) {
      ids.push_back(batch.tokens_BT[0][t].item<std::int64_t>());
      const bool ends = t == 15 || documents[t + 1].item<int>() != documents[t].item<int>();
      if (ends) {
        nll -= naive_choice(run.parent.weights, ids, 1).first;
        predicted += std::ssize(ids) - 1;
        ids.clear();
      }
    }
  }
  EXPECT_LT(predicted, 12 * 15);
  const auto rows = by_name(run.db);
  const EvaluationRow& loss = rows.at({"parent", "held-out text", "loss"});
  EXPECT_EQ(loss.count, predicted);
  EXPECT_NEAR(loss.value, nll / static_cast<double>(predicted), 1e-4);
  EXPECT_NEAR(rows.at({"parent", "held-out text", "bits_per_byte"}).value,
              nll / static_cast<double>(predicted) / std::log(2.0), 1e-4);
}

TEST(Evaluate, MinimalPairs) {
  EvaluateRun run;
  const auto pairs = run.add_pairs();
  (void)run.run({{"child", "child-key", &run.child}});
  const auto rows = by_name(run.db);
  const auto rights = [&](const ModelWeights& model, double* nats) {
    std::vector<double> right;
    *nats = 0.0;
    for (const auto& [good, bad] : pairs) {
      const double a = naive_choice(model, letters({test::kToyBos}, good), 1).first;
      const double b = naive_choice(model, letters({test::kToyBos}, bad), 1).first;
      right.push_back(a >= b ? 1.0 : 0.0);
      *nats -= a / static_cast<double>(pairs.size());
    }
    return right;
  };
  double parent_nats = 0.0;
  double child_nats = 0.0;
  const auto of_parent = rights(run.parent.weights, &parent_nats);
  const auto of_child = rights(run.child, &child_nats);
  const double n = 40.0;
  double parent_sum = 0.0;
  double child_sum = 0.0;
  double square = 0.0;
  for (std::size_t i = 0; i < 40; ++i) {
    parent_sum += of_parent[i];
    child_sum += of_child[i];
    square += (of_child[i] - of_parent[i]) * (of_child[i] - of_parent[i]);
  }
  ASSERT_GT(square, 0.0) << "the models should differ somewhere";
  const double difference = (child_sum - parent_sum) / n;
  EXPECT_DOUBLE_EQ(rows.at({"parent", "pairs", "accuracy"}).value, parent_sum / n);
  EXPECT_DOUBLE_EQ(rows.at({"child", "pairs", "accuracy"}).value, child_sum / n);
  EXPECT_NEAR(rows.at({"parent", "pairs", "answer_nats"}).value, parent_nats, 1e-3);
  EXPECT_NEAR(rows.at({"child", "pairs", "answer_nats"}).value, child_nats, 1e-3);
  const EvaluationRow& paired = rows.at({"child", "pairs", "accuracy_minus_parent"});
  EXPECT_NEAR(paired.value, difference, 1e-12);
  const double variance = (square - n * difference * difference) / (n - 1.0);
  EXPECT_NEAR(paired.standard_error, std::sqrt(variance / n), 1e-12);
  const EvaluationRow& kept = rows.at({"child", "pairs", "retention"});
  const double ratio = child_sum / parent_sum;
  EXPECT_NEAR(kept.value, ratio, 1e-12);
  double residuals = 0.0;  // of child − ratio · parent, whose mean is 0
  for (std::size_t i = 0; i < 40; ++i) {
    residuals += std::pow(of_child[i] - ratio * of_parent[i], 2);
  }
  EXPECT_NEAR(kept.standard_error, std::sqrt(residuals / (n - 1.0) / n) / (parent_sum / n), 1e-9);
  EXPECT_EQ(paired.count, 40);
  EXPECT_FALSE(rows.contains({"parent", "pairs", "accuracy_minus_parent"}));
}

TEST(Evaluate, MultipleChoiceAndLastWord) {
  EvaluateRun run;
  struct Question {
    std::string context;
    std::vector<std::string> choices;
    int answer;
  };
  std::vector<Question> questions;
  std::string lines;
  std::string texts;
  std::vector<std::pair<std::string, char>> words;
  for (int i = 0; i < 30; ++i) {
    const char a = static_cast<char>('a' + (i * 5) % 26);
    questions.push_back({std::string("q") + a, {"b", std::string("cd") + a, "efgh"}, i % 3});
    lines += R"({"context": ")" + questions.back().context + R"(", "choices": ["b", "cd)" + a +
             R"(", "efgh"], "answer": )" + std::to_string(i % 3) + "}\n";
    // The word that the parent itself would say after every other text.
    const std::string text = std::string("t") + a + static_cast<char>('a' + i % 26);
    const auto next = test::naive_log_probs(run.parent.weights, at::tensor(letters({}, text)))[-1]
                          .argmax()
                          .item<std::int64_t>();
    const bool is_word = next > test::kToySpaced + 'a' && next < test::kToySpaced + 'z';
    const char word = is_word ? static_cast<char>(next - test::kToySpaced) : 'w';
    words.emplace_back(text, word);
    texts += text + " " + word + "\n";
  }
  run.options.questions.multiple_choice = {run.write("choice.jsonl", lines)};
  run.options.questions.last_word = {run.write("words.txt", texts)};
  (void)run.run({{"child", "child-key", &run.child}});
  const auto rows = by_name(run.db);
  std::map<std::string, std::vector<double>> all_right_per_byte;
  for (const auto& [name, model] :
       {std::pair<std::string, const ModelWeights*>{"parent", &run.parent.weights},
        {"child", &run.child}}) {
    double right = 0.0;
    double right_per_byte = 0.0;
    for (const Question& question : questions) {
      int best = 0;
      int best_per_byte = 0;
      std::vector<double> scores;
      for (const std::string& choice : question.choices) {
        // A choice is set off by a space, which the toy tokenizer takes into its first letter.
        auto ids = letters({}, question.context);
        ids.push_back(test::toy_spaced(choice[0]));
        ids = letters(ids, choice.substr(1));
        scores.push_back(naive_choice(*model, ids, question.context.size()).first);
        const int last = static_cast<int>(scores.size()) - 1;
        const auto per_byte = [&](int c) {
          return scores[static_cast<std::size_t>(c)] /
                 static_cast<double>(question.choices[static_cast<std::size_t>(c)].size());
        };
        best = scores.back() > scores[static_cast<std::size_t>(best)] ? last : best;
        best_per_byte = per_byte(last) > per_byte(best_per_byte) ? last : best_per_byte;
      }
      right += best == question.answer ? 1.0 : 0.0;
      all_right_per_byte[name].push_back(best_per_byte == question.answer ? 1.0 : 0.0);
      right_per_byte += all_right_per_byte[name].back();
    }
    EXPECT_DOUBLE_EQ(rows.at({name, "choice", "accuracy"}).value, right / 30.0) << name;
    EXPECT_DOUBLE_EQ(rows.at({name, "choice", "accuracy_norm"}).value, right_per_byte / 30.0);
    double greedy = 0.0;
    for (const auto& [text, word] : words) {
      auto ids = letters({}, text);
      ids.push_back(test::toy_spaced(word));
      greedy += naive_choice(*model, ids, text.size()).second ? 1.0 : 0.0;
    }
    EXPECT_DOUBLE_EQ(rows.at({name, "words", "accuracy"}).value, greedy / 30.0) << name;
    EXPECT_FALSE(rows.contains({name, "words", "accuracy_norm"}));
  }
  // Paired by question.
  double sum = 0.0;
  double squares = 0.0;
  for (std::size_t q = 0; q < questions.size(); ++q) {
    const double less = all_right_per_byte["child"][q] - all_right_per_byte["parent"][q];
    sum += less;
    squares += less * less;
  }
  const EvaluationRow& less = rows.at({"child", "choice", "accuracy_norm_minus_parent"});
  EXPECT_NEAR(less.value, sum / 30.0, 1e-12);
  EXPECT_NEAR(less.standard_error, std::sqrt((squares - sum * sum / 30.0) / 29.0 / 30.0), 1e-12);
  EXPECT_NEAR(rows.at({"child", "choice", "answer_nats_minus_parent"}).value,
              rows.at({"child", "choice", "answer_nats"}).value -
                  rows.at({"parent", "choice", "answer_nats"}).value,
              1e-12);
}

TEST(Evaluate, FinishedWorkIsNotDoneAgain) {
  EvaluateRun run;
  (void)run.add_pairs();
  const auto keys = run.run({{"child", "child-key", &run.child}});
  EXPECT_EQ(keys.size(), 4U);
  // Marks that computing again would overwrite.
  std::vector<EvaluationRow> marked = run.db.evaluations();
  for (EvaluationRow& row : marked) {
    row.value = 123.0;
  }
  run.db.put(marked);
  ModelWeights other = run.parent.weights;
  const auto more = run.run({{"child", "child-key", &run.child}, {"other", "other-key", &other}});
  EXPECT_EQ(more.size(), 6U);
  for (const EvaluationRow& row : run.db.evaluations()) {
    EXPECT_EQ(row.value == 123.0, row.model != "other") << row.model << " " << row.metric;
  }
  // Other weights under the same name are other work; the old rows are no longer current.
  (void)run.run({{"child", "other-weights", &run.child}});
  for (const EvaluationRow& row : run.db.evaluations()) {
    EXPECT_EQ(row.value == 123.0, row.model == "parent") << row.model << " " << row.metric;
    EXPECT_NE(row.model, "other");
  }
  // So are other tokens.
  run.options.num_tokens = 64;
  (void)run.run({});
  EXPECT_EQ(by_name(run.db).at({"parent", "held-out text", "loss"}).count, 4 * 15);
}

TEST(Evaluate, TheParentAnswersOnce) {
  EvaluateRun run;
  (void)run.add_pairs();
  (void)run.run({{"child", "child-key", &run.child}});
  // Other answers in its record, where the good sentences are always the likelier ones.
  StageRecord answers;
  for (const StageRecord& record : run.db.stages_of("evaluate", RowSet::kAll)) {
    answers = record.what == "the parent's answers" ? record : answers;
  }
  Json detail = parse_json(answers.detail_json, "detail");
  ASSERT_EQ(detail.at("numbers").size(), 40U * 2U * 2U);
  for (std::size_t i = 0; i < 80; ++i) {
    detail["numbers"][2 * i] = i % 2 == 0 ? -1.0 : -2.0;
  }
  answers.detail_json = detail.dump();
  run.db.put(answers);
  ModelWeights other = run.parent.weights;
  (void)run.run({{"other", "other-key", &other}});
  const auto rows = by_name(run.db);
  EXPECT_NEAR(rows.at({"other", "pairs", "accuracy_minus_parent"}).value,
              rows.at({"other", "pairs", "accuracy"}).value - 1.0, 1e-12);
  EXPECT_LT(rows.at({"other", "pairs", "accuracy"}).value, 0.9);
}

TEST(Evaluate, OtherChildrenAreComparedWithTheFirstWindowByWindow) {
  EvaluateRun run;
  const ModelWeights other =
      make_child(run.parent.weights, run.library.folder,
                 {parse_block("kv4/w96"), parse_block("kv4/w64"), parse_block("none/w96")});
  const std::vector<NamedModel> children = {{"child", "child-key", &run.child},
                                            {"other", "other-key", &other}};
  (void)run.run({children.front()});
  (void)run.run(children);
  const auto a = test::naive_windows(run.parent.weights, run.child, *run.validation);
  const auto b = test::naive_windows(run.parent.weights, other, *run.validation);
  const auto n = static_cast<double>(a.size());
  double mean = 0.0;
  for (std::size_t w = 0; w < a.size(); ++w) {
    mean += (b[w].kl - a[w].kl) / 16.0 / n;
  }
  const auto rows = by_name(run.db);
  EXPECT_NEAR(rows.at({"other", "held-out text", "kl_minus_first"}).value, mean, 1e-4);
  EXPECT_GT(rows.at({"other", "held-out text", "kl_minus_first"}).standard_error, 0.0);
  EXPECT_FALSE(rows.contains({"child", "held-out text", "kl_minus_first"}));
  // Another first child: the difference is another one, too.
  const NamedModel same{"other", "other-key", &other};
  (void)run.run({{"child", "new-key", &other}, same});
  EXPECT_NEAR(by_name(run.db).at({"other", "held-out text", "kl_minus_first"}).value, 0.0, 1e-7);
}

TEST(Evaluate, TwoRanksGiveTheResultOfOne) {
  EvaluateRun run;
  (void)run.add_pairs();
  const std::vector<NamedModel> children = {{"child", "child-key", &run.child}};
  (void)run.run(children);
  RunDb first(run.folder / "rank0.db");
  RunDb second(run.folder / "rank1.db");
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    RunContext context{run.folder.path(), communicator.rank() == 0 ? first : second, communicator};
    (void)run.run(children, context);
  });
  EXPECT_TRUE(second.evaluations(RowSet::kAll).empty());
  const auto rows = by_name(first);
  const auto expected = by_name(run.db);
  ASSERT_EQ(rows.size(), expected.size());
  for (const auto& [name, row] : expected) {
    EXPECT_NEAR(rows.at(name).value, row.value, 1e-6 * std::max(1.0, std::abs(row.value)));
    EXPECT_NEAR(rows.at(name).standard_error, row.standard_error,
                1e-6 * std::max(1.0, row.standard_error));
    EXPECT_EQ(rows.at(name).count, row.count);
  }
}

TEST(Evaluate, RefusesAnEmptyPartAndNonFiniteModels) {
  EvaluateRun run;
  const TokenPart empty("test", run.corpus.load(), {}, {16, true});
  EXPECT_PUZZLE_ERROR((void)evaluate(run.context, run.parent, {}, empty, run.options),
                      ErrorKind::kUsage, "data.test_tokens");
  ModelWeights broken = run.parent.weights;
  broken.final_norm = at::full_like(broken.final_norm, std::nan(""));
  EXPECT_PUZZLE_ERROR((void)run.run({{"broken", "broken-key", &broken}}), ErrorKind::kNumeric,
                      "broken");
}

}  // namespace
}  // namespace puzzle
