// Keys of a GGUF that change the function computed and that this project lacks: a part of
// gguf_config.
#pragma once

#include <string_view>

#include "puzzle/formats/gguf.h"

namespace puzzle {

// Throws Error(kFormat) naming the first key that holds anything but what changes nothing.
void refuse_foreign_gguf_keys(const GgufFile& file, std::string_view architecture);

}  // namespace puzzle
