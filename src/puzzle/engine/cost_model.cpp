#include "puzzle/engine/cost_model.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

double line_through(double x0, double y0, double x1, double y1, double x) {
  return y0 + (y1 - y0) * (x - x0) / (x1 - x0);
}

// Linear between neighbours, beyond the ends through the last two points; see CostModel::seconds.
double curve_value(const std::map<std::int64_t, double>& curve, Phase phase, std::int64_t context) {
  if (curve.size() == 1) {
    const auto [only_context, only_seconds] = *curve.begin();
    const bool scales = phase == Phase::kPrefill && only_context > 0;
    return scales ? only_seconds * static_cast<double>(context) / static_cast<double>(only_context)
                  : only_seconds;
  }
  auto upper = curve.lower_bound(context);
  if (upper == curve.end()) {
    --upper;
  }
  if (upper == curve.begin()) {
    ++upper;
  }
  const auto lower = std::prev(upper);
  const double value =
      line_through(static_cast<double>(lower->first), lower->second,
                   static_cast<double>(upper->first), upper->second, static_cast<double>(context));
  return std::max(value, 0.0);
}

void check_workload(const Workload& workload) {
  if (workload.batch < 1 || workload.prompt_tokens < 1 || workload.generated_tokens < 1) {
    fail(ErrorKind::kUsage,
         "scenario: batch {}, {} prompt and {} generated tokens, each at least 1", workload.batch,
         workload.prompt_tokens, workload.generated_tokens);
  }
}

}  // namespace

double generation_tokens_per_s(const Workload& workload, double generation_s) {
  const auto tokens = static_cast<double>(workload.batch * (workload.generated_tokens - 1));
  return generation_s > 0.0 ? tokens / generation_s : 0.0;
}

double total_tokens_per_s(const Workload& workload, double total_s) {
  const auto tokens =
      static_cast<double>(workload.batch * (workload.prompt_tokens + workload.generated_tokens));
  return total_s > 0.0 ? tokens / total_s : 0.0;
}

CostModel::CostModel(const std::vector<MeasuredCost>& rows, std::string place)
    : place_(std::move(place)) {
  for (const MeasuredCost& row : rows) {
    const std::string name = fmt::format("{} {} of batch {} at {} tokens", row.subblock,
                                         phase_name(row.phase), row.batch, row.context);
    if (!std::isfinite(row.seconds) || row.seconds < 0.0) {
      fail(ErrorKind::kFormat, "{}: {}: {} seconds", place_, name, row.seconds);
    }
    if (!curves_[{row.subblock, row.phase, row.batch}].emplace(row.context, row.seconds).second) {
      fail(ErrorKind::kFormat, "{}: {}: two rows", place_, name);
    }
  }
}

const CostModel::Curve* CostModel::find_curve(std::string_view subblock, Phase phase,
                                              std::int64_t batch) const {
  const auto found = curves_.find({std::string(subblock), phase, batch});
  if (found != curves_.end()) {
    return &found->second;
  }
  std::vector<std::string> batches;
  for (const auto& [key, curve] : curves_) {
    if (std::get<0>(key) == subblock && std::get<1>(key) == phase) {
      batches.push_back(std::to_string(std::get<2>(key)));
    }
  }
  if (batches.empty() && subblock.ends_with("/none")) {
    return nullptr;
  }
  fail(ErrorKind::kUsage, "{}: no times of {} {} for batch {}{}; measure it", place_, subblock,
       phase_name(phase), batch,
       batches.empty() ? std::string() : fmt::format(", only for {}", join(batches, ", ")));
}

double CostModel::seconds(std::string_view subblock, Phase phase, std::int64_t batch,
                          std::int64_t context) const {
  const Curve* curve = find_curve(subblock, phase, batch);
  return curve == nullptr ? 0.0 : curve_value(*curve, phase, context);
}

PhaseSeconds CostModel::workload_seconds(std::string_view subblock,
                                         const Workload& workload) const {
  check_workload(workload);
  PhaseSeconds sums;
  sums.prefill_s = seconds(subblock, Phase::kPrefill, workload.batch, workload.prompt_tokens);
  if (workload.generated_tokens == 1) {
    return sums;  // no steps, and so no need for their rows
  }
  const Curve* curve = find_curve(subblock, Phase::kGenerate, workload.batch);
  for (std::int64_t n = 0; curve != nullptr && n + 1 < workload.generated_tokens; ++n) {
    sums.generation_s += curve_value(*curve, Phase::kGenerate, workload.prompt_tokens + n);
  }
  return sums;
}

void CostModel::note_extrapolation(std::string_view subblock, const Workload& workload,
                                   std::set<std::string>& notes) const {
  const auto note = [&](Phase phase, std::int64_t first, std::int64_t last) {
    const Curve* curve = find_curve(subblock, phase, workload.batch);
    if (curve == nullptr) {
      return;
    }
    const std::int64_t low = curve->begin()->first;
    const std::int64_t high = curve->rbegin()->first;
    const std::int64_t slack = known_beyond(low, high);
    if (first < low - slack || last > high + slack) {
      notes.insert(fmt::format("{} {}: context {} … {} measured, {} … {} asked for", subblock,
                               phase_name(phase), low, high, first, last));
    }
  };
  note(Phase::kPrefill, workload.prompt_tokens, workload.prompt_tokens);
  if (workload.generated_tokens > 1) {
    note(Phase::kGenerate, workload.prompt_tokens,
         workload.prompt_tokens + workload.generated_tokens - 2);
  }
}

Prediction CostModel::predict(const Architecture& layers, const Workload& workload) const {
  std::map<std::string, std::int64_t> counts = {{std::string(kFixedSubblock), 1}};
  for (const BlockSpec& block : layers) {
    ++counts[subblock_name(block.attention)];
    ++counts[subblock_name(block.ffn)];
  }
  Prediction prediction;
  std::set<std::string> notes;
  for (const auto& [subblock, count] : counts) {
    const PhaseSeconds one = workload_seconds(subblock, workload);
    prediction.seconds.prefill_s += static_cast<double>(count) * one.prefill_s;
    prediction.seconds.generation_s += static_cast<double>(count) * one.generation_s;
    note_extrapolation(subblock, workload, notes);
  }
  prediction.generation_tokens_per_s =
      puzzle::generation_tokens_per_s(workload, prediction.seconds.generation_s);
  prediction.total_tokens_per_s =
      puzzle::total_tokens_per_s(workload, prediction.seconds.total_s());
  prediction.extrapolated.assign(notes.begin(), notes.end());
  return prediction;
}

}  // namespace puzzle
