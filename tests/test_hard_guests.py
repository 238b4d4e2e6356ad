#!/usr/bin/env python3
"""Takeovers of guests on which everything is in the way at once that crowded devices have: containers, pinned
namespaces, thousands of mounts and processes, file systems that are frozen or whose server has gone, memory that runs
out."""

import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "lib")]
import balena_image  # noqa: E402
import crowded  # noqa: E402
import runner  # noqa: E402
from guest import Guest, new_disk  # noqa: E402
from test_guests import COMMAND, check_disk, check_result, check_secrets, job  # noqa: E402

# Ends the waiting for a takeover that was refused. (The job itself may be ended before it sees that all is well.)
REFUSED = "Kernel panic - not syncing|job ended, exit code ([2-9]|1$)"


def finish(guest, folder):
    """The guest has ended, and its disk is the image."""
    result = check_result(guest, "done")
    check_secrets(guest.text())
    check_disk(folder)
    return result


# ----------------------------------------------------------------------- a crowded host

# Two containers with an overlay and a network of their own each: one with a volume and a directory of the host, which
# comes back when it ends, and a paused one.
CONTAINERS = """
mkdir -p /box/bin /var/lib/shared
cp /bin/busybox /box/bin/ && ln -s busybox /box/bin/sh || exit 1
tar -C /box -c . | podman import -q - box || exit 1
podman volume create data
podman run -d --restart always --network none -v data:/data -v /var/lib/shared:/shared --name writer box \\
    /bin/sh -c 'exec 3>/data/open 4>/shared/open 5>/own; while :; do echo x >&3; busybox sleep 1; done' || exit 1
podman run -d --network none --name paused box /bin/sh -c 'exec 3>/own; busybox sleep 10000' || exit 1
podman pause paused || exit 1
podman ps -a
"""

# As snapd keeps them: no process is in them, a bind mount keeps each alive. The second is kept by the first alone.
PINNED = """
dd if=/dev/zero of=/var/snap.img bs=1M count=8 status=none && mkfs.ext4 -q /var/snap.img || exit 1
mkdir -p /run/pinned /snap && mount --bind /run/pinned /run/pinned && mount --make-private /run/pinned
touch /run/pinned/one /run/pinned/two
unshare --mount=/run/pinned/one sh -c 'mount -o loop /var/snap.img /snap && mount --bind /var/lib /mnt' || exit 1
unshare --mount --pid --net --uts --ipc --fork --mount-proc sh -c '
    mount --bind /usr /mnt && mount -t tmpfs t /snap && exec 3>/var/tmp/open && exec sleep 10000' &
"""

# They come back as soon as they end, each with a file of the root open.
RESPAWNING = """
cat > /run/systemd/system/again@.service <<'UNIT'
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh -c 'exec 3>/var/tmp/again-%i; exec sleep 2'
Restart=always
RestartSec=0
UNIT
systemctl daemon-reload
for number in 1 2; do systemctl start again@$number || exit 1; done
"""

# Swap on the disk that comes up again as soon as it is off.
LATE_SWAP = """
dd if=/dev/zero of=/var/late.swap bs=1M count=8 status=none && chmod 600 /var/late.swap || exit 1
mkswap -q /var/late.swap || exit 1
sh -c 'while :; do swapon /var/late.swap; sleep 0.5; done' 2>/dev/null &
"""

# What the kernel itself holds: swap in memory, the disk as the backing file of another mount, a file of the root that
# each process that ends is noted in, one that a probe is to be set in, and one that runs programs of another kind.
IN_THE_KERNEL = """
modprobe zram && echo 64M > /sys/block/zram0/disksize && mkswap -q /dev/zram0 && swapon /dev/zram0 || exit 1
loop=$(losetup -f -P --show /dev/nvme0n1) && mkdir -p /again || exit 1
mkfs.ext4 -q ${loop}p1 && mount ${loop}p1 /again || exit 1
touch /var/log/pacct && perl -e '$file = "/var/log/pacct"; exit(syscall(163, $file) != 0)' || exit 1
mountpoint -q /sys/kernel/tracing || mount -t tracefs t /sys/kernel/tracing || exit 1
echo 'p:probe /usr/bin/perl:0x100' > /sys/kernel/tracing/uprobe_events || exit 1
mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc b /proc/sys/fs/binfmt_misc || exit 1
echo ':foreign:E::foreign::/usr/bin/perl:F' > /proc/sys/fs/binfmt_misc/register || exit 1
"""

# mount(2). Perl passes no constants to a system call.
MOUNT = r"""
sub mount { my @words = @_; syscall(165, @words) == 0 or die "mounting $words[1]: $!" }
"""

# A server that does not answer, and whose other process waits for that answer with the server's end open: that one
# listens to no signal.
FUSE = MOUNT + r"""
use Fcntl;
sysopen(my $server, "/dev/fuse", O_RDWR) or die;
my $options = "fd=" . fileno($server) . ",rootmode=40000,user_id=0,group_id=0";
mount("stuck", "/net", "fuse.stuck", 0, $options);
sysread($server, my $request, 1 << 17);
my (undef, undef, $unique) = unpack("LLQ", $request);
my $reply = pack("L4S2LLS2Lx28", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0);
syswrite($server, pack("LlQ", 16 + length($reply), 0, $unique) . $reply);
if (!fork) { stat("/net/x"); exit }
sysread($server, $request, 1 << 17);
syswrite(STDOUT, "THE SERVER HANGS\n");
sleep;
"""

# One half shows directories of the root, the other is memory.
MOUNTS = MOUNT + r"""
mkdir "/many"; mount("m", "/many", "tmpfs", 0, "");
for my $number (1..1000) {
    mkdir "/many/$_$number" for "a", "b";
    mount("/var/log", "/many/a$number", "", 4096, "");
    mount("x", "/many/b$number", "tmpfs", 0, "size=64k");
}
"""


def test_a_crowded_host_is_taken_over(folder):
    script = f"""
    {CONTAINERS}{PINNED}{RESPAWNING}{LATE_SWAP}{IN_THE_KERNEL}
    modprobe fuse; mkdir /net; perl /job/fuse.pl &
    perl /job/mounts.pl || exit 1
    echo "$(grep -c . /proc/self/mountinfo) MOUNTS"
    {COMMAND} --s2-log-level debug --hand-over-timeout 20
    """
    files = job(balena_image.gz("small"), script) | {"fuse.pl": FUSE.encode(), "mounts.pl": MOUNTS.encode()}
    with Guest("systemd", [crowded.new_disk(folder)], files=files, memory=1024, fail_on=REFUSED, timeout=900,
               reboot=False, options="no_timer_check") as guest:
        guest.wait_for("THE SERVER HANGS", 400)
        guest.wait_for("^2[0-9]{3} MOUNTS", 400)
        # A host of containers has more than anybody reads.
        guest.wait_for(r"^ +9\d\d more$", 400)
        guest.wait_for("takeover is PID 1", 400)
        guest.wait_exit(400)
        finish(guest, folder)
        for said in ("swap on /old/var/late.swap is off", "swap on /old/dev/zram0 is off",
                     "/sys/fs/fuse/connections/.* is told to let go",
                     "/sys/kernel/tracing/uprobe_events is told to let go",
                     "/proc/sys/fs/binfmt_misc/status is told to let go", "every process has ended"):
            assert guest.find(said), (said, guest.tail(100))
        assert not guest.find("stays busy"), guest.tail(100)


# ------------------------------------------------------------------------ a crowd of processes

def program(code):
    """A program of these instructions of x86-64 alone: thousands of it take little time to start, and little memory."""
    start = 64 + 56
    head = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    length = start + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, length, length, 4096)
    return b"\x7fELF\2\1\1" + bytes(9) + head + segment + code


BASE = 0x400000
# fork(2) 5000 times, and then pause(2) for ever, as each child does.
CROWD = program(bytes.fromhex("bb88130000 b839000000 0f05 85c0 7404 ffcb 75f1 b822000000 0f05 ebf7"))
# fork(2) for ever, as each child does; when there is no room for one more, poll(2) for three seconds: a place that
# becomes free is soon taken.
BOMB = program(bytes.fromhex("b839000000 0f05 85c0 79f5 b807000000 31ff 31f6 bab80b0000 0f05 ebe3"))


def test_ten_thousand_processes_and_a_fork_bomb_are_ended(folder):
    """Half of them do not end when asked, nor does the bomb."""
    script = f"""
    group=/sys/fs/cgroup/system.slice
    at_least() {{ until [ "$(cat $group/$1/pids.current)" -ge $2 ]; do sleep 0.5; done; }}
    cp /job/crowd /job/bomb /usr/local/bin/ && chmod 755 /usr/local/bin/*
    echo max > $group/guest-job.service/pids.max
    crowd & (trap '' TERM; exec crowd) &
    at_least guest-job.service 10000
    systemd-run -q -p TasksMax=100 --unit bomb sh -c 'trap "" TERM CHLD; exec bomb' || exit 1
    at_least bomb.service 100
    echo "$(ls /proc | grep -c '^[0-9]') PROCESSES"
    {COMMAND}
    """
    files = job(balena_image.gz("small"), script) | {"crowd": CROWD, "bomb": BOMB}
    with Guest("systemd", [new_disk("systemd", folder)], files=files, memory=2048, fail_on=REFUSED, timeout=900,
               reboot=False, options="no_timer_check") as guest:
        guest.wait_for("^1[0-9]{4} PROCESSES", 400)
        guest.wait_for("takeover is PID 1", 300)
        guest.wait_exit(400)
        finish(guest, folder)
        # A line takes 5 ms on a serial console.
        named = list(guest.find_all("did not end when asked"))
        assert len(named) == 16 and guest.find("] and others$"), (len(named), guest.tail())
        assert guest.find("every process has ended"), guest.tail()


# ------------------------------------------------------------------------ what is frozen

# A file system, one that is seen nowhere any more, and the root, each with somebody who writes to it and whom no signal
# reaches.
FROZEN = """
cp /job/takeover /usr/local/bin/
for name in seen hidden inner; do truncate -s 16M /var/$name.img; mkfs.ext4 -q /var/$name.img || exit 1; done
mkdir /seen /hidden && mount -o loop /var/seen.img /seen && mount -o loop /var/hidden.img /hidden || exit 1
modprobe dm-mod && echo "0 32768 linear $(losetup -f --show /var/inner.img) 0" | dmsetup create inner || exit 1
mount /dev/mapper/inner /srv && dmsetup suspend inner || exit 1
takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack; echo EXIT suspended $?
dmsetup resume inner
sync
for place in /seen /hidden /var/tmp; do sh -c "while :; do echo x >>$place/x; sleep 0.1; done" & done
sleep 1
fsfreeze -f /hidden && umount -l /hidden && fsfreeze -f /seen && fsfreeze -f / || exit 1
sleep 1
grep -l '^State:.D' /proc/[0-9]*/status | wc -l
takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack
"""


def test_what_is_frozen_is_thawed_and_what_is_suspended_is_refused(folder):
    files = job(balena_image.gz("small"), FROZEN)
    with Guest("systemd", [new_disk("systemd", folder)], files=files, fail_on=REFUSED, timeout=900,
               reboot=False, options="no_timer_check") as guest:
        guest.wait_for("error: .*inner: it is suspended: .*dmsetup resume", 400)
        guest.wait_for("EXIT suspended 3", 10)
        guest.wait_for("^[3-9]$", 400)
        guest.wait_for("takeover is PID 1", 400)
        guest.wait_for("/old was frozen, and is thawed", 400)
        guest.wait_for("/old/seen was frozen, and is thawed", 400)
        guest.wait_exit(400)
        finish(guest, folder)
        assert guest.find("every process has ended"), guest.tail()


# --------------------------------------------------------------------------- servers that have gone

# On the same machine, so that nothing but the server goes: those who read and write wait for ever.
# Each step waits until it can be seen, for as long as the guest lives: a slow machine takes a minute for what is done in a
# second elsewhere. D: it waits for the server, and for no signal but SIGKILL.
NFS_GONE = """
until_so() { until eval "$1"; do sleep 0.5; done; }
is_stuck() { grep -q '^State:.D' /proc/$1/status || ! echo "$(cat /proc/$1/comm) does not wait: $(grep State: /proc/$1/status)"; }
mkdir -p /srv/shared /client
echo content > /srv/shared/file; echo content > /srv/shared/other
echo '/srv/shared *(rw,sync,no_subtree_check,no_root_squash,insecure,fsid=1)' > /etc/exports
systemctl start nfs-server || exit 1
# The server may have been started with the guest, before there was anything to export.
exportfs -ra
# Until those who export have been heard by the kernel, it is denied.
for try in $(seq 90); do mount -t nfs4 127.0.0.1:/srv/shared /client && break; sleep 2; done
cat /client/file || exit 1
sh -c 'cd /client; exec sleep 10000' &
until_so '[ $(readlink /proc/$!/cwd) = /client ]'
echo 0 > /proc/fs/nfsd/threads
sh -c 'trap "" TERM; exec cat /client/other' &
reader=$!
sh -c 'exec 3>/var/tmp/open; while :; do echo x >/client/new; done' &
until_so "is_stuck $reader && is_stuck $!"
echo BOTH WAIT
"""


def test_an_nfs_server_that_has_gone_does_not_hold_it_up(folder):
    files = job(balena_image.gz("small"), f"{NFS_GONE}{COMMAND}\n")
    with Guest("generic", [new_disk("generic", folder)], files=files, fail_on=REFUSED, timeout=900,
               reboot=False, options="no_timer_check") as guest:
        guest.wait_for("^BOTH WAIT$", 400)
        guest.wait_for("takeover is PID 1", 400)
        guest.wait_exit(400)
        finish(guest, folder)


# ---------------------------------------------------------------------------- memory that runs out

# What is frozen and mounted nowhere any more keeps its loop device, with nobody to be ended. A file in memory leaves
# 39 MiB; at 36 earlyoom asks somebody to end, at 35 it ends somebody. What takeover takes brings it to 33.
SHORT_OF_MEMORY = """
# Whoever else but this shell and the service's first process, with which systemd ends all that is in the service;
# takeover, too, as it is started.
echo -1000 > /proc/$$/oom_score_adj
echo -1000 > /proc/$PPID/oom_score_adj
mkdir -p /etc/systemd/system/system.slice.d
printf '[Slice]\\nManagedOOMMemoryPressure=kill\\nManagedOOMSwap=kill\\n' > /etc/systemd/system/system.slice.d/oomd.conf
systemctl daemon-reload && systemctl start systemd-oomd || exit 1
available() { while read -r word kib _; do [ $word != MemAvailable: ] || echo $kib; done </proc/meminfo; }
cp /job/takeover /usr/local/bin/
cat /job/image > /dev/null
truncate -s 16M /var/hidden.img && mkfs.ext4 -q /var/hidden.img || exit 1
mkdir /hidden && mount -o loop /var/hidden.img /hidden || exit 1
fsfreeze -f /hidden && umount /hidden || exit 1
mount -o remount,size=90% /dev/shm
head -c $(($(available) - 39936))K /dev/zero > /dev/shm/fill
systemd-run -q --unit early earlyoom -M 36864,35840 -r 1 || exit 1
sleep 2
echo "AVAILABLE $(available)"
(journalctl -f -o cat -u early -u systemd-oomd > /dev/console) &
sh -c 'echo 0 > /proc/$$/oom_score_adj
    exec takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack'
"""


def test_those_who_end_processes_for_memory_do_not_end_it(folder):
    files = job(balena_image.gz("small"), SHORT_OF_MEMORY)
    with Guest("systemd", [crowded.new_disk(folder)], files=files, memory=384, fail_on=REFUSED, timeout=900,
               reboot=False, options="no_timer_check") as guest:
        guest.wait_for("AVAILABLE", 400)
        guest.wait_for("low memory! at or below SIGKILL limits", 400)
        guest.wait_for("takeover is PID 1", 400)
        guest.wait_exit(400)
        finish(guest, folder)


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
