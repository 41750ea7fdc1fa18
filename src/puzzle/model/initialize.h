// Variants of one layer made from the parent without training (the Puzzle paper).
//
// clang-format off
//   variant          paper                                  least squares
//   FFN of width w   top w channels by mean|x_k|·‖W_k‖      order by elimination, W_down refitted
//   FFN linear       W_down·W_up                            ridge regression of y on xn
//   KV heads k       mean of K and V of each group          the same, W_o refitted, pulled to its own
//   attention linear W_o·(W_v repeated per query head)      ridge regression of y on xn
// clang-format on
//
// xn: normalised input, y: output of the parent's sub-block without its residual. Biases: q, gate
// and up keep the parent's, K and V average theirs with their rows, and the output bias is kept and
// so left out of what W_o is fitted to. Linear variants have no bias; they are fitted to y with it.
//
// Shape letters: B sequences, T tokens, D hidden, F FFN width.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/arch/search_space.h"
#include "puzzle/model/decoder.h"
#include "puzzle/model/nested_ffn.h"
#include "puzzle/model/weights.h"

namespace puzzle {

// What the parent's layer does on a batch. Tensors of a half that is "none" are undefined.
struct ParentPass {
  at::Tensor attention_xn, attention_y;    // [B, T, D]
  at::Tensor ffn_xn, ffn_features, ffn_y;  // [B, T, D], features [B, T, F]
  at::Tensor output;                       // [B, T, D], equal to apply_layer's to the bit
};
[[nodiscard]] ParentPass run_parent_layer(const LayerWeights& parent, const Geometry& geometry,
                                          const at::Tensor& x_BTD, const PassContext& pass);

// The parts of the table that need no sums.
[[nodiscard]] AttentionWeights pool_kv_heads(const ModelSpec& spec, const AttentionWeights& parent,
                                             std::int64_t kv_heads);
[[nodiscard]] at::Tensor paper_linear_attention(const ModelSpec& spec,
                                                const AttentionWeights& parent);  // [D, D]
[[nodiscard]] at::Tensor paper_linear_ffn(const FfnWeights& parent);              // [D, D]
// Channels by falling contribution, int64 [F].
[[nodiscard]] at::Tensor paper_ffn_order(const at::Tensor& mean_abs_features_F,
                                         const at::Tensor& down_DF);
// The parent's FFN with these channels, in their order, and this down projection.
[[nodiscard]] FfnWeights keep_channels(const FfnWeights& parent, const at::Tensor& channels,
                                       at::Tensor down);

enum class InitMethod { kLeastSquares, kPaper };

struct LayerInitOptions {
  InitMethod method = InitMethod::kLeastSquares;
  double lambda = 1e-3;  // relative ridge
};

struct LayerVariants {
  std::map<AttentionSpec, AttentionWeights> attention;
  std::map<FfnSpec, FfnWeights> ffn;  // the linear one
  std::optional<NestedFfn> nested;    // up to the largest width of the space
  std::vector<std::int64_t> widths;   // of the space, ascending
  // Relative ridge of each fit that needed more than the one asked for, by "attention/kv1" or "ffn"
  // (one for all widths).
  std::map<std::string, double> raised_lambda;
};

// Gathers the sums of one layer over calibration tokens and solves for every variant of `space`
// that has weights and is not the parent's own. Memory O(F² + F·D), independent of tokens.
class LayerInitializer {
 public:
  // `parent`, `geometry` must outlive it.
  LayerInitializer(const ModelSpec& spec, const LayerWeights& parent, const Geometry& geometry,
                   const LayerSpace& space, LayerInitOptions options);
  ~LayerInitializer();

  // Token weights [B, T]; undefined: all 1. The paper's rules take none.
  void add(const ParentPass& parent_pass, const PassContext& pass, const at::Tensor& token_weights);

  // The tensors to be summed over ranks before solve().
  void visit_sums(const std::function<void(at::Tensor& sum)>& visit);

  // In the parent's numeric type. `place` opens messages. Throws Error(kNumeric).
  [[nodiscard]] LayerVariants solve(const std::string& place) const;

 private:
  struct Sums;

  void solve_attention(const std::string& place, LayerVariants& variants) const;
  void solve_widths(const std::string& place, LayerVariants& variants) const;
  void solve_linear_ffn(const std::string& place, LayerVariants& variants) const;

  const ModelSpec& spec_;
  const LayerWeights& parent_;
  const Geometry& geometry_;
  LayerSpace space_;
  LayerInitOptions options_;
  std::unique_ptr<Sums> sums_;
};

}  // namespace puzzle
