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

    def expect_error(self, words):
        assert self.kind == "error" and words in self.words, f"{self.kind} {self.words!r}, not {words!r}"
        self.expect_all_given_back()

    def expect_all_given_back(self):
        assert self.left == 1024 * 1024, f"of the arena {self.left} bytes are left"
        assert self.most < 512 * 1024, f"the arena had {self.most} bytes in use"


def greet(port, host, ca, seconds=20):
    done = subprocess.run([greeter(), str(port), host, str(ca), str(seconds * 1000)], capture_output=True, text=True,
                          timeout=60)
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
    return serve


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


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
