"""The site: Sphinx, MyST, furo. tests/project/test_site.py builds and opens it."""

import html
import re
import sys
from pathlib import Path

import sphobjinv
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.ext import autosummary
from sphinx.search.en import SearchEnglish

import refdcn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import pictures  # noqa: E402

project = "refdcn"
author = copyright = "The refdcn developers"
version = release = refdcn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 2
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
templates_path = ["_templates"]
exclude_patterns = ["_build", "_generated", "_templates"]
nitpicky = True
default_role = "literal"

autosummary_generate_overwrite = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes and dtypes, which say more
napoleon_use_rtype = False
napoleon_preprocess_types = False
napoleon_use_param = False

html_theme = "furo"
html_title = f"refdcn {release}"
html_short_title = "refdcn"
html_favicon = "_static/icon.svg"
# No navigation by arrow keys: they move the taps of the explorer.
html_theme_options = {"navigation_with_keys": False}
html_static_path = ["_static"]
# Beside the pages: the schema of a report, and the workflow.
html_extra_path = ["../refdcn/grading/showing/report.schema.json", "grade.yml"]
html_css_files = ["site.css", "explorer.css"]
html_js_files = [("explorer.js", {"defer": "defer"})]


# What the text names of other projects, so that the site is built without a request.
OTHERS = {
    "https://docs.pytorch.org/docs/stable/": {
        "class": ["torch.Tensor", "torch.nn.Conv2d", "torch.nn.Module"],
        "module": ["torch.nn", "torch.compile"],
    },
    "https://numpy.org/doc/stable/reference/": {"class": ["numpy.ndarray"]},
    "https://docs.pytorch.org/vision/stable/": {
        "class": ["torchvision.ops.DeformConv2d"],
        "function": ["torchvision.ops.deform_conv2d"],
    },
}
intersphinx_mapping = {}
for number, (address, names) in enumerate(OTHERS.items()):
    inventory = sphobjinv.Inventory()
    inventory.project = inventory.version = "other"
    inventory.objects += [
        sphobjinv.DataObjStr(
            name=name, domain="py", role=role, priority="1",
            uri="generated/$.html#$", dispname="-",
        )
        for role, those in names.items()
        for name in those
    ]  # fmt: skip
    (HERE / "_generated").mkdir(exist_ok=True)
    path = HERE / "_generated" / f"{number}.inv"
    path.write_bytes(sphobjinv.compress(inventory.data_file()))
    intersphinx_mapping[f"other{number}"] = (address, str(path))

# A sentence does not end there.
autosummary.WELL_KNOWN_ABBREVIATIONS += ("Eq.", "Eqs.")

# "same" is a padding here, and people look for it.
SearchEnglish.stopwords = frozenset(SearchEnglish.stopwords) - {"same"}


def draw(app):
    pictures.draw(HERE / "_generated")


def write_mathml(self, node):
    """Browsers set MathML themselves: no script, no font, no request."""
    display = "block" if node.tagname == "math_block" else "inline"
    text = convert(node.astext(), display=display)
    box = "div" if display == "block" else "span"
    self.body.append(f'<{box} class="math">{text}</{box}>')
    raise nodes.SkipNode


def describe(app, page, template, context, doctree):
    """What a search engine shows of a page: the beginning of its first paragraph."""
    if doctree is not None:
        first = next(iter(doctree.findall(nodes.paragraph)), None)
        said = first.astext() if first else context["title"]
        text = html.escape(" ".join(said.split())[:200], quote=True)
        context["metatags"] += f'<meta name="description" content="{text}">'


def set_equations_apart(app, what, name, obj, options, lines):
    """An indented paragraph under a plain one is an equation: print it as it stands."""
    found = r"(?m)^(?=\S)(?!\.\. |:)(.*[^:\n])\n\n(?= {4}\S)"
    apart = r"\1\n\n.. code-block:: text\n\n"
    text = re.sub(found, apart, "\n".join(lines))
    if name == "refdcn.grading.Options":  # "keyword: what it is" in every line
        text = re.sub(r"(?m)^(\w+): ", r"* **\1**: ", text)
        text = re.sub(r"(?m)^ {4}(?=\S)", "  ", text)
    lines[:] = text.split("\n")


def setup(app):
    app.connect("builder-inited", draw)
    app.connect("html-page-context", describe)
    app.add_html_math_renderer("mathml", (write_mathml, None), (write_mathml, None))
    # Before napoleon turns its sections into indented lists.
    app.connect("autodoc-process-docstring", set_equations_apart, priority=100)
