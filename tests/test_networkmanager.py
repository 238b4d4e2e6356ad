#!/usr/bin/env python3
"""A real NetworkManager accepts the keyfiles that takeover writes, each with exactly the values that are in it.

The keyfiles are all files *.keyfile below tests/fixtures/network, and every part of an *.expected there that begins
with the line [connection]. KEYFILES=FOLDER looks below another folder, for keyfiles that were just written.
"""

import ipaddress
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lib"))
import networkmanager  # noqa: E402
import runner  # noqa: E402

OURS = pathlib.Path(__file__).parent / "fixtures" / "network"
BY_HAND = OURS / "networkmanager"

# Groups of a keyfile and the names of the same settings in nmcli.
SETTINGS = {"connection": "connection", "ethernet": "802-3-ethernet", "wifi": "802-11-wireless",
            "wifi-security": "802-11-wireless-security", "802-1x": "802-1x", "ipv4": "ipv4", "ipv6": "ipv6"}
TYPES = {"wifi": "802-11-wireless", "ethernet": "802-3-ethernet"}
# Keys whose value is the same text in nmcli.
TEXTS = {"id", "interface-name", "autoconnect-priority", "mode", "key-mgmt", "auth-alg", "psk", "method",
         "addr-gen-mode", "identity", "anonymous-identity", "password", "phase2-auth", "phase2-autheap", "mtu",
         "route-metric"}
SWITCHES = {"autoconnect", "hidden", "never-default", "ignore-auto-dns", "ignore-auto-routes"}
# What must be empty when the keyfile does not have it.
ABSENT = [f"{family}.{key}" for family in ("ipv4", "ipv6") for key in ("addresses", "gateway", "dns", "routes")] + [
    "connection.interface-name", "802-3-ethernet.mac-address", "802-11-wireless.mac-address",
    "802-11-wireless-security.key-mgmt", "802-11-wireless-security.psk", "802-1x.eap", "802-1x.password"]


def keyfiles(folder):
    """Name -> bytes of every keyfile below a folder. The names are unique, as in one system-connections."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".keyfile":
            found[f"{path.parent.name}-{path.stem}"] = path.read_bytes()
        elif path.suffix == ".expected":
            parts = re.split(rb"^(?=\[connection\]$)", path.read_bytes(), flags=re.M)
            for number, part in enumerate(parts[1:], 1):
                # Those of a whole root may be NetworkManager's own, which go along as they are.
                if path.parent.name == "roots" and b"\nid=balena-" not in part:
                    continue
                found[f"{path.parent.name}-{path.stem}-{number:02}"] = part
    return found


def unescaped(value):
    """A value as GKeyFile reads it."""
    meant = {"s": " ", "t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
    return re.sub(r"\\(.)", lambda found: meant[found[1]], value)


def ssid(value):
    """The bytes of an SSID: text, or a list of numbers."""
    if re.fullmatch(r"(\d+;)+", value):
        return bytes(int(number) for number in value.split(";")[:-1])
    return unescaped(value).encode("utf-8", "surrogateescape")


def items(value):
    return [item for item in value.split(";") if item]


def addresses(values):
    """Addresses and networks in one spelling, order kept."""
    return [str(ipaddress.ip_interface(value) if "/" in value else ipaddress.ip_address(value)) for value in values]


def route(value):
    """A route of a keyfile as nmcli writes it."""
    network, *rest = value.split(",")
    return " ".join([network, *(word for word in rest if word)])


def wanted(keyfile):
    """What nmcli must say of a keyfile: field -> value. The SSID is bytes, under its nmcli name. A key that is not
    known here is an error: nothing goes unseen."""
    fields, group = {}, None
    lists = {}
    for line in keyfile.decode("utf-8", "surrogateescape").split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            group = SETTINGS[line.strip("[]")]
            continue
        key, value = line.split("=", 1)
        name = f"{group}.{key}"
        if name == "connection.type":
            fields[name] = TYPES[value]
        elif name == "802-11-wireless.ssid":
            fields[name] = ssid(value)
        elif key in SWITCHES:
            fields[name] = {"true": "yes", "false": "no"}[value]
        elif key == "mac-address":
            fields[name] = value.upper()
        elif re.fullmatch(r"address\d+", key):
            address, *gateway = value.split(",")
            lists.setdefault(f"{group}.addresses", []).append(address)
            fields.update({f"{group}.gateway": router for router in gateway})
        elif re.fullmatch(r"route\d+", key):
            lists.setdefault(f"{group}.routes", []).append(route(value))
        elif key in ("dns", "dns-search", "eap"):
            lists[name] = items(value)
        elif key in TEXTS:
            fields[name] = unescaped(value)
        else:
            raise KeyError(f"{name} is not compared")
    return fields | lists


def shown(connection, field):
    """What NetworkManager has for a field, in the form of wanted()."""
    if field == "802-11-wireless.ssid":
        return connection.ssid
    value = connection.fields.get(field, "")
    if field.endswith((".addresses", ".routes")):
        return value.split(", ") if value else []
    if field.endswith((".dns", ".dns-search", ".eap")):
        return value.split(",") if value else []
    return value


def check(name, keyfile, session):
    """One keyfile was accepted, with exactly its values."""
    assert name in session.accepted, f"{name}: {session.rejected.get(name)}\n{session.log}"
    connection = session.accepted[name]
    expected = wanted(keyfile)
    for field in ABSENT:
        listed = field.endswith((".addresses", ".routes", ".dns", ".eap"))
        expected.setdefault(field, [] if listed else "")
    for field, value in expected.items():
        found = shown(connection, field)
        if field.endswith((".addresses", ".dns")):
            value, found = addresses(value), addresses(found)
        # Not the values: they may be keys.
        secret = field.endswith((".psk", ".password"))
        assert found == value, f"{name}: {field} is {'another' if secret else repr(found)}, not {'' if secret else value}"
    assert connection.type == expected["connection.type"], (name, connection.type)
    check_key(name, expected)


def check_key(name, fields):
    """NetworkManager looks at a WPA key only when it joins the Wi-Fi (802.11 of 2016, J.4.1)."""
    if fields.get("802-11-wireless-security.key-mgmt") == "wpa-psk":
        key = fields["802-11-wireless-security.psk"]
        assert re.fullmatch(r"[ -~]{8,63}|[0-9A-Fa-f]{64}", key), f"{name}: its key is no WPA key"


def accepted(folder, files):
    assert files, "there are no keyfiles"
    session = networkmanager.run(folder, files, timeout=300)
    for name, keyfile in files.items():
        check(name, keyfile, session)
    print(f"    {len(files)} keyfiles, {session.version}")


def test_every_expected_keyfile_is_accepted_with_exactly_its_values(folder):
    files = keyfiles(pathlib.Path(os.environ.get("KEYFILES", OURS)))
    accepted(folder, files)


def test_keyfiles_written_by_hand_are_accepted_with_exactly_their_values(folder):
    files = keyfiles(BY_HAND)
    assert len(files) >= 7, files
    accepted(folder, files)


def test_a_broken_keyfile_is_rejected(folder):
    """Each, and beside them a whole one is accepted: the session itself is sound."""
    files = {path.stem: path.read_bytes() for path in sorted(BY_HAND.glob("*.broken"))}
    assert len(files) >= 15, files
    whole = (BY_HAND / "wifi-psk.keyfile").read_bytes()
    session = networkmanager.run(folder, files | {"whole": whole})
    check("whole", whole, session)
    wrongly = set(files) & set(session.accepted)
    assert not wrongly and set(session.rejected) == set(files), wrongly


def test_a_value_that_networkmanager_drops_in_silence_is_noticed(folder):
    """Such a keyfile is loaded all the same: a settings file for any interface instead of one, say."""
    head = b"[connection]\nid=x\ntype=ethernet\n\n"
    wifi = b"[connection]\nid=x\ntype=wifi\n\n[wifi]\nssid=x\n\n[wifi-security]\nkey-mgmt=wpa-psk\n"
    files = {
        "hardware-address": head + b"[ethernet]\nmac-address=b8:27:eb:12:34\n",
        "name-server": head + b"[ipv4]\nmethod=auto\ndns=192.168.7.1;router.example;\n",
        "family": head + b"[ipv4]\nmethod=auto\ndns=192.168.7.1;2001:db8::1;\n",
        "route": head + b"[ipv4]\nmethod=auto\nroute1=10.0.0.0/33,192.168.7.1\n",
        "short-key": wifi + b"psk=short\n",
    }
    session = networkmanager.run(folder, files)
    for name, keyfile in files.items():
        assert name in session.accepted, f"{name} is a case for *.broken now"
        try:
            check(name, keyfile, session)
        except (AssertionError, ValueError):
            continue
        raise RuntimeError(f"{name} went unnoticed")


def test_a_fixed_address_is_in_use_after_the_start(folder):
    """The keyfile is there before NetworkManager starts, as on the first boot of the new OS."""
    settle = """
    for n in $(seq 100); do
        ip -4 route show default | grep -q via && ip -6 addr show dev eth0 | grep -q 2001 && break
        sleep 0.1
    done
    ip -o addr show dev eth0; ip -o link show dev eth0; ip route; ip -6 route; cat /etc/resolv.conf
    """
    files = {"balena-ethernet-01": (BY_HAND / "ethernet-fixed.keyfile").read_bytes()}
    text = networkmanager.run(folder, files, settle).settled
    for part in ("inet 192.168.7.20/24", "inet 10.9.0.1/16", "inet6 2001:db8:5::40/64", "mtu 1400",
                 "default via 192.168.7.1 dev eth0", "10.0.0.0/8 via 192.168.7.254 dev eth0", "metric 50",
                 "192.168.99.0/24 dev eth0", "default via 2001:db8:5::1 dev eth0",
                 "nameserver 192.168.7.1", "nameserver 2001:db8::53", "plant.example"):
        assert part in text, f"{part} is not in\n{text}"


def test_default_routes_in_all_their_forms_are_in_use(folder):
    """What systemd-networkd says of a default route, as it is carried over: NetworkManager makes the way to a router that
    is not in the network of the address, and a default route without a router."""
    wanted = {
        "networkd-onlink-default": ["inet 203.0.113.77/32", "default via 10.0.0.1 dev eth0", "10.0.0.1 dev eth0"],
        "ifupdown-default-by-command": ["inet 203.0.113.77/32", "default via 10.0.0.1 dev eth0", "10.0.0.1 dev eth0"],
        "networkd-default-route-on-device": ["inet 10.0.0.5/32", "default dev eth0"],
        "two-metrics": ["inet 10.20.0.7/24", "default via 10.20.0.1 dev eth0 proto static metric 100"],
    }
    files = {}
    for place in ("roots", "networkd"):
        for name in wanted:
            path = OURS / place / f"{name}.expected"
            if path.exists():
                text = path.read_bytes().replace(b"id=balena-01", b"id=" + name.encode())
                files[name] = text[text.index(b"[connection]"):].replace(b"=eth7", b"=eth0")
    assert set(files) == set(wanted)
    settle = "".join(f"""
    echo "== {name}"
    nmcli -w 30 connection up id {name} >/dev/null
    for n in $(seq 100); do ip -4 route show default | grep -q default && break; sleep 0.1; done
    ip -o -4 addr show dev eth0; ip -4 route
    """ for name in wanted)
    text = networkmanager.run(folder, files, settle, timeout=300).settled
    for name, parts in wanted.items():
        part_of_it = text.split(f"== {name}\n")[1].split("==")[0]
        for part in parts:
            assert part in part_of_it, f"{name}: {part} is not in\n{part_of_it}"


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
