"""Which tests run where, and how hypothesis searches."""

import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

# Compiling takes seconds, once, in whichever example comes first.
settings.register_profile("compiled", deadline=None, print_blob=True)
settings.register_profile("nojit", settings.get_profile("compiled"), max_examples=10)
nojit = os.environ.get("NUMBA_DISABLE_JIT") == "1"
settings.load_profile("nojit" if nojit else "compiled")


def pytest_collection_modifyitems(items):
    """A module that imports torch needs no marker: all its tests have it."""
    for item in items:
        names = vars(getattr(item, "module", None) or object)
        if "torch" in names or "torchvision" in names:
            item.add_marker("torch")


def pytest_runtest_setup(item):
    if item.get_closest_marker("torch") and find_spec("torchvision") is None:
        pytest.skip("needs torch and torchvision")
