#!/usr/bin/env python3
"""Boot blobs of a Jetson: found in the root file systems that mkfs.ext4 makes, without a mount, and compared with what
was put there; written to a loop device, which stands for the boot area of an eMMC."""

import contextlib
import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import leftovers  # noqa: E402
import rootfs  # noqa: E402
import runner  # noqa: E402
from jetson import EMMC, LAYER, NOR, START, content, make_image  # noqa: E402
from rootfs import MIB  # noqa: E402


@functools.cache
def built(*options):
    """tests/boot_blob.rs, as a program."""
    root = pathlib.Path(__file__).resolve().parent.parent
    done = subprocess.run(["cargo", "build", "--quiet", "--locked", "--example", "boot_blob", "--message-format=json",
                           *options], cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    lines = map(json.loads, done.stdout.splitlines())
    return next(one["executable"] for one in lines if one.get("target", {}).get("name") == "boot_blob")


class Program:
    """One process for all images."""

    def __init__(self):
        self.process = subprocess.Popen([built()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(timeout=60) == 0, "it has panicked"

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, "it has panicked"
        return answer

    def find(self, image, device="emmc", size=1 << 40):
        return self.ask("find", image, device, size)


def check_found(answer, image, blob):
    """The extents have the blob, and they are what is said of it."""
    word, *numbers = answer.split()
    assert word == "found", answer
    length, crc, *places = map(int, numbers)
    assert (length, crc) == (len(blob), zlib.crc32(blob)), answer
    with open(image, "rb") as file:
        found = b""
        for start, count in zip(places[::2], places[1::2]):
            file.seek(start)
            found += file.read(count) if start else bytes(count)
    assert found[:len(blob)] == blob and len(found) - len(blob) < 4096
    return len(places) // 2


def debugfs(*requests):
    def change(part):
        for request in requests:
            done = rootfs.run("debugfs", "-w", "-R", request, part)
            assert b"rror" not in done and b"not found" not in done, done
    return change


def test_a_blob_is_found_in_every_kind_of_ext4_and_in_every_place(folder):
    blob = content(3 * MIB + 512)
    shapes = [(), ("-b", "1024"), ("-b", "2048"), ("-b", "4096", "-O", "^64bit"), ("-O", "^metadata_csum,^flex_bg"),
              ("-O", "^has_journal,^resize_inode"), ("-b", "1024", "-O", "^64bit,^flex_bg", "-N", "4000", "-g", "8192"),
              ("-O", "bigalloc"), ("-I", "128"), ("-O", "sparse_super2"), ("-i", "8192"), ("-O", "large_dir,ea_inode")]
    others = {f"etc/{number}": content(3000, number) for number in range(200)}
    layers = {"balena/overlay2/l": None, "balena/overlay2/6f0c-init/diff/etc": None, "balena/overlay2/aaaa/diff": None,
              f"{LAYER}/link": b"x", f"{LAYER}/diff/opt/other": b"", f"{LAYER}/diff/opt/tegra-binaries/{NOR}": b"other"}
    places = ["opt", f"{LAYER}/diff/opt", "balena/aufs/diff/0123/opt"]
    with Program() as program:
        for number, options in enumerate(shapes):
            place = places[(number + 1) % len(places)]
            image = make_image(folder, {**others, **layers, f"{place}/tegra-binaries/{EMMC}": blob}, options)
            assert check_found(program.find(image), image, blob), options


def test_holes_unwritten_parts_and_many_extents_read_as_the_kernel_reads_them(folder):
    path = f"opt/tegra-binaries/{EMMC}"
    striped = b"".join(content(4096, n) if n % 2 else bytes(8192) for n in range(240)) + bytes(4096)
    with Program() as program:
        image = make_image(folder, {path: striped}, ("-b", "4096"))
        assert check_found(program.find(image), image, striped) > 4
        # In blocks of 1 KiB a node has 84 extents, so that 120 of them take two, and a node above.
        image = make_image(folder, {path: striped}, ("-b", "1024"))
        assert check_found(program.find(image), image, striped) > 200
        assert " 1/ 1 " in debugfs_says(folder / "part.img", f"extents /{path}")
        longer = striped + b"".join(content(4096, n) + bytes(4096) for n in range(30))
        image = make_image(folder, {path: longer}, ("-b", "4096"))
        assert "more than 256 pieces" in program.find(image)
        # Allocated, never written.
        short = content(8192) + bytes(4 * 4096)
        change = debugfs(f"set_inode_field /{path} size {len(short)}", f"fallocate /{path} 3 4")
        image = make_image(folder, {path: short[:8192]}, ("-b", "4096"), change=change)
        check_found(program.find(image), image, short)
        # Beyond its end, as preallocation leaves it.
        change = debugfs(f"fallocate /{path} 3 9")
        image = make_image(folder, {path: short[:8192]}, ("-b", "4096"), change=change)
        check_found(program.find(image), image, short[:8192])


def debugfs_says(part, request):
    return rootfs.run("debugfs", "-R", request, part).decode()


def test_large_directories_are_read_to_their_end(folder):
    blob = content(MIB)
    files = {f"opt/{number:0200}": b"" for number in range(1500)} | {f"opt/tegra-binaries/{EMMC}": blob}

    def index(part):
        done = subprocess.run(["e2fsck", "-fyD", part], stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode in (0, 1), done
        assert "Root node dump" in debugfs_says(part, "htree_dump /opt")

    with Program() as program:
        for change in (None, index):
            image = make_image(folder, files, ("-b", "1024", "-N", "4000"), change=change)
            check_found(program.find(image), image, blob)


def test_what_cannot_be_the_blob_is_refused_with_its_reason(folder):
    path, blob = f"opt/tegra-binaries/{EMMC}", content(MIB)
    nor = f"opt/tegra-binaries/{NOR}"
    twice = {path: blob, f"{LAYER}/diff/{path}": blob}
    cases = [
        ("no partition resin-rootA", {path: blob}, {"name": "rootA"}, ()),
        ("its root has no /opt/tegra-binaries/boot0_mmcblk0boot0.img", {"opt/x": b""}, {}, ()),
        ("its root has no", {"opt": b"no directory"}, {}, ()),
        ("it is there twice", twice, {}, ()),
        ("has 0 bytes", {path: b""}, {}, ()),
        ("has 1000 bytes", {path: blob[:1000]}, {}, ()),
        ("has 1048576 bytes", {path: blob}, {}, ("emmc", MIB - 512)),
        ("has 1048576 bytes", {nor: blob}, {}, ("nor", 32 * MIB)),
        ("which is not the length", {f"{path}/a": b""}, {}, ()),
        ("it is all zeros", {path: bytes(MIB)}, {}, ()),
        ("no ext4", {path: blob}, {"change": lambda part: part.write_bytes(bytes(48 * MIB))}, ()),
        ("journal has not been written back", {path: blob}, {"change": debugfs("feature needs_recovery")}, ()),
        ("not known here", {path: blob}, {"options": ("-O", "inline_data")}, ()),
        ("not known here", {path: blob}, {"options": ("-O", "meta_bg,^resize_inode")}, ()),
        ("has no extents", {path: blob}, {"options": ("-O", "^extents,^64bit")}, ()),
    ]
    with Program() as program:
        for why, files, how, device in cases:
            answer = program.find(make_image(folder, files, **how), *device)
            assert answer.startswith("refused") and why in answer, (why, answer)
        whole = content(32 * MIB)
        image = make_image(folder, {nor: whole}, size=64 * MIB)
        check_found(program.find(image, "nor", 32 * MIB), image, whole)
        assert "which is not the length" in program.find(image, "nor", 16 * MIB)


def test_damaged_file_systems_end_with_an_answer(folder):
    """Every byte that is looked at may be anything: no panic, no walk without end."""
    blob = b"".join(content(1024, n) + bytes(1024) for n in range(100))
    image = make_image(folder, {f"{LAYER}/diff/opt/tegra-binaries/{EMMC}": blob, "balena/overlay2/l/A": b""},
                       ("-b", "1024", "-N", "64", "-O", "^has_journal"), size=2 * MIB)
    whole = image.read_bytes()
    used = [at for at in range(START, START + 2 * MIB, 4) if any(whole[at:at + 4])]
    r = random.Random(int(os.environ.get("BLOB_SEED", "1")))
    answers = {}
    with Program() as program, open(image, "r+b", buffering=0) as file:
        for _ in range(int(os.environ.get("BLOB_IMAGES", "1500"))):
            # The metadata lies at the front.
            places = [used[int(len(used) * r.random() ** 4)] for _ in range(r.randint(1, 4))]
            for at in places:
                value = r.choice([0, 1, 2, 0xff, 0xffff, 0xffffffff, r.getrandbits(32), r.getrandbits(8)])
                os.pwrite(file.fileno(), value.to_bytes(4, "little"), at)
            word = program.find(image).split()[0]
            answers[word] = answers.get(word, 0) + 1
            for at in places:
                os.pwrite(file.fileno(), whole[at:at + 4], at)
        check_found(program.find(image), image, blob)
    assert set(answers) == {"found", "refused"}, answers


@contextlib.contextmanager
def loop_device(path):
    done = subprocess.run(["losetup", "--show", "--find", path], check=True, capture_output=True, text=True)
    device = done.stdout.strip()
    try:
        yield device
    finally:
        leftovers.let_go(device)


def test_a_boot_area_gets_the_blob_and_keeps_the_rest(folder):
    """A loop device stands for it: claimed with O_EXCL, written past the cache."""
    blob = content(2 * MIB + 512)
    image = make_image(folder, {f"{LAYER}/diff/opt/tegra-binaries/{EMMC}": blob})
    area = folder / "boot0.img"
    old = content(4 * MIB, 2)
    area.write_bytes(old)
    with Program() as program, loop_device(area) as device:
        assert program.ask("write", image, "emmc", device) == "written"
        assert area.read_bytes() == blob + old[len(blob):]
        # It has it already: no byte is written.
        before = written_to(device)
        assert program.ask("write", image, "emmc", device) == "written"
        assert written_to(device) == before
        # One that is smaller.
    area.write_bytes(old[:MIB])
    with Program() as program, loop_device(area) as device:
        assert "which is not the length" in program.ask("write", image, "emmc", device)
        assert area.read_bytes() == old[:MIB]


def written_to(device):
    """Sectors that were written since it was made (Documentation/block/stat.rst)."""
    return pathlib.Path(f"/sys/block/{pathlib.Path(device).name}/stat").read_text().split()[6]


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
