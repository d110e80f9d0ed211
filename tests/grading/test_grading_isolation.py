"""Each way to misbehave has its verdict, and the other cases are still graded."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from refdcn.grading import CannotStartError, Verdict, grade, grader
from refdcn.grading.catalogue import contract
from refdcn.grading.catalogue.breaches import misbehaving_gradients
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.judging.verdicts import EXIT_CODES
from refdcn.grading.process.forked import Forked
from refdcn.grading.process.inside.routes import How
from refdcn.grading.process.reply_parser import Placed
from refdcn.grading.questions.timed import Timing, roofline, too_fast

FILE = "refdcn.grading.catalogue.breaches.misbehaving"
EXPLOITS = "refdcn.grading.catalogue.breaches.exploits"
BORROWED = Path(__file__).parents[1] / "support" / "candidates" / "borrowed.py"
GATED = [b for b in contract.BREACHES if b.options.get("gate")]
FORWARD = [b for b in contract.BREACHES if not b.of_gradients and b not in GATED]
COMPANIONS = [b for b in contract.BREACHES if b.of_gradients]


@cache
def graded(file, way):
    hangs = way in ("hang", "answers_for_ever")
    limits = {"timeout": 2 if hangs else 20, "memory": 2**29}
    return grade(f"{file}:{way}", dtypes=["float32"], seed=3, **limits)


@pytest.fixture
def undiagnosed(monkeypatch):
    """Which mistake it is takes seconds, and is not asked here."""
    monkeypatch.setattr("refdcn.grading.grader.diagnose", lambda *_: Diagnosis())


@pytest.mark.parametrize("breach", FORWARD, ids=lambda b: b.way)
def test_misbehaviour_is_a_verdict_and_grading_goes_on(breach):
    report = graded(breach.spec.rpartition(":")[0], breach.way)
    if breach.way == "reads_grader" and not report.run.confined:
        pytest.skip("this system cannot keep a process from reading another's memory")
    assert report.verdict is breach.verdict
    assert report.exit_code == EXIT_CODES[breach.verdict]
    assert breach.text in report.headline()
    groups = {line.group for line in report.lines}
    assert {"exact", "random", "sizes", "optional", "malformed", "hostile"} <= groups
    others = [f for f in report.counted if f.verdict is Verdict.PASS]
    assert others or breach.way in ("half", "listed", "doubles", "greets")


@pytest.mark.parametrize(
    "way", ["segfault", "hang", "leaves_at_once", "refuses", "swells", "kills_parent"]
)
def test_other_cases_are_right(way):
    report = graded(FILE if way in contract.WAYS else EXPLOITS, way)
    bad = (contract.TRICKS | contract.WAYS)[way][0]
    assert {f.verdict for f in report.counted} == {bad, Verdict.PASS}


def few(seed):
    """Two cases of the groups that have many, all of the others."""
    seen = Counter()
    for expected in grader.prepare(grader.Options(dtypes=("float32",), seed=seed)):
        group = expected.case.group
        seen[group] += 1
        if seen[group] <= 2 or group in ("sizes", "optional", "layout", "repeat"):
            yield expected


@pytest.fixture
def companion(monkeypatch, undiagnosed):
    """Grades a right forward and a companion on few cases, in a fork."""
    monkeypatch.setattr("refdcn.grading.asking.sweeps.chosen", lambda _: None)

    def graded(breach):
        grad = getattr(misbehaving_gradients, breach.full_name)
        limits = How(), breach.timeout, contract.MEMORY
        runner = Forked(misbehaving_gradients.right, grad, *limits)
        options = grader.Options(dtypes=("float32",), seed=3)
        try:
            return grader.examine(breach.spec, runner, options, list(few(3)))
        finally:
            runner.close()

    return graded


@pytest.mark.parametrize("breach", COMPANIONS, ids=lambda b: b.way)
def test_a_companion_that_misbehaves_is_a_verdict_and_grading_goes_on(
    breach, companion
):
    report = companion(breach)
    assert report.verdict is breach.verdict
    assert report.exit_code == EXIT_CODES[breach.verdict]
    if breach.way != "memory_order":  # wrong values: a diagnosis says it
        assert "the gradient companion: " in report.headline()
        assert breach.text in report.headline()
    # The forward is right, is asked in every case, and so are the other gradients.
    y = [f for f in report.counted if not f.target.startswith("grad")]
    assert {f.verdict for f in y} == {Verdict.PASS} and report.run.left_out == 0
    assert {id(e.case) for e in few(3)} <= {id(f.case) for f in report.findings}
    grads = [f for f in report.counted if f.target.startswith("grad")]
    if breach.way == "memory_order":
        wrong = {f.case.layout for f in grads if f.verdict is Verdict.WRONG}
        assert wrong == {"channels last", "every second column"}
    right = sum(f.verdict is Verdict.PASS for f in grads)
    assert right > 5 or breach.way in ("nothing", "doubles", "listed", "three", "alone")


def test_every_gradient_that_nobody_wrote_is_seen(companion):
    (breach,) = (b for b in COMPANIONS if b.way == "nothing")
    lost = [f for f in companion(breach).counted if f.kind == "unwritten"]
    assert lost
    for f in lost:  # small blocks too, which NumPy keeps from call to call
        n = sum(a.size for a in f.case.inputs if a is not None)
        assert f.measured == n


def test_a_right_companion_passes_the_same_cases(companion):
    report = companion(contract.Breach("misbehaving_gradients", "right", *"  "))
    assert {f.verdict for f in report.counted} == {Verdict.PASS}
    assert report.has_grad and report.run.left_out_gradients == 0


ONCE = """
from refdcn.formula import deform_conv2d
LAST = []
def f(x, *rest, **windows):
    if LAST and LAST[0].shape == x.shape and (LAST[0] != x).sum() == 1:
        print("another pixel")
    LAST[:] = [x.copy()]
    return deform_conv2d(x, *rest, **windows)
"""


def test_a_breach_in_a_call_that_looks_for_caches_is_a_verdict(tmp_path, undiagnosed):
    (tmp_path / "once.py").write_text(ONCE)
    report = grade(f"{tmp_path}/once.py:f", dtypes=["float32"], only=["repeat"])
    assert report.exit_code == 5
    assert "it wrote to standard output" in report.headline()


def test_a_companion_that_dies_costs_no_forward_case():
    (breach,) = (b for b in COMPANIONS if b.way == "segfault")
    report = grade(breach.spec, dtypes=["float32"], seed=3)
    assert report.exit_code == 3 and report.run.left_out == 0
    n = report.run.left_out_gradients
    assert n > 0
    assert f"The gradients of {n} cases were left out" in report.sentence
    cases = grader.prepare(grader.Options(dtypes=("float32",), seed=3))
    assert {id(e.case) for e in cases} <= {id(f.case) for f in report.findings}


def test_what_is_left_out_is_said():
    report = graded(FILE, "segfault")
    assert report.run.left_out > 0
    assert f"{report.run.left_out} cases were left out" in report.sentence


def test_a_candidate_that_cannot_be_loaded_is_no_verdict():
    with pytest.raises(CannotStartError, match="no function nothing"):
        grade(f"{FILE}:nothing")


def test_an_undefined_cast_is_seen_with_far_offsets():
    report = grade(f"{FILE}:undefined_cast", dtypes=["float32"], seed=3, strict=True)
    assert report.verdict is Verdict.WRONG
    assert "dy 1e+30" in {
        f.case.note for f in report.findings if f.verdict < Verdict.CONVENTION
    }


def test_memory_that_nobody_wrote_is_no_answer(undiagnosed):
    report = graded(FILE, "unwritten")  # wrong; or, where bits differ, both
    assert report.verdict in (Verdict.WRONG, Verdict.INTEGRITY)
    wrong = [f for f in report.counted if f.verdict is Verdict.WRONG]
    assert len(wrong) > 10


def test_shared_memory_cannot_be_cut_off():
    assert graded(EXPLOITS, "cuts_memory").verdict is Verdict.PASS


@pytest.mark.parametrize("name", ["imported", "pasted"])
def test_a_loaded_reference_is_told(name):
    report = grade(f"{BORROWED}:{name}", dtypes=["float32"], seed=3)
    assert report.exit_code == 0
    assert "It loads refdcn, whose operator it may be calling." in report.sentence
    assert json.loads(report.json())["imports"] == ["refdcn"]


def test_a_candidate_without_the_reference_is_told_nothing():
    assert graded(FILE, "half").sentence.count("It loads") == 0


def test_large_cases_must_be_worked_for(undiagnosed):
    report = grade(f"{EXPLOITS}:skips_large", dtypes=["float32"], seed=3, timed=2)
    verdicts = {f.target: f.verdict for f in report.counted if f.case.group == "timed"}
    assert verdicts["y"] is Verdict.WRONG
    assert report.verdict in (Verdict.WRONG, Verdict.INTEGRITY)
    assert "this machine needs" in report.text()


def test_a_time_below_the_roofline_is_no_honest_one():
    case = graded(FILE, "half").findings[0].case
    floor = roofline().floor(case, compute=True)
    assert 0 < floor < 1e-3
    assert too_fast(case, Timing("", (floor,), floor)).verdict is Verdict.PASS
    assert too_fast(case, Timing("", (floor / 2,), floor)).verdict is Verdict.INTEGRITY


def test_spans_follow_the_strides():
    a = np.zeros((3, 4), np.float32)[::-1, ::2]
    told = Placed(a.dtype, a.shape, a.strides, a.__array_interface__["data"][0])
    assert told.span == np.lib.array_utils.byte_bounds(a)
