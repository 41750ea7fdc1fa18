#!/usr/bin/env python3
"""The program's scores beside those of lm-evaluation-harness, transformers and llama.cpp.

    bench/agreement_with_lm_eval.py [--pairs 250] [--run FOLDER]

Makes a child of SmolLM2 by a small run (seconds of fitting: it need not be good), evaluates it and its
parent with `puzzle evaluate`, and asks the others about the same models, the same questions and the same
windows of text:

  questions    lm-evaluation-harness on the child's hf export and on the parent's GGUF in transformers: BLiMP, and
               multiple choice made of the text; the tasks are bench/lm_eval_tasks/*.yaml with the run's files
  perplexity   transformers, and llama.cpp on the gguf exports in F32 (`puzzle throughput`)

Prints both sides and every question whose best two answers are equal within rounding. Ends with 1 if numbers
of right answers differ by more than there are such questions, or anything else by more than the tolerances
below; with 77 where lm_eval or the data is missing.

Needs tools/setup.sh --with-tests --with-parent --with-lm-eval, make build, and BLiMP's .jsonl files and a text:
--blimp, --text, by default in ../shared/data. SmolLM2 on 2 idle cores takes about 20 minutes.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))
from make_questions import made_choices, write_lines  # noqa: E402

MISSING = 77
WINDOW = 256
# Of one log-likelihood, in nats: fp32 sums in another order. Two choices closer than this may change places.
ROUNDING = 1e-3
LIKELIHOOD = 1e-5  # relative
PERPLEXITY = 1e-3  # relative
LLAMA_CPP = 5e-4  # nats per token, for F32 files
TASKS = ("blimp", "multiple_choice")  # bench/lm_eval_tasks/TASK.yaml
TASK_FILE = "FILE.jsonl"  # as these call it

RECIPE = """
model: {parent}
license: apache-2.0
run: {run}/run
data:
  sources: [{run}/text.txt]
  window: {window}
  # One group of windows is one run of text, and the test part takes its beginning.
  group_windows: 1048576
  train_tokens: 256
  calibration_tokens: 2048
  scoring_tokens: 512
  validation_tokens: 512
  test_tokens: {tokens}
scenario:
  prompt_tokens: 16
  generated_tokens: 16
search_space:
  attention: [parent, none]
  ffn: [parent, "0.75", none]
init_library:
  init: paper
train_blocks: false
repair_child: false
train_child: false
compare: []
score:
  method: gradient
  samples: 1
measure:
  engine: roofline
  types: f32
search:
  types: f32
  budgets: ["parameters <= 0.95x"]
evaluate:
  minimal_pairs: [{run}/blimp.jsonl]
  multiple_choice: [{run}/multiple_choice.jsonl]
export_child:
  formats: [gguf, hf]
  types: f32
throughput:
  quality_tokens: 0
  log_prob_tokens: {llama_tokens}
"""


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(MISSING)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--puzzle", type=pathlib.Path, default=ROOT / "build/puzzle")
    parser.add_argument("--parent", type=pathlib.Path, default=ROOT / ".cache/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--blimp", type=pathlib.Path, default=ROOT / "../shared/data/blimp")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "../shared/data/wikitext-2/valid.txt")
    parser.add_argument("--run", type=pathlib.Path, default=ROOT / "runs/agreement", help="folder for everything")
    parser.add_argument("--pairs", type=int, default=250, help="of each BLiMP file; also the multiple-choice questions")
    parser.add_argument("--tokens", type=int, default=8192, help="of the text, for transformers")
    parser.add_argument("--llama-tokens", type=int, default=1024, help="of the text, for llama.cpp")
    return parser.parse_args()


def write_inputs(options):
    options.run.mkdir(parents=True, exist_ok=True)
    text = options.text.read_text(encoding="utf-8")
    (options.run / "text.txt").write_text(text, encoding="utf-8")
    # Two members and no others: the harness wants the same ones in every line.
    write_lines(options.run / "blimp.jsonl",
                ({key: json.loads(line)[key] for key in ("sentence_good", "sentence_bad")}
                 for source in sorted(options.blimp.glob("*.jsonl"))
                 for line in source.read_text(encoding="utf-8").splitlines()[:options.pairs]))
    write_lines(options.run / "multiple_choice.jsonl", made_choices(text, options.pairs))
    (options.run / "lm_eval").mkdir(exist_ok=True)
    for task in TASKS:
        config = (ROOT / f"bench/lm_eval_tasks/{task}.yaml").read_text(encoding="utf-8")
        assert config.count(TASK_FILE) == 1, config
        (options.run / f"lm_eval/{task}.yaml").write_text(
            config.replace(TASK_FILE, str(options.run / f"{task}.jsonl")), encoding="utf-8")
    (options.run / "agreement.yaml").write_text(
        RECIPE.format(parent=options.parent.resolve(), run=options.run, window=WINDOW, tokens=options.tokens,
                      llama_tokens=options.llama_tokens), encoding="utf-8")


def puzzle_evaluations(options):
    done = subprocess.run([options.puzzle, "throughput", options.run / "agreement.yaml", "--json"],
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["evaluations"]


def harness_samples(model_arguments, task_folder):
    """By task, in the files' order: log-likelihoods of the choices, their bytes, index of the right one."""
    names = {f"puzzle_{task}": task for task in TASKS}
    found = lm_eval.simple_evaluate(
        model="hf", model_args={"dtype": "float32", **model_arguments}, tasks=list(names), batch_size=64,
        device="cpu", log_samples=True, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(task_folder), include_defaults=False))["samples"]
    result = {}
    for name, task in names.items():
        result[task] = []
        for sample in sorted(found[name], key=lambda sample: sample["doc_id"]):
            doc = sample["doc"]
            choices = doc.get("choices") or [doc["sentence_good"], doc["sentence_bad"]]
            result[task].append(([likelihood for likelihood, _ in sample["filtered_resps"]],
                                 [len(choice.encode()) for choice in choices], doc.get("answer", 0)))
    return result


def compare_metric(name, ours, samples, per_byte):
    """Whether as many are right; questions whose best two are equal within rounding may differ."""
    right = 0
    ties = []
    for i, (likelihoods, sizes, answer) in enumerate(samples):
        values = [value / size if per_byte else value for value, size in zip(likelihoods, sizes)]
        right += values.index(max(values)) == answer
        second, best = sorted(values)[-2:]
        if best - second <= (ROUNDING / min(sizes) if per_byte else ROUNDING):
            ties.append((i, likelihoods))
    ours_right = round(ours["value"] * ours["count"])
    print(f"{name}: {len(samples)} questions: puzzle {ours_right} right, lm-evaluation-harness {right}; "
          f"{len(ties)} undecided within {ROUNDING} nats")
    for i, likelihoods in ties:
        print(f"  question {i}: {likelihoods}")
    return ours["count"] == len(samples) and abs(ours_right - right) <= len(ties)


def compare_answers(name, ours, samples):
    agree = compare_metric(f"{name}, accuracy", ours["accuracy"], samples, per_byte=False)
    if "accuracy_norm" in ours:
        agree = compare_metric(f"{name}, accuracy_norm", ours["accuracy_norm"], samples, per_byte=True) and agree
    nats = -sum(likelihoods[answer] for likelihoods, _, answer in samples) / len(samples)
    ours_nats = ours["answer_nats"]["value"]
    print(f"{name}, mean -log p of the right answer: {ours_nats:.6f} and {nats:.6f} ({ours_nats / nats - 1:+.1e})")
    return agree and abs(ours_nats / nats - 1) <= LIKELIHOOD


def window_losses(model, tokenizer, options):
    """Mean -log p of the next token over each window of the text's beginning."""
    text = options.text.read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:options.tokens]
    windows = torch.tensor(ids).reshape(-1, WINDOW)
    with torch.no_grad():
        return [model(input_ids=window[None], labels=window[None]).loss.item() for window in windows]


def compare_perplexity(name, evaluations, model, tokenizer, options):
    losses = window_losses(model, tokenizer, options)
    theirs = math.exp(sum(losses) / len(losses))
    ours = evaluations["held-out text"]["perplexity"]["value"]
    engine = evaluations["quantised file, llama.cpp's log-probabilities"]["loss"]
    windows = engine["count"] // (WINDOW - 1)
    same = sum(losses[:windows]) / windows
    print(f"{name}: perplexity of {len(losses) * WINDOW} tokens: puzzle {ours:.6f}, transformers {theirs:.6f} "
          f"({ours / theirs - 1:+.1e}); -log p of the first {windows * WINDOW}: llama.cpp {engine['value']:.6f}, "
          f"transformers {same:.6f} ({engine['value'] - same:+.1e})")
    return abs(ours / theirs - 1) <= PERPLEXITY and abs(engine["value"] - same) <= LLAMA_CPP


def main():
    options = parse_arguments()
    options.run = options.run.resolve()
    for path in (options.parent, options.blimp, options.text):
        if not path.exists():
            skip(f"{path} is not there")
    write_inputs(options)
    evaluations = puzzle_evaluations(options)
    child = str(options.run / "run/exports/child-hf")
    tokenizer = AutoTokenizer.from_pretrained(child)
    # The parent's own tokenizer is inside its GGUF; the export has it as files.
    models = {"parent": {"pretrained": str(options.parent.resolve().parent), "gguf_file": options.parent.name},
              "child": {"pretrained": child, "trust_remote_code": True}}
    agree = True
    for name, arguments in models.items():
        samples = harness_samples({**arguments, "tokenizer": child}, options.run / "lm_eval")
        for task in TASKS:
            agree = compare_answers(f"{name}, {task}", evaluations[name][task], samples[task]) and agree
        path = arguments.pop("pretrained")
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **arguments).eval()
        agree = compare_perplexity(name, evaluations[name], model, tokenizer, options) and agree
    print("they agree" if agree else "they differ")
    return 0 if agree else 1


if __name__ == "__main__":
    # The export's code and the questions are copied there; removed when the process ends.
    cache = tempfile.TemporaryDirectory(prefix="puzzle-agreement-", ignore_cleanup_errors=True)
    os.environ.update(HF_HOME=cache.name, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    try:
        import torch
        import lm_eval
        from lm_eval.tasks import TaskManager
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        skip(f"{error}; tools/setup.sh --with-lm-eval installs it")
    sys.exit(main())
