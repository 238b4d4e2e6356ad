#!/usr/bin/env python3
"""Whole takeovers on ARM: the Raspberry Pi 3 with both programs, and plain 32-bit and 64-bit machines.

The programs are those of the audited build. $TAKEOVER_AARCH64 and $TAKEOVER_ARMV7 name others.
"""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
sys.path.insert(0, str(HERE))
import balena_image  # noqa: E402
import efi  # noqa: E402
import runner  # noqa: E402
import test_guests  # noqa: E402
from guest import Guest, new_disk  # noqa: E402

TARGETS = {"AARCH64": "aarch64-unknown-linux-musl", "ARMV7": "armv7-unknown-linux-musleabihf",
           # One guest of another suite has the audited program, too.
           "X86_64": "x86_64-unknown-linux-musl"}


def program(name):
    given = os.environ.get(f"TAKEOVER_{name}")
    if given:
        return pathlib.Path(given)
    done = subprocess.run([HERE.parent / "size-report/build", TARGETS[name], "full"], check=True,
                          stdout=subprocess.PIPE, text=True)
    return pathlib.Path(done.stdout.strip())


# QEMU's Pi has no watchdog timer: starting it restarts the machine at once, as the driver does to restart. The shipped
# program takes every watchdog it finds, so here there must be none to find.
WITHOUT_WATCHDOG = "rm -f /dev/watchdog /dev/watchdog0\n"


# QEMU's plain machines are no board of the table, and here they have no UEFI, which generic-aarch64 asks for.
NO_BOARD = {"arm64", "armhf"}


def script_for(kind):
    before = WITHOUT_WATCHDOG if kind == "raspi3" else ""
    option = " --no-dt-check" if kind in NO_BOARD else ""
    return f"{before}{test_guests.COMMAND}{option}; echo EXIT $?\n"


# Kind: the program, and the image.
SMALL = {"systemd": (None, "small"), "sysvinit": (None, "small"), "arm64": ("AARCH64", "raspberrypi3-64"),
         "armhf": ("ARMV7", "raspberrypi3"), "raspi3": ("AARCH64", "raspberrypi3-64")}


def small_takeover(kind, folder, memory):
    """A guest of any kind that is about to be taken over with a small image."""
    name, image = SMALL[kind]
    files = test_guests.job(balena_image.gz(image), script_for(kind), image)
    if name:
        files["takeover"] = program(name)
    return Guest(kind, [new_disk(kind, folder)], memory=memory, timeout=600, files=files)


def take_over(folder, kind, name, image, memory=256):
    files = test_guests.job(balena_image.gz(image), script_for(kind), image)
    files["takeover"] = program(name)
    with Guest(kind, [new_disk(kind, folder)], files=files, memory=memory, timeout=900,
               fail_on=f"{test_guests.REFUSED}|EXIT [1-9]") as guest:
        guest.wait_for("PID 1 is handed over", 600)
        test_guests.check_new_os(guest, folder, image, wait=300)


def test_raspberry_pi_3_with_the_aarch64_program(folder):
    take_over(folder, "raspi3", "AARCH64", "raspberrypi3-64")


def test_raspberry_pi_3_with_the_armv7_program(folder):
    take_over(folder, "raspi3", "ARMV7", "raspberrypi3")


def test_arm64_uefi_starts_the_new_os_by_its_own_boot_entry(folder):
    """As test_guests has it for a PC: an entry that leads nowhere first, then one of another disk, which is not there."""
    files = test_guests.job(balena_image.gz("aarch64"), f"{test_guests.PUT_ENTRIES}\n{test_guests.COMMAND}\n", "aarch64")
    files["takeover"] = program("AARCH64")
    files |= {f"Boot{number:04X}": efi.as_file(value) for number, value in test_guests.ENTRIES.items()}
    with Guest("arm64-uefi", [new_disk("arm64-uefi", folder)], files=files, memory=512, timeout=900,
               fail_on=test_guests.REFUSED) as guest:
        test_guests.check_boot_entry(guest, folder, "aarch64")


def migrate(folder, kind, name, image):
    """With networks, a name and a backup, so that all of stage 1 runs on this CPU."""
    files, config = test_guests.old_settings(image, "--no-dt-check")
    files["takeover"] = program(name)
    with Guest(kind, [new_disk(kind, folder)], files=files, memory=256, timeout=900,
               fail_on=test_guests.REFUSED) as guest:
        guest.wait_for("PID 1 is handed over", 600)
        test_guests.check_migration(guest, folder, image, config, wait=300)


def test_arm64_with_the_aarch64_program(folder):
    migrate(folder, "arm64", "AARCH64", "raspberrypi3-64")


def test_armhf_with_the_armv7_program_on_a_32_bit_kernel(folder):
    migrate(folder, "armhf", "ARMV7", "raspberrypi3")


if __name__ == "__main__":
    subprocess.run([HERE / "setup", "arm"], check=True)
    runner.main(sys.modules[__name__], sys.argv[1:])
