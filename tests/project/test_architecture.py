"""Who may import whom: the arrows between refdcn's files run one way.

Imports are read from the source, those inside functions too, and import_module of a
name that is written there. `import refdcn` is an arrow to refdcn/__init__.py, whose own
arrows are what it loads when asked. The checks take a package, so that each is shown to
fail on a small wrong one.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import refdcn

# place: the places it may import. A place is a file or a folder, as grading/expected;
# a file is of the narrowest place that holds it.
ARROWS = {
    "formula": set(),
    "loops": {"jit"},
    "columns": {"loops", "shapes", "jit"},
    "shapes": set(),
    "layouts": set(),
    "jit": set(),
    "scratch": set(),
    "machine": set(),
    "threads": {"scratch"},
    "cpu": {"loops", "shapes", "jit", "scratch", "threads"},
    "cuda": {"loops", "shapes", "jit"},
    "torch": {"cpu", "cuda", "shapes", "threads"},
    "ops": {"cpu", "cuda", "torch", "shapes"},
    # The grader's rooms, in the order in which a grade goes through them.
    "grading/expected": {"formula"},  # the definition alone says what must come
    "grading/process/inside": set(),  # a candidate's process loads nothing else
    "grading/process": {"grading/process/inside", "grading/expected"},
    "grading/judging": {"formula", "grading/expected", "grading/process"},
    "grading/questions": {"grading/expected", "grading/judging", "grading/process"},
    "grading/catalogue": {"grading/expected", "grading/judging"},
    "grading/catalogue/breaches": {"formula", "grading/expected"},
    "grading/diagnosis": {
        *("grading/expected", "grading/process", "grading/judging"),
        *("grading/questions", "grading/catalogue"),
    },
    "grading/options": {
        *("grading/judging", "grading/process", "grading/process/inside"),
        "grading/questions",
    },
    "grading/evidence": {
        *("grading/expected", "grading/judging", "grading/questions"),
        "grading/diagnosis",
    },
    "grading/record": {
        *("grading/judging", "grading/questions", "grading/diagnosis"),
        *("grading/evidence", "grading/options"),
    },
    "grading/words": {
        "layouts",
        *("grading/expected", "grading/process/inside", "grading/judging"),
        *("grading/questions", "grading/catalogue", "grading/diagnosis"),
        *("grading/evidence", "grading/options", "grading/record"),
    },
    # Reports shown: of what their JSON holds, and of nothing else.
    "grading/showing": {"grading/judging"},
    "grading": {
        *("grading/expected", "grading/process", "grading/process/inside"),
        *("grading/judging", "grading/questions", "grading/diagnosis"),
        *("grading/evidence", "grading/options", "grading/record"),
        *("grading/words", "machine"),
    },
    "grading/selftest": {
        *("grading", "grading/expected", "grading/process", "grading/process/inside"),
        *("grading/judging", "grading/questions", "grading/diagnosis"),
        *("grading/catalogue", "grading/options", "grading/record", "grading/words"),
    },
    "grading/own_operators": {"loops", "shapes"},
    # What is made of a grade: files for other languages, verdicts on many.
    "vectors": {"grading/expected", "grading/judging", "grading/catalogue"},
    "gate": {
        *("grading", "grading/options", "grading/record", "grading/judging"),
        *("grading/expected", "grading/questions", "grading/process/inside"),
    },
    "plot": {"formula", "shapes", "torch"},
    "demo": {"torch", "plot", "grading"},
    "card": {"bench", "cuda", "loops", "shapes"},
    "bench": {
        *("jit", "scratch"),  # of the loops alone of which a call is made
        "formula",
        "loops",
        "machine",
        "shapes",
        "threads",
        "cpu",
        "cuda",
        "ops",
        "torch",
    },  # fmt: skip
    "cli": {
        *("grading", "grading/selftest", "grading/options", "grading/judging"),
        *("grading/process", "grading/process/inside", "grading/words"),
        *("grading/showing", "demo", "bench", "card", "gate", "vectors"),
    },
    "testing": {"grading"},
    "pytest_plugin": {
        *("cli", "grading", "grading/record", "grading/judging"),
    },  # fmt: skip
    "__main__": {"cli"},
    "__init__": {
        "columns",
        "cuda",
        "formula",
        "gate",
        "grading",
        "layouts",
        "loops",
        "ops",
        "plot",
        "threads",
        "torch",
    },  # fmt: skip
}


class Package:
    """The files of a package, and which of them each imports."""

    def __init__(self, home):
        self.home, self.name = home, home.name
        self.files = {self.dotted(path): path for path in sorted(home.rglob("*.py"))}
        self.arrows = {
            self.file(path): sorted(
                {self.file(self.files[n]) for n in self.targets(path)}
                - {self.file(path)}
            )
            for path in self.files.values()
        }

    def file(self, path):
        """grading/expected/bounds.py"""
        return path.relative_to(self.home).as_posix()

    def dotted(self, path):
        parts = path.relative_to(self.home.parent).with_suffix("").parts
        return ".".join(parts).removesuffix(".__init__")

    def imported(self, path):
        """Dotted names that a file imports, relative ones resolved."""
        package = self.dotted(path)
        if path.name != "__init__.py":
            package = package.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package.split(".")[: 1 - node.level or None]
                parts = [*base] * (node.level > 0) + [node.module or ""]
                module = ".".join(filter(None, parts))
                yield from (f"{module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called == "import_module" and isinstance(node.args[0], ast.Constant):
                    yield node.args[0].value

    def targets(self, path):
        """Those of its imports that are files of this package."""
        for name in self.imported(path):
            while name and name not in self.files:  # a name of a module: the module
                name = name.rpartition(".")[0]
            if name:
                yield name

    def reachable(self, start):
        """All files that the file `start` can load, itself included."""
        found, todo = {start}, [start]
        while todo:
            for to in self.arrows[todo.pop()]:
                if to not in found:
                    found.add(to)
                    todo.append(to)
        return found

    def circle(self):
        """Files that import one another in a ring, or none."""
        done = set()

        def search(file, way):
            if file in way:
                return [*way[way.index(file) :], file]
            if file not in done:
                for to in self.arrows[file]:
                    if found := search(to, [*way, file]):
                        return found
                done.add(file)
            return []

        for file in self.arrows:
            if found := search(file, []):
                return found
        return []

    def place(self, file, places):
        """The narrowest of the places that hold a file."""
        inside = [
            p for p in places if f"{file.removesuffix('.py')}/".startswith(p + "/")
        ]
        return max(inside, key=len, default=None)

    def wrong(self, allowed):
        """Imports that the table does not allow, and files that it does not know."""
        for file, targets in self.arrows.items():
            here = self.place(file, allowed)
            if here is None:
                yield f"{file} has no place"
                continue
            for to in targets:
                there = self.place(to, allowed)
                ours = there in (here, "__init__")  # the package's own lazy names
                if there is not None and not ours and there not in allowed[here]:
                    yield f"{file} imports {to}"


PACKAGE = Package(Path(refdcn.__file__).parent)


def written(folder, files):
    """A package `made` of these files, without their .py."""
    for name, text in {"__init__": "", **files}.items():
        path = folder / "made" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Package(folder / "made")


def test_arrows_run_one_way():
    assert list(PACKAGE.wrong(ARROWS)) == []


def test_no_circle_anywhere():
    assert PACKAGE.circle() == []


def test_formula_imports_numpy_only():
    assert set(PACKAGE.imported(PACKAGE.home / "formula.py")) == {"numpy"}


def test_the_oracle_never_imports_the_kernels_it_judges():
    for file in PACKAGE.arrows:
        if file.startswith("grading/"):
            loaded = PACKAGE.reachable(file)
            kernels = {
                f for f in loaded if f.startswith(("cpu", "cuda", "torch", "ops"))
            }
            assert not kernels, f"{file} loads {kernels}"


def test_what_is_loaded_when_asked_for_is_what_the_types_say():
    lazily = set(refdcn._MODULES) | {f"{m}.{n}" for n, m in refdcn._HOME.items()}
    told = {
        name.removeprefix("refdcn.")
        for name in PACKAGE.imported(PACKAGE.home / "__init__.py")
        if name.startswith("refdcn.")
    }
    assert {name.removeprefix("refdcn.") for name in lazily} == told


@pytest.mark.parametrize(
    "files",
    [
        {"a": "from made import b", "b": "import made.a"},
        {"a": "def f():\n    from made.b import c", "b": "from made.c import f",
         "c": "from importlib import import_module\nimport_module('made.a')"},
        {"a": "from .r import b", "r/__init__": "", "r/b": "from .. import a"},
        {"__init__": "from made.a import f", "a": "import made"},
    ],
)  # fmt: skip
def test_a_circle_is_found(tmp_path, files):
    found = written(tmp_path, files).circle()
    assert found[0] == found[-1]
    assert set(found) == {f"{name}.py" for name in files if name != "r/__init__"}


def test_what_is_no_circle_is_none(tmp_path):
    files = {"a": "from made import b, c", "b": "from made import c", "c": "import a"}
    assert written(tmp_path, files).circle() == []


def test_a_wrong_import_is_found(tmp_path):
    files = {
        "a": "from made.room.inner import x",
        "b": "from made import a",
        "room/own": "from made.room.inner import x",
        "room/inner/x": "from made import a",
    }
    package = written(tmp_path, files)
    allowed = {"__init__": set(), "a": set(), "room": {"room/inner"}}
    allowed["room/inner"] = set()
    assert list(package.wrong(allowed)) == [
        "a.py imports room/inner/x.py",
        "b.py has no place",
        "room/inner/x.py imports a.py",
    ]


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


def test_modules_are_attributes_when_asked_for():
    code = """
import sys, refdcn
assert not [name for name in sys.modules if name.startswith("refdcn.")]
for name in ("formula", "layouts", "loops", "columns", "plot", "cuda"):
    assert getattr(refdcn, name) is sys.modules[f"refdcn.{name}"], name
assert refdcn.formula.tent and "torch" not in sys.modules
assert not hasattr(refdcn, "nothing")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
