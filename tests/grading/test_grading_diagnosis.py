"""What the grader says of mistakes: caught, named, located, none invented."""

from dataclasses import replace

import numpy as np
import pytest
from candidates.fresh import FRESH

from refdcn.grading.catalogue.followed import followed
from refdcn.grading.catalogue.mistakes import ALIKE, CATALOGUE
from refdcn.grading.catalogue.steps import functions, predict
from refdcn.grading.diagnosis import (
    answers,
    changes,
    diagnosis,
    gradient_probes,
    probes,
)
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.questions import sweeps
from refdcn.grading.questions.draw import draw_case, draw_sizes
from refdcn.grading.selftest import selftest
from refdcn.grading.words.diagnosis import evidence
from refdcn.grading.words.facts import fact_text

BY_NAME = {m.name: m for m in CATALOGUE}


def test_the_catalogue_is_large_and_has_no_name_twice():
    assert len(CATALOGUE) >= 140 and len(BY_NAME) == len(CATALOGUE)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("output columns from 32", "it fails exactly where ow >= 32"),
        ("images from 32", "it fails exactly where n >= 32"),
        ("output rows from 32", "it fails exactly where oh >= 32"),
    ],
)
def test_a_mistake_is_located(name, where):
    assert selftest.examine(BY_NAME[name], seed=4).located == where


@pytest.mark.parametrize(
    "name",
    [
        "planar all",
        "offset of batch 0",
        "offset groups interleaved",
        "weight groups interleaved",
        "groups ignored",
        "input channels mod 2",
        "align corners off",
        "grid sizes exchanged",
        "offset by dilation",
        "position swapped",
        "reflect edge",
        "offset group by weight group",
    ],
)
def test_gradients_that_follow_from_a_mistaken_forward_are_its_slopes(name):
    edits, rng = BY_NAME[name].edits, np.random.default_rng(0)
    for _ in range(6):
        case = draw_case(rng, draw_sizes(rng, 4), "float64", "drawn", "normal")
        for of in ("x", "offset", "weight", "mask"):
            if getattr(case, of) is None:
                continue
            step = 1e-6 * rng.standard_normal(getattr(case, of).shape)
            up, down = (
                predict(replace(case, **{of: getattr(case, of) + d}), edits, "y")
                for d in (step, -step)
            )
            got = (predict(case, followed(edits), f"grad_{of}") * step).sum()
            slope = ((up - down) * case.grad_y).sum() / 2
            assert abs(got - slope) < 1e-13 + 1e-6 * abs(slope)


PAIRS = [("xy", "mask squared"), ("dilation ignored", "bias missing")]


@pytest.mark.parametrize("names", PAIRS)
def test_two_mistakes_at_once_are_named(names):
    edits = tuple(e for n in names for e in BY_NAME[n].edits)
    forward, _ = functions(edits)
    report = selftest.grade_in_process("pair", InProcess(forward), 4, "float32")
    assert report.exit_code == 1
    found = [set(n.split(" + ")) for n in report.diagnosis.names]
    assert set(names) in found


def facts_of(name, dtype="float64"):
    forward, _ = functions(BY_NAME[name].edits)
    return probes.run_all(lambda c: forward(*c.inputs, **c.windows), dtype)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("xy", "axis 0, 1 is read as 1, 0"),
        ("offset column-major", "tap 0, 1, 2, 3, 4, 5 is read as 0, 2, 4, 1, 3, 5"),
        ("mask of batch 0", "image is always 0"),
        ("doubled offset", "dy of v acts as 2 v"),
        ("mask missing", "mask has no effect: any value acts as 1"),
        ("stride swapped", "the row of tap (i, j) is -1 +3 oh +3 i"),
        ("whole sample", "row -0.125 of 7 reads nothing; the definition reads 0.875"),
        ("bias reversed", "output channel 0, 1, 2, 3, 4, 5 is read as 5, 4, 3, 2, 1"),
        ("batch rolled", "image 0, 1, 2 is read as 1, 2, 0"),
    ],
)
def test_probes_describe_without_a_catalogue(name, text):
    assert text in " ".join(fact_text(f) for f in facts_of(name) if not f.right)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_probes_find_nothing_wrong_with_a_right_operator(dtype):
    forward, _ = functions(())
    facts = probes.run_all(lambda c: forward(*c.inputs, **c.windows), dtype)
    assert len(facts) == 11 and all(f.right for f in facts), facts


def test_the_operator_of_the_catalogue_is_right_without_edits():
    runner = InProcess(*functions(()))
    report = selftest.grade_in_process("none", runner, 4, "float32")
    assert report.exit_code == 0


SAID = {
    "paired_columns": "4, 5, 6, 7, 8 is read as 0, 3, 2, 5, 4",
    "next_group_mask": "offset group 0, 1, 2 is read as 1, 2, 0",
    "half_batch": "image 0, 1, 2, 3, 4 is read as 0, 0, 1, 1, 2",
    "four_pixels": "dy is clipped to [-4, 4]: -12 as -4, -3 as -3, 3 as 3, 9 as 4",
    "tiles_of_four": "7, 8 is read as 0, 0, 0, 4, 4, 4, 4",
    "offset_drift": "dy of v acts as 1.01 v",
    "odd_taps_dropped": "mask's effect is not m",
    "dy_leaks": "dx acts as another function, or others enter",
    "bias_by_mask": "bias of v acts as 0.5 v",
    "weights_of_first_group": "0, 1, 2, 3, 4, 5 is read as 0, 1, 2, 0, 1, 2",
    "fast_path": "is -1 +2 oh +1 i; the definition is 2 oh - 1 + 3 i",
    "columns_reflected": "column 8 of 7 reads 1 x[4]; the definition reads nothing",
    "channel_pairs": "channel 0, 1, 2, 3, 4, 5 is read as 1, 0, 3, 2, 5, 4",
    "last_row_lacks_channel": "it fails only where oh is the last",
    "last_row_repeated": "of y at oh is the right value at oh - 1",
    "grad_x_floor_row": "in the gradient of x, between -1 and 0: row -0.125 of 7",
    "grad_offset_last_column": "it fails only where ow is the last",
    "grad_mask_rows": "in the gradient of mask, between -1 and 0: row -0.625",
    "grad_offset_by_mask_sum": "gradient of offset, the sign of the mask is lost",
}


def evidence_of(step, edit):
    """What is recovered of it without the catalogue, from a part of the sweeps."""
    grads = step == "backward"
    forward, backward = functions(((step, edit),))
    runner = InProcess(forward, backward if grads else None)
    call, gradients = answers.calls_of(runner)
    swept = sweeps.prepare(4, "float32", "smoke")[::3]
    found = [f for s in swept for f in sweeps.check(runner, s, standard("float32"))]
    wrong = [f for f in found if f.verdict is Verdict.WRONG]
    assert wrong
    facts, places = [], []
    for target in dict.fromkeys(f.target for f in wrong):
        mine = [f for f in wrong if f.target == target]
        facts += changes.law_of_values(target, map(diagnosis.wrong_values, mine))
        places.append(diagnosis.place_of(found, [], target, "float32"))
    if grads:
        facts += gradient_probes.gradient_kernels(gradients, "float32")
    else:
        facts += probes.run_all(call, "float32")
    return evidence(diagnosis.Diagnosis(facts=tuple(facts), places=tuple(places)))


WHOLE = "grad_offset_by_mask_sum"  # which only the catalogue's words say


def test_every_expectation_belongs_to_a_mistake():
    assert SAID.keys() <= {edit.__name__ for _, edit in FRESH}


@pytest.mark.parametrize(
    ("step", "edit"),
    [pair for pair in FRESH if pair[1].__name__ in SAID.keys() - {WHOLE}],
    ids=lambda a: getattr(a, "__name__", a),
)
def test_an_unlisted_mistake_is_described(step, edit):
    said = "\n".join(evidence_of(step, edit))
    assert SAID[edit.__name__] in said, said


# An eighth of them: each is a whole grade and a search for explanations.
@pytest.mark.whole
@pytest.mark.parametrize(
    ("step", "edit"), FRESH[::8] + FRESH[-1:], ids=lambda a: getattr(a, "__name__", a)
)
def test_an_unlisted_mistake_is_caught_and_not_named(step, edit):
    name = edit.__name__
    assert name not in BY_NAME
    forward, grad = functions(((step, edit),))
    runner = InProcess(forward, grad if step == "backward" else None)
    report = selftest.grade_in_process(name, runner, 4, "float32", predictions=2000)
    assert report.exit_code == 1
    # Nothing in the catalogue explains it, if it is not made in the backward alone.
    assert all(n.endswith("in the gradients") for n in report.diagnosis.names)
    assert SAID.get(name, "").lower() in report.text().lower()


@pytest.mark.parametrize(("one", "other"), ALIKE.items())
def test_what_is_not_told_apart_is_one_function(one, other):
    """Two names of one mistake: no input could tell them apart."""
    assert other.endswith(" in the gradients")
    other = other.removesuffix(" in the gradients")
    target = "grad_" + one.split()[1]
    rng = np.random.default_rng(0)
    differing = 0
    for _ in range(40):
        sizes = draw_sizes(rng, 5)
        offsets = ("border", "normal")[rng.integers(2)]
        case = draw_case(rng, sizes, "float64", "drawn", offsets)
        a, b = (predict(case, BY_NAME[name].edits, target) for name in (one, other))
        rounding = 1e-12 * abs(a).max()  # sums of a few hundred terms
        np.testing.assert_allclose(a, b, rtol=0, atol=rounding)
        differing += not np.array_equal(a, predict(case, (), target))
    assert differing > 10  # from the definition
