"""Others on a candidate's timed calls: torchvision, refdcn, the dense convolution."""

from __future__ import annotations

from collections.abc import Iterator

from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.verdicts import worst
from refdcn.grading.options import Options
from refdcn.grading.process.isolation import Process
from refdcn.grading.process.outcome import CannotStartError
from refdcn.grading.questions import timed
from refdcn.grading.questions.timed import Beside

DENSE = "dense convolution"
OTHERS = {
    "torchvision": "torchvision",
    "refdcn": "refdcn:deform_conv2d",
    DENSE: "refdcn.grading.adapters.dense:conv2d",
}


def others(options: Options) -> Iterator[Beside]:
    """Each in a process of its own, on the same drawn calls."""
    for name, spec in OTHERS.items():
        try:
            runner = Process(spec, timeout=options.timeout, memory=options.memory)
        except CannotStartError as e:
            yield Beside(name, why=str(e))
            continue
        try:
            yield one(name, runner, options)
        finally:
            runner.close()


def one(name: str, runner: Process, options: Options) -> Beside:
    """One of them, with the verdict on what it answered."""
    dtype = timed.dtype_of(options.dtypes)
    how = options.seed, dtype, standard(dtype, None), "corners", options.timed
    findings, timing = timed.run(runner, *how)
    if timing is None:
        return Beside(name, why=findings[-1].detail)
    told = None if name == DENSE else worst(f.verdict for f in findings)
    return Beside(name, timing, told)
