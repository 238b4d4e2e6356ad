"""Flashing beside other tools, on a disk as slow as a card: a loop device of ours, throttled by the block I/O controller.

Each tool gets the same packed image and the same disk, in turn within a round, so that a noisy machine is noisy for all
of them. What a round is held against are two floors: a plain O_DIRECT write of what is not zero in the image, and a plain
O_DIRECT read of all of it. Prints figures, judges nothing.

Writes to its own loop device alone; the throttle of the root's control group names that device alone.
"""

import ctypes
import errno
import json
import mmap
import os
import pathlib
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import leftovers
import rootfs
from servers import unpacked

MIB = 1 << 20
PIECE = 4 * MIB
# Megabytes a second of two common cards and of a fast one, and whatever the machine gives.
SPEEDS = (10, 18, 40, None)
# The balena-shaped image is half zeros, in runs as its file systems have them.
RUN_OF_ZEROS = 5 * MIB


def _files():
    """Bytes of this machine's programs and libraries, without their runs of zeros."""
    for folder in ("/usr/lib", "/usr/bin"):
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.is_file() and not path.is_symlink():
                # A run of 64 zeros or more is padding.
                yield re.sub(rb"\0{64,}", b"\0" * 16, path.read_bytes())


def image(shape, mebibytes):
    """The raw image of that shape, from the cache, beside which its gzip lies: (raw, packed)."""
    size = mebibytes * MIB

    def build(path):
        content, ended = bytearray(), False
        pieces = _files()
        with open(path, "wb") as file:
            file.write(_header(size))
            while not ended:
                while len(content) < RUN_OF_ZEROS:
                    content += next(pieces)
                file.write(content[:RUN_OF_ZEROS])
                del content[:RUN_OF_ZEROS]
                if shape == "balena":
                    file.seek(RUN_OF_ZEROS, os.SEEK_CUR)
                ended = file.tell() >= size
            file.truncate(size)

    raw = rootfs.cached(f"media-{shape}-{mebibytes}", rootfs.key_of(RUN_OF_ZEROS, 1), build, ".img")

    def pack(path):
        with open(path, "wb") as out:
            subprocess.run(["pigz", "-9", "-n", "-c", raw], stdout=out, check=True)

    return raw, rootfs.cached(f"media-{shape}-{mebibytes}", rootfs.key_of(raw.name), pack, ".img.gz")


def _header(size):
    """The first MiB: an MBR with one partition behind it."""
    sector = bytearray(512)
    sector[446:462] = bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") \
        + (size // 512 - 2048).to_bytes(4, "little")
    sector[510:] = b"\x55\xaa"
    return bytes(sector) + bytes(MIB - 512)


class Disk:
    """A loop device of ours over a file of noise, which takes `speed` megabytes a second each way; None: what it can."""

    def __init__(self, folder, size):
        self.file = folder / "disk.img"
        with open("/dev/urandom", "rb") as noise, open(self.file, "wb") as file:
            block = noise.read(MIB)
            for _ in range(size // MIB):
                file.write(block)
            os.fsync(file.fileno())
        self.size = size
        self.path = subprocess.run(["losetup", "--show", "--find", "--direct-io=on", self.file], check=True,
                                   capture_output=True, text=True).stdout.strip()
        number = os.stat(self.path).st_rdev
        self.number = f"{os.major(number)}:{os.minor(number)}"

    def throttle(self, speed):
        for way in ("read", "write"):
            limit = leftovers.THROTTLES / f"blkio.throttle.{way}_bps_device"
            limit.write_text(f"{self.number} {(speed or 0) * 10**6}\n")

    def close(self):
        self.throttle(None)
        leftovers.detach(self.path)


def _buffers(raw):
    """The image in pieces: (offset, buffer fit for O_DIRECT, whether it is all zeros)."""
    with open(raw, "rb", buffering=0) as file:
        for offset in range(0, os.fstat(file.fileno()).st_size, PIECE):
            buffer = mmap.mmap(-1, PIECE)
            length = file.readinto(buffer)
            view = memoryview(buffer)[:length]
            yield offset, view, not any(view[at:at + 4096] != bytes(min(4096, length - at))
                                        for at in range(0, length, 4096))


def floors(raw, disk):
    """Seconds of a plain write of what is not zero, by MiB, and of a plain read of all."""
    # Read beforehand: what is measured is the disk.
    pieces = []
    for offset, view, _ in _buffers(raw):
        for at in range(0, len(view), MIB):
            part = view[at:at + MIB]
            if part != bytes(len(part)):
                pieces.append((offset + at, part))
    target = os.open(disk.path, os.O_RDWR | os.O_DIRECT)
    try:
        began = time.monotonic()
        for offset, part in pieces:
            os.pwrite(target, part, offset)
        os.fsync(target)
        wrote = time.monotonic() - began
        buffer, offset, length = mmap.mmap(-1, PIECE), 0, raw.stat().st_size
        began = time.monotonic()
        while offset < length:
            offset += os.preadv(target, [memoryview(buffer)[:min(PIECE, length - offset)]], offset)
        return wrote, time.monotonic() - began
    finally:
        os.close(target)


class Usage:
    """What the processes of a tool have used: seconds, seconds of processor, the sum of their peaks of memory in MiB."""

    def __init__(self, processes, began):
        self.cpu = self.memory = 0
        for process in processes:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu += usage.ru_utime + usage.ru_stime
            self.memory += usage.ru_maxrss / 1024
        self.seconds = time.monotonic() - began
        failed = [process.args for process in processes if process.returncode]
        if failed:
            raise RuntimeError(f"{failed} failed")


def piped(*commands, output=subprocess.DEVNULL, environment=None):
    """Runs commands, each reading what the one before writes, and measures them together."""
    began, processes, source = time.monotonic(), [], subprocess.DEVNULL
    for index, command in enumerate(commands):
        last = index + 1 == len(commands)
        processes.append(subprocess.Popen([str(word) for word in command], stdin=source, env=environment,
                                          stdout=output if last else subprocess.PIPE, stderr=subprocess.DEVNULL,
                                          preexec_fn=leftovers.die_with_parent))
        if source is not subprocess.DEVNULL:
            source.close()
        source = processes[-1].stdout
    return Usage(processes, began)


def _text(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def _without_fallocate():
    """A filter of seccomp(2): punching holes is EOPNOTSUPP, as on a card whose driver has no zeros to give, and discards
    are left. The throttle counts a hole as if its bytes were written, and a discard as one sector
    (throtl_bio_data_size() in block/blk-throttle.c)."""
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    # struct sock_filter: load the number, compare it with fallocate's on x86_64, refuse, allow. <linux/seccomp.h>.
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in (
        (0x20, 0, 0, 0), (0x15, 0, 1, 285), (0x06, 0, 0, 0x50000 | errno.EOPNOTSUPP), (0x06, 0, 0, 0x7fff0000))))
    program = Program(4, ctypes.addressof(code))
    if ctypes.CDLL(None, use_errno=True).prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: PR_SET_SECCOMP")


def _as_a_card():
    leftovers.die_with_parent()
    _without_fallocate()


def ours(program, packed, disk, before=leftovers.die_with_parent):
    """A flash by the program under test: its usage, with the seconds of its phases."""
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen([program, "flash", "-i", packed, "-f", disk.path, "--no-ack", "--json"],
                                   stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=before)
        try:
            usage = Usage([process], began)
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {_text(said)}") from None
        text = _text(said)
        result = json.loads(re.findall(r'^\{"outcome".*', text, re.M)[-1])
    usage.phases = result["seconds"]
    usage.memory = result["peak_kib"]["total"] / 1024
    return usage


def bmaptool(*options):
    """Debian's bmaptool, from the cache."""
    folder = unpacked("bmap-tools")
    return [sys.executable, folder / "usr/bin/bmaptool", *options], \
        {**os.environ, "PYTHONPATH": str(folder / "usr/lib/python3/dist-packages")}


def tools(program, raw, packed, folder):
    """Name and function of each tool; the function gets the disk."""
    bmap = folder / f"{raw.name}.bmap"
    command, environment = bmaptool("create", "-o", bmap, raw)
    piped(command, environment=environment)

    def dd(disk):
        return ["dd", f"of={disk.path}", "bs=4M", "oflag=direct", "iflag=fullblock", "conv=fsync"]

    def copy(*options):
        def run(disk):
            command, environment = bmaptool("copy", *options, packed, disk.path)
            return piped(command, environment=environment)
        return run

    return dict(zip(COLOURS, (
        lambda disk: ours(program, packed, disk),
        lambda disk: ours(program, packed, disk, _as_a_card),
        lambda disk: piped(["gzip", "-dc", packed], dd(disk)),
        lambda disk: piped(["pigz", "-dc", packed], dd(disk)),
        copy("--nobmap"),
        copy("--bmap", bmap)), strict=True))


def is_whole(raw, disk):
    """Whether the disk begins with the image. By its file: the throttle is that of the device."""
    return subprocess.run(["cmp", "-s", "-n", str(raw.stat().st_size), raw, disk.file]).returncode == 0


def measure(program, mebibytes, rounds, speeds=SPEEDS, shapes=("balena", "dense")):
    """Figures by shape, speed and tool: lists, a figure a round."""
    figures = []
    with leftovers.test_folder() as folder:
        disk = Disk(folder, (mebibytes + 64) * MIB)
        try:
            for shape in shapes:
                raw, packed = image(shape, mebibytes)
                contest = tools(program, raw, packed, folder)
                for speed in speeds:
                    figures.append(_contest(contest, shape, speed, raw, disk, rounds))
                    _print(figures[-1])
        finally:
            disk.close()
    return figures


def _contest(contest, shape, speed, raw, disk, rounds):
    found = {"shape": shape, "speed": speed, "floor_write": [], "floor_read": [],
             "tools": {name: {"seconds": [], "cpu": [], "memory": [], "flash": [], "verify": []} for name in contest}}
    for number in range(rounds):
        for name, run in contest.items():
            disk.throttle(speed)
            usage = run(disk)
            of = found["tools"][name]
            for kind in ("seconds", "cpu", "memory"):
                of[kind].append(round(getattr(usage, kind), 3))
            for phase in ("flash", "verify"):
                of[phase].append(getattr(usage, "phases", {}).get(phase))
            disk.throttle(None)
            # bmaptool leaves what its map does not name: an old disk shows through.
            if number == 0 and name != "bmaptool, bmap" and not is_whole(raw, disk):
                raise RuntimeError(f"{name} did not write the image")
        disk.throttle(speed)
        for kind, took in zip(("floor_write", "floor_read"), floors(raw, disk)):
            found[kind].append(round(took, 3))
    return found


def _print(found):
    median = statistics.median
    speed = f"{found['speed']} MB/s" if found["speed"] else "not throttled"
    print(f"\n{found['shape']}, {speed}: plain write of what is not zero {median(found['floor_write']):.2f} s, "
          f"plain read of all {median(found['floor_read']):.2f} s")
    print(f"{'':16}{'whole':>9}{'flash':>9}{'verify':>9}{'by floors':>14}{'CPU':>9}{'memory':>11}")
    for name, of in found["tools"].items():
        flash, verify, ratios = "", "", ""
        if of["flash"][0] is not None:
            flash, verify = f"{median(of['flash']):.2f} s", f"{median(of['verify']):.2f} s"
            ratios = " ".join(f"{median(a / b for a, b in zip(of[phase], found[floor])):.2f}"
                              for phase, floor in (("flash", "floor_write"), ("verify", "floor_read")))
        print(f"{name:16}{median(of['seconds']):>7.2f} s{flash:>9}{verify:>9}{ratios:>14}"
              f"{median(of['cpu']):>7.2f} s{median(of['memory']):>7.1f} MiB", flush=True)


# The tools, and their bars.
COLOURS = {"takeover": "#1a7f5a", "with discards": "#6cb596", "gzip | dd": "#8c96a0", "pigz | dd": "#b6bec6",
           "bmaptool": "#c79a5b", "bmaptool, bmap": "#e0c08a"}


def draw(figures, path):
    """One picture of all: a group of bars for each image and speed, a bar a tool, as long as its median."""
    names = list(figures[0]["tools"])
    bar, gap, left, width = 16, 26, 190, 900
    rows, y = [], 70
    for found in figures:
        medians = [statistics.median(found["tools"][name]["seconds"]) for name in names]
        speed = f"{found['speed']} MB/s" if found["speed"] else "not throttled"
        rows.append(f'<text x="{left - 12}" y="{y + bar * len(names) / 2}" text-anchor="end">{found["shape"]}, {speed}</text>')
        for index, (name, seconds) in enumerate(zip(names, medians)):
            length = seconds / max(medians) * (width - left - 90)
            of = found["tools"][name]
            rows.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 3}" fill="{COLOURS[name]}"/>')
            if of["verify"][0] is not None:
                # The hatched end of the bar is the read-back, which the others do not do.
                share = statistics.median(of["verify"]) / max(medians) * (width - left - 90)
                rows.append(f'<rect x="{left + length - share:.1f}" y="{y}" width="{share:.1f}" height="{bar - 3}" '
                            'fill="#fff" fill-opacity=".45"/>')
            rows.append(f'<text x="{left + length + 6:.1f}" y="{y + bar - 5}" class="f">{seconds:.1f} s</text>')
            y += bar
        y += gap
    legend = "".join(f'<rect x="{left + index * 112}" y="34" width="12" height="12" fill="{COLOURS[name]}"/>'
                     f'<text x="{left + 18 + index * 112}" y="45">{name}</text>' for index, name in enumerate(names))
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" font-family="sans-serif" '
                    f'font-size="13" fill="#222"><style>.f{{font-size:11px}}</style>'
                    f'<rect width="{width}" height="{y}" fill="#fff"/>'
                    f'<text x="12" y="22" font-weight="bold">Seconds to flash, the pale end is reading back '
                    f'(takeover alone does)</text>{legend}{"".join(rows)}</svg>\n')
