#include "puzzle/model/initialize.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/model/ffn_order.h"
#include "puzzle/tensor/ridge.h"

namespace puzzle {
namespace {

// Rows [K·E, …] -> [k·E, …]: mean over neighbouring heads.
at::Tensor pool_head_rows(const at::Tensor& rows, std::int64_t kv_heads, std::int64_t head_dim) {
  if (!rows.defined()) {
    return rows;
  }
  std::vector<std::int64_t> shape = rows.sizes().vec();
  shape[0] = kv_heads * head_dim;
  return rows.reshape({kv_heads, -1, head_dim, rows.numel() / rows.size(0)}).mean(1).reshape(shape);
}

at::Tensor select_rows(const at::Tensor& rows, const at::Tensor& channels) {
  return rows.defined() ? rows.index_select(0, channels) : rows;
}

at::Tensor without_bias(const at::Tensor& y, const at::Tensor& bias) {
  return bias.defined() ? y - bias : y;
}

AttentionWeights linear_attention(const AttentionWeights& parent, at::Tensor matrix) {
  AttentionWeights weights;
  weights.spec = AttentionSpec::linear();
  weights.norm = parent.norm;
  weights.linear = std::move(matrix);
  return weights;
}

FfnWeights linear_ffn(const FfnWeights& parent, at::Tensor matrix) {
  FfnWeights weights;
  weights.spec = FfnSpec::linear();
  weights.norm = parent.norm;
  weights.linear = std::move(matrix);
  return weights;
}

void note_raised(LayerVariants& variants, const std::string& fit, double used, double asked) {
  if (used > asked) {
    variants.raised_lambda[fit] = used;
  }
}

}  // namespace

ParentPass run_parent_layer(const LayerWeights& parent, const Geometry& geometry,
                            const at::Tensor& x_BTD, const PassContext& pass) {
  ParentPass result;
  at::Tensor x = x_BTD;
  if (parent.attention.spec.kind != AttentionKind::kNone) {
    result.attention_xn = attention_input(parent.attention, geometry, x);
    result.attention_y =
        attention_output(parent.attention,
                         attention_features(parent.attention, geometry, result.attention_xn, pass));
    x = x + result.attention_y;
  }
  if (parent.ffn.spec.kind != FfnKind::kNone) {
    result.ffn_xn = ffn_input(parent.ffn, geometry, x);
    result.ffn_features = ffn_features(parent.ffn, result.ffn_xn);
    result.ffn_y = ffn_output(parent.ffn, result.ffn_features);
    x = x + result.ffn_y;
  }
  result.output = x;
  return result;
}

AttentionWeights pool_kv_heads(const ModelSpec& spec, const AttentionWeights& parent,
                               std::int64_t kv_heads) {
  PUZZLE_CHECK(parent.spec.kind == AttentionKind::kGqa && kv_heads > 0 &&
                   parent.spec.kv_heads % kv_heads == 0,
               "{} KV heads of {}", kv_heads, parent.spec.name());
  AttentionWeights weights = parent;
  weights.spec = AttentionSpec::gqa(kv_heads);
  for (at::Tensor* rows : {&weights.k, &weights.v, &weights.k_bias, &weights.v_bias}) {
    *rows = pool_head_rows(*rows, kv_heads, spec.head_dim);
  }
  return weights;
}

at::Tensor paper_linear_attention(const ModelSpec& spec, const AttentionWeights& parent) {
  const std::int64_t repeats = spec.num_heads / parent.spec.kv_heads;
  const at::Tensor v = parent.v.to(at::kDouble)
                           .view({parent.spec.kv_heads, 1, spec.head_dim, spec.hidden_size})
                           .expand({-1, repeats, -1, -1})
                           .reshape({spec.num_heads * spec.head_dim, spec.hidden_size});
  return at::mm(parent.o.to(at::kDouble), v).to(parent.o.scalar_type());
}

at::Tensor paper_linear_ffn(const FfnWeights& parent) {
  return at::mm(parent.down.to(at::kDouble), parent.up.to(at::kDouble))
      .to(parent.down.scalar_type());
}

at::Tensor paper_ffn_order(const at::Tensor& mean_abs_features_F, const at::Tensor& down_DF) {
  const at::Tensor contribution =
      mean_abs_features_F.to(at::kDouble) * down_DF.to(at::kDouble).square().sum(0).sqrt();
  return contribution.argsort(/*stable=*/true, 0, /*descending=*/true);
}

FfnWeights keep_channels(const FfnWeights& parent, const at::Tensor& channels, at::Tensor down) {
  PUZZLE_CHECK(parent.spec.kind == FfnKind::kSwiglu && down.size(1) == channels.size(0),
               "{} channels, a down projection of {}", channels.size(0), down.size(1));
  FfnWeights weights = parent;
  weights.spec = FfnSpec::swiglu(channels.size(0));
  for (at::Tensor* rows : {&weights.gate, &weights.up, &weights.gate_bias, &weights.up_bias}) {
    *rows = select_rows(*rows, channels);
  }
  weights.down = down.to(parent.down.scalar_type()).contiguous();
  return weights;
}

// Only what the space asks for is gathered.
struct LayerInitializer::Sums {
  std::map<AttentionSpec, AttentionWeights> pooled;  // before W_o is refitted
  std::map<AttentionSpec, Gram> pooled_grams;
  std::optional<Gram> linear_attention;
  std::optional<Gram> linear_ffn;
  std::optional<Gram> ffn_width;
  at::Tensor abs_features_F;  // fp64; with the count, for the paper's contribution
  at::Tensor num_tokens;      // fp64 [1]
};

LayerInitializer::LayerInitializer(const ModelSpec& spec, const LayerWeights& parent,
                                   const Geometry& geometry, const LayerSpace& space,
                                   LayerInitOptions options)
    : spec_(spec),
      parent_(parent),
      geometry_(geometry),
      space_(space),
      options_(options),
      sums_(std::make_unique<Sums>()) {
  const bool least_squares = options_.method == InitMethod::kLeastSquares;
  const std::int64_t hidden = spec.hidden_size;
  const auto drop_own = [](auto& variants, const auto& own) {
    std::erase_if(variants, [&](const auto& variant) {
      return variant == own || variant == std::decay_t<decltype(own)>{};
    });
  };
  drop_own(space_.attention, parent.attention.spec);
  drop_own(space_.ffn, parent.ffn.spec);
  for (const AttentionSpec& variant : space_.attention) {
    const c10::Device device = parent.attention.norm.device();
    if (variant.kind == AttentionKind::kGqa) {
      sums_->pooled[variant] = pool_kv_heads(spec, parent.attention, variant.kv_heads);
      if (least_squares) {
        sums_->pooled_grams.emplace(variant, Gram(spec.num_heads * spec.head_dim, hidden, device));
      }
    } else if (least_squares) {
      sums_->linear_attention.emplace(hidden, hidden, device);
    }
  }
  for (const FfnSpec& variant : space_.ffn) {
    const c10::Device device = parent.ffn.norm.device();
    const auto sum_options = at::TensorOptions(at::kDouble).device(device);
    if (variant.kind == FfnKind::kLinear && least_squares) {
      sums_->linear_ffn.emplace(hidden, hidden, device);
    } else if (variant.kind == FfnKind::kSwiglu && least_squares && !sums_->ffn_width) {
      sums_->ffn_width.emplace(parent.ffn.spec.width, 0, device);
    } else if (variant.kind == FfnKind::kSwiglu && !sums_->abs_features_F.defined()) {
      sums_->abs_features_F = at::zeros({parent.ffn.spec.width}, sum_options);
      sums_->num_tokens = at::zeros({1}, sum_options);
    }
  }
}

LayerInitializer::~LayerInitializer() = default;

void LayerInitializer::add(const ParentPass& parent_pass, const PassContext& pass,
                           const at::Tensor& token_weights) {
  const c10::NoGradGuard no_grad;
  for (auto& [variant, gram] : sums_->pooled_grams) {
    const at::Tensor features =
        attention_features(sums_->pooled.at(variant), geometry_, parent_pass.attention_xn, pass);
    gram.add(features, without_bias(parent_pass.attention_y, parent_.attention.o_bias),
             token_weights);
  }
  if (sums_->linear_attention) {
    sums_->linear_attention->add(parent_pass.attention_xn, parent_pass.attention_y, token_weights);
  }
  if (sums_->linear_ffn) {
    sums_->linear_ffn->add(parent_pass.ffn_xn, parent_pass.ffn_y, token_weights);
  }
  if (sums_->ffn_width) {
    sums_->ffn_width->add(parent_pass.ffn_features, at::Tensor(), token_weights);
  }
  if (sums_->abs_features_F.defined()) {
    const at::Tensor x_NF = parent_pass.ffn_features.flatten(0, -2).to(at::kFloat);
    sums_->abs_features_F.add_(x_NF.abs().sum(0));
    sums_->num_tokens.add_(static_cast<double>(x_NF.size(0)));
  }
}

void LayerInitializer::visit_sums(const std::function<void(at::Tensor& sum)>& visit) {
  for (auto& [variant, gram] : sums_->pooled_grams) {
    gram.visit_sums(visit);
  }
  for (std::optional<Gram>* gram :
       {&sums_->linear_attention, &sums_->linear_ffn, &sums_->ffn_width}) {
    if (*gram) {
      (*gram)->visit_sums(visit);
    }
  }
  if (sums_->abs_features_F.defined()) {
    visit(sums_->abs_features_F);
    visit(sums_->num_tokens);
  }
}

LayerVariants LayerInitializer::solve(const std::string& place) const {
  const c10::NoGradGuard no_grad;
  LayerVariants variants;
  solve_attention(place, variants);
  solve_widths(place, variants);
  solve_linear_ffn(place, variants);
  return variants;
}

void LayerInitializer::solve_attention(const std::string& place, LayerVariants& variants) const {
  const AttentionWeights& parent = parent_.attention;
  for (const AttentionSpec& variant : space_.attention) {
    const std::string name = "attention/" + variant.name();
    const std::string fit_place = place + ", " + name;
    if (variant.kind == AttentionKind::kGqa) {
      AttentionWeights weights = sums_->pooled.at(variant);
      if (const auto gram = sums_->pooled_grams.find(variant); gram != sums_->pooled_grams.end()) {
        const RidgeFit fit = refit_ridge(gram->second, parent.o, options_.lambda, fit_place);
        weights.o = fit.weight.to(parent.o.scalar_type());
        note_raised(variants, name, fit.lambda, options_.lambda);
      }
      variants.attention[variant] = std::move(weights);
    } else if (sums_->linear_attention) {
      const RidgeFit fit = solve_ridge(*sums_->linear_attention, options_.lambda, fit_place);
      variants.attention[variant] =
          linear_attention(parent, fit.weight.to(parent.norm.scalar_type()));
      note_raised(variants, name, fit.lambda, options_.lambda);
    } else {
      variants.attention[variant] = linear_attention(parent, paper_linear_attention(spec_, parent));
    }
  }
}

void LayerInitializer::solve_widths(const std::string& place, LayerVariants& variants) const {
  const FfnWeights& parent = parent_.ffn;
  for (const FfnSpec& variant : space_.ffn) {
    if (variant.kind == FfnKind::kSwiglu) {
      variants.widths.push_back(variant.width);
    }
  }
  if (variants.widths.empty()) {
    return;
  }
  std::ranges::sort(variants.widths);
  const std::int64_t largest = variants.widths.back();
  if (sums_->ffn_width) {
    const FfnOrder order =
        order_ffn_channels(sums_->ffn_width->xx(), parent.down, options_.lambda, place + ", ffn");
    variants.nested = nest_ffn(parent, order, largest);
    note_raised(variants, "ffn", order.lambda, options_.lambda);
  } else {
    const at::Tensor channels =
        paper_ffn_order(sums_->abs_features_F / sums_->num_tokens, parent.down)
            .narrow(0, 0, largest);
    variants.nested = NestedFfn{
        keep_channels(parent, channels, parent.down.index_select(1, channels)), at::Tensor()};
  }
}

void LayerInitializer::solve_linear_ffn(const std::string& place, LayerVariants& variants) const {
  const FfnSpec linear = FfnSpec::linear();
  if (std::ranges::find(space_.ffn, linear) == space_.ffn.end()) {
    return;
  }
  const FfnWeights& parent = parent_.ffn;
  if (sums_->linear_ffn) {
    const std::string name = "ffn/" + linear.name();
    const RidgeFit fit = solve_ridge(*sums_->linear_ffn, options_.lambda, place + ", " + name);
    variants.ffn[linear] = linear_ffn(parent, fit.weight.to(parent.norm.scalar_type()));
    note_raised(variants, name, fit.lambda, options_.lambda);
  } else {
    variants.ffn[linear] = linear_ffn(parent, paper_linear_ffn(parent));
  }
}

}  // namespace puzzle
