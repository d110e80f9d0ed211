"""The site: Sphinx, MyST, furo. Built with warnings as errors by `tox -e docs`."""

import re
from pathlib import Path

import refdcn
from refdcn import plot

HERE = Path(__file__).parent
PICTURES = {"taps.svg": plot.taps}

project = "refdcn"
author = copyright = "The refdcn developers"
version = release = refdcn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 2
exclude_patterns = ["_build", "_generated"]
nitpicky = True
default_role = "literal"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes and dtypes, which say more
napoleon_use_rtype = False
napoleon_preprocess_types = False
napoleon_use_param = False

html_theme = "furo"
html_title = f"refdcn {release}"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
# Beside the pages: the schema of a report, and the workflow.
html_extra_path = ["../refdcn/grading/showing/report.schema.json", "grade.yml"]
html_css_files = ["explorer.css"]
html_js_files = [("explorer.js", {"defer": "defer"})]


def draw(app):
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        picture().savefig(folder / name, facecolor="white")


def set_equations_apart(app, what, name, obj, options, lines):
    """An indented paragraph under a plain one is an equation: print it as it stands."""
    found = r"(?m)^(?=\S)(?!\.\. |:)(.*[^:\n])\n\n(?= {4}\S)"
    apart = r"\1\n\n.. code-block:: text\n\n"
    lines[:] = re.sub(found, apart, "\n".join(lines)).split("\n")


def setup(app):
    app.connect("builder-inited", draw)
    # Before napoleon turns its sections into indented lists.
    app.connect("autodoc-process-docstring", set_equations_apart, priority=100)
