"""The initramfs of the rescue system: this program as /init, and what else is wanted, as a cpio archive; and the drivers
that Debian's kernels have as modules.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

import arm
import balena_image
import rootfs

# What the disks of each machine need, in the order in which it is loaded; what these need in turn comes before them.
_DISKS = {
    "systemd": (),                          # NVMe and ext4 are built in
    "xenial": (),                           # virtio_blk, ext4 and FAT are built in
    "arm64": ("virtio_mmio", "virtio_blk", "crc32c_generic", "ext4"),
    "armhf": ("virtio_mmio", "virtio_blk", "crc32c_generic", "ext4"),
    # bcm2835_wdt is also what restarts a Raspberry Pi.
    "raspi3": ("bcm2835", "sdhci-iproc", "mmc_block", "bcm2835_wdt"),
}
_FAT = ("vfat", "nls_cp437", "nls_ascii")
USB = ("phy-generic", "dwc2", "usb-storage", "sd_mod")


# The program of each machine, and an image for it.
TARGETS = {"systemd": "x86_64-unknown-linux-musl", "xenial": "x86_64-unknown-linux-musl",
           "arm64": "aarch64-unknown-linux-musl", "armhf": "armv7-unknown-linux-musleabihf",
           "raspi3": "aarch64-unknown-linux-musl"}
IMAGES = {"systemd": "small", "xenial": "small", "arm64": "raspberrypi3-64", "armhf": "raspberrypi3",
          "raspi3": "raspberrypi3-64"}


def program(kind):
    """The audited program of the set rescue; $TAKEOVER_RESCUE_X86_64 and its like name others."""
    given = os.environ.get(f"TAKEOVER_RESCUE_{TARGETS[kind].split('-')[0].upper()}")
    if given:
        return pathlib.Path(given)
    build = rootfs.HERE.parents[1] / "size-report/build"
    done = subprocess.run([build, TARGETS[kind], "rescue"], check=True, stdout=subprocess.PIPE, text=True)
    return pathlib.Path(done.stdout.strip().splitlines()[-1])


def large_image(name):
    """A balena image that goes on to 1 GiB with zeros and something at its end, raw and as gzip."""
    def raw(path):
        rootfs.copy_sparse(balena_image.image(name), path)
        os.truncate(path, 1 << 30)
        with open(path, "r+b") as file:
            for place in (600 << 20, (1 << 30) - (1 << 20)):
                file.seek(place)
                file.write(bytes(range(256)) * 2048)

    key = rootfs.key_of(balena_image.image(name).name, "1")
    image = rootfs.cached(f"rescue-{name}", key, raw, ".img")

    def packed(path):
        with open(image, "rb") as source, open(path, "wb") as target:
            subprocess.run(["pigz", "-6", "-n", "-c"], stdin=source, stdout=target, check=True)

    return image, rootfs.cached(f"rescue-{name}", key, packed, ".img.gz")


def initramfs(path, program, modules=(), files=None):
    """Writes an initramfs: /init, /modules/NN-NAME.ko in this order, and files (their paths -> bytes)."""
    entries = {"init": (0o100755, pathlib.Path(program).read_bytes())}
    if modules:
        entries["modules"] = (0o040755, b"")
    for number, module in enumerate(modules):
        entries[f"modules/{number:02}-{module.name}"] = (0o100644, module.read_bytes())
    for name, content in (files or {}).items():
        entries[name.strip("/")] = (0o100600, content)
    with open(path, "wb") as archive:
        for number, (name, (mode, content)) in enumerate([*entries.items(), ("TRAILER!!!", (0, b""))], 1):
            # The "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
            fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
            head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
            archive.write(head.ljust(-(-len(head) // 4) * 4, b"\0"))
            archive.write(content.ljust(-(-len(content) // 4) * 4, b"\0"))
    return path


def modules(kind, usb=False):
    """The drivers of a machine's disks and of FAT, as files in the order in which they are loaded."""
    if kind in arm.MACHINES:
        folder = usb_modules() if usb else arm.modules(arm.MACHINES[kind].architecture)
    elif kind in rootfs.UBUNTU:
        return []
    else:
        folder = rootfs.modules()
    return in_order(folder, _DISKS[kind] + (USB if usb else ()) + _FAT)


def in_order(folder, wanted):
    """The files of modules, each behind those that it needs."""
    needs = dict(line.split(":") for line in (folder / "modules.dep").read_text().splitlines())
    by_name = {pathlib.PurePath(name).stem.replace("-", "_"): name for name in needs}
    order = {}
    for name in wanted:
        found = by_name.get(name.replace("-", "_"))
        if found:               # else it is built in
            # The file says what a module needs, the nearest first.
            order.update(dict.fromkeys([*reversed(needs[found].split()), found]))
    return [folder / name for name in order]


def usb_modules():
    """The modules of the kernel that arm.kernel("arm64") is, USB among them, which the roots of the guests do without."""
    version = arm.modules("arm64").name

    def build(path):
        with tempfile.TemporaryDirectory(dir=rootfs.cache_dir(), prefix=".staging-") as staging:
            rootfs.run("mmdebstrap", "--mode=root", "--variant=extract", "--quiet", "--architectures=arm64",
                       f"--include=linux-image-{version}", "bookworm", f"{staging}/root")
            found = pathlib.Path(staging, "root/lib/modules", version)
            rootfs.run("depmod", "-b", f"{staging}/root", version)
            for part in ("drivers/usb", "drivers/scsi", "drivers/mmc", "drivers/dma", "drivers/watchdog", "fs/fat",
                         "fs/nls", "block", "lib", "crypto"):
                source, target = found / "kernel" / part, path / "kernel" / part
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target)
                elif source.exists():
                    shutil.copy(source, target)
            shutil.copy(found / "modules.dep", path)

    return rootfs.cached("rescue-modules-arm64", rootfs.key_of(version, "2"), build)
