"""The sampling map of a report: where taps must read and where they read, in pixels.

Its numbers are units of the drawing, shown in its own size: text never shrinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import ceil, floor
from typing import Any, NamedTuple

Document = Mapping[str, Any]
Point = tuple[float, float]  # row, column
PIXEL, GUTTER = 36, 24  # of the image; beside it, for the numbers of rows and columns
BEYOND = 2.5  # pixels outside of the image that a map shows
MARK, LETTER, LINE = 8, 7.7, 13  # half a mark, the width and height of a letter


class Axis(NamedTuple):
    """One axis of the drawing: which pixels of the image, and where they lie."""

    first: int
    last: int
    start: float  # of the first pixel
    size: float  # of the drawing

    def at(self, q: float) -> float:
        """A position in the image, not farther outside than the drawing goes."""
        place = self.start + PIXEL * (q - self.first + 0.5)
        return min(max(place, GUTTER + MARK), self.size - MARK)


def axis(positions: Sequence[float], n: int) -> Axis:
    """The pixels around some positions, and room beside them where one is outside."""
    kept = [min(max(q, -BEYOND), n - 1 + BEYOND) for q in positions]
    low, high = min(kept, default=0), max(kept, default=n - 1)
    first = min(max(0, floor(low) - 1), n - 1)
    last = max(min(n - 1, ceil(high) + 1), 0)
    start = GUTTER + PIXEL * max(0.0, -low)
    beyond = PIXEL * max(0.5, high - (n - 1))
    return Axis(first, last, start, start + PIXEL * (last - first + 1) + beyond)


def sampling_map(evidence: Document) -> dict[str, Any]:
    """Two drawings of one image: where its taps must read, and where they read."""
    sizes, samples = evidence["case"]["sizes"], evidence["samples"]
    limits = sizes["H"] - 1, sizes["W"] - 1
    found = [place(s, limits) for s in samples]
    marks = [m for s, f in zip(samples, found, strict=True) for m in (known(s), f)]
    pixels = [
        (p["row"], p["column"]) for s in samples for p in inside(s["reads"], limits)
    ]
    points = [*filter(None, marks), *pixels]
    rows, columns = (axis([q[k] for q in points], n + 1) for k, n in enumerate(limits))

    def drawn(q: Point | None) -> Point | None:
        return q and (rows.at(q[0]), columns.at(q[1]))

    taps = [
        {
            "name": f"{s['tap'][0]},{s['tap'][1]}",
            "from": drawn(known(s)),
            "to": drawn(to),
            "box": to and not exact(s, limits) and box(s, limits, rows, columns),
        }
        for s, to in zip(samples, found, strict=True)
    ]
    return {
        "rows": rows,
        "columns": columns,
        "pixel": PIXEL,
        "gutter": GUTTER,
        "whole": (rows.last - rows.first, columns.last - columns.first) == limits,
        "taps": taps,
        "labels": {
            both: [*labels(taps, both, columns.size, rows.size)]
            for both in (False, True)
        },
        "defined": shaded(samples, "corners", limits),
        "read": shaded(samples, "reads", limits),
    }


def known(sample: Document) -> Point | None:
    """Where it must read, as far as that is a number."""
    row, column = sample["position"]
    return None if isinstance(row, str) or isinstance(column, str) else (row, column)


def exact(sample: Document, limits: Sequence[int]) -> bool:
    """Whether what is read has one position."""
    return same_place(sample, limits) or sample["found"] is not None


def place(sample: Document, limits: Sequence[int]) -> Point | None:
    """Where it reads: a position, or the middle of the pixels."""
    if same_place(sample, limits):
        return known(sample)
    if sample["found"] is not None:
        row, column = sample["found"]
        return row, column
    some = [*inside(sample["reads"], limits)]
    if not some:
        return None
    rows, columns = ([p[name] for p in some] for name in ("row", "column"))
    return (min(rows) + max(rows)) / 2, (min(columns) + max(columns)) / 2


def box(
    sample: Document, limits: Sequence[int], rows: Axis, columns: Axis
) -> dict[str, float]:
    """Around all pixels that are read."""
    some = [*inside(sample["reads"], limits)]
    r, c = ([p[name] for p in some] for name in ("row", "column"))
    return {
        "x": columns.start + PIXEL * (min(c) - columns.first),
        "y": rows.start + PIXEL * (min(r) - rows.first),
        "width": PIXEL * (max(c) - min(c) + 1),
        "height": PIXEL * (max(r) - min(r) + 1),
    }


def inside(pixels: Sequence[Document] | None, limits: Sequence[int]) -> Iterator[Any]:
    """Those that the image has."""
    for p in pixels or ():
        if 0 <= p["row"] <= limits[0] and 0 <= p["column"] <= limits[1]:
            yield p


def same_place(sample: Document, limits: Sequence[int]) -> bool:
    """Whether it reads at the right place: of another channel or image, perhaps."""
    if sample["right"]:
        return True
    due, got = (
        {(p["row"], p["column"]): round(p["share"], 4) for p in some}
        for some in (inside(sample["corners"], limits), sample["reads"] or ())
    )
    return bool(got) and got == due


def shaded(
    samples: Sequence[Document], which: str, limits: Sequence[int]
) -> list[dict[str, Any]]:
    """The pixels of the image that are read, as dark as their largest share."""
    most: dict[tuple[int, int], float] = {}
    for s in samples:
        for p in inside(s[which], limits):
            at = p["row"], p["column"]
            most[at] = max(most.get(at, 0.0), abs(p["share"]))
    top = max(most.values(), default=1.0) or 1.0
    return [{"row": r, "column": c, "dark": v / top} for (r, c), v in most.items()]


# Names of taps beside their marks, none over another -------------------------------

Box = tuple[float, float, float, float]  # left, top, right, bottom


def labels(
    taps: Sequence[Document], both: bool, width: float, height: float
) -> Iterator[dict[str, Any]]:
    """Each tap's name where no other name and no mark is; far ones have a line."""
    ways = ("from", "to") if both else ("from",)
    marks = [t[way] for t in taps if t["from"] for way in ways if t[way]]
    taken = [(x - MARK, y - MARK, x + MARK, y + MARK) for y, x in marks]
    for t in taps:
        if not t["from"]:
            continue
        lost = both and not t["to"]
        text = f"{t['name']} nothing" if lost else t["name"]
        row, column = t["to"] if both and t["to"] else t["from"]
        places = [*around(column, row, LETTER * len(text), width, height)]
        best = min(places, key=lambda one: sum(covered(one[1], b) for b in taken))
        far, (left, top, right, bottom) = best
        taken.append(best[1])
        middle = (left + right) / 2, (top + bottom) / 2
        line = (column, row, *middle) if far else None
        yield {"text": text, "x": left, "y": bottom - 3, "line": line}


def around(
    x: float, y: float, wide: float, width: float, height: float
) -> Iterator[tuple[int, Box]]:
    """Places for a name of a mark, the nearest first, in the drawing."""
    for far, (down, side) in product(range(5), product((-1, 1, 0), (1, -1, 0))):
        if (down, side) == (0, 0):
            continue
        away = MARK + far * LINE
        middle = x + side * (away + wide / 2 if down == 0 else away / 2 + wide / 2)
        left = min(max(middle - wide / 2, GUTTER), width - wide)
        top = y + down * (away + LINE / 2) - LINE / 2
        top = min(max(top, GUTTER), height - LINE)
        yield far, (left, top, left + wide, top + LINE)


def covered(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)
