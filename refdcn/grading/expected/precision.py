"""What a precision promises, and which lower one would explain an error."""

from __future__ import annotations

from typing import NamedTuple

from refdcn.grading.expected.bounds import (
    BY_DTYPE,
    U16,
    U32,
    U_BF16,
    WIDE,
    Roundoff,
)

U_TF32, U_TEXTURE = 2.0**-11, 2.0**-8
OWN = {"float16": "fp16", "bfloat16": "bf16"}


class Standard(NamedTuple):
    """Outside `wrong` is a proof of a bug; outside `tight` is imprecise."""

    wrong: Roundoff
    tight: Roundoff
    longest: bool  # whether `tight` allows the longest chains of additions
    exact: bool  # whether dyadic data must come out to the bit


def everything(u: float, kept: Roundoff) -> Roundoff:
    """Every step rounded to u, the range of `kept`."""
    return kept._replace(
        coordinate=max(u, kept.coordinate),
        interpolation=max(u, kept.interpolation),
        product=max(u, kept.product),
        accumulation=max(u, kept.accumulation),
        output=max(u, kept.output),
        stored=max(u, kept.stored),
    )


def ranged(name: str, own: Roundoff) -> Roundoff:
    """What is kept in another type can underflow and overflow in it."""
    other = BY_DTYPE[name]
    tiny, largest = max(own.tiny, other.tiny), min(own.largest, other.largest)
    return own._replace(tiny=tiny, largest=largest)


def standard(dtype: str, precision: str | None = None) -> Standard:
    """The bounds for arrays of `dtype` and a declared precision."""
    own, half = BY_DTYPE[dtype], dtype in WIDE
    if precision in (None, "fp64") or (precision, dtype) == ("fp32", "float32"):
        return Standard(own, WIDE.get(dtype, own), half, True)
    if precision == "fp32":
        if half:
            return Standard(own, WIDE[dtype], True, True)
        lower = everything(U32, own)
    elif precision == "tf32":
        lower = everything(U32, own)._replace(product=U_TF32 + U32)
    elif precision == "bf16":
        lower = everything(U_BF16, own)
    else:
        lower = everything(U16, ranged("float16", own))
    return Standard(lower, lower, True, OWN.get(dtype) == precision)


class Cause(NamedTuple):
    """Which step loses accuracy, and the format it is rounded to."""

    step: str  # grid, products, fractions, results, columns, weights, ..., everything
    kept: str = ""


class Hypothesis(NamedTuple):
    """A lower working precision, or another legal route, and what it would be."""

    cause: Cause
    roundoff: Roundoff
    convention: bool = False


def grid(dtype: str) -> Roundoff:
    """Positions through a normalised grid, all else as the dtype has it."""
    own = WIDE.get(dtype, BY_DTYPE[dtype])
    return own._replace(grid=own.coordinate)


def hypotheses(dtype: str) -> list[Hypothesis]:
    """From the smallest departure to the largest."""
    own = WIDE.get(dtype, BY_DTYPE[dtype])
    found = [Hypothesis(Cause("grid"), grid(dtype), convention=True)]
    if dtype == "float64":
        single = [("float32", U32)]
        tf32 = everything(U32, ranged("float16", own))._replace(product=U_TF32 + U32)
        found.append(Hypothesis(Cause("products", "TF32"), tf32))
    elif dtype == "float32":
        single = [("float16", U16), ("bfloat16", U_BF16)]
        tf32 = ranged("float16", own)._replace(product=U_TF32 + U32)
        found.append(Hypothesis(Cause("products", "TF32"), tf32))
    else:
        single = [(dtype, BY_DTYPE[dtype].output)]
    if dtype not in WIDE:
        texture = own._replace(absolute=U_TEXTURE)
        found.append(Hypothesis(Cause("fractions", "8 bits"), texture))
    for name, u in single:
        # Its bound on positions would excuse half a pixel.
        short = "TF32" if u == U_TF32 and dtype not in WIDE else name
        kept = ranged(name, own)
        coarse = name != dtype and u > U16
        found += [
            Hypothesis(Cause("results", name), kept._replace(output=u)),
            Hypothesis(Cause("columns", name), kept._replace(stored=u)),
            Hypothesis(Cause("weights", short), own._replace(product=u)),
        ]
        if not coarse:
            sums = kept._replace(accumulation=u, output=u)
            found += [
                Hypothesis(Cause("positions", name), own._replace(coordinate=u)),
                Hypothesis(Cause("sums", name), sums),
                Hypothesis(Cause("everything", name), everything(u, kept)),
            ]
    return found
