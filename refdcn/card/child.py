"""One check of a card in a process of its own, which may hang or die of it.

`python -m refdcn.card.child FILE MODULE:FUNCTION [ARGUMENT...]` adds lines of
JSON to FILE: {"part": ...} for what the function yields, and a verdict last.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Generator
from importlib import import_module
from typing import Any


class Skip(Exception):  # noqa: N818 - a verdict, not an error
    """A check that this machine cannot run, since it lacks what the check needs."""


def run(where: str, *arguments: str, tell: Any) -> None:
    """Call it; why it failed or could not run is an answer, too."""
    module, _, name = where.partition(":")
    try:
        detail = getattr(import_module(module), name)(*arguments)
        if isinstance(detail, Generator):
            for part in detail:
                tell(part=part)
            detail = None
        tell(verdict="passed", detail=detail)
    except Skip as e:
        tell(verdict="not run", detail=str(e))
    except Exception as e:
        text = f"{type(e).__name__}: {e}"
        verdict = "undecided" if out_of_memory(e) else "failed"
        tell(verdict=verdict, detail=text[-4000:], trace=traceback.format_exc()[-4000:])


def out_of_memory(e: Exception) -> bool:
    """torch's, CuPy's, Numba's or the host's: too little, or others use it.

    It proves nothing, either way.
    """
    text = f"{type(e).__name__} {e}".lower().replace("_", "").replace(" ", "")
    return "outofmemory" in text or isinstance(e, MemoryError)


def main() -> None:
    """The command above."""
    with open(sys.argv[1], "a", encoding="utf-8") as file:

        def tell(**line: Any) -> None:
            print(json.dumps(line, default=str), file=file, flush=True)

        run(*sys.argv[2:], tell=tell)


if __name__ == "__main__":
    from refdcn.card import child  # not __main__: a check raises that one's Skip

    child.main()
