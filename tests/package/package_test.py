#!/usr/bin/env python3
"""Installs a build, moves it elsewhere, and builds and runs examples/ against it as another project would.

Usage: package_test.py SOURCE_DIR BUILD_DIR CMAKE COMPILER TORCH_DIR HIGHS_DIR
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SOURCE, BUILD, CMAKE, COMPILER, TORCH, HIGHS = sys.argv[1:]
MODEL = pathlib.Path(SOURCE, "recipes/parents/llama-3.1-8b")
BF16 = 2  # bytes
FIXED_BYTES = BF16 * 4096 * (128256 + 128256 + 1)  # embedding, head, last norm


def run(*command, status=0):
    """Standard output and error of a command that has to end with `status`."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == status, f"{command[0]} ended with {done.returncode}, expected {status}:\n{text}"
    return text


def block_bytes(config, name):
    """Of a block like kv4/w7168, norms included, by the shapes of Llama's tensors."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = hidden // heads
    attention, ffn = name.split("/")
    parameters = 0
    if attention != "none":
        kv = int(attention.removeprefix("kv"))
        parameters += hidden + 2 * hidden * heads * width + 2 * hidden * kv * width
    if ffn != "none":
        parameters += hidden + 3 * hidden * int(ffn.removeprefix("w"))
    return BF16 * parameters


def check_no_machine_paths(package):
    for file in package.iterdir():
        text = file.read_text(encoding="utf-8")
        for path in (SOURCE, BUILD, TORCH, HIGHS, str(package.parents[2])):
            assert path not in text, f"{file.name} names {path}"
        # What CMake writes to say where an absolute path may not be: its own comments hold none.
        found = re.search(r'"/(?!include|lib|\.\.)[a-z]\w+/', text)
        assert not found, f"{file.name} holds the path {found.group()}"


def check_search(program, config):
    """Half of the bytes: printed sums are those of the architecture printed, and of the budget."""
    out = run(program, MODEL, "0.5")
    assert "32 layers, 8030261248 parameters, 16060522496 bytes" in out, out  # as Meta published it
    blocks = re.findall(r"^ *\d+  (\S+)$", out, re.MULTILINE)
    assert len(blocks) == config["num_hidden_layers"] and len(set(blocks)) > 1, out
    total = FIXED_BYTES + sum(block_bytes(config, name) for name in blocks)
    assert f"{total} bytes" in out and 0.49 < total / 16060522496 <= 0.5, (total, out)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run(CMAKE, "--install", BUILD, "--prefix", folder / "made")
        (folder / "made").rename(folder / "moved")
        check_no_machine_paths(next((folder / "moved").glob("lib*/**/cmake/puzzle")))
        configure = [CMAKE, "-S", f"{SOURCE}/examples", "-B", folder / "build", "-G", "Ninja",
                     f"-DCMAKE_CXX_COMPILER={COMPILER}", f"-DCMAKE_PREFIX_PATH={folder / 'moved'}", "-U", "PUZZLE_*"]

        out = run(*configure, "-DPUZZLE_PYTHON=/nowhere/python", status=1)
        assert "no torch wheel for the Python '/nowhere/python'" in out and "-DPUZZLE_TORCH_DIR" in out, out
        assert "no HiGHS" in out and "-DPUZZLE_HIGHS_DIR" in out, out

        other = folder / "torch"
        (other / "include/ATen").mkdir(parents=True)
        (other / "include/ATen/ATen.h").touch()
        (other / "version.py").write_text("__version__ = '1.0.0+cpu'\n")
        out = run(*configure, f"-DPUZZLE_TORCH_DIR={other}", f"-DPUZZLE_HIGHS_DIR={HIGHS}", status=1)
        assert re.search(r"torch 1\.0\.0\+cpu in\s+\S+/torch,\s+but\s+puzzle\s+was\s+built\s+with", out), out

        run(*configure, f"-DPUZZLE_TORCH_DIR={TORCH}", f"-DPUZZLE_HIGHS_DIR={HIGHS}")
        run(CMAKE, "--build", folder / "build")
        program = folder / "build/use_as_library"
        check_search(program, json.loads((MODEL / "config.json").read_text(encoding="utf-8")))
        out = run(program, MODEL, "0.01", status=5)
        assert f"the smallest attainable with the other budgets held is {FIXED_BYTES}" in out, out
        out = run(folder / "moved/bin/puzzle", "--version")
        assert re.search(r"\d+\.\d+\.\d+", out), out


if __name__ == "__main__":
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    main()
