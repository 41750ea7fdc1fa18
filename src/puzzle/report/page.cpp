#include "puzzle/report/page.h"

#include "puzzle/base/error.h"
#include "puzzle/report/style.h"

namespace puzzle {
namespace {

void add_head(Markup& out, const Page& page) {
  out.open("head");
  out.leaf("meta", {{"charset", "utf-8"}});
  out.leaf("meta", {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}});
  out.element("title", page.title);
  out.open("style").raw(report_style()).close();
  out.close();
}

void add_contents(Markup& out, const Page& page) {
  out.open("nav", {{"aria-label", "Contents"}}).open("div");
  for (const PageSection& section : page.sections) {
    out.element("a", {{"href", "#" + section.id}}, section.title);
  }
  out.close().close();
}

void add_cell(Markup& out, const Cell& cell, const Column& column, bool is_heading) {
  std::vector<Attribute> attributes;
  if (column.is_number) {
    attributes.emplace_back("class", "n");
  }
  if (is_heading) {
    attributes.emplace_back("scope", "row");
  }
  out.open(is_heading ? "th" : "td", attributes).text(cell.text);
  if (!cell.error.empty()) {
    out.element("span", {{"class", "pm"}}, " " + cell.error);
  }
  out.close();
}

}  // namespace

Cell estimate_cell(const std::string& formatted) {
  const std::size_t at = formatted.find(" ± ");
  return at == std::string::npos ? Cell(formatted)
                                 : Cell(formatted.substr(0, at), formatted.substr(at + 1));
}

std::string render_page(const Page& page) {
  Markup out;
  out.open("html", {{"lang", "en"}});
  add_head(out, page);
  out.open("body");
  out.open("header").open("div").element("h1", page.title).element("p", page.subtitle);
  out.close().close();
  add_contents(out, page);
  out.open("main");
  for (const PageSection& section : page.sections) {
    out.open("section", {{"id", section.id}}).element("h2", section.title);
    if (!section.lead.empty()) {
      out.element("p", {{"class", "lead"}}, section.lead);
    }
    out.raw(section.body).close();
  }
  out.close();
  out.element("footer", page.footer);
  out.close().close();
  return "<!DOCTYPE html>\n" + out.str();
}

void add_table(Markup& out, const std::vector<Column>& columns, const std::vector<TableRow>& rows) {
  out.open("div", {{"class", "wide"}}).open("table");
  out.open("thead").open("tr");
  for (const Column& column : columns) {
    std::vector<Attribute> attributes = {{"scope", "col"}};
    if (column.is_number) {
      attributes.emplace_back("class", "n");
    }
    out.element("th", attributes, column.title);
  }
  out.close().close();
  out.open("tbody");
  for (const TableRow& row : rows) {
    PUZZLE_CHECK(row.cells.size() == columns.size(), "{} cells in {} columns", row.cells.size(),
                 columns.size());
    out.open("tr",
             row.is_ours ? std::vector<Attribute>{{"class", "ours"}} : std::vector<Attribute>{});
    for (std::size_t i = 0; i < columns.size(); ++i) {
      add_cell(out, row.cells[i], columns[i], i == 0);
    }
    out.close();
  }
  out.close().close().close();
}

void add_nothing(Markup& out, const std::string& why) {
  out.element("p", {{"class", "nothing"}}, why);
}

void open_details(Markup& out, const std::string& summary) {
  out.open("details").element("summary", summary);
}

}  // namespace puzzle
