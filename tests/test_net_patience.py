#!/usr/bin/env python3
"""How long the program waits for servers, and that it always ends: real minutes, all of them at the same time."""

import pathlib
import re
import socket
import sys
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "lib"))
sys.path.insert(0, str(TESTS))
import client
import runner
import test_api
import test_net
from client import at_once, download, scan, with_names
from servers import Hostile
from test_net import PACKED, TAG

# Nothing takes longer: seven tries of a minute each, and the pauses between them, on a busy machine.
LONGEST = 1200


def silence(exchange):
    exchange.wait_for_client()


def stalls_always(exchange):
    """A few bytes more each time, and then nothing."""
    exchange.file(PACKED, TAG, cut=10, then=lambda exchange: exchange.wait_for_client())


def stalls_once(exchange):
    if exchange.number == 1:
        return exchange.file(PACKED, TAG, cut=len(PACKED) // 2, then=lambda exchange: exchange.wait_for_client())
    return exchange.file(PACKED, TAG)


def goes_on_and_on(exchange):
    """Cut a dozen times, but each time a piece more has come."""
    exchange.file(PACKED, TAG, cut=None if exchange.number > 12 else len(PACKED) // 15)


def claims_more(exchange):
    """The length of a file that is longer than what ever comes."""
    start = exchange.request.start or 0
    field = {"Content_Range": f"bytes {start}-{len(PACKED) + 99}/{len(PACKED) + 100}"} if exchange.request.start else {}
    exchange.head("206 Partial Content" if field else "200 OK", ETag=TAG, Accept_Ranges="bytes",
                  Content_Length=len(PACKED) + 100 - start, **field)
    exchange.send(PACKED[start:])


ANSWERS = {
    "/once": stalls_once, "/always": stalls_always, "/silence": silence, "/on": goes_on_and_on, "/more": claims_more,
    "/503": lambda exchange: exchange.reply("503 Service Unavailable", b"busy"),
    "/429": lambda exchange: exchange.reply("429 Too Many Requests", b"busy", Retry_After="100000"),
    "/cut": lambda exchange: exchange.cut(),
    "/close": lambda exchange: None,
    "/head": lambda exchange: exchange.send("HTTP/1.1 200 OK\r\nContent-L") and exchange.wait_for_client(),
}


def check_one(folder, server, path):
    run = download(folder, server.url(path), timeout=LONGEST)
    requests = [request for request in server.seen if request.path == path]
    if path == "/once":
        run.check_downloaded(PACKED)
        assert len(requests) == 2 and requests[1].start, [request.head for request in requests]
        assert requests[1].time - requests[0].time > 45, "it did not wait a minute"
    elif path == "/on":
        run.check_downloaded(PACKED)
        assert len(requests) == 13, len(requests)
    else:
        words = {"/503": ["503"], "/429": ["429"], "/more": ["length|bytes|short|ends|closed|broke|cut"],
                 "/always": ["second|stall|silen|time|nothing"], "/silence": ["second|silen|time|nothing|answer"]}
        run.check_failure(*words.get(path, [])).check_not_finished()
        # Who asks for a day is not waited for.
        assert (1 if path == "/429" else 2) <= len(requests) <= 20, (path, len(requests))
        if path != "/always" and path != "/more":
            run.check_nothing_left()


# In a network of its own, where nobody else has port 53; it ends with its namespace.
MUTE_SERVER = """
ip link set lo up
python3 -c 'import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
    mute.bind(("127.0.0.53", 53))
    print("bound", flush=True)
    time.sleep(100000)' > "$0/mute" &
until grep -q bound "$0/mute"; do kill -0 $! || exit 99; sleep 0.1; done
"$@"
"""


def check_name(folder):
    """A resolver that never answers."""
    within = ("unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", MUTE_SERVER, folder,
              *with_names(folder, "127.0.0.1 localhost\n", "nameserver 127.0.0.53\n"))
    run = download(folder, "http://mute.test/image.gz", within=within, timeout=LONGEST)
    run.check_failure("mute.test", "127.0.0.53: no answer").check_nothing_left()


def check_mute_tls(folder):
    """Takes the connection, and says nothing of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def accept():
            try:
                while True:
                    kept.append(listener.accept())
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        run = download(folder, f"https://127.0.0.1:{port}/image.gz", timeout=LONGEST)
        run.check_failure("127.0.0.1").check_nothing_left()
        listener.shutdown(socket.SHUT_RDWR)


def check_late_report(folder):
    """The API takes stage 2's report and never answers: 20 seconds at most, then the restart."""
    folder = folder / "report"
    folder.mkdir()
    image, server = test_api.taken_over(folder)
    with server as api:
        api.delays = {r"/v7/device\(": LONGEST}
        config = api.config(test_api.ca(), key="deviceApiKey")
        with test_api.sandbox(folder, api, image, config, timeout=120) as box:
            test_api.boot(box, "--report-hup-progress", wait=False)
            box.wait_for("the head is written and read back")
            began = time.monotonic()
            box.wait_exit()
            took = time.monotonic() - began
            test_api.check_disk(box, image, config)
            test_api.result_of(box, "done")
        assert api.asked(r"/v7/device\(", "PATCH"), api.requests
        assert took < 90, f"the restart waited {took:.0f} s for a report"


def test_servers_that_are_silent_slow_or_never_right(folder):
    with Hostile(ANSWERS) as server:
        cases = [lambda path=path: check_one(folder, server, path) for path in ANSWERS]
        cases += [lambda: check_name(folder), lambda: check_mute_tls(folder), lambda: check_late_report(folder)]
        problems = []

        def guarded(case):
            try:
                case()
            except Exception as problem:
                problems.append(problem)

        at_once(guarded, cases, len(cases))
        # Who is asked has as many requests as there were tries.
        asked = {path: [f"{request.time - server.seen[0].time:.0f}" for request in server.seen if request.path == path]
                 for path in ANSWERS}
        print("\n".join(f"    {path}: {len(times)} requests, the last after {times[-1]} s" for path, times in asked.items()))
        for problem in problems[1:]:
            print(f"also: {problem}")
        if problems:
            raise problems[0]


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
