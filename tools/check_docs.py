#!/usr/bin/env python3
"""Checks that what the project's Markdown names exists: files, headings, options of a recipe.

Usage: check_docs.py [ROOT]. Looks at README.md, CONTRIBUTING.md and docs/*.md: link targets with
their #heading; words in back quotes that begin like a path of this tree (`src/…`, `./demo.sh`,
`Makefile`; a name with a * must match something); and words in back quotes or behind --set that
begin like an option (`data.window`), which docs/options.md must list. Prints one line per
violation; exit status 1 if there are any.
"""
import pathlib
import re
import sys

FOLDERS = ("src", "tests", "tools", "docs", "cmake", "bench", "recipes", "examples", ".ci", "puzzle")
FILES = re.compile(r"[\w.-]+\.(md|sh|json|yaml|txt|py|h|cpp)|Makefile|LICENSE")
PATH = re.compile(r"[\w./*+-]+")


FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
# Settings of a grid's cells; not among a recipe's options.
CELL_OPTIONS = {"compress." + name for name in ("method", "kept", "num_tokens", "batch_tokens")}


def quoted_words(text: str):
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def named_paths(text: str):
    """Names in the text that claim to be in the tree, and whether they are links."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
        if "://" not in target:
            yield target, True
    for quoted in quoted_words(text):
        word = quoted.split()[0].removeprefix("./")
        if not PATH.fullmatch(word):
            continue
        if word.split("/")[0] in FOLDERS and "/" in word:
            yield word, False
        elif quoted.startswith("./") and FILES.fullmatch(word):
            yield word, False


def named_options(text: str, options: set):
    """Words with the form of an option in one of the groups that there are."""
    groups = {name.split(".")[0] for name in options if "." in name}
    settings = re.findall(r"--set\s+[\"']?([\w.]+)=", text)
    for quoted in quoted_words(text):
        settings += re.findall(r"(?:^|; )([\w.]+)(?=[=: ;]|$)", quoted)
    for name in settings:
        if "." in name and name.split(".")[0] in groups and not FILES.fullmatch(name):
            yield name


def anchors(page: pathlib.Path):
    """Headings as GitHub makes them into anchors."""
    for heading in re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def exists(root: pathlib.Path, page: pathlib.Path, name: str, is_link: bool) -> bool:
    name, _, anchor = name.partition("#")
    if anchor:
        target = page.parent / name if name else page
        return target.exists() and anchor in anchors(target)
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
    options_page = (root / "docs" / "options.md").read_text(encoding="utf-8")
    options = set(re.findall(r"^\| `([^`]+)`", options_page, re.MULTILINE)) | CELL_OPTIONS
    problems = []
    count = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for name, is_link in named_paths(text):
            count += 1
            if not exists(root, page, name, is_link):
                problems.append(f"{page.relative_to(root)}: {name} does not exist")
        for name in named_options(text, options):
            count += 1
            is_group = any(option.startswith(name + ".") for option in options)
            if name not in options and not is_group:
                problems.append(f"{page.relative_to(root)}: {name} is not an option in docs/options.md")
    print("\n".join(problems) if problems else f"{count} names in {len(pages)} pages exist")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
