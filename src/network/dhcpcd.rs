//! Reads `/etc/dhcpcd.conf` (dhcpcd.conf(5), version 9): the static settings that a Raspberry Pi OS before version 12
//! has there.

use super::draft::{Draft, why};
use super::names;
use super::wifi;
use super::words::{Words, assignment, is_like, lines, text, unquoted, words};
use super::{Finding, Findings};
use crate::text::{Text, printable};

const MANY: &str =
    "it has settings for more than 32 interfaces and Wi-Fis; the others are left out";
const FALLBACK: &str =
    "its static settings for when DHCP fails are not carried over; it will use DHCP only";
const QUOTED: &str = "its address settings are not carried over: to dhcpcd, the quotation marks are a part of its name";
const BAD_SSID: &str = "its address settings are not carried over: no Wi-Fi has such a name";
const ARPING: &str = "its settings depend on who is on the network; these are not carried over";
const INFORM: &str =
    "its fixed address, with all else from DHCP, is not carried over; it will use DHCP";
const PEER: &str = "it is a point-to-point link; these are not carried over";
const REQUEST: &str = "it asks DHCP for one address; the new OS takes what it gets";
const OPTION: &str = "a static option of DHCP is not carried over";
const DENIED: &str = "dhcpcd was to leave it alone; the new OS will use DHCP on it";
const LEFT_ALONE: &str =
    "its settings are not carried over: dhcpcd leaves it alone (denyinterfaces, allowinterfaces)";
const NO_IPV4: &str = "it was not to use IPv4; the new OS will";
const NO_OPTION: &str = "it was not to take everything from DHCP; the new OS will";
const TOKEN: &str = "its IPv6 address will be another one";
const NO_DHCP: &str = "it was not to use DHCP; the new OS will";
const NO_GATEWAY: &str = "it was not to be the way to other networks; on the new OS it may be";
const ALL: &str = "it has settings for all interfaces; they are only carried over to those with settings of their own";

/// Hands over what one file says.
pub fn parse(bytes: &[u8], found: &mut Findings) {
    elsewhere(bytes, found);
    let mut seen: heapless::Vec<Block, 32> = heapless::Vec::new();
    for line in lines(bytes) {
        let mut words = words(line);
        let block = match block(words.next().unwrap_or_default(), &mut words) {
            Some(Block::Interface(b"lo" | b"")) | Some(Block::All | Block::Other) | None => {
                continue;
            }
            Some(block) => block,
        };
        if seen.contains(&block) {
            continue;
        }
        if seen.push(block).is_err() {
            return found(Finding::Doubtful(Text::from("dhcpcd.conf"), MANY));
        }
        match block {
            Block::Interface(name) if !is_managed(bytes, name) => {
                found(Finding::Doubtful(printable(name), LEFT_ALONE));
            }
            _ => settings(bytes, block, found),
        }
    }
}

/// Whether dhcpcd configures the interface: it is not denied, and allowed where that is said of any.
fn is_managed(bytes: &[u8], name: &[u8]) -> bool {
    let (mut is_denied, mut is_allowed) = (false, None);
    for line in lines(bytes) {
        let mut words = words(line);
        let key = words.next().unwrap_or_default();
        let matches = || values(words.rest()).any(|pattern| is_like(pattern, name));
        match key {
            b"denyinterfaces" => is_denied |= matches(),
            b"allowinterfaces" => is_allowed = Some(is_allowed == Some(true) || matches()),
            _ => {}
        }
    }
    !is_denied && is_allowed != Some(false)
}

/// For what the lines are.
#[derive(Clone, Copy, PartialEq)]
enum Block<'a> {
    All,
    Interface(&'a [u8]),
    /// A Wi-Fi, its name as it is written: dhcpcd knows no quotation marks there (read_config of if-options.c).
    Ssid(&'a [u8]),
    /// A profile.
    Other,
}

/// The block that a line begins.
fn block<'a>(key: &[u8], words: &mut Words<'a>) -> Option<Block<'a>> {
    match key {
        b"interface" => Some(Block::Interface(words.next().unwrap_or_default())),
        b"ssid" => Some(Block::Ssid(words.rest())),
        b"profile" => Some(Block::Other),
        _ => None,
    }
}

/// The settings of the interface or the Wi-Fi of a block, empty yet; nothing when it can be neither.
fn draft(block: Block, found: &mut Findings) -> Option<Draft> {
    let name = match block {
        Block::Interface(name) => {
            let mut draft = Draft::new(name);
            draft.has_wifis_apart = true;
            return Some(draft);
        }
        Block::Ssid(name) => name,
        Block::All | Block::Other => return None,
    };
    let ssid = wifi::ssid(name).filter(|_| name.first() != Some(&b'"'));
    let Some(ssid) = ssid else {
        let why = if name.first() == Some(&b'"') { QUOTED } else { BAD_SSID };
        found(Finding::Doubtful(printable(name), why));
        return None;
    };
    let mut draft = Draft::new(name);
    draft.set_nameless();
    draft.set_ssid(ssid);
    draft.has_wifis_apart = true;
    Some(draft)
}

/// What is not about one interface.
fn elsewhere(bytes: &[u8], found: &mut Findings) {
    let mut current = Block::All;
    let mut is_said = false;
    for line in lines(bytes) {
        let mut words = words(line);
        let key = words.next().unwrap_or_default();
        let rest = words.rest();
        match key {
            b"denyinterfaces" => {
                // Those of containers are not there on the new OS.
                let is_real = |name: &&[u8]| names::made_by_software(text(name)).is_none();
                for name in values(rest).filter(is_real) {
                    found(Finding::Doubtful(printable(name), DENIED));
                }
            }
            b"static" | b"inform" | b"fallback" if current == Block::All && !is_said => {
                is_said = true;
                found(Finding::Doubtful(Text::from("dhcpcd.conf"), ALL));
            }
            _ => {}
        }
        current = block(key, &mut words).unwrap_or(current);
    }
}

/// All that is said of one interface or Wi-Fi, and of all.
fn settings(bytes: &[u8], wanted: Block, found: &mut Findings) {
    let Some(mut draft) = draft(wanted, found) else { return };
    let mut mask = None;
    let mut current = Block::All;
    // Its netmask may be a line of its own, behind the address.
    for line in lines(bytes) {
        let mut words = words(line);
        let key = words.next().unwrap_or_default();
        current = block(key, &mut words).unwrap_or(current);
        let is_for_it = current == Block::All || current == wanted;
        if let Some(value) = static_value(key, &words, b"subnet_mask").filter(|_| is_for_it) {
            mask = Some(text(value));
        }
    }
    current = Block::All;
    for line in lines(bytes) {
        let mut words = words(line);
        let key = words.next().unwrap_or_default();
        if let Some(next) = block(key, &mut words) {
            current = next;
            continue;
        }
        if current == Block::All || current == wanted {
            option(key, &mut words, mask, &mut draft);
        }
        // Without wpa_supplicant it joins no Wi-Fi: it is one.
        if current == wanted && key == b"nohook" {
            let is_it = |hook: &[u8]| matches!(hook, b"wpa_supplicant" | b"10-wpa_supplicant");
            draft.is_access_point |= values(words.rest()).any(is_it);
        }
    }
    draft.finish(found);
}

/// The value of `static NAME=VALUE`, when it is that name.
fn static_value<'a>(key: &[u8], words: &Words<'a>, name: &[u8]) -> Option<&'a [u8]> {
    if key != b"static" {
        return None;
    }
    let (found, value) = assignment(words.rest())?;
    (found == name).then_some(unquoted(value))
}

/// The parts of a value, which blanks and commas separate, up to a comment.
fn values(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = words(value).flat_map(|word| word.split(|&byte| byte == b','));
    parts.filter(|part| !part.is_empty()).take_while(|part| !part.starts_with(b"#"))
}

/// One line for one interface.
fn option<'a>(key: &[u8], words: &mut Words<'a>, mask: Option<&'a str>, draft: &mut Draft) {
    match key {
        b"static" => match assignment(words.rest()) {
            Some((name, value)) => static_option(name, unquoted(value), mask, draft),
            None => draft.doubt(OPTION),
        },
        b"fallback" => draft.doubt(FALLBACK),
        b"arping" => draft.doubt(ARPING),
        b"inform" => draft.doubt(INFORM),
        b"request" => draft.doubt(REQUEST),
        b"mtu" => draft.set_mtu(words.text()),
        b"metric" => draft.doubt(why::METRIC),
        b"nodhcp" | b"noup" => draft.doubt(NO_DHCP),
        b"noipv4" | b"ipv6only" => draft.doubt(NO_IPV4),
        b"nooption" | b"blacklist" | b"whitelist" => draft.doubt(NO_OPTION),
        b"slaac" if words.next() == Some(b"token") => draft.doubt(TOKEN),
        b"inform6" => draft.doubt(INFORM),
        b"destination" => draft.lose(PEER),
        b"nogateway" => draft.doubt(NO_GATEWAY),
        b"noipv6" | b"ipv4only" => draft.no_ipv6 = true,
        b"noipv6rs" => draft.ignores_routers = true,
        _ => {}
    }
}

/// One static option.
fn static_option(name: &[u8], value: &[u8], mask: Option<&str>, draft: &mut Draft) {
    let mut parts = values(value).map(text);
    match name {
        b"ip_address" => match parts.next() {
            Some(address) => draft.add_address(address, mask),
            // How a dial-up link without an address of its own is set.
            None => draft.lose(names::TUNNEL),
        },
        b"ip6_address" => draft.add_address(parts.next().unwrap_or_default(), None),
        b"routers" => parts.for_each(|router| draft.set_gateway(router)),
        b"domain_name_servers" | b"dhcp6_name_servers" => {
            parts.for_each(|server| draft.add_dns(server));
        }
        b"domain_name" | b"domain_search" | b"dhcp6_domain_search" => {
            parts.for_each(|domain| draft.add_search(domain));
        }
        b"interface_mtu" => draft.set_mtu(parts.next().unwrap_or_default()),
        b"classless_static_routes" => {
            while let Some(to) = parts.next() {
                // Without a router it is half a route, not one to a neighbour.
                draft.add_route(to, parts.next().unwrap_or("none"), None);
            }
        }
        // Both follow from the address.
        b"subnet_mask" | b"broadcast_address" => {}
        _ => draft.doubt(OPTION),
    }
}

#[cfg(test)]
mod tests {
    use crate::network::{Finding, fixtures};

    #[test]
    fn fixtures_give_exactly_these_findings() {
        fixtures::check("dhcpcd", super::parse);
    }

    #[test]
    fn what_dhcpcd_leaves_alone_is_left_alone() {
        for (lines, managed) in [
            ("denyinterfaces eth0", false),
            ("denyinterfaces wlan0, eth*", false),
            ("denyinterfaces wlan0\ndenyinterfaces eth?", false),
            ("allowinterfaces wlan0", false),
            ("allowinterfaces wlan0 eth0", true),
            ("allowinterfaces wlan0\nallowinterfaces e*", true),
            ("allowinterfaces eth0\ndenyinterfaces eth0", false),
            ("denyinterfaces eth1 # eth0", true),
        ] {
            let text = format!("{lines}\ninterface eth0\nstatic ip_address=10.0.0.2/8\n");
            let mut found = Vec::new();
            super::parse(text.as_bytes(), &mut |finding| found.push(finding));
            let is_there = |finding: &Finding| matches!(finding, Finding::Wired(_));
            assert_eq!(found.iter().any(is_there), managed, "{lines}");
            let is_said = |finding: &Finding| matches!(finding, Finding::Doubtful(name, super::LEFT_ALONE) if &**name == "eth0");
            assert_eq!(found.iter().any(is_said), !managed, "{lines}");
        }
    }

    #[test]
    fn hostile_files_do_no_harm() {
        fixtures::torture("dhcpcd", super::parse);
    }
}
