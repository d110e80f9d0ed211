"""What a candidate's process is: a fork or a fresh one, another Python, none at all."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import refdcn
import refdcn.layouts
from refdcn.cli import main
from refdcn.grading import CannotStartError, grade, grader
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.expected.case import Sizes
from refdcn.grading.judging.gaps import DeclarationError
from refdcn.grading.process import arena, interpreter, system
from refdcn.grading.process.forked import Forked
from refdcn.grading.process.inside.routes import How
from refdcn.grading.process.isolation import Process
from refdcn.grading.questions.draw import draw_case

import told

CANDIDATES = Path(__file__).parents[1] / "support" / "candidates"
THREADED = CANDIDATES / "threaded.py"
PLAIN = CANDIDATES / "plain.py"
INSIDE = Path(refdcn.__file__).parent / "grading" / "process" / "inside"


SOME = {"dtypes": ["float32"], "seed": 3, "only": ["exact", "random"]}


def case(N=1, dtype="float32"):
    sizes = Sizes(N, 2, 2, 1, 1, 2, 2, 3, 3)
    return draw_case(np.random.default_rng(N), sizes, dtype, "")


@pytest.fixture
def started():
    """Starts processes, and ends them."""
    found = []

    def start(spec, **options):
        found.append(Process(spec, timeout=20, **options))
        return found[-1]

    yield start
    for one in found:
        one.close()


# Threads -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("dies", "crash", "killed by SIGSEGV"),
        ("hangs", "timeout", "no answer in 2 s"),
        ("closes", "crash", "it closed the grader's channel"),
    ],
)
def test_a_candidate_with_threads_is_loaded_anew_each_session(
    started, name, status, text
):
    runner = started(f"{THREADED}:{name}")
    runner.timeout = 2
    assert runner.threads == 1 and runner.fresh_sessions
    first = runner.session
    assert first == runner.process.pid
    assert runner.call(case()).status == "ok" and runner.session == first
    bad = runner.call(case(33))
    assert (bad.status, bad.text) == (status, text)
    assert runner.call(case()).status == "ok" and runner.session not in (0, first)


def test_a_candidate_without_threads_is_forked(started):
    runner = started("refdcn.formula:deform_conv2d")
    assert runner.threads == 0 and not runner.fresh_sessions
    assert runner.session != runner.process.pid


def test_a_candidate_with_threads_is_graded_as_any_other(monkeypatch):
    monkeypatch.setattr(grader, "diagnose", lambda *_: Diagnosis())
    report = grade(f"{THREADED}:right", **SOME, timeout=10)
    assert report.exit_code == 0 and report.run.left_out == 0
    text = "Its import leaves a thread running, so each session loads it anew."
    assert text in report.sentence and json.loads(report.json())["threads"] == 1


@pytest.mark.torch
def test_torch_that_was_warm_at_import_answers(started):
    runner = started(f"{CANDIDATES / 'torch_warm.py'}:deform_conv")
    assert runner.fresh_sessions
    assert [runner.call(case()).status for _ in range(3)] == ["ok"] * 3


@pytest.mark.torch
def test_a_closure_on_torch_that_is_warm_here_answers():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    a = torch.ones(1500, 1500)
    (a @ a).sum(), torch.exp(a).sum()

    def closure(x, offset, weight, mask, bias, **windows):
        torch.exp(a).sum(), (a @ a).sum()
        return weight.sum() * x

    runner = Forked(closure, how=How("torch"), timeout=20)
    try:
        assert runner.call(case()).status == "ok"
    finally:
        runner.close()
        torch.set_num_threads(before)


@pytest.mark.torch
def test_autograd_is_not_given_the_memory_of_grad_y():
    one = draw_case(
        np.random.default_rng(0), Sizes(1, 1, 2, 1, 1, 1, 1, 1, 1), "float64", ""
    )
    for spec, array in (
        ("torchvision", "numpy"),
        (f"{CANDIDATES / 'on_torch.py'}:added", "torch"),
    ):
        runner = Process(spec, How(array))
        outcome = runner.call(one, "grad")
        runner.close()
        assert (outcome.status, outcome.faults, len(outcome.results)) == ("ok", [], 5)


def test_one_that_moves_away_is_ended_too(started):
    runner = started(f"{PLAIN}:moves_away")
    first, runner.timeout = runner.session, 1
    began = time.monotonic()
    assert runner.call(case()).status == "timeout"
    assert time.monotonic() - began < 8 and not system.running(first)
    assert runner.session not in (0, first)


def test_where_no_process_can_be_started_a_verdict_says_so(started, monkeypatch):
    runner = started(f"{PLAIN}:dies")

    def launch(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Process, "launch", launch)
    os.kill(runner.process.pid, signal.SIGKILL)
    found = [runner.call(case()) for _ in range(2)]
    assert [one.status for one in found] == ["crash"] * 2
    assert "cannot be started again" in found[1].text
    assert "Resource temporarily unavailable" in found[1].text
    with pytest.raises(CannotStartError, match="Resource temporarily"):
        Process("formula")


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux")
def test_nothing_that_an_import_left_outlives_its_process():
    runner = Process(f"{CANDIDATES / 'leaves_daemon.py'}:deform_conv")
    left = system.descendants(runner.process.pid) - {runner.session}
    assert len(left) == 1 and all(map(system.running, left))
    runner.close()
    assert system.within(5, lambda: not any(map(system.running, left)))


# Memory --------------------------------------------------------------------------


def test_inputs_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(arena, "REGION", 4096)
    shared = arena.Arena()
    x = np.zeros(2000, np.uint8)
    try:
        assert shared.place({"x": x, "weight": x[:100]}, "contiguous", 0)[0]
        assert shared.place({"x": x}, "contiguous", 4096)
        with pytest.raises(ValueError, match="weight needs 2128 bytes where 1920 are"):
            shared.place({"x": x, "weight": x}, "contiguous", 4096)
    finally:
        shared.close()


@pytest.mark.parametrize("order", "<>")
def test_the_byte_order_of_a_result_is_told(started, order):
    outcome = started(f"{PLAIN}:{'big' if order == '>' else 'little'}").call(case())
    assert outcome.results[0].dtype.newbyteorder("=") == np.float32
    assert outcome.results[0].dtype.isnative is (order == "<")


def test_a_result_of_another_byte_order_is_wrong_for_that():
    report = grade(f"{PLAIN}:big", dtypes=["float32"], seed=3)
    assert report.exit_code == 1
    assert "y is big-endian float32 for float32 inputs" in report.headline()


def test_a_result_that_holds_no_numbers_is_described(started):
    outcome = started(f"{PLAIN}:texts").call(case())
    assert outcome.results == ["numpy.ndarray of str160 [2]"] and not outcome.faults


def test_what_a_terminal_would_obey_is_written_out(started):
    outcome = started(f"{PLAIN}:escapes").call(case())
    assert outcome.text == "ValueError: \\x1b[2Jpass \\ud800\nnext line"


# Another Python ------------------------------------------------------------------


LOADED = [*sorted(INSIDE.rglob("*.py")), Path(refdcn.layouts.__file__)]


@pytest.mark.parametrize("path", LOADED, ids=lambda p: p.stem)
def test_the_candidate_s_side_is_python_3_8(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    assert "from __future__ import annotations" in text or len(tree.body) == 1
    late = {"removeprefix", "removesuffix", "waitstatus_to_exitcode", "pairwise"}
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Attribute) or node.attr not in late, node.attr
        if isinstance(node, ast.keyword):
            assert node.arg != "strict", f"zip(strict=) in line {node.lineno}"
        if isinstance(node, ast.AugAssign):
            assert not isinstance(node.op, ast.BitOr), f"|= in line {node.lineno}"
        if isinstance(node, ast.Assign):  # an alias, which is evaluated
            values = map(ast.unparse, ast.walk(node.value)) if node.value else ()
            assert not {"dict[str, Any]", "list[Any]"} & set(values) or guarded(
                tree, node
            )


def guarded(tree, node):
    """Whether only a type checker sees it."""
    return any(
        isinstance(one, ast.If)
        and ast.unparse(one.test) == "TYPE_CHECKING"
        and node in one.body
        for one in tree.body
    )


def python_3_8():
    """An interpreter of 3.8 that this machine has, or None."""
    homes = Path.home().glob(".pyenv/versions/3.8.*/bin/python")
    return next(map(str, homes), None) or shutil.which("python3.8")


@pytest.fixture(scope="module", params=["this one", "3.8"])
def python(request, tmp_path_factory):
    """An interpreter with NumPy, and its version."""
    if request.param == "this one":
        return sys.executable, sys.version.split()[0]
    old = python_3_8()
    if old is None:
        pytest.skip("no Python 3.8 here")
    home = tmp_path_factory.mktemp("old")
    subprocess.run([old, "-m", "venv", home], check=True)
    path = str(home / "bin" / "python")
    pip = [path, "-m", "pip", "install", "--retries", "1", "--only-binary", ":all:"]
    pip += ["numpy==1.20.*"]
    if subprocess.run(pip, capture_output=True, timeout=300).returncode:
        pytest.skip("NumPy 1.20 cannot be installed here")
    return path, "3.8."


def test_the_candidate_runs_under_another_python(started, python):
    path, version = python
    runner = started(f"{PLAIN}:version", python=path)
    found = runner.call(case())
    assert found.status == "raised" and f"RuntimeError: {version}" in found.text
    assert runner.confined is started(f"{PLAIN}:big").confined


def test_all_that_isolation_checks_holds_there(started, python):
    told = {
        "right": "",
        "writes": "it changed its input x",
        "returns_input": "the result shares memory with x",
        "prints": "it wrote to standard output",
        "moves": "it changed the working directory",
        "dies": "killed by SIGSEGV",
        "buffer": "an earlier result changed: a reused buffer",
        "hangs": "no answer in 1 s",
    }
    for name, text in told.items():
        runner = started(f"{PLAIN}:{name}", python=python[0])
        runner.timeout = 1
        found = [runner.call(case()) for _ in range(2)][1]
        assert text in "; ".join([found.text, *found.faults]), name
        assert bool(text) or (found.status, found.faults) == ("ok", [])


def test_a_grade_under_another_python(python, capsys):
    path, _ = python
    report = grade(f"{PLAIN}:dies", python=path, **SOME)
    assert report.exit_code == 3 and "killed by SIGSEGV" in report.sentence
    assert f"--python {path}" in report.text()
    options = ["--python", path, "--dtype", "float32", "--seed", "3"]
    assert main(["grade", f"{PLAIN}:big", *options, "--only", "exact"]) == 1
    assert "y is big-endian float32" in capsys.readouterr().out


def test_other_languages_under_another_python(python, tmp_path):
    path, _ = python
    script = tmp_path / "run.sh"
    script.write_text('#!/bin/sh\ncp "$1" "$2"\n')
    script.chmod(0o755)
    few = {"dtypes": ["float32"], "only": ["optional"], "python": path}
    report = grade(f"cmd:{script} {{in}} {{out.safetensors}}", **few)
    assert "cannot be read as .safetensors" in report.headline()
    if shutil.which("cc") is None:
        pytest.skip("no cc here")
    kernels = CANDIDATES.parents[2] / "docs" / "kernels"
    right = (kernels / "deform_conv2d.c").read_text()
    swapped = right.replace("2 * tap + 1, i, j", "2 * tap, i, j")
    swapped = swapped.replace("2 * tap, i, j", "2 * tap + 1, i, j", 1)
    command = ["cc", "-shared", "-fPIC", "-O2", f"-I{refdcn.get_include()}", "-o"]
    for name, text in (("right", right), ("swapped", swapped)):
        source, library = tmp_path / f"{name}.c", tmp_path / f"{name}.so"
        source.write_text(text)
        subprocess.run([*command, library, source, "-lm"], check=True)
        how = told.SOME | {"python": path}
        report = grade(f"cabi:{library}:deform_conv2d", **how)
        found = report.exit_code, told.first_sentences(report)
        assert report.exit_code == 0 or found == told.swapped_in_python()
        assert report.exit_code == (name == "swapped")


def test_a_closure_has_no_other_python():
    with pytest.raises(DeclarationError, match="python is 'p' though candidate is a"):
        grade(lambda *inputs, **windows: None, python="p")


def test_an_interpreter_that_will_not_do_is_refused(tmp_path, monkeypatch):
    with pytest.raises(CannotStartError, match="which is no program here"):
        Process("formula", python=str(tmp_path / "python"))
    with pytest.raises(CannotStartError, match="which runs no Python"):
        Process("formula", python=shutil.which("true"))
    monkeypatch.setattr(interpreter, "OLDEST", (4, 0))
    wanted = r"Python 3\.\d+ with NumPy 2\.\d+; .* needs Python 4.0 and NumPy 1.20"
    with pytest.raises(CannotStartError, match=wanted):
        Process("formula", python=sys.executable)


# No POSIX ------------------------------------------------------------------------


HIDDEN = """
import sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
import refdcn.grading
import refdcn.layouts
from refdcn.cli import main
from refdcn.grading.process.in_process import InProcess
try:
    refdcn.grading.grade("formula")
except refdcn.grading.CannotStartError as e:
    print(e)
print(*(main(a.split()) for a in ("grade formula", "demo", "grade --self-test")))
"""


def test_without_posix_a_sentence_says_so():
    run = subprocess.run([sys.executable, "-c", HIDDEN], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("grading needs a POSIX system, such as Linux, macOS")
    assert run.stdout.endswith("\n2 2 2\n")
    assert run.stderr.count("grading needs a POSIX system") == 3
    assert "Traceback" not in run.stderr
