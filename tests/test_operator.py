#!/usr/bin/env python3
"""What an operator can rely on when stage 2 fails, in a PID and mount namespace: a worker that is killed, stopped or
spins in any phase is noticed; what does not pass is told from what may; and `--on-failure` does what it says.

`tests/run fast` leaves these out: a worker that stands still is waited for.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "lib")]
import leftovers  # noqa: E402
import rootfs  # noqa: E402
import runner  # noqa: E402
import test_api  # noqa: E402
from namespace import MIB, Sandbox  # noqa: E402
from result import check_result_line  # noqa: E402
from test_namespace import (  # noqa: E402
    BACKUP, BOOT_LENGTH, BOOT_START, DATA_LENGTH, STUBBORN, TAKEOVER, check_new_os, check_old_os_is_whole,
    check_taken_over, files, job, make_image, pack)

# For how long a worker may stand still here, in seconds. A machine that is busy must not make it stand still.
STALL = 6
# Where the first chunk of the image has something behind its first block.
CORE = 8192
MARK = b"a loader's core image"


def marked_image(folder):
    image = make_image(folder, size_mib=32, data=True)
    with open(image, "r+b") as file:
        file.seek(CORE)
        file.write(MARK)
    return image


def is_being_flashed(box, image, place=BOOT_START + BOOT_LENGTH + DATA_LENGTH):
    """The first sectors with content behind the partitions are on the disk."""
    with open(image, "rb") as file:
        file.seek(place)
        wanted = file.read(512)
    return lambda: box.disk_bytes(place, 512) == wanted


def is_head_half_written(box):
    return lambda: box.disk_bytes(CORE, len(MARK)) == MARK and box.disk_bytes(0, 512) == bytes(512)


def end_stubborn(box):
    """Ends what keeps the worker in its first phase."""
    namespace = os.readlink(f"/proc/{box.pid1()}/ns/pid")
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "ns/pid") == namespace and b"trap" in (path / "cmdline").read_bytes():
                os.kill(int(path.name), signal.SIGKILL)
        except OSError:
            pass        # it has ended


def stop_worker_at(box, wanted, calls=0):
    """As the sandbox's own, in a job with STUBBORN: that the worker does not get beyond it until it is traced."""
    is_held = True

    def is_there():
        nonlocal is_held
        if is_held:
            end_stubborn(box)
            is_held = False
        return wanted() if callable(wanted) else re.search(wanted, box.console())

    box.wait_for("takeover is PID 1", interval=0.0005)
    box.stop_worker_at(is_there, calls)


def stop_in(box, phase, image):
    """Stops the worker in the middle of a phase."""
    if phase == "kill":
        box.wait_for("takeover is PID 1")
        os.kill(box.worker(), signal.SIGSTOP)
        return
    places = {
        "unmount": (r"unmounted /old", 0),
        "flash": (is_being_flashed(box, image), 0),
        "verify": ("reading back", 8),
        "data": ("placed and read back /", 0),
        "head": (is_head_half_written(box), 0),
        "efi": ("the head is written and read back", 0),
    }
    stop_worker_at(box, *places[phase])


# What a worker that comes to nothing in a phase leaves, and in which run that was.
PHASES = {"kill": "old", "unmount": "old", "flash": 2, "verify": 2, "data": 2, "head": 2, "efi": 1}


def comes_to_nothing(folder, how):
    """A worker is stopped in each phase, and then left so, made to spin, or killed."""
    image = marked_image(folder)
    box_files = {**files(pack(image)), "/tk/backup.yml": BACKUP, "/tk/data/a": b"x"}
    for phase, wanted in PHASES.items():
        place = folder / phase
        place.mkdir()
        with Sandbox(place, files=box_files, timeout=120) as box:
            box.start_impatient(STALL, job("--backup-cfg /tk/backup.yml --s2-log-level debug", before=STUBBORN))
            stop_in(box, phase, image)
            if how == "spins":
                box.spin(box.worker())
            elif how == "is killed":
                box.kill_worker()
            box.wait_exit()
            text = box.console()
            stood_still = f"no progress for {STALL} s: the worker is killed"
            assert text.count(stood_still) == (how != "is killed"), text
            # Of the phase efi there is nothing on a machine without.
            shown = "head" if phase == "efi" else phase
            assert f"the worker was killed by signal 9 in phase {shown}" in text, text
            if wanted == "old":
                check_old_os_is_whole(box)
            else:
                check_new_os(box.disk, image, data=True)
                result = json.loads(text.strip().splitlines()[-1])
                assert (result["outcome"], result["attempts"]) == ("done", wanted), result
                # Whether the backup is placed in the little time that it has here is nothing to count on.
        shutil.rmtree(place)


def test_a_worker_that_is_stopped_in_any_phase_is_noticed(folder):
    comes_to_nothing(folder, "is stopped")


def test_a_worker_that_spins_in_any_phase_is_noticed(folder):
    comes_to_nothing(folder, "spins")


def test_a_worker_that_is_killed_in_any_phase_is_noticed(folder):
    comes_to_nothing(folder, "is killed")


def test_what_places_the_backup_and_gets_no_further_costs_the_backup(folder):
    """The worker ends it before PID 1 would end the worker."""
    image = marked_image(folder)
    box_files = {**files(pack(image)), "/tk/backup.yml": BACKUP, "/tk/data/a": os.urandom(16 * MIB // 8)}
    with Sandbox(folder, files=box_files, timeout=120) as box:
        box.start_impatient(10, job("--backup-cfg /tk/backup.yml", before=STUBBORN))
        # Its next child is the one that places the backup.
        stop_worker_at(box, "verified: every chunk")
        worker = box.worker()
        os.kill(worker, signal.SIGCONT)
        children = pathlib.Path(f"/proc/{worker}/task/{worker}/children")
        while not (found := children.read_text().split()):
            time.sleep(0.0005)
        os.kill(int(found[0]), signal.SIGSTOP)
        box.wait_exit()
        text = box.console()
        assert "it got no further, and was ended: the new OS starts without its backup" in text, text
        check_new_os(box.disk, image, data=True)
        result = check_result_line(text.strip().splitlines()[-1], "done")
        assert (result["backup"], result["attempts"]) == ("failed", 1), result


def test_a_worker_that_the_kernel_does_not_let_go_is_replaced_when_it_does(folder):
    """The file behind the disk is on a frozen file system: what writes there waits, and no signal ends it."""
    image = make_image(folder, size_mib=64, content_mib=56)
    # In memory: a flush to this machine's own disk stands still for longer than a worker may here.
    memory, below = folder / "memory", folder / "home"
    memory.mkdir()
    below.mkdir()
    rootfs.run("mount", "-t", "tmpfs", "none", memory)
    home, loop, frozen = memory / "home.img", None, False
    try:
        rootfs.make_file(home, 160 * MIB)
        rootfs.run("mkfs.ext4", "-q", "-F", home)
        attach = ["losetup", "--show", "--find", home]
        loop = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
        rootfs.run("mount", loop, below)
        (folder / "disk.img").symlink_to(below / "disk.img")
        with Sandbox(folder, files=files(pack(image)), size_mib=128, timeout=180) as box:
            try:
                box.start_impatient(STALL, job(before=STUBBORN))
                stop_worker_at(box, is_being_flashed(box, image, 20 * MIB))
                rootfs.run("fsfreeze", "--freeze", below)
                frozen = True
                os.kill(box.worker(), signal.SIGCONT)
                box.wait_for("the worker hangs in the kernel in phase flash")
                box.wait_for(r"starting the worker again \(run 2\)")
            finally:
                if frozen:
                    rootfs.run("fsfreeze", "--unfreeze", below)
            box.wait_exit()
            result = check_taken_over(box, image)
            assert result["attempts"] == 2, result
    finally:
        subprocess.run(["umount", below], capture_output=True)
        if loop:
            leftovers.detach(loop)
        subprocess.run(["umount", memory], capture_output=True)


# ---------------------------------------------------------------- what does not pass, and --on-failure

def flip_staged_byte(box):
    """A byte in the middle of the staged image is not what it was, as with bad memory; called again it is."""
    with open(f"/proc/{box.pid1()}/root/image", "r+b", buffering=0) as staged:
        place = staged.seek(0, os.SEEK_END) * 7 // 8
        staged.seek(place)
        byte = staged.read(1)[0]
        staged.seek(place)
        staged.write(bytes([byte ^ 16]))


def fails_for_good(folder, way):
    """A takeover with an API to tell, whose staged image changes while it is flashed: gives the two as they are when
    that was found out."""
    image, server = test_api.taken_over(folder)
    api = server.__enter__()
    try:
        config = api.config(test_api.ca(), key="deviceApiKey")
        with test_api.sandbox(folder, api, image, config, timeout=120) as box:
            command = f"{test_api.COMMAND} --report-hup-progress --on-failure {way}"
            box.start(f"{STUBBORN}\n{command}\necho EXIT $?\nsleep 60\n")
            stop_worker_at(box, lambda: box.disk_bytes(0, MIB) == bytes(MIB))
            flip_staged_byte(box)
            os.kill(box.worker(), signal.SIGCONT)
            # The first run finds that it is wrong, the second that it stays wrong.
            box.wait_for("the disk is incomplete: it is flashed again")
            box.wait_for("checking the image: it is not what was scanned; the memory")
            box.wait_for("it would fail again in the same way: no retry at once")
            yield box, api, image, config
    finally:
        server.__exit__(None, None, None)


def check_record(box):
    record = subprocess.run([TAKEOVER, "log", box.disk], capture_output=True, text=True, timeout=60)
    assert "checking the image: it is not what was scanned" in record.stdout, record
    return check_result_line(record.stdout.splitlines()[-1], "failed")


def check_told(api, patch):
    end = time.monotonic() + 30
    while patch not in api.patches():
        assert time.monotonic() < end, api.patches()
        time.sleep(0.05)


def test_on_failure_reboot(folder):
    for box, api, _, _ in fails_for_good(folder, "reboot"):
        box.wait_exit()
        text = box.console()
        assert "given up; the disk is incomplete: restarting all the same" in text, text
        result = check_result_line(text.strip().splitlines()[-1], "failed")
        assert (result["attempts"], result["report"]) == (2, "sent"), result
        assert check_record(box)["attempts"] == 2
        assert test_api.FAILED in api.patches() and test_api.REPORTED not in api.patches(), api.patches()
        assert box.disk_bytes(0, MIB) == bytes(MIB), "a disk that is incomplete has a partition table"


def test_on_failure_halt(folder):
    for box, api, _, _ in fails_for_good(folder, "halt"):
        box.wait_for("flashing failed in run 2; halted. the disk is incomplete")
        line = box.wait_for(r'\{"outcome".*\}\n')[0]
        result = check_result_line(line, "failed")
        assert (result["attempts"], result["report"]) == (2, "sent"), result
        check_record(box)
        check_told(api, test_api.FAILED)
        # It stays so: nothing restarts, and nobody tries again.
        time.sleep(2)
        assert box.running() and "(run 3)" not in box.console(), box.console()
        assert box.console().count("flashing failed") == 1, box.console()


def test_on_failure_retry(folder):
    """It is said, kept and told once, and tried for ever: what has come to its senses is flashed."""
    for box, api, image, config in fails_for_good(folder, "retry"):
        box.wait_for("flashing failed in run 2; next try in 30 s")
        check_record(box)
        check_told(api, test_api.FAILED)
        assert test_api.REPORTED not in api.patches(), api.patches()
        box.wait_for("flashing failed in run 3; next try in 30 s")
        flip_staged_byte(box)
        box.wait_exit()
        test_api.check_disk(box, image, config)
        result = test_api.result_of(box, "done")
        assert (result["attempts"], result["report"]) == (4, "sent"), result
        assert api.patches().count(test_api.FAILED) == 1 and test_api.REPORTED in api.patches(), api.patches()
        assert box.console().count("the log is in the last sectors of the disk") == 1, box.console()
        # What is said there is no longer so.
        record = subprocess.run([TAKEOVER, "log", box.disk], capture_output=True, text=True, timeout=60)
        assert record.returncode != 0, record


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
