// tools/xllamacpp_server.py, as text for `python -c`.
#pragma once

namespace puzzle {

[[nodiscard]] const char* xllamacpp_script();

}  // namespace puzzle
