#!/usr/bin/env python3
"""Makes the small tokenizers and golden ids of tests/text.

Writes tests/golden/tokenizer_<name>/ (tokenizer.json and configs, trained here on the text below) and
tests/golden/tokenizer_ids.json: for every tokenizer, the ids that Hugging Face's own code gives for
the awkward strings below, and its decoding of them.

Oracles: `tokenizers` and `transformers` for the small ones and for SmolLM2 (whose tokenizer is put
together here from the vocabulary and merges of the GGUF file, Digits + ByteLevel); llama.cpp through
xllamacpp as a second one for SmolLM2; for llama2.c's tok512.bin a plain rewriting of its encoder.

Usage: make_tokenizer_golden.py [--no-llama-cpp]
"""
import json
import pathlib
import struct
import sys

import gguf
import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
PARENT = ROOT / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"
SHARED = ROOT.parent / "shared" / "data"

TRAINING = """
The tailor measured the cloth twice and cut it once. She didn't hurry; it's the third coat this week.
On 14 March 2023 the river rose 1.75 metres, and the bridge (built in 1887) held. We'll see what they've
decided, I'm sure you're right, he'd have told us. "Nobody knows," said the miller, "what the mill knows."
Thirty-two sheep, five dogs and a very old horse crossed the field at 06:30 while the rain kept falling.
for (int i = 0; i < n; ++i) {
    total += weights[i] * values[i];  // running sum
}
def mean(values):
    if not values:
        return 0.0
    return sum(values) / len(values)
Der Müller geht über die Brücke; größere Säcke trägt er nicht. Les élèves étaient déjà là, près de l'église.
El niño pequeño corrió mañana. Старый мельник долго смотрел на реку и молчал. Вода поднималась.
水位上升了。磨坊主看着河，没有说话。桥还在。川の水が増えた。橋はまだある。
كان الطحان ينظر إلى النهر. الجسر قديم. The end of the story is the beginning of another story.
""" * 4

AWKWARD = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "\r\n", "a", " a", "a ", "  a", "a  b", "a   b    c",
    "Hello, world!", "Hello  world", " leading and trailing ", "tabs\tand\t\ttabs", "line\nline\n\nline\r\nline",
    "   \n   \n   x", "word\n    indented\n\ttabbed", "0", "7", "12", "123", "1234", "1234567890", "3.14159",
    "1,000,000", "a1b22c333", "2023-03-14 06:30", "١٢٣ ٤٥", "½ ¾ Ⅷ ²", "१२३४",
    "don't I'll they've we're he'd it's I'm", "DON'T I'LL THEY'VE WE'RE HE'D IT'S I'M", "'s 'S 'ſ ''tis '", "’s don’t",
    "🙂", "👩‍👩‍👧‍👦 family", "🏳️‍🌈🇩🇪", "👍🏽 ok", "e\u0301", "café cafe\u0301", "A\u030a Å Å", "ệ e\u0323\u0302 e\u0302\u0323",
    "가 각 \u1100\u1161\u11a8", "n\u0303ino", "你好，世界", "水位上升了。", "川の水が増えた", "カ\u3099ガ", "한국어 텍스트", "مرحبا بالعالم",
    "שָׁלוֹם", "Привет, мир!", "ไทย", "हिन्दी", "ﬁ ﬂ ｆｕｌｌ", "\u00a0nbsp\u00a0\u00a0x", "a\u3000b", "a\u200bb\u200cc\u200dd",
    "\u180e x\u180e", "\u0085x\u0085", "\u2028\u2029", "\ufeffbom", "\ufffd", "x\x00y", "\x7f\x01", "for (int i = 0; i < n; ++i) {\n    total += 1;\n}",
    "def f(x):\n\treturn x ** 2  # square", "if (a&&b||!c) { return a?b:c; }", "https://example.org/a?b=c&d=e#f", "user@example.org",
    "<|endoftext|>", "a<|im_start|>user\nhi<|im_end|>\n", "<|im_start|><|im_end|>", " <|im_end|> ", "<|im_end", "<s>", "</s>", "<s>hi</s>",
    "a <s> b </s> c", "<unk>", "<0x0A>", "<mark>", "x <mark> y", "x  <mark>  y", "a<word>b", "a <word> b", "<word>", "<word><word>",
    "<|begin_of_text|>hello", "<|begin", "...", "!!!???", "--==++", "_ __ ___", "a_b_c snake_case CamelCase", "$100 €20 £5 ¥7", "°C µm ±",
    "ALL CAPS TEXT", "MiXeD cAsE", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "the the the the the", "▁", "▁a", "a▁b", "▁▁ ▁", " " * 40 + "x", " " * 300, "\n" * 50, "ab" * 100,
    "The tailor measured the cloth twice and cut it once.", "Der Müller geht über die Brücke", "Les élèves étaient déjà là",
    "Старый мельник долго смотрел на реку", "كان الطحان ينظر إلى النهر", "\U0010ffff\U000e0001", "\u0378 unassigned", "a\u0301\u0301\u0301\u0301b",
]

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
          r"""|\s*[\r\n]+|\s+(?!\S)|\s+""")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
TEKKEN = (rf"""[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*|\p{{N}}"""
          r"""| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+""")


def train(tokenizer, vocab_size, special, alphabet):
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet,
                                  show_progress=False)
    tokenizer.train_from_iterator(TRAINING.split("\n\n") + TRAINING.splitlines(), trainer)


def special(content, **flags):
    return tokenizers.AddedToken(content, special=True, normalized=False, **flags)


def split_by(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(pre, special_tokens, normalizer=None, ignore_merges=False, vocab_size=700):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, vocab_size, special_tokens, pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def make_gpt2():
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), [special("<|endoftext|>")])
    tokenizer.add_tokens([tokenizers.AddedToken("<mark>", lstrip=True, rstrip=True),
                          tokenizers.AddedToken("<word>", single_word=True)])
    return tokenizer, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def make_smollm():
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer = byte_level(pre, [special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    return tokenizer, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


def make_llama3():
    tokenizer = byte_level(split_by(LLAMA3), [], ignore_merges=True)
    # A word that no merge yields: only ignore_merges finds it.
    data = json.loads(tokenizer.to_str())
    data["model"]["vocab"]["Ġwaterfall"] = len(data["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens([special("<|begin_of_text|>"), special("<|end_of_text|>"),
                                  special("<|im_end|>")])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    return tokenizer, {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}


def make_qwen2():
    tokenizer = byte_level(split_by(QWEN2), [], normalizer=normalizers.NFC())
    tokenizer.add_special_tokens([special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([tokenizers.AddedToken("<mark>", normalized=True)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def make_tekken():
    tokenizer = byte_level(split_by(TEKKEN), [special(t) for t in ("<unk>", "<s>", "</s>")], ignore_merges=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}


def sentencepiece_model(tokenizer, vocab_size):
    """Trains with the byte tokens reserved, then makes them ordinary vocabulary entries."""
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    train(tokenizer, vocab_size, ["<unk>", "<s>", "</s>"] + byte_tokens, [])
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["id"] < 3]
    for token in data["added_tokens"]:
        token["normalized"] = False
    # Common characters only, so that the rest needs the byte tokens.
    return Tokenizer.from_str(json.dumps(data))


def make_spm():
    """Llama-2's form: no pre-tokenizer, spaces become U+2581 in the normalizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=True)  # for training only
    tokenizer = sentencepiece_model(tokenizer, 900)
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(content=" ", left=1, right=0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B",
                                                            special_tokens=[("<s>", 1)])
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def make_llama_class():
    """The same, but add_eos_token in the config overrides the template."""
    tokenizer, config = make_spm()
    return tokenizer, config | {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True,
                                "add_eos_token": True, "legacy": True}


def make_metaspace():
    """A `legacy: false` file without byte fallback: unknown characters are one <unk>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer = sentencepiece_model(tokenizer, 800)
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"]["split"] = False
    # Keep the alphabet of this one Latin: the rest is unknown to it.
    keep = {t: i for t, i in data["model"]["vocab"].items() if i < 259 or all(ord(c) < 256 or c == "▁" for c in t)}
    data["model"]["vocab"] = {t: i for i, t in enumerate(sorted(keep, key=keep.get))}
    data["model"]["merges"] = [m for m in data["model"]["merges"]
                               if m[0] in keep and m[1] in keep and m[0] + m[1] in keep]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


MAKERS = {"gpt2": make_gpt2, "smollm": make_smollm, "llama3": make_llama3, "qwen2": make_qwen2,
          "tekken": make_tekken, "spm": make_spm, "llama_class": make_llama_class, "metaspace": make_metaspace}


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def golden(encode, decode):
    ids = [encode(text, False) for text in AWKWARD]
    around = encode("", True)  # no family here adds more than one token on a side
    prefix, suffix = around[:1], around[1:]
    assert all(encode(text, True) == prefix + i + suffix for text, i in zip(AWKWARD, ids))
    return {"prefix": prefix, "suffix": suffix, "ids": ids, "decoded": [decode(i) for i in ids]}


def corpus_golden(encode):
    result = {}
    for name in ("wikitext-2/valid.txt", "tinyshakespeare/input.txt", "gsm8k/train.jsonl"):
        ids = encode((SHARED / name).read_bytes().decode("utf-8"))
        result[name] = {"count": len(ids), "fnv1a": fnv1a(ids), "head": ids[:16]}
    return result


def record_small(name, maker):
    folder = GOLDEN / f"tokenizer_{name}"
    folder.mkdir(exist_ok=True)
    tokenizer, config = maker()
    data = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
              "chat_template": "{{ messages }}"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    auto = AutoTokenizer.from_pretrained(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    result = golden(lambda t, s: auto.encode(t, add_special_tokens=s), lambda i: auto.decode(i))
    assert result["ids"] == [plain.encode(t, add_special_tokens=False).ids for t in AWKWARD], name
    result["pieces"] = len(auto)
    result["bos"], result["eos"] = auto.bos_token_id, auto.eos_token_id
    return result


def parent_fields():
    fields = gguf.GGUFReader(PARENT).fields
    return {key: fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges")}


def make_parent():
    fields = parent_fields()
    merges = [tuple(m.split(" ")) for m in fields["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(fields["tokens"])}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([special(t) for t, k in zip(fields["tokens"], fields["token_type"]) if k == 3])
    return tokenizer


def record_parent():
    tokenizer = make_parent()
    encode = lambda t, s: tokenizer.encode(t, add_special_tokens=s).ids
    result = golden(encode, lambda i: tokenizer.decode(i, skip_special_tokens=False))
    result["corpora"] = corpus_golden(lambda t: encode(t, False))
    return result


def check_with_llama_cpp(ids):
    """llama.cpp agrees on every string; where it does not, say so and stop."""
    import urllib.request
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path = str(PARENT)
    params.n_ctx, params.warmup = 64, False
    server = xllamacpp.Server(params)
    for text, expected in zip(AWKWARD, ids):
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body,
                                         {"Content-Type": "application/json"})
        found = json.load(urllib.request.urlopen(request))["tokens"]
        assert found == expected, (text, found, expected)
    print("llama.cpp agrees on", len(ids), "strings")


class Llama2c:
    """llama2.c's run.c encode(), rewritten from its description: best score first, O(n^2)."""

    def __init__(self, path):
        data = path.read_bytes()
        self.vocab, self.scores, at = [], [], 4
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            self.vocab.append(data[at + 8:at + 8 + length])
            self.scores.append(score)
            at += 8 + length
        self.index = {}
        for i, piece in enumerate(self.vocab):
            self.index.setdefault(piece, i)

    def encode(self, text, bos):
        ids = [1] if bos else []
        if text:
            ids.append(self.index[b" "])
        for character in text:
            raw = character.encode()
            ids += [self.index[raw]] if raw in self.index else [b + 3 for b in raw]
        while True:
            best = None
            for i in range(len(ids) - 1):
                merged = self.index.get(self.vocab[ids[i]] + self.vocab[ids[i + 1]])
                if merged is not None and (best is None or self.scores[merged] > best[0]):
                    best = (self.scores[merged], i, merged)
            if best is None:
                return ids
            ids[best[1]:best[1] + 2] = [best[2]]


def record_llama2c():
    tokenizer = Llama2c(SHARED / "tinyllamas" / "tok512.bin")
    story = (SHARED / "tinyshakespeare" / "input.txt").read_text()[:3000]
    # Control tokens and a literal U+2581 in the text are where llama2.c and SentencePiece part.
    texts = [t for t in AWKWARD if "<s>" not in t and "</s>" not in t and "<unk>" not in t and "▁" not in t]
    texts += ["Once upon a time, there was a little girl named Lily.", story]
    return {"texts": texts, "ids": [tokenizer.encode(t, True) for t in texts]}


def main():
    result = {"made_with": {"tokenizers": tokenizers.__version__}, "texts": AWKWARD}
    for name, maker in MAKERS.items():
        result[name] = record_small(name, maker)
    result["smollm2"] = record_parent()
    if "--no-llama-cpp" not in sys.argv:
        check_with_llama_cpp(result["smollm2"]["ids"])
    result["llama2c"] = record_llama2c()
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in result.items()]
    (GOLDEN / "tokenizer_ids.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
