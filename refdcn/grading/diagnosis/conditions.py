"""A listed mistake that is made in some calls alone, and what those calls have.

A kernel has paths: without a mask, for one group, for 3x3. A mistake of one of them
explains every element that fails and would make other calls fail, too, which are right.
What tells the calls apart is one of few conditions that a kernel may branch on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import lgamma, log

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import State
from refdcn.grading.expected.case import Case

CHANCE = 0.01  # that a condition fits, of all that are tried
MOST = 3  # conditions that are told of one mistake
Holds = Callable[[Case], bool]

# In words, the plainest first; each is tried as it is, and as its opposite.
PATHS: tuple[tuple[str, str, Holds], ...] = (
    ("without a mask", "with a mask", lambda c: c.mask is None),
    ("without a bias", "with a bias", lambda c: c.bias is None),
    ("for one image", "for several images", lambda c: c.sizes.N == 1),
    (
        "for one weight group",
        "for several weight groups",
        lambda c: c.sizes.groups == 1,
    ),
    (
        "for one offset group",
        "for several offset groups",
        lambda c: c.sizes.offset_groups == 1,
    ),
    (
        "for one input channel a group",
        "for several input channels a group",
        lambda c: c.sizes.C_in == c.sizes.groups,
    ),
    (
        "for depthwise weights",
        "for weights that are not depthwise",
        lambda c: c.sizes.C_in == c.sizes.groups > 1,
    ),
    ("for 1x1 kernels", "for kernels above 1x1", lambda c: c.sizes[5:7] == (1, 1)),
    ("for 3x3 kernels", "for kernels other than 3x3", lambda c: c.sizes[5:7] == (3, 3)),
    (
        "for square kernels",
        "for kernels that are not square",
        lambda c: c.sizes.K_h == c.sizes.K_w,
    ),
    (
        "for kernels with an even side",
        "for kernels of odd sides",
        lambda c: c.sizes.K_h % 2 == 0 or c.sizes.K_w % 2 == 0,
    ),
    (
        "for kernels of even height",
        "for kernels of odd height",
        lambda c: c.sizes.K_h % 2 == 0,
    ),
    (
        "for kernels of even width",
        "for kernels of odd width",
        lambda c: c.sizes.K_w % 2 == 0,
    ),
    ("at stride 1", "at strides above 1", lambda c: c.sizes.stride == (1, 1)),
    ("at dilation 1", "at dilations above 1", lambda c: c.sizes.dilation == (1, 1)),
    ("without padding", "with padding", lambda c: c.sizes.padding == (0, 0)),
    (
        "where an axis is not padded",
        "where both axes are padded",
        lambda c: 0 in c.sizes.padding,
    ),
    ("at equal strides", "at unequal strides", lambda c: equal(c.sizes.stride)),
    ("at equal paddings", "at unequal paddings", lambda c: equal(c.sizes.padding)),
    ("at equal dilations", "at unequal dilations", lambda c: equal(c.sizes.dilation)),
    ("where H = W", "where H and W differ", lambda c: c.sizes.H == c.sizes.W),
    (
        "where H_out = W_out",
        "where H_out and W_out differ",
        lambda c: equal(c.sizes.out),
    ),
    (
        "where C_in = C_out",
        "where C_in and C_out differ",
        lambda c: c.sizes.C_in == c.sizes.C_out,
    ),
    ("where H or W is 1", "where H and W are above 1", lambda c: 1 in c.sizes[7:9]),
)


def equal(pair: tuple[int, int]) -> bool:
    """Whether both axes have the same."""
    return pair[0] == pair[1]


def conditions() -> Iterator[tuple[str, Holds]]:
    """Every condition and its opposite."""
    for is_so, is_not, holds in PATHS:
        yield is_so, holds
        yield is_not, lambda c, f=holds: not f(c)  # type: ignore[misc]


# Sizes from which on another path is taken.
LIMITED: tuple[tuple[str, Callable[[Case], int]], ...] = (
    ("N", lambda c: c.sizes.N),
    ("K_h K_w", lambda c: c.sizes.K_h * c.sizes.K_w),
    ("C_in / groups", lambda c: c.sizes.C_in // max(1, c.sizes.groups)),
    ("C_in / offset_groups", lambda c: c.sizes.C_in // max(1, c.sizes.offset_groups)),
    ("H_out W_out", lambda c: c.sizes.out[0] * c.sizes.out[1]),
)


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
                    f"{text} and {more}",
                    lambda c, f=one, g=other: f(c) and g(c),  # type: ignore[misc]
                )


# Paths that are told beside what a probe saw, where nothing fails elsewhere.
TOLD = (
    *("without a mask", "with a mask", "without a bias", "for one image"),
    *("for one weight group", "for several weight groups", "for one offset group"),
    *("for 1x1 kernels", "for 3x3 kernels", "for kernels other than 3x3"),
    *("for kernels of even height", "for kernels of even width"),
    *("at unequal strides", "at unequal paddings", "at unequal dilations"),
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
            text = f"where {name} >= {low} (up to {max(others)} it is right)"
            yield text, lambda c, f=of, n=low: f(c) >= n  # type: ignore[misc]
        elif min(others) > high:
            text = f"where {name} <= {high} (from {min(others)} on it is right)"
            yield text, lambda c, f=of, n=high: f(c) <= n  # type: ignore[misc]


def limited(m: Mistake, text: str, holds: Holds) -> Mistake:
    """The mistake, made in calls that meet a condition."""

    def when(edit: Callable[[State], None]) -> Callable[[State], None]:
        def edits(s: State) -> None:
            if holds(s.case):
                edit(s)

        return edits

    edits = tuple((step, when(edit)) for step, edit in m.edits)
    said = m.text.split("; ")[0]  # what the definition does is said elsewhere
    return m._replace(name=f"{m.name} {text}", text=f"{text}, {said}", edits=edits)
