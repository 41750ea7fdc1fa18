#!/usr/bin/env bash
# Sets up what is missing, builds, runs every test, says what was skipped and why. No arguments.
set -euo pipefail
cd "$(dirname "$0")"

tools/setup.sh --with-tests --with-parent
tools/build.sh release

# Two tests at once on two cores; a waiting OpenMP thread must not burn the other test's core.
export OMP_WAIT_POLICY=PASSIVE
status=0
ctest --test-dir build -LE slow -j "$(nproc)" --output-on-failure --no-tests=error || status=$?
.venv/bin/python tools/list_skips.py build/Testing/Temporary/LastTest.log
exit "$status"
