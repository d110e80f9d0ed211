"""The arguments of `refdcn bench`, without what the command itself needs."""

from __future__ import annotations

import argparse

TABLE = (
    "1x64x56x56->64",
    "1x128x28x28->128",
    "1x256x14x14->256",
    "1x512x7x7->512",
    "4x64x56x56->64",
    "32x64x28x28->64",
    "1x256x100x152->256",
    "2x128x28x28->128,g4,og4",
    "1x256x28x28->256,g256",
    "1x960x14x14->960,g960",
    "1x1536x7x7->1536,g1536",
    "1x512x28x28->512,g32,og8",
    "1x128x56x56->128,s2,d2",
    "8x3x28x28->64",
    "16x3x224x224->32",
)
QUICK = ("1x8x9x10->16", "2x3x8x8->4,k1,s2", "1x8x9x10->8,d2,g2,og4")
AGAINST = (
    "refdcn.torch", "dense", "product", "torchvision", "onnxruntime", "openvino"
)  # fmt: skip
DTYPES = ("float32", "float64")
DIRECTIONS = ("forward", "training")

SHAPES_HELP = (
    "NxCxHxW->C_out, quoted or with a colon for the arrow, then any of ,k3 ,s1 ,d1 ,g1 "
    ",og1: kernel size, stride, dilation, groups, offset groups (default: a table)"
)
MODELS_HELP = (
    "time also a ResNet-50: plain, deformable, built on torchvision's operator"
)
PLOT_HELP = (
    "time also how cost grows with each size; write growth.png, tables.inc, answer.inc"
)


def add_arguments(bench: argparse.ArgumentParser) -> None:
    """All of them."""
    add = bench.add_argument
    add("--shapes", nargs="+", metavar="SHAPE", help=SHAPES_HELP)
    add(
        "--against",
        type=names,
        default=AGAINST,
        metavar="A,B",
        help=f"any of {','.join(AGAINST)} (default: all that are installed)",
    )
    add("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    add("--direction", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS))
    add("--threads", nargs="+", type=positive, default=[1, 2], metavar="N")
    add("--repeat", type=positive, help="rounds, in which each has a turn (11)")
    add(
        "--seconds",
        type=float,
        help="a contestant stops taking turns on a shape when it has used these (1)",
    )
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: the work of all threads, steadier on one thread of a busy machine",
    )
    add("--busy", action="store_true", help="again, beside a process that competes")
    add("--models", action="store_true", help=MODELS_HELP)
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--check", action="store_true", help="with --device cuda: the proof on a card")
    add(
        "--limit",
        type=positive,
        metavar="SECONDS",
        help="of the whole --check (570); what it does not reach stays undecided",
    )
    add("--quick", action="store_true", help="seconds: tiny shapes, few rounds")
    add("--json", metavar="FILE", help="write every duration there")
    add("--plot", metavar="FOLDER", help=PLOT_HELP)


def names(text: str) -> tuple[str, ...]:
    """Contestants, comma-separated; empty for refdcn alone."""
    given = tuple(filter(None, text.split(",")))
    unknown = [name for name in given if name not in AGAINST]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no contestant {unknown[0]!r}; there are {', '.join(AGAINST)}"
        )
    return given


def positive(text: str) -> int:
    """An int of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; wanted an int of at least 1")
    return int(text)
