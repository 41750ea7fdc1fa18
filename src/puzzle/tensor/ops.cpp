#include "puzzle/tensor/ops.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"

namespace puzzle {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return at::rms_norm(x, weight.sizes(), weight, eps);
}

RotaryAngles make_rotary_angles(const at::Tensor& inverse_frequencies, double attention_factor,
                                const at::Tensor& positions, c10::ScalarType type,
                                const c10::Device& device) {
  const at::Tensor angles = positions.to(at::kCPU, at::kDouble).unsqueeze(-1) * inverse_frequencies;
  at::Tensor cos = (angles.cos() * attention_factor).to(device, type);
  at::Tensor sin = (angles.sin() * attention_factor).to(device, type);
  if (positions.dim() == 2) {
    cos = cos.unsqueeze(1);
    sin = sin.unsqueeze(1);
  }
  return {cos, sin};
}

at::Tensor apply_rotary(const at::Tensor& x_BHTE, const RotaryAngles& angles) {
  const std::int64_t half = x_BHTE.size(-1) / 2;
  const at::Tensor low = x_BHTE.narrow(-1, 0, half);
  const at::Tensor high = x_BHTE.narrow(-1, half, half);
  if (c10::GradMode::is_enabled() && x_BHTE.requires_grad()) {
    return at::cat({low * angles.cos - high * angles.sin, high * angles.cos + low * angles.sin},
                   -1);
  }
  at::Tensor result = at::empty_like(x_BHTE);
  at::Tensor result_low = result.narrow(-1, 0, half);
  at::Tensor result_high = result.narrow(-1, half, half);
  at::mul_out(result_low, low, angles.cos);
  result_low.addcmul_(high, angles.sin, -1);
  at::mul_out(result_high, high, angles.cos);
  result_high.addcmul_(low, angles.sin);
  return result;
}

at::Tensor repeat_heads(const at::Tensor& x_BKSE, std::int64_t num_heads) {
  const std::int64_t kv_heads = x_BKSE.size(1);
  PUZZLE_CHECK(num_heads % kv_heads == 0, "{} heads for {} queries", kv_heads, num_heads);
  return x_BKSE.unsqueeze(2)
      .expand({x_BKSE.size(0), kv_heads, num_heads / kv_heads, x_BKSE.size(2), x_BKSE.size(3)})
      .reshape({x_BKSE.size(0), num_heads, x_BKSE.size(2), x_BKSE.size(3)});
}

at::Tensor attention(const at::Tensor& q_BHTE, const at::Tensor& k_BKSE, const at::Tensor& v_BKSE,
                     const at::Tensor& mask) {
  const std::int64_t new_tokens = q_BHTE.size(2);
  const std::int64_t all_tokens = k_BKSE.size(2);
  PUZZLE_CHECK(mask.defined() || new_tokens == all_tokens || new_tokens == 1,
               "{} new tokens over {} need a mask", new_tokens, all_tokens);
  const bool causal = !mask.defined() && new_tokens == all_tokens && new_tokens > 1;
  const std::optional<at::Tensor> attn_mask = mask.defined() ? std::optional(mask) : std::nullopt;
  const std::int64_t num_heads = q_BHTE.size(1);
  const bool grouped = num_heads != k_BKSE.size(1);
  // On CUDA only flash attention knows groups, and that takes half types without a mask. For the
  // rest the scores of all pairs [B, H, T, S] would be written out, where with as many keys as
  // queries the memory-efficient kernel runs.
  const bool has_flash = q_BHTE.scalar_type() != at::kFloat && !mask.defined();
  if (grouped && q_BHTE.is_cuda() && !has_flash) {
    return at::scaled_dot_product_attention(q_BHTE, repeat_heads(k_BKSE, num_heads),
                                            repeat_heads(v_BKSE, num_heads), attn_mask, 0.0,
                                            causal);
  }
  return at::scaled_dot_product_attention(q_BHTE, k_BKSE, v_BKSE, attn_mask, 0.0, causal,
                                          std::nullopt, grouped);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  if (c10::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad())) {
    return at::silu(gate) * up;
  }
  return at::silu(gate).mul_(up);
}

}  // namespace puzzle
