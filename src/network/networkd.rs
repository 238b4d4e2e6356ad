//! Reads the `.network` files of systemd-networkd and the `.netdev` files beside them (systemd.network(5) and
//! systemd.netdev(5), version 256).
//!
//! Several files are read behind each other in the order in which systemd-networkd takes them, each with its drop-ins:
//! of those that are for an interface, only the first is in force. Which files these are is the caller's matter, who
//! knows the folders and what masks what.

use super::draft::{Draft, IPV4, IPV6, why};
use super::matching::{Fit, Machine, Match, Target, header};
use super::names;
use super::words::{FILE, assignment, files, lines, text, words};
use super::{Finding, Findings};
use crate::text::{Text, printable};

const CONDITION: &str = "its settings depend on a condition that was not looked at";
const OPEN: &str =
    "it has other settings, too, and a condition that was not looked at decides which are in force";
const SERVES: &str = "it gives addresses or a way out to others; the new OS will not";
const ADDRESS_DETAIL: &str = "a peer, lifetime or the like of an address is not carried over";
const SHADOWED: &str = "these settings are not in force: an earlier file of systemd-networkd is for the same interface";
const NO_PORT: &str = "its settings are not carried over: they are for no interface of this device, or for another device";
const MANY: &str = "it is for more than 16 interfaces; the others are left out";
const NO_MATCH: &str = "it has no [Match], and systemd-networkd leaves it out";
const INACTIVE: &str = "systemd-networkd did not bring it up by itself; the new OS does";
const DNS_DETAIL: &str =
    "how its name servers are asked (DNS over TLS, for which names) is not carried over";
const DNS_PORT: &str = "a name server is left out: it is asked at another port than 53";
const DNS_AT_LO: &str = "name servers that it has for all interfaces are not carried over";
const NTP: &str = "its time servers are not carried over from here";
const IPV6_MADE: &str =
    "its IPv6 address was made in its own way (token, privacy); it will be another one";
const LINK_DETAIL: &str =
    "a detail of the link (multicast, ARP, an MTU of IPv6) is not carried over";
const SOURCE: &str = "the address that a route sends from is not carried over";
const TUNED: &str = "a detail of a route (windows, MTU and the like) is not carried over";
const TABLE: &str = "its routes are in a table of their own; the new OS has them in the main one";
const RULES: &str = "its rules of routing are not carried over";
const NEIGHBORS: &str = "its fixed neighbours, next hops and address labels are not carried over";
const SECTION: &str =
    "a section of its settings (traffic control, CAN, SR-IOV or the like) is not carried over";
const CHOOSY: &str = "which routers, servers or prefixes it heeds is not carried over";
const WITHOUT_RA: &str =
    "that DHCPv6 begins without a router is not carried over; the new OS waits for one";

/// What a line means.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Mtu,
    Unmanaged,
    Inactive,
    Dhcp,
    AcceptRa,
    LinkLocal,
    Address,
    Gateway,
    Dns,
    Domains,
    OnDevice,
    Made(&'static str),
    /// Gives what others need on this very interface.
    ServesHere,
    Serves,
    /// It is not carried over.
    Doubt(&'static str),
    /// Nor is this, unless it has the value that changes nothing.
    DoubtUnless(&'static str, &'static str),
    WithoutRa,
    UseDns(u8),
    UseRoutes(u8),
    UseGateway(u8),
    Metric(u8),
    RouteTo,
    RouteVia,
    RouteMetric,
    RouteSource,
    /// A route with another value than these is more than a network and a router.
    RouteOnly(&'static str),
    RouteSpecial,
}

/// Sections, keys and what they mean. What is not here changes nothing that the new OS would need.
const KEYS: [(&str, &str, Key); 50] = [
    ("Link", "MTUBytes", Key::Mtu),
    ("Link", "MACAddress", Key::Doubt(why::NEW_MAC)),
    ("Link", "Unmanaged", Key::Unmanaged),
    ("Link", "ActivationPolicy", Key::Inactive),
    ("Link", "ARP Multicast", Key::DoubtUnless("yes", LINK_DETAIL)),
    ("Link", "AllMulticast Promiscuous", Key::DoubtUnless("no", LINK_DETAIL)),
    ("Network", "DHCP", Key::Dhcp),
    ("Network", "IPv6AcceptRA IPv6AcceptRouterAdvertisements", Key::AcceptRa),
    ("Network", "LinkLocalAddressing", Key::LinkLocal),
    ("Network Address", "Address", Key::Address),
    ("Network", "Gateway", Key::Gateway),
    ("Network", "DNS", Key::Dns),
    ("Network", "Domains", Key::Domains),
    ("Network", "DefaultRouteOnDevice", Key::OnDevice),
    ("Network", "VLAN", Key::Made(names::VLAN)),
    ("Network", "Bridge", Key::Made(names::BRIDGE)),
    ("Network", "Bond", Key::Made(names::BOND)),
    ("Network", "Tunnel L2TP Xfrm", Key::Made(names::TUNNEL)),
    (
        "Network",
        "MACVLAN MACVTAP IPVLAN IPVTAP VXLAN VRF BatmanAdvanced MACsec HSR IPoIB",
        Key::Made(names::OTHER),
    ),
    ("Network", "DHCPServer IPMasquerade IPv6SendRA IPv6PrefixDelegation", Key::ServesHere),
    (
        "Network",
        "IPForward IPForwarding IPv4Forwarding IPv6Forwarding IPv4ProxyARP ProxyARP IPv4ProxyARPPrivateVLAN \
         IPv6ProxyNDP IPv6ProxyNDPAddress DHCPPrefixDelegation DHCPv6PrefixDelegation",
        Key::Serves,
    ),
    ("Network", "NTP", Key::Doubt(NTP)),
    ("Network", "DNSOverTLS", Key::DoubtUnless("no", DNS_DETAIL)),
    ("Network", "DNSDefaultRoute", Key::DoubtUnless("yes", DNS_DETAIL)),
    ("Network", "IPv6Token IPv6StableSecretAddress", Key::Doubt(IPV6_MADE)),
    ("Network", "IPv6PrivacyExtensions", Key::DoubtUnless("no", IPV6_MADE)),
    ("Network", "IPv6MTUBytes", Key::Doubt(LINK_DETAIL)),
    ("Address", "Peer RouteMetric HomeAddress", Key::Doubt(ADDRESS_DETAIL)),
    ("Address", "Scope", Key::DoubtUnless("global", ADDRESS_DETAIL)),
    ("Address", "PreferredLifetime", Key::DoubtUnless("forever", ADDRESS_DETAIL)),
    ("Address", "AddPrefixRoute", Key::DoubtUnless("yes", ADDRESS_DETAIL)),
    ("Route", "Destination", Key::RouteTo),
    ("Route", "Gateway", Key::RouteVia),
    ("Route", "Metric", Key::RouteMetric),
    ("Route", "PreferredSource", Key::RouteSource),
    ("Route", "Table", Key::RouteOnly("main 254")),
    ("Route", "Type", Key::RouteOnly("unicast")),
    ("Route", "Scope", Key::RouteOnly("global link")),
    ("Route", "Source MultiPathRoute NextHop", Key::RouteSpecial),
    (
        "Route",
        "MTUBytes HopLimit InitialCongestionWindow InitialAdvertisedReceiveWindow IPv6Preference \
         TCPAdvertisedMaximumSegmentSize TCPCongestionControlAlgorithm TCPRetransmissionTimeoutSec",
        Key::Doubt(TUNED),
    ),
    ("DHCP DHCPv4", "UseRoutes", Key::UseRoutes(IPV4)),
    ("IPv6AcceptRA", "UseRoutePrefix", Key::UseRoutes(IPV6)),
    ("DHCP DHCPv4", "UseGateway", Key::UseGateway(IPV4)),
    ("IPv6AcceptRA", "UseGateway", Key::UseGateway(IPV6)),
    ("DHCP DHCPv4 IPv6AcceptRA", "RouteTable", Key::DoubtUnless("main", TABLE)),
    (
        "DHCP DHCPv4 DHCPv6",
        "DUIDType DUIDRawData IAID VendorClassIdentifier VendorClass UserClass SendOption SendVendorOption Hostname \
         MUDURL",
        Key::Doubt(why::IDENTITY),
    ),
    ("DHCPv6", "WithoutRA", Key::WithoutRa),
    (
        "DHCPv6 IPv6AcceptRA",
        "UseAddress UseAutonomousPrefix UseOnLinkPrefix DHCPv6Client",
        Key::DoubtUnless("yes", CHOOSY),
    ),
    (
        "DHCPv4 IPv6AcceptRA",
        "DenyList AllowList BlackList RouterDenyList RouterAllowList PrefixDenyList PrefixAllowList RouteDenyList \
         RouteAllowList",
        Key::Doubt(CHOOSY),
    ),
    ("IPv6AcceptRA", "Token", Key::Doubt(IPV6_MADE)),
];

const BOTH: u8 = IPV4 | IPV6;

/// The same, for keys that more than one section has in its own way.
const OF_SECTION: [(&str, u8); 4] =
    [("DHCP", BOTH), ("DHCPv4", IPV4), ("DHCPv6", IPV6), ("IPv6AcceptRA", IPV6)];

/// Sections that are told of elsewhere, or that nothing is lost with; and those that something is.
const SECTIONS: [(&str, Option<&str>); 3] = [
    (
        "Match Link Network Address Route DHCP DHCPv4 DHCPv6 IPv6AcceptRA DHCPServer DHCPServerStaticLease IPv6SendRA \
         IPv6Prefix IPv6RoutePrefix IPv6PREF64Prefix IPv6PrefixDelegation DHCPPrefixDelegation \
         DHCPv6PrefixDelegation IPv6NDPProxyAddress Bridge LLDP",
        None,
    ),
    ("RoutingPolicyRule", Some(RULES)),
    ("Neighbor NextHop IPv6AddressLabel", Some(NEIGHBORS)),
];

/// Where findings go, with the path of the file that they are of.
pub type FileFindings<'a> = dyn FnMut(&str, Finding) + 'a;

/// Hands over what the files say: each `.netdev` and then each `.network`, in the order in which systemd-networkd takes
/// them, behind [`FILE`] and its path in a line.
pub fn parse(bytes: &[u8], machine: &Machine, found: &mut FileFindings) {
    let networks = |(path, _): &(&str, &[u8])| path.ends_with(".network");
    let all = files(bytes, FILE).filter(networks);
    for (number, (path, file)) in all.clone().enumerate() {
        let others = all.clone().map(|(_, file)| file);
        let made = files(bytes, FILE).take_while(|(path, _)| path.ends_with(".netdev"));
        let made = made.map(|(_, file)| file);
        one_file(file, (number, others), made, machine, &mut |finding| found(path, finding));
    }
}

/// The same for one `.network` file without others.
pub fn parse_one(bytes: &[u8], found: &mut Findings) {
    let none = core::iter::empty();
    one_file(bytes, (0, none.clone()), none, &Machine::default(), found);
}

/// `others`: the number of this file among all, and all.
fn one_file<'a>(
    file: &'a [u8],
    (number, others): (usize, impl Iterator<Item = &'a [u8]>),
    made: impl Iterator<Item = &'a [u8]> + Clone,
    machine: &Machine<'a>,
    found: &mut Findings,
) {
    let matched = Match::of(file);
    if matched.is_empty {
        return unused(file, &matched, NO_MATCH, found);
    }
    let mut targets = matched.targets(machine);
    if targets.is_empty() && matched.made().is_none() {
        return unused(file, &matched, NO_PORT, found);
    }
    let count = targets.len();
    if targets.is_full() {
        found(Finding::Doubtful(printable(matched.shown()), MANY));
    }
    for (at, other) in others.enumerate().filter(|(at, _)| *at != number) {
        let other = Match::of(other);
        targets.retain(|target| at > number || other.fits(machine, target) != Fit::Yes);
        for target in &mut targets {
            let is_for_it = other.fits(machine, target) != Fit::No;
            let decides = if at < number { &other } else { &matched }.depends(machine, target);
            target.is_open |= is_for_it && decides;
        }
    }
    if targets.is_empty() && count > 0 {
        return unused(file, &matched, SHADOWED, found);
    }
    let mut is_first = true;
    for target in &targets {
        let why = made.clone().find_map(|netdev| kind(netdev, target.name)).or(matched.made());
        let mut draft = draft(&matched, target);
        if matched.depends(machine, target) {
            draft.doubt(CONDITION);
        }
        one_interface(file, draft, target, why, &mut |finding| match finding {
            // What is made out of several is lost once.
            Finding::Lost(name, _) if !is_first && *name != *target.name => {}
            finding => found(finding),
        });
        is_first = false;
    }
}

/// Says why settings are not carried over, when there are any.
fn unused(file: &[u8], matched: &Match, why: &'static str, found: &mut Findings) {
    let target = Target::default();
    let mut has_settings = false;
    one_interface(file, draft(matched, &target), &target, None, &mut |_| has_settings = true);
    if has_settings {
        found(Finding::Doubtful(printable(matched.shown()), why));
    }
}

/// Why the interface of this name is not carried over, when the file of a `.netdev` makes it.
fn kind(netdev: &[u8], wanted: &str) -> Option<&'static str> {
    let (mut name, mut kind): (&[u8], &[u8]) = (b"", b"");
    let mut section: &[u8] = b"";
    for line in lines(netdev) {
        section = header(line).unwrap_or(section);
        match assignment(line).filter(|_| section == b"NetDev") {
            Some((b"Name", value)) => name = value,
            Some((b"Kind", value)) => kind = value,
            _ => {}
        }
    }
    let is_it = !name.is_empty() && text(name) == wanted;
    is_it.then(|| names::of_kind(kind).unwrap_or(names::OTHER))
}

/// What is put together over the sections of one file.
#[derive(Default)]
struct Switches {
    uses_routes: Option<bool>,
    uses_gateway: Option<bool>,
    without_ra: bool,
    /// What the section of earlier times says for DHCP of both families.
    ignores_dns: bool,
    /// It belongs to a bridge or a bond: what is said of its own addresses is that it has none.
    is_port: bool,
}

/// The default route, unless something is said.
#[derive(Default)]
struct RouteSection<'a> {
    to: &'a str,
    via: &'a str,
    source: &'a str,
    metric: Option<u32>,
    is_special: bool,
}

/// What the file says for one interface. `made`: why that is not carried over.
fn one_interface(
    file: &[u8],
    mut draft: Draft,
    target: &Target,
    made: Option<&'static str>,
    found: &mut Findings,
) {
    if target.name == "lo" {
        return loopback(file, found);
    }
    if let Some(why) = made {
        draft.lose(why);
    }
    let mut section: &[u8] = b"";
    let mut route: Option<RouteSection> = None;
    let mut switches = Switches::default();
    for line in lines(file) {
        if let Some(name) = header(line) {
            close_route(route.take(), &mut draft);
            section = name;
            begin(section, &mut route, &mut draft);
            continue;
        }
        let Some((name, value)) = assignment(line) else { continue };
        let key = key(section, name);
        match (key, &mut route) {
            (Some(Key::Unmanaged), _) if boolean(value) == Some(true) => return,
            (Some(Key::Made(why)), _) => {
                switches.is_port |= why == names::BRIDGE || why == names::BOND;
                for other in words(value) {
                    found(Finding::Lost(printable(other), why));
                }
            }
            (Some(Key::Doubt(why)), _) if !value.is_empty() => draft.doubt(why),
            (Some(Key::DoubtUnless(usual, why)), _) if !is_same(value, usual) => draft.doubt(why),
            (Some(key), Some(route)) => route_option(key, text(value), route),
            (Some(key), None) => {
                option(key, value, &mut draft);
                switch(key, value, &mut switches, &mut draft);
            }
            (None, _) => {}
        }
    }
    close_route(route.take(), &mut draft);
    switches.close(&mut draft);
    if target.is_open && draft.is_fixed() {
        draft.lose(OPEN);
    }
    draft.finish(found);
}

/// A section of that name begins.
fn begin(section: &[u8], route: &mut Option<RouteSection>, draft: &mut Draft) {
    if section == b"Route" {
        *route = Some(RouteSection::default());
    }
    let known = SECTIONS.iter().find(|(names, _)| is_among(names, section));
    let is_own = section.is_empty() || section.starts_with(b"X-");
    match known {
        Some((_, why)) => why.iter().for_each(|why| draft.doubt(why)),
        None if is_own => {}
        None => draft.doubt(SECTION),
    }
}

/// Of the loop only its name servers are of use, and they are for all.
fn loopback(file: &[u8], found: &mut Findings) {
    let mut section: &[u8] = b"";
    let has_dns = lines(file).any(|line| {
        section = header(line).unwrap_or(section);
        assignment(line).is_some_and(|(name, _)| key(section, name) == Some(Key::Dns))
    });
    if has_dns {
        found(Finding::Doubtful(Text::from("lo"), DNS_AT_LO));
    }
}

/// Whether a word is among these.
fn is_among(words: &str, wanted: &[u8]) -> bool {
    words.split(' ').any(|word| word.as_bytes() == wanted)
}

fn key(section: &[u8], name: &[u8]) -> Option<Key> {
    let is_it = |row: &&(&str, &str, Key)| is_among(row.0, section) && is_among(row.1, name);
    let of_section = || {
        let (_, families) = OF_SECTION.iter().find(|(known, _)| known.as_bytes() == section)?;
        match name {
            b"UseDNS" => Some(Key::UseDns(*families)),
            b"RouteMetric" => Some(Key::Metric(*families)),
            _ => None,
        }
    };
    KEYS.iter().find(is_it).map(|(_, _, key)| *key).or_else(of_section)
}

fn boolean(value: &[u8]) -> Option<bool> {
    let is_one =
        |words: [&str; 6]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    match value {
        _ if is_one(["yes", "true", "on", "1", "y", "t"]) => Some(true),
        _ if is_one(["no", "false", "off", "0", "n", "f"]) => Some(false),
        _ => None,
    }
}

/// Whether a value says what is so anyway.
fn is_same(value: &[u8], usual: &str) -> bool {
    let usual = usual.as_bytes();
    let is_same_switch = boolean(value).is_some() && boolean(value) == boolean(usual);
    value.is_empty() || value == usual || is_same_switch || (usual, value) == (b"main", b"254")
}

/// For which interface the settings are: one by name or by hardware address, or none that could be said.
fn draft(matched: &Match, target: &Target) -> Draft {
    let by_name = Some(target.name.as_bytes()).filter(|name| !name.is_empty());
    let by_mac = Some(target.mac.as_bytes()).filter(|mac| !mac.is_empty());
    let mut draft = Draft::new(by_name.or(by_mac).unwrap_or(matched.shown()));
    // Else it is for some Wi-Fis of many.
    draft.has_wifis_apart = matched.has_plain_ssid();
    if let Some(ssid) = matched.ssid() {
        draft.set_ssid(ssid);
        // Of the files that match only the first is applied.
        draft.is_whole = true;
    }
    if by_name.is_none() {
        draft.set_nameless();
    }
    draft.set_mac(&target.mac);
    draft.has_own_router = true;
    if matched.is_for_wireless() || target.is_known_wireless() {
        draft.set_wireless();
    }
    draft
}

/// One line outside of a route. An empty value takes back what was said before.
fn option(key: Key, value: &[u8], draft: &mut Draft) {
    let is_empty = value.is_empty();
    let is_on = boolean(value) == Some(true);
    let is_off = boolean(value) == Some(false);
    match key {
        Key::Mtu if is_empty => {}
        Key::Mtu => draft.set_mtu(text(value)),
        Key::Inactive if !matches!(value, b"" | b"up" | b"always-up") => draft.doubt(INACTIVE),
        Key::Dhcp => {
            (draft.automatic4, draft.automatic6) = match value {
                b"ipv4" | b"v4" => (true, false),
                b"ipv6" | b"v6" => (false, true),
                b"both" => (true, true),
                _ => (is_on, is_on),
            };
        }
        Key::AcceptRa => (draft.ignores_routers, draft.is_link_local6) = (is_off, is_off),
        Key::LinkLocal => {
            // Without a link-local address there is no IPv6 but what is fixed.
            draft.no_ipv6 = value == b"ipv4" || is_off;
            draft.is_link_local4 = value == b"ipv4" || is_on;
        }
        Key::Address if is_empty => draft.clear_addresses(),
        Key::Address => draft.add_address(text(value), None),
        Key::Gateway if is_empty => draft.clear_routes(),
        Key::Gateway => draft.set_gateway(text(value)),
        Key::OnDevice if is_on => draft.add_route("0.0.0.0/0", "", None),
        Key::Dns if is_empty => draft.clear_dns(),
        Key::Dns => words(value).for_each(|word| match server(text(word)) {
            Some(address) => draft.add_dns(address),
            None => draft.doubt(DNS_PORT),
        }),
        Key::Domains if is_empty => draft.clear_search(),
        Key::Domains => words(value).for_each(|word| draft.add_search(text(word))),
        Key::Serves | Key::ServesHere if !is_off && !is_empty => {
            draft.doubt(SERVES);
            draft.is_access_point |= key == Key::ServesHere;
        }
        _ => {}
    }
}

/// The address of a name server, behind which may stand `:PORT`, `%INTERFACE` and `#NAME`; an IPv6 address with a port
/// is in brackets. None when the port is not the usual one.
fn server(word: &str) -> Option<&str> {
    let bare = word.split(['#', '%']).next().unwrap_or_default();
    let (address, port) = match bare.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((bare, "")),
        // More than one colon is an IPv6 address without a port.
        None => match bare.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, port),
            _ => (bare, ""),
        },
    };
    matches!(port.trim_start_matches(':'), "" | "53").then_some(address)
}

/// One line about what comes by DHCP or from a router.
fn switch(key: Key, value: &[u8], switches: &mut Switches, draft: &mut Draft) {
    let is_off = boolean(value) == Some(false);
    match key {
        Key::UseDns(BOTH) => {
            switches.ignores_dns = is_off;
            draft.each(IPV4, &|family| family.ignores_auto_dns = is_off);
        }
        Key::UseDns(families) => {
            draft.each(families, &|family| family.ignores_auto_dns = is_off);
        }
        // What is said of routes holds for the router, unless something is said of that (systemd.network(5)).
        Key::UseRoutes(IPV4) => switches.uses_routes = boolean(value),
        Key::UseGateway(IPV4) => switches.uses_gateway = boolean(value),
        Key::UseRoutes(families) => {
            draft.each(families, &|family| family.ignores_auto_routes = is_off);
        }
        Key::UseGateway(families) => {
            draft.each(families, &|family| family.never_default = is_off);
        }
        Key::Metric(families) => draft.set_metric(families, text(value)),
        Key::WithoutRa => switches.without_ra = !is_same(value, "no"),
        _ => {}
    }
}

impl Switches {
    fn close(&self, draft: &mut Draft) {
        let ignores_routes = self.uses_routes == Some(false);
        let never_default = self.uses_gateway.or(self.uses_routes) == Some(false);
        draft.each(IPV4, &|family| {
            family.ignores_auto_routes |= ignores_routes;
            family.never_default |= never_default;
        });
        // Of IPv6 it is about DHCPv6 (config_parse_dhcp_use_dns), not about what routers say.
        if self.ignores_dns && draft.automatic6 {
            draft.each(IPV6, &|family| family.ignores_auto_dns = true);
        }
        if self.is_port && !draft.is_link_local4 {
            draft.no_ipv6 = false;
        }
        if self.without_ra {
            draft.is_link_local6 = false;
            draft.doubt(WITHOUT_RA);
        }
    }
}

/// One line of a route.
fn route_option<'a>(key: Key, value: &'a str, route: &mut RouteSection<'a>) {
    match key {
        Key::RouteTo => route.to = value,
        Key::RouteVia => route.via = value,
        Key::RouteMetric => route.metric = value.parse().ok(),
        Key::RouteSource => route.source = value,
        Key::RouteOnly(usual) => {
            route.is_special |= !value.is_empty() && !is_among(usual, value.as_bytes());
        }
        Key::RouteSpecial => route.is_special |= !value.is_empty(),
        _ => {}
    }
}

/// The end of a route. That a router is on the link (`GatewayOnLink=`) NetworkManager finds out by itself
/// (nm_l3_config_data_add_dependent_onlink_routes), and whose route it is (`Protocol=`) decides nothing.
fn close_route(route: Option<RouteSection>, draft: &mut Draft) {
    let Some(route) = route else { return };
    let is_v6 = route.via.contains(':') || route.to.contains(':');
    let (any, family) = if is_v6 { ("::/0", IPV6) } else { ("0.0.0.0/0", IPV4) };
    // `_dhcp4` and `_ipv6ra` stand for what the network says.
    if route.is_special || route.via.starts_with('_') {
        let is_default = route.to.is_empty() || route.to.ends_with("/0");
        return draft.miss_route(if is_default { family } else { 0 });
    }
    if !route.source.is_empty() && !draft.is_first(route.source) {
        draft.doubt(SOURCE);
    }
    let to = if route.to.is_empty() { any } else { route.to };
    draft.add_route(to, route.via, route.metric);
}

#[cfg(test)]
mod tests {
    use crate::network::fixtures;
    use crate::network::matching::Port;

    #[test]
    fn fixtures_give_exactly_these_findings() {
        fixtures::check("networkd", super::parse_one);
    }

    #[test]
    fn hostile_files_do_no_harm() {
        fixtures::torture("networkd", super::parse_one);
    }

    #[test]
    fn a_name_server_is_its_address() {
        for (word, address) in [
            ("1.1.1.1#cloudflare-dns.com", Some("1.1.1.1")),
            ("9.9.9.9:53", Some("9.9.9.9")),
            ("9.9.9.9:5353%eth0#x", None),
            ("[2620:fe::fe]:53", Some("2620:fe::fe")),
            ("[2620:fe::fe]:853", None),
            ("[2620:fe::fe]", Some("2620:fe::fe")),
            ("fe80::1%eth7", Some("fe80::1")),
            ("::1:53", Some("::1:53")),
            ("[::1", Some("[::1")),
            ("", Some("")),
        ] {
            assert_eq!(super::server(word), address, "{word}");
        }
    }

    /// What comes of files that are read behind each other: the last part of the path, and the finding.
    fn several(files: &[(&str, &str)], ports: &[Port]) -> Vec<String> {
        let all: String = files.iter().map(|(path, text)| format!("\0{path}\n{text}\n")).collect();
        let machine = super::Machine { ports, ..Default::default() };
        let mut shown = Vec::new();
        super::parse(all.as_bytes(), &machine, &mut |path, finding| {
            let mut finding = Some(finding);
            let text = fixtures::findings(b"", |_, found| {
                finding.take().into_iter().for_each(found);
            });
            shown.push(format!("{path} {text}"));
        });
        shown
    }

    const FIXED: &str = "[Match]\nName=eth0\n[Network]\nAddress=10.0.0.2/8\n";

    #[test]
    fn only_the_first_file_that_is_for_an_interface_is_in_force() {
        for (first, is_shadowed) in [
            ("[Match]\nName=eth0\n[Network]\nDHCP=yes\n", true),
            ("[Match]\nName=e*\n[Network]\nDHCP=yes\n", true),
            ("[Match]\nName=eth0\n[Link]\nUnmanaged=yes\n", true),
            ("[Match]\nName=*\n", true),
            ("[Match]\nType=ether\n", true),
            ("[Match]\nName=eth1\n", false),
            ("[Match]\nName=!eth0\n", false),
            ("[Match]\nName=eth0\nHost=x\n", false),
            ("[Match]\nMACAddress=00:1b:21:00:00:01\n", false),
            ("[Match]\nKind=vlan\nName=e*\n", false),
            ("[Network]\nDHCP=yes\n", false),
        ] {
            let found = several(&[("a.network", first), ("b.network", FIXED)], &[]);
            let of_second: Vec<_> = found.iter().filter(|text| text.starts_with("b.")).collect();
            assert_eq!(of_second.len(), 1, "{first}: {found:?}");
            assert_eq!(of_second[0].contains("not in force"), is_shadowed, "{first}: {found:?}");
        }
        // The hardware address is known to be another's, or its own.
        for (mac, is_shadowed) in [("00:1b:21:00:00:01", true), ("00:1b:21:00:00:02", false)] {
            let port = Port { name: "eth0".into(), mac: mac.into(), ..Default::default() };
            let first = "[Match]\nMACAddress=00:1b:21:00:00:01\n";
            let found = several(&[("a.network", first), ("b.network", FIXED)], &[port]);
            assert_eq!(found[0].contains("not in force"), is_shadowed, "{found:?}");
        }
        // What decides which is in force is not known.
        let other = FIXED.replace("0.2", "0.3") + "[Match]\nProperty=ID_X=1\n";
        let found = several(&[("a.network", &other), ("b.network", FIXED)], &[]).concat();
        assert_eq!(found.matches("lost: eth0: it has other settings").count(), 2, "{found}");
        let found = several(&[("a.network", FIXED), ("b.network", &other)], &[]).concat();
        assert!(!found.contains("lost") && found.contains("not in force"), "{found}");
        // Nothing is missed of what said nothing.
        let plain = "[Match]\nName=e*\n[Network]\nDHCP=yes\n";
        assert_eq!(several(&[("a.network", FIXED), ("b.network", plain)], &[]).len(), 1);
    }

    #[test]
    fn a_pattern_is_for_what_is_there() {
        let port = |name: &str, mac: &str| Port {
            name: name.into(),
            mac: mac.into(),
            ..Default::default()
        };
        let ports = [port("eth0", "00:1b:21:00:00:01"), port("enp3s0", "00:1b:21:00:00:02")];
        let text = "[Match]\nName=en*\n[Network]\nAddress=10.0.0.2/8\nVLAN=office\n";
        let found = several(&[("a.network", text)], &ports).concat();
        assert!(found.contains("interface-name=enp3s0\n"), "{found}");
        assert!(!found.contains("eth0") && found.contains("lost: office"), "{found}");
        let found = several(&[("a.network", &text.replace("en*", "usb*"))], &ports).concat();
        assert!(found.contains("doubtful: usb*: ") && found.contains("no interface"), "{found}");
        // What is made out of two is lost once.
        let found = several(&[("a.network", &text.replace("en*", "e*"))], &ports).concat();
        assert_eq!(found.matches("office").count(), 1, "{found}");
        assert_eq!(found.matches("address1=10.0.0.2/8").count(), 2, "{found}");
    }

    #[test]
    fn a_port_of_a_bridge_or_a_bond_has_no_settings_of_its_own() {
        for what in ["Bridge=br0", "Bond=bond0"] {
            let port = format!("[Match]\nName=eth0\n[Network]\nLinkLocalAddressing=no\n{what}\n");
            let found = several(&[("a.network", &port)], &[]);
            assert!(found.len() == 1 && found[0].contains("lost: b"), "{found:?}");
        }
        let vlan = "[Match]\nName=eth0\n[Network]\nLinkLocalAddressing=no\nVLAN=office\n";
        let found = several(&[("a.network", vlan)], &[]).concat();
        assert!(found.contains("method=disabled"), "{found}");
    }

    #[test]
    fn the_old_section_about_dhcp_says_nothing_of_what_routers_name() {
        for (dhcp, count) in [("ipv4", 1), ("yes", 2), ("ipv6", 2)] {
            let text = format!(
                "[Match]\nName=eth0\n[Network]\nDHCP={dhcp}\nDNS=10.0.0.53\n[DHCP]\nUseDNS=false\n"
            );
            let found = several(&[("a.network", &text)], &[]).concat();
            assert_eq!(found.matches("ignore-auto-dns=true").count(), count, "{dhcp}: {found}");
        }
    }

    #[test]
    fn what_a_netdev_makes_is_no_cable() {
        let netdev = |kind: &str| format!("[NetDev]\nName=office\nKind={kind}\n");
        let network = FIXED.replace("eth0", "office");
        for (kind, why) in [
            ("wireguard", "a tunnel"),
            ("vlan", "a VLAN"),
            ("bridge", "a bridge"),
            ("bond", "a bond"),
            ("nonsense", "made by software"),
        ] {
            let files = [("o.netdev", &*netdev(kind)), ("o.network", &*network)];
            let found = several(&files, &[]);
            assert!(found.len() == 1 && found[0].contains("lost: office: "), "{found:?}");
            assert!(found[0].contains(why), "{found:?}");
        }
        let found = several(&[("o.netdev", &netdev("vlan")), ("e.network", FIXED)], &[]);
        assert!(found.len() == 1 && found[0].contains("interface-name=eth0"), "{found:?}");
    }

    #[test]
    fn what_systemd_brings_for_containers_says_nothing() {
        for matched in [
            "Name=ve-*\nDriver=veth",
            "Kind=veth\nName=vb-*",
            "Kind=bridge\nName=vz-*",
            "Name=vt-*\nDriver=tun",
            "Name=6rd-*\nType=sit",
            "Kind=veth\nName=host0\nVirtualization=container",
            "Type=wlan\nWLANInterfaceType=ad-hoc",
        ] {
            let port = Port { name: "eth0".into(), ..Default::default() };
            for ports in [&[][..], &[port]] {
                let text = format!(
                    "[Match]\n{matched}\n[Network]\nAddress=0.0.0.0/28\nDHCPServer=yes\nIPMasquerade=both\n"
                );
                let text = if matched.contains("ad-hoc") {
                    text.split("Address").next().unwrap().to_string() + "LinkLocalAddressing=yes\n"
                } else {
                    text
                };
                assert_eq!(several(&[("80.network", &text)], ports), [""; 0], "{matched}");
            }
        }
    }
}
