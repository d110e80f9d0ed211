"""What a fresh process alone can tell: the first call, peak memory, call overhead.

`python -m refdcn.bench.child WHAT JSON` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import refdcn
from refdcn.bench.contestants import MAKERS, SkippedError, Task, use_threads
from refdcn.bench.timing import Entrant, flat, interleave, ratio
from refdcn.bench.workload import arrays, parse

STATUS = "/proc/self/status"
# Each loads what larger calls need: the compiled kernels for many and for few
# channels, the libraries.
WARM = ("1x8x8x8->8", "1x3x8x8->8")


def first_call(shape: str, dtype: str) -> dict[str, Any]:
    """Seconds of the first forward and gradient call, Numba's import included."""
    from refdcn import formula

    workload = parse(shape)
    given = arrays(workload, dtype)
    window = dict.fromkeys(("stride", "padding", "dilation"), 1)
    grad_y = given.pop("grad_y")
    begin = time.perf_counter()
    y = refdcn.deform_conv2d(**given, **window)
    middle = time.perf_counter()
    refdcn.deform_conv2d_grad(grad_y, **given, **window)
    end = time.perf_counter()
    pairs = {name: (size, size) for name, size in window.items()}
    wanted = formula.deform_conv2d(**given, **pairs)
    return {
        "forward": middle - begin,
        "gradients": end - middle,
        "package": refdcn.__file__,
        "error": float(np.abs(y - wanted).max() / np.abs(wanted).max()),
    }


def overhead(contestant: str, shape: str, dtype: str, calls: int) -> dict[str, Any]:
    """Seconds of each of many calls of a tiny operator, on one thread."""
    workload = parse(shape)
    task = Task(workload, arrays(workload, dtype), "forward", 1)
    call = MAKERS[contestant](task)
    use_threads(1)
    seconds = []
    for n in range(calls + 200):
        begin = time.perf_counter()
        call()
        if n >= 200:
            seconds.append(time.perf_counter() - begin)
    return {"median": median(seconds), "min": min(seconds), "max": max(seconds)}


def against_products(shape: str, dtype: str, repeat: int) -> dict[str, Any]:
    """Seconds of a call and of its products alone, in turns, on one thread."""
    workload = parse(shape)
    task = Task(workload, arrays(workload, dtype), "forward", 1)
    entrants = [Entrant(n, 1, MAKERS[n](task)) for n in ("refdcn", "product")]
    use_threads(1)
    ours, products = interleave(entrants, repeat, 60.0)
    return {
        "ratio": ratio(ours, products),
        "refdcn": median(flat(ours)),
        "product": median(flat(products)),
    }


def memory(
    contestant: str, shape: str, dtype: str, direction: str, threads: int
) -> dict[str, Any]:
    """Bytes at the peak of one call, beyond its inputs and its results.

    The peak of resident memory (VmHWM), set back before the call, less the resident
    memory then and the bytes of the results: everything that was touched counts,
    whoever allocated it. It is the first call of its size in the process, so what a
    library keeps for its next call counts, too.
    """

    def prepared(text: str) -> Callable[[], Any]:
        workload = parse(text)
        task = Task(workload, arrays(workload, dtype), direction, threads)
        return MAKERS[contestant](task)

    for small in WARM:
        warm = prepared(small)
        use_threads(threads)  # after the libraries are loaded
        warm()
    call = prepared(shape)
    before = forget_peak()
    results = call()
    peak = resident("VmHWM")
    held = sum(a.nbytes for a in results if a is not None)
    return {"bytes": max(0, peak - before - held), "results": held}


def parts(**given: Any) -> dict[str, Any]:
    """What calls are made of; see there."""
    from refdcn.bench import parts  # compiles: not of what others begin with

    return parts.measure(**given)


def forget_peak() -> int:
    """The peak becomes the present, whose bytes are returned."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError as e:
        raise SkippedError("peak memory needs Linux's /proc/self/clear_refs") from e
    return resident("VmRSS")


def resident(which: str) -> int:
    """Bytes; VmRSS is the present, VmHWM the peak."""
    with open(STATUS) as file:
        (line,) = (line for line in file if line.startswith(which + ":"))
    return int(line.split()[1]) * 1024


WHAT: dict[str, Callable[..., dict[str, Any]]] = {
    "first_call": first_call,
    "overhead": overhead,
    "against_products": against_products,
    "memory": memory,
    "parts": parts,
}


def main() -> None:
    """Measure one thing; why it cannot be is an answer, too."""
    what, arguments = sys.argv[1:]
    try:
        answer = WHAT[what](**json.loads(arguments))
    except SkippedError as e:
        answer = {"skipped": str(e)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
