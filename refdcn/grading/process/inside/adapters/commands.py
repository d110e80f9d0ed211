"""A program in any language: it reads a file of arrays and writes another.

Imported in the candidate's process only, or pasted into a script; it needs nothing
but NumPy. A program that dies takes its caller along, as a function would.
"""

from __future__ import annotations

import errno
import math
import os
import re
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

PLACE = re.compile(r"\{(in|out|call)(\.npz|\.safetensors)?\}")
SERVE = re.compile(r"--serve(?:=(npz|safetensors))?")
GREETING = re.compile(rb"refdcn 1 forward( backward)?")
INPUTS = "x", "offset", "weight", "mask", "bias"
LONGEST = 4096  # bytes of a line
SIGNALLED = 128  # a shell's exit status where a signal ended a program: 128 + number


class NonsenseError(RuntimeError):
    """It says what nobody asked for."""

    breach = True


class NoArray:
    """What is in the place of a result, told in its words."""

    in_its_place = True

    def __init__(self, text: str) -> None:
        self.text = text


def perish(code: int) -> None:
    """End this process as another ended."""
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        time.sleep(1)
    os._exit(code & 0xFF)


class Command:
    """A program that is started for each call."""

    def __init__(self, template: str, folder: str | None, before: Any) -> None:
        self.words, self.before = shlex.split(template), before
        self.holder = tempfile.TemporaryDirectory(prefix="cmd-", dir=folder)
        self.folder = self.holder.name
        places = {m[1]: m for word in self.words for m in PLACE.finditer(word)}
        self.ending = {name: m[2] or ".npz" for name, m in places.items()}
        self.backward = "call" in places

    def start(self, words: list[str], **pipes: Any) -> Any:
        """The program; ImportError says why there is none."""
        try:
            return subprocess.Popen(words, preexec_fn=self.before, **pipes)
        except OSError as e:
            why = f"{words[0]} cannot be started: {e.strerror}"
            if e.errno == errno.ENOEXEC:
                why += "; it is for another machine, or a script without #! on top"
            if e.errno == errno.ENOENT and os.path.exists(words[0]):
                why += "; it is there, but its loader, or what #! names, is not"
            raise ImportError(why) from None

    def try_out(self) -> None:
        """See that it can be started, and that it does nothing else yet."""
        words = [PLACE.sub("nothing", word) for word in self.words]
        null = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        child = self.start(words, **null)
        child.kill()
        child.wait()

    def paths(self) -> tuple[str, str]:
        """Where the arrays are, and where those that come back must be."""
        given, made = (
            os.path.join(self.folder, name + self.ending[name])
            for name in ("in", "out")
        )
        if os.path.lexists(made):
            os.remove(made)
        return given, made

    def run(self, call: str, given: str, made: str) -> None:
        """One call, from its start to its end."""
        place = {"call": call, "in": given, "out": made}
        words = [PLACE.sub(lambda m: place[m[1]], word) for word in self.words]
        with tempfile.TemporaryFile(dir=self.folder) as errors:
            null = dict.fromkeys(("stdin", "stdout"), subprocess.DEVNULL)
            code = self.start(words, stderr=errors, **null).wait()
            errors.seek(max(0, errors.tell() - LONGEST))
            said = errors.read().decode(errors="replace").split("\n")
        if code > SIGNALLED and code - SIGNALLED in set(signal.Signals):
            code = SIGNALLED - code
        if code < 0:
            perish(code)
        if code:
            last = next((line.strip() for line in reversed(said) if line.strip()), "")
            raise RuntimeError(f"exit status {code}" + (last and f": {last}"))


class Server(Command):
    """A program that is started once and answers line by line."""

    def __init__(self, template: str, folder: str | None, before: Any) -> None:
        super().__init__(template, folder, before)
        found = [SERVE.fullmatch(word) for word in self.words]
        ending = next(m[1] or "npz" for m in found if m)
        self.ending = {"in": f".{ending}", "out": f".{ending}"}
        self.child: Any = None
        self.held = b""

    def begin(self) -> bytes | None:
        """Start it; its first line."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        pipes.update(stderr=subprocess.DEVNULL, bufsize=0)
        self.child = self.start(self.words, **pipes)
        self.held = b""
        return self.line()

    def end(self) -> None:
        """Kill it; the next call starts it anew."""
        child, self.child = self.child, None
        child.kill()
        child.communicate()

    def try_out(self) -> None:
        """Hear what it can do."""
        first = self.begin()
        if first is None:
            code = self.child.wait()
            raise ImportError(f"it ended with status {code} before its first line")
        greeting = GREETING.fullmatch(first)
        if greeting is None:
            raise ImportError(
                f"its first line is {shown(first)}; it must be 'refdcn 1 forward' or "
                "'refdcn 1 forward backward', by what it computes"
            )
        self.backward = greeting[1] is not None
        self.end()

    def line(self) -> bytes | None:
        """What it says next; None once it says no more."""
        while b"\n" not in self.held and len(self.held) <= LONGEST:
            block = os.read(self.child.stdout.fileno(), LONGEST)
            if not block:
                return None
            self.held += block
        line, _, self.held = self.held.partition(b"\n")
        return line.rstrip(b"\r")

    def check_silence(self) -> None:
        """Raise NonsenseError if more has come than was asked for."""
        ready, _, _ = select.select([self.child.stdout], [], [], 0)
        more = self.held or (ready and os.read(self.child.stdout.fileno(), LONGEST))
        if more:
            self.end()
            raise NonsenseError(f"it said {shown(more.strip())} when nothing was asked")

    def run(self, call: str, given: str, made: str) -> None:
        """One line there, and one back."""
        if self.child is None:
            self.begin()
        self.check_silence()
        try:
            self.child.stdin.write(f"{call}\t{given}\t{made}\n".encode())
        except BrokenPipeError:
            perish(self.child.wait())
        answer = self.line()
        if answer is None:
            perish(self.child.wait())
        elif answer.startswith(b"error"):
            raise RuntimeError(answer[5:].decode(errors="replace").strip())
        elif answer != b"ok":
            self.end()
            raise NonsenseError(f"its answer is {shown(answer)}, neither ok nor error")
        self.check_silence()


def shown(line: bytes) -> str:
    """A line, and not all of a long one."""
    return repr(line[:60].decode(errors="replace"))


def described(inputs: Any, windows: Any) -> dict[str, Any]:
    """The arrays of a call by name; what is None is left out."""
    x, offset, weight = inputs[:3]
    given = {n: a for n, a in zip(INPUTS, inputs) if a is not None}  # noqa: B905
    sizes = {
        **windows,
        "groups": x.shape[1] // max(1, weight.shape[1]),
        "offset_groups": offset.shape[1] // max(1, 2 * math.prod(weight.shape[2:])),
    }
    return {**given, **{name: np.array(n, np.int64) for name, n in sizes.items()}}


def kind_of(template: str) -> type[Command]:
    """How it is called; ImportError where it says neither way, or both."""
    try:
        words = shlex.split(template)
    except ValueError as e:
        raise ImportError(f"the command {template} cannot be read: {e}") from None
    found = {m[1] for word in words for m in PLACE.finditer(word)}
    served = any(SERVE.fullmatch(word) for word in words)
    if served and not found:
        return Server
    if not served and {"in", "out"} <= found and not PLACE.search(words[0]):
        return Command
    raise ImportError(
        "a command must hold {in} and {out}, the files that it reads and writes, or "
        f"--serve alone, to be told them line by line; this is {template!r}"
    )


def functions(
    template: str,
    files: Any,
    folder: str | None = None,
    before: Callable[[], Any] | None = None,
) -> tuple[Callable[..., Any], Any]:
    """A program as a function on arrays, and its companion or None.

    files: the module that reads and writes them. folder: where they are. before:
    called in each program's process, before it is the program.
    """
    program = kind_of(template)(template, folder, before)
    program.try_out()

    def answer(call: str, arrays: dict[str, Any]) -> Any:
        given, made = program.paths()
        files.write(given, arrays)
        program.run(call, given, made)
        try:
            found = files.read(made)
            others = ", ".join(sorted(found)) or "nothing"
            missing = NoArray(f"not in the file, which holds {others}")
        except ValueError as e:
            found, missing = {}, NoArray(str(e))
        return lambda name: found.get(name, missing)

    def forward(*inputs: Any, **windows: Any) -> Any:
        return answer("forward", described(inputs, windows))("y")

    def backward(grad_y: Any, *inputs: Any, **windows: Any) -> list[Any]:
        arrays = {**described(inputs, windows), "grad_y": grad_y}
        get = answer("backward", arrays)
        grads = [(get(f"grad_{name}"), a) for name, a in zip(INPUTS, inputs)]  # noqa: B905
        return [None if type(g) is NoArray and a is None else g for g, a in grads]

    return forward, backward if program.backward else None


def attach(place: str, how: Any) -> Any:
    """The target; called in the candidate's process."""
    from ..confinement import die_with_parent
    from ..routes import SpecError, Target
    from . import tensor_files

    folder = os.environ.get("REFDCN_FILES")
    try:
        found = functions(place, tensor_files, folder, die_with_parent)
    except ImportError as e:
        raise SpecError(str(e)) from e
    return Target(place, *found)
