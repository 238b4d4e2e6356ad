"""The network of a guest that reaches nothing but what a test serves: QEMU's user-mode network, closed, with a few ports of
a machine that is not there led to ports of this one.

The card is eth0, 10.0.2.15; nothing in the guest's root sets it up by itself.
"""

import pathlib
import shutil
import subprocess
import tempfile

import rootfs

ADDRESS, GATEWAY = "10.0.2.15/24", "10.0.2.2"
SERVER, SECOND = "10.0.2.100", "10.0.2.101"


def arguments(kind, forwards):
    """For Guest(qemu_args=...): forwards is (address in the guest, port there) -> port of this machine's loopback."""
    # A program for each connection: QEMU's other way (-tcp:) opens one connection at the start, and only that.
    rules = "".join(f",guestfwd=tcp:{address}:{port}-cmd:/bin/busybox nc 127.0.0.1 {here}"
                    for (address, port), here in forwards.items())
    card = "virtio-net-device" if kind in ("arm64", "armhf") else "virtio-net-pci"
    return ["-netdev", f"user,id=net0,restrict=on{rules}", "-device", f"{card},netdev=net0"]


def with_networkd(hosts):
    """What a job runs first: the address is set as many a Debian sets it; hosts is name -> address."""
    lines = "\n".join(f"{address} {name}" for name, address in hosts.items())
    return f"""
modprobe virtio_net
mkdir -p /etc/systemd/network
cat >/etc/systemd/network/10-wired.network <<EOF
[Match]
Name=eth0
[Network]
Address={ADDRESS}
Gateway={GATEWAY}
EOF
cat >>/etc/hosts <<EOF
{lines}
EOF
systemctl start systemd-networkd
for try in $(seq 300); do busybox ip addr show dev eth0 | grep -q 'inet {ADDRESS}' && break; sleep 0.1; done
busybox ip addr show dev eth0
"""


_RESCUE_INIT = f"""#!/bin/busybox sh
# A rescue system that runs from memory: the network, and one job. The kernel has the drivers built in.
PATH=/bin
mkdir -p /dev /proc /sys /tmp /run /etc
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
busybox ip link set lo up
busybox ip link set eth0 up
busybox ip addr add {ADDRESS} dev eth0
busybox ip route add default via {GATEWAY}
sh /job.sh </dev/console >/dev/console 2>&1
busybox poweroff -f
"""


def rescue_initrd(path, files):
    """An initrd that is a whole rescue system for a kernel with its drivers built in: its /job.sh, and what else is in files (name -> bytes or path)."""
    rootfs.initrd(path, _RESCUE_INIT, [])
    busybox = rootfs.rootfs() / "bin/busybox"
    with tempfile.TemporaryDirectory(dir=pathlib.Path(path).parent) as staging:
        top = pathlib.Path(staging)
        (top / "bin").mkdir()
        (top / "bin/sh").symlink_to("busybox")
        for name, content in files.items():
            target = top / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copy(content, target)
            target.chmod(0o755)
        names = "\n".join(sorted(str(name.relative_to(top)) for name in top.rglob("*"))) + "\n"
        # Behind the first archive: the kernel unpacks one after the other.
        with open(path, "ab") as output:
            output.write(bytes(-output.tell() % 512))
            output.flush()
            subprocess.run([busybox, "cpio", "-o", "-H", "newc", "-R", "0:0"], cwd=top, input=names.encode(),
                           stdout=output, stderr=subprocess.DEVNULL, check=True)
    return path
