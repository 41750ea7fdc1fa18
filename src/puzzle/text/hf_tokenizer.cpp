#include "puzzle/text/hf_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/text/hf_steps.h"

namespace puzzle {
namespace {

constexpr std::int64_t kMaxTokenId = std::int64_t{1} << 24;

VocabToken& token_slot(TokenizerSpec& spec, std::int64_t id, const std::string& text) {
  if (id < 0 || id >= kMaxTokenId) {
    fail(ErrorKind::kFormat, "{}: token \"{}\" has id {}, expected 0 to {}", spec.place, text, id,
         kMaxTokenId - 1);
  }
  if (static_cast<std::size_t>(id) >= spec.tokens.size()) {
    spec.tokens.resize(static_cast<std::size_t>(id) + 1);
  }
  return spec.tokens[static_cast<std::size_t>(id)];
}

// The member, or null.
const Json& member_or_null(const Json& object, const char* key) {
  static const Json null;
  const auto member = object.find(key);
  return member == object.end() ? null : *member;
}

void read_vocabulary(const Json& model, TokenizerSpec& spec) {
  const Json& vocabulary = member_or_null(model, "vocab");
  if (!vocabulary.is_object()) {
    fail(ErrorKind::kFormat, "{}: model.vocab is not an object", spec.place);
  }
  for (const auto& [text, id] : vocabulary.items()) {
    if (!id.is_number_integer()) {
      fail(ErrorKind::kFormat, "{}: token \"{}\" has id {}, expected a whole number", spec.place,
           text, id.dump());
    }
    VocabToken& slot = token_slot(spec, id.get<std::int64_t>(), text);
    if (!slot.text.empty()) {
      fail(ErrorKind::kFormat, "{}: tokens \"{}\" and \"{}\" have the same id {}", spec.place,
           slot.text, text, id.dump());
    }
    slot.text = text;
  }
}

std::pair<std::string, std::string> merge_parts(const Json& merge, std::size_t number,
                                                const std::string& place) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto text = merge.get<std::string>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  fail(ErrorKind::kFormat, "{}: merge {} is {}, expected two tokens", place, number, merge.dump());
}

void read_merges(const Json& model, TokenizerSpec& spec) {
  const Json& merges = member_or_null(model, "merges");
  if (!merges.is_array()) {
    fail(ErrorKind::kFormat, "{}: model.merges is not an array", spec.place);
  }
  const TokenIndex index = index_tokens(spec.tokens);
  spec.merges.reserve(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const auto [left, right] = merge_parts(merges[i], i, spec.place);
    const auto left_id = index.find(left);
    const auto right_id = index.find(right);
    if (left_id == index.end() || right_id == index.end()) {
      fail(ErrorKind::kFormat, "{}: merge {} joins \"{}\" and \"{}\", not both in the vocabulary",
           spec.place, i, left, right);
    }
    spec.merges.emplace_back(left_id->second, right_id->second);
  }
}

void read_model(const Json& model, TokenizerSpec& spec) {
  const std::string& place = spec.place;
  const std::string type = json_string(model, "type", place, "BPE");
  if (type != "BPE") {
    fail(ErrorKind::kFormat, "{}: the tokenizer model is \"{}\", expected \"BPE\"", place, type);
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!json_string(model, affix, place, "").empty()) {
      fail(ErrorKind::kFormat, "{}: model.{} is \"{}\", only null or \"\" is supported", place,
           affix, json_string(model, affix, place));
    }
  }
  if (json_double(model, "dropout", place, 0.0) != 0.0) {
    fail(ErrorKind::kFormat, "{}: model.dropout is not 0; merges left out at random give no ids",
         place);
  }
  spec.byte_fallback = json_bool(model, "byte_fallback", place, false);
  spec.fuse_unk = json_bool(model, "fuse_unk", place, false);
  spec.ignore_merges = json_bool(model, "ignore_merges", place, false);
  read_vocabulary(model, spec);
  read_merges(model, spec);
  for (VocabToken& token : spec.tokens) {
    if (spec.byte_fallback && parse_byte_token(token.text)) {
      token.kind = TokenKind::kByte;
    }
  }
  const std::string unk = json_string(model, "unk_token", place, "");
  if (!unk.empty()) {
    const TokenIndex index = index_tokens(spec.tokens);
    const auto found = index.find(unk);
    if (found == index.end()) {
      fail(ErrorKind::kFormat, "{}: model.unk_token \"{}\" is not in the vocabulary", place, unk);
    }
    spec.unk = found->second;
    spec.tokens[static_cast<std::size_t>(found->second)].kind = TokenKind::kUnknown;
  }
}

void add_token(const Json& token, std::int64_t id, TokenizerSpec& spec) {
  AddedToken added{.content = json_string(token, "content", spec.place),
                   .single_word = json_bool(token, "single_word", spec.place, false),
                   .lstrip = json_bool(token, "lstrip", spec.place, false),
                   .rstrip = json_bool(token, "rstrip", spec.place, false),
                   .normalized = json_bool(token, "normalized", spec.place, true),
                   .special = json_bool(token, "special", spec.place, false)};
  VocabToken& slot = token_slot(spec, id, added.content);
  if (!slot.text.empty() && slot.text != added.content) {
    fail(ErrorKind::kFormat, "{}: added token \"{}\" has the id {} of \"{}\"", spec.place,
         added.content, id, slot.text);
  }
  added.id = static_cast<std::int32_t>(id);
  slot.text = added.content;
  if (slot.kind != TokenKind::kUnknown) {
    slot.kind = added.special ? TokenKind::kControl : TokenKind::kUserDefined;
  }
  spec.added.push_back(std::move(added));
}

// tokenizer_config.json may name added tokens that tokenizer.json lacks; transformers adds them.
void read_added_tokens_decoder(const Json& config, const std::string& place, TokenizerSpec& spec) {
  const Json& decoder = member_or_null(config, "added_tokens_decoder");
  if (!decoder.is_object()) {
    return;
  }
  for (const auto& [id, token] : decoder.items()) {
    const std::string content = json_string(token, "content", place);
    const bool known = std::any_of(spec.added.begin(), spec.added.end(),
                                   [&](const AddedToken& a) { return a.content == content; });
    if (known) {
      continue;
    }
    if (id.empty() || id.size() > 8 || id.find_first_not_of("0123456789") != std::string::npos) {
      fail(ErrorKind::kFormat, "{}: added_tokens_decoder has the key \"{}\", expected an id", place,
           id);
    }
    add_token(token, std::stoll(id), spec);
  }
}

// A token named in a config: a string, or an object with "content". Empty: none.
std::string named_token(const Json& config, const char* key) {
  const Json& value = member_or_null(config, key);
  if (value.is_string()) {
    return value.get<std::string>();
  }
  const Json& content = value.is_object() ? member_or_null(value, "content") : value;
  return content.is_string() ? content.get<std::string>() : "";
}

std::string read_chat_template(const Json& config, const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder / "chat_template.jinja")) {
    return read_text_file(folder / "chat_template.jinja");
  }
  const Json& value = member_or_null(config, "chat_template");
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_array()) {
    for (const Json& entry : value) {
      if (entry.is_object() && named_token(entry, "name") == "default") {
        return named_token(entry, "template");
      }
    }
  }
  return "";
}

bool is_llama_class(const std::string& name) {
  constexpr std::array kClasses = {"LlamaTokenizer",     "LlamaTokenizerFast",
                                   "CodeLlamaTokenizer", "CodeLlamaTokenizerFast",
                                   "GemmaTokenizer",     "GemmaTokenizerFast"};
  return std::find(kClasses.begin(), kClasses.end(), name) != kClasses.end();
}

Json load_if_present(const std::filesystem::path& path) {
  Json value = std::filesystem::exists(path) ? load_json(path) : Json::object();
  if (!value.is_object()) {
    fail(ErrorKind::kFormat, "{}: not a JSON object", path.string());
  }
  return value;
}

void read_token_names(const std::filesystem::path& folder, const Json& config,
                      TokenizerSpec& spec) {
  const Json map = load_if_present(folder / "special_tokens_map.json");
  const TokenIndex index = index_tokens(spec.tokens);
  const auto find_named = [&](const char* key) -> std::optional<std::int32_t> {
    std::string name = named_token(config, key);
    if (name.empty()) {
      name = named_token(map, key);
    }
    const auto found = index.find(name);
    return found == index.end() ? std::nullopt : std::optional(found->second);
  };
  spec.bos = find_named("bos_token");
  spec.eos = find_named("eos_token");
  spec.pad = find_named("pad_token");
  if (spec.bos && spec.eos) {
    return;
  }
  const Json model_config = load_if_present(folder / "config.json");
  const auto find_id = [&](const char* key) -> std::optional<std::int32_t> {
    Json id = member_or_null(model_config, key);
    if (id.is_array() && !id.empty()) {
      id = Json(id[0]);
    }
    const bool is_token = id.is_number_integer() && id >= 0 && id < spec.tokens.size();
    return is_token ? std::optional(id.get<std::int32_t>()) : std::nullopt;
  };
  spec.bos = spec.bos ? spec.bos : find_id("bos_token_id");
  spec.eos = spec.eos ? spec.eos : find_id("eos_token_id");
}

void read_steps(const Json& root, TokenizerSpec& spec) {
  spec.normalizer = parse_normalizer(member_or_null(root, "normalizer"), spec.place);
  spec.pre_tokenizer = parse_pre_tokenizer(member_or_null(root, "pre_tokenizer"), spec.place);
  spec.decoder = parse_decoder(member_or_null(root, "decoder"), spec.place);
  spec.byte_level = !spec.pre_tokenizer.empty() &&
                    std::holds_alternative<ByteLevelStep>(spec.pre_tokenizer.back());
  if (spec.byte_level && spec.unk) {
    // GPT-2's "<|endoftext|>" serves as unknown token too; it stays a control token.
    VocabToken& unk = spec.tokens[static_cast<std::size_t>(*spec.unk)];
    const bool is_special = std::any_of(spec.added.begin(), spec.added.end(), [&](const auto& a) {
      return a.special && a.id == *spec.unk;
    });
    unk.kind = is_special ? TokenKind::kControl : unk.kind;
  }
  TokenTemplate around = parse_post_processor(member_or_null(root, "post_processor"), spec.place);
  spec.prefix = std::move(around.prefix);
  spec.suffix = std::move(around.suffix);
}

}  // namespace

TokenizerSpec load_hf_tokenizer(const std::filesystem::path& path) {
  const bool is_folder = std::filesystem::is_directory(path);
  const std::filesystem::path file = is_folder ? path / "tokenizer.json" : path;
  const std::filesystem::path folder = file.parent_path();
  const Json root = load_json(file);

  TokenizerSpec spec;
  spec.place = file.string();
  if (!root.is_object() || !member_or_null(root, "model").is_object()) {
    fail(ErrorKind::kFormat, "{}: not a tokenizer.json: no object \"model\"", spec.place);
  }
  read_model(root["model"], spec);
  const Json& added = member_or_null(root, "added_tokens");
  if (added.is_array()) {
    for (const Json& token : added) {
      add_token(token, json_int(token, "id", spec.place), spec);
    }
  }
  read_steps(root, spec);

  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  const Json config = load_if_present(config_path);
  read_added_tokens_decoder(config, config_path.string(), spec);
  read_token_names(folder, config, spec);
  if (!spec.bos && !spec.prefix.empty()) {
    spec.bos = spec.prefix.front();
  }
  spec.chat_template = read_chat_template(config, folder);
  if (is_llama_class(named_token(config, "tokenizer_class"))) {
    spec.prefix.clear();
    spec.suffix.clear();
    if (spec.bos && json_bool(config, "add_bos_token", config_path.string(), true)) {
      spec.prefix.push_back(*spec.bos);
    }
    if (spec.eos && json_bool(config, "add_eos_token", config_path.string(), false)) {
      spec.suffix.push_back(*spec.eos);
    }
  }
  return spec;
}

}  // namespace puzzle
