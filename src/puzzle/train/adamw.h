// AdamW over libtorch's fused kernel, with gradient clipping and a state that can be saved and
// resumed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace puzzle {

class OptionList;

struct AdamWOptions {
  double learning_rate = 1e-3;  // peak
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;  // decoupled; on matrices only, never on norms and biases
  double clip_norm = 1.0;     // of all gradients together; 0 = off

  void visit(OptionList& list);
  // All but the learning rate, for users with several of them.
  void visit_update(OptionList& list);
};

struct NamedParameter {
  std::string name;
  at::Tensor tensor;  // a leaf that requires grad, fp32
};

class AdamW {
 public:
  // Parameters keep their order; names tie saved state to them.
  AdamW(std::vector<NamedParameter> parameters, const AdamWOptions& options);

  // One update from the gradients present; parameters without a gradient count as gradient zero.
  // Returns the gradient norm before clipping as a device scalar.
  at::Tensor step(double learning_rate);
  void zero_grad();

  [[nodiscard]] const std::vector<NamedParameter>& parameters() const { return parameters_; }
  [[nodiscard]] std::int64_t steps_taken() const { return steps_taken_; }

  // Moments by name ("exp_avg/<name>", "exp_avg_sq/<name>"), shared with the optimiser.
  [[nodiscard]] std::map<std::string, at::Tensor> state() const;
  // Copies a state taken after `steps`. Throws Error(kFormat) for a missing or misshapen tensor.
  void load_state(const std::map<std::string, at::Tensor>& state, std::int64_t steps);

 private:
  void update_group(const std::vector<std::size_t>& group, double learning_rate,
                    double weight_decay);

  std::vector<NamedParameter> parameters_;
  AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
  std::vector<at::Tensor> step_counts_;   // fp32 scalars, as the kernel wants them
  std::vector<std::size_t> decayed_;      // indices of matrices
  std::vector<std::size_t> not_decayed_;  // the others
  std::int64_t steps_taken_ = 0;
};

}  // namespace puzzle
