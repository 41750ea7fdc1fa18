// Second-order estimates of what other blocks would do to a model, from one walk back through it
// (layer_gradients.h): what method gradient (score_gradient.h) and the changes around a child
// (child_changes.h) have in common.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "puzzle/data/token_split.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/stages/score_estimates.h"

namespace puzzle {

// How ⟨·, δ⟩ of a block is had: from the evaluated block `first`, or as the sum of two.
struct EstimatedBlock {
  BlockSpec block;
  std::int64_t first = 0;  // positions in SecondOrderLayer::evaluated
  std::int64_t second = -1;
};

struct SecondOrderLayer {
  std::vector<BlockSpec> evaluated;  // put into the layer, on the model's own input of it
  std::vector<EstimatedBlock> blocks;
};

struct SecondOrderInput {
  std::string name;                     // opens progress and messages
  const ModelWeights* model = nullptr;  // the parent, or a child of it
  bool with_kl = false;                 // whether the KL to the parent has a gradient there
  std::vector<SecondOrderLayer> layers;
  std::function<LayerLibrary(std::int64_t layer)> library;
  std::uint64_t seed = 0;          // of the labels
  std::int64_t samples = 4;        // labels drawn per position
  std::int64_t batch_windows = 8;  // walked at a time
};

// Nats per token.
struct BlockEstimate {
  BlockSpec block;
  ScoreValue first_order;             // E⟨∇KL, δ⟩; 0 without the KL
  SecondOrderEstimates second_order;  // ½ E⟨g, δ⟩², in two ways
  ScoreValue combined;                // of these two, from all blocks together
  // Largest ‖δ_t‖ / ‖h_t‖ over tokens whose state h_t at the layer's output is more than 10 times
  // as long as its window's median; of two blocks, the larger. Near 1 the block removes such a
  // giant, on which attention in the layers behind relies and which second order does not see. 0:
  // none.
  double giant_change = 0.0;
};

// Blocks of a layer whose changes are held at once.
inline constexpr std::int64_t kSecondOrderBlocksAtOnce = 8;

// By layer, in the order of its blocks. Windows are split over ranks, all of which call this; the
// result is the same on each. A batch's states are held for all layers, layers × batch × D, and
// twice kSecondOrderBlocksAtOnce changes as large as one of them. Layers
// in front of the first with blocks are not walked. Throws Error(kUsage) for a variant that the
// library does not hold, Error(kNumeric) naming the block for activations that are not finite.
[[nodiscard]] std::vector<std::vector<BlockEstimate>> estimate_second_order(
    RunContext& context, const LoadedModel& parent, const SecondOrderInput& input,
    const TokenPart& part);

}  // namespace puzzle
