#!/usr/bin/env python3
"""`takeover -c config.json` against a stand-in of balena's API, a real HTTPS server (tests/lib/api.py): downloads as an
ordinary command, whole takeovers in a namespace."""

import base64
import contextlib
import functools
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "lib"))
sys.path.insert(0, str(TESTS))
import chains
import client
import runner
import servers
import test_namespace
from api import DEVICE_KEY, KEY, UUID, VERSIONS, Api, large
from client import REFUSED, at_once, make_image, new_work, pack, with_names
from namespace import Sandbox
from result import check_result_line
from servers import Hostile, basic, free_port, sha256
from test_namespace import MIB

IMAGE = make_image(2 * MIB, seed=3)
PACKED = pack(IMAGE)
NAME = "server.localhost"
HOSTS = f"127.0.0.1 localhost {NAME}\n"
_chains = tempfile.TemporaryDirectory(prefix="takeover-chains-")


_making = threading.Lock()


def all_chains():
    """Made once for all tests, whoever asks first."""
    with _making:
        return _made_chains()


@functools.cache
def _made_chains():
    return chains.make(_chains.name)


def certificate(name="address"):
    chain = all_chains()[name]
    return chain.certificates, chain.key


def ca(name="address"):
    return all_chains()[name].ca


def an_api(image=PACKED, chain="address", **settings):
    return Api(certificate(chain), image, **settings)


def fetch(folder, config, *options, timeout=120, **more):
    """`takeover -d -c config.json`, to its end."""
    work = new_work(folder)
    path = folder / f"config-{work.name}.json"
    path.write_bytes(config)
    return client.Run(["-d", "-c", path, "-w", work, "--log-level", "trace", *options], work=work, **more).wait(timeout)


def check_no_complaint(api):
    assert not api.complaints, api.complaints
    for request in api.requests:
        if request.path == "/ping":
            continue
        assert request.fields.get("authorization") in (f"Bearer {KEY}", f"Bearer {DEVICE_KEY}"), request


def version_asked_for(api):
    asked = [request.query["version"] for request in api.asked("/download$")]
    assert asked and len(set(asked)) == 1, asked
    return asked[0]


# ---------------------------------------------------------------------- which version

def test_the_version_that_is_chosen(folder):
    """The choice rules as a table: revisions, prereleases, ranges, lines of long support, what is none."""
    esr = ["5.1.20+rev1", "2023.10.4", "2023.10.11", "2024.7.1+rev2", "2024.7.1"]
    table = [
        # What there is, what is asked for, what comes (None: a refusal that names what was asked for).
        (VERSIONS, [], "5.1.20+rev3"),
        (VERSIONS, ["-v", "default"], "5.1.20+rev3"),
        (VERSIONS, ["-v", "~5.1"], "5.1.20+rev3"),
        (VERSIONS, ["-v", "~5.0"], "5.0.1"),
        (VERSIONS, ["-v", "~2.9"], "2.9.7+rev1"),
        (VERSIONS, ["-v", "^5.0.0"], "5.1.20+rev3"),
        (VERSIONS, ["-v", "^4.1.0"], "4.99.0+rev1"),
        (VERSIONS, ["-v", "^5.1.21"], None),
        (VERSIONS, ["-v", "~5.2"], None),
        (VERSIONS, ["-v", "5.1.20"], "5.1.20"),
        (VERSIONS, ["-v", "5.1.20+rev1"], "5.1.20+rev1"),
        (VERSIONS, ["-v", "5.1.9+rev12"], "5.1.9+rev12"),
        (VERSIONS, ["-v", "5.1.9"], None),
        (VERSIONS, ["-v", "5.1.20+rev4"], None),
        (VERSIONS, ["-v", "6.0.0-rc.1+rev9"], "6.0.0-rc.1+rev9"),
        (VERSIONS, ["-v", "6.0.0"], None),
        (VERSIONS, ["-v", "nonsense"], None),
        (esr, ["-v", "~2023.10"], "2023.10.11"),
        (esr, ["-v", "^2024.1.0"], "2024.7.1+rev2"),
        (esr, ["-v", "^5.0.0"], "5.1.20+rev1"),
        (["1.0.0+rev9", "1.0.0+rev10", "1.0.0+rev2"], [], "1.0.0+rev10"),
        (["9.0.0", "10.0.0", "2.0.0"], [], "10.0.0"),
        (["1.0.0-beta", "0.9.0"], [], "0.9.0"),
        (["not.a.version", "", "1.2", "1.2.3"], [], "1.2.3"),
        (["1.0.0-rc.1"], [], None),
        ([], [], None),
    ]

    def one(row):
        versions, options, expected = row
        with an_api(versions=versions) as api:
            run = fetch(folder, api.config(ca()), *options)
            if expected is None:
                # A version that is none is a wrong command line.
                run.check_failure(re.escape(options[1].strip("~^")) if options else "version|release", codes=(1, 2, 3))
                run.check_nothing_left()
                assert not api.asked("/download$"), api.requests
            else:
                run.check_downloaded(PACKED)
                assert version_asked_for(api) == expected, (row, version_asked_for(api))
                assert expected in run.said, f"the version is not said\n{run}"
            check_no_complaint(api)

    at_once(one, table, 6)


def test_a_reply_with_thousands_of_releases_takes_no_more_memory(folder):
    """With unknown fields of the same name at other depths, escapes, and in chunks."""
    with an_api() as api:
        usual = fetch(folder, api.config(ca())).check_downloaded(PACKED)
        api.releases = large(VERSIONS)
        assert len(api.releases) > 300_000, len(api.releases)
        for api.is_chunked in (False, True):
            api.requests.clear()
            run = fetch(folder, api.config(ca())).check_downloaded(PACKED)
            assert version_asked_for(api) == "5.1.20+rev3", version_asked_for(api)
            assert run.peak < usual.peak + 512, (usual.peak, run.peak)
        check_no_complaint(api)


def test_replies_that_are_none_are_refused(folder):
    replies = [b"", b"OK", b"<html></html>", b"{", b'{"d":', b'{"d":[{"raw_version":"1.0.0"}', b'{"d":{}}', b'{"d":5}',
               b'{"d":["1.0.0"]}', b'{"d":[{"raw_version":5}]}', b'{"d":[{"raw_version":null}]}', b"[]", b"null",
               b'{"d":[{"raw_version":"1.0.0\\u0000"}]}', b'{"d":[{"raw_version":"' + b"1" * 100_000 + b'"}]}',
               b'{"d":' + b"[" * 100_000, b'{"d":[{"raw_version":"\xff\xfe"}]}', b'{"e":[{"raw_version":"1.0.0"}]}',
               b'{"d":[{"raw_version":"1.0.0/../../x?y=z&w"}]}', b"\0" * 1000]

    def one(reply):
        with an_api() as api:
            api.releases = reply
            fetch(folder, api.config(ca())).check_failure().check_nothing_left()
            assert not api.asked("/download$"), (reply, api.requests)

    at_once(one, replies, 6)


# ---------------------------------------------------------------------------- the image

def test_a_flasher_is_fetched_raw(folder):
    with an_api() as api:
        for api.is_flasher in (True, False):
            fetch(folder, api.config(ca())).check_downloaded(PACKED)
        flasher, other = [request.query.get("imageType") for request in api.asked("/download$")]
        assert (flasher, other) == ("raw", None), api.asked("/download$")
        check_no_complaint(api)


def test_a_device_type_that_is_not_known_is_named(folder):
    with an_api() as api:
        run = fetch(folder, api.config(ca(), deviceType="fantasy-board"))
        run.check_failure("fantasy-board").check_nothing_left()
        assert not api.asked("/download$")


def test_servers_with_and_without_ranges_lengths_and_at_another_place(folder):
    """The image comes from wherever a redirect leads, and the key stays with the API."""
    with an_api() as api, Hostile({"": lambda exchange: exchange.file(PACKED, '"tag"')}) as store, \
            Hostile({"": lambda exchange: exchange.file(PACKED, '"tag"')}, certificate()) as secure_store:
        api.download = "whole"
        fetch(folder, api.config(ca())).check_downloaded(PACKED)
        api.is_chunked = True
        fetch(folder, api.config(ca())).check_downloaded(PACKED)
        api.is_chunked, api.download = False, secure_store.url("/image.gz?sig=sEcReT-signature")
        fetch(folder, api.config(ca())).check_downloaded(PACKED)
        assert len(secure_store.seen) >= 1
        for request in secure_store.seen:
            assert "authorization" not in request.fields and KEY.encode() not in request.head, request.head
        # From https to http: refused.
        api.download = store.url("/image.gz")
        fetch(folder, api.config(ca())).check_failure("https|redirect|secure|encrypt").check_nothing_left()
        assert not store.seen
        check_no_complaint(api)


def test_the_key_that_is_sent(folder):
    """apiKey, else deviceApiKey; a config.json that is packed."""
    with an_api() as api:
        for config in (api.config(ca()), gzip.compress(api.config(ca()))):
            fetch(folder, config).check_downloaded(PACKED)
        assert {request.fields["authorization"] for request in api.asked("/v7")} == {f"Bearer {KEY}"}
        api.requests.clear()
        fetch(folder, api.config(ca(), key="deviceApiKey")).check_downloaded(PACKED)
        assert {request.fields["authorization"] for request in api.asked("/v7")} == {f"Bearer {DEVICE_KEY}"}
        check_no_complaint(api)


def test_a_key_that_is_wrong_is_not_tried_twice(folder):
    with an_api(keys=("another",)) as api:
        run = fetch(folder, api.config(ca())).check_failure("401", "127.0.0.1").check_nothing_left()
        asked = [(request.method, request.path) for request in api.requests]
        assert len(asked) == len(set(asked)), (asked, run)


def test_open_balena_asks_for_an_image(folder):
    """No versions and no images: it says so, and asks for -i; which then works."""
    def without(exchange):
        exchange.reply("404 Not Found", b"Not Found")

    with an_api(versions=[], download="absent") as api:
        run = fetch(folder, api.config(ca())).check_failure("-i|--image").check_nothing_left()
    with Hostile({"": without}, certificate()) as bare:
        with an_api() as api:
            config = json.loads(api.config(ca()))
            config["apiEndpoint"] = bare.url("")
            run = fetch(folder, json.dumps(config).encode()).check_failure("-i|--image").check_nothing_left()
            with Hostile({"": lambda exchange: exchange.file(PACKED)}) as store:
                config_file = json.dumps(config).encode()
                fetch(folder, config_file, "-i", store.url("/own.img.gz")).check_downloaded(PACKED)
    # Versions there are, and the image is not.
    with an_api(download="absent") as api:
        fetch(folder, api.config(ca())).check_failure("404", "give it with -i FILE or URL").check_nothing_left()


def test_an_api_that_fails_at_first_and_one_that_is_slow(folder):
    with an_api() as api:
        api.failures = {"/v7/release": (503, b"busy", 1), "/v7/device_type": (502, b"busy", 1),
                        "/download$": (500, b"oh", 1)}
        fetch(folder, api.config(ca())).check_downloaded(PACKED)
        api.delays = {"/v7/release": 3, "/download$": 3}
        fetch(folder, api.config(ca())).check_downloaded(PACKED)
        check_no_complaint(api)


def test_whose_certificate_is_believed(folder):
    """balenaRootCA, --ca-cert, and nobody else's; a name that is another's."""
    within = with_names(folder, HOSTS)
    with an_api() as api:
        fetch(folder, api.config()).check_failure("not trusted", "127.0.0.1").check_nothing_left()
        fetch(folder, api.config(), "--ca-cert", ca()).check_downloaded(PACKED)
        fetch(folder, api.config(ca("unknown authority"))).check_failure("trusted|signature").check_nothing_left()
        fetch(folder, api.config(ca("unknown authority")), "--ca-cert", ca()).check_downloaded(PACKED)
        run = fetch(folder, api.config(ca(), name=NAME), within=within)
        run.check_failure("another name", NAME).check_nothing_left()
        for broken in ("", "!!!", "AAAA", base64.b64encode(b"no certificate").decode()):
            run = fetch(folder, api.config(ca(), balenaRootCA=broken))
            run.check_failure("" if broken == "" else "balenaRootCA|not trusted").check_nothing_left()
    with an_api(chain="rsa2048") as api:
        fetch(folder, api.config(ca("rsa2048"), name=NAME), within=within).check_downloaded(PACKED)


def test_an_api_that_is_not_there_is_said_with_what_was_tried(folder):
    within = with_names(folder, HOSTS, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    with an_api() as api, servers.Tinyproxy(folder, ("joe", "sEcReTpass")) as proxy:
        port = free_port()

        def one(case):
            name, words, environment = case
            run = fetch(folder, api.config(ca(), name=name, port=port), within=within, environment=environment,
                        secrets=["sEcReTpass", basic("joe", "sEcReTpass")], timeout=300)
            run.check_failure(*words).check_nothing_left()

        at_once(one, [
            (NAME, [NAME, "127.0.0.1", "refused"], {}),
            ("nowhere.test", ["nowhere.test"], {}),
            ("127.0.0.1", ["127.0.0.1", str(port), "refused"], {}),
            ("127.0.0.1", ["prox"], {"https_proxy": proxy.url(("joe", "sEcReTpass"))}),
            ("127.0.0.1", ["prox", "407|401"], {"https_proxy": proxy.url(("joe", "sEcReT-and-wrong"))}),
        ])
        # And through a proxy that is.
        run = fetch(folder, api.config(ca()), environment={"https_proxy": proxy.url(("joe", "sEcReTpass"))},
                    secrets=["sEcReTpass", basic("joe", "sEcReTpass")])
        run.check_downloaded(PACKED)
        assert f"CONNECT 127.0.0.1:{api.port} HTTP/1.1" in proxy.requests(), proxy.requests()


def test_the_config_in_the_program_itself(folder):
    """A fleet's one file: an ELF section, as objcopy fills it; -c wins."""
    with an_api() as api, an_api() as other:
        for number, config in enumerate((api.config(ca()), gzip.compress(api.config(ca())))):
            path, program = folder / "section", folder / f"takeover-{number}"
            path.write_bytes(config)
            subprocess.run(["objcopy", "--add-section", f".config_json_section={path}", client.TAKEOVER, program], check=True,
                           capture_output=True)
            for options, asked in (([], api), (["-c", folder / "other.json"], other)):
                (folder / "other.json").write_bytes(other.config(ca()))
                api.requests.clear()
                other.requests.clear()
                work = new_work(folder)
                run = client.Run(["-d", "-w", work, *options], work=work, within=("sh", "-c", f'shift; exec {program} "$@"', "sh"))
                run.wait().check_downloaded(PACKED)
                assert asked.asked("/download$") and len(api.requests) * len(other.requests) == 0


# ------------------------------------------------------------- whole takeovers, in a namespace

COMMAND = "/tk/takeover -c /tk/config.json --no-ack --in-namespace -w /tk --log-level trace"
REPORTED = {"provisioning_progress": "100", "provisioning_state": "Update successful, rebooting", "status": "configuring"}
FAILED = dict(REPORTED, provisioning_state="OS update failed")
NEW_FIELDS = ("os_version", "should_be_operated_by__release", "supervisor_version", "should_be_managed_by__release")


@contextlib.contextmanager
def sandbox(folder, api, image, config, **more):
    """A namespace that is about to be taken over."""
    files = {"/tk/takeover": client.TAKEOVER, "/tk/config.json": config, "/etc/hosts": HOSTS.encode(),
             "/etc/resolv.conf": b""}
    with Sandbox(folder, files=files, **more) as box:
        yield box
        text = box.console()
        found = [secret for secret in client.SECRETS if secret in text]
        assert not found, f"secrets on the console: {found}\n{text}"


def boot(box, options="", wait=True):
    box.start(f"{COMMAND} {options}\necho EXIT $?\nsleep 60\n")
    if wait:
        box.wait_exit()


def taken_over(folder, **settings):
    """The image, and the API that has it."""
    image = test_namespace.make_image(folder)
    return image, an_api(test_namespace.pack(image), size=image.stat().st_size, **settings)


def check_disk(box, image, config, **changed):
    """The disk is the image with this config.json in it."""
    written = json.loads(test_namespace.read_fat(box.disk, "config.json"))
    assert written == json.loads(config) | {"hostname": "sandbox"} | changed, written
    different = test_namespace.compare_disk(
        box.disk, image, exclude=[(test_namespace.BOOT_START, test_namespace.BOOT_LENGTH)])
    assert not different, different


def result_of(box, outcome):
    lines = [line for line in box.console().splitlines() if line.startswith('{"outcome"')]
    assert lines, box.console()
    return check_result_line(lines[-1], outcome)


def test_config_json_alone_is_enough(folder):
    """Version, checks, download, takeover: all by what config.json says. Nothing is reported that nobody asked for."""
    image, server = taken_over(folder)
    with server as api:
        config = api.config(ca())
        with sandbox(folder, api, image, config) as box:
            boot(box)
            check_disk(box, image, config)
            result_of(box, "done")
        assert version_asked_for(api) == "5.1.20+rev3"
        assert len(api.asked("/ping$")) == 1 and api.vpn.connections >= 1
        assert not api.asked("", "PATCH"), api.requests
        check_no_complaint(api)


def test_the_outcome_is_reported_by_stage_2(folder):
    """With a device that has its place already: as a success, and what the new supervisor must not find."""
    image, server = taken_over(folder)
    with server as api:
        config = api.config(ca(), key="deviceApiKey")
        with sandbox(folder, api, image, config) as box:
            boot(box, "--report-hup-progress")
            check_disk(box, image, config)
            result_of(box, "done")
        patches = api.patches()
        assert REPORTED in patches and FAILED not in patches, (patches, box.console())
        cleared = [patch for patch in patches if "os_version" in patch]
        assert len(cleared) == 1 and all(cleared[0][field] is None for field in NEW_FIELDS), (patches, box.console())
        assert "is_of__device_type" not in cleared[0], patches
        check_no_complaint(api)


def test_another_device_type_is_reported(folder):
    image, server = taken_over(folder)
    with server as api:
        config = api.config(ca(), key="deviceApiKey")
        with sandbox(folder, api, image, config) as box:
            api.slug = "intel-nuc"
            boot(box, "--report-hup-progress --change-dt-to intel-nuc")
            check_disk(box, image, config, deviceType="intel-nuc")
            result_of(box, "done")
        assert [patch.get("is_of__device_type") for patch in api.patches() if "os_version" in patch] == [23], api.patches()
        # Looked up before the point of no return.
        order = [(request.method, request.path) for request in api.requests]
        assert order.index(("GET", "/v7/device_type")) < order.index(("PATCH", f"/v7/device(uuid='{UUID}')")), order


def test_a_failure_is_reported(folder):
    """The worker is killed before the first write: the old OS goes on, and the API knows."""
    image, server = taken_over(folder)
    with server as api:
        with sandbox(folder, api, image, api.config(ca(), key="deviceApiKey")) as box:
            box.start("sh -c 'trap \"\" TERM; while :; do sleep 1; done' &\n"
                      f"{COMMAND} --report-hup-progress\necho EXIT $?\nsleep 60\n")
            box.wait_for("takeover is PID 1")
            time.sleep(0.3)
            box.kill_worker()
            box.wait_exit()
            assert '"outcome":"untouched"' in box.console(), box.console()
        assert FAILED in api.patches() and REPORTED not in api.patches(), (api.patches(), box.console())
        assert not [patch for patch in api.patches() if "os_version" in patch], api.patches()


def test_a_report_that_cannot_be_made_keeps_nobody_from_restarting(folder):
    """The API refuses it; the log says so, and the new OS is there."""
    image, server = taken_over(folder)
    with server as api:
        api.failures = {r"/v7/device\(": (500, b"no", 1000)}
        config = api.config(ca(), key="deviceApiKey")
        with sandbox(folder, api, image, config) as box:
            boot(box, "--report-hup-progress")
            check_disk(box, image, config)
            result_of(box, "done")
            assert re.search("(report|API|tell).*(500|fail|not)|(500|fail).*(report|API|tell)", box.console()), box.console()
        assert api.asked(r"/v7/device\(", "PATCH")


def test_the_outcome_is_reported_through_a_proxy(folder):
    """With a password, that nothing says. The way is stage 1's: stage 2 has no environment of its own."""
    image, server = taken_over(folder)
    password = ("joe", "sEcReTpass")
    with server as api, servers.Tinyproxy(folder, password) as proxy:
        config = api.config(ca(), key="deviceApiKey")
        with sandbox(folder, api, image, config) as box:
            box.start(f"https_proxy={proxy.url(password)} {COMMAND} --report-hup-progress\necho EXIT $?\nsleep 60\n")
            box.wait_for("takeover is PID 1")
            way = f"CONNECT 127.0.0.1:{api.port} HTTP/1.1"
            before = proxy.requests().count(way)
            box.wait_exit()
            check_disk(box, image, config)
            result_of(box, "done")
            assert basic(*password) not in box.console(), box.console()
        assert before > 0 and set(proxy.requests()) == {way}, proxy.requests()
        assert proxy.requests().count(way) > before, (before, proxy.requests())
        patches = api.patches()
        assert REPORTED in patches and [patch for patch in patches if "os_version" in patch], patches
        check_no_complaint(api)


def test_a_report_that_is_not_answered_is_sent_again(folder):
    image, server = taken_over(folder)
    with server as api:
        api.failures = {r"/v7/device\(": (502, b"who knows", 1)}
        config = api.config(ca(), key="deviceApiKey")
        with sandbox(folder, api, image, config) as box:
            boot(box, "--report-hup-progress")
            check_disk(box, image, config)
            assert "the outcome was reported to the API" in box.console(), box.console()
        # The first one of three was in vain, and is the same as the second one.
        patches = api.patches()
        assert len(patches) == 3 and patches[0] == patches[1] and patches[2] == REPORTED, patches


def test_a_dry_run_takes_what_a_run_takes_from_any_server(folder):
    """One table of servers: a dry run reads, as often as it takes, what a run fetches into the work directory. A run goes
    as far as the question."""
    image = test_namespace.make_image(folder)
    raw, packed = image.read_bytes(), test_namespace.pack(image)
    archive = folder / "image.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        made.write(image, "image.img")
    zipped = archive.read_bytes()

    def in_chunks(content, **fields):
        def answer(exchange):
            exchange.head(Transfer_Encoding="chunked", Connection="close", **fields)
            exchange.send(servers.chunks(content, 50_000))
        return answer

    def without_end(exchange):
        exchange.head(Transfer_Encoding="chunked", Connection="close")
        while exchange.send(b"8000\r\n" + bytes(0x8000) + b"\r\n"):
            pass

    def old(exchange):
        exchange.send("HTTP/1.0 200 OK\r\n\r\n", packed)
        exchange.end() if hasattr(exchange.connection, "unwrap") else None

    good = {
        "/all.img.gz": lambda exchange: exchange.file(packed, '"tag"'),
        "/weak.img.gz": lambda exchange: exchange.file(packed, 'W/"tag"'),
        "/untold.img.gz": lambda exchange: exchange.file(packed),
        "/no-ranges.img.gz": lambda exchange: exchange.reply("200 OK", packed, ETag='"tag"'),
        "/neither.img.gz": lambda exchange: exchange.reply("200 OK", packed),
        "/chunks.img.gz": in_chunks(packed),
        "/tagged-chunks.img.gz": in_chunks(packed, ETag='"tag"'),
        "/old.img.gz": old,
        "/chunks.img": in_chunks(raw),
        "/neither.img": lambda exchange: exchange.reply("200 OK", raw),
        "/no-ranges.zip": lambda exchange: exchange.reply("200 OK", zipped, ETag='"tag"'),
        "/neither.zip": lambda exchange: exchange.reply("200 OK", zipped),
        "/chunks.zip": in_chunks(zipped),
    }
    bad = {
        "/page.img.gz": (lambda exchange: exchange.reply("404 Not Found", b"not here"), "HTTP 404"),
        "/text.img.gz": (in_chunks(b"no image " * 1000), ""),
        "/short.img.gz": (in_chunks(packed[:-9]), ""),
        "/long.img.gz": (lambda exchange: exchange.head(Content_Length=1 << 50), "downloading to"),
        # Of a run it fills the work directory first.
        "/endless.img.gz": (without_end, "/tk/w"),
    }
    answers = good | {path: answer for path, (answer, _) in bad.items()}
    files = test_namespace.files(b"")
    with Hostile(answers) as server, Sandbox(folder, files=files, timeout=300) as box:
        command = "/tk/takeover --no-api-check --no-vpn-check -c /tk/config.json --in-namespace -w /tk/w"
        script = "mkdir /tk/w\nmount -t tmpfs -o size=40m none /tk/w\n"
        for path in answers:
            dry = f"{command} -i {server.url(path)}"
            script += (f"echo BEGIN\n{dry} --no-ack --dry-run\necho EXIT $?\nls /tk/w\necho LEFT\necho no | {dry}\n"
                       "echo EXIT $?\nrm -f /tk/w/*\n")
        box.start(f"/bin/busybox ln -s busybox /bin/rm\n{script}echo OVER\nsleep 60\n")
        box.wait_for("OVER")
        blocks = box.console().split("BEGIN\n")[1:]
    for path, block in zip(answers, blocks, strict=True):
        dry, _, run = block.partition("LEFT\n")
        codes = [int(code) for code in re.findall(r"EXIT (\d+)", block)]
        assert re.search(r"EXIT \d+\n$", dry), f"{path}: a dry run leaves something\n{block}"
        if path in good:
            assert codes == [0, 3] and "the answer was not 'yes'" in run, (path, block)
        else:
            errors = [re.search(r"error: (.*)", text)[1] for text in (dry, run)]
            assert all(codes) and all(bad[path][1] in error for error in errors), (path, block)
            assert path == "/endless.img.gz" or codes[0] == codes[1] and errors[0] == errors[1], (path, block)


def test_a_work_directory_in_memory_counts_for_a_dry_run_too(folder):
    """There is the memory for the image once, and not twice."""
    image = test_namespace.make_image(folder)
    packed = test_namespace.pack(image)
    memory = len(packed) + client.TAKEOVER.stat().st_size + 12 * MIB
    assert len(packed) > 5 * MIB, "the image must be what decides"
    files = test_namespace.files(b"") | {
        "/tk/meminfo": b"MemTotal: 1000000 kB\nMemAvailable: %d kB\n" % (memory // 1024)}
    with Hostile({"": lambda exchange: exchange.file(packed, '"tag"')}) as server, Sandbox(folder, files=files) as box:
        command = f"/tk/takeover --no-api-check --no-vpn-check -c /tk/config.json --in-namespace -i {server.url('/a.img.gz')}"
        runs = [f"{how} -w {work}" for work in ("/tk/w", "/tk/memory")
                for how in (f"{command} --no-ack --dry-run", f"echo no | {command}")]
        box.start("mkdir /tk/w /tk/memory\nmount -t tmpfs none /tk/memory\nmount --bind /tk/meminfo /proc/meminfo\n"
                  + "".join(f"echo BEGIN\n{run}\necho EXIT $?\n" for run in runs) + "echo OVER\nsleep 60\n")
        box.wait_for("OVER")
        on_disk, fetched, in_memory, not_fetched = box.console().split("BEGIN\n")[1:]
    assert "EXIT 0" in on_disk and "the answer was not 'yes'" in fetched, (on_disk, fetched)
    for text in (in_memory, not_fetched):
        assert "EXIT 3" in text and "comparing with the memory" in text, text
    errors = [re.search("error: (.*)", text)[1] for text in (in_memory, not_fetched)]
    assert errors[0] == errors[1], errors


def test_what_cannot_be_reached_is_refused_before_the_download(folder):
    image, server = taken_over(folder)
    with server as api:
        port = free_port()
        dead_vpn, dead_api = api.config(ca(), vpn_port=port), api.config(ca(), port=port)
        lost_vpn = api.config(ca(), vpn="nowhere.test")
        files = {"/tk/vpn.json": dead_vpn, "/tk/api.json": dead_api, "/tk/lost.json": lost_vpn, "/tk/bad.yml": b"- nonsense"}
        cases = [("vpn", "", 3, ["VPN", "127.0.0.1", str(port), "refused"]),
                 ("lost", "", 3, ["VPN", "nowhere.test"]),
                 ("api", "", 3, ["API|ping", "127.0.0.1", str(port), "refused"]),
                 # Before data is packed to be counted, which may take minutes.
                 ("api", "--backup-cfg /tk/bad.yml", 3, ["API|ping", "127.0.0.1", str(port), "refused"]),
                 ("vpn", "--no-vpn-check --dry-run", 0, [])]
        script = "".join(f"echo CASE {number}\n/tk/takeover -c /tk/{name}.json --no-ack --in-namespace -w /tk "
                         f"--check-timeout 5 {options}\necho EXIT {number} $?\n"
                         for number, (name, options, _, _) in enumerate(cases))
        with Sandbox(folder, files={"/tk/takeover": client.TAKEOVER, "/etc/hosts": HOSTS.encode(), "/etc/resolv.conf": b"",
                                    **files}) as box:
            box.start(script + "echo OVER\nsleep 60\n")
            box.wait_for("OVER")
            text = box.console()
        for number, (_, _, code, words) in enumerate(cases):
            said = re.search(rf"CASE {number}\n(.*?)EXIT {number} (\d+)", text, re.S)
            assert said and int(said[2]) in ((1, 3) if code else (0,)), (number, text)
            missing = [word for word in words if not re.search(word, said[1], re.I)]
            assert not missing, (missing, said[1])
            if code:
                assert "error: " in said[1], said[1]
        # The dry run alone has read of it, in two ranges.
        assert 1 <= len(api.asked("/download$")) <= 3, api.requests


def test_an_api_that_is_too_slow_for_the_check_is_refused_and_can_be_left_out(folder):
    image, server = taken_over(folder)
    with server as api:
        api.delays = {"/ping": 8}
        with sandbox(folder, api, image, api.config(ca())) as box:
            box.start(f"{COMMAND} --check-timeout 2\necho EXIT $?\n{COMMAND} --dry-run --no-api-check --check-timeout 2\n"
                      "echo EXIT $?\necho OVER\nsleep 60\n")
            box.wait_for("OVER")
            codes = re.findall(r"EXIT (\d+)", box.console())
        assert codes in (["3", "0"], ["1", "0"]), box.console()


def test_an_image_that_cannot_fit_is_refused_before_it_is_fetched(folder):
    """download-size against the disk."""
    image, server = taken_over(folder)
    with server as api:
        api.size = 10 << 30
        with sandbox(folder, api, image, api.config(ca())) as box:
            box.start(f"echo '- nonsense' >/tk/bad.yml\n{COMMAND} --backup-cfg /tk/bad.yml\necho EXIT $?\nsleep 60\n")
            code = box.wait_for(r"EXIT (\d+)")[1]
            assert code == "3", box.console()
            assert re.search(r"error: .*(disk|room|fit|large)", box.console()), box.console()
        assert not api.asked("/download$"), api.requests


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
