"""`refdcn demo rotated-digits`: which runs, where they are kept, what is written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from refdcn.demo import pictures, report
from refdcn.demo.digits import Digits, embedded, mnist
from refdcn.demo.measures import measures, receptive_field, taps
from refdcn.demo.networks import ARMS, Network, build
from refdcn.demo.training import (
    Run,
    Settings,
    Team,
    limited_threads,
    test_set,
    train,
)

DEFAULT = ("plain", "matched", "2sigmoid", "sigmoid", "offsets", "mask", "published",
           "doubled")  # fmt: skip
QUICK = ("plain", "2sigmoid", "sigmoid")
MEASURED = 500  # test digits that receptive fields and ink are averaged over
DRAWN = 6
POINTS = "2sigmoid"
FIELDS = ("plain", "mask", "2sigmoid")


def run(options: argparse.Namespace) -> int:
    """The whole command; 0, or 2 where an option cannot be followed."""
    if options.against:
        from refdcn.demo.benchmark import against_torchvision

        return against_torchvision(options.threads)
    try:
        unknown = [arm for arm in options.arms or () if arm not in ARMS]
        if unknown:
            raise ValueError(f"--arms: no {unknown[0]}; there are {', '.join(ARMS)}")
        digits = mnist(options.data) if options.data else embedded()
    except (OSError, ValueError) as error:
        print(f"refdcn demo rotated-digits: {error}", file=sys.stderr)
        return 2
    settings, digits = plan(options, digits)
    out = Path(options.out)
    with limited_threads(options.threads):
        team = Team.join(options.device)
        try:
            experiment(options, settings, digits, out, team)
        finally:
            team.leave()
    return 0


def plan(options: argparse.Namespace, digits: Digits) -> tuple[Settings, Digits]:
    """The settings that the options mean, and the digits cut to them."""
    few = (1000, 500, 6) if options.quick else (5000, 2000, 10)
    sizes = [len(digits.train_labels), len(digits.test_labels)]
    if options.quick or not options.data:
        sizes = [min(a, b) for a, b in zip(sizes, few[:2], strict=True)]
    train, test = options.train or sizes[0], options.test or sizes[1]
    digits = digits.first(train, test)
    settings = Settings(
        digits=digits.name,
        train=len(digits.train_labels),
        test=len(digits.test_labels),
        degrees=options.degrees,
        epochs=options.epochs or few[2],
        lr=options.lr,
        offset_rate=options.offset_rate,
    )
    return settings, digits


def experiment(
    options: argparse.Namespace,
    settings: Settings,
    digits: Digits,
    out: Path,
    team: Team,
) -> None:
    """Make the runs that are not there yet, then the report."""
    from tqdm import tqdm

    chosen = options.arms or (QUICK if options.quick else DEFAULT)
    seeds = range(options.seeds or (1 if options.quick else 5))
    out.mkdir(parents=True, exist_ok=True)
    done = {(r.settings, r.arm, r.seed) for r in report.load(out / report.RUNS)}
    wanted = [
        (arm, seed)
        for seed in seeds  # whole seeds first: an early stop leaves pairs to compare
        for arm in chosen
        if (settings, arm, seed) not in done
    ]
    steps = -(-settings.train // settings.batch) * settings.epochs
    chief = team.rank == 0
    with tqdm(total=steps * len(wanted), disable=not chief, unit="step") as bar:

        def step(text: str) -> None:
            bar.set_description(text, refresh=False)
            bar.update()

        for arm, seed in wanted:
            made, network = train(arm, seed, settings, digits, team, step=step)
            if chief:
                keep(out, made, network.cpu(), digits)
    if chief:
        write(out, digits)


def keep(out: Path, made: Run, network: Network, digits: Digits) -> None:
    """Measure, save the run, and the network of the first seed for the pictures."""
    images, _ = test_set(digits, made.settings)
    made.measures.update(measures(network, images[:MEASURED]))
    report.append(out / report.RUNS, made)
    if made.seed == 0:
        path = model_path(out, made.settings, made.arm)
        path.parent.mkdir(exist_ok=True)
        torch.save(network.state_dict(), path)


def model_path(out: Path, settings: Settings, arm: str) -> Path:
    about = settings.degrees, settings.train, settings.epochs, settings.offset_rate
    numbers = "-".join(f"{number:g}" for number in (*about, settings.lr))
    return out / "models" / f"{arm}-{numbers}.pt"


def write(out: Path, digits: Digits) -> None:
    """Page, table and pictures of all runs in `out`."""
    runs = report.load(out / report.RUNS)
    for number, (settings, members) in enumerate(report.groups(runs).items(), 1):
        for what, arms in report.curve_sets(members).items():
            curves = pictures.curves(members, arms)
            pictures.save(curves, out / report.picture(what, number))
        if digits.name == settings.digits:
            for what, figure in drawn(out, settings, digits):
                pictures.save(figure, out / report.picture(what, number))
    report.write_curves(out / report.CURVES, runs)
    page = report.page(runs, out)
    (out / report.PAGE).write_text(page, encoding="utf-8")
    print(page)
    print(f"Written to {out}: {report.PAGE}, {report.CURVES}, pictures.")


def drawn(out: Path, settings: Settings, digits: Digits) -> Iterator[tuple[str, Any]]:
    """Sampling points and receptive fields of the first seed's networks, if kept."""
    images, _ = test_set(digits, settings)
    networks = {}
    for arm in (*FIELDS, POINTS):
        path = model_path(out, settings, arm)
        if path.exists():
            networks[arm] = build(arm, 0)
            networks[arm].load_state_dict(torch.load(path, weights_only=True))
    if POINTS in networks:
        few = images[:DRAWN]
        yield "points", pictures.points(few, taps(networks[POINTS], few))
    fields = {
        ARMS[arm].title: receptive_field(networks[arm], images[:MEASURED])
        for arm in FIELDS
        if arm in networks
    }
    if fields:
        yield "fields", pictures.fields(fields)
