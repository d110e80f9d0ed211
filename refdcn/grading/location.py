"""Where a result is wrong: one rule over the places of its elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from refdcn.grading.cases import Array
from refdcn.grading.judge import Finding

AXES = {
    "y": ("n", "o", "oh", "ow"),
    "grad_x": ("n", "c", "h", "w"),
    "grad_offset": ("n", "offset channel", "oh", "ow"),
    "grad_weight": ("o", "c", "i", "j"),
    "grad_mask": ("n", "mask channel", "oh", "ow"),
    "grad_bias": ("o",),
}


def rules(shape: Sequence[int], labels: Sequence[str]) -> Iterator[tuple[str, Array]]:
    """Every rule on offer, as the elements it holds for."""
    grids = np.indices(tuple(shape))
    for label, at, n in zip(labels, grids, shape, strict=True):
        yield f"{label} = 0", at == 0
        yield f"{label} > 0", at > 0
        yield f"{label} is the last", at == n - 1
        yield f"{label} is not the last", at < n - 1
        for edge in (2, 4, 8, 9, 16, 32, 64):
            yield f"{label} >= {edge}", at >= edge
        for block in (2, 4, 8, 16, 32):
            yield (
                f"{label} lies beyond the last multiple of {block}",
                (at >= n - n % block),
            )
        yield f"{label} is odd", at % 2 == 1
        yield f"{label} is even", at % 2 == 0


def cases(findings: Sequence[Finding]) -> str:
    """What the failing cases have in common and the others have not."""
    bad = [f.failing is not None for f in findings]
    known: dict[str, list[bool]] = {}
    for f in findings:
        s, c = f.case.sizes, f.case
        traits = {
            "weight groups are used": s.groups > 1,
            "offset groups are used": s.offset_groups > 1,
            "the batch is larger than 32": s.N > 32,
            "the batch is larger than 1": s.N > 1,
            "K_h differs from K_w": s.K_h != s.K_w,
            "the kernel has more than 9 taps": s.K_h * s.K_w > 9,
            "the strides differ": c.stride[0] != c.stride[1],
            "the paddings differ": c.padding[0] != c.padding[1],
            "the dilations differ": c.dilation[0] != c.dilation[1],
            "a stride is above 1": max(c.stride) > 1,
            "a padding is above 0": max(c.padding) > 0,
            "a dilation is above 1": max(c.dilation) > 1,
            "there is no mask": c.mask is None,
            "there is a mask": c.mask is not None,
            "there is a bias": c.bias is not None,
            "there is no bias": c.bias is None,
            "the layout is not contiguous": c.layout != "contiguous",
            "the image has one row or column": min(s.H, s.W) == 1,
        }
        traits |= {f"K_h is {k}": s.K_h == k for k in range(1, 6)}
        traits |= {f"K_w is {k}": s.K_w == k for k in range(1, 6)}
        for name, holds in traits.items():
            known.setdefault(name, []).append(holds)
    return next((name for name, holds in known.items() if holds == bad), "")


def locate(findings: Sequence[Finding]) -> str:
    """One sentence on where the worst target fails; empty without a rule.

    `findings` holds every judged case of one target and dtype.
    """
    wrong = [f for f in findings if f.failing is not None]
    if not wrong:
        return ""
    labels = AXES[wrong[0].target]
    found: dict[str, bool] = {}
    for f in wrong:
        assert f.failing is not None
        if f.failing.all():
            continue
        for name, holds in rules(f.failing.shape, labels):
            beyond = bool((f.failing & ~holds).any())
            # A wrong value can be right by chance, a right one is never wrong.
            most = f.failing.sum() >= 0.85 * holds.sum() and holds.mean() < 0.7
            fits = not beyond and (most or bool((holds == f.failing).all()))
            found[name] = found.get(name, True) and fits
    all_whole = all(f.failing is not None and f.failing.all() for f in wrong)
    for name, fits in found.items():
        if fits:
            return f"it fails exactly where {name}"
    for name, _ in partial(wrong, labels):
        return f"it fails only where {name}"
    common = cases(findings) if len(wrong) < len(findings) else ""
    if common:
        return f"it fails exactly in the cases where {common}"
    share = sum(int(f.failing.sum()) for f in wrong if f.failing is not None)
    total = sum(f.failing.size for f in wrong if f.failing is not None)
    where = "everywhere" if all_whole and len(wrong) == len(findings) else "in"
    if where == "everywhere":
        return "it fails everywhere"
    return (
        f"it fails in {len(wrong)} of {len(findings)} cases, there at {share} of "
        f"{total} values"
    )


def partial(
    wrong: Sequence[Finding], labels: Sequence[str]
) -> Iterator[tuple[str, bool]]:
    """Rules outside of which nothing fails and that leave most elements out."""
    held: dict[str, list[float]] = {}
    for f in wrong:
        assert f.failing is not None
        for name, holds in rules(f.failing.shape, labels):
            beyond = bool((f.failing & ~holds).any())
            share = float(holds.mean())
            held.setdefault(name, []).append(np.inf if beyond else share)
    best = min(held.items(), key=lambda kv: np.mean(kv[1]), default=None)
    if best is not None and np.mean(best[1]) < 0.6:
        yield best[0], True
