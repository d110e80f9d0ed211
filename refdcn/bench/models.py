"""A whole network: plain, deformable, watched, and built on torchvision's operator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeAlias

from refdcn.bench.contestants import SkippedError, WrongError, load, use_threads
from refdcn.bench.progress import Progress
from refdcn.bench.records import Record, Timing
from refdcn.bench.run import Options
from refdcn.bench.timing import CLOCKS, Entrant, interleave

DEFORMED = "layer[234].*.conv2"  # the 3x3 of the last three of four stages
BATCHES = {"inference": 1, "training": 2}
SIZE = 224
REPEAT, SECONDS = 7, 6.0


def networks(seed: int = 0) -> dict[str, Any]:
    """ResNet-50 with random weights; the deformable ones compute the same."""
    torch, library, vision = load("torch", "refdcn.torch", "torchvision.models")
    torch.manual_seed(seed)
    plain = vision.resnet50(weights=None)
    deformed, built = copy.deepcopy(plain), copy.deepcopy(plain)
    for name in library.deformable(deformed, DEFORMED):
        layer = deformed.get_submodule(name)
        for branch, spread in ((layer.offset, 2.0), (layer.mask, 1.0)):
            torch.nn.init.normal_(branch.weight, std=0.01)
            torch.nn.init.normal_(branch.bias, std=spread)
        parent, _, last = name.rpartition(".")
        pack = on_torchvision(layer)
        check(layer, pack)
        setattr(built.get_submodule(parent), last, pack)
    return {"plain": plain, "deformable": deformed, "torchvision": built}


def on_torchvision(layer: Any) -> Any:
    """A deformable layer as torchvision's users write it."""
    torch, ops = load("torch", "torchvision.ops")

    class Pack(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            sizes = layer.in_channels, layer.out_channels, layer.kernel_size
            window = layer.stride, layer.padding, layer.dilation
            self.conv = ops.DeformConv2d(*sizes, *window, bias=False)
            self.conv.weight.data.copy_(layer.weight.data)
            self.offset, self.mask = map(copy.deepcopy, (layer.offset, layer.mask))

        def forward(self, x: Any) -> Any:
            return self.conv(x, self.offset(x), 2 * self.mask(x).sigmoid())

    return Pack()


Around: TypeAlias = Callable[[Any], AbstractContextManager[Any]]  # a model's forward


def inference(model: Any, around: Around = nullcontext) -> Callable[[], Any]:
    """A forward call in evaluation mode."""
    (torch,) = load("torch")
    model = copy.deepcopy(model).eval()
    x = pictures("inference")

    def call() -> Any:
        with torch.no_grad(), around(model):
            return model(x)

    return call


def training(model: Any, around: Around = nullcontext) -> Callable[[], Any]:
    """Forward, backward and a step of SGD, which leaves the weights as they are."""
    (torch,) = load("torch")
    model = copy.deepcopy(model).train()
    x, rule = pictures("training"), torch.optim.SGD(model.parameters(), lr=0.0)

    def call() -> Any:
        with around(model):
            y = model(x)
        rule.zero_grad()
        y.square().mean().backward()
        rule.step()
        return y.detach()

    return call


def statistics(model: Any) -> Any:
    """Around a forward call of `watched`; what comes out of it is not looked at."""
    return load("refdcn.torch")[0].OffsetStatistics(
        model, max_mean=None, max_outside=None
    )


def pictures(direction: str) -> Any:
    """The same for all."""
    (torch,) = load("torch")
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCHES[direction], 3, SIZE, SIZE, generator=generator)


class Kernels:
    """Whose kernels torchvision's operator runs."""

    def __init__(self) -> None:
        self.accelerated: Any = None

    def use(self, ours: bool) -> None:
        (library,) = load("refdcn.torch")
        if ours and self.accelerated is None:
            self.accelerated = library.accelerate_torchvision()
        elif not ours and self.accelerated is not None:
            self.accelerated.undo()
            self.accelerated = None


def measure(record: Record, options: Options, progress: Progress) -> None:
    """Inference and a training step, on each number of threads, in turns."""
    progress.start(len(BATCHES))
    kernels = Kernels()
    try:
        made = networks()
    except SkippedError as why:
        record.skipped["whole models"] = str(why)
        return
    for direction, begin in (("inference", inference), ("training", training)):
        progress.step(f"ResNet-50, {direction}")
        calls = {name: begin(model) for name, model in made.items()}
        calls["accelerated"] = calls["torchvision"]
        calls["watched"] = begin(made["deformable"], statistics)
        entrants = list(arrivals(calls, options.threads, kernels))
        try:
            clock = CLOCKS[options.clock]
            rounds = interleave(entrants, REPEAT, SECONDS, clock=clock)
        finally:
            kernels.use(False)
        shape = f"ResNet-50, {BATCHES[direction]}x3x{SIZE}x{SIZE}"
        for e, r in zip(entrants, rounds, strict=True):
            record.models.append(
                Timing(shape, "float32", direction, "quiet", e.name, e.threads, r)
            )


def arrivals(
    calls: dict[str, Callable[[], Any]], threads: Any, kernels: Kernels
) -> Iterator[Entrant]:
    """Every model on every number of threads."""

    def before(name: str, n: int) -> None:
        kernels.use(name == "accelerated")
        use_threads(n)

    for n in threads:
        for name, call in calls.items():
            yield Entrant(name, n, call, partial(before, name, n))


def check(layer: Any, pack: Any) -> None:
    """Both compute the same; of a whole model, rounding alone makes a hundredth."""
    (torch,) = load("torch")
    with torch.no_grad():
        x = torch.randn(1, layer.in_channels, 14, 14)
        wanted, got = layer(x), pack(x)
    error = float((got - wanted).abs().max() / wanted.abs().max())
    if not error < 1e-4:
        raise WrongError(
            f"torchvision's operator computes another y in a layer of {x.shape[1]} "
            f"channels: relative error {error:.1e}, wanted 1e-4"
        )
