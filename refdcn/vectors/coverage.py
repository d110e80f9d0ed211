"""Which mistakes of the catalogue a vector shows."""

from __future__ import annotations

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.catalogue.steps import Trail, evaluate, shaped, trail
from refdcn.grading.judging.distance import outside
from refdcn.vectors.vector import Vector

FAR = 4  # bounds from the range: what is nearer shows on some machines only


def shows(vector: Vector, mistake: Mistake, known: Trail | None = None) -> bool:
    """Whether a kernel with this mistake is outside: in y, or its gradients alone."""
    case, backward = vector.case, mistake.kind == "gradients"
    state = evaluate(case, mistake.edits, backward, known)
    for name in vector.targets[1:] if backward else ["y"]:
        want = vector.expected.range(name)
        got = shaped(case, state, name)
        if not (outside(got, want) <= FAR * want.bound).all():
            return True
    return False


def caught(vector: Vector) -> list[str]:
    """The names of the mistakes that it shows; none without a number in y."""
    if not vector.arrays["y"].size:
        return []
    known = trail(vector.case, True)
    return [m.name for m in CATALOGUE if shows(vector, m, known)]
