"""The benchmark: turns, bookkeeping, what is compared; never how long it takes."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import refdcn
from refdcn import cli, shapes
from refdcn.bench import contestants, fresh, growth, models, parts, report, tables
from refdcn.bench.aims import aims, mean_aim, worst_aim
from refdcn.bench.contestants import INPUTS, MAKERS, SkippedError, Task, WrongError
from refdcn.bench.options import AGAINST, DIRECTIONS, QUICK, TABLE
from refdcn.bench.progress import Progress
from refdcn.bench.records import Record, Timing
from refdcn.bench.run import Options
from refdcn.bench.timing import Entrant, interleave, order, ratio
from refdcn.bench.workload import (
    arrays,
    column_bytes,
    memory_limit,
    moved_bytes,
    parse,
    product_flops,
    sampling_flops,
)
from refdcn.machine import machine

WINDOW = ("stride", "padding", "dilation")


@pytest.fixture(autouse=True)
def threads_as_before():
    before = refdcn.get_num_threads()
    yield
    refdcn.set_num_threads(before)


# --- Turns ---------------------------------------------------------------------------


class Machine:
    """A clock that calls move: each entrant has a cost, which changes by the moment."""

    def __init__(self, *costs):
        self.now, self.log, self.slow = 0.0, [], 1.0
        self.entrants = [
            Entrant(f"e{i}", 1, lambda i=i, c=c: self.call(i, c), self.before(i))
            for i, c in enumerate(costs)
        ]

    def before(self, i):
        return lambda: self.log.append(("turn", i))

    def call(self, i, cost):
        self.log.append(("call", i))
        self.now += cost * self.slow

    def rest(self):
        self.log.append(("rest",))

    def run(self, repeat=6, seconds=1e9):
        clock = {"clock": lambda: self.now, "rest": self.rest}
        return interleave(self.entrants, repeat, seconds, **clock)


def test_all_take_one_turn_in_every_round():
    machine = Machine(0.1, 0.2, 0.3)
    rounds = machine.run(repeat=6)
    turns = [entry[1] for entry in machine.log if entry[0] == "turn"]
    first, turns = turns[:3], turns[3:]  # an estimate of each comes first
    assert first == [0, 1, 2]
    by_round = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert all(sorted(taken) == [0, 1, 2] for taken in by_round)
    assert {taken[0] for taken in by_round} == {0, 1, 2}
    after = {pair for taken in by_round for pair in zip(taken, taken[1:], strict=False)}
    assert len(after) == 6  # everyone comes at times right after each other one
    assert [len(r) for r in rounds] == [6, 6, 6]
    assert [r[0] for r in rounds] == [pytest.approx([c]) for c in (0.1, 0.2, 0.3)]


def test_a_turn_warms_up_and_rests():
    machine = Machine(0.004, 0.2)
    rounds = machine.run(repeat=1)
    # Estimates: two calls each. Then 0.004 s: one untimed, and timed ones for 10 ms.
    calls = [entry for entry in machine.log if entry == ("call", 0)]
    assert len(calls) == 2 + 1 + 3
    assert len(rounds[0][0]) == 3
    # A call of 0.2 s needs no warming up.
    assert machine.log.count(("call", 1)) == 2 + 1
    assert machine.log.count(("rest",)) == machine.log.count(("turn", 0)) * 2 == 4


def test_a_slow_entrant_takes_fewer_turns_but_one():
    machine = Machine(0.1, 0.4, 5.0)
    rounds = machine.run(repeat=5, seconds=1.0)
    assert [[len(calls) for calls in r] for r in rounds] == [
        [1, 1, 1, 1, 1],
        [1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
    ]
    assert machine.log.count(("call", 2)) == 2  # its first call said enough


def test_order_is_a_permutation():
    for count in range(1, 6):
        for r in range(7):
            assert sorted(order(r, count)) == list(range(count))


def test_ratios_pair_the_rounds():
    """What slows a whole round cancels; rounds that one sat out do not count."""
    a = [[2.0, 2.0], [20.0], [2.0], [200.0, 200.0, 200.0]]
    b = [[1.0], [10.0, 10.0, 90.0], [], [100.0]]
    assert ratio(a, b) == 2.0
    assert ratio(b, a) == 0.5


# --- Workloads -----------------------------------------------------------------------


@pytest.mark.parametrize("text", [*TABLE, *QUICK])
def test_workloads_are_named_and_parsed(text):
    assert str(parse(text)) == text
    assert parse(text.replace("->", ":")) == parse(text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("1x64x56->64", "wanted NxCxHxW->C_out"),
        ("1x64x56x56->64,q2", "wanted NxCxHxW->C_out"),
        ("1x64x0x56->64", "no size may be 0"),
        ("1x64x1x1->64,k4", "nor y be empty"),
        ("1x6x8x8->8,g4", "must divide 6 channels"),
        ("1x6x8x8->8,og4", "must divide 6 channels"),
        ("1x8x8x8->6,g4", "6 of y"),
    ],
)
def test_malformed_workloads(text, said):
    with pytest.raises(ValueError, match="shape is '.*" + said):
        parse(text)


@pytest.mark.parametrize("text", [*QUICK, "2x4x7x5->6,k4,d2", "1x4x9x6->2,k5,s3"])
def test_inputs_are_what_the_operator_takes(text):
    workload = parse(text)
    given = arrays(workload, "float64")
    grad_y = given.pop("grad_y")
    y = refdcn.deform_conv2d(**given, **Task(workload, given, "forward", 1).window)
    assert y.shape == grad_y.shape == workload.shapes["y"]
    assert y.dtype == np.float64
    sizes = {name: a.shape for name, a in given.items()} | {"y": y.shape}
    assert sizes == workload.shapes


@pytest.mark.parametrize("text", QUICK)
def test_floors_count_what_the_sums_do(text):
    """Counted one by one, from Eq. (1) and (2)."""
    w = parse(text)
    given = arrays(w, "float32")
    y = given.pop("grad_y")
    given_shapes = [given[n].shape for n in ("x", "offset", "weight", "mask", "bias")]
    g = shapes.geometry(*given_shapes, w.stride, w.padding, w.dilation)
    product = samples = 0
    for _ in np.ndindex(g.N, g.H_out, g.W_out, g.K_h, g.K_w):
        samples += g.C_in
        product += g.C_out * (g.C_in // g.groups)
    assert product_flops(w) == 2 * product
    assert sampling_flops(w) == 2 * 4 * samples
    assert column_bytes(w, "float64") * w.N == 8 * samples
    held = sum(a.nbytes for a in given.values()) + y.nbytes
    assert moved_bytes(w, "float32") == held


def test_memory_limit_is_whatever_the_batch():
    one, many = parse("1x64x56x56->64"), parse("32x64x56x56->64")
    image, weight = 4 * 64 * 59 * 58, 4 * 64 * 64 * 9
    for threads in (1, 2):
        forward = image + 8_000_000 * threads
        assert memory_limit(one, "float32", threads, "forward") == forward
        assert memory_limit(many, "float32", threads, "forward") == forward
        both = forward + image + weight * threads
        assert memory_limit(one, "float32", threads, "training") == both


# --- Contestants ---------------------------------------------------------------------


def task(direction="forward", threads=1, text=QUICK[0]):
    workload = parse(text)
    return Task(workload, arrays(workload, "float32"), direction, threads)


def test_every_contestant_can_be_named():
    assert {"refdcn", *AGAINST} == set(MAKERS)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SkippedError, match="onnxruntime is not installed"):
        MAKERS["onnxruntime"](task())


@pytest.mark.parametrize("text", QUICK)
def test_refdcn_returns_what_is_checked(text):
    y, *grads = MAKERS["refdcn"](task("training", text=text))()
    assert [g.shape for g in grads] == [
        parse(text).shapes[n] for n in ("x", "offset", "weight", "mask", "bias")
    ]
    assert y.tobytes() == MAKERS["refdcn"](task(text=text))()[0].tobytes()


def test_product_multiplies_all_pixels(monkeypatch):
    monkeypatch.setattr(contestants, "TILE_BYTES", 4 * 72 * 7)  # 7 outputs a tile
    widths = []
    real = np.matmul
    record = lambda a, b, out: widths.append((a.shape, b.shape)) or real(a, b, out=out)  # noqa: E731
    monkeypatch.setattr(contestants.np, "matmul", record)
    MAKERS["product"](task())()
    assert sum(b[-1] for _, b in widths) == 90
    flops = sum(2 * math.prod(a) * b[-1] for a, b in widths)
    assert flops == product_flops(parse(QUICK[0]))
    widths.clear()
    MAKERS["product"](task("training"))()
    flops = sum(2 * math.prod(a) * b[-1] for a, b in widths)
    assert flops == 3 * product_flops(parse(QUICK[0]))


@pytest.mark.torch
@pytest.mark.parametrize("text", QUICK)
def test_dense_is_the_convolution_of_the_same_sizes(text):
    """With offsets 0 and masks 1 the deformable convolution is the plain one."""
    plain = task("training", text=text)
    plain.arrays["offset"][:], plain.arrays["mask"][:] = 0, 1
    for a, b in zip(MAKERS["dense"](plain)(), MAKERS["refdcn"](plain)(), strict=True):
        if a is not None:
            error = float(np.abs(np.asarray(a) - b).max())
            assert error <= 1e-5 * float(np.abs(b).max())


@pytest.mark.torch
def test_torchvision_must_be_its_own_kernel():
    from refdcn.torch import accelerate_torchvision

    MAKERS["torchvision"](task())
    with accelerate_torchvision(), pytest.raises(WrongError, match="another kernel"):
        MAKERS["torchvision"](task())


# --- Fresh processes -----------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_sees_what_a_call_touches_and_frees():
    """A peak of 50 MB, 20 of them results; the kernel counts pages in batches."""
    code = """
import json
import numpy as np
from refdcn.bench import child, contestants
higher = np.ones(200_000_000, np.uint8)  # an earlier peak, which must be forgotten
del higher
def maker(task):
    if str(task.workload) in child.WARM:
        return lambda: ()
    def call():
        held = np.ones(50_000_000, np.uint8)
        del held
        held = np.ones(30_000_000, np.uint8)
        return np.ones(20_000_000, np.uint8), None
    return call
contestants.MAKERS["fake"] = maker
print(json.dumps(child.memory("fake", "1x2x2x2->2", "float32", "forward", 1)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer["results"] == 20_000_000
    assert 29_000_000 <= answer["bytes"] <= 31_000_000


def test_a_call_is_measured_against_its_products():
    answer = fresh.child(
        "against_products", {"shape": QUICK[0], "dtype": "float32", "repeat": 2}
    )
    assert answer["ratio"] > 0 and answer["refdcn"] > 0 < answer["product"]


PARTED = "3x16x20x24->16,g2,og2", "2x2x9x10->8", "1x64x3x3->64"  # each strategy


def parted(text):
    """(samples, products) of the forward call, and of the gradients."""
    given = task("training", text=text)
    window = given.window.values()
    g = shapes.geometry(*(given.arrays[name].shape for name in INPUTS), *window)
    return parts.forward_parts(given, g), parts.gradient_parts(given, g)


@pytest.mark.parametrize("text", PARTED)
def test_samples_alone_fill_the_columns(text):
    for samples, _ in parted(text):
        call, _, room = samples.args
        call.offset[:], call.mask[:], room.columns[:] = 0, 1, 0
        samples()
        # An offset of 0 samples a pixel, and all of the image are of one value.
        inside = room.columns[room.columns != 0]
        assert inside.size and np.allclose(inside, room.image[0], rtol=1e-6)


@pytest.mark.parametrize("text", PARTED)
def test_products_alone_add_up_all_terms(text):
    w = parse(text)
    (_, products), (_, of_gradients) = parted(text)
    call, cut, room = products.args
    products()
    if len(room.w) > 64:  # by rows: all tiles and images are added up in one place
        tiles = -(-cut.pixels // cut.P)
        wanted = 1e-3 + w.N * tiles * cut.C * w.K * 1e-6
        assert room.product[0] == pytest.approx(wanted, rel=1e-4)
    else:  # into y
        weight = call.weight.reshape(w.C_out, -1).sum(1)
        wanted = np.tile(np.repeat(1e-3 * weight, math.prod(w.output)), w.N)
        assert np.allclose(call.y, wanted, rtol=1e-4, atol=1e-6)
    call, cut, room = of_gradients.args
    of_gradients()
    wanted = 1e-3 + w.N * cut.sizes.pixels * 1e-6
    assert room.grad_w[0] == pytest.approx(wanted, rel=1e-4)


def test_multiply_adds_in_registers_are_made():
    numbers = np.full(64, 1e-3, np.float32)
    parts.chains(numbers, 100)  # each chain ends at x = x / 1000 + 1 / 1000
    assert numbers[0] == pytest.approx(8 / 999, rel=1e-5)
    assert 0 < parts.rate("float32") < math.inf


def test_a_child_measures_and_a_failing_one_is_heard():
    given = {"contestant": "refdcn", "shape": fresh.TINY, "dtype": "float32"}
    answer = fresh.child("overhead", given | {"calls": 20})
    assert 0 < answer["min"] <= answer["median"] <= answer["max"] < answer["process"]
    with pytest.raises(fresh.ChildError, match="KeyError: 'nobody'"):
        fresh.child("overhead", given | {"contestant": "nobody", "calls": 20})


@pytest.mark.whole
def test_a_read_only_installation_works():
    answer = fresh.read_only()
    assert answer["copied"]
    assert answer["written"] == []
    assert answer["error"] <= 1e-5  # of float32 sums of 576 terms


def test_the_competitor_runs_meanwhile_and_no_longer():
    with fresh.competitor(True) as process:
        assert process.poll() is None
    assert process.poll() is not None
    with fresh.competitor(False) as process:
        assert process is None


# --- Aims ----------------------------------------------------------------------------


def timing(contestant, seconds, threads=1, shape=TABLE[0], direction="forward"):
    rounds = [[second] for second in seconds]
    return Timing(shape, "float32", direction, "quiet", contestant, threads, rounds)


def test_the_mean_is_geometric_and_paired():
    record = Record({}, timings=[
        timing("refdcn", [2, 20, 200]), timing("dense", [1, 10, 100]),
        timing("refdcn", [1, 1, 1], shape=TABLE[1]),
        timing("dense", [2, 2, 2], shape=TABLE[1]),
    ])  # fmt: skip
    ours = record.select(contestant="refdcn")
    aim = mean_aim(record, "", ours, 1.0)
    assert aim.measured.startswith("1.00 (at most 2.00, 1x64x56x56->64;")
    assert aim.reached is True
    assert mean_aim(record, "", ours, 0.99).reached is False
    assert mean_aim(record, "", [], 1.0).reached is None


def test_an_aim_against_someone_missing_stays_open():
    record = Record({}, timings=[timing("refdcn", [1, 1]), timing("dense", [2, 2])])
    ours = record.select(contestant="refdcn")
    assert worst_aim(record, "", ours, ["dense"], 1.0).reached is True
    half = worst_aim(record, "", ours, ["dense", "openvino"], 1.0)
    assert half.reached is None
    assert half.measured.endswith("not measured: openvino")
    assert worst_aim(record, "", ours, ["dense", "openvino"], 0.4).reached is False
    assert worst_aim(record, "", ours, ["openvino"], 1.0).reached is None


def found(record, text):
    (aim,) = [aim for aim in aims(record) if text in aim.text]
    return aim


@pytest.mark.parametrize(
    "shape, limit",
    [("1x64x9x9->4", "one group"), ("1x8x9x9->8,g4,og4", "groups, at most 1.50"),
     ("1x3x9x9->4", "C_in = 3")],
)  # fmt: skip
def test_the_price_of_dense_is_by_kind(shape, limit):
    timings = [timing("refdcn", [9], shape=shape), timing("dense", [3], shape=shape)]
    judged = [a for a in aims(Record({}, timings=timings)) if "x dense" in a.text]
    assert [a.text for a in judged if a.reached is False] == [
        a.text for a in judged if limit in a.text and "forward" in a.text
    ]


def test_many_groups_are_held_against_torchvision():
    shape, text = "1x8x9x9->8,g8", "forward float32, 1 thread: more groups"
    timings = [timing("refdcn", [1], shape=shape), timing("dense", [0.1], shape=shape)]
    assert found(Record({}, timings=timings), text).reached is None
    for seconds, reached in ((3.1, True), (2.9, False)):
        other = timing("torchvision", [seconds], shape=shape)
        assert found(Record({}, timings=[*timings, other]), text).reached is reached


@pytest.mark.parametrize(
    "load, one, wanted",
    [("quiet", 2e-3, 1.7), ("quiet", 7e-4, 1.3), ("quiet", 1e-4, 0.95),
     ("busy", 2e-3, 0.95)],
)  # fmt: skip
def test_scaling_is_two_threads_against_one(load, one, wanted):
    for gain, reached in ((wanted * 1.01, True), (wanted * 0.99, False)):
        pair = timing("refdcn", [one]), timing("refdcn", [one / gain], threads=2)
        timings = [replace(t, load=load) for t in pair]
        judged = [
            a for a in aims(Record({}, timings=timings)) if "2 threads at" in a.text
        ]
        assert [a.reached for a in judged if a.reached is not None] == [reached]


def test_other_aims():
    record = Record({})
    assert {aim.reached for aim in aims(record)} == {None}
    given = {"shape": TABLE[0], "dtype": "float32", "threads": 1}
    given |= {"contestant": "refdcn", "direction": "forward"}
    record.memory = [given | {"bytes": 8_000_000}]
    assert found(record, "forward: memory").reached is True
    record.memory += [given | {"bytes": 9_000_000}]
    assert found(record, "forward: memory").reached is False
    record.overhead["refdcn"] = {"median": 50e-6}
    assert found(record, "under 40 us").reached is False
    record.many = {"ratio": 2.9}
    assert found(record, "cost of its products").reached is True
    record.first_calls["filled cache"] = {"forward": 0.5}
    assert found(record, "filled cache").reached is True
    answer = {"copied": True, "written": [], "error": 1e-7, "forward": 3.0}
    record.first_calls["read-only"] = answer
    assert found(record, "read-only").reached is True
    record.first_calls["read-only"] = answer | {"error": math.nan}
    assert found(record, "read-only").reached is False
    record.same_bits = {"a": True, "b": False}
    assert found(record, "same bits").measured == "differ: b"
    assert found(record, "same bits").reached is False


def test_times_on_a_busy_machine_are_doubtful():
    busy = {"load average before": 2.0, "cores": 2}
    record = Record(busy, overhead={"refdcn": {"median": 1e-6}}, same_bits={"a": True})
    assert found(record, "under 40 us").verdict == "reached?"
    assert found(record, "same bits").verdict == "reached"
    busy["load average before"] = 0.1
    assert found(record, "under 40 us").verdict == "reached"


# --- The command ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Text, progress and JSON of a quick run of refdcn alone, in a process."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, "-m", "refdcn", "bench", "--quick", "--against="]
    run = subprocess.run(
        [*command, "--busy", "--json", file], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout, run.stderr, json.loads(file.read_text())


def test_every_shape_is_timed_in_every_way(quick):
    text, progress, whole = quick
    names = ("shape", "direction", "load", "threads")
    seen = [tuple(t[name] for name in names) for t in whole["timings"]]
    assert sorted(seen) == sorted(
        (shape, direction, load, threads)
        for shape in QUICK
        for direction in DIRECTIONS
        for load in ("busy", "quiet")
        for threads in (1, 2)
    )
    for t in whole["timings"]:
        assert len(t["rounds"]) == 3
        assert all(calls and min(calls) > 0 for calls in t["rounds"])
    assert progress.splitlines()[-1].startswith("[14/14]")
    for shape in QUICK:
        assert f"\n{shape}\n" in text


def test_bits_and_aims_are_reported(quick):
    text, _, whole = quick
    assert len(whole["same_bits"]) == len(QUICK) * len(DIRECTIONS)
    assert all(whole["same_bits"].values())
    assert whole["overhead"]["refdcn"]["median"] > 0
    (bits,) = [aim for aim in whole["aims"] if "same bits" in aim["text"]]
    assert bits["verdict"] == "reached"
    for aim in whole["aims"]:
        assert f"{aim['text']}: {aim['measured']}" in text


def run_command(capsys, *arguments):
    code = cli.main(["bench", *arguments])
    return code, *capsys.readouterr()


def test_a_malformed_shape_is_refused(capsys):
    code, out, err = run_command(capsys, "--shapes", "1x2x3")
    assert (code, out) == (2, "")
    assert "shape is '1x2x3'" in err


@pytest.mark.parametrize("arguments", [["--against", "a,dense"], ["--threads", "0"]])
def test_unknown_arguments_are_refused(capsys, arguments):
    with pytest.raises(SystemExit):
        run_command(capsys, *arguments)
    assert "there are" in (err := capsys.readouterr().err) or "wanted an int" in err


@pytest.mark.parametrize(
    "results", [lambda y: (y + 1e-2,), lambda y: (y * np.nan,), lambda y: (y[:, 1:],)]
)
def test_who_computes_something_else_is_not_timed(capsys, monkeypatch, results):
    monkeypatch.setitem(
        MAKERS, "openvino", lambda task: lambda: results(MAKERS["refdcn"](task)()[0])
    )
    code, out, err = run_command(
        capsys, "--quick", "--against", "openvino", "--direction", "forward"
    )
    assert (code, out) == (1, "")
    assert "openvino computes another y than refdcn (1x8x9x10->16, float32)" in err


def test_who_is_missing_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    arguments = ("--quick", "--against", "openvino", "--direction", "forward")
    code, out, _ = run_command(capsys, *arguments)
    assert code == 0
    assert "skipped: openvino, forward float32: openvino is not installed" in out


@pytest.mark.torch
def test_the_torch_contestants_and_the_tables(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    few = {
        axis: (fields, values[:2]) for axis, (fields, values) in growth.SWEEPS.items()
    }
    monkeypatch.setattr(growth, "SWEEPS", few)
    monkeypatch.setattr(growth, "BASE", parse("1x4x7x7->4"))
    against = "refdcn.torch,dense,product,torchvision"
    arguments = ["--quick", "--threads", "1", "--against", against]
    arguments += ["--plot", str(tmp_path / "out")]
    code, out, _ = run_command(capsys, *arguments)
    assert code == 0
    for name in against.split(","):
        assert f"\n  {report.NAMES.get(name, name)} " in out
    written = (tmp_path / "out" / "tables.inc").read_text()
    assert written.count(f"| `{QUICK[0]}` |") == 5  # forward, training, parts, floor
    assert "### What a call is made of: forward, one thread" in written
    assert "what a call is made of" in out
    answer = (tmp_path / "out" / "answer.inc").read_text()
    assert "| forward: times as fast as torchvision | " in answer
    assert (tmp_path / "out" / "growth.png").read_bytes().startswith(b"\x89PNG")


# --- The answer in short -------------------------------------------------------------


def test_the_answer_is_what_a_user_asks_first():
    shapes = "1x64x9x9->4", "1x128x9x9->4", "1x8x9x9->8,g8"
    costs = {"refdcn": 2e-3, "dense": 1e-3, "torchvision": 8e-3}
    timings = [
        timing(name, [cost / n], threads=n, shape=shape)
        for shape in shapes
        for name, cost in costs.items()
        for n in (1, 2)
    ]
    timings[5] = timing("torchvision", [16e-3], threads=2, shape=shapes[0])
    names = ["plain", "deformable", "torchvision", "accelerated", "watched"]
    nets = [
        timing(n, [s], shape="net") for n, s in zip(names, [4, 5, 9, 6, 6], strict=True)
    ]
    record = Record({}, timings=timings, models=nets)
    assert list(tables.answer(record))[2:] == [
        "| forward: times as fast as torchvision | 4.00 to 4.00, median 4.00 "
        "| 4.00 to 16.0, median 4.00 |",
        "| forward: times the dense convolution's time, from 64 channels on "
        "| 2.00 | 2.00 |",
        "| forward: times as fast as on one thread, from 1 ms on | - | 2.00 |",
        "| ResNet-50, forward: times the plain network's time | 1.25 |",
        "| ResNet-50, forward: of the time on torchvision's operator, by "
        "accelerate_torchvision() | 0.67 |",
        "| ResNet-50, forward: times the time without OffsetStatistics | 1.20 |",
    ]


# --- Whole models --------------------------------------------------------------------


@pytest.mark.torch
def test_whole_models_are_timed_on_both_kernels(monkeypatch):
    from refdcn.torch import torchvision_is_native

    for name, value in (("SIZE", 32), ("REPEAT", 1), ("SECONDS", 0.01)):
        monkeypatch.setattr(models, name, value)
    natives, use = [], models.Kernels.use

    def watched(kernels, ours):
        use(kernels, ours)
        natives.append((ours, torchvision_is_native()))

    monkeypatch.setattr(models.Kernels, "use", watched)
    record = Record(machine())
    models.measure(record, Options(threads=(1,)), Progress(show=False))
    names = ["plain", "deformable", "torchvision", "accelerated", "watched"]
    assert [t.contestant for t in record.models] == names * 2
    assert {(True, False), (False, True)} == set(natives) and torchvision_is_native()
    said = "\n".join(report.models(record))
    assert said.count("x plain") == 10 and said.count("torchvision's saved") == 2
    text = report.text(record)
    assert "inference, 1 thread: deformable at most 1.25 x the plain one" in text
    assert "inference, 1 thread: watched at most 1.20 x the deformable one" in text


@pytest.mark.torch
def test_a_layer_that_computes_something_else_is_not_timed():
    from refdcn.torch import DeformConv2d

    layer = DeformConv2d(4, 4, 3, padding=1, bias=False, modulation="2sigmoid")
    pack = models.on_torchvision(layer)
    models.check(layer, pack)
    pack.conv.weight.data *= 1.01
    with pytest.raises(WrongError, match="in a layer of 4 channels"):
        models.check(layer, pack)


def test_models_without_torchvision_are_skipped(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    record = Record({})
    models.measure(record, Options(), Progress(show=False))
    assert "is not installed" in record.skipped["whole models"]


# --- Growth --------------------------------------------------------------------------


@pytest.mark.parametrize("axis", growth.SWEEPS)
def test_a_sweep_changes_its_size_alone(axis):
    fields, values = growth.SWEEPS[axis]
    made = dict(growth.sweep(axis))
    assert tuple(made) == values
    for value, workload in made.items():
        parse(str(workload))
        for name, size in workload._asdict().items():
            wanted = value if name in fields else getattr(growth.BASE, name)
            assert size == wanted
    assert growth.BASE in made.values()


def test_the_picture_shows_the_medians(monkeypatch):
    pytest.importorskip("matplotlib")
    timings = [
        Timing(str(w), "float32", direction, "quiet", name, 1, [[c], [2 * c], [9 * c]])
        for direction in DIRECTIONS
        for name, c in (("refdcn", 1e-3), ("dense", 2e-3))
        for w in dict.fromkeys(
            w for axis in growth.SWEEPS for _, w in growth.sweep(axis)
        )
    ]
    panels = growth.picture(timings).axes
    assert len(panels) == 2 * len(growth.SWEEPS)
    for panel, axis in zip(panels, [*growth.SWEEPS] * 2, strict=True):
        ours, dense = panel.lines
        assert tuple(ours.get_xdata()) == growth.SWEEPS[axis][1]
        assert list(ours.get_ydata()) == pytest.approx([2.0] * len(ours.get_xdata()))
        assert list(dense.get_ydata()) == pytest.approx([4.0] * len(ours.get_xdata()))
