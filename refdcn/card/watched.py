"""What compute-sanitizer watches: every kernel, on Numba's arrays.

torch is left out: its pool hides the end of an array, and its libraries' kernels are
not ours to judge. Each array here is an allocation of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refdcn import cuda, loops, shapes

WINDOW: dict[str, Any] = {"stride": (2, 1), "padding": (1, 1), "dilation": (1, 2)}


def inputs(rng: np.random.Generator) -> tuple[Any, ...]:
    """x, offset, weight, mask, bias, grad_y of 2 groups and 3 offset groups."""
    sizes = (
        (2, 12, 7, 6), (2, 54, 4, 4), (4, 6, 3, 3), (2, 27, 4, 4), (4,), (2, 4, 4, 4)
    )  # fmt: skip
    return tuple(rng.standard_normal(size) for size in sizes)


def main() -> None:
    """Forward, and backward in both forms, by each dtype; float64's are compared."""
    from numba import cuda as numbas

    *five, grad_y = arrays = inputs(np.random.default_rng(0))
    y = loops.deform_conv2d(*five, **WINDOW)
    wanted = y, *loops.deform_conv2d_grad(grad_y, *five, **WINDOW)
    for dtype in (np.float64, np.float32, np.float16):
        for deterministic in (False, True):
            given = [numbas.to_device(a.astype(dtype)) for a in arrays]
            got = [a.copy_to_host() for a in both(given, deterministic)]
            if dtype is np.float64:
                agree(got, wanted, f"deterministic={deterministic}")


def agree(got: Sequence[Any], wanted: Sequence[Any], form: str) -> None:
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=form)


def both(arrays: list[Any], deterministic: bool) -> list[Any]:
    """y and the five gradients."""
    x, offset, weight, mask, bias, grad_y = arrays
    sizes = [a.shape for a in arrays]
    g = shapes.geometry(*sizes[:5], **WINDOW)
    y = cuda.forward(x, offset, weight, mask, bias, g)
    grads = cuda.backward(
        grad_y, x, offset, weight, mask, bias, g, deterministic=deterministic
    )
    return [y, *grads]


if __name__ == "__main__":
    main()
