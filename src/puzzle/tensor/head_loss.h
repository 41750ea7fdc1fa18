// Losses behind the vocabulary projection, computed chunk by chunk: no [tokens, vocabulary] tensor
// of more than one chunk ever exists.
//
// Shape letters: N tokens, D hidden, V vocabulary. "Hidden" here is after the final norm.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace puzzle {

// Per token, [N] fp32; an undefined tensor where it was not asked for.
struct TokenLosses {
  at::Tensor kl;          // Σ_v p log(p/q), nats; p from the parent, q from the child
  at::Tensor nll;         // -log q(label), nats
  at::Tensor parent_nll;  // -log p(label), nats
  at::Tensor top1_agree;  // 1 where both have the same most likely token
};

// Logits are products in the head's type; what comes after them is fp32.
struct HeadInput {
  at::Tensor hidden_ND;
  at::Tensor head_VD;
};

// No gradients. `labels` int64 [N] or undefined (then neither nll nor top1: who asks for the KL
// alone pays for no search of vocabularies); a label of -100 gives 0. `parent` may be null (then
// neither kl nor top1). `chunk_tokens` bounds memory: chunk × V × 4 bytes × 3
// with a parent, and one chunk in the head's own type where that is not fp32.
[[nodiscard]] TokenLosses token_losses(const HeadInput* parent, const HeadInput& child,
                                       const at::Tensor& labels, std::int64_t chunk_tokens = 256);

// The same for several children of one parent, whose distribution is computed once per chunk.
[[nodiscard]] std::vector<TokenLosses> token_losses(const HeadInput* parent,
                                                    const std::vector<HeadInput>& children,
                                                    const at::Tensor& labels,
                                                    std::int64_t chunk_tokens = 256);

struct HeadLossWeights {
  double kl = 1.0;  // KL(parent ‖ child)
  double lm = 0.0;  // cross-entropy with the labels
};

// Mean over tokens of kl·KL + lm·CE as one differentiable scalar. The gradient with respect to
// child.hidden_ND (and child.head_VD where that requires grad) is computed in the forward pass,
// chunk by chunk, and kept instead of logits. Gradients: ∂KL/∂logits = q − p, ∂CE/∂logits = q −
// onehot. `kl_mean_out`, if not null, receives the detached mean KL (a device scalar), 0 where
// weights.kl is 0: the parent's distribution is not computed then.
[[nodiscard]] at::Tensor head_loss(const HeadInput& parent, const HeadInput& child,
                                   const at::Tensor& labels, const HeadLossWeights& weights,
                                   at::Tensor* kl_mean_out, std::int64_t chunk_tokens = 256);

}  // namespace puzzle
