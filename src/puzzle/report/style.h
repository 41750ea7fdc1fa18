// The report's style sheet: one palette for light, one for dark, told apart by lightness as well as
// hue (Okabe and Ito's hues, which colour-blind readers can tell apart).
#pragma once

#include <string_view>

namespace puzzle {

[[nodiscard]] std::string_view report_style();

}  // namespace puzzle
