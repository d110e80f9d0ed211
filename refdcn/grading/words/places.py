"""Where something fails, in words: clauses, rules, and what a call must have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from refdcn.grading.diagnosis.facts import Clause, Place

COLUMNS = {
    "stride_h": "stride of rows",
    "stride_w": "stride of columns",
    "padding_h": "padding of rows",
    "padding_w": "padding of columns",
    "dilation_h": "dilation of rows",
    "dilation_w": "dilation of columns",
    "group of o": "the output channel's group",
    "o in its group": "the output channel in its group",
    "offset group of c": "c's offset group",
    "flat index": "the flat index",
    "mask": "the mask",
    "row": "the row",
    "column": "the column",
    "c": "channels a group",
    "o": "output channels a group",
}
INDICES = {"c": "c", "o": "output channel"}  # in a rule
PROPERTIES = {  # of a call or a sample: that it is so, and that it is not
    "mask given": ("there is a mask", "there is no mask"),
    "bias given": ("there is a bias", "there is no bias"),
    "contiguous": ("the layout is contiguous", "the layout is not contiguous"),
    "strides equal": ("the strides are equal", "the strides differ"),
    "paddings equal": ("the paddings are equal", "the paddings differ"),
    "dilations equal": ("the dilations are equal", "the dilations differ"),
    "K_h = K_w": ("K_h = K_w", "K_h differs from K_w"),
    "H = W": ("H = W", "H differs from W"),
    "H_out = H": ("H_out = H", "H_out differs from H"),
    "W_out = W": ("W_out = W", "W_out differs from W"),
    "H_out = W_out": ("H_out = W_out", "H_out differs from W_out"),
    "one image": ("N = 1", "N > 1"),
    "groups = offset_groups": ("the groupings are equal", "the groupings differ"),
    "groupings nest": (
        "one grouping divides the other",
        "neither grouping divides the other",
    ),
    "H_out > W_out": ("H_out > W_out", "H_out <= W_out"),
    "C_out > C_in": ("C_out > C_in", "C_out <= C_in"),
    "C_out = C_in": ("C_out = C_in", "C_out differs from C_in"),
    "C_out = W_out": ("C_out = W_out", "C_out differs from W_out"),
    "stride beyond kernel": (
        "a stride is larger than the kernel",
        "no stride is larger than the kernel",
    ),
    "kernel beyond image": (
        "the kernel is larger than the image",
        "the kernel fits into the image",
    ),
    "padding half the kernel": (
        "the padding is half the kernel",
        "the padding is not half the kernel",
    ),
    "an axis unpadded": ("the padding of an axis is 0", "both paddings are above 0"),
    "no padding": ("there is no padding", "there is padding"),
    "H or W is 1": ("H or W is 1", "H and W are above 1"),
    "kernel above 3": ("K_h or K_w is above 3", "K_h and K_w are at most 3"),
    "kernel 1x1": ("the kernel is 1x1", "the kernel is not 1x1"),
    "kernel 3x3": ("the kernel is 3x3", "the kernel is not 3x3"),
    "full numbers": ("the numbers have all their bits", "the numbers are dyadic"),
    "row between pixels": ("a row lies between pixels", "no row lies between pixels"),
    "column between pixels": (
        "a column lies between pixels",
        "no column lies between pixels",
    ),
    "sample between pixels": (
        "a sample lies between pixels",
        "no sample lies between pixels",
    ),
    "sample on a pixel": (
        "a sample lies on a pixel's row and column",
        "no sample lies on a pixel's row and column",
    ),
    "across border": (
        "a sample lies across the border",
        "no sample lies across the border",
    ),
    "outside": ("a sample lies outside", "no sample lies outside"),
    "inside": ("a sample lies inside", "no sample lies inside"),
    "row < 0": ("a row is negative", "no row is negative"),
    "column < 0": ("a column is negative", "no column is negative"),
    "row > H - 1": ("a row is beyond the last", "no row is beyond the last"),
    "column > W - 1": ("a column is beyond the last", "no column is beyond the last"),
    "dy != 0": ("dy is not 0", "dy is 0"),
    "dx != 0": ("dx is not 0", "dx is 0"),
    "offset != 0": ("an offset is not 0", "all offsets are 0"),
    "dy != dx": ("dy and dx differ", "dy and dx are equal"),
    "dy < 0": ("dy is negative", "dy is not negative"),
    "dx < 0": ("dx is negative", "dx is not negative"),
    "mask < 0": ("a mask is negative", "no mask is negative"),
    "mask > 1": ("a mask is above 1", "no mask is above 1"),
    "mask != 1": ("a mask is not 1", "every mask is 1"),
}
PROPERTIES |= {
    f"across {side}": (
        f"a sample lies across the {side} border",
        f"no sample lies across the {side} border",
    )
    for side in ("top", "bottom", "left", "right")
}
PROPERTIES |= {
    f"offset > {n}": (
        f"an offset is above {n} pixel{'s' if n > 1 else ''}",
        f"no offset is above {n} pixel{'s' if n > 1 else ''}",
    )
    for n in (1, 2, 4, 8)
}


def clause_text(clause: Clause) -> str:
    """One condition."""
    column, op, value = clause
    if op == "is":
        return PROPERTIES[column][0 if value else 1]
    name = INDICES.get(column, COLUMNS.get(column, column))
    if op == "last":
        return f"{name} is the last" if value else f"{name} is not the last"
    if op == "first":
        return f"{name} = 0" if value else f"{name} is not the first"
    if op == "power of two":
        return f"{name} is a power of two"
    if op == "no multiple":
        return f"{name} is no multiple of {value}"
    if op.startswith("beyond "):
        n = op.split()[-1]
        within = f"{name} lies in whole blocks of {n}"
        return f"{name} lies beyond the last multiple of {n}" if value else within
    if op.startswith("mod "):
        return remainder_text(name, int(op.split()[-1]), value)
    if op == ">=" and value == 1 and isinstance(value, int):
        return f"{name} > 0"
    return (
        f"{name} {op} {value:.4g}"
        if isinstance(value, float)
        else (f"{name} {op} {value}")
    )


def remainder_text(name: str, block: int, rest: int) -> str:
    """Odd, even, a multiple, or what is left."""
    if block == 2:
        return f"{name} is {'odd' if rest else 'even'}"
    return (
        f"{name} mod {block} = {rest}" if rest else f"{name} is a multiple of {block}"
    )


def rule_text(place: Place) -> str:
    """The clauses, each limit with the nearest right value."""
    said = []
    for clause, near in zip(place.rule, place.nearest, strict=True):
        right = f" (up to {near} it is right)" if near is not None else ""
        said.append(clause_text(clause) + right)
    return " and ".join(said)


def place_text(place: Place, what: str = "it") -> str:
    """Where something fails; empty where nothing does."""
    where = "where each output takes one sample, " if place.one_sample else ""
    values = f"{place.failing} of {place.within} values"
    if place.kind == "everywhere":
        return f"{what} fails everywhere"
    if place.kind == "few":
        return f"{what} fails at {values}: {examples_text(place)}"
    if place.kind == "exact":
        return f"{where}{what} fails exactly where {rule_text(place)}"
    if place.kind == "only":
        return f"{where}{what} fails only where {rule_text(place)}, there at {values}"
    if place.kind == "nearly":
        return f"{what} fails nearly everywhere, at {values}"
    if place.kind == "some":
        return f"{what} fails at {values}"
    return ""


def where_text(place: Place) -> str:
    """The rule of a result, as briefly as a conclusion says it."""
    where = "where each output takes one sample, " if place.one_sample else ""
    how = "exactly" if place.kind == "exact" else "only"
    return f"{where}{place.target} fails {how} where {rule_text(place)}"


def told(place: Place) -> str:
    """The place, the rules that no call tells apart, and where few calls fail."""
    text = place_text(place)
    if place.others:
        others = " or ".join(map(clause_text, place.others))
        text += f" (or where {others}: no call tells)"
    calls, of = place.calls
    if place.kind in ("only", "some"):
        text += f", in {calls} of {of} calls"
    if place.kind == "some" or (place.kind == "only" and len(place.examples) == calls):
        text += f"; first at {examples_text(place)}"
    return text


def examples_text(place: Place) -> str:
    """Elements that fail, and their calls."""
    said = []
    for case, at in place.examples:
        said.append(f"{place.target}[{', '.join(map(str, at))}] of {case}")
    return "; ".join(said)


def needs_text(needs: Mapping[str, Any]) -> str:
    """What the smallest failing call has, of which nothing can be spared."""
    kinds: dict[str, Callable[[Any], str]] = {
        "mask": lambda v: "a mask",
        "bias": lambda v: "a bias",
        "offsets": lambda v: "offsets other than 0" if v == "not 0" else f"{v} offsets",
        "masks": lambda v: "masks other than 1",
        "weights": lambda v: "weights other than 1",
    }
    if not needs:
        return "even the smallest call fails: one pixel, one tap, no offset"
    said = [
        kinds[name](v) if name in kinds else f"{COLUMNS.get(name, name)} = {v}"
        for name, v in needs.items()
    ]
    return (
        f"a failing call has {', '.join(said)}, all else as small as can be; with any "
        "one of these less it is right"
    )
