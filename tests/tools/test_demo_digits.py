"""The rotated digits: data, arms, training, the page, the command."""

import copy
import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("tqdm")
pytest.importorskip("matplotlib")

from refdcn import cli  # noqa: E402
from refdcn.demo import command, digits, measures, networks, report, training  # noqa: E402
from refdcn.demo.networks import ARMS, build, deform_layers, size  # noqa: E402
from refdcn.demo.training import Run, Settings, Team, train  # noqa: E402

ROOT = Path(__file__).parents[2]
TINY = Settings(train=64, test=40, epochs=2, batch=16)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def few():
    return digits.embedded().first(TINY.train, TINY.test)


# Digits


def test_the_embedded_digits_are_real_ones():
    found = digits.embedded()
    assert found.train_images.shape == (5000, 28, 28)
    assert found.test_images.shape == (2000, 28, 28)
    for images, labels in (found[1:3], found[3:]):
        assert images.dtype == labels.dtype == np.uint8
        counts = np.bincount(labels, minlength=10)
        assert len(counts) == 10 and counts.min() > len(labels) / 15
        # As every handwritten digit: black edges, white somewhere, none twice.
        assert images[:, 0].mean() < 1 and images.max((1, 2)).min() > 150
        assert len({image.tobytes() for image in images}) == len(images)
    file = ROOT / "refdcn" / "data" / "digits.npz"
    assert file.stat().st_size < 1.3e6
    credit = (file.parent / "README.md").read_text(encoding="utf-8")
    assert "LeCun" in credit and "by-sa/3.0" in credit


def idx(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.mark.parametrize("folder", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_mnist_is_read_where_it_lies(tmp_path, folder, zipped):
    arrays = [
        np.arange(24 * 784, dtype=np.uint32).astype(np.uint8).reshape(24, 28, 28),
        np.arange(24, dtype=np.uint8),
        np.arange(10 * 784, dtype=np.uint32).astype(np.uint8).reshape(10, 28, 28)[::-1],
        np.arange(10, dtype=np.uint8),
    ]
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    parts = [
        f"{p}-{k}-ubyte"
        for p in ("train", "t10k")
        for k in ("images-idx3", "labels-idx1")
    ]
    for name, array in zip(parts, arrays, strict=True):
        data = idx(array)
        path = tmp_path / folder / (name + ".gz" * zipped)
        path.write_bytes(gzip.compress(data) if zipped else data)
    found = digits.mnist(tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(found[1:], arrays, strict=True))
    taken = digits.subset(found)
    assert taken["train_labels"].tolist() == [0, 12]
    assert taken["test_labels"].tolist() == [0, 5]


def test_missing_or_broken_mnist_is_named(tmp_path, capsys):
    assert cli.main(["demo", "rotated-digits", "--data", str(tmp_path)]) == 2
    assert "no train-images-idx3-ubyte" in capsys.readouterr().err
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 28, 28)))[:-1])
    with pytest.raises(ValueError, match="is no idx file of bytes, or is cut off"):
        digits.mnist(tmp_path)


def test_rotation():
    x = torch.rand(2, 1, 28, 28)
    turned = digits.rotated(x, torch.tensor([90.0, 0.0]))
    torch.testing.assert_close(turned[0], torch.rot90(x[0], 1, (1, 2)))
    torch.testing.assert_close(turned[1], x[1])
    turned = digits.rotated(x, torch.tensor([45.0, 180.0]))
    assert turned[0, 0, 0, 0] == 0  # from outside
    torch.testing.assert_close(turned[1], x[1].flip(1, 2))


# Arms

DEFORMED = "convs.2.weight", "convs.3.weight"


@pytest.mark.parametrize("arm", ARMS)
def test_the_arms_of_a_seed_start_with_the_same_weights(arm):
    network = build(arm, 3)
    mine, its = network.state_dict(), build("plain", 3).state_dict()
    for name, value in its.items():
        if arm == "matched" and mine[name].shape != value.shape:
            continue
        if arm == "published" and name in ("convs.2.bias", "convs.3.bias"):
            assert name not in mine
            continue
        factor = 2 if arm == "doubled" and name in DEFORMED else 1
        assert torch.equal(mine[name], factor * value), name
    other = build(arm, 4).state_dict()
    assert not torch.equal(other["convs.0.weight"], mine["convs.0.weight"])


@pytest.mark.parametrize(
    ("arm", "dp", "dm"),
    [("2sigmoid", 0, 1), ("sigmoid", 0, 0.5), ("offsets", 0, None), ("mask", 0, 1),
     ("doubled", 0, 0.5), ("published", None, None)],
)  # fmt: skip
def test_what_the_branches_start_at(arm, dp, dm):
    layers = deform_layers(build(arm, 0))
    assert len(layers) == 2
    for layer in layers:
        offset, mask = layer.sampling(torch.rand(2, 32, 7, 7))
        if arm == "published":
            bound = 1 / (32 * 9) ** 0.5
            assert 0.5 * bound < offset.abs().max() <= bound
            assert torch.equal(offset, offset[:1, :, :1, :1].expand_as(offset))
            assert mask.mean() > 0.99  # the sigmoid of half the sum of 288 inputs
            assert layer.bias is None
            continue
        assert not offset.any()
        assert (mask is None) == (dm is None)
        assert mask is None or bool((mask == dm).all())


def test_a_start_at_one_and_doubled_weights_leave_the_plain_network_s_output():
    x = torch.rand(3, 1, 28, 28)
    plain = build("plain", 1)(x)
    for arm in ("2sigmoid", "doubled", "offsets", "mask"):
        torch.testing.assert_close(build(arm, 1)(x), plain)
    assert not torch.allclose(build("sigmoid", 1)(x), plain, rtol=1e-2)


def test_the_matched_network_has_as_many_parameters():
    matched, deformable = size(build("matched", 0)), size(build("2sigmoid", 0))
    assert abs(matched - deformable) < 300
    assert size(build("plain", 0)) < 0.85 * deformable
    assert size(build("mask", 0)) < size(build("2sigmoid", 0))  # offsets learn nothing


# Training


def test_every_arm_sees_the_same_batches(few):
    def epoch(seed, generator=None):
        generator = generator or torch.Generator().manual_seed(seed)
        return [*training.batches(few, TINY, generator)], generator

    first, generator = epoch(0)
    again, _ = epoch(0)
    torch.rand(7)  # the global generator plays no part
    assert all(
        torch.equal(a, b)
        for one, two in zip(first, again, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    assert sorted(torch.cat([b[1] for b in first])) == sorted(few.train_labels)
    labels = torch.cat([b[1] for b in first]).numpy()
    assert not np.array_equal(labels, few.train_labels)  # shuffled
    second, _ = epoch(0, generator)
    assert not torch.equal(first[0][0], second[0][0])
    kept = torch.cat([b[2] for b in first])
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float(kept.mean()) == pytest.approx(1, abs=0.03)  # 12,288 draws


def test_dropout_takes_whole_units():
    network = build("plain", 0)
    x = torch.rand(1, 1, 28, 28)
    kept = torch.ones(1, sum(networks.HIDDEN))
    assert torch.equal(network(x, kept), network(x))
    kept[:, networks.HIDDEN[0] :] = 0  # nothing of the second hidden layer is left
    assert torch.equal(network(x, kept)[0], network.full[2].bias)


@pytest.fixture(scope="module")
def trained(few):
    return {arm: train(arm, 0, TINY, few) for arm in ("plain", "2sigmoid", "mask")}


def test_the_same_seed_gives_the_same_curve(few, trained):
    again, network = train("2sigmoid", 0, TINY, few)
    run, _ = trained["2sigmoid"]
    assert (run.train_loss, run.test_loss) == (again.train_loss, again.test_loss)
    other, _ = train("2sigmoid", 1, TINY, few)
    assert run.train_loss != other.train_loss
    assert all(p.isfinite().all() for p in network.parameters())


def test_what_learns(trained):
    run, network = trained["2sigmoid"]
    start = build("2sigmoid", 0).state_dict()
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, start[n])}
    assert moved == {name for name, _ in network.named_parameters()}
    assert run.offset[-1] > 0
    mask, network = trained["mask"]
    assert mask.offset == [0, 0]
    assert not any(layer.offset.weight.any() for layer in deform_layers(network))
    assert trained["plain"][0].offset == []


def test_loss_and_accuracy_are_those_of_the_network(few, trained):
    run, network = trained["plain"]
    x, t = training.test_set(few, TINY)
    with torch.no_grad():
        y = network(x)
    loss = torch.nn.functional.cross_entropy(y, t)
    assert run.test_loss[-1] == pytest.approx(float(loss), rel=1e-5)
    assert run.accuracy[-1] == int((y.argmax(1) == t).sum()) / len(t)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_give_the_curve_of_one(tmp_path):
    """Two processes, the same global batches (64, 64 and 22 digits).

    Only the order of sums differs, in float32. Losses agree within 1e-4 of their
    value. Adam divides gradients by their size, those of the branches start near
    its epsilon, and so offsets agree within 5 %.
    """
    arguments = ["demo", "rotated-digits", "--train", "150", "--test", "40", "--epochs",
                 "2", "--seeds", "1", "--arms", "2sigmoid", "--out"]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
               f"--master-port={free_port()}", "-m", "refdcn", *arguments]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = subprocess.run(
        [*torchrun, str(tmp_path / "two")], capture_output=True, text=True, cwd=ROOT,
        timeout=300, env=environment,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert cli.main([*arguments, str(tmp_path / "one")]) == 0
    (a,), (b,) = (report.load(tmp_path / n / report.RUNS) for n in ("one", "two"))
    assert (a.processes, b.processes) == (1, 2)
    for name in ("train_loss", "test_loss"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-4)
    assert b.accuracy == pytest.approx(a.accuracy, abs=1 / 40)
    assert b.offset == pytest.approx(a.offset, rel=0.05)


@pytest.mark.parametrize("world", [2, 3])
def test_averaged_gradients_of_shares_are_those_of_the_batch(few, world):
    """In float64, where nothing but a wrong scale can differ; 22 digits are uneven."""
    batch = next(training.batches(few.first(22, 1), TINY, torch.Generator()))
    batch = batch[0].double(), batch[1], batch[2].double()

    def gradients(team):
        network = build("2sigmoid", 0).double()
        training.learn(network, torch.optim.SGD(network.parameters(), 0.0), batch, team)
        return [p.grad for p in network.parameters()]

    whole = gradients(Team())
    shares = [gradients(Team(rank, world)) for rank in range(world)]
    for wanted, *parts in zip(whole, *shares, strict=True):
        torch.testing.assert_close(sum(parts) / world, wanted, rtol=1e-9, atol=1e-12)


def test_shares_are_the_batch():
    batch = torch.arange(7)
    shares = [Team(rank, 3).share(batch) for rank in range(3)]
    assert torch.equal(torch.cat(shares), batch)


# Measures


def test_seconds_are_of_the_one_thread_that_trains():
    with training.limited_threads(1):
        assert Team().clock() == "processor"
        assert Team(world=2).clock() == Team(device="cuda:0").clock() == "wall"
    with training.limited_threads(2):
        assert Team().clock() == "wall"
    page = report.page([made("plain", 0, [0.5] * 4)], None)
    assert report.CLOCKS["wall"] in page and report.CLOCKS["processor"] not in page


def test_radius():
    field = torch.zeros(28, 28)
    field[13, 13] = field[14, 14] = 0.5  # the middle position's pixel is (13.5, 13.5)
    assert measures.radius(field) == pytest.approx(0.5**0.5)
    field = torch.zeros(28, 28)
    field[13, 3] = 1
    assert measures.radius(field) == pytest.approx((0.5**2 + 10.5**2) ** 0.5)


def test_receptive_field_lies_within_what_the_network_can_see():
    network = build("plain", 0)
    field = measures.receptive_field(network, torch.rand(4, 1, 28, 28))
    assert float(field.sum()) == pytest.approx(1)
    # 5 positions of 4 pixels, and 3 more to either side: conv 2 on 2 pixels, conv 1.
    assert not field[:1].any() and not field[27:].any()
    assert field[13].any()


def test_taps_and_ink():
    network = build("2sigmoid", 0)
    images = torch.zeros(2, 1, 28, 28)
    images[:, :, 5:7] = 1  # row 1 of the positions is at 5.5
    layer = deform_layers(network)[-1]
    layer.offset.bias.data[0::2] = 1.0  # one position down
    seen = measures.taps(network, images)
    assert torch.equal(seen.moved[1][0, :, 0], seen.rest[1][:, 0] + 1)
    assert torch.equal(seen.moved[1][0, :, 1], seen.rest[1][:, 1])
    rest = seen.rest[1].expand_as(seen.moved[1])
    # Of 9 * 49 taps those on row 1: 3 of 21 by row, 19 of 21 by column inside.
    assert measures.ink(images, rest) == pytest.approx(3 / 21 * 19 / 21)
    assert measures.ink(images, seen.moved[1]) == pytest.approx(2 / 21 * 19 / 21)
    places, weights = measures.trace(seen, 0, 3, 3)
    assert places.shape == (81, 2) and bool((weights == 1).all())
    assert places[40].tolist() == [4 * 4 + 1.5, 4 * 3 + 1.5]  # the middle one, down


def test_measures_of_a_plain_network():
    images = torch.rand(2, 1, 28, 28)
    assert measures.measures(build("plain", 0), images).keys() == {"radius"}
    found = measures.measures(build("2sigmoid", 0), images)
    assert found.keys() == {"radius", "ink", "ink_at_rest", "mask"}
    assert found["ink"] == found["ink_at_rest"] and found["mask"] == 1


# The page


def made(arm, seed, accuracy, **kwargs):
    n = len(accuracy)
    return Run(
        arm, seed, TINY, 100, 1, [1.0] * n, [1.0] * n, accuracy, [2.0] * n, **kwargs
    )


def test_differences_are_taken_seed_by_seed():
    runs = [made("plain", s, [0.1, 0.2 + s / 10]) for s in range(3)]
    runs += [made("2sigmoid", s, [0.1, 0.3 + s / 10]) for s in (1, 2, 7)]
    assert report.differences(runs, "2sigmoid", "plain", report.early) == [0, 0]
    last = report.differences(runs, "2sigmoid", "plain", report.final)
    assert last == pytest.approx([5, 5])  # the mean of both epochs


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([5.0, 6.0], "too few seeds to say"),
        ([1.0, 1.1, 0.9], "ahead"),
        ([-1.0, -1.1, -0.9], "behind"),
        ([1.0, 3.0, -2.0], "within noise"),
        ([0.0, 0.0, 0.0], "within noise"),
    ],
)
def test_verdict(values, text):
    assert report.verdict(values) == text


def test_the_page_says_where_the_claim_fails():
    runs = [made("plain", s, [0.5, 0.80 + s / 100]) for s in range(5)]
    runs += [made("matched", s, [0.5, 0.90 + s / 100]) for s in range(5)]
    runs += [made("2sigmoid", s, [0.6, 0.75 + s / 100]) for s in range(5)]
    page = report.page(runs)
    assert "Seeds: 0, 1, 2, 3, 4, all arms" in page
    line = "- *deformable, dm = 1 at the start* against *plain"
    final = "final -2.5 ± 0.0 points, behind (higher in 0 of 5 seeds)."
    early = "early 10.0 ± 0.0 points, ahead (higher in 5 of 5 seeds); "
    assert f"{line}*: {early}" in page
    assert f"{line}, as many parameters*: {early}{final}" in page
    assert "| plain | 100 | 50.0 ± 0.0 | 66.0 ± 0.8 |  | -5.0 ± 0.0 | 2.0 |" in page


def test_the_page_says_how_long_a_level_takes():
    """Where some runs never reach it, or none does, it says so."""
    runs = [made("plain", s, [0.5, 0.80, 0.91 + s / 100]) for s in range(3)]
    runs += [made("2sigmoid", s, [0.9, 0.95, 0.90]) for s in range(2)]
    runs += [made("2sigmoid", 2, [0.6, 0.80, 0.94])]
    runs += [made("matched", s, [0.1, 0.2, 0.3]) for s in range(1)]
    page = report.page(runs)
    assert "| epochs (and seconds) to | 85 % | 90 % | 92 % |" in page
    assert (
        "| plain | 3.0 ± 0.0 (6 s) | 3.0 ± 0.0 (6 s) | 3.0 ± 0.0 (6 s), 2 of 3" in page
    )
    assert "| 1.7 ± 1.2 (3 s) | 1.7 ± 1.2 (3 s) | 2.3 ± 0.6 (5 s) |" in page
    assert "| plain, as many parameters | never | never | never |" in page


def test_titles_tell_settings_apart():
    keys = {"lr": 2e-3, "offset_rate": 0.1, "degrees": 45, "train": 100, "epochs": 3}
    changed = [Settings(), *(Settings(**{k: v}) for k, v in keys.items())]
    assert len({report.title(settings) for settings in changed}) == len(changed)
    paths = {command.model_path(Path(), s, "plain") for s in changed}
    assert len(paths) == len(changed)


def test_runs_are_read_as_they_were_written(tmp_path, trained):
    path = tmp_path / report.RUNS
    for arm in ("plain", "2sigmoid"):
        report.append(path, trained[arm][0])
    report.append(path, copy.replace(trained["plain"][0], parameters=5)
                  if hasattr(copy, "replace") else trained["plain"][0])  # fmt: skip
    found = report.load(path)
    assert [run.arm for run in found] == ["plain", "2sigmoid"]
    assert found[0].settings == TINY
    assert found[1].test_loss == pytest.approx(trained["2sigmoid"][0].test_loss, 1e-4)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """`--quick` as it stands, about 20 s."""
    out = tmp_path_factory.mktemp("quick")
    arguments = ["demo", "rotated-digits", "--quick", "--out", str(out)]
    assert cli.main(arguments) == 0
    return out, arguments


def test_quick_learns_and_writes(quick):
    """No ranking: one seed of few digits shows none."""
    out, _ = quick
    runs = {run.arm: run for run in report.load(out / report.RUNS)}
    assert set(runs) == {"plain", "2sigmoid", "sigmoid"}
    for arm, run in runs.items():
        assert run.train_loss[-1] < 0.97 * run.train_loss[0], arm
        assert run.parameters == size(build(arm, 0))
    for arm in ("2sigmoid", "sigmoid"):
        assert runs[arm].offset[-1] > 0.001
        assert 0 <= runs[arm].outside[-1] < 1
    rows = (out / report.CURVES).read_text().splitlines()
    assert len(rows) == 1 + 3 * 6
    page = (out / report.PAGE).read_text(encoding="utf-8")
    assert "too few seeds to say" in page
    pictures = [p for p in out.iterdir() if p.suffix == ".png"]
    assert {p.stem for p in pictures} == {"curves_1", "points_1", "fields_1"}
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in pictures)
    assert all(f"]({p.name})" in page for p in pictures)


def test_runs_that_are_there_are_not_made_again(quick):
    out, arguments = quick
    before = (out / report.RUNS).read_bytes()
    page = (out / report.PAGE).read_bytes()
    assert cli.main(arguments) == 0
    assert (out / report.RUNS).read_bytes() == before
    assert (out / report.PAGE).read_bytes() == page
    lines = before.splitlines(keepends=True)
    (out / report.RUNS).write_bytes(b"".join(lines[:-1]))  # stopped before the last one
    assert cli.main(arguments) == 0
    again = [json.loads(line) for line in (out / report.RUNS).read_text().splitlines()]
    assert again[-1]["accuracy"] == json.loads(lines[-1])["accuracy"]


def test_unknown_arms_are_named(capsys):
    assert cli.main(["demo", "rotated-digits", "--arms", "plane"]) == 2
    assert "--arms: no plane; there are plain, matched" in capsys.readouterr().err


# The contestants of --against torchvision


def test_contestants_differ_in_the_operator_alone():
    from refdcn.demo.benchmark import contestants

    teams = contestants()
    ours, theirs = teams["refdcn"], teams["torchvision"]
    for team in (ours, theirs):
        batches = training.batches(team.digits, team.settings, torch.Generator())
        for _, batch in zip(range(3), batches, strict=False):
            team.losses.append(
                training.learn(team.network, team.optimizer, batch, Team())
            )
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    names = {n.__name__ for n in map(type, deform_layers(theirs.network))}
    assert names == {"OnTorchvision"}


def test_the_results_page_is_that_of_the_runs():
    folder = ROOT / "docs" / "rotated_digits"
    runs = report.load(folder / report.RUNS)
    page = (folder / report.PAGE).read_text(encoding="utf-8")
    assert page == report.page(runs, folder)
    # The claim's arms have seeds enough to speak of, on the small set.
    small = next(m for s, m in report.groups(runs).items() if s.train == 5000)
    assert set(report.CLAIM) <= {run.arm for run in small}
    for picture in folder.glob("*.png"):
        assert f"]({picture.name})" in page


def test_the_benchmark_prints_each_contestant_and_a_ratio(monkeypatch, capsys):
    """What it measures is for no test to judge."""
    from refdcn.demo import benchmark

    steps = -(-len(digits.embedded().train_labels) // Settings().batch)
    assert (benchmark.ROUNDS + 1) * benchmark.STEPS <= steps
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    monkeypatch.setattr(benchmark, "STEPS", 1)
    assert cli.main(["demo", "rotated-digits", "--against", "torchvision"]) in (0, 1)
    printed = capsys.readouterr().out
    for text in (
        "refdcn  ",
        "torchvision  ",
        "no deformation",
        "round by round: median",
    ):
        assert text in printed
