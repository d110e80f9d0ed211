"""The checks of the CUDA target that need a card; each raises where it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import refdcn
from refdcn import loops
from refdcn.bench.cuda_timing import Skip

SHAPES = (  # N, C_in, C_out, H, W, groups, offset groups, stride, padding, dilation
    (2, 6, 4, 7, 5, 2, 3, 2, 1, 1), (1, 64, 64, 9, 8, 1, 1, 1, 1, 1),
    (3, 8, 12, 6, 11, 4, 2, 1, 2, 2), (1, 4, 4, 1, 9, 1, 1, 1, 1, 1),
    (65, 4, 2, 5, 5, 1, 2, 1, 0, 1), (2, 96, 40, 12, 13, 1, 3, 1, 1, 1),
)  # fmt: skip


def inputs(
    shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64
) -> tuple[list[Any], dict[str, int]]:
    """x, offset, weight, mask, bias, grad_y and the window of one 3x3 call."""
    N, C_in, C_out, H, W, groups, offset_groups, stride, padding, dilation = shape
    out = [(n + 2 * padding - 2 * dilation - 1) // stride + 1 for n in (H, W)]
    rng = np.random.default_rng(seed)
    sizes = (
        (N, C_in, H, W), (N, 18 * offset_groups, *out),
        (C_out, C_in // groups, 3, 3), (N, 9 * offset_groups, *out), (C_out,),
        (N, C_out, *out),
    )  # fmt: skip
    arrays = [rng.standard_normal(size).astype(dtype) for size in sizes]
    return arrays, {"stride": stride, "padding": padding, "dilation": dilation}


def on_card(arrays: list[Any]) -> list[Any]:
    return [torch.from_numpy(a).cuda() for a in arrays]


def both(arrays: list[Any], window: dict[str, int]) -> list[Any]:
    """y and the five gradients of refdcn."""
    *given, grad_y = arrays
    y = refdcn.deform_conv2d(*given, **window)
    return [y, *refdcn.deform_conv2d_grad(grad_y, *given, **window)]


def compare(got: list[Any], wanted: list[Any], dtype: Any, terms: int) -> float:
    """The largest error over what roundings of a sum of `terms` terms allow."""
    worst = 0.0
    for a, b in zip(got, wanted, strict=True):
        a, b = np.asarray(a.cpu(), np.float64), np.asarray(b.cpu(), np.float64)
        allowed = 4 * terms**0.5 * np.finfo(dtype).eps * max(1.0, np.abs(b).max())
        error = float(np.abs(a - b).max()) / allowed
        if not error <= 1:
            raise AssertionError(f"{error:.2g} times the roundings, shape {a.shape}")
        worst = max(worst, error)
    return worst


def terms(arrays: list[Any]) -> int:
    """Of the longest sum: over C_in and taps, or over outputs."""
    weight, grad_y = arrays[2], arrays[5]
    return int(max(weight[0].size * grad_y.shape[1], grad_y[:, 0].size))


def agreement() -> float:
    """refdcn's CUDA target against its CPU target and, where there, torchvision."""
    worst = 0.0
    for seed, shape in enumerate(SHAPES):
        for dtype in (np.float32, np.float64):
            arrays, window = inputs(shape, seed, dtype)
            got = both(on_card(arrays), window)
            host = both([torch.from_numpy(a) for a in arrays], window)
            worst = max(worst, compare(got, host, dtype, terms(arrays)))
            witness = torchvision(on_card(arrays), window)
            worst = max(worst, compare(got, witness, dtype, terms(arrays)))
    return worst


def torchvision(tensors: list[Any], window: dict[str, int]) -> list[Any]:
    try:
        from torchvision.ops import deform_conv2d
    except ImportError:
        raise Skip("torchvision is not installed") from None

    x, offset, weight, mask, bias, grad_y = tensors
    given = [a.requires_grad_() for a in (x, offset, weight, mask, bias)]
    y = deform_conv2d(x, offset, weight, bias, mask=mask, **window)
    return [y.detach(), *torch.autograd.grad(y, given, grad_y)]


def streams() -> int:
    """Calls on streams that are busy: the same bits as on the default one."""
    arrays, window = inputs(SHAPES[5], dtype=np.float32)
    tensors = on_card(arrays)
    wanted = refdcn.deform_conv2d(*tensors[:5], **window)
    torch.cuda.synchronize()
    kept = []
    for _ in range(20):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10_000_000)  # what comes early would read the old values
            late = [torch.zeros_like(a).copy_(a) for a in tensors]
            kept.append((late, refdcn.deform_conv2d(*late[:5], **window)))
    torch.cuda.synchronize()
    if not all(torch.equal(y, wanted) for _, y in kept):
        raise AssertionError("a stream gave other bits")
    return len(kept)


def deterministic() -> int:
    """The same bits of every gradient in 20 runs."""
    arrays, window = inputs((4, 32, 32, 20, 20, 1, 1, 1, 1, 1), dtype=np.float32)
    tensors, before = on_card(arrays), torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        runs = [both(tensors, window) for _ in range(20)]
    finally:
        torch.use_deterministic_algorithms(before)
    for run in runs[1:]:
        if not all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True)):
            raise AssertionError("two runs differ")
    return len(runs)


def half_positions() -> float:
    """Column 1500 + 0.3 in float16: x = column / 2048 is linear, so y tells where."""
    x = (torch.arange(1504.0) / 2048).half().reshape(1, 1, 1, -1).cuda()
    offset = torch.zeros(1, 2, 1, 1504, dtype=torch.half, device="cuda")
    offset[:, 1] = 0.3
    one = torch.ones(1, 1, 1, 1, dtype=torch.half, device="cuda")
    y = refdcn.deform_conv2d(x, offset, one)[0, 0, 0, 1500].item()
    pixels = x[0, 0, 0].double()
    dp = offset[0, 1, 0, 0].item()
    wanted = (1 - dp) * pixels[1500].item() + dp * pixels[1501].item()
    if not abs(y - wanted) <= 2.0**-11 * abs(wanted):
        raise AssertionError(f"y is {y}, wanted {wanted}")
    return float(y - wanted)


def large() -> str:
    """x of more than 2**31 numbers; its last image against that image alone."""
    N, C, side = 33, 64, 1024
    free, _ = torch.cuda.mem_get_info()
    needed = 2 * (N * C * side * side + 20 * N * side * side) + (4 << 30)
    if free < needed:
        raise Skip(f"needs {needed >> 30} GiB of free memory, there are {free >> 30}")
    x = torch.zeros(N, C, side, side, dtype=torch.half, device="cuda")
    x[-1].normal_()
    offset = torch.zeros(N, 2, side, side, dtype=torch.half, device="cuda") + 0.5
    weight = torch.randn(1, C, 1, 1, dtype=torch.half, device="cuda")
    y = refdcn.deform_conv2d(x, offset, weight)
    alone = refdcn.deform_conv2d(x[-1:].clone(), offset[-1:].clone(), weight)
    if not torch.allclose(y[-1:], alone, rtol=2.0**-10, atol=2.0**-10):
        raise AssertionError("the last image differs")
    return f"{x.numel()} numbers"


def small() -> None:
    """What compute-sanitizer watches: both forms of the backward."""
    arrays, window = inputs(SHAPES[0], dtype=np.float32)
    for in_order in (False, True):
        torch.use_deterministic_algorithms(in_order)
        got = both(on_card(arrays), window)
    wanted = loops.deform_conv2d(
        *arrays[:5], **{k: (v, v) for k, v in window.items()}
    )
    compare(got[:1], [torch.from_numpy(wanted)], np.float32, terms(arrays))
