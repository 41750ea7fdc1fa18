// Sets of long-text questions of one task and length: texts filled up to a number of tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/base/options.h"
#include "puzzle/data/eval_sets.h"
#include "puzzle/data/long_text_tasks.h"

namespace puzzle {

struct LongTextOptions {
  std::vector<std::int64_t> lengths;  // tokens of prompt and answer; none: no long texts
  std::vector<std::string> tasks = long_text_task_names();
  std::int64_t samples = 20;  // of each task and length
  std::string haystack;       // a text file; empty: RULER's noise
  std::int64_t seed = 0;

  void visit(OptionList& list) {
    list.add("lengths", lengths, Range<std::int64_t>{64, 1 << 24},
             "Tokens of prompt and answer; questions of every task are made for each. Empty asks "
             "none.");
    list.add("tasks", tasks, Choices{long_text_task_names()},
             "What is asked of long texts, after RULER.");
    list.add("samples", samples, Range<std::int64_t>{1, 1 << 20},
             "Texts per task and length; more keep the first ones.");
    list.add("haystack", haystack,
             "A .txt file whose sentences hide needles and variables; empty takes RULER's noise.");
    list.add("seed", seed, Range<std::int64_t>{0, INT64_MAX},
             "Decides the texts and where their needles are.");
  }
};

struct LongTextSample {
  LongTextDraft text;
  EvalChoice encoded;               // prompt, then answer
  std::int64_t max_new_tokens = 0;  // to generate: half as many again as the answer, and 16
};

struct LongTextSet {
  std::string name;  // "single_needle@1024"
  LongTextTask task = LongTextTask::kSingleNeedle;
  std::int64_t length = 0;
  std::vector<LongTextSample> samples;
  std::string content_key;  // over tokens, expected strings and limits
};

// One set per length and task, in the order of the lengths. A text has as much filler as fits, so
// that prompt and tokens to generate stay within the length: that leaves free less than what one
// more sentence of filler takes, or of common_words three words. The same options and tokenizer
// give the same sets on every machine. Throws as Haystack, and Error(kUsage) for a length that a
// task's text exceeds without any filler.
[[nodiscard]] std::vector<LongTextSet> make_long_text_sets(const LongTextOptions& options,
                                                           const Tokenizer& tokenizer);

// Share of the expected strings that occur in the output, in upper or lower case (ASCII); RULER's
// measure.
[[nodiscard]] double found_fraction(std::string_view output,
                                    const std::vector<std::string>& expected);

}  // namespace puzzle
