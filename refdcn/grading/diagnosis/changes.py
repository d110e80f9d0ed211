"""What came instead: how the wrong values are made of the right ones.

Every comparison is written so that NaN fails it: a law holds where `error <= room`
does, and never where nothing could be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from math import log

import numpy as np

from refdcn.grading.diagnosis.facts import Fact, Rank
from refdcn.grading.diagnosis.places import RESULT_AXES, Judged, result_shape
from refdcn.grading.expected.case import Array, Case

Wrong = tuple[Case, Array, Array, Array]  # case, got, want, which are wrong
DISTANCES = (-8, -4, -3, -2, -1, 1, 2, 3, 4, 8)
SAME = 1e-5  # of the largest value: the same number
ACCIDENT = log(1e-6)  # the chance below which a pattern is no accident


def law_of_values(target: str, wrong: Iterable[Wrong]) -> list[Fact]:
    """One law that every wrong value of every call obeys, if there is any."""
    calls = [w for w in wrong if w[3].any()]
    if not calls:
        return []
    laws = (
        constant,
        bias_alone,
        one_multiple,
        bias_again,
        elsewhere,
        limited,
        taken,
        nearly,
        added,
    )
    with np.errstate(all="ignore"):
        found = (law(target, calls) for law in laws)
        return [fact for fact in found if fact is not None][:1]


def all_wrong(calls: list[Wrong]) -> tuple[Array, Array]:
    """Got and wanted at the wrong elements of all calls."""
    got = np.concatenate([g[bad] for _, g, _, bad in calls])
    want = np.concatenate([w[bad] for _, _, w, bad in calls])
    return got, want


def constant(target: str, calls: list[Wrong]) -> Fact | None:
    """Always NaN, never finite, or always the same number."""
    got, _ = all_wrong(calls)
    if not np.isfinite(got).any():
        value = "nan" if np.isnan(got).all() else "infinite"
        return Fact("values", target, {"value": value})
    if len(got) > 3 and (got == got[0]).all():
        return Fact("values", target, {"value": float(got[0])})
    return None


def bias_alone(target: str, calls: list[Wrong]) -> Fact | None:
    """The bias, or 0 where there is none: the sum is not there."""
    if target != "y":
        return None
    for case, got, _, bad in calls:
        b = np.zeros(len(case.weight)) if case.bias is None else case.bias.astype(float)
        at = np.broadcast_to(b[:, None, None], got.shape)[bad]
        if not (np.abs(got[bad] - at) <= SAME * np.abs(b).max(initial=0)).all():
            return None
    return Fact("values", target, {"value": "bias"})


def one_multiple(target: str, calls: list[Wrong]) -> Fact | None:
    """The right value times one number."""
    got, want = all_wrong(calls)
    if not np.isfinite(got).all():
        return None
    large = np.abs(want) > 1e-6 * np.abs(want).max(initial=0)
    if np.count_nonzero(large) < 4:
        return None
    if not (np.abs(got[~large]) <= 1e-6 * np.abs(got).max(initial=0)).all():
        return None  # something where nothing must be
    ratio = got[large] / want[large]
    k = float(np.median(ratio))
    if not np.abs(ratio - k).max() <= 1e-3 * (1 + abs(k)) or abs(k - 1) < 2e-3:
        return None
    if k == 0:
        return Fact("values", target, {"value": 0.0})
    return Fact("multiple", target, {"times": k}, {"times": 1})


def bias_again(target: str, calls: list[Wrong]) -> Fact | None:
    """The bias is added another number of times."""
    if target != "y" or any(c.bias is None for c, *_ in calls):
        return None
    times: list[Array] = []
    for case, got, want, bad in calls:
        assert case.bias is not None
        b = np.broadcast_to(case.bias.astype(float)[:, None, None], got.shape)
        large = bad & (np.abs(b) > 1e-2)
        k = (got - want)[large] / b[large]
        if k.size and not np.ptp(k) <= 2e-3:  # sums of whole numbers divide by 1
            return None
        times.append(k)
        if not (np.abs(got - want)[bad & (b == 0)] <= 1e-3).all():
            return None
    k = np.concatenate(times)
    if len(k) < 4 or not np.abs(k - np.round(k)).max() <= 2e-3:
        return None
    return Fact(
        "bias added", "bias", {"times": (1 + np.unique(np.round(k))[:4]).tolist()}, 1
    )


def elsewhere(target: str, calls: list[Wrong]) -> Fact | None:
    """The right values of elements at one fixed distance along one axis."""
    labels = RESULT_AXES[target]
    odds = log(len(labels) * len(DISTANCES)) + sum(map(log_alike, calls))
    if not odds < ACCIDENT:
        return None
    for axis, label in enumerate(labels):
        for step in DISTANCES:
            if all(moved_by(target, c, axis, step) for c in calls):
                return Fact("moved", target, {"along": label, "by": step})
    return None


def log_alike(call: Wrong) -> float:
    """log of the chance that all wrong values are those of elements drawn blindly."""
    _, _, want, bad = call
    scale = SAME * np.abs(want).max(initial=0)
    if scale == 0:
        return 0.0
    _, counts = np.unique(np.round(want / scale), return_counts=True)
    most = max(float(counts.max()) / want.size, 2 * SAME)
    distinct = len(np.unique(np.round(want[bad] / scale)))
    return float(distinct * log(most))


def moved_by(target: str, call: Wrong, axis: int, step: int) -> bool:
    """Whether every wrong value is the right one `step` further."""
    case, got, want, bad = call
    shape = result_shape(Judged(case, target, None))
    got, want, bad = (a.reshape(shape) for a in (got, want, bad))
    at = np.argwhere(bad)
    at[:, axis] += step
    inside = (at[:, axis] >= 0) & (at[:, axis] < shape[axis])
    if not inside.all():
        return False
    scale = np.abs(want).max(initial=0)
    return bool((np.abs(want[tuple(at.T)] - got[bad]) <= SAME * scale).all())


def limited(target: str, calls: list[Wrong]) -> Fact | None:
    """No value beyond a limit: the result saturates."""
    got, want = all_wrong(calls)
    top = float(np.abs(got).max(initial=0))
    at_top = np.abs(np.abs(got) - top) <= 1e-6 * top
    beyond = (np.abs(want) > top * (1 - 1e-6)) & (np.sign(got) == np.sign(want))
    if len(got) > 3 and at_top.all() and beyond.all():
        return Fact("saturates", target, {"at": top})
    return None


def taken(target: str, calls: list[Wrong]) -> Fact | None:
    """The right values of other elements of the same call, along the fewest axes."""
    drawn = [c for c in calls if c[0].kind == "bound"]  # small whole numbers repeat
    labels = RESULT_AXES[target]
    every = range(len(labels))
    for n in every:
        for axes in combinations(every, n + 1):
            pairs = pairs_along(target, drawn, axes)
            odds = sum(
                len(here) * log(min(1.0, 4e-6 * within)) for here, _, within in pairs
            )
            if not pairs or not odds < ACCIDENT:
                continue
            here, there, _ = pairs[0]
            example = {"at": here[0].tolist(), "is that of": there[0].tolist()}
            along = [labels[k] for k in axes]
            return Fact("exchanged values", target, {"along": along} | example)
    return None


Pairs = tuple[Array, Array, int]


def pairs_along(target: str, calls: list[Wrong], axes: tuple[int, ...]) -> list[Pairs]:
    """Of each call; none if one has a value that is no other element's."""
    pairs: list[Pairs] = []
    for call in calls:
        found = found_along(target, call, axes)
        if found is None:
            return []
        pairs.append(found)
    return pairs


AT_ONCE = 2**20  # pairs of elements that are compared


def found_along(target: str, call: Wrong, axes: tuple[int, ...]) -> Pairs | None:
    """The wrong elements, and those along some axes whose right values they have.

    With the number of elements among which each was found; None if one is not.
    """
    case, got, want, bad = call
    shape = result_shape(Judged(case, target, None))
    got, want, bad = (a.reshape(shape) for a in (got, want, bad))
    others = [k for k in range(len(shape)) if k not in axes]
    index = np.arange(want.size).reshape(shape).transpose(*others, *axes)
    within = int(np.prod([shape[k] for k in axes]))
    lines = index.reshape(-1, within)
    here = np.argwhere(bad)
    line = np.empty(want.size, int)
    line[lines] = np.arange(len(lines))[:, None]
    own, flat, scale = line[np.flatnonzero(bad)], want.reshape(-1), np.abs(want).max()
    there, step = [], max(1, AT_ONCE // within)
    for first in range(0, len(own), step):
        mine = lines[own[first : first + step]]
        off = np.abs(flat[mine] - got[bad][first : first + step, None])
        if not (off.min(1) <= 1e-6 * scale).all():
            return None
        there.append(mine[np.arange(len(mine)), off.argmin(1)])
    at = np.concatenate(there)
    return here, np.stack(np.unravel_index(at, shape), 1), within


def nearly(target: str, calls: list[Wrong]) -> Fact | None:
    """Right but for the last bits: how many are right."""
    off = [
        float(np.abs(got - want)[bad].max() / max(np.abs(want).max(initial=0), 1e-300))
        for _, got, want, bad in calls
    ]
    if not np.isfinite(off).all() or not max(off) > 0:
        return None
    bits = int(-np.log2(max(off)))
    if bits < 6:
        return None
    return Fact("nearly", target, {"bits": bits}, rank=Rank.RELATION)


def added(target: str, calls: list[Wrong]) -> Fact | None:
    """What the wrong values have too much is the same along all axes but one or two."""
    labels = RESULT_AXES[target]
    errors = []
    for case, got, want, bad in calls:
        error = np.where(bad, got - want, 0)
        errors.append(error.reshape(result_shape(Judged(case, target, None))))
    if not all(np.isfinite(e).all() for e in errors):
        return None
    few: list[tuple[int, ...]] = [(k,) for k in range(len(labels))]
    few += [(j, k) for j, k in combinations(range(len(labels)), 2) if len(labels) > 2]
    for axes in few:
        other = tuple(k for k in range(len(labels)) if k not in axes)
        seen = all(max(e.shape[k] for e in errors) > 1 for k in other)
        if other and seen and all(constant_along(e, other) for e in errors):
            along = [labels[k] for k in axes]
            return Fact("added", target, {"along": along}, rank=Rank.EFFECT)
    return None


def constant_along(error: Array, axes: tuple[int, ...]) -> bool:
    """Whether an error is the same along some axes, and there is something to see."""
    if np.prod([error.shape[k] for k in axes]) < 2:
        return True
    spread = error.max(axes) - error.min(axes)
    return bool(spread.max(initial=0) <= 1e-3 * np.abs(error).max(initial=0))
