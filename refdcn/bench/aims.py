"""The aims, each with what was measured. They are reported, never asserted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from refdcn.bench import fresh
from refdcn.bench.records import BESIDE, Record, Timing, mean_ratio
from refdcn.bench.timing import ratio
from refdcn.bench.workload import Workload, memory_limit, parse

WIDE = 64  # channels from which on the product dominates
WORTH = 1e-3  # seconds on one thread, from which on a second must be worth a thread
MANY = 4  # groups above which samples, not products, are what a call costs
OTHERS = {
    "forward": ["torchvision", "onnxruntime", "openvino"],
    "training": ["torchvision"],
}
# What two threads must gain where one takes so many seconds, and in words. Beside a
# process that keeps a core busy there is no second core: no more than not to lose.
GAINS = {
    "quiet": ((WORTH, 1.7, "over 1 ms"), (5e-4, 1.3, "over 0.5 ms"), (0, 0.95, "less")),
    "busy": ((5e-4, 0.95, "over 0.5 ms"),),
}


class Aim(NamedTuple):
    """`measured` says what was found, "not measured" where nothing was."""

    text: str
    measured: str
    reached: bool | None
    doubtful: bool = False  # a time that other processes may have changed

    @property
    def verdict(self) -> str:
        """A word or two."""
        if self.reached is None:
            return "open"
        return f"{'reached' if self.reached else 'NOT reached'}{'?' * self.doubtful}"


def aims(record: Record) -> list[Aim]:
    """All of them, in one order."""
    dtypes = list(dict.fromkeys(t.dtype for t in record.timings)) or ["float32"]
    timed = [
        *(aim for dtype in dtypes for aim in costs(record, dtype)),
        *(aim for dtype in dtypes for aim in scaling(record, dtype)),
        *start_up(record),
        *whole_models(record),
    ]
    doubtful = [aim._replace(doubtful=record.disturbed) for aim in timed]
    return [*doubtful, *memory(record), read_only(record), bits(record)]


def kind(w: Workload) -> str:
    """Which aims a workload is held to."""
    if w.groups > MANY:
        return "many"
    if w.groups > 1:
        return "grouped"
    return "wide" if w.C_in >= WIDE else "narrow" if w.C_in == 3 else "small"


def costs(record: Record, dtype: str) -> Iterator[Aim]:
    """The price of dense, and faster than the others."""
    for direction, limit in (("forward", 1.10), ("training", 1.20)):
        for threads in thread_counts(record):
            ours = record.select(
                dtype=dtype, direction=direction, load="quiet",
                contestant="refdcn", threads=threads,
            )  # fmt: skip
            kinds: dict[str, list[Timing]] = {}
            for t in ours:
                kinds.setdefault(kind(t.workload), []).append(t)
            what = f"{direction} {dtype}, {count(threads)}"
            wide = f"one group, C_in >= {WIDE}, geometric mean"
            text = f"{what}: {wide}, at most {limit:.2f} x dense"
            yield mean_aim(record, text, kinds.get("wide", []), limit)
            for name, said, most in (
                ("grouped", f"2 to {MANY} groups", 1.5),
                ("narrow", "C_in = 3", 2.5),
            ):
                text = f"{what}: {said}, at most {most:.2f} x dense"
                yield worst_aim(record, text, kinds.get(name, []), ["dense"], most)
            text = f"{what}: more groups, depthwise too, at most a third of torchvision"
            yield worst_aim(record, text, kinds.get("many", []), ["torchvision"], 1 / 3)
            others = OTHERS[direction]
            text = f"{what}: faster on every shape than {', '.join(others)}"
            yield worst_aim(record, text, ours, others, 1.0)


def mean_aim(record: Record, text: str, timings: list[Timing], limit: float) -> Aim:
    """On the geometric mean of the ratios to dense, each a median over rounds."""
    pairs = [(t, d) for t in timings if (d := record.beside(t, contestant="dense"))]
    if not pairs:
        return Aim(text, "not measured", None)
    found = [(ratio(t.rounds, d.rounds), t.shape) for t, d in pairs]
    mean, (high, shape) = mean_ratio([r for r, _ in found]), max(found)
    best = mean_ratio([t.fastest / d.fastest for t, d in pairs])
    said = f"{mean:.2f} (at most {high:.2f}, {shape}; by the fastest calls {best:.2f})"
    return Aim(text, said, mean <= limit)


def worst_aim(
    record: Record, text: str, timings: list[Timing], others: list[str], limit: float
) -> Aim:
    """On the largest ratio to any of the others; those not measured are named."""
    found = [
        (r, f"{other}, {t.shape}")
        for t in timings
        for other in others
        if (r := record.against(t, contestant=other)) is not None
    ]
    if not found:
        return Aim(text, "not measured", None)
    met = {where.partition(",")[0] for _, where in found}
    missing = [other for other in others if other not in met]
    high, where = max(found)
    rest = f"; not measured: {', '.join(missing)}" if missing else ""
    reached = None if missing and high <= limit else high <= limit
    return Aim(text, f"at most {high:.2f} x ({where}){rest}", reached)


def scaling(record: Record, dtype: str) -> Iterator[Aim]:
    """Two threads pay, and lose nothing where they cannot."""
    for direction in ("forward", "training"):
        for load, gains in GAINS.items():
            ours = record.select(
                dtype=dtype, direction=direction, load=load, contestant="refdcn",
                threads=1,
            )  # fmt: skip
            most = math.inf
            for least, wanted, where in gains:
                beside = BESIDE if load == "busy" else ""
                text = (
                    f"{direction} {dtype}: 2 threads at least {wanted:.2f} times as "
                    f"fast where 1 takes {where}{beside}"
                )
                found = [t for t in ours if least < t.median <= most]
                yield gain_aim(record, text, found, wanted)
                most = least or most


def gain_aim(record: Record, text: str, timings: list[Timing], wanted: float) -> Aim:
    """On what a second thread gains."""
    pairs = [(t, two) for t in timings if (two := record.beside(t, threads=2))]
    if not pairs:
        return Aim(text, "not measured", None)
    gains = [(ratio(t.rounds, two.rounds), t.shape) for t, two in pairs]
    best = min(t.fastest / two.fastest for t, two in pairs)
    (low, shape), middle = min(gains), median(gain for gain, _ in gains)
    said = f"{low:.2f} ({shape}), median {middle:.2f}, by the fastest calls {best:.2f}"
    return Aim(text, f"at least {said}", low >= wanted)


def memory(record: Record) -> Iterator[Aim]:
    """Beyond inputs and outputs, whatever the batch."""
    limits = {
        "forward": "one image, channels last, and 8 MB a thread",
        "training": "as forward, one image of grad_x and a weight a thread",
    }
    for direction, wanted in limits.items():
        text = f"{direction}: memory at most {wanted}"
        found = [
            (m["bytes"] / limit_of(m), m["shape"], megabytes(m["bytes"]))
            for m in record.memory
            if m["direction"] == direction and m["contestant"] == "refdcn"
        ]
        if not found:
            yield Aim(text, "not measured", None)
            continue
        part, shape, size = max(found)
        yield Aim(text, f"{part:.2f} of it at most ({shape}: {size})", part <= 1)


def limit_of(m: dict[str, Any]) -> int:
    """Bytes that one measurement of memory may reach."""
    return memory_limit(parse(m["shape"]), m["dtype"], m["threads"], m["direction"])


def whole_models(record: Record) -> Iterator[Aim]:
    """What a network pays for being deformable, and what for being watched."""
    found = Record(record.machine, timings=record.models)
    for name, other, limit in (
        ("deformable", "plain", 1.25), ("watched", "deformable", 1.20),
    ):  # fmt: skip
        for t in found.select(contestant=name):
            what = f"{t.shape}, {t.direction}, {count(t.threads)}"
            text = f"{what}: {name} at most {limit:.2f} x the {other} one"
            paid = found.against(t, contestant=other)
            said = "not measured" if paid is None else f"{paid:.2f} x"
            yield Aim(text, said, None if paid is None else paid <= limit)
    if not record.models:
        yield Aim("a whole model at most 1.25 x the plain one", "not measured", None)


def start_up(record: Record) -> Iterator[Aim]:
    """Call overhead, many small images and first calls."""
    calls = record.overhead.get("refdcn", {})
    yield limit_aim("a call of 1x8x8x8 under 40 us", calls.get("median"), 40e-6)
    text = f"{fresh.MANY} at most 3 times the cost of its products"
    found = record.many.get("ratio")
    said = "not measured" if found is None else f"{found:.2f} times"
    yield Aim(text, said, None if found is None else found <= 3)
    for name, limit in (("filled cache", 0.7), ("no cache", 6.0)):
        seconds = record.first_calls.get(name, {}).get("forward")
        yield limit_aim(f"first call with {name} under {limit} s", seconds, limit)


def read_only(record: Record) -> Aim:
    """Where nothing can be written."""
    text = "a read-only installation works"
    answer = record.first_calls.get("read-only")
    if answer is None:
        return Aim(text, "not measured", None)
    good = answer["copied"] and not answer["written"] and answer["error"] < 1e-5
    said = f"first call in {answer['forward']:.1f} s, error {answer['error']:.0e}"
    return Aim(text, said, bool(good))


def limit_aim(text: str, seconds: float | None, limit: float) -> Aim:
    """On one duration."""
    if seconds is None:
        return Aim(text, "not measured", None)
    said = f"{1e6 * seconds:.0f} us" if limit < 1e-3 else f"{seconds:.2f} s"
    return Aim(text, said, seconds < limit)


def bits(record: Record) -> Aim:
    """For any number of threads."""
    text = "the same bits for 1, 2 and 3 threads"
    if not record.same_bits:
        return Aim(text, "not measured", None)
    other = [name for name, same in record.same_bits.items() if not same]
    said = f"differ: {', '.join(other)}" if other else f"{len(record.same_bits)} calls"
    return Aim(text, said, not other)


def thread_counts(record: Record) -> list[int]:
    """Those that were timed, ascending."""
    return sorted({t.threads for t in record.timings}) or [1]


def count(threads: int) -> str:
    """1 thread, 2 threads."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def megabytes(size: float) -> str:
    """With two digits or more."""
    value = size / 1e6
    return f"{value:.1f} MB" if value < 100 else f"{value:,.0f} MB"
