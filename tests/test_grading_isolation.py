"""Each way to misbehave has its verdict, and the other cases are still graded."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from refdcn.grading import CannotStartError, Verdict, grade
from refdcn.grading.arena import ReplyError, shape_of, span_of
from refdcn.grading.diagnosis import Diagnosis
from refdcn.grading.timed import Timing, roofline, too_fast
from refdcn.grading.verdicts import EXIT_CODES

FILE = "refdcn.grading.misbehaving"
EXPLOITS = "refdcn.grading.exploits"
BORROWED = Path(__file__).parent / "candidates" / "borrowed.py"

WAYS = {
    "segfault": (Verdict.CRASH, "SIGSEGV"),
    "hang": (Verdict.TIMEOUT, "no answer in 2 s"),
    "out_of_memory": (Verdict.CRASH, "out of memory, with 0.5 GiB allowed"),
    "leaves": (Verdict.CRASH, "SystemExit"),
    "leaves_at_once": (Verdict.CRASH, "exited with status 0"),
    "prints": (Verdict.INTEGRITY, "standard output"),
    "moves": (Verdict.INTEGRITY, "working directory"),
    "writes_input": (Verdict.INTEGRITY, "changed its input offset"),
    "aliases_input": (Verdict.INTEGRITY, "shares memory with x"),
    "one_buffer": (Verdict.INTEGRITY, "an earlier"),
    "remembers_pointer": (Verdict.INTEGRITY, "the answer to an earlier call"),
    "random_bits": (Verdict.INTEGRITY, "gave other bits"),
    "half": (Verdict.WRONG, "y is float16 for float32 inputs"),
    "listed": (Verdict.WRONG, "no array"),
    "refuses": (Verdict.UNSUPPORTED, "at least 3 channels"),
    "first_call": (Verdict.INTEGRITY, "the answer to an earlier call"),
    "memory_order": (Verdict.WRONG, "layout"),
    "squeezes": (Verdict.WRONG, "it must be"),
    "doubles": (Verdict.WRONG, "y is float64 for float32 inputs"),
    "empty_batch": (Verdict.UNSUPPORTED, "ZeroDivisionError"),
    "large_kernel": (Verdict.UNSUPPORTED, "larger than image"),
    "unchecked": (Verdict.WRONG, "accepted in silence"),
}
TRICKS = {
    "blinds_numpy": (Verdict.INTEGRITY, "an earlier"),
    "blinds_hashes": (Verdict.INTEGRITY, "changed its input offset"),
    "talks_over": (Verdict.INTEGRITY, "over the grader's channel"),
    "answers_itself": (Verdict.INTEGRITY, "answered twice"),
    "reads_grader": (Verdict.WRONG, "y has shape [1, 1]"),
    "promises": (Verdict.WRONG, "Promise, no array"),
    "pays_later": (Verdict.INTEGRITY, "an earlier result changed"),
    "remembers_start": (Verdict.INTEGRITY, "the answer to an earlier call"),
    "forks": (Verdict.INTEGRITY, "fork"),
    "leaves_fork": (Verdict.INTEGRITY, "left a fork of itself running"),
    "swells": (Verdict.CRASH, "out of memory, with 0.5 GiB allowed"),
    "swells_unseen": (Verdict.CRASH, "out of memory, with 0.5 GiB allowed"),
    "interrupts": (Verdict.CRASH, "left by KeyboardInterrupt"),
    "kills_parent": (Verdict.CRASH, "killed by SIGKILL"),
}
ALL = [(FILE, way, *WAYS[way]) for way in WAYS]
ALL += [(EXPLOITS, way, *TRICKS[way]) for way in TRICKS]


@cache
def graded(file, way):
    limits = {"timeout": 2 if way == "hang" else 20, "memory": 2**29}
    return grade(f"{file}:{way}", dtypes=["float32"], seed=3, **limits)


@pytest.fixture
def undiagnosed(monkeypatch):
    """Which mistake it is takes seconds, and is not asked here."""
    monkeypatch.setattr("refdcn.grading.grader.diagnose", lambda *_: Diagnosis())


@pytest.mark.parametrize("file, way, verdict, text", ALL)
def test_misbehaviour_is_a_verdict_and_grading_goes_on(file, way, verdict, text):
    report = graded(file, way)
    if way == "reads_grader" and not report.confined:
        pytest.skip("this system cannot keep a process from reading another's memory")
    assert report.verdict is verdict
    assert report.exit_code == EXIT_CODES[verdict]
    assert text in report.headline()
    groups = {line.group for line in report.lines}
    assert {"exact", "random", "sizes", "optional", "malformed", "hostile"} <= groups
    others = [f for f in report.counted if f.verdict is Verdict.PASS]
    assert others or way in ("half", "listed", "doubles")


@pytest.mark.parametrize(
    "way", ["segfault", "hang", "leaves_at_once", "refuses", "swells", "kills_parent"]
)
def test_other_cases_are_right(way):
    report = graded(FILE if way in WAYS else EXPLOITS, way)
    bad = (WAYS | TRICKS)[way][0]
    assert {f.verdict for f in report.counted} == {bad, Verdict.PASS}


def test_what_is_left_out_is_said():
    report = graded(FILE, "segfault")
    assert report.left_out > 0
    assert f"{report.left_out} cases were left out" in report.sentence


def test_a_candidate_that_cannot_be_loaded_is_no_verdict():
    with pytest.raises(CannotStartError, match="no function nothing"):
        grade(f"{FILE}:nothing")


def test_an_undefined_cast_is_seen_with_far_offsets():
    report = grade(f"{FILE}:undefined_cast", dtypes=["float32"], seed=3, strict=True)
    assert report.verdict is Verdict.WRONG
    assert "offset 1e+30" in {f.case.note for f in report.findings if f.text}


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


@pytest.mark.parametrize("shape", [[-1, 2], [2**50], [1] * 40, ["2"], [True]])
def test_forged_shapes_are_no_reply(shape):
    with pytest.raises(ReplyError):
        shape_of({"shape": shape})


def test_spans_follow_the_strides():
    a = np.zeros((3, 4), np.float32)[::-1, ::2]
    told = {"type": "array", "dtype": "float32", "shape": a.shape}
    told |= {"strides": a.strides, "address": a.__array_interface__["data"][0]}
    low, high = np.lib.array_utils.byte_bounds(a)
    assert span_of(told) == (low, high)
