"""Several reports side by side: before and after a change, or several libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.showing.drawing import Document
from refdcn.grading.showing.page import in_bytes, middle, number, rendered

NOTHING = "-"


class Entry(NamedTuple):
    """One cell: what a report has there, and how it stands to the first report."""

    text: str
    verdict: str = ""
    change: str = ""  # better, worse, or neither


class Row(NamedTuple):
    """One property of all reports."""

    name: str
    entries: tuple[Entry, ...]


def rows(documents: Sequence[Document]) -> Iterator[Row]:
    """Verdicts of all and of each group, accuracy, time, memory."""
    yield plain_row("candidate", [d["candidate"] for d in documents])
    yield verdict_row("verdict", [(d["verdict"], d["verdict"]) for d in documents])
    yield plain_row("graded", [d["graded"] for d in documents])
    for name in ("level", "seed"):
        yield plain_row(name, [str(d["options"][name]) for d in documents])
    found = [{(g["dtype"], g["group"]): g for g in d["groups"]} for d in documents]
    for key in dict.fromkeys(k for groups in found for k in groups):
        mine = [groups.get(key) for groups in found]
        told = [g and (g["verdict"], counts(g)) for g in mine]
        yield verdict_row(" ".join(key), told)
    yield from accuracies(documents)
    seconds = [d["timing"] and 1e3 * middle(d["timing"]["seconds"]) for d in documents]
    memory = [d["timing"] and d["timing"]["memory"] for d in documents]
    if any(seconds):
        yield plain_row("median ms", [number(s) if s else NOTHING for s in seconds])
        yield plain_row("memory MB", [in_bytes(m) or NOTHING for m in memory])


def counts(group: Document) -> str:
    """Every verdict with its count."""
    return ", ".join(f"{n} {v}" for v, n in group["counts"].items())


def accuracies(documents: Sequence[Document]) -> Iterator[Row]:
    """The largest error of each dtype and result, in units of the bound."""
    found: list[dict[tuple[str, str], Any]] = [
        {(r["dtype"], r["target"]): r["largest"] for r in d["accuracy"]["rows"]}
        for d in documents
    ]
    for key in dict.fromkeys(k for largest in found for k in largest):
        texts = [number(largest.get(key, NOTHING)) for largest in found]
        yield plain_row(f"{key[0]} {key[1]} / bound", texts)


def plain_row(name: str, texts: Sequence[str]) -> Row:
    """What has no better and no worse."""
    return Row(name, tuple(map(Entry, texts)))


def verdict_row(name: str, told: Sequence[tuple[str, str] | None]) -> Row:
    """Verdicts, each held against the first."""
    first = told[0]
    entries = []
    for one in told:
        if one is None:
            entries.append(Entry(NOTHING))
            continue
        change = ""
        if first is not None and one[0] != first[0]:
            better = Verdict[one[0].upper()] > Verdict[first[0].upper()]
            change = "better" if better else "worse"
        entries.append(Entry(one[1], one[0], change))
    return Row(name, tuple(entries))


def text(names: Sequence[str], documents: Sequence[Document]) -> str:
    """For a terminal: the table, and the sentence of each."""
    table = [["", *names]]
    for row in rows(documents):
        cells = [f"{e.text} ({e.change})" if e.change else e.text for e in row.entries]
        table.append([row.name, *cells])
    width = [max(map(len, column)) for column in zip(*table, strict=True)]
    pairs = (zip(line, width, strict=True) for line in table)
    lines = ["  ".join(c.ljust(w) for c, w in pair).rstrip() for pair in pairs]
    said = [f"{n}: {d['sentence']}" for n, d in zip(names, documents, strict=True)]
    return "\n".join([*lines, "", *said])


def page(names: Sequence[str], documents: Sequence[Document]) -> str:
    """As HTML, one file."""
    told = [*zip(names, documents, strict=True)]
    return rendered("compare.html", told=told, rows=[*rows(documents)])


def distinct(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [p.split("/") for p in paths]
    most = max(map(len, parts))
    for n in range(1, most + 1):
        names = ["/".join(p[-n:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{k} {p}" for k, p in enumerate(paths, 1)]
