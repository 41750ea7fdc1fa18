"""Loads exported folders in transformers, as a user would, and compares with the C++ decoder.

Usage: check_hf_export.py FOLDER EXPECTED.safetensors [FOLDER EXPECTED.safetensors …]

EXPECTED holds `tokens` [T] and the decoder's `logits` [T, V]. Prints one line per folder; exit status 1
if any differs, 77 if transformers is not installed.
"""
import os
import sys
import tempfile

from hf_folders import TOLERANCE, load

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer


def distance(got, want):
    return (got.float() - want.float()).abs().max().item()


def greedy(model, tokens, count):
    """Generation without a cache."""
    for _ in range(count):
        logits = model(torch.tensor([tokens]), use_cache=False).logits
        tokens = [*tokens, logits[0, -1].argmax().item()]
    return tokens


def left_padded(model, tokens, padding):
    ids = torch.tensor([[0] * padding + tokens[padding:], tokens])
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(ids, attention_mask=mask, position_ids=positions).logits
    alone = model(torch.tensor([tokens[padding:]])).logits[0]
    return distance(logits[0, padding:], alone)


def check(folder, expected):
    model = load(folder, trust_remote_code=True)
    tokens, logits = expected["tokens"].tolist(), expected["logits"]
    found = {"logits": distance(model(torch.tensor([tokens])).logits[0], logits)}
    # The second half behind a cache of the first.
    half = len(tokens) // 2
    first = model(torch.tensor([tokens[:half]]), use_cache=True)
    second = model(torch.tensor([tokens[half:]]), past_key_values=first.past_key_values)
    found["cached"] = distance(second.logits[0], logits[half:])
    found["padded"] = left_padded(model, tokens, 3)
    ids = torch.tensor([tokens])
    nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    found["loss"] = distance(model(ids, labels=ids).loss, nll)

    prompt = tokens[:8]
    generated = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, 8, dtype=torch.long),
                               max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=None,
                               pad_token_id=0)
    assert generated[0].tolist() == greedy(model, prompt, 8), "generate() differs from argmax"

    config = model.config
    blocks = config.block_configs
    assert config.to_dict()["block_configs"][0]["attention"]["no_op"] == blocks[0].attention.no_op
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).to_json_string()
    for block in blocks:
        assert hasattr(block.ffn, "ffn_mult") != hasattr(block.ffn, "intermediate_size")
    with tempfile.TemporaryDirectory() as copy:
        model.save_pretrained(copy)
        found["saved"] = distance(load(copy, trust_remote_code=True)(torch.tensor([tokens])).logits[0], logits)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Once upon a time"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids).strip() == text, tokenizer.decode(ids)
    return found


def main():
    failed = False
    torch.set_num_threads(1)  # the models are too small for more
    for folder, expected in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        with torch.no_grad():
            found = check(folder, load_file(expected))
        worst = max(found.values())
        failed |= not worst <= TOLERANCE
        print(os.path.basename(folder), {name: f"{value:.1e}" for name, value in found.items()},
              "differs" if not worst <= TOLERANCE else "agrees")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
