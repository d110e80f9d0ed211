"""Grades as tests of pytest: `pytest --refdcn-grade SPEC`, a test a group of cases.

What is given is what follows `refdcn grade`, as "SPEC --as paddle --dtype float32". The
grade is made once, when the first of its tests runs; nothing is loaded before.
"""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from refdcn.grading import Report


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option, and the same in the ini file, a grade a line."""
    text = "grade an implementation of DCNv2: takes what follows refdcn grade"
    group = parser.getgroup("refdcn", "refdcn")
    group.addoption(
        "--refdcn-grade", action="append", default=[], metavar="SPEC", help=text
    )
    parser.addini("refdcn_grade", text, type="linelist", default=[])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """The grades' tests come after all others; -k and -m choose among them, too."""
    for line in (*config.getini("refdcn_grade"), *config.getoption("refdcn_grade")):
        grade = Grade.from_parent(session, name=f"refdcn grade {line}", line=line)
        items += grade.collect()


class GradeError(Exception):
    """A group of cases that fails; its text is the report."""


class Grade(pytest.Collector):
    """The tests of one grade."""

    def __init__(self, line: str, **node: Any) -> None:
        super().__init__(**node)
        self.options = parsed(line)
        self.done: Report | None = None

    def collect(self) -> list[pytest.Item]:
        """A test for each group that is asked for."""
        from refdcn.cli import GROUPS

        names = [*(self.options.only or GROUPS), *["timed"] * bool(self.options.timed)]
        return [Group.from_parent(self, name=name) for name in names]

    def report(self) -> Report:
        """Of the grade, which is made once."""
        from refdcn.cli import graded, refusals

        if self.done is None:
            try:
                self.done = graded(self.options)
            except refusals() as e:
                raise GradeError(f"refdcn grade: {e}") from e
        return self.done


class Group(pytest.Item):
    """A group of cases of a grade."""

    def runtest(self) -> None:
        """Fail with the report if a counted verdict of this group fails the grade."""
        from refdcn.grading.judging.verdicts import Verdict
        from refdcn.grading.record import Record

        assert isinstance(self.parent, Grade)
        report = self.parent.report()
        mine = [f for f in report.findings if f.case.group == self.name]
        if not mine:
            pytest.skip("the grade has no case of this group")
        alone = Record(report.options, mine)
        if alone.exit_code or report.verdict is Verdict.NOTHING:
            raise GradeError(report.text())

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """The report; of anything else, where it happened."""
        if isinstance(excinfo.value, GradeError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, None, str]:
        """What a failure is headed with."""
        assert self.parent is not None
        return self.path, None, f"{self.parent.name}: {self.name}"


def parsed(line: str) -> argparse.Namespace:
    """The options of a grade; UsageError for what the command would refuse."""
    from refdcn.cli import parser

    try:
        return parser().parse_args(["grade", *shlex.split(line)])
    except SystemExit as e:
        raise pytest.UsageError(f"refdcn grade {line}: this is no grade") from e
