#!/bin/bash
# Builds the root file system of a guest as a directory. Run by rootfs.py, which
# keeps the result under a hash of this text.
#
#   build-rootfs.sh systemd|sysvinit ROOT [KERNEL_ROOT]
#   build-rootfs.sh generic|RELEASE ROOT
#
# systemd, sysvinit and generic are Debian 12, generic with the kernel for all machines
# (USB, gadgets) instead of the one for clouds, and an NFS server. The RELEASEs are
# Debian's bullseye, trixie and sid, and Ubuntu's xenial and noble, each with systemd and
# a kernel of its own.
#
# KERNEL_ROOT is a root built before, whose kernel and modules are taken over:
# every guest of Debian 12 and every test image must run the very same kernel.
set -euo pipefail
. "$(dirname "$0")/common-root.sh"

flavour=$1 root=$2 kernel_root=${3:-}

packages=("${guest_packages[@]}")
suite=bookworm init=systemd kernel=linux-image-cloud-amd64 options=()
debian_12=(
    busybox-static      # what the test images run on
    systemd-boot-efi    # the boot loader of UEFI guests and images
    efibootmgr          # for a look at the boot entries from inside
)
nfs=(nfs-kernel-server nfs-common)  # started by the jobs that want it
case $flavour in
    systemd) packages+=("${debian_12[@]}" systemd systemd-sysv) ;;
    sysvinit) init=sysvinit packages+=("${debian_12[@]}" sysvinit-core sysv-rc initscripts) ;;
    generic) kernel=linux-image-amd64 packages+=("${debian_12[@]}" systemd systemd-sysv "${nfs[@]}") ;;
    trixie) suite=$flavour packages+=(systemd systemd-sysv "${nfs[@]}") ;;
    bullseye) suite=$flavour packages+=(systemd systemd-sysv) ;;
    # A mirror that is some weeks old will do: the signature counts, not its date.
    sid) suite=$flavour packages+=(systemd systemd-sysv) options+=(--aptopt='Acquire::Check-Valid-Until "false"') ;;
    xenial | noble) suite=$flavour kernel=linux-image-virtual packages+=(systemd systemd-sysv) ;;
    *) echo "build-rootfs.sh: no such flavour: $flavour" >&2; exit 2 ;;
esac

debs=$(mktemp -d)
chmod 755 "$debs"     # apt reads as a user of its own
trap 'rm -rf "$debs"' EXIT
if [[ $kernel == linux-image-virtual ]]; then
    # Debian vouches for Ubuntu's keys. The first Debian that has them as a package is 13.
    mmdebstrap --mode=root --variant=extract --quiet --include=ubuntu-keyring trixie "$debs/keys"
    options+=(--keyring="$debs/keys/usr/share/keyrings/ubuntu-archive-keyring.gpg" --components=main,universe)
    # An old chfn, which systemd's package calls, wants to write to the audit log, as no container may; an old dash needs
    # the folder of its manual.
    options+=(--extract-hook='mkdir -p "$1/usr/share/man/man1"
        chroot "$1" dpkg-divert --quiet --local --rename --add /usr/bin/chfn
        ln -s /bin/true "$1/usr/bin/chfn"')
fi
# shellcheck disable=SC2016  # expanded by mmdebstrap's shell, for each hook
download_kernel='cd "$DEBS"
    export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
    image=$(apt-cache depends "$KERNEL" | sed -n "s/^ *Depends: \(linux-image-[^ ]*\)$/\1/p")
    # Ubuntu has the modules in a package of their own, and Debian after 13 the kernel, too.
    apt-get -q download "$image" $(apt-cache depends "$image" |
        sed -n -E "s/^ *Depends: (linux-(modules|binary|base)-[^ ]*)$/\1/p")'
[[ -z $kernel_root ]] || download_kernel=true

DEBS=$debs KERNEL=$kernel mmdebstrap "${mmdebstrap_options[@]}" "${options[@]}" \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --customize-hook="$download_kernel" \
    "$suite" "$root"

# The kernel is unpacked, not installed: nobody needs the initrd that installing
# it would spend half a minute on.
if [[ -n $kernel_root ]]; then
    copy_kernel "$root" "$kernel_root"
else
    # Without what no guest has: half of the generic kernel's modules.
    for deb in "$debs"/linux-*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --exclude='./usr/share/*' \
            --exclude='*/kernel/drivers/gpu/*' --exclude='*/kernel/drivers/media/*' --exclude='*/kernel/sound/*' \
            --exclude='*/kernel/drivers/infiniband/*'
    done
    # Of the network cards, the one that guests with a network have.
    find "$root/lib/modules/" -path '*/kernel/drivers/net/*' -type f \
        ! -name 'virtio_net.ko*' ! -name 'net_failover.ko*' -delete
    for image in "$root"/usr/lib/modules/*/vmlinuz; do
        [[ ! -e $image ]] || cp "$image" "$root/boot/vmlinuz-$(basename "$(dirname "$image")")"
    done
    version=$(basename "$root"/boot/vmlinuz-*)
    chroot "$root" depmod "${version#vmlinuz-}"
fi

set_up_guest "$root" "$init"
