// The ranks of one run and what they say to each other. A run without a launcher is a group of one,
// whose collectives return at once, so that one code path serves both.
//
// Rules for callers. Every rank calls the same collectives in the same order. Before each one the
// ranks compare what they are about to do (collective, dtype, sizes, root), because different sizes
// on two ranks would abort the process inside gloo: a difference is Error(kPeer) on every rank. A
// peer that died or hangs longer than the timeout is Error(kPeer) as well; afterwards the group is
// unusable. Messages name the own rank, the collective and the tensor.
//
// Tensors may be of any dtype of {fp64, fp32, fp16, bf16, int64, int32, int8, uint8}, on any device
// and with any strides. The wire is c10d's Gloo, on host memory: tensors elsewhere are copied to
// the host and back (logged once). c10d's NCCL group cannot be used: its header needs the CUDA
// toolkit's, and its symbols exist only in CUDA wheels, while this program is one build for both.
// Sums are in the tensor's dtype, in an order that is the same in every run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/base/options.h"

namespace at {
class Tensor;
}

namespace puzzle {

class Communicator {
 public:
  virtual ~Communicator() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  // Among the ranks of this machine; decides which GPU is this rank's.
  [[nodiscard]] virtual int local_rank() const { return rank(); }

  // In place: the sum over ranks.
  virtual void all_reduce_sum(at::Tensor& tensor) = 0;
  // In place: root's values.
  virtual void broadcast(at::Tensor& tensor, int root) = 0;
  // `part` [...] of equal sizes on every rank; returns [size, ...] in rank order.
  [[nodiscard]] virtual at::Tensor all_gather(const at::Tensor& part) = 0;
  virtual void barrier() = 0;

  // Built on the above.

  [[nodiscard]] bool is_first() const { return rank() == 0; }
  // The sum in fp64, added in rank order: the same bits on every rank.
  [[nodiscard]] double all_reduce_sum(double value);
  [[nodiscard]] double all_reduce_max(double value);
  // Each rank's bytes, in rank order; lengths may differ.
  [[nodiscard]] std::vector<std::string> all_gather_strings(std::string_view mine);
  // Root's bytes on every rank.
  [[nodiscard]] std::string broadcast_string(std::string_view mine, int root);
  // Throws Error(kUsage) on every rank unless all ranks give the same `value`, e.g.
  // agree("recipe", key): ranks that read different files must not go on together.
  void agree(std::string_view what, std::string_view value);
};

struct CommunicatorOptions {
  double timeout_s = 1800.0;      // how long to wait for a peer in one collective
  double join_timeout_s = 300.0;  // how long to wait for all of them at the start

  void visit(OptionList& list) {
    list.add(
        "timeout_s", timeout_s, Range<double>{0.1, 1e6},
        "Seconds to wait for another process in one collective before it counts as hanging; one "
        "process measures and searches for all of them, and speaks up between two steps of it.");
    list.add("join_timeout_s", join_timeout_s, Range<double>{0.1, 1e6},
             "Seconds to wait at the start until all processes of the group are there.");
  }
};

// The group that the launcher's variables name (launcher_environment.h), or a group of one. In a
// larger group log lines are prefixed "rank N: " from here on, and only rank 0 shows progress.
// Throws Error(kUsage) for broken variables, Error(kPeer) if the others do not come within
// join_timeout_s.
[[nodiscard]] std::unique_ptr<Communicator> make_communicator(
    const CommunicatorOptions& options = {});

}  // namespace puzzle
