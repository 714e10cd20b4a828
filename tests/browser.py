"""Headless Chromium, driven through the pipe of its DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")

# The text and the pictures of a page, shadow roots and frames included.
DEEP = """
const roots = (root) => {
  let found = [root];
  for (const part of root.querySelectorAll('*')) {
    if (part.shadowRoot) found = found.concat(roots(part.shadowRoot));
    if (part.tagName === 'IFRAME' && part.contentDocument)
      found = found.concat(roots(part.contentDocument));
  }
  return found;
};
const all = (selector) =>
  roots(document).flatMap((root) => [...root.querySelectorAll(selector)]);
const words = () => roots(document).flatMap((root) => {
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walk.nextNode()) {
    const around = walk.currentNode.parentElement;
    if (around && around.getClientRects().length)
      found.push(walk.currentNode.data.trim());
  }
  return found.filter(Boolean);
}).join('\\n');
"""


def chromium():
    """Path of Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


# The browser reads commands at 3 and writes answers at 4.
LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(x), fcntl.F_DUPFD, 10) for x in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page of a browser without a screen.

    Args:
        folder: Path of a folder for the browser's own files.
        size: Width and height of the page in pixels.
    """

    def __init__(self, folder, size=(1400, 900)):
        ours, theirs = os.pipe(), os.pipe()
        command = [
            sys.executable,
            "-c",
            LAUNCHER,
            str(ours[0]),
            str(theirs[1]),
            chromium(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-unsafe-swiftshader",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--no-first-run",
            f"--user-data-dir={folder}",
            f"--window-size={size[0]},{size[1]}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            command,
            pass_fds=(ours[0], theirs[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.write, self.read = ours[1], theirs[0]
        self.buffer = b""
        self.number = 0
        self.session = None
        (page,) = [
            target
            for target in self.call("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        ]
        self.session = self.call(
            "Target.attachToTarget", targetId=page["targetId"], flatten=True
        )["sessionId"]
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=False,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.write)
        os.close(self.read)

    def call(self, method, seconds=60, **parameters):
        """What the browser answers to a command of its protocol."""
        self.number += 1
        told = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            told["sessionId"] = self.session
        os.write(self.write, json.dumps(told).encode() + b"\0")
        until = time.monotonic() + seconds
        while True:
            while b"\0" not in self.buffer:
                left = until - time.monotonic()
                if left <= 0 or not select.select([self.read], [], [], left)[0]:
                    raise TimeoutError(f"the browser does not answer {method}")
                part = os.read(self.read, 1 << 20)
                if not part:
                    raise OSError("the browser has ended")
                self.buffer += part
            line, self.buffer = self.buffer.split(b"\0", 1)
            answer = json.loads(line)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise OSError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, address):
        self.call("Page.navigate", url=address)

    def ask(self, script):
        """The value of a JavaScript expression; it may use `DEEP`."""
        found = self.call(
            "Runtime.evaluate",
            expression=f"(() => {{ {DEEP} return ({script}); }})()",
            returnByValue=True,
            awaitPromise=True,
        )
        if "exceptionDetails" in found:
            raise ValueError(found["exceptionDetails"]["exception"])
        return found["result"].get("value")

    def wait(self, script, seconds=60):
        """Waits until an expression is true, and gives its value."""
        until = time.monotonic() + seconds
        while True:
            try:
                found = self.ask(script)
            except (ValueError, OSError):
                found = None  # the page is being changed
            if found:
                return found
            if time.monotonic() > until:
                raise TimeoutError(f"never true in the page: {script}")
            time.sleep(0.3)

    def screenshot(self, path):
        shot = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(shot))
