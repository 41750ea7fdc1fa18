// How the run was made: times, machine, versions, recipe.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "puzzle/base/strings.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

struct StageTime {
  std::string stage;
  double seconds = 0.0;
};

// What is shown as "0.0 s" is no row worth reading.
constexpr double kShortestShownS = 0.05;

// Longest first.
std::vector<StageTime> stage_times(const std::vector<StageRecord>& records) {
  std::map<std::string, double> seconds;
  for (const StageRecord& record : records) {
    seconds[record.stage] += record.seconds;
  }
  std::vector<StageTime> times;
  for (const auto& [stage, sum_s] : seconds) {
    if (sum_s >= kShortestShownS) {
      times.push_back({stage, sum_s});
    }
  }
  std::stable_sort(times.begin(), times.end(),
                   [](const StageTime& a, const StageTime& b) { return a.seconds > b.seconds; });
  return times;
}

double part_of(double part, double whole) { return whole > 0.0 ? part / whole : 0.0; }

void add_fact(Markup& out, const std::string& name, const std::string& value) {
  if (!value.empty()) {
    out.element("dt", name).element("dd", value);
  }
}

void add_parent_facts(Markup& out, const ParentFacts& parent) {
  add_fact(out, "parent", parent.name);
  add_fact(out, "its licence", parent.license);
  add_fact(out, "its weights", parent.weights_key);
  std::string shape =
      fmt::format("{} layers of width {}, {} heads of {}, vocabulary {}", parent.blocks.size(),
                  parent.hidden_size, parent.num_heads, parent.head_dim, parent.vocab_size);
  if (parent.parameters > 0) {  // 0 where an earlier build recorded the parent
    shape += fmt::format(", {} parameters", human_count(static_cast<double>(parent.parameters)));
  }
  add_fact(out, "its shape", shape);
}

}  // namespace

PageSection time_section(const ReportData& data) {
  PageSection section{
      "time", "Time",
      "Seconds of work per stage, over all sittings. Work that a killed sitting left "
      "unfinished is not in it.",
      ""};
  Markup out;
  const std::vector<StageTime> times = stage_times(data.stages);
  if (times.empty()) {
    add_nothing(out, "No stage has finished yet.");
    section.body = out.str();
    return section;
  }
  double total = 0.0;
  for (const StageRecord& record : data.stages) {
    total += record.seconds;
  }
  out.open("div", {{"class", "wide"}}).open("table").open("thead").open("tr");
  out.element("th", {{"scope", "col"}}, "stage");
  for (const char* title : {"time", "share"}) {
    out.element("th", {{"scope", "col"}, {"class", "n"}}, title);
  }
  out.element("td", "").close().close().open("tbody");
  for (const StageTime& time : times) {
    const double of_longest = part_of(time.seconds, times.front().seconds);
    out.open("tr").element("th", {{"scope", "row"}}, time.stage);
    out.element("td", {{"class", "n"}}, human_seconds(time.seconds));
    out.element("td", {{"class", "n"}},
                fmt::format("{:.1f} %", 100 * part_of(time.seconds, total)));
    out.open("td", {{"class", "share"}});
    out.element("div", {{"style", fmt::format("width:{:.1f}%", 100 * of_longest)}}, "");
    out.close().close();
  }
  out.close().close().close();
  out.element("p", "Together " + human_seconds(total) + ".");
  section.body = out.str();
  return section;
}

PageSection recipe_section(const ReportData& data) {
  PageSection section{"recipe", "Recipe and machine", "", ""};
  Markup out;
  const RunFacts& facts = data.facts;
  if (!data.parent.has_value() && !data.machine.has_value() && facts.version.empty()) {
    add_nothing(out, "The run has not recorded its machine and versions.");
  } else {
    out.open("dl");
    add_fact(out, "puzzle", facts.version);
    add_fact(out, "built with", facts.build);
    add_fact(out, "llama.cpp", facts.llama_cpp);
    add_fact(out, "command", facts.command);
    add_fact(out, "seed", facts.version.empty() ? "" : fmt::format("{}", facts.seed));
    if (data.machine.has_value()) {
      add_fact(out, "processor",
               fmt::format("{}, {} core{}", data.machine->cpu, data.machine->cores,
                           data.machine->cores == 1 ? "" : "s"));
      if (!data.machine->gpus.empty()) {
        add_fact(out, "GPUs", data.machine->gpus);
      }
      add_fact(out, "memory", human_bytes(static_cast<double>(data.machine->memory_bytes)));
      add_fact(out, "system", data.machine->os + ", " + data.machine->kernel);
    }
    if (data.parent.has_value()) {
      add_parent_facts(out, *data.parent);
    }
    out.close();
  }
  if (facts.recipe_yaml.empty()) {
    add_nothing(out, "The resolved recipe is not recorded.");
  } else {
    open_details(out, "The resolved recipe: every option with its value");
    out.element("pre", facts.recipe_yaml).close();
  }
  section.body = out.str();
  return section;
}

}  // namespace puzzle
