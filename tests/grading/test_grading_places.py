"""What a report says is true: of places, of precisions, of how few calls fail."""

import numpy as np
import pytest

from refdcn.grading.catalogue.steps import functions
from refdcn.grading.diagnosis import rules, smallest_call
from refdcn.grading.diagnosis.facts import Clause, Place
from refdcn.grading.diagnosis.places import Judged
from refdcn.grading.expected.case import kept
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.options import Options
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.questions import sweeps
from refdcn.grading.report import Report
from refdcn.grading.selftest import selftest
from refdcn.grading.words import findings as words
from refdcn.grading.words.places import clause_text, place_text, told


def calls():
    return [s.case for s in sweeps.prepare(1, "float32", "smoke")]


def judged(bad_of):
    """Each call's y, with the elements that `bad_of` says of (case, n, o, oh, ow)."""
    found = []
    for case in calls():
        bad = np.broadcast_to(bad_of(case, *np.indices(case.y_shape)), case.y_shape)
        found.append(Judged(case, "y", bad.copy() if bad.any() else None))
    return found


def only_in(note, *at):
    """One pixel of one call, in every channel."""

    def bad(case, n, o, oh, ow):
        return (case.note == note) & (n == at[0]) & (oh == at[1]) & (ow == at[2])

    return bad


@pytest.mark.parametrize("channel", [0, None])
def test_one_failing_pixel_is_no_rule(channel):
    found = judged(only_in("W_out = 33", 1, 2, 31))
    for k, one in enumerate(found):
        if one.bad is not None and channel is not None:
            one.bad[:, channel + 1 :] = False
            found[k] = one
    place = rules.locate(found)
    assert " where " not in place_text(place) and not place.ruled
    if channel == 0:
        assert place_text(place).startswith("it fails at 1 of ")
        assert "y[1, 0, 2, 31] of N=2 " in place_text(place)
    else:
        assert place.kind == "some" and place.calls == (1, len(found))
        assert "first at y[1, 0, 2, 31] of N=2" in told(place)


def test_many_failing_pixels_are_a_rule():
    place = rules.locate(judged(lambda case, n, o, oh, ow: ow >= 31))
    assert place.exact and place_text(place) == "it fails exactly where ow >= 31"


def test_two_calls_of_many_are_too_few_for_a_rule():
    place = rules.locate(judged(lambda case, *_: case.sizes.W >= 500))
    assert not place.ruled and " where " not in told(place)
    assert place.calls == (2, len(calls()))
    # Which calls these are, and nothing of what they share.
    sizes = [case.split(" image ")[1].split()[0] for case, _ in place.examples]
    assert sizes == ["1x700", "1x4200"]
    late = rules.locate(
        judged(lambda case, n, o, oh, ow: (case.sizes.W >= 500) & (ow > 50))
    )
    assert Clause("ow", ">=", 51) in late.rule  # the elements are many


def test_a_call_with_one_size_changed_is_enough():
    """All else is equal in a call that is right."""
    place = rules.locate(judged(lambda case, *_: case.note == "groups = 3"))
    assert place.exact and place_text(place) == "it fails exactly where groups = 3"
    assert place.others == (Clause("C_in / offset_groups", "=", 6),)


def test_the_nearest_right_value_stands_beside_a_limit():
    place = rules.locate(judged(lambda case, *_: len(case.x) > 5))
    assert place_text(place) == "it fails exactly where N >= 33 (up to 5 it is right)"
    place = rules.locate(judged(lambda case, n, *_: n > 4))
    assert place_text(place) == "it fails exactly where n >= 5"


def test_rules_that_no_call_tells_apart_are_told():
    place = rules.locate(judged(lambda case, n, o, oh, ow: case.sizes.K_h > 2))
    assert place.exact and "K_h >= 3" in place_text(place)
    one, two = Clause("K_h", ">=", 3), Clause("kernel above 3", "is", False)
    place = Place("y", "exact", (one,), (None,), (two, Clause("N", "mod 2", 1)))
    assert told(place) == (
        "it fails exactly where K_h >= 3 (or where K_h and K_w are at most 3 or N is "
        "odd: no call tells)"
    )


def test_chance_is_that_of_drawing_the_failures():
    assert rules.log_chance(1, 1, 100) == pytest.approx(np.log(1 / 100))
    assert rules.log_chance(2, 2, 100) == pytest.approx(np.log(2 / (100 * 99)))
    assert rules.log_chance(3, 100, 100) == 0.0


def test_calls_around_the_smallest_failing_one_find_its_limit():
    def late(s):
        if s.z.N > 12:
            s.y = s.y + 1

    one = InProcess(functions((("finish", late),))[0])
    fails = lambda sweep: not sweep.right(one.call(sweep.case))  # noqa: E731
    found = smallest_call.found(fails, iter([sweeps.Plan(N=65)]), "float32")
    tried = {s.case.sizes.N: fails(s) for s in smallest_call.around(found, "float32")}
    assert tried[12] is False and tried[15] is True and len(tried) > 5


def test_what_is_right_with_weights_in_bfloat16_is_imprecise_and_says_so():
    def rounded(s):
        s.w = kept(s.w.astype(np.float32), "bfloat16").astype(np.float64)

    one = InProcess(functions((("read", rounded),))[0])
    report = selftest.grade_in_process("it", one, 4, "float32", predictions=2000)
    assert report.verdict is Verdict.IMPRECISE
    assert "weights are rounded to bfloat16" in report.sentence
    bad = [f for f in report.findings if f.verdict is Verdict.IMPRECISE]
    (cause,) = {words.cause(f) for f in bad}
    assert cause == "weights are rounded to bfloat16"
    assert "weight keeps 8 of its 24 bits" in report.text()


def test_a_verdict_is_taken_once_for_all_that_is_said(monkeypatch):
    """Not once a finding: a report of a thousand is as quick as it is long."""
    case = calls()[0]
    found = [Finding(case, "y", Verdict.WRONG, Kind.DIED, str(k)) for k in range(300)]
    report = Report(Options(dtypes=("float32",)), found)
    asked = []
    counts = Report.counts
    monkeypatch.setattr(
        Report, "counts", lambda self, f: asked.append(f) or counts(self, f)
    )
    assert report.text() and len(asked) < 20 * len(found)


@pytest.mark.parametrize(
    "clause, said",
    [
        (Clause("o", ">=", 1), "output channel > 0"),
        (Clause("o", "last", False), "output channel is not the last"),
        (Clause("group of o", "first", False), "the output channel's group is not th"),
        (Clause("ow", ">=", 32), "ow >= 32"),
    ],
)
def test_a_rule_of_output_channels_says_so(clause, said):
    assert clause_text(clause).startswith(said)
