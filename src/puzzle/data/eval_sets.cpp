#include "puzzle/data/eval_sets.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/data/random_order.h"
#include "puzzle/text/tokenizer.h"

namespace puzzle {
namespace {

constexpr std::string_view kSpaces = " \t\n\r\f\v";

// One line of a file, before tokenisation.
struct TextQuestion {
  struct Choice {
    std::string context;
    std::string continuation;
  };
  std::vector<Choice> choices;
  std::int64_t answer = 0;
  std::string group;
  std::string place;  // file:line
};

TextQuestion read_minimal_pair(const Json& line, const std::string& place) {
  TextQuestion question;
  for (const char* key : {"sentence_good", "sentence_bad"}) {
    question.choices.push_back({"", json_string(line, key, place)});
  }
  return question;
}

TextQuestion read_multiple_choice(const Json& line, const std::string& place) {
  TextQuestion question;
  const std::string context = json_string(line, "context", place);
  const auto choices = line.find("choices");
  if (choices == line.end() || !choices->is_array() || choices->size() < 2) {
    fail(ErrorKind::kFormat,
         "{}: no list choices of at least 2, expected {{\"context\": \"…\", "
         "\"choices\": [\"…\", \"…\"], \"answer\": 0}}",
         place);
  }
  const bool needs_space = !context.empty() && kSpaces.find(context.back()) == std::string::npos;
  for (const Json& choice : *choices) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) {
      fail(ErrorKind::kFormat, "{}: choices holds {}, expected texts", place, choice.dump());
    }
    const auto& text = choice.get_ref<const std::string&>();
    const bool has_space = kSpaces.find(text.front()) != std::string::npos;
    question.choices.push_back({context, needs_space && !has_space ? " " + text : text});
  }
  question.answer = json_int(line, "answer", place);
  if (question.answer < 0 || question.answer >= std::ssize(question.choices)) {
    fail(ErrorKind::kFormat, "{}: answer is {}, expected 0 to {}", place, question.answer,
         question.choices.size() - 1);
  }
  return question;
}

TextQuestion read_last_word(std::string_view text, const std::string& place) {
  const std::string_view body = trim(text);
  const std::size_t space = body.find_last_of(kSpaces);
  if (space == std::string_view::npos) {
    fail(ErrorKind::kFormat, "{}: found '{}', expected a text of several words", place, body);
  }
  TextQuestion question;
  question.choices.push_back({std::string(body.substr(0, space)), std::string(body.substr(space))});
  return question;
}

TextQuestion read_question(EvalKind kind, std::string_view line, bool is_json,
                           const std::string& place) {
  if (!is_json) {
    return read_last_word(line, place);
  }
  const Json value = parse_json(line, place);
  if (!value.is_object()) {
    fail(ErrorKind::kFormat, "{}: found {}, expected a JSON object", place, value.type_name());
  }
  switch (kind) {
    case EvalKind::kMinimalPairs:
      return read_minimal_pair(value, place);
    case EvalKind::kMultipleChoice:
      return read_multiple_choice(value, place);
    case EvalKind::kLastWord:
      return read_last_word(json_string(value, "text", place), place);
  }
  PUZZLE_CHECK(false, "evaluation kind {}", static_cast<int>(kind));
}

bool is_eval_file(EvalKind kind, const std::filesystem::path& path) {
  return path.extension() == ".jsonl" ||
         (kind == EvalKind::kLastWord && path.extension() == ".txt");
}

std::vector<std::filesystem::path> eval_files(EvalKind kind, const std::filesystem::path& path) {
  const char* expected = kind == EvalKind::kLastWord ? ".jsonl or .txt" : ".jsonl";
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    fail(ErrorKind::kIo, "{}: no such file or folder", path.string());
  }
  if (!std::filesystem::is_directory(status)) {
    if (!is_eval_file(kind, path)) {
      fail(ErrorKind::kFormat, "{}: expected a {} file", path.string(), expected);
    }
    return {path};
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (is_eval_file(kind, entry.path())) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<TextQuestion> read_questions(EvalKind kind, const std::filesystem::path& path) {
  std::vector<TextQuestion> questions;
  for (const std::filesystem::path& file : eval_files(kind, path)) {
    const std::string text = read_text_file(file);
    const bool is_json = file.extension() == ".jsonl";
    std::int64_t number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const std::string_view line = std::string_view(text).substr(begin, end - begin);
      begin = end + 1;
      ++number;
      if (trim(line).empty()) {
        continue;
      }
      const std::string place = fmt::format("{}:{}", file.string(), number);
      TextQuestion question = read_question(kind, line, is_json, place);
      question.group = file.stem().string();
      question.place = place;
      questions.push_back(std::move(question));
    }
  }
  if (questions.empty()) {
    fail(ErrorKind::kFormat, "{}: no questions in it", path.string());
  }
  return questions;
}

void keep_sample(std::vector<TextQuestion>& questions, const EvalSetOptions& options) {
  if (options.max_questions == 0 || std::ssize(questions) <= options.max_questions) {
    return;
  }
  std::vector<std::int64_t> chosen =
      random_order(std::ssize(questions),
                   derive_seed(static_cast<std::uint64_t>(options.seed), "evaluation/questions"));
  chosen.resize(static_cast<std::size_t>(options.max_questions));
  std::sort(chosen.begin(), chosen.end());
  std::vector<TextQuestion> kept;
  for (const std::int64_t index : chosen) {
    kept.push_back(std::move(questions[static_cast<std::size_t>(index)]));
  }
  questions = std::move(kept);
}

// Takes the beginning of a long context away; a BOS in front stays.
void shorten_context(EvalChoice& choice, std::int64_t max_tokens, const Tokenizer& tokenizer,
                     const std::string& place) {
  const std::int64_t num_continuation = std::ssize(choice.ids) - choice.num_context;
  if (num_continuation < 1 || num_continuation > max_tokens - 1) {
    fail(ErrorKind::kFormat, "{}: a continuation of {} tokens, expected 1 to {} (max_tokens - 1)",
         place, num_continuation, max_tokens - 1);
  }
  const std::int64_t excess = std::ssize(choice.ids) - max_tokens;
  if (excess <= 0) {
    return;
  }
  const bool keeps_first = tokenizer.adds_bos() && choice.num_context - excess >= 1;
  const std::int64_t first = keeps_first ? 1 : 0;
  choice.ids.erase(choice.ids.begin() + first, choice.ids.begin() + first + excess);
  choice.num_context -= excess;
}

std::string eval_set_key(const EvalSet& set) {
  KeyBuilder key;
  key.add("kind", static_cast<std::int64_t>(set.kind));
  for (const EvalQuestion& question : set.questions) {
    key.add("answer", question.answer).add("group", question.group);
    for (const EvalChoice& choice : question.choices) {
      key.add("context", choice.num_context).add("bytes", choice.num_continuation_bytes);
      key.add_bytes("ids", std::as_bytes(std::span(choice.ids)));
    }
  }
  return key.key();
}

std::vector<TextQuestion> sampled_questions(EvalKind kind, const std::filesystem::path& path,
                                            const EvalSetOptions& options) {
  std::vector<TextQuestion> questions = read_questions(kind, path);
  keep_sample(questions, options);
  return questions;
}

}  // namespace

std::vector<EvalSetPath> EvalSetPaths::all() const {
  std::vector<EvalSetPath> result;
  for (const auto& [kind, option, paths] :
       {std::tuple{EvalKind::kMinimalPairs, "minimal_pairs", &minimal_pairs},
        std::tuple{EvalKind::kMultipleChoice, "multiple_choice", &multiple_choice},
        std::tuple{EvalKind::kLastWord, "last_word", &last_word}}) {
    for (const std::string& path : *paths) {
      result.push_back({kind, option, path});
    }
  }
  return result;
}

EvalChoice encode_pair(const std::string& context, const std::string& continuation,
                       const Tokenizer& tokenizer) {
  const std::size_t content_end = context.find_last_not_of(kSpaces);
  const std::size_t context_size = content_end == std::string::npos ? 0 : content_end + 1;
  const std::string whole = context + continuation;
  EvalChoice choice;
  if (tokenizer.adds_bos() && tokenizer.bos()) {
    choice.ids.push_back(*tokenizer.bos());
  }
  // Encoded even if empty: SentencePiece-style tokenizers may give tokens for nothing.
  const std::vector<std::int32_t> whole_ids = tokenizer.encode(whole, {.parse_special = false});
  std::size_t num_context_ids = 0;
  if (context_size > 0) {
    num_context_ids =
        tokenizer.encode(whole.substr(0, context_size), {.parse_special = false}).size();
  } else if (choice.ids.empty()) {
    const std::optional<std::int32_t> first = tokenizer.bos() ? tokenizer.bos() : tokenizer.eos();
    if (first) {
      choice.ids.push_back(*first);
    } else {
      num_context_ids = 1;  // no token to start from: the text's first one is given
    }
  }
  choice.num_context = std::ssize(choice.ids) +
                       static_cast<std::int64_t>(std::min(num_context_ids, whole_ids.size()));
  choice.ids.insert(choice.ids.end(), whole_ids.begin(), whole_ids.end());
  choice.num_continuation_bytes = std::ssize(trim(continuation));
  return choice;
}

std::string eval_set_name(const std::filesystem::path& path) {
  const bool ends_in_slash = !path.has_filename();
  return (ends_in_slash ? path.parent_path() : path).stem().string();
}

void check_eval_set_names(const std::vector<std::filesystem::path>& paths) {
  std::map<std::string, std::filesystem::path> by_name;
  for (const std::filesystem::path& path : paths) {
    const auto [other, is_new] = by_name.emplace(eval_set_name(path), path);
    if (!is_new) {
      fail(ErrorKind::kUsage,
           "{} and {} are both called '{}', and results are told apart by that name; rename one",
           other->second.string(), path.string(), other->first);
    }
  }
}

EvalSet load_eval_set(EvalKind kind, const std::filesystem::path& path, const Tokenizer& tokenizer,
                      const EvalSetOptions& options) {
  EvalSet set;
  set.name = eval_set_name(path);
  set.kind = kind;
  for (const TextQuestion& text : sampled_questions(kind, path, options)) {
    EvalQuestion question;
    question.answer = text.answer;
    question.group = text.group;
    for (const TextQuestion::Choice& choice : text.choices) {
      EvalChoice encoded = encode_pair(choice.context, choice.continuation, tokenizer);
      shorten_context(encoded, options.max_tokens, tokenizer, text.place);
      question.choices.push_back(std::move(encoded));
    }
    set.questions.push_back(std::move(question));
  }
  set.content_key = eval_set_key(set);
  return set;
}

std::int64_t eval_set_bytes(EvalKind kind, const std::filesystem::path& path,
                            const EvalSetOptions& options) {
  std::int64_t bytes = 0;
  for (const TextQuestion& question : sampled_questions(kind, path, options)) {
    for (const TextQuestion::Choice& choice : question.choices) {
      bytes += std::ssize(choice.context) + std::ssize(choice.continuation);
    }
  }
  return bytes;
}

}  // namespace puzzle
