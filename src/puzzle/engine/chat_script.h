// tools/render_chat.py, as text for `python -c`.
#pragma once

namespace puzzle {

[[nodiscard]] const char* chat_script();

}  // namespace puzzle
