"""The grader's side of the candidate's process.

Whatever decides a verdict is read here, out of the candidate's reach: inputs,
guards and results in the grader's memory, addresses compared, the clock, the
process's directory, children and memory. A session that dies or overruns a
limit costs that call a verdict, and the next call runs in a new session.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from refdcn.grading.expected.case import Case
from refdcn.grading.process import system
from refdcn.grading.process.arena import EARLIER, REGION, RESULTS, Arena, sealed
from refdcn.grading.process.channel import Channel, Silence
from refdcn.grading.process.gated import Gate
from refdcn.grading.process.inside.routes import PLAIN, How
from refdcn.grading.process.interpreter import checked
from refdcn.grading.process.outcome import CannotStartError, Outcome, ending, ran_out
from refdcn.grading.process.reply_parser import (
    ANY_TIME,
    INTRUDED,
    Died,
    Imports,
    Loaded,
    Message,
    Placed,
    Reply,
    ReplyError,
    Session,
    Started,
    Unloadable,
    Wrote,
)

WORKER = Path(__file__).parent / "inside" / "worker.py"
SECONDS, MEMORY = 60.0, 4 * 2**30  # of one call, unless told otherwise
LOADING = 120.0  # seconds to import a candidate
STARTING = 30.0  # seconds to fork a session
ENDING = 10.0  # seconds that a killed process may take
DEEDS = 64  # files and programs that are kept in mind
GRACE = 1.0  # seconds from the end of the channel to that of its process
FIRST, SECOND = 0xFE, 0x41  # patterns of fresh memory: huge, and about 12
NAMES = "x", "offset", "weight", "mask", "bias", "grad_y"
TWICE = "a call was answered twice, as after a fork"


class Handle(Protocol):
    """The part of subprocess.Popen that is used here."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, once it has one."""


class Process:
    """A candidate in a process of its own.

    It is loaded once, and each session is a fork of that process; but a candidate
    whose import leaves threads running is loaded anew for each session, since threads
    do not survive a fork. `threads` says how many there are.
    """

    def __init__(
        self,
        spec: str,
        how: How = PLAIN,
        timeout: float = SECONDS,
        memory: int = MEMORY,
        meanwhile: Iterator[None] | None = None,
        python: str | None = None,
        gate: bool = False,
    ) -> None:
        require_posix()
        self.spec, self.how = spec, how
        self.timeout, self.memory = timeout, memory
        self.python = None if python is None else checked(python)
        self.calls = self.session = self.threads = 0
        self.has_grad = self.confined = False
        self.device = ""
        self.imports: set[str] = set()  # references it loaded
        self.deeds: list[Wrote | Started] = []
        self.over: Outcome | None = None  # of every call, once it answers no more
        self.meanwhile = meanwhile or iter(())  # work to do while the candidate loads
        self.arena = Arena()
        self.files = TemporaryDirectory(prefix="refdcn-")  # for those that need some
        self.log = sealed("output")
        self.gate = Gate(spec, self.files.name) if gate else None
        try:
            self.start()
        except ReplyError as e:
            self.over = Outcome("ok", faults=[str(e)])
        except BaseException:
            self.release()
            raise

    @property
    def fresh_sessions(self) -> bool:
        """Whether each session is a process that loads the candidate anew."""
        return self.threads > 0

    def start(self) -> None:
        """Start the process and wait until it has loaded the candidate."""
        self.session = 0
        self.channel = Channel()
        try:
            self.process = self.launch(self.channel.requests, self.channel.replies)
        except OSError as e:  # no process more, as where a candidate started many
            self.channel.hand_over()
            self.channel.close()
            raise CannotStartError(f"{self.spec} cannot be started: {e}") from e
        self.stopped = False
        try:
            self.channel.hand_over()
            self.await_loaded()
            self.await_session()
        except BaseException:
            self.stop()
            raise

    def launch(self, into: int, out: int) -> Handle:
        """The new process; `into` and `out` are its ends of the channel."""
        fds = into, out, self.arena.fd
        how = json.dumps(self.how._asdict())
        spec = self.gate.absolute if self.gate else self.spec
        command = [self.python or sys.executable, str(WORKER), spec, how]
        # Small cases: threads that wait awake would cost more than they compute.
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ.copy()
        # Large blocks come from the heap, whose freed memory is poisoned.
        environment["MALLOC_MMAP_THRESHOLD_"] = str(2**26)
        environment["REFDCN_FILES"] = self.files.name
        if self.python is None:  # another interpreter has packages of its own
            environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        if self.gate:
            environment = self.gate.environment(environment)
        return subprocess.Popen(
            [*command, *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=self.gate.work if self.gate else None,
            start_new_session=True,
        )

    def await_loaded(self) -> None:
        """Wait until it says that the candidate is loaded, or why not."""
        while not self.channel.readable(0) and next(self.meanwhile, self) is None:
            pass
        hello = self.receive((Loaded, Unloadable), time.monotonic() + LOADING)
        if isinstance(hello, Loaded):
            self.has_grad, self.base, self.confined, self.threads, self.device = hello
            self.noise = os.fstat(self.log).st_size  # bytes of output seen
            return
        text = f"no answer in {LOADING:g} s"
        if isinstance(hello, Unloadable):
            text = hello.text
        elif hello is Silence.CLOSED:
            text = f"{self.how_it_ended()} while loading"
        raise CannotStartError(f"{self.spec} cannot be loaded: {text}")

    def await_session(self) -> None:
        """Wait for the next session of the loaded candidate; put limits on it."""
        self.session = 0
        message = self.receive((Session,), time.monotonic() + STARTING)
        if not isinstance(message, Session):
            raise CannotStartError(f"{self.spec}: its process starts no more sessions")
        pid = message.pid
        try:
            with suppress(ProcessLookupError):  # it may have died already
                if os.getsid(pid) != self.process.pid:
                    raise ReplyError(INTRUDED)
            system.limit(pid, self.memory)
        except PermissionError as e:  # the process of another user
            raise ReplyError(INTRUDED) from e
        self.session = pid
        self.earlier: list[tuple[Placed | str | None, Any]] = []
        self.most = system.resident(pid) + self.memory

    def receive(self, due: tuple[type[Message], ...], end: float) -> Message | Silence:
        """The next message but deeds, which are noted; see Channel.receive."""
        message = self.channel.receive(due, end, self.silence)
        while isinstance(message, ANY_TIME):
            self.note(message)
            if time.monotonic() > end:
                return Silence.LATE
            message = self.channel.receive(due, end, self.silence)
        return message

    def note(self, deed: Imports | Wrote | Started) -> None:
        """Keep what the candidate's process did beside answering."""
        if isinstance(deed, Imports):
            self.imports.add(deed.name)
        elif len(self.deeds) < DEEDS:
            self.deeds.append(deed)

    def silence(self) -> Silence | None:
        """What is seen from outside of a process that says nothing."""
        if self.session and system.resident(self.session) > self.most:
            return Silence.MEMORY
        # One that it started may hold the channel open.
        return Silence.CLOSED if system.ended(self.process.pid) else None

    def call(
        self,
        case: Case,
        which: str = "forward",
        at: int = 0,
        pattern: int = FIRST,
        ghost: bool = False,
    ) -> Outcome:
        """Call the candidate once and read back what it did.

        With `ghost` a function that does nothing is called in its place.
        """
        if self.over is not None:
            return replace(self.over, faults=list(self.over.faults))
        self.calls += 1
        request = self.request(case, which, at, pattern) | {"ghost": ghost}
        try:
            outcome = self.exchange(request)
        except ReplyError as e:
            outcome = Outcome("ok", faults=[str(e)])
            self.restart()
        outcome.faults += self.seen_from_outside()
        return outcome

    def request(self, case: Case, which: str, at: int, pattern: int) -> dict[str, Any]:
        """What the worker is told; the arrays are in place afterwards."""
        grad_y = case.grad_y if which == "grad" else None
        arrays = [case.raw(a) for a in (*case.inputs, grad_y)]
        given = dict(zip(NAMES, arrays, strict=True))
        entries = self.arena.place(given, case.layout, at)
        sizes = [a.nbytes for a in arrays if a is not None]
        x = arrays[0]
        assert x is not None
        y_bytes = int(np.prod(case.y_shape)) * x.itemsize
        self.arena.poison(y_bytes if which == "forward" else sum(sizes), pattern)
        return {
            "token": self.calls,
            "to": self.session,
            "call": which,
            "arrays": entries,
            "poison": pattern,
            "y_shape": case.y_shape,
            "dtype": x.dtype.name,
            "out_at": RESULTS,
            "earlier_at": EARLIER,
            "room": REGION,
            **case.windows,
        }

    def exchange(self, request: dict[str, Any]) -> Outcome:
        """Send a request and wait for what becomes of it, until one moment."""
        began = time.monotonic()
        end = began + self.timeout
        faults: list[str] = []
        reply = self.channel.ask(request) or self.receive((Reply, Died), end)
        while isinstance(reply, Reply) and reply.token < request["token"]:
            faults = [TWICE]
            late = time.monotonic() > end
            reply = Silence.LATE if late else self.receive((Reply, Died), end)
        seconds = time.monotonic() - began
        outcome = self.read(reply, request)
        outcome.seconds = seconds
        outcome.faults += faults
        return outcome

    def read(self, reply: Message | Silence, request: dict[str, Any]) -> Outcome:
        """The outcome that a message, or its absence, means."""
        limit = f"out of memory, with {self.memory / 2**30:.3g} GiB allowed"
        if reply is Silence.CLOSED:
            return self.ended()
        if reply is Silence.LATE:
            self.kill_session()
            return Outcome("timeout", f"no answer in {self.timeout:g} s")
        if reply is Silence.MEMORY:
            self.kill_session()
            return Outcome("crash", limit)
        if isinstance(reply, Died):
            self.renew()
            return Outcome("crash", ending(reply.code), signal=max(0, -reply.code))
        if not isinstance(reply, Reply) or reply.token != request["token"]:
            raise ReplyError(INTRUDED)
        status, text = reply.status, reply.text
        one = request["call"] == "forward"
        if status == "ok" and one and len(reply.results) != 1:
            raise ReplyError(INTRUDED)
        if status == "memory" or (status == "raised" and ran_out(text)):
            return Outcome("crash", f"{limit}: {text}")
        if status == "left":
            return Outcome("crash", f"left by {text}")
        outcome = Outcome("ok") if status == "ok" else Outcome("raised", text)
        if status == "broke":
            outcome = Outcome("ok", faults=[text])
        if reply.sender != self.session:
            outcome.faults.append("another process answered, as after a fork")
        if status == "ok":
            self.collect(reply.results, outcome)
        return outcome

    def collect(self, told: tuple[Placed | str | None, ...], outcome: Outcome) -> None:
        """Copy the results out; compare their memory with all that must differ."""
        results = self.arena.results(told)
        shared = self.arena.sharing(told, self.base)
        kept = [r for _, r in self.earlier if isinstance(r, np.ndarray)]
        now = self.arena.again(kept)
        outcome.results = results
        if shared:
            names = " and ".join(dict.fromkeys(shared))
            outcome.faults.append(f"the result shares memory with {names}")
        if any(a.tobytes() != b for a, b in zip(kept, now, strict=True)):
            outcome.faults.append("an earlier result changed: a reused buffer")
        elif any(overlap(one, other) for one in told for other, _ in self.earlier):
            outcome.faults.append("the result shares memory with an earlier one")
        # What lies in an input is overwritten by the next call's, no fault of that one.
        self.earlier = [] if shared else list(zip(told, results, strict=True))

    def seen_from_outside(self) -> list[str]:
        """Faults that no reply has to admit."""
        faults = [f"it changed its input {name}" for name in self.arena.changed()]
        size = os.fstat(self.log).st_size
        if size > self.noise:
            self.noise = size
            faults.append("it wrote to standard output")
        if self.gate:
            faults += self.gate.faults(self.imports, self.deeds)
        if not self.session:
            return faults
        home = self.gate.work if self.gate else system.directory(os.getpid())
        if system.directory(self.session) not in (home, None):
            faults.append("it changed the working directory")
        for pid in system.copies(self.session, self.process.pid):
            system.end(pid)
            faults.append("it left a fork of itself running")
        return faults

    def kill_session(self) -> None:
        """End a session that exceeded a limit, and have the next one."""
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(self.session) != self.process.pid:
                return self.restart()  # it went elsewhere, or another has its number
            os.kill(self.session, signal.SIGKILL)
        end = time.monotonic() + ENDING
        died = self.receive((Reply, Died), end)
        while isinstance(died, Reply):  # it answered after all, but too late
            late = time.monotonic() > end
            died = Silence.LATE if late else self.receive((Reply, Died), end)
        if isinstance(died, Died):
            self.renew()
        else:
            self.restart()

    def renew(self) -> None:
        """The next session, after one that is said to have died."""
        if system.running(self.session):
            raise ReplyError(INTRUDED)
        try:
            self.await_session()
        except CannotStartError:
            self.restart()

    def ended(self) -> Outcome:
        """The whole process is gone."""
        text = self.how_it_ended()
        self.restart()
        return Outcome("crash", text)

    def how_it_ended(self) -> str:
        """In words, of a process whose end of the channel is closed."""
        system.within(GRACE, lambda: system.ended(self.process.pid))
        alone = system.ended(self.process.pid)
        code = self.stop()
        if code is None or not alone:
            return "it closed the grader's channel"
        return ending(code)

    def restart(self) -> None:
        """A wholly new process; what cannot be started again answers no more."""
        self.stop()
        try:
            self.start()
        except ReplyError as e:
            self.over = Outcome("ok", faults=[str(e)])
        except CannotStartError as e:
            self.over = Outcome("crash", f"it cannot be started again: {e}")

    def stop(self) -> int | None:
        """End the process, all that it started, and the channel; its exit code."""
        pid = self.process.pid
        if not self.stopped:
            for one in system.descendants(pid) | {pid}:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(one, signal.SIGKILL)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            system.within(ENDING, lambda: self.process.poll() is not None)
            self.channel.close()
        self.session, self.stopped = 0, True
        return self.process.poll()

    def close(self) -> None:
        """End the process and release the shared memory."""
        if self.over is None:
            self.stop()
        self.over = self.over or Outcome("crash", "it is closed")
        self.release()

    def release(self) -> None:
        """Give the shared memory back, once."""
        if self.log >= 0:
            self.arena.close()
            self.files.cleanup()
            os.close(self.log)
            self.log = -1


def require_posix() -> None:
    """Raise CannotStartError where a candidate cannot have a process of its own."""
    lacking = [name for name in ("fcntl", "resource") if find_spec(name) is None]
    if lacking or not hasattr(os, "fork"):
        raise CannotStartError(
            "grading needs a POSIX system, such as Linux, macOS or WSL: a candidate "
            "runs in a process that is forked, limited and shares memory with the "
            f"grader, which {sys.platform} cannot do"
        )


def overlap(a: Placed | str | None, b: Placed | str | None) -> bool:
    """Whether two results have a byte of memory in common."""
    one, other = (r.span if isinstance(r, Placed) else None for r in (a, b))
    if one is None or other is None:
        return False
    return one[0] < other[1] and other[0] < one[1]
