#include "puzzle/dist/single_communicator.h"

#include <ATen/ATen.h>

#include "puzzle/base/error.h"

namespace puzzle {

void SingleCommunicator::all_reduce_sum(at::Tensor& tensor) {
  PUZZLE_CHECK(tensor.defined(), "all_reduce_sum of an undefined tensor");
}

void SingleCommunicator::broadcast(at::Tensor& tensor, int root) {
  PUZZLE_CHECK(tensor.defined(), "broadcast of an undefined tensor");
  PUZZLE_CHECK(root == 0, "broadcast from rank {} in a group of one", root);
}

at::Tensor SingleCommunicator::all_gather(const at::Tensor& part) {
  PUZZLE_CHECK(part.defined(), "all_gather of an undefined tensor");
  return part.detach().clone().unsqueeze(0);
}

}  // namespace puzzle
