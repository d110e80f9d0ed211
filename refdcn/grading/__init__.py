"""Grading: is an implementation right, how accurate, and where is it wrong."""

try:
    from refdcn.grading.process.isolation import CannotStartError
except ModuleNotFoundError as error:
    if error.name != "fcntl":
        raise
    raise ImportError(
        "the grader runs a candidate in a process of its own, with memory shared and "
        "limits set, which needs a POSIX system such as Linux; the operator needs none"
    ) from None

from refdcn.grading.grader import grade
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.report import Report

__all__ = ["CannotStartError", "Report", "Verdict", "grade"]
