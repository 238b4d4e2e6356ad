#!/bin/bash
# Builds what a guest boots whose root is not simply a partition, as a directory. Run by stacked.py, which keeps the
# result under a hash of this text.
#
#   build-stacked-rootfs.sh TARGET KERNEL_ROOT LUKS_KEY
#
# TARGET gets
#   root/       Debian's root file system with LVM, cryptsetup, mdadm and btrfs
#   initrd      finds out at boot what the root partition holds, assembles it and goes there; with rdinit=/prepare it
#               runs prepare.sh of the job disk instead, which makes such a disk
# KERNEL_ROOT is a root built before, whose kernel and modules are taken over; the initrd opens dm-crypt with
# LUKS_KEY.
set -euo pipefail
. "$(dirname "$0")/common-root.sh"
target=$1 kernel_root=$2 luks_key=$3 root=$1/root

packages=(
    "${guest_packages[@]}"
    busybox-static      # what the initrd runs on
    systemd systemd-sysv
    lvm2 cryptsetup-bin mdadm btrfs-progs
)
mkdir "$target"
mmdebstrap "${mmdebstrap_options[@]}" \
    --include="$(IFS=,; echo "${packages[*]}")" \
    bookworm "$root"
copy_kernel "$root" "$kernel_root"
version=$(basename "$root"/boot/vmlinuz-*)
version=${version#vmlinuz-}

# The rest of what the volume group holds. Debian's initrd brings up the root's volume only, too; but what udev has not
# seen coming up is never "ready" to systemd, so fstab would wait in vain.
cat >"$root/etc/systemd/system/other-volumes.service" <<'UNIT'
[Unit]
Description=The volumes beside the root
ConditionPathExists=/dev/mapper/vg0-root
Before=guest-job.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=vgchange --activate y vg0
ExecStart=mount /dev/mapper/vg0-srv /srv
ExecStart=swapon /dev/mapper/vg0-swap

[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl -q enable other-volumes.service

# The initrd. Its programs are Debian's own, with the libraries that they name.
initrd=$(mktemp -d)
trap 'rm -rf "$initrd"' EXIT
mkdir -p "$initrd"/{bin,dev,proc,sys,run,etc,tmp,root,modules,job}
copy() {
    mkdir -p "$initrd/$(dirname "$1")"
    cp -L "$root/$1" "$initrd/$1"
}
cp "$root/bin/busybox" "$initrd/bin/"
chroot "$root" busybox --list | while read -r applet; do
    [[ $applet == busybox ]] || ln -s busybox "$initrd/bin/$applet"
done
programs=(/usr/sbin/lvm /usr/sbin/cryptsetup /usr/sbin/mdadm /usr/bin/btrfs /usr/sbin/mkfs.btrfs /usr/sbin/mkfs.ext4 /usr/bin/dd)
for program in "${programs[@]}"; do
    copy "$program"
    chroot "$root" ldd "$program" | grep -o '/[^ ]*' | while read -r library; do copy "$library"; done
done
# There is no udev to make the device nodes.
mkdir "$initrd/etc/lvm"
echo 'activation { udev_rules = 0 udev_sync = 0 }' >"$initrd/etc/lvm/lvm.conf"
# The key lies beside the lock: this is a test.
printf %s "$luks_key" >"$initrd/key"
chmod 600 "$initrd/key"

# What each kind of holder takes: a list of modules in the order of their loading.
modules_of() {
    local name=$1 module file verb
    shift
    for module; do
        chroot "$root" modprobe -S "$version" --show-depends "$module"
    done | while read -r verb file _; do
        [[ $verb == insmod ]] || continue
        cp -n "$root$file" "$initrd/modules/"
        basename "$file"
    done | awk '!seen[$0]++' >"$initrd/modules/$name.list"
}
modules_of lvm dm-mod
modules_of luks dm-mod aesni-intel xts algif_skcipher dm-crypt
modules_of md raid1
modules_of btrfs btrfs

cat >"$initrd/common" <<'COMMON'
export PATH=/bin:/sbin:/usr/bin:/usr/sbin LVM_SUPPRESS_FD_WARNINGS=1
give_up() {
    echo "initrd: $1"
    poweroff -f
}
load() {
    while read -r module; do
        insmod "/modules/$module" 2>/dev/null || grep -q "^$(basename "$module" .ko | tr - _) " /proc/modules ||
            echo "initrd: $module cannot be loaded"
    done <"/modules/$1.list"
}
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mkdir /run/cryptsetup /run/lock
COMMON

cat >"$initrd/init" <<'INIT'
#!/bin/sh
# Looks at what lies on the root partition, opens one layer after the other, and goes to the root in the innermost.
# The same command line boots what takes the place of this system, where the root is the partition.
. /common
# The kind of what a block device holds, by its magic number (in hexadecimal).
bytes() { dd if="$1" bs=1 skip="$2" count="$3" 2>/dev/null | hexdump -v -e '1/1 "%02x"'; }
kind_of() {
    [ "$(bytes "$1" 0 6)" = 4c554b53babe ] && echo luks && return
    [ "$(bytes "$1" 512 8)" = 4c4142454c4f4e45 ] && echo lvm && return
    [ "$(bytes "$1" 4096 4)" = fc4e2ba9 ] && echo md && return
    [ "$(bytes "$1" 65600 8)" = 5f42485266535f4d ] && echo btrfs && return
    echo plain
}
device= init=/sbin/init
read -r words </proc/cmdline
for word in $words; do
    case $word in
        root=*) device=${word#root=} ;;
        init=*) init=${word#init=} ;;
    esac
done
tries=0
until [ -b "$device" ]; do
    tries=$((tries + 1))
    [ $tries -le 300 ] || give_up "there is no $device"
    usleep 100000
done
system=ext4 options=rw
while :; do
    kind=$(kind_of "$device")
    [ "$kind" = plain ] && break
    load "$kind"
    case $kind in
        luks)
            cryptsetup open --type luks2 --key-file /key "$device" root || give_up "$device cannot be opened"
            device=/dev/mapper/root ;;
        lvm)
            lvm lvchange --quiet --activate y vg0/root || give_up "the volume group on $device cannot be activated"
            device=/dev/mapper/vg0-root ;;
        md)
            mdadm --quiet --assemble --run /dev/md0 "$device" || give_up "the array on $device cannot be assembled"
            device=/dev/md0 ;;
        btrfs)
            system=btrfs options=rw,subvol=@
            break ;;
    esac
    echo "initrd: $kind, then $device"
done
mount -t "$system" -o "$options" "$device" /root || give_up "$device cannot be mounted"
umount /run
umount /proc
umount /sys
mount --move /dev /root/dev
exec switch_root /root "$init"
INIT

cat >"$initrd/prepare" <<'PREPARE'
#!/bin/sh
# Makes a disk: runs the job's prepare.sh, which has all programs and modules at hand.
. /common
for list in lvm luks md btrfs; do load $list; done
for device in /dev/nvme0n*; do
    mount -o ro -t ext4 "$device" /job 2>/dev/null && [ -e /job/prepare.sh ] && break
    umount /job 2>/dev/null
done
if sh -e /job/prepare.sh && sync; then echo 'PREPARED'; else echo 'NOT PREPARED'; fi
poweroff -f
PREPARE
chmod 755 "$initrd/init" "$initrd/prepare"
(cd "$initrd" && find . | LC_ALL=C sort | busybox cpio -o -H newc -R 0:0 2>/dev/null) >"$target/initrd"

set_up_guest "$root" systemd
