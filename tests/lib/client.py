"""Runs the program as an ordinary command against the servers of the tests, and looks at what it says and what it leaves.

Everything that it says, at the most talkative level, is searched for what must be kept secret.
"""

import concurrent.futures
import gzip
import itertools
import os
import pathlib
import random
import re
import signal
import stat
import struct
import subprocess
import tempfile
import threading
import time

import leftovers
import runner
import servers

TAKEOVER = runner.program()
# What may stand in no output, whatever the level. Tests with secrets of their own add theirs.
SECRETS = ["sEcReT"]
# Exit codes: 1 failed, 3 refused by a check.
FAILED, REFUSED, EITHER = (1,), (3,), (1, 3)
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")

_numbers = itertools.count(1)


def make_image(size, seed=0):
    """A disk image that does not pack: an MBR with one partition, and bytes from a fixed seed."""
    size = size // 512 * 512
    image = bytearray(random.Random(seed).randbytes(size))
    image[440:512] = struct.pack("<6x4xB3xII48xBB", 0x83, 8, size // 512 - 8, 0x55, 0xaa)
    return bytes(image)


def pack(image, level=1):
    """As gzip, the same bytes each time."""
    return gzip.compress(image, level, mtime=0)


class Run:
    """A run of the program: its exit code, what it said, its peak of memory in KiB, and the folder that it worked in."""

    def __init__(self, arguments, *, within=(), environment=None, cwd=None, work=None, secrets=()):
        self.work = work
        self.secrets = [*SECRETS, *secrets]
        self.command = [str(word) for word in (*within, TAKEOVER, *arguments)]
        self._output = tempfile.TemporaryFile()
        # Without the machine's own proxies.
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, cwd=cwd or work,
            env={"PATH": os.environ["PATH"], **(environment or {})}, preexec_fn=leftovers.die_with_parent)
        self.code = None

    def wait(self, timeout=120):
        """Waits for its end; after `timeout` seconds it is ended, which is a failure of the test."""
        is_late = []
        timer = threading.Timer(timeout, lambda: (is_late.append(True), self.send(signal.SIGKILL)))
        timer.start()
        self.peak = 0
        try:
            while not self.is_over:
                self.peak = peak_of(self.process.pid) or self.peak
                time.sleep(0.005)
        finally:
            timer.cancel()
        self.code = self.process.wait()
        self._output.seek(0)
        self.said = self._output.read().decode(errors="replace")
        self._output.close()
        found = [secret for secret in self.secrets if secret in self.said]
        assert not found, f"secrets in what it says: {found}\n{self}"
        assert not is_late, f"not over after {timeout} s\n{self}"
        return self

    @property
    def is_over(self):
        """Whether it has ended; it can be waited for all the same, which Popen.poll() makes an end of."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def send(self, number):
        """A signal. Nobody but wait() takes its end, so the number is still its own."""
        os.kill(self.process.pid, number)

    def kill(self):
        """SIGKILL, as by a power cut."""
        self.send(signal.SIGKILL)
        self.process.wait()
        self._output.close()

    def __str__(self):
        said = getattr(self, "said", "(still running)")
        return f"{' '.join(self.command)}\nexit code {self.code}\n{said[-6000:]}"

    @property
    def error(self):
        """What the error says: its line, and those behind it."""
        _, found, rest = self.said.partition("error: ")
        return rest if found else ""

    def left(self):
        """What lies in the folder that it worked in: name -> path."""
        return {path.name: path for path in sorted(self.work.iterdir())}

    def check_success(self):
        assert self.code == 0, str(self)
        return self

    def check_failure(self, *words, codes=EITHER):
        """It has ended as it should, and its error has a match for each of these regular expressions."""
        assert self.code in codes, str(self)
        assert self.error, f"no error is said\n{self}"
        missing = [word for word in words if not re.search(word, self.error, re.I)]
        assert not missing, f"the error says nothing of {missing}\n{self}"
        assert "panicked" not in self.said, str(self)
        return self

    def check_downloaded(self, content):
        """The one file that is left is this one, and nobody else may read it; beside it there may be what is known of it, by
        which a next run sees that it need not be fetched again."""
        self.check_success()
        left = self.left()
        check_private(left)
        left = {name: path for name, path in left.items() if not is_state(path)}
        assert len(left) == 1, f"{sorted(left)} is left\n{self}"
        path = next(iter(left.values()))
        assert servers.sha256(path) == servers.sha256(content), f"{path}: another content\n{self}"
        return self

    def check_nothing_left(self):
        assert not self.left(), f"{sorted(self.left())} is left\n{self}"
        return self

    def check_not_finished(self, *contents):
        """What is left of it, if anything, is for nobody else, is not called as the finished file is, and holds nothing
        but what was sent."""
        left = self.left()
        check_private(left)
        for path in left.values():
            assert path.name not in ("image.gz", "image.img"), f"{path} looks finished\n{self}"
        return self


def is_state(path):
    """Whether it is the small file that a download is taken up again by."""
    return path.name.endswith(".state") and path.lstat().st_size <= 4096


def peak_of(process):
    """The most memory that a process has had so far, in KiB. Not ru_maxrss: that counts what the forked Python had, too."""
    try:
        found = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{process}/status").read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


def check_private(left):
    for path in left.values():
        status = path.lstat()
        assert stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600, (path, oct(status.st_mode))


def new_work(folder):
    """A folder to work in, that whoever runs the program may write to."""
    work = pathlib.Path(folder) / f"work-{next(_numbers)}"
    work.mkdir()
    work.chmod(0o777)
    return work


def start(folder, url, *options, work=None, **more):
    """`takeover -d -i URL`, started."""
    work = work or new_work(folder)
    return Run(["-d", "-i", url, "-w", work, "--log-level", "trace", *options], work=work, **more)


def download(folder, url, *options, timeout=120, **more):
    """`takeover -d -i URL`, to its end."""
    return start(folder, url, *options, **more).wait(timeout)


def scan(folder, url, *options, timeout=120, **more):
    """`takeover scan URL`, in an empty folder."""
    return Run(["scan", "--log-level", "trace", *options, url], work=new_work(folder), **more).wait(timeout)


def at_once(function, values, count=12):
    """Calls a function with each of the values, some at the same time; the results, or the first error."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, values))


def with_names(folder, hosts, resolvers=""):
    """What a program is to be started by, as root, to see these lines as /etc/hosts and /etc/resolv.conf."""
    folder = pathlib.Path(folder) / f"names-{next(_numbers)}"
    folder.mkdir()
    (folder / "hosts").write_text(hosts)
    (folder / "resolv.conf").write_text(resolvers)
    script = f'mount --bind {folder}/hosts /etc/hosts && mount --bind {folder}/resolv.conf /etc/resolv.conf && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")


def with_small_disk(work, size):
    """What a program is to be started by, as root, to have but so much room in its folder; what is left there is not to
    be seen from outside."""
    script = f'mount -t tmpfs -o size={size},mode=0777 none "{work}" && cd "{work}" && {{ "$@"; code=$?; ls -la; exit $code; }}'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
