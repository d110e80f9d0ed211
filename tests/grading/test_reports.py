"""Reports as they come out: JSON with its schema, pages in a browser, files for CI."""

import json
import re
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from refdcn import cli
from refdcn.grading import Interrupted, Verdict, asking, grade
from refdcn.grading.document import listed
from refdcn.grading.options import CHOICES
from refdcn.grading.showing import machines, page, reading, side_by_side
from refdcn.grading.showing.drawing import LETTER, LINE, distance, labels
from refdcn.grading.showing.drawing import sampling_map as drawing_of
from refdcn.grading.source import source_of
from refdcn.grading.words import report as report_words

import devtools

ROOT = Path(__file__).parents[2]
PICTURED = ROOT / "tests" / "support" / "candidates" / "pictured.py"
GRADIENTS = PICTURED.with_name("gradients.py")
GIVEN = {"dtypes": ["float32"], "seed": 1}
GIVEN |= {"only": ["random", "malformed", "hostile"]}
SORTS = {
    "right": ("formula", "pass"),
    "planar": (f"{PICTURED}:planar", "wrong"),
    "border": (f"{PICTURED}:border", "wrong"),
    "group": (f"{PICTURED}:group", "wrong"),
    "gradient": (f"{GRADIENTS}:negated", "wrong"),
    "unchecked": (f"{PICTURED}:lenient", "unchecked"),
    "crashed": (f"{PICTURED}:exits", "crash"),
    "unsupported": (f"{PICTURED}:refuses", "nothing"),
}


@cache
def document(sort):
    """What a program reads: through JSON and back."""
    if sort == "interrupted":
        return json.loads(interrupted().json())
    spec, _ = SORTS[sort]
    return json.loads(grade(spec, evidence=True, smallest=True, **GIVEN).json())


def interrupted():
    """A grade that Ctrl-C ends after twenty calls."""
    ask = asking.ask

    def some(*given):
        for k, found in enumerate(ask(*given)):
            if k == 20:
                raise KeyboardInterrupt
            yield found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "ask", some)
        with pytest.raises(Interrupted) as end:
            grade("formula", evidence=True, **GIVEN)
    return end.value.report


# The schema ----------------------------------------------------------------------


@pytest.mark.parametrize("sort", [*SORTS, "interrupted"])
def test_every_sort_of_report_keeps_to_the_schema(sort):
    jsonschema = pytest.importorskip("jsonschema")
    told = document(sort)
    assert told["verdict"] == SORTS.get(sort, ("", "pass"))[1]
    held = jsonschema.Draft202012Validator(reading.schema())
    assert [e.message for e in held.iter_errors(told)] == []
    assert told["interrupted"] == (sort == "interrupted")


def test_the_schema_is_one_and_refuses_what_is_none():
    jsonschema = pytest.importorskip("jsonschema")
    form = reading.schema()
    jsonschema.Draft202012Validator.check_schema(form)
    held = jsonschema.Draft202012Validator(form)
    told = document("planar")
    assert set(form["properties"]) == set(told) == set(form["required"])
    for change in (
        {"verdict": "fine"},
        {"exit_code": 2},
        {"schema": 2},
        {"findings": [{**told["findings"][0], "kind": "odd"}]},
        {"findings": [{**told["findings"][0], "new": 1}]},
        {"evidence": {**told["evidence"], "samples": [{}]}},
        {"timing": {"case": "", "seconds": [-1], "floor": 0, "memory": None}},
    ):
        assert not held.is_valid(told | change), change
    for name in told:
        assert not held.is_valid({k: v for k, v in told.items() if k != name})


def test_verdicts_of_the_schema_are_those_of_the_grader():
    named = reading.schema()["$defs"]["verdict"]["enum"]
    assert named == [str(v) for v in Verdict]
    assert set(page.SIGNS) == set(machines.COLOURS) == set(named)


# The page ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab():
    if devtools.BROWSER is None:
        pytest.skip("needs Debian's chromium")
    with ExitStack() as stack:
        yield stack.enter_context(devtools.page())


def shown(tab, tmp_path, text, width=1000, scheme="light"):
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    tab.open(file.as_uri(), width, scheme)
    return file.as_uri()


WIDER = "document.documentElement.scrollWidth - window.innerWidth"
UNNAMED = """[...document.querySelectorAll(
  'svg, [role=region], section, nav, [tabindex]')].filter(e => {
    const by = e.getAttribute('aria-labelledby');
    const name = by ? document.getElementById(by)?.textContent
                    : e.getAttribute('aria-label');
    return !name || !name.trim();
  }).map(e => e.outerHTML.slice(0, 80))"""
LEVELS = "[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])"
DEAD = """[...document.querySelectorAll('a[href^="#"]')].filter(
  a => !document.querySelector(a.getAttribute('href'))).length"""
FAINT = """[...document.querySelectorAll('p, li, td, th, a, h1, h2, dd, dt')]
  .filter(e => e.textContent.trim()).map(e => {
    const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(n => {
      n /= 255; return n <= .04045 ? n / 12.92 : ((n + .055) / 1.055) ** 2.4; });
      return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
    const ink = light(getComputedStyle(e).color);
    const paper = light(getComputedStyle(document.body).backgroundColor);
    const [a, b] = ink > paper ? [ink, paper] : [paper, ink];
    return (a + .05) / (b + .05);
  }).reduce((a, b) => Math.min(a, b))"""


REACHED = """[...document.querySelectorAll('a, summary, [tabindex]')].filter(
  e => e.checkVisibility()).length"""


@pytest.mark.parametrize("sort", [*SORTS, "interrupted"])
def test_a_page_is_whole_at_every_width_and_asks_for_nothing(tab, tmp_path, sort):
    pytest.importorskip("jinja2")
    text = page.page(document(sort))
    for width, scheme in ((400, "dark"), (1000, "light"), (1600, "dark")):
        url = shown(tab, tmp_path, text, width, scheme)
        assert tab.requests() == [url] and tab.complaints() == []
        assert tab.value(WIDER) <= 0, width
    assert tab.value(UNNAMED) == []
    assert tab.value(DEAD) == 0
    assert tab.value("document.querySelectorAll('h1, main, header, nav').length") == 4
    levels = tab.value(LEVELS)
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper(tab, tmp_path, scheme):
    pytest.importorskip("jinja2")
    shown(tab, tmp_path, page.page(document("group")), scheme=scheme)
    paper = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert tab.value(FAINT) >= 4.5


def test_what_is_too_wide_or_asks_for_more_would_be_seen(tab, tmp_path):
    wrong = (
        '<!doctype html><p style="width:2000px">a</p><img src="none.png">'
        '<svg></svg><script>console.log("a"); nothing()</script>'
    )
    shown(tab, tmp_path, wrong)
    assert tab.value(WIDER) > 0 and len(tab.requests()) == 2
    assert len(tab.complaints()) >= 2 and len(tab.value(UNNAMED)) == 1


def test_the_keyboard_reaches_every_part(tab, tmp_path):
    pytest.importorskip("jinja2")
    shown(tab, tmp_path, page.page(document("planar")))
    due = tab.value(REACHED)
    seen = []
    for _ in range(due):
        tab.press("Tab")
        seen.append(tab.value("document.activeElement.outerHTML.slice(0, 90)"))
        assert tab.value("getComputedStyle(document.activeElement).outlineStyle") != (
            "none"
        )
    assert len(set(seen)) == due > 12
    shown(tab, tmp_path, page.page(document("planar")))
    tab.press("Tab")
    tab.press("Enter")
    assert tab.value("location.hash") == "#verdicts"
    while tab.value("document.activeElement.tagName") != "SUMMARY":
        tab.press("Tab")
    tab.press("Enter")
    assert tab.value("document.querySelector('details').open")


@pytest.mark.parametrize("sort", ["planar", "border"])
def test_a_page_says_what_is_wrong_and_draws_it(tab, tmp_path, sort):
    pytest.importorskip("jinja2")
    told = document(sort)
    shown(tab, tmp_path, page.page(told))
    text = tab.value("document.body.innerText")
    assert told["sentence"] in text and told["repeat"] in text
    assert told["evidence"]["sampling"] in text
    samples = told["evidence"]["samples"]
    wrong = [s for s in samples if not s["right"]]
    assert wrong and text.count("× ") >= len(wrong)
    assert all(s["text"] in text and s["read_text"] in text for s in samples)
    circles = tab.value("document.querySelectorAll('circle.defined').length")
    assert circles == 2 * len(samples)
    placed = [s for s in samples if s["reads"] or s["right"]]
    marks = "document.querySelectorAll('rect.found, rect.box').length"
    assert tab.value(marks) == len(placed)
    heats = "document.querySelectorAll('#where ~ .row svg').length"
    parts = len(told["evidence"]["parts"]["failing"])
    assert tab.value(heats) == len(told["evidence"]["fields"]) + parts


def test_where_channels_alone_are_others_they_are_listed_and_no_map_is_drawn(
    tab, tmp_path
):
    pytest.importorskip("jinja2")
    told = document("group")
    sizes, rows = told["evidence"]["case"]["sizes"], told["evidence"]["channels"]
    groups, many = sizes["groups"], sizes["C_out"] // sizes["groups"]
    few = sizes["C_in"] // groups
    run = lambda b: [*range(b * few, b * few + few)]  # noqa: E731
    assert [r["defined"] for r in rows] == [
        run(o // many) for o in range(sizes["C_out"])
    ]
    assert [r["read"] for r in rows] == [run(o % groups) for o in range(sizes["C_out"])]
    assert told["evidence"]["sampling"].endswith(": only the channel is another.")
    shown(tab, tmp_path, page.page(told))
    assert tab.value("document.querySelectorAll('svg.map').length") == 0
    box = "[...document.querySelectorAll('[aria-labelledby=channels] tbody tr')]"
    assert tab.value(f"{box}.map(r => [...r.children].map(e => e.innerText))") == [
        [
            str(r["output"]),
            ", ".join(map(str, r["defined"])),
            ", ".join(map(str, r["read"])),
            "✓" if r["defined"] == r["read"] else "×",
        ]
        for r in rows
    ]
    assert told["evidence"]["sampling"] in tab.value("document.body.innerText")


def test_the_smallest_input_says_what_must_come_and_what_came(tab, tmp_path):
    pytest.importorskip("jinja2")
    smallest = document("planar")["smallest"]
    shown(tab, tmp_path, page.page(document("planar")))
    worst = smallest["worst"]
    text = tab.value("document.querySelector('[aria-labelledby=smallest]').innerText")
    assert f"must be {page.exactly(worst['low'])}" in text
    assert f"it is {page.exactly(worst['got'])}." in text
    assert text.count("the definition gives") == 0  # it is said once
    assert "offsets)" not in smallest["case"]["text"]
    assert abs(worst["got"] - worst["low"]) > worst["bound"]


def test_the_numbers_of_the_smallest_input_can_be_copied():
    a = np.array([[0.1, 1.234375], [1 / 3, -0.0]], np.float32)
    told = listed(a)
    cells = [[page.exactly(v) for v in row] for row in told["values"]]
    assert cells == [["0.1", "1.234375"], ["0.33333334", "0"]]
    assert (np.array(cells, np.float32) == a).all()
    assert listed(a.astype(np.float16))["values"][1][0] == 0.3333
    assert [page.exactly(v) for v in (1e-30, 5.0, 7, "nan")] == [
        *("1e-30", "5", "7", "nan"),
    ]


@pytest.mark.parametrize(
    "low, got, bound, shown",
    [
        (3.0, 0.0, 3e-36, False),
        (3.0, 3.00001, 3e-6, False),
        (3.0, 3.00001, 1e-5, True),
        (0.5969, 0.0, 0.01, True),
        (0.5969, "nan", 1e-9, False),
        (0.5969, "infinite", 1e-9, True),
    ],
)
def test_a_bound_that_no_digit_shows_is_left_out(low, got, bound, shown):
    worst = {"low": low, "high": low, "got": got, "bound": bound}
    assert page.room(worst) == shown


def test_times_stand_beside_others_with_the_candidate_first():
    timing = {"case": "", "seconds": [0.3, 0.1, 0.2], "floor": 0.0, "memory": 5_000_000}
    one = {"name": "formula", "timing": timing, "verdict": "pass", "why": ""}
    gone = one | {"name": "torchvision", "timing": None, "verdict": None, "why": "no"}
    rest = [one | {"name": name} for name in ("refdcn", "dense convolution")]
    told = document("right") | {"timing": timing, "beside": [one, gone, *rest]}
    rows = [*page.times(told)]
    names = [row["name"] for row in rows]
    assert names == ["formula", "torchvision", "refdcn", "dense convolution"]
    assert round(rows[0]["ms"]) == 200 and round(rows[0]["fastest"]) == 100
    assert rows[1]["ms"] is None and rows[1]["why"] == "no"
    assert [row["name"] for row in page.times(told | {"beside": []})] == ["formula"]
    assert [*page.times(document("right"))] == []


def test_no_text_of_a_candidate_becomes_markup():
    pytest.importorskip("jinja2")
    told = document("unsupported")
    assert "<script>" in told["sentence"]
    assert "<script" not in page.page(told) + machines.markdown(told)
    assert "<script" not in side_by_side.page(["<script>"], [told])
    assert "<script" not in machines.badge(told, "<script>")
    ElementTree.fromstring(machines.badge(told, '"<script>&'))
    ElementTree.fromstring(machines.junit(told))


def test_where_it_reads_the_right_place_of_another_channel_its_mark_is_there():
    told = document("planar")["evidence"]
    H, W = (told["case"]["sizes"][n] for n in "HW")
    samples = []
    for s in told["samples"]:
        inside = [
            p | {"channel": p["channel"] + 1}
            for p in s["corners"]
            if 0 <= p["row"] < H and 0 <= p["column"] < W
        ]
        samples.append(s | {"reads": inside, "right": False, "found": [0.25, 0.25]})
    drawing = drawing_of(told | {"samples": samples})
    read = [t for t, s in zip(drawing["taps"], samples, strict=True) if s["reads"]]
    assert read and all(t["from"] == t["to"] for t in read)
    moved = [s | {"reads": s["reads"][:1]} for s in samples if len(s["reads"]) > 1]
    drawing = drawing_of(told | {"samples": moved})
    assert moved and all(t["from"] != t["to"] for t in drawing["taps"])


def test_what_lies_across_the_border_is_drawn_outside_of_the_image(tab, tmp_path):
    pytest.importorskip("jinja2")
    told = document("border")["evidence"]
    drawing = drawing_of(told)
    rows, columns = drawing["rows"], drawing["columns"]
    for s in told["samples"]:
        (row, column), (H, W) = s["position"], (rows.n, columns.n)
        assert rows.first == -1 or row >= 0 and rows.last == H or row <= H - 1
        assert columns.first == -1 or column >= 0
        assert columns.last == W or column <= W - 1
    assert drawing["outside"] and drawing["kinds"]["nothing"]
    beyond = [
        p
        for p in drawing["defined"]
        if p["row"] == -1 or p["column"] in (-1, columns.n)
    ]
    assert beyond or [p for p in drawing["defined"] if p["row"] == rows.n]
    shown(tab, tmp_path, page.page(document("border")))
    text = tab.value("document.querySelector('[aria-labelledby=samples]').innerText")
    assert "Hatched: outside of the image, where the definition takes 0." in text
    assert tab.value("document.querySelectorAll('.outside-image').length") == 2
    for kind, word in (
        ("boxes", "boxes:"),
        ("moved", "dashed"),
        ("squares", "squares"),
    ):
        assert (word in text) == drawing["kinds"][kind], kind
    assert ("drawn at the edge" in text) == drawing["far"]


def test_nothing_is_drawn_outside_where_all_lies_inside():
    told = document("border")["evidence"]
    samples = [s for s in told["samples"] if s["right"] and len(s["reads"] or ()) == 4]
    drawing = drawing_of(told | {"samples": samples})
    assert not drawing["outside"] and not drawing["far"]
    assert min(drawing["rows"].first, drawing["columns"].first) >= 0


def test_a_name_stands_nearest_to_its_own_mark():
    marks = [(100.0, 100.0), (70.0, 115.0), (130.0, 85.0)]
    taps = [
        {"name": f"0,{k}", "from": m, "to": m, "box": None} for k, m in enumerate(marks)
    ]
    for both in (False, True):
        found = [*labels(taps, both, 300, 300)]
        for mark, one in zip(marks, found, strict=True):
            top = one["y"] + 3 - LINE
            place = one["x"], top, one["x"] + LETTER * len(one["text"]), top + LINE
            far = [distance(place, m) for m in marks]
            assert one["line"] or min(far) == distance(place, mark), one


def stretched(sort, columns, taps):
    """The report of a wide image, whose taps lie close to each other and far away."""
    told = document(sort)
    evidence = told["evidence"]
    case = evidence["case"] | {"sizes": evidence["case"]["sizes"] | {"W": columns}}
    first = evidence["samples"][0] | {"right": False}
    samples = []
    for k in range(taps):
        position = [3.0 + 0.1 * (k % 3), 2.0 + 0.1 * k]
        pixel = {"image": 0, "channel": 0, "row": 4, "share": 1.0}
        pixels = [pixel | {"column": columns - 1 - k % 2}]
        found = None if k % 4 == 3 else [4.0, columns - 1.0 - k % 2]
        reads = [] if k == taps - 1 else pixels
        more = {"tap": [k // 3, k % 3], "position": position, "corners": pixels}
        samples.append(first | more | {"reads": reads, "found": found})
    return told | {"evidence": evidence | {"case": case, "samples": samples}}


COLLIDING = """[...document.querySelectorAll('svg.map')].flatMap(svg => {
  const all = [...svg.querySelectorAll('text')].map(e => [e.textContent,
    e.getBoundingClientRect()]);
  return all.flatMap(([s, a], i) => all.slice(i + 1).filter(([t, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3
  ).map(([t]) => s + '|' + t));
})"""
OUTSIDE = """[...document.querySelectorAll('svg.map')].flatMap(svg => {
  const b = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text, circle, rect')].filter(e => {
    const a = e.getBoundingClientRect(); return a.left < b.left - 1 ||
    a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
  }).map(e => e.outerHTML) })"""
SMALLEST = """Math.min(...[...document.querySelectorAll('svg.map text')].map(
  e => e.getBoundingClientRect().height))"""


@pytest.mark.parametrize("sort", ["planar", "border", "wide", "narrow"])
@pytest.mark.parametrize("width", [400, 1400])
def test_names_in_the_sampling_map_stand_apart_and_can_be_read(
    tab, tmp_path, sort, width
):
    pytest.importorskip("jinja2")
    made = {"wide": (50, 9), "narrow": (3, 9)}
    told = stretched("planar", *made[sort]) if sort in made else document(sort)
    shown(tab, tmp_path, page.page(told), width)
    assert tab.value("document.querySelectorAll('svg.map').length") == 2
    assert tab.value(COLLIDING) == [] and tab.value(OUTSIDE) == []
    assert tab.value(SMALLEST) >= 10


def test_the_command_and_the_last_line_are_whole_on_a_narrow_screen(tab, tmp_path):
    pytest.importorskip("jinja2")
    told = document("border") | {"repeat": "refdcn grade " + "a/long/path/" * 20}
    shown(tab, tmp_path, page.page(told), 400)
    for name in ("pre", "footer"):
        box = f"document.querySelector('{name}')"
        assert tab.value(f"{box}.scrollWidth - {box}.clientWidth") <= 0
    end = "document.querySelector('footer').getBoundingClientRect().bottom"
    assert tab.value(f"{end} + window.scrollY") <= tab.value(
        "document.documentElement.scrollHeight"
    )


def test_taps_are_listed_within_a_narrow_screen(tab, tmp_path):
    pytest.importorskip("jinja2")
    shown(tab, tmp_path, page.page(document("border")), 400)
    wide = "(e => e.scrollWidth - e.clientWidth)(document.querySelector('.stack')."
    assert tab.value(wide + "parentElement)") == 0
    first = "document.querySelector('.stack td')"
    assert tab.value(f"getComputedStyle({first}, '::before').content") == '"dy, dx"'


def test_times_and_memory_are_within_a_narrow_screen(tab, tmp_path):
    pytest.importorskip("jinja2")
    timing = {"case": "", "seconds": [0.3], "floor": 0.0, "memory": 5_000_000}
    one = {"name": "torchvision", "timing": timing, "verdict": "pass", "why": ""}
    gone = one | {"name": "gone", "timing": None, "verdict": None, "why": "no " * 40}
    told = document("right") | {"timing": timing, "beside": [one, gone]}
    shown(tab, tmp_path, page.page(told), 400)
    box = "document.querySelector('[aria-labelledby=time] .scroll')"
    assert tab.value(f"{box}.scrollWidth - {box}.clientWidth") == 0
    assert "5.0" in tab.value(f"{box}.innerText")


def test_shapes_that_are_computed_unchecked_are_so_in_the_row_of_shapes():
    told = document("group")
    assert "1 of 8 inputs whose shapes fit nothing" in told["sentence"]
    (matrix,) = page.matrices(told["findings"])
    (row,) = [r for r in matrix["rows"] if r["group"] == "malformed"]
    (cell,) = [c for c in row["cells"] if c]
    assert (cell["verdict"], cell["many"], cell["of"]) == ("unchecked", 1, 8)
    assert not cell["counted"]
    (group,) = [g for g in told["groups"] if g["group"] == "malformed"]
    assert group["counts"] == {"unchecked": 1, "pass": 7}
    assert (group["verdict"], group["counted"]) == ("unchecked", "pass")
    assert group["text"] == "accepted in silence: a stride of 0"


def test_the_legend_names_what_is_shown_once(tab, tmp_path):
    pytest.importorskip("jinja2")
    shown(tab, tmp_path, page.page(document("group")))
    text = tab.value("document.querySelector('.legend').innerText")
    told = [item.split("\N{NO-BREAK SPACE}") for item in text.split(", ")]
    assert [name for _, name in told] == ["wrong", "unchecked"]
    assert len({sign for sign, _ in told}) == len(told)


def test_outputs_dealt_to_groups_are_told_by_their_rule_and_the_map_is_printed():
    told = document("group")
    assert (
        "is wrong. Output channel o reads group o % groups; the definition gives "
        "o // (C_out / groups). With that changed, every element is within the bound."
    ) in told["sentence"]
    (line,) = [t for t in told["diagnosis"]["evidence"] if t.startswith("probe: ")]
    assert "outputs 0 to 5 read groups 0, 1, 0, 1, 0, 1; " in line
    assert "the definition reads 0, 0, 0, 1, 1, 1" in line


def test_a_zero_has_no_sign():
    assert [page.number(v) for v in (-0.0, 0, -1e-9, "nan")] == [
        *("0", "0", "-1e-09", "nan"),
    ]


def test_dtypes_stand_side_by_side_where_y_alone_is_graded(tab, tmp_path):
    pytest.importorskip("jinja2")
    told = document("group")
    wide = [
        f | {"dtype": "float64"} for f in told["findings"] if f["group"] != "hostile"
    ]
    (matrix,) = page.together([*page.matrices(told["findings"] + wide)])
    assert (matrix["dtype"], matrix["targets"]) == ("y", ["float32", "float64"])
    assert all(len(r["cells"]) == 2 for r in matrix["rows"])
    assert {r["group"] for r in matrix["rows"]} == {g["group"] for g in told["groups"]}
    several = [*page.matrices(document("gradient")["findings"])]
    assert page.together(several * 2) == several * 2
    shown(tab, tmp_path, page.page(told | {"findings": told["findings"] + wide}))
    heads = "[...document.querySelectorAll('.matrix thead th')].map(e => e.innerText)"
    assert tab.value(heads) == ["calls", "float32", "float64"]
    titles = "[...document.querySelectorAll('.matrix tbody th')].map(e => e.title)"
    assert tab.value(titles) == [g["means"] for g in told["groups"]]
    assert "8 is all 8, 7/8 seven of eight" in tab.value("document.body.innerText")


def test_every_group_of_calls_says_what_it_is():
    assert set(report_words.GROUPS) == set(CHOICES["only"])


def test_the_matrix_holds_every_finding_and_the_worst_of_each_cell():
    told = document("gradient")
    (matrix,) = page.matrices(told["findings"])
    cells = {
        (row["group"], target): cell
        for row in matrix["rows"]
        for target, cell in zip(matrix["targets"], row["cells"], strict=True)
    }
    assert cells["random", "grad_offset"]["verdict"] == "wrong"
    assert cells["random", "y"]["verdict"] == cells["random", "grad_x"]["verdict"]
    assert cells["random", "y"]["verdict"] == "pass"
    assert not cells["hostile", "y"]["counted"]
    assert sum(c["of"] for c in cells.values() if c) == len(told["findings"])


# Other machines ------------------------------------------------------------------


@pytest.mark.parametrize("sort", SORTS)
def test_junit_counts_what_fails(sort):
    told = document(sort)
    root = ElementTree.fromstring(machines.junit(told))
    cases = root.findall("testsuite/testcase")
    assert [c.get("name") for c in cases] == [g["group"] for g in told["groups"]]
    bad = [c for c in cases if c.find("failure") is not None]
    died = [c for c in cases if c.find("error") is not None]
    assert bool(bad or died) == (told["exit_code"] != 0)
    assert bool(died) == (sort == "crashed")
    (suite,) = root.findall("testsuite")
    assert (int(suite.get("failures")), int(suite.get("errors"))) == (
        len(bad),
        len(died),
    )
    assert all(c.get("file") or sort == "right" for c in cases)


def test_unchecked_fails_where_it_is_counted():
    told = document("unchecked")
    strict = told | {"options": told["options"] | {"strict": True}}
    assert "<failure" not in machines.junit(told) and "<failure" in machines.junit(
        strict
    )


def test_an_annotation_points_at_the_function_that_fails(monkeypatch):
    monkeypatch.chdir(ROOT)
    line = machines.annotation(document("border"))
    text = PICTURED.read_text().splitlines()
    at = text.index(next(t for t in text if t.startswith("def border"))) + 1
    place = PICTURED.relative_to(ROOT).as_posix()
    assert line.startswith(f"::error file={place},line={at},title=refdcn%3A wrong::")
    assert "\n" not in line and "border is wrong." in line
    of_companion = document("gradient")["source"]
    found = GRADIENTS.read_text().splitlines()[of_companion["line"] - 1]
    assert "negated_grad" in found
    assert machines.annotation(document("right")).startswith("::notice title=")
    odd = document("right") | {"sentence": "50 %\nof::it"}
    assert machines.annotation(odd).endswith("::50 %25%0Aof::it")


def test_a_candidate_is_found_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "loud").mkdir()
    (tmp_path / "loud" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "loud" / "inner.py").write_text("\n\ndef f(): pass\ndef f_grad(): pass")
    monkeypatch.syspath_prepend(tmp_path)
    assert source_of("loud.inner:f", False) == (
        str(tmp_path / "loud" / "inner.py"),
        3,
    )
    assert source_of("loud.inner:f", True).line == 4
    assert source_of("loud.inner:g", True).line == 1
    assert source_of("loud.missing:f", False) is source_of("closure", False) is None
    assert "loud" not in sys.modules


def test_markdown_has_a_row_for_each_group():
    told = document("unsupported")
    lines = machines.markdown(told).splitlines()
    assert lines[0].startswith("## ∅ ") and lines[0].endswith("refuses: nothing")
    rows = [line for line in lines if line.startswith("| float32")]
    assert len(rows) == len(told["groups"])
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def test_a_badge_says_the_verdict_and_what_was_graded():
    assert "refdcn: pass<" in machines.badge(document("right"))
    assert "mine: wrong, forward<" in machines.badge(document("planar"), "mine")


# Side by side --------------------------------------------------------------------


def test_better_and_worse_are_meant_against_the_first():
    told = [document(sort) for sort in ("group", "right", "crashed")]
    found = {row.name: row.entries for row in side_by_side.rows(told)}
    assert [e.change for e in found["verdict"]] == ["", "better", "worse"]
    assert [e.text for e in found["verdict"]] == ["wrong", "pass", "crash"]
    assert [e.change for e in found["float32 random"]][1] == "better"
    assert [e.text for e in found["float32 grad_x"]][::2] == ["-", "-"]
    assert float(found["float32 y / bound"][0].text) > 1
    assert float(found["float32 y / bound"][1].text) < 1
    text = side_by_side.text(["a", "b", "c"], told)
    assert "pass (better)" in text and told[0]["sentence"] in text


def test_names_are_as_long_as_they_must_be():
    assert side_by_side.distinct(["x/a.json", "x/b.json"]) == ["a.json", "b.json"]
    assert side_by_side.distinct(["x/a.json", "y/a.json"]) == ["x/a.json", "y/a.json"]
    assert side_by_side.distinct(["a", "a"]) == ["1 a", "2 a"]


def test_a_comparison_is_a_page_too(tab, tmp_path):
    pytest.importorskip("jinja2")
    told = [document(sort) for sort in ("planar", "right", "group")]
    text = side_by_side.page(["before", "after", "another"], told)
    for width in (400, 1600):
        url = shown(tab, tmp_path, text, width, "dark")
        assert tab.requests() == [url] and tab.complaints() == []
        assert tab.value(WIDER) <= 0 and tab.value(UNNAMED) == []
    assert "▲ better" in tab.value("document.body.innerText")


# The command ---------------------------------------------------------------------


def test_the_command_writes_all_of_it(tmp_path, capsys):
    pytest.importorskip("jinja2")
    names = {n: tmp_path / n for n in ("json", "html", "junit", "markdown")}
    files = [word for n, path in names.items() for word in (f"--{n}", str(path))]
    asked = ["--dtype", "float32", "--only", "exact", "--seed", "1"]
    spec = f"{PICTURED}:planar"
    assert cli.main(["grade", spec, *asked, *files, "--annotate"]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("::error file=")
    told = reading.read(names["json"])
    assert names["html"].read_text(encoding="utf-8") == page.page(told)
    assert names["junit"].read_text(encoding="utf-8") == machines.junit(told)
    assert names["markdown"].read_text(encoding="utf-8") == machines.markdown(told)
    first, html, badge = str(names["json"]), tmp_path / "both", tmp_path / "svg"
    assert cli.main(["compare", first, first, "--html", str(html)]) == 0
    assert "1 " in capsys.readouterr().out and "better" not in html.read_text(
        encoding="utf-8"
    ).replace("Better", "")
    assert cli.main(["badge", first, str(badge)]) == 0
    assert cli.main(["badge", first]) == 0
    assert capsys.readouterr().out == badge.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text, why",
    [
        (None, "cannot be read"),
        ("no", "it is no JSON"),
        ("[]", "it has no schema version"),
        ("{}", "it has no schema version"),
        ('{"schema": 7}', "has schema 7; this refdcn reads 1"),
        ('{"schema": 1}', "its candidate is missing"),
        ('{"schema": 1, "candidate": []}', "its candidate is missing or odd"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "badge"])
def test_what_is_no_report_is_told_in_a_sentence(tmp_path, capsys, command, text, why):
    file = tmp_path / "a.json"
    if text is not None:
        file.write_text(text)
    assert cli.main([command, str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"refdcn {command}: {file}") and why in line


def test_without_jinja2_nothing_is_graded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    monkeypatch.setattr(cli, "graded", lambda options: pytest.fail("it grades"))
    out = str(tmp_path / "a.html")
    assert cli.main(["grade", "formula", "--html", out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("refdcn grade: ") and 'pip install "refdcn[report]"' in line
    assert cli.main(["compare", "none.json", "--html", out]) == 2
    assert "refdcn compare: an HTML report needs Jinja2" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["html", "junit", "markdown"])
def test_a_file_that_cannot_be_written_is_refused_before_the_grade(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["grade", "formula", f"--{name}", "none/a"])
    assert end.value.code == 2
    assert f"--{name}: 'none/a'; wanted a file in a folder" in capsys.readouterr().err


def test_a_file_that_fails_after_the_grade_is_one_sentence(capsys, monkeypatch):
    report = interrupted()
    monkeypatch.setattr(cli, "graded", lambda options: report)
    assert cli.main(["grade", "formula", "--markdown", "/dev/full"]) == 2
    assert "No space left" in capsys.readouterr().err


def test_who_reads_the_first_line_alone_leaves_a_whole_report(tmp_path):
    import subprocess

    file = tmp_path / "a.json"
    command = [sys.executable, "-m", "refdcn", "grade", "formula", "--json", str(file)]
    asked = ["--dtype", "float32", "--only", "exact"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *asked], **pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141 and reading.read(file)["verdict"] == "pass"


def test_nothing_of_a_report_is_loaded_without_one():
    import subprocess

    code = (
        "import sys, refdcn.grading as g; g.grade('formula', dtypes=['float32'], "
        "only=['exact']); print('jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


# The workflow --------------------------------------------------------------------


def test_the_workflow_is_one_and_its_commands_are_ours():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "docs" / "grade.yml").read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    on = flow[True]  # YAML 1.1 reads `on` so
    assert set(on) == {"push", "pull_request", "workflow_call"}
    used = set(re.findall(r"inputs\.(\w+)", text))
    assert used == set(on["workflow_call"]["inputs"])
    steps = flow["jobs"]["grade"]["steps"]
    assert all(("uses" in s) != ("run" in s) for s in steps)
    grading = next(s["run"] for s in steps if s.get("name") == "Grade")
    words = grading.split("refdcn grade ")[1].replace("\\\n", " ").split()
    given = ["formula", *words[2:]]
    told = cli.parser().parse_args(["grade", *[w.replace("grade/", "") for w in given]])
    assert told.annotate and all((told.json, told.html, told.junit, told.markdown))
    upload = steps[-1]
    assert upload["if"] == "always()" and upload["with"]["path"] == "grade"


def test_the_workflow_keeps_to_githubs_schema():
    pytest.importorskip("check_jsonschema")
    import subprocess

    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    flow = str(ROOT / "docs" / "grade.yml")
    kinds = "vendor.github-workflows"
    done = subprocess.run([*command, kinds, flow], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_case_is_no_cases():
    from refdcn.grading.words.report import cases

    assert (cases(1), cases(1200)) == ("One case was", "1,200 cases were")
