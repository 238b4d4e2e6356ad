"""What the tests of Jetson boot blobs are made of: disks with a blob in their rootA, an image for an AGX Xavier, and
a plain arm64 machine that calls itself one, with an eMMC."""

import pathlib
import random
import shutil
import struct
import subprocess

import arm
import balena_image
import rootfs
from rootfs import MIB

EMMC = "boot0_mmcblk0boot0.img"
NOR = "boot0_mtdblock0.img"
# A layer of the host application, as the engine names them.
LAYER = "balena/overlay2/6f0c"
# Of make_image: where rootA begins.
START = 2 * MIB
# What this machine has.
SYSTEM = "qemu-system-aarch64"
# Of the guests that call themselves a Jetson: QEMU takes an eMMC for a machine from 10.2 on, which Debian has in its
# backports. Its programs are unpacked, not installed, and run with their own libraries.
_BACKPORTS = "trixie-backports"
_START = """#!/bin/sh
# In place of the program that lies there: with what came with it.
root=${0%/*} libraries=${0%/*}/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$libraries/qemu"
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/usr/bin/qemu-system-aarch64" \\
    -L "$root/usr/share/qemu" "$@"
"""
# Of the eMMC: the size of each of its two boot areas, which lie before all else in its file.
BOOT_AREA = 4 * MIB


def content(length, seed=1):
    """Bytes of no order."""
    return random.Random(seed).randbytes(length)


def put_root(image, start, size, files, options=(), change=None):
    """Puts an ext4 with these files into an image, which change alters before it gets there. Its own file: mkfs.ext4
    with an offset clears what lies around."""
    image = pathlib.Path(image)
    tree, part = image.parent / "tree", image.parent / "part.img"
    shutil.rmtree(tree, ignore_errors=True)
    part.unlink(missing_ok=True)
    for path, data in files.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            target.mkdir()
        else:
            target.write_bytes(data)
    rootfs.make_file(part, size)
    rootfs.run("mkfs.ext4", "-q", "-F", "-d", tree, *options, part)
    if change:
        change(part)
    rootfs.run("dd", "status=none", "conv=notrunc", "bs=1M", f"seek={start // MIB}", f"if={part}", f"of={image}")


def make_image(folder, files, options=(), size=48 * MIB, name="resin-rootA", change=None):
    """A disk with a GPT whose second partition, of this name, has these files."""
    image = folder / "disk-with-blob.img"
    image.unlink(missing_ok=True)
    rootfs.make_file(image, START + size + MIB)
    rootfs.partition(image, "label: gpt\nstart=2048, size=2048, name=resin-boot\n"
                            f"start={START // 512}, size={size // 512}, name={name}\n")
    put_root(image, START, size, files, options, change)
    return image


def agx_image(folder, blob):
    """An image for an AGX Xavier, with this blob: raw, and as gzip."""
    image = rootfs.copy_sparse(balena_image.image("aarch64"), folder / "agx.img")
    root = balena_image.partition("aarch64", "resin-rootA")
    put_root(image, root.start, root.size, {f"{LAYER}/diff/opt/tegra-binaries/{EMMC}": blob, "balena/overlay2/l": None})
    boot = balena_image.partition("aarch64", "resin-boot")
    rootfs.fat_put(image, boot.start, {"/device-type.json": b'{"slug":"jetson-xavier","arch":"aarch64"}'})
    packed = folder / "agx.img.gz"
    with open(packed, "wb") as file:
        subprocess.run(["pigz", "-1", "-n", "-c", image], stdout=file, check=True)
    return image, packed


def qemu():
    """The QEMU of these guests: that of this machine where it takes an eMMC with boot areas, else Debian's of today."""
    return SYSTEM if _takes_emmc(SYSTEM) else _backported() / "qemu-system-aarch64"


def _takes_emmc(program):
    """Whether an eMMC can be added to a machine: QEMU says what it takes for one."""
    done = subprocess.run([program, "-M", "none", "-device", "emmc,help"], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    return done.returncode == 0 and "boot-partition-size" in done.stdout


def _backported():
    def build(path):
        # The mirror is the one that mmdebstrap has written for the release itself.
        hook = f"sed -i 's/^\\(deb .*\\) trixie main$/&\\n\\1 {_BACKPORTS} main/' \"$1\"/etc/apt/sources.list"
        rootfs.run("mmdebstrap", "--mode=root", "--variant=extract", "--quiet", "--architectures=amd64",
                   "--include=qemu-system-arm", f'--aptopt=APT::Default-Release "{_BACKPORTS}"',
                   '--aptopt=Acquire::Check-Valid-Until "false"', f"--setup-hook={hook}", "trixie", path)
        start = path / "qemu-system-aarch64"
        start.write_text(_START)
        start.chmod(0o755)
        assert _takes_emmc(start), f"the QEMU of {_BACKPORTS} takes no eMMC"

    return rootfs.cached("qemu-backported", rootfs.key_of(_BACKPORTS, _START, 2), build)


def device_tree(program, folder, memory, smp, model):
    """The device tree of the plain machine, with another model; that must be no longer than the machine's own."""
    path = folder / "machine.dtb"
    machine = arm.MACHINES["arm64"]
    subprocess.run([program, "-M", f"virt,dumpdtb={path}", *machine.arguments[2:], "-m", str(memory), "-smp", str(smp),
                    "-display", "none", "-nodefaults"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    tree = bytearray(path.read_bytes())
    at, end = model_in(tree)
    assert end - at > len(model), "the model is too long"
    tree[at:end] = model.encode().ljust(end - at, b"\0")
    # QEMU writes all of its buffer, and Linux on arm64 takes no tree of more than 2 MiB.
    length = max(sum(struct.unpack_from(">I", tree, place)[0] for place in pair) for pair in ((8, 36), (12, 32)))
    struct.pack_into(">I", tree, 4, length)
    del tree[length:]
    path.write_bytes(tree)
    return path


def model_in(tree):
    """Where the model is in a flattened device tree: the property of that name of the root node (Devicetree
    Specification 0.4, chapter 5)."""
    _, _, at, strings = struct.unpack_from(">4I", tree)
    while True:
        token, = struct.unpack_from(">I", tree, at)
        at += 4
        if token == 1:
            at += (tree.index(0, at) - at + 4) & ~3
        elif token == 3:
            length, name = struct.unpack_from(">2I", tree, at)
            at += 8
            begin = strings + name
            if tree[begin:tree.index(0, begin)] == b"model":
                return at, at + length
            at += (length + 3) & ~3
        elif token != 4:
            raise ValueError("the root node has no model")
