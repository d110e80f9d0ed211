"""What the system keeps a candidate's process from, asked for by that process itself.

Linux alone offers it; elsewhere each function does nothing and says so. It is
called before the candidate is loaded, and cannot be undone afterwards.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

SET_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES, SET_SUBREAPER = 1, 38, 36  # of prctl
CREATE_RULESET, RESTRICT_SELF = 444, 446  # Landlock's, the same on every processor
SCOPE_SIGNAL, MAKE_BLOCK = 2, 2**11
PERTURB = -6  # of mallopt: fresh memory is filled with the complement of a byte
REFERENCES = "refdcn", "torchvision", "mmcv"  # each holds the operator
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Which argument of an event is the file that is made, or the program that is started.
MADE = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1}
STARTED = {"subprocess.Popen": 0, "os.exec": 0, "os.posix_spawn": 0, "os.system": 0}
MOST_TOLD = 64  # things of one kind


def control(option: int, value: int) -> bool:
    """prctl, where there is one."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


def die_with_parent() -> bool:
    """Let no process of the candidate outlive the one that started it."""
    return control(SET_DEATH_SIGNAL, signal.SIGKILL)


def adopt_orphans() -> bool:
    """What the candidate leaves running becomes this process's child."""
    return control(SET_SUBREAPER, 1)


def enter_domain() -> bool:
    """Lose the right to read or signal a process that is not a descendant.

    A Landlock domain: the grader's memory, where expected answers may lie, can
    no longer be opened, not even by root.
    """
    if sys.platform != "linux":
        return False
    system = ctypes.CDLL(None, use_errno=True)
    version = system.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    # Signals since version 6; before it a right that nobody misses.
    words = (0, 0, SCOPE_SIGNAL) if version >= 6 else (MAKE_BLOCK,)
    rules = (ctypes.c_uint64 * len(words))(*words)
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    fd = system.syscall(CREATE_RULESET, ctypes.byref(rules), size, 0)
    if fd < 0:
        return False
    entered = control(SET_NO_NEW_PRIVILEGES, 1)
    entered = entered and system.syscall(RESTRICT_SELF, fd, 0) == 0
    os.close(fd)
    return entered


def fill_fresh_memory(pattern: int) -> None:
    """Fill what malloc hands out from now on with one byte (glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(PERTURB, pattern ^ 0xFF)


def watch_deeds(tell: Callable[[str, str, str], None]) -> None:
    """Tell what the candidate loads, writes and starts; no hook can be removed.

    Of imports the references, which are seen as well where their source is read; of
    programs those that are a Python. What compiled code does is not seen.
    """
    told: set[tuple[str, str, str]] = set()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        for deed in deeds(event, arguments):
            if deed not in told and len(told) < MOST_TOLD:
                told.add(deed)
                tell(*deed)

    sys.addaudithook(hook)


def deeds(event: str, arguments: Sequence[object]) -> Iterator[tuple[str, str, str]]:
    """What an event of Python's audit means, as status, field and value."""
    if event == "import":
        name = str(arguments[0]).partition(".")[0]
        if name in REFERENCES:
            yield "imports", "name", name
    elif event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes)):
            name = os.path.abspath(os.fsdecode(path))
            if _of_refdcn(name):
                yield "imports", "name", "refdcn"
            if isinstance(flags, int) and flags & WRITING:
                yield "wrote", "path", name
    elif event in MADE:
        made = arguments[MADE[event]]
        if isinstance(made, (str, bytes)):
            yield "wrote", "path", os.path.abspath(os.fsdecode(made))
    elif event in STARTED:
        program = arguments[STARTED[event]]
        if isinstance(program, (str, bytes)):
            name = os.fsdecode(program)
            if "python" in name:
                yield "started", "program", "python"


def _of_refdcn(path: str) -> bool:
    """Whether this is a file of an installation or a checkout.

    Not of the grader's, nor the one on layouts, which computes nothing.
    """
    before, package, within = path.rpartition(f"{os.sep}refdcn{os.sep}")
    layouts = os.path.basename(within).startswith("layouts.")
    if not package or layouts or within.startswith("grading" + os.sep):
        return False
    return os.path.isfile(f"{before}{package}formula.py")
