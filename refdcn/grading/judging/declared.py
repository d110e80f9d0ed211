"""What the candidate's owner declares beforehand: conventions and gaps.

A declared gap may be refused; a declared convention must be kept. Neither
is ever silent: the report names both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from refdcn.grading.judging import gaps as gap_lines
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.gaps import DeclarationError
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


def applied(
    findings: Sequence[Finding], conventions: Mapping[str, str], gaps: Sequence[str]
) -> list[Finding]:
    """Refusals inside declared gaps marked; the candidate held to its conventions."""
    return [held(f, conventions, gaps) for f in findings]


def held(f: Finding, conventions: Mapping[str, str], gaps: Sequence[str]) -> Finding:
    """One finding in the light of what was declared."""
    if f.verdict is Verdict.UNSUPPORTED:
        return replace(f, declared=gap_lines.first_that_holds(gaps, f.case) or "")
    if f.choice is None or f.choice[0] not in conventions:
        return f
    key, value = f.choice
    if conventions[key] not in (value, *f.equal):
        other, due = Kind.OTHER_CHOICE, conventions[key]
        return replace(f, verdict=Verdict.WRONG, kind=other, defined=due)
    if f.verdict is Verdict.PASS:
        return f
    kept = replace(f, declared=f"{key}={conventions[key]}")
    # Such as sums by atomics: what comes of it is no breach.
    return replace(kept, verdict=Verdict.CONVENTION) if key == "bits" else kept
