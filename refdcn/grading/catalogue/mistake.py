"""A mistake: edits of the operator's steps, with the words that name it.

A wrong kernel is caught without any list; the catalogue only gives it its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.catalogue.steps import Edit, State


class Mistake(NamedTuple):
    """`text` completes "The operator is right except that ...".

    `beyond`: it reads past the end of an input, where anything may lie: NaN stands
    for what comes of it.
    """

    kind: str
    name: str
    text: str
    edits: tuple[Edit, ...]
    beyond: bool = False


def add(
    to: list[Mistake],
    kind: str,
    step: str,
    name: str,
    text: str,
    edit: Callable[[State], Any],
) -> None:
    """Enter one mistake, of a single edit after one step."""
    to.append(Mistake(kind, name, text, ((step, edit),)))


def put(field: str, f: Callable[[State], Any]) -> Callable[[State], None]:
    """An edit that replaces one field of the state."""

    def edit(s: State) -> None:
        setattr(s, field, np.asarray(f(s)))

    return edit


def both(*edits: Callable[[State], None]) -> Callable[[State], None]:
    """Edits one after another."""

    def edit(s: State) -> None:
        for e in edits:
            e(s)

    return edit
