"""Mistakes in interpolation and at the border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake, add
from refdcn.grading.catalogue.steps import State, hat
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
Factors = Callable[[Array, int], tuple[Array, Array]]  # (tent, slope) of positions


def scaled(factors: tuple[Array, Array], by: Array) -> tuple[Array, Array]:
    """Both factors times a number a sample."""
    return factors[0] * by[..., None], factors[1] * by[..., None]


@dataclass(frozen=True)
class BothAxes:
    """An edit: another pair of (tent, slope) along both axes."""

    factors: Factors

    def __call__(self, s: State) -> None:
        """Rows and columns."""
        for axis in (0, 1):
            one_axis(axis, self.factors)(s)


def rekernel(f: Factors) -> BothAxes:
    """Another pair of (tent, slope) along both axes."""
    return BothAxes(f)


def one_axis(axis: int, f: Factors) -> Callable[[State], None]:
    """Other factors along one axis only."""

    def edit(s: State) -> None:
        if axis == 0:
            s.ty, s.sy = f(s.qy, s.z.H)
        else:
            s.tx, s.sx = f(s.qx, s.z.W)

    return edit


def sampling(name: str, text: str, edit: Callable[[State], None]) -> None:
    """A mistake in interpolation or at the border."""
    add(MISTAKES, "sampling", "kernel", name, text, edit)


def setattrs(s: State, **values: Array) -> None:
    """Several fields of the state at once."""
    for name, value in values.items():
        setattr(s, name, value)


def with_low(
    low: Callable[[Array], Array],
    shape: Callable[[Array], Array] = lambda t: t,
) -> Callable[[Array, int], tuple[Array, Array]]:
    """Corners at low(q), low(q) + 1 with weights 1 - shape(t), shape(t)."""

    def factors(q: Array, n: int) -> tuple[Array, Array]:
        r, at = np.arange(n), low(q)[..., None]
        t = shape(q - low(q))[..., None]
        first, second = r == at, r == at + 1
        return first * (1 - t) + second * t, 1.0 * second - first

    return factors


def reflect(q: Array, n: int, edge: float) -> Array:
    """q folded back into the image about its border; edge 0 or 0.5."""
    low, high = -edge, n - 1 + edge
    if high <= low:
        return np.zeros_like(q)
    t = np.abs(q - low) % (2 * (high - low))
    folded = low + np.minimum(t, 2 * (high - low) - t)
    return np.asarray(np.clip(folded, 0, n - 1))


def reflected(edge: float) -> Callable[[Array, int], tuple[Array, Array]]:
    """The factors of positions folded back, whose slopes change their sign."""

    def factors(q: Array, n: int) -> tuple[Array, Array]:
        tent, slope = hat(reflect(q, n, edge), n)
        step = 2.0**-20
        moved = reflect(q + step, n, edge) - reflect(q - step, n, edge)
        return tent, slope * np.round(moved / (2 * step), 3)[..., None]

    return factors


def wrap(q: Array, n: int) -> tuple[Array, Array]:
    """Corners taken modulo the size."""
    r, low = np.arange(n), np.floor(q)
    t, at = (q - low)[..., None], low[..., None]
    first, second = r == at % n, r == (at + 1) % n
    return first * (1 - t) + second * t, 1.0 * second - first


def whole(low: bool, high: bool) -> Callable[[State], None]:
    """A sample is 0 when a corner lies below 0 or beyond the last pixel."""

    def edit(s: State) -> None:
        for q, n in ((s.qy, s.z.H), (s.qx, s.z.W)):
            s.keep = s.keep * ~((low & (q < 0)) | (high & (q > n - 1)))

    return edit


def corner_lost(high_y: bool, high_x: bool) -> Callable[[State], None]:
    """One of the four corners is never read."""

    def edit(s: State) -> None:
        full = s.S
        fy = split_corners(s.qy, s.z.H)[int(high_y)]
        fx = split_corners(s.qx, s.z.W)[int(high_x)]
        one = np.einsum("ngchw,ngkuvh,ngkuvw->ngckuv", s.x, fy, fx, optimize=True)
        s.S = full - one
        s.col = (s.S * s.m[:, :, None]).reshape(s.col.shape)

    return edit


def split_corners(q: Array, n: int) -> tuple[Array, Array]:
    """The lower and the upper corner's weight, as factors."""
    r, low = np.arange(n), np.floor(q)[..., None]
    t = q[..., None] - low
    return (r == low) * (1 - t), (r == low + 1) * t


def still(q: Array, inside: Array, n: int) -> tuple[Array, Array]:
    """The factors of positions that were clamped: no slope where they are."""
    tent, slope = hat(inside, n)
    return tent, slope * (q == inside)[..., None]


sampling(
    "clamp",
    "positions outside are clamped to the border; the definition reads 0",
    rekernel(lambda q, n: still(q, np.clip(q, 0, n - 1), n)),
)


def clamped_unpadded(s: State) -> None:
    """A frame of `padding` zeros whose edge is repeated: without one the image's is."""
    at = [
        np.clip(q, 0, n - 1) if padding == 0 else q
        for q, n, padding in zip((s.qy, s.qx), (s.z.H, s.z.W), s.z.padding, strict=True)
    ]
    s.ty, s.sy = still(s.qy, at[0], s.z.H)
    s.tx, s.sx = still(s.qx, at[1], s.z.W)


sampling(
    "clamp unpadded",
    "positions outside are clamped to the border along an axis whose padding is 0; "
    "the definition reads 0",
    clamped_unpadded,
)
sampling(
    "clamp low",
    "positions below 0 are clamped to 0",
    rekernel(lambda q, n: still(q, np.maximum(q, 0), n)),
)
sampling(
    "clamp high",
    "positions beyond the last pixel are clamped to it",
    rekernel(lambda q, n: still(q, np.minimum(q, n - 1), n)),
)
replicated = rekernel(
    lambda q, n: scaled(hat(np.clip(q, 0, n - 1), n), (q > -1) & (q < n))
)
REPLICATED = (
    "the border is replicated for one pixel outside: positions there are moved onto it"
)
sampling("replicate one", REPLICATED, replicated)
sampling(
    "reflect",
    "positions outside are reflected about the border pixel",
    rekernel(reflected(0)),
)
sampling(
    "reflect edge",
    "positions outside are reflected about the image's edge",
    rekernel(reflected(0.5)),
)
sampling("wrap", "positions outside wrap around", rekernel(wrap))
sampling(
    "truncation",
    "negative positions are truncated towards 0, not rounded down",
    rekernel(with_low(np.trunc)),
)
sampling(
    "truncation inside",
    "positions between -1 and 0 are truncated towards 0, and their weights extrapolate",
    lambda s: setattrs(
        s,
        **dict(zip(("ty", "sy"), with_low(np.trunc)(s.qy, s.z.H), strict=True)),
        **dict(zip(("tx", "sx"), with_low(np.trunc)(s.qx, s.z.W), strict=True)),
        keep=s.keep * (s.qy > -1) * (s.qx > -1),
    ),
)


def clamped_index(q: Array, n: int, last: int) -> tuple[Array, Array]:
    """Corners low and low + 1 kept in the image, and the fraction from such a low."""
    low = np.clip(np.floor(q), 0, max(0, last))[..., None]
    t, r = q[..., None] - low, np.arange(n)
    highest = n - 1 if last == n - 1 else n  # of one pixel the upper is outside
    first, second = r == low, r == np.minimum(low + 1, highest)
    return first * (1 - t) + second * t, 1.0 * second - first


sampling(
    "clamped index",
    "indices are clamped into the image and the fraction is that of the clamped one: "
    "outside it extrapolates below 0",
    rekernel(lambda q, n: clamped_index(q, n, n - 1)),
)
sampling(
    "clamped low index",
    "the lower index is clamped to [0, size - 2] and the fraction is that of the "
    "clamped one: outside it extrapolates",
    rekernel(lambda q, n: clamped_index(q, n, n - 2)),
)
sampling(
    "nearest",
    "the nearest pixel is read",
    rekernel(lambda q, n: hat(np.floor(q + 0.5), n)),
)
sampling(
    "nearest even",
    "the nearest pixel is read, halves to even",
    rekernel(lambda q, n: hat(np.round(q), n)),
)
sampling(
    "floor", "the pixel at floor(q) is read", rekernel(lambda q, n: hat(np.floor(q), n))
)
sampling(
    "ceil", "the pixel at ceil(q) is read", rekernel(lambda q, n: hat(np.ceil(q), n))
)
sampling(
    "smoothstep",
    "the interpolation is smoothstep, not linear",
    rekernel(with_low(np.floor, lambda t: t * t * (3 - 2 * t))),
)
sampling(
    "cosine",
    "the interpolation is a cosine, not linear",
    rekernel(with_low(np.floor, lambda t: (1 - np.cos(np.pi * t)) / 2)),
)
sampling(
    "squared fraction",
    "the fraction is squared",
    rekernel(with_low(np.floor, np.square)),
)
sampling(
    "weights swapped",
    "the weights of the lower and upper corner are exchanged",
    rekernel(with_low(np.floor, lambda t: 1 - t)),
)


sampling(
    "row weights swapped",
    "the weights of the upper and lower row are exchanged",
    one_axis(0, with_low(np.floor, lambda t: 1 - t)),
)
sampling(
    "column weights swapped",
    "the weights of the left and right column are exchanged",
    one_axis(1, with_low(np.floor, lambda t: 1 - t)),
)
sampling(
    "nearest row",
    "rows are rounded to the nearest",
    one_axis(0, lambda q, n: hat(np.floor(q + 0.5), n)),
)
sampling(
    "nearest column",
    "columns are rounded to the nearest",
    one_axis(1, lambda q, n: hat(np.floor(q + 0.5), n)),
)
sampling(
    "ceil corner",
    "samples at integer positions vanish: the upper corner is ceil(q)",
    rekernel(lambda q, n: scaled(hat(q, n), q != np.floor(q))),
)
WHOLE = (
    "a sample is 0 when any corner is outside the image; the definition drops corner "
    "by corner"
)
sampling("whole sample", WHOLE, whole(True, True))
ROUNDED = 2.0**-16  # of a size: what a normalised grid can move a position by


def by_grid(
    edit: Callable[[State], None], edges: Callable[[int], tuple[float, ...]]
) -> Callable[[State], None]:
    """A rule that jumps at some positions: there a grid's rounding decides.

    What comes of a sample on an edge is anything.
    """

    def edits(s: State) -> None:
        edit(s)
        for q, n in ((s.qy, s.z.H), (s.qx, s.z.W)):
            on = [np.abs(q - edge) < ROUNDED * (n + 1) for edge in edges(n)]
            s.keep = np.where(np.any(on, axis=0), np.nan, s.keep)

    return edits


def gridded(
    name: str,
    text: str,
    edit: Callable[[State], None],
    edges: Callable[[int], tuple[float, ...]],
) -> None:
    """A mistake of the same words whose edges a grid moves."""
    edits = (("kernel", by_grid(edit, edges)),)
    MISTAKES.append(Mistake("sampling", f"{name}, by a grid", text, edits, True))


def clamped_to_edge(q: Array, n: int) -> tuple[Array, Array]:
    """Positions kept in [-0.5, n - 0.5]; on these limits a grid has either slope."""
    tent, slope = still(q, np.clip(q, -0.5, n - 0.5), n)
    on = [np.abs(q - edge) < ROUNDED * (n + 1) for edge in (-0.5, n - 0.5)]
    return tent, np.where(np.any(on, axis=0)[..., None], np.nan, slope)


MISTAKES.append(
    Mistake(
        "sampling",
        "clamp to the edge",
        "positions are clamped to [-0.5, size - 0.5], the image's edges (a grid to "
        "[-1, 1] with align_corners=False): outside half of the border pixel is read",
        (("kernel", rekernel(clamped_to_edge)),),
        True,
    )
)


def twice_at_border(q: Array, n: int) -> tuple[Array, Array]:
    """Positions and both neighbours clamped, each with the weight 1 - its distance."""
    at, r = np.clip(q, 0, n - 1), np.arange(n)
    low, high = (np.clip(np.floor(q) + k, 0, n - 1) for k in (0, 1))
    one, two = (r == line[..., None] for line in (low, high))
    a, b = (1 - np.abs(at - line)[..., None] for line in (low, high))
    moved = (q == at)[..., None]
    return one * a + two * b, (1.0 * two - one) * moved


def twice_unpadded(s: State) -> None:
    """The same along an axis without padding; with it the frame's edge is 0."""
    axes = zip((s.qy, s.qx), (s.z.H, s.z.W), s.z.padding, strict=True)
    pairs = [twice_at_border(q, n) if p == 0 else hat(q, n) for q, n, p in axes]
    (s.ty, s.sy), (s.tx, s.sx) = pairs


TWICE = (
    "positions and both neighbours are clamped to the border, where both are one pixel "
    "and it counts twice"
)
sampling("clamp, twice at the border", TWICE, rekernel(twice_at_border))
sampling(
    "clamp, twice at the border, unpadded",
    f"{TWICE}, along an axis whose padding is 0",
    twice_unpadded,
)
gridded("whole sample", WHOLE, whole(True, True), lambda n: (0.0, n - 1.0))
gridded("replicate one", REPLICATED, replicated, lambda n: (-1.0, float(n)))
sampling(
    "whole sample low",
    "a sample is 0 when its position is negative",
    whole(True, False),
)
sampling("whole sample high", "a sample is 0 beyond the last pixel", whole(False, True))


def excluded(low: int, high: int) -> Callable[[State], None]:
    """The first or last rows and columns are never read."""

    def edit(s: State) -> None:
        for name, n in (("ty", s.z.H), ("sy", s.z.H), ("tx", s.z.W), ("sx", s.z.W)):
            r = np.arange(n)
            setattr(s, name, getattr(s, name) * ((r >= low) & (r < n - high)))

    return edit


sampling("last row lost", "the last row and column are never read", excluded(0, 1))
sampling("first row lost", "the first row and column are never read", excluded(1, 0))


def end_untold(first: bool) -> Factors:
    """The lower neighbour is not read from the first line, or the upper the last."""

    def factors(q: Array, n: int) -> tuple[Array, Array]:
        low, high = split_corners(q, n)
        r, at = np.arange(n), np.floor(q)[..., None]
        kept = r > 0 if first else r < n - 1
        one, two = 1.0 * (r == at), 1.0 * (r == at + 1)
        if first:
            return low * kept + high, two - one * kept
        return low + high * kept, two * kept - one

    return factors


sampling(
    "lower neighbour at 0 lost",
    "the upper left neighbours are not read from the first row and column: they are "
    "tested with > 0, not >= 0",
    rekernel(end_untold(True)),
)
sampling(
    "upper neighbour at the last lost",
    "the lower right neighbours are not read from the last row and column: they are "
    "tested with < size - 1, not <= size - 1",
    rekernel(end_untold(False)),
)
sampling(
    "inclusive edge",
    "samples in the last partial pixel are 0: q >= size - 1",
    lambda s: setattr(s, "keep", s.keep * (s.qy < s.z.H - 1) * (s.qx < s.z.W - 1)),
)
sampling(
    "exclusive edge",
    "samples at q <= 0 are 0",
    lambda s: setattr(s, "keep", s.keep * (s.qy > 0) * (s.qx > 0)),
)
for names, (a, b) in {
    "top left": (False, False),
    "top right": (False, True),
    "bottom left": (True, False),
    "bottom right": (True, True),
}.items():
    add(
        MISTAKES,
        "sampling",
        "columns",
        f"{names} corner lost",
        f"the {names} corner is not read",
        corner_lost(a, b),
    )
sampling(
    "fractions exchanged",
    "the fractions of row and column are exchanged: two of the four corners have each "
    "other's weight",
    lambda s: setattrs(
        s,
        ty=with_low(np.floor)(np.floor(s.qy) + s.qx - np.floor(s.qx), s.z.H)[0],
        tx=with_low(np.floor)(np.floor(s.qx) + s.qy - np.floor(s.qy), s.z.W)[0],
        keep=s.keep * (s.qy > -1) * (s.qx > -1),
    ),
)
sampling(
    "fractions exchanged, from -1 on",  # where the other's fraction has a weight
    "the fractions of row and column are exchanged: two of the four corners have each "
    "other's weight",
    lambda s: setattrs(
        s,
        ty=with_low(np.floor)(np.floor(s.qy) + s.qx - np.floor(s.qx), s.z.H)[0],
        tx=with_low(np.floor)(np.floor(s.qx) + s.qy - np.floor(s.qy), s.z.W)[0],
        keep=s.keep * (s.qy >= -1) * (s.qx >= -1),
    ),
)
sampling(
    "row fraction for both",
    "the row's fraction is used for both axes",
    lambda s: setattr(
        s, "tx", with_low(np.floor)(np.floor(s.qx) + s.qy - np.floor(s.qy), s.z.W)[0]
    ),
)
sampling(
    "column fraction for both",
    "the column's fraction is used for both axes",
    lambda s: setattr(
        s, "ty", with_low(np.floor)(np.floor(s.qy) + s.qx - np.floor(s.qx), s.z.H)[0]
    ),
)


# The neighbours ------------------------------------------------------------------


def near(q: Array, n: int, factors: tuple[Array, Array]) -> tuple[Array, Array]:
    """Factors of samples that touch the image; others read nothing."""
    return scaled(factors, (q > -1) & (q < n))


def kept_inside(low: bool, high: bool) -> Callable[[Array, int], tuple[Array, Array]]:
    """The neighbours' indices are kept in the image, their weights stay."""

    def factors(q: Array, n: int) -> tuple[Array, Array]:
        r, at = np.arange(n), np.floor(q)[..., None]
        t = q[..., None] - at
        first = np.maximum(at, 0) if low else at
        second = np.minimum(at + 1, n - 1) if high else at + 1
        one, two = r == first, r == second
        return near(q, n, (one * (1 - t) + two * t, 1.0 * two - one))

    return factors


def of_clipped(q: Array, n: int) -> tuple[Array, Array]:
    """Both neighbours are clipped into the image, then weigh by their distances."""
    r = np.arange(n)
    first = np.clip(np.floor(q), 0, n - 1)[..., None]
    second = np.clip(np.floor(q) + 1, 0, n - 1)[..., None]
    one, two = r == first, r == second
    a, b = second - q[..., None], q[..., None] - first
    return one * a + two * b, 1.0 * two - one


def of_clipped_inside(q: Array, n: int) -> tuple[Array, Array]:
    """The same, and neighbours that were outside are dropped."""
    r, low = np.arange(n), np.floor(q)[..., None]
    first, second = np.clip(low, 0, n - 1), np.clip(low + 1, 0, n - 1)
    one, two = r == low, r == low + 1
    a, b = second - q[..., None], q[..., None] - first
    return one * a + two * b, 1.0 * two - one


def cubic(a: float) -> Callable[[Array, int], tuple[Array, Array]]:
    """Four neighbours, with Keys' kernel."""

    def factors(q: Array, n: int) -> tuple[Array, Array]:
        d = q[..., None] - np.arange(n)
        t, sign = np.abs(d), np.sign(d)
        inner = ((a + 2) * t - (a + 3)) * t * t + 1
        outer = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        slope = (3 * (a + 2) * t - 2 * (a + 3)) * t, (3 * a * t - 10 * a) * t + 8 * a
        value = np.where(t <= 1, inner, np.where(t < 2, outer, 0))
        return value, sign * np.where(t <= 1, slope[0], np.where(t < 2, slope[1], 0))

    return factors


for which, low, high in (
    ("the first row and column", True, False),
    ("the last row and column", False, True),
):
    sampling(
        f"neighbour kept at {which}",
        f"a neighbour outside the image is clamped to {which}, within a pixel of it; "
        "the definition reads 0",
        rekernel(kept_inside(low, high)),
    )
sampling(
    "weights of clipped neighbours",
    "a sample is 0 at the last row and column and wherever a neighbour is outside the "
    "image, as of neighbours that are clipped before they are weighed",
    rekernel(of_clipped),
)
sampling(
    "weights of clipped neighbours, inside",
    "a neighbour weighs by its distance from the other after that is clipped into the "
    "image: within a pixel outside the border's weight is 0 or less",
    rekernel(of_clipped_inside),
)


def rounded_low(
    rule: Callable[[Array], Array], touching: bool
) -> Callable[[Array, int], tuple[Array, Array]]:
    """The lower neighbour by a rule; `touching`: samples that touch the image alone."""

    def factors(q: Array, n: int) -> tuple[Array, Array]:
        found = with_low(rule)(q, n)
        return near(q, n, found) if touching else found

    return factors


for name, rule in (("round", np.round), ("half up", lambda q: np.floor(q + 0.5))):
    for touching in (False, True):
        said = ", and samples a pixel outside are 0" if touching else ""
        sampling(
            f"lower neighbour by {name}" + " near" * touching,
            "the lower neighbour is found by rounding to the nearest, not by floor: "
            f"for fractions above one half the weights extrapolate{said}",
            rekernel(rounded_low(rule, touching)),
        )


def of_lower(
    low: Callable[[Array, int], Array], fraction: Callable[[Array], Array], most: bool
) -> Callable[[Array, int], tuple[Array, Array]]:
    """The lower neighbour by one rule, the fraction by another; `most`: the upper is
    the last pixel at most."""

    def factors(q: Array, n: int) -> tuple[Array, Array]:
        r, at, t = np.arange(n), low(q, n)[..., None], fraction(q)[..., None]
        one = r == at
        two = r == (np.minimum(at + 1, n - 1) if most else at + 1)
        return one * (1 - t) + two * t, 1.0 * two - one

    return factors


def part_of(q: Array) -> Array:
    """By floor."""
    return np.asarray(q - np.floor(q))


def truncated(q: Array, n: int) -> Array:
    """Toward 0, whatever the size."""
    return np.asarray(np.trunc(q))


def clamped_low(q: Array, n: int) -> Array:
    """Not below the first pixel."""
    return np.maximum(np.floor(q), 0)


def clamped_into(q: Array, n: int) -> Array:
    """In the image."""
    return np.asarray(np.clip(np.floor(q), 0, n - 1))


OF_LOWER = (
    (
        "by truncation",
        "the lower neighbour is found by truncation towards 0, the fraction by floor",
        of_lower(truncated, part_of, False),
        False,
    ),
    (
        "by truncation, absolute fraction",
        "negative positions are truncated towards 0, and the fraction loses its sign",
        of_lower(truncated, lambda q: abs(q - np.trunc(q)), False),
        False,
    ),
    (
        "by truncation, absolute fraction, near",
        "positions between -1 and 0 are truncated towards 0, and the fraction loses "
        "its sign",
        of_lower(truncated, lambda q: abs(q - np.trunc(q)), False),
        True,
    ),
    (
        "0 at least, near",
        "between -1 and 0 the lower neighbour is pixel 0 (truncated or clamped), the "
        "upper pixel 1; the fraction is by floor",
        of_lower(clamped_low, part_of, False),
        True,
    ),
    (
        "0 at least",
        "the lower neighbour is clamped to pixel 0 and the upper is one more; the "
        "fraction is not the clamped one's",
        of_lower(clamped_low, part_of, False),
        False,
    ),
    (
        "clamped, near",
        "within a pixel of the image the lower neighbour is clamped into it and the "
        "upper is one more, or the last; the fraction stays",
        of_lower(clamped_into, part_of, True),
        True,
    ),
    (
        "clamped",
        "the lower neighbour is clamped into the image and the upper is one more, or "
        "the last; the fraction stays",
        of_lower(clamped_into, part_of, True),
        False,
    ),
)
for name, text, factors, touching in OF_LOWER:
    sampling(
        f"lower neighbour {name}",
        text,
        rekernel(
            lambda q, n, f=factors, touch=touching: (  # type: ignore[misc]
                near(q, n, f(q, n)) if touch else f(q, n)
            )
        ),
    )


def floored_outside(q: Array, n: int) -> tuple[Array, Array]:
    """Positions outside, within a pixel, floored."""
    return hat(np.where((q > n - 1) | (q < 0), np.floor(q), q), n)


sampling(
    "floored outside",
    "positions outside, within a pixel of the image, are floored: the last pixel has "
    "all the weight, below 0 nothing is read",
    rekernel(floored_outside),
)
WHOLE_PIXELS: dict[str, Callable[[Array], Array]] = {
    "floored": np.floor,  # and so truncated, as what is below 0 is clamped
    "rounded to the nearest": np.round,
    "rounded half up": lambda q: np.floor(q + 0.5),
}
for name, rule in WHOLE_PIXELS.items():
    sampling(
        f"{name} and clamped",
        f"positions are {name} and clamped to the border: one pixel is read, outside "
        "the image, too",
        rekernel(lambda q, n, f=rule: still(q, np.clip(f(q), 0, n - 1), n)),  # type: ignore[misc]
    )
sampling(
    "truncated position",
    "the pixel at int(q), truncated towards 0, is read",
    rekernel(lambda q, n: hat(np.trunc(q), n)),
)
for keys in (-0.5, -0.75):
    sampling(
        f"bicubic {keys}",
        f"the interpolation is bicubic (a = {keys}), not bilinear",
        rekernel(cubic(keys)),
    )


def within_reach(reach: float) -> Callable[[State], None]:
    """Samples that their offsets move further read nothing."""

    def edit(s: State) -> None:
        dy, dx = s.qy - s.by, s.qx - s.bx
        far = np.maximum(np.abs(dy), np.abs(dx))
        s.keep = s.keep * (far <= reach)

    return edit


for reach in (1, 2, 4, 8, 16):
    sampling(
        f"reach {reach}",
        f"samples that an offset moves by more than {reach} "
        f"{'pixels' if reach > 1 else 'pixel'} are 0",
        within_reach(reach),
    )
