"""What a candidate may refuse: gaps, one a line, and whether a call lies in one.

A gap is a condition on the sizes of a call, its mask, bias, dtype or layout:

    groups > 1
    C_out % offset_groups != 0
    dtype == float64 and N > 64
    mask == none

`only` turns it round, for what alone is supported; several of it must all hold:

    only K_h == K_w == 3
    only stride_y == stride_x and H_out == H
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from refdcn.grading.expected.case import BITS, Case, Sizes

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
LAYOUTS = "contiguous", "channels last", "every second column"
WORDS: dict[str, tuple[str, ...]] = {
    "mask": ("none", "given"),
    "bias": ("none", "given"),
    "dtype": tuple(BITS),
    "layout": LAYOUTS,
}
TERM = re.compile(r"(\w+)(?: ?% ?(\w+))?")


class DeclarationError(ValueError):
    """A declaration that names nothing known."""


class Term(NamedTuple):
    """A size, a number or a word, or the remainder of one size by another."""

    name: str
    divisor: str | None = None

    def value(self, facts: Mapping[str, Any]) -> Any:
        """Of one call; a remainder by 0 is 0."""
        a = self.read(self.name, facts)
        if self.divisor is None:
            return a
        b = self.read(self.divisor, facts)
        return a % b if b else 0

    @staticmethod
    def read(word: str, facts: Mapping[str, Any]) -> Any:
        return int(word) if word.isdigit() else facts.get(word, word)


class Comparison(NamedTuple):
    """`left op right`."""

    left: Term
    op: str
    right: Term

    def holds(self, facts: Mapping[str, Any]) -> bool:
        return OPERATORS[self.op](self.left.value(facts), self.right.value(facts))

    @property
    def names(self) -> tuple[str, ...]:
        """The sizes that it speaks of."""
        words = (self.left.name, self.left.divisor, self.right.name, self.right.divisor)
        return tuple(w for w in words if w in NAMES)


class Gap(NamedTuple):
    """All comparisons hold; the one of an `only` line does not."""

    comparisons: tuple[Comparison, ...]
    only: bool = False

    def holds(self, facts: Mapping[str, Any]) -> bool:
        return self.only != all(c.holds(facts) for c in self.comparisons)


def facts(case: Case) -> dict[str, Any]:
    """What a gap may speak of, by name."""
    return {
        **of_sizes(case.sizes),
        "mask": "none" if case.mask is None else "given",
        "bias": "none" if case.bias is None else "given",
        "dtype": case.dtype,
        "layout": case.layout,
    }


def of_sizes(sizes: Sizes) -> dict[str, Any]:
    """The sizes by name, stride, padding and dilation by axis."""
    found = sizes._asdict()
    for name in ("stride", "padding", "dilation"):
        found[f"{name}_y"], found[f"{name}_x"] = found.pop(name)
    found["H_out"], found["W_out"] = sizes.out
    return found


NAMES = (*of_sizes(Sizes(1, 1, 1, 1, 1, 1, 1, 1, 1)), *WORDS)
EITHER = {  # one word for both axes
    name: (f"{name}_y", f"{name}_x") for name in ("stride", "padding", "dilation")
}


@lru_cache(maxsize=256)
def parse(line: str) -> tuple[Gap, ...]:
    """The gaps of a line, or an error that says which part is none.

    `stride > 1` is refused on either axis, `only stride == 1` supported on both.
    """
    text = line.strip()
    parts = text.removeprefix("only ").split(" and ")
    found = [by_axis for part in parts for by_axis in comparisons(part.strip())]
    if text.startswith("only "):
        return tuple(Gap((c,), only=True) for by_axis in found for c in by_axis)
    return tuple(Gap(one) for one in product(*found))


def comparisons(part: str) -> Iterator[tuple[Comparison, ...]]:
    """`K_h == K_w == 3` is two, one after another; `padding == 1` one on each axis."""
    words = re.split(r"\s*(==|!=|>=|<=|>|<)\s*", part)
    if len(words) < 3 or not all(words):
        raise DeclarationError(
            f"gap is {part!r}; it must compare, as groups > 1 or C_out % 4 == 0"
        )
    for left, op, right in zip(words[::2], words[1::2], words[2::2], strict=False):
        axes = (0, 1) if left in EITHER or right in EITHER else (0,)
        yield tuple(compared(left, op, right, axis, part) for axis in axes)


def compared(left: str, op: str, right: str, axis: int, part: str) -> Comparison:
    a, b = (term(EITHER.get(w, (w, w))[axis], part) for w in (left, right))
    check_kinds(a, op, b, part)
    return Comparison(a, op, b)


def term(word: str, part: str) -> Term:
    match = TERM.fullmatch(word)
    if match is None:
        raise DeclarationError(
            f"gap is {part!r}; {word!r} is neither a name nor a number"
        )
    return Term(match[1], match[2])


def check_kinds(a: Term, op: str, b: Term, part: str) -> None:
    """Sizes are compared with sizes and numbers, words with their own values."""
    for one, other in ((a, b), (b, a)):
        if one.name in WORDS:
            if other.name not in WORDS[one.name] or op not in ("==", "!="):
                values = ", ".join(WORDS[one.name])
                raise DeclarationError(
                    f"gap is {part!r}; {one.name} is == or != one of {values}"
                )
            return
    for word in (a.name, a.divisor, b.name, b.divisor):
        if word is not None and not word.isdigit() and word not in NAMES:
            known = ", ".join((*NAMES, *EITHER))
            raise DeclarationError(
                f"gap is {part!r}; {word!r} is no whole number and none of {known}"
            )


def read(path: str) -> list[str]:
    """The lines of a --supports file: one gap a line, `#` begins a comment."""
    lines = [line.split("#")[0].strip() for line in Path(path).read_text().splitlines()]
    gaps = [line for line in lines if line]
    for gap in gaps:
        parse(gap)
    return gaps


def first_that_holds(gaps: Sequence[str], case: Case) -> str | None:
    """The gap in which a call lies, if any."""
    known = facts(case)
    return next((g for g in gaps if any(one.holds(known) for one in parse(g))), None)
