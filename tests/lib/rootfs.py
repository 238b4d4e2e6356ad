"""Root file systems and disks of the guests, built once and kept.

Everything lands in ${XDG_CACHE_HOME:-~/.cache}/takeover-tests/NAME-KEY, where
KEY is a hash of the script text that builds it and of what it is built from.
So a changed script builds anew, and an unchanged one costs a look.

Nothing here mounts anything or uses a loop device: file systems are filled by
mkfs.ext4 -d and mtools, so all of it works in a plain container.
"""

import contextlib
import fcntl
import hashlib
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MIB = 1 << 20
SECTOR = 512

# The old OS's disk: a small FAT partition, then the root. The root is p2 in
# every layout, as rootA is in a balena image, so that one kernel command line
# (root=/dev/nvme0n1p2) boots the old OS and the new one.
P1_START = 1 * MIB
P1_SIZE = 63 * MIB
ROOT_START = 64 * MIB
DEFAULT_DISK_MIB = 2048
# The identifier in the MBR.
DISK_ID = "0d150001"


# Where a tool asks for the time, it gets this one: the same input gives the same
# bytes.
BUILD_TIME = "1700000000"
_BUILD_ENVIRONMENT = dict(os.environ, LC_ALL="C.UTF-8", MTOOLS_SKIP_CHECK="1",
                          SOURCE_DATE_EPOCH=BUILD_TIME,
                          E2FSPROGS_FAKE_TIME=BUILD_TIME)


class BuildError(RuntimeError):
    """Something could not be built; the text says what and why."""


def cache_dir():
    """The folder of everything that is built; made when it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = pathlib.Path(base) / "takeover-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Where tests/setup unpacks QEMU on a machine whose packages keep it out; the machine's own comes first.
os.environ["PATH"] += f"{os.pathsep}{cache_dir() / 'qemu/bin'}"


def key_of(*parts):
    """A short hash over texts, bytes and numbers."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()[:16]


def run(*command, **options):
    """Runs a program; its output is shown only when it fails."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("env", _BUILD_ENVIRONMENT)
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        tail = done.stdout.decode(errors="replace")[-4000:]
        raise BuildError(f"{command[0]} failed with {done.returncode}: "
                         f"{' '.join(map(str, command))}\n{tail}")
    return done.stdout


@contextlib.contextmanager
def _lock(name, how=0):
    """Two test runs at once build a thing once: the second waits, or with LOCK_NB gets an error."""
    with open(cache_dir() / f"{name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
        yield


def _remove(path):
    # --one-file-system: should an interrupted build have left /dev mounted
    # inside, it stays whole.
    subprocess.run(["rm", "-rf", "--one-file-system", path], check=False)


def cached(name, key, build, suffix=""):
    """The path of NAME-KEY (and suffix), made by build(path) when it is not there.

    build gets a temporary path, renamed when it returns: an interrupted build
    leaves nothing that looks finished.
    """
    final = cache_dir() / f"{name}-{key}{suffix}"
    if final.exists():
        # The time of last use; a user other than the builder may lack the right.
        with contextlib.suppress(OSError):
            os.utime(final)
        return final
    with _lock(name + suffix):
        if final.exists():
            return final
        _prune(name, keep=final)
        temporary = cache_dir() / f".building-{name}-{key}{suffix}"
        _remove(temporary)
        began = time.monotonic()
        print(f"building {name}{suffix} ...", file=sys.stderr, flush=True)
        try:
            build(temporary)
            os.utime(temporary)     # a package's folder brings the date of the package
            os.rename(temporary, final)
        except BaseException:
            _remove(temporary)
            raise
        print(f"built {name}{suffix} in {time.monotonic() - began:.1f} s",
              file=sys.stderr, flush=True)
    return final


# What a whole run builds takes less than this, compiler's output included.
PLENTY = 24 << 30


def _prune(name, keep, unused_days=3):
    """Removes what older scripts built, unless it was used lately (by another
    checkout, say). Where room is short, a day's work on these scripts must not
    fill the disk: an hour counts as lately then."""
    short = shutil.disk_usage(cache_dir()).free < PLENTY
    limit = time.time() - (3600 if short else unused_days * 86400)
    older = [path for path in cache_dir().glob(f"{name}-*")
             if len(path.name) == len(keep.name) and path != keep]
    for path in older:
        if path.lstat().st_mtime < limit:
            _remove(path)
    # And what a killed build left: one that lives has its lock, and a date that says nothing.
    for path in cache_dir().glob(".building-*"):
        parts = re.fullmatch(r"\.building-(.+)-[0-9a-f]{16}(.*)", path.name)
        with contextlib.suppress(BlockingIOError), _lock("".join(parts.groups()), fcntl.LOCK_NB):
            _remove(path)


# ---------------------------------------------------------------- root folders

# Ubuntu's releases: the oldest that is to be had (Linux 4.4, systemd 229) and one of today (6.8, 255).
UBUNTU = ("xenial", "noble")
# The releases before and after the one that all else runs on.
RELEASES = ("bullseye", "trixie", "sid", *UBUNTU)
# Guests with Debian's kernel for all machines, by the bus that the disk under test is on.
GENERIC = ("generic", "usb", "scsi")

_ROOTFS_SCRIPT = HERE / "build-rootfs.sh"


def script_text(script):
    """The text of a script that builds a root, and of what it sources, for its key."""
    return script.read_text() + HERE.joinpath("common-root.sh").read_text()


def _rootfs_key(flavour):
    return key_of(script_text(_ROOTFS_SCRIPT), flavour)


def rootfs(flavour="systemd"):
    """The folder of a root: 'systemd', 'sysvinit', 'generic', or one of RELEASES."""
    arguments = [rootfs("systemd")] if flavour == "sysvinit" else []

    def build(path):
        run("bash", _ROOTFS_SCRIPT, flavour, path, *arguments)

    return cached(f"rootfs-{flavour}", _rootfs_key(flavour), build)


def _flavour(kind):
    """What root a kind of guest has."""
    return "generic" if kind in GENERIC else kind


def kernel(kind="systemd"):
    """The kernel image that a guest boots, for -kernel: one for all but RELEASES and GENERIC."""
    flavour = _flavour(kind) if kind in RELEASES + GENERIC else "systemd"
    return next(rootfs(flavour).glob("boot/vmlinuz-*"))


def modules(flavour="systemd"):
    """The folder of that kernel's modules."""
    return next(rootfs(flavour).glob("usr/lib/modules/*"))


# ------------------------------------------------------------------------- initrds

_GENERIC_INIT = """#!/bin/busybox sh
# Loads what the disk's bus and its file system need, and goes to the root.
PATH=/bin
mkdir -p /dev /proc /root
mount -t devtmpfs dev /dev
mount -t proc proc /proc
while read -r module; do insmod "/$module"; done </modules
read -r words </proc/cmdline
for word in $words; do
    case $word in root=*) device=${word#root=} ;; esac
done
until [ -b "$device" ]; do usleep 100000; done
mount -t ext4 "$device" /root
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
"""
_GENERIC_MODULES = ("virtio_pci", "virtio_scsi", "sd_mod", "xhci-pci", "usb-storage", "nvme", "crc32c_generic", "ext4")


def initrd(path, init, wanted, flavour="systemd"):
    """Makes an initrd of busybox, this /init, and the modules wanted (their names) of a root's kernel, which /modules
    lists in the order in which they must be loaded."""
    busybox, source = rootfs(flavour) / "bin/busybox", modules(flavour)
    needs = dict(line.split(":") for line in source.joinpath("modules.dep").read_text().splitlines())
    by_name = {pathlib.PurePath(name).stem: name for name in needs}
    order = {}
    for name in wanted:
        # The file says what a module needs, the nearest first.
        for module in [*reversed(needs[by_name[name]].split()), by_name[name]]:
            order[pathlib.PurePath(module).name] = source / module
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".staging-") as staging:
        top = pathlib.Path(staging)
        (top / "bin").mkdir()
        for applet in ("grep", "mkdir", "mount", "umount", "usleep", "insmod", "switch_root"):
            (top / "bin" / applet).symlink_to("busybox")
        for name, file in {"bin/busybox": busybox, **order}.items():
            shutil.copy(file, top / name)
        (top / "modules").write_text("".join(f"{name}\n" for name in order))
        (top / "init").write_text(init)
        (top / "init").chmod(0o755)
        names = "\n".join(sorted(str(name.relative_to(top)) for name in top.rglob("*"))) + "\n"
        with open(path, "wb") as output:
            subprocess.run([busybox, "cpio", "-o", "-H", "newc", "-R", "0:0"], cwd=top, input=names.encode(),
                           stdout=output, stderr=subprocess.DEVNULL, check=True)
    return path


def generic_initrd():
    """What the guests of GENERIC boot with."""
    key = key_of(rootfs("generic").name, _GENERIC_INIT, _GENERIC_MODULES, inspect.getsource(initrd))
    return cached("initrd-generic", key, lambda path: initrd(path, _GENERIC_INIT, _GENERIC_MODULES, "generic"))


# ------------------------------------------------------------------- file systems

def make_file(path, size):
    """A sparse file of size bytes."""
    with open(path, "wb") as handle:
        handle.truncate(size)


def partition(disk, script):
    """Writes the partition table that sfdisk reads from script."""
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", disk,
        input=script.encode())


def make_ext4(disk, start, size, label, uuid, folder=None, options=()):
    """An ext4 file system at start, filled from folder. Before any FAT on the
    same disk: made after it, the FAT came out empty."""
    # nodiscard, or mkfs punches away what lies around it in the file.
    run("mkfs.ext4", "-q", "-F", "-L", label, "-U", uuid,
        "-E", f"offset={start},lazy_itable_init=1,nodiscard,hash_seed={uuid}",
        *(["-d", folder] if folder else []), *options,
        disk, f"{size // 1024}k")


def make_fat(disk, start, size, label, volume_id, bits, cluster_sectors=1):
    """An empty FAT file system at start."""
    run("mkfs.vfat", "-F", bits, "-s", cluster_sectors, "-n", label,
        "-i", volume_id, "--invariant",
        "--offset", start // SECTOR, disk, size // 1024)


def fat_put(disk, start, files):
    """Writes files (path on the FAT -> bytes or host path) to the FAT at start,
    folders as needed."""
    image = f"{disk}@@{start}"
    there = set(fat_tree(disk, start))
    for name, content in files.items():
        parts = pathlib.PurePosixPath(name.lstrip("/"))
        for parent in reversed(list(parts.parents)[:-1]):
            if f"{parent}/" not in there:
                there.add(f"{parent}/")
                run("mmd", "-i", image, f"::/{parent}")
        target = f"::/{parts}"
        if isinstance(content, bytes):
            run("mcopy", "-o", "-i", image, "-", target, input=content)
        else:
            run("mcopy", "-o", "-m", "-i", image, content, target)


def fat_tree(disk, start):
    """Every path of the FAT at start, sorted; folders end in '/'."""
    try:
        listing = run("mdir", "-/", "-b", "-i", f"{disk}@@{start}", "::/")
    except BuildError as error:
        # That is how mdir says that there is nothing at all.
        if 'File "::/" not found' in str(error):
            return []
        raise
    return sorted(line[3:] for line in listing.decode().splitlines()
                  if line.startswith("::/") and len(line) > 3)


def copy_sparse(source, target):
    """A copy that shares or skips what it can."""
    run("cp", "--sparse=always", "--reflink=auto", source, target)
    return pathlib.Path(target)


def builder_text():
    """The text of all that shapes a file system, for the keys of what is built."""
    return "".join(map(inspect.getsource, (
        make_file, partition, make_ext4, make_fat, fat_put, loader_entry, efi_files)))


# -------------------------------------------------------------------------- disks

_DISK_LAYOUT = """\
label: {label}
{identifier}
first-lba: 2048
start=2048, size={p1}, type={type1}{name1}
start={root_start}, size={root_size}, type={type2}{name2}
"""

def loader_entry(title, options):
    """A systemd-boot entry for /linux on the same partition, as fat_put has it."""
    return {f"/loader/entries/{title}.conf":
            f"title {title}\nlinux /linux\noptions {options}\n".encode()}


def efi_files(title, options):
    """What makes a FAT partition boot from the removable-media path."""
    loader = rootfs("systemd") / "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    return {
        "/EFI/BOOT/BOOTX64.EFI": loader,
        "/loader/loader.conf": b"timeout 0\neditor no\n",
        "/linux": kernel(),
    } | loader_entry(title, options)


def _build_disk(path, kind, size):
    uefi = kind == "uefi"
    # A GPT keeps its backup in the last 33 sectors.
    root_size = size - ROOT_START - MIB
    make_file(path, size)
    partition(path, _DISK_LAYOUT.format(
        label="gpt" if uefi else "dos",
        identifier="label-id: " + ("3f0c6a4e-5a5b-4d0e-9c5a-0d1500000001"
                                   if uefi else f"0x{DISK_ID}"),
        p1=P1_SIZE // SECTOR, root_start=ROOT_START // SECTOR,
        root_size=root_size // SECTOR,
        type1="U" if uefi else "c", type2="L" if uefi else "83",
        name1=', name="ESP", uuid=3f0c6a4e-5a5b-4d0e-9c5a-0d1500000011' if uefi else "",
        name2=', name="debian-root", uuid=3f0c6a4e-5a5b-4d0e-9c5a-0d1500000012'
        if uefi else ""))
    make_ext4(path, ROOT_START, root_size, "debian-root",
              "3f0c6a4e-5a5b-4d0e-9c5a-0d1500000002",
              rootfs("systemd" if kind == "uefi" else _flavour(kind)))
    make_fat(path, P1_START, P1_SIZE, "ESP" if uefi else "BOOT", "0d150001", 16, 4)
    if uefi:
        fat_put(path, P1_START, efi_files("debian", "root=/dev/nvme0n1p2 rw console=ttyS0"))
    else:
        fat_put(path, P1_START, {"/old-os.txt": b"the boot partition of the old OS\n"})


def disk(kind="systemd", size_mib=DEFAULT_DISK_MIB):
    """The pristine disk of the old OS: 'systemd', 'sysvinit', 'uefi' or one of
    RELEASES or GENERIC. Copy it (copy_sparse) before booting it."""
    kind = _flavour(kind)
    # The roots, in full, and what lays them out.
    key = key_of(_rootfs_key("systemd"), _rootfs_key(kind), kind, size_mib, _DISK_LAYOUT,
                 P1_START, P1_SIZE, ROOT_START, builder_text(), inspect.getsource(_build_disk))
    return cached(f"disk-{kind}", key, lambda path: _build_disk(path, kind, size_mib * MIB))


# Of disks whose root is a variant of systemd's.
_VARIANT_LAYOUT = f"label: dos\nlabel-id: 0x{DISK_ID}\nstart=2048, size={P1_SIZE // SECTOR}, type=c\n" \
                  f"start={ROOT_START // SECTOR}, type=83\n"


def packages(name, names):
    """A folder with these packages of Debian, as they are downloaded."""
    def build(path):
        path.mkdir()
        run("apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", *names, cwd=path)
    return cached(name, key_of(*names), build)


def variant_disk(name, root, folder, disk_name="disk.img"):
    """A fresh copy, in folder, of a disk with this root: a folder that is a variant of systemd's."""
    size = DEFAULT_DISK_MIB * MIB

    def build(path):
        make_file(path, size)
        partition(path, _VARIANT_LAYOUT)
        make_ext4(path, ROOT_START, size - ROOT_START, "debian-root", "3f0c6a4e-5a5b-4d0e-9c5a-0d1500000002", root)
    key = key_of(root.name, _VARIANT_LAYOUT, builder_text())
    return copy_sparse(cached(f"disk-{name}", key, build), pathlib.Path(folder) / disk_name)


if __name__ == "__main__":
    for which in sys.argv[1:] or ("systemd", "sysvinit", "uefi"):
        print(disk(which))
