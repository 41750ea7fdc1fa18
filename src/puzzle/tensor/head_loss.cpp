#include "puzzle/tensor/head_loss.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "puzzle/base/error.h"
#include "puzzle/tensor/head_chunk.h"

namespace puzzle {

at::Tensor chunk_log_probs(const HeadInput& input, std::int64_t begin, std::int64_t count) {
  at::Tensor logits =
      at::linear(input.hidden_ND.narrow(0, begin, count).to(input.head_VD.scalar_type()),
                 input.head_VD)
          .to(at::kFloat);
  return at::_log_softmax_out(logits, logits, -1, /*half_to_float=*/false);
}

namespace {

at::Tensor label_nll(const at::Tensor& log_q_NV, const at::Tensor& labels_N) {
  const at::Tensor valid = labels_N.ge(0);
  const at::Tensor picked = log_q_NV.gather(1, labels_N.clamp_min(0).unsqueeze(1)).squeeze(1);
  return -(picked * valid.to(picked.scalar_type()));
}

struct ParentChunk {
  at::Tensor log_probs, probs, top, nll;
};

TokenLosses empty_losses(const HeadInput& child, bool with_parent, bool with_labels) {
  const auto options = child.hidden_ND.options().dtype(at::kFloat);
  const auto make = [&](bool wanted) {
    return wanted ? at::empty({child.hidden_ND.size(0)}, options) : at::Tensor();
  };
  return {.kl = make(with_parent),
          .nll = make(with_labels),
          .parent_nll = make(with_parent && with_labels),
          .top1_agree = make(with_parent && with_labels)};
}

class HeadLossFunction : public torch::autograd::Function<HeadLossFunction> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& hidden_ND,
                                                const at::Tensor& head_VD,
                                                const at::Tensor& parent_hidden_ND,
                                                const at::Tensor& parent_head_VD,
                                                const at::Tensor& labels_N, double kl_weight,
                                                double lm_weight, std::int64_t chunk_tokens) {
    const c10::NoGradGuard no_grad;
    const HeadInput parent{parent_hidden_ND, parent_head_VD};
    const HeadInput child{hidden_ND, head_VD};
    const std::int64_t tokens = hidden_ND.size(0);
    const double scale = 1.0 / static_cast<double>(tokens);
    const bool head_grad = head_VD.requires_grad();
    at::Tensor hidden_gradient = at::empty_like(hidden_ND);
    // Summed over chunks in fp32, whatever the products are in.
    at::Tensor head_gradient =
        head_grad ? at::zeros(head_VD.sizes(), head_VD.options().dtype(at::kFloat)) : at::Tensor();
    at::Tensor kl_sum = at::zeros({}, hidden_ND.options().dtype(at::kFloat));
    at::Tensor lm_sum = at::zeros_like(kl_sum);
    for (std::int64_t begin = 0; begin < tokens; begin += chunk_tokens) {
      const std::int64_t count = std::min(chunk_tokens, tokens - begin);
      at::Tensor log_q = chunk_log_probs(child, begin, count);
      at::Tensor p;
      if (kl_weight != 0.0) {
        at::Tensor log_p = chunk_log_probs(parent, begin, count);
        p = log_p.exp();
        kl_sum += log_p.sub_(log_q).mul_(p).sum();
      }
      if (lm_weight != 0.0) {
        lm_sum += label_nll(log_q, labels_N.narrow(0, begin, count)).sum();
      }
      at::Tensor gradient = log_q.exp_();  // q
      if (lm_weight == 0.0) {
        gradient.mul_(kl_weight * scale);
      } else {
        const at::Tensor labels = labels_N.narrow(0, begin, count).unsqueeze(1);
        const at::Tensor valid = labels.ge(0);
        gradient.mul_(at::where(valid, (kl_weight + lm_weight) * scale, kl_weight * scale)
                          .to(gradient.scalar_type()));
        gradient.scatter_add_(1, labels.clamp_min(0),
                              valid.to(gradient.scalar_type()) * (-lm_weight * scale));
      }
      if (kl_weight != 0.0) {
        gradient.add_(p, -kl_weight * scale);
      }
      const at::Tensor typed = gradient.to(head_VD.scalar_type());
      hidden_gradient.narrow(0, begin, count).copy_(typed.matmul(head_VD));
      if (head_grad) {
        const at::Tensor hidden = hidden_ND.narrow(0, begin, count).to(typed.scalar_type());
        if (typed.scalar_type() == at::kFloat) {
          head_gradient.addmm_(typed.t(), hidden);
        } else {
          head_gradient.add_(typed.t().matmul(hidden));
        }
      }
    }
    context->save_for_backward({hidden_gradient, head_gradient});
    context->saved_data["head_type"] = head_VD.scalar_type();
    const at::Tensor kl_mean = kl_sum * scale;
    const at::Tensor loss = kl_mean * kl_weight + lm_sum * (lm_weight * scale);
    context->mark_non_differentiable({kl_mean});
    return {loss, kl_mean};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& outer = gradients[0];
    at::Tensor hidden_gradient = saved[0] * outer.to(saved[0].scalar_type());
    at::Tensor head_gradient;
    if (saved[1].defined()) {
      head_gradient = (saved[1] * outer.to(saved[1].scalar_type()))
                          .to(context->saved_data["head_type"].toScalarType());
    }
    return {hidden_gradient, head_gradient, {}, {}, {}, {}, {}, {}};
  }
};

}  // namespace

TokenLosses token_losses(const HeadInput* parent, const HeadInput& child, const at::Tensor& labels,
                         std::int64_t chunk_tokens) {
  return token_losses(parent, std::vector<HeadInput>{child}, labels, chunk_tokens).front();
}

std::vector<TokenLosses> token_losses(const HeadInput* parent,
                                      const std::vector<HeadInput>& children,
                                      const at::Tensor& labels, std::int64_t chunk_tokens) {
  const c10::NoGradGuard no_grad;
  std::vector<TokenLosses> losses;
  losses.reserve(children.size());
  for (const HeadInput& child : children) {
    losses.push_back(empty_losses(child, parent != nullptr, labels.defined()));
  }
  const std::int64_t tokens = children.empty() ? 0 : children.front().hidden_ND.size(0);
  for (std::int64_t begin = 0; begin < tokens; begin += chunk_tokens) {
    const std::int64_t count = std::min(chunk_tokens, tokens - begin);
    const at::Tensor chunk_labels = labels.defined() ? labels.narrow(0, begin, count) : labels;
    ParentChunk p;
    if (parent != nullptr) {
      p.log_probs = chunk_log_probs(*parent, begin, count);
      p.probs = p.log_probs.exp();
      if (labels.defined()) {
        p.top = p.log_probs.argmax(-1);
        p.nll = label_nll(p.log_probs, chunk_labels);
      }
    }
    for (std::size_t c = 0; c < children.size(); ++c) {
      at::Tensor log_q = chunk_log_probs(children[c], begin, count);
      if (labels.defined()) {
        losses[c].nll.narrow(0, begin, count).copy_(label_nll(log_q, chunk_labels));
      }
      if (parent != nullptr) {
        if (labels.defined()) {
          losses[c].parent_nll.narrow(0, begin, count).copy_(p.nll);
          losses[c].top1_agree.narrow(0, begin, count).copy_(p.top.eq(log_q.argmax(-1)));
        }
        losses[c]
            .kl.narrow(0, begin, count)
            .copy_(log_q.neg_().add_(p.log_probs).mul_(p.probs).sum(-1));
      }
    }
  }
  return losses;
}

at::Tensor head_loss(const HeadInput& parent, const HeadInput& child, const at::Tensor& labels,
                     const HeadLossWeights& weights, at::Tensor* kl_mean_out,
                     std::int64_t chunk_tokens) {
  PUZZLE_CHECK(weights.lm == 0.0 || labels.defined(), "the LM loss needs labels");
  const auto outputs =
      HeadLossFunction::apply(child.hidden_ND, child.head_VD, parent.hidden_ND, parent.head_VD,
                              labels, weights.kl, weights.lm, chunk_tokens);
  if (kl_mean_out != nullptr) {
    *kl_mean_out = outputs[1].detach();
  }
  return outputs[0];
}

}  // namespace puzzle
