"""Reports read back from their files, or the reason why a file is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).with_name("report.schema.json")
KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


class ReportError(ValueError):
    """A file is no report that can be shown."""


def schema() -> dict[str, Any]:
    """The JSON schema of a report, which is part of the package."""
    return dict(json.loads(SCHEMA.read_text(encoding="utf-8")))


def read(path: Path) -> dict[str, Any]:
    """The report of a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ReportError(f"{path} cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise ReportError(f"{path} is not a report: it is no JSON ({e})") from e
    check(found, path)
    return dict(found)


def check(found: Any, path: Path) -> None:
    """Raise ReportError, unless all its parts are there and of their kinds."""
    form = schema()
    version = form["properties"]["schema"]["const"]
    if not isinstance(found, dict) or "schema" not in found:
        raise ReportError(
            f"{path} is not a report: it has no schema version; "
            "refdcn grade SPEC --json FILE writes one"
        )
    if found["schema"] != version:
        raise ReportError(
            f"{path} has schema {found['schema']!r}; this refdcn reads {version}, so "
            "grade again"
        )
    for name in form["required"]:
        if name not in found or not fits(found[name], form["properties"][name]):
            raise ReportError(f"{path} is not a report: its {name} is missing or odd")


def fits(value: Any, form: Mapping[str, Any]) -> bool:
    """Whether a value is of the kind that a schema names."""
    kinds = form.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return not kinds or any(isinstance(value, KINDS[k]) for k in kinds)
