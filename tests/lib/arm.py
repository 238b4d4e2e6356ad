"""What the ARM guests are made of: Debian's arm64 and armhf roots, kernels and
initrds, the disks of the old OS, and the machines of QEMU that boot them.

Built once and kept like everything of rootfs.py. `tests/setup arm` installs what
the building and the booting need.
"""

import collections
import pathlib
import sys

import rootfs
from rootfs import MIB, SECTOR

HERE = rootfs.HERE

# The disk of the old OS: a small FAT partition, the root as p2 (as rootA in a
# balena image, so that one command line boots both), and where the job is.
ROOT_START = rootfs.ROOT_START
ROOT_SIZE = 704 * MIB
JOB_START = ROOT_START + ROOT_SIZE

_OPTIONS = ("rw panic=-1 sysrq_always_enabled=1 net.ifnames=0 loglevel=4 "
            "systemd.show_status=false mitigations=off cryptomgr.notests cma=8M")

Machine = collections.namedtuple(
    "Machine", "architecture qemu arguments disk partition options on_card")

MACHINES = {
    # kind: the architecture of its kernel and root, QEMU and its arguments, the
    # disk under test and its partitions' prefix, the kernel command line, and
    # whether the one disk is an SD card that must hold the job, too.
    "arm64": Machine("arm64", "qemu-system-aarch64", ("-M", "virt", "-cpu", "cortex-a53"),
                     "/dev/vda", "/dev/vda", f"root=/dev/vda2 console=ttyAMA0 {_OPTIONS}",
                     False),
    # The same through UEFI, from its own disk.
    "arm64-uefi": Machine("arm64", "qemu-system-aarch64", ("-M", "virt", "-cpu", "cortex-a53"),
                          "/dev/vda", "/dev/vda", f"root=/dev/vda2 console=ttyAMA0 {_OPTIONS}",
                          False),
    "armhf": Machine("armhf", "qemu-system-arm", ("-M", "virt", "-cpu", "cortex-a7"),
                     "/dev/vda", "/dev/vda", f"root=/dev/vda2 console=ttyAMA0 {_OPTIONS}",
                     False),
    # A cortex-a53: an arm64 kernel, on which static armv7 programs run as well.
    "raspi3": Machine("arm64", "qemu-system-aarch64", ("-M", "raspi3b"),
                      "/dev/mmcblk0", "/dev/mmcblk0p",
                      f"root=/dev/mmcblk0p2 console=ttyS1,115200 {_OPTIONS}", True),
}


# ------------------------------------------------------------------------ content

# Those that start what their firmware finds on the disk, and not -kernel.
UEFI = ("arm64-uefi",)
AAVMF_CODE = "/usr/share/AAVMF/AAVMF_CODE.fd"
AAVMF_VARS = "/usr/share/AAVMF/AAVMF_VARS.fd"
_SCRIPT = HERE / "build-arm-rootfs.sh"


def _built(architecture):
    def build(path):
        rootfs.run("bash", _SCRIPT, architecture, path)

    key = rootfs.key_of(rootfs.script_text(_SCRIPT), architecture)
    return rootfs.cached(f"arm-{architecture}", key, build)


def name(architecture):
    """A text that changes with what is built for an architecture, for keys."""
    return _built(architecture).name


def root(architecture):
    """The folder of the Debian root of 'arm64' or 'armhf'."""
    return _built(architecture) / "root"


def kernel(architecture):
    """The kernel, for -kernel."""
    return _built(architecture) / "kernel"


def initrd(architecture):
    """What loads the disk's drivers and mounts the root."""
    return _built(architecture) / "initrd"


def device_tree():
    """The device tree of a Raspberry Pi 3, for -dtb."""
    return _built("arm64") / "raspi3.dtb"


def modules(architecture):
    """The folder of the kernel's modules; its name is the kernel's version."""
    return next(root(architecture).glob("usr/lib/modules/*"))


def busybox(architecture):
    """The static busybox, and the names that it answers to."""
    return (root(architecture) / "bin/busybox",
            _built(architecture).joinpath("applets").read_text().split())


# -------------------------------------------------------------------------- disks

def _loader():
    """systemd-boot for arm64, out of its package."""
    def build(path):
        rootfs.run("mmdebstrap", "--mode=root", "--variant=extract", "--quiet", "--architectures=arm64",
                   "--include=systemd-boot-efi", "bookworm", path)

    folder = rootfs.cached("systemd-boot-arm64", rootfs.key_of("bookworm"), build)
    return folder / "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"


def loader_entry(title, options):
    """rootfs.loader_entry, with the initrd that these kernels need."""
    return {name: entry + b"initrd /initrd\n" for name, entry in rootfs.loader_entry(title, options).items()}


def efi_files(title, options):
    """rootfs.efi_files, for arm64."""
    return {
        "/EFI/BOOT/BOOTAA64.EFI": _loader(),
        "/loader/loader.conf": b"timeout 0\neditor no\n",
        "/linux": kernel("arm64"),
        "/initrd": initrd("arm64"),
    } | loader_entry(title, options)


# An ESP of the old OS and its root, as rootfs.py makes them for x86.
_LAYOUT_OF_GPT = """\
label: gpt
label-id: 3f0c6a4e-5a5b-4d0e-9c5a-0d1500000001
first-lba: 2048
start={p1}, size={p1_size}, type=U, name="ESP", uuid=3f0c6a4e-5a5b-4d0e-9c5a-0d1500000011
start={root}, size={root_size}, type=L, name="debian-root", uuid=3f0c6a4e-5a5b-4d0e-9c5a-0d1500000012
"""

_LAYOUT = """\
label: dos
label-id: 0x0d150001
start={p1}, size={p1_size}, type=c
start={root}, size={root_size}, type=83
start={job}, size={job_size}, type=83
"""


def disk(kind, size_mib=rootfs.DEFAULT_DISK_MIB):
    """The pristine disk of the old OS of a kind of MACHINES. Copy it before
    booting it."""
    architecture = MACHINES[kind].architecture
    size = size_mib * MIB

    def build(path):
        rootfs.make_file(path, size)
        rootfs.partition(path, layout)
        rootfs.make_ext4(path, ROOT_START, ROOT_SIZE, "debian-root",
                         "3f0c6a4e-5a5b-4d0e-9c5a-0d1500000002", root(architecture))
        rootfs.make_fat(path, rootfs.P1_START, rootfs.P1_SIZE, "ESP" if uefi else "BOOT", "0d150001", 16, 4)
        rootfs.fat_put(path, rootfs.P1_START, efi_files("debian", "") if uefi else
                       {"/old-os.txt": b"the boot partition of the old OS\n"})

    uefi = kind in UEFI
    layout = (_LAYOUT_OF_GPT if uefi else _LAYOUT).format(
        p1=rootfs.P1_START // SECTOR, p1_size=rootfs.P1_SIZE // SECTOR,
        root=ROOT_START // SECTOR, root_size=ROOT_SIZE // SECTOR,
        job=JOB_START // SECTOR, job_size=(size - JOB_START) // SECTOR)
    key = rootfs.key_of(name(architecture), layout, rootfs.builder_text(),
                        pathlib.Path(__file__).read_text())
    return rootfs.cached(f"disk-{architecture}{'-uefi' if uefi else ''}", key, build)


# ----------------------------------------------------------------------- machines

def command(kind, memory, smp, options, serial, disks, cache, drive_options, store=None, own_initrd=None):
    """QEMU's command line, up to what all guests share. Its serial console is the
    character device that serial names; store is the file of the variables of one of UEFI, own_initrd takes the place of
    the initrd that goes to the root."""
    machine = MACHINES[kind]
    words = [machine.qemu, "-accel", "tcg,thread=multi", *machine.arguments]
    if machine.on_card:
        # QEMU fixes this board's memory, of which the kernel is told to use less,
        # and its four processors, all of which it shall use: one that waits to be
        # started takes a whole processor of ours. The console is the second port.
        options = f"mem={memory}M {options}"
        words += ["-dtb", device_tree(), "-chardev", "null,id=first-port",
                  "-serial", "chardev:first-port", "-serial", serial]
    else:
        words += ["-m", memory, "-smp", smp, "-serial", serial]
    if kind in UEFI:
        words += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={AAVMF_CODE}",
                  "-drive", f"if=pflash,format=raw,unit=1,file={str(store).replace(',', ',,')}"]
    else:
        words += ["-kernel", kernel(machine.architecture),
                  "-initrd", own_initrd or initrd(machine.architecture), "-append", options]
    # The last disk given becomes vda.
    for number, path in reversed(list(enumerate(disks, 1))):
        path = str(path).replace(",", ",,")
        words += ["-drive", f"file={path},format=raw,id=disk{number},"
                  f"if={'sd' if machine.on_card else 'none'},"
                  f"cache={cache},{drive_options}"]
        if not machine.on_card:
            words += ["-device", f"virtio-blk-device,drive=disk{number}"]
    return words


def card_size(size):
    """The size of the smallest SD card (a power of two) that holds size bytes."""
    return 1 << (size - 1).bit_length()


if __name__ == "__main__":
    for which in sys.argv[1:] or MACHINES:
        print(disk(which))
