#!/usr/bin/env python3
"""`takeover networks` in network namespaces, beside real programs: settings, what is in force, and what is said of both.

Each namespace has one pair of virtual cables, eth0 and peer0, and an /etc of its own.
"""

import json
import os
import pathlib
import stat
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
import leftovers  # noqa: E402
import networkmanager  # noqa: E402
import runner  # noqa: E402

TAKEOVER = runner.program()
FIXED = "auto eth0\niface eth0 inet static\n  address 10.7.0.5\n  netmask 255.255.255.0\n  gateway 10.7.0.1\n  dns-nameservers 10.7.0.1\n"

# $TAKEOVER and $JOB are in the environment. Nothing of this machine's settings is seen, nor changed.
ENTER = r"""
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/lib
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /etc
rm -rf /etc/network /etc/systemd/network /etc/netplan /etc/NetworkManager /etc/wpa_supplicant /etc/dhcpcd.conf
mkdir -p /etc/network/if-up.d /etc/network/if-pre-up.d
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib/dhcp 2>/dev/null || true
mount -t sysfs sysfs /sys
mount -t proc proc /proc
ip link set lo up
unshare --net sleep 100 & other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
cable() {
    ip link add "$1" type veth peer name "$2"
    ip link set "$2" netns $other
    there ip link set "$2" up
}
there() { nsenter --net=/proc/$other/ns/net "$@"; }
cable eth0 peer0
there ip addr add 10.7.0.1/24 dev peer0
networks() {
    local code=0
    "$TAKEOVER" networks "$@" 2>/run/said || code=$?
    echo $code >/run/code
    cat /run/said >&2
}
"""


def shell(folder, script, files=None):
    """Runs a script in a namespace, and gives what it printed; what it said on standard error is part of a failure."""
    for name, content in (files or {}).items():
        (folder / name).write_text(content)
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "bash", "-c",
         ENTER + script],
        env={"PATH": os.environ["PATH"], "TAKEOVER": str(TAKEOVER), "JOB": str(folder), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, preexec_fn=leftovers.die_with_parent)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


# Prints the page as JSON, then the exit code, one a line.
ASK = "networks --json; cat /run/code\n"


def answers(output):
    """(page, exit code) of each ASK."""
    lines = output.splitlines()
    return [(json.loads(page), int(code)) for page, code in zip(lines[::2], lines[1::2], strict=True)]


def reach(page):
    return page["reach"]["interfaces"]


def test_what_ifup_has_set_is_the_same_until_a_hand_changes_it(folder):
    output, said = shell(folder, f"""
cp "$JOB/interfaces" /etc/network/interfaces
busybox ifup eth0
{ASK}
ip addr add 10.8.0.9/24 dev eth0
{ASK}
ip addr del 10.8.0.9/24 dev eth0
ip route replace default via 10.7.0.2
{ASK}
ip route replace default via 10.7.0.1
ip route add 172.16.0.0/12 via 10.7.0.3
{ASK}
ip route del 172.16.0.0/12
sed -i s/10.7.0.5/10.7.0.6/ /etc/network/interfaces
{ASK}
""", {"interfaces": FIXED})
    (same, code), *changed = answers(output)
    assert reach(same) == ["eth0: 10.7.0.5/24 via 10.7.0.1, as now (the way in)"] and code == 0, (same, said)
    for (page, code), words in zip(changed, [
            "the new OS will have 10.7.0.5/24 and not 10.8.0.9/24 there",
            "the new OS will have the router 10.7.0.1 there",
            "the new OS will not have the route to 172.16.0.0/12 via 10.7.0.3",
            "the new OS will have 10.7.0.6/24 and not 10.7.0.5/24 there"], strict=True):
        assert code == 3 and words in reach(page)[0], (code, page, words)
        assert words in said and "--no-nwmgr-check" in said, said


def test_an_address_that_a_script_has_set_is_taken_from_what_is_in_force(folder):
    output, said = shell(folder, f"""
ip link set eth0 up
ip addr add 10.7.0.5/24 dev eth0
ip route add default via 10.7.0.1
ip -6 addr add fd00:7::5/64 dev eth0
{ASK}
networks --output "$JOB/out" >/dev/null
""")
    (page, code), = answers(output)
    assert code == 0 and reach(page) == [
        "eth0: 10.7.0.5/24, fd00:7::5/64 via 10.7.0.1, taken from what is in force (the way in)"], (page, said)
    keyfile = folder / "out/balena-in-force-01"
    assert stat.S_IMODE(keyfile.stat().st_mode) == 0o600
    text = keyfile.read_text()
    for line in ("interface-name=eth0", "method=manual", "address1=10.7.0.5/24,10.7.0.1", "address1=fd00:7::5/64"):
        assert f"\n{line}\n" in text, text


def test_a_way_out_stays_or_is_refused(folder):
    """Only rules lead to it, it goes by a router of IPv6, or another one is preferred."""
    output, said = shell(folder, f"""
ip link set eth0 up
ip addr add 10.7.0.5/24 dev eth0
ip rule add from 10.7.0.5 table 100
ip route add default via 10.7.0.1 table 100
export SSH_CONNECTION="192.0.2.9 50000 10.7.0.5 22"
{ASK}
ip -4 route add default via inet6 fe80::1 dev eth0
{ASK}
ip route del default
cp "$JOB/interfaces" /etc/network/interfaces
cable eth1 peer1
ip link set eth1 up
ip addr add 10.9.0.5/24 dev eth1
ip route add default via 10.7.0.1
{ASK}
ip route add default via 10.9.0.1 metric 50
{ASK}
""", {"interfaces": FIXED + "auto eth1\niface eth1 inet static\n  address 10.9.0.5/24\n  gateway 10.9.0.1\n  metric 50\n"})
    (by_rule, code), (other_family, refused), (another, second), (both, third) = answers(output)
    assert code == 0 and reach(by_rule)[0].startswith("eth0: 10.7.0.5/24 via 10.7.0.1, taken from"), (by_rule, said)
    assert refused == 3 and "its default route is lost" in reach(other_family)[0], (other_family, said)
    words = "eth1: the new OS will prefer its router to the one that is preferred now"
    for page, code in ((another, second), (both, third)):
        assert code == 3 and words in page["warnings"]["texts"], (code, page)


def test_a_lease_without_a_lifetime_is_no_fixed_address(folder):
    """busybox's udhcpc and its script set the address as they do on small devices: for ever, as far as the kernel knows."""
    output, said = shell(folder, f"""
ip link set eth0 up
mkdir -p /run/leases
cat >/run/udhcpd.conf <<EOF
start 10.7.0.50
end 10.7.0.60
interface peer0
lease_file /run/leases/list
pidfile /run/udhcpd.pid
option subnet 255.255.255.0
option router 10.7.0.1
EOF
touch /run/leases/list
there busybox udhcpd -f /run/udhcpd.conf >/run/udhcpd.log 2>&1 &
cat >/run/script <<'EOF'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
EOF
chmod 755 /run/script
ln -s /bin/busybox /run/udhcpc
/run/udhcpc -i eth0 -s /run/script -p /run/udhcpc.pid -t 20 -T 1 -n >/run/udhcpc.log 2>&1 || cat /run/udhcpc.log >&2
{ASK}
# It has a process of its own from when it goes into the background: a moment after the one that we started has ended.
until client=$(cat /run/udhcpc.pid) && [ -d "/proc/$client" ]; do sleep 0.05; done
kill $client
while [ -d /proc/$client ]; do sleep 0.05; done
{ASK}
""")
    (leased, code), (orphaned, _) = answers(output)
    assert code == 0 and reach(leased)[0].endswith("/24 via 10.7.0.1, by DHCP, as now (the way in)"), (leased, said)
    assert reach(orphaned)[0].endswith(", taken from what is in force (the way in)"), orphaned


def test_the_way_in_is_that_of_the_connection_also_through_sudo(folder):
    """A second cable without a default route, by which somebody is logged in."""
    output, said = shell(folder, f"""
cp "$JOB/interfaces" /etc/network/interfaces
busybox ifup eth0
cable eth1 peer1
ip link set eth1 up
ip addr add 10.9.0.5/24 dev eth1
printf '[connection]\\nid=other\\ntype=ethernet\\ninterface-name=eth1\\n[ipv4]\\nmethod=manual\\naddress1=10.9.0.6/24\\n' >/run/other
ask() {{ SSH_CONNECTION="$1" sh -c 'env -i PATH="$PATH" "$0" networks --json --nwmgr-cfg /run/other 2>&3; echo $?' "$TAKEOVER" 3>&2; }}
ask "10.7.0.9 50000 10.7.0.5 22"
ask "10.9.0.9 50000 10.9.0.5 22"
""", {"interfaces": FIXED})
    (by_first, allowed), (by_second, refused) = answers(output)
    assert allowed == 0 and reach(by_first)[0].endswith("as now (the way in, from 10.7.0.9)"), (by_first, said)
    assert "10.9.0.6/24 and not 10.9.0.5/24" in reach(by_first)[1]
    assert any("10.9.0.6/24" in text for text in by_first["warnings"]["texts"])
    assert refused == 3 and reach(by_second)[1].endswith("(the way in, from 10.9.0.9)"), by_second


def test_another_systems_networks_are_shown_without_their_secrets(folder):
    root = folder / "root"
    (root / "etc/NetworkManager/system-connections").mkdir(parents=True)
    (root / "etc/NetworkManager/system-connections/site").write_text(
        "[connection]\nid=site\ntype=wifi\n[wifi]\nssid=site\n[wifi-security]\nkey-mgmt=wpa-psk\npsk=bricksandmortar\n"
        "[vpn-secrets] \nanything=bricksandmortar\n [vpn-secrets]\r\nmore=bricksandmortar\n")
    run = lambda *words: subprocess.run([TAKEOVER, "networks", *words], capture_output=True, text=True,
                                        stdin=subprocess.DEVNULL)
    done = run("--root", root)
    assert done.returncode == 0, done
    assert "ssid=site" in done.stdout and "psk=(hidden)" in done.stdout, done.stdout
    assert "bricksandmortar" not in done.stdout + done.stderr and "anything=(hidden)" in done.stdout, done
    page = json.loads(run("--root", root, "--json").stdout)
    assert page["networks"]["names"] == ["site (system-connections/balena-wifi-01)"] and reach(page) == []
    done = run("--root", root, "--output", folder / "out")
    assert "bricksandmortar" not in done.stdout + done.stderr
    assert "psk=bricksandmortar" in (folder / "out/balena-wifi-01").read_text()
    again = run("--root", root, "--output", folder / "out")
    assert again.returncode == 1 and "name a folder that is empty" in again.stderr, again
    done = run("--root", folder / "nowhere")
    assert done.returncode == 3 and "opening the root" in done.stderr, done
    for words in (["-i", "x"], ["-f", "/dev/null"]):
        assert run(*words).returncode == 2


def test_what_would_be_refused_is_shown_and_then_refused(folder):
    root = folder / "root"
    (root / "etc/NetworkManager/system-connections").mkdir(parents=True)
    (root / "etc/NetworkManager/system-connections/work").write_text(
        "[connection]\nid=work\ntype=wifi\n[wifi]\nssid=work\n[wifi-security]\nkey-mgmt=wpa-eap\n"
        "[802-1x]\neap=tls;\nidentity=me\nclient-cert=/etc/ssl/me.pem\nprivate-key=/etc/ssl/me.key\n")
    done = subprocess.run([TAKEOVER, "networks", "--root", root], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 3 and "certificate files" in done.stderr, done
    assert "certificate files" in done.stdout, done.stdout


def test_networkmanager_sets_what_is_then_said_to_be_the_same(folder):
    keyfile = (b"[connection]\nid=fixed\nuuid=6d1f6f2e-0000-4000-8000-000000000001\ntype=ethernet\ninterface-name=eth0\n"
               b"[ipv4]\nmethod=manual\naddress1=10.7.0.5/24,10.7.0.1\nroute1=172.16.0.0/12,10.7.0.3\n[ipv6]\nmethod=disabled\n")
    settle = """
nmcli device set eth0 managed yes
nmcli --wait 20 connection up fixed
/job/takeover networks --json
echo $?
ip addr add 10.8.0.9/24 dev eth0
/job/takeover networks --json
echo $?
"""
    session = networkmanager.run(folder, {"fixed": keyfile}, settle, programs={"takeover": TAKEOVER})
    lines = [line for line in session.settled.splitlines() if line.startswith("{") or line.isdigit()]
    (same, code), (changed, refused) = answers("\n".join(lines))
    assert reach(same) == ["eth0: 10.7.0.5/24 via 10.7.0.1, as now (the way in)"] and code == 0, session.settled
    assert "and not 10.8.0.9/24 there" in reach(changed)[0] and refused == 3, session.settled


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
