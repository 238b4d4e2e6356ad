"""Boots a guest in QEMU, drives it over its serial console and QMP, and looks at
its disk afterwards.

    with Guest("systemd", [new_disk("systemd", folder)],
               files={"run.sh": b"echo hello; poweroff -f\\n"}) as guest:
        guest.wait_for("hello", 60)
        guest.wait_exit(30)

A guest has no network, a hard time-out that kills it, and dies with its parent.
The disk under test is /dev/nvme0n1 on x86, and what disk_name() says on ARM. Its
job (the files, with run.sh to be run) comes on a disk of its own, the last one,
mounted on /job by label. A Raspberry Pi has but one disk: there it is p3 of it.
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time

import arm
import leftovers
import rootfs
import stacked
from rootfs import MIB, SECTOR

# rootwait: newer kernels look for their disks while they go on.
KERNEL_OPTIONS = ("rootwait rw console=ttyS0 panic=-1 "
                  "sysrq_always_enabled=1 net.ifnames=0 loglevel=4 "
                  "systemd.show_status=false mitigations=off cryptomgr.notests")

OVMF_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"

KINDS = {
    # kind: through firmware (UEFI)?
    "systemd": False,
    "sysvinit": False,
    "uefi": True,
    # These boot with a kernel of their own, which a balena image has no modules for.
    **dict.fromkeys(rootfs.RELEASES, False),
    **dict.fromkeys(rootfs.GENERIC, False),
    "image": False,         # a balena image as the disk, with -kernel
    "image-uefi": True,     # a balena image as the disk, booting by itself
    # ARM: these boot the old OS's disk and a balena image alike, with -kernel.
    **{kind: kind in arm.UEFI for kind in arm.MACHINES},
    # The root lies in LVM and the like: with an initrd that boots a balena image, too.
    **dict.fromkeys(stacked.KINDS, False),
}

# How the disk under test (Ubuntu: every disk) is plugged into an x86 guest, where it is not NVMe: the bus, what the
# disk is, and what it is called there.
Bus = collections.namedtuple("Bus", "controller device disk partition")
BUSES = {
    # A bridge's serial number is the USB device's; the disk behind it has none that the kernel would ask for.
    "usb": Bus("qemu-xhci,id=bus0", "usb-storage,bus=bus0.0,serial=TAKEOVER0001", "/dev/sda", "/dev/sda"),
    "scsi": Bus("virtio-scsi-pci,id=bus0", "scsi-hd,bus=bus0.0,serial=TAKEOVER0001,wwn=0x5000c500a1b2c3d4",
                "/dev/sda", "/dev/sda"),
    # Ubuntu's kernels have NVMe as a module only.
    **dict.fromkeys(rootfs.UBUNTU, Bus(None, "virtio-blk-pci", "/dev/vda", "/dev/vda")),
}
_NVME = Bus(None, None, "/dev/nvme0n1", "/dev/nvme0n1p")

# After so many seconds without a word a guest is woken.
SILENCE = 45

# rewritten: the next one is drawn over it.
Line = collections.namedtuple("Line", "time text rewritten", defaults=[False])
# And what a terminal makes of the byte that woke a guest: it echoes it.
_ESCAPES = re.compile(r"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>c78])|\^@|\0")


class GuestError(AssertionError):
    """A guest did not do what it was to do; the text has its last words."""


# ------------------------------------------------------------------------- disks

def new_disk(kind, folder, size_mib=rootfs.DEFAULT_DISK_MIB, name="disk.img"):
    """A fresh copy, in folder, of the old OS's disk ('systemd', 'sysvinit', 'uefi'
    or a kind of arm.MACHINES or stacked.KINDS)."""
    make = arm.disk if kind in arm.MACHINES else stacked.disk if kind in stacked.KINDS else rootfs.disk
    return rootfs.copy_sparse(make(kind, size_mib), pathlib.Path(folder) / name)


def disk_name(kind, partition=None):
    """What the disk under test, or a partition of it, is called in the guest."""
    if kind in arm.MACHINES:
        machine = arm.MACHINES[kind]
    else:
        machine = BUSES.get(kind, _NVME)
    return f"{machine.partition}{partition}" if partition else machine.disk


def make_job_disk(path, files, start=0, room=None):
    """An ext4 disk labelled JOB with files (name -> bytes, str or host path); with
    room (bytes), a file system at start of the disk that path is.

    A str is text; a host path must be a pathlib.Path. Every *.sh and whatever is
    executable on the host is executable in the guest.
    """
    with tempfile.TemporaryDirectory(dir=pathlib.Path(path).parent) as staging:
        total = 0
        for name, content in files.items():
            target = pathlib.Path(staging) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, os.PathLike):
                total += os.stat(content).st_size
                _link_or_copy(content, target)
            else:
                data = content.encode() if isinstance(content, str) else content
                target.write_bytes(data)
                total += len(data)
                if name.endswith(".sh"):
                    target.chmod(0o755)
        size = -(-(total * 33 // 32 + 8 * MIB) // MIB) * MIB
        if room is None:
            rootfs.make_file(path, size)
        elif room < size:
            raise ValueError(f"the job needs {size // MIB} MiB, {path} has room for "
                             f"{room // MIB}: make the disk larger (size_mib)")
        # No journal and no reserve: it is only read.
        rootfs.make_ext4(path, start, room or size, "JOB", "3f0c6a4e-5a5b-4d0e-9c5a-0d1500000003",
                         staging, ["-O", "^has_journal", "-m", "0",
                                   "-N", len(files) + 64])


def _link_or_copy(source, target):
    source = os.path.realpath(source)
    try:
        os.link(source, target)     # big images cost nothing this way
    except OSError:
        rootfs.run("cp", "--sparse=always", "--reflink=auto", source, target)


# ------------------------------------------------------------------------- guest

class Guest:
    """One QEMU, from start to kill. Every time-out is in seconds."""

    def __init__(self, kind, disks, *, files=None, memory=512, options="",
                 timeout=300, folder=None, log=None, echo=False, name=None,
                 reboot=True, cache="unsafe", drive_options="discard=unmap",
                 uefi_vars=None, qemu_args=(), smp=2, initrd=None,
                 fail_on=r"Kernel panic - not syncing"):
        """
        kind      a key of KINDS
        disks     paths (raw); the first is /dev/nvme0n1, the next nvme0n2, ...
                  (ARM: vda, vdb, ...; a Raspberry Pi takes one, mmcblk0, which is
                  grown to a power of two, as a card must be)
                  'blkdebug:CONF:PATH' injects the errors that the file CONF names
        files     name -> bytes, str or pathlib.Path, put on the job disk
        memory    in MiB; a Raspberry Pi's kernel is told to use no more
        options   added to the kernel command line (kind 'image-uefi' has its own)
        timeout   the whole guest's life; it is killed then
        folder    for its own files; a temporary one otherwise
        log       the console's log file; console.log in folder otherwise
        echo      True shows each console line on stdout, with its time; a function
                  gets each Line instead
        reboot    False: QEMU exits where the guest would restart
        cache, drive_options   of the disks' -drive; 'unsafe' only skips fsync on
                  the host: what the guest wrote survives a kill of QEMU all the same
        uefi_vars path of the variable store, to carry it over to another guest
        initrd    path of an initramfs of one's own, which the kernel then starts /init of
        fail_on   a console line that ends every wait at once (None: nothing does)
        """
        if kind not in KINDS:
            raise ValueError(f"no such kind of guest: {kind}")
        self.kind, self.uefi = kind, KINDS[kind]
        self.disks = [pathlib.Path(disk) for disk in disks]
        self.memory, self.smp, self.timeout, self.initrd = memory, smp, timeout, initrd
        self.machine, self.bus = arm.MACHINES.get(kind), BUSES.get(kind, _NVME)
        base = self.machine.options if self.machine else f"root={disk_name(kind, 2)} {KERNEL_OPTIONS}"
        self.options = f"{base} {options}".strip()
        self.name = name or kind
        self.reboot, self.cache, self.drive_options = reboot, cache, drive_options
        self.qemu_args, self.echo = list(qemu_args), echo
        self.fail_on = re.compile(fail_on) if fail_on else None
        self._temporary = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="takeover-guest-")
            folder = self._temporary.name
        self.folder = pathlib.Path(folder)
        self.log_path = pathlib.Path(log) if log else self.folder / "console.log"
        self.uefi_vars = pathlib.Path(uefi_vars) if uefi_vars else self.folder / "vars.fd"
        self.job_disk = None
        if self.machine and self.machine.on_card:
            self._prepare_card(files)
        elif files is not None:
            self.job_disk = self.folder / "job.img"
            make_job_disk(self.job_disk, files)
        self.lines = []             # every console line, as Line(time, text)
        self.events = []            # every QMP event, as QMP sent it
        self.timed_out = False
        self._cursor = 0            # the first line that wait_for has not consumed
        self._partial = b""
        self._news = threading.Condition()
        self._replies = {}
        self._request = 0
        self._shown_progress = 0.0
        self.process = None

    def _prepare_card(self, files):
        if len(self.disks) != 1:
            raise ValueError(f"a {self.kind} has one disk")
        card = str(self.disks[0]).rsplit(":", 1)[-1]
        size = os.stat(card).st_size
        os.truncate(card, arm.card_size(size))
        if files is not None:
            make_job_disk(card, files, arm.JOB_START, size - arm.JOB_START)

    # ---- life

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    def start(self):
        """Starts QEMU."""
        entry = {"uefi": rootfs.loader_entry} | dict.fromkeys(arm.UEFI, arm.loader_entry)
        if self.kind in entry:
            rootfs.fat_put(self.disks[0], rootfs.P1_START, entry[self.kind]("debian", self.options))
        if self.uefi and not self.uefi_vars.exists():
            rootfs.copy_sparse(arm.AAVMF_VARS if self.machine else OVMF_VARS, self.uefi_vars)
        # The kernel sends the death signal when the *thread* that forked ends, so
        # a guest is started by a thread that outlives it.
        # Descriptors instead of socket files: no path is too long, none is left.
        self._serial, serial_end = socket.socketpair()
        self._monitor, monitor_end = socket.socketpair()
        self._log = open(self.log_path, "wb")
        self._errors = tempfile.TemporaryFile()
        ends = (serial_end.fileno(), monitor_end.fileno())
        self.began = self._last_news = time.monotonic()
        self.process = subprocess.Popen(
            self._command(*ends), stdin=subprocess.DEVNULL, stdout=self._errors,
            stderr=subprocess.STDOUT, pass_fds=ends, preexec_fn=leftovers.die_with_parent)
        serial_end.close()
        monitor_end.close()
        self._timer = threading.Timer(self.timeout, self._on_timeout)
        self._timer.daemon = True
        self._timer.start()
        self._threads = [threading.Thread(target=target, daemon=True)
                         for target in (self._read_console, self._read_monitor)]
        for thread in self._threads:
            thread.start()
        self.qmp("qmp_capabilities")
        return self

    def _command(self, serial, monitor):
        disks = self.disks + ([self.job_disk] if self.job_disk else [])
        if self.machine:
            command = arm.command(self.kind, self.memory, self.smp, self.options,
                                  "chardev:serial0", disks, self.cache, self.drive_options, self.uefi_vars,
                                  self.initrd)
        else:
            command = self._x86_command(disks)
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none",
                    "-chardev", f"socket,id=serial0,fd={serial}",
                    "-chardev", f"socket,id=qmp0,fd={monitor}",
                    "-mon", "chardev=qmp0,mode=control"]
        if not self.reboot:
            command.append("-no-reboot")
        return [str(word) for word in command + self.qemu_args]

    def _x86_command(self, disks):
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-M", "q35",
                   "-cpu", "max", "-smp", self.smp, "-m", self.memory,
                   "-serial", "chardev:serial0",
                   # One controller with a namespace a disk: with a controller a
                   # disk, the kernel probes them at once and the names vary.
                   "-device", "nvme,id=nvme0,serial=takeover"]
        if self.bus.controller:
            command += ["-device", self.bus.controller]
        for number, disk in enumerate(disks, 1):
            path = str(disk).replace(",", ",,")
            if number == 1 and self.bus.controller:
                # A node of its own, since a -drive goes when its device is unplugged.
                command += ["-object", "throttle-group,id=slow",
                            "-blockdev", "driver=throttle,throttle-group=slow,node-name=disk1,discard=unmap,"
                                         "cache.no-flush=on,file.driver=raw,file.discard=unmap,"
                                         f"file.file.driver=file,file.file.filename={path}",
                            "-device", f"{self.bus.device},drive=disk1,id=plug"]
                continue
            device = f"nvme-ns,bus=nvme0,nsid={number}"
            if self.bus.device and not self.bus.controller:
                device = self.bus.device
            command += ["-drive", f"file={path},format=raw,if=none,id=disk{number},"
                                  f"cache={self.cache},{self.drive_options}",
                        "-device", f"{device},drive=disk{number}"]
        if self.uefi:
            store = str(self.uefi_vars).replace(",", ",,")
            command += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}",
                        "-drive", f"if=pflash,format=raw,unit=1,file={store}"]
        else:
            command += ["-kernel", rootfs.kernel(self.kind), "-append", self.options]
            if self.initrd:
                command += ["-initrd", self.initrd]
            elif self.kind in stacked.KINDS:
                command += ["-initrd", stacked.initrd()]
            elif self.kind in rootfs.GENERIC:
                command += ["-initrd", rootfs.generic_initrd()]
        return command

    def _on_timeout(self):
        self.timed_out = True
        self.kill()

    def kill(self):
        """Pulls the plug."""
        if self.process and self.process.poll() is None:
            self.process.kill()

    def close(self):
        """Kills what still runs and frees everything."""
        if self.process is None:
            return
        self.kill()
        self.process.wait()
        self._timer.cancel()
        for thread in self._threads:
            thread.join(10)
        self._serial.close()
        self._monitor.close()
        self._errors.close()
        self.process = None
        if self._temporary:
            self._temporary.cleanup()

    def wait_exit(self, timeout):
        """Waits until QEMU is gone; its exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"still running after {timeout} s") from None
        for thread in self._threads:
            thread.join(10)
        if self.timed_out:
            raise self._error(f"killed after its {self.timeout} s")
        return code

    @property
    def running(self):
        """Whether QEMU runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def age(self):
        """Seconds since the start."""
        return time.monotonic() - self.began

    # ---- console

    def _read_console(self):
        while True:
            try:
                data = self._serial.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            self._log.write(data)
            self._log.flush()
            with self._news:
                self._last_news = time.monotonic()
                self._take(data)
                self._news.notify_all()
        with self._news:
            if self._partial:
                self._add(self._partial, "\n")
                self._partial = b""
            self._news.notify_all()
        self._log.close()

    def _take(self, data):
        """Cuts what came into lines. A lone carriage return ends a line too: that
        is how a progress line is drawn over itself."""
        data = self._partial + data
        # A trailing \r may be half of \r\n: decided when more has come.
        start = 0
        for match in re.finditer(rb"\r*\n|\r+(?=[^\r\n])", data):
            self._add(data[start:match.start()], "\n" if b"\n" in match[0] else "\r")
            start = match.end()
        self._partial = data[start:]

    def _add(self, raw, ending):
        text = _ESCAPES.sub("", raw.decode(errors="replace")).rstrip("\r")
        if ending == "\r" and not text:
            return
        now = self.age
        line = Line(now, text, ending == "\r")
        self.lines.append(line)
        if callable(self.echo):
            self.echo(line)
        elif self.echo:
            self._show(now, text, ending)

    def _show(self, now, text, ending):
        terminal = sys.stdout.isatty()
        if ending == "\r" and not terminal:
            # In a log each state of a progress line would be a line of its own.
            if now - self._shown_progress < 2:
                return
            self._shown_progress, ending = now, "\n"
        erase = "\x1b[K" if terminal else ""
        sys.stdout.write(f"[{now:7.1f}] {text}{erase}{ending}")
        sys.stdout.flush()

    def _partial_text(self):
        return _ESCAPES.sub("", self._partial.decode(errors="replace"))

    def wait_for(self, pattern, timeout, *, from_start=False, prompt=False):
        """Waits for a console line that pattern (a regex) is found in, and
        returns the match. Lines up to the last match are over; with from_start
        all lines count. Only whole lines count, or half of a word would match;
        with prompt the unfinished last one does too, to wait for a question."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout
        position = 0 if from_start else self._cursor
        with self._news:
            while True:
                while position < len(self.lines):
                    text = self.lines[position].text
                    position += 1
                    match = wanted.search(text)
                    if match:
                        self._cursor = max(self._cursor, position)
                        return match
                    if self.fail_on and not from_start and self.fail_on.search(text):
                        raise self._error(f"{text!r} while waiting for {pattern!r}")
                match = wanted.search(self._partial_text()) if prompt else None
                if match:
                    self._cursor = position + 1
                    return match
                if not any(t.is_alive() for t in self._threads[:1]):
                    why = (f"killed after its {self.timeout} s" if self.timed_out
                           else f"QEMU ended ({self._qemu_words()})")
                    raise self._error(f"{why} while waiting for {pattern!r}")
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._wake()
                # Not longer than a second, to see a dead reader.
                self._news.wait(min(left, 1))
        self._ask_what_it_does()
        raise self._error(f"{pattern!r} did not come within {timeout} s", lines=250)

    def _wake(self):
        """Emulated processors miss the wake-up of a timer once in some hundred runs, and sleep until something else comes:
        one that is silent gets a byte on its serial line, which means nothing to anybody."""
        now = time.monotonic()
        if now - self._last_news > SILENCE and self.process.poll() is None:
            self._last_news = now
            try:
                self._serial.sendall(b"\0")
            except OSError:
                pass            # it ends just now

    def _ask_what_it_does(self):
        """Lets the kernel say where its processors are and which tasks are blocked, and QEMU where it thinks they are:
        what hangs once in a hundred runs is not seen again."""
        try:
            if not (self.machine and self.machine.on_card):
                for key in "9lw":
                    self.sysrq(key)
                    time.sleep(2)
            words = [self.monitor("info status"), self.monitor("info registers -a")]
        except (GuestError, OSError, ValueError) as error:
            words = [str(error)]
        with self._news:
            for line in "\n".join(words).splitlines():
                self.lines.append(Line(self.age, f"QEMU: {line.strip()}"))

    def find(self, pattern):
        """The first match of pattern among all lines so far, or None."""
        return next(self.find_all(pattern), None)

    def find_all(self, pattern):
        """Every match of pattern, at most one a line, among all lines so far."""
        wanted = re.compile(pattern)
        return filter(None, (wanted.search(line.text) for line in list(self.lines)))

    def text(self):
        """The whole console, as one text."""
        return "\n".join(line.text for line in list(self.lines))

    def tail(self, count=60):
        """The last console lines, with their times."""
        lines = [f"[{line.time:7.1f}] {line.text}" for line in self.lines[-count:]]
        if self._partial:
            lines.append(f"[  ...  ] {self._partial_text()}")
        return "\n".join(lines)

    def send(self, text):
        """Types text on the console."""
        self._serial.sendall(text.encode())

    def sysrq(self, key, timeout=30):
        """The magic key: a break on the serial line, then the key. 'i' kills every
        process but PID 1, 'c' panics, 'b' resets. Not on a raspi3: QEMU's model of
        its serial port knows no break."""
        if self.machine and self.machine.on_card:
            raise ValueError(f"a {self.kind} has no sysrq")
        self.qmp("chardev-send-break", timeout, id="serial0")
        self.send(key)

    def come_first(self):
        """Lets QEMU's own thread, which serves console and monitor, run as soon as it can: a CPU of the guest that waits
        for flash memory holds the lock that it needs, and lets go of it for microseconds at a time."""
        try:
            os.sched_setscheduler(self.process.pid, os.SCHED_FIFO, os.sched_param(1))
        except OSError:
            # Not everywhere: then it takes longer.
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.process.pid, -20)

    # ---- monitor

    def _read_monitor(self):
        buffer = b""
        while True:
            try:
                data = self._monitor.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            buffer += data
            *complete, buffer = buffer.split(b"\n")
            with self._news:
                for line in complete:
                    if line.strip():
                        self._dispatch(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _dispatch(self, message):
        if "event" in message:
            message["age"] = self.age
            self.events.append(message)
        elif "id" in message:
            self._replies[message["id"]] = message

    def qmp(self, command, timeout=30, **arguments):
        """One QMP command; what it returns."""
        with self._news:
            self._request += 1
            request = self._request
        try:
            self._monitor.sendall(json.dumps(
                {"execute": command, "arguments": arguments, "id": request}).encode() + b"\n")
        except OSError:
            raise self._error(f"QEMU is gone ({self._qemu_words()}), no {command}") from None
        deadline = time.monotonic() + timeout
        with self._news:
            while request not in self._replies:
                left = deadline - time.monotonic()
                if left <= 0 or not self._threads[1].is_alive():
                    raise self._error(f"no reply to {command} ({self._qemu_words()})")
                self._news.wait(min(left, 1))
            reply = self._replies.pop(request)
        if "error" in reply:
            raise self._error(f"{command}: {reply['error']['desc']}")
        return reply["return"]

    def monitor(self, command_line):
        """One command of QEMU's human monitor; its output."""
        return self.qmp("human-monitor-command", **{"command-line": command_line})

    def pause(self):
        """Stops the guest's CPUs, once its disk requests are through."""
        self.qmp("stop")

    def resume(self):
        """Lets it run on."""
        self.qmp("cont")

    def unplug(self):
        """Pulls the disk under test out of its bus; it must be on one of BUSES that can be unplugged."""
        before = len(self.events)
        self.qmp("device_del", id="plug")
        self.wait_event("DEVICE_DELETED", 30, before, device="plug")

    def wait_event(self, name, timeout, start=0, **data):
        """Waits for an event of QMP, with these data among others; the first ones may be over."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not any(event["event"] == name and data.items() <= event.get("data", {}).items()
                          for event in self.events[start:]):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._error(f"no event {name} within {timeout} s")
                self._news.wait(min(left, 1))

    def plug(self, stranger=None):
        """Plugs the disk under test in again; or the disk whose file stranger is, of the same make but not the same."""
        driver, *properties = self.bus.device.split(",")
        properties = dict(word.split("=") for word in properties)
        if stranger is None:
            self.qmp("device_add", driver=driver, id="plug", drive="disk1", **properties)
            return
        self.qmp("blockdev-add", **{"driver": "raw", "node-name": "stranger",
                                    "file": {"driver": "file", "filename": str(stranger)}})
        for name in properties.keys() & {"serial", "wwn"}:
            properties[name] = properties[name][:-4] + "9999"
        self.qmp("device_add", driver=driver, id="plug-of-stranger", drive="stranger", **properties)

    def slow_disk(self, bytes_per_second):
        """From now on the disk under test takes no more writes than that, so that there is a middle of the flash.
        0 takes the limit away."""
        if self.bus.controller:
            self.qmp("qom-set", path="/objects/slow", property="limits", value={"bps-write": bytes_per_second})
        else:
            limits = dict.fromkeys(("bps", "bps_rd", "iops", "iops_rd", "iops_wr"), 0)
            self.qmp("block_set_io_throttle", device="disk1", bps_wr=bytes_per_second, **limits)

    def nmi(self):
        """An NMI that no driver knows the reason of, as a broken memory bar or a watchdog of a board sends it."""
        self.qmp("inject-nmi")

    # ---- errors

    def _qemu_words(self):
        code = self.process.poll() if self.process else None
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip()
        return f"exit code {code}" + (f": {words}" if words else "")

    def _error(self, what, lines=60):
        return GuestError(f"guest {self.name}: {what}\n--- its last console lines:"
                          f"\n{self.tail(lines)}\n--- (console log: {self.log_path})")


# --------------------------------------------------------- looking at disks after

def compare_disk(disk_path, image_path, exclude=(), block=1 * MIB):
    """Where the disk differs from the image, as (start, length) in whole sectors;
    [] when nowhere. exclude: (start, length) in bytes, not looked at."""
    differing = []
    size = os.stat(image_path).st_size
    if os.stat(disk_path).st_size < size:
        raise ValueError(f"{disk_path} is smaller than {image_path}")
    cuts = sorted((start, start + length) for start, length in exclude)
    with open(disk_path, "rb") as disk, open(image_path, "rb") as image:
        position = 0
        for begin, end in cuts + [(size, size)]:
            while position < min(begin, size):
                length = min(block - position % block, begin - position, size - position)
                disk.seek(position)
                image.seek(position)
                ours, theirs = disk.read(length), image.read(length)
                if ours != theirs:
                    _note_differences(differing, position, ours, theirs)
                position += length
            position = max(position, end)
    return differing


def _note_differences(differing, position, ours, theirs):
    for start in range(0, len(ours), SECTOR):
        if ours[start:start + SECTOR] == theirs[start:start + SECTOR]:
            continue
        length = len(ours[start:start + SECTOR])
        if differing and sum(differing[-1]) == position + start:
            differing[-1] = (differing[-1][0], differing[-1][1] + length)
        else:
            differing.append((position + start, length))


def partitions(disk_path):
    """The partition table: a list of dicts with 'number', 'start' and 'size' in
    bytes, 'type', and for GPT 'name' and 'uuid'."""
    table = json.loads(rootfs.run("sfdisk", "-J", disk_path))["partitiontable"]
    found = []
    for entry in table["partitions"]:
        number = int(re.search(r"(\d+)$", entry["node"])[1])
        found.append(dict(entry, number=number, start=entry["start"] * SECTOR,
                          size=entry["size"] * SECTOR))
    return found


def boot_files(disk_path, offset):
    """Every file of the FAT file system at offset: path ('EFI/BOOT/x') -> bytes."""
    with tempfile.TemporaryDirectory() as folder:
        rootfs.run("mcopy", "-s", "-n", "-m", "-i", f"{disk_path}@@{offset}", "::/*", folder)
        base = pathlib.Path(folder)
        return {str(path.relative_to(base)): path.read_bytes()
                for path in sorted(base.rglob("*")) if path.is_file()}


def ext_read(disk_path, offset, path):
    """One file of the ext4 file system at offset, as bytes; None when it is not
    there. The journal is not replayed: sync in the guest first."""
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "file"
        rootfs.run("debugfs", "-R", f"dump {shlex.quote(path)} {target}",
                   f"{disk_path}?offset={offset}")
        return target.read_bytes() if target.exists() else None


def ext_files(disk_path, offset):
    """Every file of the ext4 file system at offset: path ('docker/layer') -> bytes. As for ext_read, no journal."""
    with tempfile.TemporaryDirectory() as folder:
        rootfs.run("debugfs", "-R", f"rdump / {folder}", f"{disk_path}?offset={offset}")
        base = pathlib.Path(folder)
        return {str(path.relative_to(base)): path.read_bytes()
                for path in sorted(base.rglob("*")) if path.is_file() and not path.is_symlink()}
