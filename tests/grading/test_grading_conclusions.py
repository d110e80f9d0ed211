"""The first sentence says what the mistake is, as the one would who finds it."""

import itertools
import json
import time

import numpy as np
import pytest

from refdcn import formula
from refdcn.grading.catalogue.followed import followed
from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.catalogue.steps import functions
from refdcn.grading.diagnosis import (
    changes,
    diagnosis,
    gradient_probes,
    influence,
    probes,
    reduce_case,
    relations,
    resolution,
    rules,
)
from refdcn.grading.diagnosis.answers import calls_of, results_of
from refdcn.grading.diagnosis.diagnosis import Diagnosis, diagnose
from refdcn.grading.diagnosis.facts import Clause, Fact, Place
from refdcn.grading.diagnosis.hypotheses import (
    Explanation,
    Sets,
    clues,
    told_by_gradients,
)
from refdcn.grading.diagnosis.places import Judged
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging import judge
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.own_operators import loops
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.outcome import Outcome
from refdcn.grading.questions import sweeps
from refdcn.grading.questions.draw import draw_case, draw_sizes, exact_case
from refdcn.grading.selftest import selftest
from refdcn.grading.words.diagnosis import conclusion, evidence, start
from refdcn.grading.words.facts import SOUND, sound_text

BY_NAME = {m.name: m for m in CATALOGUE}
WITHIN = "With that changed, every element is within the bound."


def drawn(n, seed=4):
    """Cases of the suite with random data, the first n."""
    rng = np.random.default_rng(seed)
    cases = (
        draw_case(rng, draw_sizes(rng), "float32", "random", "normal") for _ in range(n)
    )
    return [Expected(case, standard("float32")) for case in cases]


def findings_of(runner, n=6):
    """What some sweeps and random cases come to."""
    swept = sweeps.prepare(4, "float32", "smoke")[::3]
    found = [f for s in swept for f in sweeps.check(runner, s, standard("float32"))]
    for expected in drawn(n):
        found.append(judge.forward(expected, runner.call(expected.case)))
        if runner.has_grad:
            outcome = runner.call(expected.case, "grad")
            found += judge.gradients(expected, outcome)
    return found


def diagnosed(forward, backward=None):
    runner = InProcess(forward, backward)
    found = findings_of(runner)
    return diagnose(runner, found), found


def first_sentence(text):
    return text.split(". ")[0].rstrip(".")


def told(forward, backward=None):
    text = conclusion(*diagnosed(forward, backward))
    assert len(first_sentence(text).split()) <= 30, text
    return text


FORWARD, BACKWARD = functions(())


# What probes say without a catalogue ---------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no offset", "Offsets are ignored: this is a plain convolution."),
        ("dy only", "Dx is ignored."),
        ("xy", "Offsets are read as (x, y); the definition is (y, x)."),
        ("planar", "Offsets are read as all y then all x of a group; the def"),
        ("planar xy", "Offsets are read as all x then all y of a group; the def"),
        ("planar all", "Offsets are read as all y, then all x; the definition"),
        ("doubled offset", "Offsets are multiplied by 2."),
        ("clipped to 1", "Offsets are clipped to [-1, 1]."),
        ("mask missing", "The mask is ignored."),
        ("mask of batch 0", "Every image uses the mask of image 0."),
        ("offset of group 0", "Every offset group uses the offset of offset group 0."),
        ("mask doubled", "The mask is multiplied by 2."),
        ("stride ignored", "The stride of rows acts as 1, not 2."),
        ("dilation ignored", "The dilation of rows acts as 1, not 3."),
        (
            "padding ignored",
            "Rows are shifted by 1 at stride 2, padding 1 and dilation",
        ),
        ("align corners", "The grid is scaled by"),
        ("clamp", "Far outside (q < -1 or q > 7): row"),
        ("bias negated", "The bias is multiplied by -1."),
        ("batch rolled", "Images 0, 1, 2 read the x of images 1, 2, 0."),
    ],
)
def test_the_cause_is_said_first(name, text):
    call, _ = calls_of(InProcess(functions(BY_NAME[name].edits)[0]))
    facts = probes.run_all(call, "float64")
    assert conclusion(Diagnosis(facts=tuple(facts))).startswith(text)


def test_other_last_bits_alone_are_not_left_for_a_mistake_to_explain():
    case = exact_case(
        np.random.default_rng(0), draw_sizes(np.random.default_rng(2)), "float32"
    )
    expected = Expected(case, standard("float32"))
    y = expected.y.low.astype("f4")
    at = np.unravel_index(np.argmax(abs(y)), y.shape)
    y[at] = np.nextafter(y[at], np.float32(0))
    found = judge.forward(expected, Outcome("ok", results=[y]))
    assert found.verdict is Verdict.IMPRECISE and found.failures == 1
    (clue,) = clues([found], "y", "float32")
    assert clue.failing is None
    assert diagnosis.place_of([found], [], "y", "float32").kind == ""


def test_of_two_explanations_the_one_that_gradients_follow_is_first():
    """Which leaves of them nothing that is "not explained by it"."""
    names = "xy", "output transposed"
    both = [(BY_NAME[n],) for n in names]
    case = drawn(1)[0].case
    runner = InProcess(*functions(BY_NAME["xy"].edits))
    found = [judge.forward(Expected(case, standard("float32")), runner.call(case))]
    expected = found[0].expected
    found += judge.gradients(expected, runner.call(case, "grad"))
    wrong = [f.target for f in found[1:] if f.verdict is Verdict.WRONG]
    sets = {t: Sets(found, t, "float32") for t in wrong}
    assert wrong
    for order in (both, both[::-1]):
        part = Explanation(("y",), tuple(order))
        part, left = told_by_gradients(part, sets, wrong, 8000)
        assert part.survivors[0] == (BY_NAME["xy"],) and left == []


@pytest.mark.parametrize("name", ["planar all", "weight groups interleaved"])
def test_gradients_derived_from_the_mistake_are_explained_by_it(name):
    text = told(*functions(followed(BY_NAME[name].edits)))
    assert text == (
        f"{start(BY_NAME[name].text)}. With that changed, every element is within the "
        "bound."
    )


def test_a_rule_of_sizes_is_said_with_what_a_probe_found():
    """The probe has one image: that squares are right it cannot know."""
    reads = {"inside": {"at": 0.0, "reads": {}, "share": 1.0}}
    where = {"size": 7, "target": "y"}
    fact = Fact("interpolation", "row", reads, {"inside": {"0": 1.0}}, where=where)
    rule = (Clause("H = W", "is", False),)
    place = Place("grad_weight", "only", rule, (None,), failing=9, within=10)
    text = conclusion(Diagnosis(facts=(fact,), places=(Place("y", "some"), place)))
    assert text == (
        "Inside: row 0 of 7 reads nothing; the definition reads 1 x[0]: grad_weight "
        "fails only where H differs from W."
    )


def test_what_is_found_right_is_said_in_words():
    call, grads = calls_of(InProcess(FORWARD, BACKWARD))
    dtype = "float64"
    facts = probes.run_all(call, dtype) + resolution.resolution_facts(call, dtype)
    facts += influence.read_sets(call, dtype) + influence.taint(call, dtype)
    facts += relations.adjoint(call, grads, dtype)
    facts += relations.contradictions(call, grads, dtype)
    assert facts and all(f.right for f in facts)
    assert {f.kind for f in facts} == set(SOUND)
    assert "which elements of x are read" in map(sound_text, facts)
    assert "the rows at which taps lie" in map(sound_text, facts)
    assert "how grad_x follows weight" in map(sound_text, facts)
    (line,) = evidence(Diagnosis(facts=tuple(facts)))
    assert line.startswith("found right: which elements of x are read; ")


def scaled(align):
    """Positions through a grid that is normalised one way and read the other."""

    def edit(s):
        for name, n in (("qy", s.z.H), ("qx", s.z.W)):
            q = getattr(s, name)
            if align and n > 1:
                grid = 2 * q / (n - 1) - 1
                setattr(s, name, ((grid + 1) * n - 1) / 2)
            elif not align:
                grid = (2 * q + 1) / n - 1
                setattr(s, name, (grid + 1) * (n - 1) / 2)

    return edit


@pytest.mark.parametrize(
    ("align", "text"),
    [
        (
            True,
            "The grid is made for align_corners=True and sampled with False.",
        ),
        (
            False,
            "The grid is made for align_corners=False and sampled with True.",
        ),
    ],
)
def test_a_grid_of_another_scale_is_told_by_its_ratio(align, text):
    call, _ = calls_of(InProcess(functions([("position", scaled(align))])[0]))
    facts = [f for f in probes.kernel_taps(call, "float64") if f.kind == "taps"]
    assert conclusion(Diagnosis(facts=tuple(facts))) == text


def test_offsets_that_move_by_whole_pixels_are_not_ignored():
    call, _ = calls_of(InProcess(functions(BY_NAME["floored and clamped"].edits)[0]))
    text = conclusion(Diagnosis(facts=tuple(probes.run_all(call, "float64"))))
    assert "ignored" not in text and text.startswith("Far outside"), text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("offset of the last group: none", "Dy is ignored in offset group 2, the last"),
        (
            "offset of the last group: first",
            "Offset groups 0, 1, 2 read the offset of ",
        ),
    ],
)
def test_of_three_groups_it_is_told_which_is_wrong(name, text):
    call, _ = calls_of(InProcess(functions(BY_NAME[name].edits)[0]))
    facts = [f for f in probes.run_all(call, "float64") if not f.right]
    assert conclusion(Diagnosis(facts=tuple(facts))).startswith(text)


@pytest.mark.parametrize(("bits", "said"), [(16, "16 bits"), (15, "16 bits with a")])
def test_an_address_of_16_bits_is_told(bits, said):
    def wrap(s):
        at = np.arange(s.image.size) % 2**bits
        s.x = s.image.reshape(-1)[at].reshape(s.x.shape)

    call, _ = calls_of(InProcess(functions([("read", wrap)])[0]))
    (fact,) = probes.late_address(call, "float32")
    text = conclusion(Diagnosis(facts=(fact,)))
    assert text.startswith(f"Addresses in x have {said}"), text
    assert probes.late_address(calls_of(InProcess(FORWARD))[0], "float32") == []


def test_one_input_that_is_misread_where_it_lies_otherwise_is_told():
    def backward(grad_y, *inputs, **windows):
        grad_y = grad_y.ravel("K").reshape(grad_y.shape)
        return formula.deform_conv2d_grad(grad_y, *inputs, **windows)

    ask = calls_of(InProcess(FORWARD, backward))
    facts = [f for f in relations.contradictions(*ask, "float64") if not f.right]
    (fact,) = (f for f in facts if f.subject == "memory: channels last")
    text = conclusion(Diagnosis(facts=(fact,)))
    assert fact.where["inputs"] == ["grad_y"]
    assert text.startswith("grad_y whose layout is not contiguous (channels last) is m")


def test_a_mask_lost_in_the_last_group_is_told():
    def lost(s):
        s.m[:, -1] = 1

    call, _ = calls_of(InProcess(functions([("read", lost)])[0]))
    (fact,) = (f for f in probes.masks(call, "float64") if not f.right)
    text = conclusion(Diagnosis(facts=(fact,)))
    assert text == "The mask is ignored in offset group 1, the last."


# Whole diagnoses -----------------------------------------------------------------


def test_offsets_ignored_is_a_plain_convolution():
    def plain(x, offset, *rest, **windows):
        return FORWARD(x, 0 * offset, *rest, **windows)

    assert told(plain) == f"Offsets are ignored: it is a plain convolution. {WITHIN}"


def test_a_tail_that_is_not_computed_is_located():
    def tail(*inputs, **windows):
        y = FORWARD(*inputs, **windows)
        y.reshape(-1)[y.size // 64 * 64 :] = 0
        return y

    assert told(tail).startswith("y is 0 wherever it is wrong")


def test_what_is_done_at_one_column_is_no_property_of_an_input():
    def doubled(*inputs, **windows):
        y = FORWARD(*inputs, **windows)
        y[..., 3:4] *= 2
        return y

    def lost(*inputs, **windows):
        y = FORWARD(*inputs, **windows)
        y[..., 3:4, 3:4] = 0
        return y

    assert "multiplied" not in told(doubled)
    assert "x is ignored" not in told(lost).lower()


def test_nan_is_said_and_where():
    def nan(*inputs, **windows):
        y = FORWARD(*inputs, **windows)
        y[..., 16:] = np.nan
        return y

    text = told(nan)
    assert text.startswith("y is NaN wherever it is wrong: y fails exactly where ow >=")
    assert "reads nothing" not in text


def test_exchanged_arguments_of_the_companion_are_told():
    def exchanged(grad_y, x, *rest, **windows):
        if grad_y.shape != x.shape:
            raise ValueError("shapes")
        return BACKWARD(x, grad_y, *rest, **windows)

    runner = InProcess(FORWARD, exchanged)
    (fact,) = gradient_probes.exchanged_arguments(
        lambda case: results_of(runner, case), "float32"
    )
    assert conclusion(Diagnosis(facts=(fact,))) == (
        "The gradients take grad_y for x and x for grad_y."
    )
    right = InProcess(FORWARD, BACKWARD)
    for probe in (gradient_probes.exchanged_arguments,):
        assert probe(lambda case: results_of(right, case), "float32") == []


def test_additions_of_which_one_remains_are_lost():
    def last_alone(grad_y, x, offset, *rest, **windows):
        found = BACKWARD(grad_y, x, offset, *rest, **windows)
        found[0] = np.minimum(found[0], 1)
        return found

    _, grads = calls_of(InProcess(FORWARD, last_alone))
    (fact,) = gradient_probes.lost_additions(grads, "float32")
    assert conclusion(Diagnosis(facts=(fact,))) == (
        "Additions to grad_x are lost where several meet at one pixel: 12 ones give 1."
    )
    _, grads = calls_of(InProcess(FORWARD, BACKWARD))
    assert gradient_probes.lost_additions(grads, "float32") == []


def lossy(grad_y, *inputs, **windows):
    """Of all that is added to one pixel of grad_x, the largest addition is lost."""
    found = BACKWARD(grad_y, *inputs, **windows)
    one = np.zeros_like(grad_y)
    at = np.unravel_index(np.argmax(abs(grad_y)), grad_y.shape)
    one[at] = grad_y[at]
    if np.count_nonzero(grad_y) > 1:
        found[0] = found[0] - BACKWARD(one, *inputs, **windows)[0]
    return found


def test_lost_additions_are_no_values_of_other_places():
    d, found = diagnosed(FORWARD, lossy)
    text = conclusion(d, found)
    assert "other element" not in text and "other places" not in text
    assert not any(f.kind == "exchanged values" for f in d.facts)


def test_values_of_other_places_need_more_than_chance():
    rng = np.random.default_rng(0)
    true = rng.integers(-8, 9, 400).astype(float)
    got = true.copy()
    got[:40] = rng.integers(-8, 9, 40)  # whole numbers are always somebody's
    assert gradient_probes.matched_elements(got, true, got != true, 8.0) is None
    true = rng.normal(size=400)
    got = np.concatenate([true[1:], true[:1]])
    found = gradient_probes.matched_elements(got, true, got != true, np.abs(true).max())
    assert (found == (np.arange(400) + 1) % 400).all()


def test_what_changes_nothing_explains_nothing():
    """One element of large calls is 6e-6 off: no listed mistake does that."""

    def off(grad_y, *inputs, **windows):
        wide = [None if a is None else a.astype(float) for a in inputs]
        found = formula.deform_conv2d_grad(grad_y.astype(float), *wide, **windows)
        found = [None if a is None else a.astype(np.float32) for a in found]
        if found[0].size > 200:
            found[0].flat[np.argmax(abs(found[0]))] *= np.float32(1 + 6e-6)
        return found

    runner = InProcess(FORWARD, off)
    case = draw_case(
        np.random.default_rng(1),
        draw_sizes(np.random.default_rng(1), N=1, C_in=4, H=9, W=9),
        "float32",
        "random",
        "normal",
    )
    expected = Expected(case, standard("float32"))
    found = findings_of(runner, 4)
    found += judge.gradients(expected, runner.call(case, "grad"))
    assert any(f.verdict is Verdict.WRONG for f in found)
    d = diagnose(runner, found)
    text = conclusion(d, found)
    assert not d.survivors and "With that changed" not in text
    assert text.startswith("grad_x ") and "nearly right" in text, text


# Places --------------------------------------------------------------------------


def judged(bad_of):
    """Each sweep's y, failing where `bad_of` says so of its case."""
    found = []
    for sweep in sweeps.prepare(1, "float32", "smoke"):
        bad = np.full(sweep.case.y_shape, bool(bad_of(sweep.case)))
        found.append(Judged(sweep.case, "y", bad if bad.any() else None))
    return found


@pytest.mark.parametrize(
    ("bad_of", "column", "text"),
    [
        (lambda c: 0 in c.padding, "an axis unpadded", "the padding of an axis is 0"),
        (lambda c: 1 in c.sizes[7:9], "H or W is 1", "H or W is 1"),
        (
            lambda c: max(c.weight.shape[2:]) > 3,
            "kernel above 3",
            "K_h or K_w is above 3",
        ),
    ],
)
def test_properties_that_kernels_branch_on_are_located(bad_of, column, text):
    place = rules.locate(judged(bad_of))
    clauses = (*place.rule, *place.others)
    assert place.exact and any(c.column == column for c in clauses), place


def test_calls_of_one_sample_say_nothing_of_sizes():
    """They have three geometries: any of them fits a size by chance."""
    atoms = [Judged(c, "y", None) for c in sweeps.atoms("float32", 1)]
    bad = [
        j._replace(bad=np.ones(j.case.y_shape, bool))
        if j.case.weight.shape[2] == 3
        else j
        for j in atoms
    ]
    place = rules.locate(bad)
    assert not any(c.column.startswith("K") for c in place.rule), place


def test_a_diagnosis_is_json_for_programs():
    facts = tuple(
        probes.run_all(
            calls_of(InProcess(functions(BY_NAME["xy"].edits)[0]))[0], "float64"
        )
    )
    place = rules.locate(judged(lambda c: c.sizes.K_h > 2))
    d = Diagnosis(facts=facts, places=(place,), needs={"N": 33})
    found = json.loads(json.dumps(d.json(), allow_nan=False))
    (first, *_) = found["facts"]
    assert first["kind"] == "read from" and first["subject"] == "offset"
    assert first["measured"]["x first"] is True and first["rank"] == "cause"
    (where,) = found["places"]
    assert where["rule"] == [{"column": "K_h", "op": ">=", "value": 3}]
    assert where["kind"] == "exact" and found["needs"] == {"N": 33}


# What a slow machine, and NaN, must not change ------------------------------------


def test_a_slow_machine_names_the_same_mistake(monkeypatch):
    """Predictions are counted: a clock that runs away changes nothing."""
    forward = functions(BY_NAME["mask squared"].edits)[0]
    d, found = diagnosed(forward)
    clock = itertools.count(0, 1000)
    for name in ("monotonic", "process_time", "perf_counter", "time"):
        monkeypatch.setattr(time, name, lambda: float(next(clock)))
    runner = InProcess(forward)
    again = diagnose(runner, found)
    assert d.names == again.names == ["mask squared"]
    assert d.json() == again.json()
    (worst,) = [f for f in found if f.verdict is Verdict.WRONG][:1]
    small = reduce_case.reduced_finding(runner, worst, standard("float32"), "corners")
    assert (small.verdict, small.target) == (worst.verdict, worst.target)


def test_predictions_end_the_search():
    d, found = diagnosed(functions(BY_NAME["mask squared"].edits)[0])
    assert not diagnose(InProcess(FORWARD), found, predictions=3).names


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_no_multiple(value):
    (expected,) = drawn(1)
    want = expected.range("y").low
    bad = np.ones(want.shape, bool)
    got = np.where(np.arange(want.size).reshape(want.shape) % 2, value, 3 * want)
    for law in (changes.one_multiple, changes.bias_again, changes.nearly):
        assert law("y", [(expected.case, got, want, bad)]) is None, law
    got = want * value
    (fact,) = changes.law_of_values("y", [(expected.case, got, want, bad)])
    assert fact.kind == "values" and fact.measured["value"] in ("nan", "infinite")


def of_group_0(grad_y, *inputs, **windows):
    """Float32's own gradients, that of the mask written from group 0 alone."""
    grads = list(loops.deform_conv2d_grad(grad_y, *inputs, **windows))
    if grads[3] is not None:
        K = inputs[2].shape[2] * inputs[2].shape[3]
        repeats = grads[3].shape[1] // K
        grads[3] = np.tile(grads[3][:, :K], (1, repeats, 1, 1))
    return grads


def test_another_group_s_rounding_is_no_second_mistake():
    """Where the definition's bound is 0, what is read in its place still rounds."""
    one = InProcess(loops.deform_conv2d, of_group_0)
    report = selftest.grade_in_process("it", one, 5, "float32")
    assert report.diagnosis.names == ["d mask of group 0"]
