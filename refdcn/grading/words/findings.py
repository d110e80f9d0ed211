"""One finding as a phrase: "y has shape [1, 1]; it must be [1, 3]"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdcn.grading.expected.precision import Cause
from refdcn.grading.judging.finding import Element, Finding, Kind

LONGEST = 200  # characters of an error's text
COMPANION = "the gradient companion: "  # before what it did
OF_VALUES = (Kind.VALUES, Kind.COARSE, Kind.INEXACT, Kind.SLOPE, Kind.OTHER_CHOICE)
CAUSES = {
    "grid": "positions go through a normalised grid",
    "products": "products are in {}",
    "fractions": "fractions have 8 bits, as a texture unit's",
    "results": "results are rounded to {}",
    "columns": "columns are stored in {}",
    "weights": "weights are rounded to {}",
    "positions": "positions are in {}",
    "sums": "sums are in {}",
    "everything": "everything is in {}",
}
# Two formats whose bits of fraction are as many.
ALIKE = {"products": "TF32 or float16", "weights": "float16 or TF32"}


def said(f: Finding) -> str:
    """What was found; empty where all is right."""
    text = PHRASES[f.kind](f)
    text = f"{named(f.cause)} ({text})" if f.cause else text
    return COMPANION + text if f.of_gradients and f.kind not in OF_VALUES else text


def cause(f: Finding) -> str:
    """The lower precision that explains it, if any does."""
    return named(f.cause) if f.cause else ""


def named(found: Cause) -> str:
    """A step in lower precision."""
    kept = ALIKE.get(found.step, "") if found.kept == "TF32" else found.kept
    return CAUSES[found.step].format(kept)


def one_line(text: str) -> str:
    """The first line of an error, and not all of a long one."""
    first = text.strip().partition("\n")[0].rstrip()
    return first if len(first) <= LONGEST else first[: LONGEST - 4].rstrip() + " ..."


def element(name: str, e: Element) -> str:
    """What came and what must come."""
    due = f"{e.low:.9g}" if e.low == e.high else f"{e.low:.9g} to {e.high:.9g}"
    index = ", ".join(map(str, e.at))
    came = f"{name}[{index}] = {e.got:.9g}, the definition gives"
    if np.isnan(e.low):
        return f"{came} NaN"
    return f"{came} {due} with a bound of {e.bound:.2g}"


def values(f: Finding) -> str:
    """The worst element, how many fail, and the input that is not finite."""
    note = f"{f.case.note}: " if f.case.kind == "hostile" else ""
    return note + failing(f)


def failing(f: Finding) -> str:
    """The worst element, and how many fail."""
    assert f.worst is not None
    many = f"{f.failures} of {f.values} values are outside"
    return f"{element(f.target, f.worst)}; {many}"


def no_array(f: Finding) -> str:
    """An object of another type; a tensor has an option of its own."""
    hint = "; --array torch gives and takes tensors"
    more = hint if f.measured == "torch.Tensor" else ""
    return f"{f.target} is {f.measured}, no array{more}"


def dtype(f: Finding) -> str:
    """Another number format, or the other byte order."""
    order = BYTE_ORDERS.get(f.measured[0], "")
    name = np.dtype(f.measured).name if order else f.measured
    return f"{f.target} is {order}{name} for {f.defined} inputs"


def not_finite(f: Finding) -> str:
    """What is taken where an input is no number."""
    if f.choice is None:
        return f"{f.case.note} gives NaN"
    key, value = f.choice
    if key == "zero weight":
        return f"a {f.case.note} at weight 0 is {value}"
    return f"{f.case.note} gives {value}"


def too_fast(f: Finding) -> str:
    """A time that no work takes."""
    return (
        f"it answered in {1e3 * f.measured:.3g} ms; no implementation on this machine "
        f"can in less than {1e3 * f.defined:.3g} ms"
    )


BYTE_ORDERS = {"<": "little-endian ", ">": "big-endian "}
ONCE = (
    "; the same call in a new process does not die, so one before it may have written "
    "where it must not"
)
OTHER_BITS = "a repeat with the same inputs gave other bits"
KEPT = {
    "buffer": (
        "its answer depends on the call before: it reads what that left, as in a "
        "buffer that is kept and not cleared"
    ),
    "sum": "it adds to what the call before left: the result is kept and not cleared",
}
STALE = "it returned the answer to an earlier call, whose values were others"
USUAL = "less accurate than the usual orders of summation"
EXACT = "inexact on dyadic data, where every order of evaluation is exact"
PHRASES: dict[Kind, Callable[[Finding], str]] = {
    Kind.RIGHT: lambda f: "",
    Kind.REFUSED: lambda f: one_line(f.detail),
    Kind.ACCEPTED: lambda f: f"accepted in silence: {f.case.note}",
    Kind.ERROR: lambda f: one_line(f.detail),
    Kind.DIED: lambda f: one_line(f.detail),
    Kind.DIED_ONCE: lambda f: one_line(f.detail) + ONCE,
    Kind.TIMEOUT: lambda f: one_line(f.detail),
    Kind.BREACH: lambda f: "; ".join(f.faults),
    Kind.TYPE: no_array,
    Kind.SHAPE: lambda f: (
        f"{f.target} has shape {list(f.measured)}; it must be {list(f.defined)}"
    ),
    Kind.DTYPE: dtype,
    Kind.COUNT: lambda f: f"it returned {f.measured} gradients; it must return five",
    Kind.ORDER: lambda f: (
        f"the gradients come back in another order, as those of "
        f"{', '.join(f.measured)}; it must be {', '.join(f.defined)}"
    ),
    Kind.NOT_NONE: lambda f: f"{f.target} is no None though {f.target[5:]} was None",
    Kind.VALUES: values,
    Kind.COARSE: lambda f: f"{f.target}: {f.failures} of {f.values} values are {USUAL}",
    Kind.INEXACT: lambda f: (
        f"{f.target}: {f.failures} of {f.values} values are {EXACT}"
    ),
    Kind.SLOPE: lambda f: "the {} is {}".format(*(f.choice or ())),
    Kind.NOT_FINITE: not_finite,
    Kind.OTHER_CHOICE: lambda f: "{}: {}; {} was declared".format(
        *(f.choice or ()), f.defined
    ),
    Kind.BITS: lambda f: KEPT.get(f.measured, OTHER_BITS),
    Kind.UNWRITTEN: lambda f: f"{f.measured} values were never written ({OTHER_BITS})",
    Kind.STALE: lambda f: STALE,
    Kind.GHOST: lambda f: "memory that nobody wrote holds the right answer",
    Kind.TOO_FAST: too_fast,
}
