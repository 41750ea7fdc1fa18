"""What the scripts that load exported folders in transformers share. Importing it exits with 77 where
transformers is not installed."""
import os
import sys
import tempfile

TOLERANCE = 1e-4
# Remote code is copied there before it is run; removed when the process ends.
MODULES = tempfile.TemporaryDirectory(prefix="puzzle-hf-modules-", ignore_cleanup_errors=True)
os.environ["HF_MODULES_CACHE"] = MODULES.name
os.environ["HF_HUB_OFFLINE"] = "1"

try:
    from transformers import AutoModelForCausalLM
except ImportError as error:
    print(error)
    sys.exit(77)


def load(folder, **options):
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], f"{kind}: {report[kind]}"
    return model.eval()
