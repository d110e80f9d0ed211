"""Probes: calls whose answers name what was read, with no list of mistakes.

The operator is linear in x, in w and in m, so identity weights turn a candidate
into an extractor of its own samples, and unique values in an input name the
element that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import Array, Case, Sizes, base, offset_shape
from refdcn.grading.questions.draw import landing

Call = Callable[[Case], Array | None]


COARSEST = 2.0**-7  # relative, of a number cut to the 8 bits of bfloat16


class Fact(NamedTuple):
    """What one probe recovered."""

    topic: str
    right: bool
    text: str


def image_case(
    sizes: Sizes,
    dtype: str,
    x: Array,
    offset: Array | None = None,
    mask: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
) -> Case:
    """A case with zero offsets, no mask and identity weights unless given."""
    N, og, K, _, *out = offset_shape(sizes)
    C = sizes.C_in // sizes.groups
    if weight is None:
        weight = np.eye(C * K).reshape(C * K, C, sizes.K_h, sizes.K_w)
    if offset is None:
        offset = np.zeros((N, og * K * 2, *out))
    m, b = (None if a is None else a.astype(dtype) for a in (mask, bias))
    x, offset, weight = (a.astype(dtype) for a in (x, offset, weight))
    windows = sizes.stride, sizes.padding, sizes.dilation
    return Case("probe", "bound", x, offset, weight, m, b, *windows)


# Uneven everywhere, so that no two axes can be mistaken for each other.
WIDE = Sizes(2, 6, 36, 1, 2, 2, 3, 24, 30, (2, 3), (1, 2), (3, 2))
NEAR = 40  # pixels from the origin
MOST_IMAGES = 8  # of an answer with all taps of all channels
NAMES = {
    "offset": ("image", "offset group", "tap", "axis", "output row", "output column"),
    "mask": ("image", "offset group", "tap", "output row", "output column"),
    "weight": ("output channel", "input channel", "tap"),
    "bias": ("output channel",),
    "x": ("image", "channel"),
}


def planes(sizes: Sizes) -> Array:
    """Each offset group's channels are 1, h, w."""
    h, w = np.indices((sizes.H, sizes.W)).astype(float)
    one = np.stack([np.ones_like(h), h, w])
    x = np.tile(one, (sizes.N, sizes.offset_groups, 1, 1))
    return x.reshape(sizes.N, sizes.C_in, sizes.H, sizes.W)


class Tomography(NamedTuple):
    """[N, offset_groups, K, H_out, W_out]: what each sample is and where."""

    coverage: Array
    rows: Array
    columns: Array
    safe: Array  # samples that lie inside, by the definition and as found


def tomography(
    call: Call, dtype: str, sizes: Sizes = WIDE, **inputs: Any
) -> Tomography | None:
    """Recover coverage and position of every sample in one call."""
    y = call(image_case(sizes, dtype, planes(sizes), **inputs))
    if y is None or y.shape[1] != sizes.C_out:
        return None
    N, og, K, _, *out = offset_shape(sizes)
    one, h, w = y.reshape(N, og, 3, K, *out).astype(float).transpose(2, 0, 1, 3, 4, 5)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows, columns = h / one, w / one
    by, bx = (np.broadcast_to(a, one.shape) for a in base(sizes))
    safe = (by >= 3) & (by <= sizes.H - 5) & (bx >= 3) & (bx <= sizes.W - 5)
    found = np.isfinite(rows) & np.isfinite(columns) & (np.abs(one) > 1e-3)
    return Tomography(one, rows, columns, safe & found)


def taps(call: Call, dtype: str) -> list[Fact]:
    """The same for kernels of several sizes, which may take several paths."""
    facts: list[Fact] = []
    for K_h, K_w in ((2, 3), (3, 3), (1, 1), (5, 2)):
        sizes = WIDE._replace(K_h=K_h, K_w=K_w, C_out=6 * K_h * K_w)
        found = tap_positions(call, dtype, sizes)
        if (K_h, K_w) != (2, 3):
            found = [f for f in found if not f.right]
        facts += found
        if not all(f.right for f in facts):
            break
    return facts


def tap_positions(call: Call, dtype: str, sizes: Sizes) -> list[Fact]:
    """Fit the zero-offset positions: their stride, padding and dilation."""
    seen = tomography(call, dtype, sizes)
    if seen is None or not seen.safe.any():
        return []
    _, _, _, u, v = np.indices(seen.rows.shape)
    i, j = np.divmod(np.indices(seen.rows.shape)[2], sizes.K_w)
    terms = np.stack([np.ones_like(u), u, v, i, j], -1)[seen.safe]
    facts = []
    wants = zip(("row", "column"), seen[1:3], base(sizes), strict=True)
    for axis, (name, got, want) in enumerate(wants):
        want = np.broadcast_to(want, got.shape)
        if np.allclose(got[seen.safe], want[seen.safe], atol=1e-3):
            facts.append(Fact(f"{name} of taps", True, f"{name}s of taps are right"))
            continue
        fit, *_ = np.linalg.lstsq(terms, got[seen.safe], rcond=None)
        left = np.abs(terms @ fit - got[seen.safe]).max()
        right = sizes.stride[axis], sizes.padding[axis], sizes.dilation[axis]
        says = f"{right[0]} o{'hw'[axis]} - {right[1]} + {right[2]} {'ij'[axis]}"
        if left < 1e-3:
            text = (
                f"the {name} of tap (i, j) is {formula(fit)}; the definition is {says}"
            )
        else:
            text = f"the {name}s of taps are no affine function of oh, ow, i, j"
        windows = f"{sizes.stride}, {sizes.padding}, {sizes.dilation}"
        text += f" (stride, padding, dilation {windows}, {sizes.K_h}x{sizes.K_w} taps)"
        facts.append(Fact(f"{name} of taps", False, text))
    return facts


def formula(fit: Array) -> str:
    """A fitted affine function in words."""
    parts = [
        f"{c:+.3g} {n}".strip()
        for c, n in zip(fit, ("", "oh", "ow", "i", "j"), strict=True)
        if abs(c) > 1e-4
    ]
    return " ".join(parts) or "0"


def codes(shape: Sequence[int], low: float, high: float) -> Array:
    """Unique values in [low, high)."""
    n = int(np.prod(shape))
    order = np.random.default_rng(7).permutation(n)
    return low + (high - low) * order.reshape(shape) / n


def read_map(name: str, got: Array, sent: Array, at: Array, expect: Array) -> Fact:
    """Which element of `sent` each value of `got` is; `expect` is the right one.

    `at` says which values to trust, `expect` holds flat indices into `sent`.
    """
    if not at.any():
        return Fact(name, True, f"{name} could not be traced")
    flat = sent.reshape(-1)
    order = np.argsort(flat)
    place = np.clip(np.searchsorted(flat[order], got), 1, flat.size - 1)
    nearer = np.abs(flat[order][place - 1] - got) < np.abs(flat[order][place] - got)
    found = order[np.where(nearer, place - 1, place)]
    gap = (flat.max() - flat.min()) / flat.size
    hit = (np.abs(flat[found] - got) < 0.1 * gap) & at  # by chance one in five hits
    if (np.abs(flat[expect] - got) < 0.2 * gap)[at].all():
        return Fact(name, True, f"{name} elements are read where the definition says")
    same = got[at].max() - got[at].min() < gap
    if same or hit.sum() < 0.8 * at.sum():
        return Fact(name, False, scaled(name, got, flat[expect], at))
    want = np.array(np.unravel_index(expect[hit], sent.shape))
    have = np.array(np.unravel_index(found[hit], sent.shape))
    return Fact(name, False, describe(name, want, have, sent.shape))


def describe(name: str, want: Array, have: Array, shape: Sequence[int]) -> str:
    """The index map in words, coordinate by coordinate, or channel by channel."""
    labels = list(NAMES[name])
    said = [
        coordinate(label, a, b)
        for label, a, b in zip(labels, want, have, strict=True)
        if (a != b).any()
    ]
    if "" in said and name in ("offset", "mask"):
        middle = slice(1, len(labels) - 2)
        one, two = (
            np.ravel_multi_index(tuple(a[middle]), tuple(shape[middle]))
            for a in (want, have)
        )
        said = [coordinate("channel", one, two)] if (one != two).any() else []
        ends = [(0, labels[0]), (-2, labels[-2]), (-1, labels[-1])]
        said += [
            coordinate(n, want[i], have[i])
            for i, n in ends
            if (want[i] != have[i]).any()
        ]
    known = [text for text in said if text] or ["in no simple order"]
    k = int(np.argmax((want != have).any(0)))
    example = f"{tuple(map(int, want[:, k]))} reads {tuple(map(int, have[:, k]))}"
    order = ", ".join(labels)
    return f"{name} is read from other elements: {'; '.join(known)} " + (
        f"(as {order}: {example})"
    )


def coordinate(label: str, want: Array, have: Array) -> str:
    """How one coordinate is mapped; empty if it depends on others."""
    if len(np.unique(have)) == 1:
        return f"{label} is always {have[0]}"
    table = {int(p): np.unique(have[want == p]) for p in np.unique(want)}
    if any(len(v) > 1 for v in table.values()):
        return ""
    keys = list(table)[:8]
    right = ", ".join(str(table[k][0]) for k in keys)
    return f"{label} {', '.join(map(str, keys))} is read as {right}"


def scaled(name: str, got: Array, want: Array, at: Array) -> str:
    """Values that are no element of the input: scaled, or another function."""
    parts: list[tuple[str, Any]] = [(name, ...)]
    if name == "offset":
        parts = [(f"d{'yx'[d]}", (slice(None),) * 3 + (d,)) for d in (0, 1)]
    said = []
    for label, part in parts:
        here = at[part]
        text = one_scale(label, got[part][here], want[part][here])
        if text:
            said.append(text)
    return "; ".join(said)


def one_scale(label: str, got: Array, want: Array) -> str:
    """An affine function, or examples; empty when it is the identity."""
    fit = np.polyfit(want, got, 1)
    if np.abs(np.polyval(fit, want) - got).max() < 1e-3 * (1 + np.abs(got).max()):
        a, b = (float(c) if abs(c) > 1e-4 else 0.0 for c in fit)
        if abs(a - 1) + abs(b) < 1e-3:
            return ""
        if a == 0:
            return f"{label} has no effect: any value acts as {b:.4g}"
        shift = f" {b:+.4g}" if b else ""
        return f"{label} of v acts as {a:.4g} v{shift}"
    if (np.abs(got - want) <= COARSEST * np.maximum(np.abs(want), 0.5)).all():
        return ""  # rounded: how much, its bits say
    order = np.argsort(want)[:: max(1, want.size // 4)]
    pairs = ", ".join(f"{want[i]:.3g} as {got[i]:.3g}" for i in order[:5])
    low, high = got.min(), got.max()
    if low < high and np.abs(np.clip(want, low, high) - got).max() < 1e-3:
        return f"{label} is clipped to [{low:.4g}, {high:.4g}]: {pairs}"
    return f"{label} acts as another function, or others enter: {pairs}"


def offsets(call: Call, dtype: str, sizes: Sizes = WIDE) -> list[Fact]:
    """Unique offsets: which element moves each sample, along each axis."""
    zero = tomography(call, dtype, sizes)
    shape = offset_shape(sizes)
    sent = codes(shape, 0.05, 0.95)
    N, og, K, _, *out = shape
    seen = tomography(call, dtype, sizes, offset=sent.reshape(N, og * K * 2, *out))
    if zero is None or seen is None:
        return []
    index = np.arange(sent.size).reshape(shape)
    at = zero.safe & seen.safe
    got = np.stack([seen.rows - zero.rows, seen.columns - zero.columns], 3)
    both = np.broadcast_to(at[:, :, :, None], got.shape)
    return [read_map("offset", np.where(both, got, 0), sent, both, index)]


def reach(call: Call, dtype: str, most: int = 12) -> list[Fact]:
    """The response to offsets of up to `most` pixels, inside a large image."""
    n, s = 3 * most + 4, max(1, most // 12)
    z = Sizes(1, 3, 3, 1, 1, 1, 1, n, n, stride=(s, s))
    sweep = np.linspace(-most, most, 9)
    at = np.indices(z.out)
    dy, dx = sweep[at[0] % 9], sweep[at[1] % 9]
    u, v = s * at
    y = call(image_case(z, dtype, planes(z), offset=np.stack([dy, dx])[None]))
    if y is None:
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        got = [y[0, 1] / y[0, 0] - u, y[0, 2] / y[0, 0] - v]
    inside = (u > most) & (u < n - 1 - most) & (v > most) & (v < n - 1 - most)
    said = [
        one_scale(f"d{name}", a[inside], b[inside])
        for name, a, b in zip("yx", got, (dy, dx), strict=True)
        if not np.abs(a - b)[inside].max() <= 1e-3
    ]
    text = "; ".join(t for t in said if t) or f"offsets of up to {most} pixels are kept"
    return [Fact(f"offsets up to {most} pixels", not any(said), text)]


def masks(call: Call, dtype: str, sizes: Sizes = WIDE) -> list[Fact]:
    """Unique masks name their element; a sweep gives the response to m."""
    N, og, K, _, *out = offset_shape(sizes)
    sent = codes((N, og, K, *out), 0.5, 1.5)
    seen = tomography(call, dtype, sizes, mask=sent.reshape(N, og * K, *out))
    if seen is None:
        return []
    index = np.arange(sent.size).reshape(sent.shape)
    inside = tomography(call, dtype, sizes)
    at = seen.safe & (inside.safe if inside is not None else seen.safe)
    facts = [read_map("mask", np.where(at, seen.coverage, 0), sent, at, index)]
    sweep = np.linspace(-2, 3, int(np.prod(out))).reshape(out)
    mask = np.broadcast_to(sweep, (N, og * K, *out))
    seen = tomography(call, dtype, sizes, mask=mask)
    if seen is not None:
        facts.append(response(seen.coverage, sweep, at))
    return facts


def response(coverage: Array, sweep: Array, at: Array) -> Fact:
    """How the coverage follows the mask's value."""
    m = np.broadcast_to(sweep, coverage.shape)
    got, want = coverage[at], m[at]
    if not got.size:
        return Fact("mask response", True, "the mask's effect could not be traced")
    rounding = COARSEST * np.maximum(np.abs(want), 0.5)  # how much, its bits say
    if (np.abs(got - want) <= np.maximum(1e-3, rounding)).all():
        return Fact("mask response", True, "a sample is proportional to its mask")
    off = ~(np.abs(got - want) <= np.maximum(1e-3, rounding))
    values = {float(w): float(got[off & (want == w)][0]) for w in np.unique(want[off])}
    some = list(values)[:: max(1, len(values) // 5)][:6]
    pairs = ", ".join(f"m = {w:.3g} acts as {values[w]:.3g}" for w in some)
    return Fact("mask response", False, f"the mask's effect is not m: {pairs}")


def weights(call: Call, dtype: str) -> list[Fact]:
    """Unique weights: which is multiplied with which channel and tap."""
    z = Sizes(4, 4, 6, 2, 1, 2, 3, 8, 9)
    sent = codes((6, 2, 2, 3), 1, 2)
    got = np.full((6, 2, 6), np.nan)
    x = np.zeros((4, 4, 8, 9))
    x[range(4), range(4)] = 1  # image c has channel c alone
    for k in range(6):
        N, og, K, _, *out = offset_shape(z)
        dp = np.full((N, og, K, 2, *out), -1000.0)  # only tap k lands inside
        dp[:, :, k] = 0
        offset = dp.reshape(N, -1, *out)
        y = call(image_case(z, dtype, x, offset=offset, weight=sent))
        if y is None:
            return []
        at = y[:, :, 2, 3].reshape(2, 2, 2, 3)  # image (b', c), output (b, o)
        for b in range(2):
            got[3 * b : 3 * b + 3, :, k] = at[b, :, b].T
    index = np.arange(sent.size).reshape(got.shape)
    flat = sent.reshape(6, 2, 6)
    everywhere = np.ones(got.shape, bool)
    return [read_map("weight", np.nan_to_num(got), flat, everywhere, index)]


def biases(call: Call, dtype: str) -> list[Fact]:
    """Unique biases on a black image."""
    z = Sizes(1, 2, 6, 2, 1, 2, 3, 8, 9)
    sent = codes((6,), -2, 2)
    zero = np.zeros((1, 2, 8, 9))
    ones = np.ones((6, 1, 2, 3))
    mask = np.full((1, 6, *z.out), 0.5)  # which must not touch the bias
    case = image_case(z, dtype, zero, mask=mask, weight=ones, bias=sent)
    y = call(case)
    if y is None:
        return []
    got, index = y[0, :, 1, 1].astype(float), np.arange(6)
    return [read_map("bias", got, sent, np.ones(6, bool), index)]


def images(call: Call, dtype: str) -> list[Fact]:
    """Planes of unique values: which image and channel a sample comes from."""
    z = WIDE._replace(N=3)
    sent = codes((3, 6), 1, 2)
    x = np.broadcast_to(sent[:, :, None, None], (3, 6, z.H, z.W))
    y = call(image_case(z, dtype, x))
    if y is None:
        return []
    K = z.K_h * z.K_w
    got = y[:, :, 3, 3].reshape(3, 6, K).astype(float)
    index = np.broadcast_to(np.arange(18).reshape(3, 6, 1), got.shape)
    return [read_map("x", got, sent, np.ones(got.shape, bool), index)]


def kernels(call: Call, dtype: str) -> list[Fact]:
    """The weight of every pixel: 7 of them, 8 (a power of two), or 1 in a row."""
    facts = swept(call, dtype, 7)
    for n in (8, 1):
        if all(f.right for f in facts):
            facts = swept(call, dtype, n)
    return facts


def swept(call: Call, dtype: str, n: int) -> list[Fact]:
    """Positions swept across both borders of n x n images."""
    facts: list[Fact] = []
    for axis, name in enumerate(("row", "column")):
        steps = 8
        z = Sizes(1, n, n, 1, 1, 1, 1, *((n, 97) if axis == 0 else (97, n)))
        line = np.eye(n)[:, :, None] if axis == 0 else np.eye(n)[:, None, :]
        x = np.broadcast_to(line, (n, z.H, z.W))[None]
        sweep = -3 + np.arange(97) / steps
        along = np.broadcast_to(sweep if axis == 0 else sweep[:, None], z.out)
        still = np.broadcast_to(base(z)[1 - axis][0], z.out)
        q = (along, still) if axis == 0 else (still, along)
        y = call(image_case(z, dtype, x, offset=landing(z, *q)))
        if y is None:
            return facts
        got = y[0, :, n // 2].T if axis == 0 else y[0, :, :, n // 2].T
        facts += [rule(name, sweep, got.astype(float), n)]
    return facts


def rule(name: str, sweep: Array, got: Array, n: int, want: Any = None) -> Fact:
    """Where the swept kernel departs from the tent, with an example of each."""
    if want is None:
        want = np.maximum(0, 1 - np.abs(sweep[:, None] - np.arange(n)))
    bad = ~(np.abs(got - want) < 1e-3).all(1)
    if not bad.any():
        return Fact(f"{name} kernel", True, f"{name}s are interpolated by the tent")
    parts = {
        f"far outside (q < -1 or q > {n})": (sweep < -1) | (sweep > n),
        "between -1 and 0": (sweep >= -1) & (sweep < 0),
        "inside": (sweep >= 0) & (sweep <= n - 1),
        f"between {n - 1} and {n}": (sweep > n - 1) & (sweep <= n),
    }
    said = []
    for where, here in parts.items():
        if (bad & here).any():
            k = int(np.argmax(np.where(bad & here, np.abs(got - want).max(1), -1)))
            have = reads(got[k])
            said.append(
                f"{where}: {name} {sweep[k]:g} of {n} reads {have}; the definition "
                f"reads {reads(want[k])}"
            )
    return Fact(f"{name} kernel", False, "; ".join(said))


def reads(weights: Array) -> str:
    """The pixels that carry weight."""
    parts = [f"{w:.3g} x[{r}]" for r, w in enumerate(weights) if abs(w) > 1e-3]
    return " + ".join(parts) or "nothing"


def run(call: Call, dtype: str) -> list[Fact]:
    """Every probe, in the order in which one rests on another."""
    facts: list[Fact] = []
    order = (images, taps, offsets, reach, masks, weights, biases, kernels)
    with np.errstate(all="ignore"):
        for probe in order:
            facts += probe(call, dtype)
    return facts


def larger(call: Call, dtype: str, N: int, K_h: int, K_w: int) -> list[Fact]:
    """What is read where the batch and the kernel are those of a failing call."""
    N, C_out = min(max(N, WIDE.N), MOST_IMAGES), WIDE.C_in * K_h * K_w
    sizes = WIDE._replace(N=N, K_h=K_h, K_w=K_w, C_out=C_out)
    if sizes == WIDE or min(sizes.out) < 1:
        return []
    facts = offsets(call, dtype, sizes) + masks(call, dtype, sizes)
    return [f for f in facts if not f.right]


def far(call: Call, dtype: str) -> list[Fact]:
    """Long rows and columns, and offsets of up to 48 pixels; what is wrong there."""
    if dtype == "float16":
        return []
    facts = []
    if all(f.right for f in reach(call, dtype)):
        wrong = [f for f in reach(call, dtype, 48) if not f.right]
        facts = [f._replace(text=f"far offsets are not kept: {f.text}") for f in wrong]
    for axis, name in enumerate(("row", "column")):
        n, z = 4200, Sizes(1, 3, 3, 1, 1, 1, 1, 1, 1, stride=(5, 5))
        z = z._replace(H=n) if axis == 0 else z._replace(W=n)
        y = call(image_case(z, dtype, planes(z)))
        if y is None:
            continue
        line, must = y[0].reshape(3, -1), 5 * np.arange(n // 5)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = line[1 + axis] / line[0]
        bad = ~(np.abs(found - must) < 0.05)
        k = int(np.argmax(bad))
        if not bad.any() or must[k] < NEAR:
            continue  # the other probes see what is near
        there = f"{found[k]:g}" if line[0, k] else "outside"
        text = f"the {name} of a sample is wrong from {must[k]} on (right up to "
        text += f"{must[k - 1]}): {there} where it must be {must[k]}"
        facts.append(Fact(f"long {name}s", False, text))
    return facts + late(call, dtype)


def late(call: Call, dtype: str) -> list[Fact]:
    """From which pixel of a large image on samples are wrong, if it is one pixel."""
    z = Sizes(1, 3, 3, 1, 1, 1, 1, 270, 260, stride=(7, 7))
    y = call(image_case(z, dtype, planes(z)))
    if y is None:
        return []
    h, w = 7 * np.indices(z.out)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(y[0, 1] / y[0, 0] - h) + np.abs(y[0, 2] / y[0, 0] - w)
    flat, bad = (h * z.W + w).reshape(-1), ~(off < 0.05).reshape(-1)
    k = int(np.argmax(bad))
    if k == 0 or not bad[k:].mean() > 0.9:
        return []
    text = f"samples are wrong from pixel {flat[k]} of an image of {z.H}x{z.W} on "
    return [Fact("late pixels", False, f"{text}(right up to {flat[k - 1]})")]


def gradient(name: str, got: Array, case: Case) -> Fact | None:
    """How a wrong gradient differs from the right one, element by element."""
    true = oracle.gradients(case)[("x", "offset", "weight", "mask", "bias").index(name)]
    if true is None:
        return None
    got, true = got.reshape(-1).astype(float), true.reshape(-1)
    live = np.abs(true) > 1e-2 * np.abs(true).max(initial=1e-30)
    if not live.any():
        return None
    ratio = got[live] / true[live]
    middle = float(np.median(ratio))
    spread = np.abs(ratio - middle).max()
    if spread < 1e-3 * (1 + abs(middle)):
        text = f"the gradient of {name} is {middle:.4g} times the right one everywhere"
        return Fact(f"grad_{name}", False, text)
    for power, factor in product((-1, 1, 2), factors(name, case)):
        test = ratio * np.abs(factor[1].reshape(-1)[live]) ** -power
        test = test * (np.sign(factor[1].reshape(-1)[live]) if power % 2 else 1)
        if np.abs(test - np.median(test)).max() < 1e-3 * (1 + abs(np.median(test))):
            verb = {-1: "lacks a factor of", 1: "has an extra factor of"}
            said = verb.get(power, f"has an extra power {power} of")
            times = (
                ""
                if abs(np.median(test) - 1) < 1e-3
                else f" (times {np.median(test):.3g})"
            )
            text = f"the gradient of {name} {said} {factor[0]}{times}"
            return Fact(f"grad_{name}", False, text)
    return permuted(name, got, true, case)


def factors(name: str, case: Case) -> list[tuple[str, Array]]:
    """What a gradient's elements may be multiplied with."""
    sizes = case.sizes
    found: list[tuple[str, Array]] = []
    m = oracle.modulation(case)
    if name == "mask":
        found += [("the mask", m), ("the mask's sign", np.sign(m))]
    if name == "offset":
        shape = offset_shape(sizes)
        m = np.broadcast_to(m[:, :, :, None], shape)
        found += [("the mask", m), ("the mask's sign", np.sign(m))]
        for label, pair in (("stride", case.stride), ("dilation", case.dilation)):
            per = np.array(pair, float)[:, None, None]
            found.append((f"the {label}", np.broadcast_to(per, shape)))
    return [(label, np.where(f == 0, 1, f)) for label, f in found]


def permuted(name: str, got: Array, true: Array, case: Case) -> Fact:
    """The right values at other places, some of them missing, or a mixture."""
    order = np.argsort(true)
    near = np.clip(np.searchsorted(true[order], got), 1, true.size - 1)
    left = np.abs(true[order][near - 1] - got) < np.abs(true[order][near] - got)
    found = order[np.where(left, near - 1, near)]
    scale = np.abs(true).max()
    hit = np.abs(true[found] - got) < 1e-5 * scale
    zero = (got == 0) & (np.abs(true) > 1e-6 * scale)
    same = np.abs(got - true) < 1e-5 * scale
    label = f"the gradient of {name}"
    if (same | zero).all():
        share = f"{np.count_nonzero(zero)} of {zero.size}"
        return Fact(
            f"grad_{name}", False, f"{label} is 0 at {share} places, else right"
        )
    if hit.mean() > 0.95 and not same.all():
        k = int(np.argmax(~same & hit))
        like = case.inputs[("x", "offset", "weight", "mask", "bias").index(name)]
        assert like is not None
        a, b = (tuple(map(int, np.unravel_index(i, like.shape))) for i in (k, found[k]))
        text = f"{label} has the right values at other places: at {a} that of {b}"
        return Fact(f"grad_{name}", False, text)
    if np.isnan(got).any():
        return Fact(
            f"grad_{name}", False, f"{label} is NaN at {np.isnan(got).sum()} places"
        )
    part = float(got @ true / max(true @ true, 1e-300))
    text = f"{label} differs at {np.count_nonzero(~same)} of {same.size} places "
    return Fact(
        f"grad_{name}", False, text + f"(its projection on the right one is {part:.3g})"
    )


Grads = Callable[[Case], Sequence[Array | None] | None]


def gradient_kernels(call: Grads, dtype: str) -> list[Fact]:
    """What d x, d mask and d offset read as one position is swept by rows.

    Image (r, t) has row r alone, and one sample at row q[t]; its neighbours'
    grad_y is 0.
    """
    n, q = 7, -3 + 0.125 + np.arange(49) / 4
    z = Sizes(n * len(q), 1, 1, 1, 1, 1, 1, n, n)
    x = np.repeat(np.eye(n)[:, None, :, None] * np.ones(n), len(q), 0)
    x = x.reshape(z.N, 1, n, n)
    dp = np.zeros((n, len(q), 2, n, n))
    dp[:, :, 0, 3, 3] = q - 3
    mask = np.ones((z.N, 1, n, n))
    case = image_case(z, dtype, x, offset=dp.reshape(z.N, 2, n, n), mask=mask)
    go = np.zeros((z.N, 1, n, n), dtype)
    go[:, :, 3, 3] = 1
    grads = call(replace(case, grad_y=go))
    g_x, g_o, _, g_m, _ = grads or (None,) * 5
    if g_x is None or g_o is None or g_m is None:
        return []
    r = np.arange(n)
    tent = np.maximum(0, 1 - np.abs(q[:, None] - r))
    slope = np.sign(r - q[:, None]) * (np.abs(r - q[:, None]) < 1)
    seen = {
        "x": (g_x.reshape(n, len(q), n, n)[0, :, :, 3], tent),
        "mask": (g_m.reshape(n, len(q), n, n)[:, :, 3, 3].T, tent),
        "offset": (g_o.reshape(n, len(q), 2, n, n)[:, :, 0, 3, 3].T, slope),
    }
    facts = []
    for name, (got, want) in seen.items():
        fact = rule("row", q, got, n, want)
        text = f"in the gradient of {name}, {fact.text}"
        facts.append(Fact(f"rows in grad_{name}", fact.right, text))
    return facts
