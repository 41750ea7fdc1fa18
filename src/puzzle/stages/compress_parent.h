// Two well-known ways to make a parent smaller without another architecture, as baselines for
// `puzzle compare` (the paper's table 18):
//
//   wanda-2of4   of every four consecutive inputs of a matrix's row, the two with the largest
//                |W_ij|·‖x_j‖₂ stay, the others become 0 (Sun et al., arXiv 2306.11695, 2:4)
//   low-rank     W becomes the W' of rank r that minimises Σ_t ‖(W − W')x_t‖²: with Σ x xᵀ = L·Lᵀ
//                the truncated SVD of W·L, times L⁻¹ (as SVD-LLM, arXiv 2403.07378)
//
// Layer by layer, on the inputs that the compressed layers before make. Embedding, head, norms and
// biases stay. The child is written with whole matrices: what it says is exact, but no engine here
// runs it any faster.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct CompressOptions {
  std::string method = "none";  // or "wanda-2of4", "low-rank"
  double kept = 0.5;            // of the parameters of each matrix; low-rank
  std::int64_t num_tokens = 0;  // of the calibration part; 0 = all
  std::int64_t batch_tokens = 4096;

  void visit(OptionList& list);
};

struct CompressResult {
  std::filesystem::path folder;
  std::string key;
  double parameters = 0.0;  // that a format for it would store; 2:4's positions are not counted
};

// Writes children/<name>, unless it is there. Tokens are split over ranks. Throws Error(kUsage) for
// an empty part and for matrices whose rows 2:4 does not divide, Error(kNumeric) for activations
// that are not finite.
[[nodiscard]] CompressResult compress_parent(RunContext& context, const LoadedModel& parent,
                                             const std::string& name, const TokenPart& calibration,
                                             const CompressOptions& options);

// W with what 2:4 drops set to 0. W [rows, F], `norms` [F] = ‖x_j‖₂ of the inputs; F must be a
// multiple of 4. Of equal products the earlier input stays.
[[nodiscard]] at::Tensor prune_two_of_four(const at::Tensor& weight, const at::Tensor& norms);

// The best W' of rank `rank` for inputs of Σ x xᵀ = `xx` [F, F]; W [rows, F].
[[nodiscard]] at::Tensor best_of_rank(const at::Tensor& weight, const at::Tensor& xx,
                                      std::int64_t rank, const std::string& place);

}  // namespace puzzle
