#include "puzzle/base/options.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

// Shortest text that reads back to the same bits.
std::string number_text(double value) { return fmt::format("{}", value); }

std::string quoted(const std::string& text) {
  YAML::Emitter emitter;
  emitter << YAML::DoubleQuoted << text;
  return emitter.c_str();
}

template <class T, class F>
std::string list_text(const std::vector<T>& values, F&& one) {
  std::vector<std::string> parts;
  parts.reserve(values.size());
  for (const T& value : values) {
    parts.push_back(one(value));
  }
  return "[" + join(parts, ", ") + "]";
}

std::string value_text(const OptionField::Value& value) {
  return std::visit(Overloaded{
                        [](const bool* v) { return std::string(*v ? "true" : "false"); },
                        [](const std::int64_t* v) { return fmt::format("{}", *v); },
                        [](const double* v) { return number_text(*v); },
                        [](const std::string* v) { return quoted(*v); },
                        [](const std::vector<std::int64_t>* v) {
                          return list_text(*v, [](std::int64_t x) { return fmt::format("{}", x); });
                        },
                        [](const std::vector<double>* v) { return list_text(*v, number_text); },
                        [](const std::vector<std::string>* v) { return list_text(*v, quoted); },
                    },
                    value);
}

// Whether only the type ends the range.
bool is_open(const std::pair<double, double>& range) { return range.second >= 1e15; }

struct FieldReader {
  const OptionField& field;
  const std::string& place;

  [[noreturn]] void fail_value(const std::string& text, const std::string& expected) const {
    fail(ErrorKind::kUsage, "{}: {} is '{}', expected {}", place, field.name, text, expected);
  }

  void check_range(double value, const std::string& text) const {
    if (field.range && !(value >= field.range->first && value <= field.range->second)) {
      const std::string low = number_text(field.range->first);
      fail_value(text, is_open(*field.range) ? fmt::format("a number of {} or more", low)
                                             : fmt::format("a number from {} to {}", low,
                                                           number_text(field.range->second)));
    }
  }

  [[nodiscard]] bool read_bool(const std::string& text) const {
    const std::string word = lower(text);
    if (word == "true" || word == "yes" || word == "on") {
      return true;
    }
    if (word == "false" || word == "no" || word == "off") {
      return false;
    }
    fail_value(text, "true or false");
  }

  [[nodiscard]] std::int64_t read_int(const std::string& text) const {
    std::string digits = text;
    std::erase_if(digits, [](char c) { return c == '_' || c == '\''; });
    const auto value = parse_number<std::int64_t>(digits);
    if (!value) {
      fail_value(text, "a whole number");
    }
    check_range(static_cast<double>(*value), text);
    return *value;
  }

  [[nodiscard]] double read_double(const std::string& text) const {
    const auto value = parse_number<double>(text);
    if (!value || std::isnan(*value)) {
      fail_value(text, "a number");
    }
    check_range(*value, text);
    return *value;
  }

  [[nodiscard]] std::string read_string(const std::string& text) const {
    if (!field.choices.empty() &&
        std::find(field.choices.begin(), field.choices.end(), text) == field.choices.end()) {
      fail_value(text, "one of " + join(field.choices, ", "));
    }
    return text;
  }
};

template <class T>
constexpr bool is_vector = false;
template <class T>
constexpr bool is_vector<std::vector<T>> = true;

// Splits at commas outside quotes and takes the quotes off; false if one stays open.
bool split_items(std::string_view text, std::vector<std::string>* items) {
  std::size_t begin = 0;
  char quote = '\0';
  for (std::size_t i = 0; i <= text.size() && !text.empty(); ++i) {
    const char c = i < text.size() ? text[i] : ',';
    if (i < text.size() && quote != '\0') {
      quote = c == quote ? '\0' : quote;
    } else if (i < text.size() && (c == '"' || c == '\'') &&
               trim(text.substr(begin, i - begin)).empty()) {
      quote = c;
    } else if (c == ',') {
      std::string_view item = trim(text.substr(begin, i - begin));
      if (item.size() >= 2 && (item.front() == '"' || item.front() == '\'') &&
          item.back() == item.front()) {
        item = item.substr(1, item.size() - 2);
      }
      items->emplace_back(item);
      begin = i + 1;
    }
  }
  return quote == '\0';
}

std::string place_of(const YAML::Node& node, const std::filesystem::path& file) {
  return fmt::format("{}:{}", file.string(), node.Mark().line + 1);
}

// {step: N} as the word that it stands for, "stepN". No other mapping is a value.
std::optional<std::string> step_word(const YAML::Node& node) {
  constexpr std::string_view kStep = "step";
  if (!node.IsMap() || node.size() != 1 || !node.begin()->first.IsScalar() ||
      !node.begin()->second.IsScalar()) {
    return std::nullopt;
  }
  const std::string number = node.begin()->second.Scalar();
  const bool is_step = node.begin()->first.Scalar() == kStep && !number.empty() &&
                       number.find_first_not_of("0123456789") == std::string::npos;
  return is_step ? std::optional(std::string(kStep) + number) : std::nullopt;
}

// One item of the list `name`, as text.
std::string item_text(const YAML::Node& item, const std::string& name, bool is_word,
                      const std::filesystem::path& file) {
  if (item.IsScalar()) {
    return item.Scalar();
  }
  if (is_word && item.IsMap() && item.size() == 1) {
    if (const std::optional<std::string> word = step_word(item)) {
      return *word;
    }
    const auto [key, value] = std::pair(item.begin()->first, item.begin()->second);
    if (key.IsScalar() && value.IsScalar()) {
      fail(ErrorKind::kUsage, "{}: {} holds the mapping '{}: {}', expected text; put it in quotes",
           place_of(item, file), name, key.Scalar(), value.Scalar());
    }
  }
  fail(ErrorKind::kUsage, "{}: {} holds something other than plain values", place_of(item, file),
       name);
}

std::string range_text(const OptionField& field) {
  if (!field.choices.empty()) {
    return join(field.choices, ", ");
  }
  if (!field.range) {
    return "";
  }
  return is_open(*field.range) ? fmt::format("≥ {}", number_text(field.range->first))
                               : fmt::format("{} … {}", number_text(field.range->first),
                                             number_text(field.range->second));
}

}  // namespace

OptionField& OptionList::push(std::string_view name, OptionField::Value value,
                              std::string_view help) {
  fields_.push_back({prefix_ + std::string(name), value, std::nullopt, {}, std::string(help)});
  return fields_.back();
}

void OptionList::add(std::string_view name, bool& field, std::string_view help) {
  push(name, &field, help);
}
void OptionList::add(std::string_view name, std::int64_t& field, Range<std::int64_t> range,
                     std::string_view help) {
  push(name, &field, help).range = {static_cast<double>(range.low),
                                    static_cast<double>(range.high)};
}
void OptionList::add(std::string_view name, double& field, Range<double> range,
                     std::string_view help) {
  push(name, &field, help).range = {range.low, range.high};
}
void OptionList::add(std::string_view name, std::string& field, std::string_view help) {
  push(name, &field, help);
}
void OptionList::add(std::string_view name, std::string& field, Choices choices,
                     std::string_view help) {
  push(name, &field, help).choices = std::move(choices.values);
}
void OptionList::add(std::string_view name, std::vector<std::int64_t>& field,
                     Range<std::int64_t> range, std::string_view help) {
  push(name, &field, help).range = {static_cast<double>(range.low),
                                    static_cast<double>(range.high)};
}
void OptionList::add(std::string_view name, std::vector<double>& field, Range<double> range,
                     std::string_view help) {
  push(name, &field, help).range = {range.low, range.high};
}
void OptionList::add(std::string_view name, std::vector<std::string>& field,
                     std::string_view help) {
  push(name, &field, help);
}
void OptionList::add(std::string_view name, std::vector<std::string>& field, Choices choices,
                     std::string_view help) {
  push(name, &field, help).choices = std::move(choices.values);
}

void OptionList::set_values(const std::string& name, const std::vector<std::string>& values,
                            bool is_list, const std::string& place) {
  const OptionField* field = find_field(name);
  if (field == nullptr) {
    std::vector<std::string> names;
    names.reserve(fields_.size());
    for (const OptionField& f : fields_) {
      if (f.name.starts_with(name + ".")) {
        fail(ErrorKind::kUsage, "{}: {} is a section of options, found a value", place, name);
      }
      names.push_back(f.name);
    }
    const std::string close = nearest(name, names);
    fail(ErrorKind::kUsage, "{}: there is no option {}{}", place, name,
         close.empty() ? "; " + advice_ : "; did you mean " + close + "?");
  }
  const FieldReader reader{*field, place};
  const auto one = [&]() -> const std::string& {
    if (is_list || values.size() != 1) {
      reader.fail_value(join(values, ", "), "one value");
    }
    return values.front();
  };
  const auto all = [&](auto& target, auto&& read) {
    std::decay_t<decltype(target)> parsed;  // a refused element leaves the old list
    for (const std::string& value : values) {
      parsed.push_back(read(value));
    }
    target = std::move(parsed);
  };
  std::visit(Overloaded{
                 [&](bool* v) { *v = reader.read_bool(one()); },
                 [&](std::int64_t* v) { *v = reader.read_int(one()); },
                 [&](double* v) { *v = reader.read_double(one()); },
                 [&](std::string* v) { *v = reader.read_string(one()); },
                 [&](std::vector<std::int64_t>* v) {
                   all(*v, [&](const std::string& x) { return reader.read_int(x); });
                 },
                 [&](std::vector<double>* v) {
                   all(*v, [&](const std::string& x) { return reader.read_double(x); });
                 },
                 [&](std::vector<std::string>* v) {
                   all(*v, [&](const std::string& x) { return reader.read_string(x); });
                 },
             },
             field->value);
}

const OptionField* OptionList::find_field(const std::string& name) const {
  const auto field = std::ranges::find(fields_, name, &OptionField::name);
  return field == fields_.end() ? nullptr : &*field;
}

bool OptionList::holds_words(const std::string& name) const {
  const OptionField* field = find_field(name);
  return field != nullptr && std::holds_alternative<std::vector<std::string>*>(field->value);
}

void OptionList::set(const std::string& name, const std::string& text, const std::string& place) {
  const OptionField* field = find_field(name);
  if (field == nullptr || std::holds_alternative<std::string*>(field->value)) {
    set_values(name, {text}, false, place);  // strings keep their blanks
    return;
  }
  std::string_view body = trim(text);
  const bool wants_list = std::visit(
      [](auto* value) { return is_vector<std::remove_pointer_t<decltype(value)>>; }, field->value);
  if (!wants_list) {
    set_values(name, {std::string(body)}, false, place);
    return;
  }
  if (body.size() >= 2 && body.front() == '[' && body.back() == ']') {
    body = trim(body.substr(1, body.size() - 2));
  }
  std::vector<std::string> items;
  if (!split_items(body, &items)) {
    FieldReader{*field, place}.fail_value(text, "a list with closed quotes");
  }
  set_values(name, items, true, place);
}

void OptionList::set_assignment(const std::string& assignment, const std::string& place) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos) {
    fail(ErrorKind::kUsage, "{}: '{}', expected name=value", place, assignment);
  }
  const std::string_view text = assignment;
  set(std::string(trim(text.substr(0, equals))), std::string(trim(text.substr(equals + 1))), place);
}

void OptionList::load_yaml(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    fail(ErrorKind::kUsage, "{}: not valid YAML: {}", path.string(), error.what());
  }
  if (root.IsNull()) {
    return;
  }
  const auto walk = [&](const auto& self, const YAML::Node& node,
                        const std::string& prefix) -> void {
    if (!node.IsMap()) {
      fail(ErrorKind::kUsage, "{}: found a value where a section of options is expected",
           place_of(node, path));
    }
    std::vector<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) {
        fail(ErrorKind::kUsage, "{}: found a key that is not a word", place_of(entry.first, path));
      }
      const auto key = entry.first.as<std::string>();
      const std::string name = prefix.empty() ? key : prefix + "." + key;
      const std::string place = place_of(entry.first, path);
      if (std::find(seen.begin(), seen.end(), key) != seen.end()) {
        fail(ErrorKind::kUsage, "{}: {} stands twice", place, name);
      }
      seen.push_back(key);
      const bool is_words = holds_words(name);
      if (const auto step = step_word(entry.second); is_words && step) {
        set_values(name, {*step}, true, place);
      } else if (entry.second.IsMap() && is_words) {
        fail(ErrorKind::kUsage, "{}: {} is a mapping, expected a list of texts, each in quotes",
             place, name);
      } else if (entry.second.IsMap()) {
        self(self, entry.second, name);
      } else if (entry.second.IsSequence()) {
        std::vector<std::string> values;
        for (const auto& item : entry.second) {
          values.push_back(item_text(item, name, is_words, path));
        }
        set_values(name, values, true, place);
      } else if (entry.second.IsScalar()) {
        set(name, entry.second.Scalar(), place);
      } else {
        fail(ErrorKind::kUsage, "{}: {} has no value", place, name);
      }
    }
  };
  walk(walk, root, "");
}

std::string OptionList::to_yaml() const {
  std::string text;
  std::vector<std::string> open;
  for (const OptionField& field : fields_) {
    std::vector<std::string> path = split(field.name, '.');
    const std::string leaf = path.back();
    path.pop_back();
    std::size_t common = 0;
    while (common < path.size() && common < open.size() && path[common] == open[common]) {
      ++common;
    }
    for (std::size_t depth = common; depth < path.size(); ++depth) {
      text += std::string(2 * depth, ' ') + path[depth] + ":\n";
    }
    open = path;
    text += std::string(2 * path.size(), ' ') + leaf + ": " + value_text(field.value) + "\n";
  }
  return text;
}

std::string OptionList::to_markdown() const {
  std::string text = "| option | default | allowed | meaning |\n| --- | --- | --- | --- |\n";
  for (const OptionField& field : fields_) {
    text += fmt::format("| `{}` | `{}` | {} | {} |\n", field.name, value_text(field.value),
                        range_text(field), field.help);
  }
  return text;
}

void OptionList::add_to_key(KeyBuilder& key, std::string_view prefix) const {
  for (const OptionField& field : fields_) {
    if (field.name.starts_with(prefix)) {
      key.add(field.name, value_text(field.value));
    }
  }
}

}  // namespace puzzle
