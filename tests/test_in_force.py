#!/usr/bin/env python3
"""`takeover networks` beside the programs that set networks, each as Debian has it: what they have set is called the
same, and what a hand then changes is named.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import network_programs  # noqa: E402
import runner  # noqa: E402

TAKEOVER = runner.program()

NETWORKD = "/etc/systemd/network/lan.network"
IFUPDOWN = "/etc/network/interfaces"
DHCPCD = "/etc/dhcpcd.conf"
MANAGER = "/etc/NetworkManager/system-connections/lan.nmconnection"
LAN = "[Match]\nName=eth0\n[Network]\n"
CONNECTION = "[connection]\nid=lan\ntype=ethernet\ninterface-name=eth0\n"

# How each is started. dhcpcd asks nobody whether an address is free, and waits for no udev.
START = {NETWORKD: "networkd", IFUPDOWN: "ifup -a >/run/ifup.log 2>&1",
         DHCPCD: "dhcpcd -q -b -A --nodev >/run/dhcpcd.log 2>&1", MANAGER: "manager lan"}
FIXED = {
    NETWORKD: LAN + "Address=10.7.0.5/24\nGateway=10.7.0.1\nDNS=10.7.0.53\n",
    IFUPDOWN: "auto eth0\niface eth0 inet static\n address 10.7.0.5/24\n gateway 10.7.0.1\n dns-nameservers 10.7.0.53\n",
    DHCPCD: "interface eth0\nstatic ip_address=10.7.0.5/24\nstatic routers=10.7.0.1\n"
            "static domain_name_servers=10.7.0.53\n",
    MANAGER: CONNECTION + "[ipv4]\nmethod=manual\naddress1=10.7.0.5/24,10.7.0.1\ndns=10.7.0.53;\n"
                          "[ipv6]\nmethod=disabled\n",
}
LEASED = {
    NETWORKD: LAN + "DHCP=ipv4\n",
    IFUPDOWN: "auto eth0\niface eth0 inet dhcp\niface eth0 inet6 auto\n",
    DHCPCD: "option domain_name_servers, classless_static_routes\n",
    MANAGER: CONNECTION + "[ipv4]\nmethod=auto\n[ipv6]\nmethod=auto\n",
}
# Two addresses, a route, and fixed IPv6.
MORE = {
    NETWORKD: LAN + "Address=10.7.0.5/24\nAddress=10.17.0.5/16\nAddress=fd00:7::5/64\nGateway=10.7.0.1\n"
                    "Gateway=fd00:7::1\nDNS=10.7.0.53\n[Route]\nDestination=172.16.0.0/12\nGateway=10.7.0.3\n",
    IFUPDOWN: "auto eth0\niface eth0 inet static\n address 10.7.0.5/24\n gateway 10.7.0.1\n"
              " dns-nameservers 10.7.0.53\n up ip route add 172.16.0.0/12 via 10.7.0.3\n"
              "iface eth0 inet static\n address 10.17.0.5/16\n"
              "iface eth0 inet6 static\n address fd00:7::5/64\n gateway fd00:7::1\n",
    MANAGER: CONNECTION + "[ipv4]\nmethod=manual\naddress1=10.7.0.5/24,10.7.0.1\naddress2=10.17.0.5/16\n"
                          "route1=172.16.0.0/12,10.7.0.3\ndns=10.7.0.53;\n"
                          "[ipv6]\nmethod=manual\naddress1=fd00:7::5/64,fd00:7::1\n",
}

# Once it is in force what the program sets. ifupdown writes no resolv.conf: there it is somebody's file.
READY = {
    NETWORKD: "until_true grep -q 10.7.0.53 /run/systemd/resolve/resolv.conf\n",
    IFUPDOWN: "[ -e /etc/resolv.conf ] || echo nameserver 10.7.0.53 >/etc/resolv.conf\n",
    DHCPCD: "until_true routed 4\n",
    MANAGER: "until_true grep -q 10.7.0.53 /run/NetworkManager/resolv.conf\n",
}
# What hands do, one after another; each is undone.
HANDS = """
ask same
ip addr add 10.8.0.9/24 dev eth0
ask address
ip addr del 10.8.0.9/24 dev eth0
ip route add 192.168.77.0/24 via 10.7.0.3
ask route
ip route del 192.168.77.0/24
mkdir -p /run/kept
mv /etc/resolv.conf /run/kept/ 2>/run/none.log || true
echo nameserver 10.9.9.9 >/etc/resolv.conf
ask servers
rm /etc/resolv.conf
mv /run/kept/resolv.conf /etc/ 2>/run/none.log || true
ask undone
"""


def change(path, before, after):
    """A file that is edited once it was read, and the question."""
    return f"grep -q '{before}' {path}\nsed -i 's#{before}#{after}#' {path}\nask file\n"


def rewrite(path, text):
    return f"cat >{path} <<'END'\n{text}END\nask file\n"


def is_refused(said, words):
    line, = [line for line in said.reach if line.startswith("eth0: ")]
    assert said.code == 3 and words in line and words in said.log and "--no-nwmgr-check" in said.log, (words, said)


def is_quiet(said, ending):
    line, = said.reach
    assert said.code == 0 and line.endswith(ending) and said.warnings == [], said


def asks_another(said):
    words = "10.9.9.9 is asked for names now, the new OS will ask 10.7.0.53"
    assert said.code == 0 and any(words in text for text in said.warnings), said


def fixed(folder, path):
    said = network_programs.run(
        folder, TAKEOVER, f"{START[path]}\nuntil_true has eth0 10.7.0.5/24\nuntil_true routed 4\n{READY[path]}{HANDS}"
        + change(path, "10.7.0.5/24", "10.7.0.6/24"), {path: FIXED[path]})
    for name in ("same", "undone"):
        is_quiet(said[name], "10.7.0.5/24 via 10.7.0.1, as now (the way in)")
    is_refused(said["address"], "the new OS will have 10.7.0.5/24 and not 10.8.0.9/24 there")
    is_refused(said["route"], "the new OS will not have the route to 192.168.77.0/24 via 10.7.0.3")
    asks_another(said["servers"])
    is_refused(said["file"], "the new OS will have 10.7.0.6/24 and not 10.7.0.5/24 there")


def leased(folder, path, options="", is_ipv6=False):
    ready = "until_true has eth0 fd00:7:\n" if is_ipv6 else ""
    said = network_programs.run(
        folder, TAKEOVER, f"serve {options}\n{START[path]}\nuntil_true has eth0 '10.7.0.[56].*/24'\nuntil_true routed 4\n"
        f"{ready}{READY[path]}{HANDS}" + rewrite(path, FIXED[path]), {path: LEASED[path]})
    for name in ("same", "undone"):
        is_quiet(said[name], " via 10.7.0.1, by DHCP, as now (the way in)")
        assert ("fd00:7::" in said[name].reach[0]) == is_ipv6, said[name]
    # Where a keyfile says DHCP it is missed in that; where none is, one is made.
    if path == MANAGER:
        is_refused(said["address"], "the new OS will ask DHCP and not have 10.8.0.9/24")
    else:
        line = said["address"].reach[0]
        # What comes by DHCP is not called taken.
        assert line == "eth0: 10.8.0.9/24 via 10.7.0.1, taken from what is in force, and more by DHCP, as now " \
            "(the way in)" and said["address"].code == 0, said["address"]
    is_refused(said["route"], "the new OS will not have the route to 192.168.77.0/24 via 10.7.0.3")
    asks_another(said["servers"])
    is_refused(said["file"], "will have the fixed address 10.7.0.5/24 there")


def more(folder, path):
    said = network_programs.run(
        folder, TAKEOVER, f"{START[path]}\nuntil_true has eth0 10.17.0.5/16\nuntil_true has eth0 fd00:7::5/64\n"
        f"until_true routed 4\nuntil_true routed 6\n{READY[path]}ask same\n"
        "ip route change 172.16.0.0/12 via 10.7.0.4 || ip route replace 172.16.0.0/12 via 10.7.0.4\nask route\n"
        "ip route del 172.16.0.0/12\nip addr add fd00:8::9/64 dev eth0\nask address\n", {path: MORE[path]})
    line, = said["same"].reach
    assert said["same"].code == 0 and line.endswith(", as now (the way in)"), said["same"]
    for address in ("10.7.0.5/24", "10.17.0.5/16", "fd00:7::5/64"):
        assert address in line, line
    is_refused(said["route"], "the new OS will not have the route to 172.16.0.0/12 via 10.7.0.4")
    is_refused(said["address"], "the new OS will have fd00:7::5/64 and not fd00:8::9/64 there")


RA = "--dhcp-range=fd00:7::,ra-only --enable-ra"


def test_a_fixed_address_of_systemd_networkd(folder):
    fixed(folder, NETWORKD)


def test_a_fixed_address_of_ifupdown(folder):
    fixed(folder, IFUPDOWN)


def test_a_fixed_address_of_dhcpcd(folder):
    fixed(folder, DHCPCD)


def test_a_fixed_address_of_networkmanager(folder):
    fixed(folder, MANAGER)


def test_a_lease_of_systemd_networkd_with_an_advertised_network(folder):
    leased(folder, NETWORKD, RA, is_ipv6=True)


def test_a_lease_of_ifupdown_with_an_advertised_network(folder):
    leased(folder, IFUPDOWN, RA, is_ipv6=True)


def test_a_lease_of_dhcpcd_with_an_advertised_network(folder):
    leased(folder, DHCPCD, RA, is_ipv6=True)


def test_a_lease_of_networkmanager_with_an_advertised_network(folder):
    leased(folder, MANAGER, RA, is_ipv6=True)


def test_more_addresses_and_routes_of_systemd_networkd(folder):
    more(folder, NETWORKD)


def test_more_addresses_and_routes_of_ifupdown(folder):
    more(folder, IFUPDOWN)


def test_more_addresses_and_routes_of_networkmanager(folder):
    more(folder, MANAGER)


def test_routes_that_dhcp_names_are_not_missed(folder):
    """dhclient's script sets them without a mark: only its lease tells them from those of a hand."""
    said = network_programs.run(
        folder, TAKEOVER, "serve --dhcp-option=121,172.16.0.0/12,10.7.0.3,0.0.0.0/0,10.7.0.1\n"
        f"{START[IFUPDOWN]}\nuntil_true has eth0 '10.7.0.[56].*/24'\nip route | grep -q 172.16\nask same\n"
        "ip route add 192.168.77.0/24 via 10.7.0.3\nask route\n", {IFUPDOWN: "auto eth0\niface eth0 inet dhcp\n"})
    is_quiet(said["same"], " via 10.7.0.1, by DHCP, as now (the way in)")
    is_refused(said["route"], "will not have the route to 192.168.77.0/24 via 10.7.0.3")


def test_a_route_to_who_is_logged_in_counts_and_one_of_a_routing_program_does_not(folder):
    said = network_programs.run(
        folder, TAKEOVER, f"serve\n{START[NETWORKD]}\nuntil_true has eth0 '10.7.0.[56].*/24'\nuntil_true routed 4\n"
        f"{READY[NETWORKD]}ip route add 192.168.77.0/24 via 10.7.0.3 proto bird\nask learned\n"
        "export SSH_CONNECTION='192.168.77.9 50000 10.7.0.50 22'\nask way\n", {NETWORKD: LEASED[NETWORKD]})
    assert said["learned"].code == 0, said["learned"]
    assert any("192.168.77.0/24" in text and "finds routes by itself" in text for text in said["learned"].warnings)
    is_refused(said["way"], "will not have the route to 192.168.77.0/24 via 10.7.0.3")


def test_a_tunnel_that_one_is_logged_in_through_is_warned_of(folder):
    said = network_programs.run(
        folder, TAKEOVER, f"{START[IFUPDOWN]}\nuntil_true has eth0 10.7.0.5/24\n{READY[IFUPDOWN]}"
        "mkdir -p /dev/net\n[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200\nip tuntap add tun7 mode tun\n"
        "ip addr add 10.240.3.9/24 dev tun7\n"
        "ip link set tun7 up\nask beside\n"
        "export SSH_CONNECTION='10.240.3.1 50000 10.240.3.9 22'\nask through\n", {IFUPDOWN: FIXED[IFUPDOWN]})
    words = "tun7: the way in goes through this tunnel, which the new OS will not have"
    for name, is_warned in (("beside", False), ("through", True)):
        assert said[name].code == 0, said[name]
        assert any(text.startswith(words) for text in said[name].warnings) == is_warned, said[name]
        # What it goes over is what must stay.
        assert "eth0: 10.7.0.5/24 via 10.7.0.1, as now (the way in)" in said[name].reach, said[name]


def test_of_two_profiles_of_networkmanager_the_higher_priority_is_compared_as_it_is_taken(folder):
    def profile(name, more, last):
        return (f"[connection]\nid={name}\ntype=ethernet\n{more}[ipv4]\nmethod=manual\n"
                f"address1=10.7.0.{last}/24,10.7.0.1\ndns=10.7.0.53;\n[ipv6]\nmethod=disabled\n")
    connections = pathlib.Path(MANAGER).parent
    for priority, last in ((0, 5), (2, 6)):
        (folder / str(priority)).mkdir()
        said = network_programs.run(
            folder / str(priority), TAKEOVER, "chmod 600 /etc/NetworkManager/system-connections/*\ndbus\n"
            "NetworkManager --no-daemon --log-level=INFO >/run/manager.log 2>&1 &\n"
            "until_true nmcli -t general status\nnmcli device set eth0 managed yes\n"
            f"until_true has eth0 10.7.0.{last}/24\nuntil_true routed 4\n{READY[MANAGER]}ask taken\n", {
                str(connections / "any.nmconnection"): profile("any", f"autoconnect-priority={priority}\n", 6),
                str(connections / "lan.nmconnection"): profile(
                    "lan", "interface-name=eth0\nautoconnect-priority=1\n", 5)})
        is_quiet(said["taken"], f"10.7.0.{last}/24 via 10.7.0.1, as now (the way in)")


def bridge(folder, start, files, is_leased):
    ready = "until_true has br0 '10.7.0.[56].*/24'\nuntil_true routed 4\nask bridge\n"
    said = network_programs.run(folder, TAKEOVER, ("serve\n" if is_leased else "") + start + "\n" + ready, files)
    assert said["bridge"].code == 0, said["bridge"]
    return said["bridge"]


def test_a_lease_on_a_bridge_will_be_on_its_cable(folder):
    said = bridge(folder, START[IFUPDOWN],
                  {IFUPDOWN: "auto br0\niface br0 inet dhcp\n bridge_ports eth0\n bridge_fd 0\n bridge_waitport 0\n"}, True)
    line, = said.reach
    assert ", by DHCP, as now, on its cable eth0: the new OS has no bridge" in line, said


def test_a_fixed_address_of_a_bridge_goes_to_its_cable(folder):
    said = bridge(folder, "ip link add br0 type bridge\nip link set eth0 master br0\nip link set eth0 up\n"
                  "ip link set br0 up\nip addr add 10.7.0.50/24 dev br0\nip route add default via 10.7.0.1", {}, False)
    line, = said.reach
    assert line.startswith("br0: 10.7.0.50/24 via 10.7.0.1, taken from what is in force"), said


def test_an_address_that_keepalived_gives_is_its_own_matter(folder):
    conf = ("vrrp_instance one {\n state MASTER\n interface eth0\n virtual_router_id 7\n priority 250\n advert_int 1\n"
            " virtual_ipaddress {\n  10.7.0.100/32\n  10.7.0.101/24\n }\n}\n")
    said = network_programs.run(
        folder, TAKEOVER, f"{START[IFUPDOWN]}\n{READY[IFUPDOWN]}keepalived -n -P -f /etc/keepalived/one.conf "
        ">/run/keepalived.log 2>&1 & keeper=$!\nuntil_true has eth0 10.7.0.100/32\nuntil_true has eth0 10.7.0.101/24\n"
        "ask shared\nkill -9 $(pidof keepalived)\n"
        "until_true sh -c '! grep -qx keepalived /proc/[0-9]*/comm'\nask alone\n", {IFUPDOWN: FIXED[IFUPDOWN], "/etc/keepalived/one.conf": conf})
    line, = said["shared"].reach
    assert said["shared"].code == 0 and line == "eth0: 10.7.0.5/24 via 10.7.0.1, as now (the way in)", said["shared"]
    for address in ("10.7.0.100/32", "10.7.0.101/24"):
        assert any(address in text and "keepalived gives it" in text for text in said["shared"].warnings), said["shared"]
    # Without it they are somebody's settings.
    is_refused(said["alone"], "and not 10.7.0.10")


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
