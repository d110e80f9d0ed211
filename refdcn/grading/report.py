"""A grade for its readers: text for people, JSON for programs, a script."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from refdcn.grading.document import told
from refdcn.grading.record import Record
from refdcn.grading.words import report as words


@dataclass(frozen=True)
class Report(Record):
    """The verdicts on one candidate; `text()`, `json()`, `exit_code`."""

    @property
    def sentence(self) -> str:
        """The verdict as one sentence, and what else is named."""
        return words.sentence(self)

    @property
    def scope(self) -> str:
        """What was graded."""
        return words.scope(self)

    def headline(self) -> str:
        """The counted verdict."""
        return words.headline(self)

    def text(self) -> str:
        """The sentence, and a line for each group."""
        return words.text(self)

    def document(self) -> dict[str, Any]:
        """What `json()` holds, as `refdcn/grading/showing/report.schema.json` says."""
        return told(self)

    def json(self) -> str:
        """Everything, for programs: the facts typed, the sentences beside them."""
        return json.dumps(self.document(), indent=1, allow_nan=False)
