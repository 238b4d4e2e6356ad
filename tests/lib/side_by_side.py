#!/usr/bin/env python3
"""Runs the tests of several suites, as many at a time as there are processors: a guest keeps one busy.

    tests/lib/side_by_side.py test_guests test_arm_guests ...

Each test is a process of its own suite, and what it says is printed whole when it ends. The last line of a suite is as
the suite itself would say it.
"""

import concurrent.futures
import importlib
import os
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "lib"))
sys.path.insert(0, str(TESTS))
import leftovers  # noqa: E402
import runner  # noqa: E402


def run(suite, name):
    """One test; whether it passed, and what it said."""
    done = subprocess.run([sys.executable, TESTS / f"{suite}.py", f"={name}"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          preexec_fn=leftovers.die_with_parent)
    # The suite's own count, which is that of this one test, would be counted twice.
    lines = [line for line in done.stdout.splitlines() if not line.startswith(f"{suite}: ")]
    return done.returncode == 0, "\n".join(lines)


def main(suites):
    os.environ.setdefault("TAKEOVER", str(runner.program()))
    # Whoever starts a child for die_with_parent must live on; the threads of a pool do, until all is done.
    with concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        started = {pool.submit(run, suite, name): suite
                   for suite in suites for name, _ in runner.tests_of(importlib.import_module(suite))}
        counts = {suite: [0, 0] for suite in suites}
        for ended in concurrent.futures.as_completed(started):
            passed, said = ended.result()
            counts[started[ended]][0 if passed else 1] += 1
            print(said, flush=True)
    for suite, (passed, failed) in counts.items():
        print(f"{suite}: {passed} passed, {failed} failed", flush=True)
    sys.exit(min(sum(failed for _, failed in counts.values()), 100))


if __name__ == "__main__":
    main(sys.argv[1:])
