"""The public functions on CUDA arrays: what comes in is checked, its kind goes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from refdcn import shapes
from refdcn.cuda import device, target
from refdcn.shapes import Padding

KINDS = ("torch", "cupy", "numba")  # whose arrays are taken as they are


def deform_conv2d(
    x: Any, offset: Any, weight: Any, mask: Any, bias: Any, *,
    stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int],
) -> Any:  # fmt: skip
    """`refdcn.deform_conv2d` on CUDA arrays of one kind."""
    named = {"x": x, "offset": offset, "weight": weight, "mask": mask, "bias": bias}
    taken, back = _taken(named)
    g = _geometry(taken, stride, padding, dilation)
    x, offset, weight, mask, bias = taken.values()
    return back(target.forward(x, offset, weight, mask, bias, g))


def deform_conv2d_grad(
    grad_y: Any, x: Any, offset: Any, weight: Any, mask: Any, bias: Any, *,
    stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int],
) -> list[Any]:  # fmt: skip
    """`refdcn.deform_conv2d_grad` on CUDA arrays of one kind."""
    named = {"x": x, "offset": offset, "weight": weight, "mask": mask, "bias": bias}
    taken, back = _taken(named | {"grad_y": grad_y})
    last = taken.pop("grad_y")
    g = _geometry(taken, stride, padding, dilation)
    shapes.check_grad_y(last.shape, g)
    x, offset, weight, mask, bias = taken.values()
    grads = target.backward(last, x, offset, weight, mask, bias, g)
    return [a if a is None else back(a) for a in grads]


def _geometry(taken: dict[str, Any], *windows: Any) -> shapes.Geometry:
    sizes: list[Any] = [None if a is None else tuple(a.shape) for a in taken.values()]
    x, offset, weight, mask, bias = sizes
    return shapes.geometry(x, offset, weight, mask, bias, *windows)


def _taken(named: dict[str, Any]) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """The arguments as arrays of a kind in KINDS, and how a result goes back."""
    given = {n: a for n, a in named.items() if a is not None or n not in _OPTIONAL}
    x = named["x"]
    for name, a in given.items():
        if type(a) is not type(x):
            raise shapes.two_kinds(name, a, "x", x)
    device.require_cuda()
    taken, back = named, _same
    if device.library(x) not in KINDS:
        through = _through(x)
        taken = {
            n: a if a is None else through.from_dlpack(a) for n, a in named.items()
        }
        back = x.__array_namespace__().from_dlpack
    some = {n: taken[n] for n in given}
    names = {n: str(a.dtype).removeprefix("torch.") for n, a in some.items()}
    shapes.check_dtypes(names, (*shapes.DTYPES, "bfloat16"))
    _one_device(some)
    return taken, back


_OPTIONAL = ("mask", "bias")


def _same(a: Any) -> Any:
    return a


def _through(x: Any) -> Any:
    """A library that takes x by DLPack and computes on it."""
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__array_namespace__")):
        raise TypeError(
            f"x is {shapes.kind(x)}, an array in CUDA memory that can be read but "
            "not made; wanted a torch, CuPy or Numba array, or one of the array API "
            "with DLPack (__array_namespace__ and __dlpack__)"
        )
    for name in ("cupy", "torch"):
        if find_spec(name) is not None:
            return __import__(name)
    raise ImportError(
        f"x is {shapes.kind(x)}; its exchange by DLPack needs torch or CuPy, and "
        "neither is installed"
    )


def _one_device(some: dict[str, Any]) -> None:
    places = {n: _place(a) for n, a in some.items()}
    for name, place in places.items():
        if place != places["x"]:
            raise ValueError(
                f"{name} is on {place} and x is on {places['x']}; "
                "all arguments need one device"
            )


def _place(a: Any) -> str:
    if device.library(a) == "numba":
        from refdcn.cuda import arrays

        return f"device {arrays.numba_device(a)}"
    return str(a.device)
