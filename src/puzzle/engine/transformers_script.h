// tools/run_hf_folder.py, as text for `python -c`.
#pragma once

namespace puzzle {

[[nodiscard]] const char* transformers_script();

}  // namespace puzzle
