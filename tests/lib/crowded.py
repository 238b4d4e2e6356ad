"""The disk of guests on which much else runs: Debian with systemd, podman, and those who end processes when memory is
short.

    Guest("systemd", [crowded.new_disk(folder)], ...)

They boot with the kernel of the guests with systemd.
"""

import rootfs

_SCRIPT = rootfs.HERE / "build-crowded-root.sh"
# Podman with all that it executes and links to, without its network: the guests' kernel has no veth.
_PACKAGES = ("podman", "conmon", "crun", "golang-github-containers-common", "golang-github-containers-image",
             "libgpgme11", "libassuan0", "libsubid4", "libyajl2", "libglib2.0-0", "earlyoom", "systemd-oomd")


def _root():
    packages = rootfs.packages("crowded-packages", _PACKAGES)
    key = rootfs.key_of(_SCRIPT.read_text(), rootfs.rootfs("systemd").name, packages.name)
    return rootfs.cached("crowded", key, lambda path: rootfs.run(
        "bash", _SCRIPT, path, rootfs.rootfs("systemd"), packages))


def new_disk(folder, name="disk.img"):
    """A fresh copy, in folder, of the disk."""
    return rootfs.variant_disk("crowded", _root(), folder, name)
