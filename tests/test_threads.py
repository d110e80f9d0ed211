"""The thread pool: its size, its errors, BLAS beside it."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import refdcn
from refdcn import threads


@pytest.fixture(autouse=True)
def put_back():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def blas_counts():
    return [b["num_threads"] for b in threadpool_info() if b["user_api"] == "blas"]


def test_the_number_that_is_set_is_used():
    refdcn.set_num_threads(3)
    assert refdcn.get_num_threads() == 3


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "2", None])
def test_a_number_that_makes_no_sense(count):
    with pytest.raises(ValueError) as error:
        refdcn.set_num_threads(count)
    assert str(error.value) == f"threads is {count!r}; wanted an int of at least 1"


@pytest.mark.parametrize(
    "value, wanted", [("3", 3), ("", None), ("0", None), ("-2", None), ("many", None)]
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
    threads.run(done.append, count, workers)
    assert sorted(done) == list(range(count))


def test_a_scratch_buffer_is_one_thread_s_own():
    wrong = []

    def task(i):
        mine = threads.scratch("test", 1000 - i, np.float64)  # fits in the last
        mine[:] = i
        time.sleep(0.001)
        wrong.extend(mine[mine != i])

    threads.run(task, 60, 4)
    assert wrong == []


@pytest.mark.parametrize("failing", [0, 7, 39])
@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_in_a_task_is_raised(failing, workers):
    def task(i):
        time.sleep(0.0005)
        if i == failing:
            raise RuntimeError(f"task {i}")

    with pytest.raises(RuntimeError, match=f"task {failing}"):
        threads.run(task, 40, workers)
    done = []
    threads.run(done.append, 40, workers)
    assert sorted(done) == list(range(40))


def test_blas_has_one_thread_inside_and_as_many_as_before_outside():
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_counts()
        with threads.single_threaded_blas():
            with threads.single_threaded_blas():
                assert 1 in blas_counts()
            assert 1 in blas_counts()
        assert blas_counts() == before


def test_blas_has_one_thread_also_when_another_thread_asks():
    """threadpoolctl lets the first thread alone set OpenBLAS's number."""
    with threadpool_limits(limits=2, user_api="blas"):
        before, inside = blas_counts(), []

        def ask():
            with threads.single_threaded_blas():
                inside.extend(blas_counts())

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert 1 in inside and blas_counts() == before


def test_an_error_inside_gives_blas_its_threads_back():
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_counts()
        with pytest.raises(ZeroDivisionError), threads.single_threaded_blas():
            raise ZeroDivisionError
        assert blas_counts() == before


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


def test_results_do_not_depend_on_what_blas_was_set_to():
    """They were once those of two BLAS threads when a thread other than main asked."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 70, 23, 21)).astype(np.float32)
    offset = rng.standard_normal((1, 18, 21, 19)).astype(np.float32)
    weight = rng.standard_normal((9, 70, 3, 3)).astype(np.float32)
    got = []

    def call():
        got.append(refdcn.deform_conv2d(x, offset, weight))

    for limit in (1, 2):
        with threadpool_limits(limits=limit, user_api="blas"):
            call()
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
    for y in got[1:]:
        np.testing.assert_array_equal(y, got[0])


IN_A_FORK = """
import os
from refdcn import threads
before = [library.get_num_threads() for library in threads._blas_libraries()]
with threads.single_threaded_blas():
    child = os.fork()
    if child == 0:
        now = [library.get_num_threads() for library in threads._blas_libraries()]
        os._exit(now != before)
    _, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), min(before, default=0))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_during_a_call_gets_its_blas_threads_back():
    env = os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    code = [sys.executable, "-c", IN_A_FORK]
    run = subprocess.run(code, capture_output=True, text=True, env=env, check=True)
    assert run.stdout.split() == ["0", "2"], run.stderr
