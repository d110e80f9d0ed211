"""Which elements an output reads, found by changing them one at a time.

A finite change is used first: a pixel of weight 0 may be read or skipped, so a
NaN there proves nothing. The change is dyadic, so an output that depends on
the element changes in its bits, and one that does not keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.diagnosis.answers import Call, Gradients
from refdcn.grading.diagnosis.facts import Fact, Rank, found_right
from refdcn.grading.diagnosis.places import RESULT_AXES, Judged, result_shape
from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import NAMES, Array, Case
from refdcn.grading.questions.sweeps import Plan, drawn

EACH = 12  # elements changed in every input
READ_PLANS = (Plan(), Plan(N=1, c=1, groups=1, offset_groups=1, W_out=33, H_out=3))


def some_elements(case: Case) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Elements of every input: the corners and some between."""
    rng = np.random.default_rng(5)
    for name in NAMES:
        a = getattr(case, name)
        if a is None:
            continue
        some = rng.choice(a.size, min(EACH, a.size), replace=False)
        for flat in dict.fromkeys([0, a.size - 1, *map(int, some)]):
            yield name, tuple(map(int, np.unravel_index(flat, a.shape)))


def one_changed(case: Case, name: str, at: tuple[int, ...]) -> Case:
    """One element is another dyadic number."""
    a = getattr(case, name).copy()
    a[at] += 1 if name != "offset" else 0.5
    return replace(case, **{name: a})


def read_sets(call: Call, dtype: str, plans: Sequence[Plan] = READ_PLANS) -> list[Fact]:
    """Outputs that follow an element they must not read, or the other way."""
    facts = {name: found_right("reads", name) for name in NAMES}
    for plan in plans:
        case = drawn(plan, dtype, 3, "influence")
        start, wanted = call(case), oracle.forward(case)
        if start is None:
            return []
        for name, at in some_elements(case):
            if not facts[name].right:
                continue
            other = one_changed(case, name, at)
            y = call(other)
            if y is None:
                continue
            moves, must = y != start, oracle.forward(other) != wanted
            fact = compare_reads(name, at, moves, must, reached(case, name, at) | must)
            if fact is not None:
                facts[name] = fact
    return list(facts.values())


def reached(case: Case, name: str, at: tuple[int, ...]) -> Array:
    """The outputs in which an element has a part, whatever other parts cancel."""
    a = getattr(case, name)
    one = np.zeros_like(a)
    one[at] = 1
    if name == "bias":
        return np.asarray(np.broadcast_to(one[:, None, None] != 0, case.y_shape))
    m = case.mask
    plain = replace(
        case,
        x=1 + np.arange(case.x.size, dtype=case.x.dtype).reshape(case.x.shape),
        weight=np.abs(case.weight),
        mask=None if m is None else np.abs(m),
        bias=None,
    )
    if name != "offset":
        only: dict[str, Any] = {name: one}
        return np.asarray(oracle.forward(replace(plain, **only)) != 0)
    moved = replace(plain, offset=one_changed(case, name, at).offset)
    return np.asarray(oracle.forward(moved) != oracle.forward(plain))


def compare_reads(
    name: str, at: tuple[int, ...], moves: Array, must: Array, may: Array
) -> Fact | None:
    """What moves with an element and must not; what must and does not."""
    extra, lost = moves & ~may, must & ~moves
    # An output that is out of reach by another fault is no news of this one.
    none = lost.any() and not (moves & must).any()
    for how, which in (("extra", extra), ("none", lost & none), ("lost", lost)):
        if which.any():
            measured: dict[str, Any] = {"how": how, "element": list(at)}
            measured["output"] = np.argwhere(which)[0].tolist()
            measured["outputs"] = int(which.sum())
            return Fact("reads", name, measured, rank=Rank.EFFECT)
    return None


def taint(call: Call, dtype: str) -> list[Fact]:
    """One NaN pixel: every output it reaches; an image of NaN must reach no other."""
    case = drawn(Plan(), dtype, 3, "taint")
    x = case.x.copy()
    x[1] = np.nan
    y = call(replace(case, x=x))
    if y is None:
        return []
    reached = np.isnan(y[0])
    if not reached.any():
        return [found_right("isolation", "images")]
    measured = {"from": 1, "to": 0, "outputs": int(reached.sum())}
    return [Fact("isolation", "images", measured, rank=Rank.EFFECT)]


def stencils(
    grads: Gradients, dtype: str, plans: Sequence[Plan] = READ_PLANS
) -> list[Fact]:
    """What a single grad_y of 1 reaches in every gradient, and whether they add up."""
    facts: dict[tuple[str, str], Fact] = {}
    for plan in plans:
        case = drawn(plan, dtype, 3, "influence")
        shares = one_by_one(grads, case)
        if shares is None:
            return list(facts.values())
        found = [entering(target, told, case) for target, told in shares.items()]
        found += unlike_sums(grads, case)
        for fact in found:
            if fact is not None:
                facts.setdefault((fact.kind, fact.subject), fact)
    seen = {f.subject for f in facts.values() if f.kind == "enters"}
    return [f for f in facts.values() if f.kind != "stencil" or f.subject not in seen]


def one_by_one(grads: Gradients, case: Case) -> dict[str, list[Share]] | None:
    """How some elements of grad_y enter every gradient, each alone."""
    assert case.grad_y is not None
    seen: dict[str, list[Share]] = {}
    ends = np.linspace(0, case.grad_y.size - 1, EACH).astype(int)
    for flat in dict.fromkeys(ends.tolist()):
        go = np.zeros_like(case.grad_y)
        go.reshape(-1)[flat] = 1
        one = replace(case, grad_y=go)
        five = grads(one)
        if five is None:
            return None
        at = tuple(map(int, np.unravel_index(flat, go.shape)))
        for name, got, want in zip(NAMES, five, oracle.gradients(one), strict=True):
            if got is None or want is None:
                continue
            target, got = f"grad_{name}", got.astype(float)
            fact = stencil_of(target, at, got, want, one)
            seen.setdefault(target, []).append(
                Share(at, times_entered(got, want), fact)
            )
    return seen


def unlike_sums(grads: Gradients, case: Case) -> Iterator[Fact]:
    """Gradients that are not the sum of what two halves of grad_y give.

    Every call here is exact, so that nothing but lost or doubled additions does so.
    """
    assert case.grad_y is not None
    sizes: dict[str, Array] = {  # so that what is lost makes a sum smaller
        name: np.abs(a)
        for name in ("x", "weight", "mask", "grad_y")
        if (a := getattr(case, name)) is not None
    }
    case = replace(case, **sizes)  # type: ignore[arg-type]
    assert case.grad_y is not None
    odd = (np.arange(case.grad_y.size) % 2).reshape(case.grad_y.shape)
    parts = [case.grad_y * odd, case.grad_y * (1 - odd), case.grad_y]
    one, two, both = (
        grads(replace(case, grad_y=p.astype(case.x.dtype))) or () for p in parts
    )
    for name, a, b, together in zip(NAMES, one, two, both, strict=False):
        if a is None or b is None or together is None:
            continue
        apart = a.astype(float) + b
        off = ~(np.abs(apart - together) <= 1e-3 * np.abs(apart).max(initial=0))
        if not off.any():  # or by its last bits alone, which are no addition
            continue
        at = tuple(np.argwhere(off)[0].tolist())
        less = np.abs(together[off]) < np.abs(apart[off])
        measured = {"at": list(at), "together": float(together[at])}
        measured |= {"apart": float(apart[at]), "count": int(off.sum())}
        measured |= {"smaller": float(less.mean()), "of": int(off.size)}
        yield Fact("sum", f"grad_{name}", measured, rank=Rank.EFFECT)


class Share(NamedTuple):
    """How often one element of grad_y enters a gradient; None: in another way."""

    at: tuple[int, ...]
    times: float | None
    wrong: Fact | None


def times_entered(got: Array, want: Array) -> float | None:
    """The number of times that `want` came, None where it is no multiple."""
    if not np.isfinite(got).all() or not want.any():
        return None
    k = float((got * want).sum() / (want * want).sum())
    near = np.abs(got - k * want).max() <= 1e-3 * np.abs(want).max()
    return round(k, 3) if near else None


def entering(target: str, shares: Sequence[Share], case: Case) -> Fact | None:
    """Which elements of grad_y enter a gradient too often or not at all."""
    bad = [s for s in shares if s.wrong is not None]
    if not bad:
        return None
    times = {s.times for s in bad}
    good = [s for s in shares if s.wrong is None]
    if len(times) > 1 or None in times or not good:
        return bad[0].wrong
    measured: dict[str, Any] = {"times": bad[0].times}
    for label, value in numbered(case):
        mine, others = ([value(s.at) for s in part] for part in (bad, good))
        if min(mine) > max(others):
            measured |= {"along": label, "from": min(mine)}
            break
        if max(mine) < min(others):
            measured |= {"along": label, "to": max(mine)}
            break
    else:
        measured |= {"at": list(bad[0].at)}
    return Fact("enters", target, measured, 1, Rank.CAUSE)


def numbered(case: Case) -> list[tuple[str, Callable[[tuple[int, ...]], int]]]:
    """The ways in which an element of grad_y is counted."""
    width = case.y_shape[3]
    return [
        ("n", lambda at: at[0]),
        ("o", lambda at: at[1]),
        ("oh", lambda at: at[2]),
        ("ow", lambda at: at[3]),
        ("oh W_out + ow", lambda at: at[2] * width + at[3]),
    ]


def stencil_of(
    target: str, at: tuple[int, ...], got: Array, want: Array, case: Case
) -> Fact | None:
    """How the response to one grad_y differs; None when it does not."""
    bad = ~(np.abs(got - want) < 1e-3)
    if not bad.any():
        return None
    shape = result_shape(Judged(case, target, None))
    place = tuple(np.argwhere(bad.reshape(shape))[0].tolist())
    extra, lost = bad & (want == 0), bad & (got == 0)
    how = (
        "lost" if (bad == lost).all() else "extra" if (bad == extra).all() else "other"
    )
    a, b = float(got.reshape(shape)[place]), float(want.reshape(shape)[place])
    measured = {"of": list(at), "how": how, "count": int(bad.sum())}
    measured |= {"at": list(place), "axes": list(RESULT_AXES[target]), "value": a}
    return Fact("stencil", target, measured, b, Rank.TRACE)


ODD = Plan(N=3, c=3, o=3, H_out=3, W_out=7)  # shapes that no other call has


def remembered(call: Call, grads: Gradients | None, dtype: str) -> list[Fact]:
    """Arguments that are taken from an earlier call of the same shapes."""
    facts = []
    first = drawn(ODD, dtype, 3, "the first of these shapes")
    if call(first) is None:
        return []
    for name in (*NAMES, "padding"):
        for how, other in other_calls(first, name):
            moved: list[str] = []
            if is_of_first(call(other), [oracle.forward(a) for a in (first, other)]):
                moved = ["y"]
            else:
                call(first)
                five = grads(other) if grads is not None else None
                pairs = (oracle.gradients(a) for a in (first, other))
                three = zip(NAMES, five or (), *pairs, strict=False)
                moved = [
                    f"grad_{n}" for n, got, *want in three if is_of_first(got, want)
                ]
            if moved:
                facts.append(Fact("kept argument", name, {"in": moved, "by": how}))
                break
    return facts


def other_calls(case: Case, name: str) -> Iterator[tuple[str, Case]]:
    """The call with another value of one argument, and what stays the same."""
    if name == "padding":  # and a dilation that leaves the sizes as they are
        (p, q), (d, e) = case.padding, case.dilation
        yield "shape", replace(case, padding=(p, q + 1), dilation=(d, e + 1))
        return
    a = getattr(case, name)
    if a is not None:
        turned = a.reshape(-1)[::-1].reshape(a.shape).copy()
        for how, b in (("shape", -a - 1), ("numbers", turned)):
            change: dict[str, Any] = {name: b}
            yield how, replace(case, **change)


def is_of_first(got: Array | None, wants: Sequence[Array | None]) -> bool:
    """Whether what came is right for the first of two calls, not the second."""
    before, now = wants
    if got is None or before is None or now is None or np.array_equal(before, now):
        return False
    return np.array_equal(got, before) and not np.array_equal(got, now)
