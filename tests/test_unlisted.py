"""A sample of the unlisted mistakes: each is caught, and the right kernel passes."""

import subprocess
import sys
from pathlib import Path

import pytest
import unlisted_mistakes
from unlisted_mistakes import KERNEL, MISTAKES, caught, examine, pairs, seeded, words

from refdcn.grading import grade
from refdcn.grading.mistakes import CATALOGUE

TWO = "offset_grad_clipped", "last_row_one_tile_late"
# A few of each kind; the command in unlisted_mistakes.py runs them all.
SAMPLE = {
    ("chunk_offsets_by_one",): "n >= 2",
    ("mask_group_last",): r"0, 2, 4, 6, 8, 10, 1, 3",
    ("scatter_inside_only",): "",
    ("buffer_reused",): "shares memory with an earlier one",
    ("float32_for_half",): "float32 for float16",
    TWO: "",
}


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
    report = grade(f"{KERNEL}:f", seed=4, dtypes=["float32", "float16"])
    assert report.exit_code == 0, report.text()
    assert not list(report.uncounted_causes())


@pytest.mark.parametrize("names", SAMPLE, ids="+".join)
def test_a_mistake_is_caught(names, tmp_path):
    dtype = "float16" if names == ("float32_for_half",) else "float32"
    report = examine([MISTAKES[n] for n in names], tmp_path, seed=4, dtypes=[dtype])
    assert caught(report), words(report)
    assert SAMPLE[names] in words(report)


def test_the_command_counts():
    options = "zeros_for_none", "--dtype", "float32"
    run = [sys.executable, unlisted_mistakes.__file__, *options]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "== named: of 1 1 caught, 1 located, 1 described" in done.stdout
