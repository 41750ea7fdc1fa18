"""Logits of a Hugging Face folder on given tokens, as transformers computes them in float32.

The engine layer embeds this file and runs it with `python -c`. Its arguments, joined, are a JSON object: "folder",
"sequences" (lists of token ids) and "output", a file to write: float32, one row of the vocabulary's size per token.
The last line it prints is a JSON object: "engine" and "vocabulary"; "error", what is wrong with the folder; or
"missing", what this Python lacks.
"""
import json
import os
import sys
import tempfile


def answer(**member):
    print(json.dumps(member), flush=True)
    sys.exit()


# Code of the folder is copied there before it is run.
modules = tempfile.TemporaryDirectory(prefix="puzzle-hf-modules-", ignore_cleanup_errors=True)
os.environ["HF_MODULES_CACHE"] = modules.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM
except ImportError as missing:
    answer(missing=str(missing))


def load(folder):
    model, report = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, torch_dtype=torch.float32,
                                                         output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report.get(kind):
            raise ValueError(f"{kind}: {report[kind]}")
    return model.eval()


@torch.no_grad()
def write_logits(model, sequences, output):
    vocabulary = 0
    with open(output, "wb") as file:
        for tokens in sequences:
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0].float().contiguous()
            vocabulary = logits.shape[1]
            file.write(memoryview(logits.numpy()).cast("B"))
    return vocabulary


request = json.loads("".join(sys.argv[1:]))
try:
    size = write_logits(load(request["folder"]), request["sequences"], request["output"])
except Exception as error:  # a folder's own code may fail in any way
    answer(error=f"{type(error).__name__}: {error}")
answer(engine=f"transformers {transformers.__version__}", vocabulary=size)
