//! The network as it is in force: the kernel's interfaces, addresses and routes, by which of them this very command is
//! reached, and which addresses came by DHCP.
//!
//! Asks and reads; changes nothing.

use crate::error::{Doing, Error};
use crate::files;
use crate::network::leases::{self, Lease};
use crate::network::live::{InForce, Link, Part, REQUESTS, Route, State, is_within, request};
use crate::network::{Ssid, ini};
use crate::sys::{map, wireless};
use crate::text::Text;
use core::net::IpAddr;
use core::ops::ControlFlow;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// How often the kernel is asked again for what changed while it was listed.
const ATTEMPTS: u32 = 8;
/// The most processes from this one up to init.
const MOST_PARENTS: u32 = 64;

/// The network as it is.
pub struct Live {
    /// What the kernel has.
    pub state: State,
    /// How this command is reached; nothing where no route leads anywhere.
    pub way_in: Option<WayIn>,
}

/// How this command is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WayIn {
    /// The number of the interface.
    pub link: u32,
    /// Who is at the other end, when that is known: then the interface is that of his connection, else that of the
    /// default route.
    pub peer: Option<IpAddr>,
    /// The number of the tunnel that the connection goes through, if it does: it goes over that interface.
    pub tunnel: Option<u32>,
}

/// Asks the kernel. `buffer` holds the answers while they are read.
pub fn gather(buffer: &mut [u8]) -> Result<&'static mut Live, Error> {
    const WHAT: &str = "the kernel for the network that is in force";
    let live = Live { state: State::default(), way_in: None };
    let live = map::place(live).doing("reserving memory for", "the state of the network")?;
    let kind = SocketType::RAW;
    // Without a protocol's number it is NETLINK_ROUTE, which is 0.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, None);
    let socket = socket.doing("asking", WHAT)?;
    for _ in 0..ATTEMPTS {
        live.state = State::default();
        if ask(&socket, &mut live.state, buffer).doing("asking", WHAT)? {
            live.state.finish();
            live.way_in = way_in(&live.state, buffer);
            let State { links, addresses, routes, .. } = &live.state;
            crate::debug!(
                "in force: {} interfaces, {} addresses, {} routes",
                links.len(),
                addresses.len(),
                routes.len()
            );
            return Ok(live);
        }
    }
    Err(Error::failed("asking", WHAT, "it changes all the time")
        .advice("try again when it is quiet"))
}

/// Asks for everything; false when something changed meanwhile.
fn ask(socket: &OwnedFd, state: &mut State, buffer: &mut [u8]) -> Result<bool, rustix::io::Errno> {
    for kind in REQUESTS {
        rustix::net::send(socket, &request(kind), SendFlags::empty())?;
        let mut is_as_it_was = true;
        loop {
            let (received, _) = rustix::net::recv(socket, &mut *buffer, RecvFlags::empty())?;
            match state.take(buffer.get(..received).unwrap_or_default()) {
                Part::More => {}
                // The rest is read all the same, or it would answer the next question.
                Part::Changed => is_as_it_was = false,
                Part::End if is_as_it_was => break,
                Part::End => return Ok(false),
                Part::Refused(errno) => {
                    return Err(rustix::io::Errno::from_raw_os_error(errno));
                }
            }
        }
    }
    Ok(true)
}

/// The interface of the connection by which this command is reached, else that of the default route.
fn way_in(state: &State, buffer: &mut [u8]) -> Option<WayIn> {
    let ends = connection(buffer).filter(|(peer, _)| !peer.is_loopback());
    let mut tunnel = None;
    if let Some((peer, own)) = ends {
        tunnel = tunnel_of(state, peer, own);
        if let Some(link) = way_of(state, peer, own) {
            return Some(WayIn { link, peer: Some(peer), tunnel });
        }
    }
    let route = state.default_route(false, None).or_else(|| state.default_route(true, None))?;
    Some(WayIn { link: route.link, peer: None, tunnel })
}

/// The interface of a connection with these ends. A tunnel goes over another interface, that of the default route: it
/// is what must stay.
fn way_of(state: &State, peer: IpAddr, own: IpAddr) -> Option<u32> {
    let is_it = |number: &u32| state.link(*number).is_some_and(|link| !link.is_tunnel);
    let link = link_with(state, own).filter(is_it);
    link.or_else(|| state.way_to(peer).filter(is_it))
}

/// The tunnel that a connection with these ends goes through.
fn tunnel_of(state: &State, peer: IpAddr, own: IpAddr) -> Option<u32> {
    let number = link_with(state, own).or_else(|| state.way_to(peer))?;
    state.link(number).filter(|link| link.is_tunnel).map(|link| link.number)
}

/// The interface that has an address.
fn link_with(state: &State, own: IpAddr) -> Option<u32> {
    state.addresses.iter().find(|address| address.address == own).map(|address| address.link)
}

/// Both ends of the connection that sshd has told of, to this process or to one above it: sudo hides it.
fn connection(buffer: &mut [u8]) -> Option<(IpAddr, IpAddr)> {
    let mut process: Text<16> = Text::from("self");
    for _ in 0..MOST_PARENTS {
        let path = crate::path!("/proc/{}/environ", process).ok()?;
        // One that cannot be read tells nothing; the one above it may.
        let bytes = files::read_start(&path, buffer).unwrap_or_default();
        if let Some(ends) = connection_in(bytes) {
            return Some(ends);
        }
        let path = crate::path!("/proc/{}/status", process).ok()?;
        let mut text = [0; 4096];
        let status = files::as_text(files::read_start(&path, &mut text).ok()?);
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim();
        if matches!(parent, "0" | "1") {
            return None;
        }
        process = Text::from(parent);
    }
    None
}

/// `SSH_CONNECTION=PEER PORT OWN PORT` (ssh(1)); an address of the link may have its interface behind a `%`.
fn connection_in(environment: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="))?;
    let mut fields = core::str::from_utf8(value).ok()?.split(' ');
    let mut address = |at| {
        let text = fields.nth(at)?;
        text.split('%').next()?.parse().ok()
    };
    Some((address(0)?, address(1)?))
}

/// True for a Wi-Fi.
pub fn is_wifi(link: &Link) -> bool {
    let has = |what| {
        crate::path!("/sys/class/net/{}/{}", link.name, what).is_ok_and(|path| files::exists(&path))
    };
    has("phy80211") || has("wireless")
}

/// The name of the network that a Wi-Fi has joined; nothing where the driver does not say.
pub fn joined(link: &Link) -> Option<Ssid> {
    let family = AddressFamily::INET;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None).ok()?;
    let mut name = [0; wireless::LONGEST];
    let length = wireless::joined(socket, &link.name, &mut name).ok()?;
    let name = name.get(..length).filter(|name| !name.is_empty())?;
    Ssid::from_slice(name).ok()
}

/// True when an address came by DHCP, or from a router's advertisement: it has a lifetime, or, since udhcpc, connman
/// and older scripts of dhclient give none, somebody who asks DHCP for this interface runs or has left a lease.
pub fn is_leased(live: &Live, link: &Link, address: &InForce, buffer: &mut [u8]) -> bool {
    if !address.is_permanent {
        return true;
    }
    let routes = live.state.routes.iter();
    let mut automatic = routes.filter(|route| route.link == link.number && route.is_automatic);
    if address.address.is_ipv6() {
        // Advertised for ever, and set by networkd, NetworkManager or dhcpcd: so is the route to its network.
        let is_own = |route: &Route| is_within(address.address, route.to, route.prefix);
        return automatic.any(|route| route.prefix == address.prefix && is_own(route));
    }
    // A client that gives lifetimes gives one to each: what has none beside them is somebody else's.
    let mut others = live.state.addresses_of(link.number);
    if others.any(|other| other.address.is_ipv4() && !other.is_permanent) {
        return false;
    }
    // dhcpcd says `proto dhcp` of the network of a fixed address, too: only the default route tells.
    automatic.any(|route| route.prefix == 0 && route.to.is_ipv4())
        || lease_of_networkd(link, address.address, buffer).is_some()
        || has_client(link, address.address, buffer)
}

/// What a DHCP client has written down of the lease of an address, whichever it is.
pub fn lease(link: &Link, address: IpAddr, buffer: &mut [u8]) -> Option<Lease> {
    lease_of_networkd(link, address, buffer)
        .or_else(|| {
            let path = crate::path!("/run/NetworkManager/devices/{}", link.number).ok()?;
            leases::manager(files::read_start(&path, buffer).ok()?)
        })
        .filter(|lease| lease.address == address)
        .or_else(|| lease_of_dhclient(address, buffer))
        .or_else(|| lease_of_dhcpcd(link, address, buffer))
}

/// /run/systemd/netif/leases/NUMBER (sd-network).
fn lease_of_networkd(link: &Link, address: IpAddr, buffer: &mut [u8]) -> Option<Lease> {
    let path = crate::path!("/run/systemd/netif/leases/{}", link.number).ok()?;
    let lease = leases::networkd(files::read_start(&path, buffer).ok()?);
    lease.filter(|lease| lease.address == address)
}

/// The same of dhclient (dhclient.leases(5)).
fn lease_of_dhclient(address: IpAddr, buffer: &mut [u8]) -> Option<Lease> {
    ["/var/lib/dhcp", "/var/lib/dhclient", "/run/dhclient"].into_iter().find_map(|folder| {
        first_lease(folder, "", buffer, &|bytes| leases::dhclient(bytes, address))
    })
}

/// The same of dhcpcd, in a file that is called after the interface.
fn lease_of_dhcpcd(link: &Link, address: IpAddr, buffer: &mut [u8]) -> Option<Lease> {
    let is_it = |lease: &Lease| lease.address == address;
    ["/var/lib/dhcpcd5", "/var/lib/dhcpcd", "/var/db/dhcpcd"].into_iter().find_map(|folder| {
        first_lease(folder, &link.name, buffer, &|bytes| leases::message(bytes).filter(is_it))
    })
}

/// The first lease that is found in the files of a folder whose names contain something. A folder that is not there has
/// none.
fn first_lease(
    folder: &str,
    name_part: &str,
    buffer: &mut [u8],
    read: &dyn Fn(&[u8]) -> Option<Lease>,
) -> Option<Lease> {
    let mut found = None;
    let _ = files::for_each_entry(folder, &mut |name: &str| {
        if name.contains(name_part)
            && let Ok(path) = files::below(folder, name)
        {
            found = read(files::read_start(&path, buffer).unwrap_or_default());
        }
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

/// The programs that give a device an address that others have at other times: how the names of their processes begin.
const SHARING: [&str; 5] = ["keepalived", "ucarp", "vrrpd", "pacemaker-exec", "kube-vip"];

/// The program that runs and gives this device addresses that others have at other times.
pub fn sharing_program() -> Option<&'static str> {
    let mut found = None;
    files::for_each_process(&mut |id: &str| {
        let mut buffer = [0; 32];
        let comm = files::text_at(crate::format!("/proc/{}/comm", id), &mut buffer);
        found = comm.and_then(sharing);
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

/// The one that a process of this name is.
fn sharing(comm: &str) -> Option<&'static str> {
    SHARING.into_iter().find(|name| comm.starts_with(name))
}

/// A DHCP client runs that gives addresses without a lifetime (dhcpcd before its seventh release), and this interface
/// is among its arguments, or the address is in its lease. A lease alone may be years old.
fn has_client(link: &Link, address: IpAddr, buffer: &mut [u8]) -> bool {
    let [mut is_found, mut has_dhclient, mut has_dhcpcd, mut has_connman] = [false; 4];
    files::for_each_process(&mut |id: &str| {
        let path = crate::path!("/proc/{}/cmdline", id);
        let bytes = path.ok().and_then(|path| files::read_start(&path, buffer).ok());
        match client(bytes.unwrap_or_default(), &link.name) {
            Client::Of => is_found = true,
            Client::Dhclient => has_dhclient = true,
            Client::Dhcpcd => has_dhcpcd = true,
            Client::Connman => has_connman = true,
            Client::No => {}
        }
        ControlFlow::Continue(())
    });
    is_found
        || has_dhclient && lease_of_dhclient(address, buffer).is_some()
        || has_dhcpcd && lease_of_dhcpcd(link, address, buffer).is_some()
        || has_connman && is_left_to_dhcp_by_connman(link, buffer)
}

#[derive(PartialEq, Eq, Debug)]
enum Client {
    No,
    /// It asks for this interface.
    Of,
    /// It asks for another one, or for all: its lease decides.
    Dhclient,
    /// The same; it has fixed addresses, too.
    Dhcpcd,
    /// It has settings for each interface.
    Connman,
}

/// What a process with these arguments, each ended by a NUL, is to an interface.
fn client(arguments: &[u8], interface: &str) -> Client {
    let mut words = arguments
        .split(|byte| *byte == 0)
        .filter_map(|word| core::str::from_utf8(word).ok().filter(|word| !word.is_empty()));
    let is_program = |word: &str, name: &str| word.rsplit('/').next() == Some(name);
    let first = words.next().unwrap_or_default();
    let first = match is_program(first, "busybox") {
        true => words.next().unwrap_or_default(),
        false => first,
    };
    if is_program(first, "connmand") {
        return Client::Connman;
    }
    // Its title may have a colon behind the name.
    if is_program(first.trim_end_matches(':'), "dhcpcd") || first.starts_with("dhcpcd: ") {
        return Client::Dhcpcd;
    }
    let is_udhcpc = is_program(first, "udhcpc");
    if !is_udhcpc && !is_program(first, "dhclient") {
        return Client::No;
    }
    let mut is_named = false;
    let mut names_another = false;
    let mut is_value_of_interface = false;
    for word in words {
        let value = word.strip_prefix("--interface=").or(word.strip_prefix("-i"));
        let value = value.filter(|value| is_udhcpc && !value.is_empty());
        is_named |= word == interface || value == Some(interface);
        // dhclient takes names as they are; with udhcpc each stands behind an option.
        let is_name = if is_udhcpc { is_value_of_interface || value.is_some() } else { false };
        names_another |= is_name;
        is_value_of_interface = matches!(word, "-i" | "--interface");
    }
    // udhcpc without a name is for eth0 (networking/udhcp/dhcpc.c).
    let is_default = is_udhcpc && !names_another && interface == "eth0";
    match is_udhcpc {
        _ if is_named || is_default => Client::Of,
        true => Client::No,
        false => Client::Dhclient,
    }
}

/// True unless connman has fixed addresses for an interface in the settings of its services, whose names have its
/// hardware address (`ethernet_525400123456_cable`); what it knows nothing of it leaves to DHCP.
fn is_left_to_dhcp_by_connman(link: &Link, buffer: &mut [u8]) -> bool {
    const FOLDER: &str = "/var/lib/connman";
    let mac: heapless::String<12> = link.mac.chars().filter(|byte| *byte != ':').collect();
    let mut is_fixed = false;
    // Without the folder it has no settings.
    let _ = files::for_each_entry(FOLDER, &mut |name: &str| {
        if !mac.is_empty()
            && name.contains(mac.as_str())
            && let Ok(path) = crate::path!("{}/{}/settings", FOLDER, name)
        {
            let bytes = files::read_start(&path, buffer).unwrap_or_default();
            let mut values = ini::lines(bytes).filter_map(|line| line.value_of("IPv4.method"));
            is_fixed |= values.any(|value| value.trim_end() != "dhcp");
        }
        ControlFlow::Continue(())
    });
    !is_fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(link: u32, address: IpAddr) -> InForce {
        InForce { link, address, prefix: 24, is_permanent: true, may_be_shared: false }
    }

    #[test]
    fn the_connection_that_sshd_tells_of() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (environment, wanted) in [
            (
                "A=1\0SSH_CONNECTION=10.0.0.9 50000 10.0.0.5 22\0B=2\0",
                Some(("10.0.0.9", "10.0.0.5")),
            ),
            ("SSH_CONNECTION=fe80::1%eth0 50000 fe80::2%eth0 22", Some(("fe80::1", "fe80::2"))),
            ("XSSH_CONNECTION=10.0.0.9 50000 10.0.0.5 22\0", None),
            ("SSH_CONNECTION=10.0.0.9\0", None),
            ("", None),
        ] {
            let found = connection_in(environment.as_bytes());
            assert_eq!(found, wanted.map(|(peer, own)| (ip(peer), ip(own))), "{environment}");
        }
    }

    #[test]
    fn who_asks_dhcp_for_an_interface() {
        for (line, wanted) in [
            ("udhcpc -i eth0 -p /run/udhcpc.pid", Client::Of),
            ("/sbin/udhcpc -ieth0", Client::Of),
            ("udhcpc --interface=eth0", Client::Of),
            ("busybox udhcpc -i eth0", Client::Of),
            ("udhcpc", Client::Of),
            ("udhcpc -p /run/x.pid", Client::Of),
            ("udhcpc -i eth1", Client::No),
            ("dhclient -4 -v eth0", Client::Of),
            ("/sbin/dhclient eth1", Client::Dhclient),
            ("/usr/sbin/connmand -n", Client::Connman),
            ("/sbin/dhcpcd -q -b", Client::Dhcpcd),
            ("sh -c udhcpc", Client::No),
            ("", Client::No),
        ] {
            let arguments = line.replace(' ', "\0");
            assert_eq!(client(arguments.as_bytes(), "eth0"), wanted, "{line}");
        }
        assert_eq!(client(b"udhcpc\0", "eth1"), Client::No);
    }

    #[test]
    fn a_tunnel_is_not_the_way_in_but_what_it_goes_over_is() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut state = State::default();
        for (number, name, is_tunnel) in [(2, "eth0", false), (3, "tun0", true)] {
            let name = Text::from(name);
            let is_made_by_software = is_tunnel;
            let link = Link { number, name, is_made_by_software, is_tunnel, ..Link::default() };
            state.links.push(link).unwrap();
        }
        let (to, via) = (ip("0.0.0.0"), Some(ip("10.7.0.1")));
        let (is_automatic, is_learned) = (false, false);
        let route = Route { link: 2, to, prefix: 0, via, metric: 0, is_automatic, is_learned };
        state.routes.push(route).unwrap();
        for (link, address) in [(2, "10.7.0.5"), (3, "10.240.3.9")] {
            let address = ip(address);
            state.addresses.push(fixed(link, address)).unwrap();
        }
        let through = |own: &str| way_of(&state, ip("10.240.0.1"), ip(own));
        assert_eq!(through("10.240.3.9"), Some(2));
        assert_eq!(through("10.7.0.5"), Some(2));
        let tunnel = |own: &str| tunnel_of(&state, ip("10.240.0.1"), ip(own));
        assert_eq!(tunnel("10.240.3.9"), Some(3));
        assert_eq!(tunnel("10.7.0.5"), None);
        assert_eq!(tunnel_of(&state, ip("10.240.3.1"), ip("203.0.113.1")), Some(3));
    }

    #[test]
    fn programs_that_move_an_address_from_device_to_device_are_found_by_their_processes() {
        for (comm, wanted) in [
            ("keepalived", Some("keepalived")),
            ("keepalived_vrrp", Some("keepalived")),
            // The kernel keeps 15 bytes of a name.
            ("pacemaker-execd", Some("pacemaker-exec")),
            ("kube-vip", Some("kube-vip")),
            ("ucarp", Some("ucarp")),
            ("vrrpd", Some("vrrpd")),
            ("my-keepalived", None),
            ("sshd", None),
            ("", None),
        ] {
            assert_eq!(sharing(comm), wanted, "{comm}");
        }
        // This process goes by another name for a moment.
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        std::fs::write("/proc/self/comm", "kube-vip").unwrap();
        let found = sharing_program();
        std::fs::write("/proc/self/comm", own.trim_end()).unwrap();
        assert!(found.is_some());
    }

    #[test]
    fn what_a_router_advertises_says_nothing_of_ipv4() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let link = Link { number: 77, name: Text::from("none0"), ..Link::default() };
        let address = fixed(77, ip("203.0.113.5"));
        let leased = |to: &str| {
            let mut live = Live { state: State::default(), way_in: None };
            let (to, via) = (ip(to), None);
            let (is_automatic, is_learned) = (true, false);
            let route = Route { link: 77, to, prefix: 0, via, metric: 0, is_automatic, is_learned };
            live.state.routes.push(route).unwrap();
            is_leased(&live, &link, &address, &mut [0; 4096])
        };
        assert!(!leased("::") && leased("0.0.0.0"));
    }

    #[test]
    fn the_kernel_answers() {
        let mut buffer = vec![0; 64 * 1024];
        let live = gather(&mut buffer).unwrap();
        assert!(live.state.links.iter().all(|link| !link.name.is_empty() && &*link.name != "lo"));
        for address in &live.state.addresses {
            assert!(!address.address.is_loopback());
        }
    }
}
