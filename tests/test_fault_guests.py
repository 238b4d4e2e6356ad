#!/usr/bin/env python3
"""Takeovers of guests in which something is wrong, or in the way, that a real device may well have: disks that fail or
come back under another name, kernels without what a takeover would like to have, uses of the disk inside the kernel."""

import hashlib
import json
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "lib")]
import balena_image  # noqa: E402
import efi  # noqa: E402
import guest as guests  # noqa: E402
import runner  # noqa: E402
from guest import Guest, new_disk  # noqa: E402
from result import check_result_line  # noqa: E402
from test_guests import (  # noqa: E402
    COMMAND, FIXTURES, MIB, REFUSED, check_boot, check_disk, check_new_os, check_result, check_secrets, config_for, job,
    log_disk, with_country, without_kernel)
from test_namespace import make_image, pack  # noqa: E402


# What ends the waiting for a flash that went wrong.
INCOMPLETE = "the disk is incomplete"


def second_disk(folder, size_mib=256):
    """An empty one, /dev/nvme0n2."""
    path = folder / "second.img"
    guests.rootfs.make_file(path, size_mib * MIB)
    return path


def boot_again(folder, disk, config, name="small"):
    """What is on the disk boots with the kernel that it was made for."""
    with Guest("image", [disk]) as guest:
        check_boot(guest, config)
    check_disk(folder, name, config)


# ----------------------------------------------------------------- what the kernel lacks

KEYFILES = {f"system-connections/{path.name}": path.read_bytes() for path in (FIXTURES / "expected").iterdir()}
PROXY = {"system-proxy/redsocks.conf": b"redsocks {\n\ttype = socks5;\n\tip = 192.0.2.7;\n\tport = 1080;\n}\n"}

# What a kernel lacks that was built without them. Only a balenaOS has proxy files; they keep their names.
WITHOUT_VFAT_AND_LOOP = """
rm /etc/os-release
printf 'ID="balena-os"\\nNAME="balenaOS"\\nVERSION="6.1.25"\\n' > /etc/os-release
mkdir -p /mnt/boot
cp -r /job/system-connections /job/system-proxy /mnt/boot/
rm $(find /lib/modules -name vfat.ko -o -name fat.ko -o -name loop.ko)
depmod
modprobe vfat && exit 1
modprobe loop && exit 1
grep -q vfat /proc/filesystems && exit 1
ls /sys/block | grep loop && exit 1
echo NEITHER VFAT NOR LOOP
"""


def test_a_kernel_without_vfat_and_loop_is_taken_over(folder):
    """Nothing is mounted to place the new OS's files: the disk is the image but for what a FAT has to say of them. The log
    device is mounted as it is. What would be mounted through a loop device is refused, and what to do is said."""
    ours = KEYFILES | PROXY
    assert len(KEYFILES) == 3, sorted(KEYFILES)
    command = COMMAND + " -l /dev/nvme0n2"
    dry = f"{COMMAND.split(' && ')[1]} --dry-run"
    script = f"""{WITHOUT_VFAT_AND_LOOP}
    cp /job/takeover /usr/local/bin/
    {dry} --fallback-log; echo DATA $?
    {dry.replace("/job/image", "/job/ext4")}; echo BOOT $?
    {command}
    """
    ext4 = pack(make_image(folder, boot="ext4"))
    files = job(balena_image.gz("small"), script) | ours | {"ext4": ext4}
    disks = [new_disk("systemd", folder), log_disk(folder)]
    with Guest("systemd", disks, files=files, fail_on=REFUSED) as guest:
        guest.wait_for("NEITHER VFAT NOR LOOP", 120)
        guest.wait_for("loop devices: there is none.* or leave out --backup-cfg and --fallback-log", 120)
        guest.wait_for("^DATA 3", 10)
        guest.wait_for("loop devices: there is none.* or use an image whose boot partition is a FAT", 120)
        guest.wait_for("^BOOT 3", 10)
        guest.wait_for("rehearsed: the log device, ext4, can be mounted", 120)
        guest.wait_for("PID 1 is handed over", 120)
        check_boot(guest, config_for("small"))
        for path, content in ours.items():
            digest = hashlib.sha256(content).hexdigest()
            assert guest.find(f"NEWOS: file {path} sha256={digest}"), (path, guest.tail(80))
        check_disk(folder, more=ours)
        result = check_result(guest, "done")
    log = guests.ext_read(disks[1], 0, "/takeover.log").decode()
    assert check_result_line(log.splitlines()[-1], "done") == result


# -------------------------------------------------------------------- disks with faults

def replugged(folder, kind):
    """In the middle of the flash the disk goes. Another of the same make and size comes and gets its name and number,
    and then the disk comes, under another name."""
    disk, stranger = new_disk(kind, folder), folder / "stranger.img"
    guests.rootfs.make_file(stranger, disk.stat().st_size)
    # The kernel is to say what it finds.
    with Guest(kind, [disk], files=job(balena_image.gz("small"), f"{COMMAND}\n"), fail_on=REFUSED, reboot=False,
               options="loglevel=6", timeout=400) as guest:
        guest.wait_for("PID 1 is handed over", 180)
        guest.slow_disk(2 * MIB)
        guest.wait_for("/dev/sda is free", 120)
        time.sleep(4)
        guest.unplug()
        assert not guest.find(r"flashed \("), guest.tail()
        guest.slow_disk(0)
        time.sleep(2)
        guest.plug(stranger)
        guest.wait_for(r"\[sd[a-z]\] Attached SCSI disk", 60)
        guest.plug()
        guest.wait_for(r"\[sd[b-z]\] Attached SCSI disk", 60)
        guest.wait_exit(240)
        result = check_result(guest, "done")
        check_secrets(guest.text())
    with open(stranger, "rb") as file:
        while piece := file.read(MIB):
            assert not any(piece), f"the other disk was written to, at {file.tell() - len(piece)}"
    boot_again(folder, disk, config_for("small"))
    return result


def test_a_usb_disk_that_comes_back_under_another_name_is_flashed(folder):
    """What is the same of it: the bridge's serial number, and the size. The disk behind it is not asked for its own."""
    replugged(folder, "usb")


def test_a_scsi_disk_that_comes_back_under_another_name_is_flashed(folder):
    """It has a world-wide name."""
    replugged(folder, "scsi")


BAD_SECTOR = 1000
# Reading works, as with flash that takes no more writes in one block. Errors of NVMe come as ENODATA in the guest.
BLKDEBUG = "".join(f"""
[inject-error]
event = "none"
iotype = "{kind}"
sector = "{BAD_SECTOR}"
errno = "5"
once = "off"
""" for kind in ("write", "write-zeroes"))


def test_a_bad_sector_in_the_first_mib_leaves_the_old_os(folder):
    """Some of the first MiB takes zeros, one sector does not: what was there is put back, and it was not the point of
    no return."""
    script = f"""
    if [ "$BOOT" = 1 ]; then {COMMAND}; else
        echo OLD OS AGAIN; cat /var/log/takeover.log; echo LOG ENDS; poweroff -f
    fi
    """
    disk, conf = new_disk("systemd", folder), folder / "blkdebug.conf"
    conf.write_text(BLKDEBUG)
    with open(disk, "r+b") as file:
        # Not zeros: Debian's disk has but its table there, and zeros that did not land would not show.
        file.seek(512)
        file.write(bytes(range(1, 256)) * 4000)
        file.seek(0)
        before = file.read(MIB)
    with Guest("systemd", [f"blkdebug:{conf}:{disk}"], files=job(balena_image.gz("small"), script),
               fail_on=f"{REFUSED}|{INCOMPLETE}") as guest:
        guest.wait_for("takeover is PID 1", 120)
        guest.wait_for(f"sector {BAD_SECTOR}", 120)
        guest.wait_for("OLD OS AGAIN", 120)
        guest.wait_for("LOG ENDS", 20)
        guest.wait_exit(60)
        check_result(guest, "untouched", times=2)
    with open(disk, "rb") as file:
        assert file.read(MIB) == before, "the first MiB has changed"


# ------------------------------------------------------------------- what the kernel does

# The hand-over finds a copy of the RAMFS in every copy of the root; and an NMI that nobody knows is a panic.
SHARED_COPY = """
mkdir /mnt/x && mount --make-rshared / && mount --rbind / /mnt/x
grep -c ' /mnt/x.* shared:' /proc/self/mountinfo
"""
UNKNOWN_NMI = """
sysctl kernel.unknown_nmi_panic=1 kernel.panic_on_oops=1 kernel.panic_on_warn=1 vm.panic_on_oom=2
"""


def nmi_while_flashing(guest):
    guest.wait_for("PID 1 is handed over", 180)
    guest.slow_disk(4 * MIB)
    guest.wait_for("/dev/nvme0n1 is free", 120)
    time.sleep(2)
    assert not guest.find(r"flashed \("), guest.tail()
    guest.nmi()
    guest.wait_for("NMI received for unknown reason", 10)
    guest.slow_disk(0)


def test_a_shared_copy_of_the_root_and_a_kernel_that_panics_on_anything(folder):
    script = f"{SHARED_COPY}{UNKNOWN_NMI}{COMMAND}\n"
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script),
               fail_on=REFUSED) as guest:
        nmi_while_flashing(guest)
        check_new_os(guest, folder)


def test_a_panic_while_flashing_restarts_the_device_and_leaves_nothing_that_boots(folder):
    """Debian's kernels stand still when they panic; and from the first write on the switches for panics are off, not
    this one."""
    disk = new_disk("systemd", folder)
    with Guest("systemd", [disk], files=job(balena_image.gz("small"), f"{UNKNOWN_NMI}{COMMAND}\n"), options="panic=0",
               fail_on="job ended, exit code [1-9]", reboot=False, timeout=900) as guest:
        guest.wait_for("PID 1 is handed over", 180)
        guest.slow_disk(2 * MIB)
        guest.wait_for(r"flash: [1-9]\d? % of", 200)
        guest.sysrq("c")
        guest.wait_for("Kernel panic - not syncing", 30)
        guest.wait_for("Rebooting in 30 seconds", 30)
        # A guest that has a tenth of a CPU waits ten times as long.
        guest.wait_exit(600)
        assert not guest.find(r"flashed \("), guest.tail()
        check_secrets(guest.text())
    with open(disk, "rb") as file:
        assert not any(file.read(MIB)), "a half-written disk has a partition table"


# The flash memory of the variables takes so many writes a second: a variable is hundreds of them, so that there is a middle
# of the firmware's call.
WRITES_A_SECOND = 20
# How often the middle is aimed at: a busy machine may be late for it.
AIMS = 3


def kill_inside_the_firmware_call(guest):
    """Whether the worker was killed while the firmware wrote: it goes on writing afterwards."""
    limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd"), 0)
    guest.wait_for("PID 1 is handed over", 480)
    guest.qmp("block_set_io_throttle", device="pflash1", iops_wr=WRITES_A_SECOND, **limits)
    guest.come_first()
    before = guest.uefi_vars.read_bytes()
    guest.wait_for("the head is written and read back", 240)
    while guest.uefi_vars.read_bytes() == before:
        assert guest.running, guest.tail()
        time.sleep(0.01)
    while not guest.find("sysrq: Kill All Tasks|the firmware starts the new OS"):
        guest.sysrq("i", timeout=120)
        # The kernel waits for the key for five seconds; two keys would kill the next worker, too.
        end = time.monotonic() + 10
        while not guest.find("sysrq: Kill All Tasks") and time.monotonic() < end:
            time.sleep(0.05)
    at_kill = guest.uefi_vars.read_bytes()
    guest.wait_for("killed by signal 9|the firmware starts the new OS", 240, from_start=True)
    guest.qmp("block_set_io_throttle", device="pflash1", timeout=120, iops_wr=0, **limits)
    return bool(guest.find("killed by signal 9 in phase efi")) and guest.uefi_vars.read_bytes() != at_kill


def test_a_worker_killed_inside_the_firmware_call_costs_the_boot_entry_alone(folder):
    """The kernel lets it end when the firmware comes back, and the firmware finishes what it was called for: an entry, in
    no order; or the order, which then has the entry. The new OS is started by the path for removable media, or by it."""
    image = balena_image.gz("gpt")
    for aim in range(AIMS):
        place = folder / str(aim)
        place.mkdir()
        with Guest("uefi", [new_disk("uefi", place)], files=job(image, f"{COMMAND}\n", "gpt"), fail_on=REFUSED,
                   timeout=900) as guest:
            guest.wait_for("boot entry +balenaOS, the first in the boot order", 400)
            before = efi.variables(guest.uefi_vars)
            if not kill_inside_the_firmware_call(guest):
                print(f"    aim {aim + 1}: the kill came too late, or between two calls")
                continue
            guest.wait_for("done: restarting into the new OS", 120)
            after = efi.variables(guest.uefi_vars)
            check_boot(guest, config_for("gpt"), wait=400)
            check_disk(place, "gpt")
            check_killed_entry(guest, before, after)
            return
    raise AssertionError(f"the middle of the call was missed {AIMS} times")


def check_killed_entry(guest, before, after):
    # Not all figures are there: the worker could not say what it has taken.
    line = next(line for line in without_kernel(guest.text()).splitlines() if line.startswith('{"outcome"'))
    result = json.loads(line)
    assert [result[key] for key in ("outcome", "efi", "attempts")] == ["done", "failed", 1], result
    old, new = efi.entries(before), efi.entries(after)
    assert {number: new[number].bytes for number in old} == {number: old[number].bytes for number in old}
    added = [number for number in new if number not in old]
    assert [new[number].name for number in added] in ([], ["balenaOS"]), new
    is_in_order = efi.order(after) != efi.order(before)
    assert efi.order(after) in (efi.order(before), added + efi.order(before)), (efi.order(after), efi.order(before))
    assert guest.find(f"NEWOS: efi boot .* label={'balenaOS' if is_in_order else 'UEFI'}"), guest.tail(60)


# A disk that nobody uses, whose cache never gets flushed: its driver flushes it when the machine restarts, and gives
# the host all the time that it wants (sd_shutdown() in drivers/scsi/sd.c, virtscsi_eh_timed_out() in virtio_scsi.c).
STUCK_DISK = """
modprobe virtio_scsi && modprobe sd_mod || exit 1
until [ -b /dev/sda ]; do sleep 0.1; done
echo "write back" > $(echo /sys/class/scsi_disk/*/cache_type)
echo THE CACHE IS $(cat /sys/class/scsi_disk/*/cache_type)
"""


# Somebody sits at a terminal: an interactive shell takes no SIGTERM.
SHELL = """
setsid -c bash -i <>/dev/tty1 >&0 2>&1 &
until grep -q '^[0-9]* (bash) . [0-9]* [0-9]* [0-9]* [1-9]' /proc/$!/stat; do sleep 0.1; done
echo A SHELL HAS A TERMINAL
"""


def test_a_driver_that_holds_up_the_restart_is_not_waited_for(folder):
    """Nor is a shell at a terminal, at the beginning."""
    disk, stuck = new_disk("systemd", folder), folder / "stuck.img"
    guests.rootfs.make_file(stuck, 16 * MIB)
    more = ["-device", "virtio-scsi-pci,id=scsi0", "-device", "scsi-hd,bus=scsi0.0,drive=stuck",
            "-blockdev", f"driver=raw,node-name=stuck,file.driver=blkdebug,file.image.driver=file,"
                         f"file.image.filename={stuck}"]
    files = job(balena_image.gz("small"), f"{STUCK_DISK}{SHELL}{COMMAND}\n")
    with Guest("systemd", [disk], files=files, fail_on=REFUSED, reboot=False, qemu_args=more, timeout=600) as guest:
        guest.wait_for("THE CACHE IS write back", 120)
        guest.monitor('qemu-io stuck "break flush_to_os here"')
        guest.wait_for("A SHELL HAS A TERMINAL", 60)
        guest.wait_for("done: restarting into the new OS", 240)
        guest.wait_for("a driver holds up the restart: the machine is reset", 240)
        # QEMU waits for the disk when it ends, so it is not waited for.
        guest.wait_event("SHUTDOWN", 30)
        assert not guest.find("reboot: Restarting system"), guest.tail()
        assert not guest.find(r"bash \(\d+\) did not end when asked"), guest.tail()
        check_result(guest, "done")
    boot_again(folder, disk, config_for("small"))


# --------------------------------------------------------- who uses the disk inside the kernel

# A client on the same machine, with a file open: what it holds needs a server that holds the disk.
NFS = """
mkdir -p /srv/shared /mnt/client
echo content > /srv/shared/file
echo '/srv/shared *(rw,sync,no_subtree_check,no_root_squash,insecure,fsid=1)' > /etc/exports
systemctl start nfs-server || { journalctl -n 40 --no-pager; exit 1; }
mount -t nfs4 127.0.0.1:/srv/shared /mnt/client || exit 1
cat /mnt/client/file
"""
NFS_CLIENT = """
sleep 10000 < /mnt/client/file &
"""
BACKUP = """
mkdir -p /srv/data
echo one > /srv/data/a.txt
"""
BACKUP_OPTIONS = " --backup-cfg /job/backup.yml --fallback-log"


def test_nfs_and_a_kernel_that_lets_nobody_write_to_mounted_disks(folder):
    """Debian 13's kernel: an NFS server holds the root; and with bdev_allow_write_mounted=0 nobody mounts what somebody
    else has open for writing, as a loop device has its disk."""
    disk = new_disk("trixie", folder)
    files = job(balena_image.gz("small"), f"{NFS}{NFS_CLIENT}{BACKUP}{COMMAND}{BACKUP_OPTIONS}\n")
    files["backup.yml"] = "- volume: data\n  items:\n    - source: /srv/data\n"
    with Guest("trixie", [disk], files=files, fail_on=REFUSED, reboot=False, smp=1,
               options=f"root=PARTUUID={guests.rootfs.DISK_ID}-02 bdev_allow_write_mounted=0") as guest:
        guest.wait_for("PID 1 is handed over", 180)
        guest.wait_exit(180)
        check_result(guest, "done")
    with Guest("image", [disk]) as guest:
        check_boot(guest, config_for("small"))
        assert guest.find("NEWOS: data backup.tgz sha256="), guest.tail()
        assert guest.find("NEWOS: data fallback_log/fallback.log sha256="), guest.tail()
    check_disk(folder, but=["resin-data"])


# As a device that is a USB stick to its host, by a file of the root, and by its disk. The host is the same kernel. The
# thread of a gadget ends when it is killed, and closes what it has open; a function that was never bound has none.
GADGET = """
modprobe dummy_hcd && modprobe libcomposite || exit 1
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
dd if=/dev/zero of=/stick.img bs=1M count=8 status=none
cd /sys/kernel/config/usb_gadget && mkdir g && cd g || exit 1
echo 0x1d6b > idVendor
echo 0x0104 > idProduct
mkdir strings/0x409 configs/c.1 functions/mass_storage.0 functions/mass_storage.0/lun.1
echo TAKEOVER > strings/0x409/serialnumber
echo /stick.img > functions/mass_storage.0/lun.0/file || exit 1
echo /dev/nvme0n1p1 > functions/mass_storage.0/lun.1/file || exit 1
ln -s functions/mass_storage.0 configs/c.1/
echo dummy_udc.0 > UDC || exit 1
cd /
until [ -b /dev/sdb ]; do sleep 0.1; done
dd if=/dev/zero of=/other.img bs=1M count=1 status=none
cd /sys/kernel/config/usb_gadget && mkdir -p spare/functions/mass_storage.1
echo /other.img > spare/functions/mass_storage.1/lun.0/file || exit 1
cd /
echo THE GADGET IS UP
"""


def test_a_usb_gadget_that_is_the_disk_is_stopped(folder):
    disk = new_disk("generic", folder)
    with Guest("generic", [disk], files=job(balena_image.gz("small"), f"{GADGET}{COMMAND}\n"), fail_on=REFUSED,
               reboot=False) as guest:
        guest.wait_for("THE GADGET IS UP", 120)
        guest.wait_for("PID 1 is handed over", 180)
        guest.wait_exit(120)
        check_result(guest, "done")
        check_secrets(guest.text())
    boot_again(folder, disk, config_for("small"))


def test_a_btrfs_over_two_disks_is_refused_by_name(folder):
    """Half of it would be left on the other disk, and with it the old root as the new OS finds it."""
    script = f"""
    btrfs device add /dev/nvme0n2 / || exit 1
    {COMMAND}; echo EXIT $?
    takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --dry-run; echo EXIT dry $?
    poweroff -f
    """
    with Guest("btrfs", [new_disk("btrfs", folder), second_disk(folder)],
               files=job(balena_image.gz("small"), script), fail_on="PID 1 is handed over|EXIT 0") as guest:
        guest.wait_for("EXIT 3", 180)
        guest.wait_for("EXIT dry 3", 60)
        guest.wait_exit(60)
        said = [line.text for line in guest.lines if "error: " in line.text or "refused" in line.text]
    assert said and all("btrfs" in line and "nvme0n2" in line for line in said[:1]), said


# Swap on a disk that is not written to, and a kernel that swaps out all it can, in time with what is staged: what
# a control group is made to give back goes to the swap, the RAMFS's pages too. (memory.reclaim: Linux 5.19.)
SWAP = """
mkswap -q /dev/nvme0n2 && swapon /dev/nvme0n2 || exit 1
echo 200 > /proc/sys/vm/swappiness
mkdir -p /etc/wpa_supplicant
install -m 600 /job/wpa_supplicant.conf /etc/wpa_supplicant/
# In a group of its own, so that it is not what it squeezes.
systemd-run -q sh -c 'while :; do
    for group in /sys/fs/cgroup/system.slice/guest-job.service /sys/fs/cgroup/init.scope; do
        echo 512M > $group/memory.reclaim
    done 2>/dev/null
    sleep 0.05
done'
until [ "$(tail -n 1 /proc/swaps | tr -s '\\t' ' ' | cut -d ' ' -f 4)" -gt 0 ]; do sleep 0.1; done
cat /proc/swaps
"""
PSK = b"wOrds-0f-PSK"


def test_no_key_is_left_in_the_swap_of_another_disk(folder):
    files = job(balena_image.gz("small"), f"{SWAP}{COMMAND}\n")
    files["wpa_supplicant.conf"] = FIXTURES / "wpa_supplicant.conf"
    other = second_disk(folder)
    with Guest("systemd", [new_disk("systemd", folder), other], files=files, fail_on=REFUSED, timeout=600) as guest:
        guest.wait_for("PID 1 is handed over", 180)
        check_boot(guest, with_country(config_for("small")))
        check_result(guest, "done")
    content = other.read_bytes()
    assert content.count(bytes(4096)) < len(content) // 4096 - 16, "nothing was swapped out: this shows nothing"
    assert PSK not in content, "the key of a Wi-Fi is in the swap"


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
