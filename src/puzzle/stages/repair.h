// Stage `repair`: a closed-form refit of an assembled child.
//
// A variant was fitted to the parent's inputs, but in the child it gets those that its changed
// predecessors make. Parent and child walk through the calibration tokens side by side, sub-block
// by sub-block. With x the input of the sub-block's output matrix W in the child (decoder.h:
// features) and y = the parent's state after the sub-block − the child's state entering it − bias,
//
//   W ← W + argmin_Δ Σ_t w_t ‖(y_t − W x_t) − Δ x_t‖² + λ·mean(diag Σ w x xᵀ)·‖Δ‖²,
//
// so that each refit undoes the error that all before it left. Before that, what reads the
// sub-block's normalised input (q, k and v, gate and up) learns to read the child's: with xn and
// xn' the norm of the child's and of the parent's state there,
//
//   W ← W(I + M),  M = argmin Σ_t ‖(xn'_t − xn_t) − M xn_t‖² + λ·mean(diag Σ xn xnᵀ)·‖M‖²,
//
// one small fit for all of them, after which they make of the child's states what they made of the
// parent's, as far as that is linear. Sub-blocks "none" have no matrices, "linear" only the first
// kind. λ is chosen per fit from a small grid by the same error on held-out tokens, "none of them"
// included, and the whole repair is kept only if it lowers the held-out KL by more than the
// standard error of that. Costs one forward pass of the parent and one of the child over the tokens
// (two where a sub-block's features do not fit state_memory_mib); memory tokens × D for each of
// both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct RepairOptions {
  std::string part = "calibration";  // or "train": whose tokens the caller gives
  std::int64_t num_tokens = 0;       // of that part; 0 = all
  std::vector<double> lambdas = {0.01, 0.03, 0.1, 0.3};  // relative ridges to choose from
  bool inputs = true;                                    // refit q, k, v, gate and up, too
  std::string token_weights = "damped";                  // as init_library.token_weights
  std::int64_t validation_tokens = 0;                    // of the validation part; 0 = all
  std::int64_t batch_tokens = 4096;
  std::int64_t state_memory_mib = 4096;  // held_states.h

  void visit(OptionList& list);
};

struct RepairInput {
  std::filesystem::path child_folder;
  std::string child_key;
  std::string name;  // of the result, below children/
};

struct RepairResult {
  std::filesystem::path folder;
  std::string key;
  double kl_before = 0.0;     // on the validation part, nats per token
  double kl_after = 0.0;      // of the child written; never above kl_before
  std::int64_t refitted = 0;  // matrices changed; 0 where the repair was not kept
};

// Throws Error(kUsage) where there is nothing to refit with.
void check_repair(const RepairOptions& options);

// Writes children/<name>. Finished layers of a killed run are not refitted again, and the result is
// the same to the bit. Tokens are split over ranks. Throws Error(kUsage) for empty parts,
// Error(kNumeric) for activations that are not finite, Error(kIo), Error(kInterrupted).
[[nodiscard]] RepairResult repair(RunContext& context, const LoadedModel& parent,
                                  const RepairInput& input, const TokenPart& calibration,
                                  const TokenPart& validation, const RepairOptions& options);

}  // namespace puzzle
