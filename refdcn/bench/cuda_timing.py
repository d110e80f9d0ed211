"""Times and peak memory on a card: refdcn, torchvision, dense convolution in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

SHAPES = (  # N, C_in, C_out, H = W
    (32, 64, 64, 56), (32, 128, 128, 28), (32, 256, 256, 14), (32, 512, 512, 7),
    (2, 256, 256, 100),
)  # fmt: skip
ROUNDS = 15


class Skip(Exception):  # noqa: N818 - a verdict, not an error
    """A check that this machine cannot run, and why."""


def measure() -> list[dict[str, Any]]:
    """Medians in ms and peak bytes, forward and forward with backward, by dtype."""
    import torch

    found = []
    for N, C_in, C_out, side in SHAPES:
        for dtype in (torch.float32, torch.float16):
            for training in (False, True):
                turns = contestants(N, C_in, C_out, side, dtype, training)
                row: dict[str, Any] = {
                    "shape": f"{N}x{C_in}x{side}x{side}->{C_out}",
                    "dtype": str(dtype).removeprefix("torch."),
                    "direction": "training" if training else "forward",
                }
                found.append(row | interleaved(turns))
    return found


def contestants(
    N: int, C_in: int, C_out: int, side: int, dtype: Any, training: bool
) -> dict[str, Callable[[], Any]]:
    """Calls of one 3x3 convolution, padding 1."""
    import torch

    import refdcn

    def made(*shape: int) -> Any:
        return torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=training)

    x, weight, bias = made(N, C_in, side, side), made(C_out, C_in, 3, 3), made(C_out)
    offset, mask = made(N, 18, side, side), made(N, 9, side, side)
    grad_y = torch.randn(N, C_out, side, side, device="cuda", dtype=dtype)

    def step(forward: Callable[[], Any], *leaves: Any) -> Callable[[], Any]:
        if not training:
            return forward
        return lambda: torch.autograd.grad(forward(), leaves, grad_y)

    inputs = x, offset, weight, mask, bias
    turns = {
        "refdcn": step(
            lambda: refdcn.deform_conv2d(*inputs, padding=1), *inputs
        ),
        "dense": step(
            lambda: torch.nn.functional.conv2d(x, weight, bias, padding=1),
            x, weight, bias,
        ),
    }  # fmt: skip
    try:
        from torchvision.ops import deform_conv2d
    except ImportError:
        return turns
    turns["torchvision"] = step(
        lambda: deform_conv2d(x, offset, weight, bias, padding=1, mask=mask), *inputs
    )
    return turns


def interleaved(turns: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Each contestant once a round, by events on the device."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in turns}
    peaks = {}
    for name, call in turns.items():
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        peaks[f"{name} peak"] = torch.cuda.max_memory_allocated() - before
    for _ in range(ROUNDS):
        for name, call in turns.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end))
    medians = {f"{name} ms": statistics.median(t) for name, t in times.items()}
    return medians | peaks


def rows(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of what `measure` found."""
    names = list(dict.fromkeys(name for row in found for name in row))
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for row in found:
        cells = [row.get(name, "") for name in names]
        shown = [f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells]
        lines.append(f"| {' | '.join(shown)} |")
    return lines
