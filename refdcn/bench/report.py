"""What a run found, as text and as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from refdcn.bench import fresh
from refdcn.bench.aims import aims, count, kind, limit_of, megabytes, thread_counts
from refdcn.bench.records import BESIDE, Record, Timing, mean_ratio
from refdcn.bench.timing import flat
from refdcn.bench.workload import parse, product_flops

KINDS = {
    "forward": "forward",
    "training": "training: forward and all gradients",
}
NAMES = {
    "refdcn.torch": "refdcn by torch",
    "dense": "dense conv2d",
    "product": "product alone",
}
CELL = 34


def plain(record: Record) -> dict[str, Any]:
    """For json.dumps; durations in seconds."""
    whole = asdict(record)
    for timing in whole["timings"] + whole["growth"]:
        timing["rounds"] = [[round(s, 8) for s in calls] for calls in timing["rounds"]]
    whole["aims"] = [{**aim._asdict(), "verdict": aim.verdict} for aim in aims(record)]
    return whole


def text(record: Record) -> str:
    """Tables, and the aims."""
    lines = [heading(record), ""]
    for group in dict.fromkeys((t.load, t.dtype, t.direction) for t in record.timings):
        lines += [*times(record, *group), ""]
    lines += [f"skipped: {what}: {why}" for what, why in record.skipped.items()]
    for section in (models, parts, memory, processes, verdicts):
        lines += ["", *section(record)]
    return "\n".join(lines)


def heading(record: Record) -> str:
    """The machine, and whether its milliseconds mean anything."""
    m = record.machine
    names = ("numpy", "numba", "torch", "torchvision", "onnxruntime", "openvino")
    versions = ", ".join(f"{n} {m[n]}" for n in names if m[n])
    said = f"{m['processor']}, {m['cores']} cores, {m['system']}\n{versions}"
    if record.disturbed:
        load = f"load average {m['load average before']:.1f}"
        said += (
            f"\nOther processes ran ({load}): trust the ratios, which are taken\n"
            "round by round, rather than milliseconds, and on two threads neither."
        )
    if record.clock == "cpu":
        said += "\nTimes are CPU times, of all threads together."
    return said


def times(record: Record, load: str, dtype: str, direction: str) -> Iterator[str]:
    """One line a contestant and workload."""
    chosen = record.select(load=load, dtype=dtype, direction=direction)
    threads = thread_counts(record)
    beside = BESIDE if load == "busy" else ""
    yield f"{KINDS[direction]}, {dtype}{beside}"
    yield "ms: median (min to max); times dense conv2d, the median over rounds"
    yield " " * 18 + "".join(f"{count(n):^{CELL}}" for n in threads)
    for shape in dict.fromkeys(t.shape for t in chosen):
        yield shape
        here = [t for t in chosen if t.shape == shape]
        for name in dict.fromkeys(t.contestant for t in here):
            own = {t.threads: t for t in here if t.contestant == name}
            cells = [cell(record, own.get(n)) for n in threads]
            yield f"  {NAMES.get(name, name):<16}{''.join(cells)}".rstrip()


def cell(record: Record, timing: Timing | None) -> str:
    """12.3 (11.9 to 14.0)  1.05 x"""
    if timing is None:
        return " " * CELL
    calls = [1000 * s for s in flat(timing.rounds)]
    middle = 1000 * timing.median
    times_dense = record.against(timing, contestant="dense")
    ratio = "" if times_dense is None else f"{times_dense:.2f} x"
    spread = f"({digits(min(calls))} to {digits(max(calls))})"
    return f"{digits(middle):>8} {spread:<17}{ratio:>8}"


def digits(value: float) -> str:
    """Three of them, or a thousandth."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}" if value >= 0.1 else f"{value:.3f}"


def models(record: Record) -> Iterator[str]:
    """Whole networks, one line a direction, number of threads and model."""
    found = Record(record.machine, timings=record.models)
    for t in record.models:
        if t.contestant == "plain":
            yield f"{t.shape}, {t.direction}, {count(t.threads)}, ms"
        calls = [1000 * s for s in flat(t.rounds)]
        spread = f"({digits(min(calls))} to {digits(max(calls))})"
        paid = found.against(t, contestant="plain")
        times = "" if paid is None else f"{paid:.2f} x plain"
        line = f"  {t.contestant:<24}{digits(1000 * t.median):>8} {spread:<18}{times}"
        yield line + saved(found, t)


def saved(found: Record, t: Timing) -> str:
    """What acceleration saves, in words."""
    if t.contestant != "accelerated":
        return ""
    rest = found.against(t, contestant="torchvision")
    return "" if rest is None else f", {100 * (1 - rest):.0f}% of torchvision's saved"


PARTS = "refdcn", "samples", "products"
PARTS_HEAD = *PARTS, "the rest", "of the rate", "parts / dense"


def parts(record: Record) -> Iterator[str]:
    """What a call is made of, one line a workload and direction."""
    for direction, found in record.parts.items():
        yield f"{KINDS[direction]}, one thread, ms: what a call is made of"
        yield f"  {'':<26}" + "".join(f"{head:>14}" for head in PARTS_HEAD)
        for shape, cells in parts_rows(record, direction):
            yield f"  {shape:<26}" + "".join(f"{cell:>14}" for cell in cells)
        yield f"  multiply-adds in registers: {found['rate'] / 1e9:.0f} Gflop/s"


def parts_rows(record: Record, direction: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of each workload, and a mean.

    "of the rate": the share of the processor's rate of multiply-adds at which products
    are made; "parts / dense": samples and products against the dense convolution.
    """
    found, wide = record.parts[direction], []
    for shape, row in found["shapes"].items():
        w, both = parse(shape), row["samples"] + row["products"]
        flops = product_flops(w) * (1 if direction == "forward" else 3)
        times = *(row[name] for name in PARTS), row["refdcn"] - both
        share = flops / row["products"] / found["rate"]
        dense = record.select(
            shape=shape, direction=direction, load="quiet", contestant="dense",
            threads=1,
        )  # fmt: skip
        floors = [both / t.median for t in dense[:1]]
        wide += floors if kind(w) == "wide" else []
        cells = [f"{share:.2f}", *(f"{floor:.2f}" for floor in floors or [math.nan])]
        yield shape, [*(digits(1000 * s) for s in times), *cells]
    if wide:
        mean = [""] * (len(PARTS_HEAD) - 1) + [f"{mean_ratio(wide):.2f}"]
        yield "C_in >= 64, geometric mean", mean


def memory(record: Record) -> Iterator[str]:
    """Peaks, one line a workload and direction."""
    if not record.memory:
        return
    yield "peak memory of one call beyond its inputs and results, in a fresh process"
    names = list(dict.fromkeys(m["contestant"] for m in record.memory))
    head = "".join(f"{name:>14}" for name in names)
    yield f"{'':<28}{'':<10}{'aim':>10}{head}"
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for m in record.memory:
        rows.setdefault((m["shape"], m["direction"]), {})[m["contestant"]] = m
    for (shape, direction), row in rows.items():
        aim = megabytes(limit_of(next(iter(row.values()))))
        found = {name: megabytes(m["bytes"]) for name, m in row.items()}
        cells = "".join(f"{found.get(name, '-'):>14}" for name in names)
        yield f"  {shape:<26}{direction:<10}{aim:>10}{cells}"


def processes(record: Record) -> Iterator[str]:
    """Call overhead, many small images and first calls."""
    for name, answer in record.overhead.items():
        yield (
            f"a call of 1x8x8x8->8 by {name}: {1e6 * answer['median']:.0f} us "
            f"(min {1e6 * answer['min']:.0f})"
        )
    if record.many:
        ours, products = (1000 * record.many[n] for n in ("refdcn", "product"))
        yield f"{fresh.MANY} by refdcn: {ours:.1f} ms, its products {products:.1f}"
    for name, answer in record.first_calls.items():
        yield (
            f"first call, {name}: forward {answer['forward']:.2f} s, then gradients "
            f"{answer['gradients']:.2f} s (the whole process {answer['process']:.2f} s)"
        )


def verdicts(record: Record) -> Iterator[str]:
    """The aims."""
    found = aims(record)
    marked = any(aim.verdict.endswith("?") for aim in found)
    yield "aims" + (" (?: other processes ran, measure again)" if marked else "")
    for aim in found:
        yield f"  {aim.verdict:<13}{aim.text}: {aim.measured}"
