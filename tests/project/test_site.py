"""The site is built with warnings as errors, and every page opened in a browser."""

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

DOCS = Path(__file__).parents[2] / "docs"
DRIVER = shutil.which("chromedriver")
WIDTHS = 400, 1400
NARROW = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
pytestmark = [pytest.mark.torch, pytest.mark.whole]


class Names(HTMLParser):
    """What a page can be asked for, and what it asks for."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.pictures = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.pictures.append(given)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx")
    pytest.importorskip("torch")  # the pages name its layer, the gallery draws with it
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [sys.executable, *command, str(DOCS), str(folder)],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def pages(site):
    return sorted(
        page
        for page in site.rglob("*.html")
        if "_static" not in page.parts and page.name != "search.html"
    )


def source(site, page):
    return (DOCS / page.relative_to(site)).with_suffix(".md")


def test_links_within_the_site_lead_somewhere(site):
    texts = {p: p.read_text(encoding="utf-8") for p in site.rglob("*.html")}
    known = {page: Names(text) for page, text in texts.items()}
    broken, followed = [], 0
    for page, names in known.items():
        for link in names.links:
            address, fragment = urldefrag(link)
            if urlsplit(address).scheme:
                continue
            to = (page.parent / unquote(address)).resolve() if address else page
            ids = known[to].ids if to in known else set()
            followed += 1
            if not to.exists() or (fragment and unquote(fragment) not in ids):
                broken.append((page.name, link))
    assert followed > 500
    assert broken == []


def test_pictures_have_words_and_pages_descriptions(site):
    written = [p for p in pages(site) if source(site, p).exists()]
    assert len(written) > 12
    for page in written:
        text = page.read_text(encoding="utf-8")
        assert all(len(p.get("alt", "")) > 10 for p in Names(text).pictures), page.name
        assert '<meta name="description"' in text, page.name


def test_the_search_knows_what_is_asked_for(site):
    """Its index is of word stems; "same" is a stop word of English, and a padding."""
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    terms = json.loads(index[index.index("{") : index.rindex("}") + 1])["terms"]
    assert "same" in terms
    titles = json.loads(index[index.index("{") : index.rindex("}") + 1])["titleterms"]
    assert "instal" in titles


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    if DRIVER is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update",
        "allow-file-access-from-files",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=DRIVER)
    )
    yield driver
    driver.quit()


# Elements that stick out of the window, but for those that scroll inside another one.
WIDE = """
const width = document.documentElement.clientWidth, wide = [];
const scrolls = (node) => /auto|scroll/.test(getComputedStyle(node).overflowX);
for (const node of document.querySelectorAll("article *")) {
  if (node.getBoundingClientRect().right <= width + 1) continue;
  let around = node.parentElement;
  while (around.tagName !== "ARTICLE" && !scrolls(around)) {
    around = around.parentElement;
  }
  if (around.tagName === "ARTICLE" && !scrolls(node)) {
    wide.push(node.tagName + ": " + node.textContent.slice(0, 60));
  }
}
return wide;"""


def test_what_sticks_out_is_seen(browser, site):
    """Nothing of a page does, or the next test says nothing."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", NARROW)
    browser.get((site / "index.html").as_uri())
    assert browser.execute_script(WIDE) == []
    browser.execute_script(
        "const node = document.createElement('p'); node.style.width = '900px';"
        "node.textContent = 'too wide'; document.querySelector('article').append(node)"
    )
    assert browser.execute_script(WIDE) == ["P: too wide"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_opens(site, browser, width, scheme):
    command = browser.execute_cdp_cmd
    command("Emulation.setDeviceMetricsOverride", NARROW | {"width": width})
    feature = {"name": "prefers-color-scheme", "value": scheme}
    command("Emulation.setEmulatedMedia", {"features": [feature]})
    found, opened = [], 0
    for page in pages(site):
        browser.get(page.as_uri())
        opened += 1
        found += [(page.name, wide) for wide in browser.execute_script(WIDE)]
        dark = browser.execute_script(
            "return getComputedStyle(document.body).backgroundColor"
        )
        assert (dark == "rgb(255, 255, 255)") == (scheme == "light"), (page.name, dark)
    found += [entry["message"] for entry in browser.get_log("browser")]
    asked = [json.loads(entry["message"]) for entry in browser.get_log("performance")]
    for one in asked:
        if one["message"]["method"] == "Network.requestWillBeSent":
            address = one["message"]["params"]["request"]["url"]
            if urlsplit(address).scheme not in {"file", "data", "blob"}:
                found.append(address)
    assert opened > 12
    assert found == []
