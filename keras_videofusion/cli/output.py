"""What verbs print and write: JSON, shares, lines, progress."""

import json
import sys
import time


def give(value, path):
    """Writes JSON to a file, whole or not at all, or to the terminal."""
    from keras_videofusion.data.files import write_text

    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)


def share(value):
    """A share of 1 in percent; a dash where it is not known."""
    return "-" if value is None else f"{100 * value:.1f} %"


class Progress:
    """Tells how far long work has come: a line that moves on a terminal.

    Elsewhere a plain line every tenth of the way. It writes to standard
    error, so that a result on standard output stays whole.
    """

    def __init__(self, total, what):
        self.total = total
        self.what = what
        self.begun = time.monotonic()
        self.told = 0

    def __call__(self, done):
        seconds = time.monotonic() - self.begun
        left = seconds / max(done, 1) * (self.total - done)
        line = f"{done} of {self.total} {self.what}, {left:.0f} s left"
        if sys.stderr.isatty():
            end = "\n" if done == self.total else ""
            print(f"\r{line:<60}{end}", end="", file=sys.stderr, flush=True)
        elif 10 * done // max(self.total, 1) > self.told:
            self.told = 10 * done // self.total
            print(line, file=sys.stderr, flush=True)


def printable(text):
    """Text that any terminal takes, whatever bytes a name is made of."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
