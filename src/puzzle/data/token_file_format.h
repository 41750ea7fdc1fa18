// Constants of the token file that reader and writer share; the layout is described in
// token_file.h.
#pragma once

#include <cstdint>
#include <string_view>

namespace puzzle {

inline constexpr std::string_view kTokenFileMagic = "PUZTOK01";
inline constexpr std::string_view kTokenFileEndMagic = "PUZTOKEN";
inline constexpr std::uint64_t kTokenFileHeaderBytes = 64;
inline constexpr std::uint64_t kTokenFileTrailerBytes = 16;
// Raised whenever the same corpus would give other tokens or another layout.
inline constexpr std::int64_t kTokenFileVersion = 1;

// Where the document offsets start: after the tokens, at a multiple of 8. `num_tokens` * 4 must not
// overflow.
[[nodiscard]] constexpr std::uint64_t token_file_offsets_at(std::uint64_t num_tokens) {
  return (kTokenFileHeaderBytes + num_tokens * sizeof(std::int32_t) + 7) / 8 * 8;
}

}  // namespace puzzle
