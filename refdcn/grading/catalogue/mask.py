"""Mistakes in what becomes of the mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake, add, put
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(a / 2))


def softmax(a: Array) -> Array:
    """Over the taps."""
    e = np.exp(a - a.max(2, keepdims=True))
    return np.asarray(e / e.sum(2, keepdims=True))


def masked(name: str, text: str, f: Callable[[Array], Array]) -> None:
    """A mistake in what becomes of a mask that was given."""
    add(
        MISTAKES,
        "mask",
        "read",
        name,
        text,
        put("m", lambda s: s.m if s.mask is None else f(s.m)),
    )


masked("mask missing", "the mask is ignored", np.ones_like)
masked("mask squared", "the mask is applied twice", np.square)
masked("mask sigmoid", "the mask passes through a sigmoid", sigmoid)
masked("mask 2 sigmoid", "the mask passes through 2 sigmoid", lambda m: 2 * sigmoid(m))
masked("mask softmax", "the mask passes through a softmax over the taps", softmax)
masked("mask clipped", "the mask is clipped to [0, 1]", lambda m: np.clip(m, 0, 1))
masked("mask rectified", "negative masks are 0", lambda m: np.maximum(m, 0))
masked(
    "mask averaged",
    "every tap uses the mean mask",
    lambda m: np.repeat(m.mean(2, keepdims=True), m.shape[2], 2),
)
masked(
    "mask centre",
    "every tap uses the centre tap's mask",
    lambda m: np.repeat(m[:, :, m.shape[2] // 2, None], m.shape[2], 2),
)
masked("mask absolute", "the sign of the mask is lost", np.abs)
masked("mask complement", "1 - mask is used", lambda m: 1 - m)
masked("mask plus one", "1 + mask is used", lambda m: 1 + m)
masked("mask exp", "the mask passes through exp", np.exp)
masked("mask tanh", "the mask passes through tanh", np.tanh)
masked("mask halved", "the mask is halved", lambda m: m / 2)
masked("mask doubled", "the mask is doubled", lambda m: 2 * m)
masked("mask binary", "the mask is compared with 0.5", lambda m: 1.0 * (m > 0.5))
masked("mask negated", "the mask is negated", np.negative)
masked(
    "mask normalised",
    "the mask is divided by its sum over the taps",
    lambda m: m / np.where(m.sum(2, keepdims=True) == 0, 1, m.sum(2, keepdims=True)),
)
add(
    MISTAKES,
    "mask",
    "read",
    "mask none is zero",
    "a mask of None is taken as 0",
    put("m", lambda s: 0 * s.m if s.mask is None else s.m),
)
