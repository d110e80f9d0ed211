"""Verdicts: right ones pass, wrong ones are caught, and the report says so."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import refdcn
from refdcn import formula
from refdcn.grading import CannotStartError, Verdict, grade, grader
from refdcn.grading.diagnosis import reduce_case
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.expected import bounds, oracle
from refdcn.grading.judging.verdicts import EXIT_CODES, worst
from refdcn.grading.words import findings as words


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [
        ("refdcn.formula:deform_conv2d", "float64"),
        ("refdcn:deform_conv2d", "float32"),
        ("refdcn:deform_conv2d", "float16"),
    ],
)
def test_ours_are_right(spec, dtype):
    report = grade(spec, dtypes=[dtype], seed=1)
    assert report.exit_code == 0
    assert {f.verdict for f in report.counted} == {Verdict.PASS}
    assert report.sentence.startswith(f"{spec} is right")


@pytest.mark.torch
def test_torchvision_is_right_and_its_crash_is_told():
    report = grade("torchvision", dtypes=["float32"], seed=1)
    assert report.exit_code == 0
    assert "is right" in report.sentence and "SIGSEGV" in report.sentence
    assert strictly(report).exit_code == 3


@pytest.mark.torch
def test_a_replaced_torchvision_kernel_is_refused(tmp_path):
    file = tmp_path / "replaced.py"
    file.write_text(REPLACED)
    with pytest.raises(CannotStartError, match="torchvision's own CPU kernel"):
        grade(f"{file}:torchvision")


REPLACED = """
import torch, torchvision
library = torch.library.Library("torchvision", "IMPL")
library.impl("deform_conv2d", lambda *a: a[0], "CPU", allow_override=True)
from refdcn.grading.process.inside.adapters.torchvision import own_kernel, torchvision
own_kernel()
"""


SWAPPED = "refdcn.demo.wrong:swapped"


@cache
def of_swapped():
    return grade(SWAPPED, dtypes=["float32"], seed=1)


def strictly(report):
    return replace(report, options=replace(report.options, strict=True))


def test_swapped_offsets_are_wrong():
    report = of_swapped()
    assert report.verdict is Verdict.WRONG and report.exit_code == 1
    assert report.sentence == (
        "refdcn.demo.wrong:swapped is wrong. Offsets are read as (x, y); the "
        "definition is (y, x). With that changed, every element is within the bound."
    )


def test_worst_is_by_order_and_not_by_code():
    assert worst([Verdict.INTEGRITY, Verdict.CRASH, Verdict.PASS]) is Verdict.CRASH
    assert worst([Verdict.UNSUPPORTED, Verdict.WRONG]) is Verdict.WRONG
    assert EXIT_CODES[Verdict.CRASH] == 3 and EXIT_CODES[Verdict.INTEGRITY] == 5
    assert worst([]) is Verdict.PASS


def nan_everywhere(x, offset, weight, mask, bias, **windows):
    return np.full_like(
        formula.deform_conv2d(x, offset, weight, mask, bias, **windows), np.nan
    )


def test_nan_is_no_wildcard():
    report = grade(nan_everywhere, dtypes=["float32"], seed=1)
    assert report.verdict is Verdict.WRONG
    drawn = [f for f in report.counted if f.case.group == "random"]
    assert {f.verdict for f in drawn} == {Verdict.WRONG}


def poisons_far(x, offset, weight, mask, bias, **windows):
    y = refdcn.deform_conv2d(x, offset, weight, mask, bias, **windows)
    return y + np.float32(np.abs(offset).max(initial=0) > 1e8)


def test_hostile_inputs_count_only_when_strict():
    report = grade(poisons_far, dtypes=["float32"], seed=1)
    assert report.exit_code == 0
    assert " 1e+30: y[" in report.sentence.replace("-1e", " 1e").partition("only)")[2]
    assert "without --strict" in report.sentence
    assert strictly(report).exit_code == 1


MISBEHAVING = "refdcn.grading.catalogue.breaches.misbehaving"
EXPLOITS = "refdcn.grading.catalogue.breaches.exploits"
GRADIENTS = Path(__file__).parents[1] / "support" / "candidates" / "gradients.py"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("negated", "grad_offset"),
        ("doubled_x", "grad_x"),
        ("mean_weight", "grad_weight"),
        ("no_mask", "grad_mask"),
        ("no_bias", "grad_bias"),
        ("four", "gradients"),
        ("always_mask", "grad_mask"),
    ],
)
def test_one_wrong_gradient_is_named(name, target):
    report = grade(f"{GRADIENTS}:{name}", dtypes=["float32"], seed=1)
    assert report.exit_code == 1
    wrong = {f.target for f in report.counted if f.verdict is Verdict.WRONG}
    assert wrong == {target}
    assert f"The gradient of {target[5:]} " in report.headline() or name in (
        "four",
        "always_mask",
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zero_at_minus_one", {"the slope at -1 is 0"}),
        (
            "left_handed",
            {"the slope at -1 is 0", "the slope at integers is left-hand"},
        ),
    ],
)
def test_other_slopes_are_conventions(name, said):
    report = grade(f"{GRADIENTS}:{name}", dtypes=["float32"], seed=1)
    assert report.verdict is Verdict.CONVENTION and report.exit_code == 0
    assert {words.said(f) for f in report.counted if f.kind == "slope"} == said


def run(*arguments):
    command = [sys.executable, "-m", "refdcn", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_command_writes_json_and_repeats(tmp_path):
    file = tmp_path / "report.json"
    options = "--dtype", "float32", "--seed", "1", "--json", str(file)
    done = run("grade", SWAPPED, *options)
    assert done.returncode == 1
    data = json.loads(file.read_text())
    assert data["verdict"] == "wrong" and data["exit_code"] == 1
    assert data["options"]["seed"] == 1
    assert data["sentence"] == done.stdout.splitlines()[0]
    # Of this process, which has graded others before.
    assert done.stdout == of_swapped().text() + "\n"


def test_usage_errors_exit_2():
    assert run("grade", "nonsense").returncode == 2
    assert run("grade", "no.such.module:f").returncode == 2
    assert run("grade").returncode == 2


def reproduced(report, file, right="", wrong=""):
    """Run the report's script; with `right` in place of `wrong` it must pass."""
    text = report.script
    file.write_text(text)
    command = [sys.executable, file]
    bad = subprocess.run(command, capture_output=True, text=True)
    if wrong:
        assert wrong in text
        file.write_text(text.replace(wrong, right))
        good = subprocess.run(command, capture_output=True, text=True)
        assert good.returncode == 0, good.stderr
    return bad


@pytest.mark.parametrize(
    "name, wrong, right",
    [
        (
            SWAPPED,
            "from refdcn.demo.wrong import swapped as f",
            "from refdcn.formula import deform_conv2d as f",
        ),
        (f"{GRADIENTS}:negated", "candidate.negated_grad", "candidate.right_grad"),
        (
            "refdcn.grading.catalogue.breaches.misbehaving:unchecked",
            "from refdcn.grading.catalogue.breaches.misbehaving import unchecked as f",
            "from refdcn.formula import deform_conv2d as f",
        ),
    ],
)
def test_the_smallest_failing_case_is_a_script(
    name, wrong, right, tmp_path, monkeypatch
):
    monkeypatch.setattr(grader, "diagnose", lambda *_: Diagnosis())
    report = grade(name, dtypes=["float32"], seed=1, smallest=True)
    bad = reproduced(report, tmp_path / "reproduce.py", right, wrong)
    assert bad.returncode == 1
    case = report.smallest.case
    if case.kind == "malformed":
        assert "accepts in silence" in bad.stderr
        return
    # One image, one channel, one or two taps, and as few pixels as show it.
    assert case.x.size <= 4 and case.weight.size <= 2 and case.offset.size <= 8
    assert case.mask is None and case.bias is None
    assert len(report.script) < 2600


def test_a_crash_is_a_script_too(tmp_path):
    report = grade(f"{MISBEHAVING}:segfault", dtypes=["float32"], seed=1, smallest=True)
    bad = reproduced(report, tmp_path / "reproduce.py")
    assert bad.returncode == -signal.SIGSEGV
    assert report.smallest.case.x.size == 1


def test_what_a_script_cannot_show_is_no_script(tmp_path):
    file = tmp_path / "none.py"
    spec = f"{MISBEHAVING}:prints"
    done = run("grade", spec, "--dtype", "float32", "--script", str(file))
    assert done.returncode == 5 and not file.exists()
    assert "no failure to show" in done.stderr


def test_declared_precision_and_memory_come_from_the_command_line():
    spec = f"{EXPLOITS}:swells"
    options = "--dtype", "float32", "--memory", "0.5", "--timeout", "100"
    done = run("grade", spec, *options)
    assert done.returncode == 3
    assert "out of memory, with 0.5 GiB allowed" in done.stdout


def test_a_second_candidate_needs_few_expectations_anew(monkeypatch):
    asked = []
    for module, name in (
        (oracle, "forward"), (oracle, "gradients"), (bounds, "forward"),
    ):  # fmt: skip
        call = getattr(module, name)

        def counted(*arguments, call=call):
            asked.append(call)
            return call(*arguments)

        monkeypatch.setattr(module, name, counted)
    options = {"dtypes": ["float32"], "seed": 77}
    grade("refdcn.formula:deform_conv2d", **options)
    first = len(asked)
    assert grade("loops", **options).exit_code == 0
    assert (len(asked) - first) * 4 <= first


def test_a_closure_is_graded_in_a_fork():
    calls = []

    def closure(*arguments, **windows):
        calls.append(1)
        if arguments[0].shape[0] == 65:
            os._exit(3)
        return formula.deform_conv2d(*arguments, **windows)

    report = grade(closure, dtypes=["float32"], seed=1)
    assert report.verdict is Verdict.CRASH and calls == []
    assert "in a fork of the calling process" in report.sentence
    assert {f.verdict for f in report.counted} == {Verdict.CRASH, Verdict.PASS}


ON_TORCH = Path(__file__).parents[1] / "support" / "candidates" / "on_torch.py"


@pytest.mark.torch
def test_a_candidate_on_torch_tensors_is_graded_with_autograd(tmp_path, monkeypatch):
    monkeypatch.setattr(reduce_case, "SECONDS", 1.0)
    options = {"dtypes": ["float32"], "seed": 1, "array": "torch"}
    assert "forward and gradients" in grade(f"{ON_TORCH}:right", **options).sentence
    report = grade(f"{ON_TORCH}:doubled", smallest=True, **options)
    assert report.exit_code == 1
    file = tmp_path / "reproduce.py"
    bad = reproduced(report, file, "candidate.right", "candidate.doubled")
    assert bad.returncode == 1 and "values are outside" in bad.stderr
    assert "The gradient of weight is doubled" in report.sentence
