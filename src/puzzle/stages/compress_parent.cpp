#include "puzzle/stages/compress_parent.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/cost.h"
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/child_folder.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/tensor/ridge.h"

namespace puzzle {
namespace {

constexpr std::int64_t kCompressVersion = 1;
constexpr const char* kCompressStage = "compress";
// Keeps L invertible; far below what calibration tokens determine.
constexpr double kLowRankRidge = 1e-4;

// Matrices that read the same input.
struct SharedInput {
  std::vector<at::Tensor*> matrices;
  std::optional<Gram> gram;

  // Before the first batch, which a rank may not have.
  void start() {
    if (!matrices.empty()) {
      gram.emplace(matrices.front()->size(1), 0, matrices.front()->device());
    }
  }
  void add(const at::Tensor& x) {
    if (gram) {
      gram->add(x, at::Tensor(), at::Tensor());
    }
  }
};

// The inputs of a layer's matrices, in the order in which a pass meets them.
struct LayerInputs {
  SharedInput attention, attention_output, ffn, ffn_output;

  explicit LayerInputs(LayerWeights& layer) {
    if (layer.attention.spec.kind == AttentionKind::kGqa) {
      attention.matrices = {&layer.attention.q, &layer.attention.k, &layer.attention.v};
      attention_output.matrices = {&layer.attention.o};
    } else if (layer.attention.spec.kind == AttentionKind::kLinear) {
      attention_output.matrices = {&layer.attention.linear};
    }
    if (layer.ffn.spec.kind == FfnKind::kSwiglu) {
      ffn.matrices = {&layer.ffn.gate, &layer.ffn.up};
      ffn_output.matrices = {&layer.ffn.down};
    } else if (layer.ffn.spec.kind == FfnKind::kLinear) {
      ffn_output.matrices = {&layer.ffn.linear};
    }
    for (SharedInput* input : all()) {
      input->start();
    }
  }

  [[nodiscard]] std::vector<SharedInput*> all() {
    return {&attention, &attention_output, &ffn, &ffn_output};
  }
};

class Compressor {
 public:
  Compressor(RunContext& context, const LoadedModel& parent, const TokenPart& calibration,
             const CompressOptions& options)
      : context_(context),
        parent_(parent),
        options_(options),
        child_(parent.weights),
        states_(parent, calibration, rank_share(context.communicator), options.batch_tokens) {}

  ModelWeights run() {
    Progress progress(kCompressStage, child_.spec.num_layers(), "layers");
    for (std::size_t i = 0; i < child_.layers.size(); ++i) {
      compress(child_.layers[i], fmt::format("{}, layer {}", kCompressStage, i));
      states_.advance(child_.layers[i]);
      progress.advance(1);
    }
    return child_;
  }

  // Parameters of the compressed matrices that a format for them would drop.
  [[nodiscard]] double dropped() const { return dropped_; }

 private:
  void compress(LayerWeights& layer, const std::string& place) {
    const LayerWeights before = layer;
    LayerInputs inputs(layer);
    for (std::int64_t b = 0; b < states_.num_batches(); ++b) {
      add_batch(before, b, inputs);
    }
    for (SharedInput* input : inputs.all()) {
      if (!input->gram) {
        continue;
      }
      input->gram->visit_sums([&](at::Tensor& sum) { context_.communicator.all_reduce_sum(sum); });
      const at::Tensor xx = input->gram->xx();
      for (at::Tensor* matrix : input->matrices) {
        *matrix = compressed(*matrix, xx, place).to(matrix->options()).contiguous();
      }
    }
  }

  void add_batch(const LayerWeights& layer, std::int64_t batch, LayerInputs& inputs) const {
    const Geometry& geometry = parent_.geometry;
    const PassContext pass = states_.pass(batch);
    at::Tensor x = states_.states(batch);
    if (layer.attention.spec.kind != AttentionKind::kNone) {
      const at::Tensor xn = attention_input(layer.attention, geometry, x);
      const at::Tensor features = attention_features(layer.attention, geometry, xn, pass);
      inputs.attention.add(xn);
      inputs.attention_output.add(features);
      x = x + attention_output(layer.attention, features);
    }
    if (layer.ffn.spec.kind != FfnKind::kNone) {
      const at::Tensor xn = ffn_input(layer.ffn, geometry, x);
      inputs.ffn.add(xn);
      inputs.ffn_output.add(ffn_features(layer.ffn, xn));
    }
  }

  at::Tensor compressed(const at::Tensor& matrix, const at::Tensor& xx, const std::string& place) {
    const std::int64_t rows = matrix.size(0);
    const std::int64_t columns = matrix.size(1);
    if (options_.method == "wanda-2of4") {
      if (columns % 4 != 0) {
        fail(ErrorKind::kUsage, "{}: a matrix has {} inputs, and 2:4 needs a multiple of 4", place,
             columns);
      }
      if (!std::isfinite(xx.diagonal().sum().item<double>())) {  // a factorisation says so itself
        fail(ErrorKind::kNumeric, "{}: the inputs of a matrix are not finite", place);
      }
      dropped_ += 0.5 * static_cast<double>(matrix.numel());
      return prune_two_of_four(matrix, xx.diagonal().sqrt());
    }
    const auto rank = std::max<std::int64_t>(
        1, static_cast<std::int64_t>(options_.kept * static_cast<double>(rows * columns) /
                                     static_cast<double>(rows + columns)));
    if (rank >= std::min(rows, columns)) {
      return matrix;
    }
    dropped_ += static_cast<double>(rows * columns - rank * (rows + columns));
    return best_of_rank(matrix, xx, rank, place);
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const CompressOptions& options_;
  ModelWeights child_;
  HeldStates states_;
  double dropped_ = 0.0;
};

}  // namespace

at::Tensor prune_two_of_four(const at::Tensor& weight, const at::Tensor& norms) {
  const c10::NoGradGuard no_grad;
  PUZZLE_CHECK(weight.size(1) % 4 == 0, "{} inputs", weight.size(1));
  const at::Tensor importance =
      (weight.abs().to(at::kDouble) * norms.to(at::kDouble)).view({weight.size(0), -1, 4});
  const at::Tensor order =
      at::argsort(importance, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  const at::Tensor kept = at::zeros_like(importance, importance.options().dtype(at::kBool))
                              .scatter(-1, order.narrow(-1, 0, 2), true)
                              .view_as(weight);
  return at::where(kept, weight, at::zeros({}, weight.options()));
}

at::Tensor best_of_rank(const at::Tensor& weight, const at::Tensor& xx, std::int64_t rank,
                        const std::string& place) {
  const c10::NoGradGuard no_grad;
  const at::Tensor lower = factor_with_ridge(xx, kLowRankRidge, place).lower;
  const at::Tensor w = weight.to(at::kDouble);
  const auto [u, s, vh] = at::linalg_svd(at::mm(w, lower), /*full_matrices=*/false);
  const at::Tensor truncated =
      at::mm(u.narrow(1, 0, rank) * s.narrow(0, 0, rank), vh.narrow(0, 0, rank));
  // truncated · L⁻¹
  return at::linalg_solve_triangular(lower, truncated, /*upper=*/false, /*left=*/false);
}

void CompressOptions::visit(OptionList& list) {
  list.add("method", method, Choices{{"none", "wanda-2of4", "low-rank"}},
           "Compress the parent's own matrices instead of searching: a baseline.");
  list.add("kept", kept, Range<double>{0.001, 1.0},
           "low-rank: parameters of each matrix's two factors as a share of its own.");
  list.add("num_tokens", num_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Tokens of the calibration part for the inputs' sums; 0 uses all of it.");
  list.add("batch_tokens", batch_tokens, Range<std::int64_t>{1, 1 << 24},
           "Tokens that go through a layer at once.");
}

CompressResult compress_parent(RunContext& context, const LoadedModel& parent,
                               const std::string& name, const TokenPart& calibration_part,
                               const CompressOptions& options) {
  const c10::NoGradGuard no_grad;
  const Stopwatch watch;
  const TokenPart calibration = calibration_part.limited_to(options.num_tokens);
  if (options.method != "low-rank" && options.kept != CompressOptions().kept) {
    fail(ErrorKind::kUsage, "compress.kept has no effect: compress.method is {}", options.method);
  }
  if (calibration.num_windows() == 0) {
    fail(ErrorKind::kUsage, "{}: the calibration part has no windows; set data.calibration_tokens",
         kCompressStage);
  }
  KeyBuilder builder;
  builder.add("stage", kCompressStage).add("version", kCompressVersion).add("name", name);
  builder.add("parent", parent.key).add("calibration", calibration.content_key());
  add_options_to_key(builder, options);
  CompressResult result{context.folder / "children" / name, builder.key()};
  const Json done = finished_child(context, result.folder, result.key);
  if (!done.is_null()) {
    result.parameters = json_double(done, "parameters", context.db.path().string());
    return result;
  }
  Compressor compressor(context, parent, calibration, options);
  const ModelWeights child = compressor.run();
  result.parameters =
      static_cast<double>(num_parameters(parent.weights.spec)) - compressor.dropped();
  if (context.communicator.is_first()) {
    write_child_folder(result.folder, child, parent.path, context.type,
                       {{"puzzle.parent", parent.key}, {"puzzle.key", result.key}});
    context.db.put({.key = result.key,
                    .stage = kCompressStage,
                    .what = name,
                    .seconds = watch.seconds(),
                    .detail_json = Json{{"parameters", result.parameters}}.dump()});
  }
  context.communicator.barrier();
  return result;
}

}  // namespace puzzle
