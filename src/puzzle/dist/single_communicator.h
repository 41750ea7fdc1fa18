// A group of one: every collective is done already.
#pragma once

#include "puzzle/dist/communicator.h"

namespace puzzle {

// Throws Error(kInternal) for a root other than 0.
class SingleCommunicator final : public Communicator {
 public:
  using Communicator::all_reduce_sum;

  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 1; }
  void all_reduce_sum(at::Tensor& tensor) override;
  void broadcast(at::Tensor& tensor, int root) override;
  [[nodiscard]] at::Tensor all_gather(const at::Tensor& part) override;
  void barrier() override {}
};

}  // namespace puzzle
