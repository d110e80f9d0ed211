"""Gradients that count their terms wrongly, or add them up in the wrong place.

A term for each image, channel or tap more than once or as a mean; one term instead of
the sum; a pointer that does not advance, so that all is added to, or written over, the
first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdcn.grading.catalogue.gradients import spread_back
from refdcn.grading.catalogue.mistake import Mistake, add
from refdcn.grading.catalogue.steps import State, hat, interpolate
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []


def gradient(of: str, name: str, text: str, f: Callable[[State], Array]) -> None:
    """A mistake in one gradient; the forward result is right."""

    def edit(s: State) -> None:
        s.grads[of] = np.asarray(f(s))

    said = f"the gradient of {of} {text}"
    add(MISTAKES, "gradients", "backward", f"d {of} {name}", said, edit)


# How often terms count -----------------------------------------------------------

COUNTS: dict[str, tuple[str, Callable[[State], int]]] = {
    "image": ("N", lambda s: s.z.N),
    "weight group": ("groups", lambda s: s.z.groups),
    "offset group": ("offset_groups", lambda s: s.z.offset_groups),
    "tap": ("K_h K_w", lambda s: s.K),
}
MEANS: tuple[tuple[str, str, Callable[[State], int]], ...] = (
    ("x", "K_h K_w", lambda s: s.K),
    ("weight", "K_h K_w", lambda s: s.K),
    ("offset", "C_in / offset_groups", lambda s: s.z.C_in // s.z.offset_groups),
    ("bias", "H_out W_out", lambda s: s.out[0] * s.out[1]),
    ("bias", "N H_out W_out", lambda s: s.z.N * s.out[0] * s.out[1]),
    ("weight", "N H_out W_out", lambda s: s.z.N * s.out[0] * s.out[1]),
)


def scaled(of: str, count: Callable[[State], int], power: int) -> Callable[..., Array]:
    """One gradient times a count, or divided by it."""
    return lambda s: s.grads[of] * float(max(1, count(s))) ** power


def counts() -> None:
    """Each gradient, of terms that are counted for something else, or a mean."""
    for of in ("x", "offset", "weight", "mask", "bias"):
        for each, (size, count) in COUNTS.items():
            text = f"is counted once for each {each}: it is {size} times too large"
            gradient(of, f"for each {each}", text, scaled(of, count, 1))
    for of, size, count in MEANS:
        text = f"is a mean, not a sum: it is divided by {size}"
        gradient(of, f"over {size}", text, scaled(of, count, -1))


# One term instead of the sum -----------------------------------------------------

Terms = Callable[[State, Array], Array]


def of_samples(of: str) -> Callable[[State, Array], Array]:
    """A gradient by the gradient of unmodulated samples, or of modulated ones."""

    def x(s: State, g: Array) -> Array:
        return spread_back(s, g * s.m[:, :, None] * s.keep[:, :, None], s.ty, s.tx)

    def offset(s: State, g: Array) -> Array:
        g = g * s.m[:, :, None]
        slopes = interpolate(s, s.sy, s.tx), interpolate(s, s.ty, s.sx)
        return np.stack([(g * d).sum(2) for d in slopes], 3)

    def mask(s: State, g: Array) -> Array:
        return np.asarray((g * s.S).sum(2))

    return {"x": x, "offset": offset, "mask": mask}[of]


def one_output(first: bool) -> Callable[[State], Array]:
    """The gradient of samples from one output channel of each group."""

    def g(s: State) -> Array:
        at = slice(0, 1) if first else slice(-1, None)
        terms = "bock,nbouv->nbckuv"
        found = np.einsum(terms, s.w[:, at], s.go[:, :, at], optimize=True)
        return np.asarray(found.reshape(s.g.shape))

    return g


def one_tap(first: bool) -> Callable[[State], Array]:
    """The gradient of samples of one tap, 0 of the others."""

    def g(s: State) -> Array:
        at, kept = (0 if first else s.K - 1), np.zeros(s.K)
        kept[at] = 1
        return np.asarray(s.g * kept[:, None, None])

    return g


def one_channel(s: State) -> Array:
    """The gradient of samples of an offset group's last channel."""
    g = s.g.copy()
    g[:, :, :-1] = 0
    return np.asarray(g)


def of_last_weight_group(s: State) -> Array:
    """The gradient of samples of each offset group's last weight group."""
    weight_group = np.arange(s.z.C_in) // s.w.shape[2]
    mine = weight_group.reshape(s.z.offset_groups, -1)
    kept = mine == mine[:, -1:]
    return np.asarray(s.g * kept[:, :, None, None, None])


def terms() -> None:
    """The first or last output channel, tap or input channel alone."""
    for of in ("x", "offset", "mask"):
        terms_of = of_samples(of)
        for first in (True, False):
            which = "first" if first else "last"
            text = f"keeps only the term of the {which} output channel of a group"
            made = one_output(first)
            gradient(
                of,
                f"{which} output channel",
                text,
                lambda s, f=terms_of, g=made: f(s, g(s)),  # type: ignore[misc]
            )
        if of != "x":
            text = "keeps only the part of the last weight group that shares an offset "
            text += "group: it is assigned in a loop over weight groups, not added"
            gradient(
                of,
                "last weight group",
                text,
                lambda s, f=terms_of: f(s, of_last_weight_group(s)),  # type: ignore[misc]
            )
        if of == "mask":
            text = "keeps only the last channel's term"
            gradient(
                of,
                "last channel",
                text,
                lambda s, f=terms_of: f(s, one_channel(s)),  # type: ignore[misc]
            )
    text = "has the first tap only: the others are not added"
    gradient(
        "x", "of the first tap", text, lambda s: of_samples("x")(s, one_tap(True)(s))
    )


def of_all_groups(s: State, of: str) -> Array:
    """Every offset group's gradient is the sum over all of them."""
    total = s.grads[of].sum(1, keepdims=True)
    return np.repeat(total, s.z.offset_groups, 1)


def one_for_both(axis: int) -> Callable[[State], Array]:
    """The gradients of dy and dx are both that of one of them."""
    return lambda s: np.repeat(s.grads["offset"][:, :, :, axis : axis + 1], 2, 3)


def by_whole_pixels(rule: Callable[[Array], Array]) -> Callable[[State], Array]:
    """d offset with slopes at a whole place along the other axis."""

    def edit(s: State) -> Array:
        tx, ty = hat(rule(s.qx), s.z.W)[0], hat(rule(s.qy), s.z.H)[0]
        slopes = interpolate(s, s.sy, tx), interpolate(s, ty, s.sx)
        g = s.g * s.m[:, :, None]
        return np.stack([(g * d).sum(2) for d in slopes], 3)

    return edit


def of_offset() -> None:
    """What only offset and mask, or the offset, can have."""
    for of in ("offset", "mask"):
        text = "of each offset group is the sum over all of them"
        gradient(of, "of all groups", text, lambda s, of=of: of_all_groups(s, of))  # type: ignore[misc]
    for axis, (one, other) in enumerate((("dy", "dx"), ("dx", "dy"))):
        text = f"has for {other} that of {one}"
        gradient("offset", f"of {one} for both", text, one_for_both(axis))
    for name, rule in (("floor", np.floor), ("round", np.round)):
        text = (
            f"along one axis is taken at {name}(q) of the other: its fraction is lost"
        )
        gradient("offset", f"at {name} of the other", text, by_whole_pixels(rule))


# Pointers that do not advance ----------------------------------------------------


def by_image(s: State, a: Array) -> Array:
    """Images first."""
    return np.asarray(a.reshape(s.z.N, -1))


def by_offset_group(s: State, a: Array) -> Array:
    """Offset groups first."""
    split = a.reshape(s.z.N, s.z.offset_groups, -1)
    return np.asarray(split.swapaxes(0, 1))


def by_weight_group(s: State, a: Array) -> Array:
    """Weight groups first, of what is [C_out, ...]."""
    return np.asarray(a.reshape(s.z.groups, -1))


def by_channels(s: State, a: Array) -> Array:
    """The channels of weight groups first, of what is [N, C_in, ...]."""
    return np.asarray(a.reshape(s.z.N, s.z.groups, -1).swapaxes(0, 1))


Split = Callable[[State, Array], Array]
AXES: tuple[tuple[str, str, Split], ...] = (
    *((of, "image", by_image) for of in ("x", "offset", "mask")),
    *((of, "offset group", by_offset_group) for of in ("x", "offset", "mask")),
    *((of, "weight group", by_weight_group) for of in ("weight", "bias")),
    ("x", "weight group", by_channels),
)


def joined(s: State, of: str, split: Split, f: Callable[[Array], Array]) -> Array:
    """A gradient whose parts along an axis are changed."""
    found = s.grads[of]
    moved = split(s, found)
    new = np.asarray(f(moved))
    if moved.ndim == 3:  # the axis was the second
        new = new.swapaxes(0, 1)
    return new.reshape(found.shape)


def into_first(a: Array) -> Array:
    """All added to the first, 0 elsewhere."""
    b = np.zeros_like(a)
    b[:1] = a.sum(0)
    return b


def over_first(a: Array) -> Array:
    """The last in the place of the first, 0 elsewhere."""
    b = np.zeros_like(a)
    b[:1] = a[-1:]
    return b


def first_alone(a: Array) -> Array:
    """0 beyond the first."""
    b = a.copy()
    b[1:] = 0
    return b


def last_alone(a: Array) -> Array:
    """0 before the last."""
    b = a.copy()
    b[:-1] = 0
    return b


def first_for_all(a: Array) -> Array:
    """The first everywhere."""
    return np.repeat(a[:1], len(a), 0)


def next_one(a: Array) -> Array:
    """Moved by one."""
    return np.roll(a, -1, 0)


def backwards(a: Array) -> Array:
    """In reverse order."""
    return a[::-1]


WAYS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "added to the first {}": (
        "of every {0} is added to that of the first {0}, and 0 elsewhere",
        into_first,
    ),
    "written over the first {}": (
        "of every {0} is written over that of the first {0}: the last remains there",
        over_first,
    ),
    "of the first {} alone": ("is 0 beyond the first {}", first_alone),
    "of the last {} alone": ("is 0 but for the last {}", last_alone),
    "of the first {} for all": ("is that of the first {} in every one", first_for_all),
    "of the next {}": ("of each {0} is that of the next {0}", next_one),
    "by {} in reverse": ("has its {}s in reverse order", backwards),
}
SEEN = {  # by a probe, which says to which image a gradient goes
    "added to the first {}",
    "written over the first {}",
    "of the next {}",
    "by {} in reverse",
}
NAMED = {  # by older rows
    ("x", "offset group", "of the first {} alone"),
    ("offset", "offset group", "of the first {} alone"),
    ("mask", "offset group", "of the first {} for all"),
    ("weight", "weight group", "of the first {} for all"),
}


def pointers() -> None:
    """Each gradient along each of its axes."""
    for of, what, split in AXES:
        for way, (text, f) in WAYS.items():
            seen = what == "image" and way in SEEN
            if not seen and (of, what, way) not in NAMED:
                gradient(
                    of,
                    way.format(what),
                    text.format(what),
                    lambda s, of=of, by=split, f=f: joined(s, of, by, f),  # type: ignore[misc]
                )


counts()
terms()
of_offset()
pointers()
