"""The grader's side of the candidate's process.

The grader owns the file that holds all arrays, writes the inputs into it and
reads the results out of it; it compares the inputs' bytes itself after each
call. A session that dies or overruns its time costs that call a verdict, and
the next call runs in a new session.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refdcn.grading.candidates import Target
from refdcn.grading.cases import Array, Case

ARENA = 2**30  # bytes of the shared file; a sparse one, only used pages cost
RESULTS = 2**29  # where results begin


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


def bytes_of(array: Array, layout: str) -> tuple[bytes, tuple[int, ...], int]:
    """The memory image, strides and start of `array` in one layout."""
    if layout == "contiguous" or array.ndim < 4 or array.size == 0:
        a = np.ascontiguousarray(array)
        return a.tobytes(), a.strides, 0
    if layout == "channels last":
        a = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        return a.tobytes(), a.transpose(0, 3, 1, 2).strides, 0
    N, C, h, w = array.shape  # every second column of a larger array
    wide = np.full((N, C, h, 2 * w + 1), 7, array.dtype)
    wide[..., 1::2] = array
    return wide.tobytes(), wide[..., 1::2].strides, array.itemsize


class Process:
    """A candidate in a process of its own."""

    def __init__(self, spec: str, array: str = "numpy", timeout: float = 60.0) -> None:
        self.spec, self.array, self.timeout = spec, array, timeout
        self.calls = 0
        self.file = tempfile.TemporaryFile()
        self.file.truncate(ARENA)
        self.arena = mmap.mmap(self.file.fileno(), ARENA)
        self.log = tempfile.TemporaryFile()
        self.noise = 0  # bytes of standard output seen
        self.buffer = b""
        self.session = 0
        self.start()

    def start(self) -> None:
        """Start the process and wait until it has loaded the candidate."""
        into, self.out = os.pipe()
        self.back, out = os.pipe()
        fds = into, out, self.file.fileno()
        command = [sys.executable, "-m", "refdcn.grading.worker", self.spec]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            # Large blocks come from the heap, whose freed memory is poisoned.
            "MALLOC_MMAP_THRESHOLD_": str(2**26),
        }
        self.process: subprocess.Popen[bytes] | Child = subprocess.Popen(
            [*command, *map(str, fds), self.array],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        os.close(into)
        os.close(out)
        hello = self.receive(120)
        if hello is None or hello["status"] != "loaded":
            text = "it died while loading" if hello is None else hello.get("text", "")
            self.close()
            raise CannotStartError(f"{self.spec} cannot be loaded: {text}")
        self.has_grad = bool(hello["grad"])
        self.await_session()

    def await_session(self) -> None:
        """Wait for the next fork of the loaded candidate."""
        message = self.receive(60)
        if message is None or message["status"] != "session":
            raise CannotStartError(
                f"{self.spec}: its process no longer starts sessions"
            )
        self.session = message["pid"]

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, or None when time runs out or the channel closes."""
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.back], [], [], left)[0]:
                return None
            block = os.read(self.back, 65536)
            if not block:
                return None
            self.buffer += block
        line, self.buffer = self.buffer.split(b"\n", 1)
        message = json.loads(line)
        return message if isinstance(message, dict) else None

    def place(self, arrays: list[Array | None], layout: str, at: int) -> list[Any]:
        """Write the inputs into the shared file from byte `at` on."""
        entries: list[Any] = []
        for a in arrays:
            if a is None:
                entries.append(None)
                continue
            image, strides, start = bytes_of(a, layout)
            self.arena[at : at + len(image)] = image
            entries.append(
                {
                    "dtype": a.dtype.name,
                    "shape": list(a.shape),
                    "strides": list(strides),
                    "at": at + start,
                    "image": (at, image),
                }
            )
            at += len(image) + 64 - len(image) % 64
        return entries

    def call(
        self, case: Case, which: str = "forward", at: int = 0, pattern: int = 0xFF
    ) -> Outcome:
        """Call the candidate once and read back what it did."""
        self.calls += 1
        token = f"{os.urandom(8).hex()}"
        arrays = [*case.inputs, case.grad_y if which == "grad" else None]
        entries = self.place(arrays, case.layout, at)
        images = {
            name: e.pop("image")
            for name, e in zip(
                ("x", "offset", "weight", "mask", "bias", "grad_y"),
                entries,
                strict=True,
            )
            if e
        }
        request = {
            "token": token,
            "call": which,
            "arrays": entries,
            "out_at": RESULTS,
            "poison": pattern,
            "poison_shape": list(case.y_shape),
            "dtype": case.x.dtype.name,
            **case.windows,
        }
        began = time.monotonic()
        os.write(self.out, json.dumps(request).encode() + b"\n")
        reply = self.receive(self.timeout)
        outcome = self.read(reply, token)
        outcome.seconds = time.monotonic() - began
        outcome.faults += self.faults(images)
        return outcome

    def read(self, reply: dict[str, Any] | None, token: str) -> Outcome:
        """The outcome that a reply, or its absence, means."""
        if reply is None:
            return self.overrun()
        if reply["status"] == "died":
            self.await_session()
            return Outcome("crash", ending(reply["code"]))
        if reply.get("token") != token:
            return Outcome("crash", "it wrote to the grader's channel")
        if reply["status"] != "ok":
            return Outcome(reply["status"], reply.get("text", ""))
        outcome = Outcome("ok")
        for r in reply["results"]:
            outcome.results.append(self.result(r, outcome.faults))
        if reply["stale"]:
            outcome.faults.append("an earlier result changed: a reused buffer")
        elif reply["reused"]:
            outcome.faults.append("the result shares memory with an earlier one")
        if reply["moved"]:
            outcome.faults.append("it changed the working directory")
        return outcome

    def result(self, r: dict[str, Any], faults: list[str]) -> Any:
        """One returned array, copied out; other objects become a description."""
        if r["type"] != "array":
            return None if r["type"] == "None" else r["type"]
        if r["aliases"]:
            faults.append(f"the result shares memory with {' and '.join(r['aliases'])}")
        n = int(np.prod(r["shape"]))
        a = np.frombuffer(self.arena, r["dtype"], n, r["at"])
        return a.reshape(r["shape"]).copy()

    def faults(self, images: dict[str, tuple[int, bytes]]) -> list[str]:
        """Inputs that changed and output that was printed."""
        faults = [
            f"it changed its input {name}"
            for name, (at, image) in images.items()
            if self.arena[at : at + len(image)] != image
        ]
        size = os.fstat(self.log.fileno()).st_size
        if size > self.noise:
            self.noise = size
            faults.append("it wrote to standard output")
        return faults

    def overrun(self) -> Outcome:
        """Kill the session that did not answer."""
        if self.process.poll() is not None:
            code = self.process.returncode
            self.restart()
            return Outcome("crash", ending(code))
        try:
            os.kill(self.session, signal.SIGKILL)
        except ProcessLookupError:
            pass
        died = self.receive(10)
        if died is None or died["status"] != "died":
            self.restart()
        else:
            self.await_session()
        return Outcome("timeout", f"no answer in {self.timeout:g} s")

    def restart(self) -> None:
        """A wholly new process."""
        self.stop()
        self.buffer = b""
        self.start()

    def stop(self) -> None:
        """End the process, its session and the pipes."""
        for pid in (self.process.pid, self.session):
            try:
                if pid and (pid == self.session or self.process.poll() is None):
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        for fd in (self.out, self.back):
            os.close(fd)

    def close(self) -> None:
        """End the process and release the shared file."""
        self.stop()
        self.arena.close()
        self.file.close()
        self.log.close()


class Child:
    """A forked process, with the part of subprocess.Popen that is used here."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, 0
        self.ended = False

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.returncode if self.ended or self.reap(os.WNOHANG) else None

    def wait(self) -> int:
        """Its exit code, once it has one."""
        if not self.ended:
            self.reap(0)
        return self.returncode

    def reap(self, flags: int) -> bool:
        """Whether it has ended."""
        pid, status = os.waitpid(self.pid, flags)
        if pid:
            self.ended, self.returncode = True, os.waitstatus_to_exitcode(status)
        return self.ended


class Forked(Process):
    """A function that no other process can import, in a fork of this one."""

    def __init__(
        self,
        forward: Callable[..., Any],
        grad: Callable[..., Any] | None = None,
        timeout: float = 60.0,
    ) -> None:
        name = getattr(forward, "__qualname__", "candidate")
        self.target = Target(name, forward, grad)
        super().__init__(name, timeout=timeout)

    def start(self) -> None:
        """Fork; the child answers until the channel closes."""
        into, self.out = os.pipe()
        self.back, out = os.pipe()
        with warnings.catch_warnings():
            # Threads of this process do not exist in the fork, which only
            # calls the candidate: that is what the caller asked for.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            self.serve(into, out)
        os.close(into)
        os.close(out)
        self.process = Child(pid)
        self.has_grad = self.target.grad is not None
        self.await_session()

    def serve(self, into: int, out: int) -> None:
        """The child's whole life."""
        from refdcn.grading import worker

        try:
            os.setsid()
            os.close(self.out)
            os.close(self.back)
            os.dup2(self.log.fileno(), 1)
            sys.stdout = open(1, "w", closefd=False)
            requests, replies = open(into), open(out, "w")
            session = worker.Session(self.target, self.arena)
            worker.supervise(lambda: worker.serve(session, requests, replies), replies)
        finally:
            os._exit(0)


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

    def __init__(
        self, forward: Callable[..., Any], grad: Callable[..., Any] | None = None
    ) -> None:
        self.forward, self.grad = forward, grad
        self.has_grad = grad is not None

    def call(
        self, case: Case, which: str = "forward", at: int = 0, pattern: int = 0xFF
    ) -> Outcome:
        """Call it on copies and compare the copies afterwards."""
        names = ("grad_y", "x", "offset", "weight", "mask", "bias")
        arrays = [case.grad_y, *case.inputs][0 if which == "grad" else 1 :]
        given = [None if a is None else relaid(a, case.layout) for a in arrays]
        f = self.grad if which == "grad" else self.forward
        assert f is not None
        try:
            with np.errstate(all="ignore"):
                result = f(*given, **case.windows)
        except Exception as e:
            return Outcome("raised", f"{type(e).__name__}: {e}")
        outs = list(result) if which == "grad" else [result]
        outcome = Outcome("ok", results=outs)
        for name, a, b in zip(names[-len(given) :], arrays, given, strict=True):
            if a is not None and a.tobytes() != np.ascontiguousarray(b).tobytes():
                outcome.faults.append(f"it changed its input {name}")
            arrays_out = [o for o in outs if isinstance(o, np.ndarray)]
            if b is not None and any(np.may_share_memory(o, b) for o in arrays_out):
                outcome.faults.append(f"the result shares memory with {name}")
        return outcome

    def close(self) -> None:
        """Nothing to release."""


def relaid(array: Array, layout: str) -> Array:
    """A copy of `array` in one layout."""
    image, strides, start = bytes_of(array, layout)
    buffer = np.frombuffer(bytearray(image), np.uint8)
    return np.ndarray(array.shape, array.dtype, buffer, start, strides)
