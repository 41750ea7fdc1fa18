#include "puzzle/data/long_text_tasks.h"

#include <algorithm>
#include <array>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/strings.h"
#include "puzzle/data/long_text_draws.h"
#include "puzzle/data/long_text_words.h"
#include "puzzle/data/random_order.h"

namespace puzzle {
namespace {

constexpr std::array<std::pair<LongTextTask, std::string_view>, 7> kTaskNames = {{
    {LongTextTask::kSingleNeedle, "single_needle"},
    {LongTextTask::kMultiKey, "multi_key"},
    {LongTextTask::kMultiValue, "multi_value"},
    {LongTextTask::kMultiQuery, "multi_query"},
    {LongTextTask::kVariableTracking, "variable_tracking"},
    {LongTextTask::kCommonWords, "common_words"},
    {LongTextTask::kQuestion, "question"},
}};
constexpr std::size_t kNeedles = 4;
constexpr std::size_t kChain = 5;  // variables of one value
constexpr std::size_t kCommonWords = 10;
constexpr std::int64_t kLongList = 4096;

// "a", "a and b", "a, b, and c".
std::string listed(std::span<const std::string> items) {
  std::string text;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const bool is_last = i + 1 == items.size();
    text += i == 0 ? "" : is_last ? (items.size() > 2 ? ", and " : " and ") : ", ";
    text += items[i];
  }
  return text;
}

// What `make(attempt)` gives first that is neither in the filler nor taken before.
template <class Make>
std::string fresh(const Haystack& haystack, std::set<std::string>& taken, Make make) {
  for (int attempt = 0;; ++attempt) {
    std::string text = make(attempt);
    if (!haystack.holds(text) && taken.insert(text).second) {
      return text;
    }
  }
}

std::vector<double> sorted_depths(const Draws& draws, std::size_t count) {
  std::vector<double> depths;
  for (std::size_t i = 0; i < count; ++i) {
    depths.push_back(draws.unit(fmt::format("depth {}", i)));
  }
  std::sort(depths.begin(), depths.end());
  return depths;
}

// `units` pieces of filler with each needle before the piece that its depth says.
template <class Piece>
std::string with_needles(std::int64_t units, std::span<const Needle> needles,
                         std::string_view separator, Piece piece) {
  std::string text;
  const auto add = [&](std::string_view part) {
    if (!text.empty()) {
      text += separator;
    }
    text += part;
  };
  std::size_t next = 0;
  for (std::int64_t unit = 0; unit <= units; ++unit) {
    while (next < needles.size() &&
           (unit == units ||
            static_cast<std::int64_t>(needles[next].depth * static_cast<double>(units)) <= unit)) {
      add(needles[next++].text);
    }
    if (unit < units) {
      add(piece(unit));
    }
  }
  return text;
}

std::string filled(const Haystack& haystack, const Draws& draws, std::int64_t units,
                   std::span<const Needle> needles) {
  const std::vector<std::string>& sentences = haystack.sentences();
  const std::size_t start = draws.below("filler", sentences.size());
  return with_needles(units, needles, " ", [&](std::int64_t unit) -> const std::string& {
    return sentences[(start + static_cast<std::size_t>(unit)) % sentences.size()];
  });
}

struct NeedleShape {
  std::size_t num_keys = 1;
  std::size_t values_per_key = 1;
  std::size_t num_asked = 1;  // keys
};

NeedleShape needle_shape(LongTextTask task) {
  switch (task) {
    case LongTextTask::kMultiKey:
      return {.num_keys = kNeedles};
    case LongTextTask::kMultiValue:
      return {.values_per_key = kNeedles};
    case LongTextTask::kMultiQuery:
      return {.num_keys = kNeedles, .num_asked = kNeedles};
    default:
      return {};
  }
}

std::string needle_prompt(const std::string& text, const std::string& asked, std::size_t count) {
  const bool is_one = count == 1;
  const std::string number = is_one ? "number" : "numbers";
  return fmt::format(
      "{} hidden within the following text. Make sure to memorize {}. I will quiz you about the {} "
      "afterwards.\n{}\nWhat {} the special magic {} for {} mentioned in the provided text? The "
      "special magic {} for {} mentioned in the provided text {}",
      is_one ? "A special magic number is" : "Some special magic numbers are",
      is_one ? "it" : "them", number, text, is_one ? "is" : "are all", number, asked, number, asked,
      is_one ? "is" : "are");
}

LongTextDraft draft_needles(LongTextTask task, const Draws& draws, const Haystack& haystack,
                            std::int64_t units) {
  using long_text_words::kAdjectives;
  using long_text_words::kNouns;
  const NeedleShape shape = needle_shape(task);
  std::set<std::string> taken;
  LongTextDraft draft;
  std::vector<std::string> asked;
  std::vector<std::string> sentences;
  for (std::size_t k = 0; k < shape.num_keys; ++k) {
    const std::string key = fresh(haystack, taken, [&](int attempt) {
      return fmt::format(
          "{}-{}",
          kAdjectives[draws.below(fmt::format("adjective {} {}", k, attempt), kAdjectives.size())],
          kNouns[draws.below(fmt::format("noun {} {}", k, attempt), kNouns.size())]);
    });
    const bool is_asked = k < shape.num_asked;
    if (is_asked) {
      asked.push_back(key);
    }
    for (std::size_t v = 0; v < shape.values_per_key; ++v) {
      const std::string value = fresh(haystack, taken, [&](int attempt) {
        const auto purpose = fmt::format("value {} {} {}", k, v, attempt);
        return fmt::format("{}", 1'000'000 + draws.below(purpose, 9'000'000));
      });
      if (is_asked) {
        draft.expected.push_back(value);
      }
      sentences.push_back(
          fmt::format("One of the special magic numbers for {} is: {}.", key, value));
    }
  }
  const std::vector<double> depths = sorted_depths(draws, sentences.size());
  const std::vector<std::int64_t> order = draws.order("needles", sentences.size());
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    draft.needles.push_back({sentences[static_cast<std::size_t>(order[i])], depths[i]});
  }
  draft.prompt = needle_prompt(filled(haystack, draws, units, draft.needles), listed(asked),
                               draft.expected.size());
  draft.answer = " " + listed(draft.expected);
  return draft;
}

// "VAR A = 12345.", "VAR B = VAR A.", …
std::vector<std::string> assignments(std::span<const std::string> names, std::string_view value) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < names.size(); ++i) {
    lines.push_back(i == 0 ? fmt::format("VAR {} = {}.", names[0], value)
                           : fmt::format("VAR {} = VAR {}.", names[i], names[i - 1]));
  }
  return lines;
}

std::string chain_text(const std::string& text, std::string_view value, std::size_t count) {
  return fmt::format(
      "Memorize and track the chain of variable assignments hidden in the following text.\n{}\n"
      "Question: Find all variables that are assigned the value {} in the text above. Answer: "
      "According to the chain of variable assignments in the text above, {} variables are assigned "
      "the value {}, they are:",
      text, value, count, value);
}

LongTextDraft draft_variables(const Draws& draws, const Haystack& haystack, std::int64_t units) {
  std::set<std::string> taken;
  const auto names_of = [&](std::string_view purpose, std::size_t count) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) {
      names.push_back(fresh(haystack, taken, [&](int attempt) {
        std::string name;
        for (int letter = 0; letter < 5; ++letter) {
          const auto which = fmt::format("{} {} {} {}", purpose, i, attempt, letter);
          name += static_cast<char>('A' + draws.below(which, 26));
        }
        return name;
      }));
    }
    return names;
  };
  const auto value_of = [&](std::string_view purpose) {
    return fresh(haystack, taken, [&](int attempt) {
      return fmt::format("{}",
                         10'000 + draws.below(fmt::format("{} {}", purpose, attempt), 90'000));
    });
  };
  LongTextDraft draft;
  draft.expected = names_of("variable", kChain);
  const std::string value = value_of("value");
  const std::vector<std::string> example = names_of("example", kChain);
  const std::string example_value = value_of("example value");
  const std::vector<std::string> lines = assignments(draft.expected, value);
  const std::vector<double> depths = sorted_depths(draws, lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    draft.needles.push_back({lines[i], depths[i]});
  }
  draft.prompt = chain_text(join(assignments(example, example_value), " "), example_value, kChain) +
                 " " + join(example, " ") + "\n\n" +
                 chain_text(filled(haystack, draws, units, draft.needles), value, kChain);
  draft.answer = " " + join(draft.expected, " ");
  return draft;
}

std::string word_list(const std::vector<std::string>& words, std::uint64_t seed,
                      std::size_t num_common) {
  std::vector<std::string> shuffled;
  for (const std::int64_t i : random_order(std::ssize(words), seed)) {
    shuffled.push_back(words[static_cast<std::size_t>(i)]);
  }
  return fmt::format(
      "In the following list some words appear more often than others.\n{}\nThe {} words that "
      "appear most often in the list above are:",
      join(shuffled, ", "), num_common);
}

// Tells the rare words of one round through the nouns from those of others: an adjective, and when
// all of these are used up, which takes some hundred thousand tokens, also a number.
std::string rare_prefix(std::size_t round) {
  using long_text_words::kAdjectives;
  if (round == 0) {
    return "";
  }
  const std::size_t which = round - 1;
  const std::string adjective(kAdjectives[which % kAdjectives.size()]);
  return which < kAdjectives.size() ? adjective + "-"
                                    : fmt::format("{}-{}-", adjective, which / kAdjectives.size());
}

LongTextDraft draft_common_words(const Draws& draws, std::int64_t units, std::int64_t length) {
  using long_text_words::kNouns;
  constexpr std::size_t kExampleCommon = 3;
  constexpr std::size_t kExampleRare = 4;
  const std::vector<std::int64_t> nouns = draws.order("nouns", kNouns.size());
  const auto noun = [&](std::size_t i) {
    return std::string(kNouns[static_cast<std::size_t>(nouns[i])]);
  };
  LongTextDraft draft;
  std::vector<std::string> words;
  const auto add = [](std::vector<std::string>& list, const std::string& word, std::size_t times) {
    list.insert(list.end(), times, word);
  };
  const bool is_long = length >= kLongList;
  for (std::size_t i = 0; i < kCommonWords; ++i) {
    draft.expected.push_back(noun(i));
    add(words, noun(i), is_long ? 30 : 6);
  }
  // The example has nouns of its own; those that are left are rare.
  std::vector<std::string> example;
  std::vector<std::string> example_answer;
  std::size_t first_rare = kCommonWords;
  for (std::size_t i = 0; i < kExampleCommon + kExampleRare; ++i) {
    const bool is_common = i < kExampleCommon;
    add(example, noun(first_rare), is_common ? 4 : 1);
    if (is_common) {
      example_answer.push_back(noun(first_rare));
    }
    ++first_rare;
  }
  const auto rare = [&](std::size_t i) {
    const std::size_t num_rare = kNouns.size() - first_rare;
    return rare_prefix(i / num_rare) + noun(first_rare + i % num_rare);
  };
  for (std::size_t i = 0; i < static_cast<std::size_t>(units); ++i) {
    add(words, rare(i), is_long ? 3 : 1);
  }
  draft.prompt = word_list(example, draws.bits("example"), kExampleCommon) + " " +
                 join(example_answer, ", ") + "\n\n" +
                 word_list(words, draws.bits("list"), kCommonWords);
  draft.answer = " " + join(draft.expected, ", ");
  return draft;
}

}  // namespace

std::string_view long_text_task_name(LongTextTask task) {
  return std::find_if(kTaskNames.begin(), kTaskNames.end(),
                      [&](const auto& entry) { return entry.first == task; })
      ->second;
}

std::vector<std::string> long_text_task_names() {
  std::vector<std::string> names;
  for (const auto& [task, name] : kTaskNames) {
    names.emplace_back(name);
  }
  return names;
}

LongTextTask parse_long_text_task(std::string_view name) {
  const auto found = std::find_if(kTaskNames.begin(), kTaskNames.end(),
                                  [&](const auto& entry) { return entry.second == name; });
  PUZZLE_CHECK(found != kTaskNames.end(), "long-text task '{}'", name);
  return found->first;
}

LongTextDraft draft_long_text(LongTextTask task, std::uint64_t seed, const Haystack& haystack,
                              std::int64_t units, std::int64_t length) {
  const Draws draws(derive_seed(seed, long_text_task_name(task)));
  switch (task) {
    case LongTextTask::kVariableTracking:
      return draft_variables(draws, haystack, units);
    case LongTextTask::kCommonWords:
      return draft_common_words(draws, units, length);
    case LongTextTask::kQuestion:
      return draft_question(draws, units);
    default:
      return draft_needles(task, draws, haystack, units);
  }
}

}  // namespace puzzle
