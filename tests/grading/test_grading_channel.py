"""Whatever a candidate's side says, and whenever: a verdict comes out, in time.

Thousands of forged, cut, repeated and late replies go through the parser and through
sessions that a script plays over real pipes; some tens of processes are killed at
random moments. What fails where the parser trusts a field is seen to fail.
"""

import json
import os
import random
import signal
import subprocess
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refdcn import formula
from refdcn.grading.expected.case import Sizes
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging import judge
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process import isolation, reply_parser
from refdcn.grading.process.channel import Channel, Silence
from refdcn.grading.process.isolation import Process
from refdcn.grading.process.outcome import CannotStartError
from refdcn.grading.process.reply_parser import (
    REFERENCES,
    SEEN,
    Died,
    Imports,
    Loaded,
    Placed,
    Reply,
    ReplyError,
    Session,
    Started,
    Unloadable,
    Wrote,
    parse,
)
from refdcn.grading.questions.draw import draw_case
from refdcn.grading.words.findings import said

KINDS = Loaded, Unloadable, Session, Died, Reply
CASE = draw_case(
    np.random.default_rng(5), Sizes(1, 1, 1, 1, 1, 1, 1, 2, 2), "float32", ""
)
EXPECTED = Expected(CASE, standard("float32"))
RIGHT = formula.deform_conv2d(*CASE.inputs, **CASE.windows).astype(np.float32)
OWN = "refdcn.formula:deform_conv2d"
TIMEOUT = 0.03  # seconds of a scripted call
JUNK = [
    *(None, True, False, -1, 0, 1, 2, 255, -129, 2**31, 2**53, 2**63, 2**64, 10**30),
    *(1.5, float("nan"), float("inf"), "", "ok", "1", "None", "\ud800", "\x1b[2J"),
    *("x" * 5000, "<f4", ">f8", "|b1", "O", "<U9", "<M8", "<i3", "f4,f4", "<f99"),
    *([], [1], [[]], {}, {"array": {}}, {"object": 3}, [0] * 99, [2**40] * 3),
]


def honest(kind, token=1, pid=4321):
    """A message as the worker writes it."""
    told = {"dtype": "<f4", "shape": [1, 1, 2, 2], "strides": [16, 16, 8, 4]}
    told["address"] = 2**46
    answer = {"token": token, "sender": pid}
    loaded = {"base": 2**45, "confined": True, "threads": 0}
    return {
        "imports": {"name": "refdcn"},
        "wrote": {"path": "/tmp/file"},
        "started": {"program": "/bin/true"},
        "loaded": loaded | {"grad": True, "device": ""},
        "unloadable": {"text": "no"},
        "session": {"pid": pid},
        "died": {"code": -9},
        "ok": answer | {"results": [{"array": told}]},
        "raised": answer | {"text": "ValueError: no"},
        "broke": answer | {"text": "it wrote behind the memory of y"},
        "left": answer | {"text": "SystemExit: 0"},
        "memory": answer | {"text": "MemoryError"},
    }[kind] | {"status": kind}


def leaves(found, path=()):
    """The path of every value in a message."""
    yield path
    items = found.items() if isinstance(found, dict) else ()
    items = enumerate(found) if isinstance(found, list) else items
    for key, value in items:
        yield from leaves(value, (*path, key))


def changed(rng, found):
    """A message with one value replaced, left out or added."""
    found = json.loads(json.dumps(found))
    path = rng.choice(list(leaves(found)))
    if not path:
        return rng.choice(JUNK)
    inside = found
    for key in path[:-1]:
        inside = inside[key]
    how = rng.random()
    if how < 0.15:
        del inside[path[-1]]
    elif how < 0.3 and isinstance(inside, dict):
        inside[rng.choice(["more", "token", "text", "code"])] = rng.choice(JUNK)
    else:
        inside[path[-1]] = rng.choice(JUNK)
    return found


def forged(rng, pid=4321):
    """A line that is a message, was one, or never was."""
    found = honest(
        rng.choice(list(reply_parser.FORMS)), rng.choice([1, 1, 1, 2, 7]), pid
    )
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        found = changed(rng, found) if isinstance(found, dict) else found
    line = json.dumps(found).encode()
    how = rng.random()
    if how < 0.1:
        line = line[: rng.randrange(len(line) + 1)]
    elif how < 0.2:
        k = rng.randrange(len(line))
        line = line[:k] + bytes([rng.randrange(256)]) + line[k + 1 :]
    elif how < 0.25:
        line = rng.choice([b"[" * 9000, b"{" * 50, b'{"status":' * 900, b"9" * 5000])
    elif how < 0.3:
        line = rng.randbytes(rng.randrange(60)).replace(b"\n", b"")
    return line


def is_sound(found):
    """Whether each field of a message is what its readers rely on."""

    def whole(n, low, high):
        return type(n) is int and low <= n < high

    match found:
        case Imports(name):
            return name in (*REFERENCES, *SEEN)
        case Loaded(grad, base, confined, threads, device):
            flags = type(grad) is type(confined) is bool and type(device) is str
            return flags and whole(base, 0, 2**64) and whole(threads, 0, 2**22)
        case Unloadable(text) | Wrote(text) | Started(text):
            return type(text) is str and text.encode() is not None
        case Session(pid):
            return whole(pid, 2, 2**31)
        case Died(code):
            return whole(code, -128, 256)
        case Reply(status, token, sender, text, results):
            known = status in ("ok", "raised", "broke", "left", "memory")
            assert text.replace("\n", "").replace("\t", "").isprintable() and known
            assert whole(token, 1, 2**53) and whole(sender, 2, 2**31)
            return type(results) is tuple and all(map(is_result, results))


def is_result(one):
    """Whether a result can be copied out of the arena."""
    if not isinstance(one, Placed):
        return one is None or type(one) is str
    np.empty(0, one.dtype).reshape(one.shape) if 0 in one.shape else None
    low, high = one.span or (0, 1)
    return one.nbytes <= 2**28 and low < high and not one.dtype.hasobject


def parsed(line, due=KINDS):
    """The message of a line, or None; everything else is an error of the parser."""
    try:
        found = parse(line, due)
    except ReplyError:
        return None
    assert is_sound(found) and isinstance(found, (*due, *reply_parser.ANY_TIME)), line
    return found


def fuzz_parser(seed, n):
    rng = random.Random(seed)
    found = [parsed(forged(rng), tuple(rng.sample(KINDS, 4))) for _ in range(n)]
    return sum(one is not None for one in found)


class Idle:
    """A process that does nothing."""

    def __init__(self):
        self.process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        self.pid = self.process.pid

    def close(self):
        self.process.kill()
        self.process.wait()


class Scripted(Process):
    """A process whose part a script plays, over pipes as they are."""

    def __init__(self, idle, scripts, late=False):
        self.idle, self.scripts, self.late = idle, iter(scripts), late
        self.writers, self.readers = [], []
        super().__init__("scripted", timeout=TIMEOUT)

    def launch(self, into, out):
        self.readers.append(os.dup(into))
        self.writers.append(os.dup(out))
        os.set_blocking(self.writers[-1], False)
        with suppress(BlockingIOError):  # what does not fit is torn
            os.write(self.writers[-1], next(self.scripts, b""))
        if not self.late:
            os.close(self.writers.pop())
        return self.idle.process

    def release(self):
        super().release()
        while self.writers or self.readers:
            os.close((self.writers or self.readers).pop())

    def stop(self):
        if not self.stopped:
            self.channel.close()
        self.session, self.stopped = 0, True
        return self.idle.process.poll()


@pytest.fixture
def idle(monkeypatch):
    """The process behind a script, which is not killed when the script has an end."""
    for name in ("LOADING", "STARTING", "ENDING"):
        monkeypatch.setattr(isolation, name, TIMEOUT)
    monkeypatch.setattr(isolation, "GRACE", 0)
    monkeypatch.setattr(isolation.system, "running", lambda _: False)
    monkeypatch.setattr(isolation.os, "kill", lambda *_: None)
    one = Idle()
    yield one
    monkeypatch.undo()
    one.close()


def script(rng, pid, focus=None):
    """What one process says: it mostly begins as it must.

    With a focus the first message of that status has anything in that field.
    """
    first = [honest(kind, 1, pid) for kind in ("loaded", "session")]
    if focus is None:
        first = [changed(rng, one) if rng.random() < 0.15 else one for one in first]
    else:
        status, field = focus
        forgery = honest(status, 1, pid) | {field: rng.choice(JUNK)}
        first = [forgery if one["status"] == status else one for one in first]
        first += [] if forgery in first else [forgery]
    lines = [json.dumps(one).encode() for one in first]
    for token in range(1, 4):
        lines += [forged(rng, pid) for _ in range(rng.choice([0, 0, 0, 1]))]
        if rng.random() < 0.7:
            kind = rng.choice(["ok", "ok", "ok", "raised", "died"])
            one = honest(kind, token, pid)
            one = changed(rng, one) if rng.random() < 0.2 else one
            lines.append(json.dumps(one).encode())
        if lines and rng.random() < 0.2:
            lines.append(lines[-1])
    text = b"\n".join(lines) + b"\n" * (rng.random() < 0.9)
    return text if rng.random() < 0.9 else text[: rng.randrange(len(text) + 1)]


def play(idle, rng, late=False, focus=None):
    """The statuses of three calls; each is judged, and ends in time."""
    pid = idle.pid
    scripts = [script(rng, pid, focus) for _ in range(4)]
    began = time.monotonic()
    try:
        runner = Scripted(idle, scripts, late)
    except CannotStartError:
        assert time.monotonic() - began < 10
        return ["not started"]
    found = []
    try:
        for which in ("forward", "forward", "grad"):
            began = time.monotonic()
            outcome = runner.call(CASE, which)
            assert time.monotonic() - began < 10  # of 0.2 at most, on a busy machine
            assert outcome.status in ("ok", "raised", "crash", "timeout")
            found.append(outcome.status)
            judged(outcome, which)
    finally:
        runner.close()
    return found


def judged(outcome, which):
    """Its verdict; text that came is text that can be printed."""
    for one in outcome.results:
        assert one is None or isinstance(one, str | np.ndarray)
    if which == "forward":
        findings = [judge.forward(EXPECTED, outcome)]
    else:
        findings = judge.gradients(EXPECTED, outcome)
    for one in findings:
        assert one.verdict in Verdict and said(one).encode() is not None
    return findings


def fuzz_sessions(idle, seed, n, late=False, focus=None):
    rng = random.Random(seed)
    with np.errstate(all="ignore"):
        found = [play(idle, rng, late, focus) for _ in range(n)]
    return [status for statuses in found for status in statuses]


def test_ten_thousand_forged_lines():
    sound = fuzz_parser(1, 10_000)
    assert 1000 < sound < 9000  # neither all nor nothing passes


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_value_of_json_upsets_the_parser(value):
    parsed(json.dumps(value).encode())
    for kind in ("ok", "died", "loaded"):
        for name in honest(kind):
            parsed(json.dumps(honest(kind) | {name: value}).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_no_bytes_upset_the_parser(line):
    assert parsed(line) is None


@pytest.mark.parametrize("kind", list(reply_parser.FORMS))
def test_an_honest_line_is_read_when_it_is_due(kind):
    line = json.dumps(honest(kind)).encode()
    found = parsed(line)
    assert type(found) is reply_parser.FORMS[kind][0]
    if type(found) not in reply_parser.ANY_TIME:
        others = tuple(k for k in KINDS if k is not type(found))
        assert parsed(line, others) is None


def test_sessions_that_say_anything(idle):
    statuses = fuzz_sessions(idle, 2, 2000)
    assert {"ok", "raised", "crash", "not started"} <= set(statuses)


def test_sessions_that_say_it_and_then_nothing(idle):
    statuses = fuzz_sessions(idle, 3, 60, late=True)
    assert {"ok", "timeout"} <= set(statuses)


TRUSTED = [
    ("session", "pid"),
    ("died", "code"),
    ("loaded", "base"),
    ("ok", "token"),
    ("ok", "results"),
    ("raised", "text"),
    ("imports", "name"),
]


@pytest.fixture(params=TRUSTED, ids=".".join)
def trusted(request, monkeypatch):
    """A parser that lets anything pass in one field."""
    status, field = request.param
    kind, checks = reply_parser.FORMS[status]
    trusting = kind, checks | {field: lambda value: value}
    monkeypatch.setitem(reply_parser.FORMS, status, trusting)
    return request.param


def test_the_parser_s_fuzz_finds_a_field_that_is_trusted(trusted):
    with pytest.raises((AssertionError, TypeError, AttributeError, UnicodeError)):
        fuzz_parser(4, 4000)


@pytest.mark.parametrize("focus", TRUSTED, ids=".".join)
def test_anything_in_a_field_comes_to_a_verdict(idle, focus):
    assert set(fuzz_sessions(idle, 5, 150, focus=focus)) & {"ok", "not started"}


def test_the_sessions_fuzz_finds_a_field_that_is_trusted(trusted, idle):
    with pytest.raises((AssertionError, TypeError, AttributeError, UnicodeError)):
        fuzz_sessions(idle, 5, 300, focus=trusted)


def test_a_message_that_is_not_due_is_found_out(monkeypatch):
    monkeypatch.setitem(
        globals(), "parse", lambda line, due: reply_parser.parse(line, KINDS)
    )
    with pytest.raises(AssertionError):
        fuzz_parser(4, 1000)


def spoken(lines, seconds=1.0, due=KINDS):
    """What a channel makes of bytes that are written while it waits."""
    channel = Channel()

    def write():
        for line in lines:
            try:
                os.write(channel.replies, line)
            except OSError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return channel.receive(due, time.monotonic() + seconds, lambda: None)
    finally:
        os.close(channel.back)
        writer.join()
        for fd in (channel.out, channel.requests, channel.replies):
            os.close(fd)


def test_a_line_without_an_end_is_no_message():
    with pytest.raises(ReplyError):
        spoken([b"[" * 60000] * 30, seconds=30)


def test_a_line_in_pieces_is_one():
    line = json.dumps(honest("died")).encode() + b"\n"
    assert spoken([line[k : k + 1] for k in range(len(line))]) == Died(-9)


def test_what_has_come_is_read_by_one_who_comes_late():
    line = json.dumps(honest("died")).encode() + b"\n"
    channel = Channel()
    os.write(channel.replies, line)
    assert channel.receive(KINDS, time.monotonic() - 1, lambda: None) == Died(-9)
    late = channel.receive(KINDS, time.monotonic() - 1, lambda: None)
    assert late is Silence.LATE
    channel.hand_over()
    channel.close()


def test_a_request_that_nobody_reads_does_not_hold_the_grader():
    channel = Channel()
    answers = [channel.ask({"x": "y" * 3000}) for _ in range(40)]
    assert answers[0] is None and answers[-1] is Silence.LATE
    channel.hand_over()
    assert channel.ask({}) is Silence.CLOSED
    channel.close()


@pytest.mark.parametrize("kind", ["imports", "raised"])
def test_no_message_restarts_the_clock(idle, kind):
    start = [json.dumps(honest(k, 1, idle.pid)).encode() for k in ("loaded", "session")]
    runner = Scripted(idle, [b"\n".join(start) + b"\n"], late=True)
    runner.timeout, runner.calls, stop = 0.3, 5, threading.Event()
    fd = os.dup(runner.writers[0])

    def speak():  # a message that changes nothing, faster than the grader looks
        last = time.monotonic() + 6
        while time.monotonic() < last and not stop.wait(0.005):
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(fd, json.dumps(honest(kind, 1, idle.pid)).encode() + b"\n")

    speaker = threading.Thread(target=speak)
    speaker.start()
    began = time.monotonic()
    try:
        outcome = runner.call(CASE)
    finally:
        stop.set()
        speaker.join()
        os.close(fd)
        runner.close()
    assert outcome.status == "timeout" and time.monotonic() - began < 5
    assert (isolation.TWICE in outcome.faults) is (kind == "raised")


def test_a_start_that_fails_leaves_nothing_open(idle):
    def held():
        return sorted(os.listdir("/proc/self/fd"), key=int)

    pid, before = idle.pid, held()
    for last in ({"status": "session", "pid": 1}, honest("session", 1, os.getpid())):
        lines = honest("loaded", 1, pid), last
        text = b"".join(json.dumps(one).encode() + b"\n" for one in lines)
        Scripted(idle, [text]).close()
    for text in (b"", json.dumps(honest("loaded", 1, pid)).encode() + b"\n"):
        with pytest.raises(CannotStartError):
            Scripted(idle, [text])
    assert held() == before


# Processes that are killed --------------------------------------------------------


def kill_later(pids, seconds, at):
    """Kill one of some processes after a while."""

    def kill():
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(pids[at % len(pids)], signal.SIGKILL)

    one = threading.Thread(target=kill)
    one.start()
    return one


def test_killed_at_any_moment():
    rng = random.Random(6)
    runner = Process(OWN, timeout=30)
    statuses = []
    try:
        for k in range(30):
            if not runner.session:
                break
            pids = runner.process.pid, runner.session
            killer = kill_later(pids, rng.uniform(0, 0.004), k)
            for _ in range(3):
                outcome = runner.call(CASE)
                statuses.append(outcome.status)
                assert outcome.status in ("ok", "crash") and not outcome.faults
                assert outcome.status == "ok" or outcome.text == "killed by SIGKILL"
            killer.join()
        last = [runner.call(CASE) for _ in range(2)][1]
    finally:
        runner.close()
    assert len(statuses) == 90 and {"ok", "crash"} == set(statuses)
    assert judged(last, "forward")[0].verdict is Verdict.PASS


def test_killed_while_it_loads(monkeypatch):
    rng, launch = random.Random(7), Process.launch
    killers = []

    def launched(self, into, out):
        process = launch(self, into, out)
        killers.append(kill_later([process.pid], rng.uniform(0, 0.3), 0))
        return process

    monkeypatch.setattr(Process, "launch", launched)
    ends = set()
    for _ in range(8):
        try:
            runner = Process(OWN, timeout=30)
        except CannotStartError as e:
            ends.add(str(e).partition(": ")[2])
            continue
        ends.add(runner.call(CASE).status)
        runner.close()
    for one in killers:
        one.join()
    no_more = "its process starts no more sessions"
    assert ends <= {"killed by SIGKILL while loading", no_more, "ok", "crash"}
    assert len(ends) > 1 or "ok" not in ends
