// The heat map: damage of every variant in every layer.
#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "puzzle/report/estimate_figure.h"
#include "puzzle/report/number.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

struct HalfScore {
  double value = 0.0;
  double error = 0.0;
};

// Scores of single sub-blocks (the other half the parent's) and how many exact pairs there are.
struct ScoreTable {
  std::map<AttentionSpec, std::map<std::int64_t, HalfScore>> attention;
  std::map<FfnSpec, std::map<std::int64_t, HalfScore>> ffn;
  std::size_t num_pairs = 0;
  std::int64_t tokens = 0;
};

struct ScoreKind {
  std::string method;
  std::string metric;
  auto operator<=>(const ScoreKind&) const = default;
};

// Per method its KL, or what else it has.
std::vector<ScoreKind> score_kinds(const std::vector<ScoreRow>& scores) {
  std::map<std::string, std::set<std::string>> metrics;
  for (const ScoreRow& row : scores) {
    metrics[row.method].insert(row.metric);
  }
  std::vector<ScoreKind> kinds;
  kinds.reserve(metrics.size());
  for (const auto& [method, names] : metrics) {
    kinds.push_back({method, names.contains("kl") ? "kl" : *names.begin()});
  }
  return kinds;
}

ScoreTable make_score_table(const ReportData& data, const ScoreKind& kind) {
  ScoreTable table;
  const Architecture& parent = data.parent->blocks;
  for (const ScoreRow& row : data.scores) {
    if (row.method != kind.method || row.metric != kind.metric || row.layer < 0 ||
        row.layer >= static_cast<std::int64_t>(parent.size())) {
      continue;
    }
    const BlockSpec block = parse_block(row.block);
    const BlockSpec& own = parent[static_cast<std::size_t>(row.layer)];
    const HalfScore score{row.value, row.standard_error};
    table.tokens = std::max(table.tokens, row.tokens);
    if (block.ffn == own.ffn && block.attention != own.attention) {
      table.attention[block.attention][row.layer] = score;
    } else if (block.attention == own.attention && block.ffn != own.ffn) {
      table.ffn[block.ffn][row.layer] = score;
    } else if (block != own) {
      ++table.num_pairs;
    }
  }
  return table;
}

template <class Spec>
std::size_t num_scores(const std::map<Spec, std::map<std::int64_t, HalfScore>>& scores,
                       const std::map<Spec, std::map<std::int64_t, HalfScore>>& among) {
  std::size_t count = 0;
  for (const auto& [spec, layers] : scores) {
    const auto found = among.find(spec);
    for (const auto& [layer, score] : layers) {
      count += found != among.end() && found->second.contains(layer) ? 1 : 0;
    }
  }
  return count;
}

// How the numbers of a map came about. Estimates may be there for all variants and exact scores for
// some of them besides, which is what method hybrid does.
std::string method_text(const ReportData& data, const ScoreKind& kind) {
  const ScoreTable estimates = make_score_table(data, {"gradient", kind.metric});
  const std::size_t num_estimates = num_scores(estimates.attention, estimates.attention) +
                                    num_scores(estimates.ffn, estimates.ffn);
  if (num_estimates == 0 || (kind.method != "gradient" && kind.method != "replace-one")) {
    return kind.method;
  }
  const ScoreTable exact = make_score_table(data, {"replace-one", kind.metric});
  const std::size_t num_exact =
      num_scores(estimates.attention, exact.attention) + num_scores(estimates.ffn, exact.ffn);
  const std::string counts =
      fmt::format("{} of {} variants scored exactly", num_exact, num_estimates);
  if (kind.method == "replace-one") {
    return "hybrid: the " + counts;
  }
  return num_exact == 0 ? "estimates by gradient: " + counts
                        : "hybrid: " + counts + ", here the estimates";
}

// Rows of one half: the parent's own variants first, then from large to small, linear, none.
template <class Spec, class Half>
void add_heat_rows(HeatMap& map, const std::string& group,
                   const std::map<Spec, std::map<std::int64_t, HalfScore>>& scores,
                   const Architecture& parent, const Architecture& child, Half half) {
  if (scores.empty()) {
    return;
  }
  std::set<Spec> own;
  for (const BlockSpec& block : parent) {
    own.insert(half(block));
  }
  std::vector<Spec> specs(own.begin(), own.end());
  for (const auto& [spec, row] : scores) {
    if (!own.contains(spec)) {
      specs.push_back(spec);
    }
  }
  std::stable_sort(specs.begin(), specs.end(), [](const Spec& a, const Spec& b) {
    return a.kind != b.kind ? a.kind < b.kind : b < a;
  });
  for (const Spec& spec : specs) {
    HeatRow row{spec.name() + (own.contains(spec) ? " (parent)" : ""), group, {}};
    const auto found = scores.find(spec);
    for (std::size_t layer = 0; layer < parent.size(); ++layer) {
      HeatCell cell{.own = half(parent[layer]) == spec,
                    .chosen = layer < child.size() && half(child[layer]) == spec};
      if (found != scores.end() && found->second.contains(static_cast<std::int64_t>(layer))) {
        cell.value = found->second.at(static_cast<std::int64_t>(layer)).value;
      }
      row.cells.push_back(cell);
    }
    map.rows.push_back(std::move(row));
  }
}

HeatMap make_score_map(const ReportData& data, const ScoreKind& kind, const ScoreTable& table) {
  HeatMap map;
  map.text = {
      "scores-" + kind.method,
      fmt::format("Damage of one replaced sub-block, {} ({})",
                  kind.metric == "kl" ? "KL in nats per token" : metric_label(kind.metric),
                  method_text(data, kind)),
      "A table of colours: variants of attention and FFN down, layers across; darker is more "
      "damage. The variants chosen for the child are outlined."};
  map.value_label = kind.metric == "kl" ? "nats per token (log scale)" : metric_label(kind.metric);
  map.column_label = "layer";
  const ArchitectureRow* chosen = child_architecture(data);
  const Architecture child = chosen == nullptr ? Architecture{} : parse_architecture(*chosen);
  for (std::size_t layer = 0; layer < data.parent->blocks.size(); ++layer) {
    map.columns.push_back(fmt::format("{}", layer));
  }
  add_heat_rows(map, "Attention", table.attention, data.parent->blocks, child,
                [](const BlockSpec& block) { return block.attention; });
  add_heat_rows(map, "FFN", table.ffn, data.parent->blocks, child,
                [](const BlockSpec& block) { return block.ffn; });
  return map;
}

template <class Spec>
void add_score_columns(std::vector<Column>& columns, std::vector<TableRow>& rows,
                       const std::map<Spec, std::map<std::int64_t, HalfScore>>& scores,
                       const std::string& half) {
  for (const auto& [spec, values] : scores) {
    columns.push_back({half + " " + spec.name()});
    for (std::size_t layer = 0; layer < rows.size(); ++layer) {
      const auto found = values.find(static_cast<std::int64_t>(layer));
      rows[layer].cells.push_back(
          found == values.end()
              ? Cell("–")
              : estimate_cell(format_with_error(found->second.value, found->second.error)));
    }
  }
}

void add_score_numbers(Markup& out, const ReportData& data, const ScoreTable& table) {
  open_details(out, "The numbers, with standard errors");
  std::vector<Column> columns = {{"layer", false}};
  std::vector<TableRow> rows;
  rows.reserve(data.parent->blocks.size());
  for (std::size_t layer = 0; layer < data.parent->blocks.size(); ++layer) {
    rows.push_back({{fmt::format("{}", layer)}});
  }
  add_score_columns(columns, rows, table.attention, "attention");
  add_score_columns(columns, rows, table.ffn, "FFN");
  add_table(out, columns, rows);
  out.close();
}

std::string pairs_text(std::size_t count) {
  return count == 1 ? "1 pair" : fmt::format("{} pairs", count);
}

}  // namespace

PageSection score_section(const ReportData& data) {
  PageSection section{"scores", "Scores",
                      "How much the parent's output changes when one sub-block of one layer is "
                      "replaced by a variant, all else the parent's. The search adds these up.",
                      ""};
  Markup out;
  if (data.scores.empty() || !data.parent.has_value()) {
    add_nothing(out, "Nothing has been scored yet.");
    section.body = out.str();
    return section;
  }
  for (const ScoreKind& kind : score_kinds(data.scores)) {
    const ScoreTable table = make_score_table(data, kind);
    const std::string map = render_chart(make_score_map(data, kind, table));
    if (map.empty()) {
      add_nothing(out, fmt::format("{}: no sub-block was scored alone.", kind.method));
      continue;
    }
    out.raw(map);
    out.element("p",
                fmt::format("Scored on {} {}.{}", table.tokens,
                            kind.metric == "downstream" ? "questions" : "tokens",
                            table.num_pairs == 0
                                ? std::string()
                                : fmt::format(" Scored together besides: {} of attention and FFN.",
                                              pairs_text(table.num_pairs))));
    add_score_numbers(out, data, table);
  }
  add_estimate_figure(out, data);
  section.body = out.str();
  return section;
}

}  // namespace puzzle
