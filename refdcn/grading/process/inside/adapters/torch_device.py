"""A candidate whose tensors are on a device: `--device cuda`, mps, xpu, cpu.

Each input is copied there with the guards around it, and all of that is copied back
after the call: what the candidate wrote into an input, or beside it, is in the grader's
memory then, which compares it as ever. A call ends when the device has done all that it
was given, and has said whether it failed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..fetched import CALLS_TORCHVISION, LEAVES_DEVICE, SEEN, Fetched
from ..routes import SpecError
from .torch_arrays import plain

GUARD = 64  # bytes before and behind an input that are copied with it
BFLOAT16 = np.dtype(np.uint16)  # NumPy has none: its bits


def module_of(kind: str) -> Any:
    """torch.cuda and its like; of the processor there is one, too."""
    if kind == "mps":
        return torch.backends.mps
    return getattr(torch, kind, None)


class Copy:
    """An input on the device, guards and all."""

    def __init__(self, a: Any, device: Any) -> None:
        ends = [(n - 1) * s for n, s in zip(a.shape, a.strides)]
        size = (sum(ends) + a.itemsize if a.size else 0) + 2 * GUARD
        self.at = a.__array_interface__["data"][0] - GUARD
        self.host = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(self.at))
        self.bytes = torch.from_numpy(self.host.copy()).to(device)
        dtype = torch.bfloat16 if a.dtype == BFLOAT16 else torch.from_numpy(a[:0]).dtype
        steps = tuple(s // a.itemsize for s in a.strides)
        inner = self.bytes[GUARD : size - GUARD].view(dtype)
        self.tensor = inner.as_strided(a.shape, steps)

    def hand_back(self) -> None:
        """What lies on the device now becomes what lies in the grader's memory."""
        now = self.bytes.cpu().numpy()
        if not np.array_equal(now, self.host):
            self.host[...] = now

    def place(self, address: int) -> int | None:
        """The grader's address of a byte in this copy."""
        k = address - self.bytes.data_ptr()
        return self.at + k if 0 <= k < len(self.bytes) else None


class Watch(TorchDispatchMode):
    """Notes operators of torchvision, and numbers that leave the device."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __torch_dispatch__(
        self, op: Any, types: Any, given: Any = (), named: Any = None
    ) -> Any:
        found = op(*given, **(named or {}))
        note = None
        if op.namespace == "torchvision" and "deform_conv2d" in op.name():
            note = CALLS_TORCHVISION
        elif isinstance(found, torch.Tensor) and found.device.type != self.kind:
            note = LEAVES_DEVICE if found.dim() else None  # a number is read by many
        if note is not None and note not in SEEN:
            SEEN.append(note)
        return found


class Device:
    """Functions on tensors of one device, made functions on NumPy arrays."""

    def __init__(self, name: str) -> None:
        try:
            self.device = torch.device(name)
            self.module = module_of(self.device.type)
            there = self.device.type == "cpu" or self.module.is_available()
            if there:
                torch.zeros(1, device=self.device)  # starts it
        except Exception as e:
            first = str(e).strip().partition("\n")[0]
            raise SpecError(
                f"device is {name!r}, which torch cannot use: {first}"
            ) from e
        if not there:
            raise SpecError(
                f"device is {name!r}, and torch {torch.__version__} finds none here"
            )
        self.calls = 0

    @property
    def name(self) -> str:
        """What the device calls itself."""
        if hasattr(self.module, "get_device_name"):
            return str(self.module.get_device_name(self.device))
        return str(self.device)

    def finish(self) -> None:
        """Wait for all streams; what failed on the device raises here."""
        if self.device.type == "mps":
            torch.mps.synchronize()
        elif hasattr(self.module, "synchronize"):
            self.module.synchronize()

    def poison(self, shape: Any, dtype: Any, pattern: int) -> None:
        """Fill the memory that torch hands out next."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        held = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in "abc"]
        for a in held:
            a.fill_(pattern)

    def empty(self, shape: Any, dtype: Any) -> Any:
        """A result that nothing was written to."""
        name = "int16" if np.dtype(dtype) == BFLOAT16 else np.dtype(dtype).name
        a = torch.empty(shape, dtype=getattr(torch, name), device=self.device)
        return self.fetched(a, [])

    def fetched(self, t: Any, copies: list[Copy]) -> Any:
        """A result where it lies; anything else is the grader's to judge."""
        if not isinstance(t, torch.Tensor):
            return t
        t = t.detach()
        if t.device.type != self.device.type and LEAVES_DEVICE not in SEEN:
            SEEN.append(LEAVES_DEVICE)
        places = [copy.place(t.data_ptr()) for copy in copies]
        address = next((p for p in places if p is not None), t.data_ptr())
        steps = tuple(s * t.element_size() for s in t.stride())
        return Fetched(lambda: np.array(plain(t.cpu())), address, steps)

    @contextmanager
    def there(self, inputs: Any) -> Iterator[list[Copy | None]]:
        """Copies of the inputs there, handed back when all is done."""
        copies = [None if a is None else Copy(a, self.device) for a in inputs]
        self.finish()
        try:
            yield copies
            self.finish()
        finally:
            for copy in copies:
                if copy is not None:
                    copy.hand_back()

    def watched(self, f: Callable[..., Any], *given: Any, **windows: Any) -> Any:
        """A call; the first one of a session is looked into."""
        self.calls += 1
        if self.calls > 1:
            return f(*given, **windows)
        with Watch(self.device.type):
            return f(*given, **windows)

    def forward_of(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f on NumPy arrays."""

        def forward(*inputs: Any, **windows: Any) -> Any:
            with torch.no_grad(), self.there(inputs) as copies:
                given = [None if c is None else c.tensor for c in copies]
                y = self.watched(f, *given, **windows)
            return self.fetched(y, [c for c in copies if c is not None])

        return forward

    def grad_of(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """The five gradients, by autograd; it is given a copy of grad_y."""

        def grad(grad_y: Any, *inputs: Any, **windows: Any) -> Any:
            with self.there((grad_y, *inputs)) as copies:
                leaves = [
                    None if c is None else c.tensor.detach().requires_grad_()
                    for c in copies[1:]
                ]
                y = f(*leaves, **windows)
                assert copies[0] is not None
                y.backward(copies[0].tensor.clone())
            held = [c for c in copies if c is not None]
            return [None if a is None else self.fetched(a.grad, held) for a in leaves]

        return grad

    def several_of(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """A companion, on NumPy arrays."""

        def grad(*inputs: Any, **windows: Any) -> Any:
            with torch.no_grad(), self.there(inputs) as copies:
                found = f(*(None if c is None else c.tensor for c in copies), **windows)
            held = [c for c in copies if c is not None]
            return [self.fetched(a, held) for a in found]

        return grad
