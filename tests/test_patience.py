#!/usr/bin/env python3
"""What takes its time, in a PID and mount namespace: pauses, since stage 2 is patient, what no signal ends, and images that
are large enough to be met in the middle.

`tests/run fast` leaves these out.
"""

import fcntl
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
import runner  # noqa: E402
from namespace import MIB, ROOT_START, Sandbox  # noqa: E402
from result import check_result_line  # noqa: E402
from stuck_fuse import StuckFuse  # noqa: E402
from test_namespace import (BACKUP, STUBBORN, TAKEOVER, check_new_os, check_old_disk_is_whole,  # noqa: E402
                            check_old_os_is_whole, check_taken_over, files, job, make_image, pack)


def bypasses_the_cache(process, disk):
    """A process has the disk open with O_DIRECT."""
    folder = pathlib.Path(f"/proc/{process}")
    for descriptor in (folder / "fd").iterdir():
        if os.path.basename(os.readlink(descriptor)) == os.path.basename(disk):
            flags = re.search(r"^flags:\s*(\d+)", (folder / "fdinfo" / descriptor.name).read_text(), re.M)
            return bool(int(flags[1], 8) & os.O_DIRECT)
    raise AssertionError(f"{process} does not have {disk} open")


def test_a_mount_whose_server_does_not_answer_does_not_stop_it(folder):
    """Unmounting what lies below it waits for ever, and so does walking there, which no signal ends."""
    image = make_image(folder)
    before = "mkdir /net; echo UP; while [ ! -e /mounted ]; do sleep 0.05; done; cat /net/sub/x &"
    with Sandbox(folder, files=files(pack(image))) as box, StuckFuse() as fuse:
        box.start(job(before=before))
        box.wait_for("UP")
        fuse.mount(box.pid1(), "/net")
        pathlib.Path(f"/proc/{box.pid1()}/root/mounted").touch()
        fuse.swallow()
        box.wait_exit()
        check_taken_over(box, image)
        assert re.search(r"cat \(\d+\) cannot be killed", box.console()), box.console()
        assert "some processes do not end: going on (" in box.console()
        assert "every process has ended" not in box.console()


def test_the_file_systems_of_the_machine_around_it_are_not_written_back_at_the_end(folder):
    """sync(2) waits for every one of them, whosever it is: for one that hangs, or that others fill, the namespace would
    wait with the process that asks for it."""
    image, trace = make_image(folder), folder / "trace"
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job(before=STUBBORN))
        # The stubborn one leaves ten seconds for this.
        box.wait_for("takeover is PID 1")
        pid1 = box.pid1()
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", trace, "-e", "trace=sync,syncfs,fsync,reboot", "-p", str(pid1)],
                                  preexec_fn=leftovers.die_with_parent)
        while f"TracerPid:\t{tracer.pid}\n" not in pathlib.Path(f"/proc/{pid1}/status").read_text():
            assert box.running(), box.console()
            time.sleep(0.01)
        box.wait_exit()
        tracer.wait(60)
        check_taken_over(box, image)
    calls = trace.read_text()
    assert "reboot(" in calls and not re.search(r" sync\(", calls), calls


def stage2_lines(text):
    """The lines of stage 2 as patterns: figures differ from run to run."""
    lines = text.split("takeover is PID 1", 1)[1].splitlines()[1:-1]
    words = [re.sub(r"^\[[\d.]+\] ", "", line) for line in lines]
    # How far it is by then is said on a slow machine alone.
    words = [word for word in words if not re.match(r"[a-z ]+: \d+ % of ", word)]
    words = [re.sub(r"takeover-[0-9a-f]{16}", "takeover-HEX", word) for word in words]
    patterns = [re.sub(r"\d+(\\\.\d+)?", r"\\d+(\\.\\d+)?", re.escape(word)) for word in words]
    patterns = [pattern.replace("HEX", "[0-9a-f]{16}") for pattern in patterns]
    return list(dict.fromkeys(["takeover is PID 1", *patterns]))


def state_of_disk(box, image):
    """The old OS, nothing that boots, or the whole new OS: there is nothing else."""
    if box.disk_bytes(0, MIB) == box.before:
        check_old_disk_is_whole(box)
        return "old"
    if box.disk_bytes(0, MIB) == bytes(MIB):
        return "cleared"
    check_new_os(box.disk, image, data=True)
    return "new"


def test_whoever_is_killed_at_any_line_of_stage2_leaves_the_old_os_none_or_the_whole_new_one(folder):
    """PID 1, as by a power cut, and the worker, which is run again or leaves the old OS."""
    image = make_image(folder, size_mib=32, data=True)
    box_files = {**files(pack(image)), "/tk/backup.yml": BACKUP, "/tk/data/a": b"x"}
    command = job("--backup-cfg /tk/backup.yml --fallback-log --s2-log-level trace")
    places = [folder / "first"]
    places[0].mkdir()
    with Sandbox(places[0], files=box_files) as box:
        box.start(command)
        box.wait_exit()
        assert state_of_disk(box, image) == "new", box.console()
        patterns = stage2_lines(box.console())
    assert len(patterns) > 12, patterns
    states = {"power": [], "worker": []}
    met, whole = {"power": 0, "worker": 0}, 0
    for number, pattern in enumerate(patterns):
        for victim in states:
            place = folder / f"{victim}-{number}"
            place.mkdir()
            with Sandbox(place, files=box_files) as box:
                box.start(command)
                box.wait_for("takeover is PID 1", interval=0.0005)
                is_whole = kill_at(box, victim, pattern, met)
                state = state_of_disk(box, image)
                states[victim].append(state)
                assert victim == "power" or state != "cleared", (pattern, box.console())
                if is_whole:
                    # Without the figures that the worker did not live to tell.
                    result = json.loads(box.console().strip().splitlines()[-1])
                    assert result["outcome"] == "done", box.console()
                    assert state == "new" and result["attempts"] == 1, (pattern, box.console())
                whole += is_whole
            shutil.rmtree(place)
    assert set(states["power"]) == {"old", "cleared", "new"}, list(zip(patterns, states["power"]))
    assert set(states["worker"]) == {"old", "new"}, list(zip(patterns, states["worker"]))
    # The last line is said by PID 1 when the worker has ended.
    assert min(met.values()) >= len(patterns) - 1 and whole, (met, len(patterns), whole)


def wait_until_free(disk):
    """The kernel unmounts after the last process of the namespace has gone."""
    end = time.monotonic() + 10
    while True:
        try:
            return os.close(os.open(disk, os.O_RDONLY | os.O_EXCL))
        except OSError:
            assert time.monotonic() < end, f"{disk} stays in use"
            time.sleep(0.01)


def kill_at(box, victim, pattern, met):
    """Kills the victim where the pattern is shown, and counts when that could be done. True when the worker was killed
    after it had said that the new OS is whole."""
    try:
        box.stop_worker_at(pattern)
        met[victim] += 1
    except (AssertionError, ProcessLookupError):
        # It has come to its end.
        pass
    if victim == "power":
        box.process.kill()
        box.process.wait()
        wait_until_free(box.loop)
        return False
    is_whole = "the head is written and read back" in box.console()
    try:
        box.kill_worker()
    except (AssertionError, ProcessLookupError):
        is_whole = False
    box.wait_exit()
    return is_whole and "killed by signal 9" in box.console()


def test_a_worker_that_is_always_killed_ends_as_on_failure_says(folder):
    """With pauses between the retries, of 15 and 30 s."""
    image = make_image(folder, size_mib=200, content_mib=180)
    with Sandbox(folder, size_mib=512, timeout=90, files=files(pack(image))) as box:
        wanted = image.read_bytes()[60 * MIB:60 * MIB + 512]
        box.start(job("--on-failure reboot"))
        box.wait_for("takeover is PID 1")
        end = time.monotonic() + 50
        while box.disk_bytes(60 * MIB, 512) != wanted:
            assert time.monotonic() < end, box.console()
            time.sleep(0.002)
        began = time.monotonic()
        box.kill_worker()
        for run in (2, 3, 4):
            box.wait_for(rf"starting the worker again \(run {run}\)", interval=0.001)
            box.kill_worker()
        seconds = time.monotonic() - began
        box.wait_exit()
        text = box.console()
        assert text.count("it is flashed again") == 3, text
        assert "given up; the disk is incomplete: restarting all the same" in text, text
        result = check_result_line(text.strip().splitlines()[-1], "failed")
        assert result["attempts"] == 4 and seconds > 44, (seconds, result)
        record = subprocess.run([TAKEOVER, "log", box.disk], capture_output=True, text=True, timeout=60)
        assert "the worker was killed by signal 9 in phase" in record.stdout, record
        check_result_line(record.stdout.splitlines()[-1], "failed")
        assert box.disk_bytes(0, 512) == bytes(512), "a half-written disk has a partition table"


def test_a_worker_killed_while_flashing_is_run_again(folder):
    image = make_image(folder, size_mib=200, content_mib=180)
    with Sandbox(folder, size_mib=512, files=files(pack(image))) as box:
        wanted = image.read_bytes()[60 * MIB:60 * MIB + 512]
        box.start(job())
        box.wait_for("takeover is PID 1")
        end = time.monotonic() + 50
        while box.disk_bytes(60 * MIB, 512) != wanted:
            assert time.monotonic() < end, box.console()
            time.sleep(0.002)
        box.kill_worker()
        assert box.disk_bytes(0, 512) == bytes(512), "a half-written disk has a partition table"
        box.wait_exit()
        assert "killed by signal 9 in phase flash" in box.console(), box.console()
        result = check_taken_over(box, image)
        assert result["attempts"] == 2, result


def test_a_full_run_directory_and_a_stubborn_process_do_not_stop_it(folder):
    image = make_image(folder)
    before = "dd if=/dev/zero of=/run/full bs=64k\nsh -c 'trap \"\" TERM; while :; do sleep 1; done' &\n" \
             "/bin/busybox mkfifo /fifo; cat /fifo & sleep 0.5; kill -STOP $!"
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job(before=before))
        box.wait_exit()
        check_taken_over(box, image)
        assert "did not end when asked" in box.console()
        assert "cat (" not in box.console(), "a stopped process goes on to end when asked"


def test_a_disk_that_takes_no_writes_any_more_brings_the_old_os_back(folder):
    """A memory file behind the disk, sealed when the old OS has gone: a worn card goes read-only like that."""
    memory = os.memfd_create("disk", os.MFD_ALLOW_SEALING)
    (folder / "disk.img").symlink_to(f"/proc/{os.getpid()}/fd/{memory}")
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(job(before=STUBBORN))
        box.wait_for("takeover is PID 1")
        before = box.disk_bytes(0, ROOT_START)
        add_seals, seal_write = 1033, 8
        fcntl.fcntl(memory, add_seals, seal_write)
        box.wait_exit()
        assert "it takes no writes; nothing was changed" in box.console(), box.console()
        assert '"outcome":"untouched"' in box.console(), box.console()
        assert box.disk_bytes(0, ROOT_START) == before
    os.close(memory)


def test_a_flipped_bit_in_the_staged_image_is_found_before_the_first_write(folder):
    """In the middle of the image: decoding would find it when half of the disk is written. Two threads look, so in what
    each of them has."""
    image = pack(make_image(folder))
    for quarter in 1, 3:
        own = folder / str(quarter)
        own.mkdir()
        with Sandbox(own, files=files(image)) as box:
            box.start(job(before=STUBBORN))
            box.wait_for("takeover is PID 1")
            with open(f"/proc/{box.pid1()}/root/image", "r+b", buffering=0) as staged:
                place = staged.seek(0, os.SEEK_END) * quarter // 4
                staged.seek(place)
                byte = staged.read(1)[0]
                staged.seek(place)
                staged.write(bytes([byte ^ 16]))
            box.wait_exit()
            assert "checking the image: it is not what was scanned; the memory" in box.console(), box.console()
            check_old_os_is_whole(box)


def test_chunks_that_rot_before_the_read_back_are_repaired(folder):
    """One of zeros at the front, one with content, one of zeros behind all content, and the last."""
    image = make_image(folder, size_mib=200, content_mib=180)
    with Sandbox(folder, size_mib=512, files=files(pack(image))) as box, open(box.disk, "r+b", buffering=0) as disk:
        def rot(chunk):
            disk.seek(chunk * MIB + 12345)
            disk.write(b"rotten")
        box.start(job())
        box.wait_for("is free", interval=0.001)
        wanted = image.read_bytes()[60 * MIB:60 * MIB + 512]
        end = time.monotonic() + 50
        while box.disk_bytes(60 * MIB, 512) != wanted and time.monotonic() < end:
            time.sleep(0.002)
        # The first to be read back: by the time that this is said it may have been.
        rot(1)
        box.stop_worker_at("reading back")
        for chunk in (150, 195, 199):
            rot(chunk)
        assert bypasses_the_cache(box.worker(), box.loop)
        box.stop_worker_at("chunk 150 was written again")
        assert box.disk_bytes(0, 512) == bytes(512), "the head is not written last"
        os.kill(box.worker(), signal.SIGCONT)
        box.wait_exit()
        for chunk in (1, 150, 195, 199):
            assert re.search(f"chunk {chunk} .* was read back wrong", box.console()), box.console()
        result = check_taken_over(box, image)
        assert result["repaired_chunks"] == 4, result


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
