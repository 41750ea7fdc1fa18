"""A llama-server that answers without a model, well or badly: fake_llama_server.py MODE REQUEST_LOG ARGS…

Every request's body goes to REQUEST_LOG, one JSON object per line, so that tests can see what was asked.
"""
import argparse
import http.server
import json
import os
import sys
import time

MODE, REQUEST_LOG = sys.argv[1], sys.argv[2]
parser = argparse.ArgumentParser()
parser.add_argument("-m")
parser.add_argument("--port", type=int)
ARGUMENTS, REST = parser.parse_known_args(sys.argv[3:])


def completion(body, prompt):
    n = body["n_predict"]
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
                answers = [completion(body, p) for p in prompt]
                self.reply(200, json.dumps(answers[:-1] if MODE == "few-answers" else answers))
            else:
                self.reply(200, json.dumps(completion(body, prompt)))


print("arguments", *REST, flush=True)
if MODE == "die":
    sys.exit("error: unknown model architecture: 'mamba9'")
if MODE == "silent":
    time.sleep(1000)
http.server.ThreadingHTTPServer(("127.0.0.1", ARGUMENTS.port), Handler).serve_forever()
