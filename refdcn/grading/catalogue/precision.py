"""Precision's part of the catalogue: steps of operator.py in a lower precision.

Nothing here is wrong but its accuracy; each row says what must be named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import Edit, State
from refdcn.grading.expected.case import Array, kept
from refdcn.grading.expected.precision import Cause

Rounding = Callable[[Array], Array]


class Coarse(NamedTuple):
    """One lower precision: in which dtype it is tried, and what names it."""

    name: str
    cause: Cause
    dtype: str
    edits: tuple[Edit, ...]
    gradients: bool = False  # the gradients alone have it
    declared: str | None = None  # the precision that is asked for

    @property
    def mistake(self) -> Mistake:
        """As a row of the self-test."""
        return Mistake("precision", self.name, self.name, self.edits)


def to_tf32(a: Array) -> Array:
    """10 bits of fraction in float32, halves away from zero."""
    bits = a.astype(np.float32).view(np.uint32) + np.uint32(0x1000)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def to_texture(a: Array) -> Array:
    """8 bits of fraction, as a texture unit's."""
    return np.round(a * 256) / 256


def to(dtype: str) -> Rounding:
    """Rounded to a dtype, and back."""

    def rounded(a: Array) -> Array:
        with np.errstate(over="ignore"):
            return kept(np.asarray(a), dtype).astype(np.float64)

    return rounded


def fields(*names: str) -> Callable[[Rounding], Callable[[State], None]]:
    """An edit that rounds what the state holds."""

    def edit(rounded: Rounding) -> Callable[[State], None]:
        def change(s: State) -> None:
            for name in names:
                setattr(s, name, rounded(getattr(s, name)))

        return change

    return edit


def summed(terms: Iterable[Array], rounded: Rounding) -> Array:
    """One term after another, each sum rounded."""
    y: Any = 0.0
    for term in terms:
        y = rounded(y + term)
    return np.asarray(y)


def sums(rounded: Rounding) -> Callable[[State], None]:
    """Eq. (1)'s sum over channels and taps."""

    def change(s: State) -> None:
        terms = (
            s.w[None, :, :, c, k, None, None] * s.col[:, :, None, c, k]
            for c in range(s.w.shape[2])
            for k in range(s.K)
        )
        s.y = summed(terms, rounded).reshape(s.z.N, s.z.C_out, *s.out)

    return change


def atomics(s: State) -> None:
    """d x in float16, sample after sample."""
    rows, columns = np.floor(s.qy), np.floor(s.qx)
    g = s.g * s.m[:, :, None]
    padded = np.zeros((*s.x.shape[:3], s.z.H + 2, s.z.W + 2), np.float16)
    n, group, c = (i[..., None, None, None] for i in np.indices(s.x.shape[:3]))
    for a, b in np.ndindex(2, 2):
        shares = abs(rows + 1 - a - s.qy) * abs(columns + 1 - b - s.qx)
        r = np.clip(rows + a, -1, s.z.H).astype(int)[:, :, None] + 1
        k = np.clip(columns + b, -1, s.z.W).astype(int)[:, :, None] + 1
        value = (g * shares[:, :, None]).astype(np.float16)
        np.add.at(padded, (n, group, c, r, k), value)
    s.grads["x"] = padded[..., 1:-1, 1:-1].astype(np.float64)


def over_places(s: State) -> None:
    """d weight's sum over images and output pixels in float16."""
    terms = s.go[:, :, :, None, None] * s.col[:, :, None]  # n, b, o, c, k, u, v
    terms = np.moveaxis(terms, (0, -2, -1), (0, 1, 2)).astype(np.float16)
    terms = terms.reshape(-1, *s.grads["weight"].shape)
    if len(terms):
        total = np.add.accumulate(terms, 0, dtype=np.float16)[-1]
        s.grads["weight"] = total.astype(np.float64)


def outputs(rounded: Rounding) -> Callable[[State], None]:
    """The finished gradients."""

    def change(s: State) -> None:
        s.grads = {name: rounded(g) for name, g in s.grads.items()}

    return change


# what is rounded: the steps that do it, and which one the grader names
STEPS: dict[str, tuple[tuple[tuple[str, Any], ...], str]] = {
    "offsets": ((("read", fields("dp")),), "positions"),
    "positions": ((("position", fields("qy", "qx")),), "positions"),
    "columns": ((("columns", fields("col")),), "columns"),
    "weights": ((("read", fields("w")),), "weights"),
    "sums": ((("contract", sums),), "sums"),
    "results": ((("finish", fields("y")),), "results"),
}
EVERYTHING = (
    ("read", fields("dp", "m", "w", "x", "b")),
    ("position", fields("qy", "qx")),
    ("kernel", fields("ty", "tx")),
    ("columns", fields("S", "col")),
    ("contract", sums),
    ("finish", fields("y")),
)
LOWER = {
    ("float32", "float16"): (*STEPS,),
    ("float32", "bfloat16"): ("columns", "weights", "results"),
    ("float64", "float32"): (*STEPS,),
}


def steps(made: Iterable[tuple[str, Any]], rounded: Rounding) -> tuple[Edit, ...]:
    """The edits of one lower precision."""
    return tuple((step, edit(rounded)) for step, edit in made)


def stepwise() -> Iterator[Coarse]:
    """One step, or every step, in a lower precision."""
    for (own, low), names in LOWER.items():
        for name in names:
            made, step = STEPS[name]
            kept_in = "TF32" if (name, low) == ("weights", "float16") else low
            edits = steps(made, to(low))
            yield Coarse(f"{own}: {name} in {low}", Cause(step, kept_in), own, edits)
    for own, low, declared in (
        ("float32", "float16", None),
        ("float64", "float32", None),
        ("float16", "float16", "fp32"),
    ):
        edits, whole = steps(EVERYTHING, to(low)), Cause("everything", low)
        name = f"{own}: everything in {low}"
        yield Coarse(name, whole, own, edits, declared=declared)


def special() -> Iterator[Coarse]:
    """What hardware does to float32, and gradients in float16."""
    for name, cause, made, rounded in (
        ("weights in TF32", Cause("weights", "TF32"),
         STEPS["weights"][0], to_tf32),
        ("products in TF32", Cause("products", "TF32"),
         (("columns", fields("col", "w")),), to_tf32),
        ("fractions of 8 bits", Cause("fractions", "8 bits"),
         STEPS["positions"][0], to_texture),
    ):  # fmt: skip
        yield Coarse(f"float32: {name}", cause, "float32", steps(made, rounded))
    for name, step, edit in (
        ("gradients in", "results", outputs(to("float16"))),
        ("d x summed in", "sums", atomics),
        ("d weight summed in", "sums", over_places),
    ):
        name, edits = f"float32: {name} float16", (("backward", edit),)
        yield Coarse(name, Cause(step, "float16"), "float32", edits, gradients=True)


COARSE = [*stepwise(), *special()]
