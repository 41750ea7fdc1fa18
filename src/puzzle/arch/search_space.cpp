#include "puzzle/arch/search_space.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

std::optional<std::int64_t> count_after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) {
    return std::nullopt;
  }
  const auto count = parse_number<std::int64_t>(name.substr(prefix.size()));
  return count && *count > 0 ? count : std::nullopt;
}

template <class Variant>
void add_once(std::vector<Variant>& variants, const Variant& variant) {
  if (std::find(variants.begin(), variants.end(), variant) == variants.end()) {
    variants.push_back(variant);
  }
}

// N of "stepN".
std::optional<std::int64_t> step_of(std::string_view name) { return count_after(name, "step"); }

void require_parent(const std::vector<std::string>& names, std::string_view option) {
  const auto has_parent = [](const std::string& name) {
    return name == "parent" || step_of(name).has_value();
  };
  if (std::none_of(names.begin(), names.end(), has_parent)) {
    fail(ErrorKind::kUsage,
         "{}: \"parent\" is missing from the list; the parent's own variant is always part of the "
         "search space",
         option);
  }
}

void add_attention(std::vector<AttentionSpec>& variants, const std::string& name,
                   const AttentionSpec& parent, std::size_t layer) {
  const bool is_gqa = parent.kind == AttentionKind::kGqa;
  if (name == "parent") {
    return;  // stands first already
  }
  if (name == "none") {
    add_once(variants, AttentionSpec::none());
  } else if (name == "linear") {
    if (parent.kind != AttentionKind::kNone) {
      add_once(variants, AttentionSpec::linear());
    }
  } else if (name == "divisors") {
    for (std::int64_t kv_heads = parent.kv_heads / 2; kv_heads > 0; --kv_heads) {
      if (parent.kv_heads % kv_heads == 0) {
        add_once(variants, AttentionSpec::gqa(kv_heads));
      }
    }
  } else if (const auto kv_heads = count_after(name, "kv")) {
    if (is_gqa && parent.kv_heads % *kv_heads != 0) {
      fail(ErrorKind::kUsage,
           "search space, attention '{}': {} KV heads do not divide the parent's {} in layer {}",
           name, *kv_heads, parent.kv_heads, layer);
    }
    if (is_gqa) {
      add_once(variants, AttentionSpec::gqa(*kv_heads));
    }
  } else {
    fail(ErrorKind::kUsage,
         "search space, attention '{}': expected parent, divisors, kvN, linear or none", name);
  }
}

std::int64_t rounded_width(double fraction, std::int64_t parent_width, std::int64_t multiple) {
  const double multiples =
      std::round(fraction * static_cast<double>(parent_width) / static_cast<double>(multiple));
  const std::int64_t width = std::max<std::int64_t>(1, std::llround(multiples)) * multiple;
  return std::min(width, parent_width);
}

void add_ffn(std::vector<FfnSpec>& variants, const std::string& name, const FfnSpec& parent,
             std::int64_t multiple, std::size_t layer) {
  const bool is_swiglu = parent.kind == FfnKind::kSwiglu;
  if (name == "parent") {
    return;  // stands first already
  }
  if (name == "none") {
    add_once(variants, FfnSpec::none());
  } else if (name == "linear") {
    if (parent.kind != FfnKind::kNone) {
      add_once(variants, FfnSpec::linear());
    }
  } else if (const auto step = step_of(name)) {
    // Where no FFN has a width, there is nothing below it.
    for (std::int64_t multiple_of = (parent.width - 1) / *step; multiple_of > 0; --multiple_of) {
      add_once(variants, FfnSpec::swiglu(multiple_of * *step));
    }
  } else if (const auto width = count_after(name, "w")) {
    if (is_swiglu && *width > parent.width) {
      fail(ErrorKind::kUsage, "search space, FFN '{}': wider than the parent's {} in layer {}",
           name, parent.width, layer);
    }
    if (is_swiglu) {
      add_once(variants, FfnSpec::swiglu(*width));
    }
  } else if (const auto fraction = parse_number<double>(name);
             fraction && *fraction > 0.0 && *fraction <= 1.0) {
    if (is_swiglu) {
      add_once(variants, FfnSpec::swiglu(rounded_width(*fraction, parent.width, multiple)));
    }
  } else {
    fail(ErrorKind::kUsage,
         "search space, FFN '{}': expected parent, a fraction in (0, 1], wN, stepN, linear or none",
         name);
  }
}

}  // namespace

void SearchSpaceOptions::visit(OptionList& list) {
  list.add("attention", attention,
           "Attention variants: parent, divisors (of the KV heads), kvN, linear, none.");
  list.add(
      "ffn", ffn,
      "FFN variants: parent, fractions of the width, wN, {step: N} or stepN (all multiples of N "
      "up to the parent's width), linear, none.");
  list.add("ffn_multiple", ffn_multiple, Range<std::int64_t>{1, 1 << 16},
           "Fractions of the FFN width are rounded to a multiple of this; 256 for nemotron-nas.");
  list.add("skip_layers", skip_layers, Range<std::int64_t>{0, kMaxLayers - 1},
           "Layers (0-based) that keep the parent's block.");
}

double SearchSpace::log10_architectures() const {
  double sum = 0.0;
  for (const LayerSpace& layer : layers) {
    sum += std::log10(static_cast<double>(layer.attention.size() * layer.ffn.size()));
  }
  return sum;
}

SearchSpace make_search_space(const SearchSpaceOptions& options, const ModelSpec& parent) {
  require_parent(options.attention, "search space, attention");
  require_parent(options.ffn, "search space, FFN");
  if (options.ffn_multiple < 1) {
    fail(ErrorKind::kUsage, "search space, ffn_multiple: {}, expected at least 1",
         options.ffn_multiple);
  }
  SearchSpace space;
  for (std::size_t i = 0; i < parent.layers.size(); ++i) {
    const BlockSpec& own = parent.layers[i];
    LayerSpace layer{{own.attention}, {own.ffn}};
    for (const std::string& name : options.attention) {
      add_attention(layer.attention, name, own.attention, i);
    }
    for (const std::string& name : options.ffn) {
      add_ffn(layer.ffn, name, own.ffn, options.ffn_multiple, i);
    }
    space.layers.push_back(std::move(layer));
  }
  for (const std::int64_t skipped : options.skip_layers) {
    if (skipped < 0 || skipped >= parent.num_layers()) {
      fail(ErrorKind::kUsage, "search space, skip_layers: {} is not a layer, expected 0 … {}",
           skipped, parent.num_layers() - 1);
    }
    LayerSpace& layer = space.layers[static_cast<std::size_t>(skipped)];
    layer.attention.resize(1);
    layer.ffn.resize(1);
  }
  return space;
}

}  // namespace puzzle
