#!/usr/bin/env python3
"""Boots each kind of guest and each kind of image once, to see that the guests
work before anything is blamed on takeover. Prints what each took. Words choose
what runs; ARM's (arm64, armhf, raspi3) run only when a word asks: `all`, or one of
theirs."""

import pathlib
import re
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import arm
import balena_image
import guest
import rootfs
import stacked
from guest import Guest

# Each image, and a kind of guest that boots it.
IMAGES = [("small", "image"), ("demo", "image"), ("gpt", "image-uefi")]
ARM_IMAGES = [("raspberrypi3-64", "arm64"), ("raspberrypi3-64", "raspi3"),
              ("raspberrypi3", "armhf"), ("raspberrypi3", "raspi3")]
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
        one.wait_for(f"^{re.escape(stacked.ROOTS.get(kind, '/dev/nvme0n1p2'))}$", 20)
        one.wait_for("^MODULES$", 20)
        one.wait_for(r"really\? $", 20, prompt=True)
        one.send("yes\n")
        one.wait_for("^ANSWER yes$", 20)
        one.pause()
        one.resume()
        code = one.wait_exit(30)
        assert code == 0, code
    if kind not in stacked.KINDS:
        boots = guest.ext_read(disk, rootfs.ROOT_START, "/var/lib/guest-boots")
        assert boots == b"1\n", boots
    print(f"    the job ran after {mark:.1f} s")


def sysrq(kind, folder):
    """The magic key kills the job, and restarts the guest: boot 2 of the same root."""
    run = 'echo "MARK $BOOT"; sync; [ "$BOOT" = 1 ] && sleep 1000; poweroff -f\n'
    with Guest(kind, [guest.new_disk(kind, folder)], files={"run.sh": run},
               timeout=180) as one:
        one.wait_for("MARK 1", 120)
        one.sysrq("b")
        one.wait_for("MARK 2", 120)
        one.wait_exit(30)
        assert one.resets() == 1, one.events


def new_os(name, kind, folder):
    """An image boots as the disk, finds config.json, and leaves no trace."""
    image = balena_image.image(name)
    disk = rootfs.copy_sparse(image, pathlib.Path(folder) / "image.img")
    boot = balena_image.partition(name, "resin-boot")
    rootfs.fat_put(disk, boot.start, {"/config.json": CONFIG,
                                      "/system-connections/balena-01": b"[connection]\n"})
    with Guest(kind, [disk], timeout=180) as one:
        one.wait_for("NEWOS: booted", 100)
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


def arm_old_os(kind, folder):
    """The old OS of an ARM guest boots, finds its job and its disk, loads modules,
    runs what it is to run, and restarts; then it is powered off."""
    run = """
    [ "$BOOT" = 2 ] && { echo "AGAIN $(cat /job/sub/note.txt)"; sync; poweroff -f; }
    echo "MARK $(cat /job/sub/note.txt)"
    findmnt -n -o SOURCE /
    lsblk -r -n -o NAME,SIZE,TYPE
    free -m | sed -n 2p
    tr '\\0' '\\n' </proc/device-tree/model
    modprobe vfat && modprobe loop && modprobe overlay && echo MODULES
    mount -t vfat -o ro @DISK@1 /mnt && cat /mnt/old-os.txt && umount /mnt
    for busybox in /job/busybox-*; do
        "$busybox" echo "${busybox##*/} RUNS"
    done
    printf 'really? '
    read -r answer </dev/console
    echo "ANSWER $answer"
    sync
    reboot -f
    """.replace("@DISK@1", guest.disk_name(kind, 1))
    files = {"run.sh": run, "sub/note.txt": "note"}
    programs = ["arm64", "armhf"] if arm.MACHINES[kind].architecture == "arm64" else ["armhf"]
    for architecture in programs:
        files[f"busybox-{architecture}"] = arm.busybox(architecture)[0]
    disk = guest.new_disk(kind, folder)
    with Guest(kind, [disk], files=files, timeout=400) as one:
        one.wait_for("MARK note", 200)
        mark = one.age
        one.wait_for(f"^{guest.disk_name(kind, 2)}$", 30)
        one.wait_for("^Mem: .*", 30)
        one.wait_for("^MODULES$", 40)
        one.wait_for("^the boot partition of the old OS$", 20)
        for architecture in programs:
            one.wait_for(f"^busybox-{architecture} RUNS$", 20)
        one.wait_for(r"really\? $", 20, prompt=True)
        one.send("yes\n")
        one.wait_for("^ANSWER yes$", 20)
        restart = one.age
        one.wait_for("AGAIN note", 200)
        again = one.age - restart
        assert one.resets() == 1, one.events
        code = one.wait_exit(60)
        assert code == 0, code
    boots = guest.ext_read(disk, arm.ROOT_START, "/var/lib/guest-boots")
    assert boots == b"2\n", boots
    print(f"    the job ran after {mark:.1f} s, again {again:.1f} s after the restart")
    print(f"    {one.find('^Mem: .*')[0]}")


def overwritten(name, kind, folder):
    """An image written over the running ARM guest's disk is what the restart boots:
    what takeover does, at its roughest and without it."""
    run = """
    mount -t tmpfs none /mnt && cp /job/busybox /job/image.gz /mnt && cd /mnt
    ./busybox echo u >/proc/sysrq-trigger
    sleep 3
    echo WRITING
    ./busybox sh -c './busybox zcat image.gz | ./busybox dd of=@DISK@ bs=1M iflag=fullblock conv=fsync
        echo WRITTEN
        echo b >/proc/sysrq-trigger'
    """.replace("@DISK@", guest.disk_name(kind))
    disk = guest.new_disk(kind, folder)
    files = {"run.sh": run, "image.gz": balena_image.gz(name),
             "busybox": arm.busybox(arm.MACHINES[kind].architecture)[0]}
    with Guest(kind, [disk], files=files, memory=256, timeout=400) as one:
        one.wait_for("^WRITING$", 200)
        writing = one.age
        one.wait_for("WRITTEN", 100)
        written = one.age
        one.wait_for("NEWOS: booted", 100)
        booted = one.age
        one.wait_for("NEWOS: config.json MISSING", 30)
        one.wait_for("NEWOS: done", 60)
        one.wait_exit(60)
    different = guest.compare_disk(disk, balena_image.image(name))
    assert not different, different
    print(f"    up after {writing:.1f} s, written in {written - writing:.1f} s, "
          f"the image booted {booted - written:.1f} s later")


def main(wanted):
    checks = {f"old OS: {kind}": (old_os, kind) for kind in ("systemd", "sysvinit", "uefi", *stacked.KINDS)}
    checks |= {"sysrq": (sysrq, "systemd")}
    checks |= {f"image: {name}": (new_os, name, kind) for name, kind in IMAGES}
    # An initrd that finds nothing to assemble.
    checks |= {"image: small on lvm": (new_os, "small", "lvm")}
    checks |= {f"old OS: {kind}": (arm_old_os, kind) for kind in arm.MACHINES}
    checks |= {"sysrq on arm64": (sysrq, "arm64"), "sysrq on armhf": (sysrq, "armhf")}
    checks |= {f"image: {name} on {kind}": (new_os, name, kind) for name, kind in ARM_IMAGES}
    checks |= {f"overwritten: {kind} with {name}": (overwritten, name, kind)
               for name, kind in ARM_IMAGES}
    for what, (check, *arguments) in checks.items():
        on_arm = arguments[-1] in arm.MACHINES
        words = [word for word in wanted if word == "all" or word in what]
        if wanted and not words or on_arm and not words:
            continue
        with tempfile.TemporaryDirectory(prefix="takeover-selftest-") as folder:
            # Building is not booting.
            if check in (new_os, overwritten):
                balena_image.image(arguments[0])
            if on_arm:
                arm.disk(arguments[-1])
            elif check is not new_os:
                (stacked if arguments[0] in stacked.KINDS else rootfs).disk(arguments[0])
            began = time.monotonic()
            check(*arguments, folder)
            report(what, began)
    print("all well")


if __name__ == "__main__":
    main(sys.argv[1:])
