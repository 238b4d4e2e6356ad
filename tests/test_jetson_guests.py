#!/usr/bin/env python3
"""Boot blobs of a Jetson in guests: a whole takeover of a machine that calls itself an AGX Xavier and has an eMMC with
boot areas, which needs a QEMU whose machines take one, and the flash of a Xavier NX, for which mtdram stands."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
sys.path.insert(0, str(HERE))
import arm  # noqa: E402
import balena_image  # noqa: E402
import guest as guests  # noqa: E402
import jetson  # noqa: E402
import runner  # noqa: E402
import test_arm_guests  # noqa: E402
import test_guests  # noqa: E402
from guest import Guest, compare_disk, new_disk  # noqa: E402
from rootfs import MIB, make_file  # noqa: E402

MEMORY, SMP = 768, 2
CONFIG = test_guests.CONFIG.replace(b"genericx86-64-ext", b"jetson-xavier")
AREA = "/sys/block/mmcblk0boot0"
LOOK = f"""\
modprobe sdhci-pci
for _ in $(seq 100); do [ -e {AREA}/force_ro ] && break; sleep 0.1; done
udevadm settle
"""


def agx(folder, script, image, emmc, **options):
    """A guest that calls itself an AGX Xavier, with an eMMC beside the disk of the old OS, if there is one."""
    program = jetson.qemu()
    arm.MACHINES["jetson"] = arm.MACHINES["arm64"]._replace(qemu=program)
    guests.KINDS["jetson"] = False
    tree = jetson.device_tree(program, folder, MEMORY, SMP, "Jetson-AGX")
    arguments = ["-dtb", tree]
    if emmc:
        script = LOOK + script
        arguments += ["-device", "sdhci-pci", "-drive", f"if=none,id=emmc,format=raw,cache=unsafe,file={emmc}",
                      "-device", f"emmc,drive=emmc,boot-partition-size={jetson.BOOT_AREA}"]
    files = test_guests.job(image, f"{script}\n") | {
        "config.json": CONFIG, "takeover": test_arm_guests.program("AARCH64")}
    return Guest("jetson", [new_disk("arm64", folder)], files=files, memory=MEMORY, smp=SMP, timeout=2400,
                 reboot=False, fail_on=options.pop("fail_on", test_guests.REFUSED),
                 qemu_args=arguments)


def make_emmc(folder):
    """An eMMC that was used: both boot areas have something."""
    emmc, old = folder / "emmc.img", jetson.content(2 * jetson.BOOT_AREA, 5)
    # What lies behind the areas must be a power of two.
    make_file(emmc, 512 * MIB + len(old))
    with open(emmc, "r+b") as file:
        file.write(old)
    return emmc, old


def test_an_agx_xavier_gets_its_boot_blob_with_the_image(folder):
    # With a hole, as mkfs.ext4 makes it of zeros.
    blob = jetson.content(2 * MIB) + bytes(MIB) + jetson.content(512, 3)
    image, packed = jetson.agx_image(folder, blob)
    emmc, old = make_emmc(folder)
    script = f"cat {AREA}/force_ro {AREA}/size\n{test_guests.COMMAND} -f /dev/mmcblk0"
    with agx(folder, script, packed, emmc) as guest:
        guest.wait_for(f"the image has {jetson.EMMC}, {len(blob)} bytes for /dev/mmcblk0boot0", 1200)
        guest.wait_for(f"boot blob +{jetson.EMMC}, {len(blob)} bytes, to /dev/mmcblk0boot0", 60)
        guest.wait_for("rehearsed: mmcblk0boot0 can be written", 60)
        guest.wait_for("PID 1 is handed over", 300)
        guest.wait_for("the boot blob is on /dev/mmcblk0boot0, and read back", 300)
        guest.wait_for("the head is written and read back", 60)
        guest.wait_exit(120)
        test_guests.check_result(guest, "done")
    with open(emmc, "rb") as file:
        areas = file.read(2 * jetson.BOOT_AREA)
    assert areas[:len(blob)] == blob, "the blob is not there"
    assert areas[len(blob):] == old[len(blob):], "what lies behind it, or the other boot area, has changed"
    user = folder / "user.img"
    skip = 2 * jetson.BOOT_AREA // (4 * MIB)
    subprocess.run(["dd", "status=none", "bs=4M", f"skip={skip}", f"if={emmc}", f"of={user}", "conv=sparse"],
                   check=True)
    boot = balena_image.partition("aarch64", "resin-boot")
    assert not compare_disk(user, image, exclude=[(boot.start, boot.size)])


def test_an_agx_xavier_without_its_boot_area_is_refused_unless_that_is_wanted(folder):
    """It is known by its model, and its device type is accepted; nothing is changed."""
    _, packed = jetson.agx_image(folder, jetson.content(5 * MIB))
    script = """\
cp /job/takeover /job/config.json /tmp/
t() { /tmp/takeover --no-api-check --no-vpn-check -i /job/image -c /tmp/config.json --dry-run "$@"; echo "EXIT $?"; }
t
t --no-dt-check
echo LAST"""
    with agx(folder, script, packed, None, fail_on="Kernel panic") as guest:
        guest.wait_for("this device: Jetson-AGX .Jetson AGX Xavier.", 500)
        guest.wait_for("mmcblk0boot0: there is none", 60)
        guest.wait_for("EXIT 3", 30)
        guest.wait_for("warning: .*mmcblk0boot0: there is none", 200)
        guest.wait_for("EXIT 0", 200)
        guest.wait_for("LAST", 30)


def writer():
    """tests/boot_blob.rs, as the guest can run it."""
    target = "x86_64-unknown-linux-gnu"
    folder = os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")
    environment = dict(os.environ, CARGO_TARGET_DIR=str(folder),
                       RUSTFLAGS="-Ctarget-feature=+crt-static -Crelocation-model=static")
    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "--target", target, "--example", "boot_blob"],
                   check=True, cwd=HERE.parent, env=environment)
    return pathlib.Path(folder) / target / "release/examples/boot_blob"


def test_a_flash_is_erased_written_and_read_back_and_left_alone_when_it_is_right(folder):
    """With what is right already, what is erased alone (0xff), and what is written."""
    block = 64 * 1024
    old = jetson.content(32 * MIB, 7)
    blob = bytearray(old)
    for number in (0, 5, 6, 100, 511):
        blob[number * block:(number + 1) * block] = jetson.content(block, number)
    blob[7 * block:9 * block] = b"\xff" * 2 * block
    path = f"{jetson.LAYER}/diff/opt/tegra-binaries/{jetson.NOR}"
    image = jetson.make_image(folder, {path: bytes(blob)}, size=64 * MIB)
    script = """\
modprobe mtdram total_size=32768 erase_size=64 && cat /proc/mtd
dd if=/job/old of=/dev/mtd0 bs=64k status=none
write() { echo "write /job/image nor /dev/mtd0" | /job/boot_blob; }
write; cmp /dev/mtd0 /job/blob && echo AS IT SHOULD BE
write; cmp /dev/mtd0 /job/blob && echo STILL
rmmod mtdram && modprobe mtdram total_size=16384 erase_size=64 && write
echo LAST
"""
    files = {"run.sh": script.encode(), "image": image, "old": old, "blob": bytes(blob), "boot_blob": writer()}
    with Guest("generic", [new_disk("generic", folder)], files=files, timeout=900, fail_on="Kernel panic") as guest:
        guest.wait_for("mtd0: 02000000 00010000", 400)
        guest.wait_for("the boot blob is on /dev/mtd0, and read back", 60)
        guest.wait_for("^written$", 10)
        guest.wait_for("^AS IT SHOULD BE$", 30)
        guest.wait_for("/dev/mtd0 has the boot blob already: it stays as it is", 60)
        guest.wait_for("^STILL$", 30)
        guest.wait_for(f"^failed .*{jetson.NOR} has {32 * MIB} bytes, which is not the length", 60)
        guest.wait_for("^LAST$", 30)


if __name__ == "__main__":
    subprocess.run([HERE / "setup", "arm"], check=True)
    runner.main(sys.modules[__name__], sys.argv[1:])
