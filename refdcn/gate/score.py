"""One number for a grade: how near to the definition, how near to its dense twin.

    accuracy = 1 - r / 2      r: the largest error in units of the bound, 0 to 1
    speed    = min(1, d / t)  d: seconds of the dense convolution, t: the candidate's
    score    = accuracy * (1 + speed) / 2

A candidate that is not right has 0. docs/gate.md says what the number is good for.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from refdcn.grading.expected.case import Case
from refdcn.grading.questions.timed import begin, dtype_of
from refdcn.grading.record import Record


class Score(NamedTuple):
    """Each in [0, 1]; speed and score are None where nothing was timed."""

    accuracy: float
    speed: float | None
    score: float | None


def scored(record: Record) -> Score:
    """The score of a grade."""
    o, timing = record.options, record.run.timing
    if record.exit_code != 0:
        return Score(0.0, 0.0, 0.0)
    ratios = [f.ratio for f in record.counted if f.values]
    accuracy = 1 - min(1.0, max(ratios, default=0.0)) / 2
    if timing is None:
        return Score(accuracy, None, None)
    _, case = begin(o.seed, dtype_of(o.dtypes))
    speed = min(1.0, dense(case) / float(np.median(timing.seconds)))
    return Score(accuracy, speed, accuracy * (1 + speed) / 2)


def dense(case: Case) -> float:
    """Seconds of a 3 x 3 convolution of these sizes: columns and one product.

    By NumPy's BLAS on all cores, which is there wherever a grade is; fastest of 3.
    """
    s, times = case.sizes, []
    weight = case.weight.astype(np.float32).reshape(s.C_out, -1)
    x = np.pad(case.x.astype(np.float32), [(0, 0), (0, 0), (1, 1), (1, 1)])
    with threadpool_limits(os.cpu_count() or 1, "blas"):
        for _ in range(3):
            began = time.monotonic()
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
            columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(s.N, -1, s.H * s.W)
            np.matmul(weight, columns)
            times.append(time.monotonic() - began)
    return min(times)
