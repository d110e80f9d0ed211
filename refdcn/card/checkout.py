"""What the proof needs of the checkout that the package lies in, and nothing else does.

An installation has no tests: there the checks that draw geometries are not run.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from refdcn.card.child import Skip

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"


def drawn_geometries() -> Any:
    """The module of the tests that draws them, if there is a checkout."""
    if not SUPPORT.is_dir():
        raise Skip("the drawn geometries are in the tests; needs a checkout")
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))
    return import_module("cuda_card")
