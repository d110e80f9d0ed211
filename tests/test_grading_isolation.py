"""Each way to misbehave has its verdict, and the other cases are still graded."""

import pytest

from refdcn.grading import CannotStartError, Verdict, grade

FILE = "refdcn.grading.misbehaving"

WAYS = {
    "segfault": (Verdict.CRASH, 3, "SIGSEGV"),
    "hang": (Verdict.TIMEOUT, 3, "no answer in 2 s"),
    "out_of_memory": (Verdict.CRASH, 3, "out of memory"),
    "leaves": (Verdict.CRASH, 3, "SystemExit"),
    "leaves_at_once": (Verdict.CRASH, 3, "exited with status 0"),
    "prints": (Verdict.INTEGRITY, 5, "standard output"),
    "moves": (Verdict.INTEGRITY, 5, "working directory"),
    "writes_input": (Verdict.INTEGRITY, 5, "changed its input offset"),
    "aliases_input": (Verdict.INTEGRITY, 5, "changed its input x"),
    "one_buffer": (Verdict.INTEGRITY, 5, "an earlier"),
    "remembers_pointer": (Verdict.WRONG, 1, "is wrong"),
    "unwritten": (Verdict.WRONG, 1, "is wrong"),
    "random_bits": (Verdict.INTEGRITY, 5, "gave other bits"),
    "half": (Verdict.WRONG, 1, "y is float16 for float32 inputs"),
    "listed": (Verdict.WRONG, 1, "no array"),
    "refuses": (Verdict.UNSUPPORTED, 4, "at least 3 channels"),
    "first_call": (Verdict.WRONG, 1, "is wrong"),
    "memory_order": (Verdict.WRONG, 1, "layout"),
    "squeezes": (Verdict.WRONG, 1, "it must be"),
    "doubles": (Verdict.WRONG, 1, "y is float64 for float32 inputs"),
    "empty_batch": (Verdict.UNSUPPORTED, 4, "ZeroDivisionError"),
    "large_kernel": (Verdict.UNSUPPORTED, 4, "larger than image"),
    "unchecked": (Verdict.WRONG, 1, "accepted in silence"),
}


@pytest.mark.parametrize("way", WAYS)
def test_misbehaviour_is_a_verdict(way):
    verdict, code, text = WAYS[way]
    report = grade(f"{FILE}:{way}", dtypes=["float32"], seed=3, timeout=2)
    assert report.verdict is verdict
    assert report.exit_code == code
    assert text in report.headline()
    groups = {line.group for line in report.lines}
    assert {"exact", "random", "sizes", "optional", "malformed", "hostile"} <= groups


@pytest.mark.parametrize("way", ["segfault", "hang", "leaves_at_once", "refuses"])
def test_other_cases_are_still_graded(way):
    report = grade(f"{FILE}:{way}", dtypes=["float32"], seed=3, timeout=2)
    assert {f.verdict for f in report.counted} == {WAYS[way][0], Verdict.PASS}


def test_a_candidate_that_cannot_be_loaded_is_no_verdict():
    with pytest.raises(CannotStartError, match="no function nothing"):
        grade(f"{FILE}:nothing")


def test_an_undefined_cast_is_seen_with_far_offsets():
    report = grade(f"{FILE}:undefined_cast", dtypes=["float32"], seed=3, strict=True)
    assert report.verdict is Verdict.WRONG
    assert "offset 1e+30" in {f.case.note for f in report.findings if f.text}
