// A script of ours in the user's Python: a request goes in as arguments, one JSON object comes out
// on a line of its own, the last such line of stdout and stderr.
#pragma once

#include <string>

#include "puzzle/base/json.h"

namespace puzzle {

// What to run, and how messages speak of it.
struct PythonScript {
  std::string source;  // for `python -c`; its arguments together are the request
  double time_limit_s = 0.0;
  std::string without;  // "nothing renders the chat template": no Python
  std::string silent;   // "renders no chat template": another answer than JSON
  std::string needed;   // "which renders the chat template": what a missing package does
  std::string advice;
};

// The object that the script printed, or {"late": the interpreter} where its time was up. `python`
// empty: the build's own, else python3. Throws Error(kIo) without a Python, for no answer, and
// where the answer names a "missing" package; Error(kInterrupted).
[[nodiscard]] Json run_python_script(const PythonScript& script, const Json& request,
                                     const std::string& python);

}  // namespace puzzle
