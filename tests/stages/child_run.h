// A run with an assembled child, and what tests of stages that change it need: other run folders,
// a process that dies.
#pragma once

#include <csignal>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/assemble.h"
#include "stages/scored_run.h"

namespace puzzle::test {

// A run with a child of halved sub-blocks, assembled from a library.
struct ChildRun : ScoredRun {
  explicit ChildRun(const Architecture& layers = {parse_block("kv2/w64"), parse_block("none/w32"),
                                                  parse_block("linear/w64")},
                    bool cross_documents = true)
      : ScoredRun(cross_documents) {
    parent.path = folder / "parent";
    make_folder(parent.path);
    write_text_file(parent.path / "tokenizer.json", "{}");
    const AssembleResult assembled =
        assemble(context, parent, {library.folder, library.key, layers, "start"});
    start_folder = assembled.folder;
    start_key = assembled.key;
  }
  [[nodiscard]] ModelWeights start() const { return load_model(start_folder, at::kFloat); }
  // Held-out KL of a model on disk, the slow way.
  [[nodiscard]] double naive_kl(const std::filesystem::path& child) const {
    return test::naive_kl(parent.weights, load_model(child, at::kFloat), *validation);
  }

  std::filesystem::path start_folder;
  std::string start_key;
};

// Another run folder with a database of its own.
struct Elsewhere {
  explicit Elsewhere(Communicator& communicator, std::filesystem::path path)
      : db((make_folder(path), path / "run.db")), context{path, db, communicator} {}
  [[nodiscard]] std::string weights() const {
    return read_text_file(context.folder / "children/child/model.safetensors");
  }
  [[nodiscard]] std::map<std::pair<std::string, std::int64_t>, double> curve() const {
    std::map<std::pair<std::string, std::int64_t>, double> points;
    for (const CurveRow& row : db.curves()) {
      points[{row.metric, row.step}] = row.value;
    }
    return points;
  }
  // Whether anything but finished children lies below children/.
  [[nodiscard]] bool has_leftovers() const {
    for (const auto& entry : std::filesystem::directory_iterator(context.folder / "children")) {
      if (entry.path().has_extension()) {
        return true;
      }
    }
    return false;
  }

  RunDb db;
  RunContext context;
};

// A group of one in which the process "dies", or gets a signal, at the nth collective.
class DyingCommunicator final : public Communicator {
 public:
  using Communicator::all_reduce_sum;
  DyingCommunicator(std::int64_t dies_at, bool by_signal) : left_(dies_at), by_signal_(by_signal) {}
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 1; }
  void all_reduce_sum(at::Tensor& /*tensor*/) override { count(); }
  void broadcast(at::Tensor& /*tensor*/, int /*root*/) override { count(); }
  [[nodiscard]] at::Tensor all_gather(const at::Tensor& part) override {
    count();
    return part.unsqueeze(0);
  }
  void barrier() override { count(); }

 private:
  void count() {
    if (--left_ == 0) {
      if (by_signal_) {
        (void)std::raise(SIGTERM);
      } else {
        throw std::runtime_error("killed");
      }
    }
  }

  std::int64_t left_;
  bool by_signal_;
};

// Runs `stage` (which takes a RunContext&) until it dies at the first, then the (1 + step)-th, ...
// collective, each time in a folder of its own, until it gets through; runs it again there and
// hands what came out to `compare(result, where)`.
template <class Run, class Stage, class Compare>
void expect_resumed_after_kills(Run& run, std::int64_t step, const Stage& stage,
                                const Compare& compare) {
  bool finished = false;
  for (std::int64_t dies_at = 1; !finished; dies_at += step) {
    ASSERT_LT(dies_at, 200);
    const auto path = run.folder / ("killed" + std::to_string(dies_at));
    DyingCommunicator dying(dies_at, /*by_signal=*/false);
    try {
      Elsewhere first(dying, path);
      (void)stage(first.context);
      finished = true;
    } catch (const std::runtime_error& error) {
      ASSERT_STREQ(error.what(), "killed");
    }
    Elsewhere second(run.communicator, path);
    SCOPED_TRACE("killed at collective " + std::to_string(dies_at));
    compare(stage(second.context), second);
    std::filesystem::remove_all(path);
  }
}

}  // namespace puzzle::test
