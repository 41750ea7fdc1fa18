#!/usr/bin/env python3
"""Records what the pip packages `gguf` and `safetensors` make of small arrays.

Usage: make_gguf_quant.py [PARENT.gguf], in an environment with torch, gguf, safetensors and numpy.
Writes beside itself:
  gguf_quant.json  blocks of every type with their decoded values, values with their blocks, sizes
  gguf_small.gguf  a file of the package's writer: all value types, four tensors
  safetensors_small.safetensors  a file of the reference writer: all types we can write
  gguf_parent_sums.json  sums over decoded tensors of the real parent, if a path is given
Byte strings are hexadecimal; values are float32, little-endian.
"""
import json
import pathlib
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
DECODED = [T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q4_K, T.Q5_K, T.Q6_K, T.Q2_K, T.Q3_K]
ENCODED = [T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0]
# Where the F16 scales of a block stand.
SCALES = {T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q4_K: [0, 2],
          T.Q5_K: [0, 2], T.Q6_K: [208], T.Q2_K: [80, 82], T.Q3_K: [108]}


def random_blocks(kind: T, rng: np.random.Generator) -> np.ndarray:
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    if elements == 1:
        blocks = rng.integers(0, 256, (64, size), dtype=np.uint8)
        blocks[:, 1] &= 0xBF  # no infinities or NaN: their bits are not the package's business
        return blocks.reshape(1, -1)
    blocks = rng.integers(0, 256, (2 if elements == 256 else 3, size), dtype=np.uint8)
    for offset in SCALES[kind]:
        scale = (rng.normal(size=len(blocks)) * 0.02).astype(np.float16)
        blocks[:, offset:offset + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(1, -1)


def source_values(rng: np.random.Generator) -> np.ndarray:
    blocks = rng.normal(size=(6, 32)).astype(np.float32)
    blocks[1] *= 0.02
    blocks[2] = np.abs(blocks[2]) + 3
    blocks[3] = 0
    blocks[4] = 0.5  # one value only
    blocks[5] = np.linspace(-7, 8, 32)  # ties
    return blocks.reshape(1, -1)


def record_quant() -> None:
    rng = np.random.default_rng(1)
    values = source_values(rng)
    record = {"decode": {}, "encode": {"values": values.tobytes().hex()}}
    for kind in DECODED:
        blocks = random_blocks(kind, rng)
        decoded = gguf.dequantize(blocks, kind).astype(np.float32)
        assert np.isfinite(decoded).all()
        record["decode"][kind.name] = {"bytes": blocks.tobytes().hex(),
                                       "values": decoded.tobytes().hex()}
    for kind in ENCODED:
        record["encode"][kind.name] = gguf.quantize(values, kind).tobytes().hex()
    # The package's size of Q8_1 is that of an older layout; such blocks never stand in files.
    record["sizes"] = {kind.name: [int(kind), *gguf.GGML_QUANT_SIZES[kind]]
                       for kind in gguf.GGML_QUANT_SIZES if kind != T.Q8_1}
    text = json.dumps(record, indent=1) + "\n"
    (HERE / "gguf_quant.json").write_text(text, encoding="utf-8")


def record_gguf() -> None:
    writer = gguf.GGUFWriter(HERE / "gguf_small.gguf", "deci")
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -100)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4000000000)
    writer.add_int32("t.i32", -2000000000)
    writer.add_float32("t.f32", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "gr\u00fc\u00df dich")
    writer.add_uint64("t.u64", 2**40 + 1)
    writer.add_int64("t.i64", -2**40)
    writer.add_float64("t.f64", 0.1)
    writer.add_array("t.ints", [3, -1, 2])
    writer.add_array("t.floats", [0.5, -2.0])
    writer.add_array("t.strings", ["a", "", "\u4e2d"])
    writer.add_array("t.bools", [True, False])
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(3, 32)).astype(np.float32)
    writer.add_tensor("f32", matrix[:, :5].copy())
    writer.add_tensor("f16", matrix[:, :7].astype(np.float16))
    writer.add_tensor("q8", gguf.quantize(matrix, T.Q8_0), raw_dtype=T.Q8_0)
    writer.add_tensor("q4", gguf.quantize(matrix, T.Q4_1), raw_dtype=T.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def record_safetensors() -> None:
    kinds = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16,
             "f64": torch.float64, "i8": torch.int8, "u8": torch.uint8, "i16": torch.int16,
             "u16": torch.uint16, "i32": torch.int32, "u32": torch.uint32, "i64": torch.int64,
             "u64": torch.uint64, "bool": torch.bool, "c64": torch.complex64,
             "f8a": torch.float8_e5m2, "f8b": torch.float8_e4m3fn}
    tensors = {"t." + name: torch.arange(6).reshape(2, 3).to(kind) for name, kind in kinds.items()}
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(0, 4)
    tensors["name \"\\ \u4e2d\n"] = torch.tensor([2.5, -3.0])
    save_file(tensors, HERE / "safetensors_small.safetensors", metadata={"format": "pt"})


def record_parent(path: str) -> None:
    names = ["token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight",
             "blk.7.ffn_down.weight", "blk.29.attn_k.weight"]
    record = {}
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name in names:
            values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            record[tensor.name] = {
                "type": tensor.tensor_type.name, "shape": [int(n) for n in tensor.shape[::-1]],
                "sum": float(values.sum()), "sum_abs": float(np.abs(values).sum()),
                "last": float(values.ravel()[-1])}
    text = json.dumps(record, indent=1) + "\n"
    (HERE / "gguf_parent_sums.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    record_quant()
    record_gguf()
    record_safetensors()
    if len(sys.argv) > 1:
        record_parent(sys.argv[1])
