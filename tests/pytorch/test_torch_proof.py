"""The check on a card, as far as it goes without one: on tensors of this machine.

Processes that hang, crash or run out of memory are real; the card and its clock not.
"""

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import refdcn
from refdcn import cli
from refdcn.card import cases as card_cases
from refdcn.card import check as card_check
from refdcn.card import checkout
from refdcn.card import child as card_child
from refdcn.card import timing as card_timing
from refdcn.card import watched as card_watched
from refdcn.card.check import Task

COMMAND = ["bench", "--device", "cuda", "--check"]


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(card_cases, "DEVICE", "cpu")
    monkeypatch.setattr(card_timing, "DEVICE", "cpu")


# --- Where nothing can run -----------------------------------------------------------


def test_without_a_card_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(card_check, "NEEDED", ("torch",))
    file = tmp_path / "check.json"
    assert cli.main([*COMMAND, "--json", str(file)]) == 2
    assert "no card, nothing ran: torch finds no CUDA device" in capsys.readouterr().err
    assert not file.exists()  # an earlier record stays


def test_it_says_what_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(card_check, "NEEDED", ("torch", "no_such_package"))
    assert cli.main(COMMAND) == 2
    assert "not installed: no_such_package" in capsys.readouterr().err


def test_a_package_that_does_not_load_is_told(monkeypatch, capsys):
    def broken():
        raise OSError("libcudart.so: cannot open")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    monkeypatch.setattr(card_check, "NEEDED", ("torch",))
    assert cli.main(COMMAND) == 2
    assert "nothing ran: OSError: libcudart.so" in capsys.readouterr().err


def test_device_and_check_go_together(capsys):
    assert cli.main(["bench", "--device", "cuda"]) == 2
    assert "--check" in capsys.readouterr().err


# --- Processes -----------------------------------------------------------------------

ENDS = {  # Python in place of a check: verdict, and what the record says
    "pass": ("passed", ""),
    "raise ValueError('off')": ("failed", "off"),
    "raise card_child.Skip('no tool')": ("not run", "no tool"),
    "raise torch.OutOfMemoryError('wants 80 GiB')": ("undecided", "wants 80 GiB"),
    "raise RuntimeError('CUDA error: out of memory')": ("undecided", "out of memory"),
    "raise RuntimeError('CUDA_ERROR_OUT_OF_MEMORY')": ("undecided", "OUT_OF_MEMORY"),
    "raise MemoryError": ("undecided", "MemoryError"),
    "import os; os.abort()": ("failed", "exit code -6"),
    "import os; print('dying', flush=True); os._exit(3)": ("failed", "dying"),
    "import time; time.sleep(60)": ("failed", "took longer than 2 s"),
    "import subprocess; subprocess.run(['sleep', '60'])": ("failed", "longer than 2 s"),
}


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """card_check's children run this text as their check; torch is a stand-in."""

    def write(text):
        (tmp_path / "stub_check.py").write_text(
            "from refdcn.card import child as card_child\n"
            "class torch:\n    class OutOfMemoryError(RuntimeError): pass\n"
            "def check(*arguments):\n" + text
        )
        return {"PYTHONPATH": f"{card_check.ROOT}:{tmp_path}"}

    return write


def ran(environment, folder, seconds=30.0, before=()):
    task = Task("stub", seconds, ("stub_check:check", "a", "b"), before=before)
    return card_check.child(task, folder, environment)


@pytest.mark.parametrize("text", ENDS)
def test_a_check_ends_itself_alone(stub, tmp_path, text):
    environment = stub(f"    {text}\n")
    seconds = 2 if "sleep" in text else 30
    begin = time.monotonic()
    check = ran(environment | {"PATH": "/usr/bin:/bin"}, tmp_path, seconds)
    assert time.monotonic() - begin < 30
    verdict, said = ENDS[text]
    assert check.verdict == verdict and said in str(check.detail)


def test_what_was_found_before_the_time_was_up_is_kept(stub, tmp_path):
    environment = stub(
        "    import time\n    yield list(arguments)\n    yield 2\n    time.sleep(60)\n"
    )
    check = ran(environment, tmp_path, 3)
    assert check.verdict == "failed" and check.detail["parts"] == [["a", "b"], 2]


def test_what_the_limit_cuts_short_is_undecided(stub, tmp_path):
    """Its own time is up: failed. All time is up: it had no chance."""
    environment = stub("    import time\n    time.sleep(60)\n")
    task = Task("stub", 2.0, ("stub_check:check",), cut=True)
    check = card_check.child(task, tmp_path, environment)
    assert check.verdict == "undecided" and "--limit" in check.detail["ended"]


BAD = "raise ValueError('off')"
CLEAN = "========= ERROR SUMMARY: 0 errors"
CALM = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
WARNED = "========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)"
UNWATCHED = (
    "========= Error: Target application terminated before first instrumented API call"
)
# What a sanitizer says, its exit code, what it runs (None: nothing), the verdict.
SANITIZED = [
    ([CLEAN], 0, "return 1", "passed", CLEAN),
    ([CALM], 0, "return 1", "passed", CALM),
    (["1 error"], 9, "return 1", "failed", "exit code 9"),
    (["========= ERROR SUMMARY: 2 errors"], 0, "return 1", "failed", "2 errors"),
    ([WARNED], 0, "return 1", "failed", "1 hazard displayed"),
    ([CALM, "========= ERROR SUMMARY: 1 error"], 0, "return 1", "failed", "1 error"),
    ([], 0, "return 1", "undecided", "no summary of its own, exit 0"),
    (["ERROR SUMMARY"], 1, "return 1", "undecided", "no summary of its own, exit code"),
    ([UNWATCHED], 0, "return 1", "undecided", "before first instrumented"),
    ([UNWATCHED, CLEAN], 0, "return 1", "undecided", "before first instrumented"),
    (["========= Internal Sanitizer Error: stops", CLEAN], 0, "return 1",
     "undecided", "Internal Sanitizer Error: stops"),
    ([CLEAN], 0, None, "undecided", "did not run"),
    ([CALM], -11, None, "failed", "exit code"),
    ([CLEAN], 0, BAD, "failed", "off"),
    ([], 0, BAD, "failed", "off"),
    ([UNWATCHED], 0, BAD, "failed", "off"),
    ([CLEAN], 0, "raise MemoryError", "undecided", "MemoryError"),
    ([CLEAN], 0, "import time; time.sleep(60)", "undecided", "longer than 2 s"),
]  # fmt: skip


@pytest.mark.parametrize("said, code, runs, verdict, why", SANITIZED)
def test_a_sanitizer_must_say_that_all_is_well(
    stub, tmp_path, said, code, runs, verdict, why
):
    """Exit code 0 is no proof: it may have watched nothing, or run nothing."""
    program = tmp_path / "sanitizer"
    lines = ["#!/bin/sh", '"$@"' if runs else "", *(f'echo "{line}"' for line in said)]
    end = f"kill {code} $$" if code < 0 else f"exit {code}"
    program.write_text("\n".join([*lines, end, ""]))
    program.chmod(0o755)
    seconds = 2.0 if runs and "sleep" in runs else 30.0
    check = ran(stub(f"    {runs}\n"), tmp_path, seconds, before=(str(program),))
    assert check.verdict == verdict and why in str(check.detail)


def test_the_sanitizer_is_found_in_the_toolkit(monkeypatch, tmp_path):
    program = tmp_path / "compute-sanitizer"
    program.touch(0o755)
    monkeypatch.setattr(card_check, "TOOLKITS", ["/nowhere", str(tmp_path)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert card_check.sanitizer("memcheck").before[0] == str(program)


def test_no_setting_of_the_machine_changes_what_is_checked(monkeypatch, tmp_path):
    """NVIDIA's containers allow TF32, which float32's bounds do not."""
    for name in card_check.UNSET:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    given = card_check.settings(tmp_path)
    assert not {name for name in given if "TF32" in name or "BLOCKING" in name}
    assert not {"NUMBA_ENABLE_CUDASIM", "NUMBA_DISABLE_JIT"} & set(given)
    assert given["PYTHONPATH"] == f"{card_check.ROOT}:/elsewhere"


def test_every_check_exists():
    for task in [*card_check.tasks(), card_check.sanitizer("memcheck")]:
        module, _, name = task.call[0].partition(":")
        assert callable(getattr(sys.modules[module], name))
        assert task.seconds < card_check.SECONDS
    names = [task.name for task in card_check.tasks()]
    assert len(set(names)) == len(names)


def test_it_runs_from_a_checkout_with_nothing_installed():
    """With -S, which leaves out site-packages, it says what it would need."""
    command = [sys.executable, "-S", "-m", "refdcn", *COMMAND]
    checkout = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkout)
    assert (done.returncode, done.stdout) == (2, "")
    needed = "nothing ran: not installed: numpy, torch, numba, numba_cuda"
    assert needed in done.stderr


# --- The record ----------------------------------------------------------------------

ROW = {
    "shape": "1x1x4x4->1", "precision": "float32", "direction": "forward",
    "refdcn ms": 2.0, "torchvision ms": 4.0, "dense ms": 1.0,
    "refdcn bytes": 2**20, "torchvision bytes": 2**23,
}  # fmt: skip


@pytest.fixture
def pretended(monkeypatch):
    """A card whose checks end as they are told; those that were started."""
    ends = {"float16 positions": "failed", "CuPy arrays": "not run"}
    started = []

    def child(task, folder, environment):
        started.append(task)
        timing = task.name.startswith("timings")
        detail = {"parts": [ROW]} if timing else {"answer": "a | b"}
        return card_check.Check(task.name, ends.get(task.name, "passed"), detail, 0.0)

    monkeypatch.setattr(card_check, "missing", lambda: None)
    monkeypatch.setattr(card_check, "machine", lambda: {"card": "none"})
    monkeypatch.setattr(card_check, "child", child)
    monkeypatch.setattr(card_check.shutil, "which", lambda name, path: None)
    return ends, started


def test_record_and_table(pretended, capsys, tmp_path):
    """Passed, failed and not run are told apart; a failure is the exit code."""
    ends, _ = pretended
    file = tmp_path / "check.json"
    assert cli.main([*COMMAND, "--json", str(file)]) == 1
    record = json.loads(file.read_text())
    verdicts = {c["name"]: c["verdict"] for c in record["checks"]}
    assert verdicts.pop("float16 positions") == "failed"
    absent = {name for name, verdict in verdicts.items() if verdict == "not run"}
    tools = {f"compute-sanitizer {tool}" for tool in card_check.SANITIZERS}
    assert absent == tools | {"CuPy arrays"}
    shown = capsys.readouterr().out
    assert "Card: none. " in shown and "1 failed, 0 undecided, 4 not run" in shown
    assert "Verdict: failed: float16 positions. Not run here: CuPy arrays, " in shown
    assert (record["verdict"], record["why"]) == ("failed", ["float16 positions"])
    assert "| 1x1x4x4->1 | float32 | forward | 2.000 | 4.000 | 1.000 | - |" in shown
    assert "| CuPy arrays | not run | a / b |" in shown
    assert "torchvision ms / refdcn ms, at least 1.5: 2.00, met" in shown
    assert "dense ms / refdcn ms, at least 0.5: 0.50, met" in shown
    assert "float16 forward: torchvision ms / refdcn ms, at least 2.0: not" in shown
    assert "at most 0.25: 0.13, met" in shown
    ends.clear()
    assert cli.main([*COMMAND, "--json", str(file)]) == 0
    assert "Verdict: passed. Not run here: compute-sanit" in capsys.readouterr().out
    assert json.loads(file.read_text())["verdict"] == "passed"


NEEDS_NOTHING = [task.name for task in card_check.tasks() if not task.needs]


@pytest.mark.parametrize(
    "name, how",
    [
        ("CuPy arrays", "undecided"), ("timings 32x64x56x56->64", "undecided"),
        ("batch of more than 2**31", "undecided"),
        *((name, "not run") for name in NEEDS_NOTHING),
    ],
)  # fmt: skip
def test_what_proves_nothing_is_no_proof(pretended, capsys, tmp_path, name, how):
    """One check without an answer, or one that everybody can run and was not."""
    ends, _ = pretended
    ends.clear()
    ends[name] = how
    file = tmp_path / "check.json"
    assert cli.main([*COMMAND, "--json", str(file)]) == 3
    record, shown = json.loads(file.read_text()), capsys.readouterr().out
    assert (record["verdict"], record["why"]) == ("undecided", [name])
    assert f"Verdict: undecided, which proves nothing: {name}. " in shown
    assert f"| {name} | {how} | " in shown


@pytest.mark.parametrize("how", ["not run", "undecided"])
def test_nothing_at_all_is_no_proof(pretended, tmp_path, how):
    ends, _ = pretended
    ends.clear()
    ends.update(dict.fromkeys((task.name for task in card_check.tasks()), how))
    assert cli.main([*COMMAND, "--json", str(tmp_path / "check.json")]) == 3


def test_a_failure_outweighs_what_is_undecided(pretended, tmp_path):
    ends, _ = pretended
    ends["streams, no waiting"] = "undecided"
    assert cli.main([*COMMAND, "--json", str(tmp_path / "check.json")]) == 1


def test_a_record_that_cannot_be_written_is_printed(pretended, capsys, tmp_path):
    pretended[0].clear()
    assert cli.main([*COMMAND, "--json", str(tmp_path / "no" / "folder")]) == 0
    said = capsys.readouterr()
    assert "cannot be written" in said.err and '"machine"' in said.out


def test_the_time_of_all_is_limited(pretended, monkeypatch, tmp_path):
    ends, started = pretended
    moments = iter([0.0, 100.0])
    monkeypatch.setattr(card_check.time, "monotonic", lambda: next(moments, 500.0))
    file = tmp_path / "check.json"
    assert cli.main([*COMMAND, "--json", str(file), "--limit", "200"]) == 3
    assert [(task.seconds, task.cut) for task in started] == [(100.0, True)]
    checks = json.loads(file.read_text())["checks"]
    late = [c for c in checks[1:] if not c["name"].startswith("compute-sanitizer")]
    assert {c["verdict"] for c in late} == {"undecided"}
    assert "--limit" in late[0]["detail"]


def test_the_machine_is_described_as_far_as_it_can_be(monkeypatch):
    monkeypatch.setattr(card_check, "VERSIONS", ("numpy", "no-such-package"))
    found = card_check.machine()
    assert found["numpy"] == np.__version__ and found["no-such-package"] is None
    assert found["card"]


# --- The checks, on tensors of this machine ------------------------------------------


def test_agreement_is_within_and_a_wrong_one_is_not(no_card, monkeypatch):
    monkeypatch.setattr(card_cases, "SHAPES", card_cases.SHAPES[::3])
    assert 0 < card_cases.agreement() <= 1
    assert 0 < card_cases.agreement("by_torchvision") <= 1
    right = card_cases.by_torchvision

    def wrong(tensors, window):
        y, *grads = right(tensors, window)
        return [y * (1 + 1e-3), *grads]

    monkeypatch.setattr(card_cases, "by_torchvision", wrong)
    with pytest.raises(AssertionError, match="times the roundings"):
        card_cases.agreement("by_torchvision")


def test_nan_is_no_agreement():
    nan = [torch.tensor([np.nan])]
    with pytest.raises(AssertionError):
        card_cases.compare(nan, nan, np.float32, 1)


def test_absent_packages_are_not_run(no_card, monkeypatch):
    for name in ("torchvision.ops", "cupy", "hypothesis"):
        monkeypatch.setitem(sys.modules, name, None)
    for check, *arguments in (
        (card_cases.agreement, "by_torchvision"),
        (card_cases.properties, "atomic", "formula"),
        (card_cases.other_arrays, "cupy"),
    ):
        with pytest.raises(card_child.Skip):
            check(*arguments)
    assert "torchvision" not in card_cases.half_positions()


def test_a_torchvision_without_cuda_is_not_run(no_card, monkeypatch):
    """Another's build decides nothing about refdcn."""
    import torchvision.ops

    def without(*args, **windows):
        raise NotImplementedError("no kernel for 'CUDA'\nand much more")

    monkeypatch.setattr(torchvision.ops, "deform_conv2d", without)
    with pytest.raises(card_child.Skip, match="no kernel for 'CUDA'$"):
        card_cases.agreement("by_torchvision")
    assert "torchvision" not in card_cases.half_positions()


BESIDE = ("threadpoolctl", "scipy", "matplotlib", "tqdm", "pytest", "torchvision")
WITHOUT = f"""
import builtins, sys
found = builtins.__import__

def find(name, *how):
    if name.partition(".")[0] in {BESIDE}:
        raise ImportError(name)
    return found(name, *how)

builtins.__import__ = find
from refdcn.card import cases, check, checkout, child, watched
from refdcn import cuda
import numpy, torch
case, window = cases.inputs(cases.SHAPES[0])
wanted = cases.by_loops(case, window)
cases.both = lambda tensors, window: [torch.from_numpy(a) for a in wanted]
cases.DEVICE, cases.SHAPES = "cpu", cases.SHAPES[:1]
cases.compare(cases.both(case, window), wanted, numpy.float64, 1)
try:
    cuda.require_cuda()
except (ImportError, RuntimeError) as e:
    print(e)
try:
    checkout.drawn_geometries().COUNT = 0
    cases.properties("atomic", "torchvision")
except child.Skip as e:
    print(e)
"""


def test_what_a_card_s_machine_may_lack_is_not_imported():
    """Beside NEEDED and hypothesis: not by the package, and not by the tests' files."""
    command = [sys.executable, "-c", WITHOUT]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "numba-cuda" in done.stdout and "torchvision cannot be used" in done.stdout


def test_half_positions_tells_refdcn_from_torchvision(no_card):
    found = card_cases.half_positions()
    assert abs(found["refdcn"] - 1500.3) < 0.5 and found["torchvision"] == 1500


@pytest.mark.parametrize("check", ["half_types", "deterministic"])
def test_repeated_bits(no_card, monkeypatch, check):
    assert getattr(card_cases, check)()
    right = refdcn.deform_conv2d
    calls = iter(range(100))

    def drifting(*args, **windows):
        return right(*args, **windows) * (1 + next(calls) / 64)

    monkeypatch.setattr(refdcn, "deform_conv2d", drifting)
    with pytest.raises(AssertionError, match="differ|rounded"):
        getattr(card_cases, check)()


def test_drawn_geometries(no_card, monkeypatch):
    monkeypatch.setattr(checkout, "SUPPORT", Path(__file__).parents[1] / "support")
    import cuda_card

    monkeypatch.setattr(cuda_card, "DEVICE", "cpu")
    monkeypatch.setattr(cuda_card, "COUNT", 20)
    for witness in cuda_card.WITNESSES:
        assert "hypothesis" in card_cases.properties("atomic", witness)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_installation_has_no_drawn_geometries(monkeypatch, tmp_path):
    monkeypatch.setattr(checkout, "SUPPORT", tmp_path / "none")
    with pytest.raises(card_child.Skip, match="needs a checkout"):
        card_cases.properties("atomic", "formula")


def test_large_arrays_at_a_small_size(no_card, monkeypatch):
    monkeypatch.setattr(card_cases, "room", lambda needed: None)
    assert card_cases.large_batch(2, 8) == "8192 numbers"
    assert card_cases.large_image(3, 40, 16) == "4800 numbers"
    right = refdcn.deform_conv2d_grad

    def lost(grad_y, x, *args):
        grads = right(grad_y, x, *args)
        return [grads[0] * (x.shape[2] < 40), *grads[1:]]

    monkeypatch.setattr(refdcn, "deform_conv2d_grad", lost)
    with pytest.raises(AssertionError):
        card_cases.large_image(3, 40, 16)


def test_too_small_a_card_is_not_run(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 2**31))
    with pytest.raises(card_child.Skip, match="needs 9 GiB free, there are 1"):
        card_cases.large_batch()
    with pytest.raises(card_child.Skip, match="GiB free"):
        card_cases.large_image()


class Stream:
    """A stream that is done as soon as it is asked, or not."""

    done = False

    def query(self):
        EVENTS.append("asked")
        return self.done


EVENTS = []


@pytest.mark.parametrize("waits", [False, True])
def test_streams(no_card, monkeypatch, waits):
    def noted(name):
        return lambda *args: EVENTS.append(name)

    right = refdcn.deform_conv2d

    def called(*args, **windows):
        EVENTS.append("called")
        return right(*args, **windows)

    monkeypatch.setattr(Stream, "done", waits)
    monkeypatch.setattr(refdcn, "deform_conv2d", called)
    for name, made in (
        ("Stream", Stream), ("default_stream", Stream), ("_sleep", noted("busy")),
        ("stream", lambda s: nullcontext()), ("synchronize", noted("waited")),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, made)
    EVENTS.clear()
    if waits:
        with pytest.raises(AssertionError, match="waited"):
            card_cases.streams()
    else:
        assert card_cases.streams() == "20 streams"
        # A stream's first call may allocate, which may wait: it is not the one judged.
        last = ["called", "waited", "busy", "called", "asked", "waited"]
        assert EVENTS[-12:] == 2 * last


def test_the_watched_program(monkeypatch):
    """All of it but the device: its inputs, its geometry, its comparison."""
    import numba.cuda

    class Array(np.ndarray):
        def copy_to_host(self):
            return np.asarray(self)

    def forward(*args):
        *inputs, g = args
        window = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation}
        return refdcn.deform_conv2d(*map(np.asarray, inputs), **window).view(Array)

    def backward(*args, deterministic):
        *inputs, g = args
        window = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation}
        grads = refdcn.deform_conv2d_grad(*map(np.asarray, inputs), **window)
        return [a.view(Array) * wrong[deterministic] for a in grads]

    monkeypatch.setattr(numba.cuda, "to_device", lambda a: a.view(Array))
    monkeypatch.setattr(card_watched.cuda, "forward", forward)
    monkeypatch.setattr(card_watched.cuda, "backward", backward)
    wrong = {False: 1, True: 1}
    card_watched.main()
    for form in wrong:
        wrong = {form: 1.001, not form: 1}
        with pytest.raises(AssertionError, match=f"deterministic={form}"):
            card_watched.main()


# --- Times ---------------------------------------------------------------------------


@pytest.fixture
def clock(no_card, monkeypatch):
    """Each call is made, and takes as long as its contestant is told to."""
    monkeypatch.setattr(card_timing, "ROUNDS", 1)
    monkeypatch.setattr(card_timing, "WARM", 1)
    monkeypatch.setattr(card_timing, "elapsed", lambda call: call() is None or 3.0)
    monkeypatch.setattr(card_timing, "host", lambda call: 0.5)
    monkeypatch.setattr(card_timing, "peak", lambda call: call() is None or 2**20)


SMALL = "2x4x6x5->3"


def test_every_contestant_is_timed(clock):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    try:
        rows = list(card_timing.measure(SMALL))
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before
        torch.backends.cuda.matmul.allow_tf32 = False
    assert len(rows) == len(card_timing.DTYPES) * len(card_timing.DIRECTIONS)
    for row in rows:
        assert not [name for name in row if name.endswith("error")], row
        for name in ("refdcn", "torchvision", "dense", "product", "copy"):
            assert row[f"{name} ms"] and row[f"{name} bytes"]
    assert len(card_timing.table(rows)) == 2 + len(rows)


def test_a_contestant_that_fails_says_why(clock, monkeypatch):
    """Another's failure is noted; refdcn's fails the check, after all rows."""
    import torchvision.ops

    def full(*args, **windows):
        raise torch.OutOfMemoryError("wants 80 GiB")

    monkeypatch.setattr(torchvision.ops, "deform_conv2d", full)
    rows = list(card_timing.measure(SMALL))
    assert all("80 GiB" in row["torchvision error"] for row in rows)
    assert all("refdcn ms" in row and "torchvision ms" not in row for row in rows)
    monkeypatch.setattr(refdcn, "deform_conv2d", full)
    found = []
    with pytest.raises(AssertionError, match="refdcn: OutOfMemoryError"):
        found.extend(iter_kept(card_timing.measure(SMALL), found))
    assert len(found) == len(rows)


def iter_kept(rows, found):
    for row in rows:
        found.append(row)
    return ()


def test_products_are_those_of_all_tiles(no_card, monkeypatch):
    from refdcn.bench.workload import parse, product_flops
    from refdcn.cuda import operator

    monkeypatch.setattr(operator, "TILE_BYTES", 10_000)
    done = []

    def mm(a, b, out):
        done.append(2 * a.shape[0] * a.shape[1] * b.shape[1])

    w = parse("2x4x16x15->3")
    for training, times in ((False, 1), (True, 3)):
        call = card_timing.products(w, torch.float32, training)
        monkeypatch.setattr(torch, "mm", mm)
        call()
        monkeypatch.undo()
        monkeypatch.setattr(card_timing, "DEVICE", "cpu")
        monkeypatch.setattr(operator, "TILE_BYTES", 10_000)
        assert len(done) > times  # several tiles, the last one perhaps not full
        assert 1 <= sum(done) / (times * product_flops(w)) < 1.3
        done.clear()
