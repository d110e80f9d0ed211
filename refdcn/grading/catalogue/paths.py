"""Paths of a kernel: conditions under which alone a listed mistake may be made.

Without a mask, for one group, for 3x3: what a kernel branches on, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import State
from refdcn.grading.expected.case import Case

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


# Paths that are told beside what a probe saw, where nothing fails elsewhere.
TOLD = (
    *("without a mask", "with a mask", "without a bias", "for one image"),
    *("for one weight group", "for several weight groups", "for one offset group"),
    *("for 1x1 kernels", "for 3x3 kernels", "for kernels other than 3x3"),
    *("for kernels of even height", "for kernels of even width"),
    *("at unequal strides", "at unequal paddings", "at unequal dilations"),
)


# Sizes from which on another path is taken.
LIMITED: tuple[tuple[str, Callable[[Case], int]], ...] = (
    ("N", lambda c: c.sizes.N),
    ("K_h K_w", lambda c: c.sizes.K_h * c.sizes.K_w),
    ("C_in / groups", lambda c: c.sizes.C_in // max(1, c.sizes.groups)),
    ("C_in / offset_groups", lambda c: c.sizes.C_in // max(1, c.sizes.offset_groups)),
    ("H_out W_out", lambda c: c.sizes.out[0] * c.sizes.out[1]),
)


def both(text: str, more: str) -> str:
    """Two conditions at once."""
    return f"{text} and {more}"


def from_on(name: str, least: int, most: int) -> str:
    """A size that is larger than where it is right."""
    return f"where {name} >= {least} (up to {most} it is right)"


def up_to(name: str, most: int, least: int) -> str:
    """A size that is smaller than where it is right."""
    return f"where {name} <= {most} (from {least} on it is right)"


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
