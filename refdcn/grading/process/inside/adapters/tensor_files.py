"""Arrays by name in a file: .npz, or .safetensors.

Imported in the candidate's process only, or pasted into a script; it needs nothing
but NumPy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

# uint16 stands for bfloat16, which NumPy has not.
NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16"}
NAMES["int64"] = "I64"
ENDINGS = ".npz", ".safetensors"


def write(path: str, arrays: Mapping[str, Any]) -> None:
    """Write them all, each without gaps in its memory."""
    whole: dict[str, Any] = {k: np.asarray(a, order="C") for k, a in arrays.items()}
    if path.endswith(".npz"):
        np.savez(path, **whole)
        return
    header: dict[str, Any] = {}
    end = 0
    for name, a in whole.items():
        span, end = [end, end + a.nbytes], end + a.nbytes
        header[name] = {"dtype": NAMES[a.dtype.name], "shape": list(a.shape)}
        header[name]["data_offsets"] = span
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for a in whole.values():
            file.write(a.tobytes())


def read(path: str) -> dict[str, Any]:
    """All arrays of a file; ValueError says what else it is."""
    ending = next(e for e in ENDINGS if path.endswith(e))
    try:
        return read_npz(path) if ending == ".npz" else read_safetensors(path)
    except FileNotFoundError:
        raise ValueError("a file that was never written") from None
    except MemoryError:
        raise
    except Exception as e:
        raise ValueError(f"a file that cannot be read as {ending} ({e})") from e


def read_npz(path: str) -> dict[str, Any]:
    """Without pickles."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def read_safetensors(path: str) -> dict[str, Any]:
    """Each array from its span of the bytes behind the header."""
    with open(path, "rb") as file:
        content = file.read()
    start = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:start]), content[start:]
    header.pop("__metadata__", None)
    dtypes = {short: name for name, short in NAMES.items()}
    arrays, used = {}, 0
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        dtype = np.dtype(dtypes[entry["dtype"]])
        if not 0 <= low <= high <= len(data):
            raise ValueError(f"{name} ends at byte {high} of {len(data)}")
        if math.prod(entry["shape"]) * dtype.itemsize != high - low:
            raise ValueError(f"{name} has {high - low} bytes, not those of its shape")
        arrays[name] = np.frombuffer(data[low:high], dtype).reshape(entry["shape"])
        used = max(used, high)
    if used != len(data):
        raise ValueError(f"{len(data) - used} bytes lie behind the last array")
    return arrays
