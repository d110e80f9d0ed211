"""The results page: tables, a paragraph and the verdicts, from the runs alone."""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from refdcn.demo.networks import ARMS
from refdcn.demo.training import Run, Settings

RUNS, CURVES, PAGE = "runs.jsonl", "curves.csv", "results.md"
LAST = 3  # epochs that a final accuracy is the mean of
RIVALS = "plain", "matched"

Values = Sequence[float]


def load(path: Path) -> list[Run]:
    """The runs of a file, one a line; the last one of each arm, seed and settings."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    runs = [Run.of(json.loads(line)) for line in lines]
    return [*{(run.settings, run.arm, run.seed): run for run in runs}.values()]


def append(path: Path, run: Run) -> None:
    """A line a run, as soon as it is done: an interrupted experiment goes on there."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded(run.record())) + "\n")


def rounded(value: object) -> object:
    """Five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return value


def groups(runs: Iterable[Run]) -> dict[Settings, list[Run]]:
    """Runs that may be compared, arms and seeds in order."""
    found: dict[Settings, list[Run]] = {}
    order = list(ARMS)
    for run in sorted(runs, key=lambda run: (order.index(run.arm), run.seed)):
        found.setdefault(run.settings, []).append(run)
    return found


def final(run: Run) -> float:
    """Accuracy in percent, the mean of the last epochs."""
    return 100 * statistics.fmean(run.accuracy[-LAST:])


def early(run: Run) -> float:
    """Accuracy in percent, the mean of the first half of the epochs."""
    return 100 * statistics.fmean(run.accuracy[: max(1, len(run.accuracy) // 2)])


def mean_sd(values: Values, digits: int = 1) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.{digits}f}"


def differences(
    runs: Sequence[Run], arm: str, rival: str, value: Callable[[Run], float]
) -> list[float]:
    """arm minus rival, of each seed that both have."""
    mine = {run.seed: value(run) for run in runs if run.arm == arm}
    its = {run.seed: value(run) for run in runs if run.arm == rival}
    return [mine[seed] - its[seed] for seed in mine if seed in its]


def verdict(values: Values) -> str:
    """What paired differences show: beyond twice their standard error, or not."""
    if len(values) < 3:
        return "too few seeds to say"
    error = statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    if abs(mean) <= 2 * error:
        return "within noise"
    return "ahead" if mean > 0 else "behind"


def page(runs: Sequence[Run], folder: Path | None = None) -> str:
    """The whole page, with those pictures that are in its folder."""
    sections = [
        section(i, settings, members, folder)
        for i, (settings, members) in enumerate(groups(runs).items(), 1)
    ]
    return "\n".join([INTRODUCTION, *sections])


INTRODUCTION = f"""\
# Rotated digits: what the runs say

<!-- Written by `refdcn demo rotated-digits`; edit refdcn/demo/report.py instead. -->

Handwritten digits, each turned by a random angle, anew in every epoch; the test digits
are turned once, alike for all runs. Four 3x3 convolutions (16, 32, 32, 32 channels,
pooling after the first, second and fourth) and three fully connected layers (128, 64,
10) with dropout; the last two convolutions are what the arms change. Within a seed
every arm starts with the same weights and sees the same digits at the same angles in
the same order with the same units dropped. Every arm has the same settings.

Values are the mean ± the standard deviation over seeds. *Final* accuracy is the mean
of the last {LAST} epochs, *early* that of the first half of all epochs. A difference is
taken seed by seed; it is *ahead* or *behind* where its mean exceeds twice its standard
error and *within noise* otherwise. `--against torchvision` times steps in turn.
"""

CLOCKS = {
    "processor": "Seconds are processor time of the one thread that trained.",
    "wall": "Seconds are wall clock on a shared machine.",
}


def title(settings: Settings) -> str:
    """What sets these runs apart; rates where they are not the usual ones."""
    usual, rates = Settings(), []
    if settings.lr != usual.lr:
        rates.append(f", Adam at {settings.lr:g}")
    if settings.offset_rate != usual.offset_rate:
        rates.append(f", branches at {settings.offset_rate:g} of the rate")
    return (
        f"±{settings.degrees:g} degrees, {settings.train:,} digits of "
        f"{settings.digits.removeprefix('7,000 digits of ')}, {settings.epochs} epochs"
        + "".join(rates)
    )


def picture(what: str, number: int) -> str:
    """The name of a section's picture."""
    return f"{what}_{number}.png"


# Few enough curves to a picture; those of the second start with two of the first.
CLAIM = "plain", "matched", "2sigmoid", "sigmoid", "offsets", "published"
PARTS = "mask", "doubled", "plain-norm", "2sigmoid-norm", "sigmoid-norm"


def curve_sets(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The pictures of curves, and the arms in each."""
    there = arms(runs)
    sets = {"curves": [arm for arm in there if arm in CLAIM]}
    if any(arm in PARTS for arm in there):
        sets["parts"] = [arm for arm in there if arm in ("plain", "2sigmoid", *PARTS)]
    return {what: chosen for what, chosen in sets.items() if chosen}


CAPTIONS = {
    "curves": "Learning curves: mean over seeds, and one standard deviation to either "
    "side. Right: against plain, seed by seed.",
    "parts": "Learning curves for the mask alone, and for what the start at 0.5 needs.",
    "points": "The 81 places that one position (red cross) of the last convolution "
    "samples through the one before it, at the start and as learnt; first seed. They "
    "spread. Whether they seek the stroke is for the ink in the table to say, not for "
    "six digits.",
    "fields": "Effective receptive field of the middle position: the share that each "
    "pixel has in it, mean over test digits, on networks of the first seed.",
}


def said(what: str) -> str:
    """What is shown, for those who do not see it."""
    return re.split(r"[:.;,] ", CAPTIONS[what])[0]


def figures(folder: Path | None, number: int, *names: str) -> str:
    """MyST figures of the pictures that are there."""
    return "\n".join(
        f"![{said(what)}]({picture(what, number)})\n\n*{CAPTIONS[what]}*\n"
        for what in names
        if folder is not None and (folder / picture(what, number)).exists()
    )


def section(
    number: int, settings: Settings, runs: Sequence[Run], folder: Path | None
) -> str:
    """One set of comparable runs."""
    text = [
        f"## {title(settings)}\n",
        f"{settings.test:,} test digits, batches of {settings.batch}, Adam at "
        f"{settings.lr:g}, the branches at {settings.offset_rate:g} times that,\n"
        f"dropout {settings.dropout:g}. Seeds: {seeds(runs)}.\n"
        f"{' '.join(CLOCKS[clock] for clock in sorted({r.clock for r in runs}))}\n",
        figures(folder, number, "curves", "parts"),
        accuracy_table(runs),
        goal_table(runs),
        paragraph(runs),
        geometry_table(runs),
        figures(folder, number, "points", "fields"),
    ]
    return "\n".join(part for part in text if part)


def seeds(runs: Sequence[Run]) -> str:
    by_arm = {arm: [r.seed for r in runs if r.arm == arm] for arm in arms(runs)}
    counts = {tuple(s) for s in by_arm.values()}
    if len(counts) == 1:
        return f"{listed(next(iter(counts)))}, all arms"
    return "; ".join(f"{ARMS[arm].title}: {listed(s)}" for arm, s in by_arm.items())


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def arms(runs: Sequence[Run]) -> list[str]:
    return [*dict.fromkeys(run.arm for run in runs)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)) + "\n"


def accuracy_table(runs: Sequence[Run]) -> str:
    head = ["arm", "parameters", "early, %", "final, %", "minus plain", "minus matched",
            "s an epoch, least"]  # fmt: skip
    rows = []
    for arm in arms(runs):
        mine = [run for run in runs if run.arm == arm]
        against = [differences(runs, arm, rival, final) for rival in RIVALS]
        rows.append([
            ARMS[arm].title,
            f"{mine[0].parameters:,}",
            mean_sd([early(run) for run in mine]),
            mean_sd([final(run) for run in mine]),
            *(mean_sd(d) if d and arm != rival else "" for d, rival in
              zip(against, RIVALS, strict=True)),
            f"{min(s for run in mine for s in run.seconds):.1f}",
        ])  # fmt: skip
    return table(head, rows)


GOALS = 50, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99  # percent


def epochs_to(run: Run, goal: float) -> int | None:
    """The first epoch that ends at that accuracy, from 1; None where none does."""
    reached = (e for e, a in enumerate(run.accuracy, 1) if 100 * a >= goal)
    return next(reached, None)


def goal_table(runs: Sequence[Run], most: int = 3) -> str:
    """Epochs and seconds to the highest accuracies that half of all runs reach."""
    met = [g for g in GOALS if 2 * sum(epochs_to(r, g) is not None for r in runs)
           >= len(runs)]  # fmt: skip
    if not met:
        return ""
    goals = met[-most:]
    rows = []
    for arm in arms(runs):
        row = [ARMS[arm].title]
        for goal in goals:
            mine = [run for run in runs if run.arm == arm]
            found = [(run, e) for run in mine if (e := epochs_to(run, goal))]
            if found:
                epochs = mean_sd([float(e) for _, e in found])
                seconds = statistics.fmean(sum(r.seconds[:e]) for r, e in found)
                row.append(f"{epochs} ({seconds:.0f} s)")
            else:
                row.append("never")
            if 0 < len(found) < len(mine):
                row[-1] += f", {len(found)} of {len(mine)} seeds"
        rows.append(row)
    head = ["epochs (and seconds) to", *(f"{goal} %" for goal in goals)]
    return table(head, rows)


# (arm, rival): the claim, then what the parts do, then what the start at 0.5 needs.
COMPARISONS = (
    ("2sigmoid", "plain"), ("2sigmoid", "matched"), ("sigmoid", "plain"),
    ("sigmoid", "matched"), ("published", "plain"), ("published", "matched"),
    ("2sigmoid", "mask"), ("offsets", "plain"), ("mask", "plain"),
    ("sigmoid", "2sigmoid"), ("doubled", "2sigmoid"), ("plain-norm", "plain"),
    ("sigmoid-norm", "plain-norm"), ("2sigmoid-norm", "plain-norm"),
    ("sigmoid-norm", "2sigmoid-norm"),
)  # fmt: skip


def paragraph(runs: Sequence[Run]) -> str:
    """Each pair of arms that is there, and so where the claim holds and fails."""
    lines = [
        "The claim: a deformable network converges faster and ends more accurate.\n"
    ]
    for arm, rival in COMPARISONS:
        parts = [
            f"{when} {mean_sd(d)} points, {verdict(d)} ({ahead(d)})"
            for when, value in (("early", early), ("final", final))
            if (d := differences(runs, arm, rival, value))
        ]
        if parts:
            what = f"- *{ARMS[arm].title}* against *{ARMS[rival].title}*: "
            lines.append(what + "; ".join(parts) + ".")
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""


def ahead(values: Values) -> str:
    return f"higher in {sum(v > 0 for v in values)} of {len(values)} seeds"


def geometry_table(runs: Sequence[Run]) -> str:
    """What the trained networks look at; no row where nothing was measured."""
    head = ["arm", "mean offset", "samples outside", "mean mask", "RMS radius",
            "ink under the taps, moved", "at rest"]  # fmt: skip
    rows = []
    for arm in arms(runs):
        mine = [run for run in runs if run.arm == arm and run.measures]
        if not mine:
            continue

        def cell(key: str, digits: int, mine: list[Run] = mine) -> str:
            values = [run.measures[key] for run in mine if key in run.measures]
            return mean_sd(values, digits) if values else ""

        offsets = [run.offset[-1] for run in mine if run.offset]
        outside = [100 * run.outside[-1] for run in mine if run.outside]
        rows.append([
            ARMS[arm].title,
            mean_sd(offsets, 2) if offsets else "",
            f"{mean_sd(outside)} %" if outside else "",
            cell("mask", 2), cell("radius", 1), cell("ink", 3), cell("ink_at_rest", 3),
        ])  # fmt: skip
    if not rows:
        return ""
    return GEOMETRY + table(head, rows)


GEOMETRY = """\
What the trained networks look at, on test digits. Offsets, samples outside the feature
map (18.1 % with dp = 0) and masks are those of the last convolution, in positions that
lie 4 pixels apart. RMS radius is that of the effective receptive field, in pixels. Ink
is the mean brightness of the digit under the taps: were it clearly greater where they
moved to than at rest, they would seek the stroke.

"""


def write_curves(path: Path, runs: Sequence[Run]) -> None:
    """One row an epoch."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([
            "degrees", "train_digits", "offset_rate", "lr", "arm", "seed", "epoch",
            "train_loss", "test_loss", "accuracy", "seconds", "mean_offset", "outside",
        ])  # fmt: skip
        for settings, members in groups(runs).items():
            for run in members:
                same = [settings.degrees, settings.train, settings.offset_rate,
                        settings.lr, run.arm, run.seed]  # fmt: skip
                for e in range(len(run.accuracy)):
                    moved = [c[e] if c else "" for c in (run.offset, run.outside)]
                    columns = run.train_loss, run.test_loss, run.accuracy, run.seconds
                    writer.writerow([*same, e + 1, *(c[e] for c in columns), *moved])
