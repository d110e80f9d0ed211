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

from refdcn.grading.diagnosis.places import AXES, Judged, first, shape_of
from refdcn.grading.diagnosis.probes import Fact
from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import NAMES, Array, Case
from refdcn.grading.questions.sweeps import Plan, drawn

Call = Callable[[Case], Array | None]
Grads = Callable[[Case], Sequence[Array | None] | None]
EACH = 12  # elements changed in every input
PLANS = (Plan(), Plan(N=1, c=1, groups=1, offset_groups=1, W_out=33, H_out=3))


def cells(case: Case) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Elements of every input: the corners and some between."""
    rng = np.random.default_rng(5)
    for name in NAMES:
        a = getattr(case, name)
        if a is None:
            continue
        some = rng.choice(a.size, min(EACH, a.size), replace=False)
        for flat in dict.fromkeys([0, a.size - 1, *map(int, some)]):
            yield name, tuple(map(int, np.unravel_index(flat, a.shape)))


def changed(case: Case, name: str, at: tuple[int, ...]) -> Case:
    """One element is another dyadic number."""
    a = getattr(case, name).copy()
    a[at] += 1 if name != "offset" else 0.5
    return replace(case, **{name: a})


def read_sets(call: Call, dtype: str, plans: Sequence[Plan] = PLANS) -> list[Fact]:
    """Outputs that follow an element they must not read, or the other way."""
    facts = {name: Fact(f"reads of {name}", True, "") for name in NAMES}
    for plan in plans:
        case = drawn(plan, dtype, 3, "influence")
        start, right = call(case), oracle.forward(case)
        if start is None:
            return []
        for name, at in cells(case):
            if not facts[name].right:
                continue
            other = changed(case, name, at)
            y = call(other)
            if y is None:
                continue
            moves, must = y != start, oracle.forward(other) != right
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
    moved = replace(plain, offset=changed(case, name, at).offset)
    return np.asarray(oracle.forward(moved) != oracle.forward(plain))


def compare_reads(
    name: str, at: tuple[int, ...], moves: Array, must: Array, may: Array
) -> Fact | None:
    """What moves with an element and must not; what must and does not."""
    where = ", ".join(map(str, at))
    extra, lost = moves & ~may, must & ~moves
    if extra.any():
        n, place = int(extra.sum()), tuple(map(int, np.argwhere(extra)[0]))
        text = (
            f"y{list(place)} reads {name}[{where}], which the definition does not read "
            f"there ({n} outputs in all)"
        )
        return Fact(f"reads of {name}", False, text)
    # An output that is out of reach by another fault is no news of this one.
    if lost.any() and not (moves & must).any():
        place = tuple(map(int, np.argwhere(lost)[0]))
        text = f"no output reads {name}[{where}]; y{list(place)} must"
        return Fact(f"reads of {name}", False, text)
    if lost.any():
        n, place = int(lost.sum()), tuple(map(int, np.argwhere(lost)[0]))
        text = (
            f"y{list(place)} does not read {name}[{where}], which the definition reads "
            f"there ({n} outputs in all)"
        )
        return Fact(f"reads of {name}", False, text)
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
    text = (
        f"image 1 reaches image 0: with NaN in image 1 alone {int(reached.sum())} "
        "outputs of image 0 are NaN"
    )
    return [Fact("isolation of images", not reached.any(), text)]


def stencils(grads: Grads, dtype: str, plans: Sequence[Plan] = PLANS) -> list[Fact]:
    """What a single grad_y of 1 reaches in every gradient."""
    facts: dict[str, Fact] = {}
    for plan in plans:
        case = drawn(plan, dtype, 3, "influence")
        assert case.grad_y is not None
        seen: dict[str, list[Share]] = {}
        ends = np.linspace(0, case.grad_y.size - 1, EACH).astype(int)
        for flat in dict.fromkeys(ends.tolist()):
            go = np.zeros_like(case.grad_y)
            go.reshape(-1)[flat] = 1
            one = replace(case, grad_y=go)
            five = grads(one)
            if five is None:
                return list(facts.values())
            at = tuple(map(int, np.unravel_index(flat, go.shape)))
            for name, got, want in zip(NAMES, five, oracle.gradients(one), strict=True):
                topic = f"stencil of grad_{name}"
                if got is None or want is None or topic in facts:
                    continue
                got = got.astype(float)
                text = stencil(name, at, got, want, one)
                seen.setdefault(topic, []).append(Share(at, ratio(got, want), text))
        for topic, shares in seen.items():
            text = entering(topic.split(" ")[-1], shares, case)
            if text:
                told = topic.replace("stencil", "share") if "enter" in text else topic
                facts[topic] = Fact(told, False, text)
        odd = (np.arange(case.grad_y.size) % 2).reshape(case.grad_y.shape)
        parts = [case.grad_y * odd, case.grad_y * (1 - odd), case.grad_y]
        three = [grads(replace(case, grad_y=p.astype(case.x.dtype))) for p in parts]
        halves = zip(three[0] or (), three[1] or (), strict=False)
        summed = [plus(a, b) for a, b in halves]
        for name, a, b in zip(NAMES, summed, three[2] or (), strict=False):
            topic = f"sum of grad_{name}"
            if a is not None and b is not None and not np.array_equal(a, b):
                facts.setdefault(topic, Fact(topic, False, lost(name, a, b)))
    return list(facts.values())


def plus(a: Array | None, b: Array | None) -> Array | None:
    """The sum of what there is."""
    return b if a is None else a if b is None else a + b


def lost(name: str, apart: Array, together: Array) -> str:
    """That a gradient is not the sum of its parts; every call here is exact."""
    at = tuple(map(int, np.argwhere(~(apart == together))[0]))
    fewer = "some are lost" if abs(together[at]) < abs(apart[at]) else "they interfere"
    return (
        f"two halves of grad_y do not give together the sum of what each gives alone: "
        f"grad_{name}{list(at)} is {together[at]:g}, not {apart[at]:g}; {fewer}"
    )


class Share(NamedTuple):
    """How often one element of grad_y enters a gradient; None: in another way."""

    at: tuple[int, ...]
    times: float | None
    text: str  # what is wrong, empty if nothing


def ratio(got: Array, want: Array) -> float | None:
    """The number of times that `want` came, None where it is no multiple."""
    if not np.isfinite(got).all() or not want.any():
        return None
    k = float((got * want).sum() / (want * want).sum())
    near = np.abs(got - k * want).max() <= 1e-3 * np.abs(want).max()
    return round(k, 3) if near else None


def entering(target: str, shares: Sequence[Share], case: Case) -> str:
    """Which elements of grad_y enter a gradient too often or not at all."""
    bad = [s for s in shares if s.text]
    if not bad:
        return ""
    times = {s.times for s in bad}
    right = [s for s in shares if not s.text]
    if len(times) > 1 or None in times or not right:
        return bad[0].text
    (k,) = times
    does = f"does not enter {target}" if k == 0 else f"enters {target} {k:g} times"
    for label, value in numbered(case):
        mine, others = ([value(s.at) for s in part] for part in (bad, right))
        if min(mine) > max(others):
            return f"grad_y {does} from {label} = {min(mine)} on"
        if max(mine) < min(others):
            end = f"up to {label} =" if max(mine) else f"at {label} ="
            return f"grad_y {does} {end} {max(mine)}"
    return f"grad_y[{', '.join(map(str, bad[0].at))}] {does}"


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


def stencil(name: str, at: tuple[int, ...], got: Array, want: Array, case: Case) -> str:
    """How the response to one grad_y differs; empty when it does not."""
    bad = ~(np.abs(got - want) < 1e-3)
    if not bad.any():
        return ""
    target = f"grad_{name}"
    shape = shape_of(Judged(case, target, None))
    place = tuple(map(int, np.argwhere(bad.reshape(shape))[0]))
    labels = ", ".join(AXES[target])
    head = f"a single grad_y of 1 at {at} gives {target}"
    extra, lost = bad & (want == 0), bad & (got == 0)
    if (bad == lost).all():
        return (
            f"{head} = 0 at {int(bad.sum())} places where it must not be (first at "
            f"{place} as {labels})"
        )
    if (bad == extra).all():
        return (
            f"{head} at {int(bad.sum())} places that it must not reach (first at "
            f"{place} as {labels})"
        )
    a, b = got.reshape(shape)[place], want.reshape(shape)[place]
    return f"{head} = {a:g} at {place} ({labels}); the definition gives {b:g}"


ODD = Plan(N=3, c=3, o=3, H_out=3, W_out=7)  # shapes that no other call has


def remembered(call: Call, grads: Grads | None, dtype: str) -> list[Fact]:
    """Arguments that are taken from an earlier call of the same shapes."""
    facts = []
    first = drawn(ODD, dtype, 3, "the first of these shapes")
    if call(first) is None:
        return []
    for name in (*NAMES, "padding"):
        for how, other in others(first, name):
            if stale(call(other), [oracle.forward(a) for a in (first, other)]):
                text = f"y takes the {name} of an earlier call with the same {how}"
                facts.append(Fact(f"{name} of y", False, text))
                break
            call(first)
            five = grads(other) if grads is not None else None
            pairs = (oracle.gradients(a) for a in (first, other))
            three = zip(NAMES, five or (), *pairs, strict=False)
            moved = [n for n, got, *wants in three if stale(got, wants)]
            if moved:
                lost = ", ".join(f"grad_{n}" for n in moved)
                text = f"{lost}: the {name} is that of an earlier call"
                text += f" with the same {how}"
                facts.append(Fact(f"{name} of gradients", False, text))
                break
    return facts


def others(case: Case, name: str) -> Iterator[tuple[str, Case]]:
    """The call with another value of one argument, and what stays the same."""
    if name == "padding":  # and a dilation that leaves the sizes as they are
        (p, q), (d, e) = case.padding, case.dilation
        yield "shapes", replace(case, padding=(p, q + 1), dilation=(d, e + 1))
        return
    a = getattr(case, name)
    if a is not None:
        turned = a.reshape(-1)[::-1].reshape(a.shape).copy()
        for how, b in (("shape", -a - 1), ("numbers in another order", turned)):
            change: dict[str, Any] = {name: b}
            yield how, replace(case, **change)


def stale(got: Array | None, wants: Sequence[Array | None]) -> bool:
    """Whether what came is right for the first of two calls, not the second."""
    before, now = wants
    if got is None or before is None or now is None or np.array_equal(before, now):
        return False
    return np.array_equal(got, before) and not np.array_equal(got, now)


__all__ = ["first", "read_sets", "remembered", "stencils", "taint"]
