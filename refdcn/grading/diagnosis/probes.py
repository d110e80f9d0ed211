"""Probes: calls whose answers name what was read, with no list of mistakes.

The operator is linear in x, in w and in m, so identity weights turn a candidate
into an extractor of its own samples, and unique values in an input name the
element that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.diagnosis.answers import Call
from refdcn.grading.diagnosis.facts import Fact, Rank, found_right
from refdcn.grading.expected.case import Array, Case, Sizes, base, offset_shape
from refdcn.grading.questions.draw import landing

COARSEST = 2.0**-7  # relative, of a number cut to the 8 bits of bfloat16


def image_case(sizes: Sizes, dtype: str, x: Array, **inputs: Array | None) -> Case:
    """A case with zero offsets, no mask and identity weights unless given."""
    N, og, K, _, *out = offset_shape(sizes)
    C = sizes.C_in // sizes.groups
    given: dict[str, Any] = {
        "offset": np.zeros((N, og * K * 2, *out)),
        "weight": np.eye(C * K).reshape(C * K, C, sizes.K_h, sizes.K_w),
        "mask": None,
        "bias": None,
    } | inputs
    typed = {k: None if a is None else a.astype(dtype) for k, a in given.items()}
    windows = sizes.stride, sizes.padding, sizes.dilation
    offset, weight, mask, bias = (
        typed[k] for k in ("offset", "weight", "mask", "bias")
    )
    assert offset is not None and weight is not None
    inputs_of = x.astype(dtype), offset, weight, mask, bias
    return Case("probe", "bound", *inputs_of, *windows)


# Uneven everywhere, so that no two axes can be mistaken for each other.
UNEVEN = Sizes(2, 6, 36, 1, 2, 2, 3, 24, 30, (2, 3), (1, 2), (3, 2))
FAR = 48  # pixels of an offset that the nearer probe does not see
FIRST_FAR = 40  # pixels from the origin; what is nearer the other probes see
MAPPED = 8  # indices of which it is told what they are read as
MOST_IMAGES = 8  # of an answer with all taps of all channels
AXES_OF = {
    "offset": ("n", "offset group", "tap", "axis", "oh", "ow"),
    "mask": ("n", "offset group", "tap", "oh", "ow"),
    "weight": ("o", "c", "tap"),
    "bias": ("o",),
    "x": ("n", "c"),
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
    call: Call, dtype: str, sizes: Sizes = UNEVEN, **inputs: Any
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


# Where taps lie -----------------------------------------------------------------


def kernel_taps(call: Call, dtype: str) -> list[Fact]:
    """Where taps of several kernels lie; kernels may take several paths."""
    facts: list[Fact] = []
    right: list[str] = []
    for K_h, K_w in ((2, 3), (3, 3), (1, 1), (5, 2)):
        sizes = UNEVEN._replace(K_h=K_h, K_w=K_w, C_out=6 * K_h * K_w)
        found = tap_positions(call, dtype, sizes)
        if found and all(f.right for f in found):
            right.append(f"{K_h}x{K_w}")
        if (K_h, K_w) != (2, 3):
            found = [f for f in found if not f.right]
        if all(f.right for f in facts):
            facts += found
    others = {"right kernels": right} if right else {}
    return [f if f.right else replace(f, where={**f.where, **others}) for f in facts]


TERMS = ("1", "oh", "ow", "i", "j")


def tap_positions(call: Call, dtype: str, sizes: Sizes) -> list[Fact]:
    """Fit the zero-offset positions: their stride, padding and dilation."""
    seen = tomography(call, dtype, sizes)
    if seen is None or not seen.safe.any():
        return []
    _, _, _, u, v = np.indices(seen.rows.shape)
    i, j = np.divmod(np.indices(seen.rows.shape)[2], sizes.K_w)
    terms = np.stack([np.ones_like(u), u, v, i, j], -1)
    wants = [np.broadcast_to(want, seen.rows.shape) for want in base(sizes)]
    laws = [
        law_of_places(terms, got, want, seen.safe)
        for got, want in zip(seen[1:3], wants, strict=True)
    ]
    places = [terms @ law.fit for law in laws]
    lost = all(k.affine for k in laws) and loses_samples(seen, places, sizes)
    facts = []
    for axis, (name, law) in enumerate(zip(("row", "column"), laws, strict=True)):
        if law.right:
            facts.append(found_right("taps", name))
            continue
        affine = law.affine and not lost
        defined = {
            "1": -sizes.padding[axis],
            f"o{'hw'[axis]}": sizes.stride[axis],
            "ij"[axis]: sizes.dilation[axis],
        }
        measured: dict[str, Any] = {"affine": affine}
        if affine:
            measured |= nonzero(dict(zip(TERMS, law.fit.tolist(), strict=True)))
            found = seen[1 + axis][seen.safe], wants[axis][seen.safe]
            measured |= grid_scale(*found, (sizes.H, sizes.W)[axis])
        rank = Rank.CAUSE if affine else Rank.VAGUE
        where: dict[str, Any] = {
            "kernel": [sizes.K_h, sizes.K_w],
            "image": [sizes.H, sizes.W],
        }
        where |= {"windows": [sizes.stride, sizes.padding, sizes.dilation]}
        facts.append(Fact("taps", name, measured, defined, rank, where=where))
    return facts


class Law(NamedTuple):
    """Where samples lie along one axis, by `TERMS`; whether that is all, and due."""

    fit: Array
    affine: bool
    right: bool


def law_of_places(terms: Array, got: Array, want: Array, safe: Array) -> Law:
    """The law of the samples that are safe."""
    fit, *_ = np.linalg.lstsq(terms[safe], got[safe], rcond=None)
    affine = np.abs(terms[safe] @ fit - got[safe]).max() < 1e-3
    return Law(fit, bool(affine), np.allclose(got[safe], want[safe], atol=1e-3))


def loses_samples(seen: Tomography, places: Sequence[Array], sizes: Sizes) -> bool:
    """Whether some samples read nothing that lie inside by the laws of both axes.

    Then what is read follows more than where taps lie.
    """
    inside = [
        (q >= 1) & (q <= n - 2) for q, n in zip(places, (sizes.H, sizes.W), strict=True)
    ]
    dark = np.abs(seen.coverage) < 1e-3
    return bool((dark & inside[0] & inside[1]).any())


def nonzero(fit: dict[str, float]) -> dict[str, float]:
    """Without the terms that vanish."""
    return {name: round(c, 4) for name, c in fit.items() if abs(c) > 1e-4}


def grid_scale(got: Array, want: Array, n: int) -> dict[str, Any]:
    """The whole grid scaled by n / (n - 1) or its inverse, and its shift.

    A grid is normalised by n or by n - 1: the wrong one gives just these.
    """
    if np.ptp(want) == 0:
        return {}
    scale, shift = np.polyfit(want, got, 1)
    if np.abs(scale * want + shift - got).max() > 1e-3:
        return {}
    ratios = {"n / (n - 1)": n / (n - 1), "(n - 1) / n": (n - 1) / n}
    for name, ratio in ratios.items():
        if abs(scale - ratio) * np.ptp(want) < 2e-3:
            return {"scale": name, "shift": round(float(shift), 4)}
    return {}


# Which element is read ----------------------------------------------------------


def codes(shape: Sequence[int], low: float, high: float) -> Array:
    """Unique values in [low, high)."""
    n = int(np.prod(shape))
    order = np.random.default_rng(7).permutation(n)
    return low + (high - low) * order.reshape(shape) / n


def read_map(
    name: str, got: Array, sent: Array, at: Array, expect: Array
) -> list[Fact]:
    """Which element of `sent` each value of `got` is; `expect` is the right one.

    `at` says which values to trust, `expect` holds flat indices into `sent`.
    """
    if not at.any():
        return []
    flat = sent.reshape(-1)
    gap = (flat.max() - flat.min()) / flat.size
    off = ~(np.abs(flat[expect] - got) < 0.2 * gap) & at
    if not off.any():
        return [found_right("read from", name)]
    found, hit = nearest(flat, got, 0.1 * gap)
    hit &= at  # by chance one in five hits
    same = got[at].max() - got[at].min() < gap
    if not same and hit.sum() >= 0.8 * at.sum() and (hit & off).any():
        want = np.array(np.unravel_index(expect[hit], sent.shape))
        have = np.array(np.unravel_index(found[hit], sent.shape))
        return [mapped(name, want, have, sent.shape)]
    where = part_that_fails(name, off, at, np.unravel_index(expect, sent.shape))
    return list(responses(name, got, flat[expect], (at, off), where))


def nearest(flat: Array, got: Array, within: float) -> tuple[Array, Array]:
    """The index of the nearest element to each value, and whether it is one."""
    order = np.argsort(flat)
    place = np.clip(np.searchsorted(flat[order], got), 1, flat.size - 1)
    nearer = np.abs(flat[order][place - 1] - got) < np.abs(flat[order][place] - got)
    found = order[np.where(nearer, place - 1, place)]
    return found, np.abs(flat[found] - got) < within


def part_that_fails(
    name: str, off: Array, at: Array, index: Sequence[Array]
) -> dict[str, Any]:
    """One value of an axis, or all from one on, where alone anything is wrong.

    Not the axis of dy and dx, which are told apart anyway.
    """
    for label, value in zip(AXES_OF[name], index, strict=True):
        bad, known = np.unique(value[off]), np.unique(value[at])
        whole = bad.tolist() == known[len(known) - len(bad) :].tolist()
        few = (len(bad) == 1 or whole) and len(bad) < len(known)
        if few and label != "axis" and off[at & np.isin(value, bad)].mean() > 0.9:
            return {"axis": label, "values": bad.tolist(), "of": len(known)}
    return {}


def mapped(name: str, want: Array, have: Array, shape: Sequence[int]) -> Fact:
    """The index map, axis by axis, or over the channels of offset and mask."""
    labels = AXES_OF[name]
    found = {
        label: along(a, b)
        for label, a, b in zip(labels, want, have, strict=True)
        if (a != b).any()
    }
    measured: dict[str, Any] = {}
    middle = slice(1, len(labels) - 2)
    if name in ("offset", "mask") and found.keys() & {*labels[middle]}:
        one, two = (
            np.ravel_multi_index(tuple(a[middle]), tuple(shape[middle]))
            for a in (want, have)
        )
        measured |= layout_of(want[middle], two, shape[middle], labels[middle])
        if None in found.values():
            found = {k: v for k, v in found.items() if k not in labels[middle]}
            found["channel"] = along(one, two)
    known = {k: v for k, v in found.items() if v is not None}
    k = int(np.argmax((want != have).any(0)))
    measured["along"] = known
    measured["example"] = {"read": have[:, k].tolist(), "defined": want[:, k].tolist()}
    rank = Rank.CAUSE if known or "layout" in measured else Rank.EFFECT
    return Fact("read from", name, measured, list(labels), rank)


def layout_of(
    want: Array, channel: Array, shape: Sequence[int], labels: Sequence[str]
) -> dict[str, Any]:
    """The order of group, tap and axis in which channels are counted, if any is."""
    for order in permutations(range(len(shape))):
        for turned in (False, True) if "axis" in labels else (False,):
            index = [want[k] for k in order]
            sizes = [shape[k] for k in order]
            if turned:
                k = order.index(labels.index("axis"))
                index[k] = 1 - index[k]
            if (np.ravel_multi_index(tuple(index), tuple(sizes)) == channel).all():
                return {"layout": [labels[k] for k in order], "x first": turned}
    return {}


def along(want: Array, have: Array) -> dict[str, Any] | None:
    """How one coordinate is mapped; None if it depends on others."""
    if len(np.unique(have)) == 1:
        of = int(want.max(initial=0)) + 1  # the last one may be meant
        return {"always": int(have[0]), "of": of}
    table = {int(p): np.unique(have[want == p]) for p in np.unique(want)}
    if any(len(v) > 1 for v in table.values()):
        return None
    first = next((k for k, p in enumerate(table) if table[p][0] != p), 0)
    start = first if first >= MAPPED // 2 else 0  # what is told differs soon
    keys = list(table)[start : start + MAPPED]
    return {"of": keys, "is": [int(table[k][0]) for k in keys]}


# Values that are no element: scaled, or another function --------------------------


def responses(
    name: str,
    got: Array,
    want: Array,
    at: tuple[Array, Array],
    where: Mapping[str, Any],
) -> Iterator[Fact]:
    """How each part of an input acts, dy and dx apart; `at`: trusted, and wrong.

    One law for all that was sent, else one for the part that is wrong.
    """
    parts: list[tuple[str, Any]] = [(name, ...)]
    if name == "offset":
        parts = [(f"d{'yx'[d]}", (slice(None),) * 3 + (d,)) for d in (0, 1)]
    for label, part in parts:
        known, wrong = (a[part] for a in at)
        if not wrong.any():
            continue
        fact = law_of(label, got[part][known], want[part][known])
        if where and "scale" not in fact.measured:
            fact = law_of(label, got[part][wrong], want[part][wrong], where)
        if not fact.right:
            yield fact


def law_of(
    label: str, got: Array, want: Array, where: Mapping[str, Any] | None = None
) -> Fact:
    """An affine function of what was sent, a limit, or examples."""

    def found(**measured: Any) -> Fact:
        law = measured.keys() & {"scale", "limits"}
        rank = Rank.CAUSE if law else Rank.VAGUE
        return Fact("acts as", label, measured, {"scale": 1}, rank, where=where or {})

    if np.isnan(got).any():
        return found(nan=int(np.isnan(got).sum()), of=int(got.size))
    # One value, however often, has any law.
    fit = np.polyfit(want, got, 1) if np.ptp(want) else np.array([np.nan, np.nan])
    if np.abs(np.polyval(fit, want) - got).max() < 1e-3 * (1 + np.abs(got).max()):
        a, b = (float(f"{c:.5g}") if abs(c) > 1e-4 else 0.0 for c in fit)
        if abs(a - 1) + abs(b) < 1e-3:
            return found_right("acts as", label)
        return found(scale=a, shift=b)
    if (np.abs(got - want) <= COARSEST * np.maximum(np.abs(want), 0.5)).all():
        return found_right("acts as", label)  # rounded: how much, its bits say
    order = np.argsort(want)[:: max(1, want.size // 4)][:5]
    pairs = [[float(want[k]), float(got[k])] for k in order]
    low, high = float(got.min()), float(got.max())
    if low < high and np.abs(np.clip(want, low, high) - got).max() < 1e-3:
        return found(limits=[low, high], pairs=pairs)
    return found(pairs=pairs)


def offsets(call: Call, dtype: str, sizes: Sizes = UNEVEN) -> list[Fact]:
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
    facts = read_map("offset", np.where(both, got, 0), sent, both, index)
    return [as_whole_pixels(f, call, dtype, sizes, zero) for f in facts]


def as_whole_pixels(
    f: Fact, call: Call, dtype: str, sizes: Sizes, zero: Tomography
) -> Fact:
    """Of y and x that seem exchanged below a pixel: whether whole pixels are, too.

    Exchanged weights of two neighbours move a sample by each other's fraction.
    """
    if "axis" not in f.measured.get("along", {}):
        return f
    N, og, K, _, *out = offset_shape(sizes)
    sent = np.zeros((N, og, K, 2, *out))
    sent[:, :, :, 0], sent[:, :, :, 1] = 2, 1
    seen = tomography(call, dtype, sizes, offset=sent.reshape(N, og * K * 2, *out))
    if seen is None:
        return f
    at = zero.safe & seen.safe
    moved = [(a - b)[at] for a, b in zip(seen[1:3], zero[1:3], strict=True)]
    if all(np.allclose(a, b, atol=1e-3) for a, b in zip(moved, (1, 2), strict=True)):
        return f
    if all(np.allclose(a, b, atol=1e-3) for a, b in zip(moved, (2, 1), strict=True)):
        return Fact("fractions exchanged", "offset", {"along": f.measured["along"]})
    kept = {k: v for k, v in f.measured.items() if k == "example"} | {"along": {}}
    return replace(f, measured=kept, rank=Rank.EFFECT)


def reach(call: Call, dtype: str, most: int = 12, near: int = 0) -> list[Fact]:
    """The response to offsets of up to `most` pixels, inside a large image.

    `near`: to offsets of up to so many pixels, inside the same image.
    """
    n, s = 3 * most + 4, max(1, most // 12)
    z = Sizes(1, 3, 3, 1, 1, 1, 1, n, n, stride=(s, s))
    sweep = np.linspace(-1, 1, 9) * (near or most)
    at = np.indices(z.out)
    dy, dx = sweep[at[0] % 9], sweep[at[1] % 9]
    u, v = s * at
    y = call(image_case(z, dtype, planes(z), offset=np.stack([dy, dx])[None]))
    if y is None:
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        got = [y[0, 1] / y[0, 0] - u, y[0, 2] / y[0, 0] - v]
    inside = (u > most) & (u < n - 1 - most) & (v > most) & (v < n - 1 - most)
    where = {"up to": most}
    found = [
        law_of(f"d{name}", a[inside], b[inside], where)
        for name, a, b in zip("yx", got, (dy, dx), strict=True)
        if not np.abs(a - b)[inside].max() <= 1e-3
    ]
    return [f for f in found if not f.right] or [found_right("reach", "offset")]


def masks(call: Call, dtype: str, sizes: Sizes = UNEVEN) -> list[Fact]:
    """Unique masks name their element; a sweep gives the response to m."""
    N, og, K, _, *out = offset_shape(sizes)
    sent = codes((N, og, K, *out), 1.25, 2.25)  # none is 1, what no mask acts as
    seen = tomography(call, dtype, sizes, mask=sent.reshape(N, og * K, *out))
    if seen is None:
        return []
    index = np.arange(sent.size).reshape(sent.shape)
    inside = tomography(call, dtype, sizes)
    at = seen.safe & (inside.safe if inside is not None else seen.safe)
    facts = read_map("mask", np.where(at, seen.coverage, 0), sent, at, index)
    sweep = np.linspace(-2, 3, int(np.prod(out))).reshape(out)
    mask = np.broadcast_to(sweep, (N, og * K, *out))
    seen = tomography(call, dtype, sizes, mask=mask)
    if seen is not None and all(f.right for f in facts):
        facts += mask_response(seen.coverage, sweep, at)
    return facts


def mask_response(coverage: Array, sweep: Array, at: Array) -> list[Fact]:
    """How the coverage follows the mask's value."""
    m = np.broadcast_to(sweep, coverage.shape)
    got, want = coverage[at], m[at]
    if not got.size:
        return []
    rounding = COARSEST * np.maximum(np.abs(want), 0.5)  # how much, its bits say
    off = ~(np.abs(got - want) <= np.maximum(1e-3, rounding))
    if not off.any():
        return [found_right("acts as", "mask")]
    fact = law_of("mask", got, want)
    if "pairs" not in fact.measured or "limits" in fact.measured:
        return [fact]
    values = {float(w): float(got[off & (want == w)][0]) for w in np.unique(want[off])}
    some = list(values)[:: max(1, len(values) // 5)][:6]
    pairs = [[w, values[w]] for w in some]
    return [Fact("acts as", "mask", {"pairs": pairs}, {"scale": 1})]


def weights(call: Call, dtype: str) -> list[Fact]:
    """Unique weights, as three output pixels show them."""
    return agreed([weights_at(call, dtype, u, v) for u, v in ((2, 3), (4, 1), (5, 6))])


def weights_at(call: Call, dtype: str, u: int, v: int) -> list[Fact]:
    """Unique weights: which is multiplied with which channel and tap."""
    z = Sizes(4, 4, 6, 2, 1, 2, 3, 8, 9)
    sent = codes((6, 2, 2, 3), 1, 2)
    got = np.full((6, 2, 6), np.nan)
    for k in range(6):
        x = np.zeros((4, 4, 8, 9))
        for c in range(4):  # image c has in channel c the pixel of tap k alone
            x[c, c, u + k // 3, v + k % 3] = 1
        y = call(image_case(z, dtype, x, weight=sent))
        if y is None:
            return []
        at = y[:, :, u, v].reshape(2, 2, 2, 3)  # image (b', c), output (b, o)
        answers = np.abs(at).max(1).reshape(2, 6).T > 0.5  # of output, to group
        if not answers.any(1).all():  # the pixel is not where it must be
            return []
        if (answers != np.repeat(np.eye(2, dtype=bool), 3, 0)).any():
            return [groups_read(answers)]
        for b in range(2):
            got[3 * b : 3 * b + 3, :, k] = at[b, :, b].T
    index = np.arange(sent.size).reshape(got.shape)
    flat = sent.reshape(6, 2, 6)
    everywhere = np.ones(got.shape, bool)
    return read_map("weight", np.nan_to_num(got), flat, everywhere, index)


def groups_read(answers: Array) -> Fact:
    """Which groups' channels each output takes: [output, group]."""
    own = np.repeat(np.eye(answers.shape[1], dtype=bool), 3, 0)
    wrong = np.flatnonzero((answers != own).any(1))
    found = [np.flatnonzero(row).tolist() for row in answers]
    measured = {"outputs": wrong.tolist(), "groups": found}
    return Fact("groups read", "x", measured, own.argmax(1).tolist())


def biases(call: Call, dtype: str) -> list[Fact]:
    """Unique biases on a black image."""
    z = Sizes(1, 2, 6, 2, 1, 2, 3, 8, 9)
    sent = codes((6,), -2.2, 1.7)  # none is another's negative
    zero = np.zeros((1, 2, 8, 9))
    ones = np.ones((6, 1, 2, 3))
    mask = np.full((1, 6, *z.out), 0.5)  # which must not touch the bias
    case = image_case(z, dtype, zero, mask=mask, weight=ones, bias=sent)
    y = call(case)
    if y is None:
        return []
    index, every = np.arange(6), np.ones(6, bool)
    seen = [y[0, :, u, v].astype(float) for u, v in ((1, 1), (3, 5), (6, 4))]
    return agreed([read_map("bias", got, sent, every, index) for got in seen])


def image_map(call: Call, dtype: str) -> list[Fact]:
    """Planes of unique values: which image and channel a sample comes from."""
    z = UNEVEN._replace(N=3)
    sent = codes((3, 6), 1, 2)
    x = np.broadcast_to(sent[:, :, None, None], (3, 6, z.H, z.W))
    y = call(image_case(z, dtype, x))
    if y is None:
        return []
    K = z.K_h * z.K_w
    index = np.broadcast_to(np.arange(18).reshape(3, 6, 1), (3, 6, K))
    found = []
    for u, v in SEEN_AT:
        got = y[:, :, u, v].reshape(3, 6, K).astype(float)
        found.append(read_map("x", got, sent, np.ones(got.shape, bool), index))
    return agreed(found)


SEEN_AT = (3, 3), (4, 6), (7, 5)  # output pixels that must tell the same


def agreed(found: Sequence[list[Fact]]) -> list[Fact]:
    """The facts of one output pixel, if others have them too.

    What is done at some pixels is no property of the input.
    """
    return found[0] if all(told(f) == told(found[0]) for f in found) else []


def told(facts: Sequence[Fact]) -> list[tuple[str, str, str]]:
    """What facts tell, without their examples."""
    return [
        (f.kind, f.subject, str({k: v for k, v in f.measured.items() if k in COMPARED}))
        for f in facts
    ]


COMPARED = "along", "layout", "scale", "shift", "limits", "outputs", "groups"


# How pixels are weighted --------------------------------------------------------


def kernels(call: Call, dtype: str) -> list[Fact]:
    """The weight of every pixel: 7 of them, 8 (a power of two), or 1 in a row."""
    facts = swept_kernel(call, dtype, 7)
    for n in (8, 1):
        if all(f.right for f in facts):
            facts = swept_kernel(call, dtype, n)
    return facts


def swept_kernel(call: Call, dtype: str, n: int) -> list[Fact]:
    """Positions swept across both borders of n x n images."""
    facts: list[Fact] = []
    for axis, name in enumerate(("row", "column")):
        steps = 8
        z = Sizes(1, n, n, 1, 1, 1, 1, *((n, 97) if axis == 0 else (97, n)))
        line = np.eye(n)[:, :, None] if axis == 0 else np.eye(n)[:, None, :]
        x = np.broadcast_to(line, (n, z.H, z.W))[None]
        sweep = -3 + np.arange(97) / steps
        across = np.broadcast_to(sweep if axis == 0 else sweep[:, None], z.out)
        still = np.broadcast_to(base(z)[1 - axis][0], z.out)
        q = (across, still) if axis == 0 else (still, across)
        y = call(image_case(z, dtype, x, offset=landing(z, *q)))
        if y is None:
            return facts
        lines = [
            (y[0, :, k].T if axis == 0 else y[0, :, :, k].T).astype(float)
            for k in (n // 2, 0, n - 1)
        ]
        if all(same_numbers(lines[0], line) for line in lines):
            facts += [kernel_fact(name, sweep, lines[0], tent(sweep, n))]
    return facts


def same_numbers(a: Array, b: Array) -> bool:
    """Whether two outputs of the same samples agree."""
    return bool(np.allclose(a, b, atol=1e-3, equal_nan=True))


def tent(q: Array, n: int) -> Array:
    """[len(q), n]: the weight of pixel r for position q."""
    return np.asarray(np.maximum(0, 1 - np.abs(q[:, None] - np.arange(n))))


def kernel_fact(
    name: str, sweep: Array, got: Array, want: Array, target: str = "y"
) -> Fact:
    """Where the swept kernel departs from the right one, with an example of each."""
    n = want.shape[1]
    where = {"target": target, "size": n}
    bad = ~(np.abs(got - want) < 1e-3).all(1)
    if not bad.any():
        return found_right("interpolation", name)
    parts = {
        "far outside": (sweep < -1) | (sweep > n),
        "before the first": (sweep >= -1) & (sweep < 0),
        "inside": (sweep >= 0) & (sweep <= n - 1),
        "after the last": (sweep > n - 1) & (sweep <= n),
    }
    measured, defined = {}, {}
    far = np.nan_to_num(np.abs(got - want).max(1), nan=np.inf)
    for part, here in parts.items():
        if (bad & here).any():
            # At the very border a rounding decides; beside it one sees the rule.
            beside = bad & here & (sweep != -1) & (sweep != n)
            seen = beside if beside.any() else bad & here
            k = int(np.argmax(np.where(seen, far, -1)))
            share = float((bad & here).sum() / here.sum())
            q = float(sweep[k])
            measured[part] = {"at": q, "reads": carried(got[k]), "share": share}
            defined[part] = carried(want[k])
    return Fact("interpolation", name, measured, defined, where=where)


def carried(weights: Array) -> dict[str, float]:
    """The pixels that carry weight, NaN too."""
    told = ~(np.abs(weights) <= 1e-3)
    return {str(r): float(weights[r]) for r in np.flatnonzero(told)}


def run_all(call: Call, dtype: str) -> list[Fact]:
    """Every probe, in the order in which one rests on another."""
    facts: list[Fact] = []
    with np.errstate(all="ignore"):
        for probe in (
            image_map,
            kernel_taps,
            offsets,
            reach,
            masks,
            weights,
            biases,
            kernels,
        ):
            if not (probe in TRACED and untraceable(facts)) and not (
                probe is kernels and misplaced(facts)
            ):
                found = by_image(probe, probe(call, dtype), call, dtype)
                found = by_group(probe, found, call, dtype)
                facts = facts if probe is not reach else without_near(facts, found)
                facts += found
    return facts


def without_near(facts: list[Fact], far: Sequence[Fact]) -> list[Fact]:
    """Without "no effect" of offsets below a pixel where those of several act.

    Positions that are rounded down do not follow a fraction.
    """
    lost = {f.subject for f in far if f.measured.get("scale") == 0}
    near = {"dy", "dx"} - lost if far else set()
    return [
        f
        for f in facts
        if f.subject not in near or f.where or f.measured.get("scale") != 0
    ]


TRACED = offsets, reach, masks, weights  # by what single channels hold
ONE_TAP = Sizes(5, 3, 3, 1, 1, 1, 1, 24, 30, (2, 3), (1, 2), (3, 2))


def by_image(
    probe: Callable[..., list[Fact]], facts: list[Fact], call: Call, dtype: str
) -> list[Fact]:
    """Where images are mixed up, two say little: what five of them read instead."""
    mixed = [f for f in facts if "n" in f.measured.get("along", {})]
    if probe not in (offsets, masks) or not mixed:
        return facts
    more = [f for f in probe(call, dtype, ONE_TAP) if not f.right]
    return more or facts


THREE_GROUPS = UNEVEN._replace(C_in=9, C_out=54, offset_groups=3)


def by_group(
    probe: Callable[..., list[Fact]], facts: list[Fact], call: Call, dtype: str
) -> list[Fact]:
    """Where one of two offset groups is wrong: of three, whether it is the last."""
    group = "offset group"
    told = [
        f
        for f in facts
        if f.where.get("axis") == group or group in f.measured.get("along", {})
    ]
    if probe not in (offsets, masks) or not told:
        return facts
    more = [f for f in probe(call, dtype, THREE_GROUPS) if not f.right]
    return more or facts


def untraceable(facts: Sequence[Fact]) -> bool:
    """Whether channels of x are mixed up, so that none tells what it was to tell."""
    wrong = [f for f in facts if f.subject == "x" and not f.right]
    return any("c" in f.measured.get("along", {"c"}) for f in wrong)


def misplaced(facts: Sequence[Fact]) -> bool:
    """Whether samples are not where offsets send them, for a reason that is known."""
    moved = {f.subject for f in facts if not f.right and "pairs" not in f.measured}
    return bool(moved & {"offset", "dy", "dx"}) or untraceable(facts)


# What is far --------------------------------------------------------------------


def as_in_call(call: Call, dtype: str, N: int, K_h: int, K_w: int) -> list[Fact]:
    """What is read where the batch and the kernel are those of a failing call."""
    many, N = N, min(max(N, UNEVEN.N), MOST_IMAGES)
    C_out = UNEVEN.C_in * K_h * K_w
    sizes = UNEVEN._replace(N=N, K_h=K_h, K_w=K_w, C_out=C_out)
    if sizes == UNEVEN or min(sizes.out) < 1:
        return []
    if not all(f.right for f in image_map(call, dtype)):
        return []  # of a result that lies elsewhere all inputs are another's
    facts = offsets(call, dtype, sizes) + masks(call, dtype, sizes)
    if many > MOST_IMAGES:
        small = ONE_TAP._replace(N=min(many, 2 * 33), H=9, W=10, stride=(1, 1))
        facts += offsets(call, dtype, small) + masks(call, dtype, small)
    return [f for f in facts if not f.right]


def far_away(call: Call, dtype: str) -> list[Fact]:
    """Long rows and columns, and offsets of up to 48 pixels; what is wrong there."""
    if dtype == "float16":
        return []
    facts = []
    if all(f.right for f in reach(call, dtype)):
        facts = [f for f in reach(call, dtype, FAR) if not f.right]
        # Else it is the image that is too large.
        if facts and not all(f.right for f in reach(call, dtype, FAR, near=12)):
            facts = []
    for axis, name in enumerate(("row", "column")):
        limits = (long_line(call, dtype, axis, step) for step in (5, 7, 2))
        first = common_limit(limits)
        if first is not None and first["from"] >= FIRST_FAR:
            facts.append(Fact("far line", name, first, first["from"]))
    return facts + late(call, dtype) + late_address(call, dtype)


def long_line(call: Call, dtype: str, axis: int, step: int) -> dict[str, Any] | None:
    """From which row (column) of 4,200 on samples are wrong; None if they are right."""
    n, z = 4200, Sizes(1, 3, 3, 1, 1, 1, 1, 1, 1, stride=(step, step))
    z = z._replace(H=n) if axis == 0 else z._replace(W=n)
    y = call(image_case(z, dtype, planes(z)))
    if y is None:
        return None
    line = y[0].reshape(3, -1)
    must = step * np.arange(line.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = line[1 + axis] / line[0]
    bad = ~(np.abs(found - must) < 0.05)
    k = int(np.argmax(bad))
    if not bad.any() or k == 0:
        return None
    at = float(found[k]) if line[0, k] else "outside"
    return {"from": int(must[k]), "right up to": int(must[k - 1]), "at": at}


def common_limit(limits: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The first limit, if all lie between the same two neighbours.

    The last output of every call, or a tail of outputs, lies elsewhere in each.
    """
    known: list[dict[str, Any]] = []
    for limit in limits:
        if limit is None:  # no more is asked
            return None
        known.append(limit)
    low, high = max(k["right up to"] for k in known), min(k["from"] for k in known)
    return known[0] if low < high else None


def late(call: Call, dtype: str) -> list[Fact]:
    """From which pixel of a large image on samples are wrong, if it is one pixel.

    Right before it, all wrong after it, and the same pixel whichever pixels are asked
    for: an index that grows too large does so, outputs that are not written do not.
    """
    found = common_limit(late_pixel(call, dtype, step) for step in (7, 5, 2))
    return [] if found is None else [Fact("late pixels", "x", found, where=LARGE_IMAGE)]


LARGE_IMAGE = {"image": [270, 260]}


def late_pixel(call: Call, dtype: str, step: int) -> dict[str, Any] | None:
    """The first of every `step`th pixel that is wrong, if all after it are."""
    H, W = LARGE_IMAGE["image"]
    z = Sizes(1, 3, 3, 1, 1, 1, 1, H, W, stride=(step, step))
    y = call(image_case(z, dtype, planes(z)))
    if y is None:
        return None
    h, w = step * np.indices(z.out)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(y[0, 1] / y[0, 0] - h) + np.abs(y[0, 2] / y[0, 0] - w)
    flat, bad = (h * z.W + w).reshape(-1), ~(off < 0.05).reshape(-1)
    k = int(np.argmax(bad))
    if k == 0 or not bad[k:].mean() > 0.9:
        return None
    return {"from": int(flat[k]), "right up to": int(flat[k - 1])}


MANY_NUMBERS = Sizes(2, 4, 4, 1, 1, 1, 1, 130, 130)  # of an image, more than 2^17


def late_address(call: Call, dtype: str) -> list[Fact]:
    """From which number of x on other ones are read, if it is one number."""
    found = common_limit(wrong_address(call, dtype, step) for step in (7, 5, 3))
    return [] if found is None else [Fact("late address", "x", found)]


def wrong_address(call: Call, dtype: str, step: int) -> dict[str, Any] | None:
    """The first number of x that is read as another, if all after it are, too."""
    z = MANY_NUMBERS._replace(stride=(step, step))
    x = np.arange(z.N * z.C_in * z.H * z.W).reshape(z.N, z.C_in, z.H, z.W)
    y = call(image_case(z, dtype, x))
    due = x[:, :, ::step, ::step]
    if y is None or y.shape != due.shape:
        return None
    got, due = y.astype(float).reshape(-1), due.reshape(-1)
    bad = ~(np.abs(got - due) < 0.05)
    k = int(np.argmax(bad))
    if k == 0 or not bad[k:].mean() > 0.9:
        return None
    first = {"from": int(due[k]), "right up to": int(due[k - 1])}
    return first | {"reads": float(got[k])}
