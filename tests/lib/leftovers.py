"""The folder of a test, and what is done about those of runs that were killed.

Whoever uses a folder holds a lock on it, which ends with the process. A folder whose lock can be had is a left-over, and
so is a loop device whose backing file lies in one, or is deleted, and the throttle of one that has no file. Everything
else is left alone: folders with other names (older checkouts do not lock theirs), those of other users, devices that are
in use.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time

# mkdtemp adds eight characters, none of them "-".
_PREFIX = "takeover-test-run-"
_NAME = re.compile(r"takeover-test-(run-)?[a-z0-9_]{8}")
_PR_SET_PDEATHSIG = 1
# <linux/loop.h>: the request, and the size of what it fills.
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO64 = 232
#: Of the root's control group, where version 1 of the block I/O controller is mounted.
THROTTLES = pathlib.Path("/sys/fs/cgroup/blkio")


def die_with_parent():
    """For preexec_fn: SIGKILL for the program when the thread that started it ends. prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def test_folder():
    """A new folder in the temporary directory, locked until it is removed at the end."""
    while True:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _open(folder)
        if lock is None:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Between its making and its locking another run may have taken it for a left-over.
        if folder.exists():
            break
        os.close(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove(place=None):
    """Removes the folders, the throttles and the loop devices that killed runs of this user have left, in this place or
    the temporary directory."""
    place = pathlib.Path(place or tempfile.gettempdir())
    for loop in _loops(place):
        if loop.path.name.endswith(" (deleted)"):
            detach(loop.device)
    for folder in place.glob(_PREFIX + "*"):
        lock = _open(folder)
        if lock is None:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            if all([detach(loop.device) for loop in _loops(place) if loop.path.parent == folder]):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
    remove_throttles()


def remove_throttles(folder=THROTTLES):
    """Ends the throttles of loop devices that have no file: who gets such a device next would wait for a slow disk."""
    for path in folder.glob("blkio.throttle.*_bps_device"):
        try:
            for line in path.read_text().splitlines():
                number = line.split()[0]
                if number.startswith("7:") and not pathlib.Path(f"/sys/dev/block/{number}/loop").exists():
                    path.write_text(f"{number} 0\n")
        except OSError:
            pass                # not of this user


def _open(folder):
    """A descriptor of a folder of this user; None when it is none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    if _NAME.fullmatch(folder.name) and os.fstat(descriptor).st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    return None


@dataclasses.dataclass
class _Loop:
    """What the kernel says of a loop device: struct loop_info64 of <linux/loop.h>, and sysfs."""
    device: str
    #: The backing file as this mount namespace may or may not see it; " (deleted)" is added when it is.
    path: pathlib.Path
    #: Of the backing file: its file system, its inode, and its own number when it is a block device.
    file_system: int
    inode: int
    number: int


def _all_loops():
    for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        device = f"/dev/{entry.parent.parent.name}"
        try:
            path = entry.read_text().removesuffix("\n")
            with open(device, "rb") as file:
                information = fcntl.ioctl(file, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64))
        except OSError:
            continue            # it has just gone
        file_system, inode, number = struct.unpack_from("=3Q", information)
        yield _Loop(device, pathlib.Path(path), file_system, inode, number)


def _loops(place):
    """The loop devices on a file in the folder of a test there, or on one that is deleted and was in one."""
    for loop in _all_loops():
        folder = loop.path.parent
        if folder.parent == place and _NAME.fullmatch(folder.name) and \
                (loop.path.name.endswith(" (deleted)") or _is_on(loop)):
            yield loop


def _is_on(loop):
    """Whether its path leads to the very file it is on: the list of loop devices is that of all containers."""
    try:
        found = loop.path.lstat()
    except OSError:
        return False
    return (found.st_ino, found.st_dev) == (loop.inode, loop.file_system)


def partitions_of(device):
    """The partitions that the kernel knows of a disk."""
    name = os.path.basename(device)
    return list(pathlib.Path(f"/sys/class/block/{name}").glob(f"{name}p*"))


def let_go(device):
    """Detaches a loop device that nothing lies on, and waits until it is: whoever looks at all of them at that moment
    puts it off."""
    subprocess.run(["losetup", "--detach", device], check=True)
    end = time.monotonic() + 10
    while pathlib.Path(f"/sys/block/{os.path.basename(device)}/loop").exists():
        if time.monotonic() > end:
            raise TimeoutError(f"somebody has {device} open")
        time.sleep(0.002)


def detach(device, depth=4):
    """Frees a loop device, and those that lie on it, and forgets its partitions; whether it could: not while anything on
    it is mounted or claimed."""
    try:
        # Fails when a partition is claimed, too. open(2), O_EXCL.
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        number = os.stat(device).st_rdev
    except OSError:
        return False
    upper = [loop.device for loop in _all_loops() if loop.number == number]
    if upper and (depth == 0 or not all([detach(other, depth - 1) for other in upper])):
        return False
    if partitions_of(device):
        subprocess.run(["partx", "--delete", device], capture_output=True)
    if partitions_of(device):
        return False
    return subprocess.run(["losetup", "--detach", device], capture_output=True).returncode == 0
