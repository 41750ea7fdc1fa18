// One rank of the tests of this folder: `puzzle_dist_rank ROLE [FOLDER]`. Ends with the exit code
// that the real program would have; 1 where an expectation fails.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <thread>

#include <ATen/ATen.h>
#include <signal.h>
#include <unistd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/log.h"
#include "puzzle/dist/communicator.h"

namespace {

using puzzle::Communicator;
using puzzle::Error;
using puzzle::ErrorKind;

constexpr int kExpectationFailed = 1;

void expect(bool condition, const std::string& what) {
  if (!condition) {
    puzzle::log_warning("expected {}", what);
    std::exit(kExpectationFailed);
  }
}

void expect_values(const at::Tensor& found, const at::Tensor& expected, const std::string& what) {
  expect(found.sizes() == expected.sizes() && found.scalar_type() == expected.scalar_type() &&
             found.equal(expected),
         what + ": " + expected.toString() + ", values differ");
}

// [0, 1, 2, …] + 10 × rank, in numbers that bf16 holds exactly.
at::Tensor rank_values(int rank, at::ScalarType type) {
  return at::arange(6, at::TensorOptions(at::kFloat)).add(10.0 * rank).to(type).view({2, 3});
}

at::Tensor sum_of_values(int size, at::ScalarType type) {
  double sum_of_ranks = 0;
  for (int r = 0; r < size; ++r) {
    sum_of_ranks += r;
  }
  return at::arange(6, at::TensorOptions(at::kFloat))
      .mul(size)
      .add(10.0 * sum_of_ranks)
      .to(type)
      .view({2, 3});
}

void check_dtype(Communicator& group, at::ScalarType type) {
  const int rank = group.rank();
  const int size = group.size();
  at::Tensor sum = rank_values(rank, type);
  group.all_reduce_sum(sum);
  expect_values(sum, sum_of_values(size, type), "all_reduce_sum");

  at::Tensor transposed = rank_values(rank, type).t();
  const void* const address = transposed.data_ptr();
  group.all_reduce_sum(transposed);
  expect(transposed.data_ptr() == address, "a reduction in place");
  expect_values(transposed, sum_of_values(size, type).t(), "all_reduce_sum with strides");

  for (int root = 0; root < size; ++root) {
    at::Tensor values = rank_values(rank, type);
    group.broadcast(values, root);
    expect_values(values, rank_values(root, type), "broadcast");
    at::Tensor strided = rank_values(rank, type).t();
    group.broadcast(strided, root);
    expect_values(strided, rank_values(root, type).t(), "broadcast with strides");
  }

  const at::Tensor all = group.all_gather(rank_values(rank, type));
  expect(all.size(0) == size, "one part of each rank");
  for (int r = 0; r < size; ++r) {
    expect_values(all[r], rank_values(r, type), "all_gather");
  }
}

void collectives(Communicator& group, const std::string& /*folder*/) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble, at::kHalf, at::kLong}) {
    check_dtype(group, type);
  }

  at::Tensor parameter = at::ones({2}, at::kFloat).set_requires_grad(true);
  group.all_reduce_sum(parameter);
  expect(parameter.is_leaf() && parameter[0].item<float>() == static_cast<float>(group.size()),
         "a reduced parameter that is still a leaf");

  at::Tensor nothing = at::empty({0, 4}, at::kFloat);
  group.all_reduce_sum(nothing);
  group.broadcast(nothing, 0);
  expect(group.all_gather(nothing).sizes() == at::IntArrayRef({group.size(), 0, 4}),
         "[size, 0, 4]");

  expect(group.all_reduce_sum(0.5 + group.rank()) == 0.5 * group.size() * group.size(), "a sum");
  expect(group.all_reduce_max(-1.0 - group.rank()) == -1.0, "a maximum");
  const std::string mine(static_cast<std::size_t>(group.rank()) * 3, 'x');
  const std::vector<std::string> strings = group.all_gather_strings(mine);
  for (int r = 0; r < group.size(); ++r) {
    expect(strings[static_cast<std::size_t>(r)].size() == static_cast<std::size_t>(r) * 3,
           "strings of their own lengths");
  }
  const int last = group.size() - 1;
  expect(group.broadcast_string(mine, last).size() == static_cast<std::size_t>(last) * 3,
         "the last rank's string");
  group.agree("recipe", "the same");
  group.barrier();
}

template <class Call>
Error expect_error(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  expect(false, "an error");
  std::abort();
}

void mismatch(Communicator& group, const std::string& /*folder*/) {
  const Error sizes = expect_error([&] {
    at::Tensor values = at::zeros({3 + group.rank()}, at::kFloat);
    group.all_reduce_sum(values);
  });
  const std::string text = sizes.what();
  expect(sizes.kind() == ErrorKind::kPeer, "kind kPeer");
  expect(text.find("rank 0 is at all_reduce_sum of Float [3], but rank 1 is at all_reduce_sum of "
                   "Float [4]") != std::string::npos,
         "both sizes in: " + text);

  const Error calls = expect_error([&] {
    at::Tensor values = at::zeros({3}, at::kFloat);
    if (group.rank() == 0) {
      group.broadcast(values, 0);
    } else {
      group.all_reduce_sum(values);
    }
  });
  expect(std::string(calls.what()).find("broadcast of Float [3] from rank 0") != std::string::npos,
         "both collectives in: " + std::string(calls.what()));

  // Nothing of the refused calls is on its way: the group still works.
  expect(group.all_reduce_sum(1.0) == group.size(), "a working group");
}

// A peer's death or silence, as the survivor sees it: FOLDER/rank-N.txt gets kind, seconds,
// message.
void record_peer_error(Communicator& group, const std::string& folder) {
  const auto start = std::chrono::steady_clock::now();
  const Error error = expect_error([&] {
    at::Tensor values = at::ones({1000}, at::kFloat);
    for (;;) {
      group.all_reduce_sum(values);
    }
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::ofstream(std::filesystem::path(folder) / ("rank-" + std::to_string(group.rank()) + ".txt"))
      << puzzle::kind_name(error.kind()) << '\n'
      << seconds.count() << '\n'
      << error.what() << '\n';
  throw error;
}

void killed_peer(Communicator& group, const std::string& folder) {
  group.barrier();
  if (group.rank() == 1) {
    ::raise(SIGKILL);
  }
  record_peer_error(group, folder);
}

void hanging_peer(Communicator& group, const std::string& folder) {
  group.barrier();
  if (group.rank() == 1) {
    std::this_thread::sleep_for(std::chrono::seconds(60));
  }
  record_peer_error(group, folder);
}

void disagree(Communicator& group, const std::string& /*folder*/) {
  group.agree("recipe", group.rank() == 1 ? "another" : "mine");
}

void format_error(Communicator& group, const std::string& /*folder*/) {
  if (group.rank() == 1) {
    puzzle::fail(ErrorKind::kFormat, "broken.gguf: found nothing");
  }
  group.barrier();
}

void outputs(Communicator& group, const std::string& /*folder*/) {
  if (group.rank() == 0) {
    std::cout << "{\"result\": 1}\n" << std::flush;
  } else {
    std::cout << "spoken\nunfinished" << std::flush;
  }
  puzzle::log_info("logged");
  std::cerr << "bare\n";
}

void stubborn(Communicator& group, const std::string& /*folder*/) {
  group.barrier();
  if (group.rank() == 1) {
    ::signal(SIGTERM, SIG_IGN);
    std::this_thread::sleep_for(std::chrono::seconds(60));
  }
  puzzle::fail(ErrorKind::kNumeric, "loss is not finite");
}

void wait_for_a_signal(Communicator& group, const std::string& folder) {
  group.barrier();
  std::ofstream(std::filesystem::path(folder) / ("ready-" + std::to_string(group.rank()))) << "1";
  for (;;) {
    puzzle::throw_if_interrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

int run_role(const std::string& role, const std::string& folder) {
  const std::map<std::string, std::function<void(Communicator&, const std::string&)>> roles = {
      {"collectives", collectives}, {"mismatch", mismatch}, {"killed", killed_peer},
      {"hanging", hanging_peer},    {"disagree", disagree}, {"format", format_error},
      {"outputs", outputs},         {"stubborn", stubborn}, {"signal", wait_for_a_signal}};
  try {
    const double timeout_s = role == "hanging" ? 1.0 : 30.0;
    const auto group = puzzle::make_communicator({.timeout_s = timeout_s, .join_timeout_s = 60.0});
    roles.at(role)(*group, folder);
  } catch (const Error& error) {
    puzzle::log_info("{}", error.what());
    return puzzle::exit_code(error.kind());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  puzzle::install_interrupt_handlers();
  return run_role(argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : "");
}
