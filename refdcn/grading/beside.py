"""A candidate's timed calls beside torchvision, refdcn and the dense convolution.

Each in a fresh process of its own, the candidate too: what earlier calls left in its
heap would hide what a call needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import worst
from refdcn.grading.options import Options
from refdcn.grading.process.isolation import Process
from refdcn.grading.process.outcome import CannotStartError
from refdcn.grading.questions import timed
from refdcn.grading.questions.timed import Beside, Timing

DENSE = "dense convolution"
OTHERS = {
    "torchvision": "torchvision",
    "refdcn": "refdcn:deform_conv2d",
    DENSE: "refdcn.grading.own_operators.dense:conv2d",
}


def compared(candidate: str | None, options: Options) -> Iterator[Beside]:
    """The candidate, unless only this process knows it, then the others."""
    o = options
    limits: dict[str, Any] = {"timeout": o.timeout, "memory": o.memory}
    own = {"how": o.how, "python": o.python, "gate": o.gate}
    rows: list[tuple[str, str, dict[str, Any], str | None, str]] = [
        (name, spec, limits, None, "corners") for name, spec in OTHERS.items()
    ]
    if candidate is not None:
        rows.insert(0, (candidate, candidate, limits | own, o.precision, o.border))
    for name, spec, how, precision, border in rows:
        try:
            runner = Process(spec, **how)
        except CannotStartError as e:
            yield Beside(name, why=str(e))
            continue
        try:
            dtype = timed.dtype_of(o.dtypes)
            bounds = standard(dtype, precision)
            found = timed.run(runner, o.seed, dtype, bounds, border, o.timed)
        finally:
            runner.close()
        yield told(name, *found)


def told(name: str, findings: Sequence[Finding], timing: Timing | None) -> Beside:
    """What came of one of them, with the verdict on its answers."""
    if timing is None:
        return Beside(name, why=findings[-1].detail)
    verdict = None if name == DENSE else worst(f.verdict for f in findings)
    return Beside(name, timing, verdict)
