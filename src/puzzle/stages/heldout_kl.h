// KL of children to their parent on held-out text, for stages that decide by it.
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/data/token_batches.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/ratio_of_sums.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

// KL(parent ‖ child) over a part's tokens. The parent runs once, at the construction; its final
// states stay in memory, N × D over all ranks. Windows are split over ranks. No gradients.
class HeldoutMeter {
 public:
  HeldoutMeter(const LoadedModel& parent, const TokenPart& part, Communicator& communicator);

  // Mean over tokens, nats per token; all ranks call it, and get the same.
  [[nodiscard]] double kl(const ModelWeights& child) const;
  // Σ KL in nats, and tokens, by independent unit (independent_windows.h): of this rank's windows,
  // which RatioOfSums adds up over ranks.
  [[nodiscard]] RatioOfSums kl_by_unit(const ModelWeights& child) const;

 private:
  struct Batch {
    std::int64_t first_window = 0;
    TokenBatch tokens;
    at::Tensor parent_final_ND;
  };

  const LoadedModel& parent_;
  Communicator& communicator_;
  WindowUnits units_;
  std::vector<Batch> batches_;
};

}  // namespace puzzle
