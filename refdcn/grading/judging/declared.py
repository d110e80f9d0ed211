"""What the candidate's owner declares beforehand: conventions and gaps.

A declared gap may be refused; a declared convention must be kept. Neither
is ever silent: the report names both.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refdcn.grading.expected.case import Case
from refdcn.grading.judging.judge import Finding
from refdcn.grading.judging.verdicts import Verdict

CONVENTIONS = {
    "slope at -1": ("right-hand", "left-hand", "0", "the mean"),
    "slope at integers": ("right-hand", "left-hand", "0", "the mean"),
    "zero weight": ("read", "skipped"),
    "nan": ("NaN", "0"),
    "infinite": ("NaN", "0"),
    "bits": ("vary",),
    "border": ("corners", "zero below", "inside", "replicate above"),
}
OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class DeclarationError(ValueError):
    """A declaration that names nothing known."""


def parse_conventions(texts: Sequence[str]) -> dict[str, str]:
    """["border=inside", ...] as a mapping, or an error that lists what exists."""
    found = {}
    for text in texts:
        key, _, value = (part.strip() for part in text.partition("="))
        if value not in CONVENTIONS.get(key, ()):
            known = "; ".join(f"{k}={'|'.join(v)}" for k, v in CONVENTIONS.items())
            raise DeclarationError(f"convention is {text!r}; it must be one of {known}")
        found[key] = value
    return found


def facts(case: Case) -> dict[str, Any]:
    """What a gap may speak of."""
    sizes = case.sizes
    windows = {
        f"{name}_{axis}": pair[i]
        for name, pair in case.windows.items()
        for i, axis in enumerate("yx")
    }
    return {
        **sizes._asdict(),
        **windows,
        "H_out": sizes.out[0],
        "W_out": sizes.out[1],
        "mask": "none" if case.mask is None else "given",
        "bias": "none" if case.bias is None else "given",
        "dtype": case.dtype,
        "layout": case.layout,
    }


def parse_gaps(path: str) -> list[str]:
    """The lines of a --supports file: one gap a line, `#` begins a comment."""
    lines = [line.split("#")[0].strip() for line in Path(path).read_text().splitlines()]
    gaps = [line for line in lines if line]
    sizes = Case("", "", *(np.zeros((1, 2, 1, 1)),) * 3, None, None, *((1, 1),) * 3)
    for gap in gaps:
        in_gap(gap, sizes)
    return gaps


def in_gap(gap: str, case: Case) -> bool:
    """Whether `case` fits "groups > 1 and dtype == float64"."""
    known, fits = facts(case), True
    for part in gap.split(" and "):
        words = part.split(maxsplit=2)
        if len(words) != 3 or words[0] not in known or words[1] not in OPERATORS:
            raise DeclarationError(
                f"gap is {part!r}; it must be NAME OPERATOR VALUE, NAME one of "
                f"{', '.join(known)}"
            )
        have, want = known[words[0]], words[2]
        if isinstance(have, int) and not want.isdigit():
            raise DeclarationError(f"gap is {part!r}; {words[0]} is a whole number")
        fits &= OPERATORS[words[1]](have, int(want) if isinstance(have, int) else want)
    return fits


def apply(
    findings: list[Finding], conventions: Mapping[str, str], gaps: Sequence[str]
) -> None:
    """Mark refusals inside declared gaps; hold the candidate to its conventions."""
    for f in findings:
        if f.verdict is Verdict.UNSUPPORTED:
            gap = next((g for g in gaps if in_gap(g, f.case)), None)
            if gap is not None:
                f.declared, f.text = True, gap
        elif f.choice is not None and f.choice[0] in conventions:
            key, value = f.choice
            if conventions[key] not in (value, *f.equal):
                f.verdict = Verdict.WRONG
                f.text = f"{key}: {value}; {conventions[key]} was declared"
            elif f.verdict is not Verdict.PASS:
                f.declared = True
                if key == "bits":  # such as sums by atomics
                    f.verdict = Verdict.CONVENTION
