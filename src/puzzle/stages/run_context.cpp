#include "puzzle/stages/run_context.h"

#include <chrono>
#include <utility>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/model/checkpoint.h"

namespace puzzle {
namespace {

std::int64_t steady_now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

LoadedModel open_model(const std::filesystem::path& path, const c10::Device& device,
                       c10::ScalarType type) {
  ModelWeights weights = load_model(path, type);
  if (!device.is_cpu()) {
    move_to(weights, device, type);
  }
  Geometry geometry(weights.spec);
  std::shared_ptr<const Tokenizer> tokenizer = load_tokenizer(tokenizer_path(path));
  if (tokenizer->vocab_size() > weights.spec.vocab_size) {
    fail(ErrorKind::kFormat,
         "{}: the tokenizer has {} ids, the embedding {} rows; are they of one model?",
         path.string(), tokenizer->vocab_size(), weights.spec.vocab_size);
  }
  return {path, model_content_key(path), std::move(weights), std::move(geometry),
          std::move(tokenizer)};
}

std::vector<bool> ask_first_rank(Communicator& communicator, std::size_t count,
                                 const std::function<bool(std::size_t)>& says) {
  std::string flags(count, '0');
  if (communicator.is_first()) {
    for (std::size_t i = 0; i < count; ++i) {
      flags[i] = says(i) ? '1' : '0';
    }
  }
  std::vector<bool> answers;
  for (const char flag : communicator.broadcast_string(flags, 0)) {
    answers.push_back(flag == '1');
  }
  return answers;
}

Stopwatch::Stopwatch() : start_ns_(steady_now_ns()) {}

double Stopwatch::seconds() const {
  return static_cast<double>(steady_now_ns() - start_ns_) * 1e-9;
}

}  // namespace puzzle
