#include "puzzle/stages/evaluate.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <type_traits>

#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/evaluate_long_text.h"
#include "puzzle/stages/evaluate_questions.h"
#include "puzzle/stages/evaluate_text.h"

namespace puzzle {
namespace {

constexpr std::int64_t kEvaluateVersion = 5;
constexpr std::int64_t kQuestionRowsVersion = 3;  // of questions and long texts only

std::string evaluation_key(const LoadedModel& parent, const NamedModel* child,
                           const std::string& content) {
  KeyBuilder key;
  key.add("stage", "evaluate").add("version", kEvaluateVersion).add("parent", parent.key);
  key.add("child", child == nullptr ? "" : child->key)
      .add("name", child == nullptr ? "" : child->name);
  key.add("content", content);
  key.add("type", c10::toString(parent.weights.embedding.scalar_type()));
  return key.key();
}

// Rows bear the set's name, so that of the same questions under another name are others.
template <class Set>
std::string rows_content(const char* kind, const Set& set) {
  return KeyBuilder()
      .add("rows", kQuestionRowsVersion)
      .add(kind, set.content_key)
      .add("task", set.name)
      .key();
}

std::string units_key(const std::string& rows_key) {
  return KeyBuilder().add("units of", rows_key).key();
}

std::string answers_key(const std::string& rows_key) {
  return KeyBuilder().add("answers of", rows_key).key();
}

class Evaluator {
 public:
  Evaluator(RunContext& context, const LoadedModel& parent, const std::vector<NamedModel>& children)
      : context_(context), parent_(parent) {
    models_.push_back(nullptr);
    for (const NamedModel& child : children) {
      models_.push_back(&child);
    }
  }

  void text(const TokenPart& part, std::int64_t batch_windows) {
    // A child's difference to the first is part of its result, so the first runs beside it.
    const NamedModel* first = models_.size() > 1 ? models_[1] : nullptr;
    const std::string first_key = evaluation_key(parent_, first, part.content_key());
    std::vector<std::string> keys;
    for (const NamedModel* model : models_) {
      const bool alone = model == nullptr || model == first;
      const std::string own = evaluation_key(parent_, model, part.content_key());
      keys.push_back(alone ? own : KeyBuilder().add("model", own).add("beside", first_key).key());
    }
    const std::vector<bool> is_there = take_keys(keys);
    std::set<std::size_t> to_run;  // ascending, so that the first child stays the first
    for (std::size_t m = 0; m < models_.size(); ++m) {
      if (!is_there[m]) {
        to_run.insert(m);
        if (m > 1) {
          to_run.insert(1);
        }
      }
    }
    if (to_run.empty()) {
      return;
    }
    std::vector<TextModel> models;
    for (const std::size_t m : to_run) {
      models.push_back({models_[m], keys[m]});
    }
    const auto results = evaluate_text(context_, parent_, models, part, batch_windows);
    auto result = results.begin();
    for (const std::size_t m : to_run) {
      if (!is_there[m]) {
        put_units(keys[m], result->kl);
        put(result->rows);
      }
      ++result;
    }
  }

  void questions(const EvalSet& set) {
    std::int64_t rows = 0;
    for (const EvalQuestion& question : set.questions) {
      rows += std::ssize(question.choices);
    }
    Progress progress("evaluate: " + set.name, rows * std::ssize(models_), "choices");
    add_missing(
        set, rows_content("set", set), rows, progress,
        [&](const ModelWeights& model) {
          return score_questions(context_, model, parent_.geometry, set, progress);
        },
        [&](const auto&... of_model) { return question_rows(set, of_model...); });
  }

  void long_text(const std::vector<LongTextSet>& sets) {
    std::map<std::int64_t, std::vector<std::string>> contents;  // of the sets of one length
    for (const LongTextSet& set : sets) {
      contents[set.length].push_back(long_text(set));
    }
    for (const auto& [length, of_length] : contents) {
      if (of_length.size() > 1) {
        mean_of_length(fmt::format("long_text@{}", length), of_length);
      }
    }
  }

  [[nodiscard]] const std::vector<std::string>& keys() const { return keys_; }

 private:
  // What the keys of the set's rows are made of.
  std::string long_text(const LongTextSet& set) {
    const auto samples = std::ssize(set.samples);
    Progress progress("evaluate: " + set.name, samples * std::ssize(models_), "texts");
    const std::string content = rows_content("long text", set);
    add_missing(
        set, content, samples, progress,
        [&](const ModelWeights& model) {
          return score_long_text(context_, model, parent_.geometry, *parent_.tokenizer, set,
                                 progress);
        },
        [&](const auto&... of_model) { return long_text_rows(set, of_model...); });
    return content;
  }

  void mean_of_length(const std::string& task, const std::vector<std::string>& contents) {
    KeyBuilder content_key;
    content_key.add("task", task);
    for (const std::string& content : contents) {
      content_key.add("mean of", content);
    }
    const std::vector<std::string> keys = keys_of_models(content_key.key());
    const std::vector<bool> is_there = take_keys(keys);
    for (std::size_t m = 0; m < models_.size(); ++m) {
      if (is_there[m] || !context_.communicator.is_first()) {
        continue;
      }
      const NamedModel* model = models_[m];
      const auto rows_of = [&](const NamedModel* whose) {
        std::vector<EvaluationRow> rows;
        for (const std::string& content : contents) {
          const auto of_set = context_.db.evaluations_of(evaluation_key(parent_, whose, content));
          rows.insert(rows.end(), of_set.begin(), of_set.end());
        }
        return rows;
      };
      put(mean_long_text_rows(rows_of(model),
                              model == nullptr ? std::vector<EvaluationRow>() : rows_of(nullptr),
                              task, model == nullptr ? kParentModel : model->name, keys[m]));
    }
  }

  // Scores the models that have no rows yet, and for them the parent, `work` units each.
  template <class Set, class Score, class MakeRows>
  void add_missing(const Set& set, const std::string& content, std::int64_t work,
                   Progress& progress, const Score& score, const MakeRows& make_rows) {
    const std::vector<std::string> keys = keys_of_models(content);
    const std::vector<bool> is_there = take_keys(keys);
    if (std::ranges::find(is_there, false) == is_there.end()) {
      progress.skip(work * std::ssize(models_));
      return;
    }
    const std::string answers = answers_key(keys.front());
    auto of_parent = recorded_answers(answers, set);
    if (of_parent) {
      progress.skip(work);
    } else {
      of_parent = score(parent_.weights);
      put_answers(answers, to_numbers(*of_parent));
    }
    for (std::size_t m = 0; m < models_.size(); ++m) {
      const NamedModel* model = models_[m];
      if (is_there[m]) {
        progress.skip(model == nullptr ? 0 : work);
        continue;
      }
      put(model == nullptr ? make_rows(*of_parent, nullptr, std::string(kParentModel), keys[m])
                           : make_rows(score(*model->weights), &*of_parent, model->name, keys[m]));
    }
  }

  // What the parent answered when an earlier child was evaluated; nothing where none was.
  template <class Set>
  [[nodiscard]] auto recorded_answers(const std::string& key, const Set& set) const {
    std::string numbers;
    if (context_.communicator.is_first()) {
      const auto record = context_.db.find_stage(key);
      numbers = record ? record->detail_json : "";
    }
    numbers = context_.communicator.broadcast_string(numbers, 0);
    const std::string place = context_.db.path().string();
    using Scores = decltype(scores_from_numbers(set, {}));
    return numbers.empty() ? std::optional<Scores>()
                           : scores_from_numbers(
                                 set, json_doubles(parse_json(numbers, place), "numbers", place));
  }

  void put_answers(const std::string& key, const std::vector<double>& numbers) {
    const bool is_kept = std::ranges::all_of(numbers, [](double x) { return std::isfinite(x); });
    if (context_.communicator.is_first() && is_kept) {
      put_record(key, "the parent's answers", {{"numbers", numbers}});
    }
  }

  void put_record(const std::string& key, const char* what, const Json& detail) {
    context_.db.put(StageRecord{.key = key,
                                .stage = "evaluate",
                                .what = what,
                                .seconds = 0.0,
                                .detail_json = detail.dump()});
  }

  [[nodiscard]] std::vector<std::string> keys_of_models(const std::string& content) const {
    std::vector<std::string> keys;
    for (const NamedModel* model : models_) {
      keys.push_back(evaluation_key(parent_, model, content));
    }
    return keys;
  }

  // These are part of the result from here on; says which have their rows.
  [[nodiscard]] std::vector<bool> take_keys(const std::vector<std::string>& keys) {
    keys_.insert(keys_.end(), keys.begin(), keys.end());
    return ask_first_rank(context_.communicator, keys.size(), [&](std::size_t i) {
      return context_.db.has(RunTable::kEvaluations, keys[i]);
    });
  }

  // Before the rows, which say that a model is done.
  void put_units(const std::string& key, const UnitSums& kl) {
    if (context_.communicator.is_first() && !kl.numerators.empty()) {
      put_record(units_key(key), "KL by unit",
                 {{"kl_sums", kl.numerators}, {"tokens", kl.denominators}});
    }
  }

  void put(const std::vector<EvaluationRow>& rows) {
    if (context_.communicator.is_first()) {
      context_.db.put(rows);
    }
  }

  RunContext& context_;
  const LoadedModel& parent_;
  std::vector<const NamedModel*> models_;  // null = the parent
  std::vector<std::string> keys_;
};

}  // namespace

void EvaluateOptions::visit(OptionList& list) {
  list.add("num_tokens", num_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Tokens of the test part to use; 0 uses all of it.");
  list.add("minimal_pairs", questions.minimal_pairs,
           "Minimal-pair sets (BLiMP .jsonl files or folders).");
  list.add("multiple_choice", questions.multiple_choice,
           "Multiple-choice sets: .jsonl with context, choices and answer.");
  list.add("last_word", questions.last_word,
           "Texts whose last word is to be predicted (LAMBADA): .jsonl or .txt.");
  list.add("batch_windows", batch_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per forward pass.");
  list.section("sets", sets);
  list.section("long_text", long_text);
}

void check_evaluate_options(const EvaluateOptions& options) {
  std::vector<std::filesystem::path> paths;
  for (const EvalSetPath& set : options.questions.all()) {
    paths.emplace_back(set.path);
  }
  try {
    check_eval_set_names(paths);
  } catch (const Error& error) {
    fail(error.kind(), "evaluate: {}", error.what());
  }
  const auto check_once = [](const char* option, const auto& values) {
    std::set<typename std::decay_t<decltype(values)>::value_type> seen;
    for (const auto& value : values) {
      if (!seen.insert(value).second) {
        fail(ErrorKind::kUsage, "evaluate.long_text.{} names {} twice", option, value);
      }
    }
  };
  check_once("lengths", options.long_text.lengths);
  check_once("tasks", options.long_text.tasks);
}

UnitSums heldout_kl_units(const RunDb& db, const std::string& model) {
  for (const EvaluationRow& row : db.evaluations()) {
    if (row.model == model && row.task == kTextTask) {
      const auto record = db.find_stage(units_key(row.key));
      if (record.has_value()) {
        const Json detail = record_detail(db, *record);
        const std::string place = db.path().string();
        return {json_doubles(detail, "kl_sums", place), json_doubles(detail, "tokens", place)};
      }
    }
  }
  return {};
}

std::vector<std::string> evaluate(RunContext& context, const LoadedModel& parent,
                                  const std::vector<NamedModel>& children, const TokenPart& test,
                                  const EvaluateOptions& options) {
  const TokenPart part = test.limited_to(options.num_tokens);
  if (part.num_windows() == 0) {
    fail(ErrorKind::kUsage, "evaluate: the test part has no windows; set data.test_tokens");
  }
  check_evaluate_options(options);
  for (const std::int64_t length : options.long_text.lengths) {
    const ModelSpec& spec = parent.weights.spec;
    if (length > spec.context_length) {
      fail(ErrorKind::kUsage, "evaluate.long_text.lengths: {}, the parent's context {}{}{}", length,
           spec.context_length, spec.context_limit.empty() ? "" : ": ", spec.context_limit);
    }
  }
  const std::vector<LongTextSet> long_texts =
      make_long_text_sets(options.long_text, *parent.tokenizer);
  if (context.communicator.is_first()) {
    // Rows of other children are no longer about these, wherever this may be interrupted.
    context.db.set_current(RunTable::kEvaluations, "evaluate", {});
  }
  Evaluator evaluator(context, parent, children);
  evaluator.text(part, options.batch_windows);
  for (const EvalSetPath& set : options.questions.all()) {
    evaluator.questions(load_eval_set(set.kind, set.path, *parent.tokenizer, options.sets));
  }
  evaluator.long_text(long_texts);
  if (context.communicator.is_first()) {
    context.db.set_current(RunTable::kEvaluations, "evaluate", evaluator.keys());
  }
  return evaluator.keys();
}

}  // namespace puzzle
