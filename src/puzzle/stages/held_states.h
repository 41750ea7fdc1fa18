// Hidden states of a part's tokens, held in memory while a stage walks through the layers: N × D of
// the model's numeric type, whatever the depth.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/data/token_batches.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

// Windows of one rank in batches; shape letters: B windows of a batch, T tokens per window.
class HeldStates {
 public:
  // The embedded tokens of this rank's share of `part`, in batches of about `batch_tokens`.
  HeldStates(const LoadedModel& model, const TokenPart& part, RankShare share,
             std::int64_t batch_tokens);

  [[nodiscard]] std::int64_t num_batches() const { return std::ssize(batches_); }
  [[nodiscard]] std::int64_t num_windows() const { return share_.count(); }
  [[nodiscard]] std::int64_t num_windows(std::int64_t batch) const;

  // [B, T, D]: what enters the next layer.
  [[nodiscard]] const at::Tensor& states(std::int64_t batch) const;
  void replace(std::int64_t batch, at::Tensor states_BTD);
  // With the document mask where the part forbids crossing.
  [[nodiscard]] PassContext pass(std::int64_t batch) const;

  // Applies a parent layer to one batch, or to all.
  void advance(std::int64_t batch, const LayerWeights& layer);
  void advance(const LayerWeights& layer);

  // ‖h‖² after `layer` of the tokens of every `stride`th window of the part (counted over all
  // ranks), fp32, this rank's; the states stay as they are.
  [[nodiscard]] std::vector<float> sampled_norms(const LayerWeights& layer,
                                                 std::int64_t stride) const;

 private:
  struct Batch {
    at::Tensor states_BTD;
    at::Tensor document_ids_BT;  // defined where a mask is needed
  };

  const Geometry& geometry_;
  IndexRange share_;
  RotaryAngles angles_;
  std::int64_t batch_windows_ = 1;
  std::vector<Batch> batches_;
};

// Squared norms over the last dimension, in fp32.
[[nodiscard]] at::Tensor squared_norms(const at::Tensor& x);

}  // namespace puzzle
