"""What is recovered of a mistake with no list: read sets, relations, steps, sizes."""

from dataclasses import replace

import numpy as np
import pytest

from refdcn.grading import asking
from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.catalogue.steps import functions
from refdcn.grading.diagnosis import (
    changes,
    hypotheses,
    influence,
    places,
    probes,
    relations,
    resolution,
    rules,
    smallest_call,
)
from refdcn.grading.diagnosis.answers import answer_of, gradients_of
from refdcn.grading.diagnosis.facts import Clause
from refdcn.grading.expected import oracle
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.options import Options
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.progress import Progress
from refdcn.grading.questions import sweeps
from refdcn.grading.words.diagnosis import partly_text
from refdcn.grading.words.facts import brief, fact_text
from refdcn.grading.words.places import needs_text, place_text

BY_NAME = {m.name: m for m in CATALOGUE}
RIGHT = InProcess(*functions(()))


def runner(*edits, grad=True):
    forward, backward = functions(edits)
    return InProcess(forward, backward if grad else None)


def swept(one):
    """The findings of the sweeps alone."""
    options = Options(dtypes=("float32",), seed=1, only=("sweeps",))
    return list(asking.ask(one, options, [], Progress(0, False)))


def call(one):
    return lambda case: answer_of(one, case)


def grads(one):
    return lambda case: gradients_of(one, case)


def said(facts):
    return [fact_text(f) for f in facts if not f.right]


def at(step):
    """An edit of one step, from a function."""
    return lambda f: (step, f)


@at("read")
def neighbour_mask(s):
    """Image n takes the mask of image 32 where the batch is larger than 32."""
    if s.z.N > 32:
        s.m = np.repeat(s.m[32:33], s.z.N, 0)


@at("position")
def eighths(s):
    s.qy, s.qx = np.round(s.qy * 8) / 8, np.round(s.qx * 8) / 8


@at("position")
def halves(s):
    s.qy, s.qx = s.qy.astype(np.float16), s.qx.astype(np.float16)


@at("finish")
def tail(s):
    """The last output column of a row is that of the one before it."""
    if s.out[1] > 8:
        s.y[..., -1] = s.y[..., -2]


@at("backward")
def squared(s):
    s.grads["weight"] = s.grads["weight"] * abs(s.grads["weight"])


def test_a_right_operator_fails_no_sweep_and_no_relation():
    found = swept(RIGHT)
    assert {f.verdict for f in found} == {Verdict.PASS}
    assert len({f.case.note for f in found}) > 90
    facts = relations.contradictions(call(RIGHT), grads(RIGHT), "float32")
    facts += relations.adjoint(call(RIGHT), grads(RIGHT), "float32")
    facts += influence.read_sets(call(RIGHT), "float32")
    facts += influence.taint(call(RIGHT), "float32")
    few = sweeps.Plan(N=1, c=1, o=1, groups=1, H_out=1, W_out=2)  # less than EACH
    plans = (*influence.READ_PLANS, few)
    facts += influence.stencils(grads(RIGHT), "float32", plans)
    facts += influence.read_sets(call(RIGHT), "float32", (few,))
    facts += resolution.resolution_facts(call(RIGHT), "float32")
    assert len(facts) > 60 and said(facts) == []


def test_every_sweep_is_exact_in_float32():
    """Half the terms in float32, in another order: the same bits."""
    for sweep in sweeps.prepare(1, "float32", "full")[::17]:
        x, offset, weight, mask, bias = sweep.case.inputs
        forward, _ = functions(())
        part = weight.copy()
        part[:, ::2] = 0
        rest = weight - part
        two = [
            forward(x, offset, w, mask, b, **sweep.case.windows)
            for w, b in ((rest, bias), (part, None))
        ]
        assert np.array_equal(two[1] + two[0], sweep.y), sweep.case


def test_a_batch_of_33_is_named_by_the_sweep_and_by_its_halves():
    one = runner(neighbour_mask)
    found = swept(one)
    wrong = {f.case.note for f in found if f.verdict is Verdict.WRONG}
    assert wrong == {"N = 33", "N = 65"}
    text = " ".join(said(relations.contradictions(call(one), None, "float32")))
    assert "halves of the batch differ from one on the whole of 33 images" in text


def test_an_image_that_reads_another_is_told():
    one = runner(*BY_NAME["image of batch 0"].edits)
    text = " ".join(said(influence.read_sets(call(one), "float32")))
    assert "reads x[0, " in text or "no output reads x[1, " in text
    mean = runner(*BY_NAME["batch averaged"].edits)
    told = said(influence.taint(call(mean), "float32"))
    assert told and "image 1 reaches image 0" in told[0]


def test_what_is_told_of_a_map_differs_soon():
    """Groups that follow the first read its channels, which reads its own."""
    shape = 2, 2, 6, 2, 3, 3
    want = np.indices(shape).reshape(6, -1)
    have = want.copy()
    have[0] = np.where(want[1] == 1, 1 - want[0], want[0])
    have[1] = 0 * want[1]
    have[2] = np.where(want[1] == 1, (want[2] + 1) % 6, want[2])
    fact = probes.mapped("offset", want, have, shape)
    assert brief(fact).startswith("channels 12, 13, 14, 15, 16 read the offset of")
    found = probes.along(np.arange(30), np.r_[:3, 4, 3, 5:30])
    assert found == {"of": [*range(8)], "is": [0, 1, 2, 4, 3, 5, 6, 7]}


def test_powers_and_the_adjoint_tell_a_gradient_that_is_not_linear():
    one = runner(squared)
    facts = relations.contradictions(call(one), grads(one), "float32")
    assert "when x is doubled, grad_weight grows by 4; it must be doubled" in said(
        facts
    )
    told = said(relations.adjoint(call(one), grads(one), "float32"))
    assert len(told) == 1 and "<weight, grad_weight>" in told[0]


def test_one_unit_of_grad_y_shows_what_a_gradient_reaches():
    one = runner(*BY_NAME["d weight last image"].edits)
    told = said(influence.stencils(grads(one), "float32"))
    assert told == ["grad_y does not enter grad_weight at n = 0"]


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (eighths, "row positions move in steps of 1/8 pixel, wherever they are"),
        (
            halves,
            "row positions are in float16: steps of 1/256 at 7, 1/64 at 31",
        ),
    ],
)
def test_the_step_of_positions_is_measured(edit, text):
    told = said(resolution.resolution_facts(call(runner(edit)), "float32"))
    assert text in told, told


def test_weights_rounded_to_bfloat16_keep_eight_bits():
    def rounded(s):
        bits = np.ascontiguousarray(s.w, np.float32).view(np.uint32) + 0x8000
        s.w = (bits & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(float)

    told = said(resolution.resolution_facts(call(runner(("read", rounded))), "float32"))
    assert told == ["weight keeps 8 of its 24 bits"]


def judged(one, target="y"):
    found = swept(one)
    return [f for f in found if f.target == target]


def test_a_rule_has_no_exception_or_says_so():
    place = rules.locate(judged(runner(tail, grad=False)))
    assert place.exact
    assert set(place.rule) == {Clause("ow", "last", True), Clause("ow", ">=", 8)}
    lost = rules.locate(judged(runner(*BY_NAME["last tap lost"].edits, grad=False)))
    assert not lost.exact and "exactly" not in place_text(lost)


def test_a_rule_with_one_exception_is_not_exact():
    found = [places.judged_of(f) for f in judged(runner(tail, grad=False))]
    k = next(i for i, j in enumerate(found) if j.bad is None)
    bad = np.zeros(places.result_shape(found[k]), bool)
    bad.flat[0] = True
    found[k] = found[k]._replace(bad=bad)
    assert not rules.locate(found).exact


def test_what_came_instead_is_told():
    wrong = [
        (f.case, f.got, f.expected.range("y").low, f.failing)
        for f in judged(runner(tail, grad=False))
        if f.failing is not None
    ]
    (fact,) = changes.law_of_values("y", wrong)
    assert fact_text(fact) == "each wrong value of y at ow is the right value at ow - 1"
    doubled = [(c, 2 * want, want, want != 0) for c, _, want, _ in wrong]
    (fact,) = changes.law_of_values("y", doubled)
    assert fact_text(fact) == "each wrong value of y is 2 times the right one"
    (case, _, want, _), *_ = [w for w in wrong if w[0].sizes.out[1] == 33]
    drawn = np.random.default_rng(1).normal(size=want.shape)
    moved = drawn.copy()
    moved[..., 30:] = drawn[..., 29:30]
    one = replace(case, kind="bound"), moved, drawn, moved != drawn
    (fact,) = changes.law_of_values("y", [one])
    assert fact_text(fact) == (
        "each wrong value of y is the right one of another element (only ow differs): "
        "y[0, 0, 0, 30] has that of y[0, 0, 0, 29]"
    )
    alike = np.repeat(drawn[..., :1], drawn.shape[-1], -1)  # along ow, all are the same
    alike = np.concatenate([alike, 1 + alike])
    first = np.concatenate([alike[:1], alike[:1], alike[2:]])
    two = replace(case, kind="bound", x=np.concatenate([case.x] * 2))
    two = replace(two, offset=np.concatenate([case.offset] * 2))
    fact = changes.taken("y", [(two, first, alike, first != alike)])
    assert fact is not None and fact.measured["along"] == ["n"]
    more = want + np.arange(want.shape[1])[:, None, None] * np.arange(33)
    (fact,) = changes.law_of_values("y", [(case, more, want, more != want)])
    assert fact_text(fact) == "what is added to y depends on o and ow alone"
    noise = np.random.default_rng(0)
    other = [(c, noise.normal(size=w.shape), w, bad) for c, _, w, bad in wrong]
    assert changes.law_of_values("y", other) == []


def test_the_smallest_failing_call_names_what_it_needs():
    one = runner(neighbour_mask, grad=False)
    found = smallest_call.found(
        lambda sweep: not sweep.right(one.call(sweep.case)),
        iter([sweeps.Plan(N=65)]),
        "float32",
    )
    assert found is not None and found.plan.N == 33
    assert found.needs == {"N": 33, "mask": True, "masks": "not 1"}
    assert needs_text(found.needs) == (
        "a failing call has N = 33, a mask, masks other than 1, all else as small as "
        "can be; with any one of these less it is right"
    )
    assert found.plan._replace(N=1, mask=False) == the_least()


def the_least():
    return sweeps.Plan(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, False, False)


def test_eight_and_sixteen_output_channels_are_told_apart():
    for name in ("output channels mod 8", "output channels mod 16"):
        for f in judged(runner(*BY_NAME[name].edits, grad=False)):
            n = f.case.sizes.C_out
            whole = n - n % int(name.split()[-1])
            bad = np.zeros(f.case.y_shape, bool) if f.failing is None else f.failing
            assert not bad[:, :whole].any(), (name, f.case)
    assert any(
        s.case.sizes.C_out % 16 == 8 for s in sweeps.prepare(1, "float32", "smoke")
    )


def test_a_state_kept_from_another_call_is_caught():
    kept = {}
    forward, backward = functions(())

    def remember(*inputs, **windows):
        kept[inputs[0].shape] = inputs
        return forward(*inputs, **windows)

    def stale(grad_y, *inputs, **windows):
        return backward(grad_y, *kept.get(inputs[0].shape, inputs), **windows)

    one = InProcess(remember, stale)
    found = swept(one)
    assert any(f.verdict is Verdict.WRONG and f.target == "grad_x" for f in found)


KEPT = {}


@at("read")
def earlier_weight(s):
    """The weight is cached under its shape and its sum."""
    key = s.w.shape, float(s.w.sum())
    s.w = KEPT.setdefault(key, s.w)


def test_an_argument_of_an_earlier_call_is_told():
    KEPT.clear()
    assert influence.remembered(call(RIGHT), grads(RIGHT), "float32") == []
    told = said(
        influence.remembered(call(runner(earlier_weight, grad=False)), None, "float32")
    )
    assert told == [
        "y takes the weight of an earlier call with the same numbers in another order"
    ]
    forward, backward = functions(())
    kept = {}

    def first_windows(*inputs, **windows):
        key = tuple(None if a is None else a.shape for a in inputs)
        return forward(*inputs, **kept.setdefault(key, windows))

    def last_mask(grad_y, x, offset, weight, mask, bias, **windows):
        return backward(grad_y, x, offset, weight, kept["mask"], bias, **windows)

    def keep(*inputs, **windows):
        kept["mask"] = inputs[3]
        return forward(*inputs, **windows)

    one = InProcess(first_windows)
    told = said(influence.remembered(call(one), None, "float32"))
    assert told == ["y takes the padding of an earlier call with the same shapes"]
    two = InProcess(keep, last_mask)
    told = said(influence.remembered(call(two), grads(two), "float32"))
    assert len(told) == 1
    assert told[0].startswith("grad_x, grad_offset, grad_weight: the mask is that of")


@at("backward")
def late_rows_lost(s):
    """What grad_y has from the third row on does not enter grad_bias."""
    s.grads["bias"] = s.grad_y[:, :, :2].sum((0, 2, 3))


def test_what_of_grad_y_enters_is_told():
    one = runner(late_rows_lost)
    told = said(influence.stencils(grads(one), "float32"))
    assert told == ["grad_y does not enter grad_bias from oh = 2 on"]


def test_lost_additions_and_memory_order_are_told():
    forward, backward = functions(())

    def first_alone(grad_y, *inputs, **windows):
        one = np.zeros_like(grad_y)
        at = np.flatnonzero(grad_y)[:1]
        one.flat[at] = grad_y.flat[at]
        return backward(one, *inputs, **windows)

    def as_it_lies(x, *rest, **windows):
        return forward(x.ravel("K").reshape(x.shape), *rest, **windows)

    told = said(influence.stencils(grads(InProcess(forward, first_alone)), "float32"))
    assert any("some are lost" in t and "grad_x[" in t for t in told), told
    told = said(
        relations.contradictions(
            call(InProcess(as_it_lies)), None, "float32", relations.RELATED_PLANS[:1]
        )
    )
    assert len(told) == 1 and "lie otherwise in memory (channels last), y" in told[0]


def test_what_cancels_is_read_all_the_same():
    """Two taps on one pixel with masks 1 and -1: x does not move y, and is read."""
    case = sweeps.drawn(sweeps.Plan(), "float32", 3, "cancels")
    parts = [case.x, case.weight, case.mask]
    assert min(a.min() for a in parts) < 0
    for name in ("x", "offset", "weight", "mask", "bias"):
        a = getattr(case, name)
        at_last = tuple(n - 1 for n in a.shape)
        right = oracle.forward(case)
        moves = oracle.forward(influence.one_changed(case, name, at_last)) != right
        may = influence.reached(case, name, at_last)
        assert not (moves & ~may).any() and not may.all(), name
    two = sweeps.drawn(
        sweeps.Plan(1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 0, 0, 1, 1, True, False),
        "float32",
        3,
        "two taps on one pixel",
    )
    offset = np.zeros_like(two.offset)
    offset[0, 3] = -1
    ones = np.ones_like(two.weight)
    mask = np.float32([1, -1]).reshape(two.mask.shape)
    two = replace(two, offset=offset, weight=ones, mask=mask)
    still = oracle.forward(influence.one_changed(two, "x", (0, 0, 0, 0)))
    assert (still == oracle.forward(two)).all()
    assert influence.reached(two, "x", (0, 0, 0, 0)).all()


def test_a_listed_mistake_made_in_some_calls_only_is_named_so():
    (edit,) = BY_NAME["weight flipped"].edits

    def of_one_row(s):
        if s.z.K_h == 1:
            edit[1](s)

    found = judged(runner((edit[0], of_one_row), grad=False))
    some = hypotheses.clues(found, "y", "float32")
    partly = hypotheses.in_part(some, (BY_NAME["weight flipped"],), ())
    assert partly.limited and Clause("K_h", ">=", 2) in partly.place.rule
    text = partly_text(partly)
    assert text.startswith(BY_NAME["weight flipped"].text)
    assert ", but not where K_h >= 2" in text, text


@at("position")
def eight_bits(s):
    """Positions wrap at 128; the last of a row is never left."""
    s.qx = np.where(s.qx > 127, s.qx - 256, s.qx)


@at("position")
def sixteen_bits(s):
    """Pixels from 2^15 on are not found."""
    s.qy = np.where(np.round(s.qy) * s.z.W + s.qx >= 2**15, -9, s.qy)


@at("position")
def at_most_20(s):
    """Offsets saturate."""
    s.qy = s.qy + np.clip(s.dp[:, :, :, 0], -20, 20) - s.dp[:, :, :, 0]


@at("columns")
def address_of_16_bits(s):
    """Beyond 2^15 pixels of a call another pixel is read; offsets are kept."""
    if s.image.size > 2**15:
        s.S = np.roll(s.S, 1, -1)
        s.col = (s.S * s.m[:, :, None]).reshape(s.col.shape)


def test_a_large_image_that_is_misread_is_no_far_offset_that_is_lost():
    facts = probes.far_away(call(runner(address_of_16_bits, grad=False)), "float32")
    assert not [f for f in facts if f.kind == "acts as"]


@at("position")
def shrunk(s):
    """Positions of a grid divided by the size, not by the size - 1."""
    s.qy, s.qx = s.qy * (s.z.H - 1) / s.z.H, s.qx * (s.z.W - 1) / s.z.W


def test_a_group_is_told_only_where_every_output_reads_one():
    facts = probes.weights(call(runner(shrunk, grad=False)), "float64")
    assert not [f for f in facts if f.kind == "groups read"]


def test_what_is_far_and_what_is_faint_is_probed():
    assert probes.far_away(call(RIGHT), "float32") == []
    (fact,) = probes.far_away(call(runner(eight_bits, grad=False)), "float32")
    assert fact_text(fact).startswith(
        "the column of a sample is wrong from 130 on (right up to 125): outside where"
    )
    (fact,) = probes.late(call(runner(sixteen_bits, grad=False)), "float32")
    assert (
        "from pixel 32774 of an image of 270x260 on (right up to 32767)"
        in fact_text(fact)
    )
    told = said(probes.reach(call(runner(at_most_20, grad=False)), "float32", 48))
    assert told == [
        "far offsets are not kept: dy is clipped to [-20, 20]: -48 as -20, -12 as "
        "-12, 12 as 12, 24 as 20"
    ]
    assert said(probes.reach(call(runner(at_most_20, grad=False)), "float32")) == []


def test_the_mask_response_tells_the_masks_that_are_wrong():
    def forward(x, offset, weight, mask, bias, **windows):
        if mask is not None:
            mask = np.where(abs(mask) < 0.0625, 0, mask)
        return functions(())[0](x, offset, weight, mask, bias, **windows)

    told = said(probes.masks(call(InProcess(forward)), "float32"))
    assert told[0].startswith("the mask's effect is not m: m = -0.0252 acts as 0, m =")


def test_a_power_of_two_wraps_and_one_row_is_a_line():
    def wraps(s):
        if s.z.W == 8:
            s.qx = np.remainder(s.qx, 8)

    one = runner(("position", wraps), grad=False)
    told = said(probes.kernels(call(one), "float32"))
    assert any("column 8 of 8 reads 1 x[0]" in t for t in told), told

    def line(s):
        if s.z.H == 1:
            s.qy = np.where(abs(s.qy) < 1, 0, s.qy)

    one = runner(("position", line), grad=False)
    told = said(probes.kernels(call(one), "float32"))
    assert any("row -0.875 of 1 reads 1 x[0]" in t for t in told), told
