"""llama-server without a llama-server: the same HTTP API from the Python package xllamacpp.

Takes the arguments of `llama-server` that the engine layer uses. The engine embeds this file and runs
it with `python -c`; it can also be run by hand:

  tools/xllamacpp_server.py -m model.gguf --port 8080
"""
import argparse
import sys
import time


CACHE_TYPES = {"f16": "GGML_TYPE_F16", "f32": "GGML_TYPE_F32", "bf16": "GGML_TYPE_BF16",
               "q8_0": "GGML_TYPE_Q8_0"}
FLASH_ATTENTION = {"auto": "LLAMA_FLASH_ATTN_TYPE_AUTO", "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED",
                   "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED"}


def parse_arguments():
    parser = argparse.ArgumentParser(description="llama-server's API from xllamacpp")
    version = f"xllamacpp {getattr(xllamacpp, '__version__', 'of unknown version')}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--host", choices=["127.0.0.1"], default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-c", "--ctx-size", type=int, default=2048, help="of all slots together")
    parser.add_argument("-np", "--parallel", type=int, default=1, help="slots")
    parser.add_argument("-t", "--threads", type=int, default=0)
    parser.add_argument("-tb", "--threads-batch", type=int, default=0)
    parser.add_argument("-b", "--batch-size", type=int, default=0)
    parser.add_argument("-ub", "--ubatch-size", type=int, default=0)
    parser.add_argument("-ngl", "--n-gpu-layers", type=int)
    parser.add_argument("-ctk", "--cache-type-k", choices=list(CACHE_TYPES))
    parser.add_argument("-ctv", "--cache-type-v", choices=list(CACHE_TYPES))
    parser.add_argument("-fa", "--flash-attn", choices=list(FLASH_ATTENTION))
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--pooling", choices=["none"])
    return parser.parse_args()


def make_params(arguments):
    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.port = arguments.port
    params.n_ctx = arguments.ctx_size
    params.n_parallel = arguments.parallel
    params.cache_ram_mib = 0  # no copies of idle slots: they cost time and memory
    params.fit_params = False  # the context is what was asked for
    if arguments.threads > 0:
        params.cpuparams.n_threads = arguments.threads
    if arguments.threads_batch > 0:
        params.cpuparams_batch.n_threads = arguments.threads_batch
    if arguments.batch_size > 0:
        params.n_batch = arguments.batch_size
    if arguments.ubatch_size > 0:
        params.n_ubatch = arguments.ubatch_size
    if arguments.n_gpu_layers is not None:
        params.n_gpu_layers = arguments.n_gpu_layers
    if arguments.cache_type_k:
        params.cache_type_k = getattr(xllamacpp.ggml_type, CACHE_TYPES[arguments.cache_type_k])
    if arguments.cache_type_v:
        params.cache_type_v = getattr(xllamacpp.ggml_type, CACHE_TYPES[arguments.cache_type_v])
    if arguments.flash_attn:
        params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type,
                                         FLASH_ATTENTION[arguments.flash_attn])
    if arguments.embeddings:
        params.embedding = True
    if arguments.pooling == "none":
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
    return params


def main():
    arguments = parse_arguments()
    server = xllamacpp.Server(make_params(arguments))
    print(f"listening on {server.listening_address}", flush=True)
    while True:
        time.sleep(3600)


try:
    import xllamacpp
except ImportError as error:
    sys.exit(f"no xllamacpp: {error}")
main()
