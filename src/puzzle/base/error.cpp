#include "puzzle/base/error.h"

namespace puzzle {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return 2;
    case ErrorKind::kFormat:
      return 3;
    case ErrorKind::kIo:
      return 4;
    case ErrorKind::kInfeasible:
      return 5;
    case ErrorKind::kNumeric:
      return 6;
    case ErrorKind::kPeer:
      return 7;
    case ErrorKind::kInterrupted:
      return 130;
    case ErrorKind::kInternal:
      return 70;
  }
  return 70;
}

std::string_view kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return "usage";
    case ErrorKind::kFormat:
      return "format";
    case ErrorKind::kIo:
      return "io";
    case ErrorKind::kInfeasible:
      return "infeasible";
    case ErrorKind::kNumeric:
      return "numeric";
    case ErrorKind::kPeer:
      return "peer";
    case ErrorKind::kInterrupted:
      return "interrupted";
    case ErrorKind::kInternal:
      return "internal";
  }
  return "internal";
}

void fail_with(ErrorKind kind, const std::string& message) { throw Error(kind, message); }

void fail_check(const char* condition, const char* file, int line, const std::string& message) {
  throw Error(ErrorKind::kInternal,
              fmt::format("{}:{}: {} does not hold: {}; this is a bug in puzzle", file, line,
                          condition, message));
}

}  // namespace puzzle
