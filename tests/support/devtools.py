"""A page in headless Chromium, driven over a pipe by its DevTools protocol."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update "
    "--remote-debugging-pipe"
).split()
LONGEST = 60.0  # seconds for one answer


class Page:
    """One tab; `events` holds what it has told, `[method, parameters]`."""

    def __init__(self, read, write):
        self.into, self.out, self.rest, self.calls = write, read, b"", 0
        self.events, self.session = [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        told = self("Target.attachToTarget", targetId=target, flatten=True)
        self.session = told["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def message(self):
        """The next message of the browser."""
        end = time.monotonic() + LONGEST
        while b"\0" not in self.rest:
            left = max(0.0, end - time.monotonic())
            ready, _, _ = select.select([self.out], [], [], left)
            assert ready, "the browser does not answer"
            self.rest += os.read(self.out, 1 << 16)
        line, _, self.rest = self.rest.partition(b"\0")
        return json.loads(line)

    def __call__(self, method, **parameters):
        """Call one method and wait for its answer."""
        self.calls += 1
        request = {"id": self.calls, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.into, json.dumps(request).encode() + b"\0")
        while (told := self.message()).get("id") != self.calls:
            self.events.append([told.get("method"), told.get("params")])
        assert "error" not in told, told
        return told["result"]

    def open(self, url, width, scheme="light"):
        """Load a page in a window of this width; forget what was told before."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self("Emulation.setDeviceMetricsOverride", **size)
        one = {"name": "prefers-color-scheme", "value": scheme}
        self("Emulation.setEmulatedMedia", features=[one])
        self.events = []
        self("Page.navigate", url=url)
        while all(method != "Page.loadEventFired" for method, _ in self.events):
            told = self.message()
            self.events.append([told.get("method"), told.get("params")])

    def value(self, script):
        """What an expression of the page is."""
        told = self("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def press(self, key):
        """A key pressed and released."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": "\r"} if (kind, key) == ("keyDown", "Enter") else {}
            more |= {"windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}[key]}
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def requests(self):
        """The addresses that it asked for, data in the page itself left out."""
        mine = [p for m, p in self.events if m == "Network.requestWillBeSent"]
        urls = [p["request"]["url"] for p in mine]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self):
        """What stands on its console."""
        kinds = "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"
        return [event for event in self.events if event[0] in kinds]


@contextmanager
def page():
    """A tab of a browser that ends with it."""
    read, into = os.pipe()
    out, write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = f'exec "$@" 3<&{read} 4>&{write}'
        words = [BROWSER, *QUIET, f"--user-data-dir={profile}"]
        with subprocess.Popen(
            ["bash", "-c", command, "bash", *words],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            os.close(read)
            os.close(write)
            try:
                yield Page(out, into)
            finally:
                process.kill()
                os.close(into)
                os.close(out)
