"""Grades a candidate: runs the suite through it and gathers the findings."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from refdcn.grading import declared, judge, suite
from refdcn.grading.cases import Case
from refdcn.grading.diagnosis import diagnose
from refdcn.grading.explain import explain_precision
from refdcn.grading.isolation import Forked, InProcess, Outcome, Process
from refdcn.grading.judge import Finding
from refdcn.grading.precision import standard
from refdcn.grading.report import Report
from refdcn.grading.verdicts import Verdict, worst

Runner = Process | InProcess
ELSEWHERE = 2**28  # a second address for the inputs
GIVE_UP = 3  # deaths or timeouts in one group before its rest is left out


class Progress:
    """A bar on standard error, where someone may be looking."""

    def __init__(self, total: int, show: bool) -> None:
        self.done, self.total, self.show = 0, total, show and sys.stderr.isatty()

    def step(self, what: str) -> None:
        """One more case is done."""
        self.done += 1
        if self.show:
            full = 30 * self.done // max(1, self.total)
            bar = "#" * full + "." * (30 - full)
            sys.stderr.write(f"\r[{bar}] {self.done}/{self.total} {what:<24.24}")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave a clean line."""
        if self.show:
            sys.stderr.write("\r" + " " * 72 + "\r")


def run_forward(runner: Runner, expected: suite.Expected) -> Finding:
    """Call the candidate on a case, and again on the same values elsewhere."""
    case = expected.case
    outcome = runner.call(case, pattern=0xFF)
    finding = judge.forward(expected, outcome)
    if finding.verdict is Verdict.PASS and case.kind != "malformed":
        again = runner.call(case, at=ELSEWHERE, pattern=0x41)
        repeated = judge.forward(expected, again)
        if repeated.verdict < finding.verdict:
            return repeated
        return repeat_finding(case, "y", outcome, again) or finding
    return finding


def run_gradients(runner: Runner, expected: suite.Expected) -> list[Finding]:
    """The five gradients, where the candidate has them."""
    case = expected.case
    if not runner.has_grad or case.kind not in ("bound", "exact"):
        return []
    outcome = runner.call(case, "grad")
    findings = judge.gradients(expected, outcome)
    if case.group == "repeat" and worst(f.verdict for f in findings) >= 6:
        again = runner.call(case, "grad", at=ELSEWHERE, pattern=0x41)
        found = repeat_finding(case, "gradients", outcome, again)
        findings += [found] if found else []
    return findings


def repeat_finding(
    case: Case, target: str, first: Outcome, again: Outcome
) -> Finding | None:
    """The finding when a repeat gives other bits."""
    pairs = zip(first.results, again.results, strict=False)
    if all(same_bits(a, b) for a, b in pairs if a is not None):
        return None
    text = "a repeat with the same inputs gave other bits"
    return Finding(case, target, Verdict.INTEGRITY, text)


def same_bits(a: Any, b: Any) -> bool:
    """Equal as bits, so that NaN equals itself."""
    return bool(a.shape == b.shape and a.tobytes() == b.tobytes())


def run(
    runner: Runner, cases: Sequence[suite.Expected], progress: Progress
) -> Iterator[Finding]:
    """The findings of every case; a group that keeps dying is cut short."""
    deaths: dict[str, int] = {}
    for expected in cases:
        group = expected.case.group
        progress.step(group)
        group = f"{expected.case.x.dtype} {group}"
        if deaths.get(group, 0) >= GIVE_UP:
            continue
        found = [run_forward(runner, expected)]
        if found[0].verdict > Verdict.INTEGRITY:
            found += run_gradients(runner, expected)
        if worst(f.verdict for f in found) <= Verdict.TIMEOUT:
            deaths[group] = deaths.get(group, 0) + 1
        yield from found


@lru_cache(maxsize=8)
def prepare_one(
    seed: int, dtype: str, level: str, precision: str | None, border: str
) -> tuple[suite.Expected, ...]:
    """The cases of one dtype; their oracles are computed once for a seed."""
    bounds = standard(dtype, precision)
    cases = suite.cases(seed, np.dtype(dtype), level)
    return tuple(suite.Expected(case, bounds, border) for case in cases)


def prepare(
    seed: int,
    dtypes: Sequence[str],
    level: str,
    precision: str | None = None,
    border: str = "corners",
) -> list[suite.Expected]:
    """The cases of every dtype, one after another."""
    found = (prepare_one(seed, d, level, precision, border) for d in dtypes)
    return [expected for cases in found for expected in cases]


def grade(
    candidate: str | Callable[..., Any],
    *,
    level: str = "smoke",
    dtypes: Sequence[str] = ("float64", "float32", "float16"),
    precision: str | None = None,
    conventions: Sequence[str] = (),
    gaps: Sequence[str] = (),
    seed: int | None = None,
    strict: bool = False,
    array: str = "numpy",
    timeout: float = 60.0,
    progress: bool = False,
) -> Report:
    """Grade an implementation of Eq. (1) against the definition.

    candidate: "torchvision", "module:function", "path/to/file.py:function" or
    a function, called as f(x, offset, weight, mask, bias, stride=(..),
    padding=(..), dilation=(..)) on NumPy arrays. level: "smoke", "full" or
    "paranoid". precision: one of "fp64", "fp32", "tf32", "bf16", "fp16" when it
    is another than the dtype's own. conventions: "border=inside", ... that it
    keeps. gaps: "groups > 1", ... that it may refuse. array: "torch" for one on
    torch tensors, whose gradients are autograd's. seed: None draws a fresh
    one, which the report names.
    Raises CannotStartError when the candidate cannot be loaded.

    >>> from refdcn import formula
    >>> from refdcn.grading import grade
    >>> grade("refdcn.formula:deform_conv2d", dtypes=["float32"]).exit_code
    0
    """
    kept = declared.parse_conventions(conventions)
    seed = secrets.randbelow(2**32) if seed is None else seed
    spec, runner = attach(candidate, array, timeout)
    has_grad, border = runner.has_grad, kept.get("border", "corners")
    cases = prepare(seed, dtypes, level, precision, border)
    bar = Progress(len(cases), progress)
    try:
        findings = list(run(runner, cases, bar))
        explain_precision(findings)
        declared.apply(findings, kept, gaps)
        diagnosis = diagnose(runner, findings)
    finally:
        bar.close()
        runner.close()
    return Report(
        spec,
        seed,
        level,
        tuple(dtypes),
        strict,
        findings,
        has_grad,
        precision,
        diagnosis,
    )


def attach(
    candidate: str | Callable[..., Any], array: str, timeout: float
) -> tuple[str, Process]:
    """The candidate's name and its process: by import where that is possible."""
    if isinstance(candidate, str):
        return candidate, Process(candidate, array, timeout)
    spec = named(candidate)
    if spec is not None:
        return spec, Process(spec, array, timeout)
    forked = Forked(candidate, timeout=timeout)
    return f"{forked.spec} (in a fork of the calling process)", forked


def named(f: Callable[..., Any]) -> str | None:
    """module:function of a module-level function, None of any other."""
    module, name = getattr(f, "__module__", None), getattr(f, "__qualname__", "")
    found = sys.modules.get(module or "")
    if getattr(found, name, None) is not f:
        return None
    path = getattr(found, "__file__", None)
    if module == "__main__":
        return f"{path}:{name}" if path else None
    return f"{module}:{name}"
