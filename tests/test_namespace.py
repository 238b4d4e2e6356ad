#!/usr/bin/env python3
"""Whole takeovers in a PID and mount namespace, on a loop disk: about a second each."""

import contextlib
import ctypes
import errno
import fcntl
import gzip
import io
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import termios
import time

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "lib"))
import balena_image  # noqa: E402
import leftovers  # noqa: E402
import rootfs  # noqa: E402
import runner  # noqa: E402
from discards import WholeUnits  # noqa: E402
from guest import compare_disk  # noqa: E402
from namespace import DISCARD, MIB, PUNCH, ROOT_START, ZERO_OUT, Sandbox, libraries, with_calls  # noqa: E402
from result import check_result_line, check_steps  # noqa: E402
from servers import unpacked  # noqa: E402

TAKEOVER = runner.program()
# <linux/loop.h>
LOOP_CTL_REMOVE = 0x4C81
CONFIG = b'{"apiEndpoint":"https://api.example.com","applicationId":"1","deviceType":"genericx86-64-ext",' \
         b'"apiKey":"sEcReT-1","keep":  [1.0, "as it is"]}\n'
# What the new OS gets: the name of the old one added, every other byte as it was.
NEW_CONFIG = CONFIG.replace(b'"as it is"]', b'"as it is"],"hostname":  "sandbox"')
BOOT_START = 4 * MIB
BOOT_LENGTH = 8 * MIB
DATA_LENGTH = 8 * MIB
IMAGE_FILE = bytes(range(256)) * 50


def make_image(folder, size_mib=24, content_mib=6, boot="vfat", label="resin-boot", data=False):
    """An image whose boot partition is FAT, or ext4: then it is mounted to place files, as this kernel can. With a data
    partition, behind the boot partition, if one is wanted."""
    path = folder / "image.raw"
    rootfs.make_file(path, size_mib * MIB)
    kind = {"vfat": "c", "ext4": "83"}[boot]
    rest = BOOT_START + BOOT_LENGTH
    table = f"label: dos\nstart={BOOT_START // 512}, size={BOOT_LENGTH // 512}, type={kind}\n"
    if data:
        table += f"start={rest // 512}, size={DATA_LENGTH // 512}, type=83\n"
        rest += DATA_LENGTH
    rootfs.partition(path, f"{table}start={rest // 512}, type=83\n")
    blocks = f"{BOOT_LENGTH // 1024}"
    if boot == "ext4":
        rootfs.run("mkfs.ext4", "-q", "-F", "-L", label, "-E", f"offset={BOOT_START},nodiscard", path, f"{blocks}k")
    else:
        rootfs.run("mkfs.vfat", "-n", label, "--offset", BOOT_START // 512, path, blocks)
        (folder / "a file of the image").write_bytes(IMAGE_FILE)
        rootfs.run("mcopy", "-i", f"{path}@@{BOOT_START}", folder / "a file of the image", "::/")
    if data:
        rootfs.run("mkfs.ext4", "-q", "-F", "-L", "resin-data", "-E", f"offset={BOOT_START + BOOT_LENGTH},nodiscard",
                   path, f"{DATA_LENGTH // 1024}k")
    with open(path, "r+b") as file:
        file.seek(rest)
        file.write(random.Random(7).randbytes(content_mib * MIB))
    put_boot_code(path)
    return path


def put_boot_code(image, code=balena_image.BOOT_CODE):
    """What a BIOS finds in the first sector."""
    with open(image, "r+b") as file:
        file.write(code)


def pack(image, parts=1, level=1):
    """The image as gzip, in so many members."""
    data = image.read_bytes()
    step = -(-len(data) // parts)
    return b"".join(gzip.compress(data[at:at + step], level, mtime=0) for at in range(0, len(data), step))


def files(image, config=CONFIG):
    return {"/tk/takeover": TAKEOVER, "/tk/image": image, "/tk/config.json": config}


COMMAND = "/tk/takeover --no-api-check --no-vpn-check -i /tk/image -c /tk/config.json --no-ack --in-namespace"


def job(options="", before="", after=""):
    return f"{before}\n{COMMAND} {options}\necho EXIT $?\n{after}\nsleep 60\n"


def check_taken_over(box, image):
    """The disk is the image but for the boot partition, which holds config.json as it was."""
    check_new_os(box.disk, image)
    check_steps(box.console(), "done")
    return check_result_line(box.console().strip().splitlines()[-1], "done")


def check_new_os(disk, image, data=False, config=NEW_CONFIG):
    """The image is there, with config.json in its boot partition; its data partition may have something, too."""
    length = BOOT_LENGTH + (DATA_LENGTH if data else 0)
    different = compare_disk(disk, image, exclude=[(BOOT_START, length)])
    assert not different, different
    with open(image, "rb") as file:
        file.seek(BOOT_START + 510)
        is_fat = file.read(2) == b"\x55\xaa"
    if is_fat:
        assert read_fat(disk, "config.json") == config
        assert read_fat(disk, "a file of the image") == IMAGE_FILE
        volume = disk.parent / "boot.fat"
        with open(disk, "rb") as file:
            file.seek(BOOT_START)
            volume.write_bytes(file.read(BOOT_LENGTH))
        checked = subprocess.run(["fsck.fat", "-n", volume], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
    else:
        found = subprocess.run(["debugfs", "-R", "cat /config.json", f"{disk}?offset={BOOT_START}"],
                               capture_output=True, check=True).stdout
        assert found == config, found


def read_fat(disk, path):
    """A file of the FAT boot partition."""
    return subprocess.run(["mcopy", "-n", "-i", f"{disk}@@{BOOT_START}", f"::/{path}", "-"],
                          capture_output=True, check=True).stdout


def check_secrets(box):
    assert "sEcReT" not in box.console()


def test_sysvinit_in_a_namespace_is_taken_over(folder):
    image = make_image(folder)
    with Sandbox(folder, files=files(pack(image, parts=3))) as box:
        box.start(job())
        seconds = box.wait_exit()
        result = check_taken_over(box, image)
        check_secrets(box)
        # Stage 1 sees the claim even when PID 1 has left the old root before it looks: it ends by itself.
        assert "PID 1 is handed over" in box.console() and "takeover (" not in box.console(), box.console()
        assert result["bytes"] == 24 * MIB and result["chunks"] == 24 and result["zero_chunks"] > 8, result
        assert result["attempts"] == 1 and result["repaired_chunks"] == 0, result
        assert "debug: " not in box.console(), "there are lines that were not asked for"
        print(f"    boot to the end of the namespace: {seconds:.2f} s")


def test_a_raw_image_is_taken_over(folder):
    image = make_image(folder)
    with Sandbox(folder, files=files(image)) as box:
        box.start(job())
        box.wait_exit()
        check_taken_over(box, image)


def test_a_loop_mounted_file_a_bind_mount_and_an_overlay_are_unmounted(folder):
    image = make_image(folder)
    inner = folder / "inner.img"
    rootfs.make_file(inner, 4 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", inner], check=True, capture_output=True)
    before = """
    mkdir -p /a /b /c /low /up /work
    mknod /dev/loop-control c 10 237
    for n in 0 1 2 3 4 5 6 7; do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done
    mount -o loop /inner /a || echo NO LOOP
    mount --bind / /b || echo NO BIND
    mount -t overlay -o lowerdir=/low,upperdir=/up,workdir=/work none /c || echo NO OVERLAY
    sleep 1000 < /a/lost+found &
    cat /proc/mounts
    """
    box_files = files(pack(image))
    box_files["/inner"] = inner
    with Sandbox(folder, files=box_files) as box:
        (folder / "x").touch()
        box.start(job(before=before.replace("mknod", "/bin/busybox mknod")))
        box.wait_exit()
        assert "NO " not in box.console(), box.console()
        check_taken_over(box, image)


def test_a_loop_device_on_the_disk_that_nobody_has_open_is_detached(folder):
    """One on a file of the old root, and one on that: both stay until they are detached."""
    image = make_image(folder)
    before = """
    [ -e /dev/loop-control ] || /bin/busybox mknod /dev/loop-control c 10 237
    dd if=/dev/zero of=/inner bs=64k count=64 2>/dev/null
    attach() { for n in 8 9 10 11 12 13 14 15 7 6 5 4 3 2 1 0; do [ -e /dev/loop$n ] || /bin/busybox mknod /dev/loop$n b 7 $n
        /bin/busybox losetup /dev/loop$n $1 2>/dev/null && { echo ON $n; top=/dev/loop$n; return; }; done; }
    attach /inner; attach $top
    """
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job(before=before))
        box.wait_exit()
        attached = re.findall(r"ON (\d+)\n", box.console())
        assert len(attached) == 2, box.console()
        try:
            check_taken_over(box, image)
        except AssertionError:
            # Nobody else would, and the disk's own loop device would stay, too.
            for number in reversed(attached):
                subprocess.run(["losetup", "--detach", f"/dev/loop{number}"], capture_output=True)
            raise


def test_a_worker_killed_before_the_first_write_leaves_the_old_os_whole(folder):
    image = make_image(folder)
    before = "sh -c 'trap \"\" TERM; while :; do sleep 1; done' &"
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job(before=before))
        box.wait_for("takeover is PID 1")
        time.sleep(0.3)
        box.kill_worker()
        box.wait_exit()
        assert "killed by signal 9 in phase kill" in box.console()
        check_old_os_is_whole(box)
        log = box.read_ext4(ROOT_START, "/var/log/takeover.log").decode()
        assert "killed by signal 9" in log, log
        line = box.console().strip().splitlines()[-1]
        assert log.splitlines()[-1] == line, log
        assert check_result_line(line, "untouched")["attempts"] == 1


def check_old_os_is_whole(box):
    assert '"outcome":"untouched"' in box.console(), box.console()
    check_old_disk_is_whole(box)


def check_old_disk_is_whole(box):
    assert box.disk_bytes(0, MIB) == box.before, "the head of the disk was written"
    done = subprocess.run(["e2fsck", "-f", "-y", f"{box.disk}?offset={ROOT_START}"], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout
    assert box.read_ext4(ROOT_START, "/tk/config.json") == CONFIG


def test_a_boot_partition_of_ext4_is_mounted_for_its_files(folder):
    image = make_image(folder, boot="ext4")
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job())
        box.wait_exit()
        check_taken_over(box, image)
        assert "placed and read back /config.json" in box.console(), box.console()


def data_file(box, path):
    """A file of the new data partition."""
    return box.read_ext4(BOOT_START + BOOT_LENGTH, path)


BACKUP = b"- volume: kept\n  items:\n    - source: /tk/data\n"


def test_the_backup_and_the_log_are_on_the_data_partition_before_the_disk_boots(folder):
    image = make_image(folder, size_mib=32, data=True)
    box_files = {**files(pack(image)), "/tk/backup.yml": BACKUP, "/tk/data/a": b"sEcReT-1"}
    with Sandbox(folder, files=box_files) as box:
        box.start(job("--backup-cfg /tk/backup.yml --fallback-log"))
        box.wait_for("placed and read back /backup.tgz")
        box.wait_exit()
        check_new_os(box.disk, image, data=True)
        text = box.console()
        result = check_result_line(text.strip().splitlines()[-1], "done")
        assert (result["backup"], result["log"]) == ("placed", "placed") and result["seconds"]["data"] > 0, result
        with tarfile.open(fileobj=io.BytesIO(data_file(box, "/backup.tgz"))) as archive:
            assert archive.extractfile("kept/a").read() == b"sEcReT-1", archive.getnames()
        check_log(data_file(box, "/fallback_log/fallback.log").decode(), text)
        for name in ("backup.tgz", "fallback_log/fallback.log"):
            assert text.index(f"placed and read back /{name}") < text.index("the head is written"), text
        check_secrets(box)


def check_log(log, console):
    """The log of both stages, from the first line on, no line twice."""
    first = re.search(r"\[\d+\.\d{3}\] .*\n", console)[0]
    assert log.startswith(first), (first, log)
    for words in ("RAMFS of", "takeover is PID 1", "verified: every chunk"):
        assert words in log, (words, log)
    lines = [line for line in log.splitlines() if line.startswith("[")]
    assert len(set(lines)) == len(lines), log


def test_the_log_is_sent_a_datagram_a_line(folder):
    image = make_image(folder)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        (folder / address).mkdir()
        with socket.socket(family, socket.SOCK_DGRAM) as receiver, Sandbox(folder / address, files=files(pack(image))) as box:
            receiver.bind((address, 0))
            receiver.setblocking(False)
            host = f"[{address}]" if ":" in address else address
            box.start(job(f"--log-udp {host}:{receiver.getsockname()[1]}"))
            box.wait_exit()
            check_taken_over(box, image)
            lines = received(receiver)
            console = box.console().splitlines()
            assert lines and all(line in console for line in lines), (lines, console)
            assert "takeover is PID 1" in lines[0] and lines[-1] == console[-1], lines
            assert len(set(lines)) == len(lines) and any("verified: " in line for line in lines), lines
            check_secrets(box)


def received(receiver):
    """The lines that have come, each as receivers of syslog want it."""
    lines = []
    while True:
        try:
            datagram = receiver.recv(2000).decode()
        except BlockingIOError:
            return lines
        found = re.fullmatch(r"<14>takeover: (.*)\n", datagram)
        assert found, datagram
        lines.append(found[1])


def test_a_log_that_nobody_receives_costs_nothing(folder):
    """There is nobody at that port, and the kernel says so; and an address of a link alone has no interface."""
    image = make_image(folder)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for name, receiver, warning in (("closed", f"127.0.0.1:{port}", ""), ("nowhere", "[fe80::1]:514", "sending the log to")):
        (folder / name).mkdir()
        with Sandbox(folder / name, files=files(pack(image))) as box:
            box.start(job(f"--log-udp {receiver}"))
            box.wait_exit()
            check_taken_over(box, image)
            assert warning in box.console()


def test_a_data_partition_that_cannot_be_mounted_costs_the_backup_and_not_the_device(folder):
    """Its file system is damaged where stage 1 does not look: the kernel refuses it."""
    image = make_image(folder, size_mib=32, data=True)
    with open(image, "r+b") as file:
        # The descriptors of the groups, behind the superblock.
        file.seek(BOOT_START + BOOT_LENGTH + 2048)
        file.write(b"\xff" * 1024)
    box_files = {**files(pack(image)), "/tk/backup.yml": BACKUP, "/tk/data/a": b"x"}
    with Sandbox(folder, files=box_files) as box:
        box.start(job("--backup-cfg /tk/backup.yml --fallback-log"))
        box.wait_exit()
        check_new_os(box.disk, image, data=True)
        result = check_result_line(box.console().strip().splitlines()[-1], "done")
        assert (result["backup"], result["log"]) == ("failed", "failed") and result["attempts"] == 1, result
        assert "the new OS starts without it" in box.console(), box.console()
        # It does not get better: it is tried once.
        assert "structure needs cleaning" in box.console() and "(try " not in box.console(), box.console()


def test_what_changed_while_the_question_waited_is_carried_over_as_it_is_now(folder):
    image = make_image(folder, size_mib=32, data=True)
    keyfile = "[connection]\nid=%s\ntype=ethernet\n"
    box_files = {**files(pack(image)), "/tk/backup.yml": BACKUP, "/tk/data/a": b"before",
                 "/tk/first": (keyfile % "one").encode(), "/tk/answer.sh": (
                     "while ! grep -q 'Type .yes.' /tk/log; do sleep 0.05; done\n"
                     "echo -n afterwards >/tk/data/a\necho renamed >/etc/hostname\n"
                     "/bin/busybox sed -i s/=one/=two/ /tk/first\necho yes\n").encode()}
    command = COMMAND.replace("--no-ack", "--backup-cfg /tk/backup.yml --nwmgr-cfg /tk/first")
    with Sandbox(folder, files=box_files) as box:
        # What asks goes to a file, where the other can see it.
        box.start(f"sh /tk/answer.sh | {command} 2>&1 | /bin/busybox tee /tk/log\necho EXIT $?\nsleep 60\n")
        box.wait_exit()
        text = box.console()
        assert read_fat(box.disk, "config.json") == NEW_CONFIG.replace(b'"sandbox"', b'"renamed"')
        assert b"id=two" in read_fat(box.disk, "system-connections/balena-01"), text
        with tarfile.open(fileobj=io.BytesIO(data_file(box, "/backup.tgz"))) as archive:
            assert archive.extractfile("kept/a").read() == b"afterwards"
        for changed in ("/config.json", "/system-connections/balena-01"):
            assert text.count(f"{changed} has changed since the question") == 1, text
        assert "the backup has changed" in text, text


def test_a_disk_that_another_has_taken_the_place_of_while_the_question_waited_is_not_written(folder):
    """It has the name, the number and the size. A number that nobody else is given: others look for the lowest."""
    disks = first, second = folder / "first.img", folder / "second.img"
    for disk in disks:
        rootfs.make_file(disk, 64 * MIB)
    number = 300 + os.getpid() % 1000
    loop, block = f"/dev/loop{number}", pathlib.Path(f"/sys/block/loop{number}/loop/backing_file")
    subprocess.run(["losetup", loop, first], check=True)
    answer = f"while ! grep -q second.img {block}; do sleep 0.05; done\necho yes\n"
    box_files = {**files(pack(make_image(folder))), "/tk/answer.sh": answer.encode()}
    command = COMMAND.replace("--no-ack", f"-f {loop}")
    node = f"[ -e {loop} ] || /bin/busybox mknod {loop} b 7 {os.minor(os.stat(loop).st_rdev)}"
    try:
        with Sandbox(folder, files=box_files) as box:
            box.start(f"{node}\n(sh /tk/answer.sh | {command}) 2>&1\necho EXIT $?\nsleep 60\n")
            box.wait_for("Type 'yes'")
            leftovers.let_go(loop)
            subprocess.run(["losetup", loop, second], check=True)
            box.wait_for(r"EXIT \d")
            text = box.console()
            assert "EXIT 3" in text and "it is another disk than before the question" in text, text
        for disk in disks:
            assert not any(disk.read_bytes()), f"{disk.name} was written"
    finally:
        leftovers.let_go(loop)
        # Whoever looks at all of them at that moment keeps it.
        with contextlib.suppress(OSError), open("/dev/loop-control", "rb") as control:
            fcntl.ioctl(control, LOOP_CTL_REMOVE, number)


def test_an_image_that_is_no_balena_os_is_written_as_it_is(folder):
    image = make_image(folder, label="other-boot")
    # Nor does it get the keys of a balenaOS that it replaces.
    with Sandbox(folder, files={**files(pack(image)), "/mnt/boot/config.json": CONFIG}) as box:
        box.start(f"{COMMAND.replace('-c /tk/config.json', '')}\nsleep 60\n")
        box.wait_exit()
        different = compare_disk(box.disk, image)
        assert not different, different
        assert "put into the image" not in box.console(), box.console()
        check_result_line(box.console().strip().splitlines()[-1], "done")


def with_section(folder, content):
    """The program with these bytes in the section that is for config.json."""
    (folder / "section").write_bytes(content)
    program = folder / "takeover-fleet"
    subprocess.run(["objcopy", "--add-section", f".config_json_section={folder / 'section'}", TAKEOVER, program],
                   check=True)
    return program


# src/doc/rescue.md, "One file for a fleet".
WITH_LENGTH = """n=$(wc -c <config.json)
printf "$(printf '\\\\%03o' $((n % 256)) $((n / 256 % 256)) $((n / 65536)) 0)" | cat - config.json"""


def test_a_config_json_in_the_program_is_enough(folder):
    """In each of its forms; stage 2 executes the same file."""
    image = make_image(folder)
    (folder / "config.json").write_bytes(CONFIG)
    readme = (TESTS.parent / "src/doc/rescue.md").read_text()
    assert all(line.strip() in readme for line in WITH_LENGTH.splitlines()), "rescue.md has another command"
    forms = [CONFIG, gzip.compress(CONFIG)]
    for shell in (["busybox", "sh"], ["bash"]):
        form = subprocess.run([*shell, "-c", WITH_LENGTH], cwd=folder, capture_output=True, check=True).stdout
        assert form == struct.pack("<I", len(CONFIG)) + CONFIG, form
    # As the original takeover has it: a section of a fixed size.
    packed = gzip.compress(CONFIG)
    forms += [form, struct.pack("<I", len(packed)) + packed + bytes(2048)]
    for number, form in enumerate(forms):
        place = folder / str(number)
        place.mkdir()
        box_files = {"/tk/takeover": with_section(folder, form), "/tk/image": pack(image)}
        with Sandbox(place, files=box_files) as box:
            box.start(job().replace("-c /tk/config.json", ""))
            box.wait_exit()
            check_taken_over(box, image)
            check_secrets(box)
            assert "config.json is the one in this program" in box.console(), box.console()


def test_which_config_json_is_taken(folder):
    """The one that was named before the one in the program, and that before the one of a balenaOS."""
    image = make_image(folder)
    kinds = {name: CONFIG.replace(b'"1"', b'"%d"' % number) for number, name in enumerate(["named", "own", "old"], 1)}
    box_files = {"/tk/takeover": TAKEOVER, "/tk/fleet": with_section(folder, kinds["own"]), "/tk/image": pack(image),
                 "/tk/named": gzip.compress(kinds["named"]), "/mnt/boot/config.json": kinds["old"]}
    with Sandbox(folder, files=box_files) as box:
        box.start("".join(f"{program} --no-api-check --no-vpn-check -i /tk/image {options} --no-ack --in-namespace --dry-run 2>&1 | "
                          f"grep -c 'in this program' | /bin/busybox sed 's/^/FOUND /'\n"
                          for program, options in (("/tk/fleet", ""), ("/tk/fleet", "-c /tk/named"), ("/tk/takeover", "")))
                  + "echo OVER\nsleep 60\n")
        box.wait_for("OVER")
        assert re.findall(r"FOUND (\d)$", box.console(), re.M) == ["1", "0", "0"], box.console()


def test_refused_a_broken_config_json_in_the_program(folder):
    cut = struct.pack("<I", 500) + CONFIG
    table = [(cut, "line 1, column"), (gzip.compress(CONFIG)[:-9], "it is cut short or damaged"),
             (b'{"apiKey":"sEcReT"}', "the key apiEndpoint is missing"), (bytes(64), "no config.json was given")]
    box_files = {"/tk/image": pack(make_image(folder))}
    for number, (content, _) in enumerate(table):
        # Copied by its content: the next one has the same place.
        box_files[f"/tk/{number}"] = with_section(folder, content).read_bytes()
    with Sandbox(folder, files=box_files) as box:
        box.start("".join(f"/bin/busybox chmod 700 /tk/{number}\n/tk/{number} -i /tk/image --no-ack --in-namespace\n"
                          f"echo EXIT $?\n" for number in range(len(table))) + "sleep 60\n")
        box.wait_for(r"(?s)(EXIT.*){4}")
        check_secrets(box)
        said = box.console().split("EXIT")
        for (_, message), text in zip(table, said):
            assert message in text and ("config_json_section" in text) == (message != table[-1][1]), text


# What a takeover leaves that was killed at the hand-over.
LEFTOVERS = """left=/run/takeover-0123456789abcdef
mkdir $left; mount --bind $left $left; mount -t tmpfs takeover $left
dd if=/dev/zero of=$left/image bs=1M count=6 2>/dev/null
cat /tk/takeover >$left/takeover; mount --bind $left/takeover /sbin/init
"""


def test_a_dry_run_passes_what_a_run_passes_and_refuses_what_it_refuses(folder):
    """One table of set-ups: the same exit code and the same error, and nothing changed by either."""
    image = make_image(folder, size_mib=32, data=True)
    packed, other = pack(image), folder / "other"
    other.mkdir()
    full = make_image(folder / "other")
    rootfs.run("mcopy", "-i", f"{full}@@{BOOT_START}", "-", "::/full", input=random.Random(1).randbytes(8 * MIB - 300_000))
    large = folder / "large.raw"
    rootfs.make_file(large, 300 * MIB)
    box_files = {**files(packed), "/tk/backup.yml": BACKUP, "/tk/data/a": b"x",
                 "/tk/bad.yml": b"- nonsense", "/tk/greedy.yml": BACKUP.replace(b"/tk/data", b"/tk/greedy"),
                 "/tk/greedy/a": random.Random(2).randbytes(9 * MIB), "/tk/cut": packed[:-9], "/tk/large": large,
                 "/tk/full": gzip.compress(full.read_bytes(), 1), "/tk/other": pack(make_image(other, label="x")),
                 "/tk/key": b"[connection]\nid=a\ntype=ethernet\n", "/tk/big": random.Random(3).randbytes(400_000)}
    table = {
        2: ["-i /tk/image -c /tk/config.json --no-such-option", "-i /tk/image", "-i /tk/other --nwmgr-cfg /tk/key"],
        3: ["-i /tk/nothing -c /tk/config.json", "-i /tk/cut -c /tk/config.json", "-i /tk/large -c /tk/config.json",
            "-i /tk/image -c /tk/nothing", "-i /tk/image -c /tk/bad.yml", "-i /tk/full -c /tk/config.json --nwmgr-cfg /tk/big",
            "-i /tk/image -c /tk/config.json --nwmgr-cfg /tk/nothing", "-i /tk/image -c /tk/config.json -w /tk/nothing",
            "-i /tk/image -c /tk/config.json --backup-cfg /tk/nothing",
            "-i /tk/image -c /tk/config.json --backup-cfg /tk/bad.yml",
            "-i /tk/image -c /tk/config.json --backup-cfg /tk/greedy.yml", "-i /tk/other --fallback-log",
            "-i /tk/image -c /tk/config.json --log-to /dev/nothing", "-i /tk/image -c /tk/config.json -f /dev/nothing"],
    }
    # 3 MiB less than it takes.
    little = len(packed) + TAKEOVER.stat().st_size + 6 * MIB
    box_files["/tk/meminfo"] = b"MemTotal: 1000000 kB\nMemAvailable: %d kB\n" % (little // 1024)
    with other_disk(folder, size_mib=40) as loop, Sandbox(folder, files=box_files) as box:
        # Others that ask, and wait for an answer until `free`; what is mounted over the figures of the memory.
        wait = ("2>/tk/log </tk/answers & other=$!; exec 3>/tk/answers\n"
                "while ! grep -q 'Type .yes.' /tk/log; do sleep 0.05; done\n")
        free, enough = "exec 3>&-; wait $other\n", "umount /proc/meminfo\n"
        node = f"/bin/busybox mknod {loop} b {os.major(os.stat(loop).st_rdev)} {os.minor(os.stat(loop).st_rdev)}"
        set_ups = [("another takeover is running", f"{COMMAND.replace('--no-ack', '')} {wait}", free),
                   ("another takeover is running", f"{node}\n/tk/takeover flash -i /tk/image -f {loop} {wait}", free),
                   ("comparing with the memory", "mount --bind /tk/meminfo /proc/meminfo\n", enough)]
        runs = [(code, "", f"/tk/takeover --no-api-check --no-vpn-check {options} --no-ack --in-namespace", "", "")
                for code, all_of in table.items() for options in all_of]
        # What is wrong at a glance is said before data is packed to be counted.
        runs += [(3, "", "/tk/takeover --no-api-check --no-vpn-check -i /tk/large -c /tk/config.json --no-ack --in-namespace "
                  "--backup-cfg /tk/bad.yml", "", "comparing the image with")]
        # Else it would wait on the disk.
        runs += [(3, before, f"{COMMAND} --stage ram", after, message) for message, before, after in set_ups]
        script = "".join(f"{before}echo BEGIN\n{command} --dry-run\necho EXIT $?\n{command}\necho EXIT $?\n{after}"
                         for _, before, command, after, _ in runs)
        last = f"{COMMAND} --backup-cfg /tk/backup.yml"
        box.start(f"/bin/busybox mkfifo /tk/answers\n{LOOK}\n{script}{LOOK}\necho ALL REFUSED\n"
                  f"{COMMAND} --dry-run\necho EXIT $?\n{LEFTOVERS}mount --bind /tk/meminfo /proc/meminfo\n"
                  f"{last} --dry-run\necho EXIT $?\n{enough}{last}\nsleep 60\n")
        box.wait_for("ALL REFUSED")
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        blocks = text.split("BEGIN\n")[1:]
        for (code, _, command, _, message), block in zip(runs, blocks, strict=True):
            assert re.findall(r"EXIT (\d+)", block)[:2] == [str(code)] * 2, (command, block)
            said = [re.search(r"error: (.*)", part)[1] for part in re.split(r"EXIT \d+\n", block)[:2]]
            assert said[0] == said[1] and message in said[0], (command, block)
        box.wait_exit()
        text = box.console().split("ALL REFUSED")[1]
        assert text.count("dry run: every check passed") == 2 and text.count("EXIT 0") == 2, text
        assert text.count("the next run removes") == 2 and text.count("abcdef is removed") == 1, text
        check_new_os(box.disk, image, data=True)


def test_flash_agrees_with_its_dry_run(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    (folder / "config.json").write_bytes(CONFIG)
    large = folder / "large"
    rootfs.make_file(large, 300 * MIB)
    with Sandbox(folder, files={}) as box:
        loop = box.attach()
        used = ["-i", image, "-c", folder / "config.json"]
        free = contextlib.nullcontext()
        for meanwhile, options, code, message in [
                (free, ["-i", large], 3, ""), (free, ["-i", folder / "nothing"], 3, ""),
                (free, [*used, "--nwmgr-cfg", "/nothing"], 3, ""),
                (loop_device_on(loop), used, 3, r"it is in use: below loop\d+"),
                (mounted(loop, folder), used, 3, r"it is in use: mounted at \S+ \(ext4\) for sleep"), (free, used, 0, "")]:
            with meanwhile:
                both = [subprocess.run([TAKEOVER, "flash", "-f", loop, "--no-ack", *options, *dry], capture_output=True,
                                       text=True, timeout=60) for dry in (["--dry-run"], [])]
            assert [run.returncode for run in both] == [code, code], [run.stderr for run in both]
            if code:
                said = [re.search(r"error: .*", run.stderr)[0] for run in both]
                assert said[0] == said[1] and re.search(message, said[0]), said
        check_new_os(box.disk, folder / "image.raw", config=CONFIG)


@contextlib.contextmanager
def loop_device_on(disk):
    """A loop device that lies on a disk, and claims nothing."""
    above = subprocess.run(["losetup", "--show", "--find", "--offset", str(MIB), disk], check=True, capture_output=True,
                           text=True).stdout.strip()
    try:
        yield
    finally:
        leftovers.let_go(above)


@contextlib.contextmanager
def mounted(disk, folder):
    """An ext4 file system on a disk, mounted where only one process sees it."""
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True, capture_output=True)
    point = folder / "point"
    point.mkdir()
    holder = subprocess.Popen([*OWN_MOUNTS, "sh", "-c", 'mount "$0" "$1" && echo UP && exec sleep 1000', disk, point],
                              stdout=subprocess.PIPE, preexec_fn=leftovers.die_with_parent)
    try:
        assert holder.stdout.readline() == b"UP\n"
        yield
    finally:
        holder.kill()
        holder.communicate()
        end = time.monotonic() + 10
        while not is_free(disk):
            assert time.monotonic() < end, f"{disk} is still mounted"
            time.sleep(0.02)


def is_free(disk):
    """Whether the kernel would let somebody claim a disk: open(2), O_EXCL."""
    try:
        os.close(os.open(disk, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


def test_flash_claims_the_disk_again_after_the_question(folder):
    image = make_image(folder)
    with Sandbox(folder, files={}) as box:
        loop = box.attach()
        for meanwhile, message in [(loop_device_on(loop), r"loop\d+ lies on it"), (mounted(loop, folder), "uses it: mounted at")]:
            process = start_flash(image, loop)
            said = ""
            while "Type 'yes'" not in said and process.poll() is None:
                said += process.stderr.read(1)
            with meanwhile:
                before = box.disk_bytes(0, 4096)
                _, errors = process.communicate("yes\n", timeout=60)
                assert process.returncode == 1 and re.search(message, errors), errors
                assert box.disk_bytes(0, 4096) == before


def test_a_plan_whose_stage1_was_killed_is_not_carried_out(folder):
    """The trap is still set when init executes itself later: it must not be one."""
    box_files = files(pack(make_image(folder)))
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{COMMAND} & stage1=$!\n"
                          "while ! grep -q ' /sbin/init ' /proc/mounts; do sleep 0.05; done\n"
                          "kill -9 $stage1; wait $stage1; echo KILLED\n"
                          "exec /sbin/init\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_exit()
        assert "KILLED" in box.console() and "stage 1 has gone" in box.console(), box.console()
        assert "takeover is PID 1" not in box.console()
        result = json.loads(box.console().strip().splitlines()[-1])
        assert result["outcome"] == "untouched" and result["attempts"] == 0, result
        assert box.disk_bytes(0, MIB) == box.before


def test_pretend_stops_at_the_proof(folder):
    image = make_image(folder)
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job("--pretend"))
        box.wait_exit()
        assert '"outcome":"pretended"' in box.console(), box.console()
        assert box.disk_bytes(0, MIB) == box.before
        done = subprocess.run(["e2fsck", "-f", "-n", f"{box.disk}?offset={ROOT_START}"], capture_output=True)
        assert done.returncode == 0, done.stdout
        log = box.read_ext4(ROOT_START, "/var/log/takeover.log").decode()
        check_steps(log, "pretended")
        line = box.console().strip().splitlines()[-1]
        assert log.splitlines()[-1] == line, log
        check_result_line(line, "pretended")


def test_each_stage_logs_at_its_own_level(folder):
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(job("--pretend --log-level debug --s2-log-level warn"))
        box.wait_exit()
        text = box.console()
        assert "debug: there is no /dev/kmsg" in text and "PID 1 is handed over" in text, text
        assert "takeover is PID 1" not in text and '"outcome":"pretended"' in text, text


LOOK = "echo MOUNTS; cat /proc/mounts; ls /run; echo END; cat /proc/1/comm"


def refused(folder, options="", *, image=None, config=CONFIG, code, message, extra=None, before="", **sandbox):
    """Runs a takeover that must be refused, and sees that nothing has changed and the old OS goes on."""
    image = pack(make_image(folder)) if image is None else image
    box_files = files(image, config)
    box_files.update(extra or {})
    with Sandbox(folder, files=box_files, **sandbox) as box:
        box.start(f"{before}\n{LOOK}\n{COMMAND} {options}\necho EXIT $?\n{LOOK}\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        text = box.console()
        assert box.running(), text
        views = re.findall(r"MOUNTS\n(.*?)END\n(\S+)", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert views[1][1] == "init", text
        assert f"EXIT {code}" in text, text
        assert re.search(message, text), text
        assert box.disk_bytes(0, MIB) == box.before
        check_secrets(box)
        return text


def test_refused_a_truncated_gzip(folder):
    refused(folder, image=pack(make_image(folder))[:-1000], code=3, message="cut short")


def test_refused_an_image_that_no_bios_starts(folder):
    if os.path.exists("/sys/firmware/efi"):
        return print("    left out: this machine was started by UEFI")
    image = make_image(folder)
    put_boot_code(image, bytes(len(balena_image.BOOT_CODE)))
    refused(folder, image=pack(image), code=3, message="no boot code, and this PC was started by a BIOS")


def test_an_image_that_no_bios_starts_is_a_warning_with_no_dt_check(folder):
    if os.path.exists("/sys/firmware/efi"):
        return print("    left out: this machine was started by UEFI")
    image = make_image(folder)
    put_boot_code(image, bytes(len(balena_image.BOOT_CODE)))
    text = refused(folder, "--no-dt-check --dry-run", image=pack(image), code=0, message="every check passed")
    assert "no boot code" in text, text


def test_refused_a_wrong_crc(folder):
    image = bytearray(pack(make_image(folder)))
    image[-8] ^= 1
    refused(folder, image=bytes(image), code=3, message="CRC of member 1")


def test_refused_trailing_garbage(folder):
    refused(folder, image=pack(make_image(folder)) + b"garbage", code=3, message="gunzip")


def test_refused_a_broken_second_member(folder):
    image = make_image(folder)
    first = len(pack(image, parts=2)) - len(gzip.compress(image.read_bytes()[12 * MIB:], 1, mtime=0))
    broken = bytearray(pack(image, parts=2))
    broken[first + 5000:first + 5100] = bytes(100)
    refused(folder, image=bytes(broken), code=3, message="member 2")


def test_refused_an_image_larger_than_the_disk(folder):
    image = folder / "large"
    rootfs.make_file(image, 300 * MIB)
    rootfs.partition(image, "label: dos\nstart=2048, size=4096, type=83\n")
    put_boot_code(image)
    refused(folder, image=pack(image), code=3, message="314572800 bytes .* the disk has 268435456")


def test_refused_a_raw_image_that_was_cut_short(folder):
    refused(folder, image=make_image(folder).read_bytes()[:-MIB], code=3, message="cut short")


def test_refused_a_gzip_cut_between_its_members(folder):
    image = make_image(folder)
    half = gzip.compress(image.read_bytes()[:12 * MIB], 1, mtime=0)
    assert pack(image, parts=2).startswith(half)
    refused(folder, image=half, code=3, message="cut short")


def test_refused_no_partition_table(folder):
    refused(folder, image=bytes(MIB), code=3, message="partition table .* there is none")


def test_refused_xz(folder):
    refused(folder, image=b"\xfd7zXZ\0" + bytes(1000), code=3, message="xz file")


def test_refused_an_unreadable_config(folder):
    refused(folder, "-c /nowhere.json", code=3, message="/nowhere.json: no such file")


def test_refused_an_invalid_config(folder):
    config = b'{\n "apiKey": "sEcReT",\n}\n'
    refused(folder, config=config, code=3, message="line 2, column 20: a comma after the last element")


def test_refused_an_incomplete_config(folder):
    refused(folder, config=b'{"deviceType":"x"}', code=3, message="apiEndpoint is missing")


def test_refused_a_target_that_is_a_partition(folder):
    refused(folder, "-f $(ls /dev/loop*p2)", code=3, message="it is a partition")


def test_refused_a_disk_that_the_firmware_does_not_start_from(folder):
    """/boot is on another disk; whoever names the disk is only warned."""
    other = folder / "other.img"
    rootfs.make_file(other, 4 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", other], check=True, capture_output=True)
    loop = subprocess.run(["losetup", "--show", "--find", other], check=True, capture_output=True, text=True).stdout.strip()
    try:
        number = os.minor(os.stat(loop).st_rdev)
        before = f"mkdir /boot\n/bin/busybox mknod {loop} b 7 {number}\nmount -t ext4 {loop} /boot || echo NO BOOT"
        text = refused(folder, before=before, code=3,
                       message="/boot is mounted from loop.*: the firmware seems to start from there")
        assert "NO BOOT" not in text
        shutil.rmtree(folder / "mnt")
        text = refused(folder, "--dry-run -f $(ls /dev/loop*p2 | sed s/p2//)", before=before, code=0,
                       message="dry run: every check passed")
        assert "- /boot is mounted from loop" in text, text
    finally:
        leftovers.let_go(loop)


def test_refused_a_target_that_is_not_there(folder):
    refused(folder, "-f /dev/nowhere", code=3, message="/dev/nowhere: no such file")


def test_refused_a_target_that_is_no_block_device(folder):
    refused(folder, "-f /dev/null", code=3, message="not a block device")


def test_refused_a_log_device_on_the_target(folder):
    refused(folder, "-l $(ls /dev/loop*p2)", code=3, message="disk that will be overwritten")


def test_refused_without_root(folder):
    image = pack(make_image(folder))
    with Sandbox(folder, files=files(image)) as box:
        box.start("/bin/busybox chmod -R a+rX /\n/bin/busybox chmod 755 /tk/takeover\n"
                  "echo 'user:x:1000:1000::/:/bin/sh' > /etc/passwd\n"
                  f"/bin/busybox su -s /bin/sh user -c '{COMMAND}'\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        assert re.search("only root can do this", box.console()), box.console()
        assert "EXIT 3" in box.console()


def test_refused_outside_the_namespaces_of_pid1(folder):
    image = pack(make_image(folder))
    with Sandbox(folder, files=files(image)) as box:
        box.start(f"/bin/busybox unshare -m {COMMAND}\necho EXIT $?\n"
                  f"mkdir /jail; mount --bind / /jail; mount --bind /proc /jail/proc\n"
                  f"/bin/busybox chroot /jail {COMMAND}\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        text = box.console()
        assert text.count("EXIT 3") == 2 and text.count("another namespace or root directory") == 2, text


def test_refused_in_a_container_unless_told(folder):
    image = pack(make_image(folder))
    with Sandbox(folder, files=files(image)) as box:
        box.start(f"{COMMAND.replace('--in-namespace', '')}\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        assert "EXIT 3" in box.console() and "this is a container" in box.console(), box.console()


def test_a_hand_over_that_never_comes_is_undone(folder):
    # A shell as init: it reads /run/initctl and does nothing with it.
    image = pack(make_image(folder))
    shell = pathlib.Path("/bin/dash")
    box_files = files(image)
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{LOOK}\n{COMMAND} --hand-over-timeout 1\necho EXIT $?\n{LOOK}\necho OVER\nsleep 60\n"
                          ).encode()
    with Sandbox(folder, files=box_files, init=shell) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert "EXIT 1" in text and "did not execute itself again within 1 s" in text, text
        assert "everything is undone" in text
        assert box.disk_bytes(0, MIB) == box.before


# A shell as PID 1 under the name of systemd: it is asked with SIGTERM, and does not hear.
AS_SYSTEMD = b"/bin/busybox cp /sbin/init /sbin/systemd; exec /sbin/systemd /script\n"
WAIT_FOR_THE_BIND = "while ! grep -q ' /sbin/systemd ' /proc/mounts; do sleep 0.02; done\n"


def deaf_systemd(folder, script, **sandbox):
    """A sandbox whose PID 1 runs this script, and does nothing when asked to execute itself again."""
    box_files = files(pack(make_image(folder)))
    box_files.update({"/as-systemd": AS_SYSTEMD, "/script": f"{script}\necho OVER\nsleep 60\n".encode()})
    # That of busybox takes no priority everywhere.
    box_files.update({path: pathlib.Path(path) for path in ["/sbin/swapon", *libraries("/sbin/swapon")]})
    return Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash"), **sandbox)


def test_a_signal_undoes_everything_swap_and_the_size_of_run_included(folder):
    """The swap lies on the disk's first partition; /run is too small for systemd."""
    swap = """
    p=$(ls /dev | grep '[0-9]p2$'); p=${p%2}1
    /bin/busybox mknod /dev/$p b $(/bin/busybox tr : ' ' < /sys/class/block/$p/dev)
    /bin/busybox mkswap /dev/$p >/dev/null && /sbin/swapon -p 7 /dev/$p
    """
    # Another test may be rehearsing at this moment, too.
    look = f"{LOOK}; grep /dev/loop /proc/swaps\n"
    loops = "for n in 1 2 3 4 5 6 7 8 9; do grep -q rehearsal /sys/block/loop*/loop/backing_file || break; " \
            "sleep 0.2; done; [ $n = 9 ] && echo LOOP DEVICE LEFT\n"
    with deaf_systemd(folder, f"{swap}\n{look}\n{COMMAND} & stage1=$!\n{WAIT_FOR_THE_BIND}\n"
                              "echo MEANWHILE; grep -c /dev/loop /proc/swaps; grep ' /run tmpfs' /proc/mounts\n"
                              f"kill -TERM $stage1; wait $stage1; echo EXIT $?\n{look}\n{loops}", alone=True) as box:
        try:
            box.start_as_shell("/as-systemd")
            box.wait_for("OVER")
        finally:
            # It is the machine's until then, and would keep the disk.
            subprocess.run(["swapoff", box.loop + "p1"], capture_output=True)
        text = box.console()
        assert "EXIT 1" in text and "SIGTERM: it was asked to end" in text, text
        assert re.search("How it goes.*from swap.*swap on /dev/loop.*p1 is turned off", text, re.S), text
        views = re.findall(r"MOUNTS\n(.*?)END\n(.*?7)\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        meanwhile = re.search(r"MEANWHILE\n0\n.* /run tmpfs rw,nosuid,nodev,noexec,\S*size=(\d+)k", text)
        assert meanwhile and int(meanwhile[1]) > 16 << 10, text
        assert "LOOP DEVICE LEFT" not in text, text
        assert box.disk_bytes(0, MIB) == box.before


def test_the_ramfs_is_private_and_no_cleanup_leaves_it(folder):
    """Nobody else may look into it, its pages are not swapped out, and no other namespace sees it, though /run is
    shared as under systemd."""
    with deaf_systemd(folder, "mount --make-shared /run; /bin/busybox chmod 777 /run; umask 0\n"
                              f"{COMMAND} --no-cleanup --hand-over-timeout 1; echo EXIT $?\n"
                              "cd /run/takeover-*\n/bin/busybox stat -c 'IS %a %n' . * patches dev/*\n"
                              "/bin/busybox sed 's/^/MOUNT /' /proc/self/mountinfo") as box:
        box.start_as_shell("/as-systemd")
        box.wait_for("OVER")
        text = box.console()
        assert "EXIT 1" in text and "is left as it is" in text and "everything is undone" not in text, text
        modes = dict((name, mode) for mode, name in re.findall(r"IS (\d+) (.*)", text))
        assert {".", "image", "takeover", "patches", "dev/null"} < modes.keys(), text
        open_to_all = {name: mode for name, mode in modes.items()
                       if name not in ("proc", "sys", "dev/console") and not mode.endswith("00")}
        assert not open_to_all, open_to_all
        mounts = re.findall(r"MOUNT (.*)", text)
        ramfs = [line for line in mounts if " - tmpfs takeover " in line]
        noswap = ",noswap" if knows_noswap() else ""
        assert len(ramfs) == 1 and re.search(rf" rw,size=\d+k,mode=700{noswap}$", ramfs[0]), mounts
        groups = re.findall(r" /run\S* .* (shared:\d+) ", "\n".join(mounts))
        assert len(groups) >= 5 and len(set(groups)) == len(groups), mounts


def knows_noswap():
    """Whether this kernel has the option of tmpfs: since Linux 6.4."""
    major, minor = re.match(r"(\d+)\.(\d+)", os.uname().release).groups()
    return (int(major), int(minor)) >= (6, 4)


# The root mounted in a second place, and a namespace that gets what is mounted in this one, as services do.
COPIES = """mount --make-rshared /; mkdir -p /mnt/x /mnt/y; mount --rbind / /mnt/x
/bin/busybox unshare -m --propagation slave sleep 1000 & before=$!
while [ "$(/bin/busybox readlink /proc/$before/ns/mnt)" = "$(/bin/busybox readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done
"""
# The same, while the RAMFS is mounted.
MORE_COPIES = """while ! grep -q ' /sbin/init ' /proc/mounts; do sleep 0.05; done
echo BEFORE $(grep -c ' / [^ ]*/takeover-.* - tmpfs takeover ' /proc/$before/mountinfo)
/bin/busybox unshare -m --propagation slave sleep 1000 & during=$!
while [ "$(/bin/busybox readlink /proc/$during/ns/mnt)" = "$(/bin/busybox readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done
mount --rbind / /mnt/y
"""


def test_copies_of_the_mounts_do_not_stop_it(folder):
    """PID 1 takes the RAMFS that stage 1 has made, and no copy of it."""
    image = make_image(folder)
    box_files = files(pack(image))
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{COPIES}{COMMAND} &\n{MORE_COPIES}\n"
                          "/bin/busybox sed 's/^/MOUNT /' /proc/self/mountinfo\nexec /sbin/init\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_exit()
        ramfs = re.findall(r"MOUNT \S+ \S+ \S+ / (\S+) .* - tmpfs takeover ", box.console())
        # The one, and the copies that were asked for afterwards: in /mnt/y, and that below /mnt/x, since it is shared.
        assert len(ramfs) >= 2 and ramfs[0].startswith("/run/takeover-"), box.console()
        assert not any(point.startswith("/mnt/x/run/") for point in ramfs), ramfs
        check_taken_over(box, image)


def test_copies_of_the_mounts_keep_nothing_of_the_ramfs(folder):
    """Before and while it is mounted, here and in other namespaces."""
    box_files = files(pack(make_image(folder)))
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{COPIES}{COMMAND} --hand-over-timeout 10 & stage1=$!\n{MORE_COPIES}\n"
                          "for n in self $during; do echo COPIES $(grep -c ' / [^ ]*/takeover-.* - tmpfs takeover ' /proc/$n/mountinfo); done\n"
                          "wait $stage1; echo EXIT $?\nls /run /mnt/x/run; echo THEN\n"
                          "for n in self $before $during; do grep /run/takeover- /proc/$n/mountinfo; done\n"
                          "echo OVER\nsleep 60\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        text = box.console()
        # The program over init's file is there, the RAMFS is not.
        copies = [int(count) for count in re.findall(r"COPIES (\d+)", text)]
        assert "BEFORE 0\n" in text and len(copies) == 2 and min(copies) >= 2, text
        assert "EXIT 1" in text and "everything is undone" in text, text
        assert "/mnt/x/run:\ninitctl\n\n/run:\ninitctl\nTHEN\nOVER" in text and not re.search(r"^takeover-", text, re.M), text


def test_a_lock_of_any_user_forbids_nothing(folder):
    box_files = files(pack(make_image(folder)))
    for program in ("/usr/bin/setpriv", "/usr/bin/flock"):
        box_files.update({path: pathlib.Path(path) for path in [program, *libraries(program)]})
    with Sandbox(folder, files=box_files) as box:
        def lock(what, user=""):
            return f"{user} /bin/sh -c 'exec 9<{what}; /usr/bin/flock 9 && echo LOCKED {what}; exec sleep 1000' &\n"
        user = "/usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups"
        box.start(f"/bin/busybox chmod -R a+rX /\n{lock('/proc', user)}{lock('/proc/1', user)}"
                  f"{lock('/proc/1/fd', user)}sleep 0.5\n{COMMAND} --dry-run; echo EXIT $?\n"
                  f"{lock('/proc/1/fd')}sleep 0.5\n{COMMAND}; echo EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        text = box.console()
        assert re.search(r"LOCKED /proc\n(.*\n)*EXIT 0\n(.*\n)*LOCKED /proc/1/fd\n(.*\n)*EXIT 3\n", text), text
        assert text.count("LOCKED /proc/1/fd") == 1 and "another takeover is running" in text, text


def test_a_run_directory_without_a_limit_is_large_enough(folder):
    """Its size reads as 0, and no limit can be set later."""
    with deaf_systemd(folder, f"{LOOK}\n{COMMAND} --hand-over-timeout 1; echo EXIT $?\n{LOOK}", run_size="0") as box:
        box.start_as_shell("/as-systemd")
        box.wait_for("OVER")
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert "did not execute itself again" in text and "larger for systemd" not in text, text


def test_the_log_of_a_failure_is_where_the_old_os_has_its_logs(folder):
    """In a directory that is mounted there; in memory it would lie below, so then it is at the top."""
    busybox = "/bin/busybox"
    for mount, shown, kept in [
            ("mkdir -p /kept/logs\nmount --bind /kept/logs /var/log", "/var/log/takeover.log", "/kept/logs/takeover.log"),
            (f"{busybox} rm -r /var/log\nmkdir -p /var/real\n{busybox} ln -s real /var/log", *["/var/real/takeover.log"] * 2),
            (f"{busybox} rm -r /var/log", *["/takeover.log"] * 2),
            ("mount -t tmpfs x /var/log", *["/takeover.log"] * 2)]:
        place = pathlib.Path(tempfile.mkdtemp(dir=folder))
        with Sandbox(place, files=files(pack(make_image(place)))) as box:
            box.start(job("--pretend", before=mount))
            box.wait_exit()
            assert f"given up before writing: {shown} of the old OS" in box.console(), box.console()
            log = box.read_ext4(ROOT_START, kept).decode()
            assert check_result_line(log.splitlines()[-1], "pretended"), log


def test_the_log_on_the_old_root_follows_no_link(folder):
    before = "/bin/busybox ln -s /tk/config.json /var/log/takeover.log"
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(job("--pretend", before=before))
        box.wait_exit()
        assert "the log is not kept: making the plain file /mnt/var/log/takeover.log" in box.console(), box.console()
        assert box.read_ext4(ROOT_START, "/tk/config.json") == CONFIG


def test_an_init_that_cannot_be_asked_nor_traced_is_refused(folder):
    box_files = files(pack(make_image(folder)))
    box_files["/deaf"] = f"{COMMAND}\necho EXIT $?\necho OVER\nsleep 60\n".encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        refused = "cannot be made to by ptrace: PID 1 has a seccomp filter; start it without"
        assert "EXIT 3" in box.console() and refused in box.console(), box.console()


# What dash does between its children is to wait for them.
def as_init(folder, script, image, init="/bin/dash", **options):
    """A sandbox whose PID 1 is a program that runs this script."""
    box_files = files(pack(image))
    box_files["/script"] = script.encode()
    return Sandbox(folder, files=box_files, init=pathlib.Path(init), **options)


def test_a_shell_is_taken_over_by_ptrace(folder):
    """PID 1 ignores every signal that it can, SIGCHLD among them, and has services that come back when they are ended."""
    image = make_image(folder)
    script = f"""
    trap '' HUP INT QUIT USR1 USR2 CHLD PIPE ALRM TSTP TTIN TTOU
    /bin/busybox sh -c 'while :; do sleep 1000; done' &
    {COMMAND} & while :; do wait; done
    """
    with as_init(folder, script, image) as box:
        box.start_as_shell("/script", traceable=True)
        box.wait_exit()
        text = box.console()
        assert re.search("handed over +by ptrace\n", text) and "PID 1 is made to execute this program" in text, text
        assert "PID 1 is handed over" in text, text
        result = check_taken_over(box, image)
        assert result["attempts"] == 1, result


def test_an_init_that_does_not_answer_is_taken_over_by_ptrace(folder):
    """A deaf systemd, which has /run large enough; and one for which it is too small, which is not even asked."""
    for number, size in enumerate(("24m", "8m")):
        sub = folder / str(number)
        sub.mkdir()
        image = make_image(sub)
        box_files = {"/as-systemd": AS_SYSTEMD, "/script": f"{COMMAND} --hand-over-timeout 1\n".encode()}
        with Sandbox(sub, files=files(pack(image)) | box_files, init=pathlib.Path("/bin/dash"), run_size=size) as box:
            box.start_as_shell("/as-systemd", traceable=True)
            box.wait_exit()
            text = box.console()
            is_asked = "it did not execute itself again within 1 s" in text
            assert is_asked == (size == "24m") and "larger for systemd" not in text, text
            assert re.search("handed over +when asked; else by ptrace\n", text), text
            check_taken_over(box, image)


def test_a_pid1_that_makes_no_system_call_is_left_as_it_was(folder):
    script = f"""
    ({LOOK}; {COMMAND} --hand-over-timeout 1; echo EXIT $?; {LOOK}; echo OVER) &
    while :; do :; done
    """
    with as_init(folder, script, make_image(folder)) as box:
        box.start_as_shell("/script", traceable=True)
        box.wait_for("OVER")
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert "EXIT 1" in text and "tracing process 1: it made no system call within 1 s" in text, text
        assert "everything is undone" in text and box.disk_bytes(0, MIB) == box.before, text


def test_a_signal_while_pid1_is_traced_is_heeded(folder):
    """PID 1 makes no system call; whoever waits for one is asked to end."""
    script = f"""
    ({COMMAND} & job=$!; while ! grep -q 'made to execute' /dev/console; do sleep 0.05; done; sleep 0.3
     kill -TERM $job; wait $job; echo EXIT $?; grep TracerPid /proc/1/status; echo OVER) &
    while :; do :; done
    """
    with as_init(folder, script, make_image(folder)) as box:
        box.start_as_shell("/script", traceable=True)
        box.wait_for("OVER")
        text = box.console()
        assert "EXIT 1" in text and "SIGTERM: it was asked to end" in text and "everything is undone" in text, text
        assert re.search(r"TracerPid:\s0\n", text), text


def test_what_supervises_a_container_is_taken_over_by_ptrace(folder):
    """tini and dumb-init, as Docker starts them, over a shell of their own."""
    for name in ("tini", "dumb-init"):
        sub = folder / name
        sub.mkdir()
        image = make_image(sub)
        box_files = files(pack(image)) | {"/job": f"{COMMAND}\nsleep 60\n".encode()}
        init = unpacked(name) / "usr/bin" / name
        with Sandbox(sub, files=box_files, init=init) as box:
            box.start(f"{COMMAND}\nsleep 60\n", argument="/bin/sh /job")
            box.wait_exit()
            assert re.search(r"init +init\n +handed over +by ptrace\n", box.console()), box.console()
            check_taken_over(box, image)


@contextlib.contextmanager
def other_disk(folder, size_mib=4):
    """A second loop disk: one ext4 file system."""
    disk = folder / "other.img"
    rootfs.make_file(disk, size_mib * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True, capture_output=True)
    loop = subprocess.run(["losetup", "--show", "--find", disk], check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield loop
    finally:
        end = time.monotonic() + 10
        while not leftovers.detach(loop):
            assert time.monotonic() < end, f"{loop} is still in use"
            time.sleep(0.02)


def test_refused_a_boot_partition_of_another_disk_behind_an_automount(folder):
    """What the firmware starts from is mounted only when somebody looks."""
    box_files = files(pack(make_image(folder))) | {"/boot/empty": b""}
    wait = "echo UP\nwhile [ ! -e /dev/automount ]; do sleep 0.1; done\n"
    with other_disk(folder) as loop, Sandbox(folder, files=box_files) as box:
        box.start(f"{wait}{COMMAND} --dry-run\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("UP")
        program = pathlib.Path(__file__).parent / "lib/automount.py"
        with subprocess.Popen([sys.executable, program, str(box.pid1()), "/boot", loop],
                              preexec_fn=leftovers.die_with_parent) as automount:
            try:
                box.wait_for("OVER")
            finally:
                automount.kill()
        text = box.console()
        assert f"/boot is mounted from {os.path.basename(loop)}: the firmware seems to start from there" in text, text
        assert "EXIT 3" in text, text


def test_an_automount_that_mounts_nothing_is_a_warning(folder):
    """Whoever would mount it is gone."""
    box_files = files(pack(make_image(folder))) | {"/boot/empty": b""}
    wait = "echo UP\nwhile [ ! -e /dev/go ]; do sleep 0.1; done\n"
    with other_disk(folder) as loop, Sandbox(folder, files=box_files) as box:
        box.start(f"{wait}{COMMAND} --dry-run\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("UP")
        program = pathlib.Path(__file__).parent / "lib/automount.py"
        with subprocess.Popen([sys.executable, program, str(box.pid1()), "/boot", loop],
                              preexec_fn=leftovers.die_with_parent) as automount:
            dev = pathlib.Path(f"/proc/{box.pid1()}/root/dev")
            while not (dev / "automount").exists():
                assert automount.poll() is None
                time.sleep(0.05)
            automount.kill()
            automount.wait()
        (dev / "go").touch()
        box.wait_for("OVER")
        text = box.console()
        assert "/boot is an automount that mounts nothing" in text and "EXIT 0" in text, text


def test_refused_a_disk_with_a_pool_of_zfs(folder):
    """A partition with the label of ZFS that somebody has claimed."""
    box_files = files(pack(make_image(folder)))
    wait = "echo UP\nwhile [ ! -e /dev/go ]; do sleep 0.1; done\n"
    label = bytes([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x24, 0, 0, 0, 0x20, 0, 0, 0, 7]) + b"version\0"
    with Sandbox(folder, files=box_files) as box:
        with open(box.disk, "r+b") as file:
            file.seek(MIB + 16 * 1024)
            file.write(label)
        # Exported, then imported.
        box.start(f"{wait}{COMMAND} --dry-run\necho EXIT $?\ntouch /dev/went\n"
                  f"while [ ! -e /dev/claimed ]; do sleep 0.1; done\n{COMMAND} --dry-run\necho EXIT $?\n"
                  "echo OVER\nsleep 60\n")
        box.wait_for("UP")
        dev = pathlib.Path(f"/proc/{box.pid1()}/root/dev")
        part = f"{box.loop}p1"
        os.mknod(dev / os.path.basename(part), 0o60600, os.stat(part).st_rdev)
        (dev / "go").touch()
        box.wait_for("EXIT 0")
        claim = os.open(part, os.O_RDONLY | os.O_EXCL)
        try:
            (dev / "claimed").touch()
            box.wait_for("OVER")
        finally:
            os.close(claim)
        text = box.console()
        assert f"ZFS has {os.path.basename(part)} in a pool" in text and "EXIT 3" in text, text


def test_the_answer_no_and_the_end_of_input_mean_no(folder):
    image = pack(make_image(folder))
    command = COMMAND.replace("--no-ack", "")
    with Sandbox(folder, files=files(image)) as box:
        box.start(f"echo no | {command}\necho EXIT $?\n: | {command}\necho EXIT $?\n"
                  f"{command} </dev/null\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        text = box.console()
        assert text.count("EXIT 3") == 3 and text.count("the answer was not 'yes'") == 2, text
        assert text.count("there is no input to answer on") == 1, text
        assert text.index("How it goes") < text.index("Type 'yes'"), "the preview comes before the question"


def test_dry_run_changes_nothing_and_shows_the_preview(folder):
    text = refused(folder, "--dry-run", code=0, message="dry run: every check passed")
    for line in ("mounted at / (ext4)", "its size        24.0 MiB", "everything on this disk",
                 "its OS          Debian GNU/Linux 12 (bookworm)", "hostname        sandbox",
                 "device type     genericx86-64-ext", "on every console", "alone for about"):
        assert line in text, (line, text)
    page = text[text.index("This device\n"):text.index("dry run: every check passed")]
    lines = [line for line in page.splitlines() if not line.startswith("[")]
    assert len(lines) <= 40 and max(map(len, lines)) <= 80, page
    wanted = ["This device", "What will be lost", "What will be there", "How it is reached", "How it goes", "Warnings"]
    assert [page.index(title) for title in wanted] == sorted(page.index(title) for title in wanted), page


def test_a_log_file_has_the_log_and_no_secret(folder):
    text = refused(folder, "--dry-run --log-file /tk/log --log-level trace; cat /tk/log >&2", code=0,
                   message="dry run: every check passed")
    assert text.count("dry run: every check passed") == 2, text
    assert "sEcReT" not in text, text


def test_the_preview_as_json(folder):
    text = refused(folder, "--dry-run --json 2>/dev/null", code=0, message='{"device":')
    page = json.loads(re.search(r"^{.*}$", text, re.M)[0])
    assert page["image"]["bytes"] == 24 * MIB and page["image"]["zero_percent"] == 66, page
    assert page["new_os"]["hostname"] == "sandbox" and page["os"]["init"] == "sysvinit", page
    assert "mounted at / (ext4)" in page["disk"]["uses"], page
    assert page["demands"]["memory_needed"] < page["demands"]["memory_available"], page
    assert page["demands"]["seconds_alone"] > 0, page


def test_flash_writes_a_disk_that_is_not_in_use(folder):
    image = make_image(folder)
    packed = folder / "image.gz"
    packed.write_bytes(pack(image))
    config = folder / "config.json"
    config.write_bytes(CONFIG)
    keyfile = folder / "office"
    keyfile.write_text("[connection]\nid=office\ntype=wifi\n\n[wifi]\nssid=office\n\n"
                       "[wifi-security]\nkey-mgmt=wpa-psk\npsk=sEcReT-1\n")
    with Sandbox(folder) as box:
        loop = box.attach()
        done = subprocess.run([TAKEOVER, "flash", "-i", packed, "-f", loop, "-c", config, "--nwmgr-cfg", keyfile,
                               "--no-ack", "--json"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        different = compare_disk(box.disk, image, exclude=[(BOOT_START, BOOT_LENGTH)])
        assert not different, different
        assert read_fat(box.disk, "config.json") == CONFIG
        placed = re.search(r"put into the image: /(system-connections/\S+)", done.stderr)
        assert placed and b"psk=sEcReT-1" in read_fat(box.disk, placed[1]), done.stderr
        assert "has no effect" not in done.stderr and "sEcReT" not in done.stderr, done.stderr
        assert json.loads(done.stdout)["outcome"] == "done", done
        name = os.path.basename(loop)
        assert re.search(rf"done: /dev/{name} \(256.0 MiB\) holds {packed} now", done.stderr), done.stderr
        assert "undone" not in done.stderr, done.stderr


def test_flash_undoes_everything_where_the_console_is_mounted(folder):
    """As in a container, whose console is a pseudo terminal: it is mounted into the RAMFS, and unmounted by its path."""
    image, console = make_image(folder), folder / "console"
    console.touch()
    mounted = [*OWN_MOUNTS, "sh", "-c", 'mount --bind "$0" /dev/console && exec "$@"', console]
    with Sandbox(folder) as box:
        process = start_flash(image, box.attach(), "--no-ack", before=mounted)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and "undoing" not in errors, errors


def test_flash_refuses_a_disk_that_is_in_use(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder, files={}) as box:
        box.start("echo UP\nsleep 60\n")
        box.wait_for("UP")
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", box.loop, "--no-ack"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 3, done.stderr
        assert re.search(r"it is in use: mounted at / \(ext4\) for \S+ \(\d+\); end", done.stderr), done.stderr
        assert box.disk_bytes(0, MIB) == box.before


# A suite with one test, which says what it has made and then sleeps.
SLEEPER = """
import sys, time
sys.path.insert(0, sys.argv.pop())
import runner
from namespace import Sandbox
def test_sleep(folder):
    with Sandbox(folder) as box:
        box.start("echo UP; sleep 100")
        box.wait_for("UP")
        print(folder, box.loop, box.pid1(), flush=True)
        time.sleep(100)
runner.main(sys.modules[__name__], [])
"""


def end_a_run(folder, number):
    """Ends a run of SLEEPER by a signal; its folder, its loop device, and whether its namespace is gone soon after. What
    is left lies in this folder, where no other suite that begins meanwhile looks for it."""
    script = folder / "sleeper.py"
    script.write_text(SLEEPER)
    process = subprocess.Popen([sys.executable, "-B", script, pathlib.Path(__file__).parent / "lib"],
                               stdout=subprocess.PIPE, text=True, preexec_fn=leftovers.die_with_parent,
                               env={**os.environ, "TMPDIR": str(folder)})
    *_, path, loop, pid1 = process.stdout.readline().split()
    os.kill(process.pid, number)
    process.wait()
    end = time.monotonic() + 10
    while pathlib.Path(f"/proc/{pid1}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    return pathlib.Path(path), loop, not pathlib.Path(f"/proc/{pid1}").exists()


def lies_on(loop, path):
    backing = pathlib.Path(f"/sys/block/{os.path.basename(loop)}/loop/backing_file")
    return backing.exists() and backing.read_text().startswith(str(path))


def test_of_a_killed_run_no_process_stays_and_the_next_run_frees_its_disk(folder):
    path, loop, gone = end_a_run(folder, signal.SIGKILL)
    assert gone and path.exists()
    with contextlib.ExitStack() as whatever_comes, Sandbox(folder) as box:
        whatever_comes.callback(leftovers.remove, folder)
        box.attach()
        for place in None, folder:
            leftovers.remove(place)
        assert lies_on(box.loop, folder) and folder.exists(), "that of a living test is gone"
    assert not lies_on(loop, path) and not path.exists()


def test_the_throttle_of_a_loop_device_without_a_file_is_ended_and_no_other(folder):
    with Sandbox(folder) as box:
        box.attach()
        # As the controller's files; the first is of a device that nobody has, as the last of all.
        throttles = {}
        for way, minor in ("read", (1 << 20) - 1), ("write", os.minor(os.stat(box.loop).st_rdev)):
            throttles[way] = folder / f"blkio.throttle.{way}_bps_device"
            throttles[way].write_text(f"7:{minor} 10000000\n")
        leftovers.remove_throttles(folder)
        assert throttles["read"].read_text().endswith(" 0\n"), "it is slow for whoever gets it next"
        assert throttles["write"].read_text().endswith(" 10000000\n"), "that of another's disk is ended"


def test_a_run_that_is_asked_to_end_leaves_nothing(folder):
    path, loop, gone = end_a_run(folder, signal.SIGTERM)
    assert gone and not lies_on(loop, path) and not path.exists()


def test_flash_refuses_a_disk_that_a_loop_device_lies_on(folder):
    """The kernel lets others claim a disk that only a loop device has open."""
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach()
        before = box.disk_bytes(0, 4096)
        with loop_device_on(loop):
            done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"],
                                  capture_output=True, text=True, timeout=60)
        assert done.returncode == 3 and re.search(r"it is in use: below loop\d+; end", done.stderr), done.stderr
        assert box.disk_bytes(0, 4096) == before


def test_flash_refuses_a_disk_that_has_changed_since_it_was_checked(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach()
        before = box.disk_bytes(0, 4096)
        process = subprocess.Popen([TAKEOVER, "flash", "-i", image, "-f", loop], stdin=subprocess.PIPE,
                                   stderr=subprocess.PIPE, bufsize=0)
        said = b""
        while b"Type 'yes'" not in said and process.poll() is None:
            said += process.stderr.read(1)
        os.truncate(box.disk, 128 * MIB)
        subprocess.run(["losetup", "--set-capacity", loop], check=True)
        _, errors = process.communicate(b"yes\n", timeout=60)
        assert process.returncode == 1 and b"its size has changed" in errors, errors
        assert box.disk_bytes(0, 4096) == before


def test_a_command_line_over_the_heap_cap_is_a_clear_error(folder):
    done = subprocess.run([TAKEOVER, "scan", *["x" * 1000] * 1400], capture_output=True, text=True)
    assert done.returncode == 1 and "cap of this program; no disk was changed" in done.stderr, done


def test_a_closed_pipe_is_an_error_and_not_the_end(folder):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([TAKEOVER, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 1 and "writing to standard output: closed by the other end" in done.stderr, done


def test_no_file_is_opened_in_place_of_a_closed_stderr(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach()
        command = 'exec "$0" flash -i "$1" -f "$2" >&- 2>&-'
        process = subprocess.Popen(["sh", "-c", command, TAKEOVER, image, loop], stdin=subprocess.PIPE)
        descriptors = pathlib.Path(f"/proc/{process.pid}/fd")
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            # By then it is no longer the shell, and waits for the answer.
            if pathlib.Path(f"/proc/{process.pid}/exe").resolve() == TAKEOVER.resolve():
                time.sleep(0.5)
                break
        opened = [os.readlink(descriptors / str(number)) for number in (1, 2)]
        process.communicate(b"no\n", timeout=60)
        assert opened == ["/dev/null", "/dev/null"], opened
        assert process.returncode == 3


def test_flash_refuses_a_read_only_disk(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach("--read-only")
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 3 and "it is read-only" in done.stderr, done.stderr


def test_flash_says_that_the_disk_is_incomplete_when_its_source_rots(folder):
    image = make_image(folder, size_mib=200, content_mib=180)
    with Sandbox(folder) as box:
        loop = box.attach()
        process = subprocess.Popen([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack", "--json"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with open(image, "r+b", buffering=0) as file:
            file.seek(20 * MIB)
            wanted = file.read(512)
            end = time.monotonic() + 60
            while box.disk_bytes(20 * MIB, 512) != wanted and time.monotonic() < end:
                time.sleep(0.0005)
            file.seek(190 * MIB)
            file.write(b"rotten")
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 4, errors
        assert "it differs from what was scanned" in errors and "incomplete" in errors, errors
        assert json.loads(output)["outcome"] == "failed", output
        assert "undone" not in errors, errors
        assert box.disk_bytes(0, 512) == bytes(512), "a half-written disk has a partition table"
        record = subprocess.run([TAKEOVER, "log", loop], capture_output=True, text=True, timeout=60)
        assert record.returncode == 0 and "it differs from what was scanned" in record.stdout, record
        assert json.loads(record.stdout.splitlines()[-1])["outcome"] == "failed", record.stdout
        # When the new OS is on the disk after all, that is history.
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        record = subprocess.run([TAKEOVER, "log", loop], capture_output=True, text=True, timeout=60)
        assert record.returncode == 1 and "there is none" in record.stderr, record


def test_flash_goes_on_when_interrupted_and_says_so_and_its_progress_ends_at_100_percent(folder):
    image = make_image(folder, size_mib=200, content_mib=180)
    for on_terminal in (False, True):
        with Sandbox(folder) as box:
            loop = box.attach()
            ours, theirs = os.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
            errors = open(folder / "errors", "w+b")
            process = subprocess.Popen([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=theirs if on_terminal else errors)
            with open(image, "rb") as file:
                file.seek(20 * MIB)
                wanted = file.read(512)
            end = time.monotonic() + 60
            while box.disk_bytes(20 * MIB, 512) != wanted and time.monotonic() < end:
                time.sleep(0.0005)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGSTOP)
            time.sleep(2.2)
            process.send_signal(signal.SIGCONT)
            assert process.wait(60) == 0
            said = (os.read(ours, 65536) if on_terminal else (folder / "errors").read_bytes()).decode()
            for end_of in (ours, theirs):
                os.close(end_of)
            whole = " ".join(re.sub(r"\x1b\[\d*[mK]", "", said).split())
            for words in (r"flash: \d+ % of 200.0 MiB, .* s left", "interrupted, and it goes on: the disk is being written",
                          r"flash: 100 % of 200.0 MiB \(\S+ s\); next: reading all of it back", f"done: {loop} .* holds"):
                assert re.search(words, whole), (words, said)
            assert ("\r[" in said and "\x1b[K" in said) == on_terminal, said
            assert not compare_disk(box.disk, image), "another image"


OLD_BYTES = 32 * MIB


def flashed(folder, answers=None, unit=0, image=None):
    """Flashes a disk that is full of something else, and answers some calls so, or discards whole units of so many bytes
    alone: how it ended, what it said, and how many MiB of what was there are holes now. What is on the disk is the image,
    whatever was answered."""
    image = image or make_image(folder)
    with Sandbox(folder) as box:
        with open(box.disk, "r+b") as disk:
            disk.write(b"\xee" * max(OLD_BYTES, image.stat().st_size))
            os.fsync(disk.fileno())
        full = os.stat(box.disk).st_blocks
        loop = box.attach()
        command = [TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack", "--json"]
        with WholeUnits(loop, unit) if unit else contextlib.nullcontext() as units:
            prepare = units.prepare if unit else with_calls(answers)
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=prepare)
        assert done.returncode == 0, done.stderr
        different = compare_disk(box.disk, image)
        assert not different, different
        result = json.loads(done.stdout)
        # The first chunk is never asked for, but written.
        assert result["outcome"] == "done" and result["zero_chunks"] > 10, result
        # A block or two more or less are those of the file system below, for its map.
        return result, done.stderr, round((full - os.stat(box.disk).st_blocks) * 512 / MIB)


def test_zeros_are_made_by_a_hole_else_by_a_discard_and_else_written(folder):
    unsupported = errno.EOPNOTSUPP
    for answers, makes_holes in (({}, True), ({PUNCH: unsupported}, True),
                                 ({PUNCH: unsupported, DISCARD: unsupported}, False),
                                 ({PUNCH: unsupported, DISCARD: unsupported, ZERO_OUT: unsupported}, False)):
        result, said, holes = flashed(folder, answers)
        assert result["repaired_chunks"] == 0 and "read back wrong" not in said, said
        assert holes == (result["zero_chunks"] if makes_holes else 0), (answers, holes, result)


def test_zeros_that_are_not_zeros_are_repaired_by_the_read_back(folder):
    """A hole that was not punched, and zeros that the kernel did not write."""
    unsupported = errno.EOPNOTSUPP
    for answers in {PUNCH: 0}, {PUNCH: unsupported, DISCARD: unsupported, ZERO_OUT: 0}:
        result, said, holes = flashed(folder, answers)
        assert result["repaired_chunks"] == result["zero_chunks"] and "read back wrong" in said, said
        assert holes == 0, holes


def test_a_discard_that_leaves_what_was_there_is_noticed_before_the_read_back(folder):
    result, said, holes = flashed(folder, {PUNCH: errno.EOPNOTSUPP, DISCARD: 0})
    assert result["repaired_chunks"] == 0 and "read back wrong" not in said, said
    assert holes == 0, holes


def test_what_a_discard_leaves_of_its_first_and_last_unit_is_made_zeros_before_the_read_back(folder):
    """The first run of zeros has no whole unit: that says nothing of the longer ones. The last one comes in two pieces."""
    image = make_image(folder, size_mib=64)
    with open(image, "r+b") as file:
        file.seek(31 * MIB)
        file.write(random.Random(1).randbytes(2 * MIB))
    result, said, holes = flashed(folder, unit=4 * MIB, image=image)
    assert result["repaired_chunks"] == 0 and "read back wrong" not in said, said
    # Of 5 to 12, 18 to 31, 33 to 49 and 49 to 64, in MiB.
    assert holes == 4 + 8 + 12 + 12, (holes, result)


def test_a_disk_whose_zeros_are_not_zeros_is_taken_over(folder):
    """The old OS had something everywhere; whatever makes zeros on a disk says that it did, and does nothing."""
    image = make_image(folder)
    filler = random.Random(9).randbytes(OLD_BYTES)
    with Sandbox(folder, files={**files(pack(image)), "/filler": filler}) as box:
        box.start(job(), answers=dict.fromkeys((PUNCH, DISCARD, ZERO_OUT), 0))
        box.wait_exit()
        result = check_taken_over(box, image)
        assert result["repaired_chunks"] > 0 and "was read back wrong" in box.console(), box.console()


def test_the_log_of_a_failure_is_looked_for_and_not_found(folder):
    for size in (0, 1000, 4 * MIB):
        disk = folder / "disk"
        disk.write_bytes(os.urandom(size))
        done = subprocess.run([TAKEOVER, "log", disk], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "there is none" in done.stderr, done.stderr
    done = subprocess.run([TAKEOVER, "log", folder / "nowhere"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "no such file" in done.stderr, done.stderr


def start_flash(image, loop, *options, **process):
    """`takeover flash` of an image to a loop device of ours, in a process that reads answers."""
    process = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **process}
    command = [*process.pop("before", []), TAKEOVER, "flash", "-i", image, "-f", loop, *options]
    return subprocess.Popen(command, preexec_fn=process.pop("preexec_fn", leftovers.die_with_parent), **process)


def unlimited_core():
    """For preexec_fn: this process may leave a core of any size."""
    leftovers.die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_memory_is_locked_and_leaves_no_core(folder):
    """It has keys in it. While the question waits, config.json was read already."""
    image = make_image(folder)
    with Sandbox(folder) as box:
        process = start_flash(image, box.attach(), cwd=folder, preexec_fn=unlimited_core)
        try:
            said = ""
            while "Type 'yes'" not in said:
                assert (piece := process.stderr.read(1)), said
                said += piece
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            size = {name: int(kib) for name, kib in re.findall(r"(\w+):\s+(\d+) kB", status)}
            assert size["VmLck"] > 1024 and size["VmSwap"] == 0, status
            limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text()
            assert re.search(r"Max core file size +0 +0 ", limits), limits
        finally:
            process.send_signal(signal.SIGSEGV)
            _, ended = os.waitpid(process.pid, 0)
            process.returncode = ended
        assert os.WTERMSIG(ended) == signal.SIGSEGV and not os.WCOREDUMP(ended), ended
        assert not list(folder.glob("core*"))


def without_fsopen():
    """For preexec_fn: fsopen(2) is not there, as in a kernel without `noswap`: a filter of seccomp(2)."""
    leftovers.die_with_parent()
    load, equal, give = 0x20, 0x15, 0x06
    fsopen, enosys, errno, allow = 430, 38, 0x00050000, 0x7fff0000
    program = [(load, 0, 0, 0), (equal, 0, 1, fsopen), (give, 0, 0, errno | enosys), (give, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    filters = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(code)))
    set_seccomp, filter_mode = 22, 2
    if ctypes.CDLL(None).prctl(set_seccomp, filter_mode, filters, 0, 0) != 0:
        raise OSError("prctl")


def swaps_in_use(process, devices):
    """The priority of each of these swap areas that is in use, as a process sees their paths."""
    table = in_its_namespace(process, "cat", "/proc/swaps").stdout
    lines = [line.split() for line in table.splitlines()[1:]]
    return {line[0]: int(line[4]) for line in lines if line[0] in devices}


def discards(area):
    """Whether the kernel discards the freed blocks of a swap area: its log says "sc" when it is put into use."""
    log = subprocess.run(["dmesg"], check=True, capture_output=True, text=True).stdout
    *_, flags = re.findall(rf"Adding \d+k swap on {area}\. .* across:\d+k ?(\S*)$", log, re.M)
    return "sc" in flags


def test_where_the_ramfs_could_be_swapped_out_all_swap_is_off_meanwhile(folder):
    """Three areas of this test's own, and no others: swap is the whole machine's. /etc/fstab is one of its own, too."""
    assert len(pathlib.Path("/proc/swaps").read_text().splitlines()) < 2, "this machine has swap"
    image = make_image(folder)
    fstab = folder / "fstab"
    fstab.touch()
    script = 'mount --bind "$0" /etc/fstab && echo UP && exec sleep 1000'
    areas = []
    with Sandbox(folder, alone=True) as box:
        holder = subprocess.Popen([*OWN_MOUNTS, "sh", "-c", script, fstab], stdout=subprocess.PIPE,
                                  preexec_fn=leftovers.die_with_parent)
        enter = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        try:
            assert holder.stdout.readline() == b"UP\n"
            for name, options in (("first", []), ("second", ["-p", "7"]), ("third", [])):
                path = folder / name
                rootfs.make_file(path, 4 * MIB)
                subprocess.run(["mkswap", path], check=True, capture_output=True)
                areas.append(subprocess.run(["losetup", "--show", "--find", path], check=True, capture_output=True,
                                            text=True).stdout.strip())
                subprocess.run([*enter, "swapon", *options, areas[-1]], check=True)
            before = swaps_in_use(holder, areas)
            fstab.write_text(f"{areas[1]} none swap sw,discard,pri=7 0 0\n{areas[2]} none swap sw 0 0\n")
            loop = box.attach()
            process = start_flash(image, loop, "--no-ack", "--pretend", preexec_fn=without_fsopen, before=enter)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            for area in areas:
                assert f"swap on {area} is off" in errors and f"swap on {area} is on again" in errors, errors
            assert f"{areas[0]} is off; /etc/fstab does not name it" in errors, errors
            assert errors.count("does not name it") == 1, errors
            assert swaps_in_use(holder, areas) == before and len(before) == 3, (before, swaps_in_use(holder, areas))
            assert [discards(area) for area in areas] == [False, True, False]
            if knows_noswap():
                process = start_flash(image, loop, "--no-ack", "--pretend", before=enter)
                _, errors = process.communicate(timeout=60)
                assert process.returncode == 0 and "is off" not in errors, errors
        finally:
            for area in areas:
                subprocess.run(["swapoff", area], capture_output=True)
                leftovers.let_go(area)
            holder.kill()
            holder.wait()


def ramfs_of(process):
    """Where the process has its RAMFS mounted, whose lock it holds; none while it has none. A mount namespace begins as a
    copy of this one, with whatever others have mounted at that moment."""
    table = pathlib.Path(f"/proc/{process}/mountinfo").read_text()
    locked = set()
    for link in pathlib.Path(f"/proc/{process}/fd").iterdir():
        # Closed meanwhile.
        with contextlib.suppress(OSError):
            if "FLOCK" in pathlib.Path(f"/proc/{process}/fdinfo/{link.name}").read_text():
                locked.add(os.readlink(link))
    return [point for point in re.findall(r"^\S+ \S+ \S+ / (\S+) .* - tmpfs takeover ", table, re.M) if point in locked]


def stop_with_ramfs(process):
    """Stops a flash when it has a RAMFS with all that belongs there; where that is."""
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        os.kill(process.pid, signal.SIGSTOP)
        found = ramfs_of(process.pid)
        table = pathlib.Path(f"/proc/{process.pid}/mountinfo").read_text()
        if found and f" {found[0]}/sys " in table:
            return found[0]
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.0005)
    raise AssertionError("it has mounted no RAMFS")


def in_its_namespace(process, *command):
    """What a command says in the mount namespace of a process."""
    return subprocess.run(["nsenter", f"--mount=/proc/{process.pid}/ns/mnt", *command], capture_output=True, text=True)


OWN_MOUNTS = ["unshare", "--mount", "--propagation", "private"]
# After each mount it stands still for a moment, in which it can be stopped however busy this machine is: all that it does
# between mounting its RAMFS and undoing that takes a few ms.
SLOW_MOUNTS = ["strace", "-D", "-o", "/dev/null", "-e", "trace=mount,fsmount,move_mount",
               "-e", "inject=mount,fsmount,move_mount:delay_exit=300ms"]


def test_flash_says_what_it_cannot_undo(folder):
    """Somebody mounts something over its RAMFS, and later goes on."""
    image = make_image(folder)
    with Sandbox(folder) as box:
        process = start_flash(image, box.attach(), "--no-ack", "--pretend", before=[*OWN_MOUNTS, *SLOW_MOUNTS])
        point = stop_with_ramfs(process)
        assert in_its_namespace(process, "mount", "-t", "tmpfs", "over", point).returncode == 0
        os.kill(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors
        assert "undoing: unmounting" in errors and "not everything but the disk is as it was" in errors, errors
        os.rmdir(point)


def test_what_a_killed_flash_left_is_removed_by_the_next_one_and_what_a_living_one_has_is_not(folder):
    image = make_image(folder)
    folders = [folder / "a", folder / "b"]
    for path in folders:
        path.mkdir()
    with Sandbox(folders[0]) as first, Sandbox(folders[1]) as second:
        loops = [first.attach(), second.attach()]
        living = start_flash(image, loops[0], "--no-ack", "--pretend", before=[*OWN_MOUNTS, *SLOW_MOUNTS])
        try:
            point = stop_with_ramfs(living)
            enter = ["nsenter", f"--mount=/proc/{living.pid}/ns/mnt"]
            killed = start_flash(image, loops[1], "--no-ack", "--pretend", before=[*enter, *SLOW_MOUNTS])
            left = stop_with_ramfs(killed)
            killed.kill()
            killed.communicate()
            third = start_flash(image, loops[1], "--no-ack", "--pretend", before=enter)
            _, errors = third.communicate(timeout=60)
            assert third.returncode == 0 and f"{left} is removed" in errors, errors
            assert ramfs_of(living.pid) == [point], ramfs_of(living.pid)
            table = pathlib.Path(f"/proc/{living.pid}/mountinfo").read_text()
            assert left not in table and not os.path.exists(left), table
        finally:
            os.kill(living.pid, signal.SIGCONT)
            _, errors = living.communicate(timeout=60)
        assert living.returncode == 0, errors
        assert not os.path.exists(point)


def test_what_is_mounted_is_not_open_for_writing(folder):
    """A kernel started with bdev_allow_write_mounted=0 would not mount it."""
    image = make_image(folder, boot="ext4")
    trace = folder / "trace"
    config = folder / "config.json"
    config.write_bytes(CONFIG)
    with Sandbox(folder) as box:
        strace = ["strace", "-f", "-qq", "-o", trace, "-e", "trace=open,openat,close,mount"]
        process = start_flash(image, box.attach(), "--no-ack", "-c", config, before=strace)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    writers, mounted = {}, 0
    for line in trace.read_text().splitlines():
        if found := re.search(r' open(?:at)?\(.*"([^"]+)", (\S+?)[,)].* = (\d+)$', line):
            path, flags, number = found.groups()
            writers[number] = path if re.search("O_RDWR|O_WRONLY", flags) else None
        elif found := re.search(r" close\((\d+)\)", line):
            writers.pop(found[1], None)
        elif found := re.search(r' mount\("(/\S+/dev/loop\d+)", .* = (-?\d+)', line):
            mounted += 1
            assert found[2] == "0" and found[1] not in writers.values(), (line, writers)
    # The rehearsal, and the boot partition to place its files and to read them back.
    assert mounted >= 3, trace.read_text()


SWAP = "dd if=/dev/zero of=/swap bs=1024k count=4 2>/dev/null; /bin/busybox mkswap /swap >/dev/null"


@contextlib.contextmanager
def swap_off_at_last(box):
    """Swap is the whole kernel's, and outlives the namespace: the sandbox's own must not stay when a test fails."""
    try:
        yield
    finally:
        point = box.folder / "swap-point"
        point.mkdir()
        if subprocess.run(["mount", "-t", "ext4", f"{box.loop}p2", point], capture_output=True).returncode == 0:
            subprocess.run(["swapoff", point / "swap"], capture_output=True)
            subprocess.run(["umount", point], check=True)


def test_swap_that_comes_up_while_the_question_waits_is_turned_off(folder):
    command = COMMAND.replace("--no-ack", "")
    script = f"""{SWAP}
    (while ! grep -q "Type 'yes'" /dev/console; do sleep 0.1; done
     /bin/busybox swapon /swap; echo SWAP IS ON >&2; echo yes) | {command} --pretend
    """
    with Sandbox(folder, files=files(pack(make_image(folder))), alone=True) as box:
        box.start(f"{script}\necho EXIT $?\nsleep 60\n")
        with swap_off_at_last(box):
            box.wait_exit()
        text = box.console()
        assert re.search(r"SWAP IS ON.*swap on /swap is off", text, re.S), text
        assert '"outcome":"pretended"' in text, text


def test_a_kernel_that_cannot_mount_the_log_device_is_refused_with_swap_still_on(folder):
    """A kernel without vfat. One that has it rehearses the mount, and goes on."""
    has_vfat = "vfat" in pathlib.Path("/proc/filesystems").read_text() or \
        shutil.which("modprobe") and subprocess.run(["modprobe", "-q", "vfat"]).returncode == 0
    volume = folder / "log.vfat"
    rootfs.make_file(volume, MIB)
    rootfs.run("mkfs.vfat", volume)
    box_files = files(pack(make_image(folder)))
    box_files["/log.vfat"] = volume
    # In memory: a log device may not lie on the disk that is written.
    attach = "cat /log.vfat >/run/log.vfat\n[ -e /dev/loop-control ] || /bin/busybox mknod /dev/loop-control c 10 237\n" \
             "for n in 0 1 2 3 4 5 6 7; do [ -e /dev/loop$n ] || /bin/busybox mknod /dev/loop$n b 7 $n\n" \
             "/bin/busybox losetup /dev/loop$n /run/log.vfat 2>/dev/null && break; done\n"
    with Sandbox(folder, files=box_files, alone=True) as box:
        box.start(f"{SWAP}; /bin/busybox swapon /swap\n{attach}{LOOK}\n{COMMAND} --log-to /dev/loop$n\necho EXIT $?\n"
                  f"{LOOK}\n/bin/busybox losetup -d /dev/loop$n\ncat /proc/swaps\necho OVER\nsleep 60\n")
        with swap_off_at_last(box):
            box.wait_for("rehearsed: the log device, vfat, can be mounted" if has_vfat else "OVER")
        if has_vfat:
            return
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert "EXIT 3" in text and "mount the log device: is the module there" in text, text
        assert "/swap is off" not in text and re.search("^/swap +file", text, re.M), text


def test_a_signal_while_pid1_executes_us_already_does_not_take_the_plan_back(folder):
    """The shell that is PID 1 holds the file open, as the kernel does that is about to execute it."""
    image = make_image(folder)
    box_files = files(pack(image))
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{COMMAND} & stage1=$!\n"
                          "while ! grep -q ' /sbin/init ' /proc/mounts; do sleep 0.05; done\n"
                          "exec 3</sbin/init\nkill -HUP $stage1\nsleep 1\nexec /sbin/init\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_exit()
        check_taken_over(box, image)


def test_a_second_takeover_is_refused_while_the_first_one_waits(folder):
    first = f"(sleep 1000 | {COMMAND.replace('--no-ack', '')}) & while ! grep -q \"Type 'yes'\" /dev/console; do sleep 0.1; done"
    flash = "/tk/takeover flash -i /tk/image -f /dev/null --no-ack"
    text = refused(folder, f"--dry-run; {COMMAND}; {flash}", before=first, code=3, message="another takeover is running")
    assert text.count("another takeover is running") == 3, text


def test_what_a_killed_takeover_left_is_removed_by_the_next_one(folder):
    """Killed when its program lies over init's: a shell is init, and does not listen."""
    box_files = files(pack(make_image(folder)))
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n{LOOK}\n"
                          f"{COMMAND} & first=$!\n"
                          "while ! grep -q ' /sbin/init ' /proc/mounts; do sleep 0.05; done\n"
                          "kill -9 $first; wait $first\n"
                          f"{COMMAND} --dry-run\necho DRY $?\ngrep -c '^takeover /' /proc/mounts\n"
                          f"{COMMAND} --hand-over-timeout 1\necho EXIT $?\n{LOOK}\necho OVER\nsleep 60\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert re.search(r"a takeover was killed, or left it with --no-cleanup: /run/takeover-\w+ is removed", text), text
        # The RAMFS, and its program over init's file.
        assert "DRY 0\n2\n" in text and text.count("dry run: every check passed") == 1, text
        assert re.search(r"the next run removes /run/takeover-\w+, with [1-9]\S* MiB in it", text), text
        assert "the next run removes what it mounted over /sbin/init" in text, text
        assert "EXIT 1" in text and "did not execute itself again within 1 s" in text, text


def test_the_directory_of_a_ramfs_that_was_never_mounted_is_removed(folder):
    """A takeover was killed in between; and the mounts are there twice."""
    name = "takeover-0123456789abcdef"
    before = f"{COPIES}mkdir /run/{name}; mount --bind /run/{name} /run/{name}; echo THERE $(grep -c {name} /proc/mounts)\n"
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(f"{before}{COMMAND} -f /dev/nowhere\necho LEFT $(grep -c {name} /proc/mounts) $(ls /run)\necho OVER; sleep 60\n")
        box.wait_for("OVER")
        assert "THERE 2\n" in box.console() and "LEFT 0 initctl\n" in box.console(), box.console()


def test_a_signal_is_named_and_one_that_is_ignored_is_not_heeded(folder):
    """nohup(1) ignores SIGHUP; blocked, it stays pending all the same."""
    # Long enough for a busy machine to see what lies over init, and to send the signal while it is there.
    run = (f"{COMMAND} --hand-over-timeout 10 & stage1=$!\n"
           "while ! grep -q ' /sbin/init ' /proc/mounts && kill -0 $stage1; do sleep 0.05; done\n"
           "kill -HUP $stage1; echo SENT; wait $stage1; echo EXIT $?\n")
    box_files = files(pack(make_image(folder)))
    box_files["/deaf"] = ("/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{run}echo NOHUP\ntrap '' HUP\n{run}echo OVER\nsleep 60\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        heeded, ignored = box.console().split("NOHUP")
        assert "SIGHUP: the session has ended; start it below tmux" in heeded and "EXIT 1" in heeded, heeded
        assert "did not execute itself again within 10 s" in ignored and "SIGHUP" not in ignored, ignored
        assert ignored.index("SENT") < ignored.index("everything is undone"), ignored


def test_scan_prints_at_every_log_level(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    scan = [TAKEOVER, "scan", image, "--log-level", "error"]
    done = subprocess.run(scan, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done
    assert re.search(r"on the disk +24.0 MiB\n", done.stdout) and "MBR" in done.stdout, done.stdout
    done = subprocess.run([*scan, "--json"], capture_output=True, text=True, timeout=60)
    page = json.loads(done.stdout)["image"]
    assert page["bytes"] == 24 * MIB and page["boot_start"] == BOOT_START and page["format"] == "gzip", page


def test_a_log_file_that_cannot_be_is_a_refusal(folder):
    link = folder / "link"
    link.symlink_to(folder / "elsewhere")
    for path in (folder / "nowhere/log", link):
        done = subprocess.run([TAKEOVER, "--tool-version", "--log-file", path], capture_output=True, text=True)
        assert done.returncode == 3 and "opening the log file" in done.stderr, done
    assert not (folder / "elsewhere").exists()
    with Sandbox(folder) as box:
        disk, before = box.attach(), box.disk_bytes(0, MIB)
        done = subprocess.run([TAKEOVER, "scan", folder / "nowhere", "--log-file", disk], capture_output=True, text=True)
        # What is written to a block device goes to its beginning, O_APPEND or not.
        assert box.disk_bytes(0, MIB) == before, "the partition table is overwritten"
        assert done.returncode == 3 and f"opening the log file {disk}: it is a disk" in done.stderr, done


def test_refused_without_the_capabilities_that_it_takes(folder):
    """It would fail in the middle: mounting the RAMFS."""
    done = subprocess.run(["setpriv", "--bounding-set", "-sys_admin", TAKEOVER, "flash", "-i", "/nowhere",
                           "-f", "/dev/null", "--no-ack"], capture_output=True, text=True)
    assert done.returncode == 3 and "CAP_SYS_ADMIN is missing" in done.stderr, done


STUBBORN = "sh -c 'trap \"\" TERM; while :; do sleep 1; done' &"


# Ends two seconds after it was asked to.
SLOW = "sh -c 'trap \"sleep 2; exit\" TERM; while :; do sleep 1; done' &"


def test_watchdogs_that_are_in_use_are_taken_and_no_other_and_none_stalls_pid1(folder):
    """Files and a named pipe in their place: where the kernel does not tell whether one runs, a process has it open.
    The pipe has no other end once that process is gone: whoever opens it then waits for ever."""
    image = make_image(folder)
    before = """
    touch /dev/watchdog /dev/watchdog2; /bin/busybox mkfifo /dev/watchdog3
    sh -c 'exec 3>/dev/watchdog; sleep 1000' &
    sh -c 'exec 3<>/dev/watchdog3; sleep 1000' &
    """
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job(before=before + SLOW))
        box.wait_for("takeover is PID 1")
        tasks = pathlib.Path(f"/proc/{box.pid1()}/task")
        box.wait_for("watchdog is ours")
        assert len(list(tasks.iterdir())) == 3, "there is not one thread for each of the watchdogs"
        fed = pathlib.Path(f"/proc/{box.pid1()}/root/dev/watchdog")
        first = fed.stat().st_size
        end = time.monotonic() + 5
        while fed.stat().st_size == first and time.monotonic() < end:
            time.sleep(0.02)
        assert first > 0, "it is not fed as soon as it is open"
        assert fed.stat().st_size > first, "it is not fed while another one does not let itself be opened"
        box.wait_exit()
        assert "watchdog2 is ours" not in box.console(), box.console()
        check_taken_over(box, image)


def test_a_watchdog_is_started_only_when_asked_for(folder):
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(job("--pretend --watchdog 30", before=f"touch /dev/watchdog1\n{SLOW}"))
        box.wait_exit()
        assert "watchdog1 is ours" in box.console(), box.console()
        assert "it was started, but does not take 30 s" in box.console(), box.console()


def test_refused_a_watchdog_that_is_not_there(folder):
    refused(folder, "--dry-run --watchdog 30", code=3, message=r"\(--watchdog\): there is no /dev/watchdog; load its driver")
    shutil.rmtree(folder / "mnt")
    refused(folder, "--dry-run --watchdog 9", code=2, message="--watchdog: it is not a number from 10 to 3600")


def test_who_holds_a_disk_stands_in_the_error(folder):
    """A mount of its partition, a loop device on it, and this program."""
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach()

        def refusal():
            done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"],
                                  capture_output=True, text=True, timeout=60)
            assert done.returncode == 3, done.stderr
            return done.stderr
        held = os.open(loop, os.O_RDWR | os.O_EXCL)
        try:
            assert f"it is in use: python3 ({os.getpid()}) has it open; end" in refusal()
        finally:
            os.close(held)
        point = folder / "point"
        point.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-F", loop], check=True, capture_output=True)
        subprocess.run(["mount", loop, point], check=True)
        try:
            assert f"it is in use: mounted at {point} (ext4)" in refusal()
        finally:
            subprocess.run(["umount", point], check=True)
        above = subprocess.run(["losetup", "--show", "--find", loop], check=True, capture_output=True,
                               text=True).stdout.strip()
        try:
            assert f"it is in use: below {os.path.basename(above)}; end" in refusal()
        finally:
            leftovers.let_go(above)


def test_flash_pretends_too(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        before = box.disk_bytes(0, box.disk.stat().st_size)
        loop = box.attach()
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack", "--pretend", "--json"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and json.loads(done.stdout)["outcome"] == "pretended", done
        assert f"{os.path.basename(loop)} is as it was" in done.stderr, done.stderr
        assert box.disk_bytes(0, len(before)) == before, "something was written"


def flushes(loop):
    """How often the disk was told to flush its cache: Documentation/block/stat.rst."""
    return int(pathlib.Path(f"/sys/block/{os.path.basename(loop)}/stat").read_text().split()[15])


def test_the_cache_of_the_disk_is_flushed_before_done_is_said(folder):
    """After the clearing, the flash, the head but for its first block, and that block."""
    image = make_image(folder)
    with Sandbox(folder) as box:
        loop = box.attach()
        before = flushes(loop)
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert flushes(loop) - before == 4, flushes(loop) - before


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
