"""Grades a candidate: every step from the call to the report, in its order."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, replace
from functools import lru_cache
from textwrap import indent
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from refdcn.grading import asking, beside, script
from refdcn.grading.diagnosis.diagnosis import Diagnosis, diagnose
from refdcn.grading.diagnosis.hypotheses import PREDICTIONS
from refdcn.grading.diagnosis.recheck import recheck
from refdcn.grading.evidence.evidence import Evidence, gathered
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.declared import applied
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.gaps import DeclarationError
from refdcn.grading.judging.lower_precision import explained
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.options import Options, chosen
from refdcn.grading.process.forked import Forked
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.isolation import Process
from refdcn.grading.progress import Progress
from refdcn.grading.questions import suite
from refdcn.grading.record import Record, Run
from refdcn.grading.report import Report

Runner = Process | InProcess


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a grade; `report` holds what was graded until then."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


@lru_cache(maxsize=8)
def prepare_one(
    seed: int,
    dtype: str,
    level: str,
    how: tuple[str | None, str],
    gaps: tuple[str, ...],
) -> tuple[Expected, ...]:
    """The cases of one dtype; their oracles are computed once for a seed."""
    precision, border = how
    bounds = standard(dtype, precision)
    cases = suite.cases(seed, dtype, level, gaps)
    return tuple(Expected(case, bounds, border) for case in cases)


def prepare(options: Options) -> list[Expected]:
    """The cases of every dtype, one after another."""
    o = options
    how = (o.precision, o.border), o.all_gaps
    found = (prepare_one(o.seed, dtype, o.level, *how) for dtype in o.dtypes)
    return [e for cases in found for e in cases if o.wants(e.case.group)]


def grade(
    candidate: str | Callable[..., Any],
    *,
    grad: Callable[..., Any] | str | None = None,
    **options: Any,
) -> Report:
    """Grade an implementation of Eq. (1) against the definition.

    candidate: "torchvision", "module:function", "path/to/file.py:function" or
    a function, called as f(x, offset, weight, mask, bias, stride=(..),
    padding=(..), dilation=(..)) on NumPy arrays. grad: the companion of a
    function, f_grad(grad_y, x, ...); one beside it in its module, named after
    it, is found without. Raises CannotStartError when the candidate cannot be
    loaded, SpecError when it cannot be called so, DeclarationError when an
    option is none.

    >>> from refdcn import formula
    >>> from refdcn.grading import grade
    >>> grade("refdcn.formula:deform_conv2d", dtypes=["float32"]).exit_code
    0
    """
    if isinstance(grad, str):
        options, grad = options | {"companion": grad}, None
    o = chosen(options)
    check_arguments(candidate, grad, o)
    cases = prepare(o)
    # Products here are small: threads of BLAS would wait for one another.
    # What a candidate returns may be any bits, signalling NaN included.
    with threadpool_limits(1, "blas"), np.errstate(invalid="ignore", over="ignore"):
        spec, runner = attach(candidate, grad, o, foresee(cases))
        try:
            return examine(spec, runner, o, cases)
        finally:
            runner.close()


def documented(function: Callable[..., Any]) -> None:
    """Show the fields of Options as the function's own keywords."""
    given = inspect.signature(function)
    named = [p for p in given.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for f in fields(Options):
        default = None if f.default is MISSING else f.default
        kind = inspect.Parameter.KEYWORD_ONLY
        one = inspect.Parameter(f.name, kind, default=default, annotation=f.type)
        named.append(one)
    signature = given.replace(parameters=named)
    function.__signature__ = signature  # type: ignore[attr-defined]
    text, example = (function.__doc__ or "").split("    >>> ", 1)
    options = indent((Options.__doc__ or "").partition("\n\n")[2].rstrip(), "    ")
    function.__doc__ = f"{text}    Args:\n{options}\n\n    >>> {example}"


documented(grade)


def check_arguments(candidate: object, grad: object, options: Options) -> None:
    """Raise DeclarationError where two arguments exclude each other."""
    on_torch = options.array == "torch"
    if grad is not None and isinstance(candidate, str):
        raise DeclarationError(
            f"grad is a function though candidate is the name {candidate!r}; it must "
            "be None, since a named candidate has its companion beside it"
        )
    if grad is not None and on_torch:
        raise DeclarationError(
            "grad is a function though array is 'torch'; it must be None, since "
            "gradients of torch tensors are autograd's"
        )
    if "bfloat16" in options.dtypes and not on_torch:
        raise DeclarationError(
            "dtypes holds bfloat16, which NumPy arrays cannot; array must be 'torch'"
        )


def foresee(cases: Sequence[Expected]) -> Iterator[None]:
    """Compute expectations, one a step, while the candidate loads."""
    for expected in cases:
        if expected.case.kind in ("bound", "exact"):
            expected.range("y")
            yield
            if expected.case.grad_y is not None:
                expected.range("grad_x")
            yield


def examine(
    spec: str,
    runner: Runner,
    options: Options,
    cases: Sequence[Expected],
    predictions: int = PREDICTIONS,
) -> Report:
    """Ask, judge, explain, declare, recheck, diagnose, report: in this order."""
    o, done = options, Progress(len(cases), options.progress, options.budget)
    # The definition's gradients are those of its own border.
    runner.has_grad = runner.has_grad and o.border == "corners"
    findings: list[Finding] = []
    diagnosis, smallest, shown, interrupted = Diagnosis(), None, "", False
    evidence = Evidence()
    try:
        for found in asking.ask(runner, o, cases, done):  # each is judged as it comes
            findings.append(found)
    except KeyboardInterrupt:
        interrupted = True
    findings = applied(explained(findings), o.kept, o.all_gaps)
    try:
        if o.explain and not interrupted:
            findings, known = recheck(runner, findings)
            diagnosis = diagnose(runner, unexplained(findings), known, predictions)
            if o.smallest:
                smallest, shown = script.smallest(spec, runner, findings, o)
            if o.evidence:
                evidence = gathered(runner, Record(o, findings).counted)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        done.close()
    run = observed(spec, runner, done)
    if o.beside and not interrupted:
        run = replace(run, beside=tuple(beside.others(o)))
    report = Report(o, tuple(findings), diagnosis, run, smallest, shown, evidence)
    if interrupted:
        raise Interrupted(replace(report, run=replace(run, interrupted=True)))
    return report


def unexplained(findings: Sequence[Finding]) -> list[Finding]:
    """What a diagnosis has to explain: values that mean what they say.

    Nothing after a breach; no result that is not even the array it must be.
    """
    if any(f.verdict is Verdict.INTEGRITY and not f.declared for f in findings):
        return []
    bad = {f.target for f in findings if f.structural}
    return [
        f
        for f in findings
        if f.case.group != "timed"
        and f.case.part is None  # which hypotheses would take minutes for
        and f.target not in bad
        and not ("gradients" in bad and f.of_gradients)
    ]


def observed(spec: str, runner: Runner, done: Progress) -> Run:
    """What the candidate's process did beside answering, and what was left out."""
    return Run(
        spec,
        runner.has_grad,
        isinstance(runner, Forked),
        tuple(sorted(runner.imports)),
        runner.confined,
        runner.threads,
        done.left_out,
        done.left_out_gradients,
        done.over_budget,
        timing=done.timing,
        device=runner.device,
    )


def attach(
    candidate: str | Callable[..., Any],
    grad: Callable[..., Any] | None,
    options: Options,
    meanwhile: Iterator[None],
) -> tuple[str, Process]:
    """The candidate's name and its process: by import where that is possible."""
    limits = options.timeout, options.memory
    spec = candidate if isinstance(candidate, str) else import_path(candidate, grad)
    if spec is not None:
        python = options.python
        how = *limits, meanwhile, python, options.gate
        return spec, Process(spec, options.how, *how)
    assert not isinstance(candidate, str)
    if options.python is not None:
        raise DeclarationError(
            f"python is {options.python!r} though candidate is a function that only "
            "this process knows; it must be None, or the function one of a module"
        )
    if options.gate:
        raise DeclarationError(
            "gate is True though candidate is a function that only this process knows; "
            "it must be False, or the function one of a module, since a fork of this "
            "process holds what this process has loaded"
        )
    forked = Forked(candidate, grad, options.how, *limits)
    return forked.spec, forked


def import_path(
    f: Callable[..., Any], grad: Callable[..., Any] | None = None
) -> str | None:
    """module:function of a module-level function, None of any other.

    None as well if `grad` is not the companion that is beside it.
    """
    module, name = getattr(f, "__module__", None), getattr(f, "__qualname__", "")
    found = sys.modules.get(module or "")
    if getattr(found, name, None) is not f:
        return None
    if grad is not None and getattr(found, f"{name}_grad", None) is not grad:
        return None
    path = getattr(found, "__file__", None)
    if module == "__main__":
        return f"{path}:{name}" if path else None
    return f"{module}:{name}"
