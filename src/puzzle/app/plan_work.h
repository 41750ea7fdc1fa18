// How much arithmetic the stages do, from shapes alone.
#pragma once

#include <cstdint>

#include "puzzle/app/recipe.h"
#include "puzzle/arch/model_spec.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/data/eval_sets.h"

namespace puzzle {

// FLOPs in the kinds that run at different speeds. Rates are relative to a large fp32 matrix
// product of the same machine; measured on SmolLM2-135M on two cores (tests/app/plan_test.cpp).
struct Work {
  double dense = 0.0;      // FFNs, linear layers, the head, sums of outer products: the full rate
  double attention = 0.0;  // attention with KV heads: small products, rotation, softmax: 0.5
  double solves = 0.0;     // fp64 factorisations and eliminations: 0.5

  [[nodiscard]] double flops() const { return dense + attention + solves; }
  // `flops_per_s`: of a large fp32 matrix product.
  [[nodiscard]] double seconds(double flops_per_s) const;

  Work& operator+=(const Work& other);
};
[[nodiscard]] Work operator+(Work a, const Work& b);
[[nodiscard]] Work operator*(double factor, Work work);

// One token forward, in windows of `window` tokens.
[[nodiscard]] Work attention_work(const ModelSpec& spec, const AttentionSpec& attention,
                                  std::int64_t window);
[[nodiscard]] Work ffn_work(const ModelSpec& spec, const FfnSpec& ffn, std::int64_t window);
[[nodiscard]] Work layers_work(const ModelSpec& spec, std::int64_t window);
[[nodiscard]] Work head_work(const ModelSpec& spec, std::int64_t window);

// Whole stages.
[[nodiscard]] Work init_library_work(const Recipe& recipe, const ModelSpec& spec,
                                     const SearchSpace& space);
[[nodiscard]] Work distill_blocks_work(const Recipe& recipe, const ModelSpec& spec,
                                       const SearchSpace& space);
[[nodiscard]] Work score_work(const Recipe& recipe, const ModelSpec& spec,
                              const SearchSpace& space);
// Of the text, or of the questions, that variants are scored on.
[[nodiscard]] std::int64_t score_tokens(const Recipe& recipe);
// Of what the search measures and estimates; depth-only is taken to drop half of the layers.
[[nodiscard]] Work search_work(const Recipe& recipe, const SearchOptions& options,
                               const ModelSpec& spec, const SearchSpace& space);
// Tokens of the part that repair refits on.
[[nodiscard]] std::int64_t repair_tokens(const Recipe& recipe);
// `child_fraction`: the child's share of the parent's layers.
[[nodiscard]] Work repair_work(const Recipe& recipe, const ModelSpec& spec, double child_fraction);
[[nodiscard]] Work distill_child_work(const Recipe& recipe, const ModelSpec& spec,
                                      double child_fraction);
[[nodiscard]] Work evaluate_work(const Recipe& recipe, const ModelSpec& spec, double child_fraction,
                                 std::int64_t num_children);

// Of all choices of evaluation sets, contexts included, by the size of their text; sets that are
// not there have none.
[[nodiscard]] std::int64_t question_tokens(const EvalSetPaths& questions,
                                           const EvalSetOptions& options);
// Tokens that a stage uses: an option that may be 0 for "all of its part".
[[nodiscard]] std::int64_t tokens_used(std::int64_t wanted, std::int64_t part);
// Sub-blocks of the space that are not the parent's own.
[[nodiscard]] std::int64_t num_variants(const ModelSpec& spec, const SearchSpace& space);

}  // namespace puzzle
