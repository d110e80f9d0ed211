"""The room that gaps leave: calls changed as little as needed until none lies in one.

A candidate that takes 3x3 kernels alone is asked as much as any other, of 3x3 kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.expected.case import Sizes
from refdcn.grading.judging import gaps

# What every geometry must keep, said as gaps.
GEOMETRY = (
    "C_in % groups != 0",
    "C_in % offset_groups != 0",
    "C_out % groups != 0",
    "H_out < 1",
    "W_out < 1",
)
STEPS = 1000  # of the search, before a call is given up
ANY = 0.15  # share of steps that take any change, so as not to stay in a corner
MOST = 200  # of a size that is changed
AXES = {
    "H_out": ("H", "K_h", "stride_y", "padding_y", "dilation_y"),
    "W_out": ("W", "K_w", "stride_x", "padding_x", "dilation_x"),
}

Facts = dict[str, Any]


class Call(NamedTuple):
    """What a gap may speak of and a call may change."""

    sizes: Sizes
    mask: bool = True
    bias: bool = True
    layout: str = "contiguous"


def within(
    lines: Sequence[str], call: Call, dtype: str, keep: Sequence[str] = ()
) -> Call | None:
    """A call like this one outside of every gap; None where there is no room.

    What is in `keep` stays, if there is room so. The same call gives the same answer.
    """
    if not lines:
        return call
    given = gaps.of_sizes(call.sizes) | {"dtype": dtype, "layout": call.layout}
    given |= {n: "given" if getattr(call, n) else "none" for n in ("mask", "bias")}
    rng = np.random.default_rng(list(call.sizes[:9]))
    for kept in (keep, ()):
        found = fitting(lines, given, rng, ("dtype", "layout", *kept))
        if found is not None:
            mask, bias = (found[n] == "given" for n in ("mask", "bias"))
            return Call(to_sizes(found), mask, bias, call.layout)
    return None


def fitting(
    lines: Sequence[str], given: Facts, rng: np.random.Generator, keep: Sequence[str]
) -> Facts | None:
    """`given` with as few changes as the search finds, outside of every gap.

    What is in `keep` stays. None where the gaps leave no room.
    """
    rules = [rule for line in (*GEOMETRY, *lines) for rule in gaps.parse(line)]
    now = dict(given)
    for _ in range(STEPS):
        held = [rule for rule in rules if rule.holds(now)]
        if not held:
            return now
        changes = list(changes_for(held[int(rng.integers(len(held)))], now, keep))
        if not changes:
            return None
        if rng.random() < ANY:
            now = changes[int(rng.integers(len(changes)))]
        else:
            now = min(changes, key=lambda one: cost(rules, given, one))
    return None


def cost(rules: Sequence[gaps.Gap], given: Facts, one: Facts) -> tuple[int, int]:
    """Gaps that still hold, then what has changed."""
    changed = sum(one[name] != value for name, value in given.items())
    return sum(rule.holds(one) for rule in rules), changed


def changes_for(rule: gaps.Gap, now: Facts, keep: Sequence[str]) -> Iterator[Facts]:
    """Every change of one size or word that the rule speaks of."""
    words = [w for c in rule.comparisons for t in (c.left, c.right) for w in t if w]
    names = dict.fromkeys(w for w in words if w in gaps.NAMES)
    for name in list(names):  # an output size follows from these, too
        names |= dict.fromkeys(AXES.get(name, ()))
    numbers = {v for w in words if isinstance(v := gaps.Term.read(w, now), int)}
    near = {v + d for v in numbers for d in (-1, 0, 1)}
    sizes = sorted({*range(6), *near, *(v * k for v in numbers for k in (2, 3, 4))})
    for name in names:
        least = 0 if name.startswith("padding") else 1
        for value in gaps.WORDS.get(name, sizes):
            if isinstance(value, str) or least <= value <= MOST:
                if name not in keep and value != now[name]:
                    yield changed(now, name, value)


def changed(now: Facts, name: str, value: Any) -> Facts:
    """One size or word anew; an output size changes the image, and follows it."""
    one = now | {name: value}
    if name in AXES:
        image, kernel, *window = AXES[name]
        s, p, d = (one[w] for w in window)
        fewest = d * (one[kernel] - 1) + 1 - 2 * p
        one[image] = max(1, fewest + (value - 1) * s)
    one["H_out"], one["W_out"] = to_sizes(one).out
    return one


def to_sizes(facts: Facts) -> Sizes:
    """The geometry that the facts describe."""
    pairs = {
        name: (facts[f"{name}_y"], facts[f"{name}_x"])
        for name in ("stride", "padding", "dilation")
    }
    plain = (facts[name] for name in Sizes._fields if name not in pairs)
    return Sizes(*plain, *pairs.values())
