#!/bin/bash
# Builds the root file system of the guests whose init is none of systemd's and sysvinit's, as a directory. Run by
# inits.py, which keeps the result under a hash of this text.
#
#   build-init-root.sh ROOT SYSTEMD_ROOT PACKAGES
#
# SYSTEMD_ROOT is the root of the guests with systemd, of which this is a copy with more inits in it; PACKAGES is a folder
# with the packages of those. /inits/NAME is what the kernel is told to start, with init=: it becomes the init NAME, which
# supervises /inits/service and runs the job of the guest. What an init does before it supervises is not what is tested,
# so it is next to nothing.
set -euo pipefail

root=$1 systemd_root=$2 packages=$3
cp -a "$systemd_root" "$root"
for package in "$packages"/*.deb; do
    # Links that lead to systemd's own stay.
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink \
        --exclude='./usr/share/*' --exclude=./sbin/init --exclude=./sbin/halt --exclude=./sbin/poweroff \
        --exclude=./sbin/reboot --exclude=./sbin/shutdown --exclude=./sbin/runlevel --exclude='./etc/init.d/*'
done
chroot "$root" ldconfig

# What a folder of services needs: service NAME FOLDER COMMAND.
service() {
    mkdir -p "$root/$2/$1"
    printf '#!/bin/sh\n%s\n' "$3" >"$root/$2/$1/run"
    chmod 755 "$root/$2/$1/run"
}

mkdir "$root/inits"
cat >"$root/inits/begin" <<'SETUP'
# What every one of them needs.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755,size=20% run /run
# As udev would, which does not run. The kernel is still looking for disks; the second is that of the job.
tries=0
until [ -b /dev/nvme0n2 ] || [ $((tries += 1)) = 100 ]; do sleep 0.1; done
mkdir -p /dev/disk/by-label
ln -s /dev/nvme0n2 /dev/disk/by-label/JOB
SETUP
cat >"$root/inits/job" <<'JOB'
#!/bin/sh
exec /guest-job </dev/null >/dev/console 2>&1
JOB
cat >"$root/inits/service" <<'SERVICE'
#!/bin/bash
# Has a file of the root open, and comes back when it is ended.
exec -a service sleep 1000000 </etc/fstab
SERVICE

cat >"$root/inits/busybox" <<'INIT'
#!/bin/bash
. /inits/begin
exec -a init busybox init
INIT
printf '::once:/inits/job\n::respawn:/inits/service\n' >"$root/etc/inittab"

cat >"$root/inits/runit" <<'INIT'
#!/bin/bash
. /inits/begin
exec /lib/runit/runit-init
INIT
printf '#!/bin/sh\nexit 0\n' | tee "$root/etc/runit/1" >"$root/etc/runit/3"
printf '#!/bin/sh\nexec runsvdir -P /inits/of-runit\n' >"$root/etc/runit/2"
for folder in inits/of-runit inits/of-s6; do
    service job "$folder" '/inits/job; exec sleep 1000000'
    service service "$folder" 'exec /inits/service'
done

cat >"$root/inits/s6" <<'INIT'
#!/bin/bash
. /inits/begin
exec s6-svscan /inits/of-s6
INIT

cat >"$root/inits/openrc" <<'INIT'
#!/bin/bash
. /inits/begin
mkdir -p /run/openrc
exec /sbin/openrc-init
INIT
# It starts the runlevels by this program.
cat >"$root/sbin/openrc" <<'LEVEL'
#!/bin/sh
[ "$1" != default ] || { /inits/job & /inits/service & }
LEVEL

chmod 755 "$root"/inits/{job,service,busybox,runit,s6,openrc} "$root"/etc/runit/{1,2,3} "$root/sbin/openrc"
