#!/usr/bin/env bash
# clang-tidy with the checks of .clang-tidy over src/puzzle, or over the files named. Warnings are
# errors. Torch files take about ten seconds each.
# Usage: tools/lint.sh [FILE.cpp...]
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v clang-tidy-19 >/dev/null; then
  echo "lint: clang-tidy-19 is not there; run tools/setup.sh --with-lint" >&2
  exit 2
fi
# Its own compile database: the release preset's names unity files.
cmake --preset lint >/dev/null
if [ $# -eq 0 ]; then
  mapfile -t files < <(git ls-files 'src/puzzle/*.cpp')
else
  files=("$@")
fi
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "$(nproc)" clang-tidy-19 -p build-lint --quiet \
    --extra-arg=-Wno-unknown-warning-option
