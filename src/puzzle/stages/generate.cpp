#include "puzzle/stages/generate.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/engine/chat_template.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

std::int32_t pick_token(const at::Tensor& logits_V, const GenerateOptions& options,
                        at::Generator& generator) {
  if (options.temperature <= 0.0) {
    return static_cast<std::int32_t>(logits_V.argmax().item<std::int64_t>());
  }
  at::Tensor probs = at::softmax(logits_V.to(at::kCPU, at::kDouble) / options.temperature, -1);
  if (options.top_p < 1.0) {
    const auto [sorted, order] = probs.sort(/*dim=*/-1, /*descending=*/true);
    // A token stays if the ones before it do not yet have top_p between them; the first always
    // stays.
    const at::Tensor before = sorted.cumsum(-1) - sorted;
    const at::Tensor stays = before.lt(options.top_p).logical_or(before.le(0.0));
    probs = at::zeros_like(probs).scatter(0, order, sorted * stays.to(at::kDouble));
  }
  return static_cast<std::int32_t>(
      at::multinomial(probs, 1, /*replacement=*/false, generator).item<std::int64_t>());
}

}  // namespace

GenerateResult generate(const LoadedModel& model, const std::string& prompt,
                        const GenerateOptions& options,
                        const std::function<void(const std::string&)>& on_text) {
  const c10::NoGradGuard no_grad;
  const std::vector<std::int32_t> ids =
      model.tokenizer->encode(prompt, {.add_special = options.adds_special});
  const auto length = std::ssize(ids);
  const std::int64_t room = model.weights.spec.context_length - length;
  if (ids.empty() || room < 1) {
    fail(ErrorKind::kUsage,
         "generate: a prompt of {} tokens, expected 1 to {} (the model's context)", length,
         model.weights.spec.context_length - 1);
  }
  const std::int64_t limit = std::min(options.max_tokens, room);
  DecodeState state(model.weights, model.geometry, 1, length + limit);
  at::Generator generator = at::detail::createCPUGenerator(options.seed);
  StreamDecoder decoder(model.tokenizer);
  GenerateResult result;
  result.prompt_tokens = length;
  Stopwatch watch;
  at::Tensor tokens = at::tensor(ids, at::TensorOptions(at::kInt)).to(at::kLong).unsqueeze(0);
  at::Tensor logits = state.append(tokens)[0];
  synchronize(logits.device());
  result.prefill_s = watch.seconds();
  watch = Stopwatch();
  const auto& ends = model.weights.spec.eos_tokens;
  while (result.generated_tokens < limit) {
    throw_if_interrupted();
    const std::int32_t token = pick_token(logits, options, generator);
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
      break;
    }
    ++result.generated_tokens;
    const std::string piece = decoder.push(token);
    result.text += piece;
    on_text(piece);
    if (result.generated_tokens < limit) {
      logits = state.append(at::full({1, 1}, token, at::TensorOptions(at::kLong)))[0];
    }
  }
  const std::string rest = decoder.finish();
  result.text += rest;
  on_text(rest);
  result.generation_s = watch.seconds();
  return result;
}

std::string chat_prompt(const Tokenizer& tokenizer, const std::string& user_text) {
  if (tokenizer.chat_template().empty()) {
    fail(ErrorKind::kUsage,
         "--chat: this model has no chat template (chat_template in tokenizer_config.json or "
         "tokenizer.chat_template in GGUF); give the whole prompt without --chat");
  }
  const auto text_of = [&](std::optional<std::int32_t> id) {
    return id ? tokenizer.token_text(*id) : std::string();
  };
  return render_chat({.source = tokenizer.chat_template(),
                      .bos = text_of(tokenizer.bos()),
                      .eos = text_of(tokenizer.eos())},
                     {{.role = "user", .content = user_text}});
}

}  // namespace puzzle
