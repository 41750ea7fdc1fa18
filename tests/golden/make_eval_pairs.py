#!/usr/bin/env python3
"""Records tests/golden/eval_pairs.json: contexts and continuations as token ids, by the rule of
lm-evaluation-harness (TemplateLM._encode_pair and the prefix token of an empty context), with the
parent's vocabulary and merges as transformers reads them from the GGUF file.

Usage: make_eval_pairs.py PARENT.gguf > tests/golden/eval_pairs.json
"""
import json
import pathlib
import sys

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is ", "Paris"),
    ("Question: 2 + 2 =\nAnswer:", " 4"),
    ("Question: 2 + 2 =\nAnswer:\n\n", "4"),
    ("He said \"", "no\""),
    ("un", "believable"),
    ("trailing tabs\t\t", "x"),
    ("", "Lucille's sisters are confused by Amy."),
    ("   ", "Only spaces before."),
    ("naïve café", " déjà vu"),
    ("数学", "很难"),
    ("emoji 👩‍💻", " 🙂"),
    ("digits 12", "345"),
    ("special", " <|im_end|> text"),
    ("two  spaces", "  here"),
    ("new\nline", "\nnext"),
]


def encode_pair(tokenizer, context, continuation):
    def encode(text):
        # Control tokens in the text are plain characters, as in our loader.
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    if context == "":
        return [tokenizer.bos_token_id], encode(continuation)
    whole = encode(context + continuation)
    context_ids = encode(context)
    return context_ids, whole[len(context_ids):]


def main():
    path = pathlib.Path(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # transformers rebuilds a plain GPT-2 pre-tokenizer from the file; SmolLM2's own splits digits first.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    pairs = []
    for context, continuation in PAIRS:
        context_ids, continuation_ids = encode_pair(tokenizer, context, continuation)
        pairs.append({"context": context, "continuation": continuation,
                      "context_ids": context_ids, "continuation_ids": continuation_ids})
    print("[\n" + ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in pairs) + "\n]")


if __name__ == "__main__":
    main()
