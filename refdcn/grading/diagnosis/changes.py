"""What came instead: how the wrong values are made of the right ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from refdcn.grading.diagnosis.places import AXES, Judged, shape_of
from refdcn.grading.diagnosis.probes import Fact
from refdcn.grading.expected.case import Array, Case

Wrong = tuple[Case, Array, Array, Array]  # case, got, want, which are wrong


def described(target: str, wrong: Iterable[Wrong]) -> list[Fact]:
    """One law that every wrong value of every call obeys, if there is any."""
    calls = [w for w in wrong if w[3].any()]
    if not calls:
        return []
    laws = constant, multiple, bias_again, elsewhere, limited, taken, near, added
    for law in laws:
        text = law(target, calls)
        if text:
            return [Fact(f"values of {target}", False, text)]
    return []


def joined(calls: list[Wrong]) -> tuple[Array, Array]:
    """Got and wanted at the wrong elements of all calls."""
    got = np.concatenate([g[bad] for _, g, _, bad in calls])
    want = np.concatenate([w[bad] for _, _, w, bad in calls])
    return got, want


def constant(target: str, calls: list[Wrong]) -> str:
    """Always NaN, or always the same number."""
    got, _ = joined(calls)
    if np.isnan(got).all():
        return f"each wrong value of {target} is NaN"
    if len(got) > 3 and (got == got[0]).all():
        return f"each wrong value of {target} is {got[0]:g}"
    return ""


def multiple(target: str, calls: list[Wrong]) -> str:
    """The right value times one number."""
    got, want = joined(calls)
    told = np.abs(want) > 1e-6 * np.abs(want).max(initial=0)
    if np.count_nonzero(told) < 4:
        return ""
    if (np.abs(got[~told]) > 1e-6 * np.abs(got).max(initial=0)).any():
        return ""  # something where nothing must be
    ratio = got[told] / want[told]
    k = float(np.median(ratio))
    if np.abs(ratio - k).max() > 1e-3 * (1 + abs(k)):
        return ""
    if k == 0:
        return f"each wrong value of {target} is 0"
    return f"each wrong value of {target} is {k:.4g} times the right one"


def bias_again(target: str, calls: list[Wrong]) -> str:
    """The bias is added another number of times."""
    if target != "y" or any(c.bias is None for c, *_ in calls):
        return ""
    times: list[Array] = []
    for case, got, want, bad in calls:
        assert case.bias is not None
        b = np.broadcast_to(case.bias.astype(float)[:, None, None], got.shape)
        told = bad & (np.abs(b) > 1e-2)
        k = (got - want)[told] / b[told]
        if k.size and np.ptp(k) > 2e-3:  # sums of whole numbers are divisible by 1
            return ""
        times.append(k)
        if (np.abs(got - want)[bad & (b == 0)] > 1e-3).any():
            return ""
    k = np.concatenate(times)
    if len(k) < 4 or np.abs(k - np.round(k)).max() > 2e-3:
        return ""
    seen = ", ".join(f"{v:+.0f}" for v in np.unique(np.round(k))[:4])
    return f"the bias is added another number of times ({seen} too many)"


def elsewhere(target: str, calls: list[Wrong]) -> str:
    """The right values of elements at one fixed distance along one axis."""
    labels = AXES[target]
    for axis, label in enumerate(labels):
        for step in (-8, -4, -3, -2, -1, 1, 2, 3, 4, 8):
            if all(moved_by(target, c, axis, step) for c in calls):
                sign = f"{label} {'+' if step > 0 else '-'} {abs(step)}"
                head = f"each wrong value of {target} at {label}"
                return f"{head} is the right value at {sign}"
    return ""


def moved_by(target: str, call: Wrong, axis: int, step: int) -> bool:
    """Whether every wrong value is the right one `step` further."""
    case, got, want, bad = call
    shape = shape_of(Judged(case, target, None))
    got, want, bad = (a.reshape(shape) for a in (got, want, bad))
    at = np.argwhere(bad)
    at[:, axis] += step
    inside = (at[:, axis] >= 0) & (at[:, axis] < shape[axis])
    if not inside.all():
        return False
    scale = np.abs(want).max(initial=0)
    return bool((np.abs(want[tuple(at.T)] - got[bad]) <= 1e-5 * scale).all())


def limited(target: str, calls: list[Wrong]) -> str:
    """No value beyond a limit: the result saturates."""
    got, want = joined(calls)
    top = float(np.abs(got).max(initial=0))
    at_top = np.abs(np.abs(got) - top) <= 1e-6 * top
    beyond = (np.abs(want) > top * (1 - 1e-6)) & (np.sign(got) == np.sign(want))
    if len(got) > 3 and at_top.all() and beyond.all():
        return f"{target} never exceeds {top:g} in size: it saturates"
    return ""


def taken(target: str, calls: list[Wrong]) -> str:
    """The right values of other elements of the same call, wherever they are."""
    told = [c for c in calls if c[0].kind == "bound"]  # small whole numbers repeat
    axes: set[int] = set()
    example = ""
    for case, got, want, bad in told:
        shape = shape_of(Judged(case, target, None))
        found = nearest(got[bad], want.reshape(-1))
        if found is None:
            return ""
        here = np.argwhere(bad.reshape(shape))
        there = np.stack(np.unravel_index(found, shape), 1)
        axes |= set(map(int, np.flatnonzero((here != there).any(0))))
        one, other = (f"{target}{a[0].tolist()}" for a in (here, there))
        example = example or f"{one} has that of {other}"
    labels = [AXES[target][axis] for axis in sorted(axes)]
    if not labels:
        return ""
    along = f" (only {' and '.join(labels)} {'differ' if labels[1:] else 'differs'})"
    head = f"each wrong value of {target} is the right one of another element"
    return f"{head}{along}: {example}"


def nearest(values: Array, among: Array) -> Array | None:
    """Which of `among` each value is; None where one is none of them."""
    order = np.argsort(among)
    place = np.clip(np.searchsorted(among[order], values), 1, len(among) - 1)
    two = np.stack([order[place - 1], order[place]])
    off = np.abs(among[two] - values)
    found = np.where(off[0] <= off[1], two[0], two[1])
    if not (off.min(0) <= 1e-6 * np.abs(among).max(initial=0)).all():
        return None
    return np.asarray(found)


def near(target: str, calls: list[Wrong]) -> str:
    """Right but for the last bits: how many are right."""
    off = 0.0
    for _, got, want, bad in calls:
        scale = np.abs(want).max(initial=0)
        off = max(off, float(np.abs(got - want)[bad].max() / max(scale, 1e-300)))
    bits = int(-np.log2(off)) if 0 < off < np.inf else 0
    if bits < 6:
        return ""
    return f"each wrong value of {target} is nearly right: about {bits} bits of it are"


def added(target: str, calls: list[Wrong]) -> str:
    """What the wrong values have too much is the same along all axes but one or two."""
    labels = AXES[target]
    errors = []
    for case, got, want, bad in calls:
        error = np.where(bad, got - want, 0)
        errors.append(error.reshape(shape_of(Judged(case, target, None))))
    if not all(np.isfinite(e).all() for e in errors):
        return ""
    few: list[tuple[int, ...]] = [(k,) for k in range(len(labels))]
    few += [(j, k) for j, k in combinations(range(len(labels)), 2) if len(labels) > 2]
    for axes in few:
        other = tuple(k for k in range(len(labels)) if k not in axes)
        seen = all(max(e.shape[k] for e in errors) > 1 for k in other)
        if other and seen and all(constant_along(e, other) for e in errors):
            said = " and ".join(labels[k] for k in axes)
            return f"what is added to {target} depends on {said} alone"
    return ""


def constant_along(error: Array, axes: tuple[int, ...]) -> bool:
    """Whether an error is the same along some axes, and there is something to see."""
    if np.prod([error.shape[k] for k in axes]) < 2:
        return True
    spread = error.max(axes) - error.min(axes)
    return bool(spread.max(initial=0) <= 1e-3 * np.abs(error).max(initial=0))
