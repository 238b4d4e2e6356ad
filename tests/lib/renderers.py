"""netplan's own generator and cloud-init's own renderers, out of a Debian root that is kept, and what they make of
network settings.

They run in a mount namespace with the root read-only, and see no interface of this machine's settings; nothing is
started. Inside runs render.py.
"""

import pathlib
import shutil
import subprocess

import leftovers
import rootfs

_HERE = pathlib.Path(__file__).resolve().parent
_BUILD = _HERE / "build-renderers-root.sh"

# $1 is the root, $2 the folder with what is to be rendered.
_ENTER = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount --bind "$2" "$1/job"
mount -t tmpfs tmpfs "$1/tmp"
mount -t tmpfs tmpfs "$1/run"
exec chroot "$1" python3 -B /job/render.py
"""


def root(release):
    """The folder of a Debian root of this release with both programs."""
    key = rootfs.key_of(rootfs.script_text(_BUILD), release)
    return rootfs.cached(f"renderers-{release}", key, lambda path: rootfs.run("bash", _BUILD, release, path))


def versions(release):
    """What the programs call themselves."""
    status = (root(release) / "var/lib/dpkg/status").read_text()
    found = []
    for package in ("netplan.io", "cloud-init"):
        entry = status.split(f"Package: {package}\n")[1].split("\n\n")[0]
        found.append(f"{package} {entry.split('Version: ')[1].splitlines()[0]}")
    return ", ".join(found)


def render(folder, cases, release):
    """Has each case (name -> (YAML text, ways)) rendered in all of its ways. Gives the folder in which CASE/WAY is the
    root of a system with the settings, and what the programs said of those that they refused: {(case, way): text}."""
    job = folder / f"job-{release}"
    (job / "cases").mkdir(parents=True)
    for name, (text, ways) in cases.items():
        (job / "cases" / f"{name}.yaml").write_text(text)
        (job / "cases" / f"{name}.ways").write_text(" ".join(ways))
    shutil.copy(_HERE / "render.py", job)
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _ENTER, "renderers", root(release), job],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, preexec_fn=leftovers.die_with_parent,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr
    refused = {}
    for path in job.glob("out/*/*.refused"):
        refused[path.parent.name, path.stem] = path.read_text()
    return job / "out", refused
