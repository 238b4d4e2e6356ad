#!/usr/bin/env python3
"""Boots each kind of guest and each kind of image once, to see that the guests
work before anything is blamed on takeover. Prints what each took."""

import pathlib
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import balena_image
import guest
import rootfs
from guest import Guest

CONFIG = b'{\n  "apiKey": "self-test",\n  "deviceType": "genericx86-64-ext"\n}\n'


def report(what, began):
    print(f"{what:<44} {time.monotonic() - began:6.1f} s", flush=True)


def old_os(kind, folder):
    """The old OS boots, finds its job and its disks, and can load modules."""
    run = """
    set -e
    echo "MARK $BOOT $(cat /job/sub/note.txt)"
    findmnt -n -o SOURCE /
    modprobe vfat && modprobe loop && modprobe overlay && echo MODULES
    printf 'really? '
    read -r answer </dev/console
    echo "ANSWER $answer"
    sync
    poweroff -f
    """
    disk = guest.new_disk(kind, folder)
    with Guest(kind, [disk], files={"run.sh": run, "sub/note.txt": "note"},
               timeout=180) as one:
        one.wait_for("MARK 1 note", 120)
        mark = one.age
        one.wait_for("^/dev/nvme0n1p2$", 20)
        one.wait_for("^MODULES$", 20)
        one.wait_for(r"really\? $", 20, prompt=True)
        one.send("yes\n")
        one.wait_for("^ANSWER yes$", 20)
        one.pause()
        one.resume()
        code = one.wait_exit(30)
        assert code == 0, code
    boots = guest.ext_read(disk, rootfs.ROOT_START, "/var/lib/guest-boots")
    assert boots == b"1\n", boots
    print(f"    the job ran after {mark:.1f} s")


def sysrq(folder):
    """The magic key kills the job, and restarts the guest: boot 2 of the same root."""
    run = 'echo "MARK $BOOT"; sync; [ "$BOOT" = 1 ] && sleep 1000; poweroff -f\n'
    with Guest("systemd", [guest.new_disk("systemd", folder)], files={"run.sh": run},
               timeout=180) as one:
        one.wait_for("MARK 1", 120)
        one.sysrq("b")
        one.wait_for("MARK 2", 120)
        one.wait_exit(30)
        assert one.resets() == 1, one.events


def new_os(name, folder):
    """An image boots as the disk, finds config.json, and leaves no trace."""
    image = balena_image.image(name)
    disk = rootfs.copy_sparse(image, pathlib.Path(folder) / "image.img")
    boot = balena_image.partition(name, "resin-boot")
    rootfs.fat_put(disk, boot.start, {"/config.json": CONFIG,
                                      "/system-connections/balena-01": b"[connection]\n"})
    kind = "image-uefi" if name == "gpt" else "image"
    with Guest(kind, [disk], timeout=120) as one:
        one.wait_for("NEWOS: booted", 60)
        one.wait_for("NEWOS: config.json ok", 20)
        one.wait_for("NEWOS: file system-connections/balena-01 sha256=", 20)
        one.wait_for("NEWOS: done", 60)
        assert not one.find("CANNOT"), one.text()
        one.wait_exit(20)
        if name == "gpt":
            assert one.find("NEWOS: efi boot current="), one.text()
    different = guest.compare_disk(disk, image, [(boot.start, boot.size)])
    assert not different, different
    files = guest.boot_files(disk, boot.start)
    assert files.pop("config.json") == CONFIG
    assert "config.json" in guest.fat_tree(disk, boot.start)
    assert sorted(files) == sorted([*guest.boot_files(image, boot.start),
                                    "system-connections/balena-01"])


def main(wanted):
    checks = {f"old OS: {kind}": (old_os, kind) for kind in ("systemd", "sysvinit", "uefi")}
    checks |= {"sysrq": (sysrq,)}
    checks |= {f"image: {name}": (new_os, name) for name in balena_image.NAMES}
    for what, (check, *arguments) in checks.items():
        if wanted and not any(word in what for word in wanted):
            continue
        with tempfile.TemporaryDirectory(prefix="takeover-selftest-") as folder:
            for name in arguments:      # building is not booting
                if check is new_os:
                    balena_image.image(name)
                else:
                    rootfs.disk(name)
            began = time.monotonic()
            check(*arguments, folder)
            report(what, began)
    print("all well")


if __name__ == "__main__":
    main(sys.argv[1:])
