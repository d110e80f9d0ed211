"""Correct code in the forms found outdoors is right, and what is asked of it."""

import re

import numpy as np
import pytest

from refdcn.formula import deform_conv2d, deform_conv2d_grad
from refdcn.grading import Verdict, grade
from refdcn.grading.expected.case import BITS, Case
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging import gaps, judge
from refdcn.grading.judging.declared import applied
from refdcn.grading.judging.lower_precision import explained
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.outcome import Outcome
from refdcn.grading.questions import suite
from refdcn.grading.questions.draw import (
    MANY,
    VAST,
    draw_case,
    drawn,
    exact_case,
    large_case,
)
from refdcn.grading.selftest import panel

BY_NAME = {one.name: one for one in panel.MEMBERS}


def in_one_place(dp):
    """One tap at (dp, 0) of stripes that lie across the rows, in float32."""
    x = np.where(np.arange(64) % 2, -1, 1).astype(np.float32)
    x = x[:, None].repeat(2, 1)[None, None]
    offset = np.zeros((1, 2, 64, 2), np.float32)
    offset[0, 0, 0, 0] = dp
    weight, plain = np.ones((1, 1, 1, 1), np.float32), ((1, 1), (0, 0), (1, 1))
    return Case("random", "bound", x, offset, weight, None, None, *plain, grad_y=x)


def alarms(one, case):
    """The findings that are no pass and no convention."""
    found = panel.judged(Expected(case, standard(case.dtype)), one)
    return [f for f in found if f.verdict < Verdict.CONVENTION]


@pytest.mark.parametrize("name", ["ring of padding + 1", "fraction of the offset"])
def test_an_offset_that_rounds_in_a_ring_of_one_is_right(name):
    case = in_one_place(31.630003)
    one, exact = BY_NAME[name], BY_NAME["direct"]
    runs = [InProcess(m.forward, m.grad).call(case).results[0] for m in (one, exact)]
    assert runs[0][0, 0, 0, 0] != runs[1][0, 0, 0, 0]  # by four units in the last place
    assert alarms(one, case) == []


@pytest.mark.parametrize("one", panel.MEMBERS, ids=lambda one: one.name)
def test_dyadic_data_stays_exact_in_every_frame(one):
    rng = np.random.default_rng(11)
    for dtype in ("float64", "float32", "float16"):
        few = {"K_h": 2, "K_w": 2} if dtype == "float16" else {}
        for _ in range(3):
            assert alarms(one, exact_case(rng, drawn(rng, **few), dtype)) == []


@pytest.mark.parametrize("dtype", BITS)
def test_the_positions_of_exact_probes_fit_the_widest_frame(dtype):
    few = suite.NARROW.get(dtype, {})
    rng = np.random.default_rng(3)
    for _ in range(40):
        case = exact_case(rng, drawn(rng, **few), dtype)
        step = float(re.search(r"1/(\d+)", case.note)[1])
        for axis in (0, 1):
            s, p, d = (pair[axis] for pair in case.windows.values())
            reach = s * case.offset.shape[2 + axis] + 2 * p + 2
            reach += d * case.weight.shape[2 + axis] + np.abs(case.offset[:, axis::2])
            assert reach.max() * step <= 2 ** BITS[dtype]


def test_images_one_by_one_sum_up_to_the_whole():
    threads = [one for one in panel.MEMBERS if "threads" in one.name]
    assert len(threads) == 2
    case = draw_case(
        np.random.default_rng(2), drawn(np.random.default_rng(2), N=3), "float64", ""
    )
    for one in threads:
        for a, b in zip(
            one.grad(case.grad_y, *case.inputs, **case.windows),
            deform_conv2d_grad(case.grad_y, *case.inputs, **case.windows),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


# On torch ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rewrites():
    """Correct implementations in PyTorch, by name."""
    found = {one.name: one for one in panel.on_torch()}
    assert len(found) + len(panel.MEMBERS) >= 32
    return found


@pytest.mark.torch
def test_rewrites_in_torch_raise_no_alarm(rewrites):
    given = {"dtypes": ["float64", "float32"], "members": rewrites.values()}
    found = list(panel.alarms(7, 8, each=True, **given))
    assert [f for f in found if isinstance(f, panel.Alarm)] == []
    assert len(found) > 8 * 5 * len(rewrites)


@pytest.mark.torch
@pytest.mark.parametrize("seed", [2, 3, 5, 6])
def test_an_image_padded_by_one_more_is_right_whole(rewrites, seed):
    assert panel.whole([rewrites["ring_1"]], seed) == []


def inside(one, seed):
    """The findings of drawn cases, in this process."""
    cases = suite.cases(seed, "float32", "smoke")
    found = []
    for case in cases:
        if case.kind in ("bound", "exact"):
            expected, runner = (
                Expected(case, standard("float32")),
                InProcess(one.forward, one.grad),
            )
            with np.errstate(all="ignore"):
                found.append(judge.forward(expected, runner.call(case)))
                found += judge.gradients(expected, runner.call(case, "grad"))
    return found


@pytest.mark.torch
@pytest.mark.parametrize("name", ["grid_corners_wide", "grid_edges_wide", "grid_edges"])
def test_a_grid_of_any_precision_is_a_convention(rewrites, name):
    found = inside(rewrites[name], 4)
    assert any(f.verdict < Verdict.CONVENTION for f in found)  # dyadic data shows it
    kept = applied(explained(found), {}, ())
    assert min(f.verdict for f in kept) is Verdict.CONVENTION
    assert {f.cause.step for f in kept if f.cause} == {"grid"}


@pytest.mark.torch
def test_a_declared_slope_of_0_is_kept_by_tents_of_relu(rewrites):
    found = inside(rewrites["relu"], 1)
    chosen = {f.choice for f in found if f.choice}
    assert chosen == {("slope at -1", "0"), ("slope at integers", "0")}
    kept = applied(found, {"slope at integers": "0", "slope at -1": "0"}, ())
    assert min(f.verdict for f in kept) is Verdict.CONVENTION


# What is asked -------------------------------------------------------------------


def test_thin_images_no_padding_and_large_kernels_are_in_smoke():
    cases = [c for c in suite.cases(5, "float32", "smoke") if c.kind == "bound"]
    sizes = [c.sizes for c in cases]
    assert sum(max(s.K_h, s.K_w) > 4 for s in sizes) >= 4
    for axis, n in enumerate("HW"):
        assert sum(getattr(s, n) == 1 for s in sizes) >= 3
        assert sum(s.padding[axis] == 0 for s in sizes) >= 4


def flat_in_float32(x, offset, *rest, **windows):
    """The definition, that counts pixels in float32: odd ones beyond 2^24 are lost."""
    flat = x.reshape(-1)
    at = np.arange(flat.size).astype(np.float32).astype(int).clip(0, flat.size - 1)
    return deform_conv2d(flat[at].reshape(x.shape), offset, *rest, **windows)


@pytest.mark.parametrize(
    ("dtype", "sizes"), [("float32", MANY), ("float16", MANY), ("float32", VAST)]
)
def test_a_flat_index_in_float32_is_seen_beyond_its_last_odd_number(dtype, sizes):
    case = large_case(np.random.default_rng(1), dtype, sizes)
    assert case.x.size > 2**24 and case.x.shape[2:] != case.part.x.shape[2:]
    expected = Expected(case, standard(dtype))
    inputs = [None if a is None else a.astype(np.float64) for a in case.inputs]
    y = deform_conv2d(*inputs, **case.windows).astype(dtype)
    assert judge.forward(expected, Outcome("ok", results=[y])).verdict is Verdict.PASS
    y = flat_in_float32(*inputs, **case.windows).astype(dtype)
    found = judge.forward(expected, Outcome("ok", results=[y]))
    assert found.verdict is Verdict.WRONG


def test_one_plane_alone_is_more_than_float32_counts():
    assert VAST.N * VAST.C_in == 1 and 2**24 < VAST.H * VAST.W < 2**25


@pytest.mark.parametrize(
    ("line", "images"),
    [("mask == given", 2), ("groups > 1", 2), ("K_h != 3; K_w != 3", 2), ("H > 99", 0)],
)
def test_large_images_are_asked_in_the_room_that_gaps_leave(line, images):
    lines = tuple(line.split("; "))
    found = list(suite.larger(np.random.default_rng(1), "float32", lines))
    assert len(found) == images
    for case in found:
        assert gaps.first_that_holds(lines, case) is None
        assert case.x.size > 2**24 and case.part.x.size < 2**20


def test_a_gradient_of_a_large_image_is_zero_around_its_corner():
    case = large_case(np.random.default_rng(1), "float32")
    expected = Expected(case, standard("float32"))
    part = deform_conv2d_grad(case.grad_y, *case.part.inputs, **case.part.windows)
    grad_x = np.zeros_like(case.x)
    grad_x[..., -73:, -73:] = part[0]

    def verdict():
        return judge.gradients(expected, Outcome("ok", results=[grad_x, *part[1:]]))[0]

    assert verdict().verdict is Verdict.PASS and np.count_nonzero(grad_x) > 20
    grad_x[0, 0, 0, 0] = 1
    assert verdict().verdict is Verdict.WRONG and verdict().worst.at == (0, 0, 0, 0)


def hostile(note):
    """The hostile case with this note, and the gradients of the definition."""
    cases = suite.hostile(np.random.default_rng(1), "float32")
    (case,) = (c for c in cases if c.note == note)
    inputs = [None if a is None else a.astype(np.float64) for a in case.inputs]
    with np.errstate(invalid="ignore"):
        grads = deform_conv2d_grad(case.grad_y.astype(float), *inputs, **case.windows)
    return case, [a.astype(np.float32) for a in grads]


def verdicts(case, grads):
    """Of the gradients, in their order."""
    expected = Expected(case, standard("float32"))
    return [f.verdict for f in judge.gradients(expected, Outcome("ok", results=grads))]


@pytest.mark.parametrize(
    "note", ["dy nan", "dx nan", "dy and dx nan", "five offsets nan"]
)
def test_gradients_at_nan_offsets_are_nan_where_they_enter_and_right_elsewhere(note):
    case, grads = hostile(note)
    choice = Verdict.CONVENTION
    assert verdicts(case, grads) == [Verdict.PASS, choice, choice, choice, Verdict.PASS]
    at = tuple(np.transpose(suite.PLACES[note.removesuffix(" nan")])[:, 0])
    for k in (0, 1, 3):  # spread to another element
        spread = [a.copy() for a in grads]
        spread[k].reshape(-1)[0 if note != "five offsets nan" else 20] = np.nan
        assert verdicts(case, spread)[k] is (
            Verdict.CONVENTION if k == 0 and at[0] == 0 else Verdict.WRONG
        ), k


def test_gradients_at_infinite_offsets_are_0_or_nan():
    case, grads = hostile("dx inf")
    assert verdicts(case, grads) == [Verdict.PASS] * 5
    grads[1][1, 8:10, 2, 1] = np.nan
    assert verdicts(case, grads)[1] is Verdict.CONVENTION
    grads[1][1, 8, 2, 1] = 1
    assert verdicts(case, grads)[1] is Verdict.WRONG


def test_more_shapes_are_malformed_and_a_stride_of_0_must_be_refused():
    rng = np.random.default_rng(1)
    notes = [c.note for c in suite.malformed(rng, "float32")]
    assert "offset and mask of one image for two" in notes
    three = next(c for c in suite.malformed(rng, "float32") if "3 offset" in c.note)
    assert three.x.shape[1] % three.sizes.offset_groups and three.mask.shape[1] == 27
    last = list(suite.hostile(rng, "float32"))[-1]
    assert (last.kind, last.stride) == ("malformed", (0, 1))


def careless(x, offset, weight, mask, bias, stride, padding, dilation):
    """Dies of a stride of 0, as libraries in C do."""
    if 0 in stride:
        raise SystemExit(8)
    return deform_conv2d(x, offset, weight, mask, bias, stride, padding, dilation)


def test_a_stride_of_0_that_kills_is_said_and_counts_if_asked():
    given = {"dtypes": ["float32"], "seed": 1, "only": ["random", "hostile"]}
    report = grade(careless, **given)
    assert report.exit_code == 0 and "With a stride of 0" in report.text()
    assert grade(careless, strict=True, **given).exit_code == 3
