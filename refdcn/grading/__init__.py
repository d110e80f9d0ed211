"""Grading: is an implementation right, how accurate, and where is it wrong."""

from refdcn.grading.grader import Interrupted, grade
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.options import Options
from refdcn.grading.process.outcome import CannotStartError
from refdcn.grading.report import Report

__all__ = ["CannotStartError", "Interrupted", "Options", "Report", "Verdict", "grade"]
