#include "puzzle/text/hf_steps.h"

#include <functional>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// Longest prefix of spaces that a decoder may take away.
constexpr std::int64_t kMaxStrip = 16;

using StepVisitor = std::function<void(const Json& step, const std::string& type)>;

// Calls `visit` for a step, or for each step of a Sequence, also a nested one.
void for_each_step(const Json& value, const char* list, const std::string& place,
                   const StepVisitor& visit) {
  if (value.is_null()) {
    return;
  }
  const std::string type = json_string(value, "type", place);
  if (type != "Sequence") {
    visit(value, type);
    return;
  }
  const auto steps = value.find(list);
  if (steps == value.end() || !steps->is_array()) {
    fail(ErrorKind::kFormat, "{}: a Sequence without the array \"{}\"", place, list);
  }
  for (const Json& step : *steps) {
    for_each_step(step, list, place, visit);
  }
}

[[noreturn]] void fail_step(const std::string& place, const std::string& what,
                            const std::string& type, std::string_view known) {
  fail(ErrorKind::kFormat, "{}: {} \"{}\" is not supported; supported are {}", place, what, type,
       known);
}

// {"String": "…"} or {"Regex": "…"}: the text, and whether it is a regex.
std::pair<std::string, bool> parse_split_pattern(const Json& step, const std::string& place) {
  const auto pattern = step.find("pattern");
  if (pattern == step.end() || !pattern->is_object()) {
    fail(ErrorKind::kFormat, "{}: a step without the object \"pattern\"", place);
  }
  if (pattern->contains("Regex")) {
    return {json_string(*pattern, "Regex", place), true};
  }
  return {json_string(*pattern, "String", place), false};
}

ReplaceNormalizer parse_replace(const Json& step, const std::string& place) {
  const auto [pattern, is_regex] = parse_split_pattern(step, place);
  if (is_regex) {
    fail(ErrorKind::kFormat, "{}: Replace with the regex {} is not supported, only with a string",
         place, pattern);
  }
  return {.pattern = pattern, .content = json_string(step, "content", place)};
}

constexpr std::pair<const char*, SplitBehavior> kSplitBehaviors[] = {
    {"Removed", SplitBehavior::kRemoved},
    {"Isolated", SplitBehavior::kIsolated},
    {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
    {"MergedWithNext", SplitBehavior::kMergedWithNext},
    {"Contiguous", SplitBehavior::kContiguous},
};
constexpr std::pair<const char*, PrependScheme> kPrependSchemes[] = {
    {"always", PrependScheme::kAlways},
    {"first", PrependScheme::kFirst},
    {"never", PrependScheme::kNever},
};
constexpr std::pair<const char*, NormalForm> kNormalForms[] = {
    {"NFC", NormalForm::kNfc},
    {"NFD", NormalForm::kNfd},
    {"NFKC", NormalForm::kNfkc},
    {"NFKD", NormalForm::kNfkd},
};

template <class Enum, std::size_t kCount>
Enum enum_of(const std::pair<const char*, Enum> (&table)[kCount], const std::string& name,
             const std::string& what, const std::string& place) {
  for (const auto& [known, value] : table) {
    if (name == known) {
      return value;
    }
  }
  fail(ErrorKind::kFormat, "{}: {} \"{}\" is not known", place, what, name);
}

template <class Enum, std::size_t kCount>
std::string name_of(const std::pair<const char*, Enum> (&table)[kCount], Enum value) {
  for (const auto& [name, known] : table) {
    if (known == value) {
      return name;
    }
  }
  return "";
}

SplitStep parse_split(const Json& step, const std::string& place) {
  auto [pattern, is_regex] = parse_split_pattern(step, place);
  return {.pattern = std::move(pattern),
          .is_regex = is_regex,
          .behavior = enum_of(kSplitBehaviors, json_string(step, "behavior", place),
                              "the split behavior", place),
          .invert = json_bool(step, "invert", place, false)};
}

MetaspaceStep parse_metaspace(const Json& step, const std::string& place) {
  const bool old_prefix = json_bool(step, "add_prefix_space", place, true);
  const std::string scheme =
      json_string(step, "prepend_scheme", place, old_prefix ? "always" : "never");
  return {.replacement = json_string(step, "replacement", place),
          .prepend = enum_of(kPrependSchemes, scheme, "prepend_scheme", place),
          .split = json_bool(step, "split", place, true)};
}

void parse_template(const Json& step, const std::string& place, TokenTemplate& result) {
  const auto single = step.find("single");
  const auto special = step.find("special_tokens");
  if (single == step.end() || !single->is_array() || special == step.end() ||
      !special->is_object()) {
    fail(ErrorKind::kFormat, "{}: TemplateProcessing without \"single\" and \"special_tokens\"",
         place);
  }
  bool after_text = false;
  for (const Json& part : *single) {
    if (part.is_object() && part.contains("Sequence")) {
      after_text = true;
      continue;
    }
    if (!part.is_object() || !part.contains("SpecialToken")) {
      fail(ErrorKind::kFormat, "{}: the template holds {}, expected Sequence or SpecialToken",
           place, part.dump());
    }
    const std::string name = json_string(part["SpecialToken"], "id", place);
    const auto token = special->find(name);
    if (token == special->end() || !token->is_object() || !token->contains("ids") ||
        !(*token)["ids"].is_array()) {
      fail(ErrorKind::kFormat, "{}: the template's token \"{}\" has no ids", place, name);
    }
    for (const Json& id : (*token)["ids"]) {
      if (!id.is_number_integer() || id < 0 || id > (1 << 24)) {
        fail(ErrorKind::kFormat, "{}: the template's token \"{}\" has id {}", place, name,
             id.dump());
      }
      (after_text ? result.suffix : result.prefix).push_back(id.get<std::int32_t>());
    }
  }
}

struct StepToJson {
  Json operator()(const UnicodeNormalizer& step) const {
    return {{"type", name_of(kNormalForms, step.form)}};
  }
  Json operator()(const PrependNormalizer& step) const {
    return {{"type", "Prepend"}, {"prepend", step.text}};
  }
  Json operator()(const ReplaceNormalizer& step) const {
    return {
        {"type", "Replace"}, {"pattern", {{"String", step.pattern}}}, {"content", step.content}};
  }
  Json operator()(const SplitStep& step) const {
    return {{"type", "Split"},
            {"pattern", {{step.is_regex ? "Regex" : "String", step.pattern}}},
            {"behavior", name_of(kSplitBehaviors, step.behavior)},
            {"invert", step.invert}};
  }
  Json operator()(const DigitsStep& step) const {
    return {{"type", "Digits"}, {"individual_digits", step.individual}};
  }
  Json operator()(const ByteLevelStep& step) const {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", step.add_prefix_space},
            {"trim_offsets", true},
            {"use_regex", step.use_regex}};
  }
  Json operator()(const MetaspaceStep& step) const {
    return {{"type", "Metaspace"},
            {"replacement", step.replacement},
            {"prepend_scheme", name_of(kPrependSchemes, step.prepend)},
            {"split", step.split}};
  }
};

template <class Step>
Json sequence_to_json(const std::vector<Step>& steps, const char* list) {
  if (steps.empty()) {
    return nullptr;
  }
  if (steps.size() == 1) {
    return std::visit(StepToJson{}, steps[0]);
  }
  Json parts = Json::array();
  for (const Step& step : steps) {
    parts.push_back(std::visit(StepToJson{}, step));
  }
  return {{"type", "Sequence"}, {list, std::move(parts)}};
}

}  // namespace

std::vector<NormalizerStep> parse_normalizer(const Json& value, const std::string& place) {
  std::vector<NormalizerStep> steps;
  for_each_step(value, "normalizers", place, [&](const Json& step, const std::string& type) {
    if (type == "Prepend") {
      steps.emplace_back(PrependNormalizer{json_string(step, "prepend", place)});
    } else if (type == "Replace") {
      steps.emplace_back(parse_replace(step, place));
    } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
      steps.emplace_back(UnicodeNormalizer{enum_of(kNormalForms, type, "the form", place)});
    } else {
      fail_step(place, "the normalizer", type, "NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence");
    }
  });
  return steps;
}

std::vector<PreTokenizerStep> parse_pre_tokenizer(const Json& value, const std::string& place) {
  std::vector<PreTokenizerStep> steps;
  for_each_step(value, "pretokenizers", place, [&](const Json& step, const std::string& type) {
    if (type == "Split") {
      steps.emplace_back(parse_split(step, place));
    } else if (type == "Digits") {
      steps.emplace_back(DigitsStep{json_bool(step, "individual_digits", place, false)});
    } else if (type == "ByteLevel") {
      steps.emplace_back(
          ByteLevelStep{.add_prefix_space = json_bool(step, "add_prefix_space", place, true),
                        .use_regex = json_bool(step, "use_regex", place, true)});
    } else if (type == "Metaspace") {
      steps.emplace_back(parse_metaspace(step, place));
    } else {
      fail_step(place, "the pre-tokenizer", type, "Split, Digits, ByteLevel, Metaspace, Sequence");
    }
  });
  return steps;
}

DecoderSpec parse_decoder(const Json& value, const std::string& place) {
  DecoderSpec decoder;
  for_each_step(value, "decoders", place, [&](const Json& step, const std::string& type) {
    if (type == "ByteLevel") {
      decoder.byte_level = true;
    } else if (type == "ByteFallback") {
      decoder.byte_fallback = true;
    } else if (type == "Fuse") {
      // We join the tokens anyway.
    } else if (type == "Replace") {
      const ReplaceNormalizer replace = parse_replace(step, place);
      if (replace.content != " " || replace.pattern.empty()) {
        fail(ErrorKind::kFormat, "{}: the decoder replaces \"{}\" by \"{}\", expected by a space",
             place, replace.pattern, replace.content);
      }
      decoder.space_spelling = replace.pattern;
    } else if (type == "Metaspace") {
      const MetaspaceStep metaspace = parse_metaspace(step, place);
      decoder.space_spelling = metaspace.replacement;
      decoder.metaspace_first = metaspace.prepend != PrependScheme::kNever;
    } else if (type == "Strip") {
      const std::int64_t start = json_int(step, "start", place, 0);
      if (json_string(step, "content", place) != " " || json_int(step, "stop", place, 0) != 0 ||
          start < 0 || start > kMaxStrip) {
        fail(ErrorKind::kFormat, "{}: the decoder strips {}, expected spaces from the start", place,
             step.dump());
      }
      decoder.strip_left = static_cast<std::int32_t>(start);
    } else {
      fail_step(place, "the decoder", type,
                "ByteLevel, ByteFallback, Fuse, Replace, Metaspace, Strip, Sequence");
    }
  });
  return decoder;
}

TokenTemplate parse_post_processor(const Json& value, const std::string& place) {
  TokenTemplate result;
  for_each_step(value, "processors", place, [&](const Json& step, const std::string& type) {
    if (type == "TemplateProcessing") {
      parse_template(step, place, result);
    } else if (type != "ByteLevel") {  // which only corrects offsets
      fail_step(place, "the post-processor", type, "ByteLevel, TemplateProcessing, Sequence");
    }
  });
  return result;
}

Json normalizer_to_json(const TokenizerSpec& spec) {
  return sequence_to_json(spec.normalizer, "normalizers");
}

Json pre_tokenizer_to_json(const TokenizerSpec& spec) {
  return sequence_to_json(spec.pre_tokenizer, "pretokenizers");
}

Json decoder_to_json(const TokenizerSpec& spec) {
  const DecoderSpec& decoder = spec.decoder;
  if (decoder.byte_level) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}};
  }
  if (decoder.metaspace_first) {
    return {{"type", "Metaspace"},
            {"replacement", decoder.space_spelling},
            {"prepend_scheme", "always"},
            {"split", true}};
  }
  Json steps = Json::array();
  if (!decoder.space_spelling.empty()) {
    steps.push_back(
        {{"type", "Replace"}, {"pattern", {{"String", decoder.space_spelling}}}, {"content", " "}});
  }
  if (decoder.byte_fallback) {
    steps.push_back({{"type", "ByteFallback"}});
  }
  steps.push_back({{"type", "Fuse"}});
  if (decoder.strip_left > 0) {
    steps.push_back(
        {{"type", "Strip"}, {"content", " "}, {"start", decoder.strip_left}, {"stop", 0}});
  }
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

Json post_processor_to_json(const TokenizerSpec& spec) {
  if (spec.prefix.empty() && spec.suffix.empty()) {
    return nullptr;
  }
  Json special = Json::object();
  const auto token_part = [&](std::int32_t id, int type_id) -> Json {
    const std::string& text = spec.tokens[static_cast<std::size_t>(id)].text;
    special[text] = {{"id", text}, {"ids", Json::array({id})}, {"tokens", Json::array({text})}};
    return {{"SpecialToken", {{"id", text}, {"type_id", type_id}}}};
  };
  const auto make_template = [&](const char* sequences) {
    Json parts = Json::array();
    for (int type_id = 0; sequences[type_id] != '\0'; ++type_id) {
      for (const std::int32_t id : spec.prefix) {
        parts.push_back(token_part(id, type_id));
      }
      parts.push_back(
          {{"Sequence", {{"id", std::string(1, sequences[type_id])}, {"type_id", type_id}}}});
      for (const std::int32_t id : spec.suffix) {
        parts.push_back(token_part(id, type_id));
      }
    }
    return parts;
  };
  Json single = make_template("A");
  Json pair = make_template("AB");
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special)}};
}

}  // namespace puzzle
