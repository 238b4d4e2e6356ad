"""Runs the test functions of a module and counts.

A test is a function whose name begins with test_; its docstring is not needed, its
name says the behaviour. It gets a folder of its own, removed afterwards. The last
line is `NAME: N passed, N failed`; the exit status is the number of failures.
What runs that were killed have left is removed first.

Arguments are words of names, or `=NAME`; `2/3` is the second of three parts, for one that runs beside the others.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import traceback

import leftovers


def program():
    """The static program under test: $TAKEOVER, else built now."""
    if "TAKEOVER" in os.environ:
        return pathlib.Path(os.environ["TAKEOVER"])
    build = pathlib.Path(__file__).resolve().parent.parent / "build"
    # What the compiler says is for whoever watches.
    done = subprocess.run([build], check=True, stdout=subprocess.PIPE, text=True)
    return pathlib.Path(done.stdout.strip())


def tests_of(module):
    """The test functions of a module, with their names."""
    return [(name, value) for name, value in vars(module).items()
            if name.startswith("test_") and callable(value)]


def is_meant(name, words):
    """Whether a test is to run: every one without words, else one that has a word in its name, or is it whole (=NAME)."""
    return not words or any(name == word[1:] if word.startswith("=") else word in name for word in words)


def part_of(tests, part):
    """The tests of the part `N/M`: every M-th, since those that take long stand together."""
    number, parts = map(int, part.split("/"))
    if not 1 <= number <= parts:
        sys.exit(f"there is no part {part}")
    return tests[number - 1::parts]


def main(module, arguments):
    parts = [word for word in arguments if re.fullmatch(r"\d+/\d+", word)]
    words = [word for word in arguments if word not in parts]
    wanted = [test for test in tests_of(module) if is_meant(test[0], words)]
    for part in parts:
        wanted = part_of(wanted, part)
    if not wanted:
        sys.exit(f"no test is called like {' or '.join(arguments)}")
    # As in a shell of its own: what was started by nohup(1) or in the background ignores some, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    # An exception, so that every test cleans up behind itself.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    leftovers.remove()
    failed = [name for name, test in wanted if not run(name, test)]
    print(f"{pathlib.Path(module.__file__).stem}: "
          f"{len(wanted) - len(failed)} passed, {len(failed)} failed", flush=True)
    sys.exit(min(len(failed), 100))


def run(name, test):
    began = time.monotonic()
    with leftovers.test_folder() as folder:
        try:
            test(folder)
            passed = True
        except Exception:
            traceback.print_exc()
            passed = False
    words = "ok" if passed else "FAILED"
    print(f"test {name} ... {words} ({time.monotonic() - began:.1f} s)", flush=True)
    return passed
