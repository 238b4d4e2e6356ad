#!/usr/bin/env python3
"""Whole takeovers of devices whose memory is smaller than the packed image: it waits on the disk that is written.

The ARM programs are those of the audited build. $TAKEOVER_AARCH64 and $TAKEOVER_ARMV7 name others.
"""

import os
import pathlib
import random
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "lib")]
import balena_image  # noqa: E402
import guest as guests  # noqa: E402
import runner  # noqa: E402
import test_arm_guests  # noqa: E402
import test_guests  # noqa: E402
from guest import Guest, new_disk  # noqa: E402
from rootfs import MIB, ROOT_START, cached, key_of, run  # noqa: E402

COMMAND = test_guests.COMMAND.replace("/job/image", "/image")
REFUSED = f"{test_guests.REFUSED}|EXIT [1-9]|Out of memory"


def image(base, size_mib, noise_mib):
    """The raw image and its gzip, from the cache: a small one, behind its partitions noise, which nothing packs, and
    zeros up to its size."""
    small = balena_image.image(base)
    key = key_of(small.name, size_mib, noise_mib)

    def build(path):
        run("cp", "--sparse=always", small, path)
        noise = random.Random(1)
        with open(path, "r+b") as file:
            file.seek(0, os.SEEK_END)
            for _ in range(noise_mib):
                file.write(noise.randbytes(MIB))
            assert file.tell() <= size_mib * MIB, file.tell()
            file.truncate(size_mib * MIB)

    raw = cached(f"stays-{base}-{size_mib}", key, build, ".img")

    def pack(path):
        with open(path, "wb") as out:
            subprocess.run(["pigz", "-6", "-n", "-c", raw], stdout=out, check=True)

    packed = cached(f"stays-{base}-{size_mib}", key, pack, ".img.gz")
    assert packed.stat().st_size > noise_mib * MIB
    return raw, packed


def disk_with(kind, folder, packed):
    """The disk of the old OS, with the packed image as /image of its root."""
    disk = new_disk(kind, folder)
    # It says what failed, and ends with 0 all the same.
    said = run("debugfs", "-w", "-R", f"write {packed} image", f"{disk}?offset={ROOT_START}").decode()
    assert "Allocated inode" in said, said
    return disk


def job(base, script, program=None):
    """The files of a job disk, without an image."""
    files = test_guests.job("/nowhere", script, base)
    del files["image"]
    return files | ({"takeover": test_arm_guests.program(program)} if program else {})


def check_waits(guest, timeout):
    """The image waits on the disk, and what the new OS will overwrite of it is copied; gives how many MiB."""
    guest.wait_for(r"the image waits: disk \(", timeout)
    return float(guest.wait_for(r"([\d.]+) MiB of the image are copied behind the new OS: /.takeover-copies", timeout)[1])


def check_new_os(guest, folder, base, raw, wait=300):
    test_guests.check_boot(guest, test_guests.config_for(base), wait)
    test_guests.check_disk(folder, base, image=raw)
    return test_guests.check_result(guest, "done")


def test_128_mb_take_an_image_of_1_gib_from_their_own_disk(folder):
    """Of 430 MiB packed, which is more than three times the memory."""
    raw, packed = image("small", 1024, 430)
    with Guest("systemd", [disk_with("systemd", folder, packed)], memory=128, timeout=900,
               files=job("small", f"free -m\n{COMMAND}; echo EXIT $?\n"), fail_on=REFUSED) as guest:
        assert check_waits(guest, 300) > 400, guest.tail()
        result = check_new_os(guest, folder, "small", raw)
        assert result["attempts"] == 1 and result["repaired_chunks"] == 0, result
        # Of the memory, which is free of the old OS by then, it takes a small part.
        assert result["peak_kib"]["total"] < 8 * 1024, result


def test_a_worker_killed_in_the_middle_of_the_flash_reads_the_disk_again(folder):
    raw, packed = image("small", 448, 64)
    # Slow enough to be hit in the middle.
    with Guest("systemd", [disk_with("systemd", folder, packed)], memory=256, timeout=600, fail_on=REFUSED,
               drive_options="discard=unmap,throttling.bps-write=20000000",
               files=job("small", f"{COMMAND} --stage disk; echo EXIT $?\n")) as guest:
        assert check_waits(guest, 200) > 60, guest.tail()
        guest.wait_for("takeover is PID 1", 100)
        guest.wait_for(r"flash: [1-9]\d? % of", 100)
        guest.sysrq("i")     # SIGKILL to every process but PID 1
        guest.wait_for("killed by signal 9 in phase flash", 30)
        guest.wait_for("it is flashed again", 30)
        result = check_new_os(guest, folder, "small", raw)
        assert result["attempts"] == 2, result


def test_an_image_in_a_volume_of_lvm_stays_there(folder):
    """The volume ends with the old OS, and its blocks are read from the disk. A volume in dm-crypt is refused for it:
    tests/test_guests.py."""
    raw, packed = image("small", 896, 64)
    files = job("small", f"cp /job/image /image && sync\n{COMMAND} --stage disk; echo EXIT $?\n") | {"image": packed}
    with Guest("lvm", [new_disk("lvm", folder)], files=files, timeout=600, fail_on=REFUSED) as guest:
        assert check_waits(guest, 200) > 1, guest.tail()
        result = check_new_os(guest, folder, "small", raw)
        assert result["attempts"] == 1 and result["repaired_chunks"] == 0, result


# As cameras and people leave it: two files that have grown side by side.
ON_A_STICK = f"""
modprobe vfat; mkdir -p /stick && mount /dev/nvme0n2p1 /stick || exit 1
for piece in $(seq 0 $(($(stat -c %s /job/packed) >> 19))); do
    dd if=/job/packed bs=512K skip=$piece count=1 status=none >>/stick/image
    head -c 70000 /job/takeover >>/stick/other
done
cmp /job/packed /stick/image || exit 1
on_stick='{COMMAND.replace("-i /image", "-i /stick/image")} --stage disk'
eval "$on_stick --dry-run -f /dev/nvme0n2"; echo ITSELF $?
eval "$on_stick"; echo EXIT $?
"""


def test_an_image_on_a_stick_with_fat_stays_there(folder):
    """FAT tells where single blocks are. It sets no room aside: the stick itself cannot be written from it."""
    raw, packed = image("small", 448, 64)
    stick = folder / "stick.img"
    guests.rootfs.make_file(stick, 512 * MIB)
    guests.rootfs.partition(stick, "label: dos\nstart=2048, type=c\n")
    run("mkfs.vfat", "-n", "STICK", "-s", "8", "--offset", "2048", stick, str(511 * 1024))
    files = job("small", ON_A_STICK) | {"packed": packed}
    with Guest("systemd", [new_disk("systemd", folder), stick], files=files, timeout=600, fail_on=REFUSED) as guest:
        guest.wait_for("a part of it lies where the new OS will be, and FAT sets no room aside", 300)
        guest.wait_for("^ITSELF 3", 10)
        guest.wait_for(r"the image waits: disk \(", 300)
        pieces = guest.wait_for(r"the image stays on /dev/nvme0n2, in (\d+) pieces", 60)
        assert int(pieces[1]) > 100, guest.tail()
        result = check_new_os(guest, folder, "small", raw)
        assert result["attempts"] == 1 and result["repaired_chunks"] == 0, result
    run("mcopy", "-i", f"{stick}@@{2048 * 512}", "::image", folder / "image.back")
    assert (folder / "image.back").read_bytes() == packed.read_bytes(), "the stick was written"


# The empty disk beside, by its size: where namespaces of NVMe are counted from differs.
TO_THE_OTHER = f"""
for disk in /sys/block/nvme*; do [ "$(cat $disk/size)" = 1048576 ] && other=/dev/${{disk##*/}}; done
{COMMAND} --stage disk -f $other; echo EXIT $?
"""


def test_the_image_is_read_on_from_a_usb_disk_that_comes_back_under_another_name(folder):
    """The stick with the old OS and the image goes in the middle of the flash of another disk. Another of the same make
    and size gets its name, and then it comes back under the next one."""
    raw, packed = image("small", 448, 64)
    old, stranger, disk = new_disk("usb", folder, name="old.img"), folder / "stranger.img", folder / "disk.img"
    said = run("debugfs", "-w", "-R", f"write {packed} image", f"{old}?offset={ROOT_START}").decode()
    assert "Allocated inode" in said, said
    guests.rootfs.make_file(stranger, old.stat().st_size)
    guests.rootfs.make_file(disk, 512 * MIB)
    with Guest("usb", [old, disk], files=job("small", TO_THE_OTHER), fail_on=REFUSED, reboot=False, options="loglevel=6",
               timeout=900, drive_options="discard=unmap,throttling.bps-write=10000000") as guest:
        guest.wait_for(r"the image stays on /dev/sda", 400)
        guest.wait_for(r"flash: [1-9]\d? % of", 300)
        guest.unplug()
        assert not guest.find(r"flashed \("), guest.tail()
        guest.plug(stranger)
        guest.wait_for(r"\[sd[a-z]\] Attached SCSI disk", 60)
        guest.plug()
        guest.wait_for(r"the disk sda came back as 8:[1-9]", 240)
        guest.wait_exit(400)
        test_guests.check_result(guest, "done")
    with Guest("image", [disk]) as guest:
        test_guests.check_boot(guest, test_guests.config_for("small"))
    test_guests.check_disk(folder, "small", image=raw)


# Boots, says whether the copies of a takeover before are there, and takes over as far as it gets.
UNTIL_IT_IS_CUT = f"""
echo OLD OS IS UP
[ -e /.takeover-copies ] && echo COPIES ARE LEFT
sha256sum /job/config.json
{COMMAND} --stage disk; echo EXIT $?
"""
CUTS = 10


def written(guest):
    """How many bytes the guest has written to the disk under test."""
    return guest.qmp("query-blockstats")[0]["stats"]["wr_bytes"]


def cut_while_copying(guest, share, size):
    """Kills QEMU once so large a share of the copies is on the disk; with 1 once the copies are proven there."""
    guest.wait_for("OLD OS IS UP", 200)
    guest.wait_for(r"the image waits: disk \(", 200)
    if guest.find("COPIES ARE LEFT"):
        guest.wait_for("removed what an earlier takeover has left", 100)
    if share == 1:
        guest.wait_for("of the image are copied behind the new OS", 100)
    else:
        before, deadline = written(guest), time.monotonic() + 100
        while written(guest) - before < share * size:
            assert time.monotonic() < deadline and not guest.find("PID 1 is handed over"), guest.tail()
            time.sleep(0.01)
        assert not guest.find("of the image are copied behind the new OS"), guest.tail()
    guest.kill()
    assert not guest.find("EXT4-fs error"), guest.tail()
    return bool(guest.find("COPIES ARE LEFT")), bool(guest.find("removed what an earlier takeover has left"))


def test_a_power_cut_at_any_moment_of_the_copying_leaves_the_old_os(folder):
    """Each boot of the same disk shows that the old OS has outlived the cut before; and that the image has, which the
    takeover checks before it copies anything."""
    _, packed = image("small", 448, 64)
    disk = disk_with("systemd", folder, packed)
    options = dict(memory=256, timeout=300, fail_on=REFUSED, cache="none",
                   drive_options="discard=unmap,throttling.bps-write=25000000")
    left = []
    for number in range(CUTS):
        with Guest("systemd", [disk], files=job("small", UNTIL_IT_IS_CUT), **options) as guest:
            left.append(cut_while_copying(guest, 1 - number / (CUTS - 1), packed.stat().st_size))
    script = "echo OLD OS IS UP\nsha256sum /image\npoweroff -f\n"
    with Guest("systemd", [disk], files=job("small", script), **options) as guest:
        guest.wait_for("OLD OS IS UP", 200)
        found = guest.wait_for(r"([0-9a-f]{64})  /image", 60)[1]
        guest.wait_exit(60)
        assert not guest.find("EXT4-fs error"), guest.tail()
    assert found == run("sha256sum", packed).decode().split()[0]
    # Those of the first cut, which were on the disk, were there and removed; the others had hardly a name there yet.
    assert left[1] == (True, True) and all(there == removed for there, removed in left), left


def take_over_arm(folder, kind, name, base, memory, size_mib, noise_mib):
    raw, packed = image(base, size_mib, noise_mib)
    assert packed.stat().st_size > memory * MIB
    before = test_arm_guests.WITHOUT_WATCHDOG if kind == "raspi3" else ""
    option = " --no-dt-check" if kind in test_arm_guests.NO_BOARD else ""
    files = job(base, f"{before}free -m\n{COMMAND}{option}; echo EXIT $?\n", name)
    # The emulated card of a Raspberry Pi gives 2 MiB a second on a busy machine, and all of it is read five times.
    with Guest(kind, [disk_with(kind, folder, packed)], files=files, memory=memory, timeout=1800,
               fail_on=REFUSED) as guest:
        assert check_waits(guest, 900) > noise_mib // 2, guest.tail()
        result = check_new_os(guest, folder, base, raw, wait=900)
        assert result["attempts"] == 1 and result["repaired_chunks"] == 0, result
        assert result["peak_kib"]["total"] < 6 * 1024, result


def test_armhf_with_64_mb_takes_an_image_larger_than_that(folder):
    take_over_arm(folder, "armhf", "ARMV7", "raspberrypi3", 64, 384, 72)


def test_a_raspberry_pi_3_with_128_mb_takes_an_image_larger_than_that(folder):
    take_over_arm(folder, "raspi3", "AARCH64", "raspberrypi3-64", 128, 480, 132)


if __name__ == "__main__":
    subprocess.run([HERE / "setup", "arm"], check=True)
    runner.main(sys.modules[__name__], sys.argv[1:])
