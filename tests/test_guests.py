#!/usr/bin/env python3
"""Whole takeovers in guests: real Debian systems, real reboots, the shipped binary as it is."""

import hashlib
import pathlib
import re
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lib"))
import balena_image  # noqa: E402
import command_lines  # noqa: E402
import efi  # noqa: E402
import fat  # noqa: E402
import guest as guests  # noqa: E402
import runner  # noqa: E402
import screen  # noqa: E402
import stacked  # noqa: E402
import wire  # noqa: E402
from guest import Guest, boot_files, compare_disk, new_disk  # noqa: E402
from result import check_result_line, check_steps  # noqa: E402
from wire import Wire  # noqa: E402

MIB = 1 << 20
TAKEOVER = runner.program()
FIXTURES = pathlib.Path(__file__).parent / "fixtures/guest"
# With the name that every guest has: carried over it is the same.
CONFIG = b'{"apiEndpoint":"https://api.example.com","applicationId":"1","deviceType":"genericx86-64-ext",' \
         b'"hostname":"guest","apiKey":"sEcReT-1","keep":  [1.0, "as it is"]}\n'
# What may be on no console and in no log: API key, LUKS key, and the keys of the Wi-Fis in the fixtures.
SECRETS = ("sEcReT", stacked.LUKS_KEY, "wOrds-0f-PSK", "hIdden-sae-W0rd")
COMMAND = "cp /job/takeover /usr/local/bin/ && takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack"
# Ends the waiting for a takeover that was refused.
REFUSED = "Kernel panic - not syncing|job ended, exit code [1-9]"
SEE = "cat /proc/swaps; cut -d' ' -f5- /proc/self/mountinfo | grep -v '^/job'; ls /run"


def config_for(name):
    """The config.json for an image: its device type is the image's."""
    return CONFIG.replace(b"genericx86-64-ext", balena_image.slug(name).encode())


def job(image, script, name="small"):
    """The files of a job disk."""
    return {"run.sh": script.encode(), "takeover": TAKEOVER, "image": pathlib.Path(image),
            "config.json": config_for(name)}


def check_new_os(guest, folder, name="small", wait=240):
    """The new OS has come up with our config.json, and the disk is the image but for the boot partition."""
    check_boot(guest, config_for(name), wait)
    check_disk(folder, name)
    return check_result(guest, "done")


def check_boot(guest, config, wait=240):
    """The new OS has come up with this config.json, and has ended."""
    guest.wait_for("NEWOS: booted", wait)
    digest = hashlib.sha256(config).hexdigest()
    guest.wait_for(f"NEWOS: config.json sha256={digest}", 60)
    guest.wait_for("NEWOS: config.json ok", 10)
    guest.wait_for("NEWOS: done", 120)
    guest.wait_exit(60)
    check_secrets(guest.text())


def check_secrets(text):
    found = [secret for secret in SECRETS if secret in text]
    assert not found, f"there are secrets in what anybody may read: {found}"


def check_disk(folder, name="small", config=None, more=None, but=(), image=None):
    """The disk is the image (or the one made of it, by its path) but for config.json, more (files of the boot partition)
    and the partitions in but: to the sector, and to those who read the files."""
    disk, image = folder / "disk.img", image or balena_image.image(name)
    boot = balena_image.partition(name, "resin-boot")
    ours = {"config.json": config or config_for(name)} | (more or {})
    places = [balena_image.partition(name, label) for label in but]
    different = compare_disk(disk, image, exclude=[(place.start, place.size) for place in places])
    strange = fat.strangers(disk, boot.start, different, ours)
    assert not strange, ("sectors of the boot partition, or of the disk before and behind it", strange[:20])
    wanted = boot_files(image, boot.start) | ours
    found = boot_files(disk, boot.start)
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())
    for path, content in wanted.items():
        assert found[path] == content, (path, found[path])
    fat.check(disk, boot.start)


def without_kernel(console):
    """The kernel writes to a console past everybody's queue: its messages are taken out before the lines are read."""
    return re.sub(r"\[ *\d+\.\d{6}\] .*\n", "", console)


def check_result(guest, outcome, times=1):
    console = without_kernel(guest.text())
    lines = [line for line in console.splitlines() if line.startswith('{"outcome"')]
    assert len(lines) == times and len(set(lines)) == 1, lines
    print(f"    {lines[0]}")
    # Lines that a message of the kernel has cut are whole again.
    check_steps(console, outcome)
    return check_result_line(lines[0], outcome)


def log_disk(folder):
    """A second disk that is one ext4 file system, for logs."""
    path = folder / "log.img"
    guests.rootfs.make_file(path, 16 * MIB)
    guests.rootfs.make_ext4(path, 0, 16 * MIB, "LOG", "b0a7e7e1-0000-4000-8000-000000000001")
    return path


def test_systemd_is_taken_over(folder):
    image = balena_image.gz("small", parts=3)
    with Guest("systemd", [new_disk("systemd", folder)], files=job(image, f"{COMMAND}\n")) as guest:
        guest.wait_for("PID 1 is handed over", 120)
        result = check_new_os(guest, folder)
        assert result["attempts"] == 1 and result["repaired_chunks"] == 0, result


def test_sysvinit_is_taken_over(folder):
    image = balena_image.zipped("small")
    with Guest("sysvinit", [new_disk("sysvinit", folder)], files=job(image, f"{COMMAND}\n")) as guest:
        check_new_os(guest, folder)


def test_command_lines_about_a_disk_in_use_say_what_they_should(folder):
    lines = [line for line in command_lines.table() if line.in_guest]
    assert len(lines) >= 10, len(lines)
    script = "\n".join(f"echo 'LINE {line.number}'; {line.text} </dev/null; echo \"CODE {line.number} $?\"" for line in lines)
    script = f"set +e; cp /job/takeover /usr/local/bin/; sync\n{script}\necho OVER\npoweroff -f\n"
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script)) as guest:
        guest.wait_for("^OVER", 240)
        guest.wait_exit(60)
        text = without_kernel(guest.text())
        check_secrets(text)
    failed = []
    for line in lines:
        found = re.search(rf"^LINE {line.number}$\n(.*?)^CODE {line.number} (\d+)$", text, re.M | re.S)
        wrong = command_lines.judge(line, int(found[2]), "", found[1]) if found else ["it was not run"]
        failed += [(line.text, wrong, found and found[1])] if wrong else []
    assert not failed, failed
    # An ordinary device's page fits on a screen.
    page = re.search(r"^This device\n(?:[^\[\n].*\n)*", text, re.M)[0].splitlines()
    assert 20 < len(page) <= 40 and max(map(len, page)) <= command_lines.COLUMNS, page


def release_is_taken_over(release, folder):
    """Taken over with its own kernel and systemd; what is on the disk then boots with the kernel that it was made for."""
    disk = new_disk(release, folder)
    # Newer kernels name disks as they find them. One processor: where a kernel patches its own code, QEMU's second one can
    # run into the breakpoint that is there meanwhile.
    with Guest(release, [disk], files=job(balena_image.gz("small"), f"{COMMAND}\n"), reboot=False, smp=1,
               options=f"root=PARTUUID={guests.rootfs.DISK_ID}-02") as guest:
        guest.wait_for("PID 1 is handed over", 180)
        guest.wait_exit(120)
        result = check_result(guest, "done")
        check_secrets(guest.text())
    with Guest("image", [disk]) as guest:
        check_boot(guest, config_for("small"))
    check_disk(folder)
    return result


def test_debian_13_is_taken_over(folder):
    """Linux 6.12 and systemd 257."""
    release_is_taken_over("trixie", folder)


def test_ubuntu_16_04_is_taken_over(folder):
    """Linux 4.4 and systemd 229: older than all that devices in the field run."""
    release_is_taken_over("xenial", folder)


# What the kernel lends to others is refused, also where nobody has mounted configfs any more, and is not refused when it is
# lent no more; that secure boot is off is known without efivarfs.
LENT = r"""
cp /job/takeover /usr/local/bin/
umount /sys/firmware/efi/efivars
modprobe -a target_core_mod nvmet || exit 1
config=/sys/kernel/config
mountpoint -q $config || mount -t configfs none $config || exit 1
truncate -s 8M /lent.img
lent() {
    takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --dry-run >/tmp/said 2>&1
    [ $? = 3 ] && grep "$1" /tmp/said || { cat /tmp/said; exit 1; }
}
store=$config/target/core/fileio_0/lent
mkdir -p $store && echo fd_dev_name=/lent.img,fd_dev_size=8388608 >$store/control && echo 1 >$store/enable || exit 1
lent 'LIO of the kernel lends /lent.img to other machines'
umount $config || exit 1
lent 'LIO of the kernel lends /lent.img to other machines'
mountpoint -q $config && exit 1
mount -t configfs none $config
rmdir $store ${store%/*} || exit 1
system=$config/nvmet/subsystems/lent
mkdir $system $system/namespaces/1 && echo -n /dev/nvme0n1p2 >$system/namespaces/1/device_path || exit 1
echo 1 >$system/namespaces/1/enable || exit 1
lent 'the NVMe target of the kernel lends /dev/nvme0n1p2 to other machines'
echo 0 >$system/namespaces/1/enable
"""


def test_uefi_with_a_gpt_image_is_taken_over(folder):
    image = balena_image.gz("gpt")
    with Guest("uefi", [new_disk("uefi", folder)], files=job(image, f"{LENT}\n{COMMAND}\n", "gpt"),
               fail_on=REFUSED) as guest:
        guest.wait_for("PID 1 is handed over", 180)
        assert not guest.find("cannot be told"), guest.tail(80)
        check_new_os(guest, folder, "gpt")


# Entries as a device has them: of the old OS (its file is no more: a path that leads nowhere), of another disk, of a
# former balenaOS that nobody may change. The other disk is one that starts, but no system of ours.
OLD_ESP, OTHER_ESP = "3f0c6a4e-5a5b-4d0e-9c5a-0d1500000011", "3f0c6a4e-5a5b-4d0e-9c5a-0d15000000a1"
ENTRIES = {
    0x50: efi.option("debian", OLD_ESP, r"\EFI\debian\shimx64.efi"),
    0x51: efi.option("the other disk", OTHER_ESP, r"\EFI\BOOT\BOOTX64.EFI", data=b"its own data"),
    0x52: efi.option("resinOS", OTHER_ESP, r"\EFI\BOOT\BOOTX64.EFI"),
    0x53: efi.option("in no order", OTHER_ESP, r"\EFI\x.efi", data=bytes(5000)),
}
PUT_ENTRIES = f"""
cd {efi.FOLDER} || exit 1
vendor={efi.GLOBAL}
for name in Boot0050 Boot0051 Boot0052 Boot0053; do cat /job/$name >$name-$vendor || exit 1; done
{{ printf '\\7\\0\\0\\0\\x50\\0\\x52\\0\\x51\\0'; tail -c +5 BootOrder-$vendor; }} >/tmp/order
cat /tmp/order >BootOrder-$vendor && printf '\\7\\0\\0\\0\\x50\\0' >BootNext-$vendor || exit 1
chattr +i Boot0052-$vendor || exit 1
cd /
! command -v efibootmgr || efibootmgr -v
"""


def other_disk(folder):
    """A disk that the firmware starts when it comes to it, and that comes to nothing then."""
    path = folder / "other.img"
    guests.rootfs.make_file(path, 80 * MIB)
    guests.rootfs.partition(path, f"label: gpt\nfirst-lba: 2048\nstart=2048, size=131072, type=U, uuid={OTHER_ESP}\n")
    guests.rootfs.make_fat(path, MIB, 64 * MIB, "OTHER", "0d1500a1", 16, 4)
    loader = guests.rootfs.efi_files("none", "")["/EFI/BOOT/BOOTX64.EFI"]
    guests.rootfs.fat_put(path, MIB, {"/EFI/BOOT/BOOTX64.EFI": loader})
    return path


def check_boot_entry(guest, folder, image="gpt"):
    """The entry of the new OS is the first, those of the old OS are gone, all others are as they were; and the firmware
    starts the new OS by it."""
    guest.wait_for("PID 1 is handed over", 600)
    before = efi.variables(guest.uefi_vars)
    assert {number: efi.entries(before)[number].bytes for number in ENTRIES} == ENTRIES
    assert efi.order(before)[:3] == [0x50, 0x52, 0x51] and before["BootNext"] == b"\x50\0", before["BootOrder"]
    guest.wait_for("done: restarting into the new OS", 300)
    # Before the firmware puts its own entries in another order.
    after = efi.variables(guest.uefi_vars)
    check_changed_entries(before, after, image)
    guest.wait_for(r'BdsDxe: starting Boot\w{4} "balenaOS" from HD\(1,GPT,', 300)
    result = check_new_os(guest, folder, image, wait=300)
    assert result["efi"] == "set" and guest.find("NEWOS: efi boot .* label=balenaOS"), result
    entries = efi.entries(efi.variables(guest.uefi_vars))
    assert {number: entries[number].bytes for number in (0x51, 0x53)} == {number: ENTRIES[number] for number in (0x51, 0x53)}


def check_changed_entries(before, after, image):
    old, new = efi.entries(before), efi.entries(after)
    ours = [number for number, option in new.items() if option.name == "balenaOS"]
    assert len(ours) == 1 and efi.order(after)[0] == ours[0], (new, efi.order(after))
    boot = next(part for part in guests.partitions(balena_image.image(image)) if part["name"] == "resin-boot")
    option = new[ours[0]]
    assert option.partition == boot["uuid"].lower(), (option, boot)
    assert option.bytes == efi.option("balenaOS", boot["uuid"], option_file(option), boot["start"] // 512,
                                      boot["size"] // 512), option
    gone = {number for number in old if old[number].name == "resinOS" or old[number].partition == OLD_ESP}
    assert old.keys() - new.keys() == gone - set(ours), (old.keys(), new.keys())
    for number in old.keys() - gone:
        assert new[number].bytes == old[number].bytes, (old[number], new[number])
    kept = [number for number in efi.order(before) if number not in gone]
    assert efi.order(after)[1:] == kept, (efi.order(after), efi.order(before))
    assert "BootNext" not in after


def option_file(option):
    """The file that a load option of ours names."""
    return re.search(r"\\EFI\\BOOT\\BOOT\w+\.EFI", option.bytes[6:].decode("utf-16-le", "replace"))[0]


def test_uefi_starts_the_new_os_by_its_own_boot_entry(folder):
    """An entry that leads nowhere comes first, then another disk, and the disks as the firmware finds them last of all."""
    image = balena_image.gz("gpt")
    files = job(image, f"{PUT_ENTRIES}\n{COMMAND}\n", "gpt")
    files |= {f"Boot{number:04X}": efi.as_file(value) for number, value in ENTRIES.items()}
    with Guest("uefi", [new_disk("uefi", folder), other_disk(folder)], files=files, timeout=600,
               fail_on=REFUSED) as guest:
        guest.wait_for("boot entry +balenaOS, the first in the boot order", 180)
        check_boot_entry(guest, folder)
        assert guest.find(r"the boot entry Boot0050 \(debian\)$"), guest.tail(60)
        assert guest.find(r"the boot entry Boot0052 \(resinOS\)$"), guest.tail(60)


# As full as the kernel lets it get: it keeps 5 KiB for the firmware.
FILL_STORE = f"""
cd {efi.FOLDER} || exit 1
number=0
for size in 1000 200 60; do
    {{ printf '\\7\\0\\0\\0'; head -c $size /dev/zero; }} >/tmp/filler
    # One that fails leaves a name that cannot be written to.
    while number=$((number + 1)) && cat /tmp/filler >Filler$number-0d150001-93ca-11d2-aa0d-00e098032b8c; do :; done
done 2>/tmp/said
echo "filled up to $number: $(tail -n 1 /tmp/said)"
stat -f .
cd /
"""


def test_uefi_without_room_for_a_boot_entry_is_taken_over_all_the_same(folder):
    image, store = balena_image.gz("gpt"), folder / "vars.fd"
    # Most of it from here: the flash memory of a guest is slow.
    efi.fill(guests.rootfs.copy_sparse(guests.OVMF_VARS, store), 29)
    with Guest("uefi", [new_disk("uefi", folder)], files=job(image, f"{FILL_STORE}\n{COMMAND}\n", "gpt"),
               uefi_vars=store, fail_on=REFUSED) as guest:
        guest.wait_for("filled up to .* No space left", 180)
        guest.wait_for(r"warning: the firmware has \d+ bytes left for variables, and up to \d+ are needed", 60)
        guest.wait_for("PID 1 is handed over", 60)
        before = efi.variables(guest.uefi_vars)
        guest.wait_for("warning: writing the EFI variable Boot.*: no space left: no boot entry is made", 120)
        result = check_new_os(guest, folder, "gpt")
        assert result["efi"] == "failed" and result["outcome"] == "done", result
        assert guest.find("NEWOS: efi boot .* label=UEFI"), guest.tail(60)
        assert efi.variables(guest.uefi_vars) == before, "nothing is half done"


def test_uefi_whose_boot_entries_are_to_be_left_alone(folder):
    image = balena_image.gz("gpt")
    script = f"{PUT_ENTRIES}\n{COMMAND} --no-efi-setup\n"
    files = job(image, script, "gpt")
    files |= {f"Boot{number:04X}": efi.as_file(value) for number, value in ENTRIES.items()}
    with Guest("uefi", [new_disk("uefi", folder)], files=files, fail_on=REFUSED, reboot=False) as guest:
        guest.wait_for("boot entry +none: --no-efi-setup", 180)
        guest.wait_for("PID 1 is handed over", 60)
        before = efi.variables(guest.uefi_vars)
        guest.wait_exit(120)
        assert check_result(guest, "done")["efi"] == "none"
        assert efi.variables(guest.uefi_vars) == before


def take_over(folder, kind, before="", said="", more_disks=()):
    """Whatever lies between the disk and its root, the whole disk is taken."""
    script = f"{before}\n{SEE}\n{COMMAND}\n"
    with Guest(kind, [new_disk(kind, folder), *more_disks], files=job(balena_image.gz("small"), script),
               fail_on=REFUSED) as guest:
        guest.wait_for("PID 1 is handed over", 180)
        assert not guest.find("held by what cannot be seen"), "what uses the disk is known"
        assert guest.find(said), guest.tail(80)
        check_new_os(guest, folder)


IN_USE = """
grep -q dm- /proc/swaps && mountpoint -q /srv || { echo 'the volumes are not in use'; exit 1; }
sleep 10000 < /srv/lost+found &
"""


def test_lvm_is_taken_over(folder):
    """The root, a file system in use and the swap are volumes of one group; a volume itself is no disk to write to."""
    take_over(folder, "lvm", f"""{IN_USE}
cp /job/takeover /usr/local/bin/
takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --dry-run -f /dev/mapper/vg0-root 2>&1 | tee /tmp/said
grep -q 'vg0-root: it lies on a disk; the image replaces a whole disk (/dev/nvme0n1); name the disk' /tmp/said || exit 1
""")


def test_dm_crypt_is_taken_over(folder):
    """With the image in memory: what it is on the disk is not to be read there once the key is gone."""
    take_over(folder, "crypt", """
cp /job/takeover /usr/local/bin/
cp /job/image /image && sync
takeover --no-api-check --no-vpn-check -i /image -c /job/config.json --dry-run --stage disk 2>&1 | tee /tmp/said
grep -q 'it is encrypted there' /tmp/said || exit 1
""")


def test_lvm_in_dm_crypt_is_taken_over(folder):
    take_over(folder, "crypt-lvm", IN_USE)


def test_md_is_taken_over(folder):
    """The disk is the one half of a mirror that is there."""
    take_over(folder, "md")


def test_btrfs_is_taken_over(folder):
    """The root is a subvolume, the file system is mounted a second time as a whole, and a file of it is mounted. With a
    part of it on another disk it is refused; that disk is used by it, though no mount names it."""
    other = folder / "other.img"
    guests.rootfs.make_file(other, 256 * MIB)
    take_over(folder, "btrfs", """
cp /job/takeover /usr/local/bin/
dry() { takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --dry-run "$@" >/tmp/said 2>&1; echo "exit $?" >>/tmp/said; }
has() { grep -q "$1" /tmp/said || { cat /tmp/said; exit 1; }; }
other=$(lsblk -bdno NAME,SIZE | awk '$2 == 268435456 { print $1 }')
btrfs device add -f /dev/$other / || exit 1
dry
has 'lies on several disks: nvme0n1, '$other
has 'exit 3'
dry -f /dev/nvme0n1
has "/ lies on $other, too, which keeps what it has"
has 'exit 0'
dry -f /dev/$other
has 'mounted at / (btrfs)'
btrfs device remove /dev/$other / || exit 1
mkdir /whole && mount -t btrfs -o subvolid=5 /dev/nvme0n1p2 /whole
dd if=/dev/zero of=/file.img bs=1M count=8 status=none; mkfs.ext4 -q /file.img; mount -o loop /file.img /srv
mountpoint -q /srv || exit 1
truncate -s 0 /swap && chattr +C /swap && dd if=/dev/zero of=/swap bs=1M count=32 status=none && chmod 600 /swap
mkswap -q /swap && swapon /swap && losetup -f /var/log/lastlog && losetup -a || exit 1
""", "swap on /swap is off", [other])


# Compressed memory that writes to a file, as Raspberry Pi OS 13 has its swap, and a file that is a disk of
# device-mapper, as a container of LUKS is.
FILES_AS_DISKS = """
set -e
dd if=/dev/zero of=/var/backing bs=1M count=32 status=none
modprobe zram
losetup -f --show /var/backing > /sys/block/zram0/backing_dev
echo 32M > /sys/block/zram0/disksize
mkswap -q /dev/zram0; swapon /dev/zram0
dd if=/dev/zero of=/var/container bs=1M count=16 status=none
modprobe dm-mod
echo 0 32768 linear $(losetup -f --show /var/container) 0 | dmsetup create inner
mkfs.ext4 -q /dev/mapper/inner; mount /dev/mapper/inner /srv
sleep 10000 < /srv/lost+found &
cat /sys/block/zram0/backing_dev
set +e
"""


def test_zram_and_device_mapper_over_files_are_taken_down(folder):
    with Guest("systemd", [new_disk("systemd", folder)], fail_on=REFUSED,
               files=job(balena_image.gz("small"), f"{FILES_AS_DISKS}\n{COMMAND}\n")) as guest:
        guest.wait_for("^/dev/loop0", 120)
        for line in (r"mounted at /srv \(ext4\)", r"below dm-0 \(inner\)", "below zram0", "swap on /dev/zram0",
                     "swap on /dev/zram0 is off", "PID 1 is handed over"):
            guest.wait_for(line, 60)
        check_new_os(guest, folder)


# What an initrd does that makes the root an overlay, as Debian's overlayroot does (Raspberry Pi OS: "Overlay File
# System"): below it the disk's root, read-only, above it memory. The new OS has no Debian on it, and starts as it is.
OVERLAY_INIT = """#!/bin/busybox sh
PATH=/bin
mkdir -p /dev /proc /root
mount -t devtmpfs dev /dev
mount -t proc proc /proc
until [ -b /dev/nvme0n1p2 ]; do usleep 100000; done
mount -t ext4 -o ro /dev/nvme0n1p2 /root
if [ -e /root/etc/debian_version ]; then
    insmod /overlay.ko
    mkdir -p /media/root-ro /media/root-rw
    mount --move /root /media/root-ro
    mount -t tmpfs -o mode=0755 tmpfs-root /media/root-rw
    mkdir /media/root-rw/overlay /media/root-rw/overlay-workdir
    mount -t overlay -o \
        lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/media/root-rw/overlay-workdir overlayroot /root
    if grep -q root=overlay /proc/cmdline; then
        mkdir -p /root/media/root-ro /root/media/root-rw
        mount --move /media/root-ro /root/media/root-ro
        mount --move /media/root-rw /root/media/root-rw
    fi
else
    mount -o remount,rw /root
fi
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
"""


def overlay_initrd(folder):
    """The initrd with that init, as the kernel unpacks it."""
    return guests.rootfs.initrd(folder / "initrd.cpio", OVERLAY_INIT, ["overlay"])


def test_an_overlay_over_the_root_is_taken_over(folder):
    """The disk is found below the overlay's lower directory; what the device wrote lay in memory only."""
    # root= names no disk: only the lower directory leads there.
    script = f"""
grep ' / / .* - overlay overlayroot ' /proc/self/mountinfo && touch /written && [ ! -e /media/root-ro/written ] || exit 1
grep ' /media/root-ro .* - ext4 /dev/nvme0n1p2 ' /proc/self/mountinfo || exit 1
{SEE}
{COMMAND}
"""
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script), fail_on=REFUSED,
               options="root=overlay", qemu_args=["-initrd", overlay_initrd(folder)]) as guest:
        guest.wait_for("PID 1 is handed over", 180)
        check_new_os(guest, folder)


def test_an_overlay_over_a_hidden_root_is_refused(folder):
    """Its lower directory stayed in the initrd, as with Raspberry Pi OS before Debian 12: nothing could unmount it."""
    script = f"""
grep ' / / .* - overlay overlayroot ' /proc/self/mountinfo || exit 1
{COMMAND}; echo EXIT $?
takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --dry-run -f /dev/nvme0n1; echo EXIT named $?
poweroff -f
"""
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script),
               qemu_args=["-initrd", overlay_initrd(folder)]) as guest:
        guest.wait_for("looking for the disk below /: it is an overlay, .* turn the overlay off", 120)
        guest.wait_for("EXIT 3", 10)
        # Whoever names the disk is told that it is in use all the same.
        guest.wait_for("nvme0n1p2 is held by what cannot be seen from here", 60)
        guest.wait_for("EXIT named 0", 60)
        guest.wait_exit(60)


HOSTILE = """
dd if=/dev/zero of=/swap bs=1M count=64 status=none; chmod 600 /swap; mkswap -q /swap; swapon /swap
mkdir -p /low /up/u /up/w /over /bound /looped
mount -t overlay -o lowerdir=/low,upperdir=/up/u,workdir=/up/w none /over
mount --bind / /bound
dd if=/dev/zero of=/loop.img bs=1M count=8 status=none; mkfs.ext4 -q /loop.img; mount -o loop /loop.img /looped
sleep 10000 < /bound/etc/passwd &
systemd-run -q -p PrivateTmp=yes -p PrivateMounts=yes sleep 10000
unshare --mount sh -c 'mount -t tmpfs x /mnt; exec 3>/root/open; echo started >&3; sleep 10000' &
sleep 10000 & kill -STOP $!
sh -c 'trap "" TERM; while :; do sleep 1; echo x > /looped/x; done' &
sleep 2
head -c 1G /dev/zero > /run/full
swapon --show; df /run | tail -1; losetup -a
"""


def test_a_hostile_system_is_taken_over(folder):
    image = balena_image.gz("small")
    with Guest("systemd", [new_disk("systemd", folder)], files=job(image, f"{HOSTILE}{COMMAND}\n")) as guest:
        guest.wait_for(r"swap on /swap is off", 120)
        # /run has no room for what systemd writes down when it executes itself again.
        guest.wait_for(r"PID 1 is made to execute this program, by ptrace", 60)
        guest.wait_for(r"did not end when asked", 120)
        check_new_os(guest, folder)


def test_128_mb_fitting_and_not_fitting(folder):
    """In one run: an image that is to wait in memory and does not fit is refused with figures, then one that does is
    taken."""
    script = f"""
    {SEE} > /tmp/before
    takeover() {{ /usr/local/bin/takeover "$@"; }}
    cp /job/takeover /usr/local/bin/
    /usr/local/bin/takeover --no-api-check --no-vpn-check -i /job/large -c /job/config.json --no-ack --stage ram; echo EXIT $?
    {SEE} > /tmp/after; cmp /tmp/before /tmp/after && echo SAME
    free -m
    {COMMAND}
    """
    files = job(balena_image.gz("small"), script)
    files["large"] = balena_image.gz("demo")
    with Guest("systemd", [new_disk("systemd", folder)], memory=128, files=files, timeout=600) as guest:
        guest.wait_for(r"are needed \(\d+\.\d MiB for the image.* are available", 300)
        guest.wait_for("EXIT 3", 10)
        guest.wait_for("SAME", 10)
        check_new_os(guest, folder)


def refusals():
    """Name, option changes, exit code and message of each refusal that one guest tries in turn."""
    return [
        ("not root", "su nobody -s /bin/sh -c 'takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack'", 3, "only root"),
        ("namespace", "unshare --mount takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack", 3, "another namespace"),
        ("pid namespace", "unshare --mount --pid --fork --mount-proc takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json "
                          "--no-ack", 3, "this is a container"),
        ("truncated", "head -c 3000000 /job/image > /tmp/t.gz; takeover --no-api-check --no-vpn-check -i /tmp/t.gz -c /job/config.json --no-ack",
         3, "cut short"),
        ("crc", "cp /job/image /tmp/t.gz; printf xxxx | dd of=/tmp/t.gz bs=1 seek=$(($(stat -c %s /tmp/t.gz) - 8)) "
                "conv=notrunc status=none; takeover --no-api-check --no-vpn-check -i /tmp/t.gz -c /job/config.json --no-ack", 3, "CRC of member 1"),
        ("garbage", "(cat /job/image; echo garbage) > /tmp/t.gz; takeover --no-api-check --no-vpn-check -i /tmp/t.gz -c /job/config.json --no-ack",
         3, "gunzip"),
        ("second member", "(cat /job/image; head -c 100000 /job/image) > /tmp/t.gz; "
                          "takeover --no-api-check --no-vpn-check -i /tmp/t.gz -c /job/config.json --no-ack", 3, "cut short"),
        ("too large", "takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack -f /dev/nvme0n2", 3, "the disk has"),
        ("no table", "head -c 1M /dev/zero > /tmp/t; takeover --no-api-check --no-vpn-check -i /tmp/t -c /job/config.json --no-ack", 3,
         "partition table .* there is none"),
        ("xz", "printf '\\3757zXZ\\0 and more' > /tmp/t; takeover --no-api-check --no-vpn-check -i /tmp/t -c /job/config.json --no-ack", 3, "xz"),
        ("no config", "takeover --no-api-check --no-vpn-check -i /job/image -c /nowhere --no-ack", 3, "/nowhere: no such file"),
        ("bad config", "echo '{\"a\":1,}' > /tmp/c; takeover --no-api-check --no-vpn-check -i /job/image -c /tmp/c --no-ack", 3,
         "line 1, column 7: a comma after the last element"),
        ("partition", "takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack -f /dev/nvme0n1p2", 3,
         "it is a partition"),
        ("log device", "takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack -l /dev/nvme0n1p2", 3,
         "disk that will be overwritten"),
        ("not there", "takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack -f /dev/sdz", 3,
         "/dev/sdz: no such file"),
        ("memory limit", "systemd-run -q --pipe --wait -p MemoryMax=8M takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json "
                         "--dry-run --stage ram", 3, "are needed in memory, and its control group leaves it"),
        ("usage", "takeover --nonsense", 2, "there is no option --nonsense"),
        ("no", "echo no | takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json", 3, "the answer was not"),
    ]


def test_refusals_and_dry_run_leave_a_guest_untouched(folder):
    steps = []
    for name, command, code, _ in refusals():
        steps.append(f"echo 'CASE {name}'; ({command}) 2>&1; echo 'EXIT {name}' $?")
    script = f"""
    cp /job/takeover /usr/local/bin/; chmod 755 /usr/local/bin/takeover
    mkdir /tmp/see; ({SEE}) > /tmp/see/before; cp /proc/1/comm /tmp/see/comm
    {chr(10).join(steps)}
    echo CASE dry; takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --dry-run; echo EXIT dry $?
    ({SEE}) > /tmp/see/after; diff /tmp/see/before /tmp/see/after && cmp /proc/1/comm /tmp/see/comm && echo SAME
    systemctl is-system-running --wait; echo STILL RUNNING
    poweroff -f
    """
    disks = [new_disk("systemd", folder), folder / "small.img"]
    with open(disks[1], "wb") as file:
        file.truncate(32 * MIB)
    with Guest("systemd", disks, files=job(balena_image.gz("small", parts=1), script), timeout=600) as guest:
        guest.wait_for("STILL RUNNING", 500)
        text = guest.text()
        for name, _, code, message in refusals():
            found = re.search(rf"CASE {name}\s(.*?)EXIT {name} (\d+)", text, re.S)
            assert found and int(found[2]) == code, (name, found and found[0])
            assert re.search(message, found[1]), (name, found[1])
        dry = re.search(r"CASE dry\s(.*?)EXIT dry 0", text, re.S)
        assert dry, text[-3000:]
        for words in ("its size        124.0 MiB", "memory needed", "every check passed, nothing was changed"):
            assert words in dry[1], (words, dry[1])
        assert "SAME" in text, guest.tail(40)
        guest.wait_exit(60)


def test_a_systemd_that_does_not_answer_is_left_as_it_was(folder):
    """The freezer holds PID 1, from ptrace, too: the hand-over never comes and is undone. Thawed, systemd executes itself
    again, as it was asked to, and is still itself; then it is taken over."""
    script = f"""
    cp /job/takeover /usr/local/bin/
    ({SEE}) > /tmp/before
    echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze
    takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack --hand-over-timeout 2; echo EXIT $?
    ({SEE}) > /tmp/after
    echo 0 > /sys/fs/cgroup/init.scope/cgroup.freeze
    diff /tmp/before /tmp/after && echo SAME
    # It says no while it is executing itself.
    timeout 60 sh -c 'until systemctl start systemd-tmpfiles-clean; do sleep 1; done' && echo STILL AT WORK
    cmp /proc/1/exe /usr/lib/systemd/systemd && echo STILL SYSTEMD
    {COMMAND}
    """
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script)) as guest:
        guest.wait_for("everything is undone", 120)
        assert guest.find("handing over PID 1: it did not execute itself again within 2 s"), guest.tail(80)
        for words in ("by ptrace: tracing process 1: it made no system call within 2 s", "EXIT 1", "SAME",
                      "STILL AT WORK", "STILL SYSTEMD", "PID 1 is handed over"):
            guest.wait_for(words, 60)
        check_new_os(guest, folder)


def test_pretend_restarts_the_old_os(folder):
    script = f"""
    if [ "$BOOT" = 1 ]; then {COMMAND} --pretend; else echo OLD OS AGAIN; tail -n 1 /var/log/takeover.log; poweroff -f; fi
    """
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script)) as guest:
        guest.wait_for("pretended: restarting into the old OS", 120)
        guest.wait_for("OLD OS AGAIN", 120)
        guest.wait_for('^{"outcome":"pretended"', 20)
        guest.wait_exit(60)
        check_result(guest, "pretended", times=2)


def test_a_worker_killed_before_the_first_write_brings_the_old_os_back(folder):
    script = f"""
    if [ "$BOOT" = 1 ]; then
        sh -c 'trap "" TERM; while :; do sleep 1; done' &
        {COMMAND}
    else
        echo OLD OS AGAIN; cat /var/log/takeover.log; echo LOG ENDS; poweroff -f
    fi
    """
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script)) as guest:
        guest.wait_for("takeover is PID 1", 120)
        time.sleep(1)
        guest.sysrq("i")     # SIGKILL to every process but PID 1
        guest.wait_for("killed by signal 9 in phase kill", 30)
        guest.wait_for("OLD OS AGAIN", 120)
        guest.wait_for(r"killed by signal 9 in phase kill", 20)
        guest.wait_for("LOG ENDS", 20)
        guest.wait_exit(60)


# Where the memory is that the kernel keeps its log in: a MiB below the end of 512.
RAMOOPS = "0x1e000000"


def test_a_panic_before_the_first_write_brings_the_old_os_back(folder):
    """Debian's kernels stand still when they panic. Where the kernel keeps its log over a reset, ours is in it."""
    script = f"""
    modprobe ramoops mem_address={RAMOOPS} mem_size=0x100000 record_size=0x40000
    if [ "$BOOT" = 1 ]; then
        sync; cat /proc/sys/kernel/panic
        sh -c 'trap "" TERM; while :; do sleep 1; done' &
        {COMMAND}
    else
        mountpoint -q /sys/fs/pstore || mount -t pstore pstore /sys/fs/pstore
        echo OLD OS AGAIN; grep -aho 'takeover: .*takeover is PID 1' /sys/fs/pstore/dmesg-*; echo STORE ENDS; poweroff -f
    fi
    """
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script),
               options=f"panic=0 memmap=0x100000${RAMOOPS}", fail_on=None, timeout=900) as guest:
        guest.wait_for("^0$", 120)
        guest.wait_for("takeover is PID 1", 120)
        time.sleep(1)
        guest.sysrq("c")
        guest.wait_for("Kernel panic - not syncing", 30)
        guest.wait_for("Rebooting in 30 seconds", 30)
        # A guest that has a tenth of a CPU waits ten times as long.
        guest.wait_for("OLD OS AGAIN", 600)
        guest.wait_for(r"takeover: \[\d+\.\d{3}\] takeover is PID 1", 60)
        guest.wait_for("STORE ENDS", 60)
        guest.wait_exit(60)


def test_what_the_old_freezer_holds_is_thawed_and_ended(folder):
    """A paused container under the first version of cgroups: not even SIGKILL ends it."""
    script = f"""
    cd /sys/fs/cgroup/freezer && mkdir -p paused/inner && cd /
    sleep 10000 < /etc/hostname &
    echo $! > /sys/fs/cgroup/freezer/paused/inner/cgroup.procs
    for group in paused/inner paused; do echo FROZEN > /sys/fs/cgroup/freezer/$group/freezer.state; done
    sleep 1; grep -H . /sys/fs/cgroup/freezer/paused/inner/freezer.state
    {COMMAND}
    """
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script),
               options="systemd.unified_cgroup_hierarchy=0", fail_on=REFUSED) as guest:
        guest.wait_for("paused/inner/freezer.state:FROZEN", 120)
        guest.wait_for("PID 1 is handed over", 120)
        check_new_os(guest, folder)
        assert guest.find("every process has ended"), guest.tail()


# A graphical session, whose terminal shows no text and is left by nobody but its process; and a session on the second
# console, which the kernel closes for everybody when that ends. That is no ttyS1: of a kind of serial line, the kernel
# has one as console.
SESSIONS = {"graphics.pl": """
open my $terminal, '+<', '/dev/tty7' or die;
ioctl $terminal, 0x5606, 7 or die;                              # VT_ACTIVATE
ioctl $terminal, 0x5607, 7 or die;                              # VT_WAITACTIVE
my $mode = pack 'CCsss', 1, 0, 10, 12, 0;
ioctl $terminal, 0x5602, $mode or die;                          # VT_SETMODE, VT_PROCESS
ioctl $terminal, 0x4b3a, 1 or die;                              # KDSETMODE, KD_GRAPHICS
print "GRAPHICAL\\n";
sleep 10000;
""", "session.pl": """
use POSIX ();
exit if fork;
POSIX::setsid();
open my $line, '+<', '/dev/hvc0' or die;
ioctl $line, 0x540e, 1 or die;                                  # TIOCSCTTY
print "SESSION\\n";
sleep 10000;
"""}


def check_every_console(first, second, datagrams):
    """What stage 2 says is on both, each line once, and was sent."""
    first, second = (without_kernel(console.replace("\r", "")) for console in (first, second))
    said = re.findall(r"^\[\d+\.\d{3}\] .*(?:takeover is PID 1|every process has ended|is free|killed by signal 9 in phase flash|"
                      r"starting the worker again|verified: |done: ).*$", first, re.M)
    assert len(said) >= 6, said
    for line in [*said, re.search('^{"outcome".*$', first, re.M)[0]]:
        assert second.count(line) == 1, (line, second)
        assert f"<14>takeover: {line}\n".encode() in datagrams, (line, datagrams)


def test_a_worker_killed_while_flashing_is_run_again(folder):
    """Seen on two consoles, on the screen and over the network, which nobody keeps up any more."""
    image = balena_image.gz("demo")
    files = job(image, f"""{wire.JOB}
    modprobe virtio_console && udevadm settle && perl /job/session.pl >/dev/console
    perl /job/graphics.pl >/dev/console & sleep 2
    {COMMAND} --no-nwmgr-check --log-udp {wire.ADDRESS}:514
    """) | SESSIONS
    second = folder / "second.log"
    with Wire() as cable, Guest(
            "systemd", [new_disk("systemd", folder)], memory=1024, timeout=900, files=files, fail_on=REFUSED,
            options="console=tty0 console=hvc0 console=ttyS0",
            qemu_args=[*cable.arguments, *screen.ARGUMENTS, "-device", "virtio-serial-pci", "-chardev",
                       f"file,id=hvc0,path={second}", "-device", "virtconsole,chardev=hvc0"]) as guest:
        guest.wait_for("SESSION", 120)
        guest.wait_for("GRAPHICAL", 30)
        guest.wait_for(r"flash: [1-9]\d? % of", 300)
        guest.pause()
        text, colour, rows = screen.read(guest)
        assert re.fullmatch(r"FLASH \d+% \d+:\d\d", text) and colour == "white", (text, colour)
        # The log, from the bottom up. How many lines it has by then, the machine's speed decides.
        assert len(rows) >= 2 and rows == list(range(rows[0], screen.ROWS - 1)), rows
        guest.resume()
        guest.sysrq("i")
        guest.wait_for("killed by signal 9 in phase flash", 30)
        guest.wait_for("it is flashed again", 30)
        check_boot(guest, config_for("demo"))
        # The address that the job has set is in force, so its keyfile comes along.
        keyfiles = {name: content for name, content in boot_files(
            folder / "disk.img", balena_image.partition("demo", "resin-boot").start).items()
            if name.startswith("system-connections/") and b"10.9.0.2/24" in content}
        assert len(keyfiles) == 1, keyfiles
        check_disk(folder, "demo", more=keyfiles)
        result = check_result(guest, "done")
        assert result["attempts"] == 2, result
        check_every_console(guest.text(), second.read_text(errors="replace"), cable.datagrams(514))


def test_a_chunk_that_rots_before_the_read_back_is_repaired(folder):
    """QEMU is paused, a chunk of the disk file changed, QEMU resumed."""
    image = balena_image.gz("demo")
    data = balena_image.partition("demo", "resin-rootA")
    place = data.start + 150 * MIB + 4321
    with Guest("systemd", [new_disk("systemd", folder)], memory=1024, timeout=900,
               files=job(image, f"{COMMAND}\n")) as guest:
        guest.wait_for(r"flashed \(.*reading back", 400)
        guest.pause()
        with open(folder / "disk.img", "r+b", buffering=0) as file:
            file.seek(place)
            before = file.read(6)
            file.seek(place)
            file.write(bytes(byte ^ 0xff for byte in before))
        guest.resume()
        guest.wait_for(rf"chunk {place // MIB} .*was read back wrong", 200)
        result = check_new_os(guest, folder, "demo")
        assert result["repaired_chunks"] == 1, result


# A watchdog of 8 s that cannot be stopped, fed by a process that will be ended.
WATCHDOG = """
[ -e /root/ran ] && { echo RESTARTED BY THE WATCHDOG; exit; }
touch /root/ran; sync
modprobe softdog soft_margin=8 nowayout=1 || echo NO WATCHDOG
( exec 3>/dev/watchdog; while :; do echo >&3; sleep 1; done ) &
sleep 1
"""


def test_a_watchdog_is_taken_and_fed(folder):
    """Reading back the large image alone takes longer than the watchdog waits."""
    image = balena_image.gz("demo")
    with Guest("systemd", [new_disk("systemd", folder)], memory=1024, timeout=900,
               files=job(image, f"{WATCHDOG}{COMMAND}\n", "demo")) as guest:
        result = check_new_os(guest, folder, "demo")
        console = "\n".join(line.text for line in guest.lines)
        assert "RESTARTED BY" not in console and "NO WATCHDOG" not in console, console[-2000:]
        assert sum(result["seconds"].values()) > 8, result


def test_a_log_device_keeps_the_log(folder):
    disks = [new_disk("systemd", folder), log_disk(folder)]
    command = COMMAND + " -l /dev/nvme0n2"
    with Guest("systemd", disks, files=job(balena_image.gz("small"), f"{command}\n")) as guest:
        result = check_new_os(guest, folder)
    log = guests.ext_read(disks[1], 0, "/takeover.log").decode()
    assert "verified" in log, log
    assert check_result_line(log.splitlines()[-1], "done") == result


OLD_SETTINGS = """
hostname old-name; echo old-name > /etc/hostname
mkdir -p /etc/network /etc/wpa_supplicant
cp /job/interfaces /etc/network/
install -m 600 /job/wpa_supplicant.conf /etc/wpa_supplicant/
mkdir -p /srv/data/deep /srv/logs
cd /srv
echo one > data/a.txt; echo two > data/b.log; echo three > data/deep/c.txt; echo four > elsewhere
ln -s /srv/elsewhere data/link.txt
echo five > one.conf; chmod 640 one.conf; touch -d @1600000000 one.conf
echo six > logs/today; ln -s logs current
head -c 300000 /dev/zero > plain
cd
"""
BACKED_UP = {"app-data/files/a.txt": b"one\n", "app-data/files/deep/c.txt": b"three\n",
             "app-data/files/link.txt": b"four\n", "app-data/settings/first.conf": b"five\n",
             "logs/today": b"six\n", "logs/plain": bytes(300000)}


def check_new_files(folder, name, config):
    """The boot partition has the keyfiles and the name, the data partition the backup and the log, and no more."""
    keyfiles = {f"system-connections/{path.name}": path.read_bytes()
                for path in (FIXTURES / "expected").iterdir()}
    check_disk(folder, name, config, keyfiles, but=["resin-data"])
    data = balena_image.partition(name, "resin-data")
    found = guests.ext_files(folder / "disk.img", data.start)
    check_backup(folder, found.pop("backup.tgz"))
    log = found.pop("fallback_log/fallback.log").decode()
    assert "verified" in log, log
    check_secrets(log)
    assert found == guests.ext_files(balena_image.image(name), data.start), sorted(found)


def check_backup(folder, content):
    """tar unpacks it to what was asked for, and at the top there are but directories named like the volumes."""
    archive, tree = folder / "backup.tgz", folder / "tree"
    archive.write_bytes(content)
    tree.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", tree], check=True)
    found = {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if not path.is_dir()}
    assert found == BACKED_UP, sorted(found)
    assert not [path for path in tree.rglob("*") if path.is_symlink()]
    with tarfile.open(archive) as entries:
        names = entries.getnames()
        assert {name.split("/")[0] for name in names} == {"app-data", "logs"}, names
        assert entries.getmember("app-data").isdir() and entries.getmember("logs").isdir(), names
        kept = entries.getmember("app-data/settings/first.conf")
        assert (kept.mode, kept.mtime) == (0o640, 1600000000), kept


def old_settings(name, options):
    """The files of a job, and the new config.json: an old OS with networks, a name and data is taken over."""
    options += " --backup-cfg /job/backup.yml --fallback-log --log-level trace --s2-log-level trace"
    files = job(balena_image.gz(name), f"{OLD_SETTINGS}{COMMAND} {options}\n", name)
    for fixture in ("interfaces", "wpa_supplicant.conf", "backup.yml"):
        files[fixture] = FIXTURES / fixture
    return files, with_country(config_for(name).replace(b'"guest"', b'"old-name"'))


def with_country(config):
    """That of the Wi-Fis in the fixtures goes along, written as the member before it."""
    return config.replace(b'"as it is"]', b'"as it is"],"country":  "GB"')


def check_migration(guest, folder, name, config, wait=180):
    check_boot(guest, config, wait)
    assert guest.find("NEWOS: data backup.tgz sha256="), guest.tail()
    check_new_files(folder, name, config)
    return check_result(guest, "done")


def test_networks_hostname_and_backup_are_carried_over(folder):
    files, config = old_settings("small", "-l /dev/nvme0n2")
    disks = [new_disk("systemd", folder), log_disk(folder)]
    with Guest("systemd", disks, files=files, fail_on=REFUSED) as guest:
        guest.wait_for("PID 1 is handed over", 180)
        check_migration(guest, folder, "small", config)
    log = guests.ext_read(disks[1], 0, "/takeover.log").decode()
    assert "verified" in log, log
    check_secrets(log)


def relabelled(folder, slug):
    """The small image, for another device type."""
    image = guests.rootfs.copy_sparse(balena_image.image("small"), folder / f"{slug}.img")
    boot = balena_image.partition("small", "resin-boot")
    files = boot_files(image, boot.start)
    label = files["device-type.json"].replace(balena_image.slug("small").encode(), slug.encode())
    guests.rootfs.fat_put(image, boot.start, {"/device-type.json": label})
    packed = folder / f"{slug}.img.gz"
    with open(packed, "wb") as target:
        subprocess.run(["pigz", "-1", "-n", "-c", image], stdout=target, check=True)
    return packed


def test_an_image_for_another_board_is_refused(folder):
    """Refused when it is not for the device type of config.json, and whatever the options when one of them is for another
    kind of CPU, since nothing of it would ever run."""
    script = """
    cp /job/takeover /usr/local/bin/
    takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack; echo EXIT image $?
    takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack --no-dt-check; echo EXIT image-cpu $?
    takeover --no-api-check --no-vpn-check -i /job/nuc -c /job/config.json --no-ack; echo EXIT nuc $?
    takeover --no-api-check --no-vpn-check -i /job/nuc -c /job/config.json --no-ack --no-dt-check --dry-run; echo EXIT unchecked $?
    takeover --no-api-check --no-vpn-check -i /job/image -c /job/pi.json --no-ack; echo EXIT board $?
    takeover --no-api-check --no-vpn-check -i /job/image -c /job/pi.json --no-ack --no-dt-check; echo EXIT cpu $?
    echo STILL RUNNING; poweroff -f
    """
    files = job(relabelled(folder, "raspberrypi3"), script)
    files["nuc"] = relabelled(folder, "intel-nuc")
    files["pi.json"] = config_for("raspberrypi3")
    with Guest("systemd", [new_disk("systemd", folder)], files=files) as guest:
        guest.wait_for("STILL RUNNING", 200)
        guest.wait_exit(60)
        text = guest.text()
    check_secrets(text)
    said = re.search(r"(.*)EXIT image 3(.*)EXIT image-cpu 3(.*)EXIT nuc 3.*EXIT unchecked 0(.*)EXIT board 3(.*)EXIT cpu 3",
                     text, re.S)
    assert said, text
    cpu = ("raspberrypi3", "CPU")
    wanted = [("raspberrypi3", "genericx86-64-ext"), cpu, ("intel-nuc", "genericx86-64-ext"), cpu, cpu]
    for part, names in zip(said.groups(), wanted):
        error = "".join(line for line in part.splitlines() if "error: " in line)
        assert all(name in error for name in names), part


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
