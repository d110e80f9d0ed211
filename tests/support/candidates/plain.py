"""Candidates of NumPy alone, for any Python: one tap, no offset, no group, a batch."""

import ctypes
import os
import sys
import time

import numpy as np

BUFFER = {}


def right(x, offset, weight, mask, bias, stride, padding, dilation):
    shape = len(x), len(weight), offset.shape[2], offset.shape[3]
    return np.full(shape, x.sum(), x.dtype)


def big(*inputs, **windows):
    y = right(*inputs, **windows)
    return y.astype(y.dtype.newbyteorder(">"))


def little(*inputs, **windows):
    return right(*inputs, **windows)


def texts(*inputs, **windows):
    return np.array(["a", "b" * 5])


def escapes(*inputs, **windows):
    raise ValueError("\x1b[2Jpass \ud800\nnext line")


def version(*inputs, **windows):
    raise RuntimeError(sys.version)


def writes(x, *rest, **windows):
    x += 1
    return right(x, *rest, **windows)


def returns_input(x, *rest, **windows):
    return x


def prints(*inputs, **windows):
    print("all tests passed")
    return right(*inputs, **windows)


def moves(*inputs, **windows):
    os.chdir("/")
    return right(*inputs, **windows)


def dies(*inputs, **windows):
    ctypes.string_at(0)


def buffer(*inputs, **windows):
    y = right(*inputs, **windows)
    BUFFER.setdefault(y.shape, y)[...] += 1
    return BUFFER[y.shape]


def hangs(*inputs, **windows):
    while True:
        time.sleep(1)


def moves_away(*inputs, **windows):
    """Leaves the session of its process, and never answers."""
    os.setsid()
    hangs()
