"""What the candidate's owner declares beforehand: conventions and gaps.

A declared gap may be refused; a declared convention must be kept. Neither
is ever silent: the report names both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from refdcn.grading import gaps as gap_lines
from refdcn.grading.gaps import DeclarationError
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


def apply(
    findings: list[Finding], conventions: Mapping[str, str], gaps: Sequence[str]
) -> None:
    """Mark refusals inside declared gaps; hold the candidate to its conventions."""
    for f in findings:
        if f.verdict is Verdict.UNSUPPORTED:
            gap = gap_lines.first_that_holds(gaps, f.case)
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
