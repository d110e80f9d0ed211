"""Who may import whom: the arrows between refdcn's modules run one way.

Imports are read from the source, those inside functions too. `import refdcn` alone is
no arrow: the package imports nothing until one of its functions is used.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import refdcn

PACKAGE = Path(refdcn.__file__).parent

# part: the parts of refdcn it may import. A subpackage is one part.
ARROWS = {
    "formula": set(),
    "loops": {"jit"},
    "shapes": set(),
    "jit": set(),
    "scratch": set(),
    "threads": {"scratch"},
    "cpu": {"loops", "shapes", "jit", "scratch", "threads"},
    "cuda": {"loops", "shapes", "jit"},
    "torch": {"cpu", "cuda", "shapes", "threads"},
    "ops": {"cpu", "cuda", "torch", "shapes"},
    "grading": {"formula", "loops", "shapes"},
    "plot": {"formula", "shapes"},
    "demo": {"torch", "plot"},
    "bench": {
        "formula",
        "loops",
        "shapes",
        "threads",
        "cpu",
        "cuda",
        "ops",
        "torch",
        "plot",
    },  # fmt: skip
    "cli": {"grading", "demo", "bench"},
    "__main__": {"cli"},
    "__init__": {"ops", "grading", "threads"},
}

# Files of the grader that run in the candidate's process alone.
CANDIDATES_SIDE = {"examples.py"}


def part(path):
    """formula for refdcn/formula.py, grading for refdcn/grading/bounds.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Dotted names that a file imports, relative ones resolved."""
    package = ("refdcn", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # From the package itself, each name says which part is meant.
            if module == "refdcn":
                yield from (f"refdcn.{alias.name}" for alias in node.names)
            else:
                yield module


def edges():
    """(file, part, imported part) of every import between parts."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in imported(path):
            top, _, rest = name.partition(".")
            to = rest.partition(".")[0]
            if top == "refdcn" and to and to != part(path):
                yield path.relative_to(PACKAGE.parent).as_posix(), part(path), to


def reachable(start):
    graph = {}
    for _, source, to in edges():
        graph.setdefault(source, set()).add(to)
    found, todo = set(), [start]
    while todo:
        for to in graph.get(todo.pop(), set()) - found:
            found.add(to)
            todo.append(to)
    return found


def test_every_part_has_its_arrows():
    assert {part(path) for path in PACKAGE.rglob("*.py")} <= set(ARROWS)


def test_arrows_run_one_way():
    wrong = [f"{file} imports {to}" for file, a, to in edges() if to not in ARROWS[a]]
    assert not wrong


def test_formula_imports_numpy_only():
    assert set(imported(PACKAGE / "formula.py")) == {"numpy"}


def test_the_oracle_never_imports_the_kernels_it_judges():
    assert not reachable("grading") & {"cpu", "cuda", "ops", "torch"}
    package = (PACKAGE / "grading").rglob("*.py")
    using = {path.name for path in package if "refdcn" in set(imported(path))}
    assert using <= CANDIDATES_SIDE


@pytest.mark.parametrize(
    "module, never",
    [
        ("refdcn", "numba scipy torch matplotlib refdcn.ops refdcn.grading"),
        ("refdcn.formula", "numba scipy torch matplotlib refdcn.ops refdcn.grading"),
        ("refdcn.shapes", "numpy"),
        ("refdcn.cli", "numpy numba torch matplotlib refdcn.ops refdcn.grading"),
        ("refdcn.grading", "torch matplotlib refdcn.ops refdcn.cpu refdcn.torch"),
    ],
)
def test_imports_lightly(module, never):
    code = f"import sys, {module}; print(*set({never.split()}) & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, [], "")
