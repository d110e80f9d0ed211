"""Which cases a level holds, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refdcn.grading.expected.case import BITS, Case, Sizes, kept, named
from refdcn.grading.questions.draw import (
    CORNER,
    MANY,
    VAST,
    draw_case,
    drawn,
    exact_case,
    large_case,
)
from refdcn.grading.questions.room import Call, within

# drawn geometries of each kind at each level
LEVELS = {"smoke": 8, "full": 60, "paranoid": 600}

THREE = {"K_h": 3, "K_w": 3, "dilation": (1, 1)}
PLAIN = {"N": 1, "dilation": (1, 1)}
SEVERAL = {"groups": 2, "offset_groups": 4}


def corners() -> list[dict[str, Any]]:
    """Sizes where kernels go wrong: tails, large batches, thin images."""
    return [
        {"N": 33, "C_in": 2, "groups": 1, "offset_groups": 1, "H": 4, "W": 3},
        {"N": 65, "C_in": 1, "C_out": 1, "groups": 1, "offset_groups": 1, "H": 3},
        {"C_in": 33, "C_out": 5, "groups": 1, "offset_groups": 3, "N": 1},
        {"C_in": 6, "C_out": 51, "groups": 3, "offset_groups": 2, "N": 1},
        {"H": 5, "W": 53, "K_w": 3, "stride": (2, 1), "padding": (1, 1), **PLAIN},
        {"H": 53, "W": 4, "K_h": 3, "stride": (1, 1), "padding": (0, 2), **PLAIN},
        {"H": 11, "W": 13, "stride": (1, 1), "padding": (1, 1), **THREE},
        {"H": 1, "W": 9, "padding": (3, 1), "K_h": 3},
        {"H": 8, "W": 1, "padding": (1, 3), "K_w": 3},
        {"H": 2, "W": 2, "K_h": 5, "K_w": 7, "padding": (3, 4), "dilation": (1, 1)},
        {"K_h": 1, "K_w": 1, "padding": (0, 0), "C_in": 8, **SEVERAL},
        {"C_in": 4, "C_out": 4, "groups": 4, "offset_groups": 2, "N": 2},
        {"H": 1, "W": 1, "K_h": 1, "K_w": 1, "padding": (0, 0), "N": 2},
        {"N": 0},
        {"H": 1, "K_h": 1, "padding": (0, 2)},
        {"H": 1, "K_h": 3, "padding": (2, 0), "dilation": (1, 1)},
        {"W": 1, "K_w": 1, "padding": (1, 0)},
        {"W": 1, "K_w": 3, "padding": (0, 2), "dilation": (1, 1)},
        {"padding": (0, 0)},
        {"padding": (0, 3)},
        {"padding": (3, 0)},
        {"K_h": 5, "K_w": 6},
        {"K_h": 6, "K_w": 1, "padding": (0, 0)},
        {"K_h": 2, "K_w": 7},
    ]


Lines = Sequence[str]  # gaps, outside of which the calls are drawn


def fitted(lines: Lines, dtype: npt.DTypeLike, call: Call, keep: Lines = ()) -> Call:
    """The call in the room that the gaps leave; as it is where they leave none."""
    return within(lines, call, named(dtype), keep) or call


def random(
    rng: np.random.Generator, dtype: npt.DTypeLike, group: str, offsets: str, call: Call
) -> Case:
    """Random data, in the memory layout of the call."""
    some = call.mask, call.bias
    case = draw_case(rng, call.sizes, dtype, group, offsets, *some)
    return replace(case, layout=call.layout)


def larger(
    rng: np.random.Generator, dtype: npt.DTypeLike, lines: Lines = ()
) -> Iterator[Case]:
    """Images of more than 2^24 numbers, where the gaps leave room for one so large."""
    for sizes in (MANY, VAST) if BITS[named(dtype)] >= 24 else (MANY,):
        call = within(lines, Call(sizes), named(dtype), ("H", "W"))
        fits = call is not None and call.sizes.out == sizes.out
        if call is not None and fits and large_as(call.sizes, sizes):
            yield large_case(rng, dtype, call.sizes, call.mask, call.bias)


WIDE = Sizes(1, 2, 2, 1, 1, 1, 1, 60, 61, stride=(7, 5))  # more than 2^11 pixels


def beyond_integers(
    rng: np.random.Generator, dtype: npt.DTypeLike, lines: Lines = ()
) -> Case:
    """More pixels than a half precision counts, read at whole positions.

    The other dtypes' limits are reached by larger images, of the sweeps and of `full`.
    """
    call = fitted(lines, dtype, Call(WIDE), ("H", "W"))
    case = exact_case(rng, call.sizes, dtype, "sizes", call.mask, call.bias)
    H, W = call.sizes.H, call.sizes.W
    note = f"an image of {H * W:,} pixels"
    return replace(case, offset=np.round(case.offset), note=note)


def large_as(one: Sizes, other: Sizes) -> bool:
    """Whether its image is one beyond 2^24, and what is read fits into a corner."""
    window = [
        d * (k - 1) for d, k in zip(one.dilation, (one.K_h, one.K_w), strict=True)
    ]
    much = one.N * one.C_in * one.H * one.W
    same = (one.H, one.W) == (other.H, other.W) and max(window) < CORNER
    return same and 2**24 < much < 2**25 and max(one.padding) < CORNER


def repeats(
    rng: np.random.Generator, dtype: npt.DTypeLike, lines: Lines = ()
) -> Iterator[Case]:
    """Two cases of the same shapes, for calls in the order A, B, A."""
    call = fitted(lines, dtype, Call(drawn(rng, N=2)), "N")
    for _ in range(2):
        yield random(rng, dtype, "repeat", "border", call)


HOSTILE = Sizes(2, 2, 3, 1, 1, 3, 3, 6, 5, padding=(1, 1))
PLACES = {
    "dy": [(1, 8, 2, 1)],
    "dx": [(1, 9, 2, 1)],
    "dy and dx": [(1, 8, 2, 1), (1, 9, 2, 1)],
    "five offsets": [
        (0, 0, 0, 0),
        (0, 5, 3, 4),
        (1, 10, 5, 0),
        (1, 9, 2, 1),
        (1, 17, 5, 4),
    ],
}


def at(place: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """A place inside of a shape; the channels of dy and dx stay apart."""
    return tuple(i % n for i, n in zip(place, shape, strict=True))


def hostile(
    rng: np.random.Generator, dtype: npt.DTypeLike, lines: Lines = ()
) -> Iterator[Case]:
    """Far and non-finite numbers in an input; what kills most kernels comes last."""
    top = float(np.finfo("float32" if named(dtype) == "bfloat16" else dtype).max)
    far = [min(a, top) for a in (1e9, 2.0**31, 1e30)]
    asked = [(a, "dy") for a in sorted({a for v in far for a in (v, -v)})]
    asked += [(a, name) for a in (np.inf, -np.inf) for name in ("dy", "dx")]
    asked += [(np.nan, name) for name in PLACES]
    call = fitted(lines, dtype, Call(HOSTILE))
    for value in (np.nan, np.inf):
        case = random(rng, dtype, "hostile", "integer", call)
        x = case.x.copy()
        x[at((0, 1, 3, 2), x.shape)] = value
        yield replace(case, kind="hostile", x=x, note=f"pixel {value:g}")
    for value, name in asked:
        case = random(rng, dtype, "hostile", "normal", call)
        offset = case.offset.copy()
        for place in PLACES[name]:
            offset[at(place, offset.shape)] = value
        offset = kept(offset, dtype)
        yield replace(case, kind="hostile", offset=offset, note=f"{name} {value:g}")
    case = random(rng, dtype, "hostile", "normal", call)
    yield replace(case, kind="malformed", stride=(0, 1), note="a stride of 0")


def malformed(
    rng: np.random.Generator, dtype: npt.DTypeLike, lines: Lines = ()
) -> Iterator[Case]:
    """Shapes that fit nothing and must be refused."""
    call = fitted(lines, dtype, Call(Sizes(2, 4, 2, 1, 1, 3, 3, 6, 6)))
    good = random(rng, dtype, "malformed", "normal", call)
    C, (N, two, *_) = good.sizes.C_in, good.offset.shape
    wrong: dict[str, dict[str, Any]] = {
        f"offset with {two - 2} of {two} channels": {"offset": good.offset[:, :-2]},
    }
    width = good.weight.shape[1]
    if width > 1:
        note = f"weight for {width - 1} of {width} channels"
        wrong[note] = {"weight": good.weight[:, :-1]}
    several = next(k for k in range(3, C + 4) if C % k)
    more: dict[str, Any] = {"offset": good.offset}
    if good.mask is not None:
        most = good.mask.shape[1]
        note = f"mask with {most - 1} of {most} channels"
        wrong[note] = {"mask": good.mask[:, :-1]}
        more["mask"] = good.mask
    if N == 2:
        wrong["offset of one image for two"] = {"offset": good.offset[:1]}
        if good.mask is not None:
            one = {"offset": good.offset[:1], "mask": good.mask[:1]}
            wrong["mask of one image for two"] = {"mask": good.mask[:1]}
            wrong["offset and mask of one image for two"] = one
    if call.sizes.offset_groups == 1:
        tiles = {k: np.tile(a, (1, several, 1, 1)) for k, a in more.items()}
        wrong[f"{several} offset groups for {C} channels"] = tiles
    for note, change in wrong.items():
        yield replace(good, kind="malformed", note=note, **change)


SEEDS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 1}
# Few bits hold only small sums exactly: at most 64 terms in bfloat16.
NARROW: dict[str, dict[str, Any]] = {
    "float16": {"K_h": 2, "K_w": 2},
    "bfloat16": {
        "N": 2, "C_in": 2, "C_out": 2, "K_h": 2, "K_w": 2, "most": 4
    },
}  # fmt: skip


def cases(
    seed: int, dtype: npt.DTypeLike, level: str, lines: Lines = ()
) -> Iterator[Case]:
    """Every case of a level outside of the gaps, in the order they are run."""
    name = named(dtype)
    rng = np.random.default_rng([seed, SEEDS[name]])
    n = LEVELS[level]

    def ask(group: str, call: Call, offsets: str = "border", keep: Lines = ()) -> Case:
        return random(rng, dtype, group, offsets, fitted(lines, dtype, call, keep))

    for i in range(n):
        call = Call(drawn(rng, **NARROW.get(name, {})), i % 4 != 3, i % 3 != 2)
        sizes, mask, bias, _ = fitted(lines, dtype, call)
        yield exact_case(rng, sizes, dtype, mask=mask, bias=bias)
    for kind in ("border", "normal", "integer", "zero"):
        for _ in range(n if kind == "border" else max(2, n // 3)):
            yield ask("random", Call(drawn(rng)), kind)
    for fixed in corners():
        yield ask("sizes", Call(drawn(rng, **fixed)), keep=[*fixed])
    if BITS[name] < 24:
        yield beyond_integers(rng, dtype, lines)
    if level != "smoke" and name != "bfloat16":  # whose positions end at 256
        yield from larger(rng, dtype, lines)
    for mask, bias in ((False, True), (True, False), (False, False)):
        yield ask("optional", Call(drawn(rng), mask, bias))
    for layout in ("channels last", "every second column"):
        yield ask("layout", Call(drawn(rng), layout=layout))
    yield from repeats(rng, dtype, lines)
    yield from malformed(rng, dtype, lines)
    yield from hostile(rng, dtype, lines)
