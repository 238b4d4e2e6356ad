"""How many instructions a program of another architecture executes, counted by QEMU's user emulation.

    count("aarch64", [program, "scan", image])

Time under emulation says nothing of a device; the number of instructions says which of two programs has less to do.
Debian's qemu-user is unpacked into the cache (its static sister takes no plug-ins), and the plug-in is built there.
"""

import pathlib
import re
import subprocess

import arm
import rootfs
from servers import unpacked

SOURCE = pathlib.Path(__file__).resolve().parent / "instructions.c"
EMULATORS = {"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}
# The guests whose root has Debian's own programs for an architecture: tests/lib/arm.py.
ROOTS = {"aarch64": "arm64", "armv7": "armhf"}


def _plugin():
    text = SOURCE.read_text()
    return rootfs.cached("instructions", rootfs.key_of(text),
                         lambda path: rootfs.run("gcc", "-O2", "-shared", "-fPIC", "-o", path, SOURCE), ".so")


def root_of(architecture):
    """The root of Debian for that architecture, with its libraries and programs."""
    return arm.root(ROOTS[architecture])


def count(architecture, command, root=None):
    """The instructions of a run whose output goes nowhere; `root` has the libraries of one that is not static."""
    where = ["-L", root] if root else []
    emulator = unpacked("qemu-user") / "usr/bin" / EMULATORS[architecture]
    done = subprocess.run([str(word) for word in (emulator, "-plugin", _plugin(), *where, *command)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          errors="replace")
    found = re.search(r"^INSTRUCTIONS (\d+)$", done.stderr, re.M)
    if done.returncode or not found:
        raise RuntimeError(f"{command[0]} under {emulator.name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return int(found[1])
