#include "puzzle/arch/block_spec.h"

#include <algorithm>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

// The number behind a one- or two-letter prefix; 0 if there is none.
std::int64_t number_after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) {
    return 0;
  }
  name.remove_prefix(prefix.size());
  return std::max<std::int64_t>(0, parse_number<std::int64_t>(name).value_or(0));
}

}  // namespace

std::string AttentionSpec::name() const {
  switch (kind) {
    case AttentionKind::kGqa:
      return fmt::format("kv{}", kv_heads);
    case AttentionKind::kLinear:
      return "linear";
    case AttentionKind::kNone:
      return "none";
  }
  return "none";
}

std::string FfnSpec::name() const {
  switch (kind) {
    case FfnKind::kSwiglu:
      return fmt::format("w{}", width);
    case FfnKind::kLinear:
      return "linear";
    case FfnKind::kNone:
      return "none";
  }
  return "none";
}

std::string BlockSpec::name() const { return attention.name() + "/" + ffn.name(); }

AttentionSpec parse_attention(std::string_view name) {
  if (name == "linear") {
    return AttentionSpec::linear();
  }
  if (name == "none") {
    return AttentionSpec::none();
  }
  if (const std::int64_t kv_heads = number_after(name, "kv"); kv_heads > 0) {
    return AttentionSpec::gqa(kv_heads);
  }
  fail(ErrorKind::kFormat, "attention variant '{}': expected kvN, linear or none", name);
}

FfnSpec parse_ffn(std::string_view name) {
  if (name == "linear") {
    return FfnSpec::linear();
  }
  if (name == "none") {
    return FfnSpec::none();
  }
  if (const std::int64_t width = number_after(name, "w"); width > 0) {
    return FfnSpec::swiglu(width);
  }
  fail(ErrorKind::kFormat, "FFN variant '{}': expected wN, linear or none", name);
}

BlockSpec parse_block(std::string_view name) {
  const std::size_t slash = name.find('/');
  if (slash == std::string_view::npos) {
    fail(ErrorKind::kFormat, "block '{}': expected attention/ffn, e.g. kv3/w768", name);
  }
  return {parse_attention(name.substr(0, slash)), parse_ffn(name.substr(slash + 1))};
}

std::vector<std::string> block_names(const Architecture& layers) {
  std::vector<std::string> names;
  for (const BlockSpec& block : layers) {
    names.push_back(block.name());
  }
  return names;
}

std::string architecture_text(const Architecture& layers) {
  std::string text;
  for (std::size_t first = 0; first < layers.size();) {
    std::size_t end = first + 1;
    while (end < layers.size() && layers[end] == layers[first]) {
      ++end;
    }
    const std::string range =
        end - first == 1 ? fmt::format("{}", first) : fmt::format("{}-{}", first, end - 1);
    text += fmt::format("{}{} {}", first == 0 ? "" : ", ", range, layers[first].name());
    first = end;
  }
  return text;
}

Architecture parse_blocks(const std::vector<std::string>& names) {
  Architecture layers;
  for (const std::string& name : names) {
    layers.push_back(parse_block(name));
  }
  return layers;
}

}  // namespace puzzle
