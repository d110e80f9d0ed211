"""Torch's own threads as the team of a call on tensors."""

import multiprocessing
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import refdcn
from refdcn import scratch, threads
from refdcn.torch import library
from refdcn.torch import team as team_module
from refdcn.torch.team import torch_team

from tasks import Tasks

pytestmark = pytest.mark.torch


@pytest.fixture
def team():
    found = torch_team()
    if found is None:
        assert not sys.platform.startswith("linux"), "torch's wheels bring OpenMP"
        pytest.skip("torch is without OpenMP here")
    return found


@pytest.fixture(autouse=True)
def put_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [2, 3, 100])
def test_each_task_runs_once(team, count):
    done = []
    threads.run(Tasks(done.append, count), 3, team)
    assert sorted(done) == list(range(count))


def test_they_are_torch_s_threads_and_work_at_once(team):
    """Both wait for each other, so neither can do the other's share."""
    meeting, seen = threading.Barrier(2), set()

    def task(_):
        seen.add(threading.get_native_id())
        meeting.wait(timeout=60)

    torch.set_num_threads(2)
    x = torch.ones(1 << 20)
    x.add_(1)  # torch's threads exist from here on
    before = set(os.listdir("/proc/self/task"))
    threads.run(Tasks(task, 2), 2, team)
    assert len(seen) == 2 and {str(i) for i in seen} <= before


@pytest.mark.parametrize("failing", [0, 7, 39])
def test_an_error_in_a_task_is_raised(team, failing):
    def task(i):
        if i == failing:
            raise RuntimeError(f"task {i}")

    with pytest.raises(RuntimeError, match=f"task {failing}"):
        threads.run(Tasks(task, 40), 3, team)
    done = []
    threads.run(Tasks(done.append, 40), 3, team)
    assert sorted(done) == list(range(40))


def test_a_scratch_buffer_is_one_thread_s_own_and_is_kept(team):
    wrong, places = [], []
    meeting = threading.Barrier(2)

    def task(i):
        mine = scratch.array("team", 1000, np.float64)
        mine[:] = i
        meeting.wait(timeout=60)
        wrong.extend(mine[mine != i])
        places.append(mine.ctypes.data)

    for _ in range(5):
        with scratch.lent():
            threads.run(Tasks(task, 2), 2, team)
    assert wrong == [] and len(set(places)) <= 3


def inputs(C=64):
    rng = np.random.default_rng(0)
    shapes = (2, C, 30, 31), (2, 18, 30, 31), (C, C, 3, 3), (2, 9, 30, 31), (C,)
    return [torch.from_numpy(rng.standard_normal(s, np.float32)) for s in shapes]


@pytest.mark.parametrize("C", [16, 64, 130])
def test_the_bits_are_those_of_any_other_team(team, monkeypatch, C):
    given = inputs(C)
    leaves = [t.requires_grad_() for t in given]
    results = []
    for number, chosen in ((1, team), (2, team), (3, team), (2, None)):
        torch.set_num_threads(number)
        monkeypatch.setattr(library, "torch_team", lambda chosen=chosen: chosen)
        y = refdcn.deform_conv2d(*leaves, padding=1)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), leaves)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_several_python_threads_at_once(team):
    given = inputs()
    torch.set_num_threads(2)
    wanted, wrong = refdcn.deform_conv2d(*given, padding=1), []

    def calls():
        for _ in range(10):
            y = refdcn.deform_conv2d(*given, padding=1)
            wrong.extend(y[y != wanted])

    callers = [threading.Thread(target=calls) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


IN_A_FORK = """
import multiprocessing, os, signal, torch

def child(check=""):
    signal.alarm(120)  # OpenMP would wait for ever
    import refdcn
    from refdcn.torch import team
    assert team.torch_team() is None
    exec(check)
    y = refdcn.deform_conv2d(x, offset, weight, padding=1)
    arrays = [t.numpy() for t in (x, offset, weight)]
    assert (y.numpy() == refdcn.deform_conv2d(*arrays, padding=1)).all()
    os._exit(0)

torch.set_num_threads(2)
x, offset = torch.randn(2, 64, 30, 30), torch.randn(2, 18, 30, 30)
weight = torch.randn(64, 64, 3, 3)
torch.ones(1 << 20).add_(1)  # torch's threads exist from here on
"""
BEFORE = "import refdcn; refdcn.deform_conv2d(x, offset, weight, padding=1)\n"
BY_OS = """
pid = os.fork()
if pid == 0:
    try:
        child()
    finally:
        os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
BY_MULTIPROCESSING = """
told = "team._flags = lambda: 0; assert team._is_fork()"  # where no /proc tells it
process = multiprocessing.get_context("fork").Process(target=child, args=[told])
process.start()
process.join()
print(process.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    "first, how", [(BEFORE, BY_OS), ("", BY_OS), ("", BY_MULTIPROCESSING)],
    ids=["before", "after", "multiprocessing"],
)  # fmt: skip
def test_a_forked_child_does_without(team, first, how):
    """Whether refdcn is imported before the fork, and sees it, or after."""
    code = [sys.executable, "-c", IN_A_FORK + first + how]
    run = subprocess.run(code, capture_output=True, text=True, check=True)
    assert run.stdout == "0\n", run.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_of_multiprocessing_s_children_those_that_it_forks(monkeypatch, method):
    """This process has an image of its own, as a child that was spawned has."""
    parent, own = SimpleNamespace(), SimpleNamespace(_start_method=method)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(multiprocessing, "current_process", lambda: own)
    assert team_module._is_fork() == (method == "fork")
    own._start_method = None  # of the default
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    assert team_module._is_fork() == (method == "fork")
