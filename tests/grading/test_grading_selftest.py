"""The grader graded, in a reduced form; the whole is `refdcn grade --self-test`."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from refdcn.grading.catalogue import contract
from refdcn.grading.catalogue import precision as coarse
from refdcn.grading.catalogue.mistakes import ALIKE, CATALOGUE
from refdcn.grading.diagnosis import hypotheses
from refdcn.grading.expected.precision import Cause
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.questions import suite, sweeps
from refdcn.grading.selftest import panel, selftest
from refdcn.grading.selftest.correct import Style, member

DOCS = Path(__file__).parents[2] / "docs"
BY_NAME = {m.name: m for m in CATALOGUE}


@pytest.mark.whole
def test_the_reduced_self_test_reaches_its_aim():
    done = selftest.reduced(seed=4, every=24, geometries=500, two=1, members=3)
    assert done.sound, done.text()
    assert len(done.results) == len(selftest.chosen(24, 4)) > len(selftest.ROWS) / 24
    assert {selftest.kind(row) for row in selftest.ROWS} == {
        r.mistake.kind for r in done.results
    }
    assert (len(done.pairs), len(done.wholly)) == (1, 3) and done.graded == 500
    for r in done.results:  # and the first sentence says it
        mistake = r.mistake
        if mistake.kind not in selftest.PLACELESS:
            assert r.sentence.lower().startswith(mistake.text[:20].lower()), r.name


def test_no_rounding_is_named_for_errors_as_large_as_the_values():
    """The bound on long sums in float16 holds all that 32 of 33 images add."""
    result = selftest.examine(BY_NAME[LAST.format(8)], 1)
    assert result.named and result.numbered, result
    assert "last block of 8, 16 or 32 images" in result.sentence


def test_a_coincidence_of_rare_mistakes_is_no_cause():
    (row,) = (
        row
        for row in selftest.ROWS
        if getattr(row, "mistake", row).name == "memory order (gradients)"
    )
    result = selftest.examine_row(row, 1)
    assert result.named, result.sentence


def test_a_part_holds_every_sort_and_turns():
    sorts = {selftest.sort(row) for row in selftest.ROWS}
    assert len(sorts) == 20
    turns = [selftest.chosen(12, turn) for turn in range(12)]
    for rows in turns:
        assert {selftest.sort(row) for row in rows} == sorts
    assert {id(row) for rows in turns for row in rows} == set(map(id, selftest.ROWS))
    assert max(map(len, turns)) < len(selftest.ROWS) / 4


def test_every_row_has_a_name_of_its_own():
    mistakes = [getattr(row, "mistake", row) for row in selftest.ROWS]
    assert len({m.name for m in mistakes}) == len(mistakes)
    assert {m.kind for m in mistakes} == {
        *("layout", "mask", "geometry", "sampling", "tails", "groups"),
        *("gradients", "precision", "contract"),
    }
    assert all(m.text for m in mistakes)


# What may fail ------------------------------------------------------------------


LAST = "d weight of the last block of {} images"


def found(name, **change):
    """A result that is as it must be, but for `change`."""
    mistake = BY_NAME[name]
    right = selftest.Result((mistake,), True, [name], "", mistake.text)
    return replace(right, **change)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (found("xy"), ""),
        (found("xy", caught=False), "not caught: xy"),
        (found("xy", names=[]), "caught, not named: xy: offsets are read"),
        (found("xy", names=["planar"]), "caught, not named: xy"),
        (found("xy", names=["xy", "planar"]), "not proven alike: xy, planar"),
        (found("d x floor", names=["d x floor", "floor in the gradients"]), ""),
        (
            found("d x floor", names=["d x floor", "clamp in the gradients"]),
            "not proven alike: d x floor, clamp in the gradients",
        ),
        # The report says "of 8 or 16 images (no case here tells which)".
        (found(LAST.format(8), names=[LAST.format(8), LAST.format(16)]), ""),
        (
            found(LAST.format(8), names=[LAST.format(8), "xy"]),
            f"not proven alike: {LAST.format(8)}, xy",
        ),
    ],
)
def test_what_falls_short_of_the_aim_is_unsound(result, said):
    done = selftest.SelfTest([result], [], [], 0)
    assert done.sound is (not said)
    assert said in " ".join(done.shortfalls())
    assert all(f"- {short}" in done.text() for short in done.shortfalls())


def test_pairs_and_alarms_count():
    pair = found("xy", names=[], told=False)
    assert not selftest.SelfTest([], [pair], [], 0).sound
    assert selftest.SelfTest([], [found("xy", names=[], told=True)], [], 0).sound
    alarm = panel.Alarm("loops", "N1", "y is wrong")
    done = selftest.SelfTest([], [], [alarm], 1)
    assert not done.sound and "false alarm: loops, N1: y is wrong" in done.text()


def test_enough_of_the_whole_catalogue_must_be_named_alone():
    both = ["d x floor", "floor in the gradients"]
    alike = [found("d x floor", names=both)] * len(selftest.ROWS)
    assert "one name alone is left for 0" in selftest.SelfTest(alike, [], [], 0).text()


def test_a_mistake_that_the_search_does_not_know_is_not_named(monkeypatch):
    left = [m for m in CATALOGUE if m.name != "mask squared"]
    monkeypatch.setattr(hypotheses, "CATALOGUE", left)
    result = selftest.examine_row(BY_NAME["mask squared"], 4)
    done = selftest.SelfTest([result], [], [], 0)
    assert result.caught and not done.sound
    assert "caught, not named: mask squared" in done.text()


def test_a_lower_precision_under_another_name_is_not_named():
    (row,) = (c for c in coarse.COARSE if c.name == "float32: weights in TF32")
    result = selftest.examine_coarse(row._replace(cause=Cause("columns", "float16")), 4)
    assert result.caught and not result.named


def test_a_breach_with_another_verdict_is_not_named():
    (row,) = (b for b in contract.BREACHES if b.spec.endswith("misbehaving:half"))
    right = selftest.examine_breach(row, 4)
    assert right.caught and right.unique
    result = selftest.examine_breach(row._replace(verdict=Verdict.INTEGRITY), 4)
    assert result.caught and not result.named


def test_an_unsound_member_is_an_alarm_of_a_whole_grade():
    right = member(Style("direct"))
    wrong = right._replace(forward=lambda *a, **w: 1.001 * right.forward(*a, **w))
    (alarm,) = panel.whole([wrong], seed=4)
    assert "is graded" in alarm.text or "is wrong" in alarm.text
    silent = right._replace(grad=None)
    assert len(panel.whole([silent], seed=4)) == 1


# What the documents say ---------------------------------------------------------


def test_the_documented_table_holds_every_row():
    text = (DOCS / "selftest.inc").read_text()
    mistakes = [getattr(row, "mistake", row) for row in selftest.ROWS]
    for kind in {*(m.kind for m in mistakes), "all"}:
        n = sum(kind in ("all", m.kind) for m in mistakes)
        assert f"| {kind} | {n} | {n} | {n} |" in text  # caught and named
    said = r"0 false alarms over 5,000 geometries and (\d+) whole"
    assert int(re.search(said, text)[1]) >= 20


def test_the_documented_exceptions_are_the_proven_ones():
    text = (DOCS / "selftest.inc").read_text()
    pairs = re.findall(r"^- not told apart: (.+), (.+)$", text, re.M)
    assert dict(pairs).items() <= ALIKE.items()
    assert len(pairs) == text.count("not told apart")


@pytest.mark.parametrize("level", ["smoke", "full"])
def test_the_documented_levels_are_those_that_run(level):
    cases = Counter(c.group for c in suite.cases(0, "float32", level))
    swept = len(sweeps.prepare(0, "float32", level))
    text = (DOCS / "grading.md").read_text()
    (row,) = re.findall(rf"^\| {level} \|(.*)\|$", text, re.M)
    said = [int(n) for n in re.findall(r"\d+", row.replace(",", ""))]
    assert said[:3] == [cases["exact"], cases["random"], swept]
    large = 2 * (level == "full")  # an image of more than 2^24 numbers, and a plane
    assert f"holds {cases['sizes'] - large} extreme shapes" in text
