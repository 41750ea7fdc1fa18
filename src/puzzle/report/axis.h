// From values to pixels, and the round numbers to write beside an axis.
#pragma once

#include <string>
#include <vector>

namespace puzzle {

struct AxisSpec {
  std::string label;       // with its unit
  bool log = false;        // values <= 0 are left out
  bool from_zero = false;  // a linear axis starts at 0
  bool tight = false;      // a linear axis ends just beyond the values, not at round numbers
};

struct Tick {
  double value = 0.0;
  std::string label;
};

// Values low … high onto pixels from … to.
struct Scale {
  bool log = false;
  double low = 0.0;
  double high = 1.0;
  double from_px = 0.0;
  double to_px = 1.0;

  // Whether the value has a place: finite, and positive on a log axis.
  [[nodiscard]] bool holds(double value) const;
  // Clamped to the ends.
  [[nodiscard]] double operator()(double value) const;
};

struct PixelRange {
  double from = 0.0;
  double to = 0.0;
};

// Ends at round numbers around the values that have a place; [0, 1] (or [1, 10]) if none has.
[[nodiscard]] Scale make_scale(const std::vector<double>& values, const AxisSpec& axis,
                               PixelRange pixels);

// At most ten ticks; labels are short ("20 k", "0.05").
[[nodiscard]] std::vector<Tick> make_ticks(const Scale& scale);

}  // namespace puzzle
