#!/usr/bin/env python3
"""Estimated against exact scores on the real parent: one run, all its variants, the same tokens.

    bench/score_methods.py [--tokens 2048] [--share 0.125] [--run FOLDER]

Scores a library of least-squares variants by gradient, by hybrid (without the rounds in which the
search asks for more) and by replace-one, and prints for the first two the rank correlation with the
third, over all candidates, and their time as a share of one full forward pass of each candidate.
That time follows from replace-one's own: it shares the layers before a candidate, so a full pass is
longer by the ratio of layers passed. Then the two estimators that gradient combines, each on its own,
and whole blocks: exact scores of two in every layer beside what their halves' exact scores predict, as a
plain sum and with the correlation that the estimates imply (score_table.h).

Needs tools/setup.sh --with-parent --with-corpus and make build; SmolLM2 on 2 cores takes 30 minutes.
"""

import argparse
import math
import pathlib
import sqlite3
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
NUM_LAYERS = 30
OWN_ATTENTION, OWN_FFN = "kv3", "w1536"
PAIRS = ["kv1/w768", "linear/w384"]
# SmolLM2's head costs as much as this many of its layers: parameters of vocabulary × hidden over those of
# attention (9 heads, 3 of them with keys and values, of 64) and FFN.
HEAD_LAYERS = 49152 * 576 / (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
RECIPE = """
model: {root}/.cache/SmolLM2-135M-Instruct.Q4_1.gguf
license: apache-2.0
data:
  sources: [{root}/.cache/corpus/bible, {root}/.cache/corpus/python-docs, {root}/.cache/corpus/austen, \
{root}/.cache/corpus/wordnet]
  window: 256
  train_tokens: 65536
  calibration_tokens: 32768
  scoring_tokens: {tokens}
  validation_tokens: 4096
  test_tokens: 4096
search_space:
  attention: [parent, kv1, linear, none]
  ffn: [parent, "0.9", "0.75", "0.6", "0.5", "0.4", "0.25", "0.1", linear, none]
train_blocks: false
score:
  # Estimates and exact scores of what is doubtful; a search would spend the rest on what it chooses.
  exact_share: {share}
"""


def score(folder, method, *settings):
    """Seconds of the scoring itself, from the run's stage records."""
    before = scoring_seconds(folder)
    options = [word for setting in (f"score.method={method}", *settings) for word in ("--set", setting)]
    subprocess.run([ROOT / "build/puzzle", "score", folder / "recipe.yaml", "--run", folder, *options],
                   check=True, stdout=subprocess.DEVNULL)
    return scoring_seconds(folder) - before


def query(folder, text, *values):
    if not (folder / "run.db").exists():
        return []
    with sqlite3.connect(folder / "run.db") as db:
        return db.execute(text, values).fetchall()


def scoring_seconds(folder):
    return sum(row[0] for row in query(folder, "select seconds from stages where stage = 'score'"))


def kl_scores(folder, method, metric="kl"):
    rows = query(folder, "select layer, block, value from scores where metric = ? and method = ?", metric, method)
    return {(layer, block): value for layer, block, value in rows}


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    result = [0.0] * len(values)
    for rank, index in enumerate(order):
        result[index] = float(rank)
    return result


def spearman(a, b):
    x, y = ranks(a), ranks(b)
    mean = (len(x) - 1) / 2
    return sum((p - mean) * (q - mean) for p, q in zip(x, y)) / sum((p - mean) ** 2 for p in x)


def corrected(estimates, exact):
    """Estimates by the median factor of their kind (score_table.h), exact scores where there are any."""
    ratios = {"attention": [], "ffn": []}
    for (layer, block), value in exact.items():
        if 0 < layer < NUM_LAYERS - 1:
            ratios[kind_of(block)].append(value / estimates[layer, block])
    factors = {kind: statistics.median(values) for kind, values in ratios.items()}
    print(f"factors of {len(ratios['attention'])} attention and {len(ratios['ffn'])} FFN variants: {factors}")
    return {name: exact.get(name, value * factors[kind_of(name[1])]) for name, value in estimates.items()}


def kind_of(block):
    return "attention" if block.endswith("/" + OWN_FFN) else "ffn"


def report_pairs(folder, exact):
    score(folder, "replace-one", f"score.pairs={PAIRS}".replace("'", ""))
    estimates = kl_scores(folder, "gradient")
    measured, sums, correlated = [], [], []
    for (layer, block), value in sorted(kl_scores(folder, "replace-one").items()):
        if block not in PAIRS:
            continue
        attention, ffn = block.split("/")
        halves = [(layer, f"{attention}/{OWN_FFN}"), (layer, f"{OWN_ATTENTION}/{ffn}")]
        a, f = (exact[half] for half in halves)
        estimated_a, estimated_f = (estimates[half] for half in halves)
        both = estimates[layer, block] - estimated_a - estimated_f  # twice their product's mean
        measured.append(value)
        sums.append(a + f)
        correlated.append(a + f + both * math.sqrt(a * f / (estimated_a * estimated_f)))
    for name, values in (("sum of halves", sums), ("with their correlation", correlated)):
        ratio = statistics.median(value / truth for value, truth in zip(values, measured))
        print(f"{len(measured)} whole blocks, {name}: Spearman {spearman(values, measured):.4f}, "
              f"median ratio to exact {ratio:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--share", type=float, default=0.125, help="score.exact_share")
    parser.add_argument("--run", type=pathlib.Path, default=ROOT / "runs/bench-score-methods")
    arguments = parser.parse_args()
    folder = arguments.run.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(root=ROOT, tokens=arguments.tokens, share=arguments.share))

    gradient_s = score(folder, "gradient")
    hybrid_s = gradient_s + score(folder, "hybrid")
    doubtful = kl_scores(folder, "replace-one")
    exact_s = hybrid_s - gradient_s + score(folder, "replace-one")
    exact = kl_scores(folder, "replace-one")
    estimates = {name: value for name, value in kl_scores(folder, "gradient").items() if name in exact}
    hybrid = corrected(estimates, doubtful)

    whole = NUM_LAYERS + HEAD_LAYERS
    passed = sum(NUM_LAYERS - layer + HEAD_LAYERS for layer, _ in exact)
    full_s = exact_s * len(exact) * whole / passed
    names = sorted(exact)
    print(f"{len(names)} candidates, {arguments.tokens} tokens; one full forward pass of each: {full_s:.0f} s, "
          f"of which exact scores that share layers took {exact_s:.0f} s")
    for name, values, seconds in (("gradient", estimates, gradient_s), ("hybrid", hybrid, hybrid_s)):
        correlation = spearman([values[n] for n in names], [exact[n] for n in names])
        print(f"{name}: {seconds:.0f} s = 1/{full_s / seconds:.1f} of that, Spearman {correlation:.4f}")
    print(f"hybrid scored {len(doubtful)} candidates exactly")
    for metric in ("kl_per_sequence", "kl_per_token"):
        values = kl_scores(folder, "gradient", metric)
        ratio = statistics.median(values[n] / exact[n] for n in names)
        print(f"{metric} alone: Spearman {spearman([values[n] for n in names], [exact[n] for n in names]):.4f}, "
              f"median ratio to exact {ratio:.2f}")
    report_pairs(folder, exact)


if __name__ == "__main__":
    main()
