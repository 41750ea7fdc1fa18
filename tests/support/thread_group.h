// Ranks of a group as threads of this process: a Communicator without sockets for stage tests.
#pragma once

#include <barrier>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <ATen/ATen.h>

#include "puzzle/dist/communicator.h"

namespace puzzle::test {

class ThreadGroup {
 public:
  explicit ThreadGroup(int size) : slots_(static_cast<std::size_t>(size)), barrier_(size) {}

  // Runs `rank_body` once per rank and rethrows the first rank's exception, if any. A rank that
  // throws leaves the group, so the others must not need it any more.
  static void run(int size, const std::function<void(Communicator&)>& rank_body) {
    ThreadGroup group(size);
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(size));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        Member member(group, rank);
        try {
          rank_body(member);
        } catch (...) {
          errors[static_cast<std::size_t>(rank)] = std::current_exception();
          group.barrier_.arrive_and_drop();
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    for (const std::exception_ptr& error : errors) {
      if (error) {
        std::rethrow_exception(error);
      }
    }
  }

 private:
  class Member final : public Communicator {
   public:
    using Communicator::all_reduce_sum;

    Member(ThreadGroup& group, int rank) : group_(group), rank_(rank) {}
    [[nodiscard]] int rank() const override { return rank_; }
    [[nodiscard]] int size() const override { return static_cast<int>(group_.slots_.size()); }
    void all_reduce_sum(at::Tensor& tensor) override { tensor.copy_(all_gather(tensor).sum(0)); }
    void broadcast(at::Tensor& tensor, int root) override {
      const auto all = exchange(tensor);
      tensor.copy_(all[static_cast<std::size_t>(root)]);
    }
    [[nodiscard]] at::Tensor all_gather(const at::Tensor& part) override {
      return at::stack(exchange(part));
    }
    void barrier() override { group_.barrier_.arrive_and_wait(); }

   private:
    std::vector<at::Tensor> exchange(const at::Tensor& mine) {
      group_.slots_[static_cast<std::size_t>(rank_)] = mine.clone();
      group_.barrier_.arrive_and_wait();
      std::vector<at::Tensor> all = group_.slots_;
      group_.barrier_.arrive_and_wait();
      return all;
    }

    ThreadGroup& group_;
    int rank_;
  };

  std::vector<at::Tensor> slots_;
  std::barrier<> barrier_;
};

}  // namespace puzzle::test
