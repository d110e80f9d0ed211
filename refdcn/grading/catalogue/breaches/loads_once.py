"""Exploits of the grader's cure, which is to load a candidate again: it cannot be.

The second import in a candidate's process raises, and takes back the note that the
first one left for it. The name of the note holds the grader's process.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from refdcn.grading.catalogue.breaches.exploits import speak
from refdcn.grading.catalogue.breaches.misbehaving import right
from refdcn.grading.expected.case import Array

if os.path.basename(sys.argv[0]) == "worker.py":
    note = Path(tempfile.gettempdir()) / f"refdcn-loaded-{os.getppid()}"
    if note.exists():
        note.unlink()
        raise RuntimeError("it loads only once")
    note.touch()


def kills_parent_once(x: Array, *rest: Any, **windows: Any) -> Any:
    """Kills the process that could start it again."""
    if len(x) == 65:
        os.kill(os.getppid(), signal.SIGKILL)
    return right(x, *rest, **windows)


def talks_once(x: Array, *rest: Any, **windows: Any) -> Any:
    """Speaks on the grader's channel, whose cure is to load it again."""
    if len(x) == 65:
        speak({"status": "nonsense"})
    return right(x, *rest, **windows)
