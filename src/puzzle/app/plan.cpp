#include "puzzle/app/plan.h"

#include <algorithm>
#include <chrono>

#include <ATen/ATen.h>

#include "puzzle/app/plan_bytes.h"
#include "puzzle/app/plan_timing.h"
#include "puzzle/app/plan_work.h"
#include "puzzle/arch/cost.h"
#include "puzzle/stages/block_plan.h"
#include "puzzle/stages/child_trainer.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/search_budgets.h"
#include "puzzle/stages/search_check.h"
#include "puzzle/stages/second_order.h"
#include "puzzle/stages/weight_types.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

// Of a training step in bfloat16 (bench_distill_child), where that is the faster type.
constexpr double kMixedSpeedup = 1.5;
// What no configuration tells: how fast other programs and disks are. Calibrated on the demo
// (recipes/smollm2-cpu.yaml) as it ran on two shared AMD EPYC cores.
constexpr double kTokenisedBytesPerS = 4e7;
constexpr double kDiskBytesPerS = 3e8;     // written and flushed
constexpr double kReadBytesPerS = 2e9;     // of a file just written
constexpr double kSecondsPerTiming = 1.1;  // of one stack in llama-server, all contexts
constexpr double kSolverSeconds = 5.0;     // child, baselines and sweep
constexpr double kReportSeconds = 0.01;
constexpr double kProcessBytes = 6e8;  // libtorch, and what the allocator keeps (device.h)
constexpr double kSmallestChildFraction = 0.1;

// Of the parent's cost, what a budget leaves at the batch size where it leaves most; 1 where only a
// measurement can tell.
double budget_fraction(const BudgetSpec& budget, const Recipe& recipe, const ModelSpec& parent) {
  if (budget.relative) {
    return budget.cost->is_rate() ? 1.0 / std::max(budget.value, 1.0) : budget.value;
  }
  double fraction = budget.cost->is_measured ? 1.0 : 0.0;
  for (const std::int64_t batch : recipe.scenario.batch) {
    const CostSetting setting =
        cost_setting(parent, recipe.model, recipe.search, recipe.scenario, batch);
    if (!budget.cost->is_measured) {
      const double whole = model_costs(parent.layers, setting).at(std::string(budget.cost->name));
      fraction = std::max(fraction, whole > 0.0 ? budget.value / whole : 1.0);
    }
  }
  return fraction;
}

double child_fraction_of(const Recipe& recipe, const ModelSpec& parent) {
  double fraction = 1.0;
  for (const BudgetSpec& budget : parse_budgets(recipe.search.budgets)) {
    fraction = std::min(fraction, budget_fraction(budget, recipe, parent));
  }
  return std::max(fraction, kSmallestChildFraction);
}

template <class Spec>
void keep_one_other(std::vector<Spec>& variants, const Spec& own) {
  const auto other = std::find_if(variants.begin(), variants.end(),
                                  [&](const Spec& variant) { return variant != own; });
  if (other != variants.end()) {
    variants = {own, Spec(*other)};
  }
}

class Planner {
 public:
  Planner(const Recipe& recipe, const ModelSpec& parent, double flops_per_s)
      : recipe_(recipe),
        parent_(parent),
        space_(make_search_space(recipe.search_space, parent)),
        weights_(static_cast<double>(
            model_cost(parent, ExportTarget::kNative, WeightTypes{}).weight_bytes)),
        ends_(static_cast<double>(fixed_cost(parent, WeightTypes{}).weight_bytes)) {
    check_search_options(recipe.search, recipe.scenario, recipe.model);
    check_exact_budgets(recipe.search, recipe.scenario, recipe.model, parent, space_);
    plan_.parent = parent.name;
    plan_.parent_parameters = num_parameters(parent);
    plan_.log10_architectures = space_.log10_architectures();
    plan_.num_candidates = num_variants(parent, space_);
    plan_.child_fraction = child_fraction_of(recipe, parent);
    plan_.flops_per_s = flops_per_s;
    const auto students =
        plan_students(parent, space_, distill_blocks_passes(recipe.distill_blocks).front());
    for (std::size_t i = 0; i < space_.layers.size(); ++i) {
      const VariantBytes bytes =
          variant_bytes(parent, space_.layers[i], parent.layers[i], students[i]);
      library_ += bytes.initial;
      trained_library_ += bytes.initial + bytes.trained;
      largest_layer_ = std::max(largest_layer_, bytes.initial + bytes.trained);
    }
  }

  Plan make() {
    add_data();
    add_init_library();
    add_distill_blocks();
    add_score();
    add_measure();
    add_search();
    const double child = child_bytes();
    add("assemble",
        {.memory_bytes = weights_ + child, .disk_bytes = child, .seconds = child / kDiskBytesPerS});
    add_repair("repair", num_repairs());
    add_distill_child("distill-child", 1);
    add_compared();
    add_evaluate();
    add_export();
    add_timed_files();
    add("report", {.seconds = kReportSeconds});
    return std::move(plan_);
  }

 private:
  void add(const char* stage, StagePlan row) {
    row.stage = stage;
    row.memory_bytes += kProcessBytes;
    plan_.stages.push_back(std::move(row));
  }

  [[nodiscard]] double seconds(const Work& work) const { return work.seconds(plan_.flops_per_s); }
  [[nodiscard]] double child_bytes() const {
    return ends_ + plan_.child_fraction * (weights_ - ends_);
  }

  // What a child needs of a library: of each half the parent's own and one other.
  [[nodiscard]] SearchSpace space_of_one_child() const {
    SearchSpace space = space_;
    for (std::size_t i = 0; i < space.layers.size(); ++i) {
      const BlockSpec& own = parent_.layers[i];
      keep_one_other(space.layers[i].attention, own.attention);
      keep_one_other(space.layers[i].ffn, own.ffn);
    }
    return space;
  }

  void add_data() {
    const double bytes = corpus_bytes(recipe_.data);
    add("data", {.tokens = static_cast<std::int64_t>(bytes / kBytesPerToken),
                 .disk_bytes = bytes / kBytesPerToken * sizeof(std::int32_t),
                 .seconds = bytes / kTokenisedBytesPerS});
  }

  void add_init_library() {
    const Work work = init_library_work(recipe_, parent_, space_);
    const HeldBytes held =
        held_bytes(parent_, recipe_.data.calibration_tokens + recipe_.data.validation_tokens,
                   recipe_.init_library.state_memory_mib);
    add("init-library",
        {.tokens = recipe_.data.calibration_tokens,
         .flops = work.flops(),
         .memory_bytes = weights_ + held.memory + largest_layer_ + fit_bytes(parent_),
         .disk_bytes = library_ + held.disk,
         .seconds = seconds(work)});
  }

  void add_distill_blocks() {
    if (!recipe_.train_blocks) {
      return;
    }
    const DistillBlocksOptions& options = recipe_.distill_blocks;
    const Work work = distill_blocks_work(recipe_, parent_, space_);
    const HeldBytes held = held_bytes(
        parent_,
        options.num_tokens + std::min(options.validation_tokens, recipe_.data.validation_tokens),
        options.state_memory_mib);
    const auto passes = static_cast<double>(distill_blocks_passes(options).size());
    // A layer's variants with gradients and two moments, and their start to fall back on.
    add("distill-blocks", {.tokens = options.num_tokens * options.epochs,
                           .flops = work.flops(),
                           .memory_bytes = weights_ + held.memory + 5.0 * largest_layer_,
                           .disk_bytes = passes * trained_library_ + held.disk,
                           .seconds = seconds(work)});
  }

  void add_score() {
    const std::int64_t tokens = score_tokens(recipe_);
    const Work work = score_work(recipe_, parent_, space_);
    // Exact scores hold states of all tokens, estimates those of a batch at every layer.
    const std::int64_t batch_tokens =
        std::min(tokens, recipe_.score.batch_windows * recipe_.data.window);
    const std::int64_t held = std::max(
        2 * tokens, is_estimated(recipe_.score)
                        ? batch_tokens * (parent_.num_layers() + 2 * kSecondOrderBlocksAtOnce)
                        : 0);
    const HeldBytes states = held_bytes(parent_, held, INT64_MAX / (1 << 20));
    add("score", {.tokens = tokens,
                  .flops = work.flops(),
                  .memory_bytes = weights_ + states.memory + largest_layer_ +
                                  static_cast<double>(recipe_.score.hidden_mib) * kMib,
                  .seconds = seconds(work)});
  }

  void add_measure() {
    const DistinctSubblocks distinct = timed_subblocks(space_, recipe_.measure);
    const auto stacks =
        static_cast<double>(std::ssize(distinct.attention) + std::ssize(distinct.ffn));
    const bool is_timed =
        recipe_.measure.engine == "native" || recipe_.measure.engine == "llama-server";
    const auto batches = static_cast<double>(recipe_.scenario.batch.size());
    const double timings = stacks * batches * timed_calls(recipe_.engine.timing, kSecondsPerTiming);
    add("measure",
        {.memory_bytes = weights_, .seconds = is_timed ? kSecondsPerTiming * timings : 0.0});
  }

  void add_search() {
    SearchOptions options = recipe_.search;
    options.baselines.insert(options.baselines.end(), recipe_.compare.begin(),
                             recipe_.compare.end());
    StagePlan row{.memory_bytes = weights_, .seconds = kSolverSeconds};
    if (options.measures()) {
      const Work work = search_work(recipe_, options, parent_, space_);
      row.tokens = tokens_used(options.num_tokens, recipe_.data.validation_tokens);
      row.flops = work.flops();
      row.memory_bytes =
          2.0 * weights_ +
          held_bytes(parent_, row.tokens * parent_.num_layers(), options.state_mib).memory;
      row.seconds += seconds(work);
    }
    add("search", row);
  }

  [[nodiscard]] std::int64_t num_repairs() const {
    const bool is_repeated = recipe_.repair_trained && recipe_.train_child;
    return recipe_.repair_child ? (is_repeated ? 2 : 1) : 0;
  }

  void add_repair(const char* name, std::int64_t count) {
    if (!recipe_.repair_child || count == 0) {
      return;
    }
    const Work work =
        static_cast<double>(count) * repair_work(recipe_, parent_, plan_.child_fraction);
    const std::int64_t tokens = repair_tokens(recipe_);
    const HeldBytes held = held_bytes(parent_, 2 * (tokens + recipe_.data.validation_tokens),
                                      2 * recipe_.repair.state_memory_mib);
    double widest = 0.0;  // what enters a sub-block's output matrix is kept if it fits
    for (const BlockSpec& block : parent_.layers) {
      widest = std::max(widest, static_cast<double>(block.ffn.width));
    }
    const double features = static_cast<double>(tokens) * widest * kFp32Bytes;
    const double limit = 2.0 * static_cast<double>(recipe_.repair.state_memory_mib) * kMib;
    add(name,
        {.tokens = count * tokens,
         .flops = work.flops(),
         .memory_bytes = weights_ + child_bytes() +
                         (held.memory + features <= limit ? held.memory + features : held.memory),
         .disk_bytes = child_bytes() + held.disk,
         .seconds = seconds(work)});
  }

  void add_distill_child(const char* name, std::int64_t count) {
    if (!recipe_.train_child) {
      return;
    }
    const auto times = static_cast<double>(count);
    const DistillChildOptions& options = recipe_.distill_child;
    const Work work = times * distill_child_work(recipe_, parent_, plan_.child_fraction);
    const double trained =
        options.train == "all" ? child_bytes() : plan_.child_fraction * (weights_ - ends_);
    // What a layer keeps for its backward pass: some 12 tensors of its width, or its input alone.
    const auto states =
        static_cast<double>(options.micro_windows * recipe_.data.window * parent_.hidden_size) *
        kFp32Bytes;
    const double kept = states * static_cast<double>(parent_.num_layers()) *
                        (options.checkpoint_layers ? 1.0 : 12.0);
    const bool is_mixed =
        compute_type(options, at::kFloat, parse_device(recipe_.device)) == at::kBFloat16;
    const double cast = is_mixed ? 0.5 * weights_ : 0.0;  // the parent's matrices
    add(name, {.tokens = count * options.num_tokens,
               .flops = work.flops(),
               .memory_bytes = weights_ + cast + child_bytes() + 4.0 * trained + kept,
               .disk_bytes = times * (child_bytes() + 3.0 * trained),
               .seconds = seconds(work) / (is_mixed ? kMixedSpeedup : 1.0)});
  }

  // The children to compare with: the paper's library, and their own distillation.
  void add_compared() {
    const auto& names = recipe_.compare;
    if (std::find(names.begin(), names.end(), kPaperInit) != names.end()) {
      Recipe paper = recipe_;
      paper.init_library.init = "paper";
      const Work work = init_library_work(paper, parent_, space_of_one_child());
      const HeldBytes held =
          held_bytes(parent_, recipe_.data.calibration_tokens + recipe_.data.validation_tokens,
                     recipe_.init_library.state_memory_mib);
      const double child = plan_.child_fraction * (weights_ - ends_);
      add("paper-init", {.tokens = recipe_.data.calibration_tokens,
                         .flops = work.flops(),
                         .memory_bytes = weights_ + held.memory + largest_layer_,
                         .disk_bytes = child + held.disk,
                         .seconds = seconds(work)});
    }
    if (recipe_.compare_distilled) {
      const std::int64_t repaired =
          std::ssize(names) - std::count(names.begin(), names.end(), kPaperInit);
      add_repair("compare: repair", repaired);
      add_distill_child("compare", std::ssize(names));
    }
  }

  void add_evaluate() {
    const std::int64_t compared = std::ssize(recipe_.compare) * (recipe_.compare_distilled ? 2 : 1);
    const std::int64_t children = 1 + num_repairs() + (recipe_.train_child ? 1 : 0) + compared;
    const Work work = evaluate_work(recipe_, parent_, plan_.child_fraction, children);
    // Embedding and head are held once unless distillation changed them.
    const double own_ends =
        recipe_.distill_child.train == "all" && recipe_.train_child ? ends_ : 0.0;
    add("evaluate",
        {.tokens = tokens_used(recipe_.evaluate.num_tokens, recipe_.data.test_tokens),
         .flops = work.flops(),
         .memory_bytes = weights_ + static_cast<double>(children) *
                                        (plan_.child_fraction * (weights_ - ends_) + own_ends),
         .seconds = seconds(work)});
  }

  void add_export() {
    double disk = 0.0;
    const WeightTypes types =
        deployed_types(recipe_.export_child.types, recipe_.scenario, recipe_.model);
    const auto whole =
        static_cast<double>(model_cost(parent_, ExportTarget::kNative, types).weight_bytes);
    for (const std::string& format : recipe_.export_child.formats) {
      const double half = recipe_.export_child.hf_dtype == "float32" ? 1.0 : 0.5;
      disk += is_gguf_format(format)  ? plan_.child_fraction * whole
              : format == "hf-padded" ? half * weights_  // as large as the parent
                                      : half * child_bytes();
    }
    add("export", {.memory_bytes = weights_ + child_bytes(),
                   .disk_bytes = disk,
                   .seconds = disk / kDiskBytesPerS + child_bytes() / kReadBytesPerS});
  }

  // The parent's and the child's file in llama.cpp.
  void add_timed_files() {
    if (!gguf_format_target(recipe_.export_child.formats)) {
      return;
    }
    const TimedFilesPlan files(recipe_, parent_, plan_.flops_per_s);
    if (recipe_.throughput.enabled) {
      add("throughput", {.tokens = recipe_.throughput.quality_tokens,
                         .memory_bytes = weights_ + files.file_bytes(),
                         .seconds = files.throughput_seconds()});
    }
    if (recipe_.scenarios.enabled) {
      add("scenarios", {.tokens = files.scenarios_tokens(),
                        .memory_bytes = weights_ + 2.0 * files.file_bytes(),
                        .seconds = files.scenarios_seconds()});
    }
  }

  const Recipe& recipe_;
  const ModelSpec& parent_;
  SearchSpace space_;
  double weights_ = 0.0;          // of the parent, fp32
  double ends_ = 0.0;             // of embedding, head and final norm
  double library_ = 0.0;          // of all variants
  double trained_library_ = 0.0;  // after block-local distillation
  double largest_layer_ = 0.0;    // of the variants of one layer
  Plan plan_;
};

}  // namespace

double Plan::seconds() const {
  double sum = 0;
  for (const StagePlan& stage : stages) {
    sum += stage.seconds;
  }
  return sum;
}

Plan make_plan(const Recipe& recipe, const ModelSpec& parent, double flops_per_s) {
  return Planner(recipe, parent, flops_per_s).make();
}

double measure_flops_per_s(const std::string& device_name) {
  const c10::Device device = parse_device(device_name);
  const std::int64_t size = device.is_cpu() ? 1024 : 4096;
  const at::Tensor a = at::full({size, size}, 0.5, at::TensorOptions(device).dtype(at::kFloat));
  double best_s = 1e30;
  for (int round = 0; round < 8; ++round) {
    synchronize(device);
    const auto start = std::chrono::steady_clock::now();
    (void)a.mm(a);
    synchronize(device);
    best_s = std::min(
        best_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const auto n = static_cast<double>(size);
  return 2.0 * n * n * n / best_s;
}

}  // namespace puzzle
