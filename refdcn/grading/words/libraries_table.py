"""The table of the ways in which libraries are called: docs/routes/libraries.inc.

`python -m refdcn.grading.words.libraries_table` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator

from refdcn.grading.process.inside.argument_orders import CONVENTIONS, Convention
from refdcn.layouts import LIBRARIES

HEAD = ("`--as`", "called as", "arrays", "offset and mask", "gaps", "source")
LAID = {
    ("gijd", "yx"): "dy, dx of each tap in turn",
    ("dgij", "xym"): "one tensor: dx of all taps, dy of all, mask",
    ("dgij", "xy"): "dx of all taps, then dy of all",
}
DEPTHWISE = {
    "dcnv3": "N H W C, taps column by column, dx before dy",
    "dcnv4": "as dcnv3, with the mask in one tensor, filled up to 8 channels",
}


def call(one: Convention) -> str:
    """The arguments as they would be typed; what not every function has in brackets."""
    words = one.arguments.split()
    return ", ".join(f"[{w[:-1]}]" if w.endswith("?") else w for w in words)


def rows() -> Iterator[tuple[str, ...]]:
    """A library a row."""
    for name, one in CONVENTIONS.items():
        laid = DEPTHWISE.get(name) or LAID[LIBRARIES[name][:2]]
        gaps = ", ".join(f"`{gap}`" for gap in one.declared)
        yield name, f"`f({call(one)})`", one.array, laid, gaps, one.source


def table() -> str:
    """All rows, as Markdown."""
    lines = [HEAD, ("---",) * len(HEAD), *rows()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(table(), end="")
