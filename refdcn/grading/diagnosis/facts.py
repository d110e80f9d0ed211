"""The records of a diagnosis: plain values that programs read and words are made of.

No record holds a sentence. `kind`, `subject` and the keys of `measured` are names
that stay as they are; words/diagnosis.py says what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple


class Rank(IntEnum):
    """How much a fact says of the cause, the most first."""

    WHOLE = 0  # what is done instead, from which all else follows
    CAUSE = 1  # what is done instead
    EFFECT = 2  # that something happens which must not
    RELATION = 3  # two calls that contradict each other
    TRACE = 4  # one element in which a gradient differs
    VAGUE = 5  # measured, and in no simple form


@dataclass(frozen=True)
class Fact:
    """What one measurement recovered of a candidate, and what must be.

    `where` holds the part or the call to which it is limited; empty: everywhere.
    """

    kind: str
    subject: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    defined: Any = None
    rank: Rank = Rank.CAUSE
    right: bool = False
    where: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """For programs."""
        return dict(json_value(asdict(self) | {"rank": self.rank.name.lower()}))


def found_right(kind: str, subject: str) -> Fact:
    """A measurement that found what must be."""
    return Fact(kind, subject, right=True)


class Clause(NamedTuple):
    """A condition: `column` of an element or a call, compared with `value`.

    `op` is one of "=", ">=", "<=", "mod 2", "no multiple", "power of two", "is"
    (of a property), "first", "last", "beyond multiple".
    """

    column: str
    op: str
    value: Any

    @property
    def opposite(self) -> Clause:
        """Of a property: that it is not so."""
        return self._replace(value=not self.value)


@dataclass(frozen=True)
class Place:
    """Where one result fails: the rule, and how far it goes.

    `kind` is "" (nothing fails), "everywhere", "few" (each element is told),
    "exact" (no exception), "only" (nothing fails outside), "nearly" everywhere,
    or "some" (no rule).
    """

    target: str
    kind: str = ""
    rule: tuple[Clause, ...] = ()
    nearest: tuple[int | None, ...] = ()  # right values beside the rule's limits
    others: tuple[Clause, ...] = ()  # conditions that hold of the same rows
    failing: int = 0
    within: int = 0  # values that the rule does not shut out, failing or not
    calls: tuple[int, int] = (0, 0)  # that fail, of how many
    examples: tuple[tuple[str, tuple[int, ...]], ...] = ()  # call, failing element
    one_sample: bool = False  # of the calls whose outputs take one sample each

    @property
    def exact(self) -> bool:
        """Whether the rule has no exception."""
        return self.kind in ("exact", "everywhere")

    @property
    def holds(self) -> bool:
        """Whether nothing fails outside of it."""
        dense = self.kind == "nearly" and self.failing > 0.9 * self.within
        return self.kind in ("exact", "only", "everywhere") or dense

    @property
    def ruled(self) -> bool:
        """Whether it says more than "everywhere"."""
        return self.kind in ("exact", "only")

    def json(self) -> dict[str, Any]:
        """For programs."""
        found = json_value(asdict(self))
        found["rule"] = [c._asdict() for c in self.rule]
        found["others"] = [c._asdict() for c in self.others]
        return dict(found)


def json_value(value: Any) -> Any:
    """Numbers of NumPy and tuples as those of JSON; NaN and infinity as words."""
    if isinstance(value, Mapping):
        return {str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(v) for v in value]
    if hasattr(value, "tolist"):
        return json_value(value.tolist())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value


def distinct(facts: Iterable[Fact]) -> list[Fact]:
    """What is wrong, the most telling first; of one probe that ran twice, one."""
    first: dict[tuple[str, str, str], Fact] = {}
    for f in facts:
        if not f.right:
            first.setdefault((f.kind, f.subject, str(f.where.get("target"))), f)
    return sorted(first.values(), key=lambda f: f.rank)
