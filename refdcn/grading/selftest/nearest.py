"""Inputs that bring a correct implementation as near to its bound as can be found.

A bound that is passed is a false alarm; one that nothing comes near hides bugs.
`python -m refdcn.grading.selftest.nearest` prints the largest error / bound per
output, and the false alarms of the panel over thousands of geometries.

The panel's hardest inputs are tried too. Then a population climbs at once: each
individual is one group of a single case, with its own images, offsets, weights,
mask, bias and gradient.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from refdcn.grading.expected.case import Array, Case, Sizes
from refdcn.grading.expected.expectation import TARGETS, Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.distance import outside
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.selftest import panel
from refdcn.grading.selftest.correct import Style, member

OUTPUTS = ("y", *TARGETS)
STYLES = (
    Style("direct", weight_first=True),
    Style("corner by corner", corner_sums=True, flat=True, position=(3, 2, 0, 1)),
    Style("nested lerp", lerp=True, position=(3, 2, 0, 1)),
    Style("fused", fma=True, flat=True, position=(3, 2, 0, 1)),
    Style("cell in a ring", frame=(2, 2), fraction="of a sum apart"),
)
# N, C, O, K_h, K_w, H, W, stride: one term; terms of y; of the other sums; far away
SHAPES = (
    (1, 1, 1, 1, 1, 3, 3, 3),
    (1, 2, 1, 2, 2, 3, 3, 3),
    (2, 1, 3, 1, 1, 2, 3, 1),
    (1, 1, 1, 1, 2, 1, 90, 40),
)


class Best(NamedTuple):
    """The largest ratio found for one output, by whom and on what."""

    dtype: str
    output: str
    ratio: float
    member: str
    inputs: str


class Population:
    """`size` individuals, one a group, of one shape and dtype."""

    def __init__(
        self, rng: np.random.Generator, shape: Sequence[int], size: int, dtype: str
    ) -> None:
        N, C, O, K_h, K_w, H, W, s = shape
        dilation = (1, s) if K_w > K_h else (1, 1)
        self.sizes = Sizes(
            N, size * C, size * O, size, size, K_h, K_w, H, W, (s, s), (0, 0), dilation
        )
        self.rng, self.dtype, out = rng, dtype, self.sizes.out
        self.size, K = size, K_h * K_w
        # group first: its own numbers are one row of `genes`
        self.shapes: tuple[tuple[int, ...], ...] = (
            (N, C, H, W),
            (N, 2 * K, *out),
            (O, C, K_h, K_w),
            (N, K, *out),
            (O,),
            (N, O, *out),
        )
        kinds = [np.full(np.prod(one), k) for k, one in enumerate(self.shapes)]
        self.kind = np.concatenate(kinds)
        ends = np.broadcast_to(np.array([H, W])[:, None, None], (N, K, 2, *out))
        self.last = np.concatenate(
            [np.full(np.prod(self.shapes[0]), 0), ends.ravel()]
            + [np.full(np.prod(one), 0) for one in self.shapes[2:]]
        )
        all_of = [a[None].repeat(size, 0) for a in (self.kind, self.last)]
        self.genes = self.fresh(*all_of)
        self.score = np.full(size, -1.0)

    def fresh(self, kind: Array, last: Array) -> Array:
        """New numbers: places for offsets, any size for the others."""
        rng, shape = self.rng, kind.shape
        size = 2.0 ** rng.integers(-4, 2, shape)
        number = size * np.where(rng.random(shape) < 0.5, 1, rng.uniform(1, 2, shape))
        place = rng.uniform(-2, 1, shape) + last * rng.random(shape)
        place = np.where(rng.random(shape) < 0.3, np.round(place * 2) / 2, place)
        sign = rng.choice([-1.0, 1.0], shape)
        return self.kept(np.where(kind == 1, place, sign * number))

    def kept(self, genes: Array) -> Array:
        """In the dtype's numbers."""
        return genes.astype(self.dtype).astype(float)

    def mutants(self) -> Array:
        """Each individual with one or two numbers changed."""
        rng, genes = self.rng, self.genes.copy()
        rows = np.arange(self.size)
        u = float(np.finfo(self.dtype).eps)
        for _ in range(int(rng.integers(1, 4))):
            at = rng.integers(genes.shape[1], size=self.size)
            old, kind = genes[rows, at], self.kind[at]
            same = rng.integers(genes.shape[1], size=self.size)
            twin = np.where(self.kind[same] == kind, genes[rows, same], -old)
            changes = [
                self.fresh(kind, self.last[at]),
                old * (1 + u * rng.integers(-2, 3, self.size)),
                old * 2.0 ** rng.integers(-1, 2, self.size),
                np.where(kind == 1, np.round(old), -old),
                old + u * rng.integers(-4, 5, self.size),
                twin,
            ]
            new = np.choose(rng.integers(len(changes), size=self.size), changes)
            # a product that overflows float16 would excuse the whole population
            top = np.where(kind == 1, 99, 5 if self.dtype == "float16" else 99)
            genes[rows, at] = np.clip(new, -top, top)
        return self.kept(genes)

    def select(self, mine: Array) -> None:
        """The better half of each output's climbers twice, the others not."""
        for k in range(len(OUTPUTS)):
            order = np.flatnonzero(mine == k)
            order = order[np.argsort(self.score[order])]
            low, high = order[: len(order) // 2], order[-(len(order) // 2) :]
            self.genes[low], self.score[low] = self.genes[high], self.score[high]

    def case(self, genes: Array) -> Case:
        """All individuals as the groups of one case."""
        cut = np.cumsum([int(np.prod(one)) for one in self.shapes])[:-1]
        parts = np.split(genes, cut, 1)
        x, offset, w, m, b, grad_y = (self.array(k, a) for k, a in enumerate(parts))
        s = self.sizes
        return Case(
            "",
            "bound",
            x,
            offset,
            w,
            m,
            b,
            s.stride,
            s.padding,
            s.dilation,
            grad_y=grad_y,
        )

    def array(self, k: int, genes: Array) -> Array:
        """One input; images come before groups where it has both."""
        first, *rest = self.shapes[k]
        a = genes.reshape(self.size, first, *rest)
        if k in (2, 4):
            a = a.reshape(self.size * first, *rest)
        else:
            a = a.swapaxes(0, 1).reshape(first, self.size * rest[0], *rest[1:])
        return np.ascontiguousarray(a).astype(self.dtype)


def ratio_of(expected: Expected, output: str, got: Array, size: int) -> Array:
    """The largest error / bound of each group."""
    want = expected.range(output)
    error = outside(got.astype(float), want)
    told = (error > 0) & np.isfinite(want.bound)
    ratio = np.where(told, error, 0) / np.where(told, want.bound, 1)
    images = output not in ("grad_weight", "grad_bias")
    rows = np.moveaxis(ratio, 1, 0) if images else ratio
    return np.asarray(rows.reshape(size, -1).max(1))


def climb(
    style: Style, dtype: str, shape: tuple[int, ...], steps: int, seed: int
) -> Iterator[Best]:
    """The largest ratio of each output; every sixth individual climbs for one."""
    rng, each = np.random.default_rng(seed), 12
    size = each * len(OUTPUTS)
    people, one = Population(rng, shape, size, dtype), member(style)
    runner = InProcess(one.forward, one.grad)
    mine = np.arange(size) % len(OUTPUTS)
    for step in range(steps):
        genes = people.mutants() if step else people.genes
        expected = Expected(people.case(genes), standard(dtype))
        results = [*runner.call(expected.case).results]
        results += runner.call(expected.case, "grad").results
        pairs = zip(OUTPUTS, results, strict=True)
        ratios = [ratio_of(expected, name, got, size) for name, got in pairs]
        scores = np.array(ratios)[mine, np.arange(size)]
        better = scores >= people.score
        people.genes[better], people.score[better] = genes[better], scores[better]
        if step % 40 == 39:
            people.select(mine)
    for k, name in enumerate(OUTPUTS):
        ratio = float(people.score[mine == k].max())
        yield Best(dtype, name, ratio, style.name, "climbed")


def hardest(
    styles: Sequence[Style], dtype: str, steps: int, seed: int
) -> Iterator[Best]:
    """Of far positions, of whole ones, of terms that are lost one after another."""
    for kind in (panel.steep, panel.brim, panel.absorbing):
        for style in styles:
            one, n = [member(style)], steps
            for found in panel.alarms(seed, n, [dtype], members=one, kinds=[kind]):
                if isinstance(found, panel.Alarm):
                    raise AssertionError(f"false alarm: {found}")
                name = kind.__name__
                yield Best(dtype, found.target, found.ratio, style.name, name)


def search(
    steps: int,
    seed: int,
    dtypes: Sequence[str] = ("float32", "float16"),
    styles: Sequence[Style] = STYLES,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
) -> list[Best]:
    """The best of every dtype, output and kind of inputs, over styles and shapes."""
    best: dict[tuple[str, str, str], Best] = {}
    for dtype in dtypes:
        climbs = [
            climb(style, dtype, shape, steps, seed)
            for style in styles
            for shape in shapes
        ]
        for found in chain(hardest(styles, dtype, steps, seed), *climbs):
            key = found.dtype, found.output, found.inputs
            if key not in best or found.ratio > best[key].ratio:
                best[key] = found
    return list(best.values())


def table(found: Sequence[Best]) -> str:
    """Markdown: one line an output, one column a dtype and kind of inputs."""
    columns = list(dict.fromkeys((b.dtype, b.inputs) for b in found))
    titles = " | ".join(f"{dtype}, {inputs}" for dtype, inputs in columns)
    lines = [f"| output | {titles} |", "|---" * (1 + len(columns)) + "|"]
    for name in OUTPUTS:
        mine = {(b.dtype, b.inputs): b.ratio for b in found if b.output == name}
        cells = [f"{mine[c]:.2f}" if c in mine else "-" for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def census(seed: int, n: int) -> str:
    """The panel's false alarms over n geometries, real implementations among it."""
    everyone = panel.everyone()
    found = list(panel.alarms(seed, n, members=everyone))
    wrong = [a for a in found if isinstance(a, panel.Alarm)]
    lines = [
        f"{len(wrong)} false alarms over {n:,} geometries and {len(found):,} results "
        f"of {len(everyone)} correct implementations, each on one in {len(everyone)}."
    ]
    return "\n".join(lines + [f"false alarm: {a}" for a in wrong])


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m refdcn.grading.selftest.nearest --seed 1 > docs/bounds.inc`."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=120, help="of each climb")
    parser.add_argument("--geometries", type=int, default=5000, help="of the panel")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    print(table(search(options.steps, options.seed)), flush=True)
    print(f"\n{census(options.seed, options.geometries)}")


if __name__ == "__main__":
    main()
