#include "puzzle/data/long_text.h"

#include <algorithm>
#include <span>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/strings.h"
#include "puzzle/text/tokenizer.h"

namespace puzzle {
namespace {

class LongTextMaker {
 public:
  LongTextMaker(const LongTextOptions& options, const Tokenizer& tokenizer)
      : haystack_(options.haystack.empty() ? Haystack() : Haystack(options.haystack)),
        seed_(static_cast<std::uint64_t>(options.seed)),
        tokenizer_(tokenizer) {}

  [[nodiscard]] LongTextSample fitting(LongTextTask task, std::int64_t length,
                                       std::int64_t index) const {
    const std::uint64_t seed = derive_seed(seed_, fmt::format("long text {}", index));
    const auto made = [&](std::int64_t units) {
      return encoded(draft_long_text(task, seed, haystack_, units, length));
    };
    LongTextSample best = made(0);
    if (size(best) > length) {
      fail(ErrorKind::kUsage,
           "evaluate.long_text: {} takes {} tokens without any filler, more than the length {}; "
           "name longer ones, or leave it out of evaluate.long_text.tasks",
           long_text_task_name(task), size(best), length);
    }
    std::int64_t low = 0;
    std::int64_t high = 16;
    for (LongTextSample next = made(high); size(next) <= length; next = made(high)) {
      best = std::move(next);
      low = high;
      high *= 2;
    }
    while (high - low > 1) {
      const std::int64_t middle = low + (high - low) / 2;
      LongTextSample next = made(middle);
      if (size(next) <= length) {
        best = std::move(next);
        low = middle;
      } else {
        high = middle;
      }
    }
    return best;
  }

 private:
  [[nodiscard]] LongTextSample encoded(LongTextDraft draft) const {
    LongTextSample sample;
    sample.encoded = encode_pair(draft.prompt, draft.answer, tokenizer_);
    const std::int64_t answer = std::ssize(sample.encoded.ids) - sample.encoded.num_context;
    sample.max_new_tokens = answer + answer / 2 + 16;
    sample.text = std::move(draft);
    return sample;
  }
  static std::int64_t size(const LongTextSample& sample) {
    return sample.encoded.num_context + sample.max_new_tokens;
  }

  Haystack haystack_;
  std::uint64_t seed_;
  const Tokenizer& tokenizer_;
};

std::string set_key(const LongTextSet& set) {
  KeyBuilder key;
  for (const LongTextSample& sample : set.samples) {
    key.add("context", sample.encoded.num_context).add("limit", sample.max_new_tokens);
    key.add_bytes("ids", std::as_bytes(std::span(sample.encoded.ids)));
    for (const std::string& text : sample.text.expected) {
      key.add("expected", text);
    }
  }
  return key.key();
}

}  // namespace

std::vector<LongTextSet> make_long_text_sets(const LongTextOptions& options,
                                             const Tokenizer& tokenizer) {
  std::vector<LongTextSet> sets;
  if (options.lengths.empty()) {
    return sets;
  }
  const LongTextMaker maker(options, tokenizer);
  for (const std::int64_t length : options.lengths) {
    for (const std::string& name : options.tasks) {
      LongTextSet set{.name = fmt::format("{}@{}", name, length),
                      .task = parse_long_text_task(name),
                      .length = length,
                      .samples = {},
                      .content_key = ""};
      for (std::int64_t i = 0; i < options.samples; ++i) {
        set.samples.push_back(maker.fitting(set.task, length, i));
      }
      set.content_key = set_key(set);
      sets.push_back(std::move(set));
    }
  }
  return sets;
}

double found_fraction(std::string_view output, const std::vector<std::string>& expected) {
  const std::string text = lower(output);
  const auto found = std::count_if(
      expected.begin(), expected.end(),
      [&](const std::string& wanted) { return text.find(lower(wanted)) != std::string::npos; });
  return static_cast<double>(found) / static_cast<double>(expected.size());
}

}  // namespace puzzle
