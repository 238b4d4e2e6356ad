//! What commands in settings of ifupdown do (`up ip route add …`, `post-up route add …` as cloud-init writes them):
//! routes and addresses go into the settings, all else is not understood.
//!
//! No shell: a line with anything but words, `;`, `&&`, `|| true`, a redirection and `$IFACE` is not understood either.

use super::draft::{Draft, IPV4, IPV6};
use super::words::{text, words};
use crate::text::Text;

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Outcome {
    /// It is in the settings, or changes nothing that the new OS would need.
    Done,
    /// It is not understood.
    Unknown,
    /// It is not understood, and it makes a default route of these families.
    LostDefault(u8),
}

/// The words of one command.
type OneCommand<'a> = heapless::Vec<&'a str, 24>;

/// Takes over what a line of commands does, and says what became of each. `own`: the address of the interface.
pub(super) fn run(
    line: &[u8],
    own: &str,
    draft: &mut Draft,
    said: &mut dyn FnMut(Outcome, &mut Draft),
) {
    let mut command = OneCommand::new();
    let mut is_odd = false;
    let mut words = words(line).map(text);
    loop {
        let word = words.next();
        let bare = word.map(|word| word.trim_end_matches(';'));
        let is_end = matches!(word, None | Some("&&" | "||")) || word != bare;
        match word {
            Some("&&" | "||") | None => {}
            Some(word) if word.starts_with('#') => words.by_ref().for_each(drop),
            // Where it goes is no matter.
            Some(">" | "2>") => drop(words.next()),
            Some(word) if word.starts_with('>') || word.starts_with("2>") => {}
            Some(_) => is_odd |= command.push(bare.unwrap_or_default()).is_err(),
        }
        if is_end && !command.is_empty() {
            let outcome = if is_odd { Outcome::Unknown } else { one(&command, own, draft) };
            said(outcome, draft);
            command.clear();
            is_odd = false;
        }
        match word {
            None => return,
            Some("||") => {
                // Only what cannot matter may stand behind it.
                let next = words.next().unwrap_or_default();
                match next.trim_end_matches(';') {
                    "true" | ":" | "/bin/true" => {}
                    "exit" => drop(words.next()),
                    _ => return said(Outcome::Unknown, draft),
                }
            }
            _ => {}
        }
    }
}

/// One command.
fn one(command: &[&str], own: &str, draft: &mut Draft) -> Outcome {
    let mut words = command.iter().copied();
    let name = words.next().unwrap_or_default();
    let done = match name.rsplit('/').next().unwrap_or_default() {
        "ip" => ip(&mut words, own, draft),
        "route" => route(&mut words, draft),
        "ifconfig" => ifconfig(&mut words, draft),
        "true" | ":" | "sleep" | "echo" | "logger" => Some(()),
        _ => None,
    };
    let is_default = |word: &&str| matches!(*word, "default" | "0.0.0.0/0" | "::/0" | "0/0");
    let adds = ["route", "ro", "r"].iter().any(|name| command.contains(name));
    let is_v6 = command.iter().any(|word| word.contains(':') || matches!(*word, "-6" | "inet6"));
    match done {
        Some(()) => Outcome::Done,
        None if adds && command.iter().any(is_default) => {
            Outcome::LostDefault(if is_v6 { IPV6 } else { IPV4 })
        }
        None => Outcome::Unknown,
    }
}

/// The words that are still to come.
type Rest<'a, 'b> = dyn Iterator<Item = &'a str> + 'b;

/// ip(8).
fn ip<'a>(words: &mut Rest<'a, '_>, own: &str, draft: &mut Draft) -> Option<()> {
    let mut object = words.next()?;
    while object.starts_with('-') {
        if matches!(object, "-f" | "-family") {
            words.next()?;
        }
        object = words.next()?;
    }
    let is = |whole: &str| whole.starts_with(object);
    let verb = words.next()?;
    let adds = matches!(verb, "add" | "a" | "append" | "replace" | "change" | "prepend");
    match object.chars().next()? {
        'a' if is("address") && adds => ip_address(words, draft),
        'r' if is("route") && adds => ip_route(words, own, draft),
        'l' if is("link") && verb == "set" => ip_link(words, draft),
        _ => None,
    }
}

/// `ip route add`, behind that (ip-route(8)).
fn ip_route<'a>(words: &mut Rest<'a, '_>, own: &str, draft: &mut Draft) -> Option<()> {
    let mut to = words.next()?;
    if matches!(to, "unicast" | "to") {
        to = words.next()?;
    }
    let (mut via, mut metric) = ("", None);
    while let Some(key) = words.next() {
        match key {
            "via" => {
                via = words.next()?;
                if matches!(via, "inet" | "inet6") {
                    via = words.next()?;
                }
            }
            "dev" => is_own(words.next()?, draft)?,
            "metric" | "preference" | "priority" => metric = Some(words.next()?.parse().ok()?),
            "proto" | "protocol" => drop(words.next()?),
            "scope" => matches!(words.next()?, "global" | "link").then_some(())?,
            "table" => matches!(words.next()?, "main" | "254").then_some(())?,
            "src" => (words.next()? == own).then_some(())?,
            // NetworkManager finds that out by itself.
            "onlink" => {}
            _ => return None,
        }
    }
    add_route(to, via, metric, draft)
}

/// Adds a route, when it is one.
fn add_route(to: &str, via: &str, metric: Option<u32>, draft: &mut Draft) -> Option<()> {
    let is_address = |text: &str| text.parse::<core::net::IpAddr>().is_ok();
    let to = match to {
        "default" | "all" | "any" if via.contains(':') => "::/0",
        "default" | "all" | "any" => "0.0.0.0/0",
        _ => to,
    };
    let is_network = is_address(to.split('/').next()?);
    (is_network && (via.is_empty() || is_address(via))).then(|| draft.add_route(to, via, metric))
}

/// Whether a command is about the interface whose settings these are.
fn is_own(device: &str, draft: &Draft) -> Option<()> {
    let device = device.trim_matches('"');
    (matches!(device, "$IFACE" | "${IFACE}") || draft.is_called(device)).then_some(())
}

/// `ip address add`, behind that.
fn ip_address<'a>(words: &mut Rest<'a, '_>, draft: &mut Draft) -> Option<()> {
    let mut address = words.next()?;
    if address == "local" {
        address = words.next()?;
    }
    while let Some(key) = words.next() {
        match key {
            "dev" => is_own(words.next()?, draft)?,
            "brd" | "broadcast" | "label" => drop(words.next()?),
            "scope" => (words.next()? == "global").then_some(())?,
            _ => return None,
        }
    }
    add_address(address, None, draft)
}

/// Adds an address, when it is one. Without a prefix it is one of a single host.
fn add_address(address: &str, mask: Option<&str>, draft: &mut Draft) -> Option<()> {
    let bare = address.split('/').next()?.parse::<core::net::IpAddr>().ok()?;
    let single = if bare.is_ipv6() { "128" } else { "32" };
    draft.add_address(address, mask.or(Some(single)));
    Some(())
}

/// `ip link set`, behind that.
fn ip_link<'a>(words: &mut Rest<'a, '_>, draft: &mut Draft) -> Option<()> {
    let mut device = words.next()?;
    if device == "dev" {
        device = words.next()?;
    }
    is_own(device, draft)?;
    while let Some(key) = words.next() {
        match key {
            "up" => {}
            "mtu" => draft.set_mtu(words.next()?),
            _ => return None,
        }
    }
    Some(())
}

/// route(8) of net-tools and busybox.
fn route<'a>(words: &mut Rest<'a, '_>, draft: &mut Draft) -> Option<()> {
    let (mut to, mut via, mut mask) = ("", "", "");
    let (mut metric, mut is_net, mut adds) = (None, false, false);
    while let Some(key) = words.next() {
        match key {
            "add" => adds = true,
            "-A" | "-f" => drop(words.next()?),
            "-4" | "-6" | "--inet" | "--inet6" | "-host" => {}
            "-net" => is_net = true,
            "netmask" => mask = words.next()?,
            "gw" => via = words.next()?,
            // cloud-init writes it without a number, too.
            "metric" => metric = words.next().and_then(|metric| metric.parse().ok()),
            "dev" => is_own(words.next()?, draft)?,
            _ if to.is_empty() => to = key,
            _ => is_own(key, draft)?,
        }
    }
    let with_mask: Text<64> = crate::text!("{}/{}", to, mask);
    let network = if mask.is_empty() { to } else { &with_mask };
    // A network without a mask has the one of its class.
    let is_whole = !is_net || network.contains('/') || to == "default";
    (adds && is_whole).then_some(())?;
    add_route(network, via, metric, draft)
}

/// ifconfig(8).
fn ifconfig<'a>(words: &mut Rest<'a, '_>, draft: &mut Draft) -> Option<()> {
    is_own(words.next()?, draft)?;
    let (mut address, mut mask) = ("", None);
    while let Some(key) = words.next() {
        match key {
            "up" | "inet" => {}
            "netmask" => mask = Some(words.next()?),
            "broadcast" => drop(words.next()?),
            "mtu" => draft.set_mtu(words.next()?),
            _ if address.is_empty() => address = key,
            _ => return None,
        }
    }
    match (address, mask) {
        // So it is up without an address.
        ("" | "0.0.0.0" | "0", _) => Some(()),
        // Without a mask it has the one of its class.
        (_, None) if !address.contains('/') => None,
        _ => add_address(address, mask, draft),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Finding, Wired};

    /// What becomes of a line in the settings of eth0 at 10.0.0.2/8: outcomes, routers, routes and addresses.
    fn outcome(line: &str) -> String {
        let mut draft = Draft::new(b"eth0");
        draft.add_address("10.0.0.2/8", None);
        draft.add_address("2001:db8::2/64", None);
        let mut shown = String::new();
        run(line.as_bytes(), "10.0.0.2", &mut draft, &mut |outcome, _| {
            shown += match outcome {
                Outcome::Done => "ok ",
                Outcome::Unknown => "? ",
                Outcome::LostDefault(IPV4) => "lost4 ",
                Outcome::LostDefault(_) => "lost6 ",
            };
        });
        draft.finish(&mut |finding| match finding {
            Finding::Wired(Wired { addresses, .. }) => {
                for family in [addresses.ipv4, addresses.ipv6] {
                    for address in family.addresses.iter().skip(1) {
                        shown += &format!("+{}/{} ", &*address.address, address.prefix);
                    }
                    if !family.gateway.is_empty() {
                        shown += &format!("gw {} {:?} ", &*family.gateway, family.route_metric);
                    }
                    for route in family.routes {
                        let (to, via) = (route.to, route.via);
                        shown += &format!("{}/{},{} ", &*to.address, to.prefix, &*via);
                    }
                }
                if addresses.mtu != 0 {
                    shown += &format!("mtu {} ", addresses.mtu);
                }
            }
            other => shown += &format!("{other:?}"),
        });
        shown.trim_end().to_string()
    }

    #[test]
    fn routes_in_all_their_spellings() {
        for (line, wanted) in [
            ("ip route add default via 10.0.0.1", "ok gw 10.0.0.1 None"),
            (
                "/sbin/ip -4 ro a default via 10.0.0.1 dev eth0 metric 7 onlink",
                "ok gw 10.0.0.1 Some(7)",
            ),
            ("ip r replace 0.0.0.0/0 via 10.0.0.1 proto static", "ok gw 10.0.0.1 None"),
            ("ip -6 route add default via fe80::1 dev $IFACE", "ok gw fe80::1 None"),
            ("ip route add default via 10.0.0.1 src 10.0.0.2", "ok gw 10.0.0.1 None"),
            ("ip route add default dev eth0", "ok 0.0.0.0/0,"),
            ("ip route add 10.9.0.1 dev ${IFACE} scope link", "ok 10.9.0.1/32,"),
            ("ip route add 172.16.0.0/12 via 10.0.0.9 || true", "ok 172.16.0.0/12,10.0.0.9"),
            (
                "ip route add 172.16.0.0/12 via 10.0.0.9 >/dev/null 2>&1 # why",
                "ok 172.16.0.0/12,10.0.0.9",
            ),
            (
                "ip route add 10.9.0.1 dev eth0; ip route add default via 10.9.0.1 && true",
                "ok ok ok gw 10.9.0.1 None 10.9.0.1/32,",
            ),
            ("route add default gw 10.0.0.1 || true", "ok gw 10.0.0.1 None"),
            (
                "ip ro add 10.9.0.1 dev eth0 || true; ip ro add default via 10.9.0.1 || exit 0",
                "ok ok gw 10.9.0.1 None 10.9.0.1/32,",
            ),
            ("route add default gw 10.0.0.1 eth0", "ok gw 10.0.0.1 None"),
            (
                "route add -net 0.0.0.0 netmask 0.0.0.0 gw 10.0.0.1 metric 3",
                "ok gw 10.0.0.1 Some(3)",
            ),
            (
                "route add -net 172.16.0.0 netmask 255.240.0.0 gw 10.0.0.9 metric 5 || true",
                "ok 172.16.0.0/12,10.0.0.9",
            ),
            ("route add -net 172.16.0.0/12 gw 10.0.0.9", "ok 172.16.0.0/12,10.0.0.9"),
            ("route add -host 172.16.0.1 gw 10.0.0.9", "ok 172.16.0.1/32,10.0.0.9"),
            ("route add -A inet6 default gw 2001:db8::1 || true", "ok gw 2001:db8::1 None"),
            (
                "route -A inet6 add 2001:db8:1::/48 gw 2001:db8::1 metric || true",
                "ok 2001:db8:1::/48,2001:db8::1",
            ),
        ] {
            assert_eq!(outcome(line), wanted, "{line}");
        }
    }

    #[test]
    fn addresses_and_the_link() {
        for (line, wanted) in [
            ("ip addr add 10.0.0.3/8 dev eth0", "ok +10.0.0.3/8"),
            ("ip a add 10.0.0.3 brd + dev $IFACE label eth0:1", "ok +10.0.0.3/32"),
            ("ifconfig eth0 10.0.0.3 netmask 255.0.0.0 up", "ok +10.0.0.3/8"),
            ("ifconfig $IFACE 0.0.0.0 up", "ok"),
            ("ip link set dev eth0 mtu 1400 up", "ok mtu 1400"),
            ("sleep 1", "ok"),
        ] {
            assert_eq!(outcome(line), wanted, "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_and_a_default_route_above_all() {
        for line in [
            "/etc/network/routes.sh",
            "iptables-restore < /etc/iptables",
            "ip rule add from 10.0.0.2 table 100",
            "ip route add 10.9.0.0/16 via 10.0.0.9 table 100",
            "ip route add blackhole 10.9.0.0/16",
            "ip route add 10.9.0.0/16 dev eth1",
            "ip route del 10.9.0.0/16",
            "route add -net 172.16.0.0 gw 10.0.0.9",
            "ip link set eth0 address 02:00:00:00:00:01",
            "ethtool -s eth0 wol g",
            "[ -x /x ] || /x",
        ] {
            assert!(outcome(line).starts_with('?'), "{line}: {}", outcome(line));
        }
        for (line, wanted) in [
            ("ip route add default via $GW", "lost4"),
            ("ip route add default via 10.0.0.1 dev eth1", "lost4"),
            ("ip route add default via 10.0.0.1 table 7", "lost4"),
            ("ip -6 route add default via $GW", "lost6"),
            ("route add default gw gateway.example", "lost4"),
            ("sh -c \"ip route add default via 10.0.0.1\"", "lost4"),
            ("ip route add default nexthop via 10.0.0.1 nexthop via 10.0.0.9", "lost4"),
        ] {
            assert_eq!(outcome(line), wanted, "{line}");
        }
    }
}
