"""Probes of the gradients: how each differs from the right one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from refdcn.grading.diagnosis.answers import Gradients
from refdcn.grading.diagnosis.facts import Fact, Rank
from refdcn.grading.diagnosis.probes import image_case, kernel_fact, tent
from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import NAMES, Array, Case, Sizes, offset_shape
from refdcn.grading.questions.draw import landing

Answer = Callable[[Case], Sequence[Any]]  # what came, whatever its shapes
EQUAL = 1e-5  # of the largest value: the same number
COINCIDENCE = 1e-6  # the chance below which a pattern is no accident


def difference_of(target: str, got: Array, case: Case) -> Fact | None:
    """How a wrong gradient differs from the right one, element by element."""
    name = target.removeprefix("grad_")
    true = oracle.gradients(case)[NAMES.index(name)]
    if true is None:
        return None
    shape = true.shape
    got, true = got.reshape(-1).astype(float), true.reshape(-1)
    live = np.abs(true) > 1e-2 * np.abs(true).max(initial=1e-30)
    if not live.any():
        return None
    ratio = got[live] / true[live]
    middle = float(np.median(ratio))
    if np.abs(ratio - middle).max() < 1e-3 * (1 + abs(middle)):
        if abs(middle - 1) < 2e-3:  # right but for its last bits
            return None
        return Fact("multiple", target, {"times": middle}, {"times": 1})
    for power, (label, factor) in product((-1, 1, 2), factors(name, case)):
        test = ratio * np.abs(factor.reshape(-1)[live]) ** -power
        test = test * (np.sign(factor.reshape(-1)[live]) if power % 2 else 1)
        times = float(np.median(test))
        if np.abs(test - times).max() < 1e-3 * (1 + abs(times)):
            measured = {"factor": label, "power": power, "times": times}
            return Fact("factor", target, measured)
    return other_values(target, got, true, shape)


def factors(name: str, case: Case) -> list[tuple[str, Array]]:
    """What a gradient's elements may be multiplied with."""
    sizes = case.sizes
    found: list[tuple[str, Array]] = []
    m = oracle.modulation(case)
    if name == "mask":
        found += [("mask", m), ("sign of mask", np.sign(m))]
    if name == "offset":
        shape = offset_shape(sizes)
        m = np.broadcast_to(m[:, :, :, None], shape)
        found += [("mask", m), ("sign of mask", np.sign(m))]
        for label, pair in (("stride", case.stride), ("dilation", case.dilation)):
            per = np.array(pair, float)[:, None, None]
            found.append((label, np.broadcast_to(per, shape)))
    return [(label, np.where(f == 0, 1, f)) for label, f in found]


def other_values(
    target: str, got: Array, true: Array, shape: tuple[int, ...]
) -> Fact | None:
    """Zeros, NaN, the right values at other places, or a mixture."""
    scale = np.abs(true).max()
    same = np.abs(got - true) < EQUAL * scale
    lost = np.isnan(got)
    if (same | lost).all():
        measured = {"value": "nan", "count": int(lost.sum()), "of": same.size}
        return Fact("values", target, measured, rank=Rank.EFFECT)
    zero = (got == 0) & ~same
    if (same | zero).all():
        measured = {"value": 0, "count": int(zero.sum()), "of": same.size}
        return Fact("values", target, measured, rank=Rank.EFFECT)
    found = matched_elements(got, true, ~same, scale)
    if found is not None:
        k = int(np.flatnonzero(~same)[0])
        at, of = ([int(i) for i in np.unravel_index(j, shape)] for j in (k, found[k]))
        return Fact("exchanged values", target, {"at": at, "is that of": of})
    part = float(got @ true / max(true @ true, 1e-300))
    measured = {"count": int((~same).sum()), "of": same.size, "projection": part}
    return Fact("differs", target, measured, rank=Rank.VAGUE)


def matched_elements(
    got: Array, true: Array, wrong: Array, scale: float
) -> Array | None:
    """The element that each value is the right one of, if that is no accident.

    Only a value that no other element has names its element; and among many values
    any number is near one: the same numbers, moved by a hundredth, say how often.
    """
    order = np.argsort(true)
    gap = np.concatenate([[np.inf], np.diff(true[order]), [np.inf]])
    alone = np.empty(true.size, bool)
    alone[order] = np.minimum(gap[:-1], gap[1:]) > 2 * EQUAL * scale

    def hits(value: Array) -> tuple[Array, Array]:
        near = np.clip(np.searchsorted(true[order], value), 1, true.size - 1)
        left = np.abs(true[order][near - 1] - value) < np.abs(true[order][near] - value)
        found = order[np.where(left, near - 1, near)]
        return found, (np.abs(true[found] - value) < EQUAL * scale) & alone[found]

    if true.size < 2:
        return None
    found, hit = hits(got)
    rng = np.random.default_rng(0)
    share = hits(got * (1 + rng.uniform(-0.01, 0.01, got.size)))[1][wrong].mean()
    n = int(wrong.sum())
    if hit[wrong].mean() < 0.95 or max(share, 1 / n) ** (0.95 * n) > COINCIDENCE:
        return None
    return found


# Which image is written ---------------------------------------------------------

BATCH = 66  # one more block of images than any usual size of a block


def images_written(call: Gradients, dtype: str) -> list[Fact]:
    """Results of whose images those of each block are written onto the first's.

    All images are one, and image n has a grad_y of n + 1: what an image's gradient is
    a multiple of says whose it holds.
    """
    z = Sizes(BATCH, 1, 1, 1, 1, 1, 1, 3, 3)
    rng = np.random.default_rng(3)
    one = image_case(
        z._replace(N=1),
        dtype,
        rng.integers(1, 9, (1, 1, 3, 3)),
        offset=np.full((1, 2, 3, 3), 0.25),
        mask=np.ones((1, 1, 3, 3)),
    )
    assert one.mask is not None
    x, offset, mask = (np.repeat(a, BATCH, 0) for a in (one.x, one.offset, one.mask))
    go = np.ones((1, 1, 3, 3), dtype)
    codes = np.arange(1, BATCH + 1)[:, None, None, None].astype(dtype)
    alone = call(replace(one, grad_y=go))
    batch = replace(one, x=x, offset=offset, mask=mask, grad_y=codes * go)
    together = call(batch)
    found = []
    for name, a, b in zip(NAMES, alone or (), together or (), strict=False):
        if name in ("x", "offset", "mask") and a is not None and b is not None:
            found += blocks_of(f"grad_{name}", a.astype(float), b.astype(float))
    return found


def blocks_of(target: str, alone: Array, together: Array) -> list[Fact]:
    """The size of the blocks that are written onto the first, if any explains all."""
    size = float((alone * alone).sum())
    if not size > 0:
        return []
    times = (together * alone).sum((1, 2, 3)) / size
    codes = np.arange(1, BATCH + 1)
    if np.abs(times - codes).max() < 1e-2:
        return []
    for block in range(1, BATCH):
        onto = np.arange(BATCH) % block
        added, last = np.zeros(BATCH), np.zeros(BATCH)
        np.add.at(added, onto, codes)
        last[onto] = codes
        for how, want in (("added to", added), ("written over", last)):
            if np.abs(times - want).max() < 1e-2:
                told = {"block": block, "how": how}
                return [Fact("images written", target, told, rank=Rank.WHOLE)]
    return []


# One sample swept by rows -------------------------------------------------------


def gradient_kernels(call: Gradients, dtype: str) -> list[Fact]:
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
    r, hat = np.arange(n), tent(q, n)
    slope = np.sign(r - q[:, None]) * (np.abs(r - q[:, None]) < 1)
    seen = {
        "x": (g_x.reshape(n, len(q), n, n)[0, :, :, 3], hat),
        "mask": (g_m.reshape(n, len(q), n, n)[:, :, 3, 3].T, hat),
        "offset": (g_o.reshape(n, len(q), 2, n, n)[:, :, 0, 3, 3].T, slope),
    }
    return [
        kernel_fact("row", q, got, want, f"grad_{name}")
        for name, (got, want) in seen.items()
    ]


def lost_additions(call: Gradients, dtype: str) -> list[Fact]:
    """Twelve samples on one pixel, each with a grad_y of 1: how many are added."""
    z = Sizes(1, 1, 1, 1, 1, 1, 1, 5, 12)
    z = z._replace(stride=(5, 1))
    dp = landing(z, np.full((1, 1, 1), 2.0), np.full((1, 1, 1), 3.0))
    case = image_case(z, dtype, np.ones((1, 1, 5, 12)), offset=dp)
    n = int(np.prod(z.out))
    grads = call(replace(case, grad_y=np.ones((1, 1, *z.out), dtype)))
    if grads is None or grads[0] is None:
        return []
    kept = float(grads[0][0, 0, 2, 3])
    if not 0 < kept < n:
        return []
    return [Fact("lost additions", "grad_x", {"kept": kept}, n)]


# Arguments that are exchanged ----------------------------------------------------


def close(got: Any, want: Array | None) -> bool:
    """Equal but for rounding; the gradient of None is None."""
    if want is None or got is None:
        return want is got
    if not isinstance(got, np.ndarray) or got.shape != want.shape:
        return False
    scale = np.abs(want).max(initial=0)
    return bool((np.abs(got.astype(float) - want) <= 1e-3 * scale).all())


def exchanged_arguments(answer: Answer, dtype: str) -> list[Fact]:
    """grad_y taken for an input: where they have one shape nobody refuses it."""
    z = Sizes(2, 4, 4, 1, 1, 3, 3, 6, 7, padding=(1, 1))
    rng = np.random.default_rng(11)
    K = 9
    case = image_case(
        z,
        dtype,
        rng.standard_normal((2, 4, 6, 7)),
        offset=rng.integers(-6, 7, (2, 2 * K, 6, 7)) / 4 + 1 / 8,
        mask=rng.standard_normal((2, K, 6, 7)),
        weight=rng.standard_normal((4, 4, 3, 3)),
        bias=rng.standard_normal(4),
    )
    case = replace(case, grad_y=rng.standard_normal((2, 4, 6, 7)).astype(dtype))
    if matches(answer(case), case):
        return []
    for name, other in exchanges(case):
        if matches(answer(case), other):
            return [
                Fact("exchanged arguments", name, {"with": "grad_y"}, rank=Rank.WHOLE)
            ]
    return []


def exchanges(case: Case) -> Iterator[tuple[str, Case]]:
    """The call as one understands it who takes grad_y for another argument."""
    assert case.grad_y is not None
    yield "x", replace(case, x=case.grad_y, grad_y=case.x)


def matches(got: Sequence[Any], case: Case) -> bool:
    """Whether the gradients are those of a call."""
    want = oracle.gradients(case)
    return len(got) == len(want) and all(map(close, got, want))
