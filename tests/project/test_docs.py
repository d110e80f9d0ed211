"""Every example is run, and what the README and the pictures show is what happens."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import refdcn
from refdcn import formula, plot

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
MODULES = ["refdcn"] + [
    module.name for module in pkgutil.walk_packages(refdcn.__path__, "refdcn.")
]


def fenced(page, language):
    """The blocks of a page in that language."""
    pattern = rf"^```{language}$\n(.*?)^```$"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.M | re.S)


def run_examples(examples):
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.tries
    assert not runner.failures


def marked(name, needs_torch):
    return pytest.param(name, marks=pytest.mark.torch if needs_torch else [])


@pytest.mark.parametrize(
    "name",
    [
        marked(page.relative_to(ROOT).as_posix(), "import torch" in text)
        for page in PAGES
        if (text := "".join(fenced(page, "pycon")))
    ],
)
def test_examples_of_the_pages(name):
    """The blocks of a page are one session."""
    text = "\n".join(fenced(ROOT / name, "pycon"))
    run_examples([doctest.DocTestParser().get_doctest(text, {}, name, name, 0)])


@pytest.mark.parametrize(
    "name",
    [
        marked(name, re.search(r"^\s*(import|from) (torch|refdcn\.torch)", text, re.M))
        for name in MODULES
        if ">>>" in (text := Path(find_spec(name).origin).read_text(encoding="utf-8"))
    ],
)
def test_examples_of_the_code(name):
    module = importlib.import_module(name)
    examples = doctest.DocTestFinder(exclude_empty=True).find(module, name)
    run_examples(example for example in examples if example.examples)


def steady(text):
    """Without what differs between runs and machines: times and last digits."""
    text = re.sub(r"\b\d+(\.\d+)? (m?s|seconds?)\b", "(time)", text)
    text = re.sub(r"\d+(\.\d+)? of the bound", "(ratio) of the bound", text)
    return re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.3f}", text)


def test_readme_shows_what_the_demo_prints():
    """Where the README says `...` the demo says more."""
    (shown,) = fenced(ROOT / "README.md", "console")
    prompt, _, shown = shown.partition("\n")
    assert prompt == "$ refdcn demo"
    command = [sys.executable, "-m", *prompt.split()[1:]]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    check = doctest.OutputChecker().check_output
    assert check(steady(shown), steady(run.stdout), flags), run.stdout
    assert not check(steady(shown), steady(run.stdout.replace("wrong", "pass")), flags)


def test_readme_fits_a_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_readme_states_the_formula():
    (shown,) = fenced(ROOT / "README.md", "text")
    equations = formula.__doc__.splitlines()[2:5]
    assert [line.split() for line in shown.splitlines()] == [
        re.sub(r"\(\d\)$", "", line).split() for line in equations
    ]


def test_cited_equations_exist():
    numbered = set(re.findall(r" \((\d)\)$", formula.__doc__, re.M))
    cited = re.compile(r"Eqs?\. ((?:(?:, | and | to )?\(\d+\))+)")
    found = [
        (path.name, number)
        for path in [*(ROOT / "refdcn").glob("**/*.py"), *PAGES]
        for numbers in cited.findall(path.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", numbers)
    ]
    assert len(found) > 20
    assert [cite for cite in found if cite[1] not in numbered] == []


def test_the_definition_is_short_enough_to_quote():
    lines = (ROOT / "refdcn" / "formula.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert max(map(len, lines)) <= 72


def test_the_architecture_names_files_that_exist():
    """Paths as the page writes them; the picture's boxes are among the parts."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:refdcn|tests|docs)/[\w/.]+)`", page))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    boxes = re.findall(r'class="n"[^>]*>([\w./]+)<', picture)
    homes = ROOT / "refdcn", ROOT / "refdcn" / "grading"
    assert len(boxes) > 15
    assert [b for b in boxes if not any((home / b).exists() for home in homes)] == []


@pytest.mark.parametrize("offset_group", [0, 1])
def test_picture_numbers_the_channels_that_move_the_taps(offset_group):
    """A channel's offset of 1 moves its tap, and no other, down or to the right."""
    pytest.importorskip("matplotlib")
    (axes,) = plot.taps(2, 3, offset_group).axes
    texts = [t for t in axes.texts if t.get_text().isdigit()]
    drawn = {int(t.get_text()): t for t in texts}
    assert len(drawn) == len(texts) == 12
    # 16 r + s, so that a step down adds 16 and one to the right 1.
    x = np.broadcast_to(16.0 * np.arange(4)[:, None] + np.arange(5), (1, 2, 4, 5))
    for channel, (i, j) in product(drawn, product(range(2), range(3))):
        offset = np.zeros((1, 24, 1, 1))
        offset[0, channel] = 1
        weight = np.zeros((1, 2, 2, 3))
        weight[0, offset_group, i, j] = 1
        step = formula.deform_conv2d(x, offset, weight).item() - (16 * i + j)
        at_j, at_i = drawn[channel].get_position()
        here = (i, j) == (round(at_i - 0.2), round(at_j - 0.2))
        below = abs(at_j - j) < abs(at_i - i)
        assert step == (0 if not here else 16 if below else 1)
