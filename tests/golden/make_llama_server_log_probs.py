"""Log-probabilities that llama-server's must come near to, from transformers in fp32.

  make_llama_server_log_probs.py PARENT.gguf > llama_server_log_probs.json

"parent": the real parent, dequantised, on a passage of prose.
"tiny": the model that tests/engine/tiny_gguf.h writes; its weights come from the same formula here.
"""
import json
import os
import sys

import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

TEXT = ("The old lighthouse stood at the end of the pier, and every evening the keeper climbed its narrow "
        "stairs to light the lamp. In winter the wind came straight from the north and shook the windows, "
        "but he did not mind it. He had brought a small table, a chair and a few books, and he read until "
        "the ships had gone by.")


def scores(model, tokens):
    with torch.no_grad():
        log_probs = torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1)
    return {"tokens": tokens,
            "log_probs": [round(log_probs[t, tokens[t + 1]].item(), 6) for t in range(len(tokens) - 1)],
            "top": log_probs[:-1].argmax(-1).tolist()}


def parent(path):
    folder, name = os.path.split(path)
    tokens = AutoTokenizer.from_pretrained(folder, gguf_file=name)(TEXT, add_special_tokens=False)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    return scores(model, tokens)


D, H, K, E, F, V, LAYERS = 32, 4, 2, 8, 64, 258, 2


def hashed(index, shape, scale, offset=0.0):
    x = (numpy.arange(int(numpy.prod(shape)), dtype=numpy.uint64) + 1) * 2654435761 + index * 40503
    x &= 0xffffffff
    x ^= x >> 15
    x = x * 2246822519 & 0xffffffff
    x ^= x >> 13
    values = (x.astype(numpy.float64) / 2.0**32 - 0.5) * 2.0 * scale + offset
    return torch.tensor(values.astype(numpy.float32).reshape(shape))


def half_rotation(weight, heads):
    """Rows of interleaved pairs (llama.cpp) -> first halves, then second halves (transformers)."""
    return weight.reshape(heads, E // 2, 2, D).transpose(1, 2).reshape(heads * E, D)


def tiny():
    config = LlamaConfig(hidden_size=D, intermediate_size=F, num_hidden_layers=LAYERS,
                         num_attention_heads=H, num_key_value_heads=K, head_dim=E, vocab_size=V,
                         rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=512,
                         tie_word_embeddings=False)
    weights = {"model.embed_tokens.weight": hashed(1, (V, D), 1.0),
               "model.norm.weight": hashed(2, (D,), 0.5, 1.0),
               "lm_head.weight": hashed(3, (V, D), 0.3)}
    for layer in range(LAYERS):
        base, name = 10 * (layer + 1), f"model.layers.{layer}."
        weights |= {
            name + "input_layernorm.weight": hashed(base, (D,), 0.5, 1.0),
            name + "self_attn.q_proj.weight": half_rotation(hashed(base + 1, (H * E, D), 0.3), H),
            name + "self_attn.k_proj.weight": half_rotation(hashed(base + 2, (K * E, D), 0.3), K),
            name + "self_attn.v_proj.weight": hashed(base + 3, (K * E, D), 0.5),
            name + "self_attn.o_proj.weight": hashed(base + 4, (D, H * E), 0.5),
            name + "post_attention_layernorm.weight": hashed(base + 5, (D,), 0.5, 1.0),
            name + "mlp.gate_proj.weight": hashed(base + 6, (F, D), 0.4),
            name + "mlp.up_proj.weight": hashed(base + 7, (F, D), 0.4),
            name + "mlp.down_proj.weight": hashed(base + 8, (D, F), 0.4)}
    model = LlamaForCausalLM(config).float().eval()
    model.load_state_dict(weights)
    tokens = [int(t) for t in (numpy.arange(48) * 37 + 11) % 256]
    tokens[20] = 257  # a control token in the middle
    return scores(model, tokens)


def main():
    text = json.dumps({"parent": parent(sys.argv[1]), "tiny": tiny()})
    print(text.replace("], ", "],\n ").replace("}, ", "},\n"))


main()
