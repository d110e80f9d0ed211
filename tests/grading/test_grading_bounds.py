"""No correct implementation breaks a bound, and every part of a bound is needed."""

import re
import types
from pathlib import Path

import pytest

from refdcn.grading import Verdict, grade
from refdcn.grading.expected import bounds, expectation
from refdcn.grading.selftest import correct as members
from refdcn.grading.selftest import nearest as search
from refdcn.grading.selftest import panel

SOURCE = Path(bounds.__file__).read_text(encoding="utf-8")


def found(seed, n, **options):
    """(false alarms, largest ratios)"""
    said = list(panel.alarms(seed, n, **options))
    alarms = [a for a in said if isinstance(a, panel.Alarm)]
    ratios = {}
    for f in said:
        if f not in alarms:
            ratios[f.target] = max(f.ratio, ratios.get(f.target, 0))
    return alarms, ratios


def test_the_panel_raises_no_alarm():
    alarms, ratios = found(seed=3, n=200)
    assert alarms == []
    assert set(ratios) == set(search.OUTPUTS) and max(ratios.values()) <= 1


def test_a_declared_slope_is_required():
    right = members.member(members.Style("right-hand"))
    other = right._replace(conventions={"slope at -1": "0"})
    alarms, _ = found(seed=9, n=40, dtypes=["float64"], members=[other])
    assert {a.text for a in alarms} == {
        "grad_offset: slope at -1: right-hand; 0 was declared"
    }


def test_the_loops_are_graded_by_name():
    report = grade("loops", dtypes=["float16"], seed=1)
    assert report.exit_code == 0 and report.has_grad
    assert {f.verdict for f in report.counted} == {Verdict.PASS}


def test_an_unsound_member_is_an_alarm():
    broken = members.member(members.Style("no padding", position=(3, 2, 0)))
    assert found(seed=8, n=12, members=[broken])[0]


def test_our_targets_raise_no_alarm():
    others = [one for one in panel.others() if one.name != "torchvision"]
    assert [one.name for one in others] == ["formula", "loops", "refdcn"]
    assert found(seed=4, n=30, members=others)[0] == []


@pytest.mark.torch
def test_torchvision_raises_no_alarm():
    others = [one for one in panel.others() if one.name == "torchvision"]
    assert found(seed=5, n=30, members=others)[0] == []


def test_a_search_passes_no_bound_and_comes_near_all():
    styles = search.STYLES[1], search.STYLES[-1]
    best = search.search(40, seed=1, dtypes=["float32"], styles=styles)
    largest = {}
    for one in best:
        assert one.ratio <= 1, one
        largest[one.output] = max(one.ratio, largest.get(one.output, 0))
    assert set(largest) == set(search.OUTPUTS) and min(largest.values()) > 0.25


def test_the_documented_search_passed_no_bound():
    text = (Path(__file__).parents[2] / "docs" / "bounds.inc").read_text()
    for name in search.OUTPUTS:
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert 0.4 < max(float(c) for c in row.split("|")[2:-1] if c != " - ") <= 1
    assert text.count("0 false alarms over 5,000 geometries") == 1
    assert int(re.search(r"of (\d+) correct implementations", text)[1]) >= 32


# what is changed in bounds.py, and the inputs that show it
BROKEN = {
    "no rise": ("d_y * cells.rise + d_x * cells.run", "d_x * cells.run", "steep"),
    "no run": ("d_y * cells.rise + d_x * cells.run", "d_y * cells.rise", "steep"),
    "cell and fraction of one sum": ("<= 1, 3, 12)", "<= 1, 2, 12)", "brim"),
    "half a place": ("<= 1, 3, 12)", "<= 1, 1.5, 12)", "brim"),
    "no frame of one's own": (" + d * (taps - 1) + 2)", " + d * (taps - 1))", "brim"),
    "padded once": (" + 2 * p + d", " + p + d", "brim"),
    "no taps": (" + 2 * p + d * (taps - 1)", " + 2 * p", "steep"),
    "no stride": (
        "s * np.arange(sizes.out[axis]) + 2",
        "0 * np.arange(sizes.out[axis]) + 2",
        "steep",
    ),
    "no offset": ("rel * (whole + part)", "rel * (whole + 0 * part)", "brim"),
    "no twist": ("other * cells.twist + few", "few", "steep"),
    "no place in d x": ("s.delta_y + s.delta_x + chain", "chain", "steep"),
    "one corner in y": ("4 * n if longest", "n if longest", "absorbing"),
    "half of y": ("4 * n if longest", "2 * n if longest", "absorbing"),
    "one corner in d w": ("(4 if longest else 1) * n_p", "n_p", "absorbing"),
    "half of d w": ("(4 if longest else 1) * n_p", "2 * n_p", "absorbing"),
    "no n_o in d mask": ("steps = 4 * up.n_o * up.n_i", "steps = 4", "absorbing"),
    "no n_o in d x": ("count * (up.n_o if longest else 1)", "count", "absorbing"),
    "half of d bias": ("max(0, n_p - 1)", "max(0, n_p - 1) / 2", "absorbing"),
    "no pixel": ("(1 + m) * (1 + s.cells.top)", "1 + m + 0 * s.size", "faint"),
    "no overflow": ("(p.peak < u.largest / 2)", "True", "faint"),
}
SUMS = members.Style("sums", corner_sums=True, flat=True, position=(3, 2, 0, 1))
FIRST = members.Style("products", weight_first=True, position=(3, 1, 2, 0))
FRAMED = [one for one in panel.PANEL if one.frame == (2, 2)]


@pytest.mark.parametrize("name", BROKEN)
def test_a_bound_without_one_of_its_parts_is_a_false_alarm(name, monkeypatch):
    whole, broken, kind = BROKEN[name]
    assert SOURCE.count(whole) == 1
    module = types.ModuleType("broken")
    exec(compile(SOURCE.replace(whole, broken), name, "exec"), vars(module))
    styles = {"faint": [FIRST], "brim": FRAMED}.get(kind, [FIRST, SUMS])
    options = {
        "dtypes": ["float32"],
        "members": [members.member(s) for s in styles],
        "kinds": [getattr(panel, kind)],
        "each": kind == "brim",
    }
    assert found(seed=6, n=12, **options)[0] == []
    monkeypatch.setattr(expectation, "bounds", module)
    said = panel.alarms(seed=6, n=200, **options)
    assert any(isinstance(a, panel.Alarm) for a in said)
