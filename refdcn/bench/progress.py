"""How far a run is, on standard error."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any


class Progress:
    """A bar by tqdm where it is installed and someone looks, else a line a step."""

    def __init__(self, show: bool = True) -> None:
        self.show, self.bar, self.begin = show, None, time.monotonic()
        self.done = self.total = 0

    def start(self, total: int) -> None:
        """So many more steps will come."""
        self.total += total
        if self.bar is None and self.show and sys.stderr.isatty():
            self.bar = tqdm_bar()
        if self.bar is not None:
            self.bar.total = self.total
            self.bar.refresh()

    def step(self, what: str) -> None:
        """The next step, `what`, begins."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_description_str(f"{what:<48}", refresh=False)
            self.bar.update(self.done - 1 - self.bar.n)
            self.bar.refresh()
        elif self.show:
            seconds = time.monotonic() - self.begin
            line = f"[{self.done}/{self.total}] {seconds:5.0f} s  {what}"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave a clean line."""
        if self.bar is not None:
            self.bar.close()


def tqdm_bar() -> Any:
    """A bar, or None where tqdm is not installed."""
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        return None
    layout = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}"
    return tqdm(total=0, bar_format=layout, leave=False, dynamic_ncols=True)
