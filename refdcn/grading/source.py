"""The file and the line of a candidate, read without importing it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

from refdcn.grading.process.inside.candidates import split
from refdcn.grading.process.inside.routes import SpecError


class Source(NamedTuple):
    """Where a function begins."""

    file: str
    line: int


def source_of(spec: str, companion: bool) -> Source | None:
    """Of the function, or of its companion; None where no file of Python holds it."""
    try:
        place, name = split(spec)
    except SpecError:
        return None
    path = Path(place) if place.endswith(".py") else module_file(place)
    if path is None or not path.is_file():
        return None
    names = (f"{name}_grad", name) if companion else (name,)
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return Source(str(path), 1)
    lines = {name: n.lineno for n in tree.body for name in bound(n)}
    return Source(str(path), next((lines[n] for n in names if n in lines), 1))


def bound(node: ast.stmt) -> list[str]:
    """The names that a statement of a module gives to something."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        inner = [n for target in node.targets for n in ast.walk(target)]
        return [n.id for n in inner if isinstance(n, ast.Name)]
    return []


def module_file(module: str) -> Path | None:
    """The file of a module on the path: no package is imported to find it."""
    parts = Path(*module.split("."))
    for folder in map(Path, sys.path):
        for file in (folder / parts.with_suffix(".py"), folder / parts / "__init__.py"):
            if file.is_file():
                return file
    return None
