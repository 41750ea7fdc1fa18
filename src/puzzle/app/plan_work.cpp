#include "puzzle/app/plan_work.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "puzzle/app/plan_bytes.h"
#include "puzzle/arch/cost.h"
#include "puzzle/stages/block_plan.h"

namespace puzzle {
namespace {

// Fitted to what the demo took for init-library (its own and the paper's), distill-blocks, score,
// repair, distill-child and evaluate, at the 170 GFLOP/s measured before it: all within a quarter.
constexpr double kAttentionRate = 0.5;
constexpr double kSolveRate = 0.5;
// Forward, and backward for weights and for inputs.
constexpr double kTrainingPasses = 3.0;
// Forward and backward for inputs alone: a frozen half behind one that learns.
constexpr double kFrozenPasses = 2.0;

FlopsQuery one_window(std::int64_t window) { return {.batch = 1, .new_tokens = window}; }

Work dense_work(double flops) { return {.dense = flops, .attention = 0.0, .solves = 0.0}; }
Work solve_work(double flops) { return {.dense = 0.0, .attention = 0.0, .solves = flops}; }

double cube(double x) { return x * x * x; }

// Sums of outer products of `features` and, with `outputs`, of both; two FLOPs an element.
Work gram_work(double features, double outputs) {
  return dense_work(2.0 * features * (features + outputs));
}

// The closed-form fits of one layer: per calibration token, and once.
struct FitWork {
  Work per_token;
  Work once;
};

FitWork least_squares_work(const ModelSpec& spec, const LayerSpace& layer, const BlockSpec& own,
                           std::int64_t window) {
  FitWork fit;
  const auto hidden = static_cast<double>(spec.hidden_size);
  const auto heads = static_cast<double>(spec.num_heads * spec.head_dim);
  const auto solve = [&](double features) {
    return solve_work(cube(features) / 3.0 + 2.0 * features * features * hidden);
  };
  for (const AttentionSpec& variant : layer.attention) {
    if (variant == own.attention || variant.kind == AttentionKind::kNone) {
      continue;
    }
    const bool is_linear = variant.kind == AttentionKind::kLinear;
    const double features = is_linear ? hidden : heads;
    fit.per_token += gram_work(features, hidden);
    if (!is_linear) {  // up to the output projection
      Work head_outputs = attention_work(spec, variant, window);
      head_outputs.attention -= 2.0 * hidden * heads;
      fit.per_token += head_outputs;
    }
    fit.once += solve(features);
  }
  bool has_width = false;
  for (const FfnSpec& variant : layer.ffn) {
    if (variant != own.ffn && variant.kind == FfnKind::kLinear) {
      fit.per_token += gram_work(hidden, hidden);
      fit.once += solve(hidden);
    }
    has_width = has_width || (variant != own.ffn && variant.kind == FfnKind::kSwiglu);
  }
  if (has_width) {
    const auto width = static_cast<double>(own.ffn.width);
    fit.per_token += gram_work(width, 0.0);
    fit.once += solve_work(10.0 * cube(width));  // ffn_order.h
  }
  return fit;
}

// Forward through every variant of a layer.
Work variants_work(const ModelSpec& spec, const LayerSpace& layer, const BlockSpec& own,
                   std::int64_t window) {
  Work work;
  for (const AttentionSpec& variant : layer.attention) {
    work += (variant == own.attention ? 0.0 : 1.0) * attention_work(spec, variant, window);
  }
  for (const FfnSpec& variant : layer.ffn) {
    work += (variant == own.ffn ? 0.0 : 1.0) * ffn_work(spec, variant, window);
  }
  return work;
}

// One token of widths trained together: gate, up and the features of the largest, the down
// projections as one (nested_ffn.h).
Work nested_work(const ModelSpec& spec, const FfnSpec& largest, std::int64_t window) {
  const auto width = static_cast<double>(largest.width);
  return ffn_work(spec, largest, window) + dense_work(2.0 * width * width);
}

// One token of one student, with `own` and `behind` passes through what learns and what is frozen
// behind it; the half before an FFN is shared by all.
Work student_work(const ModelSpec& spec, const PlannedStudent& student, std::int64_t window,
                  double own, double behind) {
  const Work attention = attention_work(spec, student.block.attention, window);
  const Work ffn = ffn_work(spec, student.block.ffn, window);
  switch (student.role) {
    case StudentRole::kAttention:
      return own * attention + behind * ffn;
    case StudentRole::kFfn:
      return own * ffn;
    case StudentRole::kNestedFfn:
      return own * nested_work(spec, student.block.ffn, window);
    case StudentRole::kBlock:
      break;
  }
  return own * (attention + ffn);
}

}  // namespace

double Work::seconds(double flops_per_s) const {
  return (dense + attention / kAttentionRate + solves / kSolveRate) / flops_per_s;
}

Work& Work::operator+=(const Work& other) {
  dense += other.dense;
  attention += other.attention;
  solves += other.solves;
  return *this;
}

Work operator+(Work a, const Work& b) { return a += b; }

Work operator*(double factor, Work work) {
  return {factor * work.dense, factor * work.attention, factor * work.solves};
}

Work attention_work(const ModelSpec& spec, const AttentionSpec& attention, std::int64_t window) {
  const double flops = static_cast<double>(attention_flops(spec, attention, one_window(window))) /
                       static_cast<double>(window);
  return attention.kind == AttentionKind::kGqa
             ? Work{.dense = 0.0, .attention = flops, .solves = 0.0}
             : dense_work(flops);
}

Work ffn_work(const ModelSpec& spec, const FfnSpec& ffn, std::int64_t window) {
  return dense_work(static_cast<double>(ffn_flops(spec, ffn, one_window(window))) /
                    static_cast<double>(window));
}

Work layers_work(const ModelSpec& spec, std::int64_t window) {
  Work work;
  for (const BlockSpec& block : spec.layers) {
    work += attention_work(spec, block.attention, window) + ffn_work(spec, block.ffn, window);
  }
  return work;
}

Work head_work(const ModelSpec& spec, std::int64_t window) {
  return dense_work(static_cast<double>(head_flops(spec, one_window(window))) /
                    static_cast<double>(window));
}

Work init_library_work(const Recipe& recipe, const ModelSpec& spec, const SearchSpace& space) {
  const std::int64_t window = recipe.data.window;
  const auto calibration = static_cast<double>(recipe.data.calibration_tokens);
  const auto validation = static_cast<double>(recipe.data.validation_tokens);
  Work work = (calibration + validation) * layers_work(spec, window);
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    work += validation * variants_work(spec, space.layers[i], spec.layers[i], window);
    if (recipe.init_library.init == "least-squares") {
      const FitWork fit = least_squares_work(spec, space.layers[i], spec.layers[i], window);
      work += calibration * fit.per_token + fit.once;
    }
  }
  return work;
}

Work distill_blocks_work(const Recipe& recipe, const ModelSpec& spec, const SearchSpace& space) {
  const std::int64_t window = recipe.data.window;
  Work work;
  for (const DistillBlocksOptions& pass : distill_blocks_passes(recipe.distill_blocks)) {
    const auto trained = static_cast<double>(pass.num_tokens * pass.epochs);
    const auto validation =
        static_cast<double>(std::min(pass.validation_tokens, recipe.data.validation_tokens));
    work += (trained + validation) * layers_work(spec, window);
    for (const auto& students : plan_students(spec, space, pass)) {
      for (const PlannedStudent& student : students) {
        work += trained * student_work(spec, student, window, kTrainingPasses, kFrozenPasses);
        // Before and after, on held-out tokens.
        work += 2.0 * validation * student_work(spec, student, window, 1.0, 1.0);
      }
    }
  }
  return work;
}

Work replace_one_work(const ModelSpec& spec, const SearchSpace& space, std::int64_t window) {
  const Work head = head_work(spec, window);
  Work behind;  // the parent's layers after the one at hand
  Work work;
  for (std::size_t reversed = 0; reversed < space.layers.size(); ++reversed) {
    const std::size_t i = space.layers.size() - 1 - reversed;
    const BlockSpec& own = spec.layers[i];
    const Work attention = attention_work(spec, own.attention, window);
    const Work ffn = ffn_work(spec, own.ffn, window);
    for (const AttentionSpec& variant : space.layers[i].attention) {
      if (variant != own.attention) {
        work += attention_work(spec, variant, window) + ffn + behind + head;
      }
    }
    for (const FfnSpec& variant : space.layers[i].ffn) {
      if (variant != own.ffn) {
        work += attention + ffn_work(spec, variant, window) + behind + head;
      }
    }
    work += head;  // the parent's, once for the candidates of a layer
    behind += attention + ffn;
  }
  return work + 2.0 * behind;
}

// Estimates of all scores: forward once whole and once by layers, back once per sample, and every
// variant once, an attention variant with the parent's FFN behind it.
Work gradient_work(const ModelSpec& spec, const SearchSpace& space, std::int64_t window,
                   std::int64_t samples) {
  const Work layers = layers_work(spec, window);
  Work work = (2.0 + static_cast<double>(samples)) * layers + 2.0 * head_work(spec, window);
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    const BlockSpec& own = spec.layers[i];
    const auto num_attention = static_cast<double>(space.layers[i].attention.size());
    work += variants_work(spec, space.layers[i], own, window) +
            (num_attention - 1.0) * ffn_work(spec, own.ffn, window);
  }
  return work;
}

Work score_work(const Recipe& recipe, const ModelSpec& spec, const SearchSpace& space) {
  const std::int64_t window = recipe.data.window;
  const ScoreOptions& options = recipe.score;
  const auto tokens = static_cast<double>(score_tokens(recipe));
  if (options.method == "gradient") {
    return tokens * gradient_work(spec, space, window, options.samples);
  }
  const Work exact = replace_one_work(spec, space, window);
  if (options.method == "hybrid") {  // what it may spend
    const Work whole = layers_work(spec, window) + head_work(spec, window);
    const auto variants = static_cast<double>(num_variants(spec, space));
    const Work most = options.exact_share * variants * whole;
    const Work estimates = gradient_work(spec, space, window, options.samples);
    const bool is_least = most.flops() < estimates.flops();
    return tokens * (is_least ? estimates : most);
  }
  return tokens * exact;
}

std::int64_t score_tokens(const Recipe& recipe) {
  const ScoreOptions& options = recipe.score;
  return options.method == "downstream"
             ? question_tokens(options.questions, options.sets)
             : tokens_used(options.num_tokens, recipe.data.scoring_tokens);
}

Work search_work(const Recipe& recipe, const SearchOptions& options, const ModelSpec& spec,
                 const SearchSpace& space) {
  const std::int64_t window = recipe.data.window;
  const Work layers = layers_work(spec, window);
  const Work head = head_work(spec, window);
  const auto tokens =
      static_cast<double>(tokens_used(options.num_tokens, recipe.data.validation_tokens));
  const auto num_layers = static_cast<double>(spec.num_layers());
  // The parent once; every child with the head for itself and for the parent.
  const auto validated =
      static_cast<double>(std::max<std::int64_t>(options.validate, options.refines() ? 1 : 0));
  Work work = (options.measures() ? 1.0 : 0.0) * layers + validated * (layers + 2.0 * head);
  const std::int64_t local = options.searches_locally() ? options.local_forwards : 0;
  work += static_cast<double>(local) * (0.67 * layers + 2.0 * head);
  if (options.drops_layers()) {
    const double children = num_layers * num_layers * 3.0 / 8.0;
    work += children * (0.5 * layers + head);
  }
  work = tokens * work;
  if (options.makes_rounds()) {
    const auto estimated =
        static_cast<double>(tokens_used(options.round_tokens, recipe.data.scoring_tokens));
    const auto times = static_cast<double>(options.rounds - 1 + (local > 0 ? 1 : 0));
    work += times * estimated *
            (layers + head + gradient_work(spec, space, window, options.round_samples + 1));
    work += tokens * (layers + 2.0 * head);
  }
  return work;
}

std::int64_t repair_tokens(const Recipe& recipe) {
  return tokens_used(recipe.repair.num_tokens, recipe.repair.part == "train"
                                                   ? recipe.data.train_tokens
                                                   : recipe.data.calibration_tokens);
}

Work repair_work(const Recipe& recipe, const ModelSpec& spec, double child_fraction) {
  const Work layers = layers_work(spec, recipe.data.window);
  const auto tokens = static_cast<double>(repair_tokens(recipe));
  const auto held_out = static_cast<double>(
      tokens_used(recipe.repair.validation_tokens, recipe.data.validation_tokens));
  // The child's features are made twice: for the sums, and with the new matrix.
  Work work = (tokens + held_out) * ((1.0 + 2.0 * child_fraction) * layers) +
              held_out * (2.0 * head_work(spec, recipe.data.window) +
                          (2.0 + 2.0 * child_fraction) * layers);
  const auto hidden = static_cast<double>(spec.hidden_size);
  const auto ridges = static_cast<double>(recipe.repair.lambdas.size());
  const auto add_fit = [&](double features) {
    work += dense_work(tokens * 2.0 * features * (features + hidden));
    // One factor and one solve of every ridge.
    work.solves += ridges * features * features * (features / 3.0 + 4.0 * hidden);
  };
  for (const BlockSpec& block : spec.layers) {
    add_fit(hidden);
    add_fit(child_fraction * static_cast<double>(block.ffn.width));
    if (recipe.repair.inputs) {
      add_fit(child_fraction * hidden);
      add_fit(child_fraction * hidden);
    }
  }
  return work;
}

Work distill_child_work(const Recipe& recipe, const ModelSpec& spec, double child_fraction) {
  const DistillChildOptions& options = recipe.distill_child;
  const std::int64_t window = recipe.data.window;
  const Work layers = layers_work(spec, window);
  const Work head = head_work(spec, window);
  const double head_passes = options.train == "all" ? kTrainingPasses : kFrozenPasses;
  const double recomputed = options.checkpoint_layers ? 1.0 : 0.0;
  const auto tokens = static_cast<double>(options.num_tokens);
  const Work step = layers + head + head_passes * head +
                    (child_fraction * (kTrainingPasses + recomputed)) * layers;
  const std::int64_t steps =
      options.num_tokens / std::max<std::int64_t>(1, options.batch_windows * window);
  const std::int64_t validations = 1 + steps / std::max<std::int64_t>(1, options.validate_every);
  const auto validated = static_cast<double>(
      std::min(options.validation_tokens, recipe.data.validation_tokens) * validations);
  return tokens * step + validated * ((1.0 + child_fraction) * layers + 2.0 * head);
}

Work evaluate_work(const Recipe& recipe, const ModelSpec& spec, double child_fraction,
                   std::int64_t num_children) {
  const std::int64_t window = recipe.data.window;
  const auto tokens =
      static_cast<double>(tokens_used(recipe.evaluate.num_tokens, recipe.data.test_tokens) +
                          question_tokens(recipe.evaluate.questions, recipe.evaluate.sets));
  const auto children = static_cast<double>(num_children);
  const double layer_passes = 1.0 + child_fraction * children;
  Work work = tokens * (layer_passes * layers_work(spec, window) +
                        (1.0 + children) * head_work(spec, window));
  // Of long texts only the last token goes through the head.
  const LongTextOptions& texts = recipe.evaluate.long_text;
  for (const std::int64_t length : texts.lengths) {
    const auto num_texts = static_cast<double>(texts.samples * std::ssize(texts.tasks));
    work += (num_texts * static_cast<double>(length) * layer_passes) * layers_work(spec, length);
  }
  return work;
}

std::int64_t question_tokens(const EvalSetPaths& questions, const EvalSetOptions& options) {
  std::int64_t bytes = 0;
  for (const EvalSetPath& set : questions.all()) {
    if (std::filesystem::exists(set.path)) {
      bytes += eval_set_bytes(set.kind, set.path, options);
    }
  }
  return static_cast<std::int64_t>(static_cast<double>(bytes) / kBytesPerToken);
}

std::int64_t tokens_used(std::int64_t wanted, std::int64_t part) {
  return wanted > 0 ? std::min(wanted, part) : part;
}

std::int64_t num_variants(const ModelSpec& spec, const SearchSpace& space) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    const BlockSpec& own = spec.layers[i];
    count += std::ranges::count_if(space.layers[i].attention,
                                   [&](const auto& variant) { return variant != own.attention; });
    count += std::ranges::count_if(space.layers[i].ffn,
                                   [&](const auto& variant) { return variant != own.ffn; });
  }
  return count;
}

}  // namespace puzzle
