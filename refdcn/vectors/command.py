"""`refdcn vectors`: writes a set and says what it catches."""

from __future__ import annotations

import argparse
import sys

import numpy as np
from threadpoolctl import threadpool_limits

from refdcn.vectors.files import write


def run(options: argparse.Namespace) -> int:
    """Write the files; one line for each kind of them, and for the mistakes."""
    o = options
    try:
        with threadpool_limits(1, "blas"), np.errstate(all="ignore"):
            told = write(o.folder, o.level, o.seed, o.formats)
    except (ImportError, OSError) as e:
        print(f"refdcn vectors: {e}", file=sys.stderr)
        return 2
    for kind in o.formats:
        files = [case["files"][kind] for case in told["cases"]]
        size = sum(file["bytes"] for file in files) / 1e6
        print(f"{len(files)} cases as {kind}, {size:.1f} MB")
    missed = told["missed"]
    print(
        f"they catch {told['caught']} of the {told['mistakes']} mistakes of value that "
        f"have names{'; not: ' + ', '.join(missed) if missed else ''}"
    )
    return 0
