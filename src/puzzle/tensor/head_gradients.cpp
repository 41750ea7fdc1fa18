#include "puzzle/tensor/head_gradients.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/tensor/head_chunk.h"

namespace puzzle {
namespace {

// [n, S] labels: the first of the vocabulary whose cumulative probability exceeds the number.
at::Tensor draw_labels(const at::Tensor& probs_NV, const at::Tensor& uniforms_NS) {
  const at::Tensor cumulative = probs_NV.cumsum(-1);
  // Rounding leaves the last sum a little off 1.
  const at::Tensor scaled =
      uniforms_NS.to(cumulative.scalar_type()) * cumulative.narrow(-1, cumulative.size(-1) - 1, 1);
  return at::searchsorted(cumulative, scaled.contiguous(), /*out_int32=*/false, /*right=*/true)
      .clamp_max(probs_NV.size(-1) - 1);
}

}  // namespace

HeadGradients head_gradients(const HeadInput& model, const at::Tensor& uniforms_NS,
                             const HeadInput* parent, std::int64_t chunk_tokens) {
  const c10::NoGradGuard no_grad;
  const std::int64_t tokens = model.hidden_ND.size(0);
  const std::int64_t width = model.hidden_ND.size(1);
  const std::int64_t samples = uniforms_NS.size(1);
  const auto options = model.hidden_ND.options().dtype(at::kFloat).requires_grad(false);
  HeadGradients result;
  result.sampled_SND = at::empty({samples, tokens, width}, options);
  if (parent != nullptr) {
    result.kl_ND = at::empty({tokens, width}, options);
    result.kl_N = at::empty({tokens}, options);
  }
  for (std::int64_t begin = 0; begin < tokens; begin += chunk_tokens) {
    const std::int64_t count = std::min(chunk_tokens, tokens - begin);
    const at::Tensor log_q = chunk_log_probs(model, begin, count);
    const at::Tensor q = log_q.exp();
    const at::Tensor labels_NS = draw_labels(q, uniforms_NS.narrow(0, begin, count));
    // Σ_v q_v head_v, the same for all samples.
    const at::Tensor mean_ND = q.to(model.head_VD.scalar_type()).matmul(model.head_VD);
    const at::Tensor mean_f = mean_ND.to(at::kFloat);
    for (std::int64_t s = 0; s < samples; ++s) {
      const at::Tensor rows = model.head_VD.index_select(0, labels_NS.select(1, s));
      result.sampled_SND.select(0, s).narrow(0, begin, count).copy_(rows.to(at::kFloat) - mean_f);
    }
    if (parent != nullptr) {
      at::Tensor log_p = chunk_log_probs(*parent, begin, count);
      const at::Tensor p = log_p.exp();
      const at::Tensor parent_mean = p.to(model.head_VD.scalar_type()).matmul(model.head_VD);
      result.kl_ND.narrow(0, begin, count).copy_(mean_f - parent_mean.to(at::kFloat));
      result.kl_N.narrow(0, begin, count).copy_(log_p.sub_(log_q).mul_(p).sum(-1));
    }
  }
  return result;
}

}  // namespace puzzle
