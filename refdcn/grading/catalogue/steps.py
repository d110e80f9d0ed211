"""The operator as a list of named steps, so that a mistake can be put into one.

A hypothesis about a candidate is a set of edits, each made after one step; the
steps after it follow from what it left. Everything is float64; the kernel of
Eqs. (2), (3) is a dense factor along each axis, so that border rules, rounding
rules and their gradients are edits of two arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from refdcn.grading.expected.case import Array, Case, base, offset_shape

State = Any  # a SimpleNamespace: the steps below say what it holds
Edit = tuple[str, Callable[[State], None]]


def hat(q: Array, n: int) -> tuple[Array, Array]:
    """Eqs. (3), (4) on a new last axis, written apart from formula.py."""
    r = np.arange(n)
    low = np.floor(q)[..., None]
    part = (q[..., None] - low)[..., 0][..., None]
    tent = (r == low) * (1 - part) + (r == low + 1) * part
    slope = 1.0 * (r == low + 1) - (r == low)
    return tent, np.where(np.isnan(low), np.nan, slope)


def read(s: State) -> None:
    """s.dp [N, og, K, 2, H_out, W_out], s.m without the 2, s.w, s.x by group."""
    z = s.z
    s.K, s.out = z.K_h * z.K_w, z.out
    s.shape = z.N, z.offset_groups, s.K, *z.out
    N, og, K, *out = s.shape
    s.raw_offset = s.offset
    s.dp = s.offset.reshape(N, og, K, 2, *out).copy()
    s.m = np.ones(s.shape) if s.mask is None else s.mask.reshape(s.shape).copy()
    s.w = s.weight.reshape(z.groups, -1, z.C_in // z.groups, K).copy()
    s.x = s.image.reshape(N, og, z.C_in // og, z.H, z.W).copy()
    s.b = np.zeros(z.C_out) if s.bias is None else s.bias.copy()


def grid(s: State) -> None:
    """s.by, s.bx [K, H_out, W_out]: where taps lie without their offsets."""
    by, bx = base(s.z)
    shape = s.K, *s.out
    s.by = np.broadcast_to(by, shape).astype(float)
    s.bx = np.broadcast_to(bx, shape).astype(float)


def position(s: State) -> None:
    """s.qy, s.qx [N, og, K, H_out, W_out]."""
    s.qy, s.qx = s.by + s.dp[:, :, :, 0], s.bx + s.dp[:, :, :, 1]


def kernel(s: State) -> None:
    """s.ty, s.tx and their slopes s.sy, s.sx; s.keep multiplies a whole sample."""
    s.ty, s.sy = hat(s.qy, s.z.H)
    s.tx, s.sx = hat(s.qx, s.z.W)
    s.keep = np.ones(s.shape)


def interpolate(s: State, ty: Array, tx: Array) -> Array:
    """Eq. (2) with any two factors: [N, og, C, K, H_out, W_out]."""
    factors = "ngchw,ngkuvh,ngkuvw->ngckuv"
    value = np.einsum(factors, s.x, ty, tx, optimize=True)
    return np.asarray(value * s.keep[:, :, None])


def columns(s: State) -> None:
    """s.S the samples, s.col the modulated ones by weight group."""
    s.S = interpolate(s, s.ty, s.tx)
    z = s.z
    s.col = (s.S * s.m[:, :, None]).reshape(
        z.N, z.groups, z.C_in // z.groups, s.K, *s.out
    )


def contract(s: State) -> None:
    """s.y [N, C_out, H_out, W_out] without bias."""
    y = np.einsum("bock,nbckuv->nbouv", s.w, s.col, optimize=True)
    s.y = y.reshape(s.z.N, s.z.C_out, *s.out)


def finish(s: State) -> None:
    """Adds the bias."""
    s.y = s.y + s.b[:, None, None]


FORWARD: tuple[Callable[[State], None], ...] = (
    read,
    grid,
    position,
    kernel,
    columns,
    contract,
    finish,
)


def upstream(s: State) -> None:
    """s.g, the gradient of a modulated sample: [N, og, C, K, H_out, W_out]."""
    z = s.z
    s.go = s.grad_y.reshape(z.N, z.groups, z.C_out // z.groups, *s.out)
    s.g = np.einsum("bock,nbouv->nbckuv", s.w, s.go, optimize=True)
    s.g = s.g.reshape(s.S.shape)


def backward(s: State) -> None:
    """s.grads: the gradients of x, offset, weight, mask, bias by name."""
    gm = s.g * s.m[:, :, None]
    slopes = interpolate(s, s.sy, s.tx), interpolate(s, s.ty, s.sx)
    back = "ngckuv,ngkuvh,ngkuvw->ngchw"
    kept = gm * s.keep[:, :, None]
    s.grads = {
        "x": np.einsum(back, kept, s.ty, s.tx, optimize=True),
        "offset": np.stack([(gm * d).sum(2) for d in slopes], 3),
        "weight": np.einsum("nbouv,nbckuv->bock", s.go, s.col, optimize=True),
        "mask": (s.g * s.S).sum(2),
        "bias": s.go.sum((0, 3, 4)).reshape(-1),
    }


BACKWARD = (upstream, backward)


def begin(case: Case) -> State:
    """The state before the first step."""
    names = ("image", "offset", "weight", "mask", "bias")
    wide = [None if a is None else a.astype(np.float64) for a in case.inputs]
    grad_y = None if case.grad_y is None else case.grad_y.astype(np.float64)
    state = SimpleNamespace(**dict(zip(names, wide, strict=True)), grad_y=grad_y)
    state.z, state.dtype, state.case = case.sizes, case.x.dtype, case
    return state


STEPS = FORWARD + BACKWARD
Trail = dict[str, State]  # the definition's states, each after a step


def copied(s: State) -> State:
    """A state of its own; arrays are shared, for no step and no edit changes one."""
    own = SimpleNamespace(**vars(s))
    if hasattr(s, "grads"):
        own.grads = dict(s.grads)
    return own


def trail(case: Case, grads: bool) -> Trail:
    """All states without an edit, from which `evaluate` can go on."""
    s, found = begin(case), {}
    for step in STEPS if grads else FORWARD:
        step(s)
        found[step.__name__] = copied(s)
    return found


def evaluate(
    case: Case,
    edits: Sequence[Edit] = (),
    grads: bool = False,
    known: Trail | None = None,
) -> State:
    """Run the steps with the edits; s.y, and s.grads where asked for.

    `known`: its trail, so that what comes before the first edit is not computed again:
    a fifth of the time of a grade that finds a mistake of the forward.
    """
    steps = STEPS if grads else FORWARD
    names = [step.__name__ for step in steps]
    edited = {name for name, _ in edits}
    first = next((k for k, name in enumerate(names) if name in edited), len(names) - 1)
    s = begin(case) if known is None else copied(known[names[first]])
    for k, step in enumerate(steps):
        if known is not None and k < first:
            continue
        if known is None or k > first:
            step(s)
        for name, edit in edits:
            if name == names[k]:
                edit(s)
    return s


def predict(
    case: Case, edits: Sequence[Edit], target: str, known: Trail | None = None
) -> Array:
    """The output `target` ("y", "grad_x", ...) under a hypothesis."""
    return shaped(case, evaluate(case, edits, target != "y", known), target)


def shaped(case: Case, s: State, target: str) -> Array:
    """The output `target` of a finished evaluation."""
    if target == "y":
        return np.asarray(s.y)
    name = target[5:]
    like = case.inputs[("x", "offset", "weight", "mask", "bias").index(name)]
    assert like is not None
    return np.asarray(s.grads[name]).reshape(like.shape)


def landings(case: Case, edits: Sequence[Edit]) -> tuple[Array, Array]:
    """Whether samples lie on a whole row or column, and not where they must."""
    N, og, K, _, *out = offset_shape(case.sizes)
    found = []
    for made in ((), edits):
        s = begin(case)
        for step in (read, grid, position):
            step(s)
            for name, edit in made:
                if name == step.__name__:
                    edit(s)
        found.append([a.reshape(N, og, -1, K, *out) for a in (s.qy, s.qx)])
    (y, x), (qy, qx) = found
    whole = (qy == np.floor(qy)) | (qx == np.floor(qx))
    moved = (qy != y) | (qx != x)
    return np.asarray(whole.any(2)), np.asarray(moved.any(2))


def functions(
    edits: Sequence[Edit],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A candidate with these edits, and its companion gradient."""

    def forward(*inputs: Any, **windows: Any) -> Array:
        case = Case("", "", *inputs, **windows)
        return np.asarray(evaluate(case, edits).y.astype(inputs[0].dtype))

    def grad(grad_y: Array, *inputs: Any, **windows: Any) -> list[Array | None]:
        case = replace(Case("", "", *inputs, **windows), grad_y=grad_y)
        found = evaluate(case, edits, grads=True).grads.values()
        return [
            None if a is None else g.reshape(a.shape).astype(a.dtype)
            for a, g in zip(inputs, found, strict=True)
        ]

    return forward, grad
