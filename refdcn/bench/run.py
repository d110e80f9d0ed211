"""A whole run: prepares the contestants, checks them, times them, asks the children."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import NamedTuple

import numpy as np

import refdcn
from refdcn.bench import fresh, records
from refdcn.bench.aims import MANY
from refdcn.bench.contestants import (
    DEFORMABLE,
    MAKERS,
    Results,
    SkippedError,
    Task,
    WrongError,
    use_threads,
)  # fmt: skip
from refdcn.bench.options import AGAINST, DIRECTIONS, TABLE
from refdcn.bench.progress import Progress
from refdcn.bench.records import Record, Timing
from refdcn.bench.timing import CLOCKS, Entrant, interleave
from refdcn.bench.workload import arrays, parse
from refdcn.machine import machine

NAMES = ("y", "grad_x", "grad_offset", "grad_weight", "grad_mask", "grad_bias")
BUSY = ("refdcn", "dense")  # who is timed beside a competing process
MEMORY = ("refdcn", "torchvision")
OVERHEAD = ("refdcn", "refdcn.torch", "dense", "torchvision")


class Options(NamedTuple):
    """What `refdcn bench` takes."""

    shapes: Sequence[str] = TABLE
    against: Sequence[str] = AGAINST
    dtypes: Sequence[str] = ("float32",)
    directions: Sequence[str] = DIRECTIONS
    threads: Sequence[int] = (1, 2)
    repeat: int = 11
    seconds: float = 1.0
    busy: bool = False
    clock: str = "wall"
    children: Sequence[str] = (
        "memory", "overhead", "many images", "first calls", "parts"
    )  # fmt: skip
    models: bool = False


class Group(NamedTuple):
    """What is timed together."""

    shape: str
    dtype: str
    direction: str
    load: str


def bench(options: Options, progress: Progress | None = None) -> Record:
    """Measure all that the options ask for."""
    record = Record(machine(), options.clock)
    record.machine["load average before"] = records.load_average()
    groups = list(plan(options))
    progress = progress or Progress(show=False)
    progress.start(len(groups) + len(options.children))
    before = refdcn.get_num_threads()
    try:
        for group in groups:
            progress.step(" ".join(group))
            time_group(record, options, group)
    finally:
        refdcn.set_num_threads(before)
    for what in options.children:
        progress.step(what)
        CHILDREN[what](record, options)
    record.machine["load average after"] = records.load_average()
    return record


def plan(options: Options) -> Iterator[Group]:
    """The groups, in their order."""
    for load in ("quiet", "busy") if options.busy else ("quiet",):
        for dtype in options.dtypes:
            for direction in options.directions:
                for shape in options.shapes:
                    yield Group(str(parse(shape)), dtype, direction, load)


def time_group(record: Record, options: Options, group: Group) -> None:
    """Every contestant with every number of threads, in turns."""
    workload = parse(group.shape)
    given = arrays(workload, group.dtype)
    tasks = [Task(workload, given, group.direction, n) for n in options.threads]
    entrants = []
    reference: Results | None = None
    for name in ("refdcn", *options.against):
        if group.load == "busy" and name not in BUSY:
            continue
        try:
            made = [entrant(name, task) for task in tasks]
        except SkippedError as e:
            record.skipped[f"{name}, {group.direction} {group.dtype}"] = str(e)
            continue
        if name in DEFORMABLE and group.load == "quiet":
            results = made[0].call()
            reference = reference or results
            check(name, group, results, reference)
        entrants += made
    if group.load == "quiet":
        record.same_bits[" ".join(group[:3])] = same_bits(tasks[0])
    with fresh.competitor(group.load == "busy"):
        rounds = interleave(
            entrants, options.repeat, options.seconds, clock=CLOCKS[options.clock]
        )
    record.timings += [
        Timing(*group, e.name, e.threads, r)
        for e, r in zip(entrants, rounds, strict=True)
    ]


def entrant(name: str, task: Task) -> Entrant:
    """Ready to be timed."""
    use_threads(task.threads)
    call = MAKERS[name](task)
    return Entrant(name, task.threads, call, partial(use_threads, task.threads))


def check(name: str, group: Group, results: Results, reference: Results) -> None:
    """Whoever computes something else has no place in a comparison of time.

    Coarse, since grading is the grader's: rounding of as many terms as y or a gradient
    sums, against the largest value.
    """
    terms = max(math.prod(s) for s in parse(group.shape).shapes.values())
    bound = 8 * math.sqrt(terms) * np.finfo(group.dtype).eps
    for what, result, wanted in zip(NAMES, results, reference, strict=False):
        a, b = np.asarray(result), np.asarray(wanted)
        error = math.nan
        if a.shape == b.shape:
            error = float(np.abs(a - b).max() / np.abs(b).max())
        if not error <= bound:
            raise WrongError(
                f"{name} computes another {what} than refdcn ({group.shape}, "
                f"{group.dtype}): relative error {error:.1e}, wanted {bound:.1e}"
            )


def same_bits(task: Task) -> bool:
    """Whether 1, 2 and 3 threads give the same results to the bit."""
    call = MAKERS["refdcn"](task)
    digests = set()
    for threads in (1, 2, 3):
        use_threads(threads)
        digests.add(tuple(sha256(a.tobytes()).digest() for a in call()))
    return len(digests) == 1


# --- Fresh processes -----------------------------------------------------------------


def memory(record: Record, options: Options) -> None:
    """Peaks of refdcn and, where asked for, torchvision, on the most threads.

    Of torchvision in the last direction alone: it takes the time of all the others.
    """
    threads = max(options.threads)
    for name in chosen(MEMORY, options):
        for direction in (
            options.directions[-1:] if name == "torchvision" else (options.directions)
        ):
            for shape in options.shapes:
                given = {
                    "contestant": name,
                    "shape": str(parse(shape)),
                    "dtype": options.dtypes[0],
                    "direction": direction,
                    "threads": threads,
                }
                answer = fresh.child("memory", given)
                if "skipped" in answer:
                    record.skipped[f"{name}, memory"] = answer["skipped"]
                    break
                record.memory.append(given | {"bytes": answer["bytes"]})


def overhead(record: Record, options: Options) -> None:
    """A tiny call, over and over."""
    for name in chosen(OVERHEAD, options):
        given = {"contestant": name, "shape": fresh.TINY, "dtype": "float32"}
        answer = fresh.child("overhead", given | {"calls": 2000})
        if "skipped" in answer:
            record.skipped[f"{name}, call overhead"] = answer["skipped"]
        else:
            record.overhead[name] = answer


def many(record: Record, options: Options) -> None:
    """Many images, each of a few microseconds."""
    given = {"shape": fresh.MANY, "dtype": "float32", "repeat": 9}
    record.many = fresh.child("against_products", given)


def first_calls(record: Record, options: Options) -> None:
    """With a cache, without one, and where none can be written."""
    record.first_calls |= fresh.first_calls()
    record.first_calls["read-only"] = fresh.read_only()


def parts(record: Record, options: Options) -> None:
    """What calls are made of, but of many groups: there products are a small part."""
    given = {
        "shapes": [str(w) for w in map(parse, options.shapes) if w.groups <= MANY],
        "dtype": options.dtypes[0], "repeat": options.repeat, "clock": options.clock,
    }  # fmt: skip
    for direction in options.directions:
        answer = fresh.child("parts", given | {"direction": direction})
        record.parts[direction] = answer


def chosen(names: Sequence[str], options: Options) -> list[str]:
    """refdcn, and those of the others that are asked for."""
    return [name for name in names if name in ("refdcn", *options.against)]


CHILDREN: dict[str, Callable[[Record, Options], None]] = {
    "memory": memory,
    "overhead": overhead,
    "many images": many,
    "first calls": first_calls,
    "parts": parts,
}
