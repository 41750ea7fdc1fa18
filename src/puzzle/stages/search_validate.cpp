#include "puzzle/stages/search_validate.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/search_local.h"
#include "puzzle/stages/search_problem.h"
#include "puzzle/stages/search_rounds.h"

namespace puzzle {
namespace {

struct MeasuredChild {
  FoundArchitecture found;
  MeasuredKl kl;
};

class Refiner {
 public:
  Refiner(const SearchOptions& options, const SearchSolver& solver, SearchProbe& probe,
          std::int64_t batch)
      : options_(options),
        solver_(solver),
        probe_(probe),
        batch_(batch),
        problem_(solver.problem_at(batch)) {}

  void validate(std::vector<FoundArchitecture>& found) {
    const auto count =
        static_cast<std::size_t>(std::clamp<std::int64_t>(options_.validate, 1, std::ssize(found)));
    Progress progress("search: validate", static_cast<std::int64_t>(count), "children");
    for (std::size_t i = 0; i < count; ++i) {
      add(std::move(found[i]));
      progress.advance();
    }
    found.erase(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count));
  }

  void go_in_rounds() {
    const std::optional<Assignment> choices = search_in_rounds(
        problem_, solver_.parent_choices(problem_),
        {.rounds = options_.rounds, .round_layers = options_.round_layers},
        [&](const Assignment& child) { return probe_.changes(chosen_blocks(problem_, child)); },
        [&](const Problem& problem) { return solver_.best_of(problem); });
    if (!choices) {
      log_warning("search: a round found no child in {:g} s; raise search.time_limit_s",
                  options_.time_limit_s);
      return;
    }
    add_new("rounds", *choices);
  }

  // Swaps are ranked by changes around the child where rounds make such, else by the scores.
  void search_around_best() {
    sort();
    const MeasuredChild& best = children_.front();
    const Assignment start = choices_of(problem_, best.found.layers);
    const Problem ranked = options_.makes_rounds()
                               ? with_changes(problem_, probe_.changes(best.found.layers), start)
                               : problem_;
    const LocalResult result = search_locally(
        ranked, start, best.kl, options_.local_forwards,
        [&](const Assignment& child, const Assignment& base) {
          return probe_.measure({chosen_blocks(problem_, child)}, chosen_blocks(problem_, base))
              .front();
        });
    log_info("search: local search kept {} of {} swaps: {:.4f} -> {:.4f} nats", result.num_accepted,
             result.num_measured, best.kl.mean().value, result.kl.mean().value);
    if (result.num_accepted > 0) {
      add_new("local", result.choices);
    }
  }

  // What was measured, the best first.
  [[nodiscard]] std::vector<FoundArchitecture> result() {
    sort();
    std::vector<FoundArchitecture> found;
    for (MeasuredChild& child : children_) {
      child.found.measured = FoundMeasurement{.kl = child.kl.mean(),
                                              .minus_child = child.kl.minus(children_.front().kl),
                                              .tokens = child.kl.tokens()};
      found.push_back(child.found);
    }
    return found;
  }

 private:
  void add(FoundArchitecture found) {
    MeasuredKl kl = probe_.measure(found.layers);
    log_info("search: {}: predicted {:.4f} nats, measured {:.4f} ± {:.4f}", found.method,
             found.objective, kl.mean().value, kl.mean().standard_error);
    children_.push_back({std::move(found), std::move(kl)});
  }

  // Unless it was found before.
  void add_new(const std::string& method, const Assignment& choices) {
    FoundArchitecture found = solver_.found_as(method, problem_, choices, batch_);
    const bool is_known =
        std::any_of(children_.begin(), children_.end(),
                    [&](const MeasuredChild& child) { return child.found.layers == found.layers; });
    if (is_known) {
      log_info("search: {}: found a child that is known already", method);
    } else {
      add(std::move(found));
    }
  }

  void sort() {
    std::stable_sort(children_.begin(), children_.end(),
                     [](const MeasuredChild& a, const MeasuredChild& b) {
                       return a.kl.mean().value < b.kl.mean().value;
                     });
  }

  const SearchOptions& options_;
  const SearchSolver& solver_;
  SearchProbe& probe_;
  std::int64_t batch_;
  Problem problem_;
  std::vector<MeasuredChild> children_;
};

}  // namespace

void refine(const SearchOptions& options, const SearchSolver& solver, SearchProbe& probe,
            std::vector<FoundArchitecture>& found) {
  Refiner refiner(options, solver, probe, found.front().batch);
  refiner.validate(found);
  if (options.makes_rounds()) {
    refiner.go_in_rounds();
  }
  if (options.searches_locally()) {
    refiner.search_around_best();
  }
  std::vector<FoundArchitecture> measured = refiner.result();
  found.insert(found.begin(), std::make_move_iterator(measured.begin()),
               std::make_move_iterator(measured.end()));
}

}  // namespace puzzle
