"""A listed mistake that is made in some calls alone, and what those calls have.

A kernel has paths: without a mask, for one group, for 3x3. A mistake of one of them
explains every element that fails and would make other calls fail, too, which are right.
What tells the calls apart is one of few conditions that a kernel may branch on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import lgamma, log

from refdcn.grading.catalogue.paths import (
    LIMITED,
    PATHS,
    TOLD,
    Holds,
    both,
    conditions,
    from_on,
    up_to,
)  # fmt: skip
from refdcn.grading.expected.case import Case

CHANCE = 0.01  # that a condition fits, of all that are tried
MOST = 3  # conditions that are told of one mistake


def chance_of(failing: Sequence[Case], right: Sequence[Case]) -> float:
    """log of the chance that of all calls just these fail."""
    f, r = len(failing), len(right)
    return lgamma(f + 1) + lgamma(r + 1) - lgamma(f + r + 1)


def fitting(failing: Sequence[Case], right: Sequence[Case]) -> list[tuple[str, Holds]]:
    """What all calls that fail have, and none that is right; too much for chance."""
    tried = 2 * (len(PATHS) + len(LIMITED))
    if not chance_of(failing, right) + log(tried) < log(CHANCE):
        return []
    found = [
        (text, holds)
        for text, holds in conditions()
        if all(map(holds, failing)) and not any(map(holds, right))
    ]
    return found or [*limits(failing, right)] or [*pairs(failing, right)]


def pairs(
    failing: Sequence[Case], right: Sequence[Case]
) -> Iterator[tuple[str, Holds]]:
    """Two conditions that together are met wherever it fails, and nowhere else."""
    met = [
        (text, holds, {k for k, c in enumerate(right) if holds(c)})
        for text, holds in conditions()
        if all(map(holds, failing))
    ]
    tried = 2 * len(PATHS) ** 2  # of two, each as it is or not
    if not chance_of(failing, right) + log(tried) < log(CHANCE):
        return
    for k, (text, one, at) in enumerate(met):
        for more, other, beside in met[k + 1 :]:
            if not at & beside:
                yield (
                    both(text, more),
                    lambda c, f=one, g=other: f(c) and g(c),  # type: ignore[misc]
                )


def path_of(failing: Sequence[Case], right: Sequence[Case]) -> str:
    """The rarest condition that all calls that fail have, if it is no chance."""
    found = []
    for text, holds in conditions() if failing else ():
        if text not in TOLD or not all(map(holds, failing)):
            continue
        f, met = len(failing), len(failing) + sum(map(holds, right))
        of = len(failing) + len(right)
        # The chance that calls drawn blindly have it, too.
        chance = (
            lgamma(met + 1) - lgamma(met - f + 1) + lgamma(of - f + 1) - lgamma(of + 1)
        )
        if chance + log(len(TOLD)) < log(CHANCE):
            found.append((met, text))
    return min(found, default=(0, ""))[1]


def limits(
    failing: Sequence[Case], right: Sequence[Case]
) -> Iterator[tuple[str, Holds]]:
    """One size that is larger, or smaller, wherever it fails."""
    for name, of in LIMITED:
        low, high = min(map(of, failing)), max(map(of, failing))
        others = [of(c) for c in right]
        if max(others) < low:
            text = from_on(name, low, max(others))
            yield text, lambda c, f=of, n=low: f(c) >= n  # type: ignore[misc]
        elif min(others) > high:
            text = up_to(name, high, min(others))
            yield text, lambda c, f=of, n=high: f(c) <= n  # type: ignore[misc]
