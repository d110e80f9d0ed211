"""`refdcn bench --device cuda --check`: the proof on a card, in one JSON and a table.

It runs from a checkout with what the machine has. What is missing is said in the
record, never passed over: a check is "passed", "failed" or "not run" with its reason.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from refdcn.bench import cuda_timing

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "numba", "numba_cuda")
SANITIZERS = ("memcheck", "racecheck", "initcheck")


class Check(NamedTuple):
    """One line of the record."""

    name: str
    verdict: str  # passed, failed, not run
    detail: Any
    seconds: float


def missing() -> str | None:
    """Why nothing can run here; None where a card is at hand."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    import torch

    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    from refdcn.cuda import require_cuda

    try:
        require_cuda()
    except (ImportError, RuntimeError) as e:
        return str(e)
    return None


def run(json_file: str | None) -> int:
    """The whole check; 0 if all that ran passed, 2 where there is no card."""
    reason = missing()
    if reason is not None:
        print(f"refdcn bench: no card, nothing ran: {reason}", file=sys.stderr)
        return 2
    record: dict[str, Any] = {"machine": machine(), "checks": []}
    for check in checks():
        print(f"{check.verdict:8} {check.name} ({check.seconds:.0f} s)", flush=True)
        record["checks"].append(check._asdict())
        if json_file:
            Path(json_file).write_text(json.dumps(record, default=str) + "\n")
    print(table(record))
    return int(any(c["verdict"] == "failed" for c in record["checks"]))


def machine() -> dict[str, str]:
    """The card, and the versions that made the numbers."""
    import numba
    import torch

    return {
        "card": torch.cuda.get_device_name(),
        "memory": f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB",
        "cuda": str(torch.version.cuda),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
    }


def checks() -> Iterator[Check]:
    """All of them, the quick ones first."""
    from refdcn.bench import cuda_cases

    yield timed("agreement with torchvision", cuda_cases.agreement)
    yield timed("property suite", properties)
    yield timed("random streams", cuda_cases.streams)
    yield timed("deterministic bits", cuda_cases.deterministic)
    yield timed("float16 positions", cuda_cases.half_positions)
    yield timed("more than 2**31 elements", cuda_cases.large)
    for tool in SANITIZERS:
        yield sanitizer(tool)
    yield timed("timings and memory", cuda_timing.measure)


def properties() -> str:
    """The drawn geometries of the tests, on the card."""
    absent = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    tests = ROOT / "tests"
    if absent or not tests.is_dir():
        raise cuda_timing.Skip(f"needs a checkout, pytest, hypothesis; no {absent}")
    command = [sys.executable, "-m", "pytest", "-q", str(tests / "test_torch_card.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise AssertionError(done.stdout[-4000:] + done.stderr[-1000:])
    return done.stdout.strip().splitlines()[-1]


def timed(name: str, check: Callable[[], Any]) -> Check:
    """`check` returns its detail, or raises Skip or an error."""
    start = time.perf_counter()
    try:
        verdict, detail = "passed", check()
    except cuda_timing.Skip as e:
        verdict, detail = "not run", str(e)
    except Exception as e:
        verdict, detail = "failed", f"{type(e).__name__}: {e}"
    return Check(name, verdict, detail, time.perf_counter() - start)


def sanitizer(tool: str) -> Check:
    """NVIDIA's compute-sanitizer around a small forward and backward."""

    def check() -> str:
        program = shutil.which("compute-sanitizer")
        if program is None:
            raise cuda_timing.Skip("compute-sanitizer is not on the PATH")
        code = "from refdcn.bench import cuda_cases; cuda_cases.small()"
        command = [program, f"--tool={tool}", "--error-exitcode=1"]
        done = subprocess.run(
            [*command, sys.executable, "-c", code],
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(done.stdout[-2000:] + done.stderr[-2000:])
        return done.stdout.strip().splitlines()[-1]

    return timed(f"compute-sanitizer {tool}", check)


def table(record: dict[str, Any]) -> str:
    """Markdown: verdicts, then the timings."""
    lines = [f"Card: {record['machine']['card']}", ""]
    lines += ["| check | verdict |", "|---|---|"]
    lines += [f"| {c['name']} | {c['verdict']} |" for c in record["checks"]]
    rows = [c["detail"] for c in record["checks"] if c["name"] == "timings and memory"]
    for detail in rows:
        lines += ["", *(cuda_timing.rows(detail) if isinstance(detail, list) else [])]
    return "\n".join(lines)
