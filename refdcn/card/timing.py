"""Times and peak memory on a card, contestants in turn.

    refdcn, torchvision   deformable convolution, modulated
    dense                 cuDNN's convolution of the same sizes
    product               the matrix products alone, on one tile that stays in cache
    copy                  as many bytes as the arguments and results have, moved once

The larger of the last two is the floor.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from refdcn import shapes

if TYPE_CHECKING:
    from refdcn.bench.workload import Workload

SHAPES = (
    "32x64x56x56->64",
    "32x128x28x28->128",
    "32x256x14x14->256",
    "32x512x7x7->512",
    "2x256x100x100->256",
)
DTYPES = {"float32": "float32", "tf32": "float32", "float16": "float16"}
DIRECTIONS = ("forward", "training")  # training: and the gradient of every argument
ROUNDS = 15
WARM = 3
DEVICE = "cuda"

Call = Callable[[], Any]
Row = dict[str, Any]


def measure(shape: str) -> Iterator[Row]:
    """A row for each precision and direction; a contestant that fails says why."""
    from refdcn.bench.workload import parse

    broken = None
    for precision in DTYPES:
        for direction in DIRECTIONS:
            row = measured(parse(shape), precision, direction)
            broken = broken or row.get("refdcn error")
            yield row
    if broken:
        raise AssertionError(f"refdcn: {broken}")


def measured(w: Workload, precision: str, direction: str) -> Row:
    """Medians in ms; bytes at the peak beyond inputs and results."""
    import torch

    # cuDNN uses TF32 unless told otherwise: nobody or everybody.
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    row: Row = {"shape": str(w), "precision": precision, "direction": direction}
    turns = contestants(w, getattr(torch, DTYPES[precision]), direction == "training")
    for name, call in list(turns.items()):
        try:
            for _ in range(WARM):
                call()
            row[f"{name} bytes"] = peak(call)
        except Exception as e:  # of another's kernel, too: the others go on
            row[f"{name} error"] = f"{type(e).__name__}: {e}"[:500]
            del turns[name]
    times: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(ROUNDS):
        for name, call in turns.items():
            times[name].append(elapsed(call))
    row |= {f"{name} ms": statistics.median(t) for name, t in times.items()}
    if "refdcn" in turns:
        row["refdcn host ms"] = statistics.median(
            host(turns["refdcn"]) for _ in range(ROUNDS)
        )
    return row


def elapsed(call: Call) -> float:
    """ms between two events on the device."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def host(call: Call) -> float:
    """ms until the call returns, which waits for nothing."""
    import torch

    torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def peak(call: Call) -> int:
    """Bytes allocated at the peak of a call, less what it returns."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = call()
    torch.cuda.synchronize()
    highest = torch.cuda.max_memory_allocated()
    given = results if isinstance(results, (tuple, list)) else [results]
    held = sum(a.nbytes for a in given if a is not None)
    return int(highest - before - held)


# --- Contestants ---------------------------------------------------------------------


def contestants(w: Workload, dtype: Any, training: bool) -> dict[str, Call]:
    """Calls on the same arrays; torchvision where it is installed."""
    import torch

    import refdcn

    made = {
        name: torch.randn(*sizes, device=DEVICE, dtype=dtype, requires_grad=training)
        for name, sizes in w.shapes.items()
    }
    grad_y, window = made.pop("y").detach(), {"padding": w.padding}

    def step(forward: Call, *names: str) -> Call:
        leaves = [made[name] for name in names]
        if not training:
            return forward
        return lambda: torch.autograd.grad(forward(), leaves, grad_y)

    turns = {
        "refdcn": step(lambda: refdcn.deform_conv2d(**made, **window), *made),
        "dense": step(
            lambda: torch.nn.functional.conv2d(
                made["x"], made["weight"], made["bias"], **window
            ),
            "x", "weight", "bias",
        ),
        "product": products(w, dtype, training),
        "copy": copies(w, dtype, training),
    }  # fmt: skip
    try:
        from torchvision.ops import deform_conv2d
    except Exception:  # absent, or built for another torch
        return turns
    theirs = {"input": made["x"]} | {n: a for n, a in made.items() if n != "x"}
    turns["torchvision"] = step(lambda: deform_conv2d(**theirs, **window), *made)
    return turns


def products(w: Workload, dtype: Any, training: bool) -> Call:
    """Eq. (1) once for each tile that refdcn makes; training: three products each."""
    import torch

    from refdcn.cuda import operator

    s = w.shapes
    g = shapes.geometry(
        s["x"], s["offset"], s["weight"], s["mask"], s["bias"], 1, w.padding, 1
    )
    p = operator.plan(g, str(dtype).removeprefix("torch."))
    outputs = p.images * p.span
    tiles = -(-g.N * p.pixels // outputs)

    def made(*sizes: int) -> Any:
        return torch.randn(*sizes, device=DEVICE, dtype=dtype)

    columns, weight = made(outputs, p.K * p.C), made(p.K * p.C, g.C_out)
    rows, grad_weight = made(outputs, g.C_out), torch.empty_like(weight)
    grad_columns = torch.empty_like(columns)

    def run() -> None:
        for _ in range(tiles):
            torch.mm(columns, weight, out=rows)
            if training:
                torch.mm(rows, weight.T, out=grad_columns)
                torch.mm(columns.T, rows, out=grad_weight)

    return run


def copies(w: Workload, dtype: Any, training: bool) -> Call:
    """Half of the bytes read and half written; training moves all three times."""
    import torch

    from refdcn.bench.workload import moved_bytes

    size = moved_bytes(w, str(dtype).removeprefix("torch.")) // 2
    source = torch.zeros(size * (3 if training else 1), device=DEVICE, dtype=torch.int8)
    target = torch.empty_like(source)

    def run() -> None:
        target.copy_(source)

    return run


# --- What follows --------------------------------------------------------------------

AIMS = (  # precision, whom to be compared with, at least so many times as fast
    ("float32", "torchvision", 1.5), ("float16", "torchvision", 2.0),
    ("float32", "dense", 0.5),
)  # fmt: skip
MEMORY = 0.25  # of torchvision's, at most


def aims(rows: list[Row]) -> list[Row]:
    """Geometric means over shapes; None where nothing was measured."""
    found = []
    for precision, other, least in AIMS:
        for direction in DIRECTIONS:
            some = [r for r in rows if r["precision"] == precision]
            some = [r for r in some if r["direction"] == direction]
            value = mean(some, f"{other} ms", "refdcn ms")
            text = f"{precision} {direction}: {other} ms / refdcn ms, at least {least}"
            met = None if value is None else value >= least
            found.append({"aim": text, "found": value, "met": met})
    value = mean(rows, "refdcn bytes", "torchvision bytes")
    met = None if value is None else value <= MEMORY
    text = f"peak memory: refdcn / torchvision, at most {MEMORY}"
    return [*found, {"aim": text, "found": value, "met": met}]


def mean(rows: list[Row], above: str, below: str) -> float | None:
    """Geometric, of the ratio in rows that have both."""
    ratios = [r[above] / r[below] for r in rows if r.get(above) and r.get(below)]
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None


COLUMNS = (
    "refdcn ms", "torchvision ms", "dense ms", "product ms", "copy ms",
    "refdcn host ms", "refdcn bytes", "torchvision bytes",
)  # fmt: skip


def table(rows: list[Row]) -> list[str]:
    """Markdown; bytes in MiB."""
    names = ["shape", "precision", "direction", *COLUMNS]
    lines = ["| " + " | ".join(names).replace("bytes", "MiB") + " |"]
    lines.append("|" + "---|" * len(names))
    for row in rows:
        cells = [cell(name, row.get(name)) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("bytes"):
        return f"{value / 2**20:.1f}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
