#!/usr/bin/env python3
"""Our tokenizers against Hugging Face's tokenizers library, one thread each, in turns, caches empty.

Usage: .venv/bin/python bench/tokenizer_vs_hugging_face.py [BENCH_TOKENIZER]   (default: what `make bench` builds)
Prints MB/s (of processor time, the best of several rounds; the target is 10 for encoding) and ratios for every tokenizer that
tools/setup.sh --with-tokenizers fetched and that of the parent, on prose, on manuals (with code) and on the mixed
texts that the tests compare.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/text"))
from answers_of_tokenizers import load  # noqa: E402
from mixed_texts import mixed_texts  # noqa: E402

CACHE = ROOT / ".cache"
DATA = pathlib.Path(os.environ.get("PUZZLE_DATA", ROOT / "../shared/data"))
ROUNDS = 3
MAX_BYTES = 4_000_000  # of every kind of text


def first_bytes(texts):
    taken, size = [], 0
    for text in texts:
        if text and size < MAX_BYTES:
            taken.append(text)
            size += len(text.encode())
    return taken


def kinds_of_text():
    corpus = {kind: [file.read_text(encoding="utf-8") for file in sorted((CACHE / "corpus" / kind).iterdir())]
              for kind in ("austen", "python-docs")}
    return {"prose": first_bytes("\n\n".join(corpus["austen"]).split("\n\n")),
            "manuals": first_bytes(corpus["python-docs"]),
            "mixed": [text.replace("\0", "") for text in mixed_texts(10_000, []) if text]}


def tokenizers():
    folders = [folder for folder in (DATA / "tokenizers", CACHE / "tokenizers") if folder.is_dir()]
    found = {model.name: model / "tokenizer.json" for folder in folders for model in sorted(folder.iterdir())}
    return found | {"smollm2": CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"}


def ours(program, model, files):
    """Seconds and ids or bytes by "encode/prose" and the like."""
    command = [str(program), str(model), *map(str, files), "--benchmark_format=json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["benchmarks"]
    return {row["name"].rsplit("/", 1)[0]: (row["cpu_time"] / 1000, row.get("ids")) for row in rows}


def theirs(model, kinds):
    result = {}
    for kind, texts in kinds.items():
        tokenizer = load(str(model))
        start = time.process_time()
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        result["encode/" + kind] = (time.process_time() - start, sum(map(len, encodings)))
        ids = [encoding.ids for encoding in encodings]
        start = time.process_time()
        tokenizer.decode_batch(ids, skip_special_tokens=False)
        result["decode/" + kind] = (time.process_time() - start, None)
    return result


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/bench/bench_tokenizer"
    kinds = kinds_of_text()
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, kind + ".texts") for kind in kinds]
        for file, texts in zip(files, kinds.values()):
            file.write_bytes(b"".join(text.encode() + b"\0" for text in texts))
        megabytes = {kind: sum(len(text.encode()) for text in texts) / 1e6 for kind, texts in kinds.items()}
        for name, model in tokenizers().items():
            rounds = [(ours(program, model, files), theirs(model, kinds)) for _ in range(ROUNDS)]
            for row in rounds[0][0]:
                assert rounds[0][0][row][1] == rounds[0][1][row][1], f"{name} {row}: other numbers of ids"
                native, other = (min(results[side][row][0] for results in rounds) for side in (0, 1))
                size = megabytes[row.split("/")[1]]
                print(f"{name:12} {row:15} {size / native:6.1f} MB/s, tokenizers {size / other:5.1f}, "
                      f"ratio {other / native:.1f}", flush=True)


if __name__ == "__main__":
    main()
