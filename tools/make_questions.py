#!/usr/bin/env python3
"""Multiple-choice questions from any plain text: which of four continuations is a paragraph's own?

Usage: make_questions.py TEXT OUT.jsonl [--questions 300]

One paragraph per line. A question is a paragraph's first 24 words; the choices are its next 6 and those of the
three paragraphs behind it. OUT is for evaluate.multiple_choice (docs/formats.md). Fewer are made where the text
has fewer paragraphs of 30 words in ASCII; fewer than four are an error.
"""
import argparse
import json
import pathlib
import sys

CONTEXT_WORDS, CHOICE_WORDS, NUM_CHOICES = 24, 6, 4


def made_choices(text, count):
    words = [line.split() for line in text.splitlines() if line.isascii()]
    paragraphs = [line for line in words if len(line) >= CONTEXT_WORDS + CHOICE_WORDS][:count]
    ends = [" ".join(line[CONTEXT_WORDS:CONTEXT_WORDS + CHOICE_WORDS]) for line in paragraphs]
    for i, line in enumerate(paragraphs):
        choices = [ends[(i + k) % len(ends)] for k in range(NUM_CHOICES)]
        answer = i % NUM_CHOICES
        choices[0], choices[answer] = choices[answer], choices[0]
        yield {"context": " ".join(line[:CONTEXT_WORDS]), "choices": choices, "answer": answer}


def write_lines(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--questions", type=int, default=300)
    options = parser.parse_args()
    questions = list(made_choices(options.text.read_text(encoding="utf-8"), options.questions))
    if len(questions) < NUM_CHOICES:
        sys.exit(f"make_questions: {options.text} has {len(questions)} paragraphs of at least "
                 f"{CONTEXT_WORDS + CHOICE_WORDS} words in ASCII; {NUM_CHOICES} are needed")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_lines(options.out, questions)
    print(f"{options.out}: {len(questions)} questions")


if __name__ == "__main__":
    main()
