"""The explorer's arithmetic, run in a browser, against numbers that refdcn wrote."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from refdcn import formula

STATIC = Path(__file__).parents[2] / "docs" / "_static"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
STATES = 240
PAGE = """<!doctype html><meta charset="utf-8"><script src="{script}"></script>
<pre id="out"></pre><script>
const states = {states};
document.getElementById("out").textContent = JSON.stringify(
  states.map((s) => {{
    const found = Refdcn.output(s);
    return [found.y, found.taps.map((t) => t.grad)];
  }}));
</script>"""


def drawn(rng):
    """A state of the explorer: integer positions, borders and far taps are in it."""
    groups, stride, padding, dilation = (int(rng.integers(1, 3)) for _ in range(4))
    H, W = (int(n) for n in rng.integers(5, 8, 2))
    step = int(rng.choice([1, 4, 20]))
    offset = np.round(rng.normal(0, 2, (groups, 9, 2)) * step) / step
    out = [(n + 2 * padding - 2 * dilation - 1) // stride + 1 for n in (H, W)]
    return {
        "images": rng.integers(-9, 10, (groups, H, W)).tolist(),
        "weight": rng.integers(-4, 5, (groups, 3, 3)).tolist(),
        "offset": offset.tolist(),
        "mask": (rng.integers(-4, 9, (groups, 9)) / 4).tolist(),
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "rule": "ours",
        "u": int(rng.integers(out[0])),
        "v": int(rng.integers(out[1])),
    }, out


def wanted(state, out):
    """y and its gradient by the offsets of its taps, as the definition has them."""
    x, w = np.array([state["images"]], float), np.array([state["weight"]], float)
    u, v = state["u"], state["v"]
    offset = np.zeros((1, w.shape[1] * 18, *out))
    mask = np.zeros((1, w.shape[1] * 9, *out))
    offset[0, :, u, v] = np.ravel(state["offset"])
    mask[0, :, u, v] = np.ravel(state["mask"])
    windows = [(state[k],) * 2 for k in ("stride", "padding", "dilation")]
    y = formula.deform_conv2d(x, offset, w, mask, None, *windows)
    grad_y = np.zeros_like(y)
    grad_y[0, 0, u, v] = 1
    grads = formula.deform_conv2d_grad(grad_y, x, offset, w, mask, None, *windows)
    return y[0, 0, u, v], grads[1][0, :, u, v].reshape(-1, 2)


@pytest.mark.skipif(BROWSER is None, reason="needs Debian's chromium")
def test_the_explorer_computes_the_definition(tmp_path):
    rng = np.random.default_rng(8)
    states = [drawn(rng) for _ in range(STATES)]
    script = (STATIC / "explorer.js").as_uri()
    page = tmp_path / "page.html"
    given = json.dumps([s for s, _ in states])
    page.write_text(PAGE.format(script=script, states=given), encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
         "--allow-file-access-from-files", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    text = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S)[1]
    found = json.loads(html.unescape(text))
    assert len(found) == STATES
    moved = 0
    for (state, out), (y, grads) in zip(states, found, strict=True):
        want, slopes = wanted(state, out)
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-11)
        np.testing.assert_allclose(grads, slopes, rtol=0, atol=1e-11)
        moved += bool(np.any(slopes))
    assert moved > STATES / 2
