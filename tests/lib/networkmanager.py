"""A real NetworkManager in namespaces of its own, and what it makes of keyfiles.

PID, mount, network, IPC and UTS namespaces: the NetworkManager inside sees one
pair of virtual cables and nothing of this machine, and all of it dies with the
first process. The root is shared and stays as it is: an overlay takes the writes.
"""

import dataclasses
import pathlib
import re
import shutil

import private_root
import rootfs

_BUILD = pathlib.Path(__file__).resolve().parent / "build-networkmanager-root.sh"

CONNECTIONS = "/etc/NetworkManager/system-connections"

# Inside. The keyfiles are there before NetworkManager starts, as on a device that boots.
_INNER = f"""
set -u
ask() {{
    object=$1 method=$2
    shift 2
    dbus-send --system --print-reply --dest=org.freedesktop.NetworkManager "$object" \\
        "org.freedesktop.NetworkManager.Settings.Connection.$method" "$@"
}}
ip link set lo up
ip link add eth0 type veth peer name peer0
ip link set peer0 up
cp /job/keyfiles/* {CONNECTIONS}/
chown root:root {CONNECTIONS}/*
chmod 600 {CONNECTIONS}/*
mkdir -p /run/dbus
dbus-daemon --system --nofork --nopidfile 2>/job/dbus.log &
tries=0
until [ -S /run/dbus/system_bus_socket ]; do
    tries=$((tries + 1)); [ $tries -lt 200 ] || exit 1; sleep 0.05
done
NetworkManager --no-daemon --log-level=INFO >/job/log 2>&1 &
tries=0
until nmcli -t general status >/dev/null 2>&1; do
    tries=$((tries + 1)); [ $tries -lt 200 ] || exit 2; sleep 0.05
done
# All in one call each: every nmcli reads all connections before it does anything.
nmcli connection load {CONNECTIONS}/* >/job/load 2>&1
[ ! -e /job/settle ] || sh /job/settle >/job/settled 2>&1
nmcli -t -e no -f UUID,TYPE,DBUS-PATH,FILENAME connection show >/job/connections
if [ -e /job/values ]; then
    # No UUID has a blank.
    nmcli -t -e no -f all connection show $(cut -d: -f1 /job/connections | sed 's/^/uuid /') >/job/fields 2>&1
    while IFS=: read -r uuid _ object path; do
        name=${{path##*/}}
        ask "$object" GetSettings >"/job/out/$name.dbus" 2>&1
        # Not by nmcli -s: on a busy machine it leaves out secrets without a word.
        for setting in 802-11-wireless-security 802-1x; do
            ! grep -q "\"$setting\"" "/job/out/$name.dbus" ||
                ask "$object" GetSecrets "string:$setting" >"/job/out/$name.$setting" 2>&1
        done
    done </job/connections
fi
nmcli --version >/job/version
"""


@dataclasses.dataclass
class Connection:
    """What NetworkManager has made of a keyfile."""
    type: str
    #: nmcli's name of a setting -> its value, secrets included.
    fields: dict
    #: The name of a Wi-Fi, byte for byte; None when it is no Wi-Fi.
    ssid: bytes | None


@dataclasses.dataclass
class Session:
    """What came of a folder of keyfiles."""
    #: File name -> Connection, for those that were accepted.
    accepted: dict
    #: File name -> what nmcli said, for those that were not.
    rejected: dict
    #: What `settle` wrote.
    settled: str
    log: str
    version: str


def root():
    """The folder of a Debian root with NetworkManager."""
    key = rootfs.key_of(rootfs.script_text(_BUILD))
    return rootfs.cached("networkmanager", key, lambda path: rootfs.run("bash", _BUILD, path))


def run(folder, keyfiles, settle="", timeout=60, programs=None, values=True):
    """Starts NetworkManager with keyfiles (file name -> bytes), loads each of them by nmcli, too, runs the shell text
    `settle` in the same namespaces, with `programs` (name -> path) in /job, and tells what has become of each: with its
    settings, unless `values` is false. Ends within `timeout` seconds or fails."""
    job = folder / "job"
    for part in (job / "keyfiles", job / "out", folder / "space"):
        part.mkdir(parents=True)
    for name, content in keyfiles.items():
        (job / "keyfiles" / name).write_bytes(content)
    for name, program in (programs or {}).items():
        shutil.copy(program, job / name)
    (job / "inner.sh").write_text(_INNER)
    if values:
        (job / "values").touch()
    if settle:
        (job / "settle").write_text(settle)
    done = private_root.run(root(), folder, timeout)
    log = _text(job / "log")
    assert done.returncode == 0, f"NetworkManager did not come up ({done.returncode}):\n{done.stdout}\n{log}"
    return _collect(job, keyfiles, log)


def _text(path):
    return path.read_text(errors="surrogateescape") if path.exists() else ""


def _collect(job, keyfiles, log):
    types, fields_of = {}, _fields(_text(job / "fields"))
    uuids = {}
    for line in _text(job / "connections").splitlines():
        own, kind, _, path = line.split(":", 3)
        if path.startswith(CONNECTIONS + "/"):
            name = path.removeprefix(CONNECTIONS + "/")
            types[name], uuids[name] = kind, own
    said = _text(job / "load")
    accepted, rejected = {}, {}
    for name in keyfiles:
        if name not in types or f"{CONNECTIONS}/{name}'" in said:
            lines = [line for line in said.splitlines() if f"/{name}'" in line]
            rejected[name] = f"nmcli: {lines or 'nothing'}"
            continue
        fields = fields_of.get(uuids[name], {})
        for setting in ("802-11-wireless-security", "802-1x"):
            secrets = re.findall(r'string "(\S+)"\n\s*variant\s+string "(.*)"\n',
                                 _text(job / "out" / f"{name}.{setting}"))
            fields.update({f"{setting}.{key}": value for key, value in secrets})
        accepted[name] = Connection(types[name], fields, ssid_of(_text(job / "out" / f"{name}.dbus")))
    return Session(accepted, rejected, _text(job / "settled"), log, _text(job / "version").strip())


def _fields(text):
    """What nmcli shows of connections: UUID -> fields."""
    found = {}
    for part in re.split("(?m)^(?=connection.id:)", text):
        # A line feed in an SSID is printed as it is.
        fields = dict(line.split(":", 1) for line in part.split("\n") if ":" in line)
        # So nmcli shows secrets, whether there are any or not.
        fields = {key: "" if value == "<hidden>" else value for key, value in fields.items()}
        if "connection.uuid" in fields:
            found[fields["connection.uuid"]] = fields
    return found


def ssid_of(reply):
    """The SSID in what dbus-send prints of GetSettings: text in quotes, or bytes in hex over several lines."""
    found = re.search(r'string "ssid"\s+variant\s+array of bytes (?:"(.*)"(?: \+ \\0)?$|\[([0-9a-f\s]*)\])', reply, re.M)
    if not found:
        return None
    text, digits = found.groups()
    return text.encode("utf-8", "surrogateescape") if text is not None else bytes.fromhex(digits)
