#!/usr/bin/env python3
"""Forward pass at 8 x 512 tokens, fp32, same threads: the native decoder against transformers (eager + SDPA), in turns.

Usage: .venv/bin/python bench/forward_vs_transformers.py [BENCH_FORWARD]   (default: what `make bench` builds)
Prints the best seconds of both and their ratio (transformers / native; 1 or more is the target).
"""
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARENT = ROOT / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"
ROUNDS = 5


def main():
    torch.set_num_threads(os.cpu_count())
    model = AutoModelForCausalLM.from_pretrained(str(PARENT.parent), gguf_file=PARENT.name, dtype=torch.float32,
                                                 attn_implementation="sdpa").eval()
    tokens = (torch.arange(8 * 512) * 7919 % 40000).reshape(8, 512)
    program = sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/bench/bench_forward"
    native = subprocess.Popen([program, PARENT], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        native.stdin.write("\n")
        native.stdin.flush()
        seconds, value = map(float, native.stdout.readline().split())
        ours.append(seconds)
        start = time.perf_counter()
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits
        theirs.append(time.perf_counter() - start)
        assert abs(logits[7, 511, 0].item() - value) < 1e-3, "the two compute different logits"
        del logits
    native.stdin.close()
    native.wait()
    print(f"{torch.get_num_threads()} threads: native {min(ours):.3f} s, transformers {min(theirs):.3f} s, "
          f"ratio {min(theirs) / min(ours):.2f}")


if __name__ == "__main__":
    main()
