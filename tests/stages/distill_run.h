// A run of distill-blocks on a tiny parent, and its losses computed the slow way.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "puzzle/stages/distill_blocks.h"
#include "stages/library_run.h"

namespace puzzle::test {

inline DistillBlocksOptions usual_options() {
  DistillBlocksOptions options;
  options.epochs = 3;
  options.kv_learning_rate = 3e-3;
  options.ffn_learning_rate = 3e-3;
  options.linear_learning_rate = 3e-3;
  options.curve_every = 7;
  return options;
}

// A run whose library was initialised by the paper's rules, which leave much to learn.
struct DistillRun : test::LibraryRun {
  explicit DistillRun(bool cross_documents = true)
      : LibraryRun(test::library_spec(), cross_documents) {
    start = make({.init = "paper"});
  }
  DistillBlocksResult distill(const DistillBlocksOptions& options) {
    return distill(options, context, space);
  }
  DistillBlocksResult distill(const DistillBlocksOptions& options, RunContext& run_context,
                              const SearchSpace& run_space) {
    return distill_blocks(run_context, parent, {start.folder, start.key}, run_space, *calibration,
                          *validation, options);
  }
  [[nodiscard]] std::string file_bytes(const std::filesystem::path& library,
                                       std::int64_t layer) const {
    return read_text_file(layer_file(library, layer));
  }
  [[nodiscard]] LayerLibrary load_from(const std::filesystem::path& library,
                                       std::int64_t layer) const {
    return load_file(layer_file(library, layer), layer);
  }
  // Rows of distill-blocks by "layer/variant".
  [[nodiscard]] std::map<std::string, VariantRow> rows() const {
    std::map<std::string, VariantRow> found;
    for (const VariantRow& row : db.variants()) {
      if (row.stage == "distill-blocks") {
        found[std::to_string(row.layer) + "/" + row.variant] = row;
      }
    }
    return found;
  }

  InitLibraryResult start;
};

template <class Weights>
bool same_tensors(const Weights& a, const Weights& b) {
  std::map<std::string, at::Tensor> tensors;
  visit_tensors(a, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  tensors[name] = tensor;
                }));
  bool same = true;
  visit_tensors(b, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  same = same && tensors.contains(name) && at::equal(tensors[name], tensor);
                  tensors.erase(name);
                }));
  return same && tensors.empty();
}

// The losses of block_loss.h and the residual-free error, by loops over double numbers.
inline double naive_loss(const std::string& loss, const at::Tensor& parent,
                         const at::Tensor& child) {
  const at::Tensor p = parent.to(at::kDouble).flatten(0, 1).contiguous();
  const at::Tensor c = child.to(at::kDouble).flatten(0, 1).contiguous();
  const auto p_at = p.accessor<double, 2>();
  const auto c_at = c.accessor<double, 2>();
  double error = 0.0, norm = 0.0, per_token = 0.0, cosine = 0.0;
  for (std::int64_t t = 0; t < p.size(0); ++t) {
    double pp = 0.0, cc = 0.0, pc = 0.0, difference = 0.0;
    for (std::int64_t d = 0; d < p.size(1); ++d) {
      pp += p_at[t][d] * p_at[t][d];
      cc += c_at[t][d] * c_at[t][d];
      pc += p_at[t][d] * c_at[t][d];
      difference += (p_at[t][d] - c_at[t][d]) * (p_at[t][d] - c_at[t][d]);
    }
    error += difference;
    norm += pp;
    per_token += difference / pp;
    cosine += 1.0 - pc / std::sqrt(pp * cc);
  }
  const auto tokens = static_cast<double>(p.size(0));
  return loss == "mse" ? error / norm : loss == "token-mse" ? per_token / tokens : cosine / tokens;
}

}  // namespace puzzle::test
