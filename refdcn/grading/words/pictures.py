"""What the pictures of a report show, a sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from refdcn.grading.evidence.evidence import Evidence
from refdcn.grading.evidence.fields import Field
from refdcn.grading.evidence.reads import ALIKE, Pixel, Sample
from refdcn.grading.expected.case import Sizes

RIGHT = "as defined"


def sampling(e: Evidence) -> str:
    """How many taps of one output are read elsewhere than the definition reads."""
    if not e.samples:
        return ""
    told = [s for s in e.samples if s.reads is not None]
    if not told:
        return "What this output reads cannot be told: it does not follow its pixels."
    index = ", ".join(map(str, e.element))
    if e.taken is not None:
        return (
            f"Output y[{index}] reads input channel {e.taken} for channel {e.channel}, "
            f"each tap as the definition samples channel {e.taken}: only the channel "
            "is another."
        )
    wrong, of = sum(not s.right for s in told), len(told)
    how = (
        "every tap reads what the definition reads"
        if not wrong
        else "no tap reads what the definition reads"
        if wrong == of
        else f"{wrong} of {of} taps read something else than the definition"
    )
    [(most, many)] = Counter(map(difference, told)).most_common(1)
    if 1 < many <= wrong and most != RIGHT:
        how += f"; {many} of them: {most}"
    return f"Output y[{index}], by its weights of input channel {e.channel}: {how}."


def difference(s: Sample) -> str:
    """What is wrong with one sample."""
    if s.reads is None:
        return "it does not follow the pixels"
    if s.right:
        return RIGHT
    due = [p for p in s.corners if p.share]
    if not s.reads:
        return "reads nothing"
    for name in ("image", "channel"):
        mine = {getattr(p, name) for p in s.reads}
        theirs = {getattr(p, name) for p in due}
        if theirs and mine != theirs:
            others = " and ".join(map(str, sorted(mine)))
            return f"reads {name} {others}, not {theirs.pop()}"
    got, must = s.read, {p[2:4]: p.share for p in s.due}
    kept = all(abs(got[k] - must.get(k, 0.0)) <= ALIKE * abs(s.mask) for k in got)
    if kept and got.keys() < must.keys():
        return "a corner is missing"
    if s.found is not None and apart(s.found, s.position) > 1e-3:
        row, column = (f"{q + 0.0:.3g}" for q in s.found)
        return f"reads at ({row}, {column})"
    if got.keys() <= must.keys():
        return "reads with other shares"
    if s.corner is not None:
        return "reads [{}, {}] from outside of the image".format(*s.corner)
    return "reads other pixels"


def apart(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The larger of the distances along rows and columns."""
    return max(abs(a[0] - b[0]), abs(a[1] - b[1]))


def pixels(reads: tuple[Pixel, ...] | None, height: int, width: int) -> str:
    """Pixels and shares in a row; those outside of the image count as 0."""
    if reads is None:
        return "?"
    told = []
    for p in reads:
        inside = 0 <= p.row < height and 0 <= p.column < width
        share = f"{p.share + 0.0:.3g}" if inside else "outside, 0"
        told.append(f"[{p.row}, {p.column}] {share}")
    return "; ".join(told) or "nothing"


def listed(numbers: Sequence[int]) -> str:
    """Numbers in a row, a run of them by its ends."""
    if len(numbers) > 3 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers)) or "none"


def of_part(channel: int | None, sizes: Sizes) -> str:
    """The input channels whose weights of a tap are left, of each group one."""
    if channel is None or sizes.C_in == sizes.groups == 1:
        return "Taps"
    numbers = [*range(channel, sizes.C_in, sizes.C_in // sizes.groups)]
    s = "s" if len(numbers) > 1 else ""
    return f"Taps, input channel{s} {listed(numbers)}"


def of_field(f: Field) -> str:
    """Where in one result values fail."""
    bad, of = int(f.failing.sum()), int(f.values.sum())
    if f.sizes[0] * f.sizes[1] == 1 or (f.failing == f.values).all():
        return f"{bad:,} of {of:,} values fail, in every cell alike."
    free = int((f.failing == 0).sum())
    return f"{bad:,} of {of:,} values fail; {free} of {f.failing.size} cells are right."
