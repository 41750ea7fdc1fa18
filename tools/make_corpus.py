#!/usr/bin/env python3
"""Plain text for the demo from extracted Debian packages, one .txt file per document.

Usage: make_corpus.py ROOT OUT. ROOT holds the trees of bible-kjv, bible-kjv-text, python3.11-doc,
r-cran-janeaustenr and wordnet-base (dpkg -x). OUT gets the folders
  bible/        a book of the King James Bible each, one paragraph per chapter
  python-docs/  a page of the Python manual each (reStructuredText)
  austen/       a chapter of Jane Austen's novels each
  wordnet/      the glosses of one of WordNet's topics each, "words: meaning; example"
"""
import pathlib
import re
import struct
import subprocess
import sys
import zlib


def write(folder: pathlib.Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(text.strip() + "\n", encoding="utf-8")


def make_bible(root: pathlib.Path, out: pathlib.Path) -> None:
    text = subprocess.run([root / "usr/bin/bible", "-p", f"{root / 'usr/lib'}/", "-f", "-l100000",
                           "gen1:1-rev22:21"], check=True, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL).stdout
    books: dict[str, dict[str, list[str]]] = {}
    for line in text.splitlines():
        match = re.match(r"(\w+?)(\d+):\d+ (.*)", line)
        if match:
            book, chapter, verse = match.groups()
            books.setdefault(book, {}).setdefault(chapter, []).append(verse.strip())
    for number, (book, chapters) in enumerate(books.items(), 1):
        write(out, f"{number:02}-{book}", "\n\n".join(" ".join(v) for v in chapters.values()))


def make_python_docs(root: pathlib.Path, out: pathlib.Path) -> None:
    sources = next(root.glob("usr/share/doc/python3*/html/_sources"))
    for page in sorted(sources.rglob("*.rst.txt")):
        name = page.relative_to(sources).as_posix().removesuffix(".rst.txt").replace("/", "-")
        write(out, name, page.read_text(encoding="utf-8"))


def character_vector(data: bytes) -> list[str]:
    """The strings of a serialized R character vector (XDR, version 2 or 3)."""
    if data[:2] != b"X\n":
        raise ValueError("not an XDR serialization of R")
    position = 2 + 12
    if struct.unpack_from(">i", data, 2)[0] == 3:  # names its encoding
        position += 4 + struct.unpack_from(">i", data, position)[0]
    kind, count = struct.unpack_from(">ii", data, position)
    if kind & 0xFF != 16:
        raise ValueError("not a character vector")
    position += 8
    strings = []
    for _ in range(count):
        _, length = struct.unpack_from(">ii", data, position)
        position += 8
        strings.append(data[position:position + max(length, 0)].decode("utf-8", "replace"))
        position += max(length, 0)
    return strings


def make_austen(root: pathlib.Path, out: pathlib.Path) -> None:
    data = (root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    position = 0
    while position < len(data):  # entries: big-endian size, then one zlib stream
        stream = zlib.decompressobj()
        lines = character_vector(stream.decompress(data[position + 4:]))
        position = len(data) - len(stream.unused_data)
        title = re.sub(r"\W+", "-", lines[0].strip().lower())
        paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", "\n".join(lines))]
        chapters: list[list[str]] = [[]]
        for paragraph in filter(None, paragraphs):
            if re.match(r"chapter\b", paragraph, re.IGNORECASE):
                chapters.append([])
            chapters[-1].append(paragraph)
        for number, chapter in enumerate(chapters):
            if len(chapter) > 3:  # not the title page
                write(out, f"{title}-{number:02}", "\n\n".join(chapter))


def make_wordnet(root: pathlib.Path, out: pathlib.Path) -> None:
    topics: dict[str, list[str]] = {}
    for part in ("noun", "verb", "adj", "adv"):
        text = (root / f"usr/share/wordnet/data.{part}").read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.startswith("  "):  # the licence
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
            topics.setdefault(f"{part}-{fields[1]}", []).append(
                f"{', '.join(words)}: {gloss.strip()}")
    for topic, lines in topics.items():
        write(out, topic, "\n".join(lines))


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    root, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    make_bible(root, out / "bible")
    make_python_docs(root, out / "python-docs")
    make_austen(root, out / "austen")
    make_wordnet(root, out / "wordnet")
    for folder in sorted(out.iterdir()):
        files = list(folder.glob("*.txt"))
        size = sum(f.stat().st_size for f in files)
        print(f"{folder.name}: {len(files)} documents, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
