#include "puzzle/text/pattern.h"

#include <array>
#include <cstdint>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// clang-format off
constexpr std::array kKnownPatterns = std::to_array<KnownPattern>({
    {"gpt-2",
     R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {"llama-3",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen-2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"tekken",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"gpt-4o",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
});
// clang-format on

constexpr std::string_view kSpaceClass =
    R"(\x{09}-\x{0D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

std::string spell_out_space(std::string_view regex) {
  std::string result;
  bool in_class = false;
  for (std::size_t i = 0; i < regex.size(); ++i) {
    const bool is_escape = regex[i] == '\\' && i + 1 < regex.size();
    const char escaped = is_escape ? regex[i + 1] : '\0';
    if (escaped == 's') {
      result += in_class ? std::string(kSpaceClass) : fmt::format("[{}]", kSpaceClass);
      ++i;
    } else if (escaped == 'S') {
      PUZZLE_CHECK(!in_class, "\\S inside a class of {}", regex);
      result += fmt::format("[^{}]", kSpaceClass);
      ++i;
    } else if (is_escape) {
      result += regex.substr(i, 2);
      ++i;
    } else {
      in_class = regex[i] == '[' || (in_class && regex[i] != ']');
      result += regex[i];
    }
  }
  return result;
}

// Match data may not be shared by threads; one per thread is enough for every pattern.
pcre2_match_data* thread_match_data() {
  struct Deleter {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  thread_local const std::unique_ptr<pcre2_match_data, Deleter> data(
      pcre2_match_data_create(1, nullptr));
  PUZZLE_CHECK(data != nullptr, "pcre2_match_data_create: out of memory");
  return data.get();
}

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

std::span<const KnownPattern> known_patterns() { return kKnownPatterns; }

std::string_view known_pattern(std::string_view name) {
  for (const KnownPattern& pattern : kKnownPatterns) {
    if (pattern.name == name) {
      return pattern.regex;
    }
  }
  fail(ErrorKind::kInternal, "no pattern is called {}", name);
}

class Pattern::Compiled {
 public:
  explicit Compiled(const std::string& regex) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
    PUZZLE_CHECK(code_ != nullptr, "pcre2_compile of {} at {}: {}", regex, at,
                 pcre2_message(error));
    // Without JIT (a machine that forbids writable code pages) matching is slower, not different.
    has_jit_ = pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE) == 0;
  }
  ~Compiled() { pcre2_code_free(code_); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  // False: no further match.
  [[nodiscard]] bool find(std::string_view text, std::size_t from, TextSpan& match) const {
    pcre2_match_data* data = thread_match_data();
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int found = has_jit_ ? pcre2_jit_match(code_, subject, text.size(), from, 0, data, nullptr)
                         : PCRE2_ERROR_JIT_STACKLIMIT;
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      // The interpreter keeps its state on the heap.
      found = pcre2_match(code_, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          data, nullptr);
    }
    if (found == PCRE2_ERROR_NOMATCH) {
      return false;
    }
    PUZZLE_CHECK(found > 0, "pcre2_match: {}", pcre2_message(found));
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data);
    match = {.begin = offsets[0], .end = offsets[1]};
    return true;
  }

 private:
  pcre2_code* code_ = nullptr;
  bool has_jit_ = false;
};

Pattern::Pattern(std::string_view regex, const std::string& place) {
  for (const KnownPattern& pattern : kKnownPatterns) {
    if (pattern.regex == regex) {
      compiled_ = std::make_unique<Compiled>(spell_out_space(regex));
      return;
    }
  }
  fail(ErrorKind::kFormat, "{}: the pre-tokenizer's regex is not one of the supported ones: {}",
       place, regex);
}

Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

void Pattern::find_all(std::string_view text, std::vector<TextSpan>& matches) const {
  std::size_t at = 0;
  TextSpan match;
  while (at < text.size() && compiled_->find(text, at, match)) {
    // None of the known patterns matches the empty string.
    PUZZLE_CHECK(match.end > match.begin, "empty match at {}", match.begin);
    matches.push_back(match);
    at = match.end;
  }
}

}  // namespace puzzle
