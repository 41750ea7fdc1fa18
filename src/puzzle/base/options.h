// Options declared once: a struct's `visit(OptionList&)` names every field with its range or
// choices and one line of help. From that list come recipe reading, --set, the resolved dump, the
// range checks, the content keys and docs/options.md.
//
//   struct ScoreOptions {
//     std::int64_t num_tokens = 8192;
//     void visit(OptionList& list) {
//       list.add("num_tokens", num_tokens, Range<std::int64_t>{256, 1 << 30}, "Tokens scored.");
//     }
//   };
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace puzzle {

class KeyBuilder;

template <class T>
struct Range {
  T low;
  T high;
};

struct Choices {
  std::vector<std::string> values;
};

struct OptionField {
  using Value =
      std::variant<bool*, std::int64_t*, double*, std::string*, std::vector<std::int64_t>*,
                   std::vector<double>*, std::vector<std::string>*>;
  std::string name;  // dotted, e.g. "score.num_tokens"
  Value value;
  std::optional<std::pair<double, double>> range;  // for numbers, also elements of lists
  std::vector<std::string> choices;                // for strings, also elements of lists
  std::string help;
};

// Pointers into the structs that were visited: keep those alive and in place.
class OptionList {
 public:
  // `advice` ends the message about an option that does not exist and is like none that does.
  explicit OptionList(std::string advice = "docs/options.md lists all")
      : advice_(std::move(advice)) {}

  void add(std::string_view name, bool& field, std::string_view help);
  void add(std::string_view name, std::int64_t& field, Range<std::int64_t> range,
           std::string_view help);
  void add(std::string_view name, double& field, Range<double> range, std::string_view help);
  void add(std::string_view name, std::string& field, std::string_view help);
  void add(std::string_view name, std::string& field, Choices choices, std::string_view help);
  void add(std::string_view name, std::vector<std::int64_t>& field, Range<std::int64_t> range,
           std::string_view help);
  void add(std::string_view name, std::vector<double>& field, Range<double> range,
           std::string_view help);
  void add(std::string_view name, std::vector<std::string>& field, std::string_view help);
  void add(std::string_view name, std::vector<std::string>& field, Choices choices,
           std::string_view help);

  template <class Options>
  void section(std::string_view name, Options& options) {
    const std::string outer = prefix_;
    prefix_ += std::string(name) + ".";
    options.visit(*this);
    prefix_ = outer;
  }

  [[nodiscard]] const std::vector<OptionField>& fields() const { return fields_; }

  // Sets one field from text ("512", "true", "[1, 2]", "a, b"). `place` opens the message.
  // Throws Error(kUsage): unknown name (with the nearest known one), wrong type, out of range.
  void set(const std::string& name, const std::string& text, const std::string& place);

  // "name=value", as --set takes it. Throws as set().
  void set_assignment(const std::string& assignment, const std::string& place = "--set");

  // Overwrites the fields named in a YAML file. For a list of words {step: N} stands for "stepN",
  // alone or as an item; other mappings are sections or mistakes. Throws Error(kUsage) with file
  // and line.
  void load_yaml(const std::filesystem::path& path);

  // The resolved values as YAML that load_yaml reads back to the same bits.
  [[nodiscard]] std::string to_yaml() const;
  // Markdown table: name, default (= the present value), range, help.
  [[nodiscard]] std::string to_markdown() const;
  // Name and value of every field whose name starts with `prefix`, for content keys.
  void add_to_key(KeyBuilder& key, std::string_view prefix = "") const;

 private:
  OptionField& push(std::string_view name, OptionField::Value value, std::string_view help);
  [[nodiscard]] const OptionField* find_field(const std::string& name) const;  // or null
  [[nodiscard]] bool holds_words(const std::string& name) const;
  void set_values(const std::string& name, const std::vector<std::string>& values, bool is_list,
                  const std::string& place);

  std::string advice_;
  std::string prefix_;
  std::vector<OptionField> fields_;
};

// Content key of one options struct.
template <class Options>
void add_options_to_key(KeyBuilder& key, const Options& options) {
  Options copy = options;
  OptionList list;
  copy.visit(list);
  list.add_to_key(key);
}

}  // namespace puzzle
