"""A llama-server that answers without a model, well or badly: fake_llama_server.py MODE REQUEST_LOG ARGS…

Every request's body goes to REQUEST_LOG, one JSON object per line, so that tests can see what was asked.
"""
import argparse
import http.server
import json
import math
import os
import struct
import sys
import time

MODE, REQUEST_LOG = sys.argv[1], sys.argv[2]
if "--version" in sys.argv:
    print("no such option" if MODE == "no-version" else "version: 1 (fake)\nbuilt by hand")
    sys.exit(1 if MODE == "no-version" else 0)
parser = argparse.ArgumentParser()
parser.add_argument("-m")
parser.add_argument("--port", type=int)
ARGUMENTS, REST = parser.parse_known_args(sys.argv[3:])
SLOTS = int(REST[REST.index("-np") + 1]) if "-np" in REST else 1


# The modes "stacks…" take as long as the model's layers say, in milliseconds per token: 1 for the rest, and for
# each layer these. "stacks-noisy" disturbs every server's first calls, "stacks-drift" slows the machine down more and
# more, "stacks-inverse" has narrow FFNs slow, and "stacks-dying" ends at its third call. Log-probabilities are
# multiplied by the model's milliseconds, and hidden states are sin(milliseconds * (token + 1) * (channel + 1)).
# A slot without a sequence costs time, too.
EMPTY_SLOT_MS = 1.0
FIXED_MS, ATTENTION_MS, KV_HEAD_MS, LINEAR_MS, FFN_MS = 1.0, 0.2, 0.1, 0.15, 0.004
NOISY_CALLS = 6
calls = 0


def read_gguf_keys(path):
    """The metadata of a GGUF file, as a dictionary."""
    formats = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    with open(path, "rb") as file:
        def number(code):
            return struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0]

        def value(kind):
            if kind == 8:
                return file.read(number("Q"))
            if kind == 9:
                inner, count = number("I"), number("Q")
                return [value(inner) for _ in range(count)]
            return number(formats[kind])

        file.read(4 + 4 + 8)
        return {value(8).decode(): value(number("I")) for _ in range(number("Q"))}


def model_ms(keys):
    """Milliseconds per token of the model, by its layers."""
    layers, heads = keys["deci.block_count"], keys["deci.attention.head_count"]
    kv_heads, widths = keys["deci.attention.head_count_kv"], keys["deci.feed_forward_length"]
    total = FIXED_MS
    for layer in range(layers):
        if kv_heads[layer] > 0:
            total += ATTENTION_MS + KV_HEAD_MS * kv_heads[layer]
        elif heads[layer] > 0:
            total += LINEAR_MS
        width = 200 - widths[layer] if MODE == "stacks-inverse" and widths[layer] > 0 else widths[layer]
        total += FFN_MS * width
    return total


def slowdown():
    """By how much this call is disturbed."""
    global calls
    calls += 1
    if MODE == "stacks-dying" and calls == 3:
        os._exit(6)
    if MODE == "stacks-noisy":
        return 1.0 + 5.0 * (calls * 7 % 5) if calls <= NOISY_CALLS else 1.0
    return 1.0 + 0.02 * calls if MODE == "stacks-drift" else 1.0


def completion(body, prompt, together=1):
    n = body["n_predict"]
    if MODE.startswith("stacks") and "n_probs" not in body:
        per_token = MODEL_MS * slowdown() + EMPTY_SLOT_MS * (SLOTS - together)
        return {"tokens": [0] * n, "timings": {"prompt_n": len(prompt), "prompt_ms": per_token * len(prompt),
                                               "predicted_n": n, "predicted_ms": per_token * (n - 1)}}
    answer = {"tokens": [len(prompt) + i for i in range(n)],
              "timings": {"prompt_n": len(prompt), "prompt_ms": 10.0 * len(prompt),
                          "predicted_n": n, "predicted_ms": 4.0 * (n - 1)}}
    if "n_probs" in body:
        wanted = body["logit_bias"][0][0] if body["logit_bias"] else 7
        # The token 7 is always on top; there are 2000 tokens from 100 on.
        others = [[7, -0.5]] + [[100 + i, -1.0 - i] for i in range(min(body["n_probs"] - 1, 2000))]
        answer = {"completion_probabilities": [
            {"id": wanted, "logprob": -0.5 if wanted == 7 else -float(wanted),
             "top_logprobs": [{"id": i, "logprob": p} for i, p in others]}]}
        if MODE.startswith("stacks"):  # another model, other log-probabilities
            for entry in answer["completion_probabilities"]:
                entry["logprob"] *= MODEL_MS
                for other in entry["top_logprobs"]:
                    other["logprob"] *= MODEL_MS
        if wanted >= 100:  # as if it ended inside a character
            del answer["completion_probabilities"]
    if MODE == "few-tokens":
        answer["tokens"].pop()
    elif MODE == "no-timings":
        del answer["timings"]
    elif MODE == "negative-time":
        answer["timings"]["prompt_ms"] = -1
    elif MODE == "text-time":
        answer["timings"]["predicted_ms"] = "fast"
    elif MODE == "text-token":
        answer["tokens"][0] = "the"
    elif MODE == "other-token":
        answer["completion_probabilities"][0]["id"] += 1
    elif MODE == "null-logprob":
        answer["completion_probabilities"][0]["logprob"] = None
    elif MODE == "biased":
        answer["completion_probabilities"][0]["logprob"] = 0.0
    elif MODE == "underflow":
        answer["completion_probabilities"][0]["logprob"] = -3.4e38
    return answer


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, text, claimed_length=None):
        data = text.encode()
        self.send_response(status)
        if MODE == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for begin in range(0, len(data), 50):
                piece = data[begin:begin + 50]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(claimed_length or len(data)))
            self.end_headers()
            self.wfile.write(data)
        self.close_connection = True

    def do_GET(self):
        if self.path == "/health":
            self.reply(503 if MODE == "loading" else 404 if MODE == "no-health" else 200, "{}")
        else:
            model = "other.gguf" if MODE == "other-model" else ARGUMENTS.m
            self.reply(200, json.dumps({"model_path": model, "build_info": "b1-fake"}))

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open(REQUEST_LOG, "a", encoding="utf-8") as log:
            log.write(text + "\n")
        body = json.loads(text)
        if MODE == "status-500":
            self.reply(500, json.dumps({"error": {"message": "the cache is on fire", "code": 500}}))
        elif MODE == "status-500-text":
            self.reply(500, "no JSON here")
        elif MODE == "malformed":
            self.reply(200, '{"tokens": [1, 2')
        elif MODE == "empty":
            self.reply(200, "{}")
        elif MODE == "hang":
            time.sleep(1000)
        elif MODE == "cut":
            self.reply(200, "{", claimed_length=100)
        elif MODE == "crash":
            print("GGML_ASSERT(n > 0) failed", flush=True)
            os._exit(6)
        elif self.path == "/embedding":
            rows = [[float(t), t + 0.5] for t in body["content"]]
            if MODE.startswith("stacks"):
                rows = [[math.sin(MODEL_MS * (t + 1) * (i + 1)) for i in range(WIDTH)] for t in body["content"]]
            if MODE == "ragged":
                rows[-1].append(1.0)
            elif MODE == "few-rows":
                rows.pop()
            elif MODE == "null-value":
                rows[0][1] = None
            self.reply(200, json.dumps([{"index": 0, "embedding": rows}]))
        else:
            prompt = body["prompt"]
            if isinstance(prompt[0], list):
                answers = [completion(body, p, len(prompt)) for p in prompt]
                self.reply(200, json.dumps(answers[:-1] if MODE == "few-answers" else answers))
            else:
                self.reply(200, json.dumps(completion(body, prompt)))


if MODE.startswith("stacks"):
    KEYS = read_gguf_keys(ARGUMENTS.m)
    MODEL_MS, WIDTH = model_ms(KEYS), KEYS["deci.embedding_length"]
print("arguments", *REST, flush=True)
if MODE == "die":
    sys.exit("error: unknown model architecture: 'mamba9'")
if MODE == "silent":
    time.sleep(1000)
http.server.ThreadingHTTPServer(("127.0.0.1", ARGUMENTS.port), Handler).serve_forever()
