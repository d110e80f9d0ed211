"""Which elements an output reads, found by changing them one at a time.

A finite change is used first: a pixel of weight 0 may be read or skipped, so a
NaN there proves nothing. The change is dyadic, so an output that depends on
the element changes in its bits, and one that does not keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from refdcn.grading import oracle
from refdcn.grading.cases import NAMES, Array, Case
from refdcn.grading.location import AXES, Judged, first, shape_of
from refdcn.grading.probes import Fact
from refdcn.grading.sweeps import Plan, drawn

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


def read_sets(call: Call, dtype: str) -> list[Fact]:
    """Outputs that follow an element they must not read, or the other way."""
    facts = {name: Fact(f"reads of {name}", True, "") for name in NAMES}
    for plan in PLANS:
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
            fact = compare_reads(name, at, moves, must)
            if fact is not None:
                facts[name] = fact
    return list(facts.values())


def compare_reads(
    name: str, at: tuple[int, ...], moves: Array, must: Array
) -> Fact | None:
    """What moves with an element and must not; what must and does not."""
    where = ", ".join(map(str, at))
    extra, lost = moves & ~must, must & ~moves
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


def stencils(grads: Grads, dtype: str) -> list[Fact]:
    """What a single grad_y of 1 reaches in every gradient."""
    facts: dict[str, Fact] = {}
    for plan in PLANS:
        case = drawn(plan, dtype, 3, "influence")
        assert case.grad_y is not None
        for flat in np.linspace(0, case.grad_y.size - 1, EACH).astype(int):
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
                text = stencil(name, at, got.astype(float), want, one)
                if text:
                    facts[topic] = Fact(topic, False, text)
    return list(facts.values())


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


__all__ = ["first", "read_sets", "stencils", "taint"]
