"""A failing case as a script that needs NumPy and the candidate only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from refdcn.grading.diagnosis import reduce_case
from refdcn.grading.expected.case import NAMES, Case
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.options import Options
from refdcn.grading.process.forked import Forked
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.inside.candidates import split
from refdcn.grading.process.inside.routes import PYTHON, parted
from refdcn.grading.process.isolation import WORKER, Process
from refdcn.grading.record import Record
from refdcn.grading.words.findings import said
from refdcn.grading.words.script import (
    ALONE,
    BY_PATH,
    BY_ROUTE,
    GRADIENTS,
    HEAD,
    NONE,
    ON_TORCH,
    REFUSED,
    THROUGH,
    TORCHVISION,
    VALUES,
)

TRIED = 3  # findings of which a script is made, until one fails as it must
STARTING = 60.0  # seconds in which a script has imported the candidate
FAILED, RAISED, UNIMPORTED = 99, 98, 97  # exit codes of a script that is tried
TRIAL = f"""import sys
try:
    exec(sys.stdin.read(), {{"__name__": "__main__"}})
except AssertionError:
    sys.exit({FAILED})
except ImportError:
    sys.exit({UNIMPORTED})
except Exception:
    sys.exit({RAISED})
"""


def smallest(
    spec: str, runner: Process | InProcess, findings: Sequence[Finding], o: Options
) -> tuple[Finding | None, str]:
    """The worst finding on its smallest case, and a script that was seen to fail.

    What needs the calls before it has none: a script is a process of its own.
    """
    first: Finding | None = None
    if isinstance(runner, Forked):
        return None, ""
    for f in shown(Record(o, findings).counted):
        bounds = standard(f.case.dtype, o.precision)
        f = reduce_case.reduced_finding(runner, f, bounds, o.border)
        expected = f.expected or Expected(f.case, bounds, o.border)
        for through_grader in (False, True):
            text = reproduction(spec, o, f, expected, through_grader)
            if fails(text, f, o.python or sys.executable, o.timeout):
                return f, text
        first = first or f
    return first, ""


def shown(counted: Sequence[Finding]) -> Iterator[Finding]:
    """The worst ones that a script can show, the smallest of each sort first."""
    able = [f for f in counted if shows(f)]
    worst = min((f.verdict for f in able), default=Verdict.PASS)
    mine = [f for f in able if f.verdict is worst]
    mine.sort(key=lambda f: (not f.case.x.size, elements(f.case)))
    sorts = {(f.target, f.case.group): f for f in reversed(mine)}
    yield from [f for f in mine if sorts[f.target, f.case.group] is f][:TRIED]


def shows(f: Finding) -> bool:
    """Whether a script can show it: not what only the grader's memory tells."""
    if f.verdict is Verdict.INTEGRITY or f.verdict > Verdict.UNCHECKED:
        return False
    return f.case.kind != "hostile" or f.verdict is not Verdict.WRONG


def elements(case: Case) -> int:
    """Of all inputs."""
    return sum(a.size for a in case.inputs if a is not None)


def fails(text: str, f: Finding, python: str, timeout: float) -> bool:
    """Whether a script does, in a process of its own, what the finding says."""
    try:
        code = subprocess.run(
            [python, "-c", TRIAL],
            input=text,
            text=True,
            capture_output=True,
            timeout=timeout + STARTING,
        ).returncode
    except subprocess.TimeoutExpired:
        return f.verdict is Verdict.TIMEOUT
    if f.verdict is Verdict.CRASH:
        return code not in (0, FAILED, RAISED, UNIMPORTED)
    return code == (RAISED if f.verdict is Verdict.UNSUPPORTED else FAILED)


def shapes(case: Case) -> list[tuple[int, ...] | None]:
    """Those of the five gradients."""
    return [None if a is None else a.shape for a in case.inputs]


def listed(a: Any) -> str:
    """An array as source text that keeps every bit."""
    if a is None:
        return "None"
    data = str(a.reshape(-1).tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"np.array({data}, {a.dtype.name!r}).reshape({list(a.shape)})"


def loading(spec: str, o: Options, f: Finding, through_grader: bool) -> str:
    """How the script gets at the candidate, as `f`.

    What is no plain function of Python is called by the grader's own few lines.
    """
    grad, bfloat16 = f.of_gradients, f.case.bfloat16
    adapted = parted(spec)[0] != PYTHON or o.like or o.companion or o.device
    if through_grader or adapted:
        how = {k: v for k, v in o.how._asdict().items() if v is not None}
        which = "grad" if grad else "forward"
        return BY_ROUTE.format(worker=str(WORKER), spec=spec, how=how, which=which)
    place, name = split(spec)
    on_torch = o.array == "torch" or spec == "torchvision"
    name += "_grad" if grad and not on_torch else ""
    if spec == "torchvision":
        text = TORCHVISION
    elif place.endswith(".py"):
        text = BY_PATH.format(path=os.path.abspath(place), name=name)
    else:
        text = f"from {place} import {name} as f"
    if on_torch:
        cast, back = (".bfloat16()", ".float()") if bfloat16 else ("", "")
        text += ON_TORCH.format(cast=cast, back=back)
        text += "\n\nf = f_grad\n" if grad else ""
    return text


def reproduction(
    spec: str, o: Options, f: Finding, expected: Expected, through_grader: bool = False
) -> str:
    """The script of one finding."""
    grad, case = f.of_gradients, f.case
    inputs = dict(zip(NAMES, map(listed, case.inputs), strict=True))
    title = f"{spec}: {said(f) or f.target} ({case})."
    title = title.replace("\\", "/").replace('"', "'")
    load = loading(spec, o, f, through_grader)
    head = HEAD.format(
        title="\n".join(wrap(title, 80, break_long_words=False)),
        needs=THROUGH if str(WORKER) in load else ALONE,
        load=load,
        windows=case.windows,
        **inputs,
    )
    if case.kind == "malformed":
        return head + REFUSED.format(note=case.note)
    call = "got = f(*inputs, **windows)"
    if grad:
        at = NAMES.index(f.target[5:]) if f.target != "gradients" else slice(None)
        call = f"# [N, C_out, H_out, W_out]\ngrad_y = {listed(case.grad_y)}\n"
        call += f"got = f(grad_y, *inputs, **windows)[{at}]"
    if f.kind is Kind.NOT_NONE:
        return head + NONE.format(call=call, name=f.target, input=f.target[5:])
    if f.target == "gradients":
        return head + GRADIENTS.format(call=call, shapes=shapes(case))
    if not f.computes:
        return f"{head}{call}\nprint(got)\n"
    want = expected.range(f.target if f.target != "call" else "y")
    bound = want.bound if f.verdict is not Verdict.IMPRECISE else want.usual
    ends = f"low = high = {listed(want.low)}"
    if (want.low != want.high).any():
        ends = f"low = {listed(want.low)}\nhigh = {listed(want.high)}"
    return head + VALUES.format(
        name="y" if f.target == "call" else f.target,
        range=ends,
        bound=listed(bound),
        call=call,
        dtype=case.x.dtype.name,
    )
