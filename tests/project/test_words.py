"""English is made in words/ alone: elsewhere a grade is records."""

import ast
import re
from pathlib import Path

import pytest

import refdcn

GRADING = Path(refdcn.__file__).parent / "grading"
ROOMS = ("*.py", "judging/*.py", "evidence/*.py", "words/*.py")
FILES = [p for room in ROOMS for p in sorted(GRADING.glob(room))]
SPEAKERS = [p for p in FILES if p.parent.name == "words"]
SILENT = [p for p in FILES if p not in SPEAKERS]
# Three words in a row are a phrase; names of facts and files are shorter.
PHRASE = re.compile(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}")
NAMES = {"slope at integers", "every second column", "in part read"}  # of choices
# What cuts, ranks or compares a text by its wording.
CUTS = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "split"}
ON_NAMES = {  # of functions, modules and files, or of documentation
    "grader.py": {"partition", "split"},  # grade's docstring
    "gaps.py": {"split", "startswith", "removeprefix"},  # lines that the owner writes
    "script.py": {"endswith"},
    "source.py": {"endswith", "split"},  # files and modules
    "declared.py": {"partition"},  # NAME=VALUE
    "finding.py": {"startswith"},  # grad_x and its like
}


def docstrings(tree):
    """The nodes of all docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            yield body[0].value


def raised(tree):
    """What is inside of a raise: errors about arguments are for their caller."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.Assert)):
            yield from ast.walk(node)


def phrases(source):
    """Line and text of every constant that holds a phrase."""
    tree = ast.parse(source)
    fine = {id(node) for node in (*docstrings(tree), *raised(tree))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            said = id(node) not in fine and node.value not in NAMES
            if said and PHRASE.search(node.value):
                yield node.lineno, node.value


def cuts(source):
    """Names of the methods that take a text apart."""
    tree = ast.parse(source)
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    found = {f.attr for f in calls if isinstance(f, ast.Attribute)}
    return found & CUTS


@pytest.mark.parametrize("path", SILENT, ids=lambda p: p.name)
def test_no_sentence_is_made_outside_of_words(path):
    assert list(phrases(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", SILENT, ids=lambda p: p.name)
def test_no_wording_decides_anything(path):
    source = path.read_text(encoding="utf-8")
    assert cuts(source) <= ON_NAMES.get(path.name, set())
    assert path.name == "gaps.py" or "re" not in imported(source)


def imported(source):
    """Top names of the modules that are imported."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


def test_a_sentence_and_a_cut_would_be_seen():
    made = (
        'def f(x):\n    """A sentence of many words."""\n    return f"{x} is not here"'
    )
    assert list(phrases(made)) == [(3, " is not here")]
    assert list(phrases(made.replace(" is not here", " is"))) == []
    assert list(phrases('raise ValueError("it is not like that")')) == []
    assert cuts('ok = text.removeprefix("it fails")') == {"removeprefix"}
    assert SPEAKERS and any(phrases(p.read_text(encoding="utf-8")) for p in SPEAKERS)
    said = [p for path in SPEAKERS for p in phrases(path.read_text(encoding="utf-8"))]
    assert len(said) > 20


def test_what_is_allowed_is_there():
    names = {p.name for p in SILENT}
    assert set(ON_NAMES) <= names
    for name, those in ON_NAMES.items():
        (path,) = (p for p in SILENT if p.name == name)
        assert cuts(path.read_text(encoding="utf-8")) == those


# Names of a diagnosis that are as long as a phrase: of columns, relations, regions.
DIAGNOSED = {
    *("is that of", "sign of mask", " in the gradients", "right up to"),
    *("the first of these shapes", "the smallest failing call"),  # notes of calls
    *("the only tap", "o in its group", "offset group of c", "c in its offset group"),
    *("stride beyond kernel", "kernel beyond image", "padding half the kernel"),
    *("an axis unpadded", "row between pixels", "column between pixels"),
    *("sample between pixels", "beyond multiple of ", "power of two"),
    *("before the first", "after the last", "mask of ones", "bias of zeros"),
    *("halves of the batch", "output channels reversed", "input channels reversed"),
    "groups as sparse weights",
}
OPS = {"gradient_probes.py": {"removeprefix"}} | {  # operators, and grad_x and its like
    name: {"startswith"} for name in ("hypotheses.py", "reduce_case.py", "rules.py")
}


@pytest.mark.parametrize(
    "path", sorted((GRADING / "diagnosis").glob("*.py")), ids=lambda p: p.name
)
def test_a_diagnosis_is_records(path):
    source = path.read_text(encoding="utf-8")
    assert {text for _, text in phrases(source)} <= DIAGNOSED
    assert cuts(source) == OPS.get(path.name, set())
    assert not {"re", "refdcn.grading.words"} & set(imported(source))
    assert "grading.words" not in source
