"""The sampling map of a report: where taps must read and where they read, in pixels.

Its numbers are units of the drawing, shown in its own size: text never shrinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from math import ceil, floor
from typing import Any, NamedTuple

Document = Mapping[str, Any]
Point = tuple[float, float]  # row, column
PIXEL, GUTTER = 36, 24  # of the image; beside it, for the numbers of rows and columns
MARGIN = 8  # after the last pixel
NEARER, FAR = 40.0, 6.0  # what a name costs beside another mark, and a line away
MARK, LETTER, LINE = 8, 7.7, 13  # half a mark, the width and height of a letter


class Axis(NamedTuple):
    """One axis of the drawing: its cells, those of a ring around the image too."""

    first: int  # -1: the row or column before the image
    last: int
    n: int  # of the image

    @property
    def start(self) -> int:
        """Of the first cell."""
        return GUTTER

    @property
    def size(self) -> int:
        """Of the drawing."""
        return GUTTER + PIXEL * (self.last - self.first + 1) + MARGIN

    @property
    def image(self) -> tuple[int, int]:
        """The first and the last cell that the image has."""
        return max(self.first, 0), min(self.last, self.n - 1)

    def at(self, q: float) -> float:
        """A position in the drawing, not farther outside than its cells."""
        place = GUTTER + PIXEL * (q - self.first + 0.5)
        return min(max(place, GUTTER + MARK), self.size - MARGIN - MARK)

    def has(self, q: float) -> bool:
        """Whether a position lies within the cells."""
        return self.first - 0.5 <= q <= self.last + 0.5


def axis(positions: Sequence[float], n: int) -> Axis:
    """The pixels around some positions, and one outside where some lie beyond."""
    low, high = min(positions, default=0), max(positions, default=n - 1)
    first, last = (
        min(max(floor(low) - 1, 0), n - 1),
        max(min(ceil(high) + 1, n - 1), 0),
    )
    return Axis(first - (low < 0), last + (high > n - 1), n)


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
            "inset": 2 + 3 * (k % 4),  # so that none hides another
        }
        for k, (s, to) in enumerate(zip(samples, found, strict=True))
    ]
    return {
        "rows": rows,
        "columns": columns,
        "pixel": PIXEL,
        "gutter": GUTTER,
        "whole": all(a.image == (0, a.n - 1) for a in (rows, columns)),
        "outside": any({*a.image} != {a.first, a.last} for a in (rows, columns)),
        "far": any(not (rows.has(q[0]) and columns.has(q[1])) for q in points),
        "taps": taps,
        "kinds": kinds_of([t for t in taps if t["from"]]),
        "labels": {
            both: [*labels(taps, both, columns.size, rows.size)]
            for both in (False, True)
        },
        "defined": shaded(samples, "corners", limits, 1),
        "read": shaded(samples, "reads", limits),
    }


def kinds_of(taps: Sequence[Document]) -> dict[str, bool]:
    """Which kinds of marks a caption has to explain."""
    return {
        "squares": any(t["to"] and not t["box"] for t in taps),
        "moved": any(t["to"] not in (None, t["from"]) for t in taps),
        "boxes": any(t["box"] for t in taps),
        "nothing": any(not t["to"] for t in taps),
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


def inside(
    pixels: Sequence[Document] | None, limits: Sequence[int], ring: int = 0
) -> Iterator[Any]:
    """Those that the image has, or a ring around it."""
    for p in pixels or ():
        within = -ring <= p["row"] <= limits[0] + ring
        if within and -ring <= p["column"] <= limits[1] + ring:
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
    samples: Sequence[Document], which: str, limits: Sequence[int], ring: int = 0
) -> list[dict[str, Any]]:
    """The pixels that are read, as dark as their largest share."""
    most: dict[tuple[int, int], float] = {}
    for s in samples:
        for p in inside(s[which], limits, ring):
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
    taken += [side for t in taps if both and t["box"] for side in sides(t)]
    for t in taps:
        if not t["from"]:
            continue
        lost = both and not t["to"]
        text = f"{t['name']} nothing" if lost else t["name"]
        own = t["to"] if both and t["to"] else t["from"]
        others = [m for m in marks if m not in (t["from"], t["to"])]
        wide = LETTER * len(text)
        places = around(own[1], own[0], wide, width, height)
        best = min(places, key=partial(cost, own=own, others=others, taken=taken))
        far, (left, top, right, bottom) = best
        taken.append(best[1])
        middle = (left + right) / 2, (top + bottom) / 2
        line = (own[1], own[0], *middle) if far else None
        yield {"text": text, "x": left, "y": bottom - 3, "line": line}


def cost(
    place: tuple[int, Box], own: Point, others: Sequence[Point], taken: Sequence[Box]
) -> float:
    """How ill a name stands there: over something, far, or nearer to another mark."""
    far, box = place
    over, mine = sum(covered(box, b) for b in taken), distance(box, own)
    nearer = any(distance(box, mark) < mine for mark in others)
    return over + FAR * far + NEARER * nearer


def sides(tap: Document) -> Iterator[Box]:
    """The four lines of a tap's box, with room beside them."""
    box, inset = tap["box"], tap["inset"]
    left, top = box["x"] + inset, box["y"] + inset
    right, bottom = left + box["width"] - 2 * inset, top + box["height"] - 2 * inset
    yield left - 2, top - 2, right + 2, top + 2
    yield left - 2, bottom - 2, right + 2, bottom + 2
    yield left - 2, top + 2, left + 2, bottom - 2
    yield right - 2, top + 2, right + 2, bottom - 2


def distance(a: Box, mark: Point) -> float:
    """From a box to the middle of a mark."""
    y, x = mark
    return max(a[0] - x, x - a[2], 0.0) + max(a[1] - y, y - a[3], 0.0)


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
