#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/text/bpe.h"
#include "puzzle/text/hf_steps.h"
#include "puzzle/text/hf_tokenizer.h"
#include "puzzle/text/unicode.h"

namespace puzzle {
namespace {

const std::string& text_of(const TokenizerSpec& spec, std::int32_t id) {
  return spec.tokens[static_cast<std::size_t>(id)].text;
}

std::size_t count_characters(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  }));
}

Json merges_to_json(const TokenizerSpec& spec) {
  std::vector<Merge> merges = make_merges(spec);
  if (!spec.scores.empty()) {
    // Hugging Face's order among the ways to make one piece: longer left part first.
    std::stable_sort(merges.begin(), merges.end(), [&](const Merge& a, const Merge& b) {
      return a.rank != b.rank ? a.rank < b.rank
                              : count_characters(text_of(spec, a.left)) >
                                    count_characters(text_of(spec, b.left));
    });
  }
  Json list = Json::array();
  for (const Merge& merge : merges) {
    list.push_back(Json::array({text_of(spec, merge.left), text_of(spec, merge.right)}));
  }
  return list;
}

Json model_to_json(const TokenizerSpec& spec) {
  Json vocabulary = Json::object();
  for (std::size_t id = 0; id < spec.tokens.size(); ++id) {
    const VocabToken& token = spec.tokens[id];
    if (token.text.empty() || token.kind == TokenKind::kUnused) {
      continue;
    }
    if (valid_utf8_prefix(token.text) != token.text.size()) {
      fail(ErrorKind::kFormat, "{}: token {} is not valid UTF-8, which tokenizer.json cannot hold",
           spec.place, id);
    }
    vocabulary.emplace(token.text, id);
  }
  Json model = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", spec.fuse_unk},
                {"byte_fallback", spec.byte_fallback},
                {"ignore_merges", spec.ignore_merges}};
  if (spec.unk) {
    model["unk_token"] = text_of(spec, *spec.unk);
  }
  model["vocab"] = std::move(vocabulary);
  model["merges"] = merges_to_json(spec);
  return model;
}

Json added_token_to_json(const AddedToken& token) {
  return {{"content", token.content},       {"single_word", token.single_word},
          {"lstrip", token.lstrip},         {"rstrip", token.rstrip},
          {"normalized", token.normalized}, {"special", token.special}};
}

Json tokenizer_to_json(const TokenizerSpec& spec) {
  Json added = Json::array();
  for (const AddedToken& token : spec.added) {
    Json entry = added_token_to_json(token);
    entry["id"] = token.id;
    added.push_back(std::move(entry));
  }
  Json root = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  root["added_tokens"] = std::move(added);
  root["normalizer"] = normalizer_to_json(spec);
  root["pre_tokenizer"] = pre_tokenizer_to_json(spec);
  root["post_processor"] = post_processor_to_json(spec);
  root["decoder"] = decoder_to_json(spec);
  root["model"] = model_to_json(spec);
  return root;
}

Json special_tokens_to_json(const TokenizerSpec& spec) {
  Json names = Json::object();
  const std::pair<const char*, std::optional<std::int32_t>> tokens[] = {
      {"bos_token", spec.bos},
      {"eos_token", spec.eos},
      {"pad_token", spec.pad},
      {"unk_token", spec.unk},
  };
  for (const auto& [name, id] : tokens) {
    if (id) {
      names[name] = text_of(spec, *id);
    }
  }
  return names;
}

Json config_to_json(const TokenizerSpec& spec) {
  Json config = special_tokens_to_json(spec);
  Json added = Json::object();
  for (const AddedToken& token : spec.added) {
    added[std::to_string(token.id)] = added_token_to_json(token);
  }
  config["added_tokens_decoder"] = std::move(added);
  // The class that takes every rule from tokenizer.json.
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  if (!spec.chat_template.empty()) {
    config["chat_template"] = spec.chat_template;
  }
  return config;
}

}  // namespace

std::map<std::string, std::string> make_hf_files(const TokenizerSpec& spec) {
  return {{"tokenizer.json", tokenizer_to_json(spec).dump(1) + "\n"},
          {"tokenizer_config.json", config_to_json(spec).dump(2) + "\n"},
          {"special_tokens_map.json", special_tokens_to_json(spec).dump(2) + "\n"}};
}

}  // namespace puzzle
