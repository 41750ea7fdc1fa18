"""Configuration of a Llama whose layers differ: `nemotron-nas`, one block config per layer.

Part of an exported model; read by transformers with trust_remote_code=True. Engines with a nemotron-nas
reader of their own (vLLM, SGLang, TensorRT-LLM) use the attributes of the block configs.
"""
import copy
import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Optional, Union

from transformers.configuration_utils import PretrainedConfig


@dataclass
class AttentionConfig:
    """A GQA attention has n_heads_in_group query heads per KV head; linear and no-op ones have None."""

    no_op: bool = False
    replace_with_linear: bool = False
    n_heads_in_group: Optional[int] = None
    # Of the format, unused here.
    sparsify: Optional[list] = None
    num_sink_tokens: Optional[int] = None
    unshifted_sink: bool = False
    use_prefill_window_in_sink_attention: bool = False
    window_length: Optional[int] = None

    def __post_init__(self):
        if self.no_op and self.replace_with_linear:
            raise ValueError("attention: no_op and replace_with_linear exclude each other")
        if self.window_length is not None or self.num_sink_tokens is not None or self.sparsify is not None:
            raise ValueError("attention: windows, sinks and sparsity are not supported")
        if self.is_gqa and not self.n_heads_in_group:
            raise ValueError("attention: n_heads_in_group is missing")

    @property
    def is_gqa(self) -> bool:
        return not self.no_op and not self.replace_with_linear


@dataclass
class FfnConfig:
    """An FFN whose width is a multiple of 256, given by ffn_mult; linear and no-op ones have None."""

    no_op: bool = False
    replace_with_linear: bool = False
    ffn_mult: Optional[float] = None
    sparsify: Optional[list] = None

    hidden_act: ClassVar[str] = "silu"

    def __post_init__(self):
        if self.no_op and self.replace_with_linear:
            raise ValueError("ffn: no_op and replace_with_linear exclude each other")
        if self.is_swiglu and self.ffn_mult is None:
            raise ValueError("ffn: neither ffn_mult nor intermediate_size")

    @property
    def is_swiglu(self) -> bool:
        return not self.no_op and not self.replace_with_linear

    def width(self, hidden_size: int) -> int:
        """The rule that all readers share: truncate, then up to the next multiple of 256."""
        width = int(2 * self.ffn_mult * hidden_size / 3)
        return width if width % 256 == 0 else width + 256 - width % 256


@dataclass
class FfnWidthConfig:
    """An FFN of any width. It has no attribute ffn_mult: readers look for that first."""

    no_op: bool = False
    replace_with_linear: bool = False
    intermediate_size: int = 0
    sparsify: Optional[list] = None

    hidden_act: ClassVar[str] = "silu"

    def __post_init__(self):
        if self.no_op or self.replace_with_linear or self.intermediate_size <= 0:
            raise ValueError("ffn: intermediate_size belongs to an FFN that is neither no_op nor linear")

    @property
    def is_swiglu(self) -> bool:
        return True

    def width(self, hidden_size: int) -> int:
        return self.intermediate_size


@dataclass
class BlockConfig:
    attention: AttentionConfig
    ffn: Union[FfnConfig, FfnWidthConfig]

    @staticmethod
    def of(block) -> "BlockConfig":
        """From config.json's form, or from one that is a BlockConfig already."""
        if dataclasses.is_dataclass(block):
            return block
        ffn = block["ffn"]
        has_width = ffn.get("intermediate_size") is not None
        kind = FfnWidthConfig if has_width else FfnConfig
        dropped = "ffn_mult" if has_width else "intermediate_size"
        return BlockConfig(
            attention=AttentionConfig(**block["attention"]),
            ffn=kind(**{key: value for key, value in ffn.items() if key != dropped}),
        )


class DeciLMConfig(PretrainedConfig):
    model_type = "nemotron-nas"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        block_configs=None,
        vocab_size=32000,
        hidden_size=4096,
        num_hidden_layers=None,
        num_attention_heads=32,
        num_key_value_heads=None,
        head_dim=None,
        intermediate_size=None,
        hidden_act="silu",
        max_position_embeddings=2048,
        initializer_range=0.02,
        rms_norm_eps=1e-6,
        use_cache=True,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        rope_theta=10000.0,
        rope_scaling=None,
        rope_parameters=None,
        attention_bias=False,
        attention_dropout=0.0,
        mlp_bias=False,
        pretraining_tp=1,
        **kwargs,
    ):
        if hidden_act != "silu":
            raise ValueError(f"hidden_act {hidden_act!r}: expected 'silu'")
        self.block_configs = [BlockConfig.of(block) for block in block_configs or []]
        if num_hidden_layers is not None and num_hidden_layers != len(self.block_configs):
            raise ValueError(f"num_hidden_layers is {num_hidden_layers}, but there are "
                             f"{len(self.block_configs)} block_configs")
        self.num_hidden_layers = len(self.block_configs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads  # None: each layer has its own
        self.head_dim = head_dim if head_dim is not None else hidden_size // num_attention_heads
        self.intermediate_size = intermediate_size  # None: each layer has its own
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.use_cache = use_cache
        self.attention_bias = attention_bias
        self.attention_dropout = attention_dropout
        self.mlp_bias = mlp_bias
        self.pretraining_tp = pretraining_tp
        # Engines and transformers versions read different ones of these three.
        scaling = dict(rope_parameters or rope_scaling or {})
        theta = scaling.pop("rope_theta", rope_theta)
        scaling.setdefault("rope_type", scaling.pop("type", "default"))
        self.rope_theta = theta
        self.rope_scaling = None if scaling["rope_type"] == "default" else dict(scaling)
        self.rope_parameters = {**scaling, "rope_theta": theta}
        super().__init__(bos_token_id=bos_token_id, eos_token_id=eos_token_id,
                         tie_word_embeddings=tie_word_embeddings, **kwargs)

    def kv_heads(self, layer: int) -> int:
        return self.num_attention_heads // self.block_configs[layer].attention.n_heads_in_group

    def ffn_width(self, layer: int) -> int:
        return self.block_configs[layer].ffn.width(self.hidden_size)

    @property
    def rope_divisors(self):
        """Exact divisors of the frequencies, where the parent's file gave those; else None."""
        exact = (getattr(self, "puzzle", None) or {}).get("rope_frequency_divisors")
        if exact is None and self.rope_parameters["rope_type"] == "frequency-divisors":
            exact = self.rope_parameters["divisors"]
        return exact

    @property
    def has_qkv_bias(self) -> bool:
        return (getattr(self, "puzzle", None) or {}).get("attention_bias", self.attention_bias)

    @property
    def has_output_bias(self) -> bool:
        return (getattr(self, "puzzle", None) or {}).get("attention_output_bias", self.attention_bias)

    @property
    def has_qk_norm(self) -> bool:
        return (getattr(self, "puzzle", None) or {}).get("qk_norm", False)

    def to_dict(self):
        # Plain data first: the base class copies what it finds and JSON takes no dataclasses.
        output = super().to_dict()
        output["block_configs"] = [dataclasses.asdict(block) for block in self.block_configs]
        for key in ("rope_scaling", "rope_parameters"):
            output[key] = copy.deepcopy(getattr(self, key))
        return output
