// Time to a proven optimum of searches as large as a 70B parent's: 80 layers × 54 choices, three
// budgets. `gap` is the proven relative gap (the target is 1e-6), `proven` 1 if all were proven.
#include <algorithm>

#include <benchmark/benchmark.h>

#include "mip/random_problem.h"
#include "puzzle/mip/highs_solver.h"

namespace puzzle {
namespace {

void report(benchmark::State& state, const SolveResult& result) {
  double gap = 0.0;
  for (const Solution& solution : result.solutions) {
    gap = std::max(gap, solution.gap);
  }
  state.counters["gap"] = gap;
  state.counters["proven"] = result.status == SolveStatus::kOptimal ? 1.0 : 0.0;
  state.counters["solutions"] = static_cast<double>(result.solutions.size());
}

void solve_large(benchmark::State& state, double cost_noise, std::int64_t num_solutions) {
  Problem problem = test::large_problem(80, static_cast<std::uint64_t>(state.range(0)), cost_noise);
  problem.num_solutions = num_solutions;
  SolveResult result;
  for (auto _ : state) {
    result = HighsSolver().solve(problem);
  }
  report(state, result);
}

void times_per_layer(benchmark::State& state) { solve_large(state, 0.05, 1); }
void times_per_shape(benchmark::State& state) { solve_large(state, 0.0, 1); }
void five_diverse_solutions(benchmark::State& state) { solve_large(state, 0.05, 5); }

// Scores and costs without any structure.
void random_scores(benchmark::State& state) {
  Problem problem = test::random_problem({.num_layers = 80,
                                          .max_choices = 54,
                                          .num_costs = 3,
                                          .tightness = 0.3,
                                          .seed = static_cast<std::uint64_t>(2 * state.range(0))});
  SolveResult result;
  for (auto _ : state) {
    result = HighsSolver().solve(problem);
  }
  report(state, result);
}

void infeasible_and_why(benchmark::State& state) {
  Problem problem = test::large_problem(80, 1);
  problem.budgets[0].at_most = 0.01 * *problem.budgets[0].at_most;
  for (auto _ : state) {
    benchmark::DoNotOptimize(HighsSolver().solve(problem));
  }
}

BENCHMARK(times_per_layer)->DenseRange(1, 8)->Unit(benchmark::kSecond)->Iterations(1);
BENCHMARK(times_per_shape)->DenseRange(1, 8)->Unit(benchmark::kSecond)->Iterations(1);
BENCHMARK(random_scores)->DenseRange(1, 8)->Unit(benchmark::kSecond)->Iterations(1);
BENCHMARK(five_diverse_solutions)->DenseRange(1, 2)->Unit(benchmark::kSecond)->Iterations(1);
BENCHMARK(infeasible_and_why)->Unit(benchmark::kSecond)->Iterations(1);

}  // namespace
}  // namespace puzzle

BENCHMARK_MAIN();
