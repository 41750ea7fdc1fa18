"""Records token ids of byte strings that are not UTF-8, for tokenizer_test.cpp.

Hugging Face's tokenizers take text only, so the two halves are put together here: the pre-tokenizer's pattern runs in
the `regex` module over what is text, and every run of bytes that are not UTF-8 is a piece of its own (tokenizer.h);
then each piece's raw bytes, spelled by GPT-2's byte-to-character map, go through the BPE model of `tokenizers`.
Usage: python make_byte_ids.py   (writes byte_ids.json beside it; pip: transformers 4.57.6 brings tokenizers, regex)
"""
import json
import pathlib
import re

import regex
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
# Patterns applied one after the other, each to the pieces of the one before.
PATTERNS = {"gpt2": [GPT2], "smollm": [r"\p{N}|\P{N}+", GPT2], "llama3": [LLAMA3]}
STRINGS = [b"\xff", b"a\xffb", b" \xff\xfe the", b"\xe2\x82", b"caf\xc3", b"\xc3\x28x\x29", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
           b"\xc0\xaf and", b"12\x80 345", b"\x80\x80\x80 the \xbf", b"don't\xff'll", b"\n\xff\n\n x", "é\u6c34".encode() + b"\xe6\xb0",
           b"\xf0\x9f\x99 ok \xf0\x9f\x99\x82", b"the\xa0the"]


def byte_map():
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def pieces_of(raw, patterns):
    pieces = []
    for run in re.findall("[\udc80-\udcff]+|[^\udc80-\udcff]+", raw.decode("utf-8", "surrogateescape")):
        found = [run]
        if not "\udc80" <= run[0] <= "\udcff":
            for pattern in patterns:
                found = [part for piece in found for part in regex.findall(pattern, piece)]
        pieces += [piece.encode("utf-8", "surrogateescape") for piece in found]
    assert b"".join(pieces) == raw
    return pieces


def main():
    spelled = byte_map()
    result = {"strings": [raw.hex() for raw in STRINGS]}
    for name, patterns in PATTERNS.items():
        tokenizer = Tokenizer.from_file(str(HERE / f"tokenizer_{name}" / "tokenizer.json"))

        def encode(raw):
            return [token.id for piece in pieces_of(raw, patterns)
                    for token in tokenizer.model.tokenize("".join(spelled[b] for b in piece))]

        for text in ("don't stop 123 now", "été  \n水 9"):  # the detour changes nothing where there is nothing to do
            assert encode(text.encode()) == tokenizer.encode(text, add_special_tokens=False).ids, (name, text)
        result[name] = [encode(raw) for raw in STRINGS]
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in result.items()]
    (HERE / "byte_ids.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
