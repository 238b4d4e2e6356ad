"""A FUSE file system whose server stops answering: what an NFS mount is whose network has gone.

    with StuckFuse() as fuse:
        fuse.mount(box.pid1(), "/net")

The server is this process, so it outlives the namespace it is mounted in: one that is killed would fail every request
at once instead. It answers until POINT/sub of the namespace is a mount of its own, and never again. Whoever walks to
POINT/sub then waits for ever, and no signal ends that.

Numbers and structures are those of include/uapi/linux/fuse.h, protocol 7.31.
"""

import ctypes
import errno
import os
import struct
import time

LOOKUP, FORGET, GETATTR, INIT, BATCH_FORGET = 1, 2, 3, 26, 42
CLONE_NEWNS = 0x20000
DIRECTORY = 0o40755
LIBC = ctypes.CDLL(None, use_errno=True)


def attributes(node):
    return struct.pack("<6Q3I7I", node, 0, 0, 0, 0, 0, 0, 0, 0, DIRECTORY, 2, 0, 0, 0, 4096, 0)


def answer(request):
    """The reply to a request: an error number and the bytes."""
    _, code, _, node = struct.unpack_from("<IIQQ", request)
    if code == INIT:
        return 0, struct.pack("<4I2H2I2HI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0)
    if code == GETATTR:
        return 0, struct.pack("<QII", 0, 0, 0) + attributes(node)
    if code == LOOKUP and request[40:] == b"sub\0":
        # Valid for no time at all: each walk asks again.
        return 0, struct.pack("<4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2)
    return -errno.ENOENT if code == LOOKUP else -errno.ENOSYS, b""


class StuckFuse:
    """The server, and its end of the file system."""

    def __enter__(self):
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
        return self

    def __exit__(self, *_):
        os.close(self.device)

    def mount(self, process, point):
        """Mounts it in the mount namespace of a process, and a tmpfs on its directory `sub`; answers until then."""
        namespace = os.open(f"/proc/{process}/ns/mnt", os.O_RDONLY)
        child = os.fork()
        if child == 0:
            os._exit(0 if self._mount_in(namespace, point) else 1)
        os.close(namespace)
        while True:
            self._serve(True)
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                assert status == 0, "the FUSE file system could not be mounted"
                return

    def _mount_in(self, namespace, point):
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0".encode()
        if (LIBC.setns(namespace, CLONE_NEWNS) != 0
                or LIBC.mount(b"stuck", point.encode(), b"fuse.stuck", 0, options) != 0):
            return False
        # The server's end is the other process's alone: when that closes it, whoever waits gets an error.
        os.close(self.device)
        return LIBC.mount(b"below", f"{point}/sub".encode(), b"tmpfs", 0, None) == 0

    def swallow(self, seconds=30):
        """Takes the next request, and does not answer it: who has asked cannot be killed any more."""
        end = time.monotonic() + seconds
        while not self._serve(False):
            assert time.monotonic() < end, "nobody asked for anything"

    def _serve(self, answers):
        """Takes a request if there is one; whether there was."""
        try:
            request = os.read(self.device, 1 << 17)
        except (PermissionError, BlockingIOError):
            # Not mounted yet, or nothing asked.
            time.sleep(0.005)
            return False
        _, code, unique = struct.unpack_from("<IIQ", request)
        if code in (FORGET, BATCH_FORGET):
            return False
        if not answers:
            return True
        error, reply = answer(request)
        os.write(self.device, struct.pack("<IiQ", 16 + len(reply), error, unique) + reply)
        return True
