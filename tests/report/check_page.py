"""Checks that a report page is sound: well-formed, self-contained, accessible.

Usage: check_page.py PAGE. Prints one line per problem; exit status 1 if there are any.
"""
import html.parser
import re
import sys
import xml.etree.ElementTree as tree

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "hr"}


class Nesting(html.parser.HTMLParser):
    """Elements closed in the order in which HTML sees them opened."""

    def __init__(self):
        super().__init__()
        self.stack = []
        self.problems = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        if "svg" not in self.stack and tag not in VOID:
            self.problems.append(f"<{tag}/> is not closed for HTML")

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes another element")


def check(text: str) -> list[str]:
    problems = []
    if not text.startswith("<!DOCTYPE html>\n"):
        problems.append("no doctype")
    nesting = Nesting()
    nesting.feed(text)
    problems += nesting.problems + [f"<{tag}> is left open" for tag in nesting.stack]
    try:
        root = tree.fromstring(text.split("\n", 1)[1])
    except tree.ParseError as error:
        return problems + [f"not XML: {error}"]

    ids = [element.get("id") for element in root.iter() if element.get("id") is not None]
    problems += [f"id {name} is used twice" for name in set(ids) if ids.count(name) > 1]
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "href" and value.lstrip("#") not in ids:
                problems.append(f"link to {value}, which is not on the page")
            if name in ("src", "srcset", "data") or (name != "xmlns" and "//" in value):
                problems.append(f"{element.tag} {name}={value} loads from outside")
            for target in re.findall(r"url\(#([^)]*)\)", value):
                if target not in ids:
                    problems.append(f"url(#{target}) is not on the page")
            if value in ("nan", "-nan", "inf", "-inf") or "nan " in value:
                problems.append(f"{element.tag} {name}={value} is no coordinate")
        if element.tag.rpartition("}")[2] in ("script", "iframe", "link", "object", "embed"):
            problems.append(f"{element.tag} on a page that must stand alone")
    style = "".join(element.text or "" for element in root.iter("style"))
    if "url(" in style or "@import" in style:
        problems.append("the style sheet loads from outside")
    for svg in root.iter(SVG + "svg"):
        labels = svg.get("aria-labelledby", "").split()
        if svg.get("role") != "img" or len(labels) != 2 or any(l not in ids for l in labels):
            problems.append("a chart without title and description")
        problems += outside(svg)
    for table in root.iter("table"):
        widths = {len(row) for row in table.iter("tr")}
        if len(widths) != 1:
            problems.append(f"a table with rows of {sorted(widths)} cells")
    return problems


def outside(svg) -> list[str]:
    """Shapes and texts that start outside their chart."""
    _, _, width, height = map(float, svg.get("viewBox").split())
    problems = []
    for element in svg.iter():
        if element.tag == SVG + "pattern":
            continue
        x = element.get("x", element.get("cx", element.get("x1")))
        y = element.get("y", element.get("cy", element.get("y1")))
        for value, limit in ((x, width), (y, height)):
            if value is not None and not -0.5 <= float(value) <= limit + 0.5:
                problems.append(f"{element.tag} at {x}, {y} is outside {width} x {height}")
    return problems


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as page:
        found = check(page.read())
    print("\n".join(found))
    sys.exit(1 if found else 0)
