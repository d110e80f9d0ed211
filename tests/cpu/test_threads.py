"""The thread pool: its size, its errors, forks."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

import refdcn
from refdcn import scratch, threads

from tasks import Tasks


@pytest.fixture(autouse=True)
def put_back():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def test_the_number_that_is_set_is_used():
    refdcn.set_num_threads(3)
    assert refdcn.get_num_threads() == 3


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "2", None])
def test_a_number_that_makes_no_sense(count):
    with pytest.raises(ValueError) as error:
        refdcn.set_num_threads(count)
    assert str(error.value) == f"threads is {count!r}; wanted an int of at least 1"


@pytest.mark.parametrize(
    "value, wanted",
    [
        ("3", 3),
        ("1,2", 1),
        (" 4 , 2 ", 4),
        ("", None),
        ("0", None),
        ("-2", None),
        ("many", None),
        ("2,many", None),
        ("\u00b2", None),
        ("\u0663", None),
        ("9" * 30, None),
    ],
)
def test_the_environment_says_how_many(value, wanted):
    code = "import refdcn; print(refdcn.get_num_threads())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OMP_NUM_THREADS": value},
        capture_output=True,
        text=True,
        check=True,
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    assert int(run.stdout) == (wanted or cores or os.cpu_count())


@pytest.mark.parametrize("count", [0, 1, 2, 100])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_each_task_runs_once(count, workers):
    done = []
    threads.run(Tasks(done.append, count), workers)
    assert sorted(done) == list(range(count))


def test_a_scratch_buffer_is_one_thread_s_own():
    wrong = []

    def task(i):
        mine = scratch.array("test", 1000 - i, np.float64)  # fits in the last
        mine[:] = i
        time.sleep(0.001)
        wrong.extend(mine[mine != i])

    with scratch.lent():
        threads.run(Tasks(task, 60), 4)
    assert wrong == []


@pytest.mark.parametrize("failing", [0, 7, 39])
@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_in_a_task_is_raised(failing, workers):
    def task(i):
        time.sleep(0.0005)
        if i == failing:
            raise RuntimeError(f"task {i}")

    with pytest.raises(RuntimeError, match=f"task {failing}"):
        threads.run(Tasks(task, 40), workers)
    done = []
    threads.run(Tasks(done.append, 40), workers)
    assert sorted(done) == list(range(40))


@pytest.mark.parametrize("module", ["refdcn", "refdcn.threads"])
def test_nothing_heavy_is_loaded(module):
    heavy = "numba scipy torch threadpoolctl refdcn.grading refdcn.cpu refdcn.torch"
    code = (
        f"import sys, {module}\nprint([m for m in {heavy.split()} if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"
