#!/usr/bin/env python3
"""What takes its time because stage 2 is patient, in a PID and mount namespace: pauses, and what no signal ends.

`tests/run fast` leaves these out.
"""

import pathlib
import re
import sys
import time

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "lib")]
import runner  # noqa: E402
from namespace import MIB, Sandbox  # noqa: E402
from result import check_result_line  # noqa: E402
from stuck_fuse import StuckFuse  # noqa: E402
from test_namespace import check_taken_over, files, job, make_image, pack  # noqa: E402


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


def test_a_worker_that_is_always_killed_ends_as_on_failure_says(folder):
    """With pauses between the retries, of 15 and 30 s."""
    image = make_image(folder, size_mib=200, content_mib=180)
    with Sandbox(folder, size_mib=512, timeout=90, files=files(pack(image))) as box:
        wanted = image.read_bytes()[60 * MIB:60 * MIB + 512]
        box.start(job("--on-failure reboot"))
        end = time.monotonic() + 50
        while box.disk_bytes(60 * MIB, 512) != wanted and time.monotonic() < end:
            time.sleep(0.002)
        began = time.monotonic()
        box.kill_worker()
        for run in (2, 3, 4):
            box.wait_for(rf"starting the worker again \(run {run}\)", interval=0.001)
            box.kill_worker()
        seconds = time.monotonic() - began
        box.wait_exit()
        text = box.console()
        assert text.count("it is flashed again from memory") == 3, text
        assert "given up; the disk is incomplete: restarting all the same" in text, text
        result = check_result_line(text.strip().splitlines()[-1], "failed")
        assert result["attempts"] == 4 and seconds > 44, (seconds, result)
        assert box.disk_bytes(0, 512) == bytes(512), "a half-written disk has a partition table"


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
