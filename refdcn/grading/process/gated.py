"""What a program that is rewarded for passing may not do, beside computing.

It works in an empty folder of its own, with another for temporary files, and both are
removed; it may load no reference, start no Python, and write nowhere else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from refdcn.grading.process.inside.candidates import own, split
from refdcn.grading.process.inside.routes import PYTHON, parted
from refdcn.grading.process.outcome import CannotStartError
from refdcn.grading.process.reply_parser import Started, Wrote

# What compilers keep: no values, since each grade has others.
CACHES = {"__pycache__", ".cache", ".nv", ".triton"}
DEVICES = "/dev/", "/proc/"


class Gate:
    """The folders of one candidate, and the rules for what is seen of it."""

    def __init__(self, spec: str, folder: str) -> None:
        self.spec, self.folder = spec, os.path.realpath(folder)
        self.work, self.temporary = (
            os.path.join(self.folder, name) for name in ("work", "temporary")
        )
        os.mkdir(self.work)
        os.mkdir(self.temporary)
        self.told: set[str] = set()

    @property
    def absolute(self) -> str:
        """The spec, wherever it is read."""
        if parted(self.spec)[0] != PYTHON:
            raise CannotStartError(
                f"{self.spec} is not a Python function; a gate needs one, since what "
                "other programs load and write is not seen"
            )
        place, name = split(self.spec)
        if not place.endswith(".py") or os.path.isabs(place):
            return self.spec
        return f"{os.path.abspath(place)}:{name}"

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The candidate's: modules are still found from where the grader runs."""
        paths = [given.get("PYTHONPATH", ""), os.getcwd()]
        found = dict(given, TMPDIR=self.temporary)
        return found | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def faults(
        self, imports: Iterable[str], deeds: Iterable[Wrote | Started]
    ) -> list[str]:
        """Each once: what it loaded, wrote and started, and what lies in its folder."""
        found = [
            f"it loaded {name}, which holds the operator"
            for name in sorted(imports)
            if not own(self.spec, name)
        ]
        for deed in deeds:
            if isinstance(deed, Started):
                found.append(f"it started {os.path.basename(deed.program)}")
            elif self.elsewhere(deed.path):
                found.append(f"it wrote to {os.path.basename(deed.path)}, a file")
        found += [f"it left {name} behind" for name in self.left()]
        new = [one for one in dict.fromkeys(found) if one not in self.told]
        self.told |= set(new)
        return new

    def elsewhere(self, path: str) -> bool:
        """Whether a file is none of its own."""
        real = os.path.realpath(path)
        return not (
            real.startswith((self.folder + os.sep, *DEVICES))
            or CACHES & set(Path(real).parts)
        )

    def left(self) -> list[str]:
        """What lies in its working folder, and is removed."""
        names = sorted(os.listdir(self.work)) if os.path.isdir(self.work) else []
        for name in names:
            path = os.path.join(self.work, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        return names
