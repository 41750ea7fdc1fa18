// What was chosen in every layer.
#include <algorithm>

#include <fmt/format.h>

#include "puzzle/report/architecture_figure.h"
#include "puzzle/report/number.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

struct KeptCounts {
  std::int64_t kv_heads = 0;
  std::int64_t linear_attention = 0;
  std::int64_t no_attention = 0;
  std::int64_t width = 0;
  std::int64_t linear_ffn = 0;
  std::int64_t no_ffn = 0;
};

KeptCounts count_kept(const Architecture& architecture) {
  KeptCounts counts;
  for (const BlockSpec& block : architecture) {
    counts.kv_heads += block.attention.kv_heads;
    counts.linear_attention += block.attention.kind == AttentionKind::kLinear ? 1 : 0;
    counts.no_attention += block.attention.kind == AttentionKind::kNone ? 1 : 0;
    counts.width += block.ffn.width;
    counts.linear_ffn += block.ffn.kind == FfnKind::kLinear ? 1 : 0;
    counts.no_ffn += block.ffn.kind == FfnKind::kNone ? 1 : 0;
  }
  return counts;
}

std::string summary_sentence(const Architecture& parent, const Architecture& child) {
  const KeptCounts before = count_kept(parent);
  const KeptCounts after = count_kept(child);
  std::size_t unchanged = 0;
  for (std::size_t i = 0; i < parent.size(); ++i) {
    unchanged += parent[i] == child[i] ? 1 : 0;
  }
  std::string text = fmt::format(
      "Of {} layers, {} keep the parent's block. Attention: {} of {} KV heads, {} layers linear, "
      "{} "
      "without.",
      parent.size(), unchanged, after.kv_heads, before.kv_heads, after.linear_attention,
      after.no_attention);
  if (before.width > 0) {
    text += fmt::format(
        " FFN: {} of the width, {} layers linear, {} without.",
        format_percent(static_cast<double>(after.width) / static_cast<double>(before.width)),
        after.linear_ffn, after.no_ffn);
  }
  return text;
}

std::string figure_of(const ReportData& data, const ArchitectureRow& row, const std::string& id,
                      const std::string& title) {
  return render_chart(ArchitectureFigure{
      {id, title,
       "Two rows of bars over the layers: KV heads of the attention and width of the FFN, in front "
       "of the outline of the parent's."},
      data.parent->blocks,
      parse_architecture(row)});
}

bool same_depth(const ReportData& data, const ArchitectureRow& row) {
  return row.blocks.size() == data.parent->blocks.size();
}

void add_layer_table(Markup& out, const ReportData& data, const ArchitectureRow& child) {
  open_details(out, "Layer by layer");
  std::vector<TableRow> rows;
  for (std::size_t layer = 0; layer < child.blocks.size(); ++layer) {
    const BlockSpec block = parse_block(child.blocks[layer]);
    const BlockSpec& parent = data.parent->blocks[layer];
    rows.push_back(
        {{fmt::format("{}", layer),
          block.attention.name() + (block.attention == parent.attention ? " (parent's)" : ""),
          block.ffn.name() + (block.ffn == parent.ffn ? " (parent's)" : "")}});
  }
  add_table(out, {{"layer", false}, {"attention", false}, {"FFN", false}}, rows);
  out.close();
}

void add_others(Markup& out, const ReportData& data, const ArchitectureRow& child) {
  std::vector<const ArchitectureRow*> others;
  for (const ArchitectureRow& row : data.architectures) {
    if (&row != &child && !is_swept(row) && same_depth(data, row)) {
      others.push_back(&row);
    }
  }
  if (others.empty()) {
    return;
  }
  open_details(out, "The architectures it is compared with");
  for (std::size_t i = 0; i < others.size(); ++i) {
    out.raw(figure_of(data, *others[i], fmt::format("architecture-{}", i + 1),
                      others[i]->name == others[i]->method
                          ? others[i]->name
                          : fmt::format("{} ({})", others[i]->name, others[i]->method)));
  }
  out.close();
}

}  // namespace

PageSection architecture_section(const ReportData& data) {
  PageSection section{"architecture", "Architecture",
                      "What the search chose in every layer, in front of the parent's outline.",
                      ""};
  Markup out;
  const ArchitectureRow* child = child_architecture(data);
  if (!data.parent.has_value() || child == nullptr) {
    add_nothing(out, "No architecture has been chosen yet.");
  } else if (!same_depth(data, *child)) {
    add_nothing(out, "The chosen architecture has another number of layers than the parent.");
  } else {
    out.element("p", summary_sentence(data.parent->blocks, parse_architecture(*child)));
    out.raw(figure_of(data, *child, "architecture-child", "The child, layer by layer"));
    add_layer_table(out, data, *child);
    add_others(out, data, *child);
  }
  section.body = out.str();
  return section;
}

}  // namespace puzzle
