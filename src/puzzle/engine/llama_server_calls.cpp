// What LlamaServer asks a running server; starting one is llama_server.cpp.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/engine/llama_server.h"

namespace puzzle {
namespace {

// Added to a logit, it outweighs any difference between two of them.
constexpr double kForcingBias = 10000.0;
// log of the smallest float: llama.cpp's probabilities are floats, and 0 becomes -3e38 in its
// answer.
constexpr double kSmallestLogProb = -103.28;

std::int32_t parse_token(const Json& value, const std::string& place) {
  if (!value.is_number_integer() || value.get<std::int64_t>() < 0 ||
      value.get<std::int64_t>() > std::numeric_limits<std::int32_t>::max()) {
    fail(ErrorKind::kFormat, "{}: found {} where a token id is expected", place, value.dump());
  }
  return value.get<std::int32_t>();
}

const Json& json_list(const Json& value, const char* key, const std::string& place) {
  const auto member = value.is_object() ? value.find(key) : value.end();
  if (!value.is_object() || member == value.end() || !member->is_array()) {
    fail(ErrorKind::kFormat, "{}: no list \"{}\"", place, key);
  }
  return *member;
}

double parse_milliseconds(const Json& timings, const char* key, const std::string& place) {
  const double value = json_double(timings, key, place);
  if (!std::isfinite(value) || value < 0.0) {
    fail(ErrorKind::kFormat, "{}: \"{}\" is {}, expected a time", place, key, value);
  }
  return value / 1e3;
}

Completion parse_completion(const Json& answer, std::int64_t num_tokens, const std::string& place) {
  Completion completion;
  for (const Json& token : json_list(answer, "tokens", place)) {
    completion.tokens.push_back(parse_token(token, place));
  }
  if (static_cast<std::int64_t>(completion.tokens.size()) != num_tokens) {
    fail(ErrorKind::kFormat, "{}: {} tokens generated, expected {}", place,
         completion.tokens.size(), num_tokens);
  }
  const auto timings = answer.find("timings");
  if (timings == answer.end()) {
    fail(ErrorKind::kFormat, "{}: \"timings\" is missing", place);
  }
  completion.prompt_tokens = json_int(*timings, "prompt_n", place);
  completion.prompt_s = parse_milliseconds(*timings, "prompt_ms", place);
  completion.generation_s = parse_milliseconds(*timings, "predicted_ms", place);
  return completion;
}

// The one position of an answer with n_predict = 1: its token came out, and these were on top.
struct ScoredPosition {
  std::int32_t token = -1;
  double log_prob = 0.0;
  std::vector<std::pair<std::int32_t, double>> top;
};

// Nothing where the answer leaves the position out.
std::optional<ScoredPosition> parse_position(const Json& answer, const std::string& place) {
  if (!answer.is_object()) {
    fail(ErrorKind::kFormat, "{}: found {}, expected an object", place, answer.type_name());
  }
  const auto positions = answer.find("completion_probabilities");
  if (positions == answer.end() || positions->empty()) {
    return std::nullopt;
  }
  const Json& first = json_list(answer, "completion_probabilities", place)[0];
  ScoredPosition position;
  position.token = static_cast<std::int32_t>(json_int(first, "id", place));
  position.log_prob = std::max(json_double(first, "logprob", place), kSmallestLogProb);
  for (const Json& entry : json_list(first, "top_logprobs", place)) {
    position.top.emplace_back(static_cast<std::int32_t>(json_int(entry, "id", place)),
                              std::max(json_double(entry, "logprob", place), kSmallestLogProb));
  }
  if (position.top.empty()) {
    fail(ErrorKind::kFormat, "{}: no top tokens", place);
  }
  return position;
}

TokenScore checked_score(const ScoredPosition& position, double log_prob, std::int64_t num_top,
                         const std::string& place) {
  const double highest = position.top.front().second;
  // A server that took the log-probabilities after the bias would give 0 for every token.
  if (!std::isfinite(log_prob) || log_prob > 1e-3 || log_prob > highest + 1e-4) {
    fail(ErrorKind::kFormat, "{}: log-probability {} where the most probable token has {}", place,
         log_prob, highest);
  }
  TokenScore score{log_prob, position.top.front().first, position.top};
  score.top.resize(std::min(score.top.size(), static_cast<std::size_t>(num_top)));
  return score;
}

// Whatever an answer lacks is the other program's fault.
template <class Parse>
auto parse_answer(const Parse& parse) {
  try {
    return parse();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kFormat) {
      throw;
    }
    fail(ErrorKind::kIo, "{}; is it another version of llama.cpp?", error.what());
  }
}

Json completion_body(const CompletionOptions& options) {
  return {{"n_predict", options.num_tokens},
          {"temperature", 0.0},
          {"ignore_eos", true},
          {"cache_prompt", options.reuse_cached_prompt},
          {"return_tokens", true},
          {"stream", false},
          {"response_fields", {"tokens", "timings"}}};
}

Json token_list(std::span<const std::int32_t> tokens) {
  return Json(std::vector<std::int32_t>(tokens.begin(), tokens.end()));
}

}  // namespace

double Completion::step_s() const {
  return tokens.size() < 2 ? 0.0 : generation_s / static_cast<double>(tokens.size() - 1);
}

double BatchCompletion::prompt_s() const {
  double longest = 0.0;
  for (const Completion& sequence : sequences) {
    longest = std::max(longest, sequence.prompt_s);
  }
  return longest;
}

double BatchCompletion::step_s() const {
  double longest = 0.0;
  for (const Completion& sequence : sequences) {
    longest = std::max(longest, sequence.step_s());
  }
  return longest;
}

void LlamaServer::check_call(LlamaServerMode mode, std::int64_t tokens) const {
  PUZZLE_CHECK(mode == mode_, "{}: started for other calls", place_);
  PUZZLE_CHECK(tokens > 0, "{}: a request needs a token", place_);
  if (tokens > options_.context_tokens) {
    fail(ErrorKind::kUsage, "{}: {} tokens do not fit the context of {}; raise context_tokens",
         place_, tokens, options_.context_tokens);
  }
}

Completion LlamaServer::complete(std::span<const std::int32_t> prompt,
                                 const CompletionOptions& options) const {
  return complete_batch({std::vector<std::int32_t>(prompt.begin(), prompt.end())}, options)
      .sequences.front();
}

BatchCompletion LlamaServer::complete_batch(const std::vector<std::vector<std::int32_t>>& prompts,
                                            const CompletionOptions& options) const {
  PUZZLE_CHECK(options.num_tokens > 0, "{}: nothing to generate", place_);
  if (prompts.empty() || static_cast<std::int64_t>(prompts.size()) > options_.parallel) {
    fail(ErrorKind::kUsage, "{}: {} prompts for {} slots; raise parallel", place_, prompts.size(),
         options_.parallel);
  }
  for (const std::vector<std::int32_t>& prompt : prompts) {
    PUZZLE_CHECK(!prompt.empty(), "{}: empty prompt", place_);
    check_call(LlamaServerMode::kCompletions,
               static_cast<std::int64_t>(prompt.size()) + options.num_tokens);
  }
  Json body = completion_body(options);
  // Several prompts in one request enter the queue together, so that none starts before the others.
  body["prompt"] = prompts.size() == 1 ? token_list(prompts.front()) : Json(prompts);
  const auto start = std::chrono::steady_clock::now();
  const Json answer = request("POST", "/completion", body.dump());
  BatchCompletion batch;
  batch.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return parse_answer([&] {
    const std::string place = place_ + " /completion";
    const bool is_list = answer.is_array();
    if ((is_list ? answer.size() : 1) != prompts.size()) {
      fail(ErrorKind::kFormat, "{}: {} answers to {} prompts", place, is_list ? answer.size() : 1,
           prompts.size());
    }
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      batch.sequences.push_back(
          parse_completion(is_list ? answer[i] : answer, options.num_tokens, place));
    }
    return batch;
  });
}

// Scores positions of one sequence, one request each, on one slot.
class LlamaServer::Scorer {
 public:
  Scorer(const LlamaServer& server, std::span<const std::int32_t> tokens, std::int64_t num_top)
      : server_(server),
        tokens_(tokens),
        num_top_(num_top),
        place_(server.place_ + " /completion"),
        body_(completion_body({.num_tokens = 1, .reuse_cached_prompt = true})) {
    body_["ignore_eos"] = false;  // an end-of-text token may be the one that is wanted
    body_["id_slot"] = 0;
    body_["response_fields"] = {"completion_probabilities"};
  }

  TokenScore score(std::size_t position) {
    return parse_answer([&] {
      const std::int32_t wanted = tokens_[position];
      const std::optional<ScoredPosition> found = ask(position, wanted, num_top_);
      if (!found) {
        return score_from_list(position);
      }
      if (found->token != wanted) {
        fail(ErrorKind::kFormat, "{}: token {} came out, expected {}, which a bias of {} forces",
             place_, found->token, wanted, kForcingBias);
      }
      anchor_ = wanted;
      return checked_score(*found, found->log_prob, num_top_, place_);
    });
  }

 private:
  std::optional<ScoredPosition> ask(std::size_t position, std::optional<std::int32_t> forced,
                                    std::int64_t num_probs) {
    body_["prompt"] = token_list(tokens_.first(position));
    body_["n_probs"] = num_probs;
    body_["logit_bias"] =
        forced ? Json::array({Json::array({*forced, kForcingBias})}) : Json::array();
    return parse_position(server_.request("POST", "/completion", body_.dump()), place_);
  }

  // A token that ends inside a UTF-8 character is generated, but llama-server keeps its probability
  // to itself, waiting for the rest. So another token comes out, and the wanted one is looked up
  // among the most probable, at worst in the whole vocabulary.
  TokenScore score_from_list(std::size_t position) {
    constexpr std::int64_t kWholeVocabulary = 1 << 24;
    for (const std::int64_t num_probs : {std::max<std::int64_t>(512, num_top_), kWholeVocabulary}) {
      const std::optional<ScoredPosition> found = ask(position, anchor_, num_probs);
      if (!found) {
        fail(ErrorKind::kFormat, "{}: no \"completion_probabilities\" of token {}", place_,
             tokens_[position]);
      }
      for (const auto& [token, log_prob] : found->top) {
        if (token == tokens_[position]) {
          return checked_score(*found, log_prob, num_top_, place_);
        }
      }
    }
    fail(ErrorKind::kFormat, "{}: token {} is not among the probabilities of all tokens", place_,
         tokens_[position]);
  }

  const LlamaServer& server_;
  std::span<const std::int32_t> tokens_;
  std::int64_t num_top_;
  std::string place_;
  Json body_;
  std::optional<std::int32_t> anchor_;  // a token that comes with its probability
};

std::vector<TokenScore> LlamaServer::score_tokens(std::span<const std::int32_t> tokens,
                                                  std::int64_t first, std::int64_t num_top) const {
  PUZZLE_CHECK(first >= 1 && num_top >= 1, "{}: first {}, num_top {}", place_, first, num_top);
  check_call(LlamaServerMode::kCompletions, static_cast<std::int64_t>(tokens.size()));
  Scorer scorer(*this, tokens, num_top);
  std::vector<TokenScore> scores;
  for (auto t = static_cast<std::size_t>(first); t < tokens.size(); ++t) {
    scores.push_back(scorer.score(t));
  }
  return scores;
}

std::vector<double> LlamaServer::token_log_probs(std::span<const std::int32_t> tokens) const {
  std::vector<double> log_probs;
  for (const TokenScore& score : score_tokens(tokens)) {
    log_probs.push_back(score.log_prob);
  }
  return log_probs;
}

HiddenStates LlamaServer::hidden_states(std::span<const std::int32_t> tokens) const {
  check_call(LlamaServerMode::kHiddenStates, static_cast<std::int64_t>(tokens.size()));
  const Json answer = request("POST", "/embedding", Json{{"content", token_list(tokens)}}.dump());
  return parse_answer([&] {
    const std::string place = place_ + " /embedding";
    if (!answer.is_array() || answer.size() != 1) {
      fail(ErrorKind::kFormat, "{}: not a list of one answer", place);
    }
    const Json& rows = json_list(answer[0], "embedding", place);
    if (rows.size() != tokens.size()) {
      fail(ErrorKind::kFormat, "{}: {} vectors for {} tokens", place, rows.size(), tokens.size());
    }
    HiddenStates states;
    states.num_tokens = static_cast<std::int64_t>(tokens.size());
    states.width = static_cast<std::int64_t>(rows[0].size());
    states.values.reserve(tokens.size() * rows[0].size());
    for (const Json& row : rows) {
      if (!row.is_array() || row.empty() || row.size() != rows[0].size()) {
        fail(ErrorKind::kFormat, "{}: vectors of different lengths", place);
      }
      for (const Json& value : row) {
        if (!value.is_number()) {
          fail(ErrorKind::kFormat, "{}: found {} in a vector", place, value.dump());
        }
        states.values.push_back(value.get<float>());
      }
    }
    return states;
  });
}

}  // namespace puzzle
