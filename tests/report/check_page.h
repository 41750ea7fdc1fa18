// Checks of a whole page by Python's own XML and HTML parsers (check_page.py).
#pragma once

#include <string>

namespace puzzle::test {

// Adds a test failure that lists what is wrong; skips nothing silently: without Python it fails.
void expect_sound_page(const std::string& page);

}  // namespace puzzle::test
