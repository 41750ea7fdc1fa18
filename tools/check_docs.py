#!/usr/bin/env python3
"""Checks that every file and folder that the project's Markdown names is in the tree.

Usage: check_docs.py [ROOT]. Looks at README.md, CONTRIBUTING.md and docs/*.md: link targets, and
words in back quotes that begin like a path of this tree (`src/…`, `./demo.sh`, `Makefile`). A name
with a * must match something. Prints one line per violation; exit status 1 if there are any.
"""
import pathlib
import re
import sys

FOLDERS = ("src", "tests", "tools", "docs", "cmake", "bench", "recipes", "examples", ".ci", "puzzle")
FILES = re.compile(r"[\w.-]+\.(md|sh|json|yaml|txt|py|h|cpp)|Makefile|LICENSE")
PATH = re.compile(r"[\w./*+-]+")


def candidates(text: str):
    """Names in the text that claim to be in the tree, without anchors and option values."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            yield target.split("#")[0], True
    for quoted in re.findall(r"`([^`\n]+)`", text):
        word = quoted.split()[0].removeprefix("./")
        if not PATH.fullmatch(word):
            continue
        if word.split("/")[0] in FOLDERS and "/" in word:
            yield word, False
        elif quoted.startswith("./") and FILES.fullmatch(word):
            yield word, False


def exists(root: pathlib.Path, page: pathlib.Path, name: str, is_link: bool) -> bool:
    bases = [page.parent] if is_link else [root, root / "src"]
    for base in bases:
        if "*" in name and any(base.glob(name)):
            return True
        if "*" not in name and (base / name).exists():
            return True
    return False


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    pages = [p for p in (root / "README.md", root / "CONTRIBUTING.md") if p.exists()]
    pages += sorted((root / "docs").glob("*.md"))
    problems = []
    count = 0
    for page in pages:
        for name, is_link in candidates(page.read_text(encoding="utf-8")):
            count += 1
            if not exists(root, page, name, is_link):
                problems.append(f"{page.relative_to(root)}: {name} does not exist")
    print("\n".join(problems) if problems else f"{count} names in {len(pages)} pages exist")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
