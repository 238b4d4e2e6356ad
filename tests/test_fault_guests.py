#!/usr/bin/env python3
"""Takeovers of guests in which something is wrong, or in the way, that a real device may well have: disks that fail or
come back under another name, kernels without what a takeover would like to have, uses of the disk inside the kernel."""

import hashlib
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "lib")]
import balena_image  # noqa: E402
import guest as guests  # noqa: E402
import runner  # noqa: E402
from guest import Guest, new_disk  # noqa: E402
from test_guests import (  # noqa: E402
    COMMAND, FIXTURES, MIB, REFUSED, check_boot, check_disk, check_new_os, check_result, check_secrets, config_for, job)


# What ends the waiting for a flash that went wrong.
INCOMPLETE = "the disk is incomplete"


def second_disk(folder, size_mib=256):
    """An empty one, /dev/nvme0n2."""
    path = folder / "second.img"
    guests.rootfs.make_file(path, size_mib * MIB)
    return path


def boot_again(folder, disk, config, name="small"):
    """What is on the disk boots with the kernel that it was made for."""
    with Guest("image", [disk]) as guest:
        check_boot(guest, config)
    check_disk(folder, name, config)


# ----------------------------------------------------------------- what the kernel lacks

KEYFILES = {f"system-connections/{path.name}": path.read_bytes() for path in (FIXTURES / "expected").iterdir()}
PROXY = {"system-proxy/redsocks.conf": b"redsocks {\n\ttype = socks5;\n\tip = 192.0.2.7;\n\tport = 1080;\n}\n"}

# What a kernel lacks that was built without them. Only a balenaOS has proxy files; they keep their names.
WITHOUT_VFAT_AND_LOOP = """
rm /etc/os-release
printf 'ID="balena-os"\\nNAME="balenaOS"\\nVERSION="6.1.25"\\n' > /etc/os-release
mkdir -p /mnt/boot
cp -r /job/system-connections /job/system-proxy /mnt/boot/
rm $(find /lib/modules -name vfat.ko -o -name fat.ko -o -name loop.ko)
depmod
modprobe vfat && exit 1
modprobe loop && exit 1
grep -q vfat /proc/filesystems && exit 1
ls /sys/block | grep loop && exit 1
echo NEITHER VFAT NOR LOOP
"""


def test_a_kernel_without_vfat_and_loop_is_taken_over(folder):
    """Nothing is mounted to place the new OS's files: the disk is the image but for what a FAT has to say of them."""
    ours = KEYFILES | PROXY
    assert len(KEYFILES) == 3, sorted(KEYFILES)
    files = job(balena_image.gz("small"), f"{WITHOUT_VFAT_AND_LOOP}{COMMAND}\n") | ours
    with Guest("systemd", [new_disk("systemd", folder)], files=files, fail_on=REFUSED) as guest:
        guest.wait_for("NEITHER VFAT NOR LOOP", 120)
        guest.wait_for("PID 1 is handed over", 120)
        check_boot(guest, config_for("small"))
        for path, content in ours.items():
            digest = hashlib.sha256(content).hexdigest()
            assert guest.find(f"NEWOS: file {path} sha256={digest}"), (path, guest.tail(80))
        check_disk(folder, more=ours)
        check_result(guest, "done")


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
