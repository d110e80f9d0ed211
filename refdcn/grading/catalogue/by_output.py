"""Mistakes in which an output channel, not an input channel, has an offset group.

The definition gives each offset group a run of input channels; here all input channels
of an output take the offsets, or the mask, of one group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import State
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
Owner = Callable[[State, Array, Array], Array]  # the group of output o, own channel c
OWNERS: dict[str, tuple[str, Owner]] = {
    "run": (
        "o // (C_out / offset_groups)",
        lambda s, o, c: o * s.z.offset_groups // max(1, s.z.C_out) + 0 * c,
    ),
    "interleaved": (
        "o % offset_groups",
        lambda s, o, c: o % s.z.offset_groups + 0 * c,
    ),
    "address": (
        "(o * C_in / groups + c) // (C_in / offset_groups), modulo their number",
        lambda s, o, c: (
            (o * s.w.shape[2] + c)
            // (s.z.C_in // s.z.offset_groups)
            % s.z.offset_groups
        ),
    ),
}


class Taken(NamedTuple):
    """What input channel c takes for the outputs of one group: [N, C_in, K, u, v]."""

    ty: Array
    tx: Array
    sy: Array
    sx: Array
    m: Array
    keep: Array

    def samples(self, s: State, ty: Array, tx: Array) -> Array:
        """Eq. (2) with any two factors."""
        factors = "nchw,nckuvh,nckuvw->nckuv"
        value = np.einsum(factors, s.image, ty, tx, optimize=True)
        return np.asarray(value * self.keep)


def taken(s: State, group: int, inputs: tuple[str, ...]) -> Taken:
    """Offsets, and the mask, of one group; what is not in `inputs` by input channel."""
    own = np.arange(s.z.C_in) // (s.z.C_in // s.z.offset_groups)
    of_offset, of_mask = (
        np.full_like(own, group) if name in inputs else own
        for name in ("offset", "mask")
    )
    return Taken(
        s.ty[:, of_offset],
        s.tx[:, of_offset],
        s.sy[:, of_offset],
        s.sx[:, of_offset],
        s.m[:, of_mask],
        s.keep[:, of_offset],
    )


def outputs_of(s: State, owner: Owner, group: int) -> Array:
    """What takes the group: [groups, outputs of one, channels of one, 1]."""
    o, c = np.ogrid[: s.z.C_out, : s.w.shape[2]]
    return np.asarray((owner(s, o, c) == group).reshape(*s.w.shape[:3], 1))


def forward(owner: Owner, inputs: tuple[str, ...]) -> Callable[[State], None]:
    """The result, one offset group after the other."""

    def edit(s: State) -> None:
        y: Array | float = 0.0
        for group in range(s.z.offset_groups):
            t = taken(s, group, inputs)
            col = (t.samples(s, t.ty, t.tx) * t.m).reshape(s.col.shape)
            w = s.w * outputs_of(s, owner, group)
            y = y + np.einsum("bock,nbckuv->nbouv", w, col, optimize=True)
        s.y = np.asarray(y).reshape(s.y.shape)

    return edit


def backward(owner: Owner, inputs: tuple[str, ...]) -> Callable[[State], None]:
    """All gradients but the bias's, each group's where it was read."""

    def edit(s: State) -> None:
        z, og = s.z, s.z.offset_groups
        own = np.arange(z.C_in) // (z.C_in // og)
        into = {name: np.zeros_like(s.grads[name]) for name in s.grads}
        x = into["x"].reshape(s.image.shape)
        for group in range(og):
            t = taken(s, group, inputs)
            mine = outputs_of(s, owner, group)
            w = s.w * mine
            g = np.einsum("bock,nbouv->nbckuv", w, s.go, optimize=True)
            g = g.reshape(z.N, z.C_in, s.K, *s.out)
            S = t.samples(s, t.ty, t.tx)
            back = "nckuv,nckuvh,nckuvw->nchw"
            x += np.einsum(back, g * t.m * t.keep, t.ty, t.tx, optimize=True)
            slopes = t.samples(s, t.sy, t.tx), t.samples(s, t.ty, t.sx)
            for name, terms in (
                ("offset", np.stack([g * t.m * d for d in slopes], 3)),
                ("mask", g * S),
            ):
                owners = np.full_like(own, group) if name in inputs else own
                for c, to in enumerate(owners):
                    into[name][:, to] += terms[:, c]
            col = (S * t.m).reshape(s.col.shape)
            of_weight = np.einsum("nbouv,nbckuv->bock", s.go, col, optimize=True)
            into["weight"] += of_weight * mine
        s.grads |= {name: into[name] for name in ("x", "offset", "weight", "mask")}

    return edit


def by_output() -> None:
    """Offsets and mask, and each alone, for each way to choose the group."""
    for name, (text, owner) in OWNERS.items():
        for inputs in (("offset", "mask"), ("offset",), ("mask",)):
            what = " and ".join(inputs)
            MISTAKES.append(
                Mistake(
                    "groups",
                    f"{what} by output channel, {name}",
                    f"the offset group is chosen by the output channel, not by the "
                    f"input channel: output o takes the {what} of group {text}",
                    (
                        ("contract", forward(owner, inputs)),
                        ("backward", backward(owner, inputs)),
                    ),
                )
            )


by_output()
