#include "puzzle/stages/search_costs.h"

#include <algorithm>

#include "puzzle/arch/search_space.h"
#include "puzzle/stages/search.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

constexpr std::string_view kParameters = "parameters";
constexpr std::string_view kWeightBytes = "weight_bytes";
constexpr std::string_view kKvBytes = "kv_bytes_per_token";
constexpr std::string_view kMemoryBytes = "memory_bytes";
constexpr std::string_view kPrefill = "prefill_s";
constexpr std::string_view kGeneration = "generation_s";
constexpr std::string_view kTotal = "total_s";
constexpr std::string_view kGenerationRate = "generation_tokens_per_s";
constexpr std::string_view kTotalRate = "total_tokens_per_s";

double bytes_in_memory(const PartCost& cost, const Workload& workload) {
  const auto tokens =
      static_cast<double>(workload.batch * (workload.prompt_tokens + workload.generated_tokens));
  return static_cast<double>(cost.weight_bytes) +
         tokens * static_cast<double>(cost.kv_bytes_per_token);
}

}  // namespace

CostSetting cost_setting(const ModelSpec& parent, const std::filesystem::path& model,
                         const SearchOptions& options, const Scenario& scenario, std::int64_t batch,
                         const CostModel* times) {
  return {&parent,
          parse_export_target(options.target),
          deployed_types(options.types, scenario, model),
          times,
          {batch, scenario.prompt_tokens, scenario.generated_tokens}};
}

const std::vector<SearchCost>& search_costs() {
  static const std::vector<SearchCost> kCosts = {
      {kParameters, "", "Weights, tied embeddings counted once.", false, ""},
      {kWeightBytes, "bytes", "Tensors of the exported file, in search.types.", false, ""},
      {kKvBytes, "bytes", "KV cache of one token of one sequence.", false, ""},
      {kMemoryBytes, "bytes", "Weights and the KV cache of the whole batch at its longest.", false,
       ""},
      {kPrefill, "s", "Reading the prompts of a batch.", true, ""},
      {kGeneration, "s", "Generating all tokens of a batch but each sequence's first.", true, ""},
      {kTotal, "s", "Both together.", true, ""},
      {kGenerationRate, "tokens/s", "Tokens generated per second of generation.", true,
       kGeneration},
      {kTotalRate, "tokens/s", "Prompt and generated tokens per second of the whole.", true,
       kTotal}};
  return kCosts;
}

const SearchCost* find_search_cost(std::string_view name) {
  const auto& costs = search_costs();
  const auto found = std::find_if(costs.begin(), costs.end(),
                                  [&](const SearchCost& cost) { return cost.name == name; });
  return found == costs.end() ? nullptr : &*found;
}

std::vector<std::string> search_cost_names() {
  std::vector<std::string> names;
  for (const SearchCost& cost : search_costs()) {
    names.emplace_back(cost.name);
  }
  return names;
}

std::map<std::string, double> model_costs(const Architecture& layers, const CostSetting& setting) {
  const ModelSpec spec = with_layers(*setting.parent, layers);
  const PartCost cost = model_cost(spec, setting.target, setting.types);
  Prediction prediction;
  if (setting.times != nullptr) {
    prediction = setting.times->predict(layers, setting.workload);
  }
  const std::vector<std::string> names = summed_cost_names(setting);
  const std::vector<double> values = summed_costs(cost, prediction.seconds, setting);
  std::map<std::string, double> costs;
  for (std::size_t k = 0; k < names.size(); ++k) {
    costs[names[k]] = values[k];
  }
  if (setting.times != nullptr) {
    costs[std::string(kGenerationRate)] = prediction.generation_tokens_per_s;
    costs[std::string(kTotalRate)] = prediction.total_tokens_per_s;
  }
  return costs;
}

std::vector<std::string> summed_cost_names(const CostSetting& setting) {
  std::vector<std::string> names;
  for (const SearchCost& cost : search_costs()) {
    if (!cost.is_rate() && (!cost.is_measured || setting.times != nullptr)) {
      names.emplace_back(cost.name);
    }
  }
  return names;
}

std::vector<double> summed_costs(const PartCost& cost, const PhaseSeconds& seconds,
                                 const CostSetting& setting) {
  std::vector<double> values = {
      static_cast<double>(cost.parameters), static_cast<double>(cost.weight_bytes),
      static_cast<double>(cost.kv_bytes_per_token), bytes_in_memory(cost, setting.workload)};
  if (setting.times != nullptr) {
    values.insert(values.end(), {seconds.prefill_s, seconds.generation_s, seconds.total_s()});
  }
  return values;
}

double counted_tokens(const SearchCost& rate, const Workload& workload) {
  return static_cast<double>(
      workload.batch * (rate.time == kTotal ? workload.prompt_tokens + workload.generated_tokens
                                            : workload.generated_tokens - 1));
}

}  // namespace puzzle
