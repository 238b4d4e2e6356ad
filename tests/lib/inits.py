"""The disk of guests with other inits than systemd and sysvinit: one for all of them, the kernel's command line chooses.

    Guest("systemd", [inits.new_disk(folder)], options=inits.option("runit"), reboot=False, ...)

They boot with the kernel of the guests with systemd. What is on the disk after a takeover has no such init, so it is not
booted with that option.
"""

import rootfs

_SCRIPT = rootfs.HERE / "build-init-root.sh"
_PACKAGES = ("runit", "runit-init", "openrc", "libeinfo1", "librc1", "s6", "libs6-2.11", "libskarnet2.13",
             "libexecline2.9")
# What the page of a takeover calls each of them, and how it is handed over.
INITS = {"busybox": ("busybox", "by ptrace"), "runit": ("runit", "by ptrace"), "s6": ("s6-svscan", "by ptrace"),
         "openrc": ("openrc-init", "when asked; else by ptrace")}


def option(name):
    """What tells the kernel to start this init."""
    return f"init=/inits/{name}"


def _root():
    packages = rootfs.packages("init-packages", _PACKAGES)
    key = rootfs.key_of(_SCRIPT.read_text(), rootfs.rootfs("systemd").name, packages.name)
    return rootfs.cached("inits", key, lambda path: rootfs.run(
        "bash", _SCRIPT, path, rootfs.rootfs("systemd"), packages))


def new_disk(folder, name="disk.img"):
    """A fresh copy, in folder, of the disk."""
    return rootfs.variant_disk("inits", _root(), folder, name)
