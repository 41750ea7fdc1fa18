#include "puzzle/text/tokenizer_files.h"

#include <array>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/strings.h"
#include "puzzle/text/hf_tokenizer.h"
#include "puzzle/text/llama2c_tokenizer.h"
#include "puzzle/text/pipeline_tokenizer.h"

namespace puzzle {
namespace {

enum class TokenizerSource { kGguf, kHuggingFace, kLlama2c };

TokenizerSource source_of(const std::filesystem::path& model) {
  if (!std::filesystem::exists(model)) {
    fail(ErrorKind::kIo, "{}: no such file or folder", model.string());
  }
  if (std::filesystem::is_directory(model)) {
    if (!std::filesystem::exists(model / "tokenizer.json")) {
      fail(ErrorKind::kIo, "{}: holds no tokenizer.json", model.string());
    }
    return TokenizerSource::kHuggingFace;
  }
  const std::string extension = lower(model.extension().string());
  if (extension == ".gguf") {
    return TokenizerSource::kGguf;
  }
  if (extension == ".json") {
    return TokenizerSource::kHuggingFace;
  }
  if (extension == ".bin") {
    return TokenizerSource::kLlama2c;
  }
  fail(ErrorKind::kFormat,
       "{}: not a tokenizer; expected a .gguf file, a folder with tokenizer.json, a tokenizer.json "
       "or llama2.c's tok*.bin",
       model.string());
}

}  // namespace

TokenizerSpec load_tokenizer_spec(const std::filesystem::path& model) {
  switch (source_of(model)) {
    case TokenizerSource::kGguf:
      return load_gguf_tokenizer(GgufFile(model));
    case TokenizerSource::kHuggingFace:
      return load_hf_tokenizer(model);
    case TokenizerSource::kLlama2c:
      return load_llama2c_tokenizer(model);
  }
  fail(ErrorKind::kInternal, "no such tokenizer source");
}

std::map<std::string, std::string> load_hf_tokenizer_files(const std::filesystem::path& model) {
  constexpr std::array kNames = {"tokenizer.json",
                                 "tokenizer_config.json",
                                 "special_tokens_map.json",
                                 "added_tokens.json",
                                 "vocab.json",
                                 "merges.txt",
                                 "tokenizer.model",
                                 "chat_template.jinja",
                                 "chat_template.json"};
  if (source_of(model) != TokenizerSource::kHuggingFace) {
    // Built once, so that what is written is known to be a tokenizer that works.
    return make_hf_files(PipelineTokenizer(load_tokenizer_spec(model)).spec());
  }
  const std::filesystem::path folder =
      std::filesystem::is_directory(model) ? model : model.parent_path();
  std::map<std::string, std::string> files;
  for (const char* name : kNames) {
    if (std::filesystem::exists(folder / name)) {
      files.emplace(name, read_text_file(folder / name));
    }
  }
  return files;
}

GgufKeys load_gguf_tokenizer_keys(const std::filesystem::path& model, std::int64_t num_tokens) {
  if (source_of(model) != TokenizerSource::kGguf) {
    return make_gguf_keys(PipelineTokenizer(load_tokenizer_spec(model)).spec(), num_tokens);
  }
  const GgufFile file(model);
  const std::size_t found = file.string_list("tokenizer.ggml.tokens").size();
  if (static_cast<std::int64_t>(found) != num_tokens) {
    fail(ErrorKind::kFormat, "{}: tokenizer.ggml.tokens holds {} tokens, the embedding {} rows",
         model.string(), found, num_tokens);
  }
  GgufKeys keys;
  for (const auto& [key, value] : file.metadata()) {
    if (key.starts_with("tokenizer.")) {
      keys.emplace_back(key, value);
    }
  }
  return keys;
}

}  // namespace puzzle
