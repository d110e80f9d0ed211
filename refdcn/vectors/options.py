"""The arguments of `refdcn vectors`, without what the command itself needs."""

from __future__ import annotations

import argparse
from pathlib import Path

LEVELS = "smoke", "full"
FORMATS = "safetensors", "npz"


def add_arguments(vectors: argparse.ArgumentParser) -> None:
    """All of them."""
    add = vectors.add_argument
    add("folder", metavar="DIR", type=Path, help="a folder that is empty, or new")
    add("--level", choices=LEVELS, default="smoke", help="how many cases")
    add("--seed", type=int, default=0, help="of the numbers in them; default: 0")
    add(
        "--format",
        dest="formats",
        nargs="+",
        choices=FORMATS,
        default=list(FORMATS),
        help="of the files; default: both",
    )
