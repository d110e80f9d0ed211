"""The arguments of `refdcn grade-many`, without what the command itself needs."""

from __future__ import annotations

import argparse
from pathlib import Path

BACKENDS = "processes", "dask"


def add_arguments(many: argparse.ArgumentParser) -> None:
    """What `refdcn grade` has not."""
    add = many.add_argument
    add(
        "specs",
        metavar="SPEC",
        nargs="*",
        help="as `refdcn grade` takes it; of FILE.py alone the --function is graded",
    )
    add("--list", type=Path, metavar="FILE", help="more of them, one a line of FILE")
    add("--function", default="deform_conv2d", metavar="NAME", help="of FILE.py")
    add("--jobs", type=int, default=1, metavar="N", help="graded side by side")
    add("--backend", choices=BACKENDS, default="processes")
    add("--scheduler", metavar="ADDRESS", help="of dask; default: N workers here")
    add(
        "--results",
        type=Path,
        metavar="FILE",
        help="a line for each verdict as it comes; the same command goes on from there",
    )
    add("--no-gate", dest="gate", action="store_false", help="as `refdcn grade` grades")
