// Finds added tokens ("<|im_end|>") in a text: leftmost, and of those the longest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "puzzle/text/pattern.h"
#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

// A part of a text: an added token, or (id < 0) what lies between two.
struct TextPart {
  TextSpan span;
  std::int32_t id = -1;
};

// May be used from several threads at once.
class AddedTokenMatcher {
 public:
  // `content` is what is looked for; tokens without any are left out.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  [[nodiscard]] bool empty() const { return tokens_.empty(); }

  // Appends the parts of `text`; those between tokens are never empty. lstrip and rstrip make a
  // token's span cover white space too. Without `parse_special`, special tokens are plain text.
  void split(std::string_view text, bool parse_special, std::vector<TextPart>& parts) const;

 private:
  struct Node {
    std::vector<std::pair<std::uint8_t, std::int32_t>> children;  // byte, node
    std::int32_t token = -1;                                      // index of the one that ends here
  };
  [[nodiscard]] std::size_t find_candidate(std::string_view text, std::size_t from) const;
  // The longest token at `from`: its index and length, or -1.
  [[nodiscard]] std::pair<std::int32_t, std::size_t> match_at(std::string_view text,
                                                              std::size_t from) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> is_first_{};
  std::int32_t only_first_ = -1;  // the first byte, if all tokens share it
};

}  // namespace puzzle
