"""A shared root file system in namespaces of its own, with a script as the first process.

PID, mount, network, IPC and UTS namespaces: what runs inside sees nothing of this machine, and all of it dies with the
first process. The root stays as it is: an overlay takes the writes.
"""

import subprocess

import leftovers

# Outside of the root: namespaces exist, nothing is mounted yet. $1 is the root, $2 a scratch folder.
_OUTER = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$2/space"
cd "$2/space"
mkdir upper work root
mount -t overlay -o "lowerdir=$1,upperdir=$2/space/upper,workdir=$2/space/work" none root
mount -t proc proc root/proc
# Read-only, and nobody waits for a udev that is not there.
mount -t sysfs -o ro sysfs root/sys
mount -t tmpfs -o mode=755 tmpfs root/run
mount -t tmpfs -o mode=755 tmpfs root/dev
for node in null:3 zero:5 random:8 urandom:9; do mknod -m 666 "root/dev/${node%:*}" c 1 "${node#*:}"; done
mkdir root/job
mount --bind "$2/job" root/job
exec chroot root /bin/bash /job/inner.sh
"""


def run(root, folder, timeout):
    """Runs `folder`/job/inner.sh in `root`, with `folder`/job at /job; `folder`/space is for the overlay. Ends within
    `timeout` seconds or fails. Gives what subprocess.run does, both outputs in one."""
    # Killed, by this program's death or by the time-out, unshare takes its child along, and with PID 1 goes all that is
    # in the namespace.
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child",
         "bash", "-c", _OUTER, "private_root", root, folder],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, text=True,
        errors="replace", preexec_fn=leftovers.die_with_parent,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"})
