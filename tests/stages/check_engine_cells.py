"""Runs exported folders in transformers and compares with the C++ decoder.

Usage: check_engine_cells.py LIST

LIST holds one line "FORMAT FOLDER EXPECTED.safetensors" per model; EXPECTED has `tokens` [T] and the decoder's
`logits` [T, V]. FORMAT says how the folder is loaded:
  hf           with the code in it
  hf-padded    by transformers alone, without trust_remote_code
  hf-anymodel  from the modules of transformers' own class, put together as block_configs says: what
               Model-Optimizer's patcher and vLLM's AnyModel do to that class
Exit status 1 if any differs, 77 if transformers is not installed.
"""
import copy
import json
import os
import sys

from hf_folders import TOLERANCE, load

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


class NoAttention(torch.nn.Module):
    def forward(self, hidden_states, *_, **__):
        return torch.zeros_like(hidden_states), None


class NoFfn(torch.nn.Module):
    def forward(self, hidden_states):
        return torch.zeros_like(hidden_states)


def load_padded(folder):
    assert not [name for name in os.listdir(folder) if name.endswith(".py")]
    model = load(folder, trust_remote_code=False)
    assert type(model).__name__ == model.config.architectures[0]
    return model


def load_any_model(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        written = json.load(file)
    config = AutoConfig.from_pretrained(folder)
    assert written["architectures"] == ["AnyModel"] and config.model_type == written["model_type"]
    model = AutoModelForCausalLM.from_config(config)
    assert type(model).__name__ == written["base_architecture"]
    for index, (layer, block) in enumerate(zip(model.model.layers, written["block_configs"], strict=True)):
        attention, ffn = block["attention"], block["ffn"]
        own = copy.deepcopy(config)
        assert not attention["replace_with_linear"] and not ffn["replace_with_linear"]
        if attention["no_op"]:
            layer.input_layernorm, layer.self_attn = torch.nn.Identity(), NoAttention()
        else:
            own.num_key_value_heads = attention["num_key_value_heads"]
            layer.self_attn = type(layer.self_attn)(own, index)
        if ffn["no_op"]:
            layer.post_attention_layernorm, layer.mlp = torch.nn.Identity(), NoFfn()
        else:
            own.intermediate_size = ffn["intermediate_size"]
            layer.mlp = type(layer.mlp)(own)
    weights = load_file(os.path.join(folder, "model.safetensors"))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = ["lm_head.weight"] if config.tie_word_embeddings else []
    assert missing == tied and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model


LOADERS = {"hf": lambda folder: load(folder, trust_remote_code=True), "hf-padded": load_padded,
           "hf-anymodel": load_any_model}


def difference(form, folder, expected):
    model = LOADERS[form](folder).eval()
    tokens, logits = expected["tokens"], expected["logits"]
    got = model(tokens[None]).logits[0].double()
    return (got.log_softmax(-1) - logits.double().log_softmax(-1)).abs().max().item()


def main():
    torch.set_num_threads(1)  # the models are too small for more
    worst, failed = {}, False
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = [line.split() for line in file]
    for form, folder, expected in lines:
        with torch.no_grad():
            found = difference(form, folder, load_file(expected))
        worst[form] = max(worst.get(form, 0.0), found)
        if not found <= TOLERANCE:
            failed = True
            print(f"{form} {os.path.basename(folder)}: log-probabilities differ by {found:.1e}")
    print(f"{len(lines)} folders; largest differences", {name: f"{value:.1e}" for name, value in worst.items()})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
