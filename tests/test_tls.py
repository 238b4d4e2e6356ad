#!/usr/bin/env python3
"""TLS against OpenSSL's servers on loopback: who is believed, what is spoken, and what happens to what was changed on
the way. The program's own code runs in `tests/greet.rs`, its heap sealed."""

import functools
import json
import os
import pathlib
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import chains as chains_of_tests
import runner

BODY = random.Random(1).randbytes(200_000)


@functools.cache
def greeter():
    root = pathlib.Path(__file__).resolve().parent.parent
    done = subprocess.run(["cargo", "build", "--quiet", "--locked", "--example", "greet", "--message-format=json"],
                          cwd=root, check=True, capture_output=True, text=True)
    built = map(json.loads, done.stdout.splitlines())
    return next(one["executable"] for one in built if one.get("target", {}).get("name") == "greet")


@functools.cache
def folder_of_chains():
    return tempfile.TemporaryDirectory(prefix="takeover-tests-chains-")


@functools.cache
def all_chains():
    return chains_of_tests.make(folder_of_chains().name)


class Answer:
    def __init__(self, output):
        lines = output.splitlines()
        self.kind, _, self.words = lines[0].partition(" ")
        arena = lines[1].split()
        self.most, self.left = int(arena[1]), int(arena[2])
        self.used = "\n".join(lines[3:])

    def expect_body(self, body=BODY):
        assert self.kind == "body", self.words
        assert self.words == f"{len(body)} {zlib.crc32(body):08x}", self.words
        self.expect_all_given_back()

    def expect_page(self):
        """Any, whole."""
        assert self.kind == "body" and int(self.words.split()[0]) > 100, self.words
        self.expect_all_given_back()

    def expect_error(self, words):
        assert self.kind == "error" and words in self.words, f"{self.kind} {self.words!r}, not {words!r}"
        self.expect_all_given_back()

    def expect_all_given_back(self):
        assert self.left == 1024 * 1024, f"of the arena {self.left} bytes are left"
        assert self.most < 512 * 1024, f"the arena had {self.most} bytes in use"


def greet(port, host, ca, seconds=60):
    done = subprocess.run([greeter(), str(port), host, str(ca), str(seconds * 1000)], capture_output=True, text=True,
                          timeout=180)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return Answer(done.stdout)


class Server:
    """Serves one connection after the other, by `serve(socket)`, until it is closed."""

    def __init__(self, serve, host="127.0.0.1"):
        family, address = (socket.AF_INET6, "::1") if ":" in host else (socket.AF_INET, "127.0.0.1")
        self.listener = socket.create_server((address, 0), family=family)
        self.port = self.listener.getsockname()[1]
        self.serve = serve
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(20)
            with connection:
                try:
                    self.serve(connection)
                except (OSError, EOFError):
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # close alone does not wake who accepts.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(20)


def context_of(chain, lowest=None, highest=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # What is weak is for the client to refuse.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(chain.certificates, chain.key)
    if lowest:
        context.minimum_version = lowest
    if highest:
        context.maximum_version = highest
    return context


def answering(context, body=BODY, close=True):
    """Reads a request and answers with the body alone: what the client reads until the end."""
    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as secure:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = secure.recv(4096)
                if not piece:
                    return
                request += piece
            secure.sendall(body)
            if close:
                secure.unwrap()
            else:
                end(socket.socket(fileno=os.dup(secure.fileno())))
    return serve


def end(connection):
    """Says that nothing more comes, and waits for the same: what was not read would be lost in a reset."""
    with connection:
        connection.settimeout(20)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(10_000):
            pass


def ask(chain, host=None, ca=None, **more):
    with Server(answering(context_of(chain, **more)), host or chain.host) as server:
        return greet(server.port, host or chain.host, ca or chain.ca)


def test_chains(_):
    """Every right one is believed, every wrong one refused in words."""
    wrong = []
    for name, chain in all_chains().items():
        try:
            answer = ask(chain)
            answer.expect_body() if chain.expected is None else answer.expect_error(chain.expected)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join(wrong)


OLD, NEW = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def test_versions(_):
    """TLS 1.2 alone and TLS 1.3 alone are spoken, older ones are refused by name."""
    chain = all_chains()["p256"]
    for version in (OLD, NEW):
        ask(chain, lowest=version, highest=version).expect_body()
    # SSL 3 is in no OpenSSL of today.
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        ask(chain, lowest=version, highest=version).expect_error("only old protocols: TLS 1.2 at least")


def test_suites(_):
    """Each suite and each group that is offered works in earnest, alone; what is weak is not offered."""
    chains = all_chains()
    for chain, kind in ((chains["p256"], "ECDSA"), (chains["rsa2048"], "RSA")):
        for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"):
            with s_server(chain, "-tls1_2", "-cipher", f"ECDHE-{kind}-{cipher}") as port:
                greet(port, chain.host, chain.ca).expect_page()
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        with s_server(chains["p256"], "-tls1_3", "-ciphersuites", suite) as port:
            greet(port, chains["p256"].host, chains["p256"].ca).expect_page()
    # A server that takes another group than the client has guessed asks again (RFC 8446, 4.1.4).
    for version in ("-tls1_2", "-tls1_3"):
        for group in ("X25519", "P-256", "P-384"):
            with s_server(chains["p384"], version, "-curves", group) as port:
                greet(port, chains["p384"].host, chains["p384"].ca).expect_page()
    with s_server(chains["rsa2048"], "-tls1_2", "-cipher", "AES128-GCM-SHA256") as port:
        greet(port, chains["rsa2048"].host, chains["rsa2048"].ca).expect_error("takes none of what this program can do")


class s_server:
    """OpenSSL's server; its page says what was spoken."""

    def __init__(self, chain, *options):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", "-cert", chain.certificates, "-cert_chain",
             chain.certificates, "-key", chain.key, "-www", *options], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __enter__(self):
        # It says ACCEPT when it listens.
        while b"ACCEPT" not in (line := self.process.stdout.readline()):
            assert line, "s_server does not start"
        return self.port

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_end_without_close_notify(_):
    """What ends without a word may have been cut: an error, after all that came; so is an end in the handshake."""
    for version in (OLD, NEW):
        chain = all_chains()["p256"]
        context = context_of(chain, version, version)
        with Server(answering(context, close=False)) as server:
            greet(server.port, chain.host, chain.ca).expect_error("without close_notify")
    with Server(end) as server:
        greet(server.port, chain.host, chain.ca).expect_error("without close_notify")


def test_no_tls(_):
    """A server that speaks something else, or nothing, is told apart."""
    chain = all_chains()["p256"]

    def speak(words):
        def serve(connection):
            connection.recv(10_000)
            connection.sendall(words)
            # Not closed at once: what was not read would be lost with it.
            connection.recv(10_000)
        return serve

    with Server(speak(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")) as server:
        greet(server.port, chain.host, chain.ca).expect_error("what it sends is no TLS")
    with Server(speak(b"\x15\x03\x03\0\x02\x02\x70")) as server:
        greet(server.port, chain.host, chain.ca).expect_error("it knows no server of this name")
    with Server(speak(b"")) as server:
        greet(server.port, chain.host, chain.ca, seconds=1).expect_error("")


def test_certificate_of_the_client(_):
    """It is asked for, and there is none: fine where the server takes that, an error in words where it does not."""
    chain = all_chains()["p256"]
    for version in (OLD, NEW):
        for mode in (ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED):
            context = context_of(chain, version, version)
            context.load_verify_locations(chain.ca)
            context.verify_mode = mode
            with Server(answering(context)) as server:
                answer = greet(server.port, chain.host, chain.ca)
            if mode == ssl.CERT_OPTIONAL:
                answer.expect_body()
            else:
                answer.expect_error("certificate of the client")


def test_name_of_the_server(_):
    """A server of many names learns which one is meant; it is not told an address (RFC 6066, 3)."""
    chains = all_chains()
    for chain, told in ((chains["p256"], chains_of_tests.HOST), (chains["address"], None)):
        context, names = context_of(chain), []
        context.sni_callback = lambda _, name, __: names.append(name)
        with Server(answering(context), chain.host) as server:
            greet(server.port, chain.host, chain.ca).expect_body()
        assert names == [told], names


def test_roots_that_were_used(_):
    """Of many roots the one in which the chain ends is given out, and believed alone it is enough; nothing is given out
    of a session that did not come about."""
    chains = all_chains()
    chain = chains["p256"]
    for others in (["p384", "rsa4096", "p256"], ["p256", "rsa2048"]):
        bundle = pathlib.Path(folder_of_chains().name) / "bundle"
        text = b"\xef\xbb\xbf# some text\r\n" + b"\r\n".join(
            chains[other].ca.read_bytes().replace(b"\n", b"\r\n") for other in others)
        bundle.write_bytes(text.rstrip())
        answer = ask(chain, ca=bundle)
        answer.expect_body()
        assert answer.used.split() == chain.ca.read_text().split(), answer.used
        bundle.write_text(answer.used)
        ask(chain, ca=bundle).expect_body()
        ask(chains["rsa4096"], ca=bundle).expect_error("not trusted here")
    answer = ask(chains["wrong host"])
    assert answer.kind == "error" and not answer.used


def test_files_of_roots(_):
    """What is no file of certificates is refused in words, and so is one that is not there."""
    chain = all_chains()["p256"]
    folder = pathlib.Path(folder_of_chains().name)
    ask(chain, ca=folder / "nothing here").expect_error("reading the file of --ca-cert")
    empty = folder / "empty"
    for content in (b"", b"\x30\x82\x01\x00" * 100, chain.key.read_bytes()):
        empty.write_bytes(content)
        ask(chain, ca=empty).expect_error("no certificate")


class Man:
    """In the middle: passes on what both say, and changes one bit of what the server says."""

    def __init__(self, server, place, bit):
        self.server, self.place, self.bit, self.changed = server, place, bit, False

    def __call__(self, connection):
        with socket.create_connection(("127.0.0.1", self.server.port)) as upstream:
            back = threading.Thread(target=self.pass_back, args=(upstream, connection), daemon=True)
            back.start()
            try:
                while piece := connection.recv(65536):
                    upstream.sendall(piece)
                upstream.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            back.join(20)

    def pass_back(self, upstream, connection):
        at = 0
        try:
            while piece := bytearray(upstream.recv(65536)):
                if at <= self.place < at + len(piece):
                    piece[self.place - at] ^= 1 << self.bit
                    self.changed = True
                at += len(piece)
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_changed_on_the_way(_):
    """Whichever bit of what the server says is changed: an error, never another body, and no waiting for ever."""
    numbers = random.Random(7)
    chain = all_chains()["p256"]
    body = BODY[:3000]
    wrong = []
    for version in (OLD, NEW):
        with Server(answering(context_of(chain, version, version), body)) as server:
            # The handshake has 1,200 bytes and more; what comes later is in the body or behind it.
            for place in [0, 1, 3, 4, 5, 9] + [numbers.randrange(4400) for _ in range(20)]:
                man = Man(server, place, numbers.randrange(8))
                with Server(man) as middle:
                    answer = greet(middle.port, chain.host, chain.ca, seconds=2)
                if man.changed and answer.kind != "error":
                    wrong.append(f"{version} {place} {man.bit}: {answer.words}")
    # The length of the record that says goodbye may be cut, and the type of one: those are errors, too.
    assert not wrong, "\n".join(wrong)


def record(kind, content, version=b"\x03\x03"):
    return bytes([kind]) + version + len(content).to_bytes(2) + content


def handshake(kind, content):
    message = bytes([kind]) + len(content).to_bytes(3) + content
    return b"".join(record(22, message[at:at + 16000]) for at in range(0, len(message), 16000))


def server_hello(extensions=b""):
    """TLS 1.2, ECDHE with ECDSA and AES-128-GCM."""
    return handshake(2, b"\x03\x03" + bytes(range(32)) + b"\0" + b"\xc0\x2b\0"
                     + len(extensions).to_bytes(2) + extensions)


def listed(items, size):
    """A list with its length in front."""
    return len(items).to_bytes(size) + items


def test_hostile_servers(_):
    """Whatever a server sends, before anybody knows who it is: an error, in a bounded part of the arena."""
    chain = all_chains()["p256"]
    secure = b"\xff\x01\0\x01\0" + b"\0\x17\0\0" + b"\0\x0b\0\x02\x01\0"
    certificates = [handshake(11, listed(bytes(3) * count, 3)) for count in (1, 15, 16, 17, 5900, 6100, 21000)]
    certificates += [handshake(11, listed(b"\0\0\x01\x30" * 4500, 3)),
                     handshake(11, listed((b"\0\x46\0" + bytes(17920)), 3)),
                     handshake(11, b"\xff\xff\xff" + bytes(10))]
    one = handshake(11, listed(listed(b"\x30\x03\x02\x01\x01", 3), 3))
    requests = [handshake(13, listed(b"\x40", 1) + listed(b"\x04\x03", 2) + listed(names, 2))
                for names in (b"\0\x01a" * 5800, b"\0\0" * 8000, b"\0\x02\x30\0" * 4400)]
    requests += [handshake(13, listed(b"\x40", 1) + listed(b"\x04\x03" * 8900, 2) + listed(b"", 2))]
    curve = b"\x03\0\x1d" + listed(bytes(range(32)), 1) + b"\x04\x03" + listed(bytes(70), 2)
    key = handshake(12, curve)
    floods = [record(22, b""), record(21, b"\x01\x5a"), record(22, b"\x02"), record(20, b"\x01"),
              handshake(0, b""), record(23, b"x" * 100)]
    openings = [server_hello(secure) + flight for flight in certificates]
    openings += [server_hello(secure) + one + key + request + handshake(14, b"") for request in requests]
    openings += [flood * 300 for flood in floods]
    openings += [server_hello(secure + b"".join(number.to_bytes(2) + b"\0\0" for number in range(3000, 7000)))]
    openings += [record(22, b"\x02" + (60000).to_bytes(3) + bytes(16000)) + record(22, bytes(16000)) * 3]
    openings += [record(22, bytes(16384 + 2049)), b"\x16\x03\x03\xff\xff" + bytes(70000)]
    numbers = random.Random(3)
    openings += [server_hello(secure) + record(22, numbers.randbytes(300)) for _ in range(5)]
    most = 0
    for number, opening in enumerate(openings):
        def serve(connection):
            connection.recv(10_000)
            connection.sendall(opening)
            end(connection)
        with Server(serve) as server:
            answer = greet(server.port, chain.host, chain.ca, seconds=5)
        try:
            answer.expect_error("")
        except AssertionError as error:
            raise AssertionError(f"opening {number}: {error}")
        most = max(most, answer.most)
    print(f"the most of the arena that a hostile server had: {most} bytes")


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
