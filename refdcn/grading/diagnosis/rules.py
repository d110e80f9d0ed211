"""Where a result is wrong: the shortest rule outside of which nothing fails.

A condition that all failing rows of the table meet is necessary; so is any
conjunction of such. The few that shut out the most right rows are the rule, and it
is called exact only if it has no exception.

Of many conditions one fits few failures by chance. A clause stays only if its
failures are too many for that: units are calls where calls differ, elements of
the failing calls where those differ, and every condition on offer counts. One call
is enough where it differs in one size from another that is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import lgamma, log

import numpy as np

from refdcn.grading.diagnosis.facts import Clause, Place
from refdcn.grading.diagnosis.places import (
    BLOCKS,
    ONLY_TAP,
    Judged,
    Table,
    gather,
    judged_of,
    result_shape,
    takes_one_sample,
)
from refdcn.grading.expected.case import Array
from refdcn.grading.judging.finding import Finding

CLAUSES = 3
CHANCE = 0.01  # of a clause that says nothing
TOLD_EACH = 3  # failing elements, or calls, that are told one by one
PLAIN = ("N", "groups", "offset_groups", "K_h", "K_w", "H", "W", "H_out", "W_out")
Condition = tuple[Clause, Array]  # and the rows that meet it


def log_chance(failing: int, met: int, of: int) -> float:
    """log of the chance that all that fail are among `met` of `of` things."""
    if met >= of or failing == 0:
        return 0.0
    if failing > met:
        return -np.inf
    three = lgamma(met + 1), lgamma(of - failing + 1)
    return sum(three) - lgamma(met - failing + 1) - lgamma(of + 1)


def by_calls(at: Array, among: Array, table: Table) -> float:
    """log chance of a clause over calls: those that meet it are those that fail."""
    rows = among & table.bad, among & at, among
    return log_chance(*(len(values_of(table.call[r])) for r in rows))


def by_elements(condition: Condition, among: Array, table: Table) -> float:
    """log chance over what the clause speaks of, in the calls that fail."""
    clause, at = condition
    rows = among & np.isin(table.call, values_of(table.call[table.bad]))
    unit = units(clause.column, table)
    three = rows & table.bad, rows & at, rows
    return log_chance(*(len(np.unique(unit[r])) for r in three))


UNITS = {
    "o": ["o"],
    "group of o": ["o"],
    "o in its group": ["o"],
    "c": ["c"],
    "offset group of c": ["c"],
    "c in its offset group": ["c"],
    "n": ["n"],
    "axis": ["axis"],
    "tap": ["tap"],
    "i": ["tap"],
    "j": ["tap"],
    "offset group": ["offset group"],
}
EACH_PIXEL = ["n", "offset group", "tap", "oh", "ow", "h", "w"]


def units(column: str, table: Table) -> Array:
    """A number for each channel, tap or pixel that a clause can choose among.

    Other axes repeat it: a pixel that fails in 33 channels is one failure.
    """
    found = table.call
    for axis in UNITS.get(column, EACH_PIXEL):
        if axis in table.places:
            at = table.places[axis]
            found = found * (int(at.max(initial=0)) + 1) + at
    return found


def is_significant(condition: Condition, among: Array, table: Table) -> bool:
    """Whether the failures among some rows are too many to fit by chance."""
    clause, at = condition
    if clause.column in table.changed:
        return True
    if clause.column in table.sizes and clause.op not in ("=", ">=", "<="):
        # A remainder of a size, which has few values, each in many calls.
        value = table.sizes[clause.column]
        rows = among & table.bad, among & at, among
        least = log_chance(*(len(values_of(value[r])) for r in rows))
    else:
        calls = by_calls(at, among, table)
        least = min(calls, by_elements(condition, among, table))
    return least + log(max(1, table.tried)) < log(CHANCE)


def conditions(table: Table) -> Iterator[Condition]:
    """Every condition on offer that all failing rows meet, the plainest first."""
    late: list[Condition] = []
    for name, value in table.places.items():
        yield from limits(name, value, table)
    for clause, flag in table.flags.items():
        yield from property_of(clause, flag, table.bad)
    for clause, flag in table.traits.items():
        late += property_of(clause, flag, table.bad)
    for name, value in table.reals.items():
        low, high = value[table.bad].min(), value[table.bad].max()
        if low > value.min():
            yield Clause(name, ">=", float(low)), value >= low
        if high < value.max():
            yield Clause(name, "<=", float(high)), value <= high
    remainders = []
    for name, value in table.sizes.items():
        for condition in limits(name, value, table):
            if condition[0].op.startswith(("mod ", "no multiple")):
                remainders.append(condition)
            else:
                yield condition
    yield from late
    yield from remainders


def property_of(clause: Clause, flag: Array, bad: Array) -> Iterator[Condition]:
    """The property, or its opposite, if all failing rows agree."""
    failing = flag[bad]
    if failing.all():
        yield clause, flag
    elif not failing.any():
        yield clause.opposite, ~flag


def limits(name: str, value: Array, table: Table) -> Iterator[Condition]:
    """Equal to, from, up to, and remainders, as the failing rows have them."""
    failing, others = values_of(value[table.bad]), values_of(value[table.right])
    low, high = int(failing[0]), int(failing[-1])
    if low == high >= 0:
        yield Clause(name, "=", low), value == low
    if name == ONLY_TAP:
        return
    if low > value.min():
        yield Clause(name, ">=", low), value >= low
    several = len(failing) > 1 and int((others > high).sum()) > 1
    if high < value.max() and (name in table.places or (several and name in PLAIN)):
        yield Clause(name, "<=", high), value <= high
    if len(failing) > 1:
        yield from remainders(name, value, (failing, others))
    if name in table.sizes and low > 0 and not (failing & (failing - 1)).any():
        yield (
            Clause(name, "power of two", True),
            (value > 0) & (value & (value - 1) == 0),
        )


def remainders(
    name: str, value: Array, seen: tuple[Array, Array]
) -> Iterator[Condition]:
    """A remainder that the failing values have, and few of the right ones."""
    failing, others = seen
    for block in BLOCKS:
        rest = np.unique(failing % block)
        if int(failing[-1]) < block:
            continue
        if len(rest) == 1 and len(others[others % block != rest[0]]) > 1:
            r = int(rest[0])
            yield Clause(name, f"mod {block}", r), value % block == r
        elif 0 not in rest and len(others[others % block == 0]) > 1:
            yield Clause(name, "no multiple", block), value % block != 0


def values_of(value: Array) -> Array:
    """The values of whole numbers, in order; np.unique sorts or hashes them all."""
    if not value.size:
        return value
    low = int(value.min())
    return np.asarray(np.flatnonzero(np.bincount(value - low)) + low)


def shortest(table: Table, offered: Sequence[Condition]) -> list[Condition]:
    """The conjunction that shuts out the most right rows, clause by clause.

    Without those that tell no more than chance.
    """
    found = greedy_rule(table, offered)
    within = rows_inside(found, table)
    for condition in list(found):  # an earlier one may have become idle
        rest = [c for c in found if c is not condition]
        if rest and not (table.right & rows_inside(rest, table) & ~within).any():
            found, within = rest, rows_inside(rest, table)
    for condition in list(found):  # or fit by chance alone
        rest = [c for c in found if c is not condition]
        if not is_significant(condition, rows_inside(rest, table), table):
            found = rest
    return found


def greedy_rule(table: Table, offered: Sequence[Condition]) -> list[Condition]:
    """Clause by clause the one that shuts out the most right rows."""
    within = np.ones(table.bad.shape, bool)
    found: list[Condition] = []
    bad = np.count_nonzero(table.bad)
    for _ in range(CLAUSES):
        left = int(np.count_nonzero(table.right & within))
        sure = table.right & within & ~table.right_by_chance
        few = 0.02 if sure.any() else 0.2  # what may be right by chance
        if left <= 0.02 * bad or not offered:
            break
        gone = [int(np.count_nonzero(table.right & within & ~at)) for _, at in offered]
        most = max(gone)
        if left <= few * bad and most < max(10, 0.9 * left):  # chance knows no places
            break
        if most < max(2, (0.3 if found else 0.15) * left):
            break
        # of clauses as good as the best, the first is the plainest
        k = next(i for i, g in enumerate(gone) if g >= 0.999 * most)
        found.append(offered[k])
        within = within & offered[k][1]
    return found


def rows_inside(rule: Sequence[Condition], table: Table) -> Array:
    """The rows inside a rule."""
    within = np.ones_like(table.bad)
    for _, at in rule:
        within &= at
    return within


def nearest_right(
    condition: Condition, rest: Sequence[Condition], table: Table
) -> int | None:
    """How far below a limit the nearest right value is; None where it is next to it."""
    clause, at = condition
    value = table.values(clause.column)
    if clause.op != ">=" or value is None or value.dtype.kind == "f":
        return None
    below = value[table.right & rows_inside(rest, table) & ~at]
    if not below.size or int(below.max()) >= clause.value - 1:
        return None
    return int(below.max())


def same_rows(
    rule: Sequence[Condition], offered: Sequence[Condition]
) -> tuple[Clause, ...]:
    """Other conditions than a rule of one clause that no row tells apart from it."""
    if len(rule) != 1:
        return ()
    mine, rows = rule[0]
    alike = [c for c, at in offered if c != mine and np.array_equal(at, rows)]
    return tuple(alike[:3])


def locate(findings: Iterable[Finding | Judged], target: str = "y") -> Place:
    """Where one target fails, over every graded call of it."""
    judged = [f if isinstance(f, Judged) else judged_of(f) for f in findings]
    wrong = [j for j in judged if j.bad is not None and j.bad.any()]
    if not wrong:
        return Place(target)
    with np.errstate(invalid="ignore"):
        table = gather(judged)
    if takes_one_everywhere(judged):  # in calls of three shapes, which say nothing
        table = table._replace(sizes=only_tap(table), traits={})
    return placed(table, wrong, (len(wrong), len(judged)))


def takes_one_everywhere(judged: Sequence[Judged]) -> bool:
    """Whether these are the calls in which each output takes one sample."""
    return all(map(takes_one_sample, judged))


def only_tap(table: Table) -> dict[str, Array]:
    """Of the sizes, the one that differs among calls of one sample an output."""
    return {ONLY_TAP: table.sizes[ONLY_TAP]}


def placed(table: Table, wrong: Sequence[Judged], calls: tuple[int, int]) -> Place:
    """The rule of a table in which something fails."""
    target = wrong[0].target
    bad, right = int(table.bad.sum()), int(table.right.sum())
    if right == 0:
        return Place(target, "everywhere", failing=bad, within=bad, calls=calls)
    if bad <= TOLD_EACH < right:
        found = each_element(wrong)
        return Place(target, "few", (), (), (), bad, bad + right, calls, found)
    offered = list(conditions(table))
    rule = shortest(table, offered)
    exceptions = table.right & rows_inside(rule, table)
    by_chance = int((table.right_by_chance & exceptions).sum())
    n = int(exceptions.sum())
    shut_out = 1 - n / max(1, right)
    kind = "some"
    if rule and n == by_chance <= 0.2 * bad:
        kind = "exact"
    elif rule and shut_out >= 0.15:
        kind = "only"
    elif n <= 0.1 * bad:
        kind = "nearly"
    told = rule if kind in ("exact", "only") else []
    nearest = (nearest_right(c, [d for d in told if d is not c], table) for c in told)
    return Place(
        target,
        kind,
        tuple(clause for clause, _ in told),
        tuple(nearest),
        same_rows(told, offered) if kind == "exact" else (),
        bad,
        bad + (n if told or kind == "nearly" else right),
        calls,
        each_call(wrong) if kind in ("some", "only") else (),
    )


def has_exceptions(rule: Sequence[Clause], judged: Sequence[Judged]) -> bool:
    """Whether something inside a rule of one table is right in another."""
    with np.errstate(invalid="ignore"):
        table = gather(judged)
    if not table.bad.any():
        return False
    offered = dict(conditions(table))  # what shuts out nothing is not on offer
    inside = rows_inside([(c, offered[c]) for c in rule if c in offered], table)
    return bool((table.right & ~table.right_by_chance & inside).any())


def each_element(wrong: Sequence[Judged]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Every failing element of a few."""
    found = []
    for one in wrong:
        assert one.bad is not None
        at = np.argwhere(one.bad.reshape(result_shape(one)))
        found += [(str(one.case), tuple(p.tolist())) for p in at]
    return tuple(found)


def each_call(wrong: Sequence[Judged]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The first failing element of each of a few calls, else of the smallest."""
    some = sorted(wrong, key=lambda j: j.case.x.size + j.case.weight.size)
    found = []
    for one in some if len(some) <= TOLD_EACH else some[:1]:
        assert one.bad is not None
        at = np.unravel_index(int(np.argmax(one.bad.reshape(-1))), result_shape(one))
        found.append((str(one.case), tuple(int(i) for i in at)))
    return tuple(found)
