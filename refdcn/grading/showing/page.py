"""The HTML of a report: one file, drawn as SVG; needs Jinja2 (`refdcn[report]`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.showing.drawing import Document, sampling_map

TARGETS = "y", "grad_x", "grad_offset", "grad_weight", "grad_mask", "grad_bias"
ROWS = 24  # output channels whose input channels are listed
ORDER = {str(v): int(v) for v in Verdict}
SIGNS = {
    "crash": "\N{DAGGER}",
    "timeout": "\N{INFINITY}",
    "integrity": "!",
    "wrong": "\N{MULTIPLICATION SIGN}",
    "imprecise": "\N{ALMOST EQUAL TO}",
    "unsupported": "\N{EMPTY SET}",
    "nothing": "\N{EMPTY SET}",
    "unchecked": "?",
    "convention": "\N{LOZENGE}",
    "pass": "\N{CHECK MARK}",
}


class MissingError(ImportError):
    """Jinja2 is not installed."""


def require() -> None:
    """Raise MissingError where no page can be made."""
    if find_spec("jinja2") is None:
        raise MissingError(
            "an HTML report needs Jinja2, which is not installed: "
            'pip install "refdcn[report]"'
        )


def rendered(template: str, **values: Any) -> str:
    """One template of this folder."""
    require()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"signs": SIGNS}
    environment.filters |= {"number": number, "share": share, "bytes": in_bytes}
    environment.filters |= {"exactly": exactly, "room": room}
    return environment.get_template(template).render(**values)


def page(document: Document) -> str:
    """A report as one file."""
    evidence = document["evidence"]
    channels = evidence["channels"] if evidence else []
    drawn = evidence and evidence["samples"] and not channels
    found = [*matrices(document["findings"])]
    cells = [c for m in found for row in m["rows"] for c in row["cells"] if c]
    return rendered(
        "report.html",
        d=document,
        matrices=together(found),
        means={g["group"]: g["means"] for g in document["groups"]},
        legend=sorted({c["verdict"] for c in cells}, key=ORDER.__getitem__),
        histograms=[*histograms(document["accuracy"])],
        map=sampling_map(evidence) if drawn else None,
        channels=channels[:ROWS],
        rest=len(channels[ROWS:]),
        arrays=[*tables(document["smallest"])],
        times=[*times(document)],
    )


def number(value: Any) -> str:
    """Four digits, or the word that stands for it; a zero has no sign."""
    return f"{value + 0.0:.4g}" if isinstance(value, (int, float)) else str(value)


def exactly(value: Any) -> str:
    """All digits that a number needs, to be copied; a zero has no sign."""
    if not isinstance(value, (int, float)):
        return str(value)
    return repr(value + 0.0).removesuffix(".0")


def room(worst: Document) -> bool:
    """Whether the bound shows in the digits of what must come and what came."""
    told = [v for v in (worst["low"], worst["high"], worst["got"]) if v != "nan"]
    if not all(isinstance(v, (int, float)) for v in (*told, worst["bound"])):
        return True
    last = min(Decimal(exactly(v)).as_tuple().exponent for v in told)
    return isinstance(last, int) and worst["bound"] >= 10.0**last


def share(part: float, whole: float) -> float:
    """Of 1; nothing of nothing is 0."""
    return part / whole if whole else 0.0


def in_bytes(value: int | None) -> str:
    """In MB, as far as it is known."""
    return "" if value is None else f"{value / 1e6:,.1f}"


# The verdict matrix ---------------------------------------------------------------


def columns(target: str) -> Sequence[str]:
    """The columns that a finding belongs to: those of all gradients, or of the call."""
    if target == "gradients":
        return TARGETS[1:]
    return (target if target in TARGETS else "y",)


def matrices(findings: Sequence[Document]) -> Iterator[dict[str, Any]]:
    """By dtype: groups of cases down, results across, the worst verdict in each."""
    cells: dict[str, dict[str, dict[str, list[Document]]]] = {}
    for f in findings:
        for target in columns(f["target"]):
            rows = cells.setdefault(f["dtype"], {}).setdefault(f["group"], {})
            rows.setdefault(target, []).append(f)
    seen = [t for t in TARGETS if any(t in columns(f["target"]) for f in findings)]
    for dtype, groups in cells.items():
        told = [
            {"group": group, "cells": [cell(found.get(t, [])) for t in seen]}
            for group, found in groups.items()
        ]
        yield {"dtype": dtype, "targets": seen, "rows": told}


def together(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One matrix with the dtypes across, where each has one and the same result."""
    if len(found) < 2 or {tuple(m["targets"]) for m in found} != {TARGETS[:1]}:
        return [*found]
    each = [{r["group"]: r["cells"][0] for r in m["rows"]} for m in found]
    groups = dict.fromkeys(group for cells in each for group in cells)
    rows = [{"group": g, "cells": [cells.get(g) for cells in each]} for g in groups]
    dtypes = [m["dtype"] for m in found]
    return [{"dtype": TARGETS[0], "targets": dtypes, "rows": rows}]


def cell(found: Sequence[Document]) -> dict[str, Any] | None:
    """The worst of some findings; what is not counted is said."""
    if not found:
        return None
    worst = min(found, key=lambda f: ORDER[f["verdict"]])
    alike = [f for f in found if f["verdict"] == worst["verdict"]]
    return {
        "verdict": worst["verdict"],
        "of": len(found),
        "many": len(alike),
        "counted": any(f["counted"] for f in alike),
        "text": worst.get("text", ""),
    }


# Accuracy -------------------------------------------------------------------------


def histograms(accuracy: Document) -> Iterator[dict[str, Any]]:
    """By dtype: one bar for each bin, and within it how much is y and how much not."""
    edges = accuracy["edges"]
    names = ["0", *(f"{e:.1g}" if e < 1 else f"{e:g}" for e in edges[1:]), "more"]
    for dtype in dict.fromkeys(row["dtype"] for row in accuracy["rows"]):
        rows = [row for row in accuracy["rows"] if row["dtype"] == dtype]
        counts = [sum(n) for n in zip(*(row["counts"] for row in rows), strict=True)]
        most = max(counts, default=0)
        bars = [
            {"name": name, "count": n, "height": share(n, most), "outside": k > ONE}
            for k, (name, n) in enumerate(zip(names, counts, strict=True))
        ]
        yield {"dtype": dtype, "bars": bars, "rows": rows, "all": sum(counts)}


ONE = 11  # the bin that ends at the bound


# The smallest input ---------------------------------------------------------------


def tables(smallest: Document | None) -> Iterator[dict[str, Any]]:
    """Each input as matrices of its last two axes, each with the index before."""
    for name, array in (smallest["inputs"] if smallest else {}).items():
        if array is None:
            yield {"name": name, "shape": None, "planes": []}
            continue
        values, left = array["values"], len(array["shape"])
        while (
            values is not None
            and left > 2
            and array["shape"][left - 2 : left] == [1, 1]
        ):
            values, left = inner(values, left), left - 2
        planes = [] if values is None else [*planes_of(values, ())]
        yield {"name": name, "shape": array["shape"], "planes": planes}


def inner(values: Any, depth: int) -> Any:
    """Nested lists without their two innermost axes, of one element each."""
    if depth == 2:
        return values[0][0]
    return [inner(v, depth - 1) for v in values]


def planes_of(values: Any, at: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """All matrices in nested lists."""
    if not values or not isinstance(values[0], list):
        yield {"at": at, "rows": [values]}
    elif not isinstance(values[0][0] if values[0] else 0, list):
        yield {"at": at, "rows": values}
    else:
        for k, inner in enumerate(values):
            yield from planes_of(inner, (*at, k))


# Time and memory ------------------------------------------------------------------


def times(document: Document) -> Iterator[dict[str, Any]]:
    """The candidate first, then others on the same calls; bars share one scale."""
    rows = [*document["beside"]]
    if not rows and document["timing"] is None:
        return
    own = {"name": document["candidate"], "timing": document["timing"], "why": ""}
    if rows and rows[0]["name"] == own["name"] and len(rows) > OTHERS:
        own = rows.pop(0)
    rows.insert(0, own | {"verdict": document["verdict"]})
    medians = [middle(r["timing"]["seconds"]) for r in rows if r["timing"]]
    for row in rows:
        timing = row["timing"] or {}
        seconds = timing.get("seconds") or []
        known = {"ms": None, "fastest": None, "width": 0.0, "memory": None}
        if seconds:
            known["ms"], known["fastest"] = 1e3 * middle(seconds), 1e3 * min(seconds)
            known["width"] = share(middle(seconds), max(medians))
            known["memory"] = timing["memory"]
        yield {**row, **known}


OTHERS = 3  # beside the candidate


def middle(seconds: Sequence[float]) -> float:
    """The median."""
    half, ordered = len(seconds) // 2, sorted(seconds)
    return ordered[half] if len(ordered) % 2 else sum(ordered[half - 1 : half + 1]) / 2
