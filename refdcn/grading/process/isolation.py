"""The grader's side of the candidate's process.

Whatever decides a verdict is read here, out of the candidate's reach: inputs,
guards and results in the grader's memory, addresses compared, the clock, the
process's directory, children and memory. A session that dies or overruns a
limit costs that call a verdict, and the next call runs in a new session.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refdcn.grading.expected.case import Array, Case
from refdcn.grading.process import watch
from refdcn.grading.process.arena import (
    EARLIER,
    REGION,
    RESULTS,
    Arena,
    ReplyError,
    Span,
    bytes_of,
    sealed,
    span_of,
)
from refdcn.grading.process.inside.candidates import adapted

WORKER = Path(__file__).parent / "inside" / "worker.py"
SECONDS, MEMORY = 60.0, 4 * 2**30  # of one call, unless told otherwise
LOADING = 120.0  # seconds to import a candidate
TICK = 0.05  # seconds between two looks at its memory
LONGEST = 2**20  # bytes of a reply
FIRST, SECOND = 0xFE, 0x41  # patterns of fresh memory: huge, and about 12
NAMES = "x", "offset", "weight", "mask", "bias", "grad_y"
INTRUDED = "something else than its answer came over the grader's channel"


class CannotStartError(RuntimeError):
    """The candidate could not be loaded at all."""


@dataclass
class Outcome:
    """What one call did; `results` only when `status` is "ok"."""

    status: str  # ok, raised, crash, timeout
    text: str = ""
    results: list[Any] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Process:
    """A candidate in a process of its own."""

    def __init__(
        self,
        spec: str,
        array: str = "numpy",
        timeout: float = SECONDS,
        memory: int = MEMORY,
        meanwhile: Iterator[None] | None = None,
    ) -> None:
        self.spec, self.array = spec, array
        self.timeout, self.memory = timeout, memory
        self.calls = 0
        self.arena = Arena()
        self.log = sealed("output")
        self.imports: set[str] = set()  # references it loaded
        self.confined = False
        self.dead = ""  # why it answers no more
        self.meanwhile = meanwhile or iter(())  # work to do while the candidate loads
        self.start()

    def start(self) -> None:
        """Start the process and wait until it has loaded the candidate."""
        into, self.out = os.pipe()
        self.back, out = os.pipe()
        self.buffer = b""
        self.session = 0
        self.process = self.launch(into, out)
        os.close(into)
        os.close(out)
        while not self.readable(0) and next(self.meanwhile, self) is None:
            pass
        try:
            hello = self.receive(LOADING)
        except ReplyError as e:
            hello = {"status": "unloadable", "text": str(e)}
        if hello["status"] != "loaded":
            text = hello.get("text", "it died or hung while loading")
            self.close()
            raise CannotStartError(f"{self.spec} cannot be loaded: {text}")
        self.has_grad, self.base = bool(hello["grad"]), int(hello["base"])
        self.confined = bool(hello["confined"])
        self.noise = os.fstat(self.log).st_size  # bytes of output seen
        self.await_session()

    def launch(self, into: int, out: int) -> subprocess.Popen[bytes] | Child:
        """The new process; `into` and `out` are its ends of the channel."""
        fds = into, out, self.arena.fd
        # -P: the worker's own folder is no place to import from.
        command = [sys.executable, "-P", str(WORKER), self.spec, self.array]
        # Small cases: threads that wait awake would cost more than they compute.
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ.copy()
        environment |= {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            # Large blocks come from the heap, whose freed memory is poisoned.
            "MALLOC_MMAP_THRESHOLD_": str(2**26),
        }
        return subprocess.Popen(
            [*command, *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    def await_session(self) -> None:
        """Wait for the next fork of the loaded candidate; put limits on it."""
        message = self.receive(SECONDS)
        pid = message.get("pid")
        if message["status"] != "session" or not isinstance(pid, int):
            raise CannotStartError(f"{self.spec}: its process starts no more sessions")
        with suppress(ProcessLookupError):  # it may have died already
            if os.getsid(pid) != self.process.pid:
                raise CannotStartError(f"{self.spec}: it named a process not its own")
        self.session = pid
        self.earlier: list[tuple[Span | None, Any]] = []
        watch.limit(pid, self.memory)
        self.most = watch.resident(pid) + self.memory

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next message, or a status that says why there is none."""
        end = time.monotonic() + seconds
        while (message := self.next_message()) is None:
            left = end - time.monotonic()
            if left <= 0:
                return {"status": "timeout"}
            if not self.readable(min(left, TICK)):
                if self.session and watch.resident(self.session) > self.most:
                    return {"status": "memory"}
                continue
            block = os.read(self.back, 65536)
            if not block:
                return {"status": "closed"}
            self.buffer += block
        return message

    def readable(self, seconds: float) -> bool:
        """Whether something has come, or comes in time."""
        ready = select.poll()
        ready.register(self.back, select.POLLIN)
        return bool(ready.poll(1000 * seconds))

    def next_message(self) -> dict[str, Any] | None:
        """A message that has come already; imports are noted on the way."""
        while b"\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\n", 1)
            try:
                message = json.loads(line)
                status = message["status"]
            except (ValueError, TypeError, KeyError, RecursionError) as e:
                raise ReplyError(INTRUDED) from e
            if status != "imports":
                return dict(message)
            self.imports.add(str(message.get("name")))
        if len(self.buffer) > LONGEST:
            raise ReplyError(INTRUDED)
        return None

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
        if self.dead:
            return Outcome("crash", self.dead)
        self.calls += 1
        request = self.request(case, which, at, pattern) | {"ghost": ghost}
        try:
            outcome = self.exchange(request)
        except ReplyError:
            outcome = Outcome("ok", faults=[INTRUDED])
            self.restart()
        except CannotStartError as e:
            outcome = Outcome("crash", str(e))
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
        """Send a request and wait for what becomes of it."""
        began = time.monotonic()
        try:
            os.write(self.out, json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return self.ended()
        faults: list[str] = []
        reply = self.receive(self.timeout)
        while 0 < reply.get("token", 0) < request["token"]:
            faults.append("a call was answered twice, as after a fork")
            reply = self.receive(self.timeout)
        seconds = time.monotonic() - began
        outcome = self.read(reply, request["token"])
        outcome.seconds = seconds
        outcome.faults += faults
        return outcome

    def read(self, reply: dict[str, Any], token: int) -> Outcome:
        """The outcome that a reply, or its absence, means."""
        status, text = reply["status"], str(reply.get("text", ""))
        if status == "closed":
            return self.ended()
        if status == "timeout":
            return self.overrun(Outcome(status, f"no answer in {self.timeout:g} s"))
        if status == "died":
            self.await_session()
            return Outcome("crash", ending(reply["code"]))
        limit = f"out of memory, with {self.memory / 2**30:.3g} GiB allowed"
        if status == "memory" and "token" not in reply:
            return self.overrun(Outcome("crash", limit))
        if reply.get("token") != token:
            raise ReplyError(INTRUDED)
        if status == "memory" or (status == "raised" and ran_out(text)):
            return Outcome("crash", f"{limit}: {text}")
        if status == "left":
            return Outcome("crash", f"left by {text}")
        outcome = Outcome("ok") if status == "ok" else Outcome("raised", text)
        if reply.get("from") != self.session:
            outcome.faults.append("another process answered, as after a fork")
        if status == "ok":
            self.collect(reply["results"], outcome)
        return outcome

    def collect(self, told: list[dict[str, Any]], outcome: Outcome) -> None:
        """Copy the results out; compare their memory with all that must differ."""
        try:
            results = self.arena.results(told, RESULTS)
            shared = self.arena.sharing(told, self.base)
            spans = [span_of(one) for one in told]
            kept = [r for _, r in self.earlier if isinstance(r, np.ndarray)]
            now = self.arena.again(kept)
        except (KeyError, TypeError, ValueError, OverflowError) as e:
            raise ReplyError(INTRUDED) from e
        outcome.results = results
        if shared:
            names = " and ".join(dict.fromkeys(shared))
            outcome.faults.append(f"the result shares memory with {names}")
        if any(a.tobytes() != b for a, b in zip(kept, now, strict=True)):
            outcome.faults.append("an earlier result changed: a reused buffer")
        elif any(overlap(s, t) for s in spans for t, _ in self.earlier):
            outcome.faults.append("the result shares memory with an earlier one")
        # What lies in an input is overwritten by the next call's, no fault of that one.
        self.earlier = [] if shared else list(zip(spans, results, strict=True))

    def seen_from_outside(self) -> list[str]:
        """Faults that no reply has to admit."""
        faults = [f"it changed its input {name}" for name in self.arena.changed()]
        size = os.fstat(self.log).st_size
        if size > self.noise:
            self.noise = size
            faults.append("it wrote to standard output")
        home = watch.directory(os.getpid())
        if watch.directory(self.session) not in (home, None):
            faults.append("it changed the working directory")
        for pid in watch.copies(self.session, self.process.pid):
            watch.end(pid)
            faults.append("it left a fork of itself running")
        return faults

    def overrun(self, outcome: Outcome) -> Outcome:
        """Kill the session that exceeded a limit."""
        with suppress(ProcessLookupError):
            if os.getsid(self.session) != self.process.pid:
                self.restart()
                return outcome
            os.kill(self.session, signal.SIGKILL)
        died = self.receive(10)
        while died["status"] not in ("died", "timeout", "closed"):
            died = self.receive(10)  # it answered after all, but too late
        if died["status"] == "died":
            self.await_session()
        else:
            self.restart()
        return outcome

    def ended(self) -> Outcome:
        """The whole process is gone."""
        self.stop()
        code = self.process.wait()
        self.revive()
        return Outcome("crash", ending(code))

    def restart(self) -> None:
        """A wholly new process."""
        self.stop()
        self.revive()

    def revive(self) -> None:
        """Start again; what cannot be started any more crashes in each call."""
        try:
            self.start()
        except (CannotStartError, ReplyError) as e:
            self.dead = f"it cannot be started again: {e}"

    def stop(self) -> None:
        """End the process, all that it started, and the pipes."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for fd in (self.out, self.back):
            with suppress(OSError):
                os.close(fd)

    def close(self) -> None:
        """End the process and release the shared memory."""
        if not self.dead:
            self.stop()
            self.arena.close()
            os.close(self.log)
        self.dead = self.dead or "it is closed"


class Child:
    """A forked process, with the part of subprocess.Popen that is used here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None

    def wait(self) -> int:
        """Its exit code, once it has one."""
        if self.code is None:
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        return self.code


class Forked(Process):
    """A function that no other process can import, in a fork of this one."""

    def __init__(
        self,
        forward: Callable[..., Any],
        grad: Callable[..., Any] | None = None,
        array: str = "numpy",
        timeout: float = SECONDS,
        memory: int = MEMORY,
    ) -> None:
        name = getattr(forward, "__qualname__", "candidate")
        self.target = adapted(name, forward, grad, array)
        super().__init__(name, array, timeout, memory)

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
        from refdcn.grading.process.inside import confinement, worker

        try:
            faulthandler.disable()  # how it died, the report says
            os.setsid()
            confinement.die_with_parent()
            locked = confinement.enter_domain()
            os.close(self.out)
            os.close(self.back)
            os.dup2(self.log, 1)
            sys.stdout = open(1, "w", closefd=False)
            arena = self.arena.map, self.arena.base
            worker.begin(self.target, *arena, into, out, locked)
        finally:
            os._exit(0)


def overlap(a: Span | None, b: Span | None) -> bool:
    """Whether two pieces of memory have a byte in common."""
    return a is not None and b is not None and a[0] < b[1] and b[0] < a[1]


def ran_out(text: str) -> bool:
    """Whether an error's text says that memory was refused."""
    said = text.lower()
    words = "out of memory", "allocate memory", "bad_alloc", "unable to allocate"
    return any(word in said for word in words)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"its process exited with status {code}"


class InProcess:
    """A trusted function, called in this process (self-tests and panels)."""

    imports: frozenset[str] = frozenset()
    confined = False

    def __init__(
        self, forward: Callable[..., Any], grad: Callable[..., Any] | None = None
    ) -> None:
        self.forward, self.grad = forward, grad
        self.has_grad = grad is not None

    def call(
        self,
        case: Case,
        which: str = "forward",
        at: int = 0,
        pattern: int = FIRST,
        ghost: bool = False,
    ) -> Outcome:
        """Call it on copies and compare the copies afterwards."""
        if ghost:
            return Outcome("ok", results=[np.full(case.y_shape, np.nan, case.x.dtype)])
        arrays = dict(zip(NAMES, map(case.raw, case.inputs), strict=False))
        if which == "grad":
            arrays = {"grad_y": case.raw(case.grad_y)} | arrays
        given = {
            k: None if a is None else relaid(a, case.layout) for k, a in arrays.items()
        }
        f = self.grad if which == "grad" else self.forward
        assert f is not None
        try:
            with np.errstate(all="ignore"):
                result = f(*given.values(), **case.windows)
        except Exception as e:
            return Outcome("raised", f"{type(e).__name__}: {e}")
        outs = list(result) if which == "grad" else [result]
        return Outcome("ok", results=outs, faults=done_to(arrays, given, outs))

    def close(self) -> None:
        """Nothing to release."""


def relaid(array: Array, layout: str) -> Array:
    """A copy of `array` in one layout."""
    image, strides, start = bytes_of(array, layout)
    buffer = np.frombuffer(bytearray(image), np.uint8)
    return np.ndarray(array.shape, array.dtype, buffer, start, strides)


def done_to(
    before: dict[str, Array | None], after: dict[str, Array | None], outs: list[Any]
) -> list[str]:
    """The inputs that a call changed, or whose memory it returned."""
    faults = []
    made = [o for o in outs if isinstance(o, np.ndarray)]
    for name, a in before.items():
        b = after[name]
        if a is None or b is None:
            continue
        if a.tobytes() != b.tobytes():
            faults.append(f"it changed its input {name}")
        if any(np.may_share_memory(o, b) for o in made):
            faults.append(f"the result shares memory with {name}")
    return faults
