"""Another Python for the candidate's side, looked at before it is used."""

from __future__ import annotations

import os
import shutil
import subprocess

from refdcn.grading.process.outcome import CannotStartError

OLDEST, OLDEST_NUMPY = (3, 8), (1, 20)
QUESTION = """
import sys
print(*sys.version_info[:2])
import numpy
print(*numpy.__version__.split(".")[:2])
"""


def checked(python: str) -> str:
    """The path of an interpreter that can run the candidate's side.

    Raises CannotStartError, which says what it lacks.
    """
    path = shutil.which(python)
    if path is None:
        raise CannotStartError(
            f"python is {python!r}, which is no program here; it must be the path of "
            "an interpreter, as in ~/venv/bin/python"
        )
    path = os.path.abspath(path)  # links stay: a virtual environment is known by its
    try:
        run = subprocess.run(
            [path, "-c", QUESTION], capture_output=True, text=True, timeout=60
        )
        found = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:
        raise CannotStartError(f"python is {python!r}, no Python: {e}") from e
    wanted = (
        f"the candidate's side needs Python {spelled(OLDEST)} and "
        f"NumPy {spelled(OLDEST_NUMPY)}, or later ones"
    )
    if not found:
        raise CannotStartError(f"python is {python!r}, which runs no Python; {wanted}")
    numpy = f"NumPy {spelled(found[1])}" if found[1:] else "no NumPy"
    if found[0] < OLDEST or not found[1:] or found[1] < OLDEST_NUMPY:
        raise CannotStartError(
            f"python is {python!r}, Python {spelled(found[0])} with {numpy}; {wanted}"
        )
    return path


def spelled(version: tuple[int, ...]) -> str:
    """3.8 for (3, 8)."""
    return ".".join(map(str, version))
