"""What a grade may be asked for: the keywords of `grade`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from refdcn.grading.judging.declared import parse_conventions
from refdcn.grading.judging.gaps import DeclarationError, parse
from refdcn.grading.process.inside.argument_orders import CONVENTIONS, gaps
from refdcn.grading.process.inside.routes import How
from refdcn.grading.process.isolation import MEMORY, SECONDS
from refdcn.grading.questions.suite import LEVELS

TIMED = 8  # calls of a gate
DTYPES = ("float64", "float32", "float16")
CHOICES = {
    "level": tuple(LEVELS),
    "dtypes": (*DTYPES, "bfloat16"),
    "precision": ("fp64", "fp32", "tf32", "bf16", "fp16"),
    "array": ("numpy", "torch", "cupy"),
    "like": tuple(CONVENTIONS),
    "runtime": ("onnxruntime", "reference", "openvino"),
    "only": (
        *("exact", "random", "sizes", "optional", "layout", "repeat"),
        *("malformed", "hostile", "sweeps"),
    ),
}


def drawn_seed() -> int:
    """A seed that no candidate can know."""
    return secrets.randbelow(2**32)


@dataclass(frozen=True)
class Options:
    """The keywords of a grade.

    level: how much is tried: "smoke", "full" or "paranoid".
    dtypes: what it is given; "bfloat16" with array "torch" only.
    precision: the working precision it promises, "fp64", "fp32", "tf32", "bf16" or
        "fp16", when it is another than the dtype's own.
    conventions: choices that it keeps, such as "border=inside".
    gaps: calls that it may refuse, such as "groups > 1".
    seed: of everything that is drawn; None draws a fresh one, which the report names.
        A second grade with the same one computes no expectation anew.
    strict: count inputs that are not finite, and shapes computed unchecked.
    like: the library as whose function it is called, such as "torchvision"; None is
        refdcn. Its gaps are declared by that.
    companion: the SPEC of its gradients, where they are neither beside it nor a
        library's own.
    runtime: what runs a model of ONNX: "onnxruntime", "reference" (ONNX's own) or
        "openvino"; None takes the first of these that is installed.
    array: "torch" for a candidate on torch tensors, whose gradients are autograd's;
        "cupy" for one on CuPy's arrays, which lie on a card.
    device: where the inputs of a torch or CuPy candidate are, such as "cuda"; "cpu"
        goes the same way without a card.
    python: the path of another interpreter, under which the candidate runs: Python 3.8
        or later, with NumPy 1.20 or later and nothing of refdcn; None is this one.
    timeout: seconds for one call.
    memory: bytes that one call may allocate (Linux).
    timed: calls of a larger case that are timed and held to the machine's roofline.
    beside: time torchvision, refdcn and the dense convolution on the timed calls, too.
    gate: hold it to the rules for programs that are rewarded for passing: it loads no
        other operator, starts no Python, and leaves no file; 8 calls are timed.
    only: groups of calls to ask for, such as "exact"; none asks for all.
    budget: seconds after which no further call is asked for; None sets no limit. What
        was found until then is diagnosed all the same.
    explain: say which mistake it is, which takes seconds where there is one.
    smallest: reduce the worst failing case and try it as a script.
    evidence: measure what a report shows of a wrong candidate: where one failing case
        is wrong, and which pixels it reads instead.
    progress: show a bar on standard error.
    """

    level: str = "smoke"
    dtypes: tuple[str, ...] = DTYPES
    precision: str | None = None
    conventions: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    seed: int = field(default_factory=drawn_seed)
    strict: bool = False
    like: str | None = None
    companion: str | None = None
    runtime: str | None = None
    array: str = "numpy"
    device: str | None = None
    python: str | None = None
    timeout: float = SECONDS
    memory: int = MEMORY
    timed: int = 0
    beside: bool = False
    gate: bool = False
    only: tuple[str, ...] = ()
    budget: float | None = None
    explain: bool = True
    smallest: bool = False
    evidence: bool = False
    progress: bool = False

    @property
    def all_gaps(self) -> tuple[str, ...]:
        """The declared gaps, and those of the library as which it is called."""
        return (*self.gaps, *gaps(self.like))

    @property
    def how(self) -> How:
        """What the candidate's own process is told of these."""
        return How(*(getattr(self, name) for name in How._fields))

    @property
    def kept(self) -> Mapping[str, str]:
        """The declared conventions, each with its value."""
        return parse_conventions(self.conventions)

    @property
    def border(self) -> str:
        """The declared border rule."""
        return self.kept.get("border", "corners")

    def wants(self, group: str) -> bool:
        """Whether a group of calls is asked for."""
        return not self.only or group in self.only


NAMES = tuple(f.name for f in fields(Options))
SEVERAL = "dtypes", "conventions", "gaps", "only"


def chosen(given: Mapping[str, Any]) -> Options:
    """Options from keywords; an error says what a wrong one may be."""
    for name in given:
        if name not in NAMES:
            raise TypeError(f"grade() has no option {name}; it has {', '.join(NAMES)}")
    values = {name: v for name, v in given.items() if (name, v) != ("seed", None)}
    for name in SEVERAL:
        if isinstance(values.get(name), str):
            raise DeclarationError(
                f"{name} is {values[name]!r}; it must be a list of such, as "
                f"[{values[name]!r}]"
            )
        if name in values:
            values[name] = tuple(values[name])
    for name, known in CHOICES.items():
        value = values.get(name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and one not in known:
                raise DeclarationError(
                    f"{name} is {one!r}; it must be one of {', '.join(known)}"
                )
    if values.get("gate") and not values.get("timed"):
        values["timed"] = TIMED
    options = Options(**values)
    parse_conventions(options.conventions)
    for gap in options.gaps:
        parse(gap)
    return options
