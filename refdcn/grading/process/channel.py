"""The two pipes between the grader and a candidate's process.

Lines of JSON in both directions. Whoever waits says until when; nothing that comes
moves that moment.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

from refdcn.grading.process.reply_parser import (
    INTRUDED,
    LONGEST,
    Message,
    ReplyError,
    parse,
)

TICK = 0.05  # seconds between two looks at a process that says nothing


class Silence(Enum):
    """Why there is no message."""

    LATE = "the time is up"
    CLOSED = "nobody holds the other end"
    MEMORY = "it holds more memory than it may"


class Channel:
    """Requests to a candidate's process, and what it says."""

    def __init__(self) -> None:
        self.requests, self.out = os.pipe()
        self.back, self.replies = os.pipe()
        os.set_blocking(
            self.out, False
        )  # a candidate that never reads must not hold us
        self.held = b""

    def hand_over(self) -> None:
        """Close the ends that the candidate's process has now."""
        os.close(self.requests)
        os.close(self.replies)

    def close(self) -> None:
        """Close our ends."""
        for fd in (self.out, self.back):
            with suppress(OSError):
                os.close(fd)

    def ask(self, request: Mapping[str, Any]) -> Silence | None:
        """Write a request; or say why it cannot be read."""
        line = json.dumps(request).encode() + b"\n"
        try:
            whole = os.write(self.out, line) == len(line)
        except BrokenPipeError:
            return Silence.CLOSED
        except BlockingIOError:
            whole = False
        return None if whole else Silence.LATE

    def readable(self, seconds: float) -> bool:
        """Whether something has come, or comes in time."""
        ready = select.poll()
        ready.register(self.back, select.POLLIN)
        return bool(ready.poll(1000 * seconds))

    def receive(
        self,
        due: tuple[type[Message], ...],
        end: float,
        seen: Callable[[], Silence | None],
    ) -> Message | Silence:
        """The next message before `end` on the monotonic clock, which is one of `due`.

        `seen` tells from outside why none will come. ReplyError for anything else.
        What has come when this process looks too late has come in time: it may have
        been stopped itself.
        """
        while b"\n" not in self.held:
            if len(self.held) > LONGEST:
                raise ReplyError(INTRUDED)
            left = end - time.monotonic()
            if self.readable(max(0, min(left, TICK))):
                block = os.read(self.back, 65536)
                if not block:
                    return Silence.CLOSED
                self.held += block
            elif left <= 0:
                return Silence.LATE
            else:
                silence = seen()
                # What it wrote before it ended is there by now.
                if silence is not None and not self.readable(0):
                    return silence
        line, self.held = self.held.split(b"\n", 1)
        return parse(line, due)
