#!/usr/bin/env python3
"""Records what llama.cpp's own quantiser makes of small arrays and of real matrices.

Usage: make_gguf_kquant.py [PARENT.gguf], in an environment with xllamacpp, gguf and numpy.
The quantiser is ggml_quantize_chunk in the library inside xllamacpp; the gguf package decodes.
Writes gguf_kquant.json beside itself: rows with their blocks and what those decode to, and for
matrices of the parent, if a path is given, the sum of squared errors. Byte strings are hexadecimal;
values are float32, little-endian.
"""
import ctypes
import glob
import json
import os
import pathlib
import sys

import gguf
import numpy as np
import xllamacpp
from gguf import GGMLQuantizationType as T

HERE = pathlib.Path(__file__).parent
KINDS = [T.Q4_K, T.Q6_K]
LIBRARY = ctypes.CDLL(glob.glob(os.path.dirname(xllamacpp.__file__) + "/*.so")[0])
LIBRARY.ggml_quantize_chunk.restype = ctypes.c_size_t
LIBRARY.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                        ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]


def quantize(values: np.ndarray, kind: T) -> np.ndarray:
    values = np.ascontiguousarray(values, dtype=np.float32)
    rows, width = values.shape
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.zeros((rows, width // elements * size), np.uint8)
    written = LIBRARY.ggml_quantize_chunk(int(kind), values.ctypes.data, blocks.ctypes.data, 0, rows, width,
                                          None)
    assert written == blocks.nbytes
    return blocks


def source_rows() -> np.ndarray:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(12, 256)).astype(np.float32)
    rows[1] *= 0.02
    rows[2] = np.abs(rows[2]) + 3  # the minimum cannot be above 0
    rows[3] = -np.abs(rows[3]) - 0.5
    rows[4] = rng.uniform(-1, 1, 256)
    rows[5] = rows[5] ** 3  # few large values
    rows[6] *= np.repeat(2.0 ** np.arange(-6, 2), 32)  # groups of very different size
    rows[7] = 0
    rows[8] = 0.5
    rows[9, :128] = 0
    rows[10] = np.linspace(-7, 8, 256)
    rows[11, 1:] = 0
    return rows


def squared_error(values: np.ndarray, kind: T) -> float:
    decoded = gguf.dequantize(quantize(values, kind), kind).astype(np.float64)
    return float(((decoded - values) ** 2).sum())


def main() -> None:
    rows = source_rows()
    record = {"values": rows.tobytes().hex(), "blocks": {}, "parent": {}}
    for kind in KINDS:
        blocks = quantize(rows, kind)
        decoded = gguf.dequantize(blocks, kind).astype(np.float32)
        record["blocks"][kind.name] = {"bytes": blocks.tobytes().hex(), "values": decoded.tobytes().hex()}
    for tensor in gguf.GGUFReader(sys.argv[1]).tensors if len(sys.argv) > 1 else []:
        if tensor.name in ("blk.3.ffn_down.weight", "blk.29.ffn_down.weight"):  # rows of 1536
            values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            record["parent"][tensor.name] = {kind.name: squared_error(values, kind) for kind in KINDS}
    (HERE / "gguf_kquant.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
