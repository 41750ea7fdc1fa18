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

at::Tensor SingleCommunicator::reduce_scatter_sum(const at::Tensor& whole) {
  PUZZLE_CHECK(whole.defined() && whole.dim() >= 1 && whole.size(0) == 1,
               "reduce_scatter_sum in a group of one needs a first dimension of 1");
  return whole.detach().clone().squeeze(0);
}

void SingleCommunicator::send(const at::Tensor& /*tensor*/, int destination) {
  PUZZLE_CHECK(false, "send to rank {} in a group of one", destination);
}

at::Tensor SingleCommunicator::receive(int source) {
  PUZZLE_CHECK(false, "receive from rank {} in a group of one", source);
}

}  // namespace puzzle
