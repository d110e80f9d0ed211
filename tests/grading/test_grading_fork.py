"""Functions that no other process can import, and which companion they have."""

import json
from pathlib import Path

import pytest

from refdcn import formula
from refdcn.grading import Verdict, asking, examples, grade, grader
from refdcn.grading.catalogue.breaches import misbehaving_gradients
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.judging.declared import DeclarationError
from refdcn.grading.process.inside.candidates import own

ONE = {"dtypes": ["float32"], "seed": 1}
FORK = "(in a fork of the calling process)"


@pytest.fixture
def few(monkeypatch):
    """A handful of cases and no sweep: this file is about who is called."""
    whole = grader.prepare
    monkeypatch.setattr(grader, "prepare", lambda *a: whole(*a)[:4] + whole(*a)[20:24])
    monkeypatch.setattr(asking.sweeps, "chosen", lambda _: None)
    monkeypatch.setattr(grader, "diagnose", lambda *_: Diagnosis())


def closures(factor=1):
    """The operator and its gradients, made anew."""

    def forward(*inputs, **windows):
        return formula.deform_conv2d(*inputs, **windows)

    def grad(*inputs, **windows):
        found = formula.deform_conv2d_grad(*inputs, **windows)
        return [None if g is None else factor * g for g in found]

    return forward, grad


def test_a_closure_alone_is_graded_forward_only(few):
    report = grade(closures()[0], **ONE)
    assert report.exit_code == 0 and not report.has_grad
    assert FORK in report.sentence and "(forward only)" in report.sentence
    assert json.loads(report.json())["graded"] == "forward only"


def test_a_closure_is_graded_with_the_companion_it_is_given(few):
    forward, grad = closures()
    report = grade(forward, grad=grad, **ONE)
    assert report.exit_code == 0 and FORK in report.sentence
    assert "(forward and gradients)" in report.sentence
    forward, grad = closures(factor=2)
    report = grade(forward, grad=grad, **ONE)
    assert report.exit_code == 1
    wrong = {f.target for f in report.counted if f.verdict is Verdict.WRONG}
    assert wrong == {f"grad_{n}" for n in ("x", "offset", "weight", "mask", "bias")}


def test_a_function_of_a_module_has_the_companion_beside_it(few):
    report = grade(formula.deform_conv2d, **ONE)
    assert report.candidate == "refdcn.formula:deform_conv2d" and report.has_grad
    same = grade(formula.deform_conv2d, grad=formula.deform_conv2d_grad, **ONE)
    assert same.candidate == report.candidate and same.has_grad
    assert not grade(examples.swapped, **ONE).has_grad


def test_another_companion_than_the_one_beside_it_is_called_in_a_fork(few):
    wrong = misbehaving_gradients.three_grad
    report = grade(formula.deform_conv2d, grad=wrong, **ONE)
    assert FORK in report.sentence
    assert "the gradient companion: it returned 3 gradients" in report.headline()


def test_arguments_that_exclude_each_other_are_refused():
    grad = formula.deform_conv2d_grad
    with pytest.raises(DeclarationError, match="candidate is the name 'formula'"):
        grade("formula", grad=grad)
    with pytest.raises(DeclarationError, match="array is 'torch'"):
        grade(closures()[0], grad=grad, array="torch")


@pytest.mark.torch
def test_a_closure_on_torch_tensors_has_autograds_gradients(few):
    from torchvision.ops import deform_conv2d

    def closure(x, offset, weight, mask, bias, **windows):
        return deform_conv2d(x, offset, weight, bias, mask=mask, **windows)

    report = grade(closure, array="torch", **ONE)
    assert report.exit_code == 0 and report.has_grad and FORK in report.sentence


def test_ours_may_load_refdcn(few):
    assert "It loads" not in grade("loops", **ONE).sentence
    here = Path(__file__).parents[1] / "support" / "candidates" / "borrowed.py"
    assert "It loads refdcn" in grade(f"{here}:imported", **ONE).sentence


@pytest.mark.parametrize(
    ("spec", "package", "known"),
    [
        ("loops", "refdcn", True),
        ("loops", "torchvision", False),
        ("torchvision", "torchvision", True),
        ("torchvision", "refdcn", False),
        ("refdcn.formula:deform_conv2d", "refdcn", True),
        ("refdcn_copy.formula:deform_conv2d", "refdcn", False),
        ("kernels/mine.py:f", "mmcv", False),
    ],
)
def test_only_what_a_spec_does_not_name_is_told(spec, package, known):
    assert own(spec, package) is known
