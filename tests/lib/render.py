"""Runs inside the root of renderers.py, not on this machine: has the network settings in /job/cases written by
netplan's generator and by cloud-init, each way below /job/out/CASE/WAY, as a root of its own.

The name of a case's file says which of them are meant: CASE.yaml, and beside it CASE.ways with their names.
"""

import pathlib
import subprocess
import traceback

import yaml
from cloudinit import distros
from cloudinit.net import eni, network_manager, network_state, networkd

JOB = pathlib.Path("/job")
NETPLAN = "/usr/libexec/netplan/generate"
CLOUD = {"cloud-networkd": networkd, "cloud-manager": network_manager, "cloud-eni": eni}
BACKENDS = {"netplan-networkd": "networkd", "netplan-manager": "NetworkManager"}


def netplan(case, backend, target):
    """As netplan does at boot: the settings from /etc/netplan become files in /run."""
    folder = target / "etc/netplan"
    folder.mkdir(parents=True)
    path = folder / "50-case.yaml"
    path.write_text(yaml.safe_dump({"network": dict(case, renderer=backend)}, sort_keys=False))
    path.chmod(0o600)
    subprocess.run([NETPLAN, "--root-dir", target], check=True, capture_output=True, text=True)


def cloud(case, way, target):
    """As cloud-init does at boot, for Debian."""
    distro = distros.fetch("debian")("debian", {}, None)
    kind = way.removeprefix("cloud-").replace("manager", "network-manager")
    renderer = CLOUD[way].Renderer(config=distro.renderer_configs.get(kind))
    state = network_state.parse_net_config_data(case, renderer=renderer)
    target.mkdir(parents=True)
    renderer.render_network_state(network_state=state, target=f"{target}/")
    if way == "cloud-eni":
        # What the images of Debian have.
        (target / "etc/network/interfaces").write_text("source-directory /etc/network/interfaces.d\n")


def render(path, way):
    case = yaml.safe_load(path.read_text())
    target = JOB / "out" / path.stem / way
    if way in BACKENDS:
        netplan(case, BACKENDS[way], target)
    else:
        cloud(case, way, target)


def refuse(path, way, why):
    target = JOB / "out" / path.stem
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{way}.refused").write_text(why)


for path in sorted(JOB.glob("cases/*.yaml")):
    for way in path.with_suffix(".ways").read_text().split():
        try:
            render(path, way)
        except subprocess.CalledProcessError as error:
            refuse(path, way, f"{error}\n{error.stderr}")
        except Exception:
            refuse(path, way, traceback.format_exc())
