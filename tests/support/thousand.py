"""Many candidates through grade_many while a worker is killed.

    python tests/support/thousand.py                    1,000 copies of ten, two workers
    python tests/support/thousand.py --candidates 40 --backend dask

Prints how many verdicts are right; exit code 1 if one is not.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

HEAD = """
import os
import numpy as np
"""
RIGHT = """
def deform_conv2d(x, offset, weight, mask, bias, stride, padding, dilation):
    N, C_in, H, W = x.shape
    C_out, C, K_h, K_w = weight.shape
    K, out = K_h * K_w, offset.shape[2:]
    og = offset.shape[1] // (2 * K)
    y = np.zeros((N, C_out, *out), np.float64)
    u, v = np.indices(out)
    for n, c, k in np.ndindex(N, C_in, K):
        m = c // (C_in // og) * K + k
        i, j = divmod(k, K_w)
        q_y = stride[0] * u - padding[0] + dilation[0] * i + offset[n, 2 * m]
        q_x = stride[1] * v - padding[1] + dilation[1] * j + offset[n, 2 * m + 1]
        t_y = np.maximum(0, 1 - abs(q_y[..., None] - np.arange(H)))
        t_x = np.maximum(0, 1 - abs(q_x[..., None] - np.arange(W)))
        S = np.einsum("hw,uvh,uvw->uv", x[n, c].astype(float), t_y, t_x)
        S = S if mask is None else S * mask[n, m]
        b = c // C
        outputs = range(b * (C_out * C // C_in), (b + 1) * (C_out * C // C_in))
        for o in outputs:
            y[n, o] += weight[o, c % C, i, j] * S
    return (y if bias is None else y + bias[:, None, None]).astype(x.dtype)
"""
WRAPPED = """
right = deform_conv2d
def deform_conv2d(x, offset, weight, mask, bias, **w):
    {}
"""


def wrapped(line):
    return HEAD + RIGHT + WRAPPED.format(line)


TEN = {
    "right": (HEAD + RIGHT, "pass"),
    "wrapped": (wrapped("return right(x, offset, weight, mask, bias, **w)"), "pass"),
    "zeros": (wrapped("return 0 * right(x, offset, weight, mask, bias, **w)"), "wrong"),
    "swapped": (HEAD + RIGHT.replace("[n, 2 * m]", "[n, 2 * m ]").replace(
        "[n, 2 * m + 1]", "[n, 2 * m]").replace("[n, 2 * m ]", "[n, 2 * m + 1]"),
        "wrong"),
    "refuses": (wrapped("raise NotImplementedError('not yet')"), "nothing"),
    "dies": (wrapped("os.abort()"), "crash"),
    "prints": (wrapped(
        "print('passed'); return right(x, offset, weight, mask, bias, **w)"),
        "integrity"),
    "flat": (wrapped("return right(x, offset, weight, mask, bias, **w).ravel()"),
             "wrong"),
    "writes": (wrapped(
        "y = right(x, offset, weight, mask, bias, **w); x[...] = 0; return y"),
        "integrity"),
    "broken": ("def deform_conv2d(:\n", "unloadable"),
}  # fmt: skip
QUICK = {"dtypes": ["float32"], "only": ["optional"], "gate": False}


def written(folder, n):
    """n candidates, copies of ten, and the verdict each must get."""
    due = {}
    for k in range(n):
        name = list(TEN)[k % len(TEN)]
        path = Path(folder) / f"{name}_{k}.py"
        path.write_text(TEN[name][0], encoding="utf-8")
        due[f"{path}:deform_conv2d"] = TEN[name][1]
    return due


def workers(of):
    """The processes below `of` in which candidates are graded."""
    from refdcn.grading.process import system

    for pid in system.descendants(of):
        words = system.program(pid).split(b"\0")
        here = b"".join(words)
        if b"loky" in here and b"LokyProcess" in here or b"spawn_main" in here:
            yield pid


def kill_one(results, lines, found):
    """Kill a worker once the file has so many lines; note which."""
    while not results.exists() or len(results.read_bytes().splitlines()) < lines:
        time.sleep(0.05)
    for pid in sorted(workers(os.getpid())):
        os.kill(pid, signal.SIGKILL)
        found.append(pid)
        return


def run(folder, n, jobs=2, backend="processes", progress=False):
    """Rows that are not as they must be, and the worker that was killed."""
    from refdcn import grade_many

    due, killed = written(folder, n), []
    results = Path(folder) / "results.jsonl"
    arguments = results, 1 + n // 3, killed
    threading.Thread(target=kill_one, args=arguments, daemon=True).start()
    how = {"jobs": jobs, "backend": backend, "results": results, "seed": 1}
    done = grade_many(due, **how, progress=progress, **QUICK)
    assert [row.candidate for row in done.rows] == list(due)
    bad = [row for row in done.rows if row.verdict != due[row.candidate]]
    return bad, killed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--backend", default="processes")
    o = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bad, killed = run(folder, o.candidates, o.jobs, o.backend, progress=True)
    for row in bad:
        print(row)
    print(
        f"{o.candidates - len(bad)} of {o.candidates} verdicts are right, with "
        f"{len(killed)} worker killed, in {time.monotonic() - began:.0f} s"
    )
    return 1 if bad or not killed else 0


if __name__ == "__main__":
    sys.exit(main())
