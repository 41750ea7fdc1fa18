// One self-contained HTML page: head, style, contents bar, sections. The markup is also well-formed
// XML.
#pragma once

#include <string>
#include <vector>

#include "puzzle/report/markup.h"

namespace puzzle {

struct PageSection {
  std::string id;  // of the anchor
  std::string title;
  std::string lead;  // a sentence on how to read it; empty = none
  std::string body;  // finished markup
};

struct Page {
  std::string title;
  std::string subtitle;
  std::vector<PageSection> sections;
  std::string footer;
};

[[nodiscard]] std::string render_page(const Page& page);

// A table cell: text, then its error in a softer colour.
struct Cell {
  Cell(std::string content) : text(std::move(content)) {}  // NOLINT: from text by design
  Cell(const char* content) : text(content) {}             // NOLINT: from text by design
  Cell(std::string content, std::string error_text)
      : text(std::move(content)), error(std::move(error_text)) {}

  std::string text;
  std::string error{};
};

// "97.1 ± 0.4 %" (number.h) as such a cell.
[[nodiscard]] Cell estimate_cell(const std::string& formatted);

struct Column {
  std::string title;
  bool is_number = true;  // right-aligned
};

struct TableRow {
  std::vector<Cell> cells;
  bool is_ours = false;  // highlighted
};

// The first column holds the rows' headings.
void add_table(Markup& out, const std::vector<Column>& columns, const std::vector<TableRow>& rows);

// "What there is to see is not there yet", in one line.
void add_nothing(Markup& out, const std::string& why);

// Opens a <details> block; close() ends it.
void open_details(Markup& out, const std::string& summary);

}  // namespace puzzle
