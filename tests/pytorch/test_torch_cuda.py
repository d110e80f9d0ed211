"""The CUDA kernels' place behind the torch operator, with no card: what is passed on.

The launches themselves are tested in test_cuda_*.py; nothing here ran on a card.
"""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numba.cuda
import numpy as np
import pytest
import torch

from refdcn import cuda, ops
from refdcn.cuda import arrays, device, kernels
from refdcn.torch import library

from strategies import Sizes, fill

SMALL = Sizes(2, 6, 4, 2, 3, 5, 4)


@pytest.fixture
def case():
    return fill(SMALL, np.random.default_rng(0), dtype=np.float32)


def tensors(case):
    return [torch.from_numpy(a) for a in case.inputs]


def on_cpu():
    """TorchArrays without a card: no stream, no launch."""
    made = object.__new__(arrays.TorchArrays)
    made.torch, made.device = torch, torch.device("cpu")
    return made


CONV = ((1, 1), (1, 1, 1, 1), (1, 1))


def test_registered_for_cuda():
    for name in ("deform_conv2d", "deform_conv2d_backward"):
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        assert has(f"refdcn::{name}", "CUDA")


def test_forward_passes_the_tensors_and_the_geometry(monkeypatch, case):
    seen = []
    monkeypatch.setattr(cuda, "forward", lambda *args: seen.extend(args) or "y")
    given = tensors(case)
    assert library._forward_cuda(*given, *CONV) == "y"
    assert all(a is b for a, b in zip(seen, given, strict=False))
    assert seen[5].groups == 2 and seen[5].offset_groups == 3


@pytest.mark.parametrize("deterministic", [False, True])
def test_backward_asks_for_the_order_that_torch_asks_for(
    monkeypatch, case, deterministic
):
    seen = {}

    def backward(*args, deterministic):
        seen.update(args=args, deterministic=deterministic)
        return [torch.ones(1), None, None, None, None]

    monkeypatch.setattr(cuda, "backward", backward)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        grad_y, given = torch.from_numpy(case.grad_y), tensors(case)
        needs = (True, False, False, False, False)
        grads = library._backward_cuda(grad_y, *given[:4], *CONV, needs)
    finally:
        torch.use_deterministic_algorithms(before)
    assert seen["deterministic"] is deterministic and seen["args"][7] == needs
    assert [len(g) for g in grads] == [1, 0, 0, 0, 0]


class Entered:
    """A context that notes when it is entered and left."""

    def __init__(self, name, events):
        self.name, self.events = name, events

    def __enter__(self):
        self.events.append(f"in {self.name}")

    def __exit__(self, *error):
        self.events.append(f"out {self.name}")


@pytest.fixture
def second(monkeypatch):
    """Arrays on device 1 while device 0 is current; the events of a call."""
    events = []

    def stream(*device):
        events.append("stream")
        return SimpleNamespace(cuda_stream=7, ptr=7)

    gpus = {n: Entered(f"numba {n}", events) for n in (0, 1)}
    monkeypatch.setattr(numba.cuda, "gpus", gpus)
    monkeypatch.setattr(torch.cuda, "device", lambda d: Entered(f"torch {d}", events))
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    cupy = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=stream))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return events


def array_of(library, events):
    """What `working_on` asks of an array on device 1."""
    place = torch.device("cuda", 1)
    if library == "cupy":
        place = Entered("cupy 1", events)
        place.id = 1
    memory = SimpleNamespace(context=SimpleNamespace(device=SimpleNamespace(id=1)))
    made = type("Array", (), {"__module__": f"{library}.core"})()
    made.device, made.gpu_data, made.stream = place, memory, 7
    return made


@pytest.mark.parametrize(
    "library, around, kind",
    [
        ("torch", "torch cuda:1", arrays.TorchArrays),
        ("cupy", "cupy 1", arrays.CupyArrays),
        ("numba", None, arrays.NumbaArrays),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_the_device_of_the_arrays_is_current_and_the_one_before_again(
    second, library, around, kind, fails
):
    """For the library, whose stream is asked then, and for Numba; errors or not."""
    x = array_of(library, second)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        with arrays.working_on(x) as on:
            assert type(on) is kind and on.stream == 7
            second.append("work")
            1 / (not fails)
    theirs = [f"in {around}"] if around else []
    asked = ["stream"] if around else []
    back = [f"out {around}"] if around else []
    assert second == [*theirs, "in numba 1", *asked, "work", "out numba 1", *back]


@pytest.mark.parametrize("pointer, stream", [(77, "stream 77"), (0, "default")])
def test_launches_on_torchs_current_stream(monkeypatch, pointer, stream):
    """Numba is given the memory and told not to wait for it."""
    done = []

    def current(device):
        assert device.type == "cpu"
        return SimpleNamespace(cuda_stream=pointer)

    def configured(*launch):
        return lambda *args: done.append((*launch, args))

    def as_cuda_array(a, sync):
        assert not sync
        return a.data_ptr()

    arrays._stream.cache_clear()
    monkeypatch.setattr(torch.cuda, "current_stream", current)
    monkeypatch.setattr(arrays, "configured", configured)
    for name, made in (
        ("as_cuda_array", as_cuda_array),
        ("external_stream", lambda pointer: f"stream {pointer}"),
        ("legacy_default_stream", lambda: "default"),
    ):
        monkeypatch.setattr(numba.cuda, name, made)
    a = torch.zeros(3)
    arrays.TorchArrays(a).launch(kernels.clear, (2,), (32,), a, 5)
    arrays._stream.cache_clear()
    assert done == [(kernels.clear, (2,), (32,), stream, (a.data_ptr(), 5))]


def test_simulated_kernels_agree_with_torchvision():
    """Simulator results; in a process of their own, where Numba reads the setting."""
    tests = Path(__file__).parents[1]
    file = tests / "support" / "cuda_torchvision.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    done = subprocess.run(
        command, capture_output=True, text=True,
        cwd=tests.parent, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.parametrize("turned", ["", "a", "b"])
@pytest.mark.parametrize("accumulate", [0, 1])
def test_products_are_torchs(turned, accumulate):
    rng, (batch, M, N, Q) = np.random.default_rng(0), (2, 5, 4, 3)
    a, b = rng.standard_normal((batch, M, Q)), rng.standard_normal((batch, Q, N))
    c = rng.standard_normal((batch, M, N))
    wanted = a @ b + accumulate * c
    s_a, s_b = (M * Q, Q, 1), (Q * N, N, 1)
    if turned == "a":
        a, s_a = a.transpose(0, 2, 1).copy(), (M * Q, 1, M)
    if turned == "b":
        b, s_b = b.transpose(0, 2, 1).copy(), (Q * N, 1, Q)
    sizes = kernels.Product(batch, M, N, Q, *s_a, *s_b, accumulate)
    # Longer than needed: the buffers of a last, smaller tile.
    room = torch.cat([torch.from_numpy(c.ravel()), torch.zeros(7, dtype=torch.double)])
    on_cpu().product(
        torch.from_numpy(a.ravel()), torch.from_numpy(b.ravel()), room, sizes
    )
    got = room[: c.size].reshape(c.shape).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-14, atol=1e-14)
    assert not room[c.size :].any()


def test_products_keep_their_digits_under_autocast():
    """torch casts the arguments of its products, but not of those into an array."""
    a, b = torch.randn(2, 5, 3), torch.randn(2, 3, 4)
    wanted = a @ b
    for accumulate in (0, 1):
        c = torch.zeros(40)
        sizes = kernels.Product(2, 5, 4, 3, 15, 3, 1, 12, 4, 1, accumulate)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (a @ b).dtype == torch.bfloat16
            on_cpu().product(a.view(-1), b.view(-1), c, sizes)
        torch.testing.assert_close(c.view(2, 5, 4), wanted, rtol=1e-6, atol=1e-6)


def test_half_types_are_widened_and_rounded():
    on, a = on_cpu(), torch.randn(3, 4).bfloat16()
    assert on.dtype(a) == "bfloat16"
    wide = on.plain(a.T, "float32")
    assert wide.dtype == torch.float32 and wide.is_contiguous()
    on.assign(a, torch.full((3, 4), 1 + 2.0**-9))
    assert (a == 1).all()


@pytest.mark.parametrize("installed", [False, True])
def test_without_a_card_the_error_says_what_is_missing(monkeypatch, case, installed):
    monkeypatch.setattr(
        device, "find_spec", lambda name: object() if installed else None
    )
    monkeypatch.setattr("numba.cuda.is_available", lambda: False)
    error, text = (
        (RuntimeError, "no usable CUDA device")
        if installed
        else (ImportError, r'numba-cuda.*pip install "refdcn\[cuda\]"')
    )
    with pytest.raises(error, match=text):
        library._forward_cuda(*tensors(case), *CONV)


NUMBA_ALONE = """
import sys
sys.modules["numba.cuda"] = None  # as of a numba that has no CUDA target of its own
from refdcn.cuda import device
device.find_spec = lambda name: None
class Array:
    __cuda_array_interface__ = {}
import refdcn
refdcn.deform_conv2d(Array(), Array(), Array())
"""


def test_a_numba_without_cuda_gives_the_same_error():
    command = [sys.executable, "-c", NUMBA_ALONE]
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: the CUDA target needs the package numba-cuda")


class OnCuda:
    """Any library's array in CUDA memory."""

    __cuda_array_interface__ = {}

    def __init__(self, a):
        self.dtype, self.shape = a.dtype, a.shape


class Exchanged(OnCuda):
    """One of the array API, which DLPack brings to torch and back."""

    def __init__(self, a):
        super().__init__(a)
        self.tensor = torch.from_numpy(np.array(a))

    def __dlpack__(self, **how):
        return self.tensor.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __array_namespace__(self):
        return type("namespace", (), {"from_dlpack": lambda a: ("back", a)})


def test_other_kinds_go_through_dlpack_and_back(monkeypatch, case):
    monkeypatch.setattr(device, "require_cuda", lambda: None)
    only_torch = {"torch": True}.get
    monkeypatch.setattr("refdcn.cuda.entry.find_spec", only_torch)
    monkeypatch.setattr("refdcn.cuda.target.forward", lambda *args: args[0])
    inputs = [Exchanged(a) for a in case.inputs]
    kind, y = ops.deform_conv2d(*inputs, padding=1)
    assert kind == "back"
    np.testing.assert_array_equal(y.numpy(), case.x)


def test_a_kind_that_cannot_be_made_is_refused(monkeypatch, case):
    monkeypatch.setattr(device, "require_cuda", lambda: None)
    with pytest.raises(TypeError, match=r"x is \w+.OnCuda.*can be read but not made"):
        ops.deform_conv2d(*map(OnCuda, case.inputs), padding=1)


def test_kinds_are_not_mixed(case):
    with pytest.raises(TypeError, match=r"offset is numpy.ndarray and x is \w+.OnCuda"):
        ops.deform_conv2d(OnCuda(case.x), *case.inputs[1:], padding=1)
