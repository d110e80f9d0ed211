"""Grading: is an implementation right, how accurate, and where is it wrong."""

from refdcn.grading.grader import grade
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.outcome import CannotStartError
from refdcn.grading.report import Report

__all__ = ["CannotStartError", "Report", "Verdict", "grade"]
