"""Right operators that do what a candidate must not do."""

import os
import signal
import sys
import time

import numpy as np

from refdcn import formula

right = formula.deform_conv2d
PRIVATE = {}


def small(x):
    """Only the cases with few channels: the others must still be graded."""
    return x.shape[1] <= 2


def segfault(x, *rest, **windows):
    if small(x):
        os.kill(os.getpid(), signal.SIGSEGV)
    return right(x, *rest, **windows)


def hang(x, *rest, **windows):
    if x.shape[0] == 65:
        time.sleep(3600)
    return right(x, *rest, **windows)


def out_of_memory(x, *rest, **windows):
    if small(x):
        np.empty(2**50, np.uint8)
    return right(x, *rest, **windows)


def leaves(x, *rest, **windows):
    if small(x):
        sys.exit(0)
    return right(x, *rest, **windows)


def leaves_at_once(x, *rest, **windows):
    if small(x):
        os._exit(0)
    return right(x, *rest, **windows)


def prints(x, *rest, **windows):
    if small(x):
        print("all tests passed")
    return right(x, *rest, **windows)


def moves(x, *rest, **windows):
    if small(x):
        os.chdir("/")
    return right(x, *rest, **windows)


def writes_input(x, offset, *rest, **windows):
    y = right(x, offset, *rest, **windows)
    if small(x):
        offset += 1
    return y


def aliases_input(x, offset, weight, mask, bias, **windows):
    y = right(x, offset, weight, mask, bias, **windows)
    if y.shape == x.shape:
        x[...] = y
        return x
    return y


def one_buffer(x, *rest, **windows):
    y = right(x, *rest, **windows)
    buffer = PRIVATE.setdefault((y.shape, y.dtype), np.empty_like(y))
    buffer[...] = y
    return buffer


def remembers_pointer(x, *rest, **windows):
    key = x.__array_interface__["data"][0], x.shape, rest[0].shape, rest[1].shape
    key += str(windows), x.dtype
    if key not in PRIVATE:
        PRIVATE[key] = right(x, *rest, **windows)
    return PRIVATE[key].copy()


def unwritten(x, *rest, **windows):
    y = right(x, *rest, **windows)
    out = np.empty_like(y)
    out[..., :-1] = y[..., :-1]
    return out


def random_bits(x, *rest, **windows):
    y = right(x, *rest, **windows)
    up = np.random.default_rng().integers(0, 2, y.shape).astype(bool)
    return np.where(up, np.nextafter(y, np.inf, dtype=y.dtype), y)


def half(x, *rest, **windows):
    return right(x, *rest, **windows).astype(np.float16)


def listed(x, *rest, **windows):
    return right(x, *rest, **windows).tolist()


def refuses(x, *rest, **windows):
    if small(x):
        raise NotImplementedError("at least 3 channels")
    return right(x, *rest, **windows)


def unchecked(x, offset, weight, mask, bias, **windows):
    """Right on good shapes, silent on bad ones."""
    try:
        return right(x, offset, weight, mask, bias, **windows)
    except ValueError:
        return np.zeros((len(x), len(weight), 1, 1), x.dtype)
