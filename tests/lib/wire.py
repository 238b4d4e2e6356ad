"""The other end of a guest's network card: a cable to this program, over the loopback interface and to nowhere else.

    with Wire() as wire, Guest(..., qemu_args=wire.arguments) as guest:
        ...
        wire.datagrams(514)     # what was sent by UDP to that port, in order

QEMU sends each frame of the card as it is (-netdev socket,udp=). Nothing answers.
"""

import socket
import struct

SO_RCVBUFFORCE = 33
ADDRESS = "10.9.0.1"
# What a job runs first: the card is eth0.
JOB = f"""
modprobe virtio_net
busybox ip link set eth0 up && busybox ip addr add 10.9.0.2/24 dev eth0 && busybox arp -s {ADDRESS} 52:54:00:00:00:99 || exit 1
"""


class Wire:
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        # It is read when all is over.
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.socket.setblocking(False)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            card = other.getsockname()[1]
        here = self.socket.getsockname()[1]
        self.arguments = ["-netdev", f"socket,id=wire0,udp=127.0.0.1:{here},localaddr=127.0.0.1:{card}",
                          "-device", "virtio-net-pci,netdev=wire0"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def datagrams(self, port):
        """The contents of the datagrams that were sent by IPv4 to this port of ADDRESS since the last time."""
        found = []
        while True:
            try:
                frame = self.socket.recv(65536)
            except BlockingIOError:
                return found
            if frame[12:14] != b"\x08\x00" or frame[23] != 17 or frame[30:34] != socket.inet_aton(ADDRESS):
                continue
            start = 14 + 4 * (frame[14] & 15)
            to, length = struct.unpack_from(">HH", frame, start + 2)
            if to == port:
                found.append(frame[start + 8:start + length])
