// KL of many children to one parent on one text, exactly: the parent runs once, and a child only
// from its first layer that differs from a base whose states are kept.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "puzzle/data/token_batches.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

struct ChildMeterOptions {
  std::int64_t batch_windows = 8;                     // per forward pass
  std::int64_t state_bytes = std::int64_t{1} << 30U;  // of the base's states kept, at most
};

class ChildMeter {
 public:
  // This rank's share of `part`. Children are made of the parent and the library's blocks; the base
  // is the parent until set_base(). Memory: the parent's final states, N × D, and those that enter
  // every s-th layer of the base, with the smallest s that `state_bytes` allows (N × D at least).
  ChildMeter(const LoadedModel& parent, std::filesystem::path library_folder, TokenPart part,
             RankShare share, ChildMeterOptions options);

  // Recomputes what comes behind the first layer that differs from the base before.
  void set_base(const Architecture& layers);

  // Σ over tokens of KL(parent ‖ child), nats: per child and unit of `units()`, this rank's windows
  // only. The parent's vocabulary projection is computed once per chunk for all of `children`,
  // whose blocks are all held meanwhile. Throws Error(kUsage) for a variant that the library does
  // not hold, Error(kInterrupted) between two children.
  [[nodiscard]] std::vector<std::vector<double>> unit_sums(
      const std::vector<Architecture>& children) const;

  [[nodiscard]] const WindowUnits& units() const { return units_; }

 private:
  struct Batch {
    std::int64_t first_window = 0;
    TokenBatch tokens;
    at::Tensor parent_final_ND;
    std::vector<at::Tensor> states;  // [k] enters layer k · stride of the base
  };

  [[nodiscard]] std::int64_t num_layers() const { return parent_.weights.spec.num_layers(); }
  [[nodiscard]] LayerWeights block(std::int64_t layer, const BlockSpec& spec) const;
  [[nodiscard]] ModelWeights child_of(const Architecture& layers) const;
  [[nodiscard]] std::int64_t first_change(const Architecture& layers) const;
  // The last kept state at or before a layer.
  [[nodiscard]] std::int64_t kept_before(std::int64_t layer) const;
  // Recomputes the base's states behind `kept`.
  void fill(Batch& batch, std::int64_t kept) const;
  [[nodiscard]] at::Tensor final_of(const ModelWeights& model, const Batch& batch,
                                    std::int64_t kept) const;

  const LoadedModel& parent_;
  std::filesystem::path library_folder_;
  TokenPart part_;
  WindowUnits units_;
  ModelWeights base_;
  std::int64_t stride_ = 1;
  std::vector<Batch> batches_;
};

}  // namespace puzzle
