#!/bin/bash
# Builds the root file system of a guest as a directory. Run by rootfs.py, which
# keeps the result under a hash of this text.
#
#   build-rootfs.sh systemd|sysvinit ROOT [KERNEL_ROOT]
#   build-rootfs.sh bullseye|trixie ROOT
#
# systemd and sysvinit are Debian 12; the others are the releases of those names,
# with systemd and a kernel of their own.
#
# KERNEL_ROOT is a root built before, whose kernel and modules are taken over:
# every guest of Debian 12 and every test image must run the very same kernel.
set -euo pipefail

flavour=$1 root=$2 kernel_root=${3:-}

packages=(
    bash mount kmod udev util-linux procps e2fsprogs dosfstools
    dbus                # a service that is really there to be killed
)
suite=bookworm
debian_12=(
    busybox-static      # what the test images run on
    systemd-boot-efi    # the boot loader of UEFI guests and images
    efibootmgr          # for a look at the boot entries from inside
)
case $flavour in
    systemd) packages+=("${debian_12[@]}" systemd systemd-sysv) ;;
    sysvinit) packages+=("${debian_12[@]}" sysvinit-core sysv-rc initscripts) ;;
    bullseye | trixie) suite=$flavour packages+=(systemd systemd-sysv) ;;
    *) echo "build-rootfs.sh: no such flavour: $flavour" >&2; exit 2 ;;
esac

debs=$(mktemp -d)
trap 'rm -rf "$debs"' EXIT
# shellcheck disable=SC2016  # expanded by mmdebstrap's shell, for each hook
download_kernel='cd "$DEBS"
    export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
    apt-get -q download "$(apt-cache depends linux-image-cloud-amd64 |
        sed -n "s/^ *Depends: \(linux-image-[^ ]*\)$/\1/p")"'
[[ -z $kernel_root ]] || download_kernel=true

DEBS=$debs mmdebstrap --mode=root --variant=minbase --format=directory --quiet \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --aptopt='Acquire::Retries "3"' \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="$download_kernel" \
    "$suite" "$root"

# The kernel is unpacked, not installed: nobody needs the initrd that installing
# it would spend half a minute on.
if [[ -n $kernel_root ]]; then
    mkdir -p "$root/boot"
    cp -a "$kernel_root"/boot/vmlinuz-* "$root/boot/"
    cp -a "$kernel_root/usr/lib/modules" "$root/usr/lib/"
else
    dpkg-deb --fsys-tarfile "$debs"/linux-image-*.deb |
        tar -x -C "$root" --keep-directory-symlink --exclude='./usr/share/*'
    version=$(basename "$root"/boot/vmlinuz-*)
    chroot "$root" depmod "${version#vmlinuz-}"
fi

echo guest >"$root/etc/hostname"
echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
# Nothing of the building machine may stay inside.
rm -f "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
chroot "$root" passwd -q -d root
: >"$root/etc/fstab"

# /guest-job: what every guest does once it is up.
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

if [[ $flavour != sysvinit ]]; then
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
else
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
fi
