"""The candidate's side: loads it, and answers calls until its channel closes.

Requests and replies are JSON lines; arrays lie in a file that the grader
mapped, so nothing is unpickled on either side. After loading, each session
runs in a fork of this process: a call that kills its session costs no second
import.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from refdcn.grading.candidates import Target, load

Reply = dict[str, Any]


def view(arena: mmap.mmap, spec: dict[str, Any] | None) -> Any:
    """The array that one JSON entry describes, in the shared file."""
    if spec is None:
        return None
    return np.ndarray(
        spec["shape"], spec["dtype"], arena, spec["at"], tuple(spec["strides"])
    )


def poison(shape: list[int], dtype: str, pattern: int) -> None:
    """Fill the memory that the allocator will hand out next.

    What a candidate leaves unwritten in its result then differs between two
    calls with two patterns.
    """
    held = [np.empty(shape, dtype) for _ in range(3)]
    for a in held:
        a.reshape(-1).view(np.uint8)[...] = pattern


def describe(a: Any, request: dict[str, Any], inputs: list[Any]) -> Reply:
    """What came back: type, dtype, shape, and whose memory it is."""
    if a is None:
        return {"type": "None"}
    if not isinstance(a, np.ndarray):
        return {"type": f"{type(a).__module__}.{type(a).__qualname__}"}
    names = ("x", "offset", "weight", "mask", "bias", "grad_y")
    shared = [
        n
        for n, b in zip(names, inputs, strict=False)
        if b is not None and a.size and np.may_share_memory(a, b)
    ]
    return {
        "type": "array",
        "dtype": a.dtype.name,
        "shape": list(a.shape),
        "aliases": shared,
    }


class Session:
    """Answers requests; remembers its last results to see them overwritten."""

    def __init__(self, target: Target, arena: mmap.mmap) -> None:
        self.target, self.arena = target, arena
        self.last: list[tuple[Any, bytes]] = []
        self.home = os.getcwd()

    def answer(self, request: dict[str, Any]) -> Reply:
        """Call the candidate once."""
        inputs = [view(self.arena, a) for a in request["arrays"]]
        f = self.target.forward if request["call"] == "forward" else self.target.grad
        assert f is not None
        poison(request["poison_shape"], request["dtype"], request["poison"])
        windows = {k: tuple(request[k]) for k in ("stride", "padding", "dilation")}
        if request["call"] == "grad":
            inputs = [inputs[5], *inputs[:5]]
        else:
            inputs = inputs[:5]
        try:
            result = f(*inputs, **windows)
        except MemoryError as e:
            return {"status": "crash", "text": f"out of memory: {e}"}
        except Exception as e:
            at = traceback.extract_tb(e.__traceback__)[-1]
            text = f"{type(e).__name__}: {e}"
            return {"status": "raised", "text": text, "at": f"{at.name}, {at.lineno}"}
        except BaseException as e:
            return {"status": "crash", "text": f"left by {type(e).__name__}: {e}"}
        return self.deliver(request, result, inputs)

    def deliver(self, request: dict[str, Any], result: Any, inputs: list[Any]) -> Reply:
        """Copy the results into the shared file and say what they are."""
        stale = any(a.tobytes() != bits for a, bits in self.last)
        outs = list(result) if request["call"] == "grad" else [result]
        arrays = [a for a in outs if isinstance(a, np.ndarray)]
        reused = any(
            np.may_share_memory(a, b) for a in arrays for b, _ in self.last if a.size
        )
        at, replies = request["out_at"], []
        for a in outs:
            reply = describe(a, request, inputs)
            if reply["type"] == "array":
                reply["at"] = at
                bits = np.ascontiguousarray(a).tobytes()
                self.arena[at : at + len(bits)] = bits
                at += len(bits) + 64 - len(bits) % 64
            replies.append(reply)
        self.last = [(a, a.tobytes()) for a in arrays]
        moved = os.getcwd() != self.home
        os.chdir(self.home)
        return {
            "status": "ok",
            "results": replies,
            "stale": stale,
            "reused": reused,
            "moved": moved,
        }


def serve(session: Session, requests: TextIO, replies: TextIO) -> None:
    """One session: a reply a request, until the grader closes the channel."""
    for line in requests:
        request = json.loads(line)
        reply = session.answer(request)
        reply["token"] = request["token"]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def supervise(run: Callable[[], None], replies: TextIO) -> None:
    """Fork a session, report how it ended, fork the next one."""
    while True:
        child = os.fork()
        if child == 0:
            try:
                run()
            finally:
                os._exit(0)
        replies.write(json.dumps({"status": "session", "pid": child}) + "\n")
        replies.flush()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        replies.write(json.dumps({"status": "died", "code": code}) + "\n")
        replies.flush()


def main(arguments: list[str]) -> None:
    """`python -m refdcn.grading.worker SPEC REQUESTS REPLIES ARENA ARRAY`."""
    spec, into, out, file, array = arguments
    requests, replies = open(int(into)), open(int(out), "w")
    arena = mmap.mmap(int(file), 0)
    try:
        target = load(spec, array)
    except BaseException as e:
        text = f"{type(e).__name__}: {e}"
        replies.write(json.dumps({"status": "unloadable", "text": text}) + "\n")
        return
    hello = {"status": "loaded", "grad": target.grad is not None, "name": target.name}
    replies.write(json.dumps(hello) + "\n")
    replies.flush()
    supervise(lambda: serve(Session(target, arena), requests, replies), replies)


if __name__ == "__main__":
    main(sys.argv[1:])
