"""Records logits of transformers' Llama, Mistral, Qwen2 and Qwen3 for decoder_parity_test.cpp.

Weights come from a formula that the test repeats, so that no weights are stored. What all 49,152 logits of the real
parent (SmolLM2-135M-Instruct as GGUF, dequantised by transformers) are at each of 64 positions goes into
parent_logits.json where it is present: the largest 32, log-sum-exp, and for each 1,024 columns the mean of the logits
with alternating signs, so that every logit counts somewhere.
Usage: python make_llama_logits.py   (writes both files beside it; pip: transformers 4.57.6, gguf, accelerate)
"""
import json
import math
import pathlib

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
BASE = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=12, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=100.0,
            tie_word_embeddings=False)
CLASSES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
# What is no LlamaConfig says so; head_dim None is left out, as in most files.
CASES = {
    "default": {},
    "tied": dict(tie_word_embeddings=True),
    "biases": dict(attention_bias=True, mlp_bias=True),
    "multi_head": dict(num_key_value_heads=4),
    "linear": dict(rope_scaling={"rope_type": "linear", "factor": 2.5}),
    "llama3": dict(rope_scaling={"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 "original_max_position_embeddings": 16}),
    "yarn": dict(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
    # Exact up to max_position_embeddings, here as long as the text.
    "dynamic": dict(rope_scaling={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=24),
    "tinyllama": dict(head_dim=None, num_attention_heads=8, num_key_value_heads=1, rope_theta=10000.0),
    "yi": dict(head_dim=None, num_key_value_heads=1, rope_theta=5e6, rms_norm_eps=1e-6),
    "mistral": dict(model_type="mistral", sliding_window=None, num_key_value_heads=1),
    # As long as the text: the last token still sees the first.
    "mistral-window": dict(model_type="mistral", sliding_window=24),
    "qwen2": dict(model_type="qwen2", head_dim=None, tie_word_embeddings=True, rms_norm_eps=1e-6),
    "qwen2-window": dict(model_type="qwen2", use_sliding_window=True, sliding_window=24, max_window_layers=1),
    "qwen3": dict(model_type="qwen3", num_key_value_heads=1, rms_norm_eps=1e-6),
    "qwen3-tied-biases-yarn": dict(model_type="qwen3", tie_word_embeddings=True, attention_bias=True,
                                   rope_scaling={"rope_type": "yarn", "factor": 4.0,
                                                 "original_max_position_embeddings": 16}),
}
TOKENS = [(7 * t * t + 3 * t) % 48 for t in range(24)]


def fill(name, tensor):
    phase = float(sum(name.encode()))
    flat = torch.arange(tensor.numel(), dtype=torch.float64)
    wave = torch.sin(phase + 1.2345 * flat + 0.001 * flat * flat)
    if "norm" in name:
        value = 1.0 + 0.1 * wave
    elif tensor.dim() == 1:
        value = 0.2 * wave
    else:
        value = 1.5 * wave / math.sqrt(tensor.shape[1])
    tensor.data.copy_(value.reshape(tensor.shape).float())


def record_parent(path):
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32).eval()
    ids = torch.randint(0, 49152, (64,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.no_grad():
        logits_TV = model(torch.tensor([ids])).logits[0].double()
    signs = 1.0 - 2.0 * (torch.arange(1024) % 2)
    top = logits_TV.topk(32)
    result = {
        "tokens": ids,
        "top_columns": top.indices.tolist(),
        "top_logits": [[round(v, 6) for v in row] for row in top.values.tolist()],
        "log_sum_exp": [round(v, 6) for v in logits_TV.logsumexp(-1).tolist()],
        "signed_means": [[round(v, 7) for v in row]
                         for row in (logits_TV.reshape(64, 48, 1024) * signs).mean(-1).tolist()],
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in result.items()]
    (HERE / "parent_logits.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    cases = []
    for name, changes in CASES.items():
        arguments = {**BASE, **changes}
        if arguments["head_dim"] is None:
            del arguments["head_dim"]
        config = CLASSES[arguments.pop("model_type", "llama")](**arguments)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter_name, parameter in model.named_parameters():
            fill(parameter_name, parameter)
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS])).logits[0]
        rows = ",\n".join(json.dumps([round(v, 6) for v in logits[t].tolist()]) for t in (0, 5, 23))
        cases.append(f"{json.dumps(name)}: {{\"config\": {json.dumps(json.loads(config.to_json_string()))},\n"
                     f"\"logits\": [\n{rows}]}}")
    (HERE / "llama_logits.json").write_text(
        f"{{\"tokens\": {json.dumps(TOKENS)},\n\"cases\": {{\n" + ",\n".join(cases) + "}}\n")
    parent = ROOT / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if parent.exists():
        record_parent(parent)


if __name__ == "__main__":
    main()
