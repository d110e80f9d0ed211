"""What a diagnosis concludes, and the evidence for it."""

from __future__ import annotations

from collections.abc import Sequence

from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.judging.finding import Finding


def conclusion(diagnosis: Diagnosis, findings: Sequence[Finding]) -> str:
    """What the mistake is, first."""
    return diagnosis.sentence


def evidence(diagnosis: Diagnosis) -> list[str]:
    """What stands behind it, a line each."""
    return diagnosis.text().splitlines()
