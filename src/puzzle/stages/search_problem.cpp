#include "puzzle/stages/search_problem.h"

#include <map>
#include <string>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// A sum over all steps of generation, so each sub-block's is made once.
class WorkloadTimes {
 public:
  explicit WorkloadTimes(const CostSetting& setting) : setting_(setting) {}

  PhaseSeconds of(const std::string& subblock) {
    if (setting_.times == nullptr) {
      return {};
    }
    const auto [entry, is_new] = known_.try_emplace(subblock);
    if (is_new) {
      entry->second = setting_.times->workload_seconds(subblock, setting_.workload);
    }
    return entry->second;
  }

 private:
  const CostSetting& setting_;
  std::map<std::string, PhaseSeconds> known_;
};

bool can_hold(const CostSetting& setting, std::int64_t layer, const BlockSpec& block) {
  const bool left_out =
      block.attention.kind == AttentionKind::kNone && block.ffn.kind == FfnKind::kNone;
  return !refusal(setting.target, *setting.parent, block) &&
         !(left_out && layer == 0 && setting.target == ExportTarget::kDeci);
}

std::vector<double> block_costs(const CostSetting& setting, WorkloadTimes& times,
                                std::int64_t layer, const BlockSpec& block) {
  PhaseSeconds seconds = times.of(subblock_name(block.attention));
  const PhaseSeconds ffn_seconds = times.of(subblock_name(block.ffn));
  seconds.prefill_s += ffn_seconds.prefill_s;
  seconds.generation_s += ffn_seconds.generation_s;
  return summed_costs(block_cost(*setting.parent, layer, block, setting.target, setting.types),
                      seconds, setting);
}

void add_gqa_cover(const CostSetting& setting, Problem& problem) {
  if (!needs_gqa_layer(setting.target)) {
    return;
  }
  CoverConstraint cover{"one layer with grouped-query attention", {}, 1};
  for (const auto& choices : problem.layers) {
    std::vector<std::size_t> with_gqa;
    for (std::size_t c = 0; c < choices.size(); ++c) {
      if (parse_block(choices[c].name).attention.kind == AttentionKind::kGqa) {
        with_gqa.push_back(c);
      }
    }
    cover.choices_per_layer.push_back(std::move(with_gqa));
  }
  problem.covers.push_back(std::move(cover));
}

}  // namespace

Problem make_problem(const SearchSpace& space, const ScoreTable* scores,
                     const std::vector<BoundBudget>& budgets, const CostSetting& setting) {
  Problem problem;
  problem.cost_names = summed_cost_names(setting);
  WorkloadTimes times(setting);
  problem.fixed_costs = summed_costs(fixed_cost(*setting.parent, setting.types, setting.target),
                                     times.of(std::string(kFixedSubblock)), setting);
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    std::vector<Choice> choices;
    for (const AttentionSpec& attention : space.layers[i].attention) {
      for (const FfnSpec& ffn : space.layers[i].ffn) {
        const BlockSpec block{attention, ffn};
        if (can_hold(setting, layer, block)) {
          const double score = scores == nullptr ? 0.0 : scores->block(layer, block).value;
          choices.push_back({block.name(), score, block_costs(setting, times, layer, block)});
        }
      }
    }
    problem.layers.push_back(std::move(choices));
  }
  for (const BoundBudget& budget : budgets) {
    problem.budgets.push_back({budget.spec.summed_cost(), budget.at_most, std::nullopt});
  }
  add_gqa_cover(setting, problem);
  return problem;
}

Architecture chosen_blocks(const Problem& problem, const Assignment& assignment) {
  Architecture layers;
  for (const std::string& name : choice_names(problem, assignment)) {
    layers.push_back(parse_block(name));
  }
  return layers;
}

}  // namespace puzzle
