#!/bin/bash
# Builds what an ARM guest boots, as a directory. Run by arm.py, which keeps the
# result under a hash of this text.
#
#   build-arm-rootfs.sh arm64|armhf TARGET
#
# TARGET gets
#   root/           Debian's root file system, with the kernel's modules
#   kernel, initrd  for -kernel and -initrd
#   raspi3.dtb      the device tree of a Raspberry Pi 3 (arm64 only)
#   applets         the names that the root's busybox answers to
set -euo pipefail

# The root's programs run here while it is set up, under qemu-user. Who asks the
# kernel for that, and where, is seen only in a mount namespace of our own.
if [[ -z ${IN_NAMESPACE:-} ]]; then
    IN_NAMESPACE=1 exec unshare --mount --propagation private bash "$0" "$@"
fi

. "$(dirname "$0")/common-root.sh"

architecture=$1 target=$2
case $architecture in
    # EI_CLASS, EI_DATA and e_machine are what tells the architectures apart.
    arm64) qemu=qemu-aarch64-static kernel=linux-image-arm64
        elf='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00' ;;
    armhf) qemu=qemu-arm-static kernel=linux-image-armmp
        elf='\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00' ;;
    *) echo "build-arm-rootfs.sh: no such architecture: $architecture" >&2; exit 2 ;;
esac
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'

scratch=$(mktemp -d)
formats=/proc/sys/fs/binfmt_misc
entry_prefix=takeover-$architecture-$(stat --dereference --format=%i /proc/self/ns/pid)
entry=$formats/$entry_prefix-$$
finish() {
    [[ ! -e $entry ]] || echo -1 >"$entry"
    rm -rf --one-file-system "$scratch"
}
trap finish EXIT

# The kernel's list is one for all: an entry of our own, for as long as this runs,
# and only if the architecture's programs do not run already. F: qemu is opened
# now, so that it works inside the root.
[[ -e $formats/register ]] || mount -t binfmt_misc none "$formats" || true
# One that was killed has left its entry: its name says in which PID namespace
# nobody has that number any more.
for left in "$formats/$entry_prefix"-*; do
    [[ ! -e $left || -e /proc/${left##*-} ]] || echo -1 >"$left"
done
if ! arch-test "$architecture" >/dev/null 2>&1; then
    echo ":${entry##*/}:M::$elf:$mask:/usr/bin/$qemu:F" >"$formats/register"
fi

packages=(
    "${guest_packages[@]}"
    systemd systemd-sysv
    busybox-static      # what the initrd and the test images run on
)
mkdir "$target"
root=$target/root
# shellcheck disable=SC2016  # expanded by mmdebstrap's shell, for each hook
download_kernel='cd "$SCRATCH"
    export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
    apt-get -q download "$(apt-cache depends "$KERNEL" |
        sed -n "s/^ *Depends: \(linux-image-[^: ]*\).*$/\1/p" | head -n 1)"'
# The release as it came out, without the security suite: its armhf index is at
# times not to be had, and nothing from outside reaches these guests.
SCRATCH=$scratch KERNEL=$kernel mmdebstrap "${mmdebstrap_options[@]}" --architectures="$architecture" \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --setup-hook="sed -i '/security/d' \"\$1\"/etc/apt/sources.list" \
    --customize-hook="$download_kernel" \
    bookworm "$root"

# The kernel is unpacked, not installed: its scripts would make an initrd under
# emulation, which does not end. Of its modules, what a board without screen and sound may ask for, and one network
# card: the others only make the guest's udev busy.
unpacked=$scratch/unpacked
dpkg-deb -x "$scratch"/linux-image-*.deb "$unpacked"
version=$(basename "$unpacked"/boot/vmlinuz-*)
version=${version#vmlinuz-}
cp "$unpacked/boot/vmlinuz-$version" "$target/kernel"
if [[ $architecture == arm64 ]]; then
    cp "$unpacked/usr/lib/linux-image-$version/broadcom/bcm2837-rpi-3-b.dtb" \
        "$target/raspi3.dtb"
fi
from=$unpacked/lib/modules/$version to=$root/usr/lib/modules/$version
mkdir -p "$to"
cp "$from"/modules.{order,builtin,builtin.modinfo} "$to/"
for part in arch block crypto fs lib mm net/core \
    drivers/{block,char,clk,dma,firmware,mailbox,md,mmc,nvme,rtc,scsi,soc,virtio,watchdog}; do
    [[ -d $from/kernel/$part ]] || continue
    mkdir -p "$to/kernel/$part"
    cp -r "$from/kernel/$part/." "$to/kernel/$part/"
done
mkdir "$to/kernel/drivers/net"
cp "$from"/kernel/drivers/net/{virtio_net,net_failover}.ko "$to/kernel/drivers/net/"
depmod -b "$root" "$version"

# The initrd: the drivers of these machines' disks, ext4, and a shell to mount
# the root that the kernel command line names.
chroot "$root" busybox --list >"$target/applets"
initrd=$scratch/initrd
mkdir -p "$initrd"/{bin,dev,proc,sys,root,modules}
cp "$root/bin/busybox" "$initrd/bin/"
ln -s busybox "$initrd/bin/sh"
drivers=(virtio_mmio virtio_blk ext4 crc32c_generic)
[[ $architecture != arm64 ]] ||
    # bcm2835_wdt is also what restarts a Raspberry Pi.
    drivers+=(bcm2835 sdhci-iproc mmc_block bcm2835_wdt)
for driver in "${drivers[@]}"; do
    modprobe -d "$root" -S "$version" --show-depends "$driver"
done | while read -r verb file _; do
    [[ $verb == insmod ]] || continue
    name=$(basename "$file")
    [[ ! -e $initrd/modules/$name ]] || continue
    cp "$file" "$initrd/modules/"
    echo "$name" >>"$initrd/modules/order"
done
cat >"$initrd/init" <<'INIT'
#!/bin/sh
# Loads the drivers, waits for the root, and goes there.
export PATH=/bin
give_up() {
    echo "initrd: $1"
    busybox poweroff -f
}
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
root= init=/sbin/init
read -r words </proc/cmdline
for word in $words; do
    case $word in
        root=*) root=${word#root=} ;;
        init=*) init=${word#init=} ;;
    esac
done
# Some are for another machine than this one: no reason for words, unless the root
# does not appear.
failed=
while read -r module; do
    busybox insmod "/modules/$module" 2>/dev/null || failed="$failed $module"
done </modules/order
tries=0
until [ -b "$root" ]; do
    tries=$((tries + 1))
    [ $tries -le 300 ] || give_up "there is no $root (not loaded:$failed)"
    busybox usleep 100000
done
busybox mount -o rw "$root" /root || give_up "$root cannot be mounted"
busybox umount /proc
busybox umount /sys
busybox mount --move /dev /root/dev
exec busybox switch_root /root "$init"
INIT
chmod 755 "$initrd/init"
(cd "$initrd" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$target/initrd"

set_up_guest "$root" systemd
