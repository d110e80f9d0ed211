"""Precisions, conventions and gaps, declared and not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from candidates import precisions

from refdcn.grading import Verdict, grade, grader
from refdcn.grading.catalogue.breaches import misbehaving
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.expected.case import Sizes, kept
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import hypotheses, standard
from refdcn.grading.judging import gaps, judge
from refdcn.grading.judging.declared import parse_conventions
from refdcn.grading.judging.distance import outside
from refdcn.grading.judging.gaps import DeclarationError
from refdcn.grading.judging.lower_precision import explained
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.outcome import Outcome
from refdcn.grading.questions.draw import draw_case, drawn
from refdcn.grading.words import findings as words

FILE = Path(__file__).parents[1] / "support" / "candidates" / "precisions.py"


def graded(name, *dtypes, **options):
    return grade(f"{FILE}:{name}", dtypes=dtypes or ["float32"], seed=2, **options)


@pytest.mark.parametrize(
    ("name", "dtype", "cause"),
    [
        ("half_positions", "float32", "positions are in float16"),
        ("tf32_weights", "float32", "weights are rounded to float16 or TF32"),
        ("single", "float64", "results are rounded to float32"),
        ("texture_positions", "float32", "fractions have 8 bits, as a texture unit's"),
    ],
)
def test_lower_precision_is_named(name, dtype, cause):
    report = graded(name, dtype)
    assert report.verdict is Verdict.IMPRECISE and report.exit_code == 1
    bad = [f for f in report.counted if f.verdict is Verdict.IMPRECISE]
    assert bad and all(words.cause(f).startswith(cause) for f in bad)


def test_lower_precision_is_none_the_less_beyond_2_24_pixels():
    """Where its positions are pixels off; an address that is rounded is wrong there."""
    report = graded("half_positions", level="full", only=["sizes"])
    assert report.verdict is Verdict.IMPRECISE
    bad = [f for f in report.counted if f.verdict is Verdict.IMPRECISE]
    assert any(f.case.part is not None for f in bad)


LOWER = {  # error over the usual bound at 37 terms, at least; what explains it
    "half_coordinates": (200, "positions are in float16"),
    "texture_positions": (100, "fractions have 8 bits"),
    "half_sums": (40, "sums are in float16"),
    "half_columns": (10, "columns are stored in float16"),
    "tf32_products": (10, "products are in TF32"),
    "bfloat16_weights": (100, "weights are rounded to bfloat16"),
}


def fits_within(f, roundoff):
    want = f.expected.under(roundoff).range(f.target)
    return (outside(f.got, want) <= want.bound).all()


@pytest.mark.parametrize("name", LOWER)
def test_lower_precision_stands_out_where_sums_are_short(name):
    least, cause = LOWER[name]
    rng, findings = np.random.default_rng(0), []
    runner, fp32 = InProcess(getattr(precisions, name)), standard("float32", "fp32")
    for C_in in (4, 1):
        sizes = Sizes(1, C_in, 4, 1, 1, 3, 3, 16, 20, padding=(1, 1))
        case = draw_case(rng, sizes, "float32", "random", "normal", mask=False)
        findings.append(judge.forward(Expected(case, fp32), runner.call(case)))
    want, got = findings[0].expected.y, findings[0].got
    assert (outside(got, want) / want.usual).max() > least
    causes = {words.named(h.cause): h for h in hypotheses("float32")}
    (fits,) = (h for name, h in causes.items() if name.startswith(cause))
    assert all(fits_within(f, fits.roundoff) for f in findings)
    assert {f.verdict for f in explained(findings)} == {Verdict.IMPRECISE}


def test_a_declared_precision_is_held_to_its_own_bound():
    assert graded("tf32_weights", precision="tf32").exit_code == 0
    assert graded("half_positions", precision="tf32").exit_code == 1
    assert graded("single", "float64", precision="fp32").exit_code == 0


@pytest.mark.torch
def test_half_precision_is_named_and_counts_only_where_declared():
    report = grade("torchvision", dtypes=["float16"], seed=2)
    assert report.exit_code == 0
    assert "Imprecise in float16, not counted: everything is in float16" in (
        report.sentence
    )
    # as declared beforehand: the same bounds
    report = replace(report, options=replace(report.options, precision="fp32"))
    assert report.verdict is Verdict.IMPRECISE and report.exit_code == 1


def test_border_rule(monkeypatch):
    monkeypatch.setattr(grader, "diagnose", lambda *_: Diagnosis())
    assert graded("inside_only").verdict is Verdict.WRONG
    report = graded("inside_only", conventions=["border=inside"])
    assert report.exit_code == 0 and "(forward only)" in report.sentence
    assert "--convention border=inside" in report.text()


def test_gaps():
    assert graded("no_groups").exit_code == 4
    report = graded("no_groups", gaps=["groups > 1"])
    assert report.exit_code == 0  # every call has been drawn again
    assert "Declared, and nothing asked there: groups > 1." in report.sentence
    gaps = ["groups > 1", "dtype == float64"]
    report = graded("no_groups", "float32", "float64", gaps=gaps)
    assert report.exit_code == 0
    assert "Declared gap: dtype == float64 (" in report.sentence
    assert "calls refused: NotImplementedError: one group of " in report.sentence
    assert graded("no_groups", "float64", gaps=["groups > 1"]).exit_code == 4


def test_declarations_are_checked(tmp_path):
    with pytest.raises(DeclarationError, match="border=corners"):
        parse_conventions(["border=none"])
    file = tmp_path / "gaps.txt"
    file.write_text("groups > 1  # weights are dense\n\ndtype == float64\n")
    assert gaps.read(str(file)) == ["groups > 1", "dtype == float64"]
    file.write_text("speed > 1\n")
    with pytest.raises(DeclarationError, match="none of N, C_in"):
        gaps.read(str(file))


def test_bfloat16_comes_back_as_bfloat16():
    rng = np.random.default_rng(0)
    case = draw_case(rng, drawn(rng), "bfloat16", "", "border")
    expected = Expected(case, standard("bfloat16"))
    y = kept(expected.y.low, "bfloat16")
    assert (case.numbers(case.raw(y)) == y).all()
    back = judge.forward(expected, Outcome("ok", results=[case.raw(y)]))
    assert back.verdict is Verdict.PASS and back.case.dtype == "bfloat16"
    wide = judge.forward(expected, Outcome("ok", results=[y]))
    assert words.said(wide) == "y is float32 for bfloat16 inputs"
    with pytest.raises(DeclarationError, match="array must be 'torch'"):
        grade("formula", dtypes=["bfloat16"])


def test_bits_may_vary_where_that_is_declared():
    assert graded("any_rounding").exit_code == 5
    report = graded("any_rounding", conventions=["bits=vary"])
    assert report.exit_code == 0
    assert "Declared convention: a repeat with the same inputs gave" in report.sentence
    unwritten = f"{misbehaving.__name__}:unwritten"
    options = {"dtypes": ["float32"], "seed": 2, "conventions": ["bits=vary"]}
    assert grade(unwritten, **options).exit_code != 0


@pytest.mark.parametrize(
    "gap",
    [
        "groups > many",
        "groups > 1 and nonsense > 2",
        "groups",
        "mask > 1",
        "dtype == int8",
        "groups => 1",
        "only",
        "C_in % = 1",
        "mask == 3",
    ],
)
def test_a_gap_that_says_nothing_is_refused_before_the_grade(tmp_path, gap):
    (tmp_path / "gaps").write_text(gap)
    with pytest.raises(DeclarationError):
        gaps.read(str(tmp_path / "gaps"))
