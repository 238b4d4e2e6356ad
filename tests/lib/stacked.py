"""Guests whose root is not simply a partition: LVM, dm-crypt, both, md, and a btrfs subvolume.

Their disks hold what Debian's own tools wrote: a short guest, from an initrd alone, makes each once
(rootfs.cached), since neither device-mapper nor md need be in the host's kernel. The same initrd boots them. It
looks at the root partition to see what there is to assemble, so that the same command line boots a balena image.
"""

import inspect
import pathlib
import sys
import tempfile

import rootfs
from rootfs import MIB, SECTOR

_SCRIPT = rootfs.HERE / "build-stacked-rootfs.sh"
_ROOT_SIZE = 1024 * MIB

# What the initrd's LUKS key is; no log may ever hold it.
LUKS_KEY = "LUKS-kEy-of-the-tests"

# In the guest that makes the disk, this one is nvme0n1 and the finished root file system is nvme0n2.
_LVM = f"""
lvm pvcreate --yes --quiet $device
lvm vgcreate --quiet vg0 $device
lvm lvcreate --yes --quiet --name root --size {_ROOT_SIZE // MIB}m vg0
lvm lvcreate --yes --quiet --name srv --size 64m vg0
lvm lvcreate --yes --quiet --name swap --size 128m vg0
mkfs.ext4 -q -L srv /dev/vg0/srv
mkswap /dev/vg0/swap >/dev/null
device=/dev/vg0/root
"""
# The cheapest key derivation there is: nothing here is secret, and the guest computes slowly.
_CRYPT = """
cryptsetup luksFormat --batch-mode --type luks2 --cipher aes-xts-plain64 --key-size 256 --hash sha256 \
    --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /key $device
cryptsetup open --key-file /key $device root
device=/dev/mapper/root
"""
_MD = """
mdadm --create /dev/md0 --run --metadata=1.2 --homehost=any --level=1 --raid-devices=2 $device missing
device=/dev/md0
"""
_COPY = "/usr/bin/dd if=/dev/nvme0n2 of=$device bs=1M conv=sparse,notrunc status=none\n"
_BTRFS = """
mkfs.btrfs --quiet $device
mkdir /from /to
mount -t btrfs $device /to
btrfs subvolume create /to/@ >/dev/null
mount -o ro -t ext4 /dev/nvme0n2 /from
cp -a /from/. /to/@/
umount /to
"""

KINDS = {
    # kind: how its layers come about, from the partition in $device on
    "lvm": _LVM + _COPY,
    "crypt": _CRYPT + _COPY,
    "crypt-lvm": _CRYPT + _LVM + _COPY,
    "md": _MD + _COPY,
    "btrfs": _BTRFS,
}

# What the root is mounted from.
ROOTS = {"lvm": "/dev/mapper/vg0-root", "crypt": "/dev/mapper/root", "crypt-lvm": "/dev/mapper/vg0-root",
         "md": "/dev/md0", "btrfs": "/dev/nvme0n1p2[/@]"}


def _built():
    def build(path):
        rootfs.run("bash", _SCRIPT, path, rootfs.rootfs("systemd"), LUKS_KEY)

    # Its kernel is that of the other root.
    key = rootfs.key_of(rootfs.script_text(_SCRIPT), rootfs.rootfs("systemd").name, LUKS_KEY)
    return rootfs.cached("stacked", key, build)


def initrd():
    """What assembles the root and mounts it."""
    return _built() / "initrd"


_LAYOUT = f"""\
label: dos
label-id: 0x0d150001
start={rootfs.P1_START // SECTOR}, size={rootfs.P1_SIZE // SECTOR}, type=c
start={rootfs.ROOT_START // SECTOR}, size={{size}}, type={{type}}
"""


def _prepare(path, kind):
    # guest.py needs this module for its kinds.
    import guest
    script = f"device=/dev/nvme0n1p2\n{KINDS[kind]}"
    with tempfile.TemporaryDirectory(dir=rootfs.cache_dir(), prefix=".staging-") as staging:
        root = pathlib.Path(staging) / "root.img"
        rootfs.make_file(root, _ROOT_SIZE)
        rootfs.make_ext4(root, 0, _ROOT_SIZE, "debian-root", "3f0c6a4e-5a5b-4d0e-9c5a-0d1500000002", _built() / "root")
        with guest.Guest(kind, [path, root], files={"prepare.sh": script}, options="rdinit=/prepare",
                         name=f"{kind} (its disk is made)", timeout=300) as maker:
            maker.wait_for("^PREPARED", 300)
            maker.wait_exit(30)


def _build_disk(path, kind, size):
    rootfs.make_file(path, size)
    rootfs.partition(path, _LAYOUT.format(size=(size - rootfs.ROOT_START) // SECTOR,
                                          type={"lvm": "8e", "md": "fd"}.get(kind, "83")))
    rootfs.make_fat(path, rootfs.P1_START, rootfs.P1_SIZE, "BOOT", "0d150001", 16, 4)
    rootfs.fat_put(path, rootfs.P1_START, {"/old-os.txt": b"the boot partition of the old OS\n"})
    _prepare(path, kind)


def disk(kind, size_mib=rootfs.DEFAULT_DISK_MIB):
    """The pristine disk of the old OS of a kind of KINDS. Copy it before booting it."""
    key = rootfs.key_of(_built().name, kind, KINDS[kind], size_mib, _LAYOUT, _ROOT_SIZE, rootfs.builder_text(),
                        inspect.getsource(_build_disk), inspect.getsource(_prepare))
    return rootfs.cached(f"disk-{kind}", key, lambda path: _build_disk(path, kind, size_mib * MIB))


if __name__ == "__main__":
    for which in sys.argv[1:] or KINDS:
        print(disk(which))
