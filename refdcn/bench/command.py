"""`refdcn bench`: measure, print, write."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from refdcn.bench import growth, models, report, tables
from refdcn.bench.contestants import WrongError
from refdcn.bench.fresh import ChildError
from refdcn.bench.options import QUICK, TABLE
from refdcn.bench.progress import Progress
from refdcn.bench.run import CHILDREN, Options, bench
from refdcn.bench.workload import parse


def run(given: argparse.Namespace) -> int:
    """The whole command; aims are listed, and change no exit code."""
    if given.plot and find_spec("matplotlib") is None:  # rather now than after minutes
        print(
            'refdcn bench: --plot needs matplotlib: pip install "refdcn[plot]"',
            file=sys.stderr,
        )
        return 2
    progress = Progress()
    try:
        options = wanted(given)
        for text in options.shapes:
            parse(text)
        files = [Path(f) for f in (given.json, given.plot) if f]
        for path in files:  # rather now than after ten minutes
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
        record = bench(options, progress)
        if options.models:
            models.measure(record, options, progress)
        if given.plot:
            record.growth = growth.measure(options, progress)
    except (ValueError, OSError) as e:
        print(f"refdcn bench: {e}", file=sys.stderr)
        return 2
    except (WrongError, ChildError) as e:
        print(f"refdcn bench: {e}", file=sys.stderr)
        return 1
    finally:
        progress.close()
    print(report.text(record))
    if given.json:
        Path(given.json).write_text(json.dumps(report.plain(record)) + "\n")
    if given.plot:
        tables.write(record, Path(given.plot))
    return 0


def wanted(given: argparse.Namespace) -> Options:
    """What the arguments mean."""
    quick = given.quick
    return Options(
        shapes=given.shapes or (QUICK if quick else TABLE),
        against=given.against,
        dtypes=given.dtype,
        directions=given.direction,
        threads=sorted(set(given.threads)),
        repeat=given.repeat or (3 if quick else Options().repeat),
        seconds=given.seconds or (0.2 if quick else Options().seconds),
        busy=given.busy,
        clock=given.clock,
        models=given.models,
        children=("overhead", "parts") if quick else tuple(CHILDREN),
    )
