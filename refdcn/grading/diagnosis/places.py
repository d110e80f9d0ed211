"""What is known of each element that may fail: the table that rules are sought in.

Every element of every graded call is one row: its indices, the sizes of the call,
and what its samples meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.diagnosis.facts import Clause
from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import Array, Case, offset_shape
from refdcn.grading.judging.finding import Finding

RESULT_AXES = {
    "y": ("n", "o", "oh", "ow"),
    "grad_x": ("n", "c", "h", "w"),
    "grad_offset": ("n", "offset group", "tap", "axis", "oh", "ow"),
    "grad_weight": ("o", "c", "i", "j"),
    "grad_mask": ("n", "offset group", "tap", "oh", "ow"),
    "grad_bias": ("o",),
}
MOST_ROWS = 4000  # rows kept of a call in which nothing fails
BLOCKS = (2, 3, 4, 8, 16, 32, 64)
SWEPT = {"c": "C_in", "o": "C_out"}  # a sweep's names of sizes that have others here
Flags = dict[Clause, Array]


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


def judged_of(f: Finding) -> Judged:
    """A finding without what location does not need."""
    want = None if f.expected is None else f.expected.range(f.target).low
    return Judged(f.case, f.target, f.failing, want)


def result_shape(judged: Judged) -> tuple[int, ...]:
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


OF_SAMPLES = "|dy|", "|dx|", "|mask|", "mask", "row", "column", "the only tap"
ONLY_TAP = "the only tap"  # whose weight is not 0; -1: there are several


def sizes_of(case: Case) -> dict[str, int]:
    """What a kernel may branch on."""
    s = case.sizes
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
        found[ONLY_TAP] = int(used[0, 2] * s.K_w + used[0, 3])
    else:
        found[ONLY_TAP] = -1
    for name in ("stride", "padding", "dilation"):
        h, w = getattr(s, name)
        found |= {f"{name}_h": h, f"{name}_w": w}
    return found


def takes_one_sample(judged: Judged) -> bool:
    """Whether every output takes one sample, so that its properties are its own."""
    return judged.case.group == "exact" and bool(
        np.count_nonzero(judged.case.weight[0]) == 1
    )


def traits_of(case: Case) -> dict[str, bool]:
    """Yes-or-no properties of a call."""
    s = case.sizes
    nested = s.groups % max(1, s.offset_groups) and s.offset_groups % max(1, s.groups)
    return {
        "mask given": case.mask is not None,
        "bias given": case.bias is not None,
        "contiguous": case.layout == "contiguous",
        "strides equal": s.stride[0] == s.stride[1],
        "paddings equal": s.padding[0] == s.padding[1],
        "dilations equal": s.dilation[0] == s.dilation[1],
        "K_h = K_w": s.K_h == s.K_w,
        "H = W": s.H == s.W,
        "H_out = H": s.out[0] == s.H,
        "W_out = W": s.out[1] == s.W,
        "H_out = W_out": s.out[0] == s.out[1],
        "one image": s.N == 1,
        "groups = offset_groups": s.groups == s.offset_groups,
        "groupings nest": not nested,
        "H_out > W_out": s.out[0] > s.out[1],
        "C_out > C_in": s.C_out > s.C_in,
        "C_out = C_in": s.C_out == s.C_in,
        "C_out = W_out": s.C_out == s.out[1],
        "stride beyond kernel": s.stride[0] > s.K_h or s.stride[1] > s.K_w,
        "kernel beyond image": s.K_h > s.H or s.K_w > s.W,
        "padding half the kernel": s.padding == (s.K_h // 2, s.K_w // 2),
        "an axis unpadded": 0 in s.padding,
        "no padding": s.padding == (0, 0),
        "H or W is 1": 1 in (s.H, s.W),
        "kernel above 3": max(s.K_h, s.K_w) > 3,
        "kernel 1x1": (s.K_h, s.K_w) == (1, 1),
        "kernel 3x3": (s.K_h, s.K_w) == (3, 3),
        "full numbers": case.kind != "exact",
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
        "row between pixels": q_y != np.floor(q_y),
        "column between pixels": q_x != np.floor(q_x),
        "sample between pixels": (q_y != np.floor(q_y)) | (q_x != np.floor(q_x)),
        "sample on a pixel": (q_y == np.floor(q_y)) & (q_x == np.floor(q_x)),
        "across top": top & ~away,
        "across bottom": low & ~away,
        "across left": left & ~away,
        "across right": right & ~away,
        "across border": (top | left | low | right) & ~away,
        "outside": away,
        "inside": ~(away | top | left | low | right),
        "row < 0": q_y < 0,
        "column < 0": q_x < 0,
        "row > H - 1": q_y > H - 1,
        "column > W - 1": q_x > W - 1,
        "dy != 0": dy != 0,
        "dx != 0": dx != 0,
        "offset != 0": (dy != 0) | (dx != 0),
        "dy != dx": dy != dx,
        "dy < 0": dy < 0,
        "dx < 0": dx < 0,
        "offset > 1": np.maximum(abs(dy), abs(dx)) > 1,
        "offset > 2": np.maximum(abs(dy), abs(dx)) > 2,
        "offset > 4": np.maximum(abs(dy), abs(dx)) > 4,
        "offset > 8": np.maximum(abs(dy), abs(dx)) > 8,
        "mask < 0": m < 0,
        "mask > 1": m > 1,
        "mask != 1": m != 1,
    }


def sample_flags(judged: Judged, shape: tuple[int, ...]) -> dict[str, Array]:
    """The samples' properties at the output's elements: of any sample it takes."""
    target = judged.target
    if target not in ("y", "grad_offset", "grad_mask"):
        return {}
    found: dict[str, Array] = {}
    taken = judged.case.weight.any((0, 1)).reshape(-1)  # a tap of weight 0 is not
    for name, at_sample in meets_of(judged.case).items():
        if target == "y":
            at = np.asarray(at_sample[:, :, taken].any((1, 2)))[:, None]
        else:
            at = at_sample
            at = at[:, :, :, None] if target == "grad_offset" else at
        found[name] = np.broadcast_to(at, shape)
    return found


def reals(judged: Judged, shape: tuple[int, ...]) -> dict[str, Array]:
    """What an element's only sample is made of, where it has only one."""
    own = judged.target in ("grad_offset", "grad_mask")
    if not own and not (judged.target == "y" and takes_one_sample(judged)):
        return {}
    q_y, q_x = oracle.positions(judged.case)
    m = oracle.modulation(judged.case)
    dp = judged.case.offset.astype(float).reshape(offset_shape(judged.case.sizes))
    own_values: dict[str, Array] = {
        "|dy|": np.abs(dp[:, :, :, 0]),
        "|dx|": np.abs(dp[:, :, :, 1]),
        "|mask|": np.abs(m),
        "mask": np.asarray(m),
        "row": q_y,
        "column": q_x,
    }
    found = {}
    for name, value in own_values.items():
        if judged.target == "y":
            tap = sizes_of(judged.case)[ONLY_TAP]
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
    labels = RESULT_AXES[judged.target]
    found: dict[str, Array] = dict(zip(labels, np.indices(shape), strict=True))
    found["flat index"] = np.arange(int(np.prod(shape))).reshape(shape)
    if "o" in found:
        n_o = max(1, s.C_out // max(1, s.groups))
        found |= {"group of o": found["o"] // n_o, "o in its group": found["o"] % n_o}
    if judged.target == "grad_x":
        n_i = max(1, s.C_in // max(1, s.offset_groups))
        found |= {"offset group of c": found["c"] // n_i}
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


def ends(found: dict[str, Array]) -> Flags:
    """The last index of each, and what lies beyond whole blocks."""
    rows = {}
    for name, at in found.items():
        n = int(at.max(initial=-1)) + 1
        rows[Clause(name, "last", True)] = at == n - 1
        rows[Clause(name, "first", False)] = at > 0
        for block in BLOCKS:
            beyond = at >= n - n % block
            rows[Clause(name, f"beyond multiple of {block}", True)] = beyond
    return rows


class Table(NamedTuple):
    """One row an element: numbers, properties, whether it fails, its weight."""

    places: dict[str, Array]  # the element's own indices
    sizes: dict[str, Array]  # of the call
    flags: Flags  # of the element
    traits: Flags  # of the call
    reals: dict[str, Array]
    bad: Array
    right: Array
    right_by_chance: Array  # in a call on small whole numbers that fails elsewhere
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
        flags = len(self.flags) + len(self.traits)
        return 2 * flags + 64 * len(self.reals) + seen


def gather(judged: Sequence[Judged]) -> Table:
    """The table of all calls of one target; long right ones are thinned out."""
    columns: tuple[dict[Any, list[Array]], ...] = ({}, {}, {}, {}, {})
    state: list[list[Array]] = [[], [], [], []]
    rng = np.random.default_rng(0)
    for k, one in enumerate(judged):
        shape = result_shape(one)
        if not shape or 0 in shape:
            continue
        keep, bad = rows_kept(one, int(np.prod(shape)), rng)
        for rows, kind in zip(columns, kinds_of(one, shape), strict=True):
            for name, value in kind.items():
                rows.setdefault(name, []).append(value.reshape(-1)[keep])
        by_chance = ~bad & (one.by_chance and bool(bad.any()))
        of_call = np.full(bad.size, k)
        for kept, value in zip(state, (bad, ~bad, by_chance, of_call), strict=True):
            kept.append(value[keep])
    size = sum(map(len, state[0]))
    kinds: list[dict[Any, Array]] = [
        {k: join(v) for k, v in rows.items()} for rows in columns
    ]
    kinds[4] = {k: v for k, v in kinds[4].items() if len(v) == size}
    return Table(*kinds, *map(join, state), changed_alone(judged))  # type: ignore[call-arg,arg-type]


def join(parts: Sequence[Array]) -> Array:
    """One after another; there may be none."""
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def rows_kept(one: Judged, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """The elements that say something, and which of all fail."""
    bad = np.zeros(size, bool) if one.bad is None else one.bad.reshape(-1)
    keep = np.arange(size)
    if one.want is not None:
        keep = keep[bad | (one.want.reshape(-1) != 0)]
    if one.bad is None and len(keep) > MOST_ROWS:
        keep = np.sort(rng.choice(keep, MOST_ROWS, replace=False))
    return keep, bad


def changed_alone(judged: Sequence[Judged]) -> tuple[str, ...]:
    """The sizes of which another value makes a right call fail, all else equal."""
    swept = [(j.case.swept, j.bad) for j in judged if j.case.swept is not None]
    if not any(name == "" and bad is None for (name, _), bad in swept):
        return ()
    names = dict.fromkeys(name for (name, _), bad in swept if bad is not None and name)
    return tuple(SWEPT.get(name, name) for name in names)


def kinds_of(one: Judged, shape: tuple[int, ...]) -> tuple[dict[Any, Array], ...]:
    """Indices, sizes, flags, traits and real numbers at every element."""
    places = indices(one, shape)
    sizes = {k: np.full(shape, v) for k, v in sizes_of(one.case).items()}
    met = {Clause(k, "is", True): v for k, v in sample_flags(one, shape).items()}
    traits = {
        Clause(k, "is", True): np.full(shape, v) for k, v in traits_of(one.case).items()
    }
    return places, sizes, ends(places) | met, traits, reals(one, shape)
