#include "puzzle/stages/search_probe.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/ratio_of_sums.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other numbers.
constexpr int kMeasuredVersion = 1;
constexpr int kChangesVersion = 2;

Json changes_json(const BlockChanges& changes) {
  Json layers = Json::array();
  for (const auto& blocks : changes) {
    Json layer = Json::object();
    for (const auto& [name, change] : blocks) {
      layer[name] = {change.value, change.standard_error};
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

BlockChanges changes_of(const Json& layers) {
  BlockChanges changes;
  for (const Json& layer : layers) {
    std::map<std::string, ScoreValue>& blocks = changes.emplace_back();
    for (const auto& [name, change] : layer.items()) {
      blocks[name] = {change.at(0).get<double>(), change.at(1).get<double>()};
    }
  }
  return changes;
}

KeyBuilder& add_child(KeyBuilder& key, const Architecture& child) {
  for (const BlockSpec& block : child) {
    key.add("block", block.name());
  }
  return key;
}

ScoreValue ratio(const std::vector<double>& sums, const std::vector<double>& tokens) {
  RatioOfSums result(std::ssize(sums));
  for (std::size_t u = 0; u < sums.size(); ++u) {
    result.add(static_cast<std::int64_t>(u), sums[u], tokens[u]);
  }
  const RatioOfSums::Result value = result.result();
  return {value.value, value.standard_error};
}

std::vector<double> tokens_of_units(const WindowUnits& units, std::int64_t window) {
  std::vector<double> tokens(static_cast<std::size_t>(units.count));
  for (const std::int64_t unit : units.unit_of_window) {
    tokens[static_cast<std::size_t>(unit)] += static_cast<double>(window);
  }
  return tokens;
}

}  // namespace

ScoreValue MeasuredKl::mean() const { return ratio(unit_sums, unit_tokens); }

ScoreValue MeasuredKl::minus(const MeasuredKl& other) const {
  std::vector<double> differences;
  for (std::size_t u = 0; u < unit_sums.size(); ++u) {
    differences.push_back(unit_sums[u] - other.unit_sums.at(u));
  }
  return ratio(differences, unit_tokens);
}

std::int64_t MeasuredKl::tokens() const {
  double sum = 0.0;
  for (const double tokens : unit_tokens) {
    sum += tokens;
  }
  return static_cast<std::int64_t>(sum);
}

SearchProbe::SearchProbe(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                         const ChildSource& source, const ProbeOptions& options)
    : context_(context),
      parent_(parent),
      space_(space),
      source_(source),
      options_(options),
      ranks_(context.communicator, [this](const Json& request) { return work(request); }) {}

Json SearchProbe::lead(const std::function<Json()>& lead) { return ranks_.run(lead); }

TokenPart SearchProbe::text() const {
  PUZZLE_CHECK(source_.validation != nullptr, "a search that measures was given no text");
  return source_.validation->limited_to(options_.num_tokens);
}

TokenPart SearchProbe::estimate_text() const {
  PUZZLE_CHECK(source_.scoring != nullptr, "a search that estimates was given no text");
  return source_.scoring->limited_to(options_.estimate_tokens);
}

std::string SearchProbe::measured_key(const Architecture& child) {
  KeyBuilder key;
  key.add("stage", "search").add("part", "measured KL").add("version", kMeasuredVersion);
  key.add("parent", parent_.key).add("library", source_.library_key);
  key.add("text", text().content_key());
  return add_child(key, child).key();
}

std::string SearchProbe::changes_key(const Architecture& child) {
  KeyBuilder key;
  key.add("stage", "search").add("part", "changes").add("version", kChangesVersion);
  key.add("parent", parent_.key).add("library", source_.library_key);
  key.add("text", estimate_text().content_key());
  key.add("samples", options_.estimate_samples).add("seed", context_.seed);
  add_space_to_key(key, space_);
  return add_child(key, child).key();
}

MeasuredKl SearchProbe::as_measured(const std::vector<double>& unit_sums) const {
  return {unit_sums, tokens_of_units(independent_units(text()), text().window())};
}

std::vector<MeasuredKl> SearchProbe::measure(const std::vector<Architecture>& children,
                                             const Architecture& base) {
  std::vector<std::vector<double>> sums(children.size());
  std::vector<std::size_t> missing;
  Json request = {{"do", "measure"}, {"base", block_names(base)}, {"children", Json::array()}};
  for (std::size_t c = 0; c < children.size(); ++c) {
    if (const auto record = context_.db.find_stage(measured_key(children[c]))) {
      sums[c] = json_doubles(record_detail(context_.db, *record), "unit_sums",
                             context_.db.path().string());
    } else {
      missing.push_back(c);
      request["children"].push_back(block_names(children[c]));
    }
  }
  const Stopwatch watch;
  const Json answer = missing.empty() ? Json::array() : ranks_.together(request);
  std::string failure;
  RunTransaction transaction(context_.db);
  for (std::size_t m = 0; m < missing.size(); ++m) {
    const std::size_t c = missing[m];
    sums[c] = answer.at(m).get<std::vector<double>>();
    const double kl = as_measured(sums[c]).mean().value;
    if (!std::isfinite(kl)) {  // the others' are kept
      failure = fmt::format("search: the KL of a measured child is {}; its blocks are {}", kl,
                            Json(block_names(children[c])).dump());
      continue;
    }
    context_.db.put({.key = measured_key(children[c]),
                     .stage = "search",
                     .what = "measured KL",
                     .seconds = watch.seconds() / static_cast<double>(missing.size()),
                     .detail_json = Json{{"kl", kl}, {"unit_sums", sums[c]}}.dump()});
  }
  transaction.commit();
  if (!failure.empty()) {
    fail_with(ErrorKind::kNumeric, failure);
  }
  std::vector<MeasuredKl> measured;
  for (const std::vector<double>& unit_sums : sums) {
    measured.push_back(as_measured(unit_sums));
  }
  return measured;
}

void SearchProbe::keep_step() { (void)ranks_.together({{"do", "nothing"}}); }

BlockChanges SearchProbe::changes(const Architecture& child) {
  const std::string key = changes_key(child);
  if (const auto record = context_.db.find_stage(key)) {
    return changes_of(record_detail(context_.db, *record).at("changes"));
  }
  const Stopwatch watch;
  const Json answer = ranks_.together({{"do", "changes"}, {"child", block_names(child)}});
  context_.db.put({.key = key,
                   .stage = "search",
                   .what = "changes around a child",
                   .seconds = watch.seconds(),
                   .detail_json = Json{{"changes", answer}}.dump()});
  return changes_of(answer);
}

Json SearchProbe::work(const Json& request) {
  if (request.at("do") == "nothing") {
    return {};
  }
  return request.at("do") == "measure" ? measure_here(request) : changes_here(request);
}

Json SearchProbe::measure_here(const Json& request) {
  Communicator& communicator = context_.communicator;
  if (!meter_) {
    meter_ = std::make_unique<ChildMeter>(
        parent_, source_.library_folder, text(), rank_share(communicator),
        ChildMeterOptions{options_.batch_windows, options_.state_mib << 20U});
  }
  meter_->set_base(parse_blocks(request.at("base").get<std::vector<std::string>>()));
  std::vector<Architecture> children;
  for (const Json& names : request.at("children")) {
    children.push_back(parse_blocks(names.get<std::vector<std::string>>()));
  }
  std::vector<std::vector<double>> sums = meter_->unit_sums(children);
  for (std::vector<double>& units : sums) {
    sum_over_ranks(units, communicator);
  }
  return sums;
}

Json SearchProbe::changes_here(const Json& request) {
  return changes_json(estimate_changes(
      context_, parent_, source_.library_folder, space_,
      parse_blocks(request.at("child").get<std::vector<std::string>>()), estimate_text(),
      {.batch_windows = options_.batch_windows, .samples = options_.estimate_samples}));
}

}  // namespace puzzle
