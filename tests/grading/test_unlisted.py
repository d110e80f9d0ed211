"""A sample of the unlisted mistakes: each is caught, and the right kernel passes."""

import sys
from pathlib import Path

import pytest
import unlisted_mistakes
from unlisted_mistakes import KERNEL, MISTAKES, caught, examine, pairs, seeded

from refdcn.grading import grade, grader
from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.questions import sweeps
from refdcn.grading.words.report import uncounted

# One seed and dtype, so that what is expected is computed once; the command in
# unlisted_mistakes.py runs them all and reads the diagnosis.
HOW = {"seed": 4, "dtypes": ["float32"]}
SAMPLE = "grid_capped", "scatter_inside_only", "buffer_reused"


@pytest.fixture(autouse=True)
def verdict_alone(monkeypatch):
    """The diagnosis takes most of the time, and what it says is not asked here."""
    monkeypatch.setattr(grader, "diagnose", lambda *_: Diagnosis())


def test_each_finds_its_place_and_changes_the_kernel():
    right = KERNEL.read_text(encoding="utf-8")
    for m in MISTAKES.values():
        text = seeded(m)
        assert text is not None and text != right, m.name
        compile(text, m.name, "exec")
    assert len(pairs()) == 20


def test_none_is_in_the_catalogue_and_no_diagnosis_imports_them():
    assert not {m.name for m in CATALOGUE} & set(MISTAKES)
    package = Path(sys.modules["refdcn"].__file__).parent
    for path in package.rglob("*.py"):
        assert "unlisted" not in path.read_text(encoding="utf-8"), path


def test_the_right_kernel_passes():
    report = grade(f"{KERNEL}:f", **HOW)
    assert report.exit_code == 0, report.text()
    assert not list(uncounted(report))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mistake_is_caught(name, tmp_path):
    report = examine([MISTAKES[name]], tmp_path, **HOW)
    assert caught(report), report.text()


# What no drawn case meets: a large image, a wide range, a far column, a long sum,
# other numbers with the same sum, another forward call before the gradients.
REACHED = {
    "int16_pixels": "an image of 70,200 pixels",
    "half_range": "pixels times 2^18",
    "half_base": "positions up to 4200",
    "long_sums_short": "300 channels",
    "weight_by_checksum": "the same numbers in reverse order",
    "columns_of_last_call": "sizes as they are",
}


def in_process(name):
    """The kernel with one mistake, in this process."""
    held = {}
    exec(compile(seeded(MISTAKES[name]), name, "exec"), held)
    return InProcess(held["f"], held["f_grad"])


@pytest.mark.parametrize("name", REACHED)
def test_a_sweep_reaches_it(name):
    runner = in_process(name)
    notes = {"sizes as they are", *REACHED.values()}
    swept = [s for s in sweeps.prepare(4, "float32", "smoke") if s.case.note in notes]
    assert len(swept) == len(notes)
    found = [f for s in swept for f in sweeps.check(runner, s, standard("float32"))]
    bad = {f.case.note for f in found if f.verdict < Verdict.CONVENTION}
    assert REACHED[name] in bad


def test_the_command_counts(monkeypatch, capsys):
    command = "unlisted_mistakes.py buffer_reused --dtype float32 --seed 4"
    monkeypatch.setattr(sys, "argv", command.split())
    unlisted_mistakes.main()
    said = capsys.readouterr().out
    assert "== named: of 1 1 caught, 1 located, 1 described" in said
