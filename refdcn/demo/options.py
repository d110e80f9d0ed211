"""What may be typed after `refdcn demo rotated-digits`; imports nothing heavy."""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.util import find_spec

NEEDS = "torch", "torchvision", "matplotlib", "tqdm"


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All have defaults: the article's experiment on the embedded digits."""
    parser.add_argument(
        "--quick",
        action="store_true",
        help="1,000 digits, 6 epochs, 3 arms, 1 seed: under two minutes, shows nothing",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="full MNIST: DIR holds the four idx files, or is the root that "
        "torchvision.datasets.MNIST(DIR, download=True) has filled",
    )
    for name, help in (
        ("seeds", "how many, from 0 (5)"),
        ("epochs", "how many (10)"),
        ("train", "use only the first so many training digits"),
        ("test", "use only the first so many test digits"),
    ):
        parser.add_argument(f"--{name}", type=positive, metavar="N", help=help)
    add_training(parser)
    parser.add_argument(
        "--out",
        default="rotated_digits",
        metavar="DIR",
        help="runs, results.md, curves and pictures go there; runs that are there "
        "already are not made again (rotated_digits)",
    )
    parser.add_argument("--threads", type=positive, default=1, metavar="N")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--against",
        choices=("torchvision",),
        help="instead, time a training step on refdcn's operator and on this one",
    )
    parser.set_defaults(run=run)


def add_training(parser: argparse.ArgumentParser) -> None:
    """Which networks learn, on digits turned how far, at which rates."""
    parser.add_argument(
        "--arms", nargs="+", metavar="ARM", help="some of refdcn.demo.networks.ARMS"
    )
    parser.add_argument(
        "--degrees", type=float, default=180.0, metavar="A", help="turn by up to ±A"
    )
    parser.add_argument("--lr", type=float, default=1e-3, help="of Adam (0.001)")
    parser.add_argument(
        "--offset-rate",
        type=float,
        default=1.0,
        metavar="R",
        help="the branches learn at R times --lr (1)",
    )


def run(options: argparse.Namespace) -> int:
    """The command, once what it needs is there."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        print(
            f"refdcn demo rotated-digits needs {', '.join(missing)}: "
            'pip install "refdcn[demo]"',
            file=sys.stderr,
        )
        return 2
    code: int = importlib.import_module("refdcn.demo.command").run(options)
    return code
