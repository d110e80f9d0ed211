"""Torch's own threads as the team that samples and multiplies.

A network computes with them before and after us, and for milliseconds they spin for
more work. A second pool would share the cores with them: after a conv2d on two threads,
1x64x56x56 took 5.7 ms on threads of our own and takes 2.9 ms on torch's.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from refdcn import threads

PF_FORKNOEXEC = 0x40  # Linux: forked, and no exec has given it a new image


def torch_team() -> threads.Team | None:
    """Torch's threads; None where torch's threads cannot be had.

    So it is without OpenMP (as on macOS and Windows), and in a forked process: its
    OpenMP may be its parent's, and would wait for ever for threads that are not here.
    """
    return None if _forked or _parallel() is None else TEAM


class _Team:
    def __call__(self, help: Callable[[], None], n: int) -> None:
        task = _TASK(lambda _: help())
        _parallel()(ctypes.cast(task, ctypes.c_void_p), None, n, 0)

    def call(self, function: int, argument: int, n: int) -> None:
        _parallel()(function, argument, n, 0)


TEAM = _Team()
_TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _parallel() -> Any:
    """GOMP_parallel(function, data, threads, flags) of the OpenMP that torch loaded.

    What compilers call for `#pragma omp parallel`, so its interface stays; LLVM's and
    Intel's OpenMP have it, too.
    """
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().lib_controllers:
        folders = os.path.normpath(library.filepath).split(os.sep)
        if library.user_api != "openmp" or not {"torch", "torch.libs"} & {*folders}:
            continue
        parallel = getattr(library.dynlib, "GOMP_parallel", None)
        if parallel is not None:
            number = ctypes.c_uint
            parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, number, number]
            parallel.restype = None
            return parallel
    return None


def _is_fork() -> bool:
    """Whether torch may have come from the parent of this process, by a fork.

    OpenMP itself cannot be asked whether its threads are alive.
    """
    if multiprocessing.parent_process() is not None:
        own = getattr(multiprocessing.current_process(), "_start_method", None)
        if (own or multiprocessing.get_start_method()) == "fork":
            return True
    return bool(_flags() & PF_FORKNOEXEC)


def _flags() -> int:
    """The kernel's flags of this process; 0 where it does not tell."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[6])
    except (OSError, ValueError, IndexError):
        return 0


def _note_fork() -> None:
    global _forked
    _forked = True


_forked = _is_fork()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
