#!/usr/bin/env python3
"""Checks that every #include of src/puzzle keeps to the layer table, and headers to their limits.

Usage: check_layers.py [ROOT]. Prints one line per violation; exit status 1 if there are any.
"""
import pathlib
import re
import sys

# layer -> layers it may include (besides itself)
BELOW = {
    "base": [],
    "arch": ["base", "formats"],
    "formats": ["base"],
    "mip": ["base"],
    "text": ["base", "formats"],
    "engine": ["base", "formats", "arch"],
    "results": ["base", "formats", "arch"],
    "report": ["base", "formats", "arch", "results"],
    # torch line
    "tensor": ["base", "formats"],
    "dist": ["base", "tensor"],
    "model": ["base", "arch", "formats", "tensor"],
    "data": ["base", "text", "tensor"],
    "train": ["base", "tensor", "dist", "model", "data"],
    "stages": ["base", "arch", "formats", "mip", "text", "engine", "results", "tensor", "dist",
               "model", "data", "train"],
}
BELOW["app"] = ["base", "arch", "formats", "mip", "text", "engine", "results", "report", "tensor",
                "dist", "model", "data", "train", "stages"]
TORCH = {"tensor", "dist", "model", "data", "train", "stages", "app"}
# The part of a layer below the line that parses files: without torch, so that sanitizers see it.
TORCH_FREE = re.compile(r"data/(data_options|eval_sets|eval_summary|random_order|token_file\w*)\.")
# header -> layers or files that may include it
ONLY = {
    r"<torch/(torch|nn|extension|script)\.h>": [],
    r"<torch/csrc/distributed/": ["dist/gloo_communicator.cpp"],
    r"<CLI/": ["app/"],
    r"<httplib\.h>": ["engine/"],
    r"<sqlite3\.h>": ["results/"],
    r"<yaml-cpp/": ["base/options.cpp"],
}
LIMITS = {".h": 300, ".cpp": 700}


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    source = root / "src" / "puzzle"
    problems = []
    for path in sorted(source.rglob("*")):
        if path.suffix not in (".h", ".cpp"):
            continue
        name = path.relative_to(source).as_posix()
        layer = name.split("/")[0]
        if layer not in BELOW:
            problems.append(f"{name}: {layer} is not a layer")
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > LIMITS[path.suffix]:
            problems.append(f"{name}: {len(lines)} lines, at most {LIMITS[path.suffix]}")
        for number, line in enumerate(lines, 1):
            match = re.match(r'\s*#\s*include\s+([<"].*[>"])', line)
            if not match:
                continue
            include = match.group(1)
            ours = re.match(r'"puzzle/(\w+)/', include)
            if ours and ours.group(1) != layer and ours.group(1) not in BELOW[layer]:
                problems.append(f"{name}:{number}: {layer} may not include {ours.group(1)}")
            if include.startswith('"') and not ours:
                problems.append(f"{name}:{number}: include {include} by its full path")
            above_line = layer not in TORCH or TORCH_FREE.match(name)
            if above_line and re.match(r"<(ATen|torch|c10)/", include):
                problems.append(f"{name}:{number}: {include} above the torch line")
            if TORCH_FREE.match(name) and ours and ours.group(1) == layer and not TORCH_FREE.match(
                    include.removeprefix('"puzzle/')):
                problems.append(f"{name}:{number}: {include} is below the torch line")
            if path.suffix == ".h" and include in ("<ATen/ATen.h>", "<nlohmann/json.hpp>"):
                problems.append(f"{name}:{number}: {include} in a header")
            for pattern, allowed in ONLY.items():
                if re.match(pattern, include) and not any(name.startswith(a) for a in allowed):
                    problems.append(f"{name}:{number}: {include} is not allowed here")
    print("\n".join(problems) if problems else "layers hold")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
