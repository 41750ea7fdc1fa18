// Stage `distill-child`: global knowledge distillation of a whole child (paper eq. 1-3).
//
//   loss = cosine · Σ_l (1 − cos(h_child^l, h_parent^l))
//          + kl · KL(parent ‖ child) + lm · CE(labels)
//
// Means over tokens; l runs over layers. The paper's choice is cosine = kl = 1, lm = 0; its table
// of combinations sets each weight to 0 or 1.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/train/adamw.h"
#include "puzzle/train/schedule.h"

namespace puzzle {

class OptionList;

struct DistillChildOptions {
  std::int64_t num_tokens = 1'000'000;
  std::int64_t batch_windows = 8;  // per step, all ranks together
  std::int64_t micro_windows = 4;  // per forward and backward pass
  double cosine_weight = 1.0;
  double kl_weight = 1.0;
  double lm_weight = 0.0;
  std::string cosine_over = "sum";  // over layers: "sum" (the paper's) or "mean"
  std::string train =
      "layers";  // "layers" (with the final norm) or "all" (embedding and head, too)
  // Of matrix products and attention: "float32", "bfloat16", or "auto", the fastest of the device.
  // Weights, residual stream, norms, losses and optimiser keep the run's type.
  std::string compute = "auto";
  bool checkpoint_layers = false;  // trade time for memory
  std::int64_t validation_tokens = 8'192;
  std::int64_t validate_every = 10;  // steps
  double save_every_s = 300.0;       // training state; 0 = only on a signal
  AdamWOptions adamw{.learning_rate = 3e-4};
  ScheduleOptions schedule;

  void visit(OptionList& list);
};

struct DistillChildInput {
  std::filesystem::path child_folder;  // what training starts from
  std::string child_key;
  std::string name;  // of the result, below children/
};

struct DistillChildResult {
  std::filesystem::path folder;
  std::string key;
  double kl_before = 0.0;      // on the validation part, nats per token
  double kl_after = 0.0;       // of the weights kept; never above kl_before
  std::int64_t best_step = 0;  // 0: training did not help, the child is kept as it was
};

// Throws Error(kUsage) where nothing would be learnt.
void check_distill_child(const DistillChildOptions& options);

// The child with the lowest held-out KL seen, in children/<name>. A killed run goes on from the
// last saved state to the same bits. Validation and logging read the device once each. Gradients
// are summed over ranks. Throws Error(kUsage) for options that train nothing, Error(kNumeric) for a
// loss that is not finite.
DistillChildResult distill_child(RunContext& context, const LoadedModel& parent,
                                 const DistillChildInput& input, const TokenPart& train,
                                 const TokenPart& validation, const DistillChildOptions& options);

}  // namespace puzzle
