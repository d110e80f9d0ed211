"""Other tools and the layer, and that the table of docs/tools.md says what happens.

Runs in the environment `tools`, which has them.
"""

import os
import tempfile

import pytest

os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()  # else a file in the home
os.environ["YOLO_OFFLINE"] = "true"

import tools_table  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", tools_table.ROWS)
def test_row(name):
    """A tool works, or its recipe does, or the page has nothing but a reason."""
    row = tools_table.ROWS[name]
    if row.needs:
        pytest.importorskip(row.needs)
    line = tools_table.line(name)
    assert "ModuleNotFoundError" not in line
    cells = [cell.strip() for cell in line.split("|")[2:4]]
    assert "yes" in cells or (row.recipe is None and row.words)
    assert line in tools_table.PAGE.read_text(encoding="utf-8"), line
    if "yes" not in cells[:1]:
        assert row.words  # what to do, or why not


def test_the_page_has_no_other_rows():
    """Else: python tests/support/tools_table.py"""
    text = tools_table.PAGE.read_text(encoding="utf-8")
    table = text.split(tools_table.BEGIN)[1].split(tools_table.END)[0]
    found = [line.split("|")[1].strip() for line in table.strip().splitlines()[2:]]
    assert found == list(tools_table.ROWS)
