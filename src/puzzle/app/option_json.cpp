#include "puzzle/app/option_json.h"

#include <variant>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

Json value_json(const OptionField& field) {
  return std::visit([](const auto* value) { return Json(*value); }, field.value);
}

}  // namespace

Json options_json(const OptionList& list) {
  Json all = Json::array();
  for (const OptionField& field : list.fields()) {
    Json entry = {{"name", field.name}, {"value", value_json(field)}, {"help", field.help}};
    if (field.range) {
      entry["range"] = {field.range->first, field.range->second};
    }
    if (!field.choices.empty()) {
      entry["choices"] = field.choices;
    }
    all.push_back(std::move(entry));
  }
  return all;
}

Json config_json(const OptionList& list) {
  Json config = Json::object();
  for (const OptionField& field : list.fields()) {
    Json* section = &config;
    for (const std::string& part : split(field.name, '.')) {
      section = &(*section)[part];
    }
    *section = value_json(field);
  }
  return config;
}

std::set<std::string> changed_options(const OptionList& list, const OptionList& defaults) {
  PUZZLE_CHECK(list.fields().size() == defaults.fields().size(), "lists of different structs");
  std::set<std::string> changed;
  for (std::size_t i = 0; i < list.fields().size(); ++i) {
    if (value_json(list.fields()[i]) != value_json(defaults.fields()[i])) {
      changed.insert(list.fields()[i].name);
    }
  }
  return changed;
}

}  // namespace puzzle
