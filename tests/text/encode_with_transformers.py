"""encode_with_transformers.py FOLDER TEXTS.json IDS.json: encodes a list of texts with the tokenizer of a
Hugging Face folder, BOS and EOS as it adds them."""
import json
import sys

from transformers import AutoTokenizer

folder, texts, ids = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(texts, encoding="utf-8") as file:
    result = [tokenizer.encode(text) for text in json.load(file)]
with open(ids, "w", encoding="utf-8") as file:
    json.dump(result, file)
