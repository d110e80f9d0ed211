"""`refdcn bench --device cuda --check`: the proof on a card, in one JSON and a table.

It runs from a checkout with what the machine has. Each check is a process of its own,
so that one which hangs, crashes or breaks the device ends itself alone. The record is
written after each. A check is

    passed
    failed
    undecided   due here, without an answer: out of memory or time, a sanitizer that
                watched nothing
    not run     needs a package, tool, second device or more memory than there is

and the last two say why. Only what needs something of its own may be left out: the
whole has passed if nothing failed, nothing is undecided and all else has passed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from refdcn.card import timing
from refdcn.card.checkout import ROOT

NEEDED = ("numpy", "torch", "numba", "numba_cuda")
VERSIONS = (
    "torch", "torchvision", "numba", "numba-cuda", "llvmlite", "numpy", "cupy",
    "cupy-cuda12x", "cupy-cuda13x", "hypothesis",
)  # fmt: skip
SANITIZERS = ("memcheck", "racecheck", "initcheck")
FOUND = 9  # their exit code where they found something
CUDA_HOME = os.environ.get("CUDA_HOME", "/usr/local/cuda")
TOOLKITS = [  # where compute-sanitizer may be, if not on the PATH; conda's last
    f"{CUDA_HOME}/bin", f"{CUDA_HOME}/compute-sanitizer", f"{sys.prefix}/bin"
]  # fmt: skip
UNSET = (  # what would make other numbers of the same code, or no kernels
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",  # set in NVIDIA's containers
    "NVIDIA_TF32_OVERRIDE",
    "CUDA_LAUNCH_BLOCKING",
    "NUMBA_ENABLE_CUDASIM",
    "NUMBA_DISABLE_JIT",
)
RECORD = "refdcn-cuda.json"
SECONDS = 570  # of the whole run, unless told otherwise
CASES, TIMING = "refdcn.card.cases", "refdcn.card.timing"
MODULE = "refdcn.card.child"


VERDICTS = ("passed", "failed", "undecided", "not run")
EXITS = {"passed": 0, "failed": 1, "undecided": 3}  # of the whole; 2: nothing ran


class Task(NamedTuple):
    """A check that is to run: what refdcn.card.child is told, and for how long."""

    name: str
    seconds: float
    call: tuple[str, ...]  # module:function and its arguments
    needs: str = ""  # what a machine may lack, beside a card and NEEDED
    before: tuple[str, ...] = ()  # a program that runs it
    cut: bool = False  # fewer seconds than it should have


class Check(NamedTuple):
    """One line of the record."""

    name: str
    verdict: str  # of VERDICTS
    detail: Any
    seconds: float


def tasks() -> list[Task]:
    """What is quick and says most comes first."""
    first = [
        Task("agreement with loops.py", 150, (f"{CASES}:agreement",)),
        Task(
            "agreement with torchvision", 90, (f"{CASES}:agreement", "by_torchvision"),
            "torchvision",
        ),
        Task("float16, bfloat16 storage", 60, (f"{CASES}:half_types",)),
        Task("float16 positions", 60, (f"{CASES}:half_positions",)),
        Task("deterministic bits", 60, (f"{CASES}:deterministic",)),
        Task("streams, no waiting", 60, (f"{CASES}:streams",)),
        Task("another device", 60, (f"{CASES}:second_device",), "a second card"),
        Task("Numba arrays", 60, (f"{CASES}:other_arrays", "numba")),
        Task("CuPy arrays", 60, (f"{CASES}:other_arrays", "cupy"), "CuPy"),
        Task("batch of more than 2**31", 60, (f"{CASES}:large_batch",), "memory"),
        Task("image of more than 2**31", 60, (f"{CASES}:large_image",), "memory"),
    ]  # fmt: skip
    timings = [
        Task(f"timings {shape}", 90, (f"{TIMING}:measure", shape))
        for shape in timing.SHAPES
    ]
    properties = [
        Task(f"drawn geometries, {form}, {witness}", 120,
             (f"{CASES}:properties", form, witness), needs)
        for witness, needs in (
            ("formula", "hypothesis"), ("torchvision", "hypothesis, torchvision")
        )
        for form in ("atomic", "deterministic")
    ]  # fmt: skip
    return first + timings + properties


def missing() -> str | None:
    """Why nothing can run here; None where a card is at hand."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    try:
        import torch

        if not torch.cuda.is_available():
            return "torch finds no CUDA device"
        from refdcn.cuda import require_cuda

        require_cuda()
    except Exception as e:  # a package that does not load is as good as absent
        return f"{type(e).__name__}: {e}"
    return None


def run(json_file: str | None = None, seconds: float = SECONDS) -> int:
    """The whole check; its exit code is of EXITS, or 2 where nothing ran."""
    reason = missing()
    if reason is not None:
        print(f"refdcn bench: no card, nothing ran: {reason}", file=sys.stderr)
        return 2
    path = Path(json_file or RECORD)
    begin = time.monotonic()
    record: dict[str, Any] = {"machine": machine(), "checks": []}
    with tempfile.TemporaryDirectory() as folder:
        for check in checks(Path(folder), begin + seconds):
            print(f"{check.verdict:9} {check.name} ({check.seconds:.0f} s)", flush=True)
            record["checks"].append(check._asdict())
            record["verdict"], record["why"] = verdict(record["checks"])
            record["aims"] = timing.aims(timings(record))
            record["seconds"] = time.monotonic() - begin
            save(path, record)
    print(table(record))
    return EXITS[record["verdict"]]


def verdict(checks: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """(verdict of the whole, the names of the checks that make it so)."""
    for bad in ("failed", "undecided"):
        names = [c["name"] for c in checks if c["verdict"] == bad]
        if names:
            return bad, names
    passed = {c["name"] for c in checks if c["verdict"] == "passed"}
    due = [task.name for task in tasks() if not task.needs]
    missed = [name for name in due if name not in passed]
    return ("undecided", missed) if missed else ("passed", [])


def save(path: Path, record: dict[str, Any]) -> None:
    """Write it; where that cannot be, print it: the card's time is spent."""
    text = json.dumps(record, default=str)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as e:
        print(f"refdcn bench: {path} cannot be written: {e}", file=sys.stderr)
        print(text, flush=True)


def checks(folder: Path, end: float) -> Iterator[Check]:
    """All of them; those that the time does not reach stay undecided."""
    environment = settings(folder)
    for task in [*tasks(), *map(sanitizer, SANITIZERS)]:
        left = end - time.monotonic()
        if task.before and not task.before[0]:
            reason = f"compute-sanitizer is neither on the PATH nor in {TOOLKITS}"
            yield Check(task.name, "not run", reason, 0.0)
        elif left <= 0:
            yield Check(task.name, "undecided", "the time is used up (--limit)", 0.0)
        else:
            if left < task.seconds:
                task = task._replace(seconds=left, cut=True)
            yield child(task, folder, environment)


def sanitizer(tool: str) -> Task:
    """NVIDIA's compute-sanitizer around a small forward and backward."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *TOOLKITS])
    program = shutil.which("compute-sanitizer", path=path) or ""
    # Numba asks the driver what may be an error, and raises what matters itself.
    options = "--report-api-errors=no", "--target-processes=all"
    call = ("refdcn.card.watched:main",)
    before = program, f"--tool={tool}", *options, f"--error-exitcode={FOUND}"
    return Task(f"compute-sanitizer {tool}", 150, call, "compute-sanitizer", before)


def settings(folder: Path) -> dict[str, str]:
    """The environment of the children."""
    given = {name: v for name, v in os.environ.items() if name not in UNSET}
    paths = [str(ROOT), given.get("PYTHONPATH", "")]
    return given | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # The first compiles, for all, what is here now and nothing older.
        "NUMBA_CACHE_DIR": str(folder / "cache"),
        # torch's products refuse to be deterministic without it.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def child(task: Task, folder: Path, environment: dict[str, str]) -> Check:
    """One check in a process, ended with all that it started when its time is up."""
    answers = Path(folder, "answers")
    answers.write_text("")
    command = [sys.executable, "-m", MODULE, str(answers), *task.call]
    begin = time.monotonic()
    with tempfile.TemporaryFile(dir=folder) as said:
        process = subprocess.Popen(
            [*task.before, *command], stdout=said, stderr=subprocess.STDOUT,
            cwd=ROOT, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(task.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    parts, last = read(answers)
    seconds = time.monotonic() - begin
    return Check(task.name, *judge(task, code, parts, last, text), seconds)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child's whole group, once: what it started may outlive it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def read(answers: Path) -> tuple[list[Any], dict[str, Any]]:
    """What the child yielded, and its verdict, {} without one."""
    lines = []
    for line in answers.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # it died as it wrote
            break
    verdicts = [line for line in lines if "verdict" in line]
    return [line["part"] for line in lines if "part" in line], (*verdicts, {})[0]


def judge(
    task: Task, code: int | None, parts: list[Any], last: dict[str, Any], text: str
) -> tuple[str, Any]:
    """(verdict, detail): the child's, unless how it ended says otherwise."""
    own = found = last.get("verdict", "")
    why = "" if code == 0 and own else f"exit code {code}"
    if code is None:
        why = f"took longer than {task.seconds:.0f} s"
        why += ", the end of --limit" if task.cut else ""
    if why and own != "failed":
        # Watched, it is slow; cut short, it had no chance: no mistake of its own.
        no_fault = code is None and (task.cut or task.before)
        found = "undecided" if no_fault else "failed"
    if task.before and code not in (None, FOUND) and own != "failed":
        found, why = watched(found, why, bool(own), text)
    detail: dict[str, Any] = {"answer": last.get("detail"), "parts": parts}
    detail |= {"ended": why, "trace": last.get("trace")}
    if found == "failed" or task.before:
        detail["said"] = text[-4000:]
    return found, {name: value for name, value in detail.items() if value}


SUMMARY = re.compile(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (\d+) .*", re.M)
COMPLAINT = re.compile(r"^=+ ((?:Internal Sanitizer )?Error: .*)", re.M)


def watched(found: str, why: str, answered: bool, text: str) -> tuple[str, str]:
    """The verdict under compute-sanitizer, which must say itself that all is well.

    It may run a program unwatched, or none at all, and exit with 0. Then there is no
    summary, or one beside its own complaint.
    """
    summaries = list(SUMMARY.finditer(text))
    if any(int(match[1]) for match in summaries):
        return "failed", "; ".join(match[0].strip("= ") for match in summaries)
    complaint = COMPLAINT.search(text)
    if complaint:
        return "undecided", f"watched nothing: {complaint[1]}"
    if not summaries:
        return "undecided", f"watched nothing: no summary of its own, {why or 'exit 0'}"
    if not answered and why == "exit code 0":
        return "undecided", "the program that it was to watch did not run"
    return found, why


def machine() -> dict[str, Any]:
    """The card and the versions that made the numbers; asks in other processes."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    code = (
        "import json, torch; p = torch.cuda.get_device_properties(0); print(json.dumps("
        "[p.name, p.total_memory, [p.major, p.minor], torch.version.cuda]))"
    )
    said = output(sys.executable, "-c", code)
    try:
        card, memory, capability, version = json.loads(said.splitlines()[-1])
        found |= {"card": card, "memory": memory, "capability": capability}
        found["cuda"] = version
    except (ValueError, IndexError, TypeError):
        found["card"] = "unknown, " + (said.splitlines() or [""])[-1]
    query = "--query-gpu=driver_version,clocks.max.sm,power.limit,persistence_mode"
    found["driver, clock, power"] = output("nvidia-smi", query, "--format=csv,noheader")
    found["commit"] = output("git", "-C", str(ROOT), "rev-parse", "HEAD")
    return found


def output(*command: str) -> str:
    """What a program says, in a minute; why it said nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"{type(e).__name__}: {e}"
    return (done.stdout if done.returncode == 0 else done.stderr).strip()


def timings(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of all shapes so far."""
    done = [c for c in record["checks"] if c["name"].startswith("timings ")]
    found = [c["detail"] for c in done if isinstance(c["detail"], dict)]
    return [row for detail in found for row in detail.get("parts", [])]


def table(record: dict[str, Any]) -> str:
    """Markdown: verdicts, the timings, the aims."""
    counts: Sequence[str] = [c["verdict"] for c in record["checks"]]
    said = (f"{counts.count(v)} {v}" for v in VERDICTS)
    lines = [f"Card: {record['machine'].get('card')}. {', '.join(said)}.", ""]
    lines += [headline(record), "", "| check | verdict | |", "|---|---|---|"]
    for c in record["checks"]:
        lines.append(f"| {c['name']} | {c['verdict']} | {brief(c)} |")
    lines += ["", *timing.table(timings(record)), ""]
    for aim in record.get("aims", []):
        found = "not measured" if aim["found"] is None else f"{aim['found']:.2f}"
        met = {True: "met", False: "not met", None: "unknown"}[aim["met"]]
        lines.append(f"- {aim['aim']}: {found}, {met}")
    return "\n".join(lines)


def headline(record: dict[str, Any]) -> str:
    """The verdict of the whole, and what it leaves open."""
    left_out = [c["name"] for c in record["checks"] if c["verdict"] == "not run"]
    said = f"Verdict: {record['verdict']}"
    if record["verdict"] == "undecided":
        said += ", which proves nothing"
    if record["why"]:
        said += f": {', '.join(record['why'])}"
    return f"{said}. Not run here: {', '.join(left_out) or 'nothing'}."


def brief(check: dict[str, Any]) -> str:
    """A line of the detail, without what breaks a table."""
    detail = check["detail"]
    if isinstance(detail, dict):
        detail = detail.get("ended") or detail.get("answer") or ""
    text = " ".join(str(detail).split()).replace("|", "/")
    return text[:120]
