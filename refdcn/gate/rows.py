"""What is kept of each grade: a row, a line of a file, a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


class ResultsError(ValueError):
    """A results file that another call wrote."""


@dataclass(frozen=True)
class Row:
    """One candidate's verdict."""

    place: int  # in the list, from 0
    candidate: str
    verdict: str  # as a grade's; or "unloadable", "lost"
    exit_code: int  # as of `refdcn grade`
    accuracy: float | None
    speed: float | None
    score: float | None
    seconds: float
    seed: int | None
    sentence: str


@dataclass(frozen=True)
class Results:
    """All rows, in the order of the candidates; `text()` is a table."""

    rows: Sequence[Row]

    @property
    def right(self) -> int:
        """How many are right."""
        return sum(row.exit_code == 0 for row in self.rows)

    def dicts(self) -> list[dict[str, Any]]:
        """As pandas.DataFrame takes them."""
        return [asdict(row) for row in self.rows]

    def text(self) -> str:
        """A table, the best score first, and how many are right."""
        best = sorted(self.rows, key=lambda row: (-(row.score or 0.0), row.place))
        head = "score", "accuracy", "speed", "verdict", "candidate"
        table = [head, *(cells(row) for row in best)]
        wide = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(c.ljust(n) for c, n in zip(line, wide, strict=True)).rstrip()
            for line in table
        ]
        lines.append(f"{self.right} of {len(self.rows)} are right.")
        return "\n".join(lines)


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    numbers = [
        "" if n is None else f"{n:.3f}" for n in (row.score, row.accuracy, row.speed)
    ]
    return *numbers, row.verdict, row.candidate


class Kept:
    """A file of results: what was asked, then a line for each row as it comes.

    What is there already is read; a line that a kill has torn is cut off.
    """

    def __init__(self, path: Path | None, asked: Mapping[str, Any]) -> None:
        self.path, self.rows = path, list[Row]()
        if path is None:
            return
        lines = whole_lines(path)
        text = json.dumps(asked, sort_keys=True)
        if not lines:
            path.write_text(text + "\n", encoding="utf-8")
        elif lines[0] != text:
            raise ResultsError(
                f"results is {path}, where other candidates or options began; it must "
                "be a new file, or that of the same call, which goes on from there"
            )
        self.rows = [Row(**json.loads(line)) for line in lines[1:]]

    def add(self, row: Row) -> None:
        """Keep one more, on the disk too."""
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row), sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())


def whole_lines(path: Path) -> list[str]:
    """Those that end; of a file that is not there none."""
    if not path.exists():
        return []
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    return data[:end].decode().splitlines()
