"""Grades in a test suite of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["assert_grades"]


def assert_grades(candidate: str | Callable[..., Any], **options: Any) -> None:
    """Grade a candidate; the AssertionError of one that fails is its report.

    Takes what `refdcn.grade` takes. What the report names and does not count, such as
    a declared gap, is no failure.

    >>> from refdcn.testing import assert_grades
    >>> assert_grades("refdcn.formula:deform_conv2d", dtypes=["float32"])
    """
    __tracebackhide__ = True
    from refdcn.grading import grade

    report = grade(candidate, **options)
    assert report.exit_code == 0, report.text()
