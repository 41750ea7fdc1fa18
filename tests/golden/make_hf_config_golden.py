#!/usr/bin/env python3
"""Records what transformers makes of Llama configurations: tests/golden/hf_config.json.

Per case: the config.json that transformers itself writes, the number of parameters of the model built
from it (on the meta device, so nothing is allocated), the rotary inverse frequencies and the factor on
cos and sin.

Usage: .venv/bin/python tests/golden/make_hf_config_golden.py
"""
import json
import pathlib

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             vocab_size=128, max_position_embeddings=256)
LLAMA3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
CASES = {
    "smollm2-135m": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                         num_attention_heads=9, num_key_value_heads=3, vocab_size=49152,
                         max_position_embeddings=8192, rope_theta=100000.0, rms_norm_eps=1e-5,
                         tie_word_embeddings=True, bos_token_id=1, eos_token_id=2),
    "tinyllama-1.1b": dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
                           num_attention_heads=32, num_key_value_heads=4, vocab_size=32000,
                           max_position_embeddings=2048, rms_norm_eps=1e-5),
    "llama-3.2-1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                         num_attention_heads=32, num_key_value_heads=8, head_dim=64,
                         vocab_size=128256, max_position_embeddings=131072, rope_theta=500000.0,
                         rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=128000,
                         eos_token_id=[128001, 128008, 128009],
                         rope_scaling=dict(LLAMA3, factor=32.0)),
    "llama-3.1-8b": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                         num_attention_heads=32, num_key_value_heads=8, vocab_size=128256,
                         max_position_embeddings=131072, rope_theta=500000.0, rms_norm_eps=1e-5,
                         bos_token_id=128000, eos_token_id=128001,
                         rope_scaling=dict(LLAMA3, factor=8.0)),
    "head-dim-and-biases": dict(SMALL, head_dim=32, num_key_value_heads=2, attention_bias=True,
                                mlp_bias=True),
    "multi-head-linear-rope": dict(SMALL, rope_scaling=dict(rope_type="linear", factor=4.0)),
    "yarn": dict(SMALL, num_key_value_heads=1, rope_theta=10000.0,
                 rope_scaling=dict(rope_type="yarn", factor=4.0,
                                   original_max_position_embeddings=64)),
    "yarn-with-mscale": dict(SMALL, num_key_value_heads=1,
                             rope_scaling=dict(rope_type="yarn", factor=8.0, mscale=0.707,
                                               mscale_all_dim=1.2, beta_fast=16.0, beta_slow=2.0,
                                               original_max_position_embeddings=32)),
    "yarn-with-attention-factor": dict(SMALL,
                                       rope_scaling=dict(rope_type="yarn", factor=2.0,
                                                         attention_factor=0.9)),
}


def record(arguments):
    config = LlamaConfig(torch_dtype="bfloat16", architectures=["LlamaForCausalLM"], **arguments)
    written = json.loads(config.to_json_string())
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    return {
        "config": written,
        "parameters": sum(p.numel() for p in model.parameters()),
        "inverse_frequencies": rotary.inv_freq.tolist(),
        "attention_factor": float(rotary.attention_scaling),
    }


def main():
    golden = {"transformers": transformers.__version__, "torch": torch.__version__,
              "cases": {name: record(arguments) for name, arguments in CASES.items()}}
    path = pathlib.Path(__file__).with_name("hf_config.json")
    path.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(f"{path}: {len(golden['cases'])} cases")


if __name__ == "__main__":
    main()
