"""The disk of guests with other inits than systemd and sysvinit: one for all of them, the kernel's command line chooses.

    Guest("systemd", [inits.new_disk(folder)], options=inits.option("runit"), reboot=False, ...)

They boot with the kernel of the guests with systemd. What is on the disk after a takeover has no such init, so it is not
booted with that option.
"""

import pathlib

import rootfs
from rootfs import MIB, ROOT_START, SECTOR

_SCRIPT = rootfs.HERE / "build-init-root.sh"
_SIZE = rootfs.DEFAULT_DISK_MIB * MIB
_PACKAGES = ("runit", "runit-init", "openrc", "libeinfo1", "librc1", "s6", "libs6-2.11", "libskarnet2.13",
             "libexecline2.9")
_LAYOUT = f"label: dos\nlabel-id: 0x{rootfs.DISK_ID}\nstart=2048, size={rootfs.P1_SIZE // SECTOR}, type=c\n" \
          f"start={ROOT_START // SECTOR}, type=83\n"

# What the page of a takeover calls each of them, and how it is handed over.
INITS = {"busybox": ("busybox", "by ptrace"), "runit": ("runit", "by ptrace"), "s6": ("s6-svscan", "by ptrace"),
         "openrc": ("openrc-init", "when asked; else by ptrace")}


def option(name):
    """What tells the kernel to start this init."""
    return f"init=/inits/{name}"


def _packages():
    def build(path):
        path.mkdir()
        rootfs.run("apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", *_PACKAGES, cwd=path)
    return rootfs.cached("init-packages", rootfs.key_of(*_PACKAGES), build)


def _root():
    key = rootfs.key_of(_SCRIPT.read_text(), rootfs.rootfs("systemd").name, _packages().name)
    return rootfs.cached("inits", key, lambda path: rootfs.run(
        "bash", _SCRIPT, path, rootfs.rootfs("systemd"), _packages()))


def new_disk(folder, name="disk.img"):
    """A fresh copy, in folder, of the disk."""
    def build(path):
        rootfs.make_file(path, _SIZE)
        rootfs.partition(path, _LAYOUT)
        rootfs.make_ext4(path, ROOT_START, _SIZE - ROOT_START, "debian-root", "3f0c6a4e-5a5b-4d0e-9c5a-0d1500000002",
                         _root())
    key = rootfs.key_of(_root().name, _LAYOUT, rootfs.builder_text())
    return rootfs.copy_sparse(rootfs.cached("disk-inits", key, build), pathlib.Path(folder) / name)
