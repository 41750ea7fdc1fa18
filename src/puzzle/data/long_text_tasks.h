// Made-up long texts with a question whose answer is a few strings, after RULER (arXiv 2404.06654).
//
//   single_needle      one sentence with a magic number, in filler
//   multi_key          the same, among three such sentences about other keys
//   multi_value        four magic numbers of one key, all asked for
//   multi_query        four keys with a number each, all asked for
//   variable_tracking  VAR B = VAR A: which five variables have the value that the first was given
//   common_words       the ten words that a list repeats most
//   question           where one of many described people lives
//
// Differences from RULER, all of which make the texts shorter: the word list is not numbered, the
// worked example of variable_tracking and common_words is a small one, and the people of `question`
// are made up, which also means that no model knows the answer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/data/haystack.h"

namespace puzzle {

enum class LongTextTask {
  kSingleNeedle,
  kMultiKey,
  kMultiValue,
  kMultiQuery,
  kVariableTracking,
  kCommonWords,
  kQuestion,
};

// As the options and the results write it.
[[nodiscard]] std::string_view long_text_task_name(LongTextTask task);
[[nodiscard]] std::vector<std::string> long_text_task_names();
// `name` is one of these.
[[nodiscard]] LongTextTask parse_long_text_task(std::string_view name);

// A sentence that has to be found and the share of the filler that stands before it.
struct Needle {
  std::string text;
  double depth = 0.0;
};

struct LongTextDraft {
  std::string prompt;                 // ends where the answer begins, without a space
  std::string answer;                 // how the prompt would go on, with the space before it
  std::vector<std::string> expected;  // strings that an answer should hold
  std::vector<Needle> needles;        // in the order of the text; of common_words none
};

// Which words and numbers appear, and where, depends on the task and the seed alone. `units` says
// how much filler there is: sentences, or of common_words words that are rare. From 4096 tokens of
// `length` on, common words come 30 times and rare ones 3 times, below 6 times and once (RULER's
// numbers).
[[nodiscard]] LongTextDraft draft_long_text(LongTextTask task, std::uint64_t seed,
                                            const Haystack& haystack, std::int64_t units,
                                            std::int64_t length);

}  // namespace puzzle
