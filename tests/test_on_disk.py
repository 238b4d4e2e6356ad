#!/usr/bin/env python3
"""The packed image waits on the disk that is written (--stage disk), in a PID and mount namespace on a loop disk."""

import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "lib"))
import runner  # noqa: E402
import test_namespace as whole  # noqa: E402
from namespace import MIB, Sandbox  # noqa: E402

IMAGE_MIB = 96
# Which of the plan's numbers say where the image waits: Plan::numbers in src/plan.rs.
PLAN_PACKED = 36
# <linux/falloc.h>: FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE.
PUNCH = 3
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
COMMAND = whole.COMMAND.replace("/tk/image", "/img")


def extents(path):
    """Where a file is in its file system: (in the file, on the device, length), in bytes."""
    text = subprocess.run(["filefrag", "-v", "-b512", path], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^\s*\d+:\s*(\d+)\.\.\s*(\d+):\s*(\d+)\.\.\s*\d+:", text, re.M)
    return [(int(first) * 512, int(place) * 512, (int(last) + 1 - int(first)) * 512) for first, last, place in found]


def scatter(root, data, start, end, piece=4096):
    """Writes /img below `root`, in pieces all over the file system, which begins at `start` of its disk, and one across
    `end` of the disk. Gives how many there are, and how many bytes lie in front of that end."""
    filler = root / "filler"
    with open(filler, "wb") as file:
        size = 0
        for step in (8 * MIB, MIB, 64 * 1024, 4096):
            while LIBC.fallocate64(file.fileno(), 0, size, step) == 0:
                size += step
        os.fsync(file.fileno())
        holes = ([], [])
        for at, place, length in extents(filler):
            across = end - start - place
            if 128 * 1024 < across < length - 128 * 1024:
                assert LIBC.fallocate64(file.fileno(), PUNCH, at + across - 128 * 1024, 256 * 1024) == 0
            for offset in range(-place % piece, length - piece, 2 * piece):
                holes[place + offset > end - start].append(at + offset)
        wanted = (len(data) + len(data) // 4) // piece
        inside = holes[0][:wanted // 2]
        for at in inside + holes[1][:wanted - len(inside)]:
            assert LIBC.fallocate64(file.fileno(), PUNCH, at, piece) == 0
        os.fsync(file.fileno())
    with open(root / "img", "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    filler.unlink()
    fd = os.open(root, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    found = extents(root / "img")
    inside = sum(min(length, max(0, end - start - place)) for _, place, length in found)
    return len(found), inside


def begin(box, packed, options, first=""):
    """Boots, scatters the image, and lets the takeover begin; `first` comes before it."""
    box.start(f"echo UP\nuntil [ -e /go ]; do sleep 0.02; done\n{first}{COMMAND} {options}\necho EXIT $?\nsleep 60\n")
    box.wait_for("UP")
    root = pathlib.Path(f"/proc/{box._own(box.pid1())}/root")
    count, inside = scatter(root, packed, whole.ROOT_START, IMAGE_MIB * MIB)
    assert count > 1000 and MIB // 4 < inside < len(packed) - MIB, (count, inside)
    (root / "go").touch()
    return root, count, inside


def files():
    return {"/tk/takeover": whole.TAKEOVER, "/tk/config.json": whole.CONFIG}


def check_untouched(box):
    assert box.disk_bytes(0, MIB) == box.before
    assert "restarting into the old OS" in box.console(), box.console()
    # The old OS has its room back.
    assert "removed what was copied of the image: /.takeover-copies" in box.console(), box.console()
    listed = subprocess.run(["debugfs", "-R", "ls -p /", f"{box.disk}?offset={whole.ROOT_START}"],
                            check=True, capture_output=True, text=True).stdout
    assert "/img/" in listed and ".takeover-copies" not in listed, listed
    checked = subprocess.run(["e2fsck", "-fn", f"{box.disk}?offset={whole.ROOT_START}"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    config = subprocess.run(["debugfs", "-R", "cat /tk/config.json", f"{box.disk}?offset={whole.ROOT_START}"],
                            check=True, capture_output=True).stdout
    assert config == whole.CONFIG


def takes_over_in_a_thousand_pieces(folder, block):
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files(), block=block) as box:
        begin(box, whole.pack(image), "--stage disk")
        box.wait_exit()
        found = re.search(r"the image stays on /dev/loop\d+, in (\d+) pieces", box.console())
        assert found and int(found[1]) > 500, box.console()
        assert re.search(r"[KM]iB of the image are copied behind the new OS: /.takeover-copies", box.console()), box.console()
        assert re.search(r"  image waits +disk\n +because +--stage disk\n", box.console()), box.console()
        whole.check_taken_over(box, image)


def test_an_image_in_a_thousand_pieces_of_4_kib_stays_on_the_disk(folder):
    takes_over_in_a_thousand_pieces(folder, 4096)


def test_an_image_in_a_thousand_pieces_stays_on_the_disk_with_blocks_of_1_kib(folder):
    takes_over_in_a_thousand_pieces(folder, 1024)


def prepared(box, packed, act):
    """Lets `act` change something of the old OS when all is prepared, and PID 1 is held; and then lets that go on."""
    box.start(f"echo UP\nuntil [ -e /go ]; do sleep 0.02; done\n{COMMAND} --stage disk\necho EXIT $?\nsleep 60\n")
    box.wait_for("UP")
    pid1 = box._own(box.pid1())
    root = pathlib.Path(f"/proc/{pid1}/root")
    scatter(root, packed, whole.ROOT_START, IMAGE_MIB * MIB)
    box._wait_until(lambda: any(os.readlink(path).endswith("initctl")
                                for path in pathlib.Path(f"/proc/{pid1}/fd").iterdir()))
    os.kill(pid1, signal.SIGSTOP)
    (root / "go").touch()
    box.wait_for("put into the image: /config.json")
    # The plan is the last.
    box._wait_until(lambda: "/sbin/init" in [line.split()[4] for line in open(f"/proc/{pid1}/mountinfo")])
    act(box, root)
    os.kill(pid1, signal.SIGCONT)


def stopped_before_the_check(folder, act, afterwards=None):
    """Takes over as far as the check, of something that `act` has changed when all was prepared, and gives what the console
    says. `afterwards` is done when it goes on."""
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files(), timeout=180) as box:
        prepared(box, whole.pack(image), act)
        if afterwards:
            afterwards(box)
        box.wait_exit()
        check_untouched(box)
        return box.console()


NOTICED = r"piece \d+ \(sectors \d+ to \d+\) is not what was left there"


def first_copy(root):
    """Where on the disk the first byte is that was copied: behind the end, and the first that was used."""
    behind = IMAGE_MIB * MIB - whole.ROOT_START
    return whole.ROOT_START + min((at, place) for at, place, _ in extents(root / ".takeover-copies") if place >= behind)[1]


def spoil(box, place):
    """Changes what is at a place of the disk; the same once more brings it back."""
    with open(box.loop, "r+b", buffering=0) as disk:
        disk.seek(place)
        old = disk.read(1024)
        disk.seek(place)
        disk.write(bytes(byte ^ 0x55 for byte in old))
        os.fsync(disk.fileno())


def test_a_copy_that_was_damaged_is_noticed_before_the_first_write(folder):
    def damage(box, root):
        spoil(box, first_copy(root))
    text = stopped_before_the_check(folder, damage)
    assert re.search(NOTICED, text), text


def test_a_file_that_was_written_to_is_noticed_before_the_first_write(folder):
    def write(_, root):
        with open(root / "img", "r+b") as file:
            file.seek(5 * MIB)
            file.write(b"other bytes")
    text = stopped_before_the_check(folder, write)
    assert re.search(NOTICED, text), text


def test_a_file_that_was_cut_and_whose_blocks_others_have_is_noticed_before_the_first_write(folder):
    def cut(_, root):
        os.truncate(root / "img", 4096)
        os.sync()
        with open(root / "other", "wb") as file:
            piece = bytes(64 * 1024)
            try:
                while True:
                    file.write(piece)
            except OSError:
                pass
        (root / "other").unlink()
    text = stopped_before_the_check(folder, cut)
    assert re.search(NOTICED, text), text


def test_a_worker_that_is_killed_in_the_middle_flashes_again(folder):
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files(), timeout=180) as box:
        begin(box, whole.pack(image), "--stage disk")
        wanted = image.read_bytes()[15 * MIB:15 * MIB + 4096]
        # Only now: from one system call to the next the check takes long.
        box.wait_for("is free")
        box.stop_worker_at(lambda: box.disk_bytes(15 * MIB, len(wanted)) == wanted)
        box.kill_worker()
        box.wait_exit()
        whole.check_new_os(box.disk, image)
        assert '"attempts":2' in box.console().replace(" ", ""), box.console()


def test_a_piece_that_reads_wrong_for_a_moment_is_read_again(folder):
    place = []

    def damage(box, root):
        place.append(first_copy(root))
        spoil(box, place[0])

    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files()) as box:
        prepared(box, whole.pack(image), damage)
        box.wait_for(NOTICED + r".*\(try 1 of 3\)")
        spoil(box, place[0])
        box.wait_exit()
        whole.check_new_os(box.disk, image)
        assert '"attempts":1' in box.console().replace(" ", ""), box.console()


def test_the_head_is_put_back_whatever_has_become_of_the_image(folder):
    """A worker is killed when it has cleared a part of the head, and then the image is bad."""
    place = []

    def cleared(box):
        box.wait_for("is free")
        box.stop_worker_at(lambda: box.disk_bytes(0, 4096) != box.before[:4096])
        spoil(box, place[0])
        box.kill_worker()
    text = stopped_before_the_check(folder, lambda _, root: place.append(first_copy(root)), cleared)
    assert "putting back the first MiB of the disk" in text and "the try before this one did not come to its end" in text, text


def test_the_plan_says_what_disk_the_image_is_on(folder):
    """By what it is, since its name and number are others when it comes back."""
    def read(box, root):
        points = [line.split()[4] for line in open(f"/proc/{box._own(box.pid1())}/mountinfo")]
        ramfs = next(point for point in points if re.fullmatch(r"/\S*takeover-[0-9a-f]{16}", point))
        plan = json.loads((root / ramfs.lstrip("/") / "plan.json").read_text())
        number = os.stat(box.loop).st_rdev
        found = plan[PLAN_PACKED:PLAN_PACKED + 4]
        assert found == [1, os.major(number), os.minor(number), box.disk.stat().st_size], plan
        texts = [text for text in plan if isinstance(text, str)]
        assert texts[:2] == [os.path.basename(box.loop), f"diskseq={sequence(box)}"], texts
        at = texts.index(texts[0], 1)
        assert texts[at + 1] == texts[1], texts
        # So that it comes to an end.
        spoil(box, first_copy(root))
    stopped_before_the_check(folder, read)


def sequence(box):
    return pathlib.Path(f"/sys/block/{os.path.basename(box.loop)}/diskseq").read_text().strip()


def test_what_has_no_room_is_refused_by_a_dry_run_and_changes_nothing(folder):
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files(), size_mib=106) as box:
        box.start(f"echo UP\nuntil [ -e /go ]; do sleep 0.02; done\n{COMMAND} --stage disk --dry-run\necho EXIT $?\n"
                  f"{COMMAND} --stage disk\necho EXIT $?\nls -a /\necho END\nsleep 60\n")
        box.wait_for("UP")
        root = pathlib.Path(f"/proc/{box._own(box.pid1())}/root")
        with open(root / "img", "wb") as file:
            file.write(whole.pack(image))
            os.fsync(file.fileno())
        (root / "go").touch()
        box.wait_for("END")
        text = box.console()
        assert re.findall(r"EXIT (\d)", text) == ["3", "3"], text
        assert text.count("of it lie where the new OS will be") == 2 and ".takeover-copies" not in text, text


def test_pretending_copies_nothing_and_reads_the_image_where_it_is(folder):
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files()) as box:
        begin(box, whole.pack(image), "--stage disk --pretend")
        box.wait_exit()
        text = box.console()
        assert "nothing was written" in text and "are copied behind" not in text, text
        assert box.disk_bytes(0, MIB) == box.before


def test_copies_that_a_takeover_before_has_left_are_removed_and_another_file_of_that_name_is_not(folder):
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    first = f"umask 022; echo mine >/.takeover-copies\n{COMMAND} --stage disk\necho EXIT $?\n" \
            "echo KEPT $(cat /.takeover-copies)\nchmod 600 /.takeover-copies\n"
    with Sandbox(folder, files=files()) as box:
        begin(box, whole.pack(image), "--stage disk", first)
        box.wait_exit()
        text = box.console()
        assert re.search(r"/.takeover-copies: no takeover has made it; move it away[\s\S]*\nEXIT 3\nKEPT mine\n", text), text
        assert "removed what an earlier takeover has left: /.takeover-copies" in text, text
        whole.check_taken_over(box, image)


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
