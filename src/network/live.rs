//! What the kernel has in force: interfaces, addresses and routes, out of the messages of rtnetlink(7).
//!
//! From bytes to one state; opens no socket. Only what a new OS must have, too, is kept: interfaces that are up,
//! addresses that others can reach, routes of the main table that the kernel did not make by itself. Numbers are in the
//! byte order of the machine.

use crate::text::{Text, Writer, printable};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use heapless::Vec;

/// What to ask the kernel for, in this order: the types of requests, and of the messages that answer them.
pub const REQUESTS: [u16; 3] = [RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE];

// <linux/netlink.h>, <linux/rtnetlink.h>
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// What was listed has changed meanwhile.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// A header: length, type, flags, sequence number, port.
const HEADER: usize = 16;

// <linux/if_link.h>, <linux/if_arp.h>, <linux/if.h>
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_PERM_ADDRESS: u16 = 54;
const ARPHRD_LOOPBACK: u16 = 772;
/// ARPHRD_PPP and ARPHRD_RAWIP.
const MODEMS: [u16; 2] = [512, 519];
/// The kinds (IFLA_INFO_KIND) of interfaces that lead over others.
const TUNNELS: [&str; 14] = [
    "tun",
    "wireguard",
    "ipip",
    "ip6tnl",
    "sit",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "vti",
    "vti6",
    "xfrm",
    "l2tpeth",
];
const IFF_UP: u32 = 1;

// <linux/if_addr.h>
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// Who has set it, since Linux 5.18.
const IFA_PROTO: u16 = 11;
/// A second address of the same network (IPv4), or a temporary one (IPv6).
const IFA_F_SECONDARY: u32 = 0x01;
const IFA_F_PERMANENT: u32 = 0x80;
/// Made from a router's advertisement: with temporary ones beside it, or from a secret (RFC 7217).
const IFA_F_MANAGETEMPADDR: u32 = 0x100;
const IFA_F_STABLE_PRIVACY: u32 = 0x800;
/// Another host has it, too.
const IFA_F_DADFAILED: u32 = 0x08;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RT_TABLE_MAIN: u32 = 254;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTPROT_REDIRECT: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
/// The first that is a routing program's.
const RTPROT_GATED: u8 = 8;
const RTPROT_RA: u8 = 9;
const RTPROT_DHCP: u8 = 16;
const RTPROT_KEEPALIVED: u8 = 18;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// An interface that is up.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Link {
    /// Its number: what addresses and routes name it by.
    pub number: u32,
    /// Its name.
    pub name: Text<15>,
    /// The address that its maker gave it, as far as the kernel knows (since 5.6), else the one that it has now; empty
    /// for none of six bytes.
    pub mac: Text<17>,
    /// It is a bridge, a tunnel, a VLAN or the like. A veth is taken for the cable that it stands for.
    pub is_made_by_software: bool,
    /// It leads over another interface: a VPN or the like.
    pub is_tunnel: bool,
    /// A cellular modem: `wwan0`, `wwp0s20u4`, `ppp0`.
    pub is_modem: bool,
    /// A bridge.
    pub is_bridge: bool,
    /// The number of the bridge or the bond that it is a port of; 0 for none.
    pub master: u32,
}

/// An address that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InForce {
    /// The number of its interface.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
    /// It has no lifetime. A lease has one, but not with every DHCP client.
    pub is_permanent: bool,
    /// It may be one that devices have by turns (VRRP), should a program for that run: keepalived has marked it, or it
    /// is a second one of its network, or one without a network.
    pub may_be_shared: bool,
}

/// A route of the main table that somebody has set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The number of its interface.
    pub link: u32,
    /// Where to; of a default route the unspecified address.
    pub to: IpAddr,
    /// The length of its prefix in bits; 0 for the default route.
    pub prefix: u8,
    /// By which router; none for what is on the link.
    pub via: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: u32,
    /// A DHCP client has set it (`proto dhcp`), or it was advertised by a router (`proto ra`).
    pub is_automatic: bool,
    /// A program has set it that learns routes from others (bird, FRR, keepalived).
    pub is_learned: bool,
}

/// What of an answer was in a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// There is more to come.
    More,
    /// This was the end.
    End,
    /// It changed while it was listed: to be asked for again.
    Changed,
    /// The kernel refused, for this reason (an errno).
    Refused(i32),
}

/// All that is in force.
#[derive(Default, Debug)]
pub struct State {
    /// The interfaces that are up, without the loop.
    pub links: Vec<Link, 48>,
    /// The addresses that others can reach.
    pub addresses: Vec<InForce, 64>,
    /// The routes.
    pub routes: Vec<Route, 64>,
    /// The first default route of another table, which only rules lead to.
    pub elsewhere: Option<Route>,
    /// There is more of one of them than there is room for.
    pub is_cut: bool,
}

/// A request for a list of this type, for both families of addresses.
pub fn request(kind: u16) -> [u8; 32] {
    let mut bytes = [0; 32];
    let head = [(0, 32_u16), (4, kind), (6, NLM_F_REQUEST | NLM_F_DUMP)];
    for (at, value) in head {
        for (to, from) in bytes.iter_mut().skip(at).zip(value.to_ne_bytes()) {
            *to = from;
        }
    }
    // A length of 32 bits, of which the upper ones are 0: on a machine of the other byte order they would come first.
    const { assert!(cfg!(target_endian = "little")) };
    bytes
}

impl State {
    /// Takes what a datagram has.
    pub fn take(&mut self, mut datagram: &[u8]) -> Part {
        while let Some((kind, flags, payload, rest)) = message(datagram) {
            if flags & NLM_F_DUMP_INTR != 0 {
                return Part::Changed;
            }
            match kind {
                NLMSG_DONE => return Part::End,
                NLMSG_ERROR => return Part::Refused(errno(payload)),
                RTM_NEWLINK => self.take_link(payload),
                RTM_NEWADDR => self.take_address(payload),
                RTM_NEWROUTE => self.take_route(payload),
                _ => Some(()),
            };
            datagram = rest;
        }
        Part::More
    }

    /// struct ifinfomsg: family, padding, kind of hardware, number, flags, which of them change.
    fn take_link(&mut self, payload: &[u8]) -> Option<()> {
        let (number, flags) = (u32_at(payload, 4)?, u32_at(payload, 8)?);
        if flags & IFF_UP == 0 || u16_at(payload, 2)? == ARPHRD_LOOPBACK {
            return None;
        }
        let mut link = Link { number, ..Link::default() };
        let mut lasting = None;
        for_each_attribute(payload.get(16..)?, &mut |kind, value| match kind {
            // The kernel takes any byte but blanks, `/` and `:` (dev_valid_name).
            IFLA_IFNAME => link.name = printable(text(value).as_bytes()),
            IFLA_ADDRESS => link.mac = mac(value),
            IFLA_MASTER => link.master = u32_at(value, 0).unwrap_or(0),
            IFLA_PERM_ADDRESS => lasting = Some(mac(value)),
            // IFLA_INFO_KIND (1) is what it is; a network card has none.
            IFLA_LINKINFO => for_each_attribute(value, &mut |kind, value| {
                // The ports of a switch chip (dsa) are cables, too.
                let name = text(value);
                link.is_made_by_software |= kind == 1 && !matches!(name, "veth" | "dsa");
                link.is_tunnel |= kind == 1 && TUNNELS.contains(&name);
                link.is_bridge |= kind == 1 && name == "bridge";
            }),
            _ => {}
        });
        link.mac = lasting.filter(|mac| !mac.is_empty()).unwrap_or(link.mac);
        // udev's names of modems begin with `ww`.
        link.is_modem = MODEMS.contains(&u16_at(payload, 2)?) || link.name.starts_with("ww");
        self.is_cut |= self.links.push(link).is_err();
        Some(())
    }

    /// struct ifaddrmsg: family, length of the prefix, flags, scope, number of the interface.
    fn take_address(&mut self, payload: &[u8]) -> Option<()> {
        let [family, prefix, flags, scope] = *payload.first_chunk()?;
        let (link, mut flags) = (u32_at(payload, 4)?, u32::from(flags));
        let (mut address, mut local, mut protocol) = (None, None, 0);
        for_each_attribute(payload.get(8..)?, &mut |kind, value| match kind {
            IFA_ADDRESS => address = ip(family, value),
            // At the end of a line from one to another, the address above is the other end's.
            IFA_LOCAL => local = ip(family, value),
            IFA_FLAGS => flags = u32_at(value, 0).unwrap_or(flags),
            IFA_PROTO => protocol = value.first().copied().unwrap_or(0),
            _ => {}
        });
        let address = within(local.or(address)?, prefix)?;
        let is_temporary = address.is_ipv6() && flags & IFA_F_SECONDARY != 0;
        let is_reachable = scope < RT_SCOPE_LINK && !address.is_loopback();
        if is_reachable && !is_temporary && flags & IFA_F_DADFAILED == 0 {
            let is_advertised = flags & (IFA_F_MANAGETEMPADDR | IFA_F_STABLE_PRIVACY) != 0;
            let is_permanent = flags & IFA_F_PERMANENT != 0 && !is_advertised;
            let is_second = address.is_ipv4() && flags & IFA_F_SECONDARY != 0;
            let is_alone = prefix == if address.is_ipv6() { 128 } else { 32 };
            let may_be_shared = is_second || is_alone || protocol == RTPROT_KEEPALIVED;
            let found = InForce { link, address, prefix, is_permanent, may_be_shared };
            self.is_cut |= self.addresses.push(found).is_err();
        }
        Some(())
    }

    /// struct rtmsg: family, lengths of both prefixes, type of service, table, protocol, scope, type, flags.
    fn take_route(&mut self, payload: &[u8]) -> Option<()> {
        let [family, prefix, _, _, table, protocol, _, kind] = *payload.first_chunk()?;
        let mut table = u32::from(table);
        let (mut to, mut link, mut via, mut metric) = (None, None, None, 0);
        for_each_attribute(payload.get(12..)?, &mut |kind, value| match kind {
            RTA_DST => to = ip(family, value),
            RTA_OIF => link = u32_at(value, 0),
            RTA_GATEWAY => via = ip(family, value),
            // A router of the other family: its kind, and then its address.
            RTA_VIA => via = via_other(value),
            RTA_PRIORITY => metric = u32_at(value, 0).unwrap_or(0),
            RTA_TABLE => table = u32_at(value, 0).unwrap_or(table),
            // The first of several ways: struct rtnexthop (length, flags, hops, interface), and its attributes.
            RTA_MULTIPATH => {
                link = u32_at(value, 4);
                let length = usize::from(u16_at(value, 0).unwrap_or(0));
                let attributes = value.get(8..length).unwrap_or_default();
                for_each_attribute(attributes, &mut |kind, value| {
                    if kind == RTA_GATEWAY {
                        via = ip(family, value);
                    }
                });
            }
            _ => {}
        });
        let to = match to {
            Some(to) => to,
            None if prefix == 0 => unspecified(family)?,
            None => return None,
        };
        let to = within(to, prefix)?;
        let is_set = protocol != RTPROT_KERNEL && protocol != RTPROT_REDIRECT;
        // A default route counts, whoever has made it.
        let is_main = table == RT_TABLE_MAIN;
        if kind == RTN_UNICAST && (is_main && is_set || prefix == 0) {
            let is_automatic = matches!(protocol, RTPROT_DHCP | RTPROT_RA);
            let is_learned = protocol >= RTPROT_GATED && !is_automatic;
            let found = Route { link: link?, to, prefix, via, metric, is_automatic, is_learned };
            if is_main {
                self.is_cut |= self.routes.push(found).is_err();
            } else if self.link(found.link).is_some_and(|link| !link.is_tunnel) {
                self.elsewhere.get_or_insert(found);
            }
        }
        Some(())
    }

    /// The end of all answers. Where the main table has no default route, that of another one is the way out: the new
    /// OS, which has no rules, needs it in the main one.
    pub fn finish(&mut self) {
        let found = self.elsewhere.take();
        if let Some(found) = found.filter(|it| self.default_route(it.to.is_ipv6(), None).is_none())
        {
            self.is_cut |= self.routes.push(found).is_err();
        }
    }

    /// The interface of this number.
    pub fn link(&self, number: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.number == number)
    }

    /// The only cable of a bridge. Pairs of virtual cables lead to guests and containers where they are called so.
    pub fn cable_of(&self, bridge: &Link) -> Option<&Link> {
        let is_cable = |link: &&Link| {
            link.master == bridge.number
                && !link.is_made_by_software
                && !link.is_modem
                && !link.name.starts_with("veth")
        };
        let mut cables = self.links.iter().filter(is_cable);
        cables.next().filter(|_| bridge.is_bridge && cables.next().is_none())
    }

    /// The addresses of an interface.
    pub fn addresses_of(&self, number: u32) -> impl Iterator<Item = &InForce> {
        self.addresses.iter().filter(move |address| address.link == number)
    }

    /// The default route of one family that is preferred, by an interface if one is named.
    pub fn default_route(&self, is_ipv6: bool, link: Option<u32>) -> Option<&Route> {
        let is_default = |route: &&Route| route.prefix == 0 && route.to.is_ipv6() == is_ipv6;
        let by = |route: &&Route| link.is_none_or(|link| route.link == link);
        self.routes.iter().filter(is_default).filter(by).min_by_key(|route| route.metric)
    }

    /// The interface by which an address is reached: on whose network it is, or to whose router it goes.
    pub fn way_to(&self, address: IpAddr) -> Option<u32> {
        let near = self.addresses.iter().filter(|own| is_within(address, own.address, own.prefix));
        let near = near.map(|own| (own.prefix, u32::MAX, own.link));
        let far = self.routes.iter().filter(|route| is_within(address, route.to, route.prefix));
        // Of routes that are as exact, the one with the smaller metric.
        let far = far.map(|route| (route.prefix, u32::MAX - route.metric, route.link));
        near.chain(far).max().map(|(_, _, link)| link)
    }
}

/// True for an address of the network that `network` with so many bits is.
pub fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (bits, left, right) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (32, u128::from(a.to_bits()), u128::from(b.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits(), b.to_bits()),
        _ => return false,
    };
    let outside = bits - u32::from(prefix).min(bits);
    (left ^ right).checked_shr(outside).unwrap_or(0) == 0
}

/// The first message of a datagram: its type, its flags, what it holds, and what comes behind it.
fn message(datagram: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let length = u32_at(datagram, 0)? as usize;
    let (kind, flags) = (u16_at(datagram, 4)?, u16_at(datagram, 6)?);
    let payload = datagram.get(HEADER..length)?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, flags, payload, rest))
}

/// Calls `visit` with type and value of each attribute (struct rtattr: length, type, value, padding).
fn for_each_attribute<'a>(mut bytes: &'a [u8], visit: &mut dyn FnMut(u16, &'a [u8])) {
    while let (Some(length), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(4..length) else { return };
        // The two upper bits say how the value is made (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        visit(kind & 0x3fff, value);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// struct nlmsgerr: the reason, as a negative number. One that is no errno, of which there are 4095, is EIO: the answer
/// is not to be read.
fn errno(payload: &[u8]) -> i32 {
    const EIO: i32 = 5;
    let number = (u32_at(payload, 0).unwrap_or(0) as i32).wrapping_neg();
    if (1..=4095).contains(&number) { number } else { EIO }
}

/// The address, if a prefix of it can have so many bits.
fn within(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let most = if address.is_ipv6() { 128 } else { 32 };
    (prefix <= most).then_some(address)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A text that ends with a NUL.
fn text(value: &[u8]) -> &str {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    core::str::from_utf8(value).unwrap_or_default()
}

/// Six bytes as hardware addresses are written; empty for any other number.
fn mac(value: &[u8]) -> Text<17> {
    let Ok(bytes) = <&[u8; 6]>::try_from(value) else { return Text::new() };
    Text::build(&mut |writer: &mut Writer<'_>| {
        for (at, byte) in bytes.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            let zero = if *byte < 16 { "0" } else { "" };
            ufmt::uwrite!(writer, "{}{}{:x}", colon, zero, *byte)?;
        }
        Ok(())
    })
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(value).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        AF_INET6 => <[u8; 16]>::try_from(value).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// struct rtvia: the family, and an address of it.
fn via_other(value: &[u8]) -> Option<IpAddr> {
    ip(u16_at(value, 0)? as u8, value.get(2..)?)
}

fn unspecified(family: u8) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::UNSPECIFIED.into()),
        AF_INET6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> std::vec::Vec<u8> {
        let length = (4 + value.len()) as u16;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> std::vec::Vec<u8> {
        let mut body = fixed.to_vec();
        for (kind, value) in attributes {
            body.extend(attribute(*kind, value));
        }
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    fn link(kind: u16, number: u8, flags: u8, attributes: &[(u16, &[u8])]) -> std::vec::Vec<u8> {
        let [low, high] = kind.to_ne_bytes();
        let fixed = [0, 0, low, high, number, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0];
        message(RTM_NEWLINK, &fixed, attributes)
    }

    /// IPv4, of the interface 2.
    fn address(prefix: u8, flags: u8, scope: u8, value: [u8; 4]) -> std::vec::Vec<u8> {
        let fixed = [AF_INET, prefix, flags, scope, 2, 0, 0, 0];
        message(RTM_NEWADDR, &fixed, &[(IFA_ADDRESS, &value), (IFA_LOCAL, &value)])
    }

    fn route(prefix: u8, protocol: u8, attributes: &[(u16, &[u8])]) -> std::vec::Vec<u8> {
        let fixed = [AF_INET, prefix, 0, 0, 254, protocol, 0, RTN_UNICAST, 0, 0, 0, 0];
        message(RTM_NEWROUTE, &fixed, attributes)
    }

    fn taken(messages: &[std::vec::Vec<u8>]) -> State {
        let mut state = State::default();
        assert_eq!(state.take(&messages.concat()), Part::More);
        state
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const MAC: &[u8] = &[0x52, 0x54, 0, 0x12, 0x34, 0x56];

    #[test]
    fn interfaces_that_are_up_with_their_makers_address() {
        let of = |kind: &str| attribute(1, kind.as_bytes());
        let state = taken(&[
            link(ARPHRD_LOOPBACK, 1, 1, &[(IFLA_IFNAME, b"lo\0")]),
            link(
                1,
                2,
                1,
                &[(IFLA_IFNAME, b"eth0\0"), (IFLA_ADDRESS, &[2; 6]), (IFLA_PERM_ADDRESS, MAC)],
            ),
            link(1, 3, 0, &[(IFLA_IFNAME, b"down\0")]),
            link(1, 4, 1, &[(IFLA_IFNAME, b"br0\0"), (IFLA_LINKINFO, &of("bridge\0"))]),
            link(
                1,
                5,
                1,
                &[
                    (IFLA_IFNAME, b"eth1\0"),
                    (IFLA_ADDRESS, MAC),
                    (IFLA_LINKINFO | 0x8000, &of("veth\0")),
                ],
            ),
            link(
                65534,
                6,
                1,
                &[(IFLA_IFNAME, b"tun0\0"), (IFLA_ADDRESS, &[]), (IFLA_LINKINFO, &of("tun\0"))],
            ),
            // A port of a switch chip.
            link(
                1,
                7,
                1,
                &[(IFLA_IFNAME, b"lan1\0"), (IFLA_ADDRESS, MAC), (IFLA_LINKINFO, &of("dsa\0"))],
            ),
        ]);
        let known: std::vec::Vec<_> = state
            .links
            .iter()
            .map(|link| (link.number, &*link.name, &*link.mac, link.is_made_by_software))
            .collect();
        let mac = "52:54:00:12:34:56";
        assert_eq!(
            known,
            [
                (2, "eth0", mac, false),
                (4, "br0", "", true),
                (5, "eth1", mac, false),
                (6, "tun0", "", true),
                (7, "lan1", mac, false)
            ]
        );
    }

    #[test]
    fn the_cable_of_a_bridge_is_its_only_port_that_is_one() {
        let bridge = attribute(1, b"bridge\0");
        let four = 4_u32.to_ne_bytes();
        let port = |number: u8, name: &[u8], kind: &str| {
            let kind = attribute(1, kind.as_bytes());
            link(1, number, 1, &[(IFLA_IFNAME, name), (IFLA_MASTER, &four), (IFLA_LINKINFO, &kind)])
        };
        let br0 = link(1, 4, 1, &[(IFLA_IFNAME, b"br0\0"), (IFLA_LINKINFO, &bridge)]);
        let cable = link(1, 2, 1, &[(IFLA_IFNAME, b"eth0\0"), (IFLA_MASTER, &four)]);
        let mut ports = vec![
            br0,
            port(6, b"vnet0\0", "tun\0"),
            port(7, b"veth12ab\0", "veth\0"),
            link(1, 8, 1, &[(IFLA_IFNAME, b"eth7\0")]),
        ];
        let cable_in = |messages: &[std::vec::Vec<u8>]| {
            let state = taken(messages);
            let bridge = state.link(4).unwrap();
            assert!(bridge.is_bridge && state.cable_of(state.link(6).unwrap()).is_none());
            state.cable_of(bridge).map(|cable| cable.name.to_string())
        };
        assert_eq!(cable_in(&ports), None);
        ports.push(cable);
        assert_eq!(cable_in(&ports).as_deref(), Some("eth0"));
        ports.push(port(9, b"lan1\0", "dsa\0"));
        assert_eq!(cable_in(&ports), None, "a switch");
    }

    #[test]
    fn addresses_and_routes_that_programs_give_and_take() {
        let mut marked = address(24, 0x80, 0, [10, 0, 0, 9]);
        marked.extend(attribute(IFA_PROTO, &[RTPROT_KEEPALIVED]));
        let length = (marked.len() as u32).to_ne_bytes();
        marked[..4].copy_from_slice(&length);
        let two = 2_u32.to_ne_bytes();
        let by = |protocol| route(16, protocol, &[(RTA_DST, &[10, 8, 0, 0]), (RTA_OIF, &two)]);
        let state = taken(&[
            address(24, 0x80, 0, [10, 0, 0, 5]),
            address(24, 0x81, 0, [10, 0, 0, 6]),
            address(32, 0x80, 0, [10, 0, 0, 7]),
            marked,
            by(3),
            by(4),
            by(RTPROT_DHCP),
            by(RTPROT_RA),
            by(12),
            by(186),
        ]);
        let shared: std::vec::Vec<_> = state.addresses.iter().map(|it| it.may_be_shared).collect();
        assert_eq!(shared, [false, true, true, true]);
        let learned: std::vec::Vec<_> = state.routes.iter().map(|it| it.is_learned).collect();
        assert_eq!(learned, [false, false, false, false, true, true]);
    }

    #[test]
    fn addresses_that_others_can_reach() {
        let temporary = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let state = taken(&[
            address(24, 0x80, 0, [10, 0, 0, 5]),
            address(24, 0, 0, [10, 0, 0, 6]),
            address(16, 0x80, 253, [169, 254, 0, 7]),
            address(8, 0x80, 254, [127, 0, 0, 1]),
            address(24, 0x88, 0, [10, 0, 0, 8]),
            message(RTM_NEWADDR, &[AF_INET6, 64, 1, 0, 2, 0, 0, 0], &[(IFA_ADDRESS, &temporary)]),
            // The flags of 32 bits count, and the local end.
            message(
                RTM_NEWADDR,
                &[AF_INET, 32, 0, 0, 2, 0, 0, 0],
                &[
                    (IFA_ADDRESS, &[10, 1, 0, 1]),
                    (IFA_LOCAL, &[10, 1, 0, 2]),
                    (IFA_FLAGS, &0x280_u32.to_ne_bytes()),
                ],
            ),
        ]);
        let known: std::vec::Vec<_> = state
            .addresses
            .iter()
            .map(|found| (found.address, found.prefix, found.is_permanent))
            .collect();
        assert_eq!(
            known,
            [(ip("10.0.0.5"), 24, true), (ip("10.0.0.6"), 24, false), (ip("10.1.0.2"), 32, true)]
        );
    }

    #[test]
    fn routes_that_somebody_has_set_and_the_way_to_an_address() {
        let (two, three) = (2_u32.to_ne_bytes(), 3_u32.to_ne_bytes());
        let hop = [&8_u16.to_ne_bytes()[..], &[0, 0], &three].concat();
        let via = attribute(RTA_GATEWAY, &[10, 7, 0, 1]);
        let hop_via = [&(8 + via.len() as u16).to_ne_bytes()[..], &[0, 0], &two, &via].concat();
        let state = taken(&[
            address(24, 0x80, 0, [10, 0, 0, 5]),
            route(24, RTPROT_KERNEL, &[(RTA_DST, &[10, 0, 0, 0]), (RTA_OIF, &two)]),
            route(
                0,
                4,
                &[
                    (RTA_GATEWAY, &[10, 0, 0, 1]),
                    (RTA_OIF, &two),
                    (RTA_PRIORITY, &100_u32.to_ne_bytes()),
                ],
            ),
            route(
                0,
                RTPROT_DHCP,
                &[
                    (RTA_GATEWAY, &[10, 3, 0, 1]),
                    (RTA_OIF, &three),
                    (RTA_PRIORITY, &50_u32.to_ne_bytes()),
                ],
            ),
            route(12, 3, &[(RTA_DST, &[172, 16, 0, 0]), (RTA_MULTIPATH, &hop)]),
            route(16, 3, &[(RTA_DST, &[10, 8, 0, 0]), (RTA_MULTIPATH, &hop_via)]),
            route(
                8,
                3,
                &[(RTA_DST, &[11, 0, 0, 0]), (RTA_OIF, &two), (RTA_TABLE, &1000_u32.to_ne_bytes())],
            ),
            route(8, 3, &[(RTA_OIF, &two)]),
        ]);
        let known: std::vec::Vec<_> = state
            .routes
            .iter()
            .map(|route| (route.link, route.to, route.prefix, route.via))
            .collect();
        let any = ip("0.0.0.0");
        assert_eq!(
            known,
            [
                (2, any, 0, Some(ip("10.0.0.1"))),
                (3, any, 0, Some(ip("10.3.0.1"))),
                (3, ip("172.16.0.0"), 12, None),
                (2, ip("10.8.0.0"), 16, Some(ip("10.7.0.1"))),
            ]
        );
        assert_eq!(
            state.default_route(false, None).map(|route| (route.link, route.is_automatic)),
            Some((3, true))
        );
        assert_eq!(state.default_route(false, Some(2)).map(|route| route.metric), Some(100));
        assert_eq!(state.default_route(true, None), None);
        for (to, link) in [("10.0.0.77", 2), ("10.8.9.9", 2), ("172.31.0.1", 3), ("8.8.8.8", 3)] {
            assert_eq!(state.way_to(ip(to)), Some(link), "{to}");
        }
        assert_eq!(state.way_to(ip("fd00::1")), None);
    }

    #[test]
    fn a_way_out_that_only_rules_lead_to_is_one_where_there_is_no_other() {
        let (two, three) = (2_u32.to_ne_bytes(), 3_u32.to_ne_bytes());
        let by = |table: u32, link: &[u8; 4]| {
            let table = table.to_ne_bytes();
            let via = (RTA_GATEWAY, &[10, 0, 0, 1][..]);
            route(0, 3, &[via, (RTA_OIF, &link[..]), (RTA_TABLE, &table)])
        };
        let tunnel = attribute(1, b"wireguard\0");
        let links = [
            link(1, 2, 1, &[(IFLA_IFNAME, b"eth0\0")]),
            link(65534, 3, 1, &[(IFLA_IFNAME, b"wg0\0"), (IFLA_LINKINFO, &tunnel)]),
        ];
        let ways = |routes: &[std::vec::Vec<u8>]| {
            let mut state = taken(&[&links[..], routes].concat());
            state.finish();
            state.routes.iter().map(|route| route.link).collect::<std::vec::Vec<_>>()
        };
        assert_eq!(ways(&[by(100, &two)]), [2]);
        assert_eq!(ways(&[by(51820, &three), by(100, &two), by(101, &two)]), [2]);
        assert_eq!(ways(&[by(100, &two), by(254, &three)]), [3]);
        assert_eq!(ways(&[by(51820, &three)]), []);
    }

    #[test]
    fn the_end_and_what_the_kernel_refuses() {
        let mut state = State::default();
        assert_eq!(state.take(&message(NLMSG_DONE, &[0; 4], &[])), Part::End);
        assert_eq!(
            state.take(&message(NLMSG_ERROR, &(-1_i32).to_ne_bytes(), &[])),
            Part::Refused(1)
        );
        // What is no errno: that would be none for the rest of the program, either.
        for number in [0, 1, i32::MIN, i32::MAX, -4096] {
            let refused = message(NLMSG_ERROR, &number.to_ne_bytes(), &[]);
            assert_eq!(state.take(&refused), Part::Refused(5), "{number}");
        }
        assert_eq!(state.take(&message(NLMSG_ERROR, &[], &[])), Part::Refused(5));
        let mut changed = link(1, 2, 1, &[]);
        changed[6] = NLM_F_DUMP_INTR as u8;
        assert_eq!(state.take(&changed), Part::Changed);
        assert_eq!(state.take(&[]), Part::More);
        let many = link(1, 2, 1, &[(IFLA_IFNAME, b"eth0\0")]).repeat(49);
        state.take(&many);
        assert!(state.is_cut && state.links.len() == 48);
    }

    #[test]
    fn what_cannot_be_is_left_out_and_names_can_be_shown() {
        let two = 2_u32.to_ne_bytes();
        let to: (u16, &[u8]) = (RTA_DST, &[10, 8, 0, 0]);
        let state = taken(&[
            address(33, 0x80, 0, [10, 0, 0, 5]),
            route(33, 4, &[to, (RTA_OIF, &two)]),
            link(1, 2, 1, &[(IFLA_IFNAME, b"eth\x1b[2J\0")]),
        ]);
        assert!(state.addresses.is_empty() && state.routes.is_empty());
        assert_eq!(&*state.links[0].name, "eth?[2J");
    }

    #[test]
    fn any_bytes_do_no_harm() {
        let whole = [
            link(1, 2, 1, &[(IFLA_IFNAME, b"eth0\0"), (IFLA_ADDRESS, MAC)]),
            address(24, 0x80, 0, [10, 0, 0, 5]),
            route(0, 4, &[(RTA_GATEWAY, &[10, 0, 0, 1]), (RTA_MULTIPATH, &[0xff; 9])]),
        ]
        .concat();
        for cut in 0..whole.len() {
            State::default().take(&whole[..cut]);
        }
        let mut random = 7_u32;
        for at in 0..whole.len() {
            for _ in 0..8 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let mut other = whole.clone();
                other[at] = (random >> 24) as u8;
                State::default().take(&other);
            }
        }
    }
}
