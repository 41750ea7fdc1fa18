// Options of distill-blocks: what they are called, what they ask for, what depends on them.
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/options.h"
#include "puzzle/stages/block_plan.h"
#include "puzzle/stages/distill_blocks.h"
#include "puzzle/stages/library.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other weights or rows.
constexpr int kDistillBlocksVersion = 1;

}  // namespace

void DistillBlocksOptions::visit_training(OptionList& list) {
  const Range<std::int64_t> tokens{1, std::int64_t{1} << 40};
  const Range<double> rate{0.0, 1.0};
  list.add("num_tokens", num_tokens, tokens,
           "Training tokens per layer, of the train part; their hidden states are held.");
  list.add("loss", loss, Choices{{"mse", "token-mse", "cosine"}},
           "Distance between block outputs: the paper's normalised squared error, the same "
           "normalised per token, or 1 - cosine.");
  list.add(
      "mode", mode, Choices{{"decoupled", "coupled"}},
      "decoupled trains each half beside the parent's other half; coupled then also trains the "
      "blocks named by pairs as a whole.");
  list.add("pairs", pairs,
           "Blocks to train coupled: kv1/w768 in all layers that allow it, 7:kv1/w768 in one.");
  list.add(
      "widths", widths, Choices{{"auto", "nested", "separate"}},
      "Whether the widths of an FFN share one set of weights, trained together, or each has its "
      "own; auto shares them from 9 widths on.");
  list.add("widths_per_step", widths_per_step, Range<std::int64_t>{2, 1 << 16},
           "Widths that a step trains where they share weights: the smallest, the largest, others "
           "at random.");
  list.add("batch_windows", batch_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per optimiser step.");
  list.add("epochs", epochs, Range<std::int64_t>{1, 1 << 20},
           "Times that each layer goes through the training tokens.");
  list.add("kv_learning_rate", kv_learning_rate, rate,
           "Peak learning rate of attention with fewer KV heads.");
  list.add("ffn_learning_rate", ffn_learning_rate, rate, "Peak learning rate of narrower FFNs.");
  list.add("nested_learning_rate", nested_learning_rate, rate,
           "Peak learning rate of FFN widths that share their weights.");
  list.add("linear_learning_rate", linear_learning_rate, rate,
           "Peak learning rate of linear replacements.");
  list.add("validation_tokens", validation_tokens, tokens,
           "Held-out tokens that decide whether a variant's training is kept.");
  list.add("curve_every", curve_every, Range<std::int64_t>{1, 1 << 30},
           "Steps between two points of a training curve.");
  list.add("layers", layers, Range<std::int64_t>{0, kMaxLayers - 1},
           "Only these layers (0-based); empty: all.");
  adamw.visit_update(list);
  schedule.visit(list);
}

void DistillBlocksOptions::visit(OptionList& list) {
  visit_training(list);
  list.add("sources", sources, "Train on text of these of data.sources only; empty: on all of it.");
  list.add("curve_batches", curve_batches, Range<std::int64_t>{1, 1 << 30},
           "Held-out batches of batch_windows behind a point of a held-out curve.");
  list.add("state_memory_mib", state_memory_mib, Range<std::int64_t>{0, 1 << 30},
           "MiB of hidden states held in memory by each process; the rest goes to a file in the "
           "run folder.");
}

std::vector<DistillBlocksOptions> distill_blocks_passes(const DistillBlocksOptions& options) {
  if (options.mode != "coupled") {
    return {options};
  }
  DistillBlocksOptions decoupled = options;
  decoupled.mode = "decoupled";
  decoupled.pairs.clear();
  return {decoupled, options};
}

void check_distill_blocks(const DistillBlocksOptions& options, const ModelSpec& parent,
                          const SearchSpace& space) {
  for (const std::int64_t layer : options.layers) {
    if (layer < 0 || layer >= parent.num_layers()) {
      fail(ErrorKind::kUsage, "distill_blocks.layers: {}, expected 0 … {}, the parent's layers",
           layer, parent.num_layers() - 1);
    }
  }
  (void)plan_students(parent, space, options);
}

std::string distill_blocks_key(const RunContext& context, const LoadedModel& parent,
                               const DistillBlocksInput& input, const SearchSpace& space,
                               const TokenPart& train, const TokenPart& validation,
                               const DistillBlocksOptions& options) {
  DistillBlocksOptions relevant = options;
  relevant.layers = {};
  relevant.num_tokens = 0;  // the parts' keys say which tokens these come to
  relevant.validation_tokens = 0;
  relevant.curve_every = DistillBlocksOptions{}.curve_every;
  KeyBuilder key;
  key.add("stage", "distill-blocks").add("version", kDistillBlocksVersion);
  key.add("seed", context.seed).add("parent", parent.key).add("library", input.library_key);
  key.add("train", train.first_tokens(options.num_tokens).content_key());
  key.add("validation", validation.first_tokens(options.validation_tokens).content_key());
  add_space_to_key(key, space);
  OptionList list;
  relevant.visit_training(list);
  list.add_to_key(key);
  return key.key();
}

}  // namespace puzzle
