#!/usr/bin/env python3
"""Prints the skipped tests of a CTest log, by reason. Usage: list_skips.py LastTest.log"""
import pathlib
import re
import sys


def main() -> int:
    log = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")
    reasons: dict[str, list[str]] = {}
    test = ""
    lines = iter(log.splitlines())
    for line in lines:
        start = re.match(r"\[ RUN      \] (\S+)", line)
        if start:
            test = start.group(1)
        if re.search(r":\d+: Skipped$", line):
            reasons.setdefault(next(lines, "").strip() or "no reason given", []).append(test)
    skipped = sum(len(tests) for tests in reasons.values())
    print(f"skipped test cases: {skipped}")
    for reason, tests in sorted(reasons.items()):
        shown = ", ".join(tests[:4]) + (f" and {len(tests) - 4} more" if len(tests) > 4 else "")
        print(f"  {reason}: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
