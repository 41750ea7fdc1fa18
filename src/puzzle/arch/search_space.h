// Which variants are allowed in each layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/arch/model_spec.h"

namespace puzzle {

class OptionList;

struct SearchSpaceOptions {
  std::vector<std::string> attention = {"parent", "divisors", "linear", "none"};
  std::vector<std::string> ffn = {"parent", "0.75", "0.5", "0.25", "0.1", "linear", "none"};
  std::int64_t ffn_multiple = 32;              // fractions are rounded to a multiple of it
  std::vector<std::int64_t> skip_layers = {};  // layers that keep the parent's block

  void visit(OptionList& list);
};

struct LayerSpace {
  std::vector<AttentionSpec> attention;  // the parent's first, then as given; no duplicates
  std::vector<FfnSpec> ffn;
};

struct SearchSpace {
  std::vector<LayerSpace> layers;

  [[nodiscard]] double log10_architectures() const;
};

// Resolves the options against a parent: "parent" (which must stand in both lists, for FFNs itself
// or as part of "stepN": every layer can keep its own), "kvN", "divisors" (every proper divisor of
// the parent's KV heads, largest first), "linear", "none"; FFN "parent", a fraction of the parent's
// width ("0.5", rounded to ffn_multiple but to at least one multiple and at most the parent's
// width), "wN", "stepN" (the parent's and every multiple of N below it, largest first), "linear",
// "none". A recipe may write {step: N} for "stepN".
//
// Variants only ever shrink a sub-block: where the parent's is linear already, KV heads and widths
// are passed over; where it is none, nothing else is allowed. Throws Error(kUsage) for a name it
// does not know, KV heads that do not divide the parent's, a width above the parent's, or a layer
// to skip that does not exist.
[[nodiscard]] SearchSpace make_search_space(const SearchSpaceOptions& options,
                                            const ModelSpec& parent);

}  // namespace puzzle
