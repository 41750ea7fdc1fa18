"""encode_with_transformers.py FOLDER...: for each Hugging Face folder X encodes the list of texts in X.texts with
its tokenizer, BOS and EOS as it adds them, into X.ids. Exit status 77: no transformers here."""
import json
import sys

try:
    from transformers import AutoTokenizer
except ImportError:
    sys.exit(77)

for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with open(folder + ".texts", encoding="utf-8") as file:
        result = [tokenizer.encode(text) for text in json.load(file)]
    with open(folder + ".ids", "w", encoding="utf-8") as file:
        json.dump(result, file)
