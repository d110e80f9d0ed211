"""The candidate's side: loads it, and answers calls until its channel closes.

Started by its path, so that nothing of refdcn is in the candidate's process
unless the candidate imports it; Python 3.8 and NumPy 1.20 are enough. After loading,
each session runs in a fork: a call that kills its session costs no second import.
Threads that the import left running would not come along, so with such the process
is itself the only session, and the grader starts another one after it.

Requests and replies are JSON lines, arrays lie in memory that the grader owns.
The candidate shares this process and can forge all that is said here; so this
side decides nothing. It copies results out and says where they lay.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from refdcn.grading.process.inside import confinement, fetched, routes

    Message = dict[str, Any]
elif __package__:
    from refdcn.grading.process.inside import confinement, fetched, routes
else:  # this folder as a package of its own, without refdcn around it
    ALONE = types.ModuleType("candidate_side")
    ALONE.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules[ALONE.__name__] = ALONE
    confinement = import_module("candidate_side.confinement")
    fetched = import_module("candidate_side.fetched")
    routes = import_module("candidate_side.routes")

WINDOWS = "stride", "padding", "dilation"
LONGEST = 1000  # characters of an error's text
LARGE = 2**20  # bytes of a block that only malloc can give
MOST = 16  # results of one call
NUMBERS = "biufc"  # kinds of dtypes whose memory is numbers alone


def send(replies: int, message: Message) -> None:
    """One line; a short write to a pipe is never torn."""
    os.write(replies, json.dumps(message).encode() + b"\n")


def lines(requests: int) -> Iterator[bytes]:
    """What the grader asks, until it closes the channel."""
    waiting = b""
    while block := os.read(requests, 65536):
        *whole, waiting = (waiting + block).split(b"\n")
        yield from whole


def view(arena: mmap.mmap, entry: Message | None) -> Any:
    """The array that one JSON entry describes, in the shared memory."""
    if entry is None:
        return None
    shape, strides = entry["shape"], tuple(entry["strides"])
    return np.ndarray(shape, entry["dtype"], arena, entry["at"], strides)


def poison(shape: Sequence[int], dtype: Any, pattern: int) -> None:
    """Fill the memory that the allocators will hand out next.

    What a candidate leaves unwritten in its result then differs between two
    calls with two patterns. NumPy keeps small blocks itself, hence the arrays.
    """
    held = [np.empty(shape, dtype) for _ in range(3)]
    if held[0].nbytes > LARGE:
        return
    for a in held:
        a.reshape(-1).view(np.uint8)[...] = pattern


def perform(target: routes.Target, request: Message, inputs: list[Any]) -> Any:
    """The candidate's answer, or a no-op's in its place."""
    outs: list[Any] = [(request["y_shape"], request["dtype"])]
    if request["call"] == "grad":
        outs = [None if a is None else (a.shape, a.dtype) for a in inputs[:5]]
    confinement.fill_fresh_memory(request["poison"])
    fill, empty = poison, np.empty
    if target.device is not None:
        fill, empty = target.device.poison, target.device.empty
    for out in outs:
        if out is not None:
            fill(out[0], out[1], request["poison"])
    if request["ghost"]:
        made = [None if out is None else empty(*out) for out in outs]
        return made if request["call"] == "grad" else made[0]
    windows = {k: tuple(request[k]) for k in WINDOWS}
    if request["call"] == "forward":
        return target.forward(*inputs[:5], **windows)
    assert target.grad is not None
    return target.grad(inputs[5], *inputs[:5], **windows)


def fact(a: Any, arena: mmap.mmap, at: int, room: int) -> tuple[Message | None, int]:
    """What one result is and where it lay; its bytes go into the arena at `at`."""
    if a is None:
        return None, at
    place = a if type(a) is fetched.Fetched else None
    a = a.read() if place else a
    kind = type(a)
    # A subclass could compute when it is looked at, after the clock has stopped.
    if kind is not np.ndarray or a.dtype.kind not in NUMBERS or at + a.nbytes > room:
        text = f"{kind.__module__}.{kind.__qualname__}"
        if getattr(kind, "in_its_place", False):  # an adapter knows what came instead
            text = a.text
        if kind is np.ndarray:
            text += f" of {a.dtype.name} {list(a.shape)}"
        return {"object": text}, at
    bits = a.tobytes()
    arena[at : at + len(bits)] = bits
    told = {
        "dtype": a.dtype.str,
        "shape": a.shape,
        "strides": place.strides if place else a.strides,
        "address": place.address if place else a.__array_interface__["data"][0],
    }
    return {"array": told}, at + len(bits)


def said(e: BaseException) -> str:
    """An exception as text, even one that cannot be printed."""
    try:
        return f"{type(e).__name__}: {e}"[:LONGEST]
    except BaseException:
        return type(e).__name__


def flush() -> None:
    """Let what was printed become visible to the grader."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            continue


def answer(
    target: routes.Target, arena: mmap.mmap, request: Message, earlier: list[Any]
) -> Message:
    """Call the candidate once; `earlier` holds the last results, then these."""
    inputs = [view(arena, a) for a in request["arrays"]]
    try:
        result = perform(target, request, inputs)
    except MemoryError as e:
        return {"status": "memory", "text": said(e)}
    except Exception as e:
        if getattr(type(e), "breach", False):  # an adapter saw it
            return {"status": "broke", "text": str(e)[:LONGEST]}
        return {"status": "raised", "text": said(e)}
    except BaseException as e:
        return {"status": "left", "text": said(e)}
    kind = next((k for k in (tuple, list) if issubclass(type(result), k)), None)
    results = [result]
    if request["call"] == "grad" and kind is not None:
        results = list(kind.__iter__(result))[:MOST]  # a subclass may iterate otherwise
    for outs, at in ((earlier, request["earlier_at"]), (results, request["out_at"])):
        told, end = [], at + request["room"]
        for a in outs:
            one, at = fact(a, arena, at, end)
            told.append(one)
    earlier[:] = results  # kept alive, so that their memory is not used again
    return {"status": "ok", "results": told}


def serve(target: routes.Target, arena: mmap.mmap, requests: int, replies: int) -> None:
    """One session: a reply a request, until the grader closes the channel."""
    me, home = os.getpid(), os.getcwd()
    earlier: list[Any] = []
    told = 0  # of what was seen
    for line in lines(requests):
        request = json.loads(line)
        if request["to"] != me:
            continue  # it was meant for a session that is dead
        os.chdir(home)
        reply = answer(target, arena, request, earlier)
        flush()
        while fetched.SEEN[told:]:
            send(replies, {"status": "imports", "name": fetched.SEEN[told]})
            told += 1
        reply.update(token=request["token"], sender=os.getpid())
        send(replies, reply)
        if os.getpid() != me:
            return  # the candidate forked, and this is its copy


def supervise(run: Callable[[], None], replies: int) -> None:
    """Fork a session, report how it ended, fork the next one."""
    while True:
        child = os.fork()
        if child == 0:
            try:
                confinement.die_with_parent()
                run()
            finally:
                os._exit(0)
        send(replies, {"status": "session", "pid": child})
        pid, status = os.wait()
        while pid != child:
            pid, status = os.wait()
        ended = os.WIFSIGNALED(status)
        code = -os.WTERMSIG(status) if ended else os.WEXITSTATUS(status)
        send(replies, {"status": "died", "code": code})


def threads() -> int:
    """How many this process has, those that no Python code started too (Linux)."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def begin(
    target: routes.Target,
    arena: mmap.mmap,
    base: int,
    requests: int,
    replies: int,
    confined: bool = False,
    started: int = 0,
) -> None:
    """Say what was loaded; then session after session, or with threads a single one."""
    hello = {"status": "loaded", "grad": target.grad is not None, "base": base}
    name = target.device.name if target.device is not None else ""
    if name and target.device.device.type != "cpu":
        started = max(1, started)  # what a device holds does not survive a fork
    hello.update(confined=confined, threads=started, device=name)
    send(replies, hello)

    def session() -> None:
        serve(target, arena, requests, replies)

    if not started:
        supervise(session, replies)
    send(replies, {"status": "session", "pid": os.getpid()})
    try:
        session()
    finally:
        os._exit(0)


def main(arguments: list[str]) -> None:
    """`python worker.py SPEC HOW REQUESTS REPLIES ARENA`."""
    spec, how, *numbers = arguments
    requests, replies, file = map(int, numbers)
    here = os.path.dirname(os.path.abspath(__file__))
    # This folder is no place to import from.
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]
    confinement.die_with_parent()
    confinement.adopt_orphans()
    confined = confinement.enter_domain()
    arena = mmap.mmap(file, 0)
    base = np.frombuffer(arena, np.uint8, 1).__array_interface__["data"][0]
    confinement.watch_deeds(
        lambda status, field, value: send(replies, {"status": status, field: value})
    )
    before = threads()  # those of NumPy's products survive a fork
    try:
        target = routes.load(spec, routes.How(**json.loads(how)))
    except BaseException as e:
        text = str(e) if isinstance(e, routes.SpecError) else said(e)
        send(replies, {"status": "unloadable", "text": " ".join(text.split())})
        return
    flush()
    started = max(0, threads() - before)
    begin(target, arena, base, requests, replies, confined, started)


if __name__ == "__main__":
    main(sys.argv[1:])
