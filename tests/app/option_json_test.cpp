#include "puzzle/app/option_json.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"

namespace puzzle {
namespace {

struct InnerOptions {
  std::int64_t count = 3;
  std::vector<std::string> names = {"a"};
  void visit(OptionList& list) {
    list.add("count", count, Range<std::int64_t>{1, 9}, "How many.");
    list.add("names", names, Choices{{"a", "b"}}, "Which.");
  }
};

struct OuterOptions {
  double rate = 0.5;
  InnerOptions inner;
  void visit(OptionList& list) {
    list.add("rate", rate, Range<double>{0.0, 1.0}, "How fast.");
    list.section("inner", inner);
  }
};

TEST(OptionJson, HasValuesRangesChoicesAndHelp) {
  OuterOptions options;
  OptionList list;
  options.visit(list);
  EXPECT_EQ(options_json(list),
            parse_json(R"([{"name": "rate", "value": 0.5, "range": [0.0, 1.0], "help": "How fast."},
                           {"name": "inner.count", "value": 3, "range": [1.0, 9.0],
                            "help": "How many."},
                           {"name": "inner.names", "value": ["a"], "choices": ["a", "b"],
                            "help": "Which."}])",
                       "test"));
}

TEST(OptionJson, NestsSectionsAsARecipeDoes) {
  OuterOptions options;
  options.inner.names = {"b", "a"};
  OptionList list;
  options.visit(list);
  EXPECT_EQ(config_json(list),
            parse_json(R"({"rate": 0.5, "inner": {"count": 3, "names": ["b", "a"]}})", "test"));
}

TEST(OptionJson, FindsWhatDiffers) {
  OuterOptions options;
  OuterOptions defaults;
  options.inner.count = 4;
  OptionList list;
  OptionList default_list;
  options.visit(list);
  defaults.visit(default_list);
  EXPECT_EQ(changed_options(list, default_list), std::set<std::string>{"inner.count"});
}

}  // namespace
}  // namespace puzzle
