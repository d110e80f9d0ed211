"""A function that no other process can import, such as a closure."""

from __future__ import annotations

import faulthandler
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from threadpoolctl import threadpool_limits

from refdcn.grading.process.inside import confinement, worker
from refdcn.grading.process.inside.candidates import adapted
from refdcn.grading.process.inside.routes import PLAIN, How
from refdcn.grading.process.isolation import MEMORY, SECONDS, Process


class Child:
    """A forked process, seen as subprocess.Popen shows one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has one."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code


class Forked(Process):
    """A function of this process, called in a fork of it."""

    def __init__(
        self,
        forward: Callable[..., Any],
        grad: Callable[..., Any] | None = None,
        how: How = PLAIN,
        timeout: float = SECONDS,
        memory: int = MEMORY,
    ) -> None:
        name = getattr(forward, "__qualname__", "candidate")
        self.target = adapted(name, forward, grad, how)
        super().__init__(name, how, timeout, memory)

    def launch(self, into: int, out: int) -> Child:
        """Fork; the child answers until the channel closes."""
        with warnings.catch_warnings():
            # Threads of this process do not exist in the fork, which only
            # calls the candidate: that is what the caller asked for.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            self.live(into, out)
        return Child(pid)

    def live(self, into: int, out: int) -> None:
        """The child's whole life."""
        try:
            faulthandler.disable()  # how it died, the report says
            os.setsid()
            confinement.die_with_parent()
            confinement.adopt_orphans()
            locked = confinement.enter_domain()
            self.channel.close()
            os.dup2(self.log, 1)
            sys.stdout = open(1, "w", closefd=False)
            compute_alone()
            arena = self.arena.map, self.arena.base
            worker.begin(self.target, *arena, into, out, locked)
        finally:
            os._exit(0)


def compute_alone() -> None:
    """Use one thread from now on: a pool's others did not come along in the fork.

    A library that was used before would wait for them forever.
    """
    threadpool_limits(1)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
