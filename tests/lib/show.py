"""What a person watches: lines that fit the terminal, and a sign of life when nothing else is said.

On a terminal the sign of life is the last line, rewritten; what is said goes above it. Elsewhere it is a line of its
own, every SILENT seconds.
"""

import re
import shutil
import sys
import textwrap
import threading
import time

# Seconds without a word, after which one is said.
SILENT = 8
# On a terminal, where it is the same line each time.
REWRITE = 1
# What begins a line of a program's or the kernel's log, where the console of a guest has a time already.
STAMP = re.compile(r"^\[\s*\d+\.\d+\] ")


class Show:
    """The screen. `doing` is what is going on; use as a context manager, so that the clock ends with it."""

    def __init__(self, output=None):
        self.output = output or sys.stdout
        self.terminal = self.output.isatty()
        self.doing = ""
        self._since = self._said = time.monotonic()
        self._lock = threading.RLock()
        self._drawn = False
        self._over = threading.Event()
        self._partial = ""

    def __enter__(self):
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        with self._lock:
            self._erase()
            self.output.flush()

    def step(self, text, doing):
        """A new step: what it is, in full, and in the few words of the sign of life."""
        with self._lock:
            self.say(f"==> {text}", bold=True)
            self.now(doing)

    def now(self, doing):
        """What is going on from now on; nothing when it is empty."""
        with self._lock:
            self.doing, self._since = doing, time.monotonic()

    def say(self, text="", bold=False, lead=""):
        """Lines, folded at words to the width of the terminal; what is folded is indented below `lead`."""
        with self._lock:
            self._erase()
            for line in text.splitlines() or [""]:
                for piece in self._fold(line, lead):
                    self.output.write(f"\033[1m{piece}\033[0m\n" if bold and self.terminal else f"{piece}\n")
                lead = " " * len(lead)
            self.output.flush()
            self._said = time.monotonic()

    def console(self, line):
        """A line of a guest's console, with the guest's time for it alone."""
        text = STAMP.sub("", line.text)
        lead = f"{line.time:6.1f}  "
        with self._lock:
            if line.rewritten and self.terminal:
                self._draw(next(iter(self._fold(text, lead))))
            elif not line.rewritten or time.monotonic() - self._said > 2:
                self.say(text, lead=lead)

    def write(self, text):
        """As a file, for what is printed elsewhere."""
        with self._lock:
            *lines, self._partial = (self._partial + text).split("\n")
            for line in lines:
                self.say(line, lead="    ")

    def flush(self):
        """As a file: every line is shown at once."""

    def _fold(self, line, lead):
        # One less than there are: a terminal wraps behind the last column.
        return folded(line, lead, max(40, shutil.get_terminal_size((100, 24)).columns - 1))

    def _erase(self):
        if self._drawn:
            self.output.write("\r\033[K")
            self._drawn = False

    def _draw(self, text):
        self.output.write(f"\r\033[K{text}")
        self.output.flush()
        self._drawn, self._said = True, time.monotonic()

    def _tick(self):
        while not self._over.wait(0.5):
            with self._lock:
                silent = time.monotonic() - self._said
                if not self.doing or silent < (REWRITE if self.terminal and self._drawn else SILENT):
                    continue
                text = f"    {self.doing}: {time.monotonic() - self._since:.0f} s"
                if self.terminal:
                    self._draw(self._fold(text, "")[0])
                else:
                    self.say(text)


def folded(line, lead, width):
    """The lines that a line becomes where there are `width` columns."""
    line = line.expandtabs().rstrip()
    if len(lead) + len(line) <= width:
        return [lead + line]
    indent = len(lead) + len(line) - len(line.lstrip()) + 2
    return textwrap.wrap(line, width, initial_indent=lead, subsequent_indent=" " * indent, replace_whitespace=False) or [lead]
