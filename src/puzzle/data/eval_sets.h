// Questions with a known answer: minimal pairs, multiple choice, last word.
//
// A question has choices; each is a context and a continuation, and the model's log-likelihood of
// the continuation decides. Tokens are made as lm-evaluation-harness does it: spaces at the
// context's end move to the continuation, context + continuation are encoded together, and what
// exceeds the length of the encoded context is the continuation. BOS is put in front where the
// tokenizer does so; an empty context becomes BOS or, without one, EOS.
//
// Formats, one JSON object per line (.jsonl; docs/formats.md has examples):
//
//   minimal pairs    {"sentence_good": "…", "sentence_bad": "…"}; other members are ignored (BLiMP)
//
//   multiple choice  {"context": "…", "choices": ["…", …], "answer": 0}; answer counts from 0
//
//   last word        {"text": "… word"}; a .txt file holds one text per line
//
// A path may be a folder; then every .jsonl (and .txt for last word) file of it is read, sorted by
// name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "puzzle/base/options.h"

namespace puzzle {

class Tokenizer;

enum class EvalKind { kMinimalPairs, kMultipleChoice, kLastWord };

struct EvalChoice {
  std::vector<std::int32_t> ids;            // context, then continuation
  std::int64_t num_context = 0;             // >= 1; ids from here on are scored, at least one
  std::int64_t num_continuation_bytes = 0;  // of the text, without the space before it
};

struct EvalQuestion {
  std::vector<EvalChoice> choices;  // last word: one
  std::int64_t answer = 0;          // index of the right one
  std::string group;                // the file's stem
};

struct EvalSet {
  std::string name;  // eval_set_name of the path
  EvalKind kind = EvalKind::kMinimalPairs;
  std::vector<EvalQuestion> questions;
  std::string content_key;  // over tokens, boundaries and answers
};

struct EvalSetOptions {
  std::int64_t max_questions = 0;  // 0: all; otherwise a seeded sample, in file order
  std::int64_t max_tokens = 1024;  // longer contexts lose their beginning
  std::int64_t seed = 0;

  void visit(OptionList& list) {
    list.add("max_questions", max_questions, Range<std::int64_t>{0, 1 << 30},
             "Questions per evaluation set, drawn by the seed; 0 takes all.");
    list.add("max_tokens", max_tokens, Range<std::int64_t>{2, 1 << 20},
             "Tokens per choice; a longer context loses its beginning.");
    list.add("seed", seed, Range<std::int64_t>{0, INT64_MAX}, "Decides which questions are drawn.");
  }
};

struct EvalSetPath {
  EvalKind kind = EvalKind::kMinimalPairs;
  std::string option;  // that names it: "minimal_pairs", "multiple_choice" or "last_word"
  std::string path;
};

// The files and folders that a recipe names, by kind.
struct EvalSetPaths {
  std::vector<std::string> minimal_pairs;
  std::vector<std::string> multiple_choice;
  std::vector<std::string> last_word;

  [[nodiscard]] std::vector<EvalSetPath> all() const;
};

// What the rows of a set are called: a file's name without its ending, or the folder's name.
[[nodiscard]] std::string eval_set_name(const std::filesystem::path& path);

// Results of one evaluation are told apart by the names of their sets: throws Error(kUsage) where
// two paths give the same one.
void check_eval_set_names(const std::vector<std::filesystem::path>& paths);

// Throws Error(kIo) for a missing path, Error(kFormat) with file:line for anything but the format,
// for a continuation that has no tokens or more than max_tokens - 1, and for a set without
// questions.
[[nodiscard]] EvalSet load_eval_set(EvalKind kind, const std::filesystem::path& path,
                                    const Tokenizer& tokenizer, const EvalSetOptions& options = {});

// Bytes of text in all choices of the set, contexts included each time: what a model reads. Throws
// as load_eval_set for files.
[[nodiscard]] std::int64_t eval_set_bytes(EvalKind kind, const std::filesystem::path& path,
                                          const EvalSetOptions& options);

// Context and continuation of one text as token ids, as described above.
[[nodiscard]] EvalChoice encode_pair(const std::string& context, const std::string& continuation,
                                     const Tokenizer& tokenizer);

// What a model says about one choice.
struct ChoiceScore {
  double log_likelihood = 0.0;  // nats, summed over the continuation's tokens
  bool is_greedy = false;       // every token of the continuation was the most likely one
};

// Fractions in [0, 1] with the standard error of their mean.
struct EvalSummary {
  std::int64_t num_questions = 0;
  double accuracy = 0.0;  // last word: is_greedy; otherwise the answer has the highest
                          // log-likelihood (the first of equals)
  double accuracy_stderr = 0.0;
  double accuracy_per_byte =
      0.0;  // the same with log-likelihood ÷ num_continuation_bytes; last word: 0
  double accuracy_per_byte_stderr = 0.0;
  double answer_nats = 0.0;  // mean of minus the right choice's log-likelihood
  double answer_nats_stderr = 0.0;
  // By question: what the means above are of.
  std::vector<double> right{};  // 1 or 0
  std::vector<double> right_per_byte{};
  std::vector<double> nats{};
};

struct SampleMean {
  double mean = 0.0;
  double standard_error = 0.0;  // of the mean; 0 for a single sample
};
// Both 0 without samples.
[[nodiscard]] SampleMean mean_of_samples(const std::vector<double>& samples);

// scores[q][c] for every question and choice of the set.
[[nodiscard]] EvalSummary summarize_scores(const EvalSet& set,
                                           const std::vector<std::vector<ChoiceScore>>& scores);

}  // namespace puzzle
