#include "puzzle/arch/search_space.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/naive_tensors.h"
#include "puzzle/base/options.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

std::size_t num_blocks(const SearchSpace& space) {
  std::size_t count = 0;
  for (const LayerSpace& layer : space.layers) {
    count += layer.attention.size() * layer.ffn.size();
  }
  return count;
}

using ::testing::ElementsAre;

ModelSpec smollm2() {
  ModelSpec spec;
  spec.hidden_size = 576;
  spec.num_heads = 9;
  spec.head_dim = 64;
  spec.vocab_size = 49152;
  spec.context_length = 8192;
  spec.layers = Architecture(30, parse_block("kv3/w1536"));
  return spec;
}

std::vector<std::string> attention_names(const LayerSpace& layer) {
  std::vector<std::string> names;
  for (const AttentionSpec& attention : layer.attention) {
    names.push_back(attention.name());
  }
  return names;
}

std::vector<std::string> ffn_names(const LayerSpace& layer) {
  std::vector<std::string> names;
  for (const FfnSpec& ffn : layer.ffn) {
    names.push_back(ffn.name());
  }
  return names;
}

TEST(SearchSpace, DefaultsForSmolLm2) {
  const SearchSpace space = make_search_space({}, smollm2());
  ASSERT_EQ(space.layers.size(), 30U);
  for (const LayerSpace& layer : space.layers) {
    EXPECT_THAT(attention_names(layer), ElementsAre("kv3", "kv1", "linear", "none"));
    // 0.75, 0.5, 0.25 of 1536 are multiples of 32; 153.6 rounds to 160.
    EXPECT_THAT(ffn_names(layer),
                ElementsAre("w1536", "w1152", "w768", "w384", "w160", "linear", "none"));
  }
  EXPECT_EQ(num_blocks(space), 30U * 4 * 7);
  EXPECT_NEAR(space.log10_architectures(), 30.0 * std::log10(28.0), 1e-9);
}

TEST(SearchSpace, ThePapersSpaceFor70B) {
  ModelSpec spec = smollm2();
  spec.hidden_size = 8192;
  spec.num_heads = 64;
  spec.head_dim = 128;
  spec.layers = Architecture(80, parse_block("kv8/w28672"));
  SearchSpaceOptions options;
  options.ffn = {"parent", "0.87", "0.75", "0.5", "0.25", "0.2", "0.1", "linear", "none"};
  options.ffn_multiple = 256;
  const SearchSpace space = make_search_space(options, spec);
  EXPECT_THAT(attention_names(space.layers[0]),
              ElementsAre("kv8", "kv4", "kv2", "kv1", "linear", "none"));
  EXPECT_THAT(ffn_names(space.layers[79]),
              ElementsAre("w28672", "w24832", "w21504", "w14336", "w7168", "w5632", "w2816",
                          "linear", "none"));
  EXPECT_EQ(num_blocks(space), 80U * 54);
  EXPECT_NEAR(space.log10_architectures(), 138.6, 0.05);
}

TEST(SearchSpace, RoundingStaysBetweenOneMultipleAndTheParent) {
  ModelSpec spec = smollm2();
  spec.layers = {parse_block("kv3/w100")};
  SearchSpaceOptions options;
  options.ffn = {"0.001", "0.6", "0.97", "parent", "1.0", "w100", "w7", "0.01"};
  EXPECT_THAT(ffn_names(make_search_space(options, spec).layers[0]),
              ElementsAre("w100", "w32", "w64", "w96", "w7"));
  options.ffn_multiple = 256;  // above the parent's width
  EXPECT_THAT(ffn_names(make_search_space(options, spec).layers[0]), ElementsAre("w100", "w7"));
}

TEST(SearchSpace, AStepGivesEveryMultipleUpToTheParents) {
  ModelSpec spec = smollm2();
  SearchSpaceOptions options;
  options.ffn = {"step64", "linear"};
  const auto names = ffn_names(make_search_space(options, spec).layers[0]);
  ASSERT_EQ(names.size(), 1536U / 64U + 1U);
  EXPECT_EQ(names[0], "w1536");
  EXPECT_EQ(names[1], "w1472");
  EXPECT_EQ(names[23], "w64");
  EXPECT_EQ(names[24], "linear");
  spec.layers = {parse_block("kv3/w100"), parse_block("kv3/linear"), parse_block("kv3/w60")};
  options.ffn = {"step32", "w50"};
  const SearchSpace space = make_search_space(options, spec);
  EXPECT_THAT(ffn_names(space.layers[0]), ElementsAre("w100", "w96", "w64", "w32", "w50"));
  EXPECT_THAT(ffn_names(space.layers[1]), ElementsAre("linear"));
  EXPECT_THAT(ffn_names(space.layers[2]), ElementsAre("w60", "w32", "w50"));
}

TEST(SearchSpace, DivisorsAreProperAndLargestFirst) {
  ModelSpec spec = smollm2();
  spec.num_heads = 36;
  spec.layers = {parse_block("kv12/w64")};
  const SearchSpaceOptions mixed{.attention = {"parent", "kv2", "divisors"}, .ffn = {"parent"}};
  EXPECT_THAT(attention_names(make_search_space(mixed, spec).layers[0]),
              ElementsAre("kv12", "kv2", "kv6", "kv4", "kv3", "kv1"));
  spec.layers = {parse_block("kv1/w64")};
  const SearchSpaceOptions divisors{.attention = {"divisors", "parent"}, .ffn = {"parent"}};
  EXPECT_THAT(attention_names(make_search_space(divisors, spec).layers[0]), ElementsAre("kv1"));
}

TEST(SearchSpace, ShrunkenParentsOnlyShrinkFurther) {
  ModelSpec spec = smollm2();
  spec.layers = test::parse_layers({"linear/none", "none/linear"});
  const SearchSpace space =
      make_search_space({.attention = {"parent", "kv1", "divisors", "linear", "none"},
                         .ffn = {"parent", "0.5", "w64", "linear", "none"}},
                        spec);
  EXPECT_THAT(attention_names(space.layers[0]), ElementsAre("linear", "none"));
  EXPECT_THAT(ffn_names(space.layers[0]), ElementsAre("none"));
  EXPECT_THAT(attention_names(space.layers[1]), ElementsAre("none"));
  EXPECT_THAT(ffn_names(space.layers[1]), ElementsAre("linear", "none"));
}

TEST(SearchSpace, SkippedLayersKeepTheParentsBlock) {
  const SearchSpace space = make_search_space({.skip_layers = {0, 29, 0}}, smollm2());
  for (const std::size_t layer : {0U, 29U}) {
    EXPECT_THAT(attention_names(space.layers[layer]), ElementsAre("kv3"));
    EXPECT_THAT(ffn_names(space.layers[layer]), ElementsAre("w1536"));
  }
  EXPECT_EQ(num_blocks(space), 28U * 28 + 2);
}

TEST(SearchSpace, MistakesAreNamed) {
  const ModelSpec spec = smollm2();
  const auto attention = [&](const char* name) {
    static_cast<void>(make_search_space({.attention = {"parent", name}}, spec));
  };
  const auto ffn = [&](const char* name) {
    static_cast<void>(make_search_space({.ffn = {"parent", name}}, spec));
  };
  EXPECT_PUZZLE_ERROR(attention("kv2"), ErrorKind::kUsage,
                      "2 KV heads do not divide the parent's 3 in layer 0");
  for (const char* name : {"kv", "kv0", "half", "0.5", "w3"}) {
    EXPECT_PUZZLE_ERROR(attention(name), ErrorKind::kUsage,
                        "expected parent, divisors, kvN, linear or none");
  }
  EXPECT_PUZZLE_ERROR(ffn("w1537"), ErrorKind::kUsage, "wider than the parent's 1536 in layer 0");
  for (const char* name : {"1.5", "0", "-0.5", "nan", "inf", "kv1", "50%"}) {
    EXPECT_PUZZLE_ERROR(ffn(name), ErrorKind::kUsage, "a fraction in (0, 1]");
  }
  EXPECT_PUZZLE_ERROR(static_cast<void>(make_search_space({.attention = {"none"}}, spec)),
                      ErrorKind::kUsage, "attention: \"parent\" is missing");
  EXPECT_PUZZLE_ERROR(static_cast<void>(make_search_space({.ffn = {}}, spec)), ErrorKind::kUsage,
                      "FFN: \"parent\" is missing");
  EXPECT_PUZZLE_ERROR(static_cast<void>(make_search_space({.skip_layers = {30}}, spec)),
                      ErrorKind::kUsage, "30 is not a layer, expected 0 … 29");
}

TEST(SearchSpace, OptionsAreListedOnce) {
  SearchSpaceOptions options;
  OptionList list;
  options.visit(list);
  list.set("ffn", "parent, 0.5", "test");
  list.set("ffn_multiple", "256", "test");
  EXPECT_THAT(options.ffn, ElementsAre("parent", "0.5"));
  EXPECT_EQ(options.ffn_multiple, 256);
  EXPECT_EQ(list.fields().size(), 4U);
}

}  // namespace
}  // namespace puzzle
