"""A Llama whose layers differ, for transformers with trust_remote_code=True.

  h += attention(norm(h))    GQA with its own number of KV heads, a linear map, or nothing
  h += ffn(norm(h))          SwiGLU of its own width, a linear map, or nothing

Part of an exported model. Generation, key-value caches, padding, tied embeddings and biases work as in
transformers' own Llama. Shape letters: B sequences, T new tokens, S cached and new tokens, H query
heads, K KV heads, E head width.
"""
import math

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from .configuration_decilm import DeciLMConfig


def llama3_divisors(rope, frequencies):
    """What each frequency is divided by: 1 for short wavelengths, factor for long ones."""
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    divisors = []
    for frequency in frequencies:
        wavelength = 2 * math.pi / frequency
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return divisors


def yarn(rope, frequencies, head_dim, theta):
    """Frequencies and the factor of cos and sin: interpolated where wavelengths are long."""
    def dimension(rotations):
        context = rope["original_max_position_embeddings"]
        return head_dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(rope.get("beta_fast", 32)), dimension(rope.get("beta_slow", 1))
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    scaled = []
    for i, frequency in enumerate(frequencies):
        ramp = min(max((i - low) / (high - low), 0.0), 1.0)
        scaled.append(frequency / rope["factor"] * ramp + frequency * (1 - ramp))
    attention_factor = rope.get("attention_factor")
    return scaled, attention_factor if attention_factor else 0.1 * math.log(rope["factor"]) + 1.0


def rotary_frequencies(config):
    """The E/2 angles per position, and the factor of cos and sin."""
    rope, theta, width = config.rope_parameters, config.rope_theta, config.head_dim
    frequencies = [theta ** (-2.0 * i / width) for i in range(width // 2)]
    kind = rope["rope_type"]
    if config.rope_divisors is not None:
        return [f / d for f, d in zip(frequencies, config.rope_divisors, strict=True)], 1.0
    if kind == "default":
        return frequencies, 1.0
    if kind == "linear":
        return [f / rope["factor"] for f in frequencies], 1.0
    if kind == "llama3":
        return [f / d for f, d in zip(frequencies, llama3_divisors(rope, frequencies))], 1.0
    if kind == "yarn":
        return yarn(rope, frequencies, width, theta)
    raise ValueError(f"rope type {kind!r}: expected default, linear, llama3 or yarn")


def rotate(x, cos, sin):
    """Half-split rotation of [B, heads, T, E] by [B, 1, T, E/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class DeciLMRMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class DeciLMAttention(nn.Module):
    def __init__(self, config, layer, cache_index):
        super().__init__()
        self.head_dim = config.head_dim
        self.groups = config.block_configs[layer].attention.n_heads_in_group
        self.dropout = config.attention_dropout
        self.cache_index = cache_index  # counts layers that have a cache
        heads, kv_heads = config.num_attention_heads, config.kv_heads(layer)
        self.q_proj = nn.Linear(config.hidden_size, heads * self.head_dim, bias=config.has_qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_heads * self.head_dim, bias=config.has_qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_heads * self.head_dim, bias=config.has_qkv_bias)
        self.o_proj = nn.Linear(heads * self.head_dim, config.hidden_size, bias=config.has_output_bias)
        self.has_qk_norm = config.has_qk_norm
        if self.has_qk_norm:
            self.q_norm = DeciLMRMSNorm(self.head_dim, config.rms_norm_eps)
            self.k_norm = DeciLMRMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(self, x, rotary, mask, cache, cache_position):
        def heads(projected):
            return projected.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        if self.has_qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.cache_index, {"cache_position": cache_position})
        k = k.repeat_interleave(self.groups, dim=1)
        v = v.repeat_interleave(self.groups, dim=1)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask(k.shape[2]), dropout_p=dropout)
        return self.o_proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class DeciLMLinearAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.linear_attn = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x, rotary, mask, cache, cache_position):
        return self.linear_attn(x)


class DeciLMMLP(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        width = config.ffn_width(layer)
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DeciLMLinearMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.linear_mlp = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.linear_mlp(x)


class DeciLMDecoderLayer(nn.Module):
    """Sub-blocks that are no-ops have neither weights nor norm."""

    def __init__(self, config, layer, cache_index):
        super().__init__()
        block = config.block_configs[layer]
        self.self_attn = None
        self.mlp = None
        if not block.attention.no_op:
            self.input_layernorm = DeciLMRMSNorm(config.hidden_size, config.rms_norm_eps)
            self.self_attn = (DeciLMAttention(config, layer, cache_index) if block.attention.is_gqa
                              else DeciLMLinearAttention(config))
        if not block.ffn.no_op:
            self.post_attention_layernorm = DeciLMRMSNorm(config.hidden_size, config.rms_norm_eps)
            self.mlp = DeciLMMLP(config, layer) if block.ffn.is_swiglu else DeciLMLinearMLP(config)

    def forward(self, x, rotary, mask, cache, cache_position):
        if self.self_attn is not None:
            x = x + self.self_attn(self.input_layernorm(x), rotary, mask, cache, cache_position)
        if self.mlp is not None:
            x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class DeciLMPreTrainedModel(PreTrainedModel):
    config_class = DeciLMConfig
    base_model_prefix = "model"
    _no_split_modules = ["DeciLMDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True


class DeciLMModel(DeciLMPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers, cached = [], 0
        for layer, block in enumerate(config.block_configs):
            layers.append(DeciLMDecoderLayer(config, layer, cached))
            cached += block.attention.is_gqa
        self.layers = nn.ModuleList(layers)
        self.norm = DeciLMRMSNorm(config.hidden_size, config.rms_norm_eps)
        # Plain numbers, not a buffer: nothing to move, to save or to fill in after loading.
        self.frequencies, self.attention_factor = rotary_frequencies(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens

    def set_input_embeddings(self, value):
        self.embed_tokens = value

    def rotary(self, position_ids, like):
        frequencies = torch.tensor(self.frequencies, dtype=torch.float32, device=like.device)
        angles = (position_ids[..., None].float() * frequencies)[:, None]  # [B, 1, T, E/2]
        return ((angles.cos() * self.attention_factor).to(like.dtype),
                (angles.sin() * self.attention_factor).to(like.dtype))

    @staticmethod
    def causal_mask(attention_mask, cache_position, dtype):
        """What a layer calls with its number of keys S: [1 or B, 1, T, S], true where it may look."""
        def mask(num_keys):
            if attention_mask is not None and attention_mask.dim() == 4:
                given = attention_mask[..., :num_keys]
                return given if given.dtype == torch.bool else given.to(dtype)
            keys = torch.arange(num_keys, device=cache_position.device)
            allowed = (keys[None, :] <= cache_position[:, None])[None, None]
            if attention_mask is not None:
                real = attention_mask[:, :num_keys].bool()
                real = F.pad(real, (0, num_keys - real.shape[1]), value=True)
                # A padding token looks at itself: a row without keys would be undefined.
                itself = keys[None, :] == cache_position[:, None]
                allowed = (allowed & real[:, None, None, :]) | itself
            return allowed

        return mask

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None,
                inputs_embeds=None, use_cache=None, output_hidden_states=None, return_dict=None,
                cache_position=None, **kwargs):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        use_cache = self.config.use_cache if use_cache is None else use_cache
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        cache = past_key_values if isinstance(past_key_values, Cache) else None
        if cache_position is None:
            seen = 0 if cache is None else cache.get_seq_length()
            cache_position = torch.arange(seen, seen + x.shape[1], device=x.device)
        if position_ids is None:
            position_ids = cache_position[None]
        rotary = self.rotary(position_ids, x)
        mask = self.causal_mask(attention_mask, cache_position, x.dtype)
        states = [x]
        for layer in self.layers:
            x = layer(x, rotary, mask, cache, cache_position)
            states.append(x)
        x = self.norm(x)
        output = BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=cache if use_cache else None,
            hidden_states=(*states[:-1], x) if output_hidden_states else None,
        )
        return output if return_dict is None or return_dict else output.to_tuple()


class DeciLMForCausalLM(DeciLMPreTrainedModel, GenerationMixin):
    # transformers 5 wants the pair, earlier versions the list.
    _tied_weights_keys = ({"lm_head.weight": "model.embed_tokens.weight"}
                          if int(transformers.__version__.split(".")[0]) >= 5 else ["lm_head.weight"])

    def __init__(self, config):
        super().__init__(config)
        self.model = DeciLMModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def get_decoder(self):
        return self.model

    def set_decoder(self, decoder):
        self.model = decoder

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None,
                inputs_embeds=None, labels=None, use_cache=None, output_hidden_states=None,
                return_dict=None, cache_position=None, logits_to_keep=0, **kwargs):
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, inputs_embeds=inputs_embeds, use_cache=use_cache,
            output_hidden_states=output_hidden_states, return_dict=True, cache_position=cache_position)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])  # 0 keeps all
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(),
                                   ignore_index=-100)
        result = CausalLMOutputWithPast(loss=loss, logits=logits,
                                        past_key_values=output.past_key_values,
                                        hidden_states=output.hidden_states)
        return result if return_dict is None or return_dict else result.to_tuple()


__all__ = ["DeciLMForCausalLM", "DeciLMModel", "DeciLMPreTrainedModel"]
