#!/usr/bin/env python3
"""Network settings as netplan's own generator and cloud-init's own renderers write them: for systemd-networkd, for
NetworkManager and for ifupdown. What `takeover networks` makes of each way is the same, or what is missing is named.

Each file *.yaml of tests/fixtures/renderers is an input; its first line says in which ways it is rendered. Beside it
lies what must come of it, *.expected: for the ways that give the same, which they are, the keyfiles (in one spelling,
without what decides nothing), and what is said of what is not carried over. Where the ways differ in a keyfile, either
that is said by the program, or it stands in THEIRS, with what the renderer does. RECORD=1 writes these files anew: read what changed in them.
"""

import ipaddress
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
import networkmanager  # noqa: E402
import renderers  # noqa: E402
import runner  # noqa: E402
import test_networkmanager  # noqa: E402

TAKEOVER = runner.program()
FIXTURES = HERE / "fixtures" / "renderers"
RELEASES = ("bookworm", "trixie")

# Where what is translated differs from NetworkManager's own keyfile of the same renderer, and nothing is said: why.
NO_IPV4 = "the new OS asks by DHCP for IPv4 on a cable where the old one has no IPv4 at all"
NO_MODE = "netplan has no word of IPv6 for NetworkManager here but `ignore`, which leaves it to the kernel"
THEIRS = {
    "dhcp6": NO_IPV4, "nothing": NO_IPV4, "ra-only": NO_IPV4, "link-local6": NO_IPV4, "route-on-link6": NO_IPV4,
    "static6": NO_IPV4, "static6-no-router": NO_IPV4, "v1-stateful": NO_IPV4, "v1-stateless": NO_IPV4,
    "static6-by-router": "netplan has no advertisements for NetworkManager beside a fixed address",
    "link-local4": NO_MODE, "no-ra": NO_MODE, "static-closed": NO_MODE,
    "eui64": "netplan 0.106 and 1.1 write method=manual without an address",
    "by-pattern": "one by the hardware address of what fits the pattern, one by the pattern",
    "dhcp-own-dns": "netplan's use-dns is not written for NetworkManager, nor any name server beside DHCP by cloud-init",
    "several-addresses": "cloud-init 22.4 makes ::/64 of ::/0 and mixes the families; networkd.py turns addresses round",
    "two-cables": "cloud-init writes name servers for all at lo for ifupdown, and for one interface else",
    "route-metric": "cloud-init 25 writes no metric with NetworkManager's gateway, which gives it 100 by itself",
    "vlan": "cloud-init makes no VLAN for systemd-networkd: its file is for an interface that nothing makes",
    "v1-loopback-dns": "cloud-init writes the name servers of lo for ifupdown only",
    "v1-route": "cloud-init writes a route of its own for no connection of NetworkManager",
    "v1-static": "cloud-init 22.4 writes no metric for NetworkManager",
    "v1-static6": "cloud-init 22.4 writes method=auto for static6",
}

# Keyfiles that NetworkManager does not load, on the old OS neither, and how their names begin. They are carried over
# byte for byte; nothing is lost with them that was in force.
NOT_LOADED = {
    "eui64-": "fixed addresses are asked for, and there are none",
    "wifi-eap-peap-bookworm-netplan-manager-": "netplan passes on phase2-auth=MSCHAPV2, which has to be in small letters",
    "wifi-eap-ttls-bookworm-netplan-manager-": "phase2-auth=PAP likewise",
    "wired-8021x-bookworm-netplan-manager-": "phase2-auth=MSCHAPV2 likewise",
    "wifi-wep-8021x-bookworm-netplan-manager-": "PEAP without phase2-auth",
}

# Keys that decide nothing that is compared here, or values of them that are the usual ones.
PLAIN = {
    "connection": {"id": None, "uuid": None, "autoconnect": {"true"},
                   # cloud-init gives it to all of its own.
                   "autoconnect-priority": {"120"}},
    "ethernet": {"wake-on-lan": None},
    # Every Wi-Fi that is translated is looked for by its name.
    "wifi": {"mode": {"infrastructure"}, "hidden": None},
    "wifi-security": {"auth-alg": {"open"}, "pmf": {"2", "3"}},
    "ipv4": {"may-fail": None, "method": {"auto"}},
    "ipv6": {"may-fail": None, "ip6-privacy": {"0", "-1"}, "addr-gen-mode": {"stable-privacy"},
             # Left to the kernel, which takes an address from a router as NetworkManager does.
             "method": {"auto", "ignore"}},
}
# What NetworkManager gives to the routes of each kind of interface where nothing is said.
USUAL_METRIC = {"ethernet": "100", "wifi": "600"}
# The interfaces of the inputs, by their hardware addresses.
INTERFACES = {"b8:27:eb:00:00:01": "eth0", "b8:27:eb:00:00:02": "eth1", "b8:27:eb:00:00:03": "enp3s0"}


def cases():
    """Name -> (YAML text, ways, ports), of all inputs."""
    found = {}
    for path in sorted(FIXTURES.glob("*.yaml")):
        text = path.read_text()
        ways = re.match(r"# ways: (.*)\n", text)[1].split()
        ports = re.search(r"^# ports: (.*)\n", text, re.M)
        found[path.stem] = (text, ways, ports[1].split() if ports else [])
    return found


def groups(keyfile):
    """The groups of a keyfile: name -> [(key, value)]."""
    found, group = {}, None
    for line in keyfile.splitlines():
        if line.startswith("["):
            group = found.setdefault(line.strip("[]"), [])
        elif line.strip() and not line.startswith("#"):
            group.append(tuple(part.strip() for part in line.split("=", 1)))
    return found


def is_plain(group, key, value):
    usual = PLAIN.get(group, {}).get(key, set())
    return usual is None or value in usual


def network(value):
    """A route in one spelling: network, router, metric."""
    to, via, metric = (value.split(",") + ["", ""])[:3]
    via = "" if via in ("", "0.0.0.0", "::") else str(ipaddress.ip_address(via))
    return ",".join([str(ipaddress.ip_network(to, strict=False)), via, metric]).rstrip(",")


def family(group, entries, kind):
    """The keys of ipv4 or ipv6: addresses, routes and servers as lists in one spelling."""
    found, lists = {}, {"addresses": [], "routes": []}
    for key, value in entries:
        if re.fullmatch(r"address\d+", key):
            address, *router = value.split(",")
            lists["addresses"].append(str(ipaddress.ip_interface(address)))
            found.update({"gateway": each for each in router})
        elif re.fullmatch(r"route\d+", key):
            lists["routes"].append(network(value))
        elif key in ("dns", "dns-search"):
            lists[key] = [part for part in value.split(";") if part]
        elif (key, value) != ("route1_options", "onlink=true"):
            # That one NetworkManager finds out by itself.
            found[key] = value
    if "gateway" in found:
        # The same as a route, as NetworkManager makes it; with fixed addresses alone the metric is for nothing else.
        anywhere = "::/0" if group == "ipv6" else "0.0.0.0/0"
        metric = found.pop("route-metric", "") if found.get("method") == "manual" else ""
        lists["routes"].append(network(f"{anywhere},{found.pop('gateway')},{metric}"))
    if found.get("route-metric", "") == USUAL_METRIC.get(kind):
        del found["route-metric"]
    lists["routes"].sort()
    return found | {key: " ".join(parts) for key, parts in lists.items() if parts}


def spelled(keyfile, names):
    """A keyfile in one spelling, as text; empty when it says what plain DHCP on a cable gives, which always works.
    `names`: the name of a connection by its UUID."""
    found = groups(keyfile)
    connection = dict(found["connection"])
    kind = connection["type"]
    bound = connection.pop("interface-name", "")
    lines, search = [], []
    for group in sorted(found):
        entries = [(key, value) for key, value in found[group] if not is_plain(group, key, value)]
        if group in ("user", "proxy"):
            continue
        if group in ("ipv4", "ipv6"):
            settings = family(group, entries, kind)
            # Domains are the host's, whichever version of IP brings them.
            search += [each for each in settings.pop("dns-search", "").split() if each not in search]
            entries = settings.items()
        for key, value in sorted(entries):
            if key == "interface-name":
                bound = value
                continue
            if key == "mac-address":
                bound = INTERFACES[value.lower()]
                continue
            if key == "ssid":
                value = repr(test_networkmanager.ssid(value))
            if key in ("eap", "phase2-auth"):
                value = value.strip(";").lower()
            lines.append(f"{group}.{key}={names.get(value, value)}")
    if search:
        lines.append(f"search={' '.join(search)}")
    # Whatever joins a Wi-Fi gets its settings.
    if kind == "ethernet" and lines == ["connection.type=ethernet"]:
        return ""
    return "\n".join([f"[{bound}]" if kind != "wifi" else "[Wi-Fi]", *lines]) + "\n"


def put_ports(root, ports):
    """A sysfs with these interfaces, NAME=MAC each."""
    for number, (name, mac) in enumerate((port.split("=") for port in ports), 2):
        folder = root / "sys/class/net" / name
        (folder / "device").mkdir(parents=True)
        (folder / "device/driver").symlink_to("/sys/bus/pci/drivers/e1000")
        for file, value in {"address": mac, "type": 1, "addr_assign_type": 0, "ifindex": number}.items():
            (folder / file).write_text(f"{value}\n")


def read(root, output):
    """What the program makes of a system: keyfiles (name -> bytes), and what it says."""
    # What they were rendered from is said to be unread in a system that does not run, and which has nothing in /run.
    shutil.rmtree(root / "etc/netplan", ignore_errors=True)
    done = subprocess.run([TAKEOVER, "networks", "--root", root, "--output", output, "--json"],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode in (0, 3), done
    page = json.loads(done.stdout)
    says = {text.replace(f"{root}", "") for text in page["warnings"]["texts"]}
    if done.returncode == 3:
        says.add("refused")
    return {path.name: path.read_bytes() for path in sorted(output.iterdir())}, sorted(says)


def outcome(files):
    """The keyfiles of one way, as text."""
    texts = [content.decode() for content in files.values()]
    names = {}
    for text in texts:
        own = dict(groups(text)["connection"])
        names[own.get("uuid", own["id"])] = own["id"]
    return "\n".join(filter(None, sorted(spelled(text, names) for text in texts)))


def outcomes(folder, release):
    """case -> {way: (keyfiles as text, what is said, keyfiles)}. A way in which a renderer refuses the input is None."""
    wanted = cases()
    out, refused = renderers.render(folder, {name: case[:2] for name, case in wanted.items()}, release)
    found = {}
    for name, (_, ways, ports) in wanted.items():
        for way in ways:
            root = out / name / way
            if (name, way) in refused:
                found.setdefault(name, {})[way] = None
                continue
            put_ports(root, ports)
            files, says = read(root, folder / f"{release}-{name}-{way}")
            found.setdefault(name, {})[way] = (outcome(files), says, files)
    return found


def as_text(ways):
    """What came of all ways, as it lies beside the input."""
    by, parts = {}, []
    for way, result in ways.items():
        key = ("", ("the renderer refuses it",)) if result is None else (result[0], tuple(result[1]))
        by.setdefault(key, []).append(way)
    for (keyfiles, says), which in by.items():
        parts.append("".join(f"# {way}\n" for way in which) + "".join(f"# says: {text}\n" for text in says) + keyfiles)
    return "\n".join(parts)


_ALL = {}


def everything(folder):
    """case -> {"RELEASE WAY": what came of it}, once for all tests."""
    for release in RELEASES if not _ALL else ():
        for name, ways in outcomes(folder, release).items():
            _ALL.setdefault(name, {}).update({f"{release} {way}": result for way, result in ways.items()})
        print(f"    {renderers.versions(release)}")
    return _ALL


def test_each_input_gives_what_lies_beside_it(folder):
    found = everything(folder)
    assert len(found) >= 40, len(found)
    wrong = []
    for name, ways in found.items():
        path, text = FIXTURES / f"{name}.expected", as_text(ways)
        if "RECORD" in os.environ:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            wrong.append(f"{name}:\n{text}")
    assert not wrong, "\n".join(wrong)


def is_about_a_loss(text):
    """Whether something is said that explains a difference: not that a name may change."""
    return not re.search("(is|are) bound to", text)


def test_what_differs_between_the_ways_is_said_or_known(folder):
    unexplained, needed, compared = [], set(), 0
    for name, ways in everything(folder).items():
        for way, result in ways.items():
            own = ways.get(re.sub("(networkd|eni)$", "manager", way))
            if result is None or own is None or own is result:
                continue
            compared += 1
            says = [text for text in result[1] + own[1] if is_about_a_loss(text)]
            if result[0] != own[0] and not says:
                needed.add(name)
                if name not in THEIRS:
                    unexplained.append(f"{name}, {way}:\n{result[0]}\nNetworkManager's:\n{own[0]}")
    print(f"    {compared} pairs compared")
    assert not unexplained, "\n".join(unexplained)
    assert needed == set(THEIRS), set(THEIRS) - needed


def test_a_networkmanager_loads_every_keyfile(folder):
    files, seen = {}, {}
    for name, ways in everything(folder).items():
        for way, result in ways.items():
            for file, content in (result[2] if result else {}).items():
                # One NetworkManager for all: names and numbers of one case are not those of another.
                own = re.sub(rb"(?<=uuid=)[0-9a-f-]{36}", lambda found: str(uuid.uuid5(
                    uuid.NAMESPACE_URL, name + way + found[0].decode())).encode(), content)
                key = re.sub(rb"(?m)^(uuid|master|parent)=.*\n", b"", content)
                if key not in seen:
                    seen[key] = f"{name}-{way.replace(' ', '-')}-{file}"
                    files[seen[key]] = own
    session = networkmanager.run(folder, files, timeout=300, values=False)
    print(f"    {len(files)} keyfiles, {len(session.rejected)} not loaded, {session.version}")
    known = {name: start for name in session.rejected for start in NOT_LOADED if name.startswith(start)}
    assert set(known.values()) == set(NOT_LOADED), known
    assert set(session.rejected) == set(known), "\n".join(
        f"{name}: {why}\n{files[name].decode()}" for name, why in session.rejected.items() if name not in known)


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
