"""The mistakes of the published layer, and what docs/article.md says of them.

The layer below is the published one in essence; `inputs` is the second size of the
mask branch's weight, 1 as published.
"""

import math
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from torch import nn  # noqa: E402

from refdcn.torch import DeformConv2d  # noqa: E402

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "article.md").read_text(encoding="utf-8")
BOUND = 1 / math.sqrt(9 * 3)  # of nn.Conv2d's random bias, three channels


class Published(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, padding=1)
        self.to_offset = nn.Conv2d(3, 18, 3, padding=1)
        self.to_offset.weight = nn.Parameter(torch.zeros(18, 3, 3, 3))
        self.to_mask = nn.Conv2d(3, 9, 3, padding=1)
        self.to_mask.weight = nn.Parameter(torch.zeros(9, inputs, 3, 3) + 0.5)

    def mask(self, x):
        return torch.sigmoid(self.to_mask(x))

    def forward(self, x):
        return torchvision.ops.deform_conv2d(
            x, self.to_offset(x), self.conv.weight, mask=self.mask(x), padding=(1, 1)
        )


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def largest(values):
    return float(values.detach().abs().max())


@pytest.fixture
def x():
    return torch.rand(2, 3, 16, 16)


def paragraph(title):
    (text,) = re.findall(rf"^### {title}\n(.*?)(?=^##)", PAGE, re.M | re.S)
    for part in ("*It says*", "*What happens*", "*Right*"):
        assert part in text.replace("*What\nhappens*", "*What happens*")
    return text


def corrected(conv):
    layer = DeformConv2d(3, 64, 3, padding=1)
    layer.load_state_dict(conv.state_dict(), strict=True)
    return layer


def test_the_mask_s_weight_has_the_wrong_shape(x):
    assert "[9, 1, 3, 3]" in paragraph("The mask's weight has the wrong shape")
    with pytest.raises(RuntimeError, match=r"size \[9, 1, 3, 3\], expected input"):
        Published(inputs=1)(x)
    assert Published(inputs=3)(x).shape == (2, 64, 16, 16)
    layer = DeformConv2d(3, 64, 3, padding=1)
    assert layer.mask.weight.shape == (9, 3, 3, 3)
    assert layer(x).shape == (2, 64, 16, 16)


def test_a_weight_of_one_half_is_no_modulation_of_one_half(x):
    assert "sigmoid(0) = 0.5" in paragraph("A weight of 0.5 is not a modulation of 0.5")
    published = Published(inputs=3)
    inside = published.mask(x)[:, :, 1:-1, 1:-1]
    assert inside.min() > 0.9
    of_normalised = published.mask(torch.randn(2, 3, 16, 16))
    assert of_normalised.min() < 0.01 and of_normalised.max() > 0.99
    _, mask = corrected(published.conv).sampling(x)
    assert bool((mask == 0.5).all())


def test_the_offsets_do_not_start_at_zero(x):
    assert f"{BOUND:.2f} pixels" in paragraph("The offsets do not start at 0")
    published = Published(inputs=3)
    offset = published.to_offset(x)
    assert 0.5 * BOUND < largest(offset) <= BOUND
    assert torch.equal(offset, offset[:1, :, :1, :1].expand_as(offset))  # everywhere
    offset, _ = corrected(published.conv).sampling(x)
    assert not offset.any()


def test_the_convolution_s_own_bias_is_lost(x):
    assert f"up to {BOUND:.2f}" in paragraph("The convolution's own bias is lost")
    published = Published(inputs=3)
    # Everything else mended: what is left is the bias, whole.
    nn.init.zeros_(published.to_offset.bias)
    nn.init.zeros_(published.to_mask.weight)
    nn.init.constant_(published.to_mask.bias, 40.0)  # dm = 1
    wanted = published.conv(x)
    off = (wanted - published(x)).abs().amax((0, 2, 3))
    torch.testing.assert_close(off, published.conv.bias.abs(), atol=1e-5, rtol=0)
    assert 0.5 * BOUND < largest(off) <= BOUND + 1e-5
    published(x).sum().backward()
    assert published.conv.bias.grad is None
    layer = DeformConv2d(3, 64, 3, padding=1, modulation="2sigmoid")
    layer.load_state_dict(published.conv.state_dict())
    torch.testing.assert_close(layer(x), wanted)


def test_the_listing_replaces_one_kind_of_layer(x):
    published = Published(inputs=3)
    published.conv = nn.Conv2d(3, 64, 3, stride=2, padding=1)
    assert published(x).shape != published.conv(x).shape
    layer = DeformConv2d(3, 64, 3, stride=2, padding=1)
    assert layer(x).shape == published.conv(x).shape


def block(title):
    """The code of one side."""
    (code,) = re.findall(rf"card}} {title}\n\n```python\n(.*?)```", PAGE, re.S)
    return code


def run(code, x):
    names = {"nn": nn, "torchvision": torchvision, "x": x, "zeros": torch.zeros,
             "Parameter": nn.Parameter, "sigmoid": torch.sigmoid}  # fmt: skip
    exec(code, names)
    return names


def test_the_page_s_own_code_does_what_the_page_says(x):
    with pytest.raises(RuntimeError, match=r"size \[9, 1, 3, 3\]"):
        run(block("As published"), x)
    names = run(block("Corrected"), x)
    layer = corrected(names["conv"])
    torch.testing.assert_close(layer(x), names["y"])
    convolved = names["conv"](x) - names["conv"].bias[:, None, None]
    mended = 0.5 * convolved + names["conv"].bias[:, None, None]
    torch.testing.assert_close(names["y"], mended)


def test_the_chinese_page_names_the_same_mistakes():
    page = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 100
    for text in ("[9, 1, 3, 3]", "0.5", "conv.weight", "docs/article.md"):
        assert text in page
    for link in re.findall(r"\]\(([^)#]+)\)", page):
        assert (ROOT / link).exists(), link


def test_the_summary_quotes_the_results_page():
    results = (ROOT / "docs" / "rotated_digits" / "results.md").read_text("utf-8")
    summary = PAGE[PAGE.index("In short") :]
    quoted = re.findall(r"-?\d+\.\d+ ± \d+\.\d+", summary)
    assert len(quoted) > 6
    for number in [*quoted, "-12.5 ± 7.5", "final 0.6 ± 0.5 points, ahead"]:
        assert number in results, number
