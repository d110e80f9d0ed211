"""Gaps: what a line means, and calls redrawn until none lies in one."""

from collections import Counter

import numpy as np
import pytest

from refdcn.formula import deform_conv2d
from refdcn.grading.expected.case import Sizes
from refdcn.grading.judging import gaps
from refdcn.grading.questions import room, suite, sweeps
from refdcn.grading.questions.draw import drawn

PLAIN = Sizes(2, 4, 6, 2, 2, 3, 3, 8, 9, padding=(1, 1))
WORDS = {"mask": "given", "bias": "none", "dtype": "float32", "layout": "contiguous"}


def holds(line, **change):
    """Whether a call of these sizes lies in the gap."""
    facts = gaps.of_sizes(PLAIN) | WORDS | change
    return any(gap.holds(facts) for gap in gaps.parse(line))


@pytest.mark.parametrize(
    "line, within, outside",
    [
        ("groups > 1", {"groups": 2}, {"groups": 1}),
        ("C_out % offset_groups != 0", {"C_out": 3}, {"C_out": 4}),
        ("only C_out % offset_groups == 0", {"C_out": 3}, {"C_out": 4}),
        ("only K_h == K_w == 3", {"K_h": 2, "K_w": 2}, {"K_h": 3, "K_w": 3}),
        ("only H_out == H", {"H_out": 7}, {"H_out": 8}),
        ("stride_y != stride_x", {"stride_x": 2}, {"stride_x": 1}),
        ("padding > 1", {"padding_x": 2}, {"padding_x": 1}),
        ("only padding == 1", {"padding_y": 0}, {"padding_y": 1}),
        ("N > 64 and dtype == float32", {"N": 65}, {"N": 64}),
        ("mask == none", {"mask": "none"}, {"mask": "given"}),
        ("only mask == none", {"mask": "given"}, {"mask": "none"}),
        ("only groups == 1 and N == 1", {"groups": 1, "N": 2}, {"groups": 1, "N": 1}),
    ],
)
def test_what_a_line_means(line, within, outside):
    assert holds(line, **within) and not holds(line, **outside)


NARROW = [
    ("only K_h == K_w == 3", "only stride_y == stride_x", "only groups == 1"),
    ("only H_out == H and W_out == W",),
    ("N > 64", "only padding == 1"),
    ("only mask == given", "groups > 1 and offset_groups > 1"),
    (
        "only K_h == K_w == 3",
        "only H_out == H",
        "only padding == 1",
        "N > 64",
        "only mask == given",
        "only C_out % offset_groups == 0",
    ),
    ("only C_in % 4 == 0", "only offset_groups == 1", "only padding == 1 and N == 1"),
]


@pytest.mark.parametrize("lines", NARROW, ids=" ; ".join)
def test_calls_are_redrawn_in_the_room_that_gaps_leave(lines):
    rng = np.random.default_rng(3)
    rules = [gap for line in lines for gap in gaps.parse(line)]
    found = 0
    for _ in range(40):
        given = (
            gaps.of_sizes(drawn(rng))
            | WORDS
            | {"mask": str(rng.choice(["none", "given"]))}
        )
        now = room.fitting(lines, given, rng, keep=("dtype",))
        if now is None:
            continue
        found += 1
        sizes = room.to_sizes(now)
        assert not any(rule.holds(now) for rule in rules)
        assert gaps.of_sizes(sizes).items() <= now.items() and min(sizes.out) >= 1
        assert sizes.C_in % sizes.groups == sizes.C_in % sizes.offset_groups == 0
        assert sizes.C_out % sizes.groups == 0
        inside = any(rule.holds(given) for rule in rules)
        assert inside == (now != given)  # nothing is changed without need
    assert found >= 36


@pytest.mark.parametrize("line", ["N >= 0", "dtype == float32"])
def test_no_room_is_said(line):
    rng = np.random.default_rng(3)
    given = gaps.of_sizes(PLAIN) | WORDS
    assert room.fitting([line], given, rng, keep=("dtype",)) is None


def outside(lines, case):
    return case.kind == "malformed" or gaps.first_that_holds(lines, case) is None


@pytest.mark.parametrize("lines", NARROW, ids=" ; ".join)
def test_as_much_is_asked_inside_of_gaps(lines):
    free = Counter(c.group for c in suite.cases(1, "float32", "smoke"))
    asked = list(suite.cases(1, "float32", "smoke", lines))
    met = Counter(c.group for c in asked if outside(lines, c))
    for group in free:  # a batch of one cannot have an offset of one image for two
        assert met[group] >= (0.9 if group != "malformed" else 0.4) * free[group]
    calls = sweeps.prepare(1, "float32", "smoke", lines)
    assert all(outside(lines, s.case) for s in calls if s.plan is not None)
    asked_of = sum(outside(lines, s.case) for s in calls)
    assert asked_of >= 0.9 * len(sweeps.prepare(1, "float32", "smoke"))
    assert len({s.plan for s in calls if s.plan is not None}) > 60  # none comes twice


@pytest.mark.parametrize("lines", NARROW, ids=" ; ".join)
def test_what_is_swept_in_gaps_is_exact(lines):
    """The definition, rounded to float32, has every bit of the calls redrawn."""
    for sweep in sweeps.prepare(1, "float32", "smoke", lines):
        c = sweep.case
        wide = [None if a is None else a.astype(np.float64) for a in c.inputs]
        assert (deform_conv2d(*wide, **c.windows).astype("f4") == sweep.y).all()
        five = zip(c.inputs, sweep.gradients, strict=True)
        assert all(a is None or (g == g.astype("f4")).all() for a, g in five)


def test_without_gaps_the_cases_are_what_they_were():
    """The first call of a level, whatever is declared elsewhere."""
    one = next(suite.cases(1, "float32", "smoke"))
    two = next(suite.cases(1, "float32", "smoke", ("N > 64",)))
    assert (one.x == two.x).all() and (one.offset == two.offset).all()
