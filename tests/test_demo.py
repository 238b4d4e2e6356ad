#!/usr/bin/env python3
"""What is around the tests, without a guest: tests/run's screen, tests/demo's lines, tests/build under sudo."""

import importlib.machinery
import importlib.util
import io
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
import bars  # noqa: E402
import runner  # noqa: E402
import show  # noqa: E402

QUIET = """import sys
print("a takeover that is to fail says: error: 7 sectors failed")
print("test provokes_errors ... ok (0.1 s)")
{more}
print("{name}: {passed} passed, {failed} failed")
sys.exit({failed})
"""
FAILING = 'print("what the failed test said")\nprint("test is_wrong ... FAILED (0.1 s)")'


# The suites of the fast run, as tests/run has them; test_namespace.py comes in two parts.
FAST = ("names tls net command_lines images namespace networkmanager networks in_force fat boot_blob api renderers "
        "demo").split()
# Four checks by cargo, and its tests of four sets, three of each stub.
PASSED = 4 + 4 * 3 + len(FAST) + 1


def stub(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def project(folder, failing=""):
    """A project with tests/run, and stubs of all that it calls; a suite that fails, if one is named."""
    shutil.copy(HERE / "run", folder / "run")
    stub(folder / "tests/run", (folder / "run").read_text())
    stub(folder / "tests/setup", "#!/bin/sh\n")
    stub(folder / "tests/build", "#!/bin/sh\necho /bin/true\n")
    stub(folder / "bin/cargo", "#!/bin/sh\necho 'test result: ok. 3 passed; 0 failed; 0 ignored'\n")
    for name in FAST:
        bad = name == failing
        stub(folder / f"tests/test_{name}.py", QUIET.format(more=FAILING if bad else "", name=name, passed=1, failed=int(bad)))
    return folder


def run(folder, *words, path=None):
    path = path or f"{folder / 'bin'}:{os.environ['PATH']}"
    return subprocess.run([folder / "tests/run", *words], capture_output=True, text=True, timeout=120,
                          env={"PATH": path, "TMPDIR": str(folder), "HOME": str(folder)})


def test_all_is_well_in_60_lines_without_what_was_provoked(folder):
    done = run(project(folder), "fast")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) <= 60, done
    assert lines[-1] == f"{PASSED} passed, 0 failed", lines
    assert re.fullmatch(r"in \d+ min \d+ s", lines[-2]), lines
    assert "sectors" not in done.stdout and "FAILED" not in done.stdout, lines


def test_of_a_failed_test_everything_is_shown_and_it_is_named_at_the_end(folder):
    done = run(project(folder, failing="tls"), "fast")
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and lines[-1] == f"{PASSED} passed, 1 failed", done
    assert lines.count("what the failed test said") == 1 and "sectors" not in done.stdout, lines
    assert "is_wrong" in lines[-2] and lines[-2].startswith("FAILED: "), lines


def test_a_suite_that_dies_is_a_failure(folder):
    project(folder)
    stub(folder / "tests/test_net.py", "print('it says this'); raise SystemExit(3)")
    done = run(folder, "fast")
    assert done.returncode == 1 and done.stdout.splitlines()[-1].endswith(" 1 failed"), done
    assert "it says this" in done.stdout and "FAILED: net: it ended with 3" in done.stdout, done.stdout


def test_ended_from_outside_it_counts_and_leaves_no_suite(folder):
    # One that runs beside others, and one that is waited for.
    for suite, words in ("net", ["fast"]), ("size", []):
        (folder / suite).mkdir()
        check_ended_within(project(folder / suite), suite, words)


def check_ended_within(folder, suite, words):
    stub(folder / f"tests/test_{suite}.py", "import os, sys, time\n"
         "open('pid.new', 'w').write(str(os.getpid())); os.rename('pid.new', 'pid'); time.sleep(1000)\n")
    process = subprocess.Popen([folder / "tests/run", *words], stdout=subprocess.PIPE, text=True,
                               env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(folder)})
    while not (folder / "pid").exists():
        time.sleep(0.05)
        assert process.poll() is None, process.stdout.read()
    # When all are started: bash was seen to stumble over a signal within the start of a child ("no record of process").
    time.sleep(1)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and re.search(r"\d+ passed, [1-9] failed\n$", said), (process.returncode, said)
    suite = pathlib.Path("/proc", (folder / "pid").read_text(), "cmdline")
    deadline = time.monotonic() + 30
    while suite.exists() and suite.read_bytes():
        assert time.monotonic() < deadline, "the suite runs on"
        time.sleep(0.05)
    assert not list(folder.glob("tmp.*")), list(folder.iterdir())


def test_the_last_line_counts_when_it_cannot_begin(folder):
    project(folder)
    assert run(folder, "quick").stdout == "0 passed, 1 failed\n"
    bare = folder / "bare"
    bare.mkdir()
    for name in ("bash", "dirname", "mktemp", "rm", "getent", "cut"):
        (bare / name).symlink_to(shutil.which(name))
    without = subprocess.run([bare / "bash", folder / "tests/run"], capture_output=True, text=True,
                             env={"PATH": str(bare), "SUDO_USER": "nobody"})
    assert without.stdout == "0 passed, 1 failed\n" and "rustup.rs" in without.stderr and without.returncode == 1, without
    stub(folder / "tests/setup", "#!/bin/sh\necho no package; exit 1\n")
    done = run(folder)
    assert done.stdout.splitlines()[0] == "no package" and done.stdout.splitlines()[-1] == "0 passed, 1 failed", done
    assert done.returncode == 1


def test_the_parts_of_a_suite_are_the_whole_of_it(folder):
    tests = list(range(7))
    for parts in (1, 2, 3):
        found = [runner.part_of(tests, f"{number}/{parts}") for number in range(1, parts + 1)]
        assert sorted(sum(found, [])) == tests, found
    # Each suite has a line in tests/run: one that is new is not forgotten.
    text = (HERE / "run").read_text()
    names = [path.stem for path in HERE.glob("test_*.py")]
    assert len(names) > 20 and all(re.search(rf"\b({name}|{name.removeprefix('test_')})\b", text) for name in names), names


def test_the_demo_says_what_it_takes(folder):
    done = subprocess.run([HERE / "demo", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(word in done.stdout for word in ("--fast", "--readme", "apt", "root")), done
    done = subprocess.run([HERE / "demo", "--slow"], capture_output=True, text=True)
    assert done.returncode == 2 and "--slow" in done.stderr, done


def test_under_sudo_the_users_cargo_builds(folder):
    """As that user, so that what is built is not root's."""
    for name in ("bash", "dirname", "env", "cut"):
        (folder / name).symlink_to(shutil.which(name))
    stub(folder / "home/.cargo/bin/cargo", "#!/bin/sh\n")
    stub(folder / "id", "#!/bin/bash\necho 0\n")
    stub(folder / "getent", f"#!/bin/bash\necho user:x:1000:1000::{folder / 'home'}:/bin/sh\n")
    stub(folder / "runuser", '#!/bin/bash\necho "$@"\n')
    done = subprocess.run([folder / "bash", HERE / "build"], capture_output=True, text=True,
                          env={"PATH": str(folder), "SUDO_USER": "user", "HOME": "/root"})
    assert done.returncode == 0 and done.stdout.startswith(f"-u user -- env HOME={folder / 'home'} PATH={folder / 'home'}/.cargo/bin:"), done
    # Without any, it says what to do.
    shutil.rmtree(folder / "home/.cargo")
    done = subprocess.run([folder / "bash", HERE / "build"], capture_output=True, text=True,
                          env={"PATH": str(folder), "SUDO_USER": "user", "HOME": str(folder)})
    assert done.returncode == 1 and "install Rust" in done.stderr, done


def test_no_line_is_longer_than_the_terminal_and_no_word_is_lost(folder):
    chance = random.Random(1)
    for _ in range(2000):
        width = chance.randrange(40, 130)
        words = ["x" * chance.randrange(1, 20) for _ in range(chance.randrange(40))]
        line = " " * chance.randrange(6) + " ".join(words)
        lead = chance.choice(["", "    ", "  12.3  "])
        lines = show.folded(line, lead, width)
        assert max(map(len, lines)) <= width, (line, lines)
        assert " ".join(lines)[len(lead):].split() == words, (line, lines)
    assert max(map(len, show.folded("y" * 300, "", 80))) <= 80


def test_there_is_a_sign_of_life_when_nothing_is_said(folder):
    output, silent = io.StringIO(), show.SILENT
    show.SILENT = 0.5
    try:
        with show.Show(output) as screen:
            screen.step("a step", "working")
            time.sleep(2.5)
            screen.now("")
            before = output.getvalue()
            time.sleep(1.5)
            assert output.getvalue() == before, "there is nothing to say"
    finally:
        show.SILENT = silent
    assert before.count("working: ") >= 2, before


def test_the_console_in_the_readme_has_neither_the_page_again_nor_sums(folder):
    loader = importlib.machinery.SourceFileLoader("demo", str(HERE / "demo"))
    demo = importlib.util.module_from_spec(importlib.util.spec_from_loader("demo", loader))
    loader.exec_module(demo)
    console = ["the disk: /dev/sda", "This device", "  model           a board", "Warnings", "  - none", "flashed",
               "NEWOS: file x sha256=00", "NEWOS: done"]
    assert demo.shortened(console) == ["the disk: /dev/sda", "[the page, as above]", "flashed", "NEWOS: done"]


def test_pictures_are_xml_with_every_name(folder):
    import xml.etree.ElementTree
    bars.steps(folder / "a.svg", "A & B", {"look <at>": 1.5, "none": 0.0, "write": 20.0})
    bars.groups(folder / "b.svg", "sizes", {"armv7": {"core": 10, "full": 20}}, {"armv7": {"core": 12, "full": 15}})
    for name, words in (("a.svg", ("look <at>", "none", "20.0 s")), ("b.svg", ("armv7", "core", "full", "20"))):
        text = "".join(xml.etree.ElementTree.parse(folder / name).getroot().itertext())
        assert all(word in text for word in words), text


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
