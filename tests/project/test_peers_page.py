"""The table of other implementations, and the reports of their defects."""

import importlib.util
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2] / "docs" / "peers"
SPEC = importlib.util.spec_from_file_location("make_peers", HOME / "make.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)
FINDINGS = sorted(p.stem for p in (HOME.parent / "findings").glob("*.md"))


def test_the_table_is_made_of_the_results():
    assert (HOME / "table.inc").read_text() == make.table()
    assert make.table().count("\n") >= 14  # twelve rows below the heads


def test_every_adapter_and_every_report_has_its_peer():
    specs = {peer.spec.partition(":")[0] for peer in make.PEERS.values()}
    assert {p.name for p in (HOME / "adapters").glob("*.py")} <= specs
    assert set(FINDINGS) <= set(make.PEERS)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["torchvision", "onnx"])
def test_what_is_reported_happens(name):
    pytest.importorskip(name)
    assert name in FINDINGS
    assert make.not_reproduced(name, Path(sys.executable)) == []


def test_what_does_not_happen_is_said(monkeypatch, tmp_path):
    (tmp_path / "findings").mkdir()
    text = "## {0}\n\n```python\n{1}\n```\n\n```text\n{2}\n```\n"
    reports = [("a", "print(1)", "1"), ("b", "print(1)", "2")]
    dies = "import os; os.kill(os.getpid(), 8)"
    reports += [("c", dies, "killed by SIGFPE"), ("d", dies, "killed by SIGSEGV")]
    page = tmp_path / "findings" / "made.md"
    page.write_text("\n".join(text.format(*report) for report in reports))
    monkeypatch.setattr(make, "HERE", tmp_path / "peers")
    assert make.not_reproduced("made", Path(sys.executable)) == ["b", "d"]
