"""Gradients in another order: as they are written, and as grad_y is read for them.

The numbers are right, and lie where another layout has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations, product

import numpy as np

from refdcn.grading.catalogue.apart import known
from refdcn.grading.catalogue.blocks import of_grad_y_as, own_bias
from refdcn.grading.catalogue.layout import ORDERS, VIEWS, WEIGHT_AXES, spelled
from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import State, upstream
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []


def gradient(name: str, text: str, edit: Callable[[State], None], of: str) -> None:
    """One of them; a slope on a whole row or column is any, wherever it lies."""
    edits = (("backward", edit),)
    MISTAKES.append(Mistake("gradients", name, text, edits, of == "offset"))


# As they are written -------------------------------------------------------------


def sizes_of(s: State) -> dict[str, int]:
    """The sizes of the axes of offset and mask by letter."""
    found = {"g": s.z.offset_groups, "i": s.z.K_h, "j": s.z.K_w, "d": 2}
    return found | dict(zip("uv", s.out, strict=True))


def laid(of: str, letters: str, turned: bool = False) -> Callable[[State], None]:
    """The gradient of offset or mask in another order; `turned`: pairs are (x, y)."""
    due = [k for k in "gijduv" if k in letters]

    def edit(s: State) -> None:
        found, size = known(s, of), sizes_of(s)
        found = found[:, :, :, ::-1] if turned else found
        split = found.reshape(s.z.N, *(size[k] for k in due))
        order = [0, *(1 + due.index(k) for k in letters)]
        s.grads[of] = split.transpose(order).reshape(found.shape)

    return edit


def offset_and_mask() -> None:
    """Orders in which the forward may read them, in which gradients are written."""
    more = ("group", "axis", "tap"), ("axis", "group", "tap")
    due = "it is (group, tap, axis, oh, ow)"
    for order, turned in product((*more, *ORDERS, *VIEWS), (False, True)):
        if (order, turned) == (more[0], False):
            continue  # it has an older name
        said, letters = ", ".join(order), spelled(order)
        letters += "uv" * ("u" not in letters)
        pair = ", and each pair as (x, y)" * turned
        text = f"the gradient of offset is written as ({said}){pair}; {due}"
        name = f"d offset as {said}{' xy' * turned}"
        gradient(name, text, laid("offset", letters, turned), "offset")
    for letters, said in (
        ("gjiduv", "with its taps column by column"),
        ("gijdvu", "with its planes column by column"),
    ):
        text = f"the gradient of offset is written {said}"
        gradient(f"d offset {said}", text, laid("offset", letters), "offset")
    for letters, said in (
        ("ijguv", "as (tap, group); it is (group, tap)"),
        ("guvij", "as (group, oh, ow, tap); it is (group, tap, oh, ow)"),
        ("uvgij", "as (oh, ow, group, tap); it is (group, tap, oh, ow)"),
        ("uvijg", "as (oh, ow, tap, group); it is (group, tap, oh, ow)"),
        ("gjiuv", "with its taps column by column"),
        ("gijvu", "with its planes column by column"),
    ):
        text = f"the gradient of mask is written {said}"
        gradient(f"d mask {said.split(';')[0]}", text, laid("mask", letters), "mask")


def weight_as(order: Sequence[str], of_group: bool) -> Callable[[State], None]:
    """The gradient of the weight, [C_out, C_in / groups, K], in another order.

    `of_group`: that of each weight group by itself.
    """

    def edit(s: State) -> None:
        groups = s.z.groups if of_group else 1
        w = s.grads["weight"].reshape(groups, -1, s.w.shape[2], s.K)
        s.grads["weight"] = w.transpose(0, *(1 + "ock".index(k) for k in order))

    return edit


def rest() -> None:
    """Orders of the gradients of weight and x."""
    for order, of_group in product([*permutations("ock")][1:], (False, True)):
        said = ", ".join(WEIGHT_AXES[k] for k in order)
        which = "the gradient of each group's weight" if of_group else "the gradient of"
        which += "" if of_group else " weight"
        text = f"{which} is written as ({said}); it is (output, input, tap)"
        name = f"d weight as {said}{' of each group' * of_group}"
        if order[0] != "o" or not of_group:  # else it is the same
            gradient(name, text, weight_as(order, of_group), "weight")

    def last(s: State) -> None:
        x = s.grads["x"].reshape(s.z.N, s.z.C_in, -1)
        s.grads["x"] = x.swapaxes(1, 2)

    text = "the gradient of x is written with channels last"
    gradient("d x channels last", text, last, "x")


# As grad_y is read ---------------------------------------------------------------


def grouped(s: State) -> Array:
    """[N, groups, outputs of a group, H_out, W_out]."""
    return np.asarray(s.grad_y.reshape(s.z.N, s.z.groups, -1, *s.out))


def dealt(s: State) -> Array:
    """The channels as (outputs of a group, groups)."""
    a = s.grad_y.reshape(s.z.N, -1, s.z.groups, *s.out)
    return np.asarray(a.swapaxes(1, 2))


READ: dict[str, tuple[str, Callable[[State], Array]]] = {
    "dealt to groups": (
        "channel o of grad_y is taken to be of weight group o % groups; the definition "
        "gives each group a run",
        dealt,
    ),
    "dealt from groups": (
        "the channels of grad_y are taken group by group where they are in order: "
        "channel o % groups * (C_out / groups) + o // groups is read for o",
        lambda s: grouped(s).swapaxes(1, 2),
    ),
    "of group 0": (
        "every weight group uses the grad_y of group 0",
        lambda s: np.repeat(grouped(s)[:, :1], s.z.groups, 1),
    ),
    "reversed in a group": (
        "the channels of grad_y are in reverse order within a group",
        lambda s: grouped(s)[:, :, ::-1],
    ),
    "of groups reversed": (
        "weight groups take the grad_y of one another, in reverse order",
        lambda s: grouped(s)[:, ::-1],
    ),
    "of the first output": (
        "every output channel of a group uses the grad_y of its first",
        lambda s: np.repeat(grouped(s)[:, :, :1], s.go.shape[2], 2),
    ),
    "of image 0": (
        "every image uses the grad_y of image 0",
        lambda s: np.repeat(s.grad_y[:1], s.z.N, 0),
    ),
    "channels last": (
        "the memory of grad_y is taken for (image, pixel, channel)",
        lambda s: s.grad_y.reshape(s.z.N, -1, s.z.C_out).swapaxes(1, 2),
    ),
    "column by column": (
        "the planes of grad_y are read column by column",
        lambda s: s.grad_y.reshape(s.z.N, s.z.C_out, *s.out[::-1]).swapaxes(2, 3),
    ),
    "rows reversed": (
        "the rows of grad_y are in reverse order",
        lambda s: s.grad_y[:, :, ::-1],
    ),
    "columns reversed": (
        "the columns of grad_y are in reverse order",
        lambda s: s.grad_y[..., ::-1],
    ),
}
# For which the bias has rows elsewhere, of the same function.
ELSEWHERE = "channels last", "of group 0", "of groups reversed"
NO_CHANNELS = "column by column", "rows reversed", "columns reversed"  # sums are alike


def reading(f: Callable[[State], Array]) -> Callable[[State], None]:
    """grad_y as it is read by all gradients but the bias's."""

    def edit(s: State) -> None:
        s.own_grad_y, s.grad_y = s.grad_y, f(s).reshape(s.grad_y.shape)
        upstream(s)

    return edit


def bias_of(f: Callable[[State], Array]) -> Callable[[State], None]:
    """The gradient of the bias of a grad_y that is read so."""

    def edit(s: State) -> None:
        go = f(s).reshape(s.grad_y.shape)
        s.grads["bias"] = of_grad_y_as(s, go, "bias")

    return edit


def grad_y() -> None:
    """All gradients but the bias's, which is a sum of its own, and that one."""
    for name, (text, f) in READ.items():
        edits = ("upstream", reading(f)), ("backward", own_bias)
        MISTAKES.append(Mistake("gradients", f"grad_y {name}", text, edits))
        if name not in (*ELSEWHERE, *NO_CHANNELS):
            said = f"in the gradient of bias, {text}"
            made = (("backward", bias_of(f)),)
            one = Mistake("gradients", f"d bias of grad_y {name}", said, made)
            MISTAKES.append(one)


offset_and_mask()
rest()
grad_y()
