"""Grading: is an implementation right, how accurate, and where is it wrong."""

from refdcn.grading.grader import grade
from refdcn.grading.isolation import CannotStartError
from refdcn.grading.report import Report
from refdcn.grading.verdicts import Verdict

__all__ = ["CannotStartError", "Report", "Verdict", "grade"]
