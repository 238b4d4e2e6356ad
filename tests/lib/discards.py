"""A disk that has no zeros to give, and discards whole units of its own only, as eMMC without TRIM and virtual disks do:
what it is asked for is answered by us, by seccomp_unotify(2).

    with WholeUnits(loop, 4 * MIB) as disk:
        subprocess.run(command, preexec_fn=disk.prepare)
"""

import array
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import threading

import leftovers
from namespace import (BPF_JUMP_IF_EQUAL, BPF_LOAD, BPF_RETURN, DISCARD, NUMBER_OF_CALL, PUNCH, SECCOMP_RET_ALLOW,
                       SECCOMP_RET_ERRNO, SECOND_ARGUMENT)

# <linux/seccomp.h>; struct seccomp_notif has 80 bytes, the arguments from byte 32 on.
CALL, SET_MODE_FILTER, NEW_LISTENER, USER_NOTIF = 317, 1, 1 << 3, 0x7fc00000
RECEIVE, SEND, ARGUMENTS = 0xc0502100, 0xc0182101, 32


class WholeUnits:
    """The disk, for the programs that `prepare` is the preexec_fn of; `asked` has what they wanted to be discarded, and how
    much of that was."""

    def __init__(self, device, unit):
        self.unit, self.asked = unit, []
        self._device = os.open(device, os.O_RDWR)
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._theirs.close()
        self._thread.join()
        os.close(self._device)

    def prepare(self):
        leftovers.die_with_parent()
        steps = []
        for (number, argument), answer in ((PUNCH, SECCOMP_RET_ERRNO | errno.EOPNOTSUPP), (DISCARD, USER_NOTIF)):
            steps += [(BPF_LOAD, 0, 0, NUMBER_OF_CALL), (BPF_JUMP_IF_EQUAL, 0, 3, number), (BPF_LOAD, 0, 0, SECOND_ARGUMENT),
                      (BPF_JUMP_IF_EQUAL, 0, 1, argument), (BPF_RETURN, 0, 0, answer)]
        steps.append((BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW))
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        program = struct.pack("@HP", len(steps), ctypes.addressof(code))
        listener = ctypes.CDLL(None, use_errno=True).syscall(CALL, SET_MODE_FILTER, NEW_LISTENER, program)
        if listener < 0:
            raise OSError(ctypes.get_errno(), "seccomp: SECCOMP_FILTER_FLAG_NEW_LISTENER")
        self._theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])

    def _serve(self):
        _, control, _, _ = self._ours.recvmsg(1, socket.CMSG_LEN(4))
        if not control:
            return
        listener = struct.unpack("i", control[0][2])[0]
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while not poll.poll()[0][1] & select.POLLHUP:
            request = bytearray(80)
            fcntl.ioctl(listener, RECEIVE, request)
            number, process = struct.unpack_from("=QI", request)
            with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
                memory.seek(struct.unpack_from("=3Q", request, ARGUMENTS)[2])
                start, length = struct.unpack("=2Q", memory.read(16))
            first = -(-start // self.unit) * self.unit
            whole = max((start + length) // self.unit * self.unit - first, 0)
            if whole:
                fcntl.ioctl(self._device, DISCARD[1], struct.pack("=2Q", first, whole))
            self.asked.append((start, length, whole))
            fcntl.ioctl(listener, SEND, struct.pack("=QqiI", number, 0, 0, 0))
        os.close(listener)
