"""A whole takeover in a PID and mount namespace of this machine, on a loop disk.

    with Sandbox(folder, image=IMAGE) as box:
        box.start("/tk/takeover --no-api-check --no-vpn-check -i /tk/image -c /tk/config.json --no-ack --in-namespace")
        box.wait_exit()

The disk is a file behind a loop device of our own: an MBR, and an ext4 root with
busybox and sysvinit, whose init is PID 1 of the namespace and runs one job. Its
console is a file on the host. There reboot(2) ends the namespace and nothing else.

The namespace dies with the program that made it. Its loop device stays then, until the next run (leftovers.py).

What this never does: run the program under test outside the namespace with more
than --dry-run; touch loop devices, swap or mounts that are not its own.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time

import leftovers
import rootfs

MIB = 1 << 20
# <linux/prctl.h>, <linux/seccomp.h>
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 22, 2, 0x7fff0000, 0x50000
# <linux/filter.h>: a word of struct seccomp_data is loaded, compared, and the answer given.
BPF_LOAD, BPF_JUMP_IF_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
NUMBER_OF_CALL, SECOND_ARGUMENT = 0, 24
# x86_64: fallocate(2) with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE; ioctl(2) with BLKDISCARD, BLKZEROOUT of <linux/fs.h>.
PUNCH, DISCARD, ZERO_OUT = (285, 1 | 2), (16, 0x1277), (16, 0x127f)
# <linux/ptrace.h>
PTRACE_DETACH, PTRACE_SYSCALL, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 24, 0x4206, 0x4207
PTRACE_O_TRACESYSGOOD = 1
ROOT_START = 8 * MIB
FIRST_PID_NAMESPACE = 4026531836
# Which of the plan's numbers says how long a worker may stand still: Plan::numbers in src/plan.rs.
PLAN_STALL = 35

# The job appends: init opens the console without, and what the job says late would be written over what PID 1 said.
INITTAB = """\
id:2:initdefault:
si::sysinit:/bin/true
jb:2:wait:/bin/sh /job >>/dev/console 2>&1
"""

# Runs in the new namespaces, as the parent of init: makes the loop disk's root the
# root directory, with nothing of the host in sight but the console and /sys.
ENTER = """\
set -e
mount -t "$FILE_SYSTEM" "$ROOT_DEVICE" "$POINT"
cd "$POINT"
mount -t proc proc proc
mount -t sysfs sys sys
mount -t tmpfs -o mode=755 dev dev
mount -t tmpfs -o mode=755,nosuid,nodev,noexec,size=${RUN_SIZE:-8m} run run
for node in null:1:3 zero:1:5 random:1:8 urandom:1:9; do
    IFS=: read -r name major minor <<<"$node"
    mknod "dev/$name" c "$major" "$minor"
done
mknod "dev/$DISK_NAME" b $DISK_NUMBER
mknod "dev/$(basename "$ROOT_DEVICE")" b $ROOT_NUMBER
touch dev/console
mount --bind "$CONSOLE" dev/console
pivot_root . old
exec /bin/busybox chroot . /bin/sh -c 'umount -l /old; exec /sbin/init $INIT_ARGUMENT' <dev/console >>dev/console 2>&1
"""


def sysvinit():
    """The unpacked sysvinit-core package, from the cache."""
    def build(path):
        path.mkdir()
        rootfs.run("apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", "sysvinit-core", cwd=path)
        package = next(path.glob("*.deb"))
        rootfs.run("dpkg", "-x", package, path)
        package.unlink()
    return rootfs.cached("sysvinit-core", rootfs.key_of("sysvinit-core", 1), build)


def xfsprogs():
    """The unpacked xfsprogs package with the libraries of mkfs.xfs, from the cache."""
    def build(path):
        path.mkdir()
        # What the libraries are called depends on the distribution's age.
        needed = rootfs.run("apt-cache", "depends", "xfsprogs").decode()
        names = "xfsprogs", *re.findall(r" Depends: (lib(?:inih|urcu)\S*)", needed)
        rootfs.run("apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", *names, cwd=path)
        for package in list(path.glob("*.deb")):
            rootfs.run("dpkg", "-x", package, path)
            package.unlink()
    return rootfs.cached("xfsprogs", rootfs.key_of("xfsprogs", 1), build)


def libraries(program):
    """The shared libraries of a program, as the host has them."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(/\S+)", listing)


def make_root(folder, files, init=None):
    """A root file system: busybox, sysvinit (or the program `init`), `files` (path -> bytes or Path)."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "run", "old", "tk", "mnt", "tmp", "var/log", "lib64"):
        (folder / name).mkdir(parents=True)
    busybox = "/bin/busybox"
    shutil.copy(busybox, folder / "bin/busybox")
    for name in ("sh", "true", "sleep", "cat", "mount", "umount", "mkdir", "ls", "dd", "kill", "sync", "touch", "grep"):
        (folder / "bin" / name).symlink_to("busybox")
    init = pathlib.Path(init or sysvinit() / "sbin/init")
    shutil.copy(init, folder / "sbin/init")
    for library in libraries(init):
        target = folder / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (folder / "etc/inittab").write_text(INITTAB)
    (folder / "etc/os-release").write_text(
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n')
    (folder / "etc/hostname").write_text("sandbox\n")
    for path, content in files.items():
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pathlib.Path):
            shutil.copy(content, target)
        else:
            target.write_bytes(content)


def with_calls(answers):
    """For preexec_fn: of these system calls, with their second argument, none is carried out any more. They give the errno
    that stands beside them: 0 is success, as a disk that lies reports it."""
    steps = []
    for (number, argument), errno in answers.items():
        steps += [(BPF_LOAD, 0, 0, NUMBER_OF_CALL), (BPF_JUMP_IF_EQUAL, 0, 3, number), (BPF_LOAD, 0, 0, SECOND_ARGUMENT),
                  (BPF_JUMP_IF_EQUAL, 0, 1, argument), (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno)]
    # Who has a filter, and be it one that allows everything, cannot be made to execute a program by ptrace.
    steps.append((BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW))

    def prepare():
        leftovers.die_with_parent()
        _filter(steps)
    return prepare


def _trace(request, process, value=0):
    """ptrace(2)."""
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes = [ctypes.c_long] * 4
    if call(request, process, 0, value) == -1:
        raise ProcessLookupError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")


def _filter(steps):
    """Puts this process under a seccomp filter, of struct sock_filter."""
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.addressof(code))
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: PR_SET_SECCOMP")


class Turn:
    """Swap is the whole machine's, whatever the namespace: a test that turns some on waits until no other takeover runs,
    in any process, and none begins meanwhile. All others run side by side."""

    def __init__(self):
        self._mutex = threading.Lock()
        self._holders = 0
        self._room = None

    @contextlib.contextmanager
    def taken(self, alone=False):
        with self._mutex:
            # A test may have several sandboxes; what is held already is held for all of them.
            assert not (alone and self._holders), "alone, beside a sandbox of its own"
            if not self._holders:
                self._room = self._enter(fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            self._holders += 1
        try:
            yield
        finally:
            with self._mutex:
                self._holders -= 1
                if not self._holders:
                    os.close(self._room)

    @staticmethod
    def _enter(how):
        """Through a door that is shut while one waits to be alone: else it waits for ever."""
        folder = pathlib.Path(tempfile.gettempdir())
        with open(folder / "takeover-test-door", "w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            room = os.open(folder / "takeover-test-swap", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(room, how)
        return room


TURN = Turn()


class Sandbox:
    """A loop disk with an old OS on it, and the namespace it runs in. No wait takes longer than `timeout` seconds, and
    the namespace does not live longer than three times that. `alone` while it has swap."""

    def __init__(self, folder, *, size_mib=256, files=None, init=None, timeout=60, run_size="8m", block=0, alone=False,
                 features="", changed_by=(), file_system="ext4"):
        self._turn = TURN.taken(alone)
        self.folder = pathlib.Path(folder)
        self.disk = self.folder / "disk.img"
        self.console_path = self.folder / "console"
        self.timeout = timeout
        self.run_size = run_size
        self.block = block
        self.features = features
        self.changed_by = changed_by
        self.file_system = file_system
        self.files = files or {}
        self.init = init
        self.loop = None
        self.process = None
        self.timed_out = False
        self._is_told = False
        self._make_disk(size_mib)

    def _make_disk(self, size_mib):
        rootfs.make_file(self.disk, size_mib * MIB)
        rootfs.partition(self.disk, "label: dos\nstart=2048, size=4096, type=83\n"
                                    f"start={ROOT_START // 512}, type=83\n")

    def attach(self, *options):
        """Puts the disk behind a loop device, and gives its path."""
        # Files in memory have direct I/O only since Linux 6.6.
        direct = [] if self.disk.is_symlink() else ["--direct-io=on"]
        self.loop = subprocess.run(["losetup", "--show", "--find", *direct, *options, self.disk], check=True,
                                   capture_output=True, text=True).stdout.strip()
        return self.loop

    def start_as_shell(self, script, traceable=False):
        """Boots with a shell in the place of init, which runs this script: a deaf PID 1. Unless it is traceable it cannot
        be replaced by ptrace."""
        return self.start("", argument=script, traceable=traceable)

    def start(self, job, argument="", traceable=True, answers=None):
        """Boots the old OS with this shell script as its one job; for `answers` see `with_calls`."""
        root = self.folder / "root"
        make_root(root, {**self.files, "/job": job.encode()}, self.init)
        if self.file_system == "ext4":
            self._make_ext4(root)
        self.attach()
        subprocess.run(["partx", "--delete", self.loop], capture_output=True)
        subprocess.run(["partx", "--add", self.loop], check=True)
        if self.file_system == "xfs":
            self._make_xfs(root)
        shutil.rmtree(root)
        self.before = self.disk_bytes(0, MIB)
        self.console_path.write_bytes(b"")
        point = self.folder / "mnt"
        point.mkdir()
        numbers = {path: os.stat(path).st_rdev for path in (self.loop, self.loop + "p2")}
        number = {path: f"{os.major(value)} {os.minor(value)}" for path, value in numbers.items()}
        environment = {"PATH": os.environ["PATH"], "ROOT_DEVICE": self.loop + "p2", "POINT": str(point),
                       "CONSOLE": str(self.console_path), "DISK_NAME": os.path.basename(self.loop),
                       "DISK_NUMBER": number[self.loop], "ROOT_NUMBER": number[self.loop + "p2"],
                       "RUN_SIZE": self.run_size, "INIT_ARGUMENT": argument,
                       "FILE_SYSTEM": self.file_system}
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
             "bash", "-c", ENTER],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=open(self.console_path, "ab"),
            preexec_fn=leftovers.die_with_parent if traceable and not answers else with_calls(answers or {}))
        self._timer = threading.Timer(3 * self.timeout, self._on_timeout)
        self._timer.daemon = True
        self._timer.start()
        self.began = time.monotonic()
        return self

    def _make_ext4(self, root):
        length = self.disk.stat().st_size - ROOT_START
        wanted = (["-b", str(self.block)] if self.block else []) + (["-O", self.features] if self.features else [])
        subprocess.run(["mkfs.ext4", "-q", "-F", *wanted, "-d", root, "-E",
                        f"offset={ROOT_START},lazy_itable_init=1,nodiscard", self.disk, f"{length // 1024}k"],
                       check=True, capture_output=True)
        if self.changed_by:
            subprocess.run([*self.changed_by, f"{self.disk}?offset={ROOT_START}"], check=True, capture_output=True)

    def _make_xfs(self, root):
        tools = xfsprogs()
        library = {**os.environ, "LD_LIBRARY_PATH": f"{tools}/usr/lib/x86_64-linux-gnu"}
        subprocess.run([tools / "sbin/mkfs.xfs", "-q", "-f", "-K", *(["-b", f"size={self.block}"] if self.block else []),
                        self.loop + "p2"], check=True, capture_output=True, env=library)
        # In a mount namespace of its own, which takes the mount with it.
        subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-ec",
                        'mount -t xfs "$1" /mnt; cp -a "$2/." /mnt; umount /mnt', "sh", self.loop + "p2", root],
                       check=True, capture_output=True)

    def _on_timeout(self):
        self.timed_out = True
        self.process.kill()     # --kill-child: the namespace goes with it

    def __enter__(self):
        self._turn.__enter__()
        return self

    def __exit__(self, problem, *_):
        try:
            if problem and self.process and not self._is_told:
                print(f"the console said:\n{self.console()}")
            if self.process:
                self._timer.cancel()
                self.process.kill()
                self.process.wait()
            if self.loop:
                self._detach()
        finally:
            self._turn.__exit__(None, None, None)

    def _detach(self):
        """Gives the loop device back, once the last process of the namespace has let go of it."""
        end = time.monotonic() + 10
        while not leftovers.detach(self.loop):
            if time.monotonic() > end:
                raise AssertionError(f"{self.loop} is still in use")
            time.sleep(0.02)

    def console(self):
        return self.console_path.read_text(errors="replace")

    def state(self):
        """What the console says, and where each thread of the namespace is."""
        self._is_told = True

        def text(path, read=pathlib.Path.read_text):
            # Gone meanwhile; or, of a stack, that this kernel shows none.
            with contextlib.suppress(OSError):
                return str(read(path)).replace("\0", " ").strip()
            return "?"

        own = text(pathlib.Path(f"/proc/{self.process.pid}/ns/pid_for_children"), os.readlink)
        lines = ["the console said:", self.console(), "and there are:"]
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            if own == "?" or text(process / "ns/pid", os.readlink) != own:
                continue
            for thread in sorted(process.glob("task/*")):
                status = dict(re.findall(r"^(State|PPid|NSpid|SigPnd|ShdPnd):\t(.*)$", text(thread / "status"), re.M))
                lines += [f"{thread.name} ({text(thread / 'comm')}: {text(process / 'cmdline')}) {status} wchan "
                          f"{text(thread / 'wchan')} syscall {text(thread / 'syscall')}", text(thread / "stack")]
        return "\n".join(lines)

    def wait_for(self, pattern, timeout=None, interval=0.01):
        """Waits until the console shows a pattern; the match."""
        end = time.monotonic() + (timeout or self.timeout)
        while time.monotonic() < end:
            found = re.search(pattern, self.console())
            if found:
                return found
            if self.process.poll() is not None:
                found = re.search(pattern, self.console())
                if found:
                    return found
                break
            time.sleep(interval)
        raise AssertionError(f"{pattern!r} did not come; {self.state() if self.running() else 'it has ended'}")

    def wait_exit(self):
        """Waits until the namespace has ended, as it does on reboot."""
        try:
            self.process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the namespace did not end in {self.timeout} s; {self.state()}") from None
        if self.timed_out:
            raise AssertionError(f"the namespace was killed after {3 * self.timeout} s")
        return time.monotonic() - self.began

    def running(self):
        return self.process.poll() is None

    def pid1(self):
        """The namespace's PID 1, as this machine numbers it."""
        return self._child_of(self.process.pid)

    def worker(self):
        """The worker of stage 2: the child of PID 1 that has its command line; stage 1 may be another child by now. PID 1
        says that it starts one before it does."""
        end = time.monotonic() + 5
        while True:
            try:
                return self._child_of(self.pid1(), b"--alone")
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.001)

    def _child_of(self, parent, argument=b""):
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                text = path.read_text()
                command = (path.parent / "cmdline").read_bytes()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2:].split()
            if int(fields[1]) == parent and fields[0] != "Z" and argument in command:
                return int(path.parent.name)
        raise AssertionError(f"process {parent} has no child {argument}")

    def kill_worker(self):
        """SIGKILL for the worker, from outside; it must be in a PID namespace of ours."""
        os.kill(self._own(self.worker()), signal.SIGKILL)

    def stop_worker_at(self, wanted, calls=0):
        """Lets the worker go on from one system call to the next until the console shows a pattern, or a function says
        so, and for so many calls more; and leaves it stopped there."""
        is_there = wanted if callable(wanted) else lambda: re.search(wanted, self.console())
        worker = self._own(self.worker())
        end = time.monotonic() + self.timeout
        _trace(PTRACE_SEIZE, worker, PTRACE_O_TRACESYSGOOD)
        _trace(PTRACE_INTERRUPT, worker)
        # Where it was left stopped, its other threads, too, for which this one may wait.
        os.kill(worker, signal.SIGCONT)
        found = False
        while True:
            _, status = os.waitpid(worker, 0)
            assert os.WIFSTOPPED(status), f"the worker ended before {wanted!r} came"
            found = found or bool(is_there())
            if time.monotonic() > end or (found and calls == 0):
                break
            calls -= found
            received = os.WSTOPSIG(status)
            is_ours = status >> 16 or received == signal.SIGTRAP | 0x80
            _trace(PTRACE_SYSCALL, worker, 0 if is_ours else received)
        os.kill(worker, signal.SIGSTOP)
        _trace(PTRACE_DETACH, worker)
        assert found, f"{wanted!r} did not come"

    def spin(self, process):
        """Lets a stopped process go on, in a loop of one instruction. Only its own copy of the program has that."""
        self._own(process)
        end = time.monotonic() + self.timeout
        while (words := pathlib.Path(f"/proc/{process}/syscall").read_text().split())[0] == "running":
            assert time.monotonic() < end, f"{process} does not stop"
            time.sleep(0.001)
        with open(f"/proc/{process}/mem", "r+b", buffering=0) as memory:
            memory.seek(int(words[-1], 16))
            memory.write(b"\xeb\xfe")      # jmp .
        os.kill(process, signal.SIGCONT)

    @staticmethod
    def _own(process):
        """The same process; it must be in a PID namespace of ours."""
        namespace = os.stat(f"/proc/{process}/ns/pid").st_ino
        assert namespace != FIRST_PID_NAMESPACE, "this would be a process of the machine itself"
        return process

    def start_impatient(self, stall, job):
        """As `start`, but the plan gives a worker no more than so many seconds without progress. PID 1 is held until it
        does. The job waits for /go."""
        self.start(f"echo UP\nuntil [ -e /go ]; do sleep 0.02; done\n{job}")
        self.wait_for("UP")
        pid1 = self._own(self.pid1())
        root = pathlib.Path(f"/proc/{pid1}/root")
        self._wait_until(lambda: any(os.readlink(path).endswith("initctl")
                                     for path in pathlib.Path(f"/proc/{pid1}/fd").iterdir()))
        os.kill(pid1, signal.SIGSTOP)
        (root / "go").touch()
        # Bound over init, which is asked now.
        points = []
        self._wait_until(lambda: points.extend(line.split()[4] for line in open(f"/proc/{pid1}/mountinfo"))
                         or "/sbin/init" in points)
        ramfs = next(point for point in points if re.fullmatch(r"/\S*takeover-[0-9a-f]{16}", point))
        # In place: stage 1 holds a lock on it.
        with open(root / ramfs.lstrip("/") / "plan.json", "r+b") as file:
            plan = json.loads(file.read())
            assert plan[PLAN_STALL] == 300, plan
            plan[PLAN_STALL] = stall
            file.seek(0)
            file.truncate()
            file.write(json.dumps(plan, separators=(",", ":")).encode())
        os.kill(pid1, signal.SIGCONT)
        return self

    def _wait_until(self, is_so):
        end = time.monotonic() + self.timeout
        while not is_so():
            assert self.running() and time.monotonic() < end, self.console()
            time.sleep(0.005)

    def disk_bytes(self, start, length):
        with open(self.disk, "rb") as file:
            file.seek(start)
            return file.read(length)

    def read_ext4(self, start, path):
        """A file of the ext4 file system at `start` of the disk."""
        done = subprocess.run(["debugfs", "-R", f"cat {path}", f"{self.disk}?offset={start}"],
                              capture_output=True, check=True)
        return done.stdout
