"""The check on a card, as far as it goes without one: on tensors of this machine."""

import json

import numpy as np
import pytest
import torch

from refdcn import cli
from refdcn.bench import cuda_cases, cuda_check, cuda_timing


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(
        cuda_cases, "on_card", lambda arrays: [torch.from_numpy(a) for a in arrays]
    )


def test_without_a_card_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cuda_check, "NEEDED", ("torch",))
    assert cli.main(["bench", "--device", "cuda", "--check"]) == 2
    assert "no card, nothing ran: torch finds no CUDA device" in capsys.readouterr().err


def test_it_says_what_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(cuda_check, "NEEDED", ("torch", "no_such_package"))
    assert cli.main(["bench", "--device", "cuda", "--check"]) == 2
    assert "not installed: no_such_package" in capsys.readouterr().err


def test_device_and_check_go_together(capsys):
    assert cli.main(["bench", "--device", "cuda"]) == 2
    assert "--check" in capsys.readouterr().err


def test_agreement_is_within_and_a_wrong_one_is_not(no_card, monkeypatch):
    assert 0 < cuda_cases.agreement() <= 1
    right = cuda_cases.torchvision

    def wrong(tensors, window):
        y, *grads = right(tensors, window)
        return [y * (1 + 1e-3), *grads]

    monkeypatch.setattr(cuda_cases, "torchvision", wrong)
    with pytest.raises(AssertionError, match="times the roundings"):
        cuda_cases.agreement()


def test_nan_is_no_agreement():
    nan = [torch.tensor([np.nan])]
    with pytest.raises(AssertionError):
        cuda_cases.compare(nan, nan, np.float32, 1)


def test_the_watched_program_runs(no_card):
    try:
        cuda_cases.small()
    finally:
        torch.use_deterministic_algorithms(False)


def test_record_and_table(monkeypatch, capsys, tmp_path):
    """Passed, failed and not run are told apart; a failure is the exit code."""

    def skipped():
        raise cuda_timing.Skip("no tool")

    def failing():
        raise AssertionError("off")

    rows = [{"shape": "1x1x1x1->1", "refdcn ms": 1.5}]
    monkeypatch.setattr(cuda_check, "missing", lambda: None)
    monkeypatch.setattr(cuda_check, "machine", lambda: {"card": "none"})
    done = {"a": lambda: 1, "b": skipped, "timings and memory": lambda: rows}
    monkeypatch.setattr(
        cuda_check, "checks", lambda: (cuda_check.timed(*c) for c in done.items())
    )
    file = tmp_path / "check.json"
    command = ["bench", "--device", "cuda", "--check", "--json", str(file)]
    assert cli.main(command) == 0
    verdicts = [c["verdict"] for c in json.loads(file.read_text())["checks"]]
    assert verdicts == ["passed", "not run", "passed"]
    assert "| 1x1x1x1->1 | 1.500 |" in capsys.readouterr().out
    done["c"] = failing
    assert cli.main(command) == 1
