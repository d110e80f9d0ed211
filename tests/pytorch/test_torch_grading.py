"""bfloat16: graded on torch tensors, for NumPy has none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refdcn.grading import Verdict, grade
from refdcn.grading.expected.case import kept

FILE = Path(__file__).parents[1] / "support" / "candidates" / "bfloat16.py"
pytestmark = pytest.mark.torch


def graded(name, **options):
    return grade(
        f"{FILE}:{name}", dtypes=["bfloat16"], array="torch", seed=2, **options
    )


def test_rounding_is_torchs():
    import torch

    rng = np.random.default_rng(0)
    a = np.float32(2.0) ** rng.integers(-60, 60, 4000) * rng.standard_normal(4000)
    a = np.append(a.astype(np.float32), np.float32([1.00390625, 1.01171875, 0, np.inf]))
    assert (kept(a, "bfloat16") == torch.tensor(a).bfloat16().float().numpy()).all()


def test_a_right_one_passes():
    report = graded("right", precision="fp32")
    assert report.verdict is Verdict.PASS and "forward and gradients" in report.sentence
    assert {f.case.dtype for f in report.findings} == {"bfloat16"}


def test_positions_in_bfloat16_are_named():
    report = graded("coarse_positions")
    assert report.exit_code == 0
    said = "Imprecise in bfloat16, not counted: positions are in bfloat16."
    assert said in report.sentence
    # as declared beforehand: the same bounds
    report = replace(report, options=replace(report.options, precision="fp32"))
    assert report.exit_code == 1
    y = [f for f in report.findings if f.target == "y" and f.got is not None]
    assert y and {f.verdict for f in y} <= {Verdict.IMPRECISE, Verdict.CONVENTION}


@pytest.mark.parametrize("name", ["swapped", "swapped_in_bfloat16_alone"])
def test_a_wrong_one_is_named_in_bfloat16(name):
    report = graded(name)
    assert report.exit_code == 1
    said = "Offsets are read as (x, y); the definition is (y, x)."
    assert said in report.sentence, report.sentence
    assert {f.case.dtype for f in report.findings} == {"bfloat16"}
    probed = "the probes are in float32" in report.text()
    assert probed == (name == "swapped")  # where it takes float32
