#include "puzzle/data/long_text.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/toy_tokenizer.h"
#include "puzzle/base/file.h"
#include "puzzle/data/long_text_words.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::ToyTokenizer;

std::vector<std::size_t> places(const std::string& text, const std::string& part) {
  std::vector<std::size_t> found;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    found.push_back(at);
  }
  return found;
}

LongTextOptions asked(std::vector<std::int64_t> lengths, std::vector<std::string> tasks = {}) {
  LongTextOptions options;
  options.lengths = std::move(lengths);
  options.samples = 6;
  if (!tasks.empty()) {
    options.tasks = std::move(tasks);
  }
  return options;
}

std::vector<LongTextSet> toy_sets(const LongTextOptions& options) {
  return make_long_text_sets(options, ToyTokenizer());
}

// The text between the instruction's line and the question's.
std::string body(const std::string& prompt) {
  const std::size_t begin = prompt.find('\n') + 1;
  return prompt.substr(begin, prompt.rfind('\n') - begin);
}

// What one more piece of filler adds at most, in bytes, which toy tokens do not exceed.
std::size_t coarseness(LongTextTask task) {
  switch (task) {
    case LongTextTask::kCommonWords:
      return 3 * 30;
    case LongTextTask::kQuestion:
      return 60;
    default:
      return 23;
  }
}

TEST(LongText, FillsEveryLengthAndExceedsNone) {
  for (const LongTextSet& set : toy_sets(asked({2048, 5000, 12000}))) {
    ASSERT_EQ(set.samples.size(), 6U);
    for (const LongTextSample& sample : set.samples) {
      const auto prompt = std::ssize(ToyTokenizer().encode(sample.text.prompt));
      const auto answer = std::ssize(ToyTokenizer().encode(sample.text.answer));
      EXPECT_EQ(sample.encoded.num_context, prompt);
      EXPECT_EQ(std::ssize(sample.encoded.ids), prompt + answer);
      EXPECT_EQ(sample.max_new_tokens, answer + answer / 2 + 16);
      const std::int64_t total = prompt + sample.max_new_tokens;
      EXPECT_LE(total, set.length) << set.name;
      EXPECT_GT(total + static_cast<std::int64_t>(coarseness(set.task)), set.length) << set.name;
    }
  }
}

TEST(LongText, IsMadeForTheModelsOwnTokenizer) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const auto tokenizer = load_tokenizer(test::parent_gguf());
  for (const LongTextSet& set : make_long_text_sets(asked({512, 3000, 8192}), *tokenizer)) {
    for (const LongTextSample& sample : set.samples) {
      const auto prompt = std::ssize(tokenizer->encode(sample.text.prompt));
      EXPECT_EQ(sample.encoded.num_context, prompt) << set.name;
      EXPECT_LE(prompt + sample.max_new_tokens, set.length) << set.name;
      EXPECT_GT(prompt + sample.max_new_tokens, set.length - 50) << set.name;
      const std::vector<std::int32_t> answer(
          sample.encoded.ids.begin() + sample.encoded.num_context, sample.encoded.ids.end());
      EXPECT_EQ(tokenizer->decode_bytes(answer), sample.text.answer);
      EXPECT_EQ(found_fraction(sample.text.answer, sample.text.expected), 1.0);
    }
  }
}

TEST(LongText, NeedlesStandOnceAndAtTheirDepth) {
  const std::vector<std::string> tasks = {"single_needle", "multi_key", "multi_value",
                                          "multi_query", "variable_tracking"};
  std::set<int> tenths;
  for (const LongTextSet& set : toy_sets(asked({3000}, tasks))) {
    for (const LongTextSample& sample : set.samples) {
      std::string prompt = sample.text.prompt;
      if (set.task == LongTextTask::kVariableTracking) {  // behind the worked example
        prompt = prompt.substr(prompt.find("\n\n") + 2);
      }
      std::string text = body(prompt);
      const auto& needles = sample.text.needles;
      ASSERT_EQ(needles.size(), set.task == LongTextTask::kSingleNeedle       ? 1U
                                : set.task == LongTextTask::kVariableTracking ? 5U
                                                                              : 4U);
      std::vector<std::size_t> begins;
      for (const Needle& needle : needles) {
        ASSERT_EQ(places(prompt, needle.text).size(), 1U) << needle.text;
        const std::size_t begin = text.find(needle.text);
        ASSERT_NE(begin, std::string::npos);
        EXPECT_TRUE(begin == 0 || text[begin - 1] == ' ');
        text.erase(begin, needle.text.size() + 1);
        begins.push_back(begin);
        tenths.insert(static_cast<int>(10 * needle.depth));
      }
      EXPECT_TRUE(std::is_sorted(begins.begin(), begins.end()));
      for (std::size_t n = 0; n < needles.size(); ++n) {
        EXPECT_NEAR(static_cast<double>(begins[n]) / static_cast<double>(text.size()),
                    needles[n].depth, 2 * 22.0 / static_cast<double>(text.size()))
            << set.name;
      }
      // What is left is filler alone.
      EXPECT_EQ(std::regex_replace(text + " ",
                                   std::regex("(The grass is green|The sky is blue|The sun is "
                                              "yellow|Here we go|There and back again)\\. "),
                                   ""),
                "");
    }
  }
  EXPECT_GE(tenths.size(), 9U) << "needles should be everywhere";
}

TEST(LongText, AsksForNumbersThatStandNowhereElse) {
  for (const LongTextSet& set :
       toy_sets(asked({3000}, {"single_needle", "multi_key", "multi_value", "multi_query"}))) {
    const bool has_many =
        set.task == LongTextTask::kMultiValue || set.task == LongTextTask::kMultiQuery;
    for (const LongTextSample& sample : set.samples) {
      ASSERT_EQ(sample.text.expected.size(), has_many ? 4U : 1U);
      const std::regex needle(
          "One of the special magic numbers for ([a-z]+-[a-z]+) is: (\\d{7})\\.");
      std::map<std::string, std::vector<std::string>> values;
      for (const Needle& n : sample.text.needles) {
        std::smatch match;
        ASSERT_TRUE(std::regex_match(n.text, match, needle)) << n.text;
        values[match[1]].push_back(match[2]);
      }
      EXPECT_EQ(
          values.size(),
          set.task == LongTextTask::kMultiKey || set.task == LongTextTask::kMultiQuery ? 4U : 1U);
      // Every key that the question names, in its order.
      const std::string question =
          sample.text.prompt.substr(sample.text.prompt.rfind("The special magic number"));
      std::vector<std::pair<std::size_t, std::string>> named;
      for (const auto& [key, of_key] : values) {
        ASSERT_FALSE(of_key.empty());
        if (const std::size_t at = question.find(key); at != std::string::npos) {
          named.emplace_back(at, key);
        }
      }
      std::sort(named.begin(), named.end());
      std::vector<std::string> wanted;
      for (const auto& [at, key] : named) {
        wanted.insert(wanted.end(), values[key].begin(), values[key].end());
      }
      std::vector<std::string> expected = sample.text.expected;
      if (set.task == LongTextTask::kMultiValue) {  // of one key, whose values have no order
        std::sort(wanted.begin(), wanted.end());
        std::sort(expected.begin(), expected.end());
      }
      EXPECT_EQ(expected, wanted) << set.name;
      for (const std::string& value : sample.text.expected) {
        EXPECT_EQ(places(sample.text.prompt, value).size(), 1U);
      }
    }
  }
}

TEST(LongText, VariablesAreChained) {
  for (const LongTextSet& set : toy_sets(asked({3000}, {"variable_tracking"}))) {
    for (const LongTextSample& sample : set.samples) {
      const std::string text = sample.text.prompt.substr(sample.text.prompt.find("\n\n"));
      std::map<std::string, std::string> value_of;
      const std::regex assignment("VAR ([A-Z]{5}) = (VAR )?([A-Z]{5}|\\d{5})\\.");
      for (auto it = std::sregex_iterator(text.begin(), text.end(), assignment);
           it != std::sregex_iterator(); ++it) {
        const bool is_copy = (*it)[2].matched;
        value_of[(*it)[1]] = is_copy ? value_of.at((*it)[3]) : (*it)[3].str();
      }
      std::smatch query;
      ASSERT_TRUE(std::regex_search(text, query, std::regex("assigned the value (\\d{5}) in")));
      std::set<std::string> wanted;
      for (const auto& [name, value] : value_of) {
        if (value == query[1]) {
          wanted.insert(name);
        }
      }
      EXPECT_EQ(wanted,
                std::set<std::string>(sample.text.expected.begin(), sample.text.expected.end()));
      EXPECT_EQ(wanted.size(), 5U);
    }
  }
}

TEST(LongText, CommonWordsAreTheMostCommon) {
  for (const LongTextSet& set : toy_sets(asked({2048, 40000}, {"common_words"}))) {
    for (const LongTextSample& sample : set.samples) {
      const std::string list = body(sample.text.prompt.substr(sample.text.prompt.find("\n\n") + 2));
      std::map<std::string, int> times;
      std::string word;
      for (const char c : list + ",") {
        if (c == ',') {
          ++times[word];
          word.clear();
        } else if (c != ' ') {
          word += c;
        }
      }
      EXPECT_GT(times.size(), 20U);
      const bool is_long = set.length >= 4096;
      for (const auto& [name, count] : times) {
        const bool is_common =
            std::count(sample.text.expected.begin(), sample.text.expected.end(), name) == 1;
        EXPECT_EQ(count, is_common ? (is_long ? 30 : 6) : (is_long ? 3 : 1)) << name;
      }
      EXPECT_EQ(sample.text.expected.size(), 10U);
      EXPECT_TRUE(sample.text.needles.empty());
    }
  }
}

TEST(LongText, PeopleAndTheTownAskedForAreUnique) {
  for (const LongTextSet& set : toy_sets(asked({1000, 8000, 50000}, {"question"}))) {
    for (const LongTextSample& sample : set.samples) {
      const std::string& prompt = sample.text.prompt;
      std::map<std::string, std::string> town_of;
      const std::regex lives("([A-Z][a-z]+ [A-Z][a-z]+) lives in ([A-Z][a-z]+)\\.");
      for (auto it = std::sregex_iterator(prompt.begin(), prompt.end(), lives);
           it != std::sregex_iterator(); ++it) {
        EXPECT_TRUE(town_of.emplace((*it)[1], (*it)[2]).second) << (*it)[1];
      }
      std::smatch question;
      ASSERT_TRUE(std::regex_search(prompt, question,
                                    std::regex("In which town does (.*) live\\? Answer: ")));
      EXPECT_EQ(sample.text.expected, std::vector<std::string>{town_of.at(question[1])});
      EXPECT_EQ(places(prompt, sample.text.expected[0]).size(), 1U);
      EXPECT_EQ(places(prompt, sample.text.needles.at(0).text).size(), 1U);
      EXPECT_TRUE(prompt.ends_with(question[1].str() + " lives in"));
      // A person's facts are a line.
      const std::string text = body(prompt);
      const auto before = static_cast<double>(text.find(sample.text.needles[0].text));
      const auto filler = static_cast<double>(text.size() - sample.text.needles[0].text.size());
      EXPECT_NEAR(before / filler, sample.text.needles[0].depth, 0.1);
    }
  }
}

TEST(LongText, DependsOnTheSeedAlone) {
  LongTextOptions options = asked({2048});
  const auto first = toy_sets(options);
  const auto again = toy_sets(options);
  options.samples = 9;
  const auto more = toy_sets(options);
  options.samples = 6;
  options.seed = 1;
  const auto other = toy_sets(options);
  std::set<std::string> keys;
  for (std::size_t s = 0; s < first.size(); ++s) {
    EXPECT_EQ(first[s].content_key, again[s].content_key);
    EXPECT_NE(first[s].content_key, other[s].content_key);
    keys.insert(first[s].content_key);
    std::set<std::string> prompts;
    for (std::size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(first[s].samples[i].text.prompt, again[s].samples[i].text.prompt);
      EXPECT_EQ(first[s].samples[i].text.prompt, more[s].samples[i].text.prompt);
      EXPECT_NE(first[s].samples[i].text.prompt, other[s].samples[i].text.prompt);
      prompts.insert(first[s].samples[i].text.prompt);
    }
    EXPECT_EQ(prompts.size(), 6U);
  }
  EXPECT_EQ(keys.size(), first.size());
}

TEST(LongText, TakesSentencesOfAFile) {
  const test::TempDir folder;
  std::string text = "A first sentence,\nover two lines. Is it\tthe second? Yes! ";
  for (int i = 0; i < 40; ++i) {
    text += "Number " + std::to_string(1000000 + i) + " is taken. ";
  }
  text += std::string(400, 'x') + ". No end here";
  write_text_file(folder / "text.txt", text);
  const Haystack haystack(folder / "text.txt");
  ASSERT_EQ(haystack.sentences().size(), 44U);
  EXPECT_EQ(haystack.sentences()[0], "A first sentence, over two lines.");
  EXPECT_EQ(haystack.sentences()[1], "Is it the second?");
  EXPECT_EQ(haystack.sentences()[2], "Yes!");
  EXPECT_EQ(haystack.sentences()[43], "No end here");
  EXPECT_TRUE(haystack.holds("1000039 is"));
  EXPECT_FALSE(haystack.holds("1000040"));
  LongTextOptions options = asked({2048}, {"single_needle"});
  options.haystack = (folder / "text.txt").string();
  std::set<std::string> starts;
  for (const LongTextSample& sample : toy_sets(options)[0].samples) {
    EXPECT_EQ(places(sample.text.prompt, "grass").size(), 0U);
    EXPECT_GE(places(sample.text.prompt, "is taken.").size(), 30U);
    starts.insert(body(sample.text.prompt).substr(0, 20));
  }
  EXPECT_GE(starts.size(), 4U) << "texts should begin at different sentences";
  write_text_file(folder / "empty.txt", " \n");
  EXPECT_PUZZLE_ERROR(Haystack(folder / "empty.txt"), ErrorKind::kFormat, "no sentences");
  options.haystack = (folder / "none.txt").string();
  EXPECT_PUZZLE_ERROR((void)toy_sets(options), ErrorKind::kIo, "none.txt");
}

TEST(LongText, RefusesALengthThatATaskAloneExceeds) {
  EXPECT_PUZZLE_ERROR((void)toy_sets(asked({4000, 128}, {"single_needle"})), ErrorKind::kUsage,
                      "evaluate.long_text: single_needle takes ");
  EXPECT_PUZZLE_ERROR((void)toy_sets(asked({128}, {"common_words"})), ErrorKind::kUsage,
                      "more than the length 128; name longer ones");
  EXPECT_TRUE(toy_sets(LongTextOptions()).empty());
}

TEST(LongText, FindsExpectedStrings) {
  EXPECT_EQ(found_fraction("It is 1234567, I think", {"1234567"}), 1.0);
  EXPECT_EQ(found_fraction("It is 123456 7", {"1234567"}), 0.0);
  EXPECT_EQ(found_fraction("BADGER and\nOlive.", {"badger", "olive", "raven", "Otter"}), 0.5);
  EXPECT_EQ(found_fraction("aqzwx", {"AQZWX"}), 1.0);
  EXPECT_EQ(found_fraction("", {"x"}), 0.0);
}

TEST(LongText, NoNounIsPartOfAnother) {
  for (const std::string_view noun : long_text_words::kNouns) {
    for (const std::string_view other : long_text_words::kNouns) {
      EXPECT_TRUE(&noun == &other || noun == other || other.find(noun) == std::string::npos)
          << noun << " " << other;
    }
    EXPECT_EQ(std::count(long_text_words::kNouns.begin(), long_text_words::kNouns.end(), noun), 1);
  }
}

TEST(LongText, TaskNamesAreKept) {
  const auto names = long_text_task_names();
  EXPECT_EQ(names.size(), 7U);
  for (const std::string& name : names) {
    EXPECT_EQ(long_text_task_name(parse_long_text_task(name)), name);
  }
}

}  // namespace
}  // namespace puzzle
