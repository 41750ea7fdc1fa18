#include "puzzle/engine/measured_cost.h"

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

constexpr std::string_view kAttentionPrefix = "attention/";
constexpr std::string_view kFfnPrefix = "ffn/";

}  // namespace

std::string_view phase_name(Phase phase) {
  return phase == Phase::kPrefill ? "prefill" : "generate";
}

Phase parse_phase(std::string_view name, const std::string& place) {
  for (const Phase phase : {Phase::kPrefill, Phase::kGenerate}) {
    if (name == phase_name(phase)) {
      return phase;
    }
  }
  fail(ErrorKind::kFormat, "{}: phase '{}', expected prefill or generate", place, name);
}

std::string subblock_name(const AttentionSpec& attention) {
  return std::string(kAttentionPrefix) + attention.name();
}

std::string subblock_name(const FfnSpec& ffn) { return std::string(kFfnPrefix) + ffn.name(); }

void check_subblock_name(std::string_view name, const std::string& place) {
  std::string canonical;
  try {
    if (name == kFixedSubblock) {
      canonical = name;
    } else if (name.starts_with(kAttentionPrefix)) {
      canonical = subblock_name(parse_attention(name.substr(kAttentionPrefix.size())));
    } else if (name.starts_with(kFfnPrefix)) {
      canonical = subblock_name(parse_ffn(name.substr(kFfnPrefix.size())));
    }
  } catch (const Error& error) {
    fail(ErrorKind::kFormat, "{}: sub-block '{}': {}", place, name, error.what());
  }
  if (canonical.empty() || canonical != name) {
    fail(ErrorKind::kFormat,
         "{}: sub-block '{}'{}, expected attention/…, ffn/… or fixed, e.g. attention/kv3, ffn/w768",
         place, name, canonical.empty() ? "" : fmt::format(" (meant {}?)", canonical));
  }
}

}  // namespace puzzle
