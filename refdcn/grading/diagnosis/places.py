"""Where a result is wrong: the shortest rule outside of which nothing fails.

Every element of every graded call is one row of a table: its indices, the sizes
of the call, and what its samples meet. A condition that all failing rows meet
is necessary; so is any conjunction of such. The few that shut out the most
right rows are the rule, and it is called exact only if it has no exception.

Of many conditions one fits few failures by chance. A clause stays only if its
failures are too many for that: units are calls where calls differ, elements of
the failing calls where those differ, and every condition on offer counts. One call
is enough where it differs in one size from another that is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import lgamma, log
from typing import NamedTuple

import numpy as np

from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import Array, Case, offset_shape
from refdcn.grading.judging.finding import Finding

AXES = {
    "y": ("n", "o", "oh", "ow"),
    "grad_x": ("n", "c", "h", "w"),
    "grad_offset": ("n", "offset group", "tap", "axis", "oh", "ow"),
    "grad_weight": ("o", "c", "i", "j"),
    "grad_mask": ("n", "offset group", "tap", "oh", "ow"),
    "grad_bias": ("o",),
}
MOST = 4000  # rows kept of a call in which nothing fails
CLAUSES = 3
CHANCE = 0.05  # of a clause that says nothing
REMAINDER = re.compile(" (mod .*|is (odd|even|a power.*|(a|no) multiple.*))$")
FEW = 3  # failing elements that are told one by one
PLAIN = ("N", "groups", "offset_groups", "K_h", "K_w", "H", "W", "H_out", "W_out")
TRAIT = "call: "  # marks properties of a call, told after all others
BLOCKS = (2, 3, 4, 8, 16, 32, 64)
BASE = "sizes as they are"  # the call of which sweeps change one size
SWEPT = {"c": "C_in", "o": "C_out"} | {
    f"{name}_{axis}": f"{name} of {line}"
    for name in ("stride", "padding", "dilation")
    for axis, line in (("h", "rows"), ("w", "columns"))
}


class Judged(NamedTuple):
    """One output of one call: which of its elements fail."""

    case: Case
    target: str
    bad: Array | None  # None: nothing fails
    want: Array | None = None  # where it is 0, a right value says nothing

    @property
    def by_chance(self) -> bool:
        """On small whole numbers a wrong value may be right by chance."""
        return self.case.kind == "exact"


class Place(NamedTuple):
    """A rule in words; `exact` when it has no exception, `holds` one way."""

    text: str
    exact: bool = False
    holds: bool = False
    ruled: bool = False  # it says more than "everywhere"
    others: tuple[str, ...] = ()  # rules that hold of the same rows

    @property
    def told(self) -> str:
        """The text, and the rules that no call tells apart from its own."""
        more = f" (or where {' or '.join(self.others)}: no call tells)"
        return self.text + (more if self.others else "")


def shape_of(judged: Judged) -> tuple[int, ...]:
    """The output's shape, offset channels taken apart."""
    case, target = judged.case, judged.target
    if target == "y":
        return case.y_shape
    whole = offset_shape(case.sizes)
    if target == "grad_offset":
        return whole
    if target == "grad_mask":
        return (*whole[:3], *whole[4:])
    name = target[5:]
    like = case.inputs[("x", "offset", "weight", "mask", "bias").index(name)]
    return () if like is None else like.shape


def sizes_of(case: Case) -> dict[str, int]:
    """What a kernel may branch on."""
    s = case.sizes
    both = {"stride": s.stride, "padding": s.padding, "dilation": s.dilation}
    found = {
        "N": s.N,
        "groups": s.groups,
        "offset_groups": s.offset_groups,
        "K_h": s.K_h,
        "K_w": s.K_w,
        "K_h K_w": s.K_h * s.K_w,
        "C_in": s.C_in,
        "C_out": s.C_out,
        "C_in / groups": s.C_in // max(1, s.groups),
        "C_out / groups": s.C_out // max(1, s.groups),
        "C_in / offset_groups": s.C_in // max(1, s.offset_groups),
        "H_out": s.out[0],
        "W_out": s.out[1],
        "H": s.H,
        "W": s.W,
        "H W": s.H * s.W,
        "H_out W_out": s.out[0] * s.out[1],
        "N H_out W_out": s.N * s.out[0] * s.out[1],
        "K_h K_w C_in / groups": s.K_h * s.K_w * s.C_in // max(1, s.groups),
    }
    used = np.argwhere(case.weight)
    if len(used) and (used[:, 2:] == used[0, 2:]).all():
        found["the only tap"] = int(used[0, 2] * s.K_w + used[0, 3])
    else:
        found["the only tap"] = -1
    for name, (h, w) in both.items():
        found |= {f"{name} of rows": h, f"{name} of columns": w}
    return found


def alone(judged: Judged) -> bool:
    """Whether every output takes one sample, so that its properties are its own."""
    return judged.case.group == "exact" and bool(
        np.count_nonzero(judged.case.weight[0]) == 1
    )


def traits_of(case: Case) -> dict[str, bool]:
    """Yes-or-no properties of a call."""
    s = case.sizes
    return {
        "there is a mask": case.mask is not None,
        "there is a bias": case.bias is not None,
        "the layout is not contiguous": case.layout != "contiguous",
        "the strides differ": s.stride[0] != s.stride[1],
        "the paddings differ": s.padding[0] != s.padding[1],
        "the dilations differ": s.dilation[0] != s.dilation[1],
        "K_h differs from K_w": s.K_h != s.K_w,
        "H differs from W": s.H != s.W,
        "H_out differs from H": s.out[0] != s.H,
        "W_out differs from W": s.out[1] != s.W,
        "H_out differs from W_out": s.out[0] != s.out[1],
        "N differs from 1": s.N != 1,
        "the groupings differ": s.groups != s.offset_groups,
        "neither grouping divides the other": s.groups % max(1, s.offset_groups) != 0
        and s.offset_groups % max(1, s.groups) != 0,
        "H_out > W_out": s.out[0] > s.out[1],
        "C_out > C_in": s.C_out > s.C_in,
        "C_out differs from C_in": s.C_out != s.C_in,
        "C_out differs from W_out": s.C_out != s.out[1],
        "a stride is larger than the kernel": s.stride[0] > s.K_h
        or s.stride[1] > s.K_w,
        "the kernel is larger than the image": s.K_h > s.H or s.K_w > s.W,
        "the padding is half the kernel": s.padding == (s.K_h // 2, s.K_w // 2),
        "the numbers have all their bits": case.kind != "exact",
    }


def meets_of(case: Case) -> dict[str, Array]:
    """What samples meet: [N, offset_groups, K, H_out, W_out] each."""
    q_y, q_x = oracle.positions(case)
    m = oracle.modulation(case)
    dp = case.offset.astype(float).reshape(offset_shape(case.sizes))
    dy, dx = dp[:, :, :, 0], dp[:, :, :, 1]
    H, W = case.x.shape[2:]
    top, left = (q_y < 0) & (q_y > -1), (q_x < 0) & (q_x > -1)
    low, right = (q_y > H - 1) & (q_y < H), (q_x > W - 1) & (q_x < W)
    away = (q_y <= -1) | (q_y >= H) | (q_x <= -1) | (q_x >= W)
    return {
        "a row lies between pixels": q_y != np.floor(q_y),
        "a column lies between pixels": q_x != np.floor(q_x),
        "a sample lies between pixels": (q_y != np.floor(q_y)) | (q_x != np.floor(q_x)),
        "a sample lies on a pixel's row and column": (q_y == np.floor(q_y))
        & (q_x == np.floor(q_x)),
        "a sample lies across the top border": top & ~away,
        "a sample lies across the bottom border": low & ~away,
        "a sample lies across the left border": left & ~away,
        "a sample lies across the right border": right & ~away,
        "a sample lies across the border": (top | left | low | right) & ~away,
        "a sample lies outside": away,
        "a sample lies inside": ~(away | top | left | low | right),
        "a row is negative": q_y < 0,
        "a column is negative": q_x < 0,
        "a row is beyond the last": q_y > H - 1,
        "a column is beyond the last": q_x > W - 1,
        "dy is not 0": dy != 0,
        "dx is not 0": dx != 0,
        "an offset is not 0": (dy != 0) | (dx != 0),
        "dy and dx differ": dy != dx,
        "dy is negative": dy < 0,
        "dx is negative": dx < 0,
        "an offset is above 1 pixel": np.maximum(abs(dy), abs(dx)) > 1,
        "an offset is above 2 pixels": np.maximum(abs(dy), abs(dx)) > 2,
        "an offset is above 4 pixels": np.maximum(abs(dy), abs(dx)) > 4,
        "an offset is above 8 pixels": np.maximum(abs(dy), abs(dx)) > 8,
        "a mask is negative": m < 0,
        "a mask is above 1": m > 1,
        "a mask is not 1": m != 1,
    }


def spread(judged: Judged, shape: tuple[int, ...]) -> dict[str, Array]:
    """The samples' properties at the output's elements: of any sample it takes."""
    target = judged.target
    if target not in ("y", "grad_offset", "grad_mask"):
        return {}
    found: dict[str, Array] = {}
    taken = judged.case.weight.any((0, 1)).reshape(-1)  # a tap of weight 0 is not
    for name, met in meets_of(judged.case).items():
        if target == "y":
            at = np.asarray(met[:, :, taken].any((1, 2)))[:, None]
        else:
            at = met[:, :, :, None] if target == "grad_offset" else met
        found[name] = np.broadcast_to(at, shape)
    return found


def reals(judged: Judged, shape: tuple[int, ...]) -> dict[str, Array]:
    """What an element's only sample is made of, where it has only one."""
    own = judged.target in ("grad_offset", "grad_mask")
    if not own and not (judged.target == "y" and alone(judged)):
        return {}
    q_y, q_x = oracle.positions(judged.case)
    m = oracle.modulation(judged.case)
    dp = judged.case.offset.astype(float).reshape(offset_shape(judged.case.sizes))
    told: dict[str, Array] = {
        "|dy|": np.abs(dp[:, :, :, 0]),
        "|dx|": np.abs(dp[:, :, :, 1]),
        "|mask|": np.abs(m),
        "the mask": np.asarray(m),
        "the row": q_y,
        "the column": q_x,
    }
    found = {}
    for name, value in told.items():
        if judged.target == "y":
            tap = sizes_of(judged.case)["the only tap"]
            value = value[:, :, max(0, tap)].max(1)[:, None]
            if judged.case.sizes.offset_groups > 1:
                return {}
        elif judged.target == "grad_offset":
            value = value[:, :, :, None]
        found[name] = np.broadcast_to(value, shape)
    return found


def indices(judged: Judged, shape: tuple[int, ...]) -> dict[str, Array]:
    """An element's place: along each axis, and by group and flat pixel."""
    case, s = judged.case, judged.case.sizes
    labels = AXES[judged.target]
    found: dict[str, Array] = dict(zip(labels, np.indices(shape), strict=True))
    if "o" in found:
        n_o = max(1, s.C_out // max(1, s.groups))
        found |= {"o's group": found["o"] // n_o, "o in its group": found["o"] % n_o}
    if judged.target == "grad_x":
        n_i = max(1, s.C_in // max(1, s.offset_groups))
        found |= {"c's offset group": found["c"] // n_i}
        found |= {"c in its offset group": found["c"] % n_i}
    if "tap" in found:
        found |= {"i": found["tap"] // s.K_w, "j": found["tap"] % s.K_w}
    if judged.target == "grad_weight":
        found["tap"] = found["i"] * s.K_w + found["j"]
    if "ow" in found:
        found["oh W_out + ow"] = found["oh"] * s.out[1] + found["ow"]
        pixels = case.y_shape[2] * case.y_shape[3]
        found["(n H_out + oh) W_out + ow"] = (
            found["n"] * pixels + found["oh W_out + ow"]
        )
    return found


def ends(found: dict[str, Array]) -> dict[str, Array]:
    """The last index of each, and what lies beyond whole blocks."""
    rows = {}
    for name, at in found.items():
        n = int(at.max(initial=-1)) + 1
        rows[f"{name} is the last"] = at == n - 1
        rows[f"{name} is not the first"] = at > 0
        for block in BLOCKS:
            beyond = at >= n - n % block
            rows[f"{name} lies beyond the last multiple of {block}"] = beyond
    return rows


class Table(NamedTuple):
    """One row an element: numbers, properties, whether it fails, its weight."""

    places: dict[str, Array]  # the element's own indices
    sizes: dict[str, Array]  # of the call
    flags: dict[str, Array]
    reals: dict[str, Array]
    bad: Array
    right: Array
    lucky: Array  # right, in a call on small whole numbers that fails elsewhere
    call: Array  # which one
    changed: tuple[str, ...]  # sizes that alone make a right call fail

    def values(self, name: str) -> Array | None:
        """The numbers of a column."""
        for kind in (self.places, self.sizes, self.reals):
            if name in kind:
                return kind[name]
        return None

    @property
    def tried(self) -> int:
        """Conditions that could have fitted: a flag has two, a number its values."""
        numbers = (*self.places.values(), *self.sizes.values())
        seen = sum(min(64, int(np.ptp(a)) + 1) for a in numbers if a.size)
        return 2 * len(self.flags) + 64 * len(self.reals) + seen


def gather(judged: Sequence[Judged]) -> Table:
    """The table of all calls of one target; long right ones are thinned out."""
    columns: tuple[dict[str, list[Array]], ...] = ({}, {}, {}, {})
    state: list[list[Array]] = [[], [], [], []]
    rng = np.random.default_rng(0)
    for k, one in enumerate(judged):
        shape = shape_of(one)
        size = int(np.prod(shape))
        if not shape or size == 0:
            continue
        bad = np.zeros(size, bool) if one.bad is None else one.bad.reshape(-1)
        keep = np.arange(size)
        if one.want is not None:
            keep = keep[bad | (one.want.reshape(-1) != 0)]
        if one.bad is None and len(keep) > MOST:
            keep = np.sort(rng.choice(keep, MOST, replace=False))
        for rows, kind in zip(columns, kinds_of(one, shape), strict=True):
            for name, value in kind.items():
                rows.setdefault(name, []).append(value.reshape(-1)[keep])
        lucky = ~bad & (one.by_chance and bool(bad.any()))
        of_call = np.full(size, k)
        for kept, value in zip(state, (bad, ~bad, lucky, of_call), strict=True):
            kept.append(value[keep])
    size = sum(map(len, state[0]))

    def join(parts: list[Array]) -> Array:
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    told = [{k: join(v) for k, v in rows.items()} for rows in columns]
    told[3] = {k: v for k, v in told[3].items() if len(v) == size}
    places, sizes, flags, real = told
    return Table(
        places,
        sizes,
        flags,
        real,
        join(state[0]),
        join(state[1]),
        join(state[2]),
        join(state[3]),
        changed_alone(judged),
    )


def changed_alone(judged: Sequence[Judged]) -> tuple[str, ...]:
    """The sizes of which another value makes a right call fail, all else equal."""
    if not any(j.case.note == BASE and j.bad is None for j in judged):
        return ()
    notes = [j.case.note for j in judged if j.bad is not None and " = " in j.case.note]
    names = dict.fromkeys(note.split(" = ")[0] for note in notes)
    return tuple(SWEPT.get(name, name) for name in names)


def kinds_of(one: Judged, shape: tuple[int, ...]) -> tuple[dict[str, Array], ...]:
    """Indices, sizes and flags at every element."""
    places = indices(one, shape)
    sizes = {k: np.full(shape, v) for k, v in sizes_of(one.case).items()}
    flags = ends(places) | spread(one, shape)
    flags |= {TRAIT + k: np.full(shape, v) for k, v in traits_of(one.case).items()}
    return places, sizes, flags, reals(one, shape)


Clause = tuple[str, Array]


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
    return log_chance(*(len(distinct(table.call[r])) for r in rows))


def by_elements(clause: Clause, among: Array, table: Table) -> float:
    """The same over what the clause speaks of, in the calls that fail."""
    name, at = clause
    rows = among & np.isin(table.call, distinct(table.call[table.bad]))
    unit = units(name, table)
    three = rows & table.bad, rows & at, rows
    return log_chance(*(len(np.unique(unit[r])) for r in three))


def units(name: str, table: Table) -> Array:
    """A number for each channel, tap or pixel that a clause can choose among.

    Other axes repeat it: a pixel that fails in 33 channels is one failure.
    """
    word = name.split(" ")[0].removesuffix("'s")
    axes = ["n", "offset group", "tap", "oh", "ow", "h", "w"]
    if word in ("o", "c", "n", "axis"):
        axes = [word]
    elif word in ("tap", "i", "j"):
        axes = ["tap"]
    elif name.startswith("offset group"):
        axes = ["offset group"]
    found = table.call
    for axis in axes:
        if axis in table.places:
            at = table.places[axis]
            found = found * (int(at.max(initial=0)) + 1) + at
    return found


def told(clause: Clause, among: Array, table: Table) -> bool:
    """Whether the failures among some rows are too many to fit by chance."""
    if any(clause[0].startswith(f"{name} ") for name in table.changed):
        return True
    name, at = clause
    label = next((k for k in table.sizes if REMAINDER.sub("", name) == k), "")
    if label:  # a size has few values, each in many calls
        value = table.sizes[label]
        rows = among & table.bad, among & at, among
        least = log_chance(*(len(distinct(value[r])) for r in rows))
    else:
        calls = by_calls(at, among, table)
        least = min(calls, by_elements(clause, among, table))
    return least + log(max(1, table.tried)) < log(CHANCE)


def clauses(table: Table) -> Iterator[Clause]:
    """Every condition on offer that all failing rows meet, the plainest first."""
    late: list[Clause] = []
    for name, value in table.places.items():
        yield from limits(name, value, table)
    for name, flag in table.flags.items():
        if name.startswith(TRAIT):
            late += constant(name[len(TRAIT) :], flag, table.bad)
        else:
            yield from constant(name, flag, table.bad)
    for name, value in table.reals.items():
        low, high = value[table.bad].min(), value[table.bad].max()
        if low > value.min():
            yield f"{name} >= {low:.4g}", value >= low
        if high < value.max():
            yield f"{name} <= {high:.4g}", value <= high
    for name, value in table.sizes.items():
        found = list(limits(name, value, table))
        late += [c for c in found if " multiple " in c[0] or " mod " in c[0]]
        yield from (c for c in found if c[0] not in [k for k, _ in late])
    yield from late


def constant(name: str, flag: Array, bad: Array) -> Iterator[Clause]:
    """The property, or its opposite, if all failing rows agree."""
    failing = flag[bad]
    if failing.all():
        yield name, flag
    elif not failing.any():
        yield negated(name), ~flag


def limits(name: str, value: Array, table: Table) -> Iterator[Clause]:
    """Equal to, from, up to, and remainders, as the failing rows have them."""
    failing, others = distinct(value[table.bad]), distinct(value[table.right])
    low, high = int(failing[0]), int(failing[-1])
    if low == high >= 0:
        yield f"{name} = {low}", value == low
    if name == "the only tap":
        return
    if low > value.min():
        text = f"{name} > 0" if low == 1 else f"{name} >= {low}"
        yield text, value >= low
    several = len(failing) > 1 and int((others > high).sum()) > 1
    if high < value.max() and (name in table.places or (several and name in PLAIN)):
        yield f"{name} <= {high}", value <= high
    for block in BLOCKS:
        rest = np.unique(failing % block)
        if high < block or len(failing) < 2:
            continue
        if len(rest) == 1 and len(others[others % block != rest[0]]) > 1:
            r = int(rest[0])
            text = f"{name} mod {block} = {r}"
            if block == 2:
                text = f"{name} is {'odd' if r else 'even'}"
            elif r == 0:
                text = f"{name} is a multiple of {block}"
            yield text, value % block == r
        elif 0 not in rest and len(others[others % block == 0]) > 1:
            yield f"{name} is no multiple of {block}", value % block != 0
    if name in table.sizes and low > 0 and not (failing & (failing - 1)).any():
        yield f"{name} is a power of two", (value > 0) & (value & (value - 1) == 0)


def distinct(value: Array) -> Array:
    """The values of whole numbers, in order; np.unique sorts or hashes them all."""
    if not value.size:
        return value
    low = int(value.min())
    return np.asarray(np.flatnonzero(np.bincount(value - low)) + low)


def negated(name: str) -> str:
    """The condition's opposite in words."""
    for a, b in (
        ("there is a ", "there is no "),
        (" is the last", " is not the last"),
        (" is not the first", " = 0"),
        (" lies beyond the last multiple of ", " lies in whole blocks of "),
        (" differs from ", " equals "),
        ("C_out > C_in", "C_out <= C_in"),
        ("an offset is not 0", "all offsets are 0"),
        ("a mask is not 1", "every mask is 1"),
    ):
        if a in name:
            return name.replace(a, b)
    for a, b in (("a ", "no "), ("an ", "no ")):
        if name.startswith(a):
            return b + name[len(a) :]
    return f"not ({name})"


def shortest(table: Table, offered: Sequence[Clause]) -> list[Clause]:
    """The conjunction that shuts out the most right rows, clause by clause.

    Without those that tell no more than chance.
    """
    inside = np.ones(table.bad.shape, bool)
    found: list[Clause] = []
    bad = np.count_nonzero(table.bad)
    for _ in range(CLAUSES):
        left = int(np.count_nonzero(table.right & inside))
        sure = table.right & inside & ~table.lucky
        few = 0.02 if sure.any() else 0.2  # what may be right by chance
        if left <= 0.02 * bad or not offered:
            break
        gone = [int(np.count_nonzero(table.right & inside & ~at)) for _, at in offered]
        most = max(gone)
        if left <= few * bad and most < max(10, 0.9 * left):  # chance knows no places
            break
        if most < max(2, (0.3 if found else 0.15) * left):
            break
        # of clauses as good as the best, the first is the plainest
        k = next(i for i, g in enumerate(gone) if g >= 0.999 * most)
        found.append(offered[k])
        inside &= offered[k][1]
    for clause in list(found):  # an earlier one may have become idle
        rest = [c for c in found if c is not clause]
        if rest and not (table.right & met(rest, table) & ~inside).any():
            found, inside = rest, met(rest, table)
    for clause in list(found):  # or fit by chance alone
        rest = [c for c in found if c is not clause]
        if not told(clause, met(rest, table), table):
            found = rest
    return found


def met(rule: Sequence[Clause], table: Table) -> Array:
    """The rows inside a rule."""
    inside = np.ones_like(table.bad)
    for _, at in rule:
        inside &= at
    return inside


def bracketed(clause: Clause, rest: Sequence[Clause], table: Table) -> str:
    """A limit, and how far from it the nearest right value is."""
    name, at = clause
    label, _, number = name.partition(" >= ")
    value = table.values(label)
    if not number or value is None or value.dtype.kind == "f":
        return name
    below = value[table.right & met(rest, table) & ~at]
    if not below.size or int(below.max()) >= int(number) - 1:
        return name
    return f"{name} (up to {int(below.max())} it is right)"


def equals(rule: Sequence[Clause], offered: Sequence[Clause]) -> tuple[str, ...]:
    """Other conditions than a rule of one clause that no row tells apart from it."""
    if len(rule) != 1:
        return ()
    mine = rule[0]
    same = [n for n, at in offered if n != mine[0] and np.array_equal(at, mine[1])]
    return tuple(same[:3])


def locate(findings: Iterable[Finding | Judged]) -> Place:
    """Where one target fails, over every graded call of it."""
    judged = [f if isinstance(f, Judged) else judged_of(f) for f in findings]
    wrong = [j for j in judged if j.bad is not None and j.bad.any()]
    if not wrong:
        return Place("")
    with np.errstate(invalid="ignore"):
        table = gather(judged)
    bad, right = int(table.bad.sum()), int(table.right.sum())
    if right == 0:
        return Place("it fails everywhere", True, True)
    if bad <= FEW < right:
        return Place(f"it fails at {bad} of {bad + right} values: {named(wrong)}")
    offered = list(clauses(table))
    rule = shortest(table, offered)
    inside = met(rule, table)
    others = equals(rule, offered)
    text = " and ".join(
        bracketed(c, [d for d in rule if d is not c], table) for c in rule
    )
    exceptions = int((table.right & inside).sum())
    by_chance = int((table.lucky & inside).sum())
    within = f"{bad} of {bad + exceptions} values"
    if rule and exceptions == by_chance <= 0.2 * bad:
        return Place(f"it fails exactly where {text}", True, True, True, others)
    shut_out = 1 - exceptions / max(1, right)
    dense = bad / (bad + exceptions)
    if rule and shut_out >= 0.15:
        said = f"it fails only where {text}, there at {within}"
        alone = hint(offered, table)
        if alone:
            said += f", in {len(wrong)} of {len(judged)} calls: in them alone {alone}"
        return Place(said, False, True, True, others)
    if exceptions <= 0.1 * bad:
        return Place(f"it fails nearly everywhere, at {within}", False, dense > 0.9)
    calls, alone = f"in {len(wrong)} of {len(judged)} calls", hint(offered, table)
    calls += f", too few for a rule: in them alone {alone}" if alone else ""
    return Place(f"it fails at {within}, {calls}; {first(wrong)}")


def hint(offered: Sequence[Clause], table: Table) -> str:
    """What the calls that fail have alone, if they are too few for a rule."""
    failing = distinct(table.call[table.bad])
    if len(failing) > FEW:
        return ""
    said = []
    for clause in offered:
        if clause[0].split(" ")[0].removesuffix("'s") in table.places:
            continue
        if np.array_equal(distinct(table.call[clause[1]]), failing):
            said.append(bracketed(clause, (), table))
    said.sort(key=lambda text: any(c.isdigit() for c in text))  # what is plain first
    return " and ".join(said[:2])


def named(wrong: Sequence[Judged]) -> str:
    """Every failing element of a few."""
    said = []
    for one in wrong:
        assert one.bad is not None
        at = np.argwhere(one.bad.reshape(shape_of(one)))
        places = ", ".join(f"{one.target}{list(map(int, p))}" for p in at)
        said.append(f"{places} of {one.case}")
    return "; ".join(said)


def first(wrong: Sequence[Judged]) -> str:
    """The first failing element of the smallest call."""
    one = min(wrong, key=lambda j: j.case.x.size + j.case.weight.size)
    assert one.bad is not None
    shape = shape_of(one)
    at = np.unravel_index(int(np.argmax(one.bad.reshape(-1))), shape)
    return f"first at {one.target}[{', '.join(map(str, map(int, at)))}] of {one.case}"


def judged_of(f: Finding) -> Judged:
    """A finding without what location does not need."""
    want = None if f.expected is None else f.expected.range(f.target).low
    return Judged(f.case, f.target, f.failing, want)
