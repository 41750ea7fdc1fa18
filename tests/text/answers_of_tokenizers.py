"""answers_of_tokenizers.py COUNT MODEL ANSWERS: what Hugging Face's tokenizers library makes of COUNT mixed texts.

MODEL is a tokenizer.json or a byte-level GGUF file. ANSWERS becomes a JSON object: "texts", "ids" (without BOS and
EOS), "decoded" (of these ids), "random_ids" and "random_decoded". Exit status 77: a package is missing here.
"""
import json
import random
import sys

from mixed_texts import mixed_texts

try:
    import gguf
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
except ImportError:
    sys.exit(77)


def load(path):
    if not path.endswith(".gguf"):
        return Tokenizer.from_file(path)
    fields = gguf.GGUFReader(path).fields
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges"))
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)},
                                     merges=[tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False)
                                  for t, kind in zip(tokens, kinds) if kind == control])
    return tokenizer


def main():
    count, model, answers = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    tokenizer = load(model)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts = mixed_texts(count, added[:20])
    ids = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    rng = random.Random(2)
    size = tokenizer.get_vocab_size()
    random_ids = [[rng.randrange(size) for _ in range(rng.randint(1, 30))] for _ in range(count)]
    decode = lambda lists: tokenizer.decode_batch(lists, skip_special_tokens=False)
    with open(answers, "w", encoding="utf-8") as file:
        json.dump({"texts": texts, "ids": ids, "decoded": decode(ids), "random_ids": random_ids,
                   "random_decoded": decode(random_ids)}, file)


if __name__ == "__main__":
    main()
