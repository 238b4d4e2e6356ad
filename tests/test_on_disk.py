#!/usr/bin/env python3
"""The packed image waits on the disk that is written (--stage disk), in a PID and mount namespace on a loop disk."""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import signal
import struct
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
# _IOWR('f', 15, struct move_extent): fs/ext4/ext4.h in Linux.
EXT4_IOC_MOVE_EXT = 0xC028660F
# <linux/magic.h>
EXT4 = 0xEF53
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
COMMAND = whole.COMMAND.replace("/tk/image", "/img")


def extents(path):
    """Where a file is in its file system: (in the file, on the device, length), in bytes."""
    text = subprocess.run(["filefrag", "-v", "-b512", path], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^\s*\d+:\s*(\d+)\.\.\s*(\d+):\s*(\d+)\.\.\s*\d+:", text, re.M)
    return [(int(first) * 512, int(place) * 512, (int(last) + 1 - int(first)) * 512) for first, last, place in found]


def kind_of(root):
    """The magic number of a file system (statfs(2))."""
    return int(subprocess.run(["stat", "-f", "-c", "%t", root], check=True, capture_output=True, text=True).stdout, 16)


def exchange(file, donor, at, at_donor, length):
    """The blocks of two files of ext4 change places; what is in the first stays as it is."""
    block = os.fstatvfs(file.fileno()).f_bsize
    done, length = 0, length // block
    while done < length:
        words = struct.pack("<IIQQQQ", 0, donor.fileno(), at // block + done, at_donor // block + done, length - done, 0)
        moved = struct.unpack("<IIQQQQ", fcntl.ioctl(file, EXT4_IOC_MOVE_EXT, words))[5]
        assert moved > 0
        done += moved
    os.fsync(file.fileno())


def scatter(root, data, disk, piece=4096):
    """Writes /img below `root`, in pieces all over the file system of this disk: one across the end of what will be written,
    and of ext4 some in the last MiB of the disk, which is written, too. Gives how many there are, and how many bytes lie in
    front of that end."""
    start, end, size_of_disk = whole.ROOT_START, IMAGE_MIB * MIB, disk.stat().st_size
    is_ext4 = kind_of(root) == EXT4
    filler = root / "filler"
    with open(filler, "wb") as file:
        # XFS_IOC_SET_RESBLKS: what xfs keeps for itself would take the whole image in one piece.
        with contextlib.suppress(OSError):
            fcntl.ioctl(file, 0xc0105872, bytes(16))
        size = 0
        for step in (8 * MIB, MIB, 64 * 1024, 4096):
            while LIBC.fallocate64(file.fileno(), 0, size, step) == 0:
                size += step
        os.fsync(file.fileno())
        # Across the end of the image, which xfs takes in one piece, and in the last MiB of the disk.
        across, last_mib = end - start - 128 * 1024, size_of_disk - MIB - start
        edges = [(across, across + 256 * 1024), (last_mib, last_mib + MIB)][is_ext4:]
        holes = ([], [])
        for at, place, length in extents(filler):
            for first, last in edges:
                first, last = max(place, first), min(place + length, last)
                if first < last:
                    assert LIBC.fallocate64(file.fileno(), PUNCH, at + first - place, last - first) == 0
            for offset in range(-place % piece, length - piece, 2 * piece):
                if not (is_ext4 and across - piece < place + offset < across + 256 * 1024):
                    holes[place + offset > end - start].append(at + offset)
        wanted = (len(data) + len(data) // 4) // piece
        inside = holes[0][:wanted // 2]
        for at in inside + holes[1][:wanted - len(inside)]:
            assert LIBC.fallocate64(file.fileno(), PUNCH, at, piece) == 0
        os.fsync(file.fileno())
    with open(root / "img", "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    if is_ext4:
        # It divides room at such places: blocks of the filler that lie across it become the image's.
        at, place, length = next(piece for piece in extents(filler) if piece[1] < end - start < piece[1] + piece[2])
        first, last = max(place, across), min(place + length, across + 256 * 1024)
        with open(root / "img", "r+b") as image, open(filler, "r+b") as donor:
            # In whole pages of both.
            at += first - place
            exchange(image, donor, at % 4096, at, last - first)
    filler.unlink()
    fd = os.open(root, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    found = extents(root / "img")
    inside = sum(min(length, max(0, end - start - place)) for _, place, length in found)
    assert any(place < end - start < place + length for _, place, length in found), found
    assert not is_ext4 or any(place + length > last_mib for _, place, length in found), found
    assert piece > 1024 or sum(place % 4096 > 0 for _, place, _ in found) > 1000, found
    return len(found), inside


def up(box, job):
    """Boots with a job that waits for /go; gives the root as this machine sees it."""
    box.start(f"echo UP\nuntil [ -e /go ]; do sleep 0.02; done\n{job}\necho END\nsleep 60\n")
    box.wait_for("UP")
    return pathlib.Path(f"/proc/{box._own(box.pid1())}/root")


def put(path, data=b"", size=0, mode=0o600):
    """Writes a file to its disk, and sets `size` bytes aside for it."""
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, mode), "wb") as file:
        file.write(data)
        assert not size or LIBC.fallocate64(file.fileno(), 0, 0, size) == 0
        os.fsync(file.fileno())


def free(root):
    space = os.statvfs(root)
    return space.f_bfree * space.f_frsize, space.f_bavail * space.f_frsize


def begin(box, packed, options, first="", piece=4096):
    """Boots, scatters the image, and lets the takeover begin; `first` comes before it."""
    box.start(f"echo UP\nuntil [ -e /go ]; do sleep 0.02; done\n{first}{COMMAND} {options}\necho EXIT $?\nsleep 60\n")
    box.wait_for("UP")
    root = pathlib.Path(f"/proc/{box._own(box.pid1())}/root")
    count, inside = scatter(root, packed, box.disk, piece)
    assert count > 1000 and MIB // 8 < inside < len(packed) - MIB, (count, inside)
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


def takes_over_in_a_thousand_pieces(folder, block, **options):
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files(), block=block, **options) as box:
        begin(box, whole.pack(image), "--stage disk", piece=block or 4096)
        box.wait_exit()
        found = re.search(r"the image stays on /dev/loop\d+, in (\d+) pieces", box.console())
        assert found and int(found[1]) > 500, box.console()
        assert re.search(r"[KM]iB of the image are copied behind the new OS: /.takeover-copies", box.console()), box.console()
        assert re.search(r"  image waits +disk\n +because +--stage disk\n", box.console()), box.console()
        result = whole.check_taken_over(box, image)
        # The program, of more than a MiB, is mapped: it does not count once more as a file.
        assert result["peak_kib"]["ramfs"] < 600, result


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
    scatter(root, packed, box.disk)
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


def fill(root):
    """Writes to all blocks that are free, and gives them back."""
    with contextlib.suppress(OSError), open(root / "other", "wb") as file:
        while True:
            file.write(bytes(64 * 1024))
    (root / "other").unlink()


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
        # Where it stays: what was copied is not read there any more.
        behind = IMAGE_MIB * MIB - whole.ROOT_START
        staying = [at for at, place, length in extents(root / "img") if behind <= place < behind + 64 * MIB]
        with open(root / "img", "r+b") as file:
            file.seek(staying[len(staying) // 2])
            file.write(b"other bytes")
    text = stopped_before_the_check(folder, write)
    assert re.search(NOTICED, text), text


def test_a_file_that_was_cut_and_whose_blocks_others_have_is_noticed_before_the_first_write(folder):
    def cut(_, root):
        os.truncate(root / "img", 4096)
        os.sync()
        fill(root)
    text = stopped_before_the_check(folder, cut)
    assert re.search(NOTICED, text), text


def test_a_file_that_was_defragmented_and_whose_old_blocks_others_have_is_noticed_before_the_first_write(folder):
    """As e4defrag does it: the blocks of another file, which had none in use, and those of the image change places."""
    def defragment(_, root):
        with open(root / "img", "r+b") as file, open(root / "donor", "w+b") as donor:
            length = os.fstat(file.fileno()).st_size // 4096 * 4096
            assert LIBC.fallocate64(donor.fileno(), 0, 0, length) == 0
            os.fsync(donor.fileno())
            exchange(file, donor, 0, 0, length)
            (root / "donor").unlink()
        os.sync()
        fill(root)
    text = stopped_before_the_check(folder, defragment)
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
        root = up(box, "".join(f"{COMMAND} --stage disk {option}\necho EXIT $?\n" for option in ("--dry-run", "--pretend", ""))
                  + "ls -a /")
        put(root / "img", whole.pack(image))
        (root / "go").touch()
        box.wait_for("END")
        text = box.console()
        assert re.findall(r"EXIT (\d)", text) == ["3", "3", "3"], text
        assert text.count("of it lie where the new OS will be") == 3 and ".takeover-copies" not in text, text


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
    refused = f"{COMMAND} --stage disk\necho EXIT $?\necho KEPT $(cat /.takeover-copies)\n"
    # Of one with a second name nothing would be freed.
    first = f"umask 022; echo mine >/.takeover-copies\n{refused}chmod 600 /.takeover-copies\n" \
            f"ln /.takeover-copies /second\n{refused}rm /second\n"
    with Sandbox(folder, files=files()) as box:
        begin(box, whole.pack(image), "--stage disk", first)
        box.wait_exit()
        text = box.console()
        assert text.count("/.takeover-copies: no takeover has made it; move it away") == 2, text
        assert text.count("\nEXIT 3\nKEPT mine\n") == 2, text
        assert text.count("removed what an earlier takeover has left: /.takeover-copies") == 1, text
        whole.check_taken_over(box, image)


def test_copies_that_were_left_go_when_the_image_waits_in_memory_and_another_file_of_that_name_stays(folder):
    image = whole.make_image(folder)
    # Nothing changes before the answer.
    command = f"{COMMAND} --stage ram"
    asking = command.replace("--no-ack", "")
    with Sandbox(folder, files=files()) as box:
        root = up(box, f"{command} --dry-run\necho EXIT $?\nchmod 644 /.takeover-copies\n"
                       f"{command} --dry-run\necho EXIT $?\nls -a /\nchmod 600 /.takeover-copies\n"
                       f"echo no | {asking} --pretend\necho DECLINED $(ls /.takeover-copies)\n{command} --pretend")
        put(root / ".takeover-copies", b"left")
        put(root / "img", whole.pack(image))
        (root / "go").touch()
        box.wait_exit()
        text = box.console()
        assert "nothing was written" in text, text
        assert re.findall(r"EXIT (\d)", text) == ["0", "0"], text
        assert re.search(r"EXIT 0[\s\S]*EXIT 0\n[\s\S]*^\.takeover-copies$", text, re.M), text
        assert text.count("an earlier takeover has left /.takeover-copies") == 1, text
        assert "\nDECLINED /.takeover-copies\n" in text, text
        assert text.count("removed what an earlier takeover has left: /.takeover-copies") == 1, text
        found = subprocess.run(["debugfs", "-R", "stat /.takeover-copies", f"{box.disk}?offset={whole.ROOT_START}"],
                               capture_output=True, text=True)
        assert "File not found" in found.stderr, found


def test_the_room_of_copies_that_were_left_counts_as_free(folder):
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files()) as box:
        root = up(box, f"{COMMAND} --stage disk --dry-run\necho EXIT $?\n{COMMAND} --stage disk")
        put(root / "img", whole.pack(image))
        # Without their room there is not enough.
        put(root / ".takeover-copies", size=free(root)[1] - 8 * MIB)
        (root / "go").touch()
        box.wait_exit()
        text = box.console()
        assert "\nEXIT 0\n" in text, text
        assert re.search(r"MiB of the image are copied behind the new OS: /.takeover-copies", text), text
        whole.check_taken_over(box, image)


def filled_by_others(folder, left):
    """Fills the file system until so many bytes are left, once it was asked for consent; gives what the console says when
    stage 1 has ended."""
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    asking = COMMAND.replace(" --no-ack", "")
    with Sandbox(folder, files=files()) as box:
        root = up(box, f"(until [ -e /yes ]; do sleep 0.02; done; echo yes) | {asking} --stage disk\necho EXIT $?\nls -a /")
        put(root / "img", whole.pack(image))
        (root / "go").touch()
        box.wait_for("Type 'yes'")
        put(root / "filler", size=free(root)[0] - left - MIB)
        while free(root)[0] > left:
            with open(root / "filler", "ab") as file:
                file.write(bytes(64 * 1024))
                os.fsync(file.fileno())
        (root / "yes").touch()
        box.wait_for("END")
        return box.console()


def test_what_others_fill_meanwhile_ends_the_copying_and_the_copies_go(folder):
    # Of 248 MiB a 16th is left, half of it at least; the copies take less than what is free.
    text = filled_by_others(folder, 16 * MIB)
    assert "others have filled it" in text and "everything is undone" in text and "\nEXIT 1\n" in text, text
    assert ".takeover-copies" not in text[text.index("EXIT 1"):], text


def refused_for(folder, prepare, why, **options):
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files() | {"/f/.keep": b""}, **options) as box:
        root = up(box, f"{COMMAND.replace('/img', '/f/img')} --stage disk --dry-run\necho EXIT $?\n"
                       f"{COMMAND.replace('/img', '/f/img')} --dry-run\necho EXIT $?")
        prepare(root, whole.pack(image))
        (root / "go").touch()
        box.wait_for("END")
        text = box.console()
        assert re.findall(r"EXIT (\d)", text) == ["3", "0"] and why in text, text


# As chattr +j, which takes a right that not everybody has who may mount. Files inherit it.
JOURNALLED = dict(changed_by=["debugfs", "-w", "-R", "set_inode_field /f flags 0x84000"])


def test_files_that_are_written_through_the_journal_are_refused(folder):
    refused_for(folder, lambda root, packed: put(root / "f/img", packed),
                "/f/img: what is written to it waits in the journal of its file system (chattr +j)", **JOURNALLED)


def test_folders_whose_files_are_written_through_the_journal_are_refused(folder):
    def move(root, packed):
        put(root / "img", packed)
        os.rename(root / "img", root / "f/img")
    refused_for(folder, move, "making /f/.takeover-copies: what is written to it waits in the journal of its file system (chattr +j)",
                **JOURNALLED)


def test_files_of_fscrypt_are_refused(folder):
    def encrypt(root, packed):
        (root / "f/.keep").unlink()
        fd = os.open(root / "f", os.O_RDONLY | os.O_DIRECTORY)
        # <linux/fscrypt.h>: struct fscrypt_add_key_arg, version 2, with a key of 64 bytes; struct fscrypt_policy_v2 of
        # AES-256-XTS and AES-256-CTS, with its name.
        key = bytearray(struct.pack("<II32sII32x", 2, 0, b"", 64, 0) + bytes(range(64)))
        fcntl.ioctl(fd, 0xc0506617, key)
        fcntl.ioctl(fd, 0x800c6613, struct.pack("<BBBBBBBB16s", 2, 1, 4, 0, 0, 0, 0, 0, bytes(key[8:24])))
        os.close(fd)
        put(root / "f/img", packed)
    refused_for(folder, encrypt, "it is encrypted there (fscrypt)", features="encrypt")


def test_a_file_system_whose_own_default_is_to_write_through_the_journal_is_refused(folder):
    refused_for(folder, lambda root, packed: put(root / "f/img", packed), "(data=journal)", changed_by=["tune2fs", "-o", "journal_data"])


def said_of(folder, job, path="/f/img"):
    """What is said when this job runs in an old OS with an image at the path."""
    image = whole.make_image(folder, size_mib=IMAGE_MIB, content_mib=9)
    with Sandbox(folder, files=files() | {"/f/.keep": b""}) as box:
        root = up(box, job)
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        put(root / path[1:], whole.pack(image))
        (root / "go").touch()
        box.wait_for("END")
        return box.console()


def test_a_path_without_room_for_a_name_beside_it_can_wait_in_memory(folder):
    path = "/f" + "/abcdefgh" * 27 + "/img"
    assert len(path) < 256 <= len(path.replace("/img", "/.takeover-copies")), len(path)
    text = said_of(folder, f"{COMMAND.replace('/img', path)} --stage ram --dry-run\necho EXIT $?", path=path)
    assert "\nEXIT 0\n" in text, text


def test_copies_are_not_made_on_another_file_system_than_the_image(folder):
    """The file alone is mounted elsewhere: what lies beside it there is not beside it on its disk."""
    text = said_of(folder, "mkdir /tmp/one && mount -t tmpfs none /tmp/one && touch /tmp/one/img && mount --bind /f/img /tmp/one/img\n"
                   f"{COMMAND.replace('/img', '/tmp/one/img')} --stage disk --dry-run\necho EXIT $?")
    assert "\nEXIT 3\n" in text, text
    assert "/tmp/one/.takeover-copies: it would be on another file system than the image" in text, text


def test_an_image_in_a_thousand_pieces_stays_on_xfs(folder):
    takes_over_in_a_thousand_pieces(folder, 4096, file_system="xfs", size_mib=512)


def test_an_image_in_a_thousand_pieces_stays_on_xfs_with_blocks_of_1_kib(folder):
    takes_over_in_a_thousand_pieces(folder, 1024, file_system="xfs", size_mib=512)


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
