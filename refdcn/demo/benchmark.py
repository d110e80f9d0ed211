"""Training the deformable network on refdcn's operator and on torchvision's."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from refdcn.demo.digits import embedded
from refdcn.demo.networks import Network, build, deform_layers
from refdcn.demo.training import Settings, Team, batches, learn, limited_threads
from refdcn.torch import DeformConv2d, parameter_groups, torchvision_is_native

ROUNDS, STEPS = 12, 6  # an epoch has 79 batches
AIM = 2.0


class OnTorchvision(DeformConv2d):
    """A DeformConv2d with torchvision's operator at its heart."""

    def convolve(self, image: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        from torchvision.ops import deform_conv2d

        y: Tensor = deform_conv2d(
            image, offset, self.weight, self.bias, self.stride, self.padding,
            self.dilation, mask,
        )  # fmt: skip
        return y


class Contestant:
    """A network, its optimizer and its own copy of the same batches."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.optimizer = torch.optim.Adam(parameter_groups(network, 1e-3, 1e-3))
        self.settings, self.digits = Settings(), embedded()
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.restart()

    def restart(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batches = batches(self.digits, self.settings, generator)

    def round(self) -> None:
        """So many steps, timed; the batches are made before."""
        ready = [next(self.batches) for _ in range(STEPS)]
        team = Team()
        started = time.perf_counter()
        for batch in ready:
            self.losses.append(learn(self.network, self.optimizer, batch, team))
        self.seconds.append((time.perf_counter() - started) / STEPS)


def contestants() -> dict[str, Contestant]:
    """Equal but for the operator."""
    theirs = build("2sigmoid", 0)
    for layer in deform_layers(theirs):
        layer.__class__ = OnTorchvision
    return {
        "refdcn": Contestant(build("2sigmoid", 0)),
        "torchvision": Contestant(theirs),
        "no deformation": Contestant(build("plain", 0)),
    }


def against_torchvision(threads: int) -> int:
    """Print milliseconds a step of each, interleaved, and the ratio."""
    if not torchvision_is_native():
        raise RuntimeError(
            "torchvision::deform_conv2d runs another kernel than its own"
        )
    teams = contestants()
    with limited_threads(threads):
        for _ in range(ROUNDS + 1):
            for contestant in teams.values():
                contestant.round()
    print(f"A training step of 64 digits, {threads} thread(s), {ROUNDS} rounds of")
    print(f"{STEPS} steps in turn: median, least and most in ms")
    rounds = {
        name: c.seconds[1:] for name, c in teams.items()
    }  # the first one compiles
    for name, seconds in rounds.items():
        ms = [1e3 * s for s in seconds]
        median = statistics.median(ms)
        print(f"{name:15}{median:8.1f}  ({min(ms):.1f} to {max(ms):.1f})")
    pairs = zip(rounds["torchvision"], rounds["refdcn"], strict=True)
    ratios = sorted(theirs / ours for theirs, ours in pairs)
    ratio = statistics.median(ratios)
    print(f"torchvision / refdcn, round by round: median {ratio:.1f}, ", end="")
    print(f"{ratios[0]:.1f} to {ratios[-1]:.1f} (aim: at least {AIM:g})")
    return 0 if ratio >= AIM else 1
