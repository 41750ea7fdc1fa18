#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/strings.h"
#include "puzzle/data/token_split.h"

namespace puzzle {

at::Tensor make_document_mask(const at::Tensor& document_ids_BT) {
  const std::int64_t num_tokens = document_ids_BT.size(1);
  const at::Tensor same =
      document_ids_BT.unsqueeze(2).eq(document_ids_BT.unsqueeze(1)).unsqueeze(1);
  const at::Tensor causal =
      at::ones({num_tokens, num_tokens}, same.options().dtype(at::kBool)).tril();
  return same.logical_and(causal);
}

at::Tensor TokenBatch::attention_mask() const {
  const std::int64_t num_tokens = document_ids_BT.size(1);
  if (cross_documents || document_ids_BT.numel() == 0) {
    return {};
  }
  // Ids rise along a window, so the ends differ where anything does.
  const bool one_document_each =
      document_ids_BT.select(1, 0).equal(document_ids_BT.select(1, num_tokens - 1));
  return one_document_each ? at::Tensor() : make_document_mask(document_ids_BT);
}

TokenBatch TokenBatch::to(const c10::Device& device) const {
  return {tokens_BT.to(device), labels_BT.to(device), document_ids_BT.to(device), cross_documents};
}

TokenPart::TokenPart(std::string name, std::shared_ptr<const TokenFile> file,
                     std::vector<std::int64_t> starts, Layout layout)
    : name_(std::move(name)),
      file_(std::move(file)),
      starts_(std::move(starts)),
      layout_(std::move(layout)) {
  const std::int64_t last_start = std::ssize(file_->tokens()) - layout_.window;
  for (const std::int64_t start : starts_) {
    PUZZLE_CHECK(start >= 0 && start <= last_start, "{}: a window at token {} of {}", name_, start,
                 file_->tokens().size());
  }
  KeyBuilder key;
  key.add("tokens", file_->key()).add("window", layout_.window);
  key.add("cross_documents", layout_.cross_documents);
  key.add_bytes("starts", std::as_bytes(std::span(starts_)));
  content_key_ = key.key();
}

TokenBatch TokenPart::gather(std::span<const std::int64_t> positions) const {
  const std::int64_t window = layout_.window;
  const std::int64_t count = std::ssize(positions);
  TokenBatch batch{at::empty({count, window}, at::kLong), at::empty({count, window}, at::kLong),
                   at::empty({count, window}, at::kInt), layout_.cross_documents};
  auto* tokens = batch.tokens_BT.mutable_data_ptr<std::int64_t>();
  auto* labels = batch.labels_BT.mutable_data_ptr<std::int64_t>();
  auto* ids = batch.document_ids_BT.mutable_data_ptr<std::int32_t>();
  const std::span<const std::int64_t> offsets = file_->document_offsets();
  for (const std::int64_t position : positions) {
    PUZZLE_CHECK(position >= 0 && position < num_windows(), "{}: window {} of {}", name_, position,
                 num_windows());
    const std::int64_t start = starts_[static_cast<std::size_t>(position)];
    std::int64_t document = file_->document_of(start);
    for (std::int64_t t = 0; t < window; ++t) {
      const std::int64_t index = start + t;
      const std::int32_t token = file_->tokens()[static_cast<std::size_t>(index)];
      if (token < 0 || token >= file_->vocab_size()) {
        fail(ErrorKind::kFormat,
             "{}: token {} is {}, expected one of the vocabulary's {}; delete "
             "the file to have it made again",
             file_->path().string(), index, token, file_->vocab_size());
      }
      while (index >= offsets[static_cast<std::size_t>(document) + 1]) {
        ++document;
      }
      const bool ends_document = index + 1 == offsets[static_cast<std::size_t>(document) + 1];
      const bool has_label = t + 1 < window && (layout_.cross_documents || !ends_document);
      tokens[t] = token;
      labels[t] = has_label ? file_->tokens()[static_cast<std::size_t>(index) + 1] : kNoLabel;
      ids[t] = static_cast<std::int32_t>(document);
    }
    tokens += window;
    labels += window;
    ids += window;
  }
  return batch;
}

TokenBatch TokenPart::slice(std::int64_t first, std::int64_t count) const {
  std::vector<std::int64_t> positions;
  for (std::int64_t i = 0; i < count; ++i) {
    positions.push_back(first + i);
  }
  return gather(positions);
}

TokenPart TokenPart::limited_to(std::int64_t num_tokens) const {
  return num_tokens > 0 ? first_tokens(num_tokens) : *this;
}

TokenPart TokenPart::first_tokens(std::int64_t num_tokens) const {
  const std::int64_t wanted = (num_tokens + layout_.window - 1) / layout_.window;
  const std::int64_t count = std::clamp<std::int64_t>(wanted, 0, num_windows());
  return {name_, file_, {starts_.begin(), starts_.begin() + count}, layout_};
}

TokenPart TokenPart::of_sources(std::span<const std::string> names) const {
  std::vector<TokenSource> wanted;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(layout_.sources, name);
    if (found == layout_.sources.end()) {
      fail(ErrorKind::kUsage, "{} part: '{}' is none of the sources; expected {}", name_, name,
           join(layout_.sources, ", "));
    }
    wanted.push_back(
        file_->sources().at(static_cast<std::size_t>(found - layout_.sources.begin())));
  }
  std::vector<std::int64_t> starts;
  std::ranges::copy_if(starts_, std::back_inserter(starts), [&](std::int64_t start) {
    return std::ranges::any_of(wanted, [start](const TokenSource& source) {
      return start >= source.first_token && start < source.first_token + source.num_tokens;
    });
  });
  if (starts.empty()) {
    fail(ErrorKind::kUsage, "{} part: no window begins in {}; expected more tokens in the part",
         name_, join({names.begin(), names.end()}, ", "));
  }
  return {name_, file_, std::move(starts), layout_};
}

}  // namespace puzzle
