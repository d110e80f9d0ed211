"""`refdcn grade-many`: the table, and whether all are right."""

from __future__ import annotations

import argparse
import sys

from refdcn.gate.many import grade_many
from refdcn.gate.rows import ResultsError
from refdcn.grading.judging.gaps import DeclarationError, read
from refdcn.grading.options import NAMES

OWN = "gate", "explain", "progress", "smallest"


def run(options: argparse.Namespace) -> int:
    """Grade them; 0 if all are right, else 1."""
    o = options
    try:
        specs = [named(spec, o.function) for spec in listed(o)]
        if not specs:
            raise ValueError("SPEC is missing, and so is --list")
        if o.supports:
            o.gaps = [*o.gaps, *read(o.supports)]
        typed = [name for name in NAMES if name not in OWN and hasattr(o, name)]
        given = {name: getattr(o, name) for name in typed}
        if o.seed is None:
            del given["seed"]
        how = {name: getattr(o, name) for name in ("jobs", "backend", "scheduler")}
        done = grade_many(
            specs, **how, results=o.results, gate=o.gate, progress=True, **given
        )
    except (DeclarationError, ResultsError, ImportError, OSError, ValueError) as e:
        print(f"refdcn grade-many: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("refdcn grade-many: interrupted", file=sys.stderr)
        return 130
    print(done.text())
    return 0 if done.right == len(done.rows) else 1


def listed(options: argparse.Namespace) -> list[str]:
    """What was typed, and the lines of the list; # begins a comment."""
    lines: list[str] = []
    if options.list:
        text = options.list.read_text(encoding="utf-8")
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [*options.specs, *filter(None, lines)]


def named(spec: str, function: str) -> str:
    """FILE.py with the function that is graded of it."""
    return f"{spec}:{function}" if spec.endswith(".py") else spec
