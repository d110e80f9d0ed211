"""What numbers depend on: the machine and the packages on it."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy", "numba", "torch", "torchvision", "onnxruntime", "openvino"
)  # fmt: skip


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        # Of the package that this is a part of; importing it would be a circle.
        "refdcn": sys.modules["refdcn"].__version__,
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    lines = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines())
    fields = {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}
    name = fields.get("model name", platform.machine())
    vectors = "AVX-512" if "avx512f" in fields.get("flags", "") else None
    return f"{name} ({vectors})" if vectors else name
