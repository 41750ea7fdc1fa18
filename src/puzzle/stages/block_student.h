// What learns in a layer under block-local distillation, and what all students of the layer share.
//
// A BlockStudent is a whole block of which one half or both are trained:
//   kAttention  own attention, the parent's FFN frozen behind it
//   kFfn        own FFN behind the parent's attention
//   kBlock      both halves its own
// Norms of the residual stream are never trained (see distill_blocks.h).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/model/decoder.h"
#include "puzzle/model/initialize.h"
#include "puzzle/stages/block_loss.h"
#include "puzzle/train/adamw.h"

namespace puzzle {

// One batch's pass through the parent's layer. Shape letters: B windows, T tokens, D hidden.
struct SharedBatch {
  at::Tensor input_BTD;  // entering the layer
  at::Tensor mid_BTD;    // after the parent's attention
  ParentPass parent;
  PassContext pass;
  BlockTarget target;        // the parent's block output
  at::Tensor delta_norm2{};  // Σ‖Δparent‖², fp64 scalar; Δ = output − input
};

// Makes no gradients.
[[nodiscard]] SharedBatch run_shared(const LayerWeights& parent, const Geometry& geometry,
                                     const at::Tensor& input_BTD, const PassContext& pass,
                                     BlockLoss loss);

enum class StudentRole {
  kAttention,
  kFfn,
  kBlock,
  kNestedFfn,  // all widths of the FFN together (nested_student.h)
};

struct StudentRates {
  double kv = 0.0;      // attention that is not linear
  double ffn = 0.0;     // FFN that is not linear
  double linear = 0.0;  // either
};

// What training works on: a copy whose matrices and biases require gradients, and the norm as it
// is.
template <class Weights>
[[nodiscard]] Weights trainable_copy(const Weights& weights) {
  Weights copy = clone(weights, true);
  copy.norm = weights.norm;
  return copy;
}

template <class Weights>
[[nodiscard]] AdamW optimizer_of(Weights& weights, const AdamWOptions& options) {
  std::vector<NamedParameter> parameters;
  visit_tensors(weights, TensorVisitor([&](const std::string& name, at::Tensor& tensor) {
                  if (tensor.requires_grad()) {
                    parameters.push_back({name, tensor});
                  }
                }));
  return {std::move(parameters), options};
}

// Whether what a norm gives can stand for what another would.
[[nodiscard]] bool is_same_norm(const at::Tensor& a, const at::Tensor& b);

// Sums over held-out batches; fp64 scalars on the device.
struct StudentErrors {
  at::Tensor loss_numerator;
  at::Tensor error2;  // Σ‖Δparent − Δ‖²

  void add(const SharedBatch& batch, const at::Tensor& output_BTD);
};

// One set of weights with its own optimiser, and one or more variants made from it.
class LayerStudent {
 public:
  LayerStudent() = default;
  virtual ~LayerStudent() = default;
  LayerStudent(const LayerStudent&) = delete;
  LayerStudent& operator=(const LayerStudent&) = delete;

  // One update at `factor` times the peak rates. Returns the loss before it, a detached fp64 scalar
  // on the device.
  virtual at::Tensor train_step(const SharedBatch& batch, double factor) = 0;

  // Add the errors of the present weights, or of the starting ones, to `errors`, one per variant.
  [[nodiscard]] virtual std::size_t num_variants() const = 0;
  virtual void add_errors(const SharedBatch& batch, std::span<StudentErrors> errors) const = 0;
  virtual void add_start_errors(const SharedBatch& batch,
                                std::span<StudentErrors> errors) const = 0;
};

// One variant of a half, or of both halves of a block.
class BlockStudent : public LayerStudent {
 public:
  // `name` as in VariantRow; `start` shares its tensors and is never written to; the frozen half
  // must be the parent's. `geometry` must outlive the student. Weights must be fp32.
  BlockStudent(std::string name, StudentRole role, LayerWeights start, const LayerWeights& parent,
               const Geometry& geometry, const StudentRates& rates, const AdamWOptions& options);

  // What training made of it; tensors require no gradient.
  [[nodiscard]] LayerWeights trained() const;

  at::Tensor train_step(const SharedBatch& batch, double factor) override;
  [[nodiscard]] std::size_t num_variants() const override { return 1; }
  void add_errors(const SharedBatch& batch, std::span<StudentErrors> errors) const override;
  void add_start_errors(const SharedBatch& batch, std::span<StudentErrors> errors) const override;

 private:
  // One half with its own optimiser; a pair has two, each at the rate of its kind.
  struct Half {
    AdamW optimizer;
    double peak_rate;
  };

  [[nodiscard]] at::Tensor output(const LayerWeights& block, const SharedBatch& batch) const;

  std::string name_;
  StudentRole role_;
  LayerWeights start_;
  LayerWeights block_;
  const Geometry& geometry_;
  bool shares_attention_input_;
  bool shares_ffn_input_;
  std::vector<Half> halves_;
};

}  // namespace puzzle
