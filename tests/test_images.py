#!/usr/bin/env python3
"""Image files as people have them: `takeover scan` takes what gzip(1) and unzip take, and refuses what they refuse.

The files in tests/fixtures/images each stand for a situation that people reported. The
others are made here, at random from a fixed seed: gzip(1), unzip and Python say what is
right, and each file that fails is kept with its recipe in the error.
"""

import gzip
import json
import pathlib
import random
import struct
import subprocess
import sys
import zipfile
import zlib

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "lib"))
import runner

TAKEOVER = runner.program()
FIXTURES = TESTS / "fixtures/images"
FILES = 300

# What comes out of each fixture: the length of the image, or a part of the error and of its remedy.
OUTCOMES = {
    "extra-600.zip": 1 << 20,
    "padded-to-10240.zip": 1 << 20,
    "trailing-nul.gz": 1 << 20,
    "journal-device.img.gz": 1 << 20,
    "header-crc-wrong.gz": ("the CRC of a gzip header is wrong", "fetch it again"),
    "superfloppy.img.gz": ("it is a file system (FAT), not a disk image", "the image of a whole disk"),
}


def scan(path):
    """The length of the image in a file; or what is said of it where it is refused."""
    done = subprocess.run([TAKEOVER, "scan", "--json", path], capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        return json.loads(done.stdout)["image"]["bytes"]
    assert done.returncode == 3 and "error: " in done.stderr, done
    return done.stderr


def make_image(chance):
    """A disk of a few sectors: an MBR with one partition, and bytes of which some pack well."""
    sectors = chance.randrange(16, 200)
    image = bytearray(chance.randbytes(700) + bytes(sectors * 512 - 700))
    image[446:512] = struct.pack("<4xB3xII48xBB", 0x83, 8, sectors - 8, 0x55, 0xaa)
    return bytes(image)


def deflate(content):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def gzip_member(chance, content):
    flags = chance.choice([0, 0, 8, chance.randrange(32), chance.randrange(32)])
    if chance.random() < 0.03:
        flags |= chance.choice([0x20, 0x40, 0x80])
    method = 7 if chance.random() < 0.02 else 8
    header = bytes([0x1f, 0x8b, method, flags]) + chance.randbytes(6)
    length = lambda: chance.choice([0, 1, 200, 8170, 32_760, 65_535])
    if flags & 4:
        extra = length()
        header += struct.pack("<H", extra) + chance.randbytes(extra)
    for flag in (8, 16):
        if flags & flag:
            header += b"n" * length() * chance.choice([1, 1, 2]) + b"\0"
    if flags & 2:
        header += struct.pack("<H", zlib.crc32(header) & 0xffff ^ (chance.random() < 0.1))
    crc = zlib.crc32(content) ^ (chance.random() < 0.03)
    return header + deflate(content) + struct.pack("<II", crc, len(content) + (chance.random() < 0.03))


def gzip_file(chance):
    image = make_image(chance)
    cuts = sorted(chance.randrange(len(image) + 1) for _ in range(chance.choice([0, 0, 1, 3])))
    cuts = chance.choice([cuts, [0, *cuts, len(image)]])
    parts = [image[start:end] for start, end in zip([0, *cuts], [*cuts, len(image)])]
    file = b"".join(gzip_member(chance, part) for part in parts)
    zeros = bytes(chance.choice([1, 2, 500, 33_000, 70_000]))
    behind = chance.choice([
        b"", b"", b"", zeros, zeros, b"x", b"garbage", b"\x1f", b"\x1f\x8b", b"\x1f\x00", b"PK\x03\x04",
        zeros + b"x", zeros + b"\x1f\x8b", zeros + gzip_member(chance, b"more"),
    ])
    if chance.random() < 0.05:
        file = file[:chance.randrange(2, len(file))]
    return file + behind, len(image)


def test_gzip_files_are_taken_where_gzip_takes_them_and_else_refused_with_what_helps(folder):
    chance = random.Random(8)
    path, codes = folder / "image.gz", {0: 0, 1: 0, 2: 0}
    for number in range(FILES):
        file, length = gzip_file(chance)
        path.write_bytes(file)
        said = subprocess.run(["gzip", "-t"], input=file, capture_output=True)
        found, code = scan(path), said.returncode
        codes[code] += 1
        about = (number, code, said.stderr, found)
        if code == 0:
            assert found == length, about
        elif code == 1:
            assert isinstance(found, str), about
        else:
            # A warning: trailing garbage was ignored. The remedy works.
            assert "gunzip" in found, about
            raw = folder / "image"
            raw.write_bytes(subprocess.run(["gunzip"], input=file, capture_output=True).stdout)
            assert scan(raw) == length, about
    assert min(codes.values()) >= FILES // 10, codes


class Entry:
    """An entry of an archive, and what is odd about it."""

    def __init__(self, chance, name, content):
        self.name, self.content = name.encode(), content
        self.method = 0 if not content or chance.random() < 0.2 else 8
        self.packed = deflate(content) if self.method else content
        if self.method and chance.random() < 0.1:
            self.packed += chance.randbytes(chance.choice([1, 40_000]))
        self.crc = zlib.crc32(content)
        self.directory_crc = self.crc
        self.flags = 0
        self.is_streamed = chance.random() < 0.3
        self.is_wide = chance.random() < 0.3
        length = lambda: chance.choice([0, 0, 0, 60, 600, 60_000])
        self.local_extra, self.extra = filler(length()), filler(length())
        self.comment = b"c" * length()
        # Beside the image nothing is read, so that its damage is no matter.
        self.oddity = None
        if name.endswith("disk.img") and not name.startswith("__") and chance.random() < 0.2:
            self.spoil(chance)

    def spoil(self, chance):
        self.oddity = what = chance.choice(["crc", "contradiction", "encrypted", "method", "packed"])
        if what == "crc":
            self.crc ^= 1
            self.directory_crc ^= 1
        elif what == "contradiction":
            # Unzip believes the local header, Python the directory: one of them refuses.
            self.is_streamed = False
            self.crc, self.directory_crc = chance.choice([(self.crc, 7), (7, self.crc)])
        elif what == "encrypted":
            self.flags |= 1
        elif what == "method":
            self.method = chance.choice([1, 6, 14, 99])
        else:
            self.packed = bytes([self.packed[0] ^ 7]) + self.packed[1:]

    def local(self):
        crc, sizes = self.crc, (len(self.packed), len(self.content))
        behind = b""
        if self.is_streamed:
            behind = struct.pack("<IIII", 0x08074b50, crc, *sizes)
            crc, sizes = 0, (0, 0)
        return b"PK\x03\x04" + struct.pack(
            "<HHHHHIIIHH", 20, self.flags | 8 * self.is_streamed, self.method, 0, 33, crc, *sizes,
            len(self.name), len(self.local_extra)) + self.name + self.local_extra + self.packed + behind

    def central(self, offset):
        extra = self.extra
        sizes = (len(self.packed), len(self.content))
        if self.is_wide:
            extra += struct.pack("<HHQQQ", 1, 24, sizes[1], sizes[0], offset)
            sizes, offset = (0xffffffff, 0xffffffff), 0xffffffff
        return b"PK\x01\x02" + struct.pack(
            "<HHHHHHIIIHHHHHII", 20, 20, self.flags | 8 * self.is_streamed, self.method, 0, 33,
            self.directory_crc, *sizes, len(self.name), len(extra), len(self.comment), 0, 0, 0, offset
        ) + self.name + extra + self.comment


def filler(length):
    """An extra field that nobody knows."""
    return struct.pack("<HH", 0x9999, length - 4) + bytes(length - 4) if length else b""


def zip_file(chance):
    image = make_image(chance)
    names = [("disk.img", image)]
    if chance.random() < 0.3:
        names = [("images/", b""), ("images/disk.img", image), ("empty/", b"")]
    if chance.random() < 0.2:
        names += [("__MACOSX/", b""), ("__MACOSX/._disk.img", b"of macOS")]
    if chance.random() < 0.05:
        names.insert(chance.randrange(len(names) + 1), ("README", b"text"))
    entries = [Entry(chance, *name) for name in names]
    front, central, offsets = b"", b"", []
    for entry in entries:
        central += entry.central(len(front))
        front += entry.local()
    count, size, start = len(entries), len(central), len(front)
    end = b""
    if chance.random() < 0.3:
        end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start)
        end += b"PK\x06\x07" + struct.pack("<IQI", 0, start + size, 1)
        count, size, start = 0xffff, 0xffffffff, 0xffffffff
    comment = b"c" * chance.choice([0, 0, 5, 4070, 65_535])
    end += b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, size, start, len(comment)) + comment
    file = front + central + end
    if not comment and chance.random() < 0.3:
        file += bytes(chance.choice([1, 512, 10_240, 60_000]))
    program = chance.choice([b"", b"", b"", b"MZ" + chance.randbytes(1000), b"#!/bin/sh\nexit\n"])
    if chance.random() < 0.05:
        file = file[:chance.randrange(4, len(file))]
    return program + file, len(image), entries


def unzips(path, entries):
    """Whether unzip and Python both take an archive, and what they say."""
    done = subprocess.run(["unzip", "-tq", path], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    words = done.stdout + done.stderr
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except Exception as problem:
        bad = repr(problem)
    # 1 is a warning, mostly of a program before the archive.
    return done.returncode <= 1 and bad is None, (done.returncode, words[-300:], bad)


def test_archives_with_one_file_are_taken_where_unzip_and_python_take_them(folder):
    chance = random.Random(8)
    path, taken, refused = folder / "image.zip", 0, 0
    for number in range(FILES):
        file, length, entries = zip_file(chance)
        path.write_bytes(file)
        is_good, words = unzips(path, entries)
        found = scan(path)
        about = (number, words, found, [(entry.name, entry.oddity) for entry in entries])
        is_one = not any(entry.name == b"README" for entry in entries)
        if is_good and is_one:
            assert found == length, about
            taken += 1
        else:
            assert isinstance(found, str), about
            assert is_one or not is_good or "files instead of one" in found and "unpack it" in found, about
            refused += 1
    assert min(taken, refused) >= FILES // 10, (taken, refused)


def test_the_fixtures(folder):
    assert {path.name for path in FIXTURES.iterdir()} == set(OUTCOMES)
    for name, expected in OUTCOMES.items():
        found = scan(FIXTURES / name)
        if isinstance(expected, int):
            assert found == expected, (name, found)
        else:
            assert all(words in found for words in expected), (name, found)


def test_file_systems_that_were_made_on_a_whole_disk_are_named(folder):
    made = {
        "FAT": ["mkfs.vfat", "-C", "{}", "1440"],
        "FAT ": ["mkfs.vfat", "--mbr=yes", "-C", "{}", "40000"],
        "FAT  ": ["mkfs.vfat", "--mbr=no", "-F", "32", "-C", "{}", "80000"],
        "ext4": ["mkfs.ext4", "-q", "{}", "4M"],
        "ext4 ": ["mkfs.ext4", "-q", "-b", "4096", "-O", "^64bit,^has_journal", "{}", "4M"],
    }
    for number, (kind, command) in enumerate(made.items()):
        path = folder / str(number)
        subprocess.run([word.format(path) for word in command], check=True, capture_output=True)
        found = scan(path)
        assert f"it is a file system ({kind.strip()}), not a disk image" in found, (command, found)
        packed = folder / f"{number}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes(), 1))
        assert scan(packed).split("error:")[1].replace(str(packed), str(path)) == found.split("error:")[1]


def test_what_was_packed_twice_and_what_is_no_image_is_named(folder):
    image = make_image(random.Random(8))
    cases = {
        "a gzip file": gzip.compress(gzip.compress(image) + bytes(600)),
        "a qcow2 disk": b"QFI\xfb" + bytes(600),
        "a tar archive": bytes(257) + b"ustar" + bytes(600),
        "CD (ISO 9660)": bytes(0x8001) + b"CD001" + bytes(5000),
        "a file of compress": b"\x1f\x9d\x90" + bytes(600),
    }
    for words, file in cases.items():
        path = folder / "file"
        path.write_bytes(file)
        found = scan(path)
        assert words in found and "fetch it again" not in found, (words, found)


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
