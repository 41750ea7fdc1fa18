// Fixed windows over a token file, divided into disjoint parts.
//
// The rule. Each source is cut into windows of `window` tokens from its first token on; what is
// left at its end is not used, so no window holds two sources (mixture = "stream" treats all text
// as one source). `group_windows` neighbouring windows form a group, the groups of a source are
// shuffled by the seed and laid in a row, and the parts take their windows from that row in the
// order test, validation, scoring, calibration, train. So a window is in at most one part, parts
// touch only where groups do (at most one more place per part and source), and a part keeps its
// windows when a later part changes its size. How many windows a part takes from each source
// follows `mixture`; each part sees each source if it has as many windows as there are sources.
// Inside a part the sources alternate in proportion, so that any first n windows are mixed like the
// whole.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/data/data_options.h"
#include "puzzle/data/token_file.h"

namespace puzzle {

inline constexpr std::int64_t kNoLabel = -100;  // a position without a next token to predict

// Shape letters: B windows, T tokens per window.
struct TokenBatch {
  at::Tensor tokens_BT;        // int64
  at::Tensor labels_BT;        // int64: the next token; kNoLabel at the window's last position and,
                               // unless cross_documents, at each document's last one
  at::Tensor document_ids_BT;  // int32: number of the document in the token file
  bool cross_documents = true;

  [[nodiscard]] std::int64_t num_windows() const { return tokens_BT.size(0); }
  // [B, 1, T, T] bool, true = may look: earlier positions of the same document. Undefined where
  // plain causal attention does the same: with cross_documents, or if no window holds two
  // documents. Positions need no reset, rotary attention only sees their differences.
  [[nodiscard]] at::Tensor attention_mask() const;
  [[nodiscard]] TokenBatch to(const c10::Device& device) const;
};

// [B, 1, T, T] bool on the device of `document_ids_BT`: causal and within one document.
[[nodiscard]] at::Tensor make_document_mask(const at::Tensor& document_ids_BT);

// One part; a handle on the token file and a list of windows. Cheap to copy.
class TokenPart {
 public:
  struct Layout {
    std::int64_t window = 0;
    bool cross_documents = true;
    std::vector<std::string> sources{};  // of the file, as the recipe names them now
  };

  // `starts`: first token of each window, in the part's order.
  TokenPart(std::string name, std::shared_ptr<const TokenFile> file,
            std::vector<std::int64_t> starts, Layout layout);

  [[nodiscard]] const std::string& name() const { return name_; }
  // Key over the token file, the windows in their order, and the layout.
  [[nodiscard]] const std::string& content_key() const { return content_key_; }
  [[nodiscard]] std::int64_t window() const { return layout_.window; }
  [[nodiscard]] std::int64_t num_windows() const { return std::ssize(starts_); }
  [[nodiscard]] std::int64_t num_tokens() const { return num_windows() * layout_.window; }
  [[nodiscard]] std::span<const std::int64_t> starts() const { return starts_; }
  // Attention sees the whole window; otherwise its own document alone.
  [[nodiscard]] bool crosses_documents() const { return layout_.cross_documents; }

  // The windows at these positions of the part, in this order, on the CPU; none gives [0, T].
  // Throws Error(kFormat) for a token outside the vocabulary.
  [[nodiscard]] TokenBatch gather(std::span<const std::int64_t> positions) const;
  // Windows [first, first + count).
  [[nodiscard]] TokenBatch slice(std::int64_t first, std::int64_t count) const;
  // The part's first windows that hold `num_tokens` tokens (rounded up); all of them if it has
  // fewer.
  [[nodiscard]] TokenPart first_tokens(std::int64_t num_tokens) const;
  // The same as options put it: 0 is all of the part.
  [[nodiscard]] TokenPart limited_to(std::int64_t num_tokens) const;
  // The windows that begin in one of these sources, named as in data.sources. Throws Error(kUsage)
  // for another name, or if no window is left.
  [[nodiscard]] TokenPart of_sources(std::span<const std::string> names) const;

 private:
  std::string name_;
  std::shared_ptr<const TokenFile> file_;
  std::vector<std::int64_t> starts_;
  Layout layout_;
  std::string content_key_;
};

struct TokenParts {
  TokenPart train;
  TokenPart calibration;
  TokenPart scoring;
  TokenPart validation;
  TokenPart test;
};

// Throws Error(kUsage) where the corpora hold fewer windows than the parts need: what there is,
// what each part takes, and what to change. A part of 0 tokens (and train, if nothing is left) is
// empty.
[[nodiscard]] TokenParts split_tokens(const std::shared_ptr<const TokenFile>& file,
                                      const DataOptions& options);

}  // namespace puzzle
