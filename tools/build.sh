#!/usr/bin/env bash
# Configures and builds one preset, quietly unless something is wrong.
# Usage: tools/build.sh PRESET [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."

preset="$1"
shift
mkdir -p .cache/logs
log=".cache/logs/build-$preset.log"
if ! cmake --preset "$preset" >"$log" 2>&1; then
  cat "$log" >&2
  echo "build: cmake --preset $preset failed; the log is $log" >&2
  exit 1
fi
# A compiler that includes libtorch takes up to 2 GiB.
memory_jobs=$(($(awk '/MemAvailable/ {print $2}' /proc/meminfo) / (2 * 1024 * 1024)))
jobs=$(nproc)
if [ "$memory_jobs" -lt "$jobs" ]; then
  jobs=$((memory_jobs > 0 ? memory_jobs : 1))
fi
targets=()
if [ $# -gt 0 ]; then
  targets=(--target "$@")
fi
echo "build: preset $preset, $jobs jobs"
start=$SECONDS
if ! cmake --build --preset "$preset" -j "$jobs" "${targets[@]}" >>"$log" 2>&1; then
  grep -E -A20 'FAILED|error' "$log" | head -100 >&2
  echo "build: failed; the log is $log" >&2
  exit 1
fi
echo "build: done in $((SECONDS - start)) s"
