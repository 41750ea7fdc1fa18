#!/usr/bin/env bash
# Formats all C++ files in place; with --check only says which would change (exit status 1).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v clang-format-19 >/dev/null; then
  echo "format: clang-format-19 is not there; run tools/setup.sh --with-lint" >&2
  exit 2
fi
# Also files that are not committed yet; not those that are deleted but still known to git.
mapfile -d '' files < <(git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cpp' |
  while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done)
case "${1:-}" in
  --check) clang-format-19 --dry-run --Werror "${files[@]}" ;;
  "") clang-format-19 -i "${files[@]}" ;;
  *) echo "format: unknown argument $1; known is --check" >&2; exit 2 ;;
esac
