// Hidden states of a part's tokens, held while a stage walks through the layers: N × D of the
// model's numeric type, whatever the depth. What is above a memory limit lives in a scratch file
// of the run folder, batch by batch; results do not depend on where.
//
// The file costs N × D × 4 bytes of disk, read and written once per layer and epoch. The other way
// to any number of tokens, chunks of them through all layers, would have to keep every variant of
// every layer with its two moments between chunks, three times the library, and could not finish a
// layer before the last chunk. Per token and layer the file moves 8·D bytes, while the variants
// need some 6 FLOPs per weight: 32 KiB against about 2e10 FLOPs in the paper's space of an 8B
// parent, so an ordinary disk keeps up with any one device.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/data/token_batches.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/stages/spill_file.h"

namespace puzzle {

struct StateMemory {
  std::int64_t bytes = std::numeric_limits<std::int64_t>::max();  // held in memory at most
  std::filesystem::path spill_folder = {};                        // for the rest
};

// Windows of one rank in batches; shape letters: B windows of a batch, T tokens per window.
class HeldStates {
 public:
  // The embedded tokens of this rank's share of `part`, in batches of about `batch_tokens`. Throws
  // Error(kIo) where the disk has no room for what is above the limit.
  HeldStates(const LoadedModel& model, const TokenPart& part, RankShare share,
             std::int64_t batch_tokens, const StateMemory& memory = {});

  [[nodiscard]] std::int64_t num_batches() const { return num_batches_; }
  [[nodiscard]] std::int64_t num_windows() const { return share_.count(); }
  [[nodiscard]] std::int64_t num_windows(std::int64_t batch) const;
  [[nodiscard]] std::int64_t memory_bytes() const;

  // [B, T, D]: what enters the next layer.
  [[nodiscard]] at::Tensor states(std::int64_t batch) const;
  void replace(std::int64_t batch, const at::Tensor& states_BTD);
  // With the document mask where the part forbids crossing; made anew each time, as it is B × T².
  [[nodiscard]] PassContext pass(std::int64_t batch) const;

  // Applies a parent layer to one batch, or to all.
  void advance(std::int64_t batch, const LayerWeights& layer);
  void advance(const LayerWeights& layer);

  // ‖h‖² after `layer` of the tokens of every `stride`th window of the part (counted over all
  // ranks), fp32, this rank's; the states stay as they are.
  [[nodiscard]] std::vector<float> sampled_norms(const LayerWeights& layer,
                                                 std::int64_t stride) const;

 private:
  [[nodiscard]] std::vector<std::int64_t> batch_shape(std::int64_t batch) const;
  [[nodiscard]] TokenBatch tokens(std::int64_t batch) const;
  [[nodiscard]] std::int64_t spill_offset(std::int64_t batch) const;

  const Geometry& geometry_;
  TokenPart part_;
  IndexRange share_;
  RotaryAngles angles_;
  at::TensorOptions options_;
  std::int64_t hidden_size_ = 0;
  std::int64_t batch_windows_ = 1;
  std::int64_t num_batches_ = 0;
  std::int64_t batch_bytes_ = 0;        // of a full one
  std::vector<at::Tensor> in_memory_;   // the first batches
  std::unique_ptr<SpillFile> spilled_;  // the others, if any
};

// Squared norms over the last dimension, in fp32.
[[nodiscard]] at::Tensor squared_norms(const at::Tensor& x);

}  // namespace puzzle
