"""Gaps: what a line means, and calls redrawn until none lies in one."""

import numpy as np
import pytest

from refdcn.grading.expected.case import Sizes
from refdcn.grading.judging import gaps
from refdcn.grading.questions import room
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
