"""Disk images shaped like balenaOS, small enough for tests, that say on the
console what they find when they boot.

    small   about 128 MiB, MBR, FAT16 boot partition
    demo    about 900 MiB, MBR, FAT32 boot partition, filled like a real image
    gpt     about 150 MiB, GPT, boots by itself through UEFI
    raspberrypi3-64, raspberrypi3
            128 MiB, MBR, FAT32 boot partition; arm64 and armv7
    aarch64 about 150 MiB, GPT, boots by itself through UEFI; arm64

Each is built once and kept (rootfs.cached). An image's rootA is the size of a
thumb: busybox and an init that prints NEWOS lines and powers off. Its ext4 is
marked read-only, so that a disk still equals its image after it has booted.
"""

import collections
import hashlib
import json
import os
import pathlib
import random
import stat
import subprocess
import sys
import tempfile
import zipfile

import arm
import rootfs
from rootfs import MIB, SECTOR

ALIGNMENT = 4 * MIB
# What a PC finds that starts by a BIOS: code that lets it go on to the next disk (INT 18h).
BOOT_CODE = b"\xcd\x18\xeb\xfe"

Partition = collections.namedtuple("Partition", "number label start size")

_INIT = r"""#!/bin/sh
# The new OS of the tests: says what it finds on its boot partition, powers off.
PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
[ -e /dev/null ] || mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
say() { echo "NEWOS: $*"; }
sum() { sha256sum "$1" | cut -d ' ' -f 1; }
say booted

# The partition that the root is on, and its disk.
while read -r _ _ device _ point _; do
    [ "$point" = / ] && break
done </proc/self/mountinfo
root=$(readlink -f "/sys/dev/block/$device")
disk=${root%/*}
disk=${disk##*/}
case $disk in *[0-9]) p=p ;; *) p= ;; esac
say "root on ${root##*/}, kernel $(uname -r), $(free -m | awk 'NR == 2 { print $2 }') MB"

for module in fat vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 \
    virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net; do
    insmod /modules/$module.ko
done

# As NetworkManager does what a keyfile says: the fixed address of a cable; and whether its router answers.
reach() {
    ipv4() { sed -n '/^\[ipv4\]/,/^\[[^i]/s/^address1=//p' "$1" | head -n 1; }
    for keyfile in system-connections/*; do
        address=$(ipv4 "$keyfile")
        [ -n "$address" ] && [ -e /sys/class/net/eth0 ] || continue
        ip link set eth0 up
        ip addr add "${address%,*}" dev eth0
        ip route add default via "${address#*,}"
        answer=SILENT
        ping -c 1 -W 10 "${address#*,}" >/dev/null && answer=there
        say "eth0 has ${address%,*}, its router ${address#*,} is $answer"
    done
}

# Which boot entry brought us here.
if [ -d /sys/firmware/efi ] && insmod /modules/efivarfs.ko && mount -t efivarfs e /sys/firmware/efi/efivars; then
    cd /sys/firmware/efi/efivars
    global=8be4df61-93ca-11d2-aa0d-00e098032b8c
    words() { tail -c +$2 "$1-$global" | hexdump -v -e '1/2 "%04X "'; }
    current=$(words BootCurrent 5); current=${current% }
    label=
    for code in $(words "Boot$current" 11); do
        [ "$code" = 0000 ] && break
        label=$label$(printf "\\x${code#00}")
    done
    say "efi boot current=$current label=$label order=$(words BootOrder 5)"
    cd /
fi

mount -t tmpfs none /run
mkdir /run/boot /run/data
if mount -t vfat -o ro "/dev/$disk${p}1" /run/boot; then
    cd /run/boot
    if [ -s config.json ] && grep -q '"apiKey"' config.json; then
        say "config.json sha256=$(sum config.json)"
        say 'config.json ok'
    else
        [ -e config.json ] && say "config.json sha256=$(sum config.json)"
        say 'config.json MISSING'
    fi
    find . -type f | sort | while read -r file; do
        say "file ${file#./} sha256=$(sum "$file")"
    done
    reach
    cd /
    umount /run/boot
else
    say 'boot partition CANNOT BE MOUNTED'
fi

if mount -t ext4 -o ro,noload "/dev/$disk${p}@DATA@" /run/data; then
    for file in /run/data/backup.tgz /run/data/fallback_log/*; do
        [ -f "$file" ] && say "data ${file#/run/data/} sha256=$(sum "$file")"
    done
    umount /run/data
else
    say 'data partition CANNOT BE MOUNTED'
fi
say done
poweroff -f
"""

_MODULES = ("fs/fat/fat", "fs/fat/vfat", "fs/nls/nls_cp437", "fs/nls/nls_ascii",
            "fs/nls/nls_iso8859-1", "fs/nls/nls_utf8", "fs/efivarfs/efivarfs",
            *(f"drivers/virtio/{name}" for name in ("virtio_ring", "virtio", "virtio_pci_legacy_dev",
                                                    "virtio_pci_modern_dev", "virtio_pci")),
            "net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net")

# MiB of each partition, the FAT's type, and the device type that the image is for.
# Of ARM's: the architecture of its programs, and the kernels that they run on.
_SHAPES = {
    "small": dict(table="dos", boot=32, root_a=24, root_b=24, state=8, data=24,
                  fat=16, cluster=4, slug="genericx86-64-ext"),
    "demo": dict(table="dos", boot=40, root_a=320, root_b=320, state=20, data=192,
                 fat=32, cluster=1, slug="genericx86-64-ext"),
    "gpt": dict(table="gpt", boot=64, root_a=24, root_b=24, state=8, data=24,
                fat=32, cluster=1, slug="generic-amd64"),
    "raspberrypi3-64": dict(table="dos", boot=36, root_a=24, root_b=24, state=8, data=24,
                            fat=32, cluster=1, slug="raspberrypi3-64", balena="aarch64",
                            arm="arm64", kernels=("arm64",)),
    "aarch64": dict(table="gpt", boot=64, root_a=24, root_b=24, state=8, data=24,
                    fat=32, cluster=1, slug="generic-aarch64", balena="aarch64",
                    arm="arm64", kernels=("arm64",)),
    "raspberrypi3": dict(table="dos", boot=36, root_a=24, root_b=24, state=8, data=24,
                         fat=32, cluster=1, slug="raspberrypi3", balena="armv7hf",
                         arm="armhf", kernels=("armhf", "arm64")),
}
NAMES = tuple(name for name, shape in _SHAPES.items() if "arm" not in shape)
ARM_NAMES = tuple(name for name in _SHAPES if name not in NAMES)


def partitions(name):
    """The partitions of an image that hold file systems."""
    shape = _SHAPES[name]
    gpt = shape["table"] == "gpt"
    position, number, found = ALIGNMENT, 1, []
    for label, size in (("resin-boot", shape["boot"]), ("resin-rootA", shape["root_a"]),
                        ("resin-rootB", shape["root_b"]), ("resin-state", shape["state"]),
                        ("resin-data", shape["data"])):
        if not gpt and label in ("resin-state", "resin-data"):
            # Logical partitions start at 5, each behind a table of its own.
            number = max(number, 5)
            position += ALIGNMENT
        found.append(Partition(number, label, position, size * MIB))
        position += size * MIB
        number += 1
    return found


def partition(name, label):
    """One partition of an image, by its label."""
    return next(entry for entry in partitions(name) if entry.label == label)


def slug(name):
    """The device type that the image is for."""
    return _SHAPES[name]["slug"]


def _uuid(name, text):
    digest = hashlib.sha256(f"{name} {text}".encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def _table(name):
    """The partition table, as sfdisk's script, and the image's size."""
    parts = partitions(name)
    end = parts[-1].start + parts[-1].size
    lines = ["unit: sectors"]
    if _SHAPES[name]["table"] == "gpt":
        lines += ["label: gpt", f"label-id: {_uuid(name, 'disk')}", "first-lba: 2048"]
        for part in parts:
            kind = "U" if part.label == "resin-boot" else "L"
            lines.append(f"{part.number}: start={part.start // SECTOR}, "
                         f"size={part.size // SECTOR}, type={kind}, "
                         f'name="{part.label}", uuid={_uuid(name, part.label)}')
        end += ALIGNMENT        # the backup table
    else:
        lines += ["label: dos", "label-id: 0xba1e0a05"]
        for part in parts:
            if part.number == 5:
                start = part.start - ALIGNMENT
                lines.append(f"4: start={start // SECTOR}, "
                             f"size={(end - start) // SECTOR}, type=f")
            kind = "c, bootable" if part.label == "resin-boot" else "83"
            lines.append(f"{part.number}: start={part.start // SECTOR}, "
                         f"size={part.size // SECTOR}, type={kind}")
    return "\n".join(lines) + "\n", end


# ------------------------------------------------------------------------ content

def _write(folder, path, content, mode=0o644):
    target = pathlib.Path(folder) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)
    target.chmod(mode)


def _boot_files(name):
    shape = _SHAPES[name]
    noise = random.Random(f"{name} boot")
    description = {"slug": shape["slug"], "version": 1, "name": "Test machine",
                   "arch": shape.get("balena", "amd64"), "state": "released",
                   "yocto": {"machine": shape["slug"], "image": "balena-image"}}
    files = {
        "device-type.json": json.dumps(description, indent=1).encode(),
        "balena-image": b"",
        "os-release": b'ID="balena-os"\nNAME="balenaOS"\nVERSION="6.0.0"\n',
        "image-version-info": b"VERSION: 6.0.0\n",
        "splash/balena-logo.png": noise.randbytes(20_000),
        "system-connections/README.ignore": b"NetworkManager keyfiles go here.\n",
        "system-proxy/README.ignore": b"redsocks.conf and no_proxy go here.\n",
        "overlays/some-long-file-name.dtbo": noise.randbytes(1234),
        "firmware.bin": noise.randbytes(3_000_000),
    }
    if shape["table"] == "gpt" and "arm" in shape:
        files |= arm.efi_files("balena", "root=/dev/vda2 rw console=ttyAMA0 panic=-1 loglevel=4")
    elif shape["table"] == "gpt":
        root = _uuid(name, "resin-rootA")
        files |= rootfs.efi_files(
            "balena", f"root=PARTUUID={root} rw console=ttyS0 panic=-1 loglevel=4")
    elif "arm" in shape:
        files |= {
            "config.txt": b"enable_uart=1\ndisable_splash=1\n",
            "cmdline.txt": b"console=ttyS1,115200 root=/dev/mmcblk0p2 rootwait\n",
            "start.elf": noise.randbytes(2_900_000),
            "bcm2710-rpi-3-b.dtb": arm.device_tree(),
        }
    return files


def _busybox(name):
    """The program that the image lives on, and the names that it answers to."""
    if "arm" in _SHAPES[name]:
        return arm.busybox(_SHAPES[name]["arm"])
    busybox = rootfs.rootfs("systemd") / "bin/busybox"
    return busybox, subprocess.run([busybox, "--list"], check=True, text=True,
                                   stdout=subprocess.PIPE).stdout.split()


def _fill_root_a(folder, name):
    busybox, applets = _busybox(name)
    _write(folder, "bin/busybox", busybox.read_bytes(), 0o755)
    for applet in applets:
        if applet != "busybox":
            (folder / "bin" / applet).symlink_to("busybox")
    init = _INIT.replace("@DATA@", str(partition(name, "resin-data").number))
    if "arm" in _SHAPES[name]:
        init = init.replace("/modules/", "/modules/$(uname -r)/")
        sources = [(f"modules/{source.name}", source)
                   for source in map(arm.modules, _SHAPES[name]["kernels"])]
    else:
        sources = [("modules", rootfs.modules())]
    _write(folder, "sbin/init", init, 0o755)
    for target, source in sources:
        for module in _MODULES:
            content = source / f"kernel/{module}.ko"
            if "arm" not in _SHAPES[name] or content.exists():
                _write(folder, f"{target}/{content.name}", content.read_bytes())
    for empty in ("proc", "sys", "dev", "run", "mnt"):
        (folder / empty).mkdir()
    if name == "demo":
        _copy_up_to(rootfs.rootfs("systemd") / "usr", folder / "content", 270 * MIB)


def _fill_data(folder, name):
    noise = random.Random(f"{name} data")
    _write(folder, "docker/image/overlay2/repositories.json", '{"Repositories":{}}\n')
    if name != "demo":
        _write(folder, "docker/layer", noise.randbytes(1 * MIB))
        return
    # As full as a real one: layers of programs, and what does not compress.
    _copy_up_to(rootfs.rootfs("systemd") / "usr/lib", folder / "docker/overlay2/a/diff",
                90 * MIB)
    for number in range(4):
        _write(folder, f"docker/overlay2/b{number}/layer.bin", noise.randbytes(16 * MIB))
    words = "container image layer volume network service device supervisor".split()
    text = "".join(f"{number} {noise.choice(words)} {noise.choice(words)}\n"
                   for number in range(500_000))
    _write(folder, "docker/containers/log.json", text)


def _copy_up_to(source, target, budget):
    """Copies plain files of source, in the order of their names, until budget
    bytes of blocks are used."""
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in sorted(files):
            path = pathlib.Path(folder) / name
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                continue
            budget -= -(-status.st_size // 4096) * 4096
            if budget < 0:
                return
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def _stamp(folder):
    """One time for every file, so that the image does not tell when it was made."""
    when = (int(rootfs.BUILD_TIME),) * 2
    for base, folders, files in os.walk(folder):
        for name in folders + files:
            os.utime(os.path.join(base, name), when, follow_symlinks=False)
    os.utime(folder, when)


def _build(path, name):
    table, size = _table(name)
    rootfs.make_file(path, size)
    rootfs.partition(path, table)
    if _SHAPES[name]["table"] == "dos" and "arm" not in _SHAPES[name]:
        with open(path, "r+b") as file:
            file.write(BOOT_CODE)
    with tempfile.TemporaryDirectory(dir=rootfs.cache_dir(), prefix=".staging-") as staging:
        for part in partitions(name)[1:]:
            folder = pathlib.Path(staging) / part.label
            folder.mkdir(mode=0o755)
            if part.label == "resin-rootA":
                _fill_root_a(folder, name)
            elif part.label == "resin-state":
                _write(folder, "root-overlay/etc/hostname", "balena\n")
            elif part.label == "resin-data":
                _fill_data(folder, name)
            _stamp(folder)
            rootfs.make_ext4(path, part.start, part.size, part.label,
                             _uuid(name, f"{part.label} fs"), folder, ["-m", "0"])
            if part.label == "resin-rootA":
                # A root mounted rw would change under the comparison.
                rootfs.run("tune2fs", "-O", "read-only", f"{path}?offset={part.start}")
    boot, shape = partition(name, "resin-boot"), _SHAPES[name]
    rootfs.make_fat(path, boot.start, boot.size, "resin-boot", "ba1e0a01",
                    shape["fat"], shape["cluster"])
    rootfs.fat_put(path, boot.start, _boot_files(name))


# ------------------------------------------------------------------------- images

def _key(name, *more):
    shape = _SHAPES[name]
    roots = ([arm.name(which) for which in (shape["arm"], *shape["kernels"])]
             if "arm" in shape else [rootfs.rootfs("systemd").name])
    return rootfs.key_of(pathlib.Path(__file__).read_text(), rootfs.builder_text(),
                         *roots, name, *more)


def image(name="small"):
    """The path of the raw image."""
    return rootfs.cached(f"balena-{name}", _key(name),
                         lambda path: _build(path, name), ".img")


def gz(name="small", parts=1):
    """The path of the image as gzip, in as many members as parts says."""
    def build(path):
        raw = image(name)
        piece = -(-os.stat(raw).st_size // parts)
        with open(raw, "rb") as source, open(path, "wb") as target:
            for _ in range(parts):
                _gzip(source, target, piece)

    return rootfs.cached(f"balena-{name}-{parts}", _key(name, "gz", parts), build,
                         ".img.gz")


def _gzip(source, target, length):
    """One gzip member out of length bytes of source."""
    with subprocess.Popen(["pigz", "-6", "-n", "-c"], stdin=subprocess.PIPE,
                          stdout=target) as packer:
        while length and (data := source.read(min(length, MIB))):
            packer.stdin.write(data)
            length -= len(data)
        packer.stdin.close()
        if packer.wait():
            raise rootfs.BuildError(f"pigz failed with {packer.returncode}")


def zipped(name="small"):
    """The path of a zip with the image as its one entry, deflated."""
    def build(path):
        entry = zipfile.ZipInfo(f"{name}.img", (2023, 11, 14, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        raw = image(name)
        entry.file_size = os.stat(raw).st_size
        with zipfile.ZipFile(path, "w") as archive, open(raw, "rb") as source, \
                archive.open(entry, "w") as target:
            while data := source.read(MIB):
                target.write(data)

    return rootfs.cached(f"balena-{name}", _key(name, "zip"), build, ".zip")


if __name__ == "__main__":
    for which in sys.argv[1:] or NAMES:
        print(image(which))
        print(gz(which))
