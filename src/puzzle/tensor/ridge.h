// Weighted ridge regression from sums over tokens: what every closed-form fit of this project is.
//
// A fit looks for W [D, F] with x·Wᵀ ≈ y over tokens of weight w_t. All it needs of the tokens are
// A = Σ w x xᵀ and C = Σ w x yᵀ, so memory does not grow with their number. The ridge is relative:
// G = A + λ·mean(diag A)·I.
//
// Shape letters: N tokens, F features, D targets.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

namespace puzzle {

// The sums of one fit. Products of a batch are made in fp32 (fp64 where the input is fp64), batches
// are added up in fp64: give batches of some thousand tokens.
class Gram {
 public:
  // `targets` 0: A alone.
  Gram(std::int64_t features, std::int64_t targets, const c10::Device& device);

  // x [.., F], y [.., D] (undefined without targets), token weights [..] (undefined: all 1).
  // Leading dimensions are tokens.
  void add(const at::Tensor& x, const at::Tensor& y, const at::Tensor& token_weights);

  [[nodiscard]] at::Tensor xx() const;  // A, fp64 [F, F], symmetric to the bit
  [[nodiscard]] const at::Tensor& xy() const { return xy_; }  // C, fp64 [F, D]

  // The tensors to be summed over ranks.
  void visit_sums(const std::function<void(at::Tensor& sum)>& visit);

 private:
  at::Tensor upper_;  // blocks on and above the diagonal
  at::Tensor xy_;
};

// G = L·Lᵀ.
struct RidgeFactor {
  at::Tensor lower;     // L, fp64 [F, F]
  double ridge = 0.0;   // what was added to the diagonal
  double lambda = 0.0;  // relative; above the one asked for where that was too small
};

// Cholesky of `xx` with the ridge; if it fails, the ridge is raised tenfold until it succeeds, and
// a warning says so. `place` opens messages. Throws Error(kNumeric) for sums that are not finite,
// and where no ridge helps.
[[nodiscard]] RidgeFactor factor_with_ridge(const at::Tensor& xx_FF, double lambda,
                                            const std::string& place);

struct RidgeFit {
  at::Tensor weight;    // W, fp64 [D, F]
  double lambda = 0.0;  // as in RidgeFactor
};

// argmin_W Σ w‖y − x·Wᵀ‖² + ridge·‖W‖². Throws as factor_with_ridge.
[[nodiscard]] RidgeFit solve_ridge(const Gram& gram, double lambda, const std::string& place);

// The same, pulled towards the weights there are: W = W₀ + argmin_Δ Σ w‖(y − x·W₀ᵀ) − x·Δᵀ‖² +
// ridge·‖Δ‖². Returns W₀ itself, to rounding, where it fits already.
[[nodiscard]] RidgeFit refit_ridge(const Gram& gram, const at::Tensor& current_DF, double lambda,
                                   const std::string& place);

}  // namespace puzzle
