#!/usr/bin/env python3
"""Names resolved by real servers: dnsmasq, and unbound, which asks dnsmasq. glibc is asked for the same.

All of it runs in namespaces of its own, for network and mounts: the servers are on port 53, and /etc/resolv.conf and
/etc/hosts are those of the test.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import leftovers
import rootfs
import runner

# What the servers know. `many` does not fit into 512 bytes, nor into the 1,232 that unbound sends at most.
ZONE = "zone.example.net"
MANY = 60
DNSMASQ = f"""
port=53
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
keep-in-foreground
user=root
local=/example.net/
local=/local/
host-record=both.{ZONE},192.0.2.1,2001:db8::1
host-record=four.{ZONE},192.0.2.4
host-record=six.{ZONE},2001:db8::6
host-record=end.{ZONE},192.0.2.9,2001:db8::9
cname=middle.{ZONE},end.{ZONE}
cname=start.{ZONE},middle.{ZONE}
cname=alias.{ZONE},start.{ZONE}
host-record=under_score.{ZONE},192.0.2.5
txt-record=text.{ZONE},nothing but text
host-record=both.other.example.net,192.0.2.2
host-record=far.{ZONE}.other.example.net,192.0.2.3
""" + "".join(f"host-record=many.{ZONE},192.0.2.{number},2001:db8::{number:x}\n" for number in range(1, MANY + 1))
UNBOUND = """
server:
    interface: 127.0.0.2
    interface: ::1
    interface: fe80::1%lo
    access-control: 127.0.0.0/8 allow
    access-control: ::1 allow
    access-control: fe80::/10 allow
    ip-freebind: yes
    do-not-query-localhost: no
    module-config: iterator
    local-zone: local. nodefault
    use-syslog: no
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "."
    pidfile: ""
    num-threads: 1
forward-zone:
    name: "."
    forward-addr: 127.0.0.1
remote-control:
    control-enable: no
"""
# On nobody's list, but taken: who asks there waits.
SILENT = "127.0.0.9"
BOTH = f"both.{ZONE}"


def unpacked(package):
    """The folder of an unpacked Debian package and of those that it needs and this machine lacks, from the cache: nothing
    is installed, so no service is started."""
    def build(path):
        (path / "partial").mkdir(parents=True)
        fetch = ["apt-get", "-qq", "-y", "--no-install-recommends", "--download-only",
                 "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={path}",
                 "install", package]
        try:
            rootfs.run(*fetch)
        except rootfs.BuildError:
            # The lists are missing or older than what the mirror has.
            rootfs.run("apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq", "update")
            rootfs.run(*fetch)
        for deb in path.glob("*.deb"):
            rootfs.run("dpkg", "-x", deb, path)
            deb.unlink()
    return rootfs.cached(f"unpacked-{package}", rootfs.key_of(package, 1), build)


def example():
    """The program that resolves, built with every check."""
    root = pathlib.Path(__file__).resolve().parent.parent
    done = subprocess.run(["cargo", "build", "--quiet", "--locked", "--example", "resolve", "--message-format=json"],
                          cwd=root, check=True, capture_output=True, text=True)
    built = map(json.loads, done.stdout.splitlines())
    return next(one["executable"] for one in built if one.get("target", {}).get("name") == "resolve")


def enter():
    """Goes on in namespaces of our own, with what they could not fetch."""
    values = {"RESOLVE": example(), "DNSMASQ": unpacked("dnsmasq-base"), "UNBOUND": unpacked("unbound")}
    os.environ.update({name: str(value) for name, value in values.items()})
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def prepare():
    """The network and the files of the namespaces."""
    run = lambda *words: subprocess.run(words, check=True)
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", "fe80::1/64", "dev", "lo", "nodad")
    run("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    for name in ("hosts", "resolv.conf"):
        pathlib.Path("/mnt", name).touch()
        run("mount", "--bind", f"/mnt/{name}", f"/etc/{name}")


@contextlib.contextmanager
def running(folder, *words):
    """A server, until the end of the block."""
    package = pathlib.Path(words[0]).parents[2]
    libraries = ":".join(str(path) for path in package.glob("**/lib/*-linux-gnu"))
    with open(folder / "output", "wb") as output:
        process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=subprocess.STDOUT, cwd=folder, preexec_fn=leftovers.die_with_parent,
                                   env=dict(os.environ, LD_LIBRARY_PATH=libraries))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(place, process, folder):
    """Until a server takes connections."""
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((place, 53), 1).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < end, (folder / "output").read_text()
            time.sleep(0.02)


@contextlib.contextmanager
def servers(folder):
    """Both servers, and one that says nothing."""
    (folder / "dnsmasq").mkdir()
    (folder / "unbound").mkdir()
    (folder / "dnsmasq/conf").write_text(DNSMASQ)
    (folder / "unbound/conf").write_text(UNBOUND)
    one = running(folder / "dnsmasq", f"{os.environ['DNSMASQ']}/usr/sbin/dnsmasq", "--conf-file=conf")
    other = running(folder / "unbound", f"{os.environ['UNBOUND']}/usr/sbin/unbound", "-d", "-c", "conf")
    with socket.socket(type=socket.SOCK_DGRAM) as silent, one as dnsmasq, other as unbound:
        silent.bind((SILENT, 53))
        wait_for("127.0.0.1", dnsmasq, folder / "dnsmasq")
        wait_for("127.0.0.2", unbound, folder / "unbound")
        yield


def resolve(*names, conf, hosts="", patience=30):
    """What comes of names: addresses, or the words of an error."""
    pathlib.Path("/mnt/hosts").write_text(hosts)
    pathlib.Path("/mnt/resolv.conf").write_text(conf)
    done = subprocess.run([os.environ["RESOLVE"], str(int(patience * 1000)), *names], check=True, timeout=120,
                          stdout=subprocess.PIPE, text=True)
    answers = [line if line.startswith("failed") else line.split() for line in done.stdout.splitlines()]
    assert len(answers) == len(names), done.stdout
    return answers[0] if len(names) == 1 else answers


def by_libc(name):
    """The addresses that glibc finds by the same files."""
    done = subprocess.run(["getent", "--no-addrconfig", "--service=files dns", "ahosts", name], stdout=subprocess.PIPE, text=True)
    return {line.split()[0] for line in done.stdout.splitlines()}


# ----------------------------------------------------------------------- the tests

def check_each_server(folder, check):
    with servers(folder):
        for server in ("127.0.0.1", "127.0.0.2", "::1", "fe80::1%lo"):
            check(f"nameserver {server}\n", server)


def test_addresses_of_both_families_are_found_those_of_ipv6_first(folder):
    def check(conf, _):
        names = [BOTH, f"four.{ZONE}", f"six.{ZONE}", f"under_score.{ZONE}", "BOTH.Zone.Example.Net."]
        assert resolve(*names, conf=conf) == [
            ["2001:db8::1", "192.0.2.1"], ["192.0.2.4"], ["2001:db8::6"], ["192.0.2.5"],
            ["2001:db8::1", "192.0.2.1"]]
    check_each_server(folder, check)


def test_chains_of_aliases_are_followed(folder):
    def check(conf, _):
        for name in ("middle", "start", "alias"):
            assert resolve(f"{name}.{ZONE}", conf=conf) == ["2001:db8::9", "192.0.2.9"], name
    check_each_server(folder, check)


def test_what_does_not_fit_into_a_datagram_comes_over_tcp(folder):
    def check(conf, _):
        found = resolve(f"many.{ZONE}", conf=conf)
        assert len(set(found)) == 16, found
        assert all(address.startswith("2001:db8::") for address in found[:8]), found
        assert all(address.startswith("192.0.2.") for address in found[8:]), found
    check_each_server(folder, check)


def test_no_such_name_and_no_address_are_told_apart(folder):
    def check(conf, server):
        name, text = f"none.{ZONE}", f"text.{ZONE}"
        shown = server.split("%")[0]
        assert resolve(name, text, "printer.local", conf=conf) == [
            f"failed resolving {name}: there is no such name, says {shown}",
            f"failed resolving {text}: the name has no address, says {shown}",
            f"failed resolving printer.local: there is no such name, says {shown}; "
            "multicast DNS is not asked for names in .local: use an address"]
    check_each_server(folder, check)


def test_the_next_server_is_asked_when_one_is_silent_fails_or_is_not_there(folder):
    with servers(folder):
        for first in (SILENT, "127.0.0.4", "2001:db8::53"):
            for last in ("127.0.0.1", "::1"):
                conf = f"nameserver {first}\nnameserver {last}\n"
                assert resolve(BOTH, conf=conf) == ["2001:db8::1", "192.0.2.1"], conf
        # Two of them do not use up the time of a check.
        conf = f"nameserver {SILENT}\nnameserver {SILENT}\nnameserver 127.0.0.2\n"
        assert resolve(BOTH, conf=conf, patience=10) == ["2001:db8::1", "192.0.2.1"]
        # dnsmasq knows nobody to ask for names that are not its own.
        conf = f"nameserver {SILENT}\nnameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.4\n"
        answer = resolve("a.example.org", conf=conf, patience=3)
        assert answer == (
            f"failed resolving a.example.org: {SILENT}: no answer, 127.0.0.1: refused, 127.0.0.2: server failure, "
            "127.0.0.4: connection refused; check the name servers in /etc/resolv.conf and the way to them"), answer


def test_a_file_without_servers_means_this_machine(folder):
    with servers(folder):
        assert resolve(BOTH, conf="# none\n") == ["2001:db8::1", "192.0.2.1"]


def test_the_file_of_hosts_comes_first(folder):
    hosts = f"10.0.0.1 {BOTH.upper()}\n10.0.0.2 x {BOTH} # four.{ZONE}\n::2 {BOTH}\n10.0.0.3 localhost\n"
    with servers(folder):
        conf = "nameserver 127.0.0.1\n"
        assert resolve(BOTH, conf=conf, hosts=hosts) == ["::2", "10.0.0.1", "10.0.0.2"]
        assert resolve(f"four.{ZONE}", conf=conf, hosts=hosts) == ["192.0.2.4"]
        assert resolve("localhost", conf=conf, hosts=hosts) == ["::1", "127.0.0.1"]


def test_names_are_found_where_glibc_finds_them(folder):
    names = ["both", "both.", BOTH, f"{BOTH}.", "both.zone", "both.other", f"far.{ZONE}", "four", "six", "alias", "none",
             "text", f"none.{ZONE}", f"text.{ZONE}"]
    searches = ["", f"search {ZONE}", f"search other.example.net {ZONE}", f"search {ZONE}\nsearch example.net",
                f"search example.net\ndomain {ZONE}", "search .", f"search none.example.net {ZONE} example.net"]
    found = 0
    with servers(folder):
        for search in searches:
            for options in ("", "options ndots:0", "options ndots:3 edns0 trust-ad timeout:1"):
                conf = f"nameserver 127.0.0.1\n{search}\n{options}\n"
                for name, answer in zip(names, resolve(*names, conf=conf)):
                    ours = set() if isinstance(answer, str) else set(answer)
                    assert ours == by_libc(name), (name, conf, answer)
                    found += bool(ours)
    assert found > 50, found


if __name__ == "__main__":
    if "RESOLVE" not in os.environ:
        enter()
    prepare()
    runner.main(sys.modules[__name__], sys.argv[1:])
