"""A trusted function, called in this process: for self-tests and panels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refdcn.grading.expected.case import Array, Case
from refdcn.grading.process.arena import bytes_of, layout_of
from refdcn.grading.process.isolation import FIRST, NAMES
from refdcn.grading.process.outcome import Outcome


class InProcess:
    """A trusted function, called in this process (self-tests and panels)."""

    imports: frozenset[str] = frozenset()
    confined = False
    threads = 0
    device = ""

    def __init__(
        self, forward: Callable[..., Any], grad: Callable[..., Any] | None = None
    ) -> None:
        self.forward, self.grad = forward, grad
        self.has_grad = grad is not None

    def call(
        self,
        case: Case,
        which: str = "forward",
        at: int = 0,
        pattern: int = FIRST,
        ghost: bool = False,
    ) -> Outcome:
        """Call it on copies and compare the copies afterwards."""
        if ghost:
            return Outcome("ok", results=[np.full(case.y_shape, np.nan, case.x.dtype)])
        arrays = dict(zip(NAMES, map(case.raw, case.inputs), strict=False))
        if which == "grad":
            arrays = {"grad_y": case.raw(case.grad_y)} | arrays
        given = {
            k: None if a is None else relaid(a, layout_of(case.layout, k))
            for k, a in arrays.items()
        }
        f = self.grad if which == "grad" else self.forward
        assert f is not None
        try:
            with np.errstate(all="ignore"):
                result = f(*given.values(), **case.windows)
        except Exception as e:
            return Outcome("raised", f"{type(e).__name__}: {e}")
        outs = list(result) if which == "grad" else [result]
        return Outcome("ok", results=outs, faults=done_to(arrays, given, outs))

    def close(self) -> None:
        """Nothing to release."""


def relaid(array: Array, layout: str) -> Array:
    """A copy of `array` in one layout."""
    image, strides, start = bytes_of(array, layout)
    buffer = np.frombuffer(bytearray(image), np.uint8)
    return np.ndarray(array.shape, array.dtype, buffer, start, strides)


def done_to(
    before: dict[str, Array | None], after: dict[str, Array | None], outs: list[Any]
) -> list[str]:
    """The inputs that a call changed, or whose memory it returned."""
    faults = []
    made = [o for o in outs if isinstance(o, np.ndarray)]
    for name, a in before.items():
        b = after[name]
        if a is None or b is None:
            continue
        if a.tobytes() != b.tobytes():
            faults.append(f"it changed its input {name}")
        if any(np.may_share_memory(o, b) for o in made):
            faults.append(f"the result shares memory with {name}")
    return faults
