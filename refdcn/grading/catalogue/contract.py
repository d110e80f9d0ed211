"""The contract's part of the catalogue: each breach, and the verdict it must get.

The functions are in misbehaving.py, misbehaving_gradients.py and, those that want to
pass without doing the work, exploits.py, greets.py and loads_once.py; each is graded
like any other candidate, in a process of its own. Those of gate_exploits.py and
outside/ want to be rewarded without the work, and are graded in a gate.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.judging.verdicts import Verdict

HOME = "refdcn.grading.catalogue.breaches"
MEMORY = 2**29  # bytes of one call
CRASH, TIMEOUT, INTEGRITY = Verdict.CRASH, Verdict.TIMEOUT, Verdict.INTEGRITY
GATE, OUTSIDE, TIMED = "gate_exploits", "outside", 2
WRONG, UNSUPPORTED = Verdict.WRONG, Verdict.UNSUPPORTED


class Breach(NamedTuple):
    """A function that breaks the contract, and what the first sentence must say."""

    place: str
    way: str
    verdict: Verdict
    text: str

    @property
    def spec(self) -> str:
        """As `refdcn grade` takes it."""
        if self.place == OUTSIDE:
            home = Path(__file__).parent / "breaches" / OUTSIDE
            return f"{home / self.way}.py:deform_conv2d"
        return f"{HOME}.{self.place}:{self.way}"

    @property
    def of_gradients(self) -> bool:
        """Whether its gradient companion alone misbehaves."""
        return self.place == "misbehaving_gradients"

    @property
    def options(self) -> dict[str, Any]:
        """How it is graded."""
        how = {"timeout": self.timeout, "memory": MEMORY}
        if self.place not in (GATE, OUTSIDE):
            return how
        more = {"gate": True, "timed": TIMED, "timeout": 60.0, "memory": 4 * MEMORY}
        return how | more

    @property
    def timeout(self) -> float:
        """Seconds of one call: few where it hangs."""
        return 2.0 if self.verdict is TIMEOUT else 20.0

    @property
    def mistake(self) -> Mistake:
        """As a row of the self-test."""
        file, name = self.place, self.full_name
        if self.place == OUTSIDE:
            file, name = f"{OUTSIDE}.{self.way}", "deform_conv2d"
        found = getattr(import_module(f"{HOME}.{file}"), name)
        title = f"{self.way.replace('_', ' ')}{' (gradients)' * self.of_gradients}"
        said = (found.__doc__ or "").strip().rstrip(".")
        return Mistake("contract", title, said[:1].lower() + said[1:], ())

    @property
    def full_name(self) -> str:
        """Of the function that misbehaves."""
        return f"{self.way}_grad" if self.of_gradients else self.way


WAYS = {
    "segfault": (CRASH, "SIGSEGV"),
    "hang": (TIMEOUT, "no answer in 2 s"),
    "out_of_memory": (CRASH, "out of memory, with 0.5 GiB allowed"),
    "leaves": (CRASH, "SystemExit"),
    "leaves_at_once": (CRASH, "exited with status 0"),
    "prints": (INTEGRITY, "standard output"),
    "moves": (INTEGRITY, "working directory"),
    "writes_input": (INTEGRITY, "changed its input offset"),
    "aliases_input": (INTEGRITY, "shares memory with x"),
    "one_buffer": (INTEGRITY, "an earlier"),
    "remembers_pointer": (INTEGRITY, "the answer to an earlier call"),
    "random_bits": (INTEGRITY, "gave other bits"),
    "half": (WRONG, "y is float16 for float32 inputs"),
    "listed": (WRONG, "no array"),
    "refuses": (UNSUPPORTED, "at least 3 channels"),
    "first_call": (INTEGRITY, "the answer to an earlier call"),
    "memory_order": (WRONG, "layout"),
    "squeezes": (WRONG, "it must be"),
    "doubles": (WRONG, "y is float64 for float32 inputs"),
    "empty_batch": (UNSUPPORTED, "ZeroDivisionError"),
    "large_kernel": (UNSUPPORTED, "larger than image"),
    "unchecked": (Verdict.UNCHECKED, "whose shapes fit nothing"),
}
TRICKS = {
    "blinds_numpy": (INTEGRITY, "an earlier"),
    "blinds_hashes": (INTEGRITY, "changed its input offset"),
    "talks_over": (INTEGRITY, "over the grader's channel"),
    "answers_itself": (INTEGRITY, "answered twice"),
    "plays_dead": (INTEGRITY, "over the grader's channel"),
    "numbers_by_name": (INTEGRITY, "over the grader's channel"),
    "lacks_results": (INTEGRITY, "over the grader's channel"),
    "answers_for_ever": (TIMEOUT, "no answer in 2 s"),
    "reads_grader": (WRONG, "y has shape [1, 1]"),
    "promises": (WRONG, "Promise, no array"),
    "pays_later": (INTEGRITY, "an earlier result changed"),
    "remembers_start": (INTEGRITY, "the answer to an earlier call"),
    "forks": (INTEGRITY, "fork"),
    "leaves_fork": (INTEGRITY, "left a fork of itself running"),
    "swells": (CRASH, "out of memory, with 0.5 GiB allowed"),
    "swells_unseen": (CRASH, "out of memory, with 0.5 GiB allowed"),
    "interrupts": (CRASH, "left by KeyboardInterrupt"),
    "kills_parent": (CRASH, "killed by SIGKILL"),
}
REWARDED = {
    "zeros": (WRONG, ""),
    "stale_memory": (INTEGRITY, "values were never written"),
    "ignores_offsets": (WRONG, ""),
    "first_image": (WRONG, ""),
    "constant": (WRONG, ""),
    "half_precision": (Verdict.IMPRECISE, "everything is in float16"),
    "half_results": (Verdict.IMPRECISE, "float16"),
    "few_channels": (WRONG, ""),
    "answers_once": (WRONG, ""),
    "stops_clocks": (WRONG, ""),
    "replaces_grader": (WRONG, ""),
    "fills_later": (INTEGRITY, ""),
    "leaves_thread": (INTEGRITY, "went on computing after its answer"),
    "leaves_file": (INTEGRITY, "left answers.npy behind"),
    "leaves_file_unseen": (INTEGRITY, "left answers.bin behind"),
    "opens_grader": (INTEGRITY, "wrote to judge.py"),
    "asks_python": (INTEGRITY, "it started python"),
}
BORROWED = {
    "calls_refdcn": (INTEGRITY, "loaded refdcn"),
    "reads_formula": (INTEGRITY, "loaded refdcn"),
}
GREETINGS = {"greets": (INTEGRITY, "over the grader's channel")}
LOADED_ONCE = {
    "kills_parent_once": (CRASH, "killed by SIGKILL"),
    "talks_once": (CRASH, "it loads only once"),
}
GRADIENTS = {
    "segfault": (CRASH, "SIGSEGV"),
    "hang": (TIMEOUT, "no answer in 2 s"),
    "out_of_memory": (CRASH, "out of memory, with 0.5 GiB allowed"),
    "leaves": (CRASH, "SystemExit"),
    "leaves_at_once": (CRASH, "exited with status 0"),
    "refuses": (UNSUPPORTED, "at least 3 channels"),
    "prints": (INTEGRITY, "standard output"),
    "moves": (INTEGRITY, "working directory"),
    "writes_input": (INTEGRITY, "changed its input grad_y"),
    "aliases_input": (INTEGRITY, "shares memory with x"),
    "one_buffer": (INTEGRITY, "an earlier"),
    "remembers_pointer": (INTEGRITY, "the answer to an earlier call"),
    "ignores_grad_y": (INTEGRITY, "the answer to an earlier call"),
    "counts": (INTEGRITY, "gave other bits"),
    "first_call": (INTEGRITY, "the answer to an earlier call"),
    "unwritten": (INTEGRITY, "values were never written"),
    "nothing": (INTEGRITY, "values were never written"),
    "random_bits": (INTEGRITY, "gave other bits"),
    "leaves_fork": (INTEGRITY, "left a fork of itself running"),
    "half": (WRONG, "grad_weight is float16 for float32 inputs"),
    "doubles": (WRONG, "grad_x is float64 for float32 inputs"),
    "listed": (WRONG, "grad_x is builtins.list, no array"),
    "flat": (WRONG, "grad_weight has shape"),
    "three": (WRONG, "it returned 3 gradients; it must return five"),
    "alone": (WRONG, "it returned 1 gradients; it must return five"),
    "fills_none": (WRONG, "grad_mask is no None though mask was None"),
    "memory_order": (WRONG, "layout is not contiguous"),
    "home": (INTEGRITY, "gave other bits"),
}
ALL = {
    "misbehaving": WAYS,
    "exploits": TRICKS,
    GATE: REWARDED,
    OUTSIDE: BORROWED,
    "greets": GREETINGS,
    "loads_once": LOADED_ONCE,
    "misbehaving_gradients": GRADIENTS,
}
BREACHES = [
    Breach(place, way, *due) for place, ways in ALL.items() for way, due in ways.items()
]
