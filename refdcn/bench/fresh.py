"""Measurements in fresh processes, and a process that competes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
TINY, MANY = "1x8x8x8->8", "10000x8x8x8->8"
FIRST = {"shape": "1x64x14x14->64", "dtype": "float32"}

# Ends by itself when its parent is gone, however that ended.
COMPETITOR = """
import os
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    sum(range(100_000))
"""


class ChildError(RuntimeError):
    """A child failed; the text is what it said last."""


def child(
    what: str,
    arguments: dict[str, Any],
    environment: dict[str, str] | None = None,
    root: Path = PACKAGE.parent,
) -> dict[str, Any]:
    """What `refdcn.bench.child` of the package under `root` answers; see there.

    "process" is added: the seconds of the whole process.
    """
    given = dict(os.environ if environment is None else environment)
    paths = [str(root), given.get("PYTHONPATH", "")]
    given["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, "-m", "refdcn.bench.child", what, json.dumps(arguments)]
    begin = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, env=given, cwd=root)
    seconds = time.perf_counter() - begin
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:]
        raise ChildError(f"{what} {arguments}: exit code {run.returncode}, {last}")
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer | {"process": seconds}


def first_calls() -> dict[str, dict[str, Any]]:
    """The first call without a cache, and in later processes, which find it filled."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        empty = child("first_call", FIRST, environment)
        filled = [child("first_call", FIRST, environment) for _ in range(3)]
    fastest = sorted(filled, key=lambda answer: float(answer["forward"]))
    return {"no cache": empty, "filled cache": fastest[len(fastest) // 2]}


def read_only() -> dict[str, Any]:
    """The first call of an installation that can write nowhere.

    A copy of the package where a file stands in for each __pycache__ and for the home:
    unlike permissions, that stops a superuser as well. "written" lists what appeared.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ignored = shutil.ignore_patterns("__pycache__", "data")
        shutil.copytree(PACKAGE, root / "refdcn", ignore=ignored)
        home = root / "home"
        home.touch()
        for directory in [root / "refdcn", *(root / "refdcn").rglob("*/")]:
            if directory.is_dir():
                (directory / "__pycache__").touch()
        names = ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME")
        environment = os.environ | dict.fromkeys(names, str(home))
        environment.pop("NUMBA_CACHE_DIR", None)
        before = set(root.rglob("*"))
        answer = child("first_call", FIRST, environment, root)
        written = sorted(map(str, set(root.rglob("*")) - before))
    inside = Path(answer["package"]).is_relative_to(root)
    return answer | {"written": written, "copied": inside}


@contextmanager
def competitor(wanted: bool) -> Iterator[subprocess.Popen[bytes] | None]:
    """A process that keeps one core busy meanwhile."""
    if not wanted:
        yield None
        return
    command = [sys.executable, "-c", COMPETITOR]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it runs
        try:
            yield process
        finally:
            process.kill()
