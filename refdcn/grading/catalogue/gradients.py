"""Mistakes in one gradient; the forward result is right."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from refdcn.grading.catalogue.geometry import windows
from refdcn.grading.catalogue.groups import part
from refdcn.grading.catalogue.mistake import Mistake, add
from refdcn.grading.catalogue.sampling import kept_inside
from refdcn.grading.catalogue.steps import State, hat, interpolate
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []


def gradient(of: str, name: str, text: str, f: Callable[[State], Any]) -> None:
    """A mistake in one gradient; the forward result is right."""

    def edit(s: State) -> None:
        s.grads[of] = np.asarray(f(s))

    add(
        MISTAKES,
        "gradients",
        "backward",
        f"d {of} {name}",
        f"the gradient of {of} {text}",
        edit,
    )


def gm(s: State) -> Array:
    """The gradient of an unmodulated sample."""
    return np.asarray(s.g * s.m[:, :, None])


def over_channels(s: State, g: Array, only: Any = slice(None)) -> Array:
    """d offset with another upstream gradient."""
    slopes = interpolate(s, s.sy, s.tx), interpolate(s, s.ty, s.sx)
    return np.stack([(g * d)[:, :, only].sum(2) for d in slopes], 3)


def spread_back(s: State, g: Array, ty: Array, tx: Array) -> Array:
    """d x with other factors."""
    factors = "ngckuv,ngkuvh,ngkuvw->ngchw"
    return np.asarray(np.einsum(factors, g, ty, tx, optimize=True))


def times(of: str, factor: float) -> Callable[[State], Any]:
    """One gradient multiplied by a number."""
    return lambda s: factor * s.grads[of]


def everywhere() -> None:
    """Mistakes that any gradient can have."""
    ways = (("zero", "0", 0), ("negated", "negated", -1), ("doubled", "doubled", 2))
    for of in ("x", "offset", "weight", "mask", "bias"):
        for name, text, factor in (*ways, ("halved", "halved", 0.5)):
            gradient(of, name, f"is {text}", times(of, factor))


def pitched_back(s: State) -> Array:
    """d x added up in rows of H pixels; what leaves the memory is lost."""
    g = s.grads["x"]
    plane, r, q = np.indices((g.size // (s.z.H * s.z.W), s.z.H, s.z.W))
    at = (plane * s.z.H * s.z.W + r * s.z.H + q).reshape(g.shape)
    into, there = np.zeros(g.size), at < g.size
    np.add.at(into, at[there], g[there])
    return into


everywhere()
gradient(
    "x", "pitch H", "is added to rows of H pixels, the height, not W", pitched_back
)
gradient(
    "mask",
    "without weight",
    "lacks the weight",
    lambda s: (s.S * s.go.sum((1, 2))[:, None, None, None]).sum(2),
)
gradient(
    "mask",
    "without grad_y",
    "lacks grad_y",
    lambda s: (
        s.S
        * np.einsum("bock->bck", s.w).reshape(s.z.offset_groups, -1, s.K)[
            None, :, :, :, None, None
        ]
    ).sum(2),
)
gradient(
    "mask", "times mask", "is multiplied by the mask", lambda s: s.grads["mask"] * s.m
)
gradient(
    "mask",
    "first channel",
    "uses the first channel only",
    lambda s: (s.g * s.S)[:, :, 0],
)
gradient(
    "mask",
    "of group 0",
    "is that of offset group 0 in every group",
    lambda s: np.repeat(s.grads["mask"][:, :1], s.z.offset_groups, 1),
)
gradient(
    "mask",
    "mean",
    "is a mean over channels, not a sum",
    lambda s: s.grads["mask"] / s.S.shape[2],
)
gradient(
    "offset",
    "swapped",
    "is written as (x, y); the definition is (y, x)",
    lambda s: s.grads["offset"][:, :, :, ::-1],
)
gradient(
    "offset",
    "planar",
    "is written as all y then all x",
    lambda s: s.grads["offset"].swapaxes(2, 3).reshape(s.grads["offset"].shape),
)


def along(name: str, text: str, f: Callable[[State], tuple[float, float]]) -> None:
    """The gradients of dy and of dx, each times a number."""

    def edit(s: State) -> None:
        s.grads["offset"] = s.grads["offset"] * np.array(f(s))[:, None, None]

    add(MISTAKES, "gradients", "backward", f"d offset {name}", text, edit)


GRID = "as of a normalised grid"
along("dy negated", "the gradient of dy is negated", lambda s: (-1, 1))
along("dx negated", "the gradient of dx is negated", lambda s: (1, -1))
along(
    "by half size",
    f"the gradient of offset is multiplied by H / 2 and W / 2, {GRID}",
    lambda s: (s.z.H / 2, s.z.W / 2),
)
along(
    "by half frame",
    f"the gradient of offset is multiplied by (H - 1) / 2 and (W - 1) / 2, {GRID}",
    lambda s: ((s.z.H - 1) / 2, (s.z.W - 1) / 2),
)
along(
    "over half size",
    f"the gradient of offset is divided by H / 2 and W / 2, {GRID}",
    lambda s: (2 / s.z.H, 2 / s.z.W),
)
along(
    "by other half size",
    "the gradient of offset is multiplied by W / 2 along rows and H / 2 along columns",
    lambda s: (s.z.W / 2, s.z.H / 2),
)
along(
    "of grid sizes exchanged",
    "the gradient of offset is multiplied by H / W along rows and W / H along columns: "
    "a grid's H and W are exchanged",
    lambda s: (s.z.H / s.z.W, s.z.W / s.z.H),
)
along(
    "of grid sizes exchanged back",
    "the gradient of offset is multiplied by W / H along rows and H / W along columns: "
    "a grid's H and W are exchanged",
    lambda s: (s.z.W / s.z.H, s.z.H / s.z.W),
)
along(
    "of a frame for a size",
    "the gradient of offset is multiplied by (H - 1) / H and (W - 1) / W: an "
    "align_corners mismatch",
    lambda s: ((s.z.H - 1) / s.z.H, (s.z.W - 1) / s.z.W),
)
along(
    "of a size for a frame",
    "the gradient of offset is multiplied by H / (H - 1) and W / (W - 1): an "
    "align_corners mismatch",
    lambda s: (s.z.H / max(1, s.z.H - 1), s.z.W / max(1, s.z.W - 1)),
)
gradient("offset", "without mask", "lacks the mask", lambda s: over_channels(s, s.g))
gradient(
    "offset",
    "mask squared",
    "has the mask twice",
    lambda s: over_channels(s, gm(s) * s.m[:, :, None]),
)
gradient(
    "offset",
    "first channel",
    "uses the first channel only",
    lambda s: over_channels(s, gm(s), slice(0, 1)),
)
gradient(
    "offset",
    "last channel",
    "keeps only the last channel's term",
    lambda s: over_channels(s, gm(s), slice(-1, None)),
)
gradient(
    "offset",
    "by stride",
    "is multiplied by the stride",
    lambda s: s.grads["offset"] * np.array(s.z.stride)[:, None, None],
)
gradient(
    "offset",
    "by dilation",
    "is multiplied by the dilation",
    lambda s: s.grads["offset"] * np.array(s.z.dilation)[:, None, None],
)
gradient(
    "offset",
    "of group 0",
    "is 0 beyond offset group 0",
    lambda s: part(s.grads["offset"], 1, 1),
)
gradient(
    "offset",
    "rows only",
    "is 0 along columns",
    lambda s: s.grads["offset"] * np.array([1, 0])[:, None, None],
)
gradient(
    "offset",
    "columns only",
    "is 0 along rows",
    lambda s: s.grads["offset"] * np.array([0, 1])[:, None, None],
)
gradient(
    "offset",
    "nan at integers",
    "is NaN at integer positions",
    lambda s: np.where(
        np.stack([s.qy == np.floor(s.qy), s.qx == np.floor(s.qx)], 3),
        np.nan,
        s.grads["offset"],
    ),
)


def inside(s: State) -> Array:
    """Whether all four corners lie in the image: [N, og, K, 1, H_out, W_out]."""
    ok = (s.qy >= 0) & (s.qy <= s.z.H - 1) & (s.qx >= 0) & (s.qx <= s.z.W - 1)
    return np.asarray(ok[:, :, :, None])


def difference(s: State) -> Array:
    """Half of S(q + 1) - S(q - 1) along each axis."""
    found = []
    for axis in (0, 1):
        ends = []
        for step in (-1.0, 1.0):
            ty = hat(s.qy + step * (axis == 0), s.z.H)[0]
            tx = hat(s.qx + step * (axis == 1), s.z.W)[0]
            ends.append(
                np.einsum("ngchw,ngkuvh,ngkuvw->ngckuv", s.x, ty, tx, optimize=True)
            )
        found.append((gm(s) * (ends[1] - ends[0]) / 2).sum(2))
    return np.stack(found, 3)


gradient(
    "offset",
    "zero at border",
    "is 0 where a corner is outside the image",
    lambda s: s.grads["offset"] * inside(s),
)
gradient(
    "offset",
    "zero beyond neighbours",
    "is 0 wherever one of the four neighbours is outside the image, at the last row "
    "and column, too",
    lambda s: (
        s.grads["offset"]
        * inside(s)
        * ((s.qy < s.z.H - 1) & (s.qx < s.z.W - 1))[:, :, :, None]
    ),
)
gradient(
    "x",
    "inside neighbours only",
    "is 0 from samples of which one of the four neighbours is outside the image, at "
    "the last row and column, too",
    lambda s: spread_back(
        s,
        gm(s)
        * inside(s).swapaxes(2, 3)
        * ((s.qy < s.z.H - 1) & (s.qx < s.z.W - 1))[:, :, None],
        s.ty,
        s.tx,
    ),
)
gradient(
    "offset", "finite difference", "is a central difference over two pixels", difference
)


def of_kept(low: bool, high: bool, touching: bool) -> Callable[[State], Array]:
    """d offset of neighbours that are kept in the image, of samples that touch it."""

    def edit(s: State) -> Array:
        pairs = []
        for q, n in ((s.qy, s.z.H), (s.qx, s.z.W)):
            at = q if touching else np.clip(q, -1 + TINY, n - TINY)
            pairs.append(kept_inside(low, high)(at, n))
        (ty, sy), (tx, sx) = pairs
        slopes = interpolate(s, sy, tx), interpolate(s, ty, sx)
        return np.stack([(gm(s) * d).sum(2) for d in slopes], 3)

    return edit


TINY = 2.0**-30
for which, low, high in (
    ("the border", True, True),
    ("the first row and column", True, False),
    ("the last row and column", False, True),
):
    gradient(
        "offset",
        f"of neighbours clamped to {which}",
        f"reads a neighbour outside the image as {which}, not as 0",
        of_kept(low, high, True),
    )
gradient(
    "offset",
    "of neighbours clamped everywhere",
    "reads neighbours outside the image as its border, however far they are, not as 0",
    of_kept(True, True, False),
)


def across_border(s: State) -> Array:
    """d offset whose differences are of pixels clamped along their own axis alone."""
    pairs = [kept_inside(True, True)(q, n) for q, n in ((s.qy, s.z.H), (s.qx, s.z.W))]
    slopes = interpolate(s, pairs[0][1], s.tx), interpolate(s, s.ty, pairs[1][1])
    return np.stack([(gm(s) * d).sum(2) for d in slopes], 3)


gradient(
    "offset",
    "of differences clamped to the border",
    "takes differences of pixels clamped to the border along their axis: across the "
    "border, where one neighbour is 0, it is 0",
    across_border,
)
gradient(
    "x", "without mask", "lacks the mask", lambda s: spread_back(s, s.g, s.ty, s.tx)
)
gradient(
    "x",
    "nearest",
    "goes to the nearest pixel only",
    lambda s: spread_back(
        s, gm(s), hat(np.round(s.qy), s.z.H)[0], hat(np.round(s.qx), s.z.W)[0]
    ),
)
gradient(
    "x",
    "floor",
    "goes to the pixel at floor(q) only",
    lambda s: spread_back(
        s, gm(s), hat(np.floor(s.qy), s.z.H)[0], hat(np.floor(s.qx), s.z.W)[0]
    ),
)
gradient(
    "x",
    "clamped",
    "is clamped onto the border",
    lambda s: spread_back(
        s,
        gm(s),
        hat(np.clip(s.qy, 0, s.z.H - 1), s.z.H)[0],
        hat(np.clip(s.qx, 0, s.z.W - 1), s.z.W)[0],
    ),
)
gradient(
    "x",
    "first tap",
    "has the last tap only: taps overwrite each other",
    lambda s: spread_back(s, gm(s)[:, :, :, -1:], s.ty[:, :, -1:], s.tx[:, :, -1:]),
)
gradient(
    "x", "of group 0", "is 0 beyond offset group 0", lambda s: part(s.grads["x"], 1, 1)
)
gradient(
    "x",
    "inside only",
    "is 0 from samples with a corner outside",
    lambda s: spread_back(s, gm(s) * inside(s).swapaxes(2, 3), s.ty, s.tx),
)
gradient(
    "x",
    "transposed",
    "has rows and columns exchanged",
    lambda s: s.grads["x"].swapaxes(-1, -2).reshape(s.grads["x"].shape),
)
gradient(
    "x",
    "batch rolled",
    "is that of the next image",
    lambda s: np.roll(s.grads["x"], -1, 0),
)
gradient(
    "weight",
    "without mask",
    "lacks the mask",
    lambda s: np.einsum("nbouv,nbckuv->bock", s.go, s.S.reshape(s.col.shape)),
)
gradient(
    "weight",
    "mean",
    "is a mean over the batch, not a sum",
    lambda s: s.grads["weight"] / max(1, s.z.N),
)
gradient(
    "weight",
    "mean of places",
    "is a mean over output pixels",
    lambda s: s.grads["weight"] / (s.out[0] * s.out[1]),
)
gradient(
    "weight",
    "column-major",
    "has its taps column by column",
    lambda s: (
        s.grads["weight"]
        .reshape(*s.w.shape[:3], s.z.K_h, s.z.K_w)
        .swapaxes(3, 4)
        .reshape(s.w.shape)
    ),
)
gradient(
    "weight",
    "flipped",
    "has its taps in reverse order",
    lambda s: s.grads["weight"][..., ::-1],
)
gradient(
    "weight",
    "last image",
    "is that of the last image only",
    lambda s: np.einsum("nbouv,nbckuv->bock", s.go[-1:], s.col[-1:]),
)
gradient(
    "weight",
    "first image",
    "is that of the first image only",
    lambda s: np.einsum("nbouv,nbckuv->bock", s.go[:1], s.col[:1]),
)
gradient(
    "weight",
    "group 0",
    "is that of group 0 in every group",
    lambda s: np.repeat(s.grads["weight"][:1], s.z.groups, 0),
)
gradient(
    "weight",
    "padding of rows",
    "uses the padding of the rows for both axes",
    lambda s: _other_window(s, padding=lambda z: (z.padding[0],) * 2),
)
gradient(
    "weight",
    "stride of rows",
    "uses the stride of the rows for both axes",
    lambda s: _other_window(s, stride=lambda z: (z.stride[0],) * 2),
)
gradient(
    "bias",
    "mean",
    "is a mean over the batch",
    lambda s: s.grads["bias"] / max(1, s.z.N),
)
gradient(
    "bias",
    "first image",
    "is that of the first image",
    lambda s: s.go[:1].sum((0, 3, 4)).reshape(-1),
)
gradient(
    "bias",
    "one place",
    "is that of the first output pixel",
    lambda s: s.go[..., 0, 0].sum(0).reshape(-1),
)


def _other_window(s: State, **change: Any) -> Array:
    """d weight with the taps laid out otherwise."""
    t = SimpleNamespace(**vars(s))
    windows(**change)(t)
    ty = hat(t.by + s.dp[:, :, :, 0], s.z.H)[0]
    tx = hat(t.bx + s.dp[:, :, :, 1], s.z.W)[0]
    S = np.einsum("ngchw,ngkuvh,ngkuvw->ngckuv", s.x, ty, tx, optimize=True)
    col = (S * s.m[:, :, None]).reshape(s.col.shape)
    return np.asarray(np.einsum("nbouv,nbckuv->bock", s.go, col))


def corner_sign(axis: int, high_y: bool, high_x: bool) -> Callable[[State], Array]:
    """d offset with one corner's share of one slope of the other sign."""

    def edit(s: State) -> Array:
        pair = [np.floor(q)[..., None] for q in (s.qy, s.qx)]
        corner = []
        for low, high, n in zip(pair, (high_y, high_x), (s.z.H, s.z.W), strict=True):
            corner.append(np.arange(n) == low + high)
        own = (s.sy, s.tx) if axis == 0 else (s.ty, s.sx)
        share = interpolate(s, own[0] * corner[0], own[1] * corner[1])
        found = s.grads["offset"].copy()
        found[:, :, :, axis] -= 2 * (gm(s) * share).sum(2)
        return np.asarray(found)

    return edit


for axis, name in enumerate(("dy", "dx")):
    for high_y, high_x in np.ndindex(2, 2):
        where = f"{('upper', 'lower')[high_y]} {('left', 'right')[high_x]} corner"
        gradient(
            "offset",
            f"of {name} with the {where} negated",
            f"has the share of the {where} in {name} with the wrong sign",
            corner_sign(axis, bool(high_y), bool(high_x)),
        )
