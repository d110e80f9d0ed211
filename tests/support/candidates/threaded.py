"""Right, by a thread that its import starts: in a fork nobody would ever answer."""

import ctypes
import os
import queue
import threading
import time

from refdcn import formula

ASKED, ANSWERED = queue.Queue(), queue.Queue()


def compute():
    while True:
        inputs, windows = ASKED.get()
        try:
            ANSWERED.put(formula.deform_conv2d(*inputs, **windows))
        except Exception as e:
            ANSWERED.put(e)


threading.Thread(target=compute, daemon=True).start()


def right(*inputs, **windows):
    ASKED.put((inputs, windows))
    found = ANSWERED.get()
    if isinstance(found, Exception):
        raise found
    return found


def dies(x, *rest, **windows):
    """Reads address 0 for one batch size."""
    if len(x) == 33:
        ctypes.string_at(0)
    return right(x, *rest, **windows)


def hangs(x, *rest, **windows):
    """Waits for ever for one batch size."""
    if len(x) == 33:
        ANSWERED.get()
    return right(x, *rest, **windows)


def closes(x, *rest, **windows):
    """Closes the grader's channel for one batch size, and lives on."""
    if len(x) == 33:
        os.closerange(3, 1000)
        time.sleep(60)
    return right(x, *rest, **windows)
