"""Blocks of images whose inputs begin at another image than their own first.

A pointer that advances by the block's number, not by its images; one that does not
advance at all is in packs.py for blocks of one size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdcn.grading.catalogue.blocks import DIVISORS, SIZES, at_most, divisor
from refdcn.grading.catalogue.mistake import Mistake, add, both, put
from refdcn.grading.catalogue.steps import State
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
FIELDS = {
    "image": ("x",),
    "offset": ("dp",),
    "mask": ("m",),
    "offset and mask": ("dp", "m"),
}
Rule = Callable[[int, int], int]  # images a block, of a size and the batch


def begun(field: str, size: int, rule: Rule, by: int) -> Callable[[State], Array]:
    """What block b finds from image `by` * b on, where it must be b blocks on."""

    def edit(s: State) -> Array:
        step = max(1, rule(size, s.z.N))
        block, own = np.divmod(np.arange(s.z.N), step)
        return np.asarray(getattr(s, field)[by * block + own])

    return edit


def starts() -> None:
    """Blocks of each size, and of divisors of the batch."""
    rules = *((n, at_most) for n in SIZES), *((n, divisor) for n in DIVISORS)
    for what, fields in FIELDS.items():
        for size, rule in rules:
            images = f"{'up to ' if rule is divisor else ''}{size} images"
            edits = [put(f, begun(f, size, rule, 1)) for f in fields]
            add(
                MISTAKES,
                "layout",
                "read",
                f"{what} of block b of {images} from image b on",
                f"the {what} of block b of {images} is read from image b on, not from "
                "b times the block's size on",
                both(*edits),
            )
            if rule is divisor or what == "image":
                edits = [put(f, begun(f, size, rule, 0)) for f in fields]
                add(
                    MISTAKES,
                    "layout",
                    "read",
                    f"{what} of the first block of {images}",
                    f"every block of {images} uses the {what} of the first block",
                    both(*edits),
                )


starts()
