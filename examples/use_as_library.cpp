// Puzzle's parts in a program of your own: what a model costs, what a smaller one could look like.
//
//   use_as_library MODEL FRACTION
//
// MODEL is a .gguf file or a Hugging Face folder, of which config.json is enough: no weights are
// read. Prints an architecture that keeps at most FRACTION of the bytes of all weights.
//
// The search needs a score per layer and block: how much worse the model gets if only that block is
// exchanged. `puzzle score` measures it. So that this example needs no weights, it guesses: the
// damage grows with the square of the share of parameters that a block gives up, and twice as fast
// in the first and in the last layer.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/base/error.h"
#include "puzzle/mip/highs_solver.h"
#include "puzzle/model/checkpoint.h"

namespace {

const puzzle::WeightTypes kTypes = {.matrix = puzzle::DType::kBF16,
                                    .embedding = puzzle::DType::kBF16,
                                    .vector = puzzle::DType::kBF16,
                                    .kv = puzzle::DType::kBF16};

puzzle::PartCost cost_of(const puzzle::ModelSpec& parent, std::size_t layer,
                         const puzzle::BlockSpec& block) {
  return puzzle::block_cost(parent, static_cast<std::int64_t>(layer), block,
                            puzzle::ExportTarget::kNative, kTypes);
}

double guess_damage(const puzzle::ModelSpec& parent, std::size_t layer,
                    const puzzle::BlockSpec& block) {
  const auto kept = static_cast<double>(cost_of(parent, layer, block).parameters);
  const auto all = static_cast<double>(cost_of(parent, layer, parent.layers[layer]).parameters);
  const double given_up = 1.0 - kept / all;
  const bool is_outer = layer == 0 || layer + 1 == parent.layers.size();
  return given_up * given_up * (is_outer ? 2.0 : 1.0);
}

// Every pair of an attention and an FFN that the space allows is a choice of its layer.
puzzle::Problem make_problem(const puzzle::ModelSpec& parent, const puzzle::SearchSpace& space,
                             double max_bytes) {
  puzzle::Problem problem;
  problem.cost_names = {"weight_bytes"};
  const auto fixed = puzzle::fixed_cost(parent, kTypes);  // embedding and head
  problem.fixed_costs = {static_cast<double>(fixed.weight_bytes)};
  problem.budgets = {{.cost = "weight_bytes", .at_most = max_bytes, .at_least = {}}};
  for (std::size_t layer = 0; layer < space.layers.size(); ++layer) {
    std::vector<puzzle::Choice>& choices = problem.layers.emplace_back();
    for (const puzzle::AttentionSpec& attention : space.layers[layer].attention) {
      for (const puzzle::FfnSpec& ffn : space.layers[layer].ffn) {
        const puzzle::BlockSpec block{attention, ffn};
        const auto bytes = static_cast<double>(cost_of(parent, layer, block).weight_bytes);
        choices.push_back(
            {.name = block.name(), .score = guess_damage(parent, layer, block), .costs = {bytes}});
      }
    }
  }
  return problem;
}

void search(const std::string& model, double fraction) {
  const puzzle::ModelSpec parent = puzzle::load_model_spec(model);
  const auto whole = puzzle::model_cost(parent, puzzle::ExportTarget::kNative, kTypes);
  std::printf("parent: %lld layers, %lld parameters, %lld bytes in bfloat16\n",
              static_cast<long long>(parent.num_layers()), static_cast<long long>(whole.parameters),
              static_cast<long long>(whole.weight_bytes));

  puzzle::SearchSpaceOptions options;
  options.attention = {"parent", "divisors", "none"};
  options.ffn = {"parent", "0.75", "0.5", "0.25", "none"};
  const puzzle::SearchSpace space = puzzle::make_search_space(options, parent);
  std::printf("search space: 10^%.1f architectures\n", space.log10_architectures());

  const puzzle::Problem problem =
      make_problem(parent, space, fraction * static_cast<double>(whole.weight_bytes));
  const puzzle::SolveOptions solve_options;
  const puzzle::SolveResult result = puzzle::HighsSolver().solve(problem, solve_options);
  // Too small a budget is an answer, not an exception; this says what could be reached.
  if (const auto failure = puzzle::solve_failure(result, solve_options)) {
    puzzle::fail(failure->kind, "{}", failure->why);
  }

  const std::vector<std::string> names =
      puzzle::choice_names(problem, result.solutions.front().choices);
  const puzzle::ModelSpec child = puzzle::with_layers(parent, puzzle::parse_blocks(names));
  const auto cost = puzzle::model_cost(child, puzzle::ExportTarget::kNative, kTypes);
  std::printf("child: %lld parameters, %lld bytes\n", static_cast<long long>(cost.parameters),
              static_cast<long long>(cost.weight_bytes));
  for (std::size_t layer = 0; layer < names.size(); ++layer) {
    std::printf("%3zu  %s\n", layer, names[layer].c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: use_as_library MODEL FRACTION\n");
    return puzzle::exit_code(puzzle::ErrorKind::kUsage);
  }
  try {
    search(argv[1], std::strtod(argv[2], nullptr));
  } catch (const puzzle::Error& error) {
    std::fprintf(stderr, "use_as_library: %s\n", error.what());
    return puzzle::exit_code(error.kind());
  }
  return 0;
}
