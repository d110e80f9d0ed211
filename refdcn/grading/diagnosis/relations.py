"""Relations between calls: what the candidate itself contradicts, with no oracle.

The sum (1) runs over images, channels, taps and pixels that know nothing of
each other, is linear in x, in w and in m, and is the transpose of its own
gradient. On dyadic data each of these is exact, so that a relation which fails,
even in the last bit, names the axis along which the candidate mixes or forgets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.diagnosis.answers import Call, Gradients
from refdcn.grading.diagnosis.facts import Fact, Rank, found_right
from refdcn.grading.expected.case import NAMES, Array, Case, Sizes, base, offset_shape
from refdcn.grading.questions.sweeps import Plan, drawn, unequal

Move = Callable[[Array], Array]


class Relation(NamedTuple):
    """A changed call, and how each output must follow."""

    name: str
    case: Case
    moves: dict[str, Move]  # by output; one that is not named stays as it is
    untold: tuple[str, ...] = ()  # outputs of which it says nothing


def all_outputs(call: Call, grads: Gradients | None, case: Case) -> dict[str, Array]:
    """Every output that the candidate gives."""
    found: dict[str, Array] = {}
    y = call(case)
    if y is not None:
        found["y"] = y.astype(np.float64)
    five = grads(case) if grads is not None else None
    for name, a in zip(NAMES, five or (), strict=False):
        if a is not None:
            found[f"grad_{name}"] = a.astype(np.float64)
    return found


def moved_call(
    case: Case, relation: str, moves: dict[str, Move], **inputs: Array
) -> Relation:
    """The call with its inputs moved as their gradients must be."""
    changed: dict[str, Any] = {
        name: move(a)
        for name, move in moves.items()
        if (a := getattr(case, name)) is not None
    }
    changed |= inputs
    outputs = {f"grad_{name}": move for name, move in moves.items() if name in NAMES}
    if "grad_y" in moves:
        outputs["y"] = moves["grad_y"]
    return Relation(relation, replace(case, **changed), outputs)


def permutations(case: Case) -> Iterator[Relation]:
    """Images, channels, pixels and taps change places."""
    s = case.sizes
    N, og, K, _, *out = offset_shape(s)
    images: Move = lambda a: a[::-1].copy()  # noqa: E731
    each = dict.fromkeys(("x", "offset", "mask", "grad_y"), images)
    yield moved_call(case, "images reversed", each)

    n_o = s.C_out // s.groups

    def outputs(a: Array, axis: int) -> Array:
        b = np.moveaxis(a, axis, 0)
        b = b.reshape(s.groups, n_o, *b.shape[1:])[:, ::-1].reshape(b.shape)
        return np.moveaxis(b, 0, axis).copy()

    yield moved_call(
        case,
        "output channels reversed",
        {
            "weight": lambda a: outputs(a, 0),
            "bias": lambda a: outputs(a, 0),
            "grad_y": lambda a: outputs(a, 1),
        },
    )
    yield from inputs_reversed(case)
    yield pixels_reversed(case, 0)
    yield pixels_reversed(case, 1)
    yield taps_reversed(case)


def inputs_reversed(case: Case) -> Iterator[Relation]:
    """Input channels change places within the runs of both groupings."""
    s = case.sizes
    if s.groups != s.offset_groups:
        return
    n = s.C_in // s.groups

    def channels(a: Array) -> Array:
        b = a.reshape(len(a), s.groups, n, *a.shape[2:])[:, :, ::-1]
        return b.reshape(a.shape).copy()

    yield moved_call(
        case,
        "input channels reversed",
        {"x": channels, "weight": lambda a: a[:, ::-1].copy()},
    )


def pixels_reversed(case: Case, axis: int) -> Relation:
    """Output rows (columns) change places and take their positions along."""
    s = case.sizes
    shape = offset_shape(s)
    still = base(s)[axis]
    flipped = np.flip(still, 1 + axis) - still  # the position stays, the pixel moves

    def flip(a: Array) -> Array:
        return np.flip(a, a.ndim - 2 + axis).copy()

    dp = flip(case.offset.astype(float)).reshape(shape)
    dp[:, :, :, axis] += flipped
    offset = dp.reshape(case.offset.shape).astype(case.offset.dtype)
    line = ("rows", "columns")[axis]
    moves: dict[str, Move] = dict.fromkeys(("offset", "mask", "grad_y"), flip)
    return moved_call(case, f"output {line} reversed", moves, offset=offset)


def taps_reversed(case: Case) -> Relation:
    """Taps change places and take their positions along."""
    s = case.sizes
    N, og, K, _, *out = offset_shape(s)

    def planes(a: Array, parts: int) -> Array:
        b = a.reshape(N, og, K, parts, *out)[:, :, ::-1]
        return b.reshape(a.shape).copy()

    dp = planes(case.offset.astype(float), 2).reshape(offset_shape(s))
    for axis, still in enumerate(base(s)):
        dp[:, :, :, axis] += still[::-1] - still
    moves: dict[str, Move] = {
        "offset": lambda a: planes(a, 2),
        "mask": lambda a: planes(a, 1),
        "weight": lambda a: a[..., ::-1, ::-1].copy(),
    }
    offset = dp.reshape(case.offset.shape).astype(case.offset.dtype)
    return moved_call(case, "taps reversed", moves, offset=offset)


def shifts(case: Case) -> Iterator[Relation]:
    """The same positions, made of other strides, paddings and dilations."""
    s = case.sizes
    by, bx = base(s)
    for name in ("stride", "padding", "dilation"):
        pair = getattr(case, name)
        grown_by_one: dict[str, Any] = {name: (pair[0] + 1, pair[1] + 1)}
        other, sizes = replace(case, **grown_by_one), s._replace(**grown_by_one)
        dp = case.offset.astype(float).reshape(offset_shape(s)).copy()
        windows = base_at(sizes, s.out)
        dp[:, :, :, 0] += by - windows[0]
        dp[:, :, :, 1] += bx - windows[1]
        offset = dp.reshape(case.offset.shape).astype(case.offset.dtype)
        grown = enlarged(replace(other, offset=offset), s.out)
        if grown is not None:
            yield Relation(f"{name} by offsets", grown, {}, ("grad_x",))


def base_at(s: Sizes, out: tuple[int, int]) -> tuple[Array, Array]:
    """base() for an output size of its own."""
    i, j = np.indices((s.K_h, s.K_w)).reshape(2, -1, 1, 1)
    (sy, sx), (py, px), (dy, dx) = s.stride, s.padding, s.dilation
    y = sy * np.arange(out[0])[:, None] - py + dy * i
    return y, sx * np.arange(out[1]) - px + dx * j


def enlarged(case: Case, out: tuple[int, int]) -> Case | None:
    """The image with zeros below and to the right until H_out, W_out fit."""
    s = case.sizes
    room = [(0, 0), (0, 0)]
    axes = zip(
        (s.H, s.W),
        out,
        (s.K_h, s.K_w),
        case.stride,
        case.padding,
        case.dilation,
        strict=True,
    )
    for n, o, k, st, p, d in axes:
        need = (o - 1) * st + d * (k - 1) + 1 - 2 * p
        room.append((0, max(0, need - n)))
    grown = replace(case, x=np.pad(case.x, room))
    return grown if grown.sizes.out == out else None


def fillers(case: Case) -> Iterator[Relation]:
    """What is left out means ones and zeros; groups are sparse weights."""
    s = case.sizes
    N, og, K, _, *out = offset_shape(s)
    ones = np.ones((N, og * K, *out), case.x.dtype)
    full = replace(case, mask=ones)
    yield Relation("mask of ones", replace(full, mask=None), {})
    nothing = replace(case, bias=np.zeros_like(case.weight[:, 0, 0, 0]))
    yield Relation("bias of zeros", replace(nothing, bias=None), {})
    for layout in ("channels last", "every second column"):
        yield Relation(f"memory: {layout}", replace(case, layout=layout), {})
    dense = np.zeros((s.C_out, s.C_in, s.K_h, s.K_w), case.weight.dtype)
    n, n_o = s.C_in // s.groups, s.C_out // s.groups
    for b in range(s.groups):
        rows = slice(b * n_o, (b + 1) * n_o)
        dense[rows, b * n : (b + 1) * n] = case.weight[rows]
    if s.groups > 1:
        sparse = replace(case, weight=dense)
        yield Relation("groups as sparse weights", sparse, {}, ("grad_weight",))


STARTS = {
    "mask of ones": "mask",
    "bias of zeros": "bias",
}


def start_of(relation: Relation, case: Case) -> Case:
    """The call that a relation starts from."""
    name = STARTS.get(relation.name)
    if name == "mask":
        N, og, K, _, *out = offset_shape(case.sizes)
        return replace(case, mask=np.ones((N, og * K, *out), case.x.dtype))
    if name == "bias":
        return replace(case, bias=np.zeros(len(case.weight), case.x.dtype))
    return case


RELATED_PLANS = (Plan(), Plan(N=33, W_out=3, H_out=2), Plan(N=1, W_out=33, c=5))


def contradictions(
    call: Call,
    grads: Gradients | None,
    dtype: str,
    plans: Sequence[Plan] = RELATED_PLANS,
) -> list[Fact]:
    """The relations that fail, each by the outputs which do not follow."""
    facts: dict[str, Fact] = {}
    for plan in plans:
        case = drawn(plan, dtype, 3, "relations")
        starts: dict[int, dict[str, Array]] = {}
        for relation in (*permutations(case), *shifts(case), *fillers(case)):
            if relation.name in facts and not facts[relation.name].right:
                continue
            start = start_of(relation, case)
            key = id(start) if start is not case else 0
            if key not in starts:
                starts[key] = all_outputs(call, grads, start)
            fact = follow(
                relation, starts[key], all_outputs(call, grads, relation.case), plan
            )
            if not fact.right and relation.case.layout != case.layout:
                fact = of_inputs(fact, relation, starts[key], (call, grads))
            facts[relation.name] = fact
        facts |= split_batch(call, grads, case, facts)
        facts |= degrees(call, grads, case, facts)
    return list(facts.values())


def follow(
    relation: Relation, before: dict[str, Array], after: dict[str, Array], plan: Plan
) -> Fact:
    """Whether every output moved as the relation says."""
    lost = {}
    for name in before:
        if name in relation.untold or name not in after:
            continue
        move = relation.moves.get(name)
        want = before[name] if move is None else move(before[name])
        got = after[name]
        if got.shape == want.shape and not np.array_equal(got, want, equal_nan=True):
            lost[name] = first_difference(got, want)
    if not lost:
        return found_right("relation", relation.name)
    where = {} if plan == Plan() else {"N": plan.N, "W_out": plan.W_out}
    return Fact("relation", relation.name, lost, rank=Rank.RELATION, where=where)


LAID = "x", "offset", "weight", "mask", "grad_y"  # what has a layout


def of_inputs(
    fact: Fact,
    relation: Relation,
    before: dict[str, Array],
    ask: tuple[Call, Gradients | None],
) -> Fact:
    """Which of the inputs alone is misread where it lies otherwise in memory."""
    alone = []
    for name in LAID:
        case = replace(relation.case, layout=f"{relation.case.layout} of {name}")
        if getattr(case, name) is None:
            continue
        after = all_outputs(*ask, case)
        if not follow(relation._replace(case=case), before, after, Plan()).right:
            alone.append(name)
    return replace(fact, where={**fact.where, "inputs": alone}) if alone else fact


def first_difference(got: Array, want: Array) -> list[int]:
    """The first index at which two arrays differ."""
    at = np.argwhere(~((got == want) | (np.isnan(got) & np.isnan(want))))[0]
    return [int(i) for i in at]


def split_batch(
    call: Call, grads: Gradients | None, case: Case, known: dict[str, Fact]
) -> dict[str, Fact]:
    """Two calls on halves of the batch against one on the whole."""
    topic = "halves of the batch"
    N = len(case.x)
    if N < 2 or (topic in known and not known[topic].right):
        return {}
    whole = all_outputs(call, grads, case)
    parts = []
    for rows in (slice(None, N // 2), slice(N // 2, None)):
        cut = {
            k: getattr(case, k)[rows]
            for k in ("x", "offset", "mask", "grad_y")
            if getattr(case, k) is not None
        }
        parts.append(all_outputs(call, grads, replace(case, **cut)))
    lost = {}
    for name in whole:
        if any(name not in p for p in parts):
            continue
        two = [p[name] for p in parts]
        summed = name in ("grad_weight", "grad_bias")
        want = two[0] + two[1] if summed else np.concatenate(two)
        bad = unequal(whole[name], want)  # not by its last bits alone
        bad &= ~(np.isnan(whole[name]) & np.isnan(want))
        if bad.any():
            lost[name] = np.argwhere(bad)[0].tolist()
    if not lost:
        return {topic: found_right("batch", "images")}
    return {topic: Fact("batch", "images", lost, rank=Rank.EFFECT, where={"N": N})}


# the power with which an output follows an input; bias is apart
POWERS = {
    "y": {"x": 1, "weight": 1, "mask": 1},
    "grad_x": {"x": 0, "weight": 1, "mask": 1, "grad_y": 1},
    "grad_offset": {"x": 1, "weight": 1, "mask": 1, "grad_y": 1},
    "grad_weight": {"x": 1, "weight": 0, "mask": 1, "grad_y": 1},
    "grad_mask": {"x": 1, "weight": 1, "mask": 0, "grad_y": 1},
    "grad_bias": {"x": 0, "weight": 0, "mask": 0, "grad_y": 1},
}


def degrees(
    call: Call, grads: Gradients | None, case: Case, known: dict[str, Fact]
) -> dict[str, Fact]:
    """Doubling an input multiplies an output by a power of two, or it should."""
    still = replace(case, bias=None)
    before = all_outputs(call, grads, still)
    found = {}
    for name in ("x", "weight", "mask", "grad_y"):
        for factor in (2, -1):
            a = getattr(still, name)
            if a is None:
                continue
            times = np.asarray(factor, a.dtype)
            after = all_outputs(call, grads, replace(still, **{name: a * times}))
            for output in before:
                topic = f"{output} times {factor} with {name}"
                if output not in after or (topic in known and not known[topic].right):
                    continue
                a, b = before[output], after[output]
                found[topic] = degree_fact(output, name, factor, (a, b))
    return found


def degree_fact(output: str, name: str, factor: int, pair: tuple[Array, Array]) -> Fact:
    """The power with which an output follows an input, if it follows at all."""
    a, b = pair
    power = POWERS[output].get(name, 0)
    if np.array_equal(b, a * factor**power, equal_nan=True):
        return found_right("degree", f"{output} of {name}")
    measured: dict[str, Any] = {"output": output, "input": name, "factor": factor}
    for k in (0, 1, 2, 3):
        if np.array_equal(b, a * factor**k) and (factor == 2 or k < 2):
            measured["power"] = k
            return Fact("degree", f"{output} of {name}", measured, power)
    ok = b == a * factor**power
    measured |= {"count": int((~ok).sum()), "of": int(ok.size)}
    measured["first"] = first_difference(b, a * factor**power)
    return Fact("degree", f"{output} of {name}", measured, power, Rank.RELATION)


def adjoint(call: Call, grads: Gradients, dtype: str) -> list[Fact]:
    """<A x, g> = <x, A^T g>, and the same for weight and mask: all are linear."""
    case = replace(drawn(Plan(), dtype, 3, "adjoint"), bias=None)
    found = all_outputs(call, grads, case)
    if "y" not in found or case.grad_y is None:
        return []
    want = float(np.sum(found["y"] * case.grad_y.astype(float)))
    facts = []
    for name in ("x", "weight", "mask"):
        target = f"grad_{name}"
        if target not in found:
            continue
        got = float(np.sum(found[target] * getattr(case, name).astype(float)))
        told = Fact("adjoint", target, {"product": got}, want, Rank.TRACE)
        facts.append(found_right("adjoint", target) if got == want else told)
    return facts
