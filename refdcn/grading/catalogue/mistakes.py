"""The catalogue: mistakes as edits of operator.py, with the words that name them.

A mistake is caught without this list; it only gives a caught one its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.catalogue.steps import Edit, State, hat
from refdcn.grading.expected.case import Array


class Mistake(NamedTuple):
    """`text` completes "The operator is right except that ..."."""

    kind: str
    name: str
    text: str
    edits: tuple[Edit, ...]


CATALOGUE: list[Mistake] = []


def add(
    kind: str, step: str, name: str, text: str, edit: Callable[[State], Any]
) -> None:
    """Enter one mistake."""
    CATALOGUE.append(Mistake(kind, name, text, ((step, edit),)))


def put(field: str, f: Callable[[State], Any]) -> Callable[[State], None]:
    """An edit that replaces one field of the state."""

    def edit(s: State) -> None:
        setattr(s, field, np.asarray(f(s)))

    return edit


def both(*edits: Callable[[State], None]) -> Callable[[State], None]:
    """Edits one after another."""

    def edit(s: State) -> None:
        for e in edits:
            e(s)

    return edit


# layout -------------------------------------------------------------------------


def split(s: State, *order: str) -> Array:
    """The offset's channels read in another order: g group, i, j tap, d axis."""
    z = s.z
    sizes = {"g": z.offset_groups, "i": z.K_h, "j": z.K_w, "d": 2}
    a = s.offset.reshape(z.N, *(sizes[k] for k in order), *s.out)
    a = a.transpose(0, *(1 + order.index(k) for k in "gijd"), 5, 6)
    return np.asarray(a.reshape(z.N, z.offset_groups, s.K, 2, *s.out))


def tap_major(s: State, a: Array) -> Array:
    """[N, og, K, H_out, W_out] with taps read column by column."""
    N, og, K, *out = a.shape
    return a.reshape(N, og, s.z.K_w, s.z.K_h, *out).swapaxes(2, 3).reshape(a.shape)


def pitched(s: State, planes: Array, pitch: int) -> Array:
    """Planes [..., H_out, W_out] indexed as u * pitch + v in flat memory."""
    h, w = s.out
    u, v = np.indices((h, w))
    flat = np.concatenate([planes.reshape(-1), np.zeros(h * pitch + w)])
    start = np.arange(planes[..., 0, 0].size) * (h * w)
    at = start[:, None, None] + u * pitch + v
    return np.asarray(flat[at].reshape(planes.shape))


def axes(dy: float, dx: float) -> Callable[[State], None]:
    """Offsets multiplied along each axis."""
    return put("dp", lambda s: s.dp * np.array([dy, dx])[:, None, None])


def weight_as(s: State) -> Array:
    """[b, o, c, K_h, K_w]."""
    return np.asarray(s.w.reshape(*s.w.shape[:3], s.z.K_h, s.z.K_w))


def reweigh(f: Callable[[Array], Array]) -> Callable[[State], None]:
    """An edit of the weight's taps."""
    return put("w", lambda s: f(weight_as(s)).reshape(s.w.shape))


def layout(name: str, text: str, edit: Callable[[State], Any]) -> None:
    """A layout mistake: it is made while reading the inputs."""
    add("layout", "read", name, text, edit)


layout(
    "xy",
    "offsets are read as (x, y); the definition is (y, x)",
    put("dp", lambda s: s.dp[:, :, :, ::-1]),
)
layout(
    "planar",
    "offsets are read as all y then all x of a group; the definition "
    "interleaves (y, x) tap by tap",
    put("dp", lambda s: split(s, "g", "d", "i", "j")),
)
layout(
    "planar xy",
    "offsets are read as all x then all y of a group",
    put("dp", lambda s: split(s, "g", "d", "i", "j")[:, :, :, ::-1]),
)
layout(
    "planar all",
    "offsets are read as all y of all groups, then all x",
    put("dp", lambda s: split(s, "d", "g", "i", "j")),
)
layout(
    "planar all xy",
    "offsets are read as all x of all groups, then all y",
    put("dp", lambda s: split(s, "d", "g", "i", "j")[:, :, :, ::-1]),
)
layout(
    "tap before group",
    "offset channels are read as (tap, group, axis); the "
    "definition is (group, tap, axis)",
    put("dp", lambda s: split(s, "i", "j", "g", "d")),
)
layout(
    "offset column-major",
    "offset taps are read column by column; the definition is row-major",
    put("dp", lambda s: split(s, "g", "j", "i", "d")),
)
layout(
    "mask column-major",
    "mask taps are read column by column; the definition is row-major",
    put("m", lambda s: tap_major(s, s.m)),
)
layout(
    "both column-major",
    "offset and mask taps are read column by column",
    both(
        put("dp", lambda s: split(s, "g", "j", "i", "d")),
        put("m", lambda s: tap_major(s, s.m)),
    ),
)
layout(
    "weight column-major",
    "weight taps are read column by column",
    put(
        "w",
        lambda s: (
            s.w.reshape(*s.w.shape[:3], s.z.K_w, s.z.K_h)
            .swapaxes(3, 4)
            .reshape(s.w.shape)
        ),
    ),
)
layout("negated", "offsets are subtracted; the definition adds them", axes(-1, -1))
layout("dy negated", "dy is subtracted; the definition adds it", axes(-1, 1))
layout("dx negated", "dx is subtracted; the definition adds it", axes(1, -1))
layout("dy only", "dx is ignored", axes(1, 0))
layout("dx only", "dy is ignored", axes(0, 1))
layout("no offset", "offsets are ignored: it is a plain convolution", axes(0, 0))
layout("doubled offset", "offsets are doubled", axes(2, 2))
layout("halved offset", "offsets are halved", axes(0.5, 0.5))
layout(
    "offset by dilation",
    "offsets are multiplied by the dilation",
    put("dp", lambda s: s.dp * np.array(s.z.dilation)[:, None, None]),
)
layout(
    "offset by stride",
    "offsets are multiplied by the stride",
    put("dp", lambda s: s.dp * np.array(s.z.stride)[:, None, None]),
)
layout(
    "offset over stride",
    "offsets are divided by the stride",
    put("dp", lambda s: s.dp / np.array(s.z.stride)[:, None, None]),
)
layout(
    "offset by size",
    "offsets are taken as fractions of the image size",
    put("dp", lambda s: s.dp * np.array([s.z.H, s.z.W])[:, None, None]),
)
layout(
    "clipped to 1",
    "offsets are clipped to [-1, 1]",
    put("dp", lambda s: np.clip(s.dp, -1, 1)),
)
layout(
    "clipped to kernel",
    "offsets are clipped to the kernel's size",
    put(
        "dp",
        lambda s: np.clip(
            s.dp,
            *(np.array([[-s.z.K_h, -s.z.K_w], [s.z.K_h, s.z.K_w]])[:, :, None, None]),
        ),
    ),
)
layout("tanh", "offsets pass through tanh", put("dp", lambda s: np.tanh(s.dp)))
layout("offset absolute", "the sign of offsets is lost", put("dp", lambda s: abs(s.dp)))
layout(
    "offset rounded",
    "offsets are rounded to integers",
    put("dp", lambda s: np.round(s.dp)),
)
layout(
    "offset of batch 0",
    "every image uses the offsets of image 0",
    put("dp", lambda s: np.repeat(s.dp[:1], s.z.N, 0)),
)
layout(
    "mask of batch 0",
    "every image uses the mask of image 0",
    put("m", lambda s: np.repeat(s.m[:1], s.z.N, 0)),
)
layout(
    "image of batch 0",
    "every result samples image 0",
    put("x", lambda s: np.repeat(s.x[:1], s.z.N, 0)),
)
layout(
    "offset of group 0",
    "every offset group uses the offsets of group 0",
    put("dp", lambda s: np.repeat(s.dp[:, :1], s.z.offset_groups, 1)),
)
layout(
    "mask of group 0",
    "every offset group uses the mask of group 0",
    put("m", lambda s: np.repeat(s.m[:, :1], s.z.offset_groups, 1)),
)
layout(
    "offset groups reversed",
    "offset groups are read in reverse order",
    both(put("dp", lambda s: s.dp[:, ::-1]), put("m", lambda s: s.m[:, ::-1])),
)
layout(
    "offset taps reversed",
    "offset taps are read in reverse order",
    put("dp", lambda s: s.dp[:, :, ::-1]),
)
layout(
    "mask taps reversed",
    "mask taps are read in reverse order",
    put("m", lambda s: s.m[:, :, ::-1]),
)
layout(
    "offset taps shifted",
    "each tap uses the offset of the next tap",
    put("dp", lambda s: np.roll(s.dp, -1, 2)),
)
layout(
    "mask taps shifted",
    "each tap uses the mask of the next tap",
    put("m", lambda s: np.roll(s.m, -1, 2)),
)
layout(
    "centre offset",
    "every tap uses the centre tap's offset",
    put("dp", lambda s: np.repeat(s.dp[:, :, s.K // 2, None], s.K, 2)),
)
layout(
    "mean offset",
    "every tap uses the mean offset",
    put("dp", lambda s: np.repeat(s.dp.mean(2, keepdims=True), s.K, 2)),
)
layout(
    "offset pitch W",
    "offset planes are indexed with the image's width, not W_out",
    put("dp", lambda s: pitched(s, s.dp, s.z.W)),
)
layout(
    "mask pitch W",
    "mask planes are indexed with the image's width, not W_out",
    put("m", lambda s: pitched(s, s.m, s.z.W)),
)
layout(
    "offset transposed",
    "offset planes are read column by column",
    put(
        "dp",
        lambda s: (
            s.dp.reshape(*s.dp.shape[:4], -1)
            .reshape(*s.dp.shape[:4], *s.out[::-1])
            .swapaxes(-1, -2)
        ),
    ),
)
layout(
    "mask transposed",
    "mask planes are read column by column",
    put("m", lambda s: s.m.reshape(*s.m.shape[:3], *s.out[::-1]).swapaxes(-1, -2)),
)
layout(
    "weight flipped",
    "the weight is flipped in both axes (convolution, not correlation)",
    reweigh(lambda w: w[..., ::-1, ::-1]),
)
layout(
    "weight rows flipped",
    "the weight's rows are flipped",
    reweigh(lambda w: w[..., ::-1, :]),
)
layout(
    "weight columns flipped",
    "the weight's columns are flipped",
    reweigh(lambda w: w[..., ::-1]),
)
layout(
    "weight outputs reversed",
    "output channels are in reverse order within a group",
    put("w", lambda s: s.w[:, ::-1]),
)
layout(
    "weight inputs reversed",
    "input channels are in reverse order within a group",
    put("w", lambda s: s.w[:, :, ::-1]),
)
layout(
    "weight transposed",
    "the weight's axes are read as (input, output)",
    put(
        "w",
        lambda s: s.w.reshape(s.w.shape[0], s.w.shape[2], s.w.shape[1], s.K).swapaxes(
            1, 2
        ),
    ),
)
layout(
    "image transposed",
    "the image's rows and columns are exchanged",
    put("x", lambda s: s.x.reshape(*s.x.shape[:3], s.z.W, s.z.H).swapaxes(-1, -2)),
)

# mask ---------------------------------------------------------------------------


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(a / 2))


def softmax(a: Array) -> Array:
    """Over the taps."""
    e = np.exp(a - a.max(2, keepdims=True))
    return np.asarray(e / e.sum(2, keepdims=True))


def masked(name: str, text: str, f: Callable[[Array], Array]) -> None:
    """A mistake in what becomes of a mask that was given."""
    add(
        "mask",
        "read",
        name,
        text,
        put("m", lambda s: s.m if s.mask is None else f(s.m)),
    )


masked("mask missing", "the mask is ignored", np.ones_like)
masked("mask squared", "the mask is applied twice", np.square)
masked("mask sigmoid", "the mask passes through a sigmoid", sigmoid)
masked("mask 2 sigmoid", "the mask passes through 2 sigmoid", lambda m: 2 * sigmoid(m))
masked("mask softmax", "the mask passes through a softmax over the taps", softmax)
masked("mask clipped", "the mask is clipped to [0, 1]", lambda m: np.clip(m, 0, 1))
masked("mask rectified", "negative masks are 0", lambda m: np.maximum(m, 0))
masked(
    "mask averaged",
    "every tap uses the mean mask",
    lambda m: np.repeat(m.mean(2, keepdims=True), m.shape[2], 2),
)
masked(
    "mask centre",
    "every tap uses the centre tap's mask",
    lambda m: np.repeat(m[:, :, m.shape[2] // 2, None], m.shape[2], 2),
)
masked("mask absolute", "the sign of the mask is lost", np.abs)
masked("mask complement", "1 - mask is used", lambda m: 1 - m)
masked("mask plus one", "1 + mask is used", lambda m: 1 + m)
masked("mask exp", "the mask passes through exp", np.exp)
masked("mask tanh", "the mask passes through tanh", np.tanh)
masked("mask halved", "the mask is halved", lambda m: m / 2)
masked("mask doubled", "the mask is doubled", lambda m: 2 * m)
masked("mask binary", "the mask is compared with 0.5", lambda m: 1.0 * (m > 0.5))
masked("mask negated", "the mask is negated", np.negative)
masked(
    "mask normalised",
    "the mask is divided by its sum over the taps",
    lambda m: m / np.where(m.sum(2, keepdims=True) == 0, 1, m.sum(2, keepdims=True)),
)
add(
    "mask",
    "read",
    "mask none is zero",
    "a mask of None is taken as 0",
    put("m", lambda s: 0 * s.m if s.mask is None else s.m),
)

# geometry -----------------------------------------------------------------------


def windows(**change: Callable[[Any], tuple[float, float]]) -> Callable[[State], None]:
    """Taps laid out with other strides, paddings or dilations."""

    def edit(s: State) -> None:
        z = s.z
        (sy, sx), (py, px), (dy, dx) = (
            change[k](z) if k in change else getattr(z, k)
            for k in ("stride", "padding", "dilation")
        )
        u, v = np.indices(s.out)
        i, j = np.indices((z.K_h, z.K_w)).reshape(2, s.K, 1, 1)
        s.by, s.bx = sy * u - py + dy * i, sx * v - px + dx * j

    return edit


def moved(f: Callable[[State], tuple[Any, Any]]) -> Callable[[State], None]:
    """Taps moved by (rows, columns)."""

    def edit(s: State) -> None:
        dy, dx = f(s)
        s.by, s.bx = s.by + dy, s.bx + dx

    return edit


def geometry(name: str, text: str, edit: Callable[[State], None]) -> None:
    """A mistake in where taps lie."""
    add("geometry", "grid", name, text, edit)


for key in ("stride", "padding", "dilation"):
    geometry(
        f"{key} swapped",
        f"the two {key}s are exchanged",
        windows(**{key: lambda z, k=key: getattr(z, k)[::-1]}),
    )
    geometry(
        f"{key} of rows",
        f"the {key} of the rows is used for both axes",
        windows(**{key: lambda z, k=key: (getattr(z, k)[0],) * 2}),
    )
    geometry(
        f"{key} of columns",
        f"the {key} of the columns is used for both axes",
        windows(**{key: lambda z, k=key: (getattr(z, k)[1],) * 2}),
    )
geometry(
    "dilation ignored", "the dilation is ignored", windows(dilation=lambda z: (1, 1))
)
geometry("padding ignored", "the padding is ignored", windows(padding=lambda z: (0, 0)))
geometry("stride ignored", "the stride is ignored", windows(stride=lambda z: (1, 1)))
geometry(
    "padding doubled",
    "the padding is applied twice",
    windows(padding=lambda z: (2 * z.padding[0], 2 * z.padding[1])),
)
geometry(
    "padding added",
    "the padding is added, not subtracted",
    windows(padding=lambda z: (-z.padding[0], -z.padding[1])),
)
geometry(
    "same padding",
    "the padding is half the kernel, whatever is passed",
    windows(padding=lambda z: (z.K_h // 2, z.K_w // 2)),
)
geometry(
    "stride for dilation",
    "the stride is used as dilation",
    windows(dilation=lambda z: z.stride),
)
geometry(
    "dilation for stride",
    "the dilation is used as stride",
    windows(stride=lambda z: z.dilation),
)
geometry(
    "padding by stride",
    "the padding is multiplied by the stride",
    windows(padding=lambda z: tuple(np.multiply(z.padding, z.stride))),
)
geometry(
    "centred taps",
    "taps are centred on the kernel",
    moved(
        lambda s: (
            -s.z.dilation[0] * ((s.z.K_h - 1) // 2),
            -s.z.dilation[1] * ((s.z.K_w - 1) // 2),
        )
    ),
)
geometry(
    "half pixel", "positions are shifted by half a pixel", moved(lambda s: (0.5, 0.5))
)
geometry(
    "minus half pixel",
    "positions are shifted by minus half a pixel",
    moved(lambda s: (-0.5, -0.5)),
)
geometry("one row late", "positions are one row too low", moved(lambda s: (1, 0)))
geometry(
    "one column late", "positions are one column too far right", moved(lambda s: (0, 1))
)
geometry("one early", "positions are one pixel up and left", moved(lambda s: (-1, -1)))


def tap_exchanged(s: State) -> None:
    """The tap's row steps along columns, and its column along rows."""
    i, j = np.indices((s.z.K_h, s.z.K_w)).reshape(2, s.K, 1, 1)
    s.by = s.by + s.z.dilation[0] * (j - i)
    s.bx = s.bx + s.z.dilation[1] * (i - j)


geometry(
    "taps transposed",
    "the tap's row and column are exchanged in its position",
    tap_exchanged,
)


def exchanged(s: State) -> None:
    """The output's row steps along columns, and its column along rows."""
    u, v = np.indices(s.out)
    s.by = s.by + s.z.stride[0] * (v - u)
    s.bx = s.bx + s.z.stride[1] * (u - v)


geometry(
    "output transposed",
    "the output's row and column are exchanged in positions",
    exchanged,
)


def positions(name: str, text: str, f: Callable[[State], tuple[Any, Any]]) -> None:
    """A mistake in the finished position."""

    def edit(s: State) -> None:
        s.qy, s.qx = f(s)

    add("geometry", "position", name, text, edit)


def corners_scale(q: Array, n: int) -> Array:
    """align_corners mixed up: [0, n - 1] stretched to [0, n]."""
    return np.asarray(q * n / max(n - 1, 1))


positions(
    "align corners",
    "positions are scaled as with the wrong align_corners",
    lambda s: (corners_scale(s.qy, s.z.H), corners_scale(s.qx, s.z.W)),
)
positions(
    "align corners off",
    "positions are scaled and shifted as align_corners=False",
    lambda s: (
        (s.qy * s.z.H / max(s.z.H - 1, 1)) - 0.5,
        (s.qx * s.z.W / max(s.z.W - 1, 1)) - 0.5,
    ),
)
positions(
    "position swapped",
    "the sample is read at (x, y) instead of (y, x)",
    lambda s: (s.qx, s.qy),
)
positions(
    "dilated offset and tap",
    "the offset is dilated with the tap, from the corner",
    lambda s: (
        s.by + s.dp[:, :, :, 0] * s.z.dilation[0] * s.z.stride[0],
        s.bx + s.dp[:, :, :, 1] * s.z.dilation[1] * s.z.stride[1],
    ),
)

# sampling -----------------------------------------------------------------------


def scaled(factors: tuple[Array, Array], by: Array) -> tuple[Array, Array]:
    """Both factors times a number a sample."""
    return factors[0] * by[..., None], factors[1] * by[..., None]


def rekernel(f: Callable[[Array, int], tuple[Array, Array]]) -> Callable[[State], None]:
    """Another pair of (tent, slope) along both axes."""

    def edit(s: State) -> None:
        (s.ty, s.sy), (s.tx, s.sx) = f(s.qy, s.z.H), f(s.qx, s.z.W)

    return edit


def sampling(name: str, text: str, edit: Callable[[State], None]) -> None:
    """A mistake in interpolation or at the border."""
    add("sampling", "kernel", name, text, edit)


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


sampling(
    "clamp",
    "positions outside are clamped to the border; the definition reads 0",
    rekernel(lambda q, n: hat(np.clip(q, 0, n - 1), n)),
)
sampling(
    "clamp low",
    "positions below 0 are clamped to 0",
    rekernel(lambda q, n: hat(np.maximum(q, 0), n)),
)
sampling(
    "clamp high",
    "positions beyond the last pixel are clamped to it",
    rekernel(lambda q, n: hat(np.minimum(q, n - 1), n)),
)
sampling(
    "replicate one",
    "the border is replicated for one pixel outside",
    rekernel(lambda q, n: scaled(hat(np.clip(q, 0, n - 1), n), (q > -1) & (q < n))),
)
sampling(
    "reflect",
    "positions outside are reflected about the border pixel",
    rekernel(lambda q, n: hat(reflect(q, n, 0), n)),
)
sampling(
    "reflect edge",
    "positions outside are reflected about the image's edge",
    rekernel(lambda q, n: hat(reflect(q, n, 0.5), n)),
)
sampling("wrap", "positions outside wrap around", rekernel(wrap))
sampling(
    "truncation",
    "negative positions are truncated towards 0, not rounded down",
    rekernel(with_low(np.trunc)),
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


def one_axis(
    axis: int,
    f: Callable[[Array, int], tuple[Array, Array]],
) -> Callable[[State], None]:
    """Other factors along one axis only."""

    def edit(s: State) -> None:
        if axis == 0:
            s.ty, s.sy = f(s.qy, s.z.H)
        else:
            s.tx, s.sx = f(s.qx, s.z.W)

    return edit


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
sampling(
    "whole sample",
    "a sample is 0 when any corner is outside the image; the "
    "definition drops corner by corner",
    whole(True, True),
)
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
        "sampling",
        "columns",
        f"{names} corner lost",
        f"the {names} corner is not read",
        corner_lost(a, b),
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

# groups and tails ---------------------------------------------------------------


def result(
    name: str,
    text: str,
    f: Callable[[State], Array],
    kind: str = "tails",
    step: str = "finish",
) -> None:
    """A mistake in the finished sum."""
    add(kind, step, name, text, put("y", f))


def part(a: Array, axis: int, first: int) -> Array:
    """Zero from index `first` on along `axis`."""
    b = a.copy()
    b[(slice(None),) * axis + (slice(first, None),)] = 0
    return b


def whole_blocks(n: int, block: int) -> int:
    """n rounded down to a multiple."""
    return n - n % block


def unwritten(axis: int, block: int) -> Callable[[State], Array]:
    """The result without what lies beyond whole blocks of an axis."""
    return lambda s: part(s.y, axis, whole_blocks(s.y.shape[axis], block))


def ended(axis: int, first: int) -> Callable[[State], Array]:
    """The result without what lies from `first` on."""
    return lambda s: part(s.y, axis, first)


def narrowed(block: int) -> Callable[[State], Array]:
    """The columns without the channels beyond whole blocks."""
    return lambda s: part(s.col, 2, whole_blocks(s.col.shape[2], block))


def tails() -> None:
    """Ends of axes that a blocked loop forgets."""
    axes = ("images", "output channels", "output rows", "output columns")
    for axis, what in enumerate(axes):
        for block in (4, 8, 16, 32) if axis else ():
            text = f"{what} beyond the last multiple of {block} are not written"
            result(f"{what} mod {block}", text, unwritten(axis, block))
        text = f"{what} from 32 on are not written"
        result(f"{what} from 32", text, ended(axis, 32))
    for block in (2, 4, 8):
        text = f"input channels beyond the last multiple of {block} of a group are lost"
        name = f"input channels mod {block}"
        add("tails", "columns", name, text, put("col", narrowed(block)))


tails()
add(
    "groups",
    "columns",
    "first channel only",
    "only the first channel of a group is used",
    put("col", lambda s: part(s.col, 2, 1)),
)
add(
    "groups",
    "columns",
    "last tap lost",
    "the last tap is not summed",
    put("col", lambda s: part(s.col, 3, s.K - 1)),
)
add(
    "groups",
    "columns",
    "nine taps",
    "taps beyond the ninth are not summed",
    put("col", lambda s: part(s.col, 3, 9)),
)
add(
    "groups",
    "columns",
    "first tap only",
    "only the first tap is summed",
    put("col", lambda s: part(s.col, 3, 1)),
)


def interleaved(s: State) -> None:
    """Channel c uses offset group c % og instead of c // (C / og)."""
    s.x = s.image.reshape(s.z.N, -1, s.z.offset_groups, s.z.H, s.z.W).swapaxes(1, 2)


def restore(s: State) -> None:
    """The samples of interleaved channels, back in channel order."""
    N, og, C, K, *out = s.S.shape
    S = (s.S * s.m[:, :, None]).swapaxes(1, 2)
    s.col = S.reshape(s.col.shape)


CATALOGUE.append(
    Mistake(
        "groups",
        "offset groups interleaved",
        "channel c uses offset group c % offset_groups; the definition gives each "
        "group a run of channels",
        (("read", interleaved), ("columns", restore)),
    )
)
add(
    "groups",
    "columns",
    "weight groups interleaved",
    "weight group b reads channels b, b + groups, ...; the definition gives it a run",
    put(
        "col",
        lambda s: s.col.reshape(s.z.N, -1, s.z.groups, s.K, *s.out).swapaxes(1, 2),
    ),
)
add(
    "groups",
    "columns",
    "groups ignored",
    "every output reads the channels of group 0",
    put("col", lambda s: np.repeat(s.col[:, :1], s.z.groups, 1)),
)
add(
    "groups",
    "columns",
    "groups reversed",
    "weight groups read channel runs in reverse",
    put("col", lambda s: s.col[:, ::-1]),
)
result(
    "output groups interleaved",
    "output channels of groups are interleaved",
    lambda s: (
        (s.y - s.b[:, None, None])
        .reshape(s.z.N, s.z.groups, -1, *s.out)
        .swapaxes(1, 2)
        .reshape(s.y.shape)
        + s.b[:, None, None]
    ),
    "groups",
)
result(
    "bias missing",
    "the bias is not added",
    lambda s: s.y - s.b[:, None, None],
    "groups",
)
result(
    "bias doubled",
    "the bias is added twice",
    lambda s: s.y + s.b[:, None, None],
    "groups",
)
result(
    "bias per tap",
    "the bias is added once a tap",
    lambda s: s.y + (s.K - 1) * s.b[:, None, None],
    "groups",
)
result(
    "bias negated",
    "the bias is subtracted",
    lambda s: s.y - 2 * s.b[:, None, None],
    "groups",
)
result(
    "bias first only",
    "the first channel's bias is added everywhere",
    lambda s: s.y + (s.b[0] - s.b)[:, None, None],
    "groups",
)
result(
    "bias reversed",
    "the bias is read in reverse order",
    lambda s: s.y + (s.b[::-1] - s.b)[:, None, None],
    "groups",
)
result(
    "bias per group",
    "every group uses the bias of group 0",
    lambda s: (
        s.y + (np.tile(s.b[: s.z.C_out // s.z.groups], s.z.groups) - s.b)[:, None, None]
    ),
    "groups",
)
result("relu", "a relu is left in", lambda s: np.maximum(s.y, 0), "groups")
result(
    "mean of taps",
    "the sum over taps is a mean",
    lambda s: (s.y - s.b[:, None, None]) / s.K + s.b[:, None, None],
    "groups",
)
result(
    "mean of channels",
    "the sum over channels is a mean",
    lambda s: (s.y - s.b[:, None, None]) / s.w.shape[2] + s.b[:, None, None],
    "groups",
)
result("negated result", "the result is negated", lambda s: -s.y, "groups")
result(
    "doubled result",
    "the sum is doubled",
    lambda s: 2 * s.y - s.b[:, None, None],
    "groups",
)
result("batch reversed", "images are in reverse order", lambda s: s.y[::-1], "groups")
result(
    "batch rolled",
    "image n holds the result of image n + 1",
    lambda s: np.roll(s.y, -1, 0),
    "groups",
)
result(
    "columns reversed",
    "output columns are in reverse order",
    lambda s: s.y[..., ::-1],
    "groups",
)
result(
    "rows reversed",
    "output rows are in reverse order",
    lambda s: s.y[..., ::-1, :],
    "groups",
)
result(
    "batch averaged",
    "every image holds the mean over the batch",
    lambda s: np.repeat(s.y.sum(0, keepdims=True) / max(1, s.z.N), s.z.N, 0),
    "groups",
)
result(
    "channels rolled",
    "output channels are shifted by one",
    lambda s: np.roll(s.y, 1, 1),
    "groups",
)

# gradients ----------------------------------------------------------------------


def gradient(of: str, name: str, text: str, f: Callable[[State], Any]) -> None:
    """A mistake in one gradient; the forward result is right."""

    def edit(s: State) -> None:
        s.grads[of] = np.asarray(f(s))

    add("gradients", "backward", f"d {of} {name}", f"the gradient of {of} {text}", edit)


def gm(s: State) -> Array:
    """The gradient of an unmodulated sample."""
    return np.asarray(s.g * s.m[:, :, None])


def over_channels(s: State, g: Array, only: Any = slice(None)) -> Array:
    """d offset with another upstream gradient."""
    from refdcn.grading.catalogue.steps import interpolate

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


everywhere()
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
    "offset", "finite difference", "is a central difference over two pixels", difference
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
    from types import SimpleNamespace

    t = SimpleNamespace(**vars(s))
    windows(**change)(t)
    ty = hat(t.by + s.dp[:, :, :, 0], s.z.H)[0]
    tx = hat(t.bx + s.dp[:, :, :, 1], s.z.W)[0]
    S = np.einsum("ngchw,ngkuvh,ngkuvw->ngckuv", s.x, ty, tx, optimize=True)
    col = (S * s.m[:, :, None]).reshape(s.col.shape)
    return np.asarray(np.einsum("nbouv,nbckuv->bock", s.go, col))


# What a test proves to be one function: a gradient's mistake, and one of the forward
# that is made in this gradient alone.
ALIKE = {
    name: f"{other} in the gradients"
    for name, other in {
        "d offset without mask": "mask missing",
        "d offset mask squared": "mask squared",
        "d offset zero at border": "whole sample",
        "d x without mask": "mask missing",
        "d x nearest": "nearest even",
        "d x floor": "floor",
        "d x clamped": "clamp",
        "d x inside only": "whole sample",
        "d weight without mask": "mask missing",
        "d weight padding of rows": "padding of rows",
        "d weight stride of rows": "stride of rows",
    }.items()
}
