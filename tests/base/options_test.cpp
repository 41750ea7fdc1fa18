#include "puzzle/base/options.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

struct InnerOptions {
  std::int64_t num_tokens = 8192;
  double rate = 1e-3;
  std::string loss = "per-token";

  void visit(OptionList& list) {
    list.add("num_tokens", num_tokens, Range<std::int64_t>{1, 1'000'000}, "Tokens.");
    list.add("rate", rate, Range<double>{0.0, 1.0}, "Peak rate.");
    list.add("loss", loss, Choices{{"per-token", "cosine"}}, "Distance.");
  }
};

struct OuterOptions {
  bool quick = false;
  std::string path;
  std::vector<std::int64_t> heads = {1, 3};
  std::vector<double> fractions = {0.5, 0.25};
  std::vector<std::string> files;
  std::vector<std::string> kinds = {"linear"};
  InnerOptions score;
  InnerOptions train;
  std::int64_t seed = 7;

  void visit(OptionList& list) {
    list.add("quick", quick, "Less of everything.");
    list.add("path", path, "A path.");
    list.section("score", score);
    list.add("heads", heads, Range<std::int64_t>{1, 128}, "KV heads.");
    list.add("fractions", fractions, Range<double>{0.0, 1.0}, "Widths.");
    list.add("files", files, "Corpora.");
    list.add("kinds", kinds, Choices{{"linear", "none"}}, "Kinds.");
    list.section("train", train);
    list.add("seed", seed,
             Range<std::int64_t>{std::numeric_limits<std::int64_t>::min(),
                                 std::numeric_limits<std::int64_t>::max()},
             "Seed.");
  }
};

class Options : public ::testing::Test {
 protected:
  Options() { values.visit(list); }

  std::filesystem::path yaml(const std::string& text) {
    write_text_file(folder / "recipe.yaml", text);
    return folder / "recipe.yaml";
  }

  test::TempDir folder;
  OuterOptions values;
  OptionList list;
};

TEST_F(Options, ReadsARecipe) {
  list.load_yaml(yaml(R"(
# a comment
quick: yes
path: "C:\\a b, [c]"
heads: [9, 3]
fractions: 0.75
files: ["one, two.txt", 'three.txt']
kinds: [none, linear]
score:
  num_tokens: 512
  loss: cosine
)"));
  EXPECT_TRUE(values.quick);
  EXPECT_EQ(values.path, "C:\\a b, [c]");
  EXPECT_EQ(values.heads, (std::vector<std::int64_t>{9, 3}));
  EXPECT_EQ(values.fractions, std::vector<double>{0.75});
  EXPECT_EQ(values.files, (std::vector<std::string>{"one, two.txt", "three.txt"}));
  EXPECT_EQ(values.kinds, (std::vector<std::string>{"none", "linear"}));
  EXPECT_EQ(values.score.num_tokens, 512);
  EXPECT_EQ(values.score.loss, "cosine");
  EXPECT_EQ(values.score.rate, 1e-3) << "what the file does not name keeps its default";
  EXPECT_EQ(values.train.num_tokens, 8192);
}

TEST_F(Options, AStepIsTheOnlyMappingThatIsAWord) {
  list.load_yaml(yaml("files: [none, {step: 64}]"));
  EXPECT_EQ(values.files, (std::vector<std::string>{"none", "step64"}));
  list.load_yaml(yaml("files: {step: 32}"));
  EXPECT_EQ(values.files, (std::vector<std::string>{"step32"}));
  const auto refused = [this](const char* text, const char* message) {
    EXPECT_PUZZLE_ERROR(list.load_yaml(yaml(text)), ErrorKind::kUsage, message);
    EXPECT_EQ(values.files, (std::vector<std::string>{"step32"}));
  };
  refused("files: [{step: 64, w: 3}]", "files holds something other than plain values");
  refused("heads: [{step: 64}]", "heads holds something other than plain values");
  refused("files:\n  - a\n  - ours: train_child=false\n",
          "recipe.yaml:3: files holds the mapping 'ours: train_child=false', expected text; put it "
          "in quotes");
  refused("files: [{name: a}]", "recipe.yaml:1: files holds the mapping 'name: a'");
  refused("files: [{step: more}]", "files holds the mapping 'step: more'");
  refused("files:\n  ours: seed=1\n",
          "recipe.yaml:1: files is a mapping, expected a list of texts");
}

TEST_F(Options, EmptyRecipeChangesNothing) {
  const std::string before = list.to_yaml();
  list.load_yaml(yaml("# nothing\n"));
  EXPECT_EQ(list.to_yaml(), before);
}

TEST_F(Options, MistakesInARecipeNameFileLineAndAdvice) {
  struct Case {
    const char* text;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"score:\n  num_token: 5\n",
       "recipe.yaml:2: there is no option score.num_token; did you mean score.num_tokens?"},
      {"zzzzzz: 5\n", "recipe.yaml:1: there is no option zzzzzz; docs/options.md lists all"},
      {"\nscore:\n  num_tokens: 0\n", "recipe.yaml:3: score.num_tokens"},
      {"score:\n  num_tokens: 1.5\n", "expected a whole number"},
      {"score:\n  num_tokens: ten\n", "expected a whole number"},
      {"score:\n  num_tokens: 99999999999999999999\n", "expected a whole number"},
      {"score:\n  rate: 1.5\n", "score.rate"},
      {"score:\n  rate: nan\n", "expected a number"},
      {"score:\n  rate: 0.1x\n", "expected a number"},
      {"score:\n  loss: mse\n", "one of per-token, cosine"},
      {"score: 5\n", "recipe.yaml:1: score is a section"},
      {"score:\n  num_tokens: [1, 2]\n", "one value"},
      {"score:\n  num_tokens: {a: 1}\n", "recipe.yaml:2: there is no option score.num_tokens.a"},
      {"quick: maybe\n", "recipe.yaml:1: quick"},
      {"heads: [1, 0]\n", "recipe.yaml:1: heads"},
      {"heads: [1, [2]]\n", "plain values"},
      {"kinds: [linear, cubic]\n", "one of linear, none"},
      {"seed: 1\nseed: 2\n", "recipe.yaml:2: seed stands twice"},
      {"seed:\n", "recipe.yaml:1: seed has no value"},
      {"- a\n- b\n", "recipe.yaml:1: found"},
      {"a: [1\n", "not valid YAML"},
      {"score.: 1\n", "there is no option score."},
      {"? [1, 2]\n: 3\n", "recipe.yaml:1: "},
  };
  for (const Case& broken : cases) {
    EXPECT_PUZZLE_ERROR(list.load_yaml(yaml(broken.text)), ErrorKind::kUsage, broken.message);
  }
  EXPECT_PUZZLE_ERROR(list.load_yaml(folder / "absent.yaml"), ErrorKind::kIo, "absent.yaml");
}

TEST_F(Options, RangeMessageStatesTheRange) {
  EXPECT_PUZZLE_ERROR(list.set("score.num_tokens", "0", "--set"), ErrorKind::kUsage, "1000000");
  EXPECT_EQ(values.score.num_tokens, 8192) << "a refused value must not be stored";
  EXPECT_PUZZLE_ERROR(list.set("heads", "[3, 500]", "--set"), ErrorKind::kUsage, "128");
  EXPECT_EQ(values.heads, (std::vector<std::int64_t>{1, 3}));
  std::int64_t count = 0;
  list.add("count", count, Range<std::int64_t>{0, std::numeric_limits<std::int64_t>::max()}, "");
  EXPECT_PUZZLE_ERROR(list.set("count", "-1", "--set"), ErrorKind::kUsage,
                      "--set: count is '-1', expected a number of 0 or more");
}

TEST_F(Options, MessagesSayWhereASettingStandsAndWhereOptionsAreListed) {
  EXPECT_PUZZLE_ERROR(list.set_assignment("quik=1", "g.yaml: cell a"), ErrorKind::kUsage,
                      "g.yaml: cell a: there is no option quik");
  EXPECT_PUZZLE_ERROR(list.set_assignment("quick", "g.yaml: cell a"), ErrorKind::kUsage,
                      "g.yaml: cell a: 'quick', expected name=value");
  OptionList listed_elsewhere("the manual lists all");
  EXPECT_PUZZLE_ERROR(listed_elsewhere.set("x", "1", "f"), ErrorKind::kUsage,
                      "f: there is no option x; the manual lists all");
}

TEST_F(Options, SetTakesTextOfEveryType) {
  list.set_assignment("score.rate=5e-4");
  list.set_assignment("seed = 9_000_000_000");
  list.set_assignment("quick=on");
  list.set_assignment("path=a=b");
  list.set_assignment("heads=9, 3");
  list.set_assignment("fractions=[0.5]");
  list.set_assignment("files=[\"x, y\", 'z']");
  list.set_assignment("kinds=[]");
  EXPECT_EQ(values.score.rate, 5e-4);
  EXPECT_EQ(values.seed, 9'000'000'000);
  EXPECT_TRUE(values.quick);
  EXPECT_EQ(values.path, "a=b");
  EXPECT_EQ(values.heads, (std::vector<std::int64_t>{9, 3}));
  EXPECT_EQ(values.fractions, std::vector<double>{0.5});
  EXPECT_EQ(values.files, (std::vector<std::string>{"x, y", "z"}));
  EXPECT_TRUE(values.kinds.empty());
  EXPECT_PUZZLE_ERROR(list.set_assignment("quick"), ErrorKind::kUsage,
                      "--set: 'quick', expected name=value");
  EXPECT_PUZZLE_ERROR(list.set_assignment("quik=1"), ErrorKind::kUsage, "did you mean quick?");
}

TEST_F(Options, DumpReadsBackToTheSameBits) {
  values.score.rate = 0.1 + 0.2;
  values.train.rate = 5e-324;
  values.seed = std::numeric_limits<std::int64_t>::min();
  values.path = " tab\there \"quoted\" \\ : # {} é \x01 ";
  values.files = {"", "a, b", "x: y", "- z", "true", "~", "multi\nline"};
  values.fractions = {1.0 / 3.0, 1.0, 0.0};
  values.heads = {};
  const std::string dump = list.to_yaml();
  OuterOptions other;
  OptionList other_list;
  other.visit(other_list);
  other_list.load_yaml(yaml(dump));
  EXPECT_EQ(other_list.to_yaml(), dump);
  EXPECT_EQ(other.score.rate, values.score.rate);
  EXPECT_EQ(other.train.rate, values.train.rate);
  EXPECT_EQ(other.seed, values.seed);
  EXPECT_EQ(other.path, values.path);
  EXPECT_EQ(other.files, values.files);
  EXPECT_EQ(other.fractions, values.fractions);
  EXPECT_EQ(other.heads, values.heads);
}

TEST_F(Options, SectionsAreDumpedOnceEach) {
  const std::string dump = list.to_yaml();
  EXPECT_EQ(dump.find("score:"), dump.rfind("score:"));
  EXPECT_NE(dump.find("score:\n  num_tokens: 8192\n  rate: 0.001\n"), std::string::npos) << dump;
}

TEST_F(Options, MarkdownHasOneRowPerOption) {
  const std::string text = list.to_markdown();
  EXPECT_NE(text.find("| `score.num_tokens` | `8192` | 1 … 1000000 | Tokens. |"), std::string::npos)
      << text;
  EXPECT_NE(text.find("| `score.loss` | `\"per-token\"` | per-token, cosine | Distance. |"),
            std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'),
            static_cast<std::ptrdiff_t>(list.fields().size()) + 2);
}

TEST_F(Options, KeyFollowsValuesOfItsPrefixOnly) {
  const auto key = [&](const char* prefix) {
    KeyBuilder builder;
    list.add_to_key(builder, prefix);
    return builder.key();
  };
  const std::string score = key("score.");
  const std::string train = key("train.");
  values.score.rate = std::nextafter(values.score.rate, 1.0);
  EXPECT_NE(key("score."), score);
  EXPECT_EQ(key("train."), train);
}

TEST(OptionKeys, OfAStructFollowItsFields) {
  InnerOptions options;
  const auto key = [&] {
    KeyBuilder builder;
    add_options_to_key(builder, options);
    return builder.key();
  };
  const std::string before = key();
  EXPECT_EQ(key(), before);
  options.loss = "cosine";
  EXPECT_NE(key(), before);
}

}  // namespace
}  // namespace puzzle
