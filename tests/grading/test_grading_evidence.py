"""What a grade keeps for its pictures: where it fails, what is read, how accurate."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from candidates import pictured

from refdcn import formula
from refdcn.grading import grade
from refdcn.grading.evidence import channels, reads
from refdcn.grading.evidence.fields import MOST, coarser
from refdcn.grading.expected.case import Sizes
from refdcn.grading.judging.distance import EDGES, spread
from refdcn.grading.questions.draw import draw_case
from refdcn.grading.words import pictures

PICTURED = Path(__file__).parents[1] / "support" / "candidates" / "pictured.py"


@cache
def of(name):
    given = {"dtypes": ["float32"], "seed": 1, "only": ["random"]}
    return grade(f"{PICTURED}:{name}", evidence=True, **given)


def right(case):
    """The definition, called as a candidate."""
    return formula.deform_conv2d(*case.inputs, **case.windows).astype(float)


def drawn(**sizes):
    plain = {"N": 2, "C_in": 4, "C_out": 4, "groups": 2, "offset_groups": 2}
    plain |= {"K_h": 2, "K_w": 3, "H": 6, "W": 7, "padding": (1, 1)}
    rng = np.random.default_rng(3)
    return draw_case(rng, Sizes(**plain | sizes), "float32", "random", "border")


def test_halving_finds_the_pixels_that_the_definition_reads():
    case, seen = drawn(), 0
    for element in np.ndindex(*case.y_shape):
        if sum(element) % 7:
            continue
        own = element[1] // 2 * 2 + 1
        for s in reads.samples_of(right, case, element, own):
            assert s.right, s
            assert {p[:2] for p in s.reads} <= {(element[0], own)}
            inside = {p[2:4] for p in s.corners if reads.inside(p, case)}
            assert {p[2:4] for p in s.reads} <= inside
            seen += len(s.reads)
    assert seen > 100


def test_what_reads_more_than_a_few_pixels_is_not_told():
    case = drawn()
    blurred = lambda c: right(c) + c.x.astype(float).sum()  # noqa: E731
    found = [*reads.samples_of(blurred, case, (0, 0, 2, 2), 0)]
    assert [s.reads for s in found] == [None] * 6
    assert not any(s.right for s in found)


def test_a_constant_that_is_added_is_not_taken_for_a_pixel():
    shifted = lambda c: right(c) + 3  # noqa: E731
    assert all(s.right for s in reads.samples_of(shifted, drawn(), (0, 0, 2, 2), 0))


def test_planar_offsets_are_seen_as_other_positions():
    e = of("planar").evidence
    moved = [s for s in e.samples if not s.right]
    assert len(moved) > len(e.samples) / 2
    s = next(s for s in moved if s.reads and s.corners)
    assert {p[:2] for p in s.reads} == {p[:2] for p in s.corners}
    assert {p[2:4] for p in s.reads} != {p[2:4] for p in s.corners}


def test_a_border_rule_is_seen_as_samples_that_read_nothing():
    report = of("border")
    H, W = report.evidence.finding.case.x.shape[2:]
    wrong = [s for s in report.evidence.samples if not s.right]
    assert wrong and all(s.reads == () for s in wrong)
    for s in report.evidence.samples:
        (y, x) = s.position
        crossing = not (0 <= y <= H - 1 and 0 <= x <= W - 1)
        touching = any(p.share for p in s.corners if reads.inside(p, drawn(H=H, W=W)))
        assert s.right == (not (crossing and touching))


def test_the_group_of_the_output_is_seen_as_another_channel():
    e = of("group").evidence
    wrong = [s for s in e.samples if not s.right]
    assert wrong
    for s in wrong:
        assert {p.channel for p in s.reads}.isdisjoint({p.channel for p in s.corners})
        there = {p[2:4] for p in s.corners}
        assert {p[2:4] for p in s.reads} <= there
    (field,) = [f for f in e.fields if f.axes == ("image", "output channel")]
    by_channel = field.failing.sum(0)
    assert by_channel[0] == by_channel[-1] == 0 < by_channel.sum()


def test_channels_are_told_of_each_output_where_they_alone_are_others():
    groups = drawn(C_in=6, C_out=6, groups=3, offset_groups=2)
    call = lambda c: pictured.group(*c.inputs, **c.windows).astype(float)  # noqa: E731
    samples = [*reads.samples_of(call, groups, (0, 1, 2, 2), 0)]
    assert channels.taken_for(groups, (0, 1, 2, 2), 0, samples) == 2
    assert [tuple(r) for r in channels.channels_of(call, groups)] == [
        (0, (0, 1), (0, 1)),
        (1, (0, 1), (2, 3)),
        (2, (2, 3), (4, 5)),
        (3, (2, 3), (0, 1)),
        (4, (4, 5), (2, 3)),
        (5, (4, 5), (4, 5)),
    ]
    moved = lambda c: call(replace(c, offset=c.offset + 0.25))  # noqa: E731
    samples = [*reads.samples_of(moved, groups, (0, 1, 2, 2), 0)]
    assert channels.taken_for(groups, (0, 1, 2, 2), 0, samples) is None


@pytest.mark.parametrize(
    "numbers, said", [((), "none"), ((3, 4, 5), "3, 4, 5"), (range(2, 9), "2 to 8")]
)
def test_a_run_of_channels_is_told_by_its_ends(numbers, said):
    assert pictures.listed(numbers) == said


def sampled(shares, position, mask=1.0, due=None, image=(9, 9)):
    """A sample that reads some pixels of one channel."""
    pixels = tuple(reads.Pixel(0, 0, *at, share) for at, share in shares.items())
    corners = tuple(reads.corners_of(0, 0, position, mask))
    kept = corners if due is None else tuple(p for p in corners if p[2:4] in due)
    known = (0, 0), (0, 0), mask, position, corners, kept, pixels
    return reads.Sample(*known, False, image)


@pytest.mark.parametrize(
    "shares, found, said",
    [
        ({(1, 1): 0.5, (1, 2): 0.5}, (1, 1.5), "reads at (1, 1.5)"),
        ({(1, 1): 0.1, (1, 2): 0.1}, None, "reads other pixels"),  # more may be lost
        ({(1, 1): 0.4, (1, 3): 0.6}, None, "reads other pixels"),
        ({(1, 1): 0.5, (2, 2): 0.5}, None, "reads other pixels"),
        ({(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.0}, None, "reads other pixels"),
        ({(0, 0): 1.0}, (0, 0), "reads at (0, 0)"),
        ({(4, 4): 0.25, (4, 5): 0.25, (5, 4): 0.25}, None, "a corner is missing"),
        ({(4, 4): 0.5, (4, 5): 0.5, (5, 4): 0.5}, None, "reads with other shares"),
        ({(4, 4): 1.0}, (4, 4), "reads at (4, 4)"),
        # What is cut off by the image's border tells how far outside it is.
        ({(8, 3): 0.2, (8, 4): 0.2}, (8.6, 3.5), "reads at (8.6, 3.5)"),
        ({(3, 0): 0.06, (4, 0): 0.2}, (49 / 13, -0.74), "reads at (3.77, -0.74)"),
        ({(8, 3): 0.7, (8, 4): 0.7}, None, "reads other pixels"),
        ({(8, 0): 0.2}, None, "reads [8, 0] from outside of the image"),
        ({(7, 0): 0.2}, (7, -0.8), "reads at (7, -0.8)"),
    ],
)
def test_a_position_is_told_where_there_is_one(shares, found, said):
    s = sampled(shares, (4.5, 4.5))
    assert s.found == (None if found is None else pytest.approx(found))
    assert pictures.difference(s) == said


def test_no_corner_is_missing_that_the_image_lacks():
    """At the image's edge the shares alone are others, as with another mask."""
    inside, image = {(5, 4), (5, 5)}, (6, 9)
    s = sampled({(5, 4): 0.1, (5, 5): 0.1}, (5.5, 4.5), 1.0, inside, image)
    assert pictures.difference(s) == "reads with other shares"


def test_a_position_across_one_border_is_told_as_one_inside_is():
    case, inside, across = drawn(), 0, 0
    offset = case.offset[:, ::-1].copy()  # another position for every tap
    other = replace(case, offset=offset)
    swapped = lambda c: right(replace(c, offset=offset))  # noqa: E731
    for element in np.ndindex(*case.y_shape):
        if sum(element) % 5:
            continue
        own = element[1] // 2 * 2 + 1
        seen = reads.samples_of(swapped, case, element, own)
        due = reads.samples_of(right, other, element, own)
        for s, t in zip(seen, due, strict=True):
            out = sum(
                not 0 <= q <= n - 1 for q, n in zip(t.position, s.image, strict=True)
            )
            if not s.reads or out == 2 or s.dimmer:
                continue
            if s.corner is None:
                assert s.found == pytest.approx(t.position, abs=0.03), (s, t)
                inside, across = inside + (not out), across + out
    assert inside > 10 < across


@pytest.mark.parametrize("name", ["planar", "border", "group"])
def test_every_picture_counts_the_same_values(name):
    e = of(name).evidence
    for f in e.fields:
        assert f.values.sum() == e.finding.values
        assert f.failing.sum() == e.finding.failures
        assert (f.failing <= f.values).all()
        assert ((f.ratio > 1) == (f.failing > 0)).all()


def test_errors_come_from_the_tap_whose_weight_is_wrong():
    case = drawn()

    def one_tap(c):
        weight = c.weight.copy()
        weight[:, 1, 1, 2] *= 2
        return formula.deform_conv2d(*c.inputs[:2], weight, *c.inputs[3:], **c.windows)

    from refdcn.grading.expected.expectation import Expected
    from refdcn.grading.expected.precision import standard

    bounds = standard("float32", None)
    parts, errors = reads.parts_of(one_tap, case, lambda c: Expected(c, bounds))
    assert np.argwhere(parts.failing).tolist() == [[1, 1, 2]]
    assert errors.shape == (2, 2, 3, *case.y_shape)


def test_a_companion_alone_has_fields_and_no_samples():
    gradients = PICTURED.with_name("gradients.py")
    given = {"dtypes": ["float32"], "seed": 1, "only": ["random"]}
    e = grade(f"{gradients}:negated", evidence=True, **given).evidence
    assert {f.target for f in e.fields} == {"grad_offset"} and e.samples == ()
    assert {f.axes for f in e.fields} >= {("kernel row", "kernel column")}


def test_what_is_right_has_no_evidence():
    given = {"dtypes": ["float32"], "seed": 1, "only": ["random"]}
    report = grade("formula", evidence=True, **given)
    assert report.evidence.finding is None and report.evidence.samples == ()
    counts = report.accuracy["float32", "y"]
    assert sum(counts[EDGES.index(1.0) + 1 :]) == 0
    values = [f.values for f in report.findings if f.target == "y"]
    assert sum(counts) == sum(values)


def test_errors_are_counted_up_to_each_edge():
    ratio = np.array([0, 2.0**-10, 2.0**-9.5, 1, 1.001, 10, 1e9, np.inf, np.nan])
    ok = np.array([True] * 4 + [False] * 5)
    counts = dict(zip((*EDGES, "beyond"), spread(ratio, ok), strict=True))
    wanted = {0: 1, 2.0**-10: 1, 2.0**-9: 1, 1: 1, 10: 2, "beyond": 3}
    assert {k: n for k, n in counts.items() if n} == wanted
    # 0 / 0: no error where none is allowed
    assert spread(np.array([np.nan]), np.array([True]))[0] == 1


def test_large_results_are_drawn_in_few_cells():
    a = np.ones((100, 3), int)
    assert coarser(a, np.add).shape == (MOST, 3) and coarser(a, np.add).sum() == 300


def test_timed_calls_tell_their_memory_and_stand_beside_others():
    given = {"dtypes": ["float32"], "seed": 1, "only": ["exact"]}
    report = grade("refdcn", timed=2, beside=True, **given)
    assert report.run.timing.memory < 2**30
    others = {b.name: b for b in report.run.beside}
    names = [b.name for b in report.run.beside]
    assert names == ["refdcn", "torchvision", "refdcn", "dense convolution"]
    assert len(others["refdcn"].timing.seconds) == 2
    assert str(others["refdcn"].verdict) == "pass"
    for b in others.values():
        assert b.timing is not None or "torch" in b.why


@pytest.mark.torch
def test_torchvision_and_the_dense_convolution_are_timed():
    given = {"dtypes": ["float32"], "seed": 1, "only": ["exact"]}
    others = grade("refdcn", timed=2, beside=True, **given).run.beside
    assert all(len(b.timing.seconds) == 2 for b in others)
    assert [str(b.verdict) for b in others] == ["pass", "pass", "pass", "None"]


def test_the_memory_of_a_call_is_beyond_inputs_and_result(tmp_path):
    file = tmp_path / "hungry.py"
    file.write_text(HUNGRY)
    given = {"dtypes": ["float32"], "seed": 1, "only": ["exact"], "timed": 1}
    plain, hungry = (
        grade(f"{file}:{name}", **given).run.timing.memory for name in ("a", "hungry")
    )
    assert 200e6 < hungry - plain < 340e6


HUNGRY = """
import numpy as np, refdcn
def a(*inputs, **windows):
    return refdcn.deform_conv2d(*inputs, **windows)
def hungry(*inputs, **windows):
    if inputs[0].shape[1] > 100:
        np.ones(2**28, np.uint8)
    return a(*inputs, **windows)
"""
