"""What the system tells about a candidate's process, and the limits put on it.

Read by the grader from outside (Linux: /proc); elsewhere nothing is known,
and only the time is limited.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CORE, LARGEST_FILE = 0, 2**30  # bytes: no core dumps, no endless output
LOOKS, LOOK, BUSY = 6, 0.1, 0.02  # how often, seconds, and a part of them
ENDING = 1.0  # seconds that a killed process may take


def status(pid: int) -> dict[str, int]:
    """The sizes in /proc/PID/status, in bytes."""
    found = {}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = 1024 * int(value.split()[0])
    return found


def resident(pid: int) -> int:
    """The bytes of memory that a process holds, files left out."""
    sizes = status(pid)
    return sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)


def limit(pid: int, memory: int) -> None:
    """Let a process allocate `memory` bytes beyond what it has now.

    RLIMIT_DATA counts private writable memory: neither libraries nor address
    space that is only reserved, of which torch and CUDA take much.
    """
    try:
        import resource
    except ImportError:
        return
    if not hasattr(resource, "prlimit"):
        return
    data = status(pid).get("VmData", 0) + memory
    limits = {
        resource.RLIMIT_DATA: data,
        resource.RLIMIT_CORE: CORE,
        resource.RLIMIT_FSIZE: LARGEST_FILE,
    }
    for name, most in limits.items():
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, name)
            unlimited = hard == resource.RLIM_INFINITY
            most = most if unlimited else min(most, hard)
            resource.prlimit(pid, name, (most, most))


def directory(pid: int) -> str | None:
    """Its working directory."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return None


def children(pid: int) -> set[int]:
    """The processes that it or one of its threads started."""
    found: set[int] = set()
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= set(map(int, (task / "children").read_text().split()))
    return found


def descendants(pid: int) -> set[int]:
    """All processes below it, as far as their parents still run."""
    found: set[int] = set()
    todo = {pid}
    while todo:
        todo = set().union(*map(children, todo)) - found
        found |= todo
    return found


def copies(pid: int, parent: int) -> set[int]:
    """Forks of a session that still run: they hold its program, not another."""
    found = (children(pid) | children(parent)) - {pid}
    if not found:
        return found
    command = f"/proc/{pid}/cmdline"
    with suppress(OSError):
        own = Path(command).read_bytes()
        return {p for p in found if running(p) and program(p) == own}
    return set()


def program(pid: int) -> bytes:
    """Its command line."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def running(pid: int) -> bool:
    """Whether it is more than an entry that waits to be read."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()[0] not in "ZX"
    return False


def ended(pid: int) -> bool:
    """Whether a child of this process has ended; its exit code stays to be read."""
    if not hasattr(os, "waitid"):
        return False  # not known: the end of its channel tells
    with suppress(ChildProcessError):
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, pid, how) is not None
    return True


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether it becomes true in time."""
    last = time.monotonic() + seconds
    while not true():
        if time.monotonic() > last:
            return False
        time.sleep(0.001)
    return True


def end(pid: int) -> None:
    """Kill a process and wait until it is gone: the next call must not meet it."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    within(ENDING, lambda: not running(pid))


def worked(pid: int) -> tuple[int, bool]:
    """Nanoseconds that its threads had a processor; whether one wants it (Linux)."""
    total, wants = 0, False
    with suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            wants |= state == "R"
    return total, wants


def goes_on(pid: int) -> bool:
    """Whether a process computes though nobody asks it: threads left running.

    Those of a pool that wait awake for a while stop before the last look.
    """
    for _ in range(LOOKS):
        before, _ = worked(pid)
        time.sleep(LOOK)
        now, wants = worked(pid)  # on a busy machine it may want to, and wait
        if now - before < 1e9 * LOOK * BUSY and not wants:
            return False
    return True


def accelerated(pid: int) -> bool:
    """Whether a process has opened a graphics card or another accelerator."""
    names = []
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return any(n.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri")) for n in names)
