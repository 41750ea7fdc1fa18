// Stage `distill-blocks`: block-local distillation of the library (BLD; paper 3 and F.1).
//
// Every variant learns to give its parent block's output from the parent block's input. The walk is
// layer-major: the hidden states entering layer i are held for all tokens; a batch goes through the
// parent's layer once, and every variant of the layer takes one step of its own AdamW from those
// same tensors; then the parent's output replaces the states and layer i + 1 follows.
//
//   decoupled  attention variants with the parent's FFN, frozen, behind them; FFN variants behind
//              the parent's attention; the loss is taken at the block's output
//              a fine space's widths share their weights and are trained together, nested
//   coupled    whole blocks named by `pairs`, both halves trained together, starting from the pair
//              or the halves that the library holds; the halves themselves stay as they are
//
// A run that names pairs makes two passes: decoupled, then coupled from its result, so that what is
// outside the pairs is trained as well (distill_blocks_passes). Scores of sub-block variants are
// not touched by pairs, as a pair has no half of the parent.
//
// Norms of the residual stream are not trained: a gain is absorbed by the columns of the matrices
// behind it, so nothing is lost, and the normalised input is the same for all variants. Norms of q
// and k, which no matrix absorbs, are. "none" and the parent's own half have nothing to train in
// decoupled mode.
//
// Each variant keeps the better of its weights before and after by the loss on held-out tokens. The
// result is a new library (own key and folder) with everything that the old one holds; the old one
// stays. VariantRow (stage "distill-blocks"): loss_* is the training loss on held-out tokens,
// error_* the residual-free Σ‖Δparent − Δ‖² / Σ‖Δparent‖² with Δ = block output − block input
// (init-library's error is that of the sub-block alone); infinite where training diverged.
// CurveRow, series "layer 7/attention/kv1", or
// "layer 7/ffn/nested" with the mean over widths: "loss" (mean since the last point), and
// "heldout_loss" and "heldout_error" at step 0 and at the same points, on the first held-out
// batches only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/train/adamw.h"
#include "puzzle/train/schedule.h"

namespace puzzle {

class OptionList;

struct DistillBlocksOptions {
  std::int64_t num_tokens = 65'536;  // of the train part; their states are held, N × D
  std::vector<std::string> sources;  // of data.sources, the only ones to train on; empty: all
  // "mse": Σ‖p − c‖² / Σ‖p‖² over the batch (the paper's); "token-mse": mean over tokens of
  // ‖p − c‖² / ‖p‖²; "cosine": mean over tokens of 1 − cos(p, c). p, c: parent's, child's output.
  std::string loss = "token-mse";
  std::string mode = "decoupled";  // or "coupled"
  std::vector<std::string> pairs;  // coupled: "kv1/w768" in all layers, "7:kv1/w768"
  // "nested": all widths of a layer's FFN share one set of weights (nested_student.h), of which
  // each step trains widths_per_step; "separate": each has its own; "auto": nested from 9 widths
  // on.
  std::string widths = "auto";
  std::int64_t widths_per_step = 8;
  std::int64_t batch_windows = 4;      // per step
  std::int64_t epochs = 1;             // passes over the tokens, per layer
  double kv_learning_rate = 1e-3;      // peaks: attention with fewer KV heads,
  double ffn_learning_rate = 1e-3;     // FFNs of smaller width,
  double nested_learning_rate = 2e-3;  // widths that share their weights,
  double linear_learning_rate = 1e-4;  // linear replacements of either
  std::int64_t validation_tokens = 8'192;
  std::int64_t curve_every = 10;     // steps between points of a training curve
  std::vector<std::int64_t> layers;  // empty: all
  AdamWOptions adamw;                // but for its learning rate
  ScheduleOptions schedule;
  std::int64_t curve_batches = 1;        // held-out batches behind a point of a curve
  std::int64_t state_memory_mib = 4096;  // of held states; the rest goes to disk (held_states.h)

  void visit(OptionList& list);
  // Those that what is trained depends on.
  void visit_training(OptionList& list);
};

// The passes of a whole run, in order, each starting from the library of the one before.
[[nodiscard]] std::vector<DistillBlocksOptions> distill_blocks_passes(
    const DistillBlocksOptions& options);

// What can be said before anything is loaded. Throws Error(kUsage) as distill_blocks for layers and
// pairs.
void check_distill_blocks(const DistillBlocksOptions& options, const ModelSpec& parent,
                          const SearchSpace& space);

struct DistillBlocksInput {
  std::filesystem::path library_folder;
  std::string library_key;
};

struct DistillBlocksResult {
  std::string key;               // of the new library
  std::filesystem::path folder;  // library_folder(run, key)
  std::int64_t layers_made = 0;
  std::int64_t layers_found = 0;  // finished by an earlier run
};

// What the new library's weights depend on; `options.layers` and how curves are drawn are no part.
[[nodiscard]] std::string distill_blocks_key(const RunContext& context, const LoadedModel& parent,
                                             const DistillBlocksInput& input,
                                             const SearchSpace& space, const TokenPart& train,
                                             const TokenPart& validation,
                                             const DistillBlocksOptions& options);

// One pass. Every rank holds all states and trains its share of each layer's variants, rank 0
// writes them; the result does not depend on the number of ranks. A finished layer (its record and
// its file) is not made again; a killed run continues to the same bytes. Throws Error(kUsage):
// empty parts, a layer that does not exist, weights that are not fp32, pairs that are missing in
// coupled mode, given in decoupled mode, unknown to the search space, with a half of the parent or
// without anything to train, a variant that the library does not hold. Error(kFormat) for files of
// another parent, Error(kNumeric) for activations of the parent that are not finite,
// Error(kInterrupted), Error(kIo), also where disk or memory do not suffice for the states.
[[nodiscard]] DistillBlocksResult distill_blocks(RunContext& context, const LoadedModel& parent,
                                                 const DistillBlocksInput& input,
                                                 const SearchSpace& space, const TokenPart& train,
                                                 const TokenPart& validation,
                                                 const DistillBlocksOptions& options);

}  // namespace puzzle
