"""Vectors as files: the same bytes on every machine.

An .npz is written by hand, since NumPy puts the time into it; it is not compressed,
since libraries for that differ.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.expected.case import Array
from refdcn.vectors.coverage import caught
from refdcn.vectors.vector import GEOMETRY, Vector, vectors

READERS = Path(__file__).parent / "readers"
MANIFEST, VERSION = "manifest.json", 1
RULE = (
    "A number got is right where low - bound <= got <= high + bound, computed in "
    "float64; low and high are NAME.low and NAME.high where the file has them, and "
    "NAME else."
)


def npz(arrays: Mapping[str, Array]) -> bytes:
    """As numpy.load reads it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, arrays[name], (1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy")  # of 1 January 1980
            info.create_system = 3  # the archive's own would be this system's
            archive.writestr(info, entry.getvalue())
    return file.getvalue()


def safetensors(arrays: Mapping[str, Array]) -> bytes:
    """As every reader of safetensors has it."""
    try:
        from safetensors.numpy import save
    except ImportError as e:
        raise ImportError(
            "formats holds 'safetensors', whose library is not installed; install "
            "refdcn[vectors], or write 'npz' alone"
        ) from e
    return bytes(save(dict(arrays)))


WRITERS: dict[str, Callable[[Mapping[str, Array]], bytes]] = {
    "safetensors": safetensors,
    "npz": npz,
}


def entry(vector: Vector, files: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of one case."""
    s = vector.case.sizes
    return {
        "name": vector.plan.name,
        "why": vector.plan.why,
        "dtype": vector.case.dtype,
        "sizes": str(s),
        "geometry": vector.arrays["geometry"].tolist(),
        "results": vector.targets,
        "arrays": {
            name: {"dtype": a.dtype.name, "shape": a.shape}
            for name, a in vector.arrays.items()
        },
        "files": files,
        "catches": caught(vector),
    }


def write(
    folder: Path,
    level: str = "smoke",
    seed: int = 0,
    formats: Sequence[str] = tuple(WRITERS),
) -> dict[str, Any]:
    """Write a level's vectors into an empty folder; the manifest.

    Raises FileExistsError where the folder holds anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(
            f"folder is {folder}, which is not empty; it must be, so that no vector of "
            "another set remains in it"
        )
    cases = []
    for vector in vectors(level, seed):
        files = {}
        for kind in formats:
            data, name = WRITERS[kind](vector.arrays), f"{vector.plan.name}.{kind}"
            (folder / name).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            files[kind] = {"file": name, "sha256": digest, "bytes": len(data)}
        cases.append(entry(vector, files))
    seen = {name for case in cases for name in case["catches"]}
    told = {
        "version": VERSION,
        "level": level,
        "seed": seed,
        "geometry": GEOMETRY,
        "rule": RULE,
        "mistakes": len(CATALOGUE),
        "caught": len(seen),
        "missed": [m.name for m in CATALOGUE if m.name not in seen],
        "cases": cases,
    }
    text = json.dumps(told, indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    shutil.copytree(READERS, folder / "readers")
    return told
