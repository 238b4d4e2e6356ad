#!/usr/bin/env python3
"""Every init is taken over: the inits that know no request by ptrace, and those that do not answer theirs.

The programs of ARM are those of the audited build of core, which is the same here. $TAKEOVER_AARCH64_CORE and
$TAKEOVER_ARMV7_CORE name others.
"""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
sys.path.insert(0, str(HERE))
import arm  # noqa: E402
import balena_image  # noqa: E402
import inits  # noqa: E402
import runner  # noqa: E402
import test_guests  # noqa: E402
from guest import Guest, new_disk  # noqa: E402
from test_guests import COMMAND, job  # noqa: E402

# Ends the waiting for what does not come.
REFUSED = test_guests.REFUSED + "|no job disk"
FORCED = "PID 1 is made to execute this program, by ptrace"


def tracer():
    """tests/trace.rs, as the guests can run it."""
    target = "x86_64-unknown-linux-gnu"
    folder = os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")
    environment = dict(os.environ, CARGO_TARGET_DIR=str(folder),
                       RUSTFLAGS="-Ctarget-feature=+crt-static -Crelocation-model=static")
    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "--target", target, "--example", "trace"],
                   check=True, cwd=HERE.parent, env=environment)
    return pathlib.Path(folder) / target / "release/examples/trace"


def finish(guest, folder, image="small"):
    """The disk is the new OS; it is not booted, but for one of all these: its init would be another one."""
    guest.wait_for("PID 1 is handed over", 120)
    guest.wait_exit(180)
    result = test_guests.check_result(guest, "done")
    assert result["attempts"] == 1, result
    test_guests.check_secrets(guest.text())
    test_guests.check_disk(folder, image)


def take_over(name, folder, before="", options=""):
    """A guest with this init, whose services are ended with all else."""
    script = f"pidof service || echo NO SERVICE\n{before}\n{COMMAND} {options}\n"
    called, way = inits.INITS[name]
    with Guest("systemd", [inits.new_disk(folder)], files=job(balena_image.gz("small"), script), fail_on=REFUSED,
               options=inits.option(name), reboot=False) as guest:
        guest.wait_for(f"init +{called}$", 120)
        guest.wait_for(f"handed over +{way}$", 10)
        guest.wait_for(FORCED, 120)
        finish(guest, folder)
        assert not guest.find("NO SERVICE") and not guest.find(r"service \(\d+\) (did not end|cannot)"), guest.tail(80)


def test_busybox_is_taken_over(folder):
    """What is on the disk then starts."""
    take_over("busybox", folder)
    with Guest("image", [folder / "disk.img"]) as guest:
        test_guests.check_boot(guest, test_guests.config_for("small"))


def test_runit_is_taken_over(folder):
    """Its runsv would start again what is ended."""
    take_over("runit", folder)


def test_s6_is_taken_over(folder):
    take_over("s6", folder)


# What PID 1 of a namespace is: a shell, which knows no request.
IN_A_NAMESPACE = "unshare --pid --fork --mount-proc bash -c '{}; true'"
DRY = "takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --in-namespace --dry-run"
# Yama is as strict as can be, and stays so.
NO_PTRACE = f"""
cp /job/takeover /usr/local/bin/
{IN_A_NAMESPACE.format(f'{DRY}; echo BEFORE $?')}
echo 3 > /proc/sys/kernel/yama/ptrace_scope || exit 1
{IN_A_NAMESPACE.format(f'{DRY}; echo AFTER $?')}
"""


def test_openrc_init_is_asked_and_needs_no_ptrace(folder):
    """Yama forbids ptrace from some moment on: who knows no request is refused then, and openrc-init does as it is
    asked."""
    script = f"{NO_PTRACE}\n{COMMAND}\n"
    with Guest("systemd", [inits.new_disk(folder)], files=job(balena_image.gz("small"), script), fail_on=REFUSED,
               options=inits.option("openrc"), reboot=False) as guest:
        guest.wait_for("init +bash$", 120)
        guest.wait_for("handed over +by ptrace$", 10)
        guest.wait_for("BEFORE 0", 60)
        guest.wait_for(r"executes nothing when asked, and cannot be made to by ptrace: Yama forbids ptrace until the "
                       r"restart \(kernel.yama.ptrace_scope is 3\); restart without", 60)
        guest.wait_for("AFTER 3", 10)
        guest.wait_for("init +openrc-init$", 60)
        guest.wait_for("handed over +when asked, and in no other way: Yama", 10)
        finish(guest, folder)
        assert not guest.find(FORCED), guest.tail(80)


def test_openrc_init_that_does_not_answer_is_taken_over_by_ptrace(folder):
    """The pipe that it was asked through is no longer the one that it reads."""
    pipe = "/run/openrc/init.ctl"
    take_over("openrc", folder, f"rm {pipe}; mkfifo {pipe}; sleep 10000 <>{pipe} &", "--hand-over-timeout 2")


def test_a_shell_as_init_is_taken_over(folder):
    """init=/bin/sh: what is typed at its prompt starts the takeover."""
    with Guest("systemd", [inits.new_disk(folder)], files=job(balena_image.gz("small"), f"{COMMAND}\n"),
               fail_on=REFUSED, options="init=/bin/sh", reboot=False) as guest:
        guest.wait_for("# $", 60, prompt=True)
        guest.send(". /inits/begin; /guest-job </dev/null &\n")
        guest.wait_for("init +dash$", 60)
        guest.wait_for("handed over +by ptrace$", 10)
        guest.wait_for(FORCED, 120)
        finish(guest, folder)


# systemd's own space, where it looks for room: SIGTERM does nothing then.
FULL = "size=$(($(df --output=avail -k /run | tail -n 1) - 1024)); head -c ${size}K /dev/zero > /run/full; df -k /run"
AFTER_FAILURES = """
/job/trace 1 /nowhere/takeover 100
systemctl start systemd-tmpfiles-clean && systemctl is-active dbus && systemd-run -q --wait true && echo STILL AT WORK
cmp /proc/1/exe /usr/lib/systemd/systemd && echo STILL SYSTEMD
"""


def test_a_systemd_without_room_in_run_is_taken_over_by_ptrace(folder):
    """Before that, a hundred executions fail in it, and it is what it was each time."""
    files = job(balena_image.gz("small"), f"{AFTER_FAILURES}\n{FULL}\n{COMMAND}\n") | {"trace": tracer()}
    with Guest("systemd", [new_disk("systemd", folder)], files=files, fail_on=REFUSED, reboot=False) as guest:
        guest.wait_for("^100 failed: .*/nowhere/takeover: no such file or directory", 180)
        for words in ("STILL AT WORK", "STILL SYSTEMD", "handed over +when asked; else by ptrace$", FORCED):
            guest.wait_for(words, 120)
        finish(guest, folder)
        assert len(list(guest.find_all(r"^\d+ failed: "))) == 1, guest.tail(80)
        assert not guest.find("did not execute itself again"), "it was asked"


def test_a_systemd_that_does_not_answer_is_taken_over_by_ptrace(folder):
    """It finds no room where it looks for it, which is not /run itself, and does nothing when asked."""
    script = f"mount -t tmpfs -o size=1m small /run/systemd\n{COMMAND} --hand-over-timeout 3\n"
    with Guest("systemd", [new_disk("systemd", folder)], files=job(balena_image.gz("small"), script), fail_on=REFUSED,
               reboot=False) as guest:
        guest.wait_for("it did not execute itself again within 3 s", 180)
        guest.wait_for(FORCED, 10)
        finish(guest, folder)


# The image's root is made for nothing but these machines, and the program for no board of them.
ARM = COMMAND + " --no-dt-check"
# The execution fails: what was copied, and executed for a trial, cannot be any more when PID 1 is to do it.
FAILS = """
takeover --no-api-check --no-vpn-check -i /job/image -c /job/config.json --no-ack --no-dt-check --in-namespace & stage1=$!
until [ -e /run/takeover-*/image ]; do :; done
kill -STOP $stage1; mount -o remount,noexec /run/takeover-*; kill -CONT $stage1; wait $stage1; echo FIRST $?
"""
FAILS_FIRST = f"""
cp /job/takeover /usr/local/bin/
{FAILS}
systemd-run -q --wait true && echo STILL AT WORK
[ /proc/1/exe -ef /usr/lib/systemd/systemd ] && echo STILL SYSTEMD
"""


def arm_program(name):
    targets = {"AARCH64": "aarch64-unknown-linux-musl", "ARMV7": "armv7-unknown-linux-musleabihf"}
    given = os.environ.get(f"TAKEOVER_{name}_CORE")
    if given:
        return pathlib.Path(given)
    done = subprocess.run([HERE.parent / "size-report/build", targets[name], "core"], check=True,
                          stdout=subprocess.PIPE, text=True)
    return pathlib.Path(done.stdout.strip())


def arm_is_taken_over(folder, kind, name, image, before="", files=None):
    script = f"{before}\n{FULL}\n{FAILS_FIRST}\n{ARM}\n"
    files = job(balena_image.gz(image), script, image) | {"takeover": arm_program(name)} | (files or {})
    with Guest(kind, [new_disk(kind, folder)], files=files, memory=256, timeout=900, reboot=False,
               fail_on="Kernel panic - not syncing") as guest:
        yield guest
        guest.wait_for("permission denied", 300)
        for words in ("FIRST 1", "STILL AT WORK", "STILL SYSTEMD", FORCED):
            guest.wait_for(words, 200)
        finish(guest, folder, image)


def test_arm64_is_taken_over_by_ptrace(folder):
    """And the 32-bit program is refused where it could not be: a 64-bit shell is PID 1, of a namespace. A 32-bit one can be
    traced by both programs."""
    before = f"""
    mkdir /narrow /wide; cp /job/narrow /narrow/takeover; cp /job/takeover /wide/
    {IN_A_NAMESPACE.format(f'PATH=/narrow:$PATH; {DRY} --no-dt-check; echo REFUSED $?')}
    unshare --pid --fork --mount --propagation private /job/busybox sh /job/both.sh
    """
    by = "PATH=/{0}:$PATH\n{1}\necho BY {0}\n"
    both = f"mount -t proc proc /proc\n{by.format('narrow', FAILS)}{by.format('wide', FAILS)}"
    files = {"narrow": arm_program("ARMV7"), "busybox": arm.busybox("armhf")[0], "both.sh": both}
    for guest in arm_is_taken_over(folder, "arm64", "AARCH64", "raspberrypi3-64", before, files):
        guest.wait_for("PID 1 is a 64-bit program, whose registers this 32-bit one does not see; use the aarch64 build", 200)
        guest.wait_for("REFUSED 3", 20)
        for program in ("narrow", "wide"):
            guest.wait_for("handed over +by ptrace$", 60)
            guest.wait_for("executing, in its place, /run/takeover-.*: permission denied", 60)
            guest.wait_for("FIRST 1", 20)
            guest.wait_for(f"BY {program}", 20)


def test_armhf_is_taken_over_by_ptrace(folder):
    """Its programs are Thumb."""
    for _ in arm_is_taken_over(folder, "armhf", "ARMV7", "raspberrypi3"):
        pass


if __name__ == "__main__":
    subprocess.run([HERE / "setup", "arm"], check=True)
    runner.main(sys.modules[__name__], sys.argv[1:])
