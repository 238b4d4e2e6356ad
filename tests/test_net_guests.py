#!/usr/bin/env python3
"""Whole takeovers and flashes in guests whose network reaches the servers of the tests and nothing else."""

import gzip
import hashlib
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
sys.path.insert(0, str(HERE))
import balena_image  # noqa: E402
import chains  # noqa: E402
import client  # noqa: E402
import rootfs  # noqa: E402
import runner  # noqa: E402
import test_api  # noqa: E402
import test_arm_guests  # noqa: E402
import test_guests  # noqa: E402
import test_rescue_guests  # noqa: E402
import user_net  # noqa: E402
from api import KEY, Api, large, VERSIONS  # noqa: E402
from guest import Guest, boot_files, new_disk  # noqa: E402
from servers import Nginx, Tinyproxy  # noqa: E402

MIB = 1 << 20
API_NAME, VPN_NAME = "api.example.com", "cloudlink.example.com"
COMMAND = "cp /job/takeover /usr/local/bin/ && takeover -c /job/config.json -w /root --no-ack --report-hup-progress"


def chain_for(folder, name):
    """A certificate for one name, signed by an authority that only the tests know."""
    maker = chains.Maker(folder / "chains")
    root = maker.certificate("/O=Tests/CN=Root of the tests", chains.CA, maker.key("rsa2048", 1))
    server = maker.certificate("/CN=a server", chains.LEAF + chains.names(name), maker.key("p256"), root)
    return maker.chain("api", server, [], root, host=name)


def take_over(folder, kind, image="small", program=None, options="", memory=256):
    """`takeover -c config.json`: the version is chosen, the image downloaded and taken over, the outcome reported by
    stage 2 and seen by the server."""
    chain = chain_for(folder, API_NAME)
    with Api((chain.certificates, chain.key), balena_image.gz(image), slug=balena_image.slug(image),
             size=balena_image.image(image).stat().st_size) as api:
        api.releases = large(VERSIONS)
        config = api.config(chain.ca, name=API_NAME, port=443, vpn=VPN_NAME, vpn_port=443, key="deviceApiKey", apiKey=KEY,
                            hostname="guest")
        hosts = {API_NAME: user_net.SERVER, VPN_NAME: user_net.SECOND}
        script = f"{user_net.with_networkd(hosts)}\n{COMMAND} {options}; echo EXIT $?\n"
        files = {"run.sh": script.encode(), "takeover": program or test_guests.TAKEOVER, "config.json": config}
        network = user_net.arguments(kind, {(user_net.SERVER, 443): api.port, (user_net.SECOND, 443): api.vpn.port})
        with Guest(kind, [new_disk(kind, folder)], files=files, memory=memory, timeout=900, qemu_args=network,
                   fail_on=f"{test_guests.REFUSED}|EXIT [1-9]") as guest:
            guest.wait_for("inet 10.0.2.15/24", 300)
            guest.wait_for(r"5\.1\.20\+rev3", 120)
            guest.wait_for("PID 1 is handed over", 300)
            test_guests.check_boot(guest, config, wait=400)
            check_disk(folder, image, config)
            test_guests.check_result(guest, "done")
            found = [secret for secret in client.SECRETS if secret in guest.text()]
            assert not found, found
            seen = (api.patches(), guest.tail(60))
        check_requests(api, seen)


def check_disk(folder, image, config):
    """The image with config.json in it, and the keyfile of the address that was in force."""
    boot = balena_image.partition(image, "resin-boot")
    keyfiles = {name: content for name, content in boot_files(folder / "disk.img", boot.start).items()
                if name.startswith("system-connections/") and not name.endswith(".ignore")}
    assert any(b"10.0.2.15" in content for content in keyfiles.values()), keyfiles
    test_guests.check_disk(folder, image, config, keyfiles)


def check_requests(api, seen):
    assert not api.complaints, api.complaints
    assert api.asked("/ping$") and api.vpn.connections >= 1, api.requests
    assert test_api.version_asked_for(api) == "5.1.20+rev3"
    patches = api.patches()
    assert test_api.REPORTED in patches and test_api.FAILED not in patches, seen
    cleared = [patch for patch in patches if "os_version" in patch]
    assert len(cleared) == 1 and all(cleared[0][field] is None for field in test_api.NEW_FIELDS), seen
    # Reported last of all, once it is so.
    last = max(request.time for request in api.asked("", "GET"))
    assert all(request.time > last for request in api.asked("", "PATCH")), api.requests


def test_config_json_alone_takes_a_pc_over(folder):
    take_over(folder, "systemd", program=test_arm_guests.program("X86_64"))


def test_config_json_alone_takes_an_arm64_machine_over(folder):
    take_over(folder, "arm64", "raspberrypi3-64", test_arm_guests.program("AARCH64"), "--no-dt-check")


# ------------------------------------------------------------------------- a way in that no reader knows

# What RHEL has, and a script that does the same: neither is read.
BY_HAND = f"""
modprobe virtio_net
mkdir -p /etc/sysconfig/network-scripts
cat >/etc/sysconfig/network-scripts/ifcfg-eth0 <<EOF
DEVICE=eth0
BOOTPROTO=none
IPADDR=10.0.2.15
PREFIX=24
GATEWAY={user_net.GATEWAY}
EOF
for try in $(seq 300); do [ -e /sys/class/net/eth0 ] && break; sleep 0.1; done
busybox ip link set eth0 up
busybox ip addr add {user_net.ADDRESS} dev eth0
busybox ip route add default via {user_net.GATEWAY}
"""
ELSEWHERE = "[connection]\\nid=other\\ntype=ethernet\\ninterface-name=eth0\\n[ipv4]\\nmethod=manual\\naddress1=10.0.2.77/24,10.0.2.2\\n"


def test_an_address_that_a_script_has_set_is_that_of_the_new_os(folder):
    """First with a keyfile by which the device would be lost, which is refused."""
    script = f"""{BY_HAND}
printf '{ELSEWHERE}' >/root/other
{test_guests.COMMAND} --nwmgr-cfg /root/other; echo LOST $?
{test_guests.COMMAND}; echo EXIT $?
"""
    files = test_guests.job(balena_image.gz("small"), script)
    with Guest("systemd", [new_disk("systemd", folder)], files=files, memory=256, timeout=600,
               qemu_args=user_net.arguments("systemd", {}), fail_on="EXIT [1-9]") as guest:
        # With an address that QEMU's router advertises, where it came in time.
        guest.wait_for("eth0: has 10.0.2.15/24.* via 10.0.2.2 now, "
                       "the new OS will have 10.0.2.77/24 and not 10.0.2.15/24 there", 300)
        guest.wait_for("LOST 3", 60)
        guest.wait_for("eth0: 10.0.2.15/24 via 10.0.2.2, taken from what is in force", 60)
        guest.wait_for("PID 1 is handed over", 120)
        guest.wait_for("NEWOS: eth0 has 10.0.2.15/24, its router 10.0.2.2 is there", 300)
        guest.wait_exit(60)


# ------------------------------------------------------------------------- a device without a clock

def test_a_clock_that_is_before_the_program_is_said_with_what_day_it_is(folder):
    """As a device without a battery starts: no certificate is valid yet, directly and through a proxy. The right clock is
    all that was wrong."""
    chain = chain_for(folder, API_NAME)
    (folder / "more").mkdir()
    of_address = chains.make(folder / "more")["address"]
    files = folder / "files"
    files.mkdir()
    (files / "image.gz").write_bytes(client.pack(client.make_image(2 * MIB)))
    folder.chmod(0o755)
    password, today = ("joe", "sEcReTpass"), time.strftime("%Y-%m-%d", time.gmtime())
    with Nginx(folder, files, (chain.certificates, chain.key), more={"address": (
            of_address.certificates, of_address.key, "TLSv1.2 TLSv1.3")}) as server, Tinyproxy(folder, password) as proxy:
        behind = f"https://127.0.0.1:{server.secure_ports['address']}/image.gz"
        through = f"https_proxy=http://{':'.join(password)}@{user_net.SECOND}:3128"
        scans = [f"{before} /job/takeover scan --log-level trace {url} --ca-cert /job/{ca}; echo EXIT {name}"
                 for name, before, url, ca in (("direct", "", f"https://{API_NAME}/image.gz", "ca.pem"),
                                               ("proxy", through, behind, "ca-address.pem"))]
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        script = user_net.with_networkd({API_NAME: user_net.SERVER}) + "date -u -s 2001-02-03\necho BEGIN\n" \
            + "".join(f"{command} $?\n" for command in scans) + f"date -u -s '{now}'\n" \
            + "".join(f"{command} again $?\n" for command in scans)
        network = user_net.arguments("systemd", {
            (user_net.SERVER, 80): server.port, (user_net.SERVER, 443): server.tls_port, (user_net.SECOND, 3128): proxy.port})
        files = {"run.sh": script.encode(), "takeover": test_guests.TAKEOVER, "ca.pem": chain.ca.read_bytes(),
                 "ca-address.pem": of_address.ca.read_bytes()}
        with Guest("systemd", [new_disk("systemd", folder)], files=files, memory=256, timeout=400, qemu_args=network) as guest:
            guest.wait_for(r"EXIT proxy again \d", 380)
            text = guest.text().split("BEGIN")[-1]
    assert "sEcReT" not in text, text
    parts = re.split(r"EXIT (direct|proxy) (again )?(\d+)", text)
    assert parts[3::4] == ["3", "3", "0", "0"] or parts[3::4] == ["1", "1", "0", "0"], text
    for said, who in ((parts[0], API_NAME), (parts[4], f"the proxy {user_net.SECOND}")):
        assert re.search(r"its certificate is not valid before \d{4}-\d\d-\d\d, but the clock here is wrong: it says "
                         r"2001-02-03, and this program is of \d{4}-\d\d-\d\d", said), said
        assert f"{who} says that today is {today} (Date)" in said, said


def test_a_kernel_without_random_numbers_is_not_waited_for_in_silence(folder):
    """A rescue system with an old kernel and no disk: what gathers them elsewhere is not there."""
    chain = chain_for(folder, API_NAME)
    files = folder / "files"
    files.mkdir()
    folder.chmod(0o755)
    with Nginx(folder, files, (chain.certificates, chain.key)) as server:
        job = f"echo '{user_net.SERVER} {API_NAME}' >/etc/hosts\n" \
              f"takeover scan https://{API_NAME}/nothing --ca-cert /ca.pem\necho EXIT $?\n"
        initrd = user_net.rescue_initrd(folder / "initrd", {
            "job.sh": job.encode(), "bin/takeover": test_guests.TAKEOVER, "ca.pem": chain.ca.read_bytes()})
        network = user_net.arguments("xenial", {(user_net.SERVER, 443): server.tls_port})
        with Guest("xenial", [new_disk("xenial", folder)], memory=96, smp=1, timeout=200,
                   qemu_args=[*network, "-initrd", initrd]) as guest:
            code = guest.wait_for(r"EXIT (\d)", 150)[1]
            text = guest.text()
    # Where the kernel has found some after all, the server is asked.
    assert (code, "the kernel has no random numbers yet" in text) == ("3", True) or "HTTP 404" in text, text


# ------------------------------------------------------------------------- flash from a server

def gibibyte():
    """An image of 1 GiB, packed: a third of it does not pack, a third packs well, a third is zeros; in no order."""
    def build(path):
        chance = random.Random(64)
        words = chance.randbytes(1 << 16)
        with open(path, "wb") as target, subprocess.Popen(
                ["pigz", "-1", "-n", "-c"], stdin=subprocess.PIPE, stdout=target) as packer:
            for piece in range(1024):
                kind = chance.choice(("random", "words", "words", "zeros", "zeros", "zeros", "words", "zeros"))
                block = chance.randbytes(MIB) if kind == "random" else bytes(MIB) if kind == "zeros" else \
                    b"".join(words[at:at + 512] for at in (chance.randrange(1 << 16) for _ in range(2048)))
                block = block.ljust(MIB, b"\0")[:MIB]
                if piece == 0:
                    block = balena_image.BOOT_CODE + bytes(442) + struct.pack("<B3xB3xII48xBB", 0x80, 0x83, 2048,
                                                                              2048 * 1023, 0x55, 0xaa) + bytes(MIB - 512)
                packer.stdin.write(block)
            packer.stdin.close()
            assert packer.wait() == 0
    key = rootfs.key_of("gibibyte", 1)
    return rootfs.cached("gibibyte", key, build, ".img.gz")


def check_first_bytes(disk, packed):
    """The disk begins with what is packed there."""
    with open(disk, "rb") as found, gzip.open(packed) as wanted:
        position = 0
        while block := wanted.read(4 * MIB):
            assert found.read(len(block)) == block, f"another content between {position} and {position + len(block)}"
            position += len(block)
    return position


def test_a_gibibyte_is_flashed_from_nginx_with_64_mb_of_memory(folder):
    """A rescue system in memory, and nowhere to put an image. Ubuntu's old kernel: Debian's takes 37 MB for itself, and
    does not start with 64."""
    image = gibibyte()
    files = folder / "files"
    files.mkdir()
    (files / "image.gz").symlink_to(image)
    disk = folder / "disk.img"
    rootfs.make_file(disk, 1228 * MIB)
    with Nginx(folder, files) as server:
        job = f"free -k; takeover flash -i http://{user_net.SERVER}/image.gz -f /dev/vda --no-ack; echo EXIT $?; " \
              "free -k; sync\n"
        initrd = user_net.rescue_initrd(folder / "initrd", {"job.sh": job.encode(), "bin/takeover": test_guests.TAKEOVER})
        network = user_net.arguments("xenial", {(user_net.SERVER, 80): server.port})
        with Guest("xenial", [disk], memory=64, smp=1, timeout=1500, fail_on=f"{test_guests.REFUSED}|Out of memory|EXIT [1-9]",
                   qemu_args=[*network, "-initrd", initrd]) as guest:
            total = int(guest.wait_for(r"Mem: +(\d+)", 120)[1])
            assert total < 64 * 1024, total
            guest.wait_for("EXIT 0", 1400)
            guest.wait_exit(60)
            print("    " + next((line.text for line in guest.lines if line.text.startswith('{"outcome"')), "")[:300])
        assert check_first_bytes(disk, image) == 1024 * MIB
        # Twice by ranges: scanned, and flashed.
        sent = sum(request.sent for request in server.requests())
        length = image.stat().st_size
        assert 2 * length <= sent < 2.2 * length + 4 * MIB, (length, server.requests())


# What the kernel's own ip= would do, which neither Debian's kernels nor Ubuntu's have (CONFIG_IP_PNP); then PID 1 is the
# program.
NETWORK_FIRST = f"""#!/bin/busybox sh
PATH=/bin
mkdir -p /dev /proc /sys
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
busybox ip link set lo up
busybox ip link set eth0 up
busybox ip addr add {user_net.ADDRESS} dev eth0
exec takeover </dev/console >/dev/console 2>&1
"""


def test_the_init_of_a_rescue_system_takes_its_image_from_a_server(folder):
    image, packed = balena_image.image("small"), balena_image.gz("small")
    config = test_guests.config_for("small")
    files = folder / "files"
    files.mkdir()
    (files / "image.gz").symlink_to(packed)
    disk = test_rescue_guests.empty_disk(folder, 160)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    options = f"takeover.image=http://{user_net.SERVER}/image.gz takeover.to=/dev/vda takeover.config=/config.json " \
              f"takeover.sha256={digest}"
    with Nginx(folder, files) as server:
        initrd = user_net.rescue_initrd(folder / "initrd", {
            "init": NETWORK_FIRST.encode(), "bin/takeover": test_guests.TAKEOVER, "config.json": config})
        network = user_net.arguments("xenial", {(user_net.SERVER, 80): server.port})
        with Guest("xenial", [disk], memory=64, smp=1, timeout=600, options=options, reboot=False,
                   fail_on="Kernel panic|Out of memory|given up", qemu_args=[*network, "-initrd", initrd]) as guest:
            guest.wait_for("takeover is the init of a rescue system", 120)
            guest.wait_for("done: restarting", 400)
            guest.wait_exit(60)
            result = next(line.text for line in guest.lines if line.text.startswith('{"outcome"'))
            assert json.loads(result)["outcome"] == "done", result
            test_guests.check_secrets(guest.text())
        requests = server.requests()
    # By ranges, and kept nowhere: scanned, looked into (from the start for each step back), and flashed.
    assert all(request.status == 206 for request in requests), requests
    assert sum(request.sent for request in requests) >= 2 * packed.stat().st_size, requests
    test_rescue_guests.check_disk(disk, image, balena_image.partition("small", "resin-boot").start, config)


if __name__ == "__main__":
    subprocess.run([HERE / "setup", "arm"], check=True)
    runner.main(sys.modules[__name__], sys.argv[1:])
