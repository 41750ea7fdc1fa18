// report.html: a run on one self-contained page. No script, nothing loaded from elsewhere; readable
// in light and dark, by screen readers and on paper.
#pragma once

#include <filesystem>
#include <string>

namespace puzzle {

class RunDb;

// The page. It depends on run.db alone, so equal runs give equal pages. Throws Error(kFormat) for
// damaged rows.
[[nodiscard]] std::string render_report(const RunDb& db);

// Writes it in one step. Throws Error(kIo).
void write_report(const RunDb& db, const std::filesystem::path& path);

}  // namespace puzzle
