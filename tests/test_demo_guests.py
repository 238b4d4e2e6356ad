#!/usr/bin/env python3
"""tests/demo as a person sees it: recorded in terminals of tmux, and what is left of it when it is ended."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
import runner  # noqa: E402

TAKEOVER = runner.program()
# Seconds within which something must change on the screen.
ALIVE = 10


def record(folder, columns, lines):
    """Runs the demo in a terminal of this size; its exit code, what the terminal has shown, the same with the lines joined
    that the terminal wrapped, and the longest time without a change."""
    code = folder / "code"
    tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]

    def ask(*words):
        return subprocess.run([*tmux, *words], check=True, capture_output=True, text=True).stdout
    command = f"TAKEOVER={TAKEOVER} {HERE / 'demo'} --fast; echo $? >{code}.new; mv {code}.new {code}; exec sleep 1000"
    subprocess.run([*tmux, "start-server", ";", "set", "-g", "history-limit", "50000", ";", "set", "-g", "status", "off", ";",
                    "new-session", "-d", "-x", str(columns), "-y", str(lines), command], check=True)
    try:
        began = changed = time.monotonic()
        longest, before = (0, ""), None
        while not code.exists():
            now = time.monotonic()
            assert now - began < 1200, "it does not end:\n" + (before or "")
            screen = ask("capture-pane", "-p")
            if screen != before:
                longest = max(longest, (now - changed, before or ""))
                before, changed = screen, now
            time.sleep(0.3)
        whole = ["capture-pane", "-p", "-S", "-"]
        return int(code.read_text()), ask(*whole), ask(*whole, "-J"), longest
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True)


def check_recording(folder, columns, lines):
    code, shown, joined, (seconds, screen) = record(folder, columns, lines)
    assert code == 0, shown
    assert seconds < ALIVE, f"nothing has changed for {seconds:.1f} s:\n{screen}"
    # -J keeps blanks at the end of a line.
    wrapped = set(line.rstrip() for line in joined.splitlines()) - set(line.rstrip() for line in shown.splitlines())
    assert not wrapped, f"wrapped by the terminal: {wrapped}"
    assert max(map(len, shown.splitlines())) < columns
    flat = re.sub(r"\s+", " ", shown)
    for words in ("Debian 12 boots in QEMU", "dry run: every check passed", "PID 1 is handed over", "NEWOS: config.json ok",
                  "config.json: as it was given", "You have seen a running Debian 12 replaced in place"):
        assert words in flat, f"{words!r} is not in:\n{shown}"


def test_the_demo_in_a_terminal_of_80_by_24(folder):
    check_recording(folder, 80, 24)


def test_the_demo_in_a_terminal_of_120_by_40(folder):
    check_recording(folder, 120, 40)


def processes(folder):
    """Those that have this folder in their environment."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={folder}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def heed_signals():
    """For preexec_fn: whoever runs this in the background may ignore some."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def start(folder):
    """Starts the demo, and waits until its guest runs."""
    demo = subprocess.Popen([HERE / "demo", "--fast"], env={**os.environ, "TAKEOVER": str(TAKEOVER), "TMPDIR": str(folder)},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                            preexec_fn=heed_signals)
    said = ""
    for line in demo.stdout:
        said += line
        if "booting:" in line:
            return demo
    raise AssertionError(f"it did not come so far:\n{said}")


def ended(folder):
    deadline = time.monotonic() + 30
    while processes(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes(folder)


def test_a_signal_leaves_nothing_and_what_a_kill_left_the_next_run_removes(folder):
    own = folder / "tmp"
    own.mkdir()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        with start(own) as demo:
            assert list(own.iterdir()) and len(processes(own)) >= 2
            demo.send_signal(number)
            demo.stdout.read()
        assert demo.returncode == 128 + number, demo.returncode
        assert ended(own) and not list(own.iterdir()), (number, list(own.iterdir()))
    with start(own) as demo:
        demo.kill()
        demo.stdout.read()
    assert ended(own), "QEMU outlives it"
    left = list(own.iterdir())
    assert left
    with start(own) as demo:
        assert not set(left) & set(own.iterdir()), "the next run has not removed it"
        demo.terminate()
        demo.stdout.read()
    assert ended(own) and not list(own.iterdir())


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
