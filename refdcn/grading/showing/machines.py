"""A report for machines that show it: JUnit XML, annotations, Markdown, a badge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from refdcn.grading.judging.verdicts import EXIT_CODES, Verdict
from refdcn.grading.showing.drawing import Document
from refdcn.grading.showing.page import SIGNS

DIED = Verdict.CRASH, Verdict.TIMEOUT, Verdict.INTEGRITY
ALLOWED = {*map(chr, range(0x20, 0xD800)), "\t", "\n"}  # in XML; others are rarer


def fails(group: Document, strict: bool) -> bool:
    """Whether what counts of a group makes the exit code another than 0."""
    verdict = Verdict[group["counted"].upper()]
    return EXIT_CODES[verdict] != 0 or (strict and verdict is Verdict.UNCHECKED)


def junit(document: Document) -> str:
    """A suite for each dtype, a test case for each group of calls."""
    name, strict = document["candidate"], document["options"]["strict"]
    root = ElementTree.Element("testsuites", name=legal(f"refdcn {name}"))
    for dtype in dict.fromkeys(g["dtype"] for g in document["groups"]):
        groups = [g for g in document["groups"] if g["dtype"] == dtype]
        bad = [g for g in groups if fails(g, strict)]
        died = [g for g in bad if Verdict[g["counted"].upper()] in DIED]
        counts = {"tests": len(groups), "failures": len(bad) - len(died)}
        counts |= {"errors": len(died), "skipped": 0}
        told = {k: str(n) for k, n in counts.items()}
        suite = ElementTree.SubElement(root, "testsuite", {"name": dtype, **told})
        for g in groups:
            case = ElementTree.SubElement(suite, "testcase", name=g["group"])
            case.set("classname", legal(f"{name}.{dtype}"))
            place = document["source"]
            if place:
                case.set("file", legal(relative(place["file"])))
                case.set("line", str(place["line"]))
            if g in bad:
                kind = "error" if g in died else "failure"
                told = {"type": g["counted"], "message": legal(g["text"])}
                ElementTree.SubElement(case, kind, told).text = legal(
                    document["sentence"]
                )
    ElementTree.indent(root)
    xml = ElementTree.tostring(root, encoding="unicode", xml_declaration=False)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{xml}\n'


def legal(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c in ALLOWED or ord(c) > 0xDFFF else "?" for c in text)


def relative(file: str) -> str:
    """From the working directory, where the file is below it."""
    found = os.path.relpath(file)
    return file if found.startswith("..") else found


def annotation(document: Document) -> str:
    """A workflow command of GitHub that marks the candidate's line."""
    level = "error" if document["exit_code"] else "notice"
    where = {"title": f"refdcn: {document['verdict']}"}
    if document["source"]:
        place = document["source"]
        where = {"file": relative(place["file"]), "line": str(place["line"])} | where
    told = ",".join(f"{k}={coded(v, ':,')}" for k, v in where.items())
    return f"::{level} {told}::{coded(document['sentence'])}"


def coded(text: str, more: str = "") -> str:
    """As a workflow command takes it."""
    for c in "%\r\n" + more:
        text = text.replace(c, f"%{ord(c):02X}")
    return text


def markdown(document: Document) -> str:
    """A summary: the verdict, the sentence, a row a group, what repeats it."""
    sign, verdict = SIGNS[document["verdict"]], document["verdict"]
    lines = [
        f"## {sign} {shielded(document['candidate'])}: {verdict}",
        "",
        shielded(document["sentence"]),
        "",
    ]
    evidence = document["diagnosis"]["evidence"]
    lines += [f"- {shielded(line)}" for line in evidence] + [""] * bool(evidence)
    lines += ["| dtype | calls | verdicts | first of each |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(map(shielded, row))} |" for row in rows(document)]
    return "\n".join([*lines, "", "```console", f"$ {document['repeat']}", "```", ""])


def rows(document: Document) -> Iterator[tuple[str, str, str, str]]:
    """The groups, each with its sign."""
    for g in document["groups"]:
        counts = ", ".join(f"{n} {v}" for v, n in g["counts"].items())
        yield g["dtype"], g["group"], f"{SIGNS[g['verdict']]} {counts}", g["text"]


def shielded(text: str) -> str:
    """No character of which means something in Markdown or HTML."""
    text = escape(text.replace("\\", "\\\\")).replace("\n", " ")
    for c in "|*_`[]":
        text = text.replace(c, f"\\{c}")
    return text


COLOURS = {
    **dict.fromkeys(("crash", "timeout", "integrity", "wrong"), "#b3261e"),
    **dict.fromkeys(("imprecise", "unsupported", "nothing", "unchecked"), "#8a5a00"),
    **{"convention": "#1d4ed8", "pass": "#1b6e3c"},
}
LETTER, SPACE = 6.6, 10  # of the badge's font, and beside each word
BADGE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" \
role="img" aria-label="{title}">
<title>{title}</title>
<clipPath id="round"><rect width="{width}" height="20" rx="3"/></clipPath>
<g clip-path="url(#round)"><rect width="{left}" height="20" fill="#3b4453"/>
<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" \
text-anchor="middle">
<text x="{middle_left}" y="14" textLength="{text_left}">{label}</text>
<text x="{middle_right}" y="14" textLength="{text_right}">{verdict}</text></g>
</svg>
"""


def badge(document: Document, label: str = "refdcn") -> str:
    """The verdict as an SVG of one line."""
    only = document["graded"] == "forward only"
    verdict = f"{document['verdict']}, forward" if only else document["verdict"]
    text_left, text_right = (LETTER * len(t) for t in (label, verdict))
    left, right = text_left + SPACE, text_right + SPACE
    values: dict[str, Any] = {
        "left": left,
        "right": right,
        "width": left + right,
        "middle_left": left / 2,
        "middle_right": left + right / 2,
        "text_left": text_left,
        "text_right": text_right,
    }
    numbers = {k: f"{v:.1f}" for k, v in values.items()}
    quoted = {'"': "&quot;"}
    told = {
        "title": escape(f"{label}: {verdict}", quoted),
        "label": escape(label),
        "verdict": escape(verdict),
        "colour": COLOURS[document["verdict"]],
    }
    return BADGE.format(**numbers, **told)
