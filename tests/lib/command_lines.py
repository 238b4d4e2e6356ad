"""The table of command lines (tests/command_lines.txt), and where its lines can do no harm.

Each line runs in namespaces of its own kind: users (its root is nobody on this machine), processes, mounts, network. Its
root directory is in memory, and has the program, a few files and no block device; the kernel lets nobody make one there.
So even a takeover that went through would find neither a disk nor a process of this machine.

The lines that are marked `guest` need a disk in use: a guest runs them, and no file of it is changed (test_guests.py).
"""

import ctypes
import encodings.idna  # noqa: F401  Before its file is out of reach.
import fcntl
import gzip
import http.server
import io
import json
import os
import pathlib
import re
import resource
import select
import shlex
import signal
import struct
import socket
import subprocess
import tarfile
import termios
import threading
import time
import traceback
import zipfile

TABLE = pathlib.Path(__file__).resolve().parent.parent / "command_lines.txt"
# The users of the namespace, as this machine numbers them: none that it has.
FIRST_USER, USERS = 1_000_000_000, 65_536
# <linux/sched.h>
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
# <sys/mount.h>
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 4096, 16384, 1 << 18, 2
PATIENCE = 60
COLUMNS = 80


class Line:
    """A command line of the table: what it is given, its exit code, and the words that must and must not be there."""

    def __init__(self, number, head):
        self.number = number
        before, _, after = head.partition("takeover")
        code, *marks = before.split()
        self.codes = {int(code) for code in code.split("|")}
        self.marks = dict(mark.partition("=")[::2] for mark in marks)
        self.arguments = shlex.split(after.replace("\\e", "\x1b"))
        self.text = f"takeover{after}"
        self.words, self.absent, self.on_stdout = [], [], []

    def add(self, phrase):
        phrase = phrase.replace("\\e", "\x1b")
        if phrase.startswith("! "):
            self.absent.append(phrase[2:])
        elif phrase.startswith("> "):
            self.on_stdout.append(phrase[2:])
        else:
            self.words.append(phrase)

    @property
    def in_guest(self):
        return "guest" in self.marks


def table():
    """Every line of the table."""
    lines = []
    for number, text in enumerate(TABLE.read_text().splitlines(), 1):
        if not text.strip() or text.startswith("#"):
            continue
        if text.startswith(" "):
            lines[-1].add(text.strip())
        else:
            lines.append(Line(number, text))
    return lines


def judge(line, code, out, err):
    """What is wrong with what a line has ended with. A guest's console and a terminal have all of it in `err`."""
    wrong = []
    if code not in line.codes:
        wrong.append(f"exit code {code}, not {sorted(line.codes)}")
    # A terminal has both in one; and breaks lines.
    said = " ".join((out + " " + err).split())
    wrong += [f"it does not say {word!r}" for word in line.words if word not in said]
    wrong += [f"standard output has no {word!r}" for word in line.on_stdout if word not in " ".join(out.split())]
    wrong += [f"it says {word!r}" for word in line.absent if word in said]
    errors = re.findall(r"^(?:\x1b\[\d+m)?(?:\[ *\d+\.\d{3}\] )?error: .*", err, re.M)
    if code and not errors:
        wrong.append("it fails without an error")
    if not code and errors:
        wrong.append("an error, and exit code 0")
    for error in errors:
        # A terminal has the remedy in another line; what cannot be written there has none.
        if ";" not in error and not {"tty", "full"} & line.marks.keys():
            wrong.append("the error does not say what to do")
    if re.search(r"\berrno \d", said):
        wrong.append("a number of an errno")
    if "panicked" in said:
        wrong.append("a panic")
    if "/run/takeover" in said:
        wrong.append("a path in our own RAMFS")
    # A terminal that is narrow, or moves no cursor, breaks lines by itself.
    takes_lines = {"columns", "TERM"} & line.marks.keys()
    on_terminal = "" if takes_lines else re.sub(r"\x1b\[\d*[mK]", "", err)
    seen = on_terminal if "tty" in line.marks else out
    wrong += [f"{len(text)} columns: {text!r}" for text in seen.splitlines()
              if len(text) > COLUMNS and not text.startswith("{") and len(text.split()) > 3]
    if "--json" in line.arguments and code == 0 and not line.in_guest:
        try:
            json.loads(out)
        except ValueError:
            wrong.append("standard output is not one JSON object")
    strange = re.findall(r"[^\x20-\x7e\n\t\xa0-\U0010ffff]", out + err)
    if strange and "tty" not in line.marks:
        wrong.append(f"what is not printable: {strange[:4]}")
    return wrong


# ------------------------------------------------------------------------- files that the lines are about

def disk_image(size=2 << 20):
    """A disk with one partition, and something in it."""
    image = bytearray(size)
    image[446:512] = struct.pack("<4xB3xII48xBB", 0x83, 2048, size // 512 - 2048, 0x55, 0xaa)
    image[1 << 20:(1 << 20) + 5] = b"hello"
    return bytes(image)


def ext4_alone():
    """What mkfs.ext4 leaves of a file system on a whole disk: its superblock."""
    image = bytearray(2 << 20)
    image[1080:1082] = b"\x53\xef"
    return bytes(image)


def fat_alone():
    image = bytearray(1 << 20)
    image[:3], image[3:11] = b"\xeb\x3c\x90", b"mkfs.fat"
    image[11:24] = struct.pack("<HBHBHHBH", 512, 4, 4, 2, 512, 2048, 0xf8, 2)
    image[54:62], image[510:512] = b"FAT16   ", b"\x55\xaa"
    return bytes(image)


def archive():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("image.img")
        entry.size = 5000
        tar.addfile(entry, io.BytesIO(bytes(5000)))
    return file.getvalue()


def zipped(*names, content=b""):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.writestr(name, content)
    return file.getvalue()


def files():
    """Name -> content of all that lies in the folder of the lines, /t."""
    disk = disk_image()
    packed = gzip.compress(disk, mtime=0)
    wrong = bytearray(packed)
    wrong[-6] ^= 1
    config = {"apiEndpoint": "https://api.example.com", "applicationId": "1", "deviceType": "raspberrypi3",
              "apiKey": "sEcReT"}
    return {
        "disk.img": disk,
        "disk.img.gz": packed,
        "disk.zip": zipped("disk.img", content=disk),
        "name with \x1b[31m.img": disk,
        "twice.img.gz.gz": gzip.compress(packed, mtime=0),
        "zip.in.gz": gzip.compress(zipped("disk.img", content=disk), mtime=0),
        "gz.in.zip": zipped("disk.img.gz", content=packed),
        "xz.in.gz": gzip.compress(b"\xfd7zXZ\0" + bytes(1000), mtime=0),
        "two.zip": zipped("a.img", "b.img", content=disk),
        "none.zip": zipped(),
        "archive.tar": archive(),
        "archive.tar.gz": gzip.compress(archive(), mtime=0),
        "ext4.img": ext4_alone(),
        "fat.img": fat_alone(),
        "squashfs.img": b"hsqs" + bytes(1 << 20),
        "cd.iso": bytes(0x8001) + b"CD001" + bytes(1 << 20),
        "program": b"\x7fELF\x02\x01\x01" + bytes(5000),
        "script.sh": b"#!/bin/sh\necho hello\n" + b"# more\n" * 200,
        "zeros.img": bytes(1 << 20),
        "empty.img": b"",
        "short.img": b"x" * 100,
        "text.txt": b"This is a text, and no disk.\n" * 60,
        "page.html": b"<!DOCTYPE html>\n<html>" + b" " * 600,
        "disk.img.xz": b"\xfd7zXZ\0" + bytes(1000),
        "disk.img.zst": b"\x28\xb5\x2f\xfd" + bytes(1000),
        "disk.img.bz2": b"BZh9" + bytes(1000),
        "disk.7z": b"7z\xbc\xaf\x27\x1c" + bytes(1000),
        "disk.qcow2": b"QFI\xfb" + bytes(1000),
        "disk.vmdk": b"KDMV" + bytes(1000),
        "cut.img.gz": packed[:-20],
        "wrong.img.gz": bytes(wrong),
        "garbage.img.gz": packed + b"garbage",
        "config.json": json.dumps(config).encode(),
        "config.json.gz": gzip.compress(json.dumps(config).encode(), mtime=0),
        "no.json": b"{ this is none }",
        "list.json": b"[1, 2]",
        "typeless.json": b'{"applicationId": "1"}',
        "empty.json": b"",
        "escape.json": b'{"deviceType": "a\\u001b[31mb", "applicationId": "1"}',
        "keyfile": b"[connection]\nid=x\ntype=wifi\n[wifi]\nssid=x\n",
        "backup.yaml": b"- volume: v\n  items:\n    - source: /t/nosuch\n",
        "no.yaml": b"- volume: [\n",
        "authorities.pem": b"no certificate",
    }


class Server(http.server.BaseHTTPRequestHandler):
    """What the lines with a URL get: the files of the folder, by ranges, and errors by number."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.strip("/").partition("?")[0]
        if name.isdigit():
            return self.answer(int(name), b"")
        content = self.server.files.get(name)
        if content is None:
            return self.answer(404, b"")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found:
            return self.answer(200, content)
        start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        if start >= len(content):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        self.answer(206, content[start:end + 1], {"Content-Range": f"bytes {start}-{end}/{len(content)}"})

    do_HEAD = do_GET

    def answer(self, code, content, more={}):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), "ETag": '"1"', **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


class Quiet(http.server.ThreadingHTTPServer):
    """Says nothing of those that close a connection early."""

    def handle_error(self, *_):
        pass


# ------------------------------------------------------------------------- the safe place

def _call(name, *arguments):
    """A function of libc that gives -1 where it fails."""
    result = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}", str(arguments))
    return result


def _mount(source, target, kind, flags=0, options=None):
    encoded = [text and str(text).encode() for text in (source, target, kind, options)]
    _call("mount", *encoded[:3], ctypes.c_ulong(flags), encoded[3])


def run_all(lines, program, folder):
    """Runs lines in the safe place: yields each with its exit code, standard output and standard error."""
    content = pathlib.Path(program).read_bytes()
    results, write_end = os.pipe()
    ready, say_ready = os.pipe()
    mapped, say_mapped = os.pipe()
    pathlib.Path(folder).chmod(0o755)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _call("prctl", 1, signal.SIGKILL)    # PR_SET_PDEATHSIG
            _call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
            os.write(say_ready, b"x")
            os.read(mapped, 1)
            for call in (os.setgroups, os.setresgid, os.setresuid):
                call(*([[0]] if call is os.setgroups else [0, 0, 0]))
            # Another user than before: only so may the program look at its PID 1.
            _call("prctl", 4, 1)    # PR_SET_DUMPABLE
            first = os.fork()
            if first == 0:
                _as_first(lines, content, folder, write_end)
                os._exit(0)
            os.close(write_end)
            _, status = os.waitpid(first, 0)
            code = os.waitstatus_to_exitcode(status)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code & 127)
    os.close(write_end)
    os.read(ready, 1)
    for name in ("uid_map", "gid_map"):
        pathlib.Path(f"/proc/{child}/{name}").write_text(f"0 {FIRST_USER} {USERS}\n")
    os.write(say_mapped, b"x")
    with os.fdopen(results) as stream:
        ended = [json.loads(text) for text in stream]
    _, status = os.waitpid(child, 0)
    for end in (ready, say_ready, mapped, say_mapped):
        os.close(end)
    assert status == 0 and len(ended) == len(lines), f"{len(ended)} of {len(lines)} lines were run"
    for line, (code, out, err) in zip(lines, ended):
        yield line, code, out, err


def _as_first(lines, program, folder, results):
    """PID 1 of the namespace: makes the root directory, runs the lines, and writes what came of each."""
    try:
        _call("prctl", 1, signal.SIGKILL)
        _make_root(program, folder)
        # Without block devices, and where none can be made.
        try:
            os.mknod("/dev/sda", 0o600 | 0o060000, os.makedev(8, 0))
            os._exit(98)
        except PermissionError:
            pass
        server = Quiet(("127.0.0.1", 8000), Server)
        server.files = files()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for line in lines:
            os.write(results, json.dumps(_run(line)).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
        os._exit(97)


def _make_root(program, folder):
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    root = pathlib.Path(folder)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for name in ("proc", "sys", "dev/pts", "run", "tmp", "t/folder", "t/work", "etc", "old", "usr/bin", "var/log"):
        (root / name).mkdir(parents=True)
    for name in ("null", "zero", "full", "random", "urandom"):
        (root / "dev" / name).touch()
        _mount(f"/dev/{name}", root / "dev" / name, None, MS_BIND)
    for name, content in files().items():
        (root / "t" / name).write_bytes(content)
    (root / "t/closed.img").write_bytes(b"x")
    (root / "t/closed.img").chmod(0)
    (root / "t/loop").symlink_to("loop")
    (root / "t/link.log").symlink_to("/t/other.log")
    os.mkfifo(root / "t/pipe")
    wep = 'network={\n ssid="wep"\n key_mgmt=NONE\n wep_key0="abcde"\n}\n'
    corp = 'network={\n ssid="corp"\n key_mgmt=WPA-EAP\n eap=TLS\n}\n'
    for name, content in {"lost": wep + corp, "lost-one": wep}.items():
        folder = root / "t" / name / "etc/wpa_supplicant"
        folder.mkdir(parents=True)
        (folder / "wpa_supplicant.conf").write_text(content)
    (root / "etc/os-release").write_text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n')
    (root / "etc/hostname").write_text("sandbox\n")
    (root / "usr/bin/takeover").write_bytes(program)
    (root / "usr/bin/takeover").chmod(0o755)
    _mount("proc", root / "proc", "proc")
    _mount("sysfs", root / "sys", "sysfs")
    _mount("devpts", root / "dev/pts", "devpts", 0, "newinstance,ptmxmode=0666")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    os.chdir(root)
    _call("syscall", 155, b".", b"old")      # pivot_root, x86_64
    os.chroot(".")
    os.chdir("/t")
    _call("umount2", b"/old", MNT_DETACH)
    bring_up_loopback()


def bring_up_loopback():
    """Brings up `lo`: ioctl(SIOCSIFFLAGS, IFF_UP | IFF_RUNNING), netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 0x41))


def _run(line):
    environment = {"PATH": "/usr/bin", "TERM": "linux"}
    environment |= {key: value for key, value in line.marks.items() if key.isupper()}
    user = int(line.marks.get("as", 0))
    given = line.marks.get("stdin", "").replace("\\n", "\n").encode()
    def prepare():
        if user:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        if "locked" in line.marks:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, [int(line.marks["locked"]) << 10] * 2)
        if "full" in line.marks:
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    command = ["/usr/bin/takeover", *line.arguments]
    if "tty" in line.marks:
        return _run_on_terminal(command, environment, prepare, int(line.marks.get("columns", COLUMNS)))
    stdin = subprocess.PIPE if given else subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, preexec_fn=prepare, cwd="/t", stdin=stdin,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(given or None, PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += b"\nNOT OVER IN TIME"
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def _run_on_terminal(command, environment, prepare, columns):
    ours, theirs = os.openpty()
    # Without a size it is a serial line, that takes lines as they are.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = subprocess.Popen(command, env=environment, preexec_fn=prepare, cwd="/t", stdin=theirs, stdout=theirs,
                               stderr=theirs, start_new_session=True)
    os.close(theirs)
    said, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            piece = os.read(ours, 65536)
        except OSError:      # EIO: the last one has closed it
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    if process.poll() is None and time.monotonic() >= end:
        process.kill()
    return process.wait(), "", said.decode(errors="replace").replace("\r\n", "\n")
