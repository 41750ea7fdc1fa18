#include "puzzle/stages/block_student.h"

#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

void accumulate(at::Tensor& sum, const at::Tensor& value) {
  sum = sum.defined() ? sum + value : value;
}

}  // namespace

bool is_same_norm(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() && b.defined() && at::equal(a, b);
}

SharedBatch run_shared(const LayerWeights& parent, const Geometry& geometry,
                       const at::Tensor& input_BTD, const PassContext& pass, BlockLoss loss) {
  const c10::NoGradGuard no_grad;
  ParentPass parent_pass = run_parent_layer(parent, geometry, input_BTD, pass);
  const at::Tensor mid =
      parent_pass.attention_y.defined() ? input_BTD + parent_pass.attention_y : input_BTD;
  const at::Tensor output = parent_pass.output;
  parent_pass.ffn_features = at::Tensor();  // nobody needs them; they are the largest
  SharedBatch batch{input_BTD, mid, std::move(parent_pass), pass, BlockTarget(loss, output)};
  batch.delta_norm2 = (output - input_BTD).square().sum(at::kDouble);
  return batch;
}

void StudentErrors::add(const SharedBatch& batch, const at::Tensor& output_BTD) {
  accumulate(loss_numerator, batch.target.numerator(output_BTD));
  accumulate(error2, (output_BTD - batch.target.output()).square().sum(at::kDouble));
}

BlockStudent::BlockStudent(std::string name, StudentRole role, LayerWeights start,
                           const LayerWeights& parent, const Geometry& geometry,
                           const StudentRates& rates, const AdamWOptions& options)
    : name_(std::move(name)),
      role_(role),
      start_(std::move(start)),
      block_(start_),
      geometry_(geometry),
      shares_attention_input_(is_same_norm(start_.attention.norm, parent.attention.norm)),
      shares_ffn_input_(is_same_norm(start_.ffn.norm, parent.ffn.norm)) {
  if (role_ != StudentRole::kFfn && start_.attention.spec.kind != AttentionKind::kNone) {
    block_.attention = trainable_copy(start_.attention);
    const bool is_linear = start_.attention.spec.kind == AttentionKind::kLinear;
    halves_.push_back(
        {optimizer_of(block_.attention, options), is_linear ? rates.linear : rates.kv});
  }
  if (role_ != StudentRole::kAttention && start_.ffn.spec.kind != FfnKind::kNone) {
    block_.ffn = trainable_copy(start_.ffn);
    const bool is_linear = start_.ffn.spec.kind == FfnKind::kLinear;
    halves_.push_back({optimizer_of(block_.ffn, options), is_linear ? rates.linear : rates.ffn});
  }
  PUZZLE_CHECK(!halves_.empty(), "{} has nothing to train", name_);
}

LayerWeights BlockStudent::trained() const {
  LayerWeights weights = block_;
  visit_tensors(weights, TensorVisitor([](const std::string&, at::Tensor& tensor) {
                  tensor = tensor.detach();
                }));
  return weights;
}

at::Tensor BlockStudent::output(const LayerWeights& block, const SharedBatch& batch) const {
  if (role_ == StudentRole::kFfn) {
    const at::Tensor xn =
        shares_ffn_input_ ? batch.parent.ffn_xn : ffn_input(block.ffn, geometry_, batch.mid_BTD);
    return batch.mid_BTD + ffn_output(block.ffn, ffn_features(block.ffn, xn));
  }
  at::Tensor mid = batch.input_BTD;
  if (block.attention.spec.kind != AttentionKind::kNone) {
    const at::Tensor xn = shares_attention_input_
                              ? batch.parent.attention_xn
                              : attention_input(block.attention, geometry_, batch.input_BTD);
    mid = mid + attention_output(block.attention,
                                 attention_features(block.attention, geometry_, xn, batch.pass));
  }
  return apply_ffn(block.ffn, geometry_, mid);
}

at::Tensor BlockStudent::train_step(const SharedBatch& batch, double factor) {
  at::Tensor loss;
  {
    const c10::AutoGradMode gradients(true);
    loss = batch.target.loss(output(block_, batch));
    loss.backward();
  }
  for (Half& half : halves_) {
    half.optimizer.step(half.peak_rate * factor);
    half.optimizer.zero_grad();
  }
  return loss.detach();
}

void BlockStudent::add_errors(const SharedBatch& batch, std::span<StudentErrors> errors) const {
  const c10::NoGradGuard no_grad;
  errors.front().add(batch, output(block_, batch));
}

void BlockStudent::add_start_errors(const SharedBatch& batch,
                                    std::span<StudentErrors> errors) const {
  const c10::NoGradGuard no_grad;
  errors.front().add(batch, output(start_, batch));
}

}  // namespace puzzle
