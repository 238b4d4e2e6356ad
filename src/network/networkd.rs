//! Reads one `.network` file of systemd-networkd (systemd.network(5), version 256). Drop-ins (`x.network.d/*.conf`)
//! are the caller's to warn of.

use super::draft::{Draft, why};
use super::names;
use super::wifi;
use super::words::{assignment, lines, text, words};
use super::{Finding, Findings, Ssid};
use crate::text::printable;

const CONDITION: &str = "its settings depend on a condition that was not looked at";
const TWO_MACS: &str =
    "its settings are for more than one hardware address; these are not carried over";
const SERVES: &str = "it gives addresses or a way out to others; the new OS will not";
const ADDRESS_DETAIL: &str = "a peer, lifetime or the like of an address is not carried over";

/// What a line means, with its section.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Name,
    MacMatch,
    TypeMatch,
    SsidMatch,
    WifiMatch,
    Condition,
    Mtu,
    NewMac,
    Unmanaged,
    Dhcp,
    AcceptRa,
    LinkLocal,
    Address,
    Gateway,
    Dns,
    Domains,
    Made(&'static str),
    /// Gives what others need on this very interface.
    ServesHere,
    Serves,
    AddressDetail,
    RouteTo,
    RouteVia,
    RouteMetric,
    RouteDetail,
}

/// Section, key, meaning. What is not here changes nothing that the new OS would need.
const KEYS: [(&str, &str, Key); 59] = [
    ("Match", "Name", Key::Name),
    ("Match", "OriginalName", Key::Name),
    ("Match", "MACAddress", Key::MacMatch),
    ("Match", "PermanentMACAddress", Key::MacMatch),
    ("Match", "Type", Key::TypeMatch),
    ("Match", "SSID", Key::SsidMatch),
    ("Match", "WLANInterfaceType", Key::WifiMatch),
    ("Match", "BSSID", Key::WifiMatch),
    ("Match", "Host", Key::Condition),
    ("Match", "Virtualization", Key::Condition),
    ("Match", "KernelCommandLine", Key::Condition),
    ("Match", "KernelVersion", Key::Condition),
    ("Match", "Credential", Key::Condition),
    ("Match", "Architecture", Key::Condition),
    ("Match", "Firmware", Key::Condition),
    ("Link", "MTUBytes", Key::Mtu),
    ("Link", "MACAddress", Key::NewMac),
    ("Link", "Unmanaged", Key::Unmanaged),
    ("Network", "DHCP", Key::Dhcp),
    ("Network", "IPv6AcceptRA", Key::AcceptRa),
    ("Network", "LinkLocalAddressing", Key::LinkLocal),
    ("Network", "Address", Key::Address),
    ("Network", "Gateway", Key::Gateway),
    ("Network", "DNS", Key::Dns),
    ("Network", "Domains", Key::Domains),
    ("Network", "VLAN", Key::Made(names::VLAN)),
    ("Network", "Bridge", Key::Made(names::BRIDGE)),
    ("Network", "Bond", Key::Made(names::BOND)),
    ("Network", "Tunnel", Key::Made(names::TUNNEL)),
    ("Network", "MACVLAN", Key::Made(names::OTHER)),
    ("Network", "MACVTAP", Key::Made(names::OTHER)),
    ("Network", "IPVLAN", Key::Made(names::OTHER)),
    ("Network", "IPVTAP", Key::Made(names::OTHER)),
    ("Network", "VXLAN", Key::Made(names::OTHER)),
    ("Network", "VRF", Key::Made(names::OTHER)),
    ("Network", "Xfrm", Key::Made(names::OTHER)),
    ("Network", "DHCPServer", Key::ServesHere),
    ("Network", "IPMasquerade", Key::ServesHere),
    ("Network", "IPForward", Key::Serves),
    ("Network", "IPv4Forwarding", Key::Serves),
    ("Network", "IPv6Forwarding", Key::Serves),
    ("Network", "IPv6SendRA", Key::ServesHere),
    ("Address", "Address", Key::Address),
    ("Address", "Peer", Key::AddressDetail),
    ("Address", "Scope", Key::AddressDetail),
    ("Address", "PreferredLifetime", Key::AddressDetail),
    ("Address", "RouteMetric", Key::AddressDetail),
    ("Route", "Destination", Key::RouteTo),
    ("Route", "Gateway", Key::RouteVia),
    ("Route", "Metric", Key::RouteMetric),
    ("Route", "GatewayOnLink", Key::RouteDetail),
    ("Route", "Table", Key::RouteDetail),
    ("Route", "Type", Key::RouteDetail),
    ("Route", "Scope", Key::RouteDetail),
    ("Route", "Source", Key::RouteDetail),
    ("Route", "PreferredSource", Key::RouteDetail),
    ("Route", "MultiPathRoute", Key::RouteDetail),
    ("Route", "NextHop", Key::RouteDetail),
    ("Route", "InitialCongestionWindow", Key::RouteDetail),
];

/// The default route, unless something is said.
#[derive(Default)]
struct RouteSection<'a> {
    to: &'a str,
    via: &'a str,
    metric: Option<u32>,
    is_special: bool,
}

/// Hands over what one file says.
pub fn parse(bytes: &[u8], found: &mut Findings) {
    let matched = matched(bytes);
    if matched.name == b"lo" {
        return;
    }
    let mut draft = draft(&matched);
    let mut section: &[u8] = b"";
    let mut route: Option<RouteSection> = None;
    for line in lines(bytes) {
        if let Some(name) = header(line) {
            close_route(route.take(), &mut draft);
            section = name;
            if section == b"Route" {
                route = Some(RouteSection::default());
            }
            continue;
        }
        let Some((name, value)) = assignment(line) else { continue };
        let key = key(section, name);
        match (key, &mut route) {
            (Some(Key::Unmanaged), _) if boolean(value) == Some(true) => return,
            (Some(Key::Made(why)), _) => {
                for other in words(value) {
                    found(Finding::Lost(printable(other), why));
                }
            }
            (Some(key), Some(route)) => route_option(key, text(value), route),
            (Some(key), None) => option(key, value, &mut draft),
            (None, _) => {}
        }
    }
    close_route(route.take(), &mut draft);
    draft.finish(found);
}

/// The name of the section that a line begins.
fn header(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"[")?.strip_suffix(b"]")
}

fn key(section: &[u8], name: &[u8]) -> Option<Key> {
    let is_it = |row: &&(&str, &str, Key)| row.0.as_bytes() == section && row.1.as_bytes() == name;
    KEYS.iter().find(is_it).map(|(_, _, key)| *key)
}

fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"yes" | b"true" | b"on" | b"1" | b"y" | b"t" => Some(true),
        b"no" | b"false" | b"off" | b"0" | b"n" | b"f" => Some(false),
        _ => None,
    }
}

/// What `[Match]` says.
#[derive(Default)]
struct Match<'a> {
    name: &'a [u8],
    mac: &'a [u8],
    ssid: &'a [u8],
    is_wireless: bool,
    is_conditional: bool,
    /// It is for some of the Wi-Fis, or for an access point.
    is_special: bool,
}

fn matched(bytes: &[u8]) -> Match<'_> {
    let mut section: &[u8] = b"";
    let mut matched = Match::default();
    for line in lines(bytes) {
        section = header(line).unwrap_or(section);
        let Some((name, value)) = assignment(line) else { continue };
        match key(section, name) {
            Some(Key::Name) => matched.name = value,
            Some(Key::MacMatch) => matched.mac = value,
            Some(Key::TypeMatch) => matched.is_wireless |= words(value).any(|kind| kind == b"wlan"),
            Some(Key::SsidMatch) => {
                matched.is_wireless = true;
                // Two lines are one list.
                matched.is_special |= !matched.ssid.is_empty();
                matched.ssid = value;
            }
            Some(Key::WifiMatch) => {
                matched.is_wireless = true;
                matched.is_special |= value != b"station";
            }
            Some(Key::Condition) => matched.is_conditional = true,
            _ => {}
        }
    }
    matched
}

/// For which interface the file is: one by name or by hardware address, or none that could be said.
fn draft(matched: &Match) -> Draft {
    let Match { name, mac, ssid, .. } = *matched;
    let shown = [name, mac, ssid].into_iter().find(|shown| !shown.is_empty());
    let mut draft = Draft::new(shown.unwrap_or(b"any interface"));
    let one = one_ssid(ssid);
    // Else it is for some Wi-Fis of many.
    draft.has_wifis_apart = !matched.is_special && (ssid.is_empty() || one.is_some());
    if let Some(ssid) = one {
        draft.set_ssid(ssid);
        // Of the files that match only the first is applied.
        draft.is_whole = true;
    }
    if name.is_empty() {
        draft.set_nameless();
    }
    if words(mac).nth(1).is_some() {
        draft.doubt(TWO_MACS);
    } else {
        draft.set_mac(text(mac));
    }
    if matched.is_wireless {
        draft.set_wireless();
    }
    if matched.is_conditional {
        draft.doubt(CONDITION);
    }
    draft
}

/// The Wi-Fi that `SSID=` names, when it is one: a list of words, each with quotation marks around it or not, in which
/// `*`, `?`, `[`, `!` and `\` mean more than themselves.
fn one_ssid(value: &[u8]) -> Option<Ssid> {
    let quoted = |mark: &[u8]| value.strip_prefix(mark)?.strip_suffix(mark);
    let bare = quoted(b"\"").or(quoted(b"'"));
    let is_one = bare.is_some() || words(value).nth(1).is_none();
    let name = bare.unwrap_or(value);
    let is_special = |byte: &u8| b"*?[!\\\"'".contains(byte);
    wifi::ssid(name).filter(|name| is_one && !name.iter().any(is_special))
}

/// One line outside of a route. An empty value takes back what was said before.
fn option(key: Key, value: &[u8], draft: &mut Draft) {
    let is_empty = value.is_empty();
    match key {
        Key::Mtu => draft.set_mtu(text(value)),
        Key::NewMac => draft.doubt(why::NEW_MAC),
        Key::Dhcp => {
            (draft.automatic4, draft.automatic6) = match value {
                b"ipv4" | b"v4" => (true, false),
                b"ipv6" | b"v6" => (false, true),
                b"both" => (true, true),
                _ => (boolean(value) == Some(true), boolean(value) == Some(true)),
            };
        }
        Key::AcceptRa => draft.ignores_routers = boolean(value) == Some(false),
        // Without a link-local address there is no IPv6 but what is fixed.
        Key::LinkLocal => draft.no_ipv6 = value == b"ipv4" || boolean(value) == Some(false),
        Key::Address if is_empty => draft.clear_addresses(),
        Key::Address => draft.add_address(text(value), None),
        Key::Gateway if is_empty => draft.clear_gateways(),
        Key::Gateway => draft.set_gateway(text(value)),
        Key::Dns if is_empty => draft.clear_dns(),
        Key::Dns => words(value).for_each(|word| draft.add_dns(text(word))),
        Key::Domains if is_empty => draft.clear_search(),
        Key::Domains => words(value).for_each(|word| draft.add_search(text(word))),
        Key::Serves | Key::ServesHere if boolean(value) != Some(false) => {
            draft.doubt(SERVES);
            draft.is_access_point |= key == Key::ServesHere;
        }
        Key::AddressDetail => draft.doubt(ADDRESS_DETAIL),
        _ => {}
    }
}

/// One line of a route.
fn route_option<'a>(key: Key, value: &'a str, route: &mut RouteSection<'a>) {
    match key {
        Key::RouteTo => route.to = value,
        Key::RouteVia => route.via = value,
        Key::RouteMetric => route.metric = value.parse().ok(),
        Key::RouteDetail => route.is_special = true,
        _ => {}
    }
}

/// The end of a route.
fn close_route(route: Option<RouteSection>, draft: &mut Draft) {
    let Some(route) = route else { return };
    // `_dhcp4` and `_ipv6ra` stand for what the network says.
    if route.is_special || route.via.starts_with('_') {
        return draft.doubt(why::BAD_ROUTE);
    }
    let any = if route.via.contains(':') { "::/0" } else { "0.0.0.0/0" };
    let to = if route.to.is_empty() { any } else { route.to };
    draft.add_route(to, route.via, route.metric);
}

#[cfg(test)]
mod tests {
    use crate::network::fixtures;

    #[test]
    fn fixtures_give_exactly_these_findings() {
        fixtures::check("networkd", super::parse);
    }

    #[test]
    fn hostile_files_do_no_harm() {
        fixtures::torture("networkd", super::parse);
    }
}
