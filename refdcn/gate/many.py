"""Grades many candidates side by side, on one machine or on many."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from refdcn.gate.options import BACKENDS
from refdcn.gate.rows import Kept, Results, Row
from refdcn.gate.score import scored
from refdcn.grading import CannotStartError, Interrupted, grade
from refdcn.grading.options import chosen
from refdcn.grading.process.inside.routes import SpecError

Task = tuple[int, str]  # place in the list, candidate
LOST = "the process that graded it died, alone too"


def grade_many(
    candidates: Iterable[str],
    *,
    jobs: int = 1,
    backend: str = "processes",
    results: str | Path | None = None,
    scheduler: str | None = None,
    gate: bool = True,
    progress: bool = False,
    **options: Any,
) -> Results:
    """Grade candidates side by side; the rows stand in their order.

    candidates: names as `grade` takes them. jobs: how many are graded at once.
    backend: "processes" of this machine, or "dask": workers of the cluster at
    `scheduler`, or else `jobs` workers here. results: a file that gets a line for each
    verdict as it comes; a later call with the same arguments goes on from there.
    gate: hold them to the rules of a gate, and time them. progress: show a bar. All
    else are options of `grade`; without `seed` each candidate has its own, and without
    `explain` no mistake is looked for.

    A worker that dies costs no verdict: what it had begun is begun again. Needs joblib
    (refdcn[many]), and distributed for "dask" (refdcn[dask]).

    >>> from refdcn import grade_many
    >>> quick = {"dtypes": ["float32"], "only": ["exact"], "gate": False}
    >>> grade_many(["refdcn.formula:deform_conv2d"], **quick).right
    1
    """
    tasks = list(enumerate(candidates))
    given = {"explain": False} | options | {"gate": gate}
    check(tasks, jobs, backend, given)
    asked = {"candidates": [spec for _, spec in tasks], "options": given}
    kept = Kept(None if results is None else Path(results), asked)
    done = {row.place for row in kept.rows}
    todo = {task: None for task in tasks if task[0] not in done}
    with ExitStack() as stack:
        pool = Pool(jobs, backend, scheduler, given, stack)
        step = bar(stack, len(tasks), len(done), progress)
        for row in graded(pool, todo):
            kept.add(row)
            step()
    return Results(sorted(kept.rows, key=lambda row: row.place))


def check(
    tasks: Sequence[Task], jobs: int, backend: str, options: Mapping[str, Any]
) -> None:
    """Raise where an argument is none, before anything is graded."""
    for place, spec in tasks:
        if not isinstance(spec, str):
            raise TypeError(
                f"candidates[{place}] is {spec!r}; it must be a name, such as "
                "'file.py:function', which another process can load"
            )
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; it must be 1 or more")
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; it must be {' or '.join(BACKENDS)}")
    chosen(options)


def graded(pool: Pool, todo: dict[Task, None]) -> Iterator[Row]:
    """A row for each task, whatever happens to the workers."""
    while todo:
        try:
            for row in pool.run(list(todo)):
                del todo[row.place, row.candidate]
                yield row
        except pool.deaths:
            # Which task a worker died of is not known: those that were begun, which
            # are among the first, are graded one after another.
            for task in list(todo)[: 2 * pool.jobs]:
                yield pool.alone(task)
                del todo[task]


class Pool:
    """Workers, of which any may die."""

    def __init__(
        self,
        jobs: int,
        backend: str,
        scheduler: str | None,
        options: Mapping[str, Any],
        stack: ExitStack,
    ) -> None:
        self.jobs, self.options = jobs, options
        self.deaths: tuple[type[BaseException], ...] = (BrokenExecutor,)
        self.joblib = needed("joblib", "many")
        if backend == "dask":
            distributed = needed("distributed", "dask")
            self.deaths += (distributed.KilledWorker,)
            where: Any = {"n_workers": jobs, "threads_per_worker": 1}
            if scheduler is not None:
                where = {"address": scheduler}
            stack.enter_context(distributed.Client(**where))
        name = "loky" if backend == "processes" else backend
        stack.enter_context(self.joblib.parallel_config(backend=name, n_jobs=jobs))

    def run(self, tasks: Sequence[Task]) -> Iterator[Row]:
        """Rows as they are made."""
        how: dict[str, Any] = {"batch_size": 1, "pre_dispatch": 2 * self.jobs}
        parallel = self.joblib.Parallel(return_as="generator_unordered", **how)
        one = self.joblib.delayed(graded_one)
        yield from parallel(one(*task, self.options) for task in tasks)

    def alone(self, task: Task) -> Row:
        """The row of one task whose neighbour, or which itself, killed a worker."""
        for _ in range(2):
            try:
                return next(iter(self.run([task])))
            except self.deaths:
                continue
        return Row(*task, "lost", 3, 0.0, 0.0, 0.0, 0.0, None, LOST)


def graded_one(place: int, spec: str, options: Mapping[str, Any]) -> Row:
    """One candidate's row; runs in a worker."""
    began = time.monotonic()
    try:
        report = grade(spec, **options)
    except (CannotStartError, SpecError) as e:
        seconds = time.monotonic() - began
        said = str(e)
        return Row(place, spec, "unloadable", 2, 0.0, 0.0, 0.0, seconds, None, said)
    except Interrupted as e:
        raise KeyboardInterrupt from e
    found = scored(report)
    seconds, seed = time.monotonic() - began, report.options.seed
    verdict, code = str(report.verdict), report.exit_code
    said = report.headline()
    return Row(place, spec, verdict, code, *found, seconds, seed, said)


def needed(name: str, extra: str) -> Any:
    """A library that only this needs."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as e:
        raise ImportError(
            f"grading many needs {name}, which is not installed; install "
            f"refdcn[{extra}]"
        ) from e


def bar(stack: ExitStack, total: int, done: int, show: bool) -> Any:
    """What is called after each verdict."""
    if not show:
        return lambda: None
    tqdm = needed("tqdm", "many").tqdm
    return stack.enter_context(tqdm(total=total, initial=done, unit="verdict")).update
