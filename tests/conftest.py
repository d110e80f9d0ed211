"""Which tests run where, and how hypothesis searches.

A file test_torch_*.py may import torch at its top: it is left out where torch is not
installed. In other files a module that fetches torch by importorskip is skipped there
as a whole, and `@pytest.mark.torch` is for single tests. In the torch environment
these run and no others. Tests that are `whole` fetch what they need in a fixture: a
module skipped as a whole comes up where its tests do not run, as skipped everywhere.
"""

import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

# Compiling takes seconds, once, in whichever example comes first.
settings.register_profile("compiled", deadline=None, print_blob=True)
settings.register_profile("nojit", settings.get_profile("compiled"), max_examples=10)
nojit = os.environ.get("NUMBA_DISABLE_JIT") == "1"
settings.load_profile("nojit" if nojit else "compiled")

has_torch = find_spec("torchvision") is not None
collect_ignore_glob = [] if has_torch else ["*/test_torch_*.py"]
if find_spec("numba_cuda") is None:  # they run in the cuda environment
    collect_ignore_glob.append("*/test_cuda_*.py")

if find_spec("torch_pruning") is None:  # they run in the tools environment
    collect_ignore_glob.append("*/test_others_*.py")

PEERS = "openvino", "paddle", "mindspore", "kornia"  # each in an environment of its own
if not any(map(find_spec, PEERS)) and not any(
    "REFDCN_PYTHON_" in k for k in os.environ
):
    collect_ignore_glob.append("*/test_peers.py")


def pytest_collection_modifyitems(items):
    for item in items:
        names = vars(getattr(item, "module", None) or object)
        if item.path.name.startswith("test_torch_") or "torch" in names:
            item.add_marker("torch")


def pytest_runtest_setup(item):
    if item.get_closest_marker("torch") and not has_torch:
        pytest.skip("needs torch and torchvision")
