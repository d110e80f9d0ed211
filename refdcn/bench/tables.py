"""The files that docs/performance.md shows: an answer in short, tables, a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from refdcn.bench.aims import WORTH, aims, count, kind, thread_counts
from refdcn.bench.growth import picture
from refdcn.bench.records import BESIDE, Record, Timing, mean_ratio
from refdcn.bench.report import (
    KINDS,
    NAMES,
    PARTS_HEAD,
    digits,
    heading,
    memory,
    models,
    parts_rows,
    processes,
)  # fmt: skip
from refdcn.bench.timing import ratio
from refdcn.bench.workload import (
    column_bytes,
    moved_bytes,
    parse,
    product_flops,
    sampling_flops,
)  # fmt: skip


def write(record: Record, folder: Path) -> None:
    """answer.inc, tables.inc and growth.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answer.inc").write_text("\n".join(answer(record)) + "\n", "utf-8")
    (folder / "tables.inc").write_text(tables(record), encoding="utf-8")
    picture(record.growth).savefig(
        folder / "growth.png", dpi=110, facecolor="white", metadata={"Software": None}
    )


def answer(record: Record) -> Iterator[str]:
    """What a user asks first, one column a number of threads."""
    threads = thread_counts(record)
    yield f"| | {' | '.join(map(count, threads))} |"
    yield f"|---|{'---|' * len(threads)}"
    for direction in dict.fromkeys(t.direction for t in record.timings):
        by_threads = [
            record.select(
                direction=direction, load="quiet", contestant="refdcn", threads=n
            )
            for n in threads
        ]
        for what, cell in (
            ("times as fast as torchvision", against_torchvision),
            ("times the dense convolution's time, from 64 channels on", against_dense),
            ("times as fast as on one thread, from 1 ms on", gain),
        ):
            cells = [cell(record, ours) for ours in by_threads]
            yield f"| {direction}: {what} | {' | '.join(cells)} |"
    yield from answer_of_models(Record(record.machine, timings=record.models))


def answer_of_models(record: Record) -> Iterator[str]:
    """The same of a whole network."""
    for direction in dict.fromkeys(t.direction for t in record.timings):
        rows = (
            ("deformable", "plain", "{:.2f}", "times the plain network's time"),
            ("accelerated", "torchvision", "{:.2f}",
             "of the time on torchvision's operator, by accelerate_torchvision()"),
            ("watched", "deformable", "{:.2f}",
             "times the time without OffsetStatistics"),
        )  # fmt: skip
        for name, other, form, what in rows:
            ours = record.select(direction=direction, contestant=name)
            found = [record.against(t, contestant=other) for t in ours]
            cells = ["-" if f is None else form.format(f) for f in found]
            yield f"| ResNet-50, {direction}: {what} | {' | '.join(cells)} |"


def against_torchvision(record: Record, ours: list[Timing]) -> str:
    """From the least to the most, and the median."""
    found = sorted(
        1 / r for t in ours if (r := record.against(t, contestant="torchvision"))
    )
    if not found:
        return "-"
    return f"{digits(found[0])} to {digits(found[-1])}, median {digits(median(found))}"


def against_dense(record: Record, ours: list[Timing]) -> str:
    """The geometric mean over shapes of one group."""
    wide = [t for t in ours if kind(t.workload) == "wide"]
    found = [r for t in wide if (r := record.against(t, contestant="dense"))]
    return f"{mean_ratio(found):.2f}" if found else "-"


def gain(record: Record, ours: list[Timing]) -> str:
    """The median over calls that are worth it."""
    pairs = [(one, t) for t in ours if (one := record.beside(t, threads=1))]
    found = [ratio(a.rounds, b.rounds) for a, b in pairs if a.median > WORTH and a != b]
    return f"{median(found):.2f}" if found else "-"


def tables(record: Record) -> str:
    """Markdown that docs/performance.md includes."""
    lines = ["```text", heading(record), "```", ""]
    groups = dict.fromkeys((t.load, t.dtype, t.direction) for t in record.timings)
    for group in groups:
        lines += [*times(record, *group), ""]
    if record.models:
        lines += ["### A whole model", "", "```text", *models(record), "```", ""]
    for direction in record.parts:
        lines += [*parts(record, direction), ""]
    lines += ["### Floor", "", *floor(record), ""]
    lines += ["### Memory and start-up", "", "```text", *memory(record), ""]
    lines += [*processes(record), "```", "", "### Aims", ""]
    lines += ["| aim | measured | |", "|---|---|---|"]
    lines += [f"| {a.text} | {a.measured} | {a.verdict} |" for a in aims(record)]
    return "\n".join(lines) + "\n"


def times(record: Record, load: str, dtype: str, direction: str) -> Iterator[str]:
    """Medians, one row a workload; thread counts side by side."""
    chosen = record.select(load=load, dtype=dtype, direction=direction)
    names = list(dict.fromkeys(t.contestant for t in chosen))
    beside = BESIDE if load == "busy" else ""
    yield f"### {KINDS[direction].capitalize()}, {dtype}{beside}"
    yield ""
    heads = [NAMES.get(name, name) for name in names]
    yield f"| | {' | '.join(heads)} | refdcn / dense |"
    yield f"|---|{'---|' * len(names)}---|"
    for shape in dict.fromkeys(t.shape for t in chosen):
        here = [t for t in chosen if t.shape == shape]
        cells = [
            " / ".join(digits(1000 * t.median) for t in here if t.contestant == name)
            for name in names
        ]
        ours = [t for t in here if t.contestant == "refdcn"]
        ratios = [record.against(t, contestant="dense") for t in ours]
        last = " / ".join(f"{r:.2f}" for r in ratios if r is not None)
        yield f"| `{shape}` | {' | '.join(c or '-' for c in cells)} | {last or '-'} |"


def parts(record: Record, direction: str) -> Iterator[str]:
    """What a call is made of."""
    rate = record.parts[direction]["rate"] / 1e9
    yield f"### What a call is made of: {KINDS[direction]}, one thread"
    yield ""
    yield f"Multiply-adds in registers alone: {rate:.0f} Gflop/s."
    yield ""
    yield f"| | {' | '.join(PARTS_HEAD)} |"
    yield f"|---|{'---|' * len(PARTS_HEAD)}"
    for shape, cells in parts_rows(record, direction):
        yield f"| `{shape}` | {' | '.join(cells)} |"


def floor(record: Record) -> Iterator[str]:
    """Operations and bytes of the forward call."""
    yield (
        "| | product, Gflop | sampling, Gflop | sampling / product | in and out, MB "
        "| flop / byte | columns of an image, MB |"
    )
    yield "|---|---|---|---|---|---|---|"
    for shape in dict.fromkeys(t.shape for t in record.timings):
        w, dtype = parse(shape), record.timings[0].dtype
        product, sampling = product_flops(w), sampling_flops(w)
        moved = moved_bytes(w, dtype)
        yield (
            f"| `{shape}` | {digits(product / 1e9)} | {digits(sampling / 1e9)} "
            f"| {sampling / product:.3f} | {digits(moved / 1e6)} "
            f"| {(product + sampling) / moved:.0f} "
            f"| {digits(column_bytes(w, dtype) / 1e6)} |"
        )
