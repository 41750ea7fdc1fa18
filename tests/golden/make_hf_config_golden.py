#!/usr/bin/env python3
"""Records what transformers makes of configurations: tests/golden/hf_config.json.

Per case: the config.json that transformers itself writes, the number of parameters of the model built
from it (on the meta device, so nothing is allocated), the rotary inverse frequencies and the factor on
cos and sin.

Usage: .venv/bin/python tests/golden/make_hf_config_golden.py
"""
import importlib
import json
import pathlib

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

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
    "yi-6b": dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                  num_attention_heads=32, num_key_value_heads=4, vocab_size=64000,
                  max_position_embeddings=4096, rope_theta=5e6, rms_norm_eps=1e-5),
    "mistral-7b-v0.1": dict(model_type="mistral", hidden_size=4096, intermediate_size=14336,
                            num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
                            vocab_size=32000, max_position_embeddings=32768, sliding_window=4096,
                            rms_norm_eps=1e-5),
    "mistral-nemo-12b": dict(model_type="mistral", hidden_size=5120, intermediate_size=14336,
                             num_hidden_layers=40, num_attention_heads=32, num_key_value_heads=8,
                             head_dim=128, vocab_size=131072, max_position_embeddings=1024000,
                             sliding_window=None, rope_theta=1e6, rms_norm_eps=1e-5),
    "qwen2.5-0.5b": dict(model_type="qwen2", hidden_size=896, intermediate_size=4864,
                         num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
                         vocab_size=151936, max_position_embeddings=32768, sliding_window=32768,
                         max_window_layers=24, rope_theta=1e6, tie_word_embeddings=True),
    "qwen3-0.6b": dict(model_type="qwen3", hidden_size=1024, intermediate_size=3072,
                       num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
                       head_dim=128, vocab_size=151936, max_position_embeddings=40960,
                       rope_theta=1e6, tie_word_embeddings=True),
    "qwen3-8b": dict(model_type="qwen3", hidden_size=4096, intermediate_size=12288,
                     num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
                     vocab_size=151936, max_position_embeddings=40960, rope_theta=1e6),
}
CLASSES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config,
           "qwen3": Qwen3Config}


def record(arguments):
    arguments = dict(arguments)
    kind = arguments.pop("model_type", "llama")
    config = CLASSES[kind](torch_dtype="bfloat16",
                           architectures=[f"{kind.capitalize()}ForCausalLM"], **arguments)
    written = json.loads(config.to_json_string())
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    rotary = getattr(module, f"{kind.capitalize()}RotaryEmbedding")(config)
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
