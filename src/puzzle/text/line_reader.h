// Lines of a text file, plain or .zst, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace puzzle {

class LineReader {
 public:
  // A name ending in .zst is decompressed. Throws Error(kIo).
  explicit LineReader(const std::filesystem::path& path);
  ~LineReader();
  LineReader(LineReader&&) noexcept;
  LineReader& operator=(LineReader&&) noexcept;

  // Puts the next line with its newline into `line`, or at most `max_bytes` of it, cut at the end
  // of a character. False at the end of the file. Throws Error(kIo), Error(kFormat) for a damaged
  // .zst.
  [[nodiscard]] bool next(std::string& line, std::size_t max_bytes);

  // 1-based number of the line that the last `next` gave, or gave a part of.
  [[nodiscard]] std::int64_t line_number() const { return line_number_; }

 private:
  class Source;
  bool fill();

  std::unique_ptr<Source> source_;
  std::string buffer_;
  std::size_t at_ = 0;  // of the first unread byte in buffer_
  std::int64_t line_number_ = 0;
  bool inside_line_ = false;
};

}  // namespace puzzle
