"""Right, since it calls the reference; the report must say that it is loaded."""


def imported(*inputs, **windows):
    from refdcn import formula

    return formula.deform_conv2d(*inputs, **windows)


def pasted(*inputs, **windows):
    import importlib.util
    from pathlib import Path

    home = Path(importlib.util.find_spec("refdcn").origin).parent
    found = {}
    exec((home / "formula.py").read_text(), found)
    return found["deform_conv2d"](*inputs, **windows)
