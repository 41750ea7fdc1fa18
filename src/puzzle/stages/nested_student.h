// All widths of a layer's FFN under block-local distillation, behind the parent's attention.
//
// The widths share gate, up and the coefficients of the down projection (nested_ffn.h), whose basis
// stays as it is. Each step trains a few of them: the smallest, the largest and others at random
// (the sandwich rule of slimmable networks, arXiv 1903.05134), each with its loss over the loss's
// root: unscaled, the narrow ones, whose losses are the largest, take the wide ones' improvement,
// and with losses relative to themselves it is the other way round.
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/model/nested_ffn.h"
#include "puzzle/stages/block_student.h"

namespace puzzle {

struct WidthSampling {
  std::int64_t per_step = 8;  // at least 2
  std::uint64_t seed = 0;
};

// Positions of `num_widths` ascending widths that step `step` trains, ascending: the first, the
// last, and per_step − 2 others drawn without repetition; all of them where there are no more.
[[nodiscard]] std::vector<std::size_t> sampled_widths(const WidthSampling& sampling,
                                                      std::size_t num_widths, std::int64_t step);

class NestedStudent : public LayerStudent {
 public:
  // `widths` ascend up to the nested FFN's own. `start` shares its tensors and is never written to.
  // `geometry` must outlive the student.
  NestedStudent(const NestedFfn& start, std::vector<std::int64_t> widths,
                const WidthSampling& sampling, const LayerWeights& parent, const Geometry& geometry,
                double peak_rate, const AdamWOptions& options);

  // What training made of it; tensors require no gradient.
  [[nodiscard]] NestedFfn trained() const;

  at::Tensor train_step(const SharedBatch& batch, double factor) override;
  [[nodiscard]] std::size_t num_variants() const override { return widths_.size(); }
  void add_errors(const SharedBatch& batch, std::span<StudentErrors> errors) const override;
  void add_start_errors(const SharedBatch& batch, std::span<StudentErrors> errors) const override;

 private:
  [[nodiscard]] at::Tensor input(const SharedBatch& batch) const;
  void add_all(const NestedForward& forward, const SharedBatch& batch,
               std::span<StudentErrors> errors) const;

  NestedFfn nested_;  // what is trained
  NestedForward start_;
  NestedForward present_;
  std::vector<std::int64_t> widths_;
  WidthSampling sampling_;
  const Geometry& geometry_;
  bool shares_input_;
  double peak_rate_;
  AdamW optimizer_;
};

}  // namespace puzzle
