#!/usr/bin/env python3
"""The rescue system in guests: the kernel, and an initramfs of nothing but the program of the set rescue as /init.

A machine of 64 MB is enough on x86_64, arm64 and armv7, with a kernel that starts in it. The program itself needs 6 MB.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
sys.path.insert(0, str(HERE))
import balena_image  # noqa: E402
import fat  # noqa: E402
import leftovers  # noqa: E402
import rescue  # noqa: E402
import rootfs  # noqa: E402
import runner  # noqa: E402
from guest import Guest, boot_files, compare_disk, disk_name, new_disk  # noqa: E402

MIB = 1 << 20
# In MB. Where a kernel unpacks itself to, and with how much behind that, stands in its head (pref_address and init_size
# in Documentation/x86/boot.rst): Debian 12's for x86_64 wants 54 MB from 16 MB on, and says nothing at all with 64;
# Ubuntu 16.04's wants 23, Debian 11's 48.
MEMORY = {"systemd": 80, "xenial": 64, "arm64": 64, "armhf": 64, "raspi3": 128}
# None is set aside for devices: only what can be moved may lie there meanwhile.
OPTIONS = {"arm64": "cma=0"}
SECRET = "sEcReT-1"
FAILED = "Kernel panic - not syncing|given up"


def config_for(name):
    return (f'{{"apiEndpoint":"https://api.example.com","applicationId":"1","deviceType":"{balena_image.slug(name)}",'
            f'"apiKey":"{SECRET}"}}').encode()


def empty_disk(folder, size_mib):
    """What a disk that was used for something else has: it must not matter."""
    path = folder / "disk.img"
    rootfs.make_file(path, size_mib * MIB)
    with open(path, "r+b") as file:
        for place in (0, 3 * MIB, 700 * MIB, (size_mib - 1) * MIB):
            if place < size_mib * MIB:
                file.seek(place)
                file.write(b"what was there before" * 1000)
    return path


def boot(kind, folder, disk, wishes, files=None, modules=None, options="", inside=None, **more):
    """The rescue system, with these wishes on the kernel's command line; `files` are those of the second disk, `inside`
    those of the initramfs."""
    modules = rescue.modules(kind) if modules is None else modules
    initrd = rescue.initramfs(folder / "initramfs", rescue.program(kind), modules, inside)
    options = " ".join([OPTIONS.get(kind, ""), options, *(f"takeover.{wish}" for wish in wishes)])
    return Guest(kind, [disk], files=files, memory=MEMORY[kind], options=options,
                 initrd=initrd, reboot=False, timeout=900, **{"fail_on": FAILED} | more)


def check_disk(disk, image, boot_start, config):
    """The disk is the image with config.json, to the sector."""
    different = compare_disk(disk, image)
    strange = fat.strangers(disk, boot_start, different, {"config.json": config})
    assert not strange, strange[:20]
    assert boot_files(disk, boot_start) == boot_files(image, boot_start) | {"config.json": config}
    fat.check(disk, boot_start)


def small_job():
    """A small image with its config.json: the files of the second disk, and the wishes for them."""
    files = {"x.img.gz": balena_image.gz("small"), "config.json": config_for("small")}
    return files, ["image=LABEL=JOB:/x.img.gz", "to=/dev/nvme0n1", "config=LABEL=JOB:/config.json"]


def check_small(disk):
    check_disk(disk, balena_image.image("small"), balena_image.partition("small", "resin-boot").start,
               config_for("small"))


def check_end(guest, disk, image, name, attempts=1):
    guest.wait_for("done: restarting", 600)
    guest.wait_exit(60)
    line = next(line.text for line in guest.lines if line.text.startswith('{"outcome"'))
    print(f"    {line}")
    result = json.loads(line)
    figures = (result["outcome"], result["bytes"], result["attempts"], result["repaired_chunks"])
    assert figures == ("done", image.stat().st_size, attempts, 0), result
    assert SECRET not in guest.text()
    check_disk(disk, image, balena_image.partition(name, "resin-boot").start, config_for(name))


def flash_large(kind, folder):
    """1 GiB from a second disk, with its config.json beside it."""
    name = rescue.IMAGES[kind]
    image, packed = rescue.large_image(name)
    disk = empty_disk(folder, 1100)
    files = {"images/x.img.gz": packed, "config.json": config_for(name)}
    wishes = ["image=LABEL=JOB:/images/x.img.gz", f"to={disk_name(kind)}", "config=LABEL=JOB:/config.json"]
    with boot(kind, folder, disk, wishes, files=files) as guest:
        check_end(guest, disk, image, name)


def test_x86_64_flashes_1_gib_from_a_second_disk_with_64_mb(folder):
    flash_large("xenial", folder)


def test_arm64_flashes_1_gib_from_a_second_disk_with_64_mb(folder):
    flash_large("arm64", folder)


def test_armv7_flashes_1_gib_from_a_second_disk_with_64_mb(folder):
    flash_large("armhf", folder)


def stick(folder, files):
    """A USB stick with one FAT, and QEMU's arguments for it."""
    path = folder / "stick.img"
    rootfs.make_file(path, 64 * MIB)
    rootfs.make_fat(path, 0, 64 * MIB, "STICK", "1a2b3c4d", 32, 1)
    # mkfs.vfat --invariant gives every FAT the same: here and in the copy of the boot sector it is what was asked for.
    with open(path, "r+b") as file:
        for sector in (0, 6):
            file.seek(sector * 512 + 67)
            file.write(0x1A2B3C4D.to_bytes(4, "little"))
    rootfs.fat_put(path, 0, files)
    return ["-drive", f"if=none,id=stick,format=raw,file={path}", "-device", "usb-storage,drive=stick"]


def test_raspberry_pi_3_is_flashed_from_usb(folder):
    name = rescue.IMAGES["raspi3"]
    disk = new_disk("raspi3", folder)
    arguments = stick(folder, {"/x.img.gz": balena_image.gz(name), "/config.json": config_for(name)})
    wishes = ["image=UUID=1A2B-3C4D:/x.img.gz", f"to={disk_name('raspi3')}", "config=LABEL=STICK:/config.json"]
    with boot("raspi3", folder, disk, wishes, modules=rescue.modules("raspi3", usb=True),
              qemu_args=arguments) as guest:
        check_end(guest, disk, balena_image.image(name), name)


def test_raspberry_pi_3_is_not_flashed_from_the_card_that_would_be_written(folder):
    name = rescue.IMAGES["raspi3"]
    disk = new_disk("raspi3", folder)
    rootfs.fat_put(disk, rootfs.P1_START, {"/x.img.gz": balena_image.gz(name)})
    card = disk.read_bytes()
    wishes = ["image=/dev/mmcblk0p1:/x.img.gz", "to=/dev/mmcblk0", "on-failure=halt"]
    with boot("raspi3", folder, disk, wishes, fail_on="Kernel panic") as guest:
        guest.wait_for("/dev/mmcblk0p1 is part of the disk that would be written; put the image onto another disk", 120)
        guest.wait_for("given up: stopped", 30)
    assert disk.read_bytes()[:len(card)] == card


def test_a_worker_that_is_killed_is_started_again(folder):
    name, image = "small", balena_image.image("small")
    disk = empty_disk(folder, 160)
    files = {"x.img.gz": balena_image.gz(name), "config.json": config_for(name)}
    wishes = ["image=/dev/nvme0n2:/x.img.gz", "to=/dev/nvme0n1", "config=/dev/nvme0n2:/config.json"]
    with boot("systemd", folder, disk, wishes, files=files) as guest:
        guest.wait_for("Run /init|takeover is the init", 60)
        guest.slow_disk(4 * MIB)
        guest.wait_for("the image: gzip", 60)
        guest.wait_for("flash: [1-9]", 60)
        guest.sysrq("i")
        guest.wait_for("the worker died", 30)
        guest.slow_disk(0)
        guest.wait_for(r"starting again \(run 2\)", 30)
        check_end(guest, disk, image, name, attempts=2)


def begin_slowly(guest):
    """Waits until something of the image is on the disk, where more of it is still to come."""
    guest.wait_for("Run /init|takeover is the init", 60)
    guest.slow_disk(4 * MIB)
    guest.wait_for("flash: [1-9]", 120)


def test_what_is_refused_once_something_was_written_is_tried_again(folder):
    """The file of the image is another one for the second run, and itself again for the third: its digest is asked for."""
    disk, packed = empty_disk(folder, 160), balena_image.gz("small").read_bytes()
    wishes = ["image=LABEL=JOB:/x.img.gz", "to=/dev/nvme0n1", "config=/config.json",
              f"sha256={hashlib.sha256(packed).hexdigest()}"]

    def date_file(date):
        # The modification time of gzip (RFC 1952, section 2.3), which says nothing of the content.
        with open(guest.job_disk, "r+b") as job:
            job.seek(place + 4)
            job.write(bytes([date]))

    # Nothing else is on the disk with the image: it is mounted once, and anew for each run.
    with boot("systemd", folder, disk, wishes, files={"x.img.gz": packed},
              inside={"config.json": config_for("small")}) as guest:
        place = guest.job_disk.read_bytes().index(packed[:4096])
        begin_slowly(guest)
        date_file(1)
        guest.sysrq("i")
        guest.wait_for("the worker died", 30)
        guest.slow_disk(0)
        guest.wait_for("comparing the SHA-256 of the image", 120)
        guest.wait_for(r"next try in \d+ s", 30)
        date_file(0)
        check_end(guest, disk, balena_image.image("small"), "small", attempts=3)


def test_a_console_that_somebody_has_stopped_does_not_hold_up_the_restart(folder):
    """By Ctrl-S; it never goes on. What is said after that is seen by nobody."""
    disk = empty_disk(folder, 160)
    files, wishes = small_job()
    with boot("systemd", folder, disk, wishes, files=files) as guest:
        begin_slowly(guest)
        guest.send("\x13")
        guest.slow_disk(0)
        guest.wait_exit(150)
        assert not guest.find("done: restarting"), guest.tail()
    check_small(disk)


def test_a_dry_run_writes_nothing_and_stops_and_a_panic_restarts(folder):
    """Modules may have long names; Debian's kernels stand still when they panic."""
    disk = empty_disk(folder, 160)
    before = disk.read_bytes()
    files, wishes = small_job()
    modules = []
    for module in rescue.modules("systemd"):
        modules.append(folder / f"{'x' * 120}-{module.name}")
        modules[-1].symlink_to(module)
    assert modules
    with boot("systemd", folder, disk, [*wishes, "dry-run"], files=files, modules=modules, options="panic=0",
              fail_on="given up|done: restarting|loading the module") as guest:
        guest.wait_for("dry run: every check passed, nothing was changed", 120)
        guest.wait_for("stopped: nothing was to be written", 30)
        time.sleep(3)
        assert guest.running and not guest.find("starting again"), guest.tail()
        guest.sysrq("c")
        guest.wait_for("Kernel panic - not syncing", 30)
        guest.wait_for("Rebooting in 30 seconds", 30)
        guest.wait_exit(600)
    assert disk.read_bytes() == before


# ------------------------------------------------------------------------- the program of the set rescue, here

@contextlib.contextmanager
def loop_device(path):
    """A file as a disk of this machine."""
    attached = subprocess.run(["losetup", "--show", "--find", path], check=True, capture_output=True, text=True)
    device = attached.stdout.strip()
    try:
        yield device
    finally:
        leftovers.let_go(device)


def flash_here(device, *options):
    """The command line that writes a small image to a disk of this machine."""
    return [rescue.program("systemd"), "flash", "-i", balena_image.gz("small"), "-f", device, *options]


def interrupt_oneself():
    """For preexec_fn: a SIGTERM that waits, as one does that comes while the image is read."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_interruption_while_the_image_is_read_is_heeded_before_the_first_write(folder):
    disk = empty_disk(folder, 160)
    before = disk.read_bytes()
    with loop_device(disk) as device:
        done = subprocess.run(flash_here(device, "--no-ack"), capture_output=True, text=True, timeout=120,
                              preexec_fn=interrupt_oneself)
        assert done.returncode == 3 and "it was interrupted" in done.stderr, done
        assert disk.read_bytes() == before
        # Without one it is written.
        done = subprocess.run(flash_here(device, "--no-ack"), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done
    assert disk.read_bytes()[:balena_image.image("small").stat().st_size] == balena_image.image("small").read_bytes()


def test_a_disk_that_has_become_another_one_since_it_was_checked_is_not_written(folder):
    """Somebody changes the disk while the question waits for its answer: the new one has the name and the number."""
    disk, other = empty_disk(folder, 160), folder / "other.img"
    rootfs.copy_sparse(disk, other)
    before = disk.read_bytes()
    with loop_device(disk) as device:
        process = subprocess.Popen(flash_here(device), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, preexec_fn=leftovers.die_with_parent)
        said = b""
        while not said.endswith(b"Type 'yes' to go on: "):
            piece = process.stdout.read1()
            assert piece, said
            said += piece
        leftovers.let_go(device)
        subprocess.run(["losetup", device, other], check=True)
        said, _ = process.communicate(b"yes\n", timeout=120)
        assert process.returncode == 1 and b"it is another one than was checked" in said, (process.returncode, said)
    assert disk.read_bytes() == before and other.read_bytes() == before


# ----------------------------------------------------------------------------------------------- what is refused

def refusal(folder, wishes, words, files=None):
    """What is refused is refused at once, before anything is written, and the machine stops with the reason."""
    disk = empty_disk(folder, 160)
    before = disk.read_bytes()
    with boot("systemd", folder, disk, wishes, files=files, fail_on="Kernel panic") as guest:
        guest.wait_for(words, 60)
        guest.wait_for("given up", 30)
        if "on-failure=reboot" in wishes:
            guest.wait_exit(60)
        assert "starting again" not in guest.text()
    assert disk.read_bytes() == before


def test_without_a_disk_to_write_it_stops_and_says_so(folder):
    refusal(folder, ["image=/dev/nvme0n2:/x.img"], "error: reading the command line takeover.to .*: no disk was named")


def test_an_image_with_another_digest_is_refused_and_the_machine_restarted(folder):
    wishes = ["image=/dev/nvme0n2:/x.img.gz", "to=/dev/nvme0n1", f"sha256={'0' * 64}", "on-failure=reboot"]
    refusal(folder, wishes, "comparing the SHA-256 of the image: it is [0-9a-f]{64}, and must be 0{64}",
            {"x.img.gz": balena_image.gz("small")})


def test_what_does_not_appear_is_waited_for_and_named(folder):
    disk = empty_disk(folder, 160)
    wishes = ["image=LABEL=NOWHERE:/x.img.gz", "to=/dev/nvme0n1", "wait=1"]
    with boot("systemd", folder, disk, wishes, fail_on="Kernel panic") as guest:
        guest.wait_for("waiting for LABEL=NOWHERE, 1 s at most", 60)
        guest.wait_for("looking for LABEL=NOWHERE: no disk has it", 30)
        # It may come yet: tried again, and for ever.
        guest.wait_for(r"starting again \(run 2\)", 30)
        guest.wait_for("looking for LABEL=NOWHERE: no disk has it", 30)


if __name__ == "__main__":
    subprocess.run([HERE / "setup", "arm"], check=True)
    runner.main(sys.modules[__name__], sys.argv[1:])
