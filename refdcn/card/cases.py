"""The checks of the CUDA target that need a card; each raises where it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import refdcn
from refdcn import loops, shapes
from refdcn.card import checkout
from refdcn.card.child import Skip

DEVICE = "cuda"
SHAPES = (  # N, C_in, C_out, H, W, groups, offset groups, stride, padding, dilation
    (2, 6, 4, 7, 5, 2, 3, 2, 1, 1), (1, 64, 64, 9, 8, 1, 1, 1, 1, 1),
    (3, 8, 12, 6, 11, 4, 2, 1, 2, 2), (1, 4, 4, 1, 9, 1, 1, 1, 1, 1),
    (65, 4, 2, 5, 5, 1, 2, 1, 0, 1), (2, 96, 40, 12, 13, 1, 3, 1, 1, 1),
)  # fmt: skip
BUSY = 200_000_000  # cycles, a tenth of a second: longer than any call takes to launch


def inputs(
    shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64
) -> tuple[list[Any], dict[str, int]]:
    """x, offset, weight, mask, bias, grad_y and the window of one 3x3 call."""
    N, C_in, C_out, H, W, groups, offset_groups, stride, padding, dilation = shape
    out = [shapes.output_size(n, 3, stride, 2 * padding, dilation) for n in (H, W)]
    rng = np.random.default_rng(seed)
    sizes = (
        (N, C_in, H, W), (N, 18 * offset_groups, *out),
        (C_out, C_in // groups, 3, 3), (N, 9 * offset_groups, *out), (C_out,),
        (N, C_out, *out),
    )  # fmt: skip
    arrays = [rng.standard_normal(size).astype(dtype) for size in sizes]
    return arrays, {"stride": stride, "padding": padding, "dilation": dilation}


def on_card(arrays: list[Any]) -> list[Any]:
    return [torch.from_numpy(a).to(DEVICE) for a in arrays]


def both(arrays: list[Any], window: dict[str, int], op: Any = None) -> list[Any]:
    """y and the five gradients, by autograd, of refdcn or of `op`."""
    *given, grad_y = arrays
    leaves = [a.detach().requires_grad_() for a in given]
    y = (op or refdcn.deform_conv2d)(*leaves, **window)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y)]


def by_loops(arrays: list[Any], window: dict[str, int]) -> list[Any]:
    """What `both` gives, by loops.py on this machine's processor; dtypes stay."""
    *given, grad_y = arrays
    pairs = {name: (size, size) for name, size in window.items()}
    y = loops.deform_conv2d(*given, **pairs)
    return [y, *loops.deform_conv2d_grad(grad_y, *given, **pairs)]


def by_torchvision(arrays: list[Any], window: dict[str, int]) -> list[Any]:
    """What `both` gives, by torchvision on the card."""
    deform_conv2d = torchvision()

    def op(x: Any, offset: Any, weight: Any, mask: Any, bias: Any, **w: int) -> Any:
        return deform_conv2d(x, offset, weight, bias, mask=mask, **w)

    return both(arrays, window, op)


def torchvision() -> Any:
    try:
        from torchvision.ops import deform_conv2d

        one = torch.ones(1, 1, 1, 1, device=DEVICE)
        deform_conv2d(one, torch.zeros(1, 2, 1, 1, device=DEVICE), one)
    except Exception as e:  # absent, built for another torch, or without CUDA
        text = f"{type(e).__name__}: {e}".partition("\n")[0]
        raise Skip(f"torchvision cannot be used: {text}") from None
    return deform_conv2d


def compare(got: list[Any], wanted: list[Any], dtype: Any, terms: int) -> float:
    """The largest error over what roundings of a sum of `terms` terms allow."""
    worst = 0.0
    for a, b in zip(map(host, got), map(host, wanted), strict=True):
        allowed = 4 * terms**0.5 * np.finfo(dtype).eps * max(1.0, np.abs(b).max())
        error = float(np.abs(a - b).max()) / allowed
        if not error <= 1:
            raise AssertionError(f"{error:.2g} times the roundings, shape {a.shape}")
        worst = max(worst, error)
    return worst


def host(a: Any) -> Any:
    """A float64 NumPy array of a tensor's, or another library's, numbers."""
    if isinstance(a, torch.Tensor):
        a = a.detach().cpu().double().numpy()
    elif hasattr(a, "copy_to_host"):  # Numba's
        a = a.copy_to_host()
    elif hasattr(a, "get"):  # CuPy's
        a = a.get()
    return np.asarray(a, np.float64)


def terms(arrays: list[Any]) -> int:
    """How many the longest sum has: over C_in and taps, or over outputs."""
    weight, grad_y = arrays[2], arrays[5]
    return int(max(weight[0].size * grad_y.shape[1], grad_y[:, 0].size))


# --- Numbers -------------------------------------------------------------------------


def agreement(witness: str = "by_loops") -> float:
    """Fixed geometries against loops.py on the CPU, or against torchvision."""
    worst = 0.0
    for seed, shape in enumerate(SHAPES):
        for dtype in (np.float32, np.float64):
            arrays, window = inputs(shape, seed, dtype)
            on_host = witness == "by_loops"
            given = arrays if on_host else on_card(arrays)
            wanted = globals()[witness](given, window)
            got = both(on_card(arrays), window)
            worst = max(worst, compare(got, wanted, dtype, terms(arrays)))
    return worst


def properties(deterministic: str, witness: str) -> str:
    """The geometries that the tests draw, on the card."""
    try:
        import hypothesis
    except ImportError:
        raise Skip("hypothesis is not installed") from None
    if witness == "torchvision":
        torchvision()
    checkout.drawn_geometries().agrees(witness, deterministic == "deterministic")
    return f"hypothesis {hypothesis.__version__}"


def half_types() -> str:
    """float16 and bfloat16 are float32's results, rounded once; bits are equal."""
    names = []
    for dtype in (torch.float16, torch.bfloat16):
        arrays, window = inputs(SHAPES[5], dtype=np.float32)
        halves = [a.to(dtype) for a in on_card(arrays)]
        with in_order():
            half = both(halves, window)
            single = both([a.float() for a in halves], window)
        for a, b in zip(half, single, strict=True):
            if not torch.equal(a, b.to(dtype)):
                raise AssertionError(f"{dtype}: not float32's result, rounded")
        names.append(str(dtype))
    return ", ".join(names)


def half_positions() -> dict[str, float]:
    """Column 1500 + 0.3 in float16: x = column / 2048 is linear, so y tells where."""
    x = (torch.arange(1504.0) / 2048).half().reshape(1, 1, 1, -1).to(DEVICE)
    offset = torch.zeros(1, 2, 1, 1504, dtype=torch.half, device=DEVICE)
    offset[:, 1] = 0.3
    one = torch.ones(1, 1, 1, 1, dtype=torch.half, device=DEVICE)
    y = refdcn.deform_conv2d(x, offset, one)[0, 0, 0, 1500].item()
    pixels = x[0, 0, 0].double()
    dp = offset[0, 1, 0, 0].item()
    wanted = (1 - dp) * pixels[1500].item() + dp * pixels[1501].item()
    if not abs(y - wanted) <= 2.0**-11 * abs(wanted):
        raise AssertionError(f"y is {y}, wanted {wanted}")
    found = {"refdcn": y * 2048, "wanted": wanted * 2048}
    try:
        theirs = torchvision()(x, offset, one)
    except (Skip, RuntimeError):
        return found
    return found | {"torchvision": theirs[0, 0, 0, 1500].item() * 2048}


class in_order:  # noqa: N801 - used as a word
    """torch.use_deterministic_algorithms(True), meanwhile."""

    def __enter__(self) -> None:
        self.before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)

    def __exit__(self, *error: Any) -> None:
        torch.use_deterministic_algorithms(self.before)


def deterministic() -> str:
    """20 runs give every gradient the same bits; how often they differ without."""
    arrays, window = inputs((4, 32, 32, 20, 20, 1, 1, 1, 1, 1), dtype=np.float32)
    tensors = on_card(arrays)
    with in_order():
        runs = [both(tensors, window) for _ in range(20)]
    if any(differ(run, runs[0]) for run in runs[1:]):
        raise AssertionError("two runs differ")
    runs = [both(tensors, window) for _ in range(20)]
    others = sum(differ(run, runs[0]) for run in runs[1:])
    return f"20 runs alike; without it {others} of 19 differ from the first"


def differ(a: list[Any], b: list[Any]) -> bool:
    return not all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


# --- Streams, devices, sizes, other arrays -------------------------------------------


def streams() -> str:
    """Calls on streams that are busy: the same bits, and no waiting."""
    arrays, window = inputs(SHAPES[5], dtype=np.float32)
    tensors = on_card(arrays)
    with in_order():
        wanted = both(tensors, window)
        torch.cuda.synchronize()
        kept = []
        for _ in range(20):
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                # What comes early, or on another stream, would read zeros.
                torch.cuda._sleep(BUSY // 20)
                late = [torch.zeros_like(a).copy_(a) for a in tensors]
                kept.append((late, both(late, window)))
        torch.cuda.synchronize()
    if any(differ(got, wanted) for _, got in kept):
        raise AssertionError("a stream gave other bits")
    for stream in (torch.cuda.default_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            both(tensors, window)  # memory and handles of the stream, once
            torch.cuda.synchronize()
            torch.cuda._sleep(BUSY)
            both(tensors, window)
            if stream.query():
                raise AssertionError("the call waited for the device")
        torch.cuda.synchronize()
    return f"{len(kept)} streams"


def second_device() -> str:
    """Tensors of a device that is not the current one."""
    count = torch.cuda.device_count()
    if count < 2:
        raise Skip("there is one card")
    arrays, window = inputs(SHAPES[0], dtype=np.float32)
    there = [a.to(f"cuda:{count - 1}") for a in on_card(arrays)]
    got = both(there, window)
    if not all(a.device == there[0].device for a in got):
        raise AssertionError("a result is on another device")
    compare(got, by_loops(arrays, window), np.float32, terms(arrays))
    return str(there[0].device)


def other_arrays(name: str) -> str:
    """CuPy's or Numba's arrays: the kind that comes in goes out."""
    try:
        if name == "cupy":
            import cupy

            to_card = cupy.asarray
        else:
            from numba import cuda

            to_card = cuda.to_device
    except ImportError as e:
        raise Skip(f"{name} cannot be used: {e}") from None
    arrays, window = inputs(SHAPES[2], dtype=np.float32)
    *given, grad_y = map(to_card, arrays)
    got = [refdcn.deform_conv2d(*given, **window)]
    got += refdcn.deform_conv2d_grad(grad_y, *given, **window)
    if any(type(a) is not type(given[0]) for a in got):
        raise AssertionError(f"wanted {type(given[0])}, got {set(map(type, got))}")
    compare(got, by_loops(arrays, window), np.float32, terms(arrays))
    return type(given[0]).__name__


def room(needed: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < needed:
        raise Skip(f"needs {needed / 2**30:.0f} GiB free, there are {free / 2**30:.0f}")


def large_batch(N: int = 33, side: int = 1024) -> str:
    """x of more than 2**31 numbers; its last image against that image alone."""
    C = 64
    room(2 * (N * C * side * side + 20 * N * side * side) + (4 << 30))
    half = {"dtype": torch.half, "device": DEVICE}
    x = torch.zeros(N, C, side, side, **half)
    x[-1].normal_()
    offset = torch.full((N, 2, side, side), 0.5, **half)
    weight = torch.randn(1, C, 1, 1, **half)
    y = refdcn.deform_conv2d(x, offset, weight)
    alone = refdcn.deform_conv2d(x[-1:].clone(), offset[-1:].clone(), weight)
    if not torch.allclose(y[-1:], alone, rtol=2.0**-10, atol=2.0**-10):
        raise AssertionError("the last image differs")
    return f"{x.numel()} numbers"


def large_image(C: int = 256, side: int = 2912, strip: int = 64) -> str:
    """One image of more than 2**31 numbers: its last rows against them alone."""
    room(4 * 4 * C * (side + 3) ** 2 + (4 << 30))
    single = {"dtype": torch.float32, "device": DEVICE}
    x = torch.zeros(1, C, side, side, **single)
    x[:, :, -strip:].normal_()
    offset = torch.full((1, 2, side, side), 0.25, **single)
    weight = torch.randn(1, C, 1, 1, **single)
    grad_y = torch.zeros(1, 1, side, side, **single)
    grad_y[:, :, -strip // 2 :] = 1

    def end(a: Any) -> Any:
        return a[:, :, -strip:].clone()

    y = refdcn.deform_conv2d(x, offset, weight)
    alone = refdcn.deform_conv2d(end(x), end(offset), weight)
    compare([end(y)[:, :, 1:]], [alone[:, :, 1:]], np.float32, C)
    del y
    grads = refdcn.deform_conv2d_grad(grad_y, x, offset, weight)
    alone = refdcn.deform_conv2d_grad(end(grad_y), end(x), end(offset), weight)
    for a, b in ((end(grads[0]), alone[0]), (end(grads[1]), alone[1])):
        compare([a], [b], np.float32, C)
    return f"{x.numel()} numbers"
