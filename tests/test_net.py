#!/usr/bin/env python3
"""Downloads and remote images against real servers on loopback: nginx, Caddy, Python's, tinyproxy, and one that does
everything wrong. No guests, no long waits (those are in test_net_patience.py).

CUTS is how many random cuts are made (200).
"""

import functools
import http.server
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "lib"))
import chains
import client
import leftovers
import runner
from client import AS_NOBODY, REFUSED, at_once, download, make_image, new_work, pack, scan, start, with_names
from client import with_small_disk
from servers import Caddy, Hostile, Nginx, Tinyproxy, basic, chunks, free_port, sha256

MIB = 1 << 20
CUTS = int(os.environ.get("CUTS", 200))
IMAGE = make_image(3 * MIB)
PACKED = pack(IMAGE)
OTHER = pack(make_image(3 * MIB, seed=1))
TAG, OTHER_TAG = '"tag-1"', '"tag-2"'
MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"
PAGE = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>There is no such page.</body></html>\n" * 20


def files_to_serve(folder, **more):
    """A folder with the image, for the servers that serve one."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, content in {"image.gz": PACKED, "image.img": IMAGE, **more}.items():
        (files / name).write_bytes(content)
    folder.chmod(0o755)
    return files


class PythonServer:
    """Python's own server of files: HTTP/1.0, without ranges and ETag."""

    def __init__(self, files):
        quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(files)))

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def url(self, path):
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"


# ------------------------------------------------------------------------- what goes well

def test_a_download_from_three_servers_is_the_file_and_for_nobody_else(folder):
    files = files_to_serve(folder)
    with Nginx(folder, files) as nginx, Caddy(folder, files) as caddy, PythonServer(files) as python:
        for server in (nginx, caddy, python):
            for name, content in (("image.gz", PACKED), ("image.img", IMAGE)):
                download(folder, server.url(f"/{name}")).check_downloaded(content)
        requests = nginx.requests()
        assert [request.path for request in requests] == ["/image.gz", "/image.img"], requests
        assert sum(request.sent for request in requests) == len(PACKED) + len(IMAGE), requests


def test_a_download_takes_no_root(folder):
    files = files_to_serve(folder)
    program = folder / "takeover"
    shutil.copy(client.TAKEOVER, program)
    with Nginx(folder, files) as server:
        work = new_work(folder)
        run = client.Run(["-d", "-i", server.url("/image.gz"), "-w", work], work=work, cwd="/",
                         within=(*AS_NOBODY, "env", "-", "sh", "-c", f'shift; exec {program} "$@"', "sh"))
        run.wait().check_downloaded(PACKED)
        assert next(iter(run.left().values())).stat().st_uid == 65534
        run = client.Run(["-d", "-i", server.url("/image.gz"), "-w", "/proc"], work=new_work(folder),
                         within=(*AS_NOBODY, "env", "-", "sh", "-c", f'shift; exec {program} "$@"', "sh"))
        run.wait().check_failure("/proc")


def test_the_digest_of_the_packed_image_is_checked(folder):
    files = files_to_serve(folder)
    with Nginx(folder, files) as server:
        download(folder, server.url("/image.gz"), "--sha256", sha256(PACKED)).check_downloaded(PACKED)
        run = download(folder, server.url("/image.gz"), "--sha256", sha256(OTHER))
        run.check_failure("sha-?256|digest").check_not_finished()
        assert not any(sha256(path) == sha256(PACKED) and path.name == "image.gz" for path in run.left().values())
        scan(folder, server.url("/image.gz"), "--sha256", sha256(PACKED)).check_success()
        scan(folder, server.url("/image.gz"), "--sha256", sha256(OTHER)).check_failure("sha-?256|digest")


def scanned(run):
    """What a scan found, without what is only known of a file."""
    text = run.check_success().said
    return json.loads(text[text.index("\n{") + 1 if "\n{" in text else text.index("{"):].splitlines()[0])["image"]


def test_a_scan_reads_once_by_ranges_and_stores_nothing(folder):
    # More than what the buffers of a connection take, which counts as sent.
    large = make_image(64 * MIB)
    files = files_to_serve(folder, **{"large.img": large, "large.gz": pack(large)})
    with Nginx(folder, files) as nginx, Caddy(folder, files) as caddy:
        for name in ("large.gz", "large.img", "image.gz"):
            local = client.Run(["scan", "--json", "--log-level", "error", files / name], work=new_work(folder)).wait()
            for server in (nginx, caddy):
                run = client.Run(["scan", "--json", "--log-level", "error", server.url(f"/{name}")],
                                 work=new_work(folder)).wait()
                expected, found = scanned(local), scanned(run)
                for key in ("bytes", "chunks", "zero_chunks"):
                    assert expected.get(key) == found.get(key), (expected, found)
                run.check_nothing_left()
            # In one pass: but for a look at its beginning and its end, each byte comes once.
            requests = nginx.wait_for_requests(1)
            sent, length = sum(request.sent for request in requests), (files / name).stat().st_size
            assert len(requests) <= 6 and (length < 60 * MIB or sent < 1.6 * length), requests
            assert all(request.status in (200, 206) for request in requests), requests
            nginx.forget()


def test_a_zip_on_a_server_is_scanned(folder):
    import zipfile
    files = files_to_serve(folder)
    with zipfile.ZipFile(files / "image.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("disk.img", IMAGE)
    with Nginx(folder, files) as server:
        run = client.Run(["scan", "--json", "--log-level", "error", server.url("/image.zip")], work=new_work(folder))
        assert scanned(run.wait())["bytes"] == len(IMAGE)
        download(folder, server.url("/image.zip")).check_downloaded((files / "image.zip").read_bytes())


def test_memory_does_not_grow_with_the_image(folder):
    files = files_to_serve(folder)
    large = files / "large.img"
    large.write_bytes(IMAGE)
    os.truncate(large, 400 * MIB)
    with Nginx(folder, files) as server:
        small = scan(folder, server.url("/image.img")).check_success()
        run = scan(folder, server.url("/large.img")).check_success()
        # One that ends soon may have ended before it was measured.
        assert run.peak < max(small.peak, 4096) + 1024, (small.peak, run.peak)


def test_a_server_without_ranges_is_refused_for_a_scan_and_not_for_a_download(folder):
    files = files_to_serve(folder)
    with Nginx(folder, files) as nginx, PythonServer(files) as python:
        for url in (nginx.url("/no-ranges/image.gz"), python.url("/image.gz")):
            run = scan(folder, url).check_failure("range")
            assert re.search("download|-d|file", run.error), f"it does not say what to do\n{run}"
            download(folder, url).check_downloaded(PACKED)


def test_an_address_of_version_6_and_one_that_does_not_answer(folder):
    """Every address of a name is tried, IPv6 first, and falls back."""
    files = files_to_serve(folder)
    with Nginx(folder, files, host="::1") as six, Nginx(folder, files) as four:
        for url in (six.url("/image.gz"), six.url("/image.gz", host="localhost"), four.url("/image.gz", host="localhost")):
            download(folder, url).check_downloaded(PACKED)
        # Nobody is there, or nobody may go there: documentation addresses, and one of this machine.
        names = with_names(folder, f"2001:db8::1 both.test\n192.0.2.1 both.test\n::1 both.test\n127.0.0.1 both.test\n")
        download(folder, four.url("/image.gz", host="both.test"), within=names).check_downloaded(PACKED)


def test_names_that_lead_nowhere_and_ports_that_nobody_serves_are_named(folder):
    names = with_names(folder, "127.0.0.1 here.test\n::1 here.test\n", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    port = free_port()

    def one(case):
        host, words = case
        run = download(folder, f"http://{host}:{port}/image.gz", within=names, timeout=300)
        run.check_failure(*words).check_nothing_left()

    at_once(one, [("nowhere.test", ["nowhere.test"]), ("here.test", ["here.test", "127.0.0.1", "::1", "refused"]),
                  ("127.0.0.1", ["127.0.0.1", str(port), "refused"])])


def test_urls_that_are_none_are_refused_before_anything_is_asked(folder):
    for url in ("http://", "http:///image", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "https://[::1/",
                "http://a b/", "http://a\n/", "http://" + "a" * 300 + "/"):
        run = download(folder, url)
        assert run.code in (1, 2, 3) and run.error, str(run)
        run.check_nothing_left()


def test_the_query_of_a_url_is_secret(folder):
    secrets = ["sIgNaTuRe"]
    with Hostile({"/image.gz": lambda exchange: exchange.file(PACKED), "/gone": lambda exchange: exchange.reply("410 Gone"),
                  "/to": lambda exchange: exchange.redirect("/image.gz?sig=sIgNaTuRe-2&x=1")}) as server:
        for path in ("/image.gz?sig=sIgNaTuRe-1", "/to?sig=sIgNaTuRe-3"):
            run = download(folder, server.url(path), secrets=secrets).check_downloaded(PACKED)
            assert "sIgN" not in "".join(run.left()), run.left()
        download(folder, server.url("/gone?sig=sIgNaTuRe-4"), secrets=secrets).check_failure("410")
        assert sum("sig=sIgNaTuRe-" in path for path in server.paths()) == 4, server.paths()


def test_names_of_files_stay_in_the_work_directory(folder):
    (folder / "outside").mkdir()
    with Hostile({"": lambda exchange: exchange.file(
            PACKED, Content_Disposition='attachment; filename="../outside/x"')}) as server:
        for path in ("/", "/..%2f..%2foutside%2fx", "/%2e%2e/x", "/a/..", "/a/.", "/x%00y", "/x%0ay", "/" + "n" * 300,
                     "/..%5cx", "/-rf", "/image.gz/", "/%F0%9F%92%BE.gz"):
            run = download(folder, server.url(path)).check_downloaded(PACKED)
            name = next(iter(run.left()))
            assert len(name) <= 255 and "\n" not in name, run.left()
        assert not list((folder / "outside").iterdir())
        assert {path.name.split("-")[0] for path in folder.iterdir()} <= {"outside", "work"}, list(folder.iterdir())


def test_links_in_the_work_directory_are_not_followed(folder):
    """Whoever guesses the names of what will be there gets nothing written elsewhere."""
    files = files_to_serve(folder)
    with Nginx(folder, files) as nginx, Hostile({"/image.gz": stand_still_after(1000, tag=TAG)}) as hostile:
        names = set(download(folder, nginx.url("/image.gz")).check_downloaded(PACKED).left())
        run = start(folder, hostile.url("/image.gz"))
        wait_until(lambda: len(run.left()) >= 1)
        time.sleep(0.2)
        run.kill()
        names |= set(run.left())
        victim = folder / "victim"
        for name in names:
            victim.write_bytes(b"precious")
            work = new_work(folder)
            (work / name).symlink_to(victim)
            done = download(folder, nginx.url("/image.gz"), work=work)
            assert victim.read_bytes() == b"precious", f"it wrote through {name}\n{done}"
            assert done.code in (0, 1, 3), str(done)


# ------------------------------------------------------------------- what is said by a status

def test_a_page_instead_of_the_image_is_refused_and_not_saved(folder):
    """A 404 with a page, and every other 4xx: asked once."""
    statuses = ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "405 Method Not Allowed",
                "410 Gone", "451 Unavailable For Legal Reasons", "402 Payment Required", "499 Odd"]
    answers = {f"/{status[:3]}/image.gz": functools.partial(lambda exchange, status: exchange.reply(
        status, PAGE, Content_Type="text/html"), status=status) for status in statuses}
    with Hostile(answers) as server:
        for path in answers:
            for act in (download, scan):
                before = len(server.seen)
                run = act(folder, server.url(path)).check_failure(path[1:4], re.escape(f":{server.port}{path}"))
                run.check_nothing_left()
                assert len(server.seen) - before <= (1 if act is download else 2), server.paths()
    files = files_to_serve(folder)
    with Nginx(folder, files) as nginx, Caddy(folder, files) as caddy:
        for server in (nginx, caddy):
            download(folder, server.url("/nowhere/image.gz")).check_failure("404", "nowhere/image.gz").check_nothing_left()


def test_a_page_that_is_called_ok_is_no_image(folder):
    """What a captive portal gives: 200, and a page."""
    with Hostile({"": lambda exchange: exchange.reply("200 OK", PAGE, Content_Type="text/html")}) as server:
        download(folder, server.url("/image.gz")).check_failure(codes=REFUSED).check_not_finished()
        scan(folder, server.url("/image.gz")).check_failure()


def test_an_empty_file_is_no_image(folder):
    with Hostile({"": lambda exchange: exchange.reply("200 OK", b"")}) as server:
        download(folder, server.url("/image.gz")).check_failure().check_not_finished()
    with Hostile({"": lambda exchange: exchange.reply("204 No Content", b"")}) as server:
        download(folder, server.url("/image.gz")).check_failure().check_not_finished()


def test_a_server_that_fails_at_first_is_asked_again(folder):
    """408, 429, 500, 502, 503, 504 and broken connections; Retry-After is honoured."""
    def failing(exchange):
        status = exchange.request.path.split("/")[1]
        if exchange.number > 1:
            return exchange.file(PACKED, TAG)
        if status == "cut":
            return exchange.cut()
        if status == "close":
            return None
        if status == "half":
            exchange.send("HTTP/1.1 200 OK\r\nContent-Le")
            return exchange.cut()
        if status == "429":
            return exchange.reply("429 Too Many Requests", PAGE, Retry_After="3")
        if status == "503":
            later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3))
            return exchange.reply("503 Service Unavailable", PAGE, Retry_After=later)
        return exchange.reply(f"{status} Oh", PAGE)

    cases = ["408", "429", "500", "502", "503", "504", "cut", "close", "half"]
    with Hostile({"": failing}) as server:
        at_once(lambda case: download(folder, server.url(f"/{case}/image.gz")).check_downloaded(PACKED), cases)
        for case in cases:
            times = [request.time for request in server.seen if request.path.startswith(f"/{case}/")]
            assert len(times) == 2, (case, times)
            if case == "429":
                assert times[1] - times[0] > 2.5, "Retry-After was not honoured"


# ------------------------------------------------------------------------ redirects

def test_redirects_are_followed(folder):
    with Hostile({"/image.gz": lambda exchange: exchange.file(PACKED, TAG)}) as other:
        answers = {"/image.gz": lambda exchange: exchange.file(PACKED, TAG)}
        for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"):
            for kind, to in (("absolute", other.url("/image.gz")), ("path", "/image.gz"), ("relative", "../image.gz"),
                             ("scheme", other.url("/image.gz")[5:]), ("name", other.url("/image.gz", host="localhost"))):
                answers[f"/{status[:3]}/{kind}"] = functools.partial(
                    lambda exchange, to, status: exchange.redirect(to, status), to=to, status=status)
        answers["/several"] = lambda exchange: exchange.redirect("/301/relative")
        with Hostile(answers) as server:
            at_once(lambda path: download(folder, server.url(path)).check_downloaded(PACKED),
                    [path for path in answers if path != "/image.gz"])
            scan(folder, server.url("/302/absolute")).check_success()


def test_redirects_in_a_circle_and_to_nowhere_end(folder):
    answers = {
        "/itself": lambda exchange: exchange.redirect("/itself"),
        "/a": lambda exchange: exchange.redirect("/b"), "/b": lambda exchange: exchange.redirect("/a"),
        "/further": lambda exchange: exchange.redirect(
            f"/further?{int(exchange.request.path.partition('?')[2] or 0) + 1}"),
        "/file": lambda exchange: exchange.redirect("file:///etc/passwd"),
        "/ftp": lambda exchange: exchange.redirect("ftp://127.0.0.1/image.gz"),
        "/without": lambda exchange: exchange.reply("302 Found"),
        "/empty": lambda exchange: exchange.reply("302 Found", Location=""),
        "/bad": lambda exchange: exchange.redirect("http://[::1/"),
        "/long": lambda exchange: exchange.redirect("http://127.0.0.1/" + "x" * 9000),
        "/unchanged": lambda exchange: exchange.reply("304 Not Modified"),
        "/choice": lambda exchange: exchange.reply("300 Multiple Choices", b"choose"),
    }
    with Hostile(answers) as server:
        def one(path):
            run = download(folder, server.url(path)).check_failure().check_nothing_left()
            if path in ("/itself", "/a", "/further"):
                run.check_failure("redirect")
            elif path in ("/file", "/ftp"):
                run.check_failure("http|scheme|redirect")

        at_once(one, [path for path in answers if path != "/b"])
        assert len(server.seen) < 150, len(server.seen)


# ---------------------------------------------------------------------- bodies, and heads

def raw(*pieces, close=True):
    """An answer of these bytes."""
    return lambda exchange: exchange.send(*pieces)


def test_chunks_in_every_spelling(folder):
    head = "HTTP/1.1 200 OK\r\n{}\r\n\r\n"
    plain = head.format("Transfer-Encoding: chunked")
    spellings = {
        "plain": (plain, chunks(PACKED, 5000)),
        "one": (plain, chunks(PACKED, 1 << 30)),
        "tiny": (plain, chunks(PACKED[:-70000], 65536)[:-5] + chunks(PACKED[-70000:], 7)),
        "capitals": (head.format("TRANSFER-ENCODING: Chunked"), chunks(PACKED, 50000, "{:X}\r\n")),
        "zeros": (plain, chunks(PACKED, 50000, "000{:x}\r\n", "00000\r\n\r\n")),
        "extensions": (plain, chunks(PACKED, 50000, '{:x};name=value;q="a;b \\" c"\r\n', "0;last\r\n\r\n")),
        "blanks": (plain, chunks(PACKED, 50000, "{:x} \t;\tname = value\r\n")),
        "trailers": (plain, chunks(PACKED, 50000, end="0\r\nX-Digest: abc\r\nContent-Length: 5\r\nY:\r\n\r\n")),
        "no blank": (head.format("transfer-encoding:chunked"), chunks(PACKED, 50000)),
        "blanks around": (head.format("Transfer-Encoding: \t chunked \t "), chunks(PACKED, 50000)),
        "continue": ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + plain,
                     chunks(PACKED, 50000)),
        "no reason": (plain.replace("200 OK", "200 "), chunks(PACKED, 50000)),
        "no reason, no blank": (plain.replace("200 OK", "200"), chunks(PACKED, 50000)),
    }
    answers = {f"/{urllib.parse.quote(name)}": raw(*pieces) for name, pieces in spellings.items()}
    with Hostile(answers) as server:
        at_once(lambda path: download(folder, server.url(path)).check_downloaded(PACKED), answers)


def test_chunks_that_are_none_are_no_file(folder):
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    broken = {
        "/word": "hello\r\n", "/negative": "-5\r\n", "/plus": "+5\r\nabcde\r\n", "/hex": "0x5\r\nabcde\r\n",
        "/large": "fffffffffffffffff\r\n", "/larger": "1" + "0" * 200 + "\r\n", "/nothing": "\r\n",
        "/behind": "5\r\nabcdeXX5\r\n", "/line": "5;" + "x" * 200_000 + "\r\nabcde\r\n",
        "/trailers": "5\r\nabcde\r\n0\r\n" + "X: y\r\n" * 200_000,
    }
    with Hostile({path: raw(head, body) for path, body in broken.items()}) as server:
        def one(path):
            run = start(folder, server.url(path))
            # Some take it for a connection that broke, and ask again: that is for another test to wait for.
            wait_until(lambda: run.is_over or server.paths().count(path) > 1)
            if not run.is_over:
                run.kill()
            else:
                run.wait()
            assert all(not path.read_bytes() or path.suffix != ".gz" for path in run.left().values()), run.left()
            assert run.process.returncode != 0, run.command

        at_once(one, broken)


def test_heads_that_are_none_are_refused(folder):
    heads = {
        "garbage": "\x00\x01\x02garbage\r\n\r\n", "old": "<html>HTTP/0.9 has no head</html>", "text": "hello\r\n\r\n",
        "version": "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nabcde", "number": "HTTP/1.1 abc OK\r\n\r\n",
        "short": "HTTP/1.1 20\r\n\r\n", "far": "HTTP/1.1 999999 OK\r\n\r\n",
        "nul": "HTTP/1.1 200 OK\r\nX-\0: y\r\nContent-Length: 5\r\n\r\nabcde",
        "nul value": "HTTP/1.1 200 OK\r\nETag: \"a\0b\"\r\nContent-Length: 5\r\n\r\nabcde",
        "no colon": "HTTP/1.1 200 OK\r\nwhat is this\r\nContent-Length: 5\r\n\r\nabcde",
        "negative": "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcde",
        "two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "large": "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabcdef",
        "word": "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nabcdef",
        "encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "switch": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        "hints": "HTTP/1.1 103 Early Hints\r\n\r\n" * 5000,
        "range": "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-4/3\r\nContent-Length: 5\r\n\r\nabcde",
    }
    answers = {f"/{urllib.parse.quote(name)}": raw(text) for name, text in heads.items()}
    with Hostile(answers) as server:
        def one(path):
            run = start(folder, server.url(path))
            wait_until(lambda: run.is_over or server.paths().count(path) > 1)
            if not run.is_over:
                run.kill()
                assert not [name for name, file in run.left().items() if file.stat().st_size > 4096], run.left()
                return
            run.wait().check_failure().check_not_finished()

        at_once(one, answers)


def test_ten_megabytes_of_head_are_not_kept(folder):
    def endless_line(exchange):
        exchange.send("HTTP/1.1 200 OK\r\nX-Long: ")
        return all(exchange.send("x" * MIB) for _ in range(10)) and exchange.send("\r\n\r\n", PACKED)

    def many_lines(exchange):
        exchange.send("HTTP/1.1 200 OK\r\n")
        return all(exchange.send("X-Field: value\r\n" * 65536) for _ in range(10)) and exchange.send("\r\n", PACKED)

    def in_a_status(exchange):
        return exchange.send("HTTP/1.1 200 ", "x" * 10 * MIB, "\r\n\r\n", PACKED)

    with Hostile({"/line": endless_line, "/lines": many_lines, "/status": in_a_status,
                  "/image.gz": lambda exchange: exchange.file(PACKED)}) as server:
        usual = download(folder, server.url("/image.gz")).check_downloaded(PACKED).peak
        for path in ("/line", "/lines", "/status"):
            run = download(folder, server.url(path)).check_failure("head|field|line|long|large|bytes")
            run.check_nothing_left()
            assert run.peak < usual + 1024, (path, usual, run.peak)


def test_a_wrong_length_is_found_out(folder):
    """Shorter than the file: what comes is cut short. Both lengths: RFC 9112, 6.3: chunks win, or it is refused."""
    with Hostile({
            "/short": lambda exchange: exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", PACKED),
            "/close": lambda exchange: exchange.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", PACKED[:-10]),
            "/whole": lambda exchange: exchange.send("HTTP/1.0 200 OK\r\n\r\n", PACKED),
            "/both": lambda exchange: exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked"
                                                    "\r\n\r\n", chunks(PACKED))}) as server:
        download(folder, server.url("/short")).check_failure("cut short|ends|short|length").check_not_finished(PACKED)
        download(folder, server.url("/close")).check_failure("cut short|ends|short|length").check_not_finished(PACKED)
        download(folder, server.url("/whole")).check_downloaded(PACKED)
        run = download(folder, server.url("/both"))
        if run.code == 0:
            run.check_downloaded(PACKED)
        else:
            run.check_failure().check_not_finished(PACKED)


def test_what_the_server_packs_itself_is_not_taken_for_the_file(folder):
    """A client that did not ask for Content-Encoding says so, or takes it for what it is: what it keeps unpacks to the
    image."""
    with Hostile({"/image.img": lambda exchange: exchange.reply("200 OK", pack(IMAGE), Content_Encoding="gzip"),
                  "/identity": lambda exchange: exchange.reply("200 OK", IMAGE, Content_Encoding="identity")}) as server:
        run = download(folder, server.url("/image.img"))
        if run.code:
            run.check_failure("encoding|gzip").check_not_finished()
        else:
            run.check_downloaded(pack(IMAGE))
        assert all("gzip" not in request.fields.get("accept-encoding", "") for request in server.seen), server.seen
        download(folder, server.url("/identity")).check_downloaded(IMAGE)


def test_a_body_without_end_ends_where_the_disk_does(folder):
    """The image with zeros behind it, which a file may have, for ever."""
    zeros = bytes(MIB)

    def endless(exchange):
        exchange.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", PACKED)
        while exchange.send(zeros):
            pass

    def endless_chunks(exchange):
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", f"{len(PACKED):x}\r\n", PACKED, "\r\n")
        while exchange.send("100000\r\n", zeros, "\r\n"):
            pass

    with Hostile({"/body.gz": endless, "/chunks.gz": endless_chunks}) as server:
        for path in ("/body.gz", "/chunks.gz"):
            work = new_work(folder)
            run = download(folder, server.url(path), work=work, within=with_small_disk(work, "16m"), timeout=300)
            run.check_failure("space|full|room|large|end")
            assert server.paths().count(path) <= 1, server.paths()


def test_the_room_is_asked_for_first(folder):
    with Hostile({"": lambda exchange: exchange.file(PACKED, TAG)}) as server:
        work = new_work(folder)
        run = download(folder, server.url("/image.gz"), work=work, within=with_small_disk(work, "1m"))
        run.check_failure("space|room|free|full", "MiB|bytes|MB")
        listing = run.said.rpartition("total ")[2]
        assert "image.gz" not in listing or "part" in listing, str(run)


# ----------------------------------------------------------------------------- cut and resumed

def wait_until(is_so, seconds=60):
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.005)
    return is_so()


def stand_still_after(cut, content=PACKED, arrived=None, **validators):
    """An answer that stops after so many bytes the first time; then it gives what is asked for."""
    def answer(exchange):
        if exchange.number > 1:
            return exchange.file(content, **validators)

        def stop(exchange):
            if arrived:
                arrived.set()
            exchange.wait_for_client()

        return exchange.file(content, cut=cut, then=stop, **validators)
    return answer


def partial(run):
    """How many bytes of the file are left of a run that was killed."""
    return max((path.stat().st_size for path in run.left().values()), default=0)


def test_a_cut_at_any_byte_and_the_same_run_goes_on(folder):
    """Resets and plain ends in turn, in bodies with a length and in chunks."""
    chance = random.Random(9)
    cuts = [0, 1, len(PACKED) - 1, *(chance.randrange(1, len(PACKED)) for _ in range(CUTS - 3))]

    def answer(exchange):
        number = int(exchange.request.path[1:])
        if exchange.number > 1:
            return exchange.file(PACKED, TAG, MODIFIED)
        if number % 3 == 1:
            exchange.head(Content_Length=len(PACKED), ETag=TAG, Accept_Ranges="bytes")
            return exchange.send(PACKED[:cuts[number]])
        if number % 3 == 2:
            exchange.head(Transfer_Encoding="chunked", ETag=TAG, Accept_Ranges="bytes")
            exchange.send(chunks(PACKED[:cuts[number]], 3000, end=""))
            return exchange.send("fff\r\nabc") if number % 2 and False else None
        return exchange.file(PACKED, TAG, MODIFIED, cut=cuts[number])

    with Hostile({"": answer}) as server:
        def one(number):
            run = download(folder, server.url(f"/{number}")).check_downloaded(PACKED)
            shutil.rmtree(run.work)

        at_once(one, range(len(cuts)), 24)
        starts = {}
        for request in list(server.seen):
            starts.setdefault(int(request.path[1:]), []).append(request)
        for number, requests in starts.items():
            assert len(requests) == 2, (number, cuts[number], [request.head for request in requests])
            again = requests[1]
            # Not a byte is asked for twice, but for those that a reset has thrown away.
            assert (again.start or 0) <= cuts[number], (cuts[number], again.head)
            if again.start:
                assert again.fields.get("if-range") == TAG, again.head
            if number % 3 == 1 and cuts[number]:
                assert again.start == cuts[number], (cuts[number], again.head)


def test_a_cut_where_there_are_no_ranges_begins_again(folder):
    with Hostile({"": lambda exchange: exchange.file(PACKED, TAG, cut=MIB) if exchange.number == 1 else exchange.reply(
            "200 OK", PACKED, ETag=TAG)}) as server:
        run = download(folder, server.url("/image.gz"))
        if run.code:
            run.check_failure().check_not_finished()
            run = download(folder, server.url("/image.gz"), work=run.work)
        run.check_downloaded(PACKED)


def test_a_kill_at_any_byte_and_the_next_run_goes_on(folder):
    chance = random.Random(10)
    cuts = [0, 1, len(PACKED) - 1, *(chance.randrange(1, len(PACKED)) for _ in range(CUTS - 3))]
    arrived = [threading.Event() for _ in cuts]
    delays = [chance.random() * 0.03 for _ in cuts]
    answers = {f"/{number}/image.gz": stand_still_after(cut, arrived=arrived[number], tag=TAG, modified=MODIFIED)
               for number, cut in enumerate(cuts)}
    found = {}
    with Hostile(answers) as server:
        def one(number):
            url = server.url(f"/{number}/image.gz")
            run = start(folder, url)
            assert arrived[number].wait(60), "the server was not asked"
            time.sleep(delays[number])
            run.kill()
            found[number] = partial(run)
            client.check_private(run.left())
            download(folder, url, work=run.work).check_downloaded(PACKED)
            shutil.rmtree(run.work)

        at_once(one, range(len(cuts)), 6)
        resumed = 0
        for number, cut in enumerate(cuts):
            requests = [request for request in server.seen if request.path == f"/{number}/image.gz"]
            assert len(requests) == 2, [request.head for request in requests]
            start_again = requests[1].start or 0
            assert start_again <= cut, (cut, requests[1].head)
            if start_again:
                assert requests[1].fields.get("if-range") in (TAG, MODIFIED), requests[1].head
                resumed += 1
        large = sum(cut > MIB for cut in cuts)
        assert resumed >= large * 3 // 4, f"{resumed} of {len(cuts)} went on; left were {found}"


def test_nginx_is_asked_for_the_rest_only(folder):
    """Killed in the middle of a real download, by every validator that nginx can give."""
    files = files_to_serve(folder)
    with Nginx(folder, files) as server:
        for place in ("slow", "no-tag"):
            server.forget()
            url = server.url(f"/{place}/image.gz")
            if place == "no-tag":
                # That one is not slow by itself.
                url = server.url("/slow/image.gz")
            run = start(folder, url)
            assert wait_until(lambda: partial(run) > 150_000), "it does not begin"
            run.send(signal.SIGTERM)
            run.wait()
            assert run.code != 0, str(run)
            size = partial(run)
            server.wait_for_requests(1)
            run = download(folder, url, work=run.work).check_downloaded(PACKED)
            first, second = server.wait_for_requests(2)
            start_again = int(re.fullmatch(r"bytes=(\d+)-", second.range)[1])
            assert 0 < start_again <= size and second.status == 206 and second.if_range, (size, second)
            assert second.sent == len(PACKED) - start_again, (second, start_again)


def test_a_file_that_changes_between_two_runs_is_fetched_anew(folder):
    files = files_to_serve(folder)
    with Nginx(folder, files) as server:
        url = server.url("/slow/image.gz")
        run = start(folder, url)
        assert wait_until(lambda: partial(run) > 100_000)
        run.kill()
        (files / "new").write_bytes(OTHER[:-5000] + bytes(5000) if False else OTHER)
        os.utime(files / "new", (1_600_000_000, 1_600_000_000))
        os.replace(files / "new", files / "image.gz")
        server.wait_for_requests(1)
        download(folder, url, work=run.work).check_downloaded(OTHER)
        assert server.requests()[-1].status == 200, server.requests()


def test_what_a_server_says_to_a_range(folder):
    """A 200 begins anew; so does a 416; a 206 that is for other bytes is not taken."""
    half = len(PACKED) // 2

    def then(status):
        def answer(exchange):
            if exchange.number == 1:
                return stand_still_after(half, arrived=events[exchange.request.path], tag=TAG)(exchange)
            if status == "200":
                return exchange.reply("200 OK", PACKED, ETag=TAG)
            if exchange.request.start is None or exchange.number > 3:
                return exchange.file(PACKED, TAG)
            if status == "416":
                return exchange.reply("416 Range Not Satisfiable", Content_Range="bytes */100")
            if status == "416 bare":
                return exchange.reply("416 Range Not Satisfiable")
            first = {"206 other": 7, "206 none": None, "206 later": exchange.request.start + 1,
                     "206 whole": exchange.request.start}[status]
            field = {} if first is None else {"Content_Range": f"bytes {first}-{len(PACKED) - 1}/{len(PACKED)}"}
            if status == "206 whole":
                field = {"Content_Range": f"bytes {first}-{len(PACKED)}/{len(PACKED) + 1}"}
            return exchange.reply("206 Partial Content", PACKED[first or 0:], ETag=TAG, **field)
        return answer

    cases = ["200", "416", "416 bare", "206 other", "206 none", "206 later", "206 whole"]
    paths = {f"/{case.replace(' ', '-')}/image.gz": case for case in cases}
    events = {path: threading.Event() for path in paths}
    with Hostile({path: then(case) for path, case in paths.items()}) as server:
        def one(path):
            run = start(folder, server.url(path))
            assert events[path].wait(60)
            wait_until(lambda: partial(run) > 1000, 5)
            run.kill()
            run = download(folder, server.url(path), work=run.work)
            if paths[path].startswith("206") and run.code != 0:
                run.check_failure().check_not_finished()
            else:
                run.check_downloaded(PACKED)

        at_once(one, paths)


def test_a_weak_tag_is_no_validator(folder):
    """RFC 9110, 13.1.5: If-Range takes no weak one. Without any, what is there is thrown away."""
    changed = []

    def answer(exchange):
        if exchange.number == 1:
            return stand_still_after(len(PACKED) // 2, arrived=arrived, tag="W/" + TAG)(exchange)
        return exchange.file(OTHER, "W/" + TAG)

    def answer_bare(exchange):
        if exchange.number == 1:
            return stand_still_after(len(PACKED) // 2, arrived=arrived)(exchange)
        # A server that knows no If-Range.
        return exchange.file(OTHER)

    for path, function in (("/weak/image.gz", answer), ("/bare/image.gz", answer_bare)):
        arrived = threading.Event()
        with Hostile({path: function}) as server:
            run = start(folder, server.url(path))
            assert arrived.wait(60)
            wait_until(lambda: partial(run) > 1000, 5)
            run.kill()
            download(folder, server.url(path), work=run.work).check_downloaded(OTHER)
            again = server.seen[1]
            assert again.start in (None, 0) and not again.fields.get("if-range", "").startswith("W/"), again.head


def test_a_file_that_changes_while_it_comes_is_fetched_anew_or_refused(folder):
    """A download begins again, or says that it is another file: then the next run begins again. A scan, which has seen half
    of the old one, does not go on with the new one."""
    def answer(exchange):
        if exchange.number == 1:
            return exchange.file(PACKED, TAG, cut=len(PACKED) // 2)
        return exchange.file(OTHER, OTHER_TAG)

    with Hostile({"": answer}) as server:
        run = download(folder, server.url("/image.gz"))
        if run.code:
            run.check_failure("changed|another|not the same|different").check_not_finished()
            run = download(folder, server.url("/image.gz"), work=run.work)
        run.check_downloaded(OTHER)
    with Hostile({"": answer}) as server:
        scan(folder, server.url("/scan/image.gz")).check_failure("changed|another|not the same|different")


def test_a_file_that_changes_between_the_two_passes_is_never_flashed_in_silence(folder):
    """Scanned as one file, asked for as another: a failure with words, the disk named as incomplete if it was begun."""
    state = {"content": PACKED, "tag": TAG}

    def answer(exchange):
        exchange.file(state["content"], state["tag"])
        seen = sum(len(state["content"]) - (request.start or 0) for request in server.seen)
        if exchange.request.path == "/image.gz" and seen >= len(PACKED):
            state.update(content=OTHER, tag=OTHER_TAG)

    with Hostile({"": answer}) as server, LoopDisk(folder, 8 * MIB) as disk:
        run = client.Run(["flash", "-i", server.url("/image.gz"), "-f", disk, "--no-ack"],
                         work=new_work(folder)).wait(300)
        run.check_failure("changed|another|not the same|different", codes=(1, 3, 4))


class LoopDisk:
    """A disk of our own to flash."""

    def __init__(self, folder, size):
        self.path = folder / "disk.img"
        self.path.write_bytes(b"")
        os.truncate(self.path, size)

    def __enter__(self):
        self.device = subprocess.run(["losetup", "--show", "--find", "--direct-io=on", self.path], check=True,
                                     capture_output=True, text=True).stdout.strip()
        return self.device

    def __exit__(self, *_):
        subprocess.run(["partx", "--delete", self.device], capture_output=True)
        leftovers.let_go(self.device)


def test_a_disk_is_flashed_from_a_server_without_storing_the_image(folder):
    """Two passes by ranges, with a cut in each."""
    cuts = {1: len(PACKED) // 3, 3: len(PACKED) // 4}
    with Hostile({"/cut/image.gz": lambda exchange: exchange.file(
            PACKED, TAG, cut=cuts.get(exchange.number))}) as hostile, \
            Nginx(folder, files_to_serve(folder)) as nginx, LoopDisk(folder, 8 * MIB) as disk:
        for url in (nginx.url("/image.gz"), nginx.url("/image.img"), nginx.url("/no-tag/image.gz"),
                    hostile.url("/cut/image.gz")):
            subprocess.run(["dd", "if=/dev/zero", f"of={disk}", "bs=1M", "status=none"], capture_output=True)
            run = client.Run(["flash", "-i", url, "-f", disk, "--no-ack", "--log-level", "trace"],
                             work=new_work(folder)).wait(300)
            run.check_success().check_nothing_left()
            assert (folder / "disk.img").read_bytes()[:len(IMAGE)] == IMAGE, f"another content\n{run}"
        run = client.Run(["flash", "-i", nginx.url("/no-ranges/image.gz"), "-f", disk, "--no-ack"],
                         work=new_work(folder)).wait().check_failure("range", codes=REFUSED)
        # Without ETag, Last-Modified and anything else nobody can tell whether it is the same file.
        run = client.Run(["flash", "-i", nginx.url("/untold/image.gz"), "-f", disk, "--no-ack"],
                         work=new_work(folder)).wait()
        assert run.code in (1, 3), f"a file without any validator was taken\n{run}"


def test_what_is_slow_comes_all_the_same_and_the_progress_is_said(folder):
    def drip(exchange):
        exchange.head(Content_Length=len(PACKED), ETag=TAG)
        for start in range(0, len(PACKED), len(PACKED) // 15):
            exchange.send(PACKED[start:start + len(PACKED) // 15])
            time.sleep(0.2)

    def in_bytes(exchange):
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PACKED)}\r\n\r\n"
        for byte in head:
            exchange.send(byte)
            time.sleep(0.01)
        exchange.send(PACKED)

    with Hostile({"/drip": drip, "/bytes": in_bytes}) as server:
        runs = at_once(lambda path: download(folder, server.url(path)).check_downloaded(PACKED), ["/drip", "/bytes"])
        assert re.search(r"\d+ ?%.*(/s|left)", runs[0].said), f"no progress with rate and time left\n{runs[0]}"


# ------------------------------------------------------------------------------- proxies

CREDENTIALS = ("joe.user", "p4ss:sEcReT%w0rd")
WRONG = ("joe.user", "sEcReT-and-wrong")


def quoted(credentials):
    return tuple(urllib.parse.quote(part, safe="") for part in credentials)


def test_proxies(folder):
    files = files_to_serve(folder)
    secrets = [basic("joe", "sEcReTpass"), basic(*WRONG)]
    with Nginx(folder, files) as nginx, Tinyproxy(folder) as free, Tinyproxy(folder, ("joe", "sEcReTpass")) as locked:
        url = nginx.url("/image.gz")

        def one(environment):
            return download(folder, url, environment=environment, secrets=secrets)

        one({"http_proxy": free.url()}).check_downloaded(PACKED)
        assert len(free.requests()) == 1, free.requests()
        one({"http_proxy": locked.url(("joe", "sEcReTpass"))}).check_downloaded(PACKED)
        one({"http_proxy": locked.url(("joe", "sEcReTpass")) + "/"}).check_downloaded(PACKED)
        asked = len(locked.requests())
        one({"http_proxy": locked.url()}).check_failure("407", "prox").check_nothing_left()
        # This proxy says 401 to these, as if it were the server.
        one({"http_proxy": locked.url(WRONG)}).check_failure("407|401").check_nothing_left()
        assert len(locked.requests()) <= asked + 2, "what a proxy forbids is not tried again"
        # Not for this host; and a proxy for https is none for http.
        for hosts in ("127.0.0.1", "*", "example.com,127.0.0.1", " example.com , 127.0.0.1 ", "127.0.0.0/8"):
            run = one({"http_proxy": "http://127.0.0.1:1", "no_proxy": hosts})
            if hosts != "127.0.0.0/8":
                run.check_downloaded(PACKED)
        one({"https_proxy": "http://127.0.0.1:1"}).check_downloaded(PACKED)
        assert len(free.requests()) == 1, free.requests()
        # A scan goes through it, too, by ranges.
        scan(folder, url, environment={"http_proxy": free.url()}).check_success()
        assert len(free.requests()) > 1, free.requests()


def test_a_proxy_that_is_not_there_or_none_is_named(folder):
    port = free_port()
    with Hostile({"": raw("SSH-2.0-OpenSSH_9.2\r\n")}) as ssh:
        def one(proxy):
            run = download(folder, "http://127.0.0.1:9/image.gz", environment={"http_proxy": proxy},
                           secrets=["sEcReTpass", basic("joe", "sEcReTpass")], timeout=300)
            run.check_failure().check_nothing_left()
            return run

        run = at_once(one, [f"http://joe:sEcReTpass@127.0.0.1:{port}", f"http://joe:sEcReTpass@{ssh.host}:{ssh.port}",
                            "http://joe:sEcReTpass@", "socks5://joe:sEcReTpass@127.0.0.1:1080"])[0]
        run.check_failure("prox", str(port), "refused")


# ---------------------------------------------------------------------------------- TLS

HOSTS = "127.0.0.1 localhost server.localhost a.example.localhost a.b.example.localhost n1.localhost\n::1 localhost\n"
_chains = tempfile.TemporaryDirectory(prefix="takeover-chains-")
# Chains that every client must take, whoever the server is.
GOOD = ("rsa2048", "rsa4096", "p256", "p384")


@functools.cache
def all_chains():
    """Made once for all tests."""
    return chains.make(_chains.name)


def test_certificates(folder):
    """Every chain, right and wrong, served by nginx; TLS 1.2, 1.3 and 1.1 alone; the system's own authorities."""
    made = all_chains()
    assert set(GOOD) < set(made)
    versions = {"1.1 alone": "TLSv1.1", "1.2 alone": "TLSv1.2", "1.3 alone": "TLSv1.3", "both": "TLSv1.2 TLSv1.3"}
    served = {name: (chain.certificates, chain.key, versions["both"]) for name, chain in made.items()}
    served |= {name: (made["p256"].certificates, made["p256"].key, version) for name, version in versions.items()}
    names = with_names(folder, HOSTS)
    with Nginx(folder, files_to_serve(folder), more=served) as server, \
            Nginx(folder, folder / "files", more={"v6": served["address of IPv6"]}, host="::1") as six:
        def one(name):
            chain = made.get(name, made["p256"])
            host, path = f"[{chain.host}]" if ":" in chain.host else chain.host, f"/image.gz?{name.replace(' ', '-')}"
            url = server.url(path, name, host) if ":" not in host else six.url(path, "v6")
            run = download(folder, url, "--ca-cert", chain.ca, within=names, timeout=300)
            if name == "1.1 alone":
                run.check_failure("TLS|version|protocol", re.escape(host)).check_nothing_left()
            elif chain.expected is None:
                run.check_downloaded(PACKED)
            else:
                run.check_failure(re.escape(chain.expected), re.escape(host)).check_nothing_left()
                # In the clear it asks which day it is, and no more.
                assert not any(request.path == path for request in server.requests()), "it asked before it knew whom"
                if name in ("expired", "not yet valid"):
                    assert f"{chain.host} says that today is {time.strftime('%Y-%m-%d', time.gmtime())}" in run.said, run
            if name == "p256":
                run = download(folder, url, within=names)
                run.check_failure("not trusted", re.escape(host)).check_nothing_left()
                scan(folder, url, "--ca-cert", chain.ca, within=names).check_success()

        at_once(one, served, 6)


def test_another_servers_tls(folder):
    made = all_chains()
    names = with_names(folder, HOSTS)
    files = files_to_serve(folder)

    def one(name):
        chain = made[name]
        with Caddy(folder, files, (chain.certificates, chain.key)) as caddy:
            run = download(folder, caddy.url("/image.gz", True, chain.host), "--ca-cert", chain.ca, within=names)
            if chain.expected:
                run.check_failure(re.escape(chain.expected)).check_nothing_left()
            else:
                run.check_downloaded(PACKED)
                scan(folder, caddy.url("/image.gz", True, chain.host), "--ca-cert", chain.ca, within=names).check_success()

    at_once(one, [*GOOD, "unknown authority", "expired", "wrong host"])


def test_over_tls(folder):
    """Cuts, an end without close_notify, redirects, a server that speaks no TLS, proxies."""
    made = all_chains()
    chain = made["address"]
    certificate = (chain.certificates, chain.key)

    def notified(exchange):
        exchange.send("HTTP/1.1 200 OK\r\n\r\n", PACKED)
        exchange.end()

    with Nginx(folder, files_to_serve(folder), certificate) as nginx:
        answers = {
            "/cut": lambda exchange: exchange.file(PACKED, TAG, cut=None if exchange.number > 1 else MIB),
            "/notified": notified,
            "/not-notified": lambda exchange: exchange.send("HTTP/1.1 200 OK\r\n\r\n", PACKED[:-5000]),
            "/down": lambda exchange: exchange.redirect(nginx.url("/image.gz")),
            "/on": lambda exchange: exchange.redirect(nginx.url("/image.gz", True)),
        }
        with Hostile(answers, certificate) as server, Hostile(
                {"": lambda exchange: exchange.redirect(nginx.url("/image.gz", True))}) as plain:
            def get(url, **more):
                return download(folder, url, "--ca-cert", chain.ca, **more)

            for path in ("/cut", "/notified", "/on"):
                get(server.url(path)).check_downloaded(PACKED)
            get(plain.url("/up")).check_downloaded(PACKED)
            before = len(nginx.requests())
            run = get(server.url("/down")).check_failure("https|secure|encrypt|redirect").check_nothing_left()
            assert len(nginx.requests()) == before and server.paths().count("/down") == 1, run
            run = start(folder, server.url("/not-notified"), "--ca-cert", chain.ca)
            wait_until(lambda: run.is_over or server.paths().count("/not-notified") > 1)
            if not run.is_over:
                run.kill()
            else:
                run.wait()
            assert run.process.returncode != 0 and all(
                sha256(path) != sha256(PACKED) for path in run.left().values()), run.left()
        run = get(nginx.url("/image.gz").replace("http:", "https:"), timeout=300)
        run.check_failure("TLS|https").check_nothing_left()


def test_tls_through_a_proxy(folder):
    made = all_chains()
    chain = made["address"]
    secrets = [basic("joe", "sEcReTpass"), basic(*WRONG)]
    with Nginx(folder, files_to_serve(folder), (chain.certificates, chain.key)) as nginx, Tinyproxy(folder) as free, \
            Tinyproxy(folder, ("joe", "sEcReTpass")) as locked:
        url = nginx.url("/image.gz", True)

        def one(proxy, name="https_proxy", act=download):
            return act(folder, url, "--ca-cert", chain.ca, environment={name: proxy}, secrets=secrets, timeout=300)

        one(free.url()).check_downloaded(PACKED)
        assert free.requests() == [f"CONNECT 127.0.0.1:{nginx.tls_port} HTTP/1.1"], free.requests()
        one(locked.url(("joe", "sEcReTpass"))).check_downloaded(PACKED)
        one(locked.url(("joe", "sEcReTpass")), act=scan).check_success()
        one("http://127.0.0.1:1", "http_proxy").check_downloaded(PACKED)
        # The server of the URL is seen by nobody else's eyes: a proxy that answers itself is not believed.
        with Hostile({"": lambda exchange: exchange.reply("200 OK", PACKED)}) as liar:
            at_once(lambda case: one(case[0]).check_failure(*case[1:]).check_nothing_left(), [
                (locked.url(), "407", "prox"), (locked.url(WRONG), "407|401", "prox"), (liar.url(""), "TLS|prox"),
                (f"http://joe:sEcReTpass@127.0.0.1:{free_port()}", "prox", "refused")])
        chain_of_other = made["wrong host"]
        with Nginx(folder, folder / "files", (chain_of_other.certificates, chain_of_other.key)) as other:
            run = download(folder, other.url("/image.gz", True), "--ca-cert", chain_of_other.ca,
                           environment={"https_proxy": free.url()})
            run.check_failure("another name").check_nothing_left()


class NamedTinyproxy(Tinyproxy):
    """One that knows the names of the tests; who asks it does not."""

    def command(self):
        return [*with_names(self.folder, HOSTS), *super().command()]


def test_the_clock_of_a_server_behind_a_proxy_is_asked_by_the_proxy(folder):
    """Nothing else leads there: it is asked with the proxy's password, and for no more than its name."""
    chain = all_chains()["expired"]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    with Nginx(folder, files_to_serve(folder), (chain.certificates, chain.key)) as nginx, \
            NamedTinyproxy(folder, ("joe", "sEcReTpass")) as proxy:
        url = nginx.url("/image.gz?sEcReT-query", True, chain.host)
        run = download(folder, url, "--ca-cert", chain.ca,
                       environment={"https_proxy": proxy.url(("joe", "sEcReTpass")), "http_proxy": "http://127.0.0.1:1"},
                       secrets=[basic("joe", "sEcReTpass")])
        run.check_failure(re.escape(chain.expected), "clock").check_nothing_left()
        assert f"the proxy 127.0.0.1 says that today is {today} (Date)" in run.said, run
        place = f"{chain.host}:{nginx.tls_port}"
        assert proxy.requests() == [f"CONNECT {place} HTTP/1.1", f"HEAD http://{place}/ HTTP/1.1"], proxy.requests()


def test_a_file_of_authorities_that_is_none_is_refused_by_name(folder):
    (folder / "empty.pem").write_bytes(b"")
    (folder / "garbage.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    def one(name):
        run = download(folder, "https://127.0.0.1:9/image.gz", "--ca-cert", folder / name, timeout=300)
        run.check_failure(name if name == "nowhere.pem" else "").check_nothing_left()

    at_once(one, ["nowhere.pem", "empty.pem", "garbage.pem"])


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
