"""One run: an arm and a seed, trained and measured after each epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import refdcn
from refdcn.demo.digits import Digits, pixels, rotated
from refdcn.demo.networks import ARMS, HIDDEN, Network, build, deform_layers, size
from refdcn.torch import OffsetStatistics, parameter_groups

TEST_SEED = 2**31  # the test digits are turned once, alike in all runs
TEST_BATCH = 500


@dataclass(frozen=True)
class Settings:
    """What is the same for every arm."""

    digits: str = "7,000 digits of MNIST"
    train: int = 5000
    test: int = 2000
    degrees: float = 180.0  # turned by as much to either side, anew in every epoch
    epochs: int = 10
    batch: int = 64
    lr: float = 1e-3  # of Adam
    offset_rate: float = 1.0  # of the branches, times lr
    dropout: float = 0.3


@dataclass
class Run:
    """An arm's curves, one value an epoch, and what its network looks like."""

    arm: str
    seed: int
    settings: Settings
    parameters: int
    processes: int = 1
    train_loss: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of training alone
    offset: list[float] = field(default_factory=list)  # mean |dp| in the last layer
    outside: list[float] = field(default_factory=list)  # its samples that read nothing
    measures: dict[str, float] = field(default_factory=dict)
    clock: str = "wall"  # what seconds are of: "wall", or "processor" of one thread

    def record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Run:
        return cls(**{**record, "settings": Settings(**record["settings"])})


@dataclass(frozen=True)
class Team:
    """The processes that train one network together; each has a share of a batch."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls, device: str) -> Team:
        """This process's place, as torchrun tells it."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(device)
        if world == 1:
            return cls(device=device)
        backend = "nccl" if device.startswith("cuda") else "gloo"
        torch.distributed.init_process_group(backend)
        return cls(torch.distributed.get_rank(), world, device)

    def leave(self) -> None:
        if self.world > 1:
            torch.distributed.destroy_process_group()

    def clock(self) -> str:
        """A machine that others use, too, slows the clock on the wall alone."""
        alone = self.world == 1 and torch.get_num_threads() == 1
        return "processor" if alone and self.device == "cpu" else "wall"

    def share(self, batch: Tensor) -> Tensor:
        """This process's rows."""
        return batch.tensor_split(self.world)[self.rank].to(self.device)

    def wrap(self, network: nn.Module) -> nn.Module:
        network.to(self.device)
        if self.world == 1:
            return network
        return nn.parallel.DistributedDataParallel(network)

    def total(self, values: list[float]) -> list[float]:
        """Sums over the processes."""
        if self.world == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        return [float(s) for s in sums]


def batches(
    digits: Digits, settings: Settings, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Turned images, labels and what dropout keeps, of one epoch of whole batches."""
    n, p = len(digits.train_labels), settings.dropout
    order = torch.randperm(n, generator=generator)
    degrees = turns(n, settings.degrees, generator)
    for rows in order.split(settings.batch):
        noise = torch.rand(len(rows), sum(HIDDEN), generator=generator)
        images = pixels(digits.train_images[rows.numpy()])
        labels = torch.from_numpy(digits.train_labels[rows.numpy()]).long()
        yield rotated(images, degrees[rows]), labels, (noise >= p) / (1 - p)


def turns(n: int, degrees: float, generator: torch.Generator) -> Tensor:
    return degrees * (2 * torch.rand(n, generator=generator) - 1)


def test_set(digits: Digits, settings: Settings) -> tuple[Tensor, Tensor]:
    """The test digits, turned."""
    generator = torch.Generator().manual_seed(TEST_SEED)
    degrees = turns(len(digits.test_labels), settings.degrees, generator)
    labels = torch.from_numpy(digits.test_labels).long()
    return rotated(pixels(digits.test_images), degrees), labels


def train(
    arm: str,
    seed: int,
    settings: Settings,
    digits: Digits,
    team: Team | None = None,
    network: Network | None = None,
    step: Callable[[str], object] = lambda text: None,
) -> tuple[Run, Network]:
    """Train one arm from one seed; `step` is called after each batch."""
    team = team or Team()
    network = build(arm, seed) if network is None else network
    clock = team.clock()
    run = Run(arm, seed, settings, size(network), team.world, clock=clock)
    now = time.process_time if clock == "processor" else time.perf_counter
    model = team.wrap(network)
    rates = settings.lr, settings.lr * settings.offset_rate
    optimizer = torch.optim.Adam(parameter_groups(network, *rates))
    generator = torch.Generator().manual_seed(seed)
    images, labels = test_set(digits, settings)
    for epoch in range(settings.epochs):
        started, losses = now(), []
        for batch in batches(digits, settings, generator):
            losses.append(learn(model, optimizer, batch, team))
            step(f"{ARMS[arm].title}, seed {seed}, epoch {epoch + 1}")
        run.seconds.append(now() - started)
        run.train_loss.append(sum(team.total(losses)) / len(digits.train_labels))
        judge(network, images, labels, team, run)
    return run, network


def learn(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
    team: Team,
) -> float:
    """One step; the sum of this process's losses."""
    images, labels, kept = map(team.share, batch)
    optimizer.zero_grad(set_to_none=True)
    loss = functional.cross_entropy(model(images, kept), labels, reduction="sum")
    # The mean over the whole batch: gradients are averaged over the processes.
    (loss * (team.world / len(batch[1]))).backward()
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def judge(
    network: Network, images: Tensor, labels: Tensor, team: Team, run: Run
) -> None:
    """Append loss, accuracy and offsets on the test digits."""
    layers = deform_layers(network)
    watch = OffsetStatistics(network) if layers else None
    loss = right = 0.0
    for x, t in zip(images.split(TEST_BATCH), labels.split(TEST_BATCH), strict=True):
        x, t = team.share(x), team.share(t)
        y = network(x)
        loss += float(functional.cross_entropy(y, t, reduction="sum"))
        right += int((y.argmax(1) == t).sum())
    loss, right = team.total([loss, right])
    run.test_loss.append(loss / len(labels))
    run.accuracy.append(right / len(labels))
    if watch is not None:
        watch.close()
        last = [*watch.summaries().values()][-1]
        run.offset.append(last.mean)
        run.outside.append(last.outside)


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """torch and refdcn compute on so many threads, meanwhile."""
    before = torch.get_num_threads(), refdcn.get_num_threads()
    torch.set_num_threads(count)
    refdcn.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        refdcn.set_num_threads(before[1])
