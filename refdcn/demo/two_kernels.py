"""`refdcn demo`: a right and a wrong kernel are graded, the wrong one is caught."""

from __future__ import annotations

import sys

from refdcn.grading import CannotStartError, grade

KERNELS = (
    ("A correct kernel, refdcn.deform_conv2d:", "refdcn:deform_conv2d"),
    ("A wrong one, which reads its offsets as (x, y):", "refdcn.demo.wrong:swapped"),
)


def run() -> int:
    """Print both reports; 0 if only the first is right, 2 where none can run."""
    codes = []
    for title, spec in KERNELS:
        try:
            report = grade(spec, dtypes=["float32"], seed=0, progress=True)
        except CannotStartError as e:
            print(f"refdcn demo: {e}", file=sys.stderr)
            return 2
        codes.append(report.exit_code)
        print(f"{title}\n\n{report.text()}\n")
    return 0 if codes == [0, 1] else 1
