// Losses between the parent's block output and a student's (paper 3).
//
//   mse        Σ ‖p − c‖² / Σ ‖p‖²            the paper's; giant tokens decide
//   token-mse  mean over tokens ‖p − c‖² / ‖p‖²
//   cosine     mean over tokens 1 − cos(p, c)
//
// Each is numerator / denominator, so that batches add up to the loss over all their tokens. What
// belongs to the parent alone is computed once per batch, whatever the number of students.
#pragma once

#include <string_view>

#include <ATen/core/Tensor.h>

namespace puzzle {

enum class BlockLoss { kMse, kTokenMse, kCosine };

// Throws Error(kUsage) for another name.
[[nodiscard]] BlockLoss parse_block_loss(std::string_view name);

// Shape letters: B windows, T tokens, D hidden.
class BlockTarget {
 public:
  BlockTarget(BlockLoss kind, at::Tensor output_BTD);

  // fp64 scalars on the device; gradients flow into `student_BTD`.
  [[nodiscard]] at::Tensor numerator(const at::Tensor& student_BTD) const;
  [[nodiscard]] const at::Tensor& denominator() const { return denominator_; }
  [[nodiscard]] at::Tensor loss(const at::Tensor& student_BTD) const;

  [[nodiscard]] const at::Tensor& output() const { return output_BTD_; }

 private:
  BlockLoss kind_;
  at::Tensor output_BTD_;
  at::Tensor token_weights_BT_;  // token-mse: 1/‖p‖²; cosine: 1/‖p‖; undefined for mse
  at::Tensor denominator_;
};

}  // namespace puzzle
