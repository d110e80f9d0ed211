"""An exploit of the import: it says that it is loaded before it is.

Only a candidate's process is spoken to, not one that imports this to read it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from refdcn.grading.catalogue.breaches.exploits import speak
from refdcn.grading.catalogue.breaches.misbehaving import right
from refdcn.grading.expected.case import Array

if os.path.basename(sys.argv[0]) == "worker.py":
    loaded = {"status": "loaded", "grad": False, "base": 0, "threads": 0}
    speak(loaded | {"confined": True}, {"status": "session", "pid": os.getpid()})


def greets(x: Array, *rest: Any, **windows: Any) -> Any:
    """Says that it is loaded, and names a session, while it is imported."""
    return right(x, *rest, **windows)
