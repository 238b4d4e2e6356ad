"""An automount for the tests: `automount.py PID PLACE DEVICE` mounts the block device at the place, in the mount namespace
of that process, as soon as somebody looks into it. Says READY in /dev/automount there when it waits for that.

It speaks to the kernel as systemd does for its automount units: a direct mount of autofs, its packets of version 5 from a
pipe, AUTOFS_IOC_READY as the answer (Documentation/filesystems/autofs.rst in Linux).
"""

import ctypes
import fcntl
import os
import stat
import struct
import sys

CLONE_NEWNS = 0x20000
MS_RDONLY = 1
AUTOFS_IOC_READY = 0x9360
MISSING_DIRECT = 5
PACKET = 304    # struct autofs_v5_packet, on 64-bit machines


def call(function, *arguments):
    if function(*arguments) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def main(pid, place, device):
    libc = ctypes.CDLL(None, use_errno=True)
    number = os.stat(device).st_rdev
    with open(f"/proc/{pid}/ns/mnt") as namespace:
        call(libc.setns, namespace.fileno(), CLONE_NEWNS)
    node = b"/dev/automounted"
    os.mknod(node, stat.S_IFBLK | 0o600, number)
    requests, kernels_end = os.pipe()
    options = f"fd={kernels_end},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    call(libc.mount, b"automount", place.encode(), b"autofs", 0, options.encode())
    os.close(kernels_end)
    trigger = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    with open("/dev/automount", "w") as ready:
        ready.write("READY\n")
    while packet := os.read(requests, PACKET):
        _, kind, token = struct.unpack_from("=iiI", packet)
        if kind == MISSING_DIRECT:
            call(libc.mount, node, place.encode(), b"ext4", MS_RDONLY, None)
            fcntl.ioctl(trigger, AUTOFS_IOC_READY, token)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
