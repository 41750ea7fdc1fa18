// A port of this machine to listen on.
#pragma once

namespace puzzle {

// A port on 127.0.0.1 that nobody listens on now; another program could take it before the caller
// does. Throws Error(kIo).
[[nodiscard]] int find_free_port();

}  // namespace puzzle
