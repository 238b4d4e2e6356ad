# What the roots of the guests have in common. Sourced by the scripts that build them; rootfs.script_text() takes it into
# their keys.
# shellcheck shell=bash

# As small as Debian goes. Those who call mmdebstrap add --include and their own.
# shellcheck disable=SC2034  # used by who sources this
mmdebstrap_options=(
    --mode=root --variant=minbase --format=directory --quiet
    --aptopt='Acquire::Retries "3"'
    --aptopt='APT::Install-Recommends "false"'
    --dpkgopt='path-exclude=/usr/share/doc/*'
    --dpkgopt='path-exclude=/usr/share/man/*'
    --dpkgopt='path-exclude=/usr/share/locale/*'
)

# shellcheck disable=SC2034
guest_packages=(
    bash mount kmod udev util-linux procps e2fsprogs dosfstools
    dbus                # a service that is really there to be killed
)

# copy_kernel ROOT KERNEL_ROOT: the kernel and the modules of a root that was built before.
copy_kernel() {
    mkdir -p "$1/boot"
    cp -a "$2"/boot/vmlinuz-* "$1/boot/"
    cp -a "$2/usr/lib/modules" "$1/usr/lib/"
}

# set_up_guest ROOT systemd|sysvinit: names the guest, and makes its init run the job.
set_up_guest() {
    local root=$1
    echo guest >"$root/etc/hostname"
    echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    # Nothing of the building machine may stay inside.
    rm -f "$root/etc/resolv.conf"
    : >"$root/etc/resolv.conf"
    chroot "$root" passwd -q -d root
    : >"$root/etc/fstab"
    write_guest_job
    case $2 in
        systemd) set_up_systemd ;;
        sysvinit) set_up_sysvinit ;;
    esac
}

# The following are parts of set_up_guest and work on its $root.

# /guest-job is what every guest does once it is up.
write_guest_job() {
    cat >"$root/guest-job" <<'JOB'
#!/bin/bash
# Mounts the job disk (by label: its name is not fixed) and runs run.sh from it.
# BOOT counts the boots of this root, for jobs that must not run twice.
BOOT=$(($(cat /var/lib/guest-boots 2>/dev/null || echo 0) + 1))
export BOOT
echo "$BOOT" >/var/lib/guest-boots
sync /var/lib/guest-boots   # a boot that ends in a power cut counts too
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
cd /root
read -r uptime _ </proc/uptime
echo "GUEST: up, boot $BOOT, init $(cat /proc/1/comm), kernel $(uname -r), $uptime s"
# As Debian has it. Not on MBR disks: there vfat is not even loaded yet.
if [[ -d /sys/firmware/efi ]]; then
    mkdir -p /boot/efi
    mount "$(blkid -L ESP)" /boot/efi || echo 'GUEST: the ESP cannot be mounted'
fi
device=$(blkid -L JOB) || { echo 'GUEST: no job disk'; exit 0; }
mkdir -p /job
mount -o ro "$device" /job || { echo 'GUEST: the job disk cannot be mounted'; exit 1; }
bash /job/run.sh
echo "GUEST: job ended, exit code $?"
JOB
    chmod 755 "$root/guest-job"
}

set_up_systemd() {
    cat >"$root/etc/systemd/system/guest-job.service" <<'UNIT'
[Unit]
Description=The job of this guest
After=basic.target

[Service]
# Not oneshot: the boot must not wait for the job, a job may well never end.
Type=simple
ExecStart=/guest-job
StandardInput=null
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console

[Install]
WantedBy=multi-user.target
UNIT
    chroot "$root" systemctl -q enable guest-job.service
    # What a guest that lives for seconds does not need; saves 5 s a boot.
    chroot "$root" systemctl -q mask \
        getty@.service serial-getty@.service console-getty.service \
        systemd-timesyncd.service systemd-pstore.service systemd-hwdb-update.service \
        systemd-firstboot.service systemd-sysusers.service systemd-boot-random-seed.service \
        systemd-update-utmp.service systemd-update-utmp-runlevel.service \
        systemd-machine-id-commit.service systemd-journal-catalog-update.service \
        systemd-journal-flush.service systemd-binfmt.service systemd-network-generator.service \
        systemd-udev-settle.service systemd-ask-password-wall.path systemd-ask-password-console.path \
        modprobe@loop.service modprobe@drm.service modprobe@configfs.service modprobe@fuse.service modprobe@dm_mod.service \
        sys-kernel-debug.mount sys-kernel-tracing.mount dev-mqueue.mount dev-hugepages.mount \
        systemd-update-done.service ldconfig.service proc-sys-fs-binfmt_misc.automount \
        apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
        e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer
}

set_up_sysvinit() {
    local script
    # Scripts that take seconds under emulation and do nothing for this root,
    # which the kernel mounts read-write.
    for script in checkroot.sh checkfs.sh checkroot-bootclean.sh mountall.sh \
        mountall-bootclean.sh mountnfs.sh mountnfs-bootclean.sh bootmisc.sh \
        hwclock.sh urandom procps hostname.sh; do
        rm -f "$root"/etc/rcS.d/S??"$script"
    done
    # Only the job: no getty may fight over the console.
    sed -i -e '/getty/d' "$root/etc/inittab"
    echo 'job:2345:once:/guest-job </dev/null >/dev/console 2>&1' >>"$root/etc/inittab"
}
