"""The programs that set networks on real devices, in namespaces of their own: systemd-networkd, ifupdown, dhcpcd,
NetworkManager and keepalived, each as Debian has it, and dnsmasq at the other end of the cable.

PID, mount, network, IPC and UTS namespaces: what runs inside sees one pair of virtual cables and nothing of this
machine, and all of it dies with the first process. The root is shared and stays as it is: an overlay takes the writes.
"""

import dataclasses
import json
import pathlib
import shutil

import private_root
import rootfs

_BUILD = pathlib.Path(__file__).resolve().parent / "build-networks-root.sh"

# Inside. Every wait has an end, and its failure is the script's.
_INNER = r"""
set -eE
trap 'echo "line $LINENO: $BASH_COMMAND" >&2; ip addr >&2; ip route >&2; tail -n 20 /run/*.log >&2' ERR
until_true() {
    local tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1)); [ $tries -lt 300 ] || { echo "never: $*" >&2; return 1; }; sleep 0.05
    done
}
has() { ip -o addr show dev "$1" | grep -q " $2.* scope global"; }
routed() { ip "-$1" route show default | grep -q .; }
# What is said of the state of this name: a page as JSON, the exit code, and what stands on standard error.
ask() {
    local code=0
    /job/takeover networks --json >"/job/said/$1.json" 2>"/job/said/$1.log" || code=$?
    echo "$code" >"/job/said/$1.code"
}
there() { nsenter --net=/proc/$other/ns/net "$@"; }
cable() {
    ip link add "$1" type veth peer name "$2"
    ip link set "$2" netns "$other"
    there ip link set "$2" up
}
# A server of DHCP at the other end, and more options of dnsmasq.
serve() {
    there dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --port=0 --interface=peer0 \
        --bind-interfaces --no-ping --dhcp-authoritative --dhcp-leasefile=/run/leases --log-facility=/run/dnsmasq.log \
        --dhcp-range=10.7.0.50,10.7.0.60,1h --dhcp-option=option:dns-server,10.7.0.53 "$@" &
    until_true grep -q started /run/dnsmasq.log
}
dbus() {
    mkdir -p /run/dbus
    dbus-daemon --system --nofork --nopidfile 2>/run/dbus.log &
    until_true test -S /run/dbus/system_bus_socket
}
networkd() {
    mkdir -p /run/systemd/netif/{links,leases,lldp} /run/systemd/resolve
    chown -R systemd-network: /run/systemd/netif
    chown systemd-resolve: /run/systemd/resolve
    ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
    /lib/systemd/systemd-networkd >/run/networkd.log 2>&1 &
    /lib/systemd/systemd-resolved >/run/resolved.log 2>&1 &
    until_true test -e /run/systemd/resolve/resolv.conf
}
manager() {
    chmod 600 /etc/NetworkManager/system-connections/*
    dbus
    NetworkManager --no-daemon --log-level=INFO >/run/manager.log 2>&1 &
    until_true nmcli -t general status
    nmcli device set eth0 managed yes
    nmcli --wait 20 connection up "$1" >/run/nmcli.log
}
mkdir -p /job/said /run/network
unshare --net sleep 1000 & other=$!
until_true eval '[ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]'
# An IPv6 address is usable at once.
for where in "" there; do $where sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'; done
ip link set lo up
cable eth0 peer0
there ip addr add 10.7.0.1/24 dev peer0
there ip addr add fd00:7::1/64 dev peer0
"""


@dataclasses.dataclass
class Said:
    """What `takeover networks` said of one state."""
    page: dict
    code: int
    #: What it wrote on standard error.
    log: str

    @property
    def reach(self):
        """The lines of the interfaces."""
        return self.page["reach"]["interfaces"]

    @property
    def warnings(self):
        return self.page["warnings"]["texts"]


def root():
    """The folder of a Debian root with all of them."""
    key = rootfs.key_of(rootfs.script_text(_BUILD))
    return rootfs.cached("networks", key, lambda path: rootfs.run("bash", _BUILD, path))


def run(folder, program, script, files=None, timeout=60):
    """Runs a script where the programs are, with files (path -> text) in place before; name of a state -> Said for each
    `ask NAME` in it. `program` is the takeover under test. Ends within `timeout` seconds or fails."""
    job = folder / "job"
    for part in (job, folder / "space"):
        part.mkdir()
    shutil.copy(program, job / "takeover")
    for path, text in (files or {}).items():
        file = job / "files" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    place = "[ ! -d /job/files ] || cp -r --no-preserve=ownership /job/files/. /\n"
    (job / "inner.sh").write_text(_INNER + place + script)
    done = private_root.run(root(), folder, timeout)
    assert done.returncode == 0, f"{done.returncode}:\n{done.stdout}"
    said = {}
    for path in sorted((job / "said").glob("*.json")):
        log = path.with_suffix(".log").read_text()
        assert path.stat().st_size > 0, log
        said[path.stem] = Said(json.loads(path.read_text()), int(path.with_suffix(".code").read_text()), log)
    return said
