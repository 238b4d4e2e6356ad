//! What stands beside the addresses of a device: its name servers, the country whose rules for Wi-Fi hold, its time
//! servers, a proxy.
//!
//! Opens no file: each function is over the bytes of one, in the forms that resolv.conf(5), resolved.conf(5) and files
//! of `KEY=VALUE` have.

use super::names;
use super::wifi;
use super::words::{assignment, lines, text, unquoted, words};
use super::{Addresses, Family, Method};
use core::net::IpAddr;

/// How a file says something.
#[derive(Clone, Copy)]
pub enum Form {
    /// `KEY=VALUE`, in the group of this name; in any when it is empty.
    Entry(&'static str),
    /// `KEY=VALUE`, anywhere in a line between blanks or quotation marks.
    Word,
    /// `KEY VALUE`, a line.
    Directive,
    /// `KEY: VALUE`, a line of YAML, at any depth.
    Yaml,
}

/// Calls `visit` with each value of a key, as far as it is text; an empty one takes back those before it.
pub fn values<'a>(bytes: &'a [u8], form: Form, key: &str, visit: &mut dyn FnMut(&'a str)) {
    let mut is_in = true;
    for line in lines(bytes) {
        // Another sign of a comment in the files of time servers.
        if line.starts_with(b"!") || line.starts_with(b"%") {
            continue;
        }
        match form {
            Form::Entry(group) => {
                if let Some(name) = line.strip_prefix(b"[") {
                    is_in = group.is_empty() || name.strip_suffix(b"]") == Some(group.as_bytes());
                } else if let Some((_, value)) = assignment(line)
                    .filter(|(name, _)| (is_in || group.is_empty()) && *name == key.as_bytes())
                {
                    visit(text(unquoted(value)));
                }
            }
            Form::Word => {
                let mut parts = line.split(|byte| b" \t\"'".contains(byte)).peekable();
                while let Some(part) = parts.next() {
                    let Some((_, value)) =
                        assignment(part).filter(|(name, _)| *name == key.as_bytes())
                    else {
                        continue;
                    };
                    // It has quotation marks itself.
                    let quoted = parts.peek().filter(|_| value.is_empty());
                    visit(text(quoted.copied().unwrap_or(value)));
                }
            }
            Form::Directive | Form::Yaml => {
                let mut words = words(line);
                let name = words.next().unwrap_or_default();
                let name = match form {
                    Form::Yaml => name.strip_suffix(b":"),
                    _ => Some(name),
                };
                if name == Some(key.as_bytes()) {
                    visit(text(unquoted(words.next().unwrap_or_default())));
                }
            }
        }
    }
}

/// The country that a value names: two letters. `00` is the whole world, which needs no word. Or the command that sets
/// it, as netplan has it in a unit: `/usr/sbin/iw reg set DE`.
pub fn country(value: &str) -> Option<[u8; 2]> {
    let value = value.split_once("iw reg set ").map_or(value, |(_, value)| value);
    // A comment may be behind it.
    let word = value.split_ascii_whitespace().next()?;
    let code = word.as_bytes().first_chunk::<2>()?;
    let is_one = word.len() == 2 && code.iter().all(u8::is_ascii_alphabetic);
    is_one.then(|| code.map(|letter| letter.to_ascii_uppercase()))
}

/// Whether a name or address is a time server of one's own: those that a system brings along, the new one has as well.
pub fn is_own_time_server(name: &str) -> bool {
    const USUAL: [&str; 5] = [
        "pool.ntp.org",
        "ntp.ubuntu.com",
        "time.google.com",
        "time.cloudflare.com",
        "time.windows.com",
    ];
    let is_below = |domain: &str| {
        name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let is_address = name.parse::<IpAddr>().is_ok();
    (is_address && !names::is_loopback(name) && !is_local_clock(name)
        || names::is_domain(name) && !is_address)
        && !USUAL.iter().any(|domain| is_below(domain))
}

/// What ntpd calls the clock of the machine itself (127.127.1.0), and other devices.
fn is_local_clock(name: &str) -> bool {
    name.starts_with("127.")
}

/// Adds what a resolv.conf says.
pub fn resolv_conf(bytes: &[u8], found: &mut Addresses) {
    for line in lines(bytes) {
        let mut words = words(line);
        match words.next() {
            Some(b"nameserver") => {
                wifi::add_name_servers(found, words.text());
            }
            // The last one holds.
            Some(b"search" | b"domain") => {
                found.search = Default::default();
                wifi::add_domains(found, text(words.rest()));
            }
            _ => {}
        }
    }
}

/// Adds what a resolved.conf says.
pub fn resolved_conf(bytes: &[u8], found: &mut Addresses) {
    values(bytes, Form::Entry("Resolve"), "DNS", &mut |value| {
        if value.is_empty() {
            (found.ipv4.dns, found.ipv6.dns) = Default::default();
        }
        for server in value.split_ascii_whitespace().filter_map(plain_server) {
            wifi::add_name_servers(found, server);
        }
    });
    values(bytes, Form::Entry("Resolve"), "Domains", &mut |value| {
        if value.is_empty() {
            found.search = Default::default();
        }
        // With `~` it is no domain to search, but one that these servers are for.
        for domain in value.split_ascii_whitespace().filter(|domain| !domain.starts_with('~')) {
            wifi::add_domains(found, domain);
        }
    });
}

/// Adds what a dnsmasq.conf says (dnsmasq(8), --server): those that are asked for any name.
pub fn dnsmasq_conf(bytes: &[u8], found: &mut Addresses) {
    values(bytes, Form::Entry(""), "server", &mut |value| {
        if !value.contains('/') {
            let server = value.split(['@', '#']).next().unwrap_or_default();
            wifi::add_name_servers(found, server);
        }
    });
}

/// A name server without the port 53, the interface and the name that systemd takes with it; nothing with another port.
fn plain_server(server: &str) -> Option<&str> {
    let server = server.split(['#', '%']).next().unwrap_or_default();
    let (address, port) = match (server.strip_prefix('['), server.rsplit_once(':')) {
        (Some(rest), _) => rest.split_once(']')?,
        (None, Some((address, port))) if !address.contains(':') => (address, port),
        _ => (server, ""),
    };
    matches!(port.trim_start_matches(':'), "" | "53").then_some(address)
}

/// What became of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completed {
    /// They have name servers, or get them by DHCP, or need none.
    AsTheyWere,
    /// They were given those of the device.
    Given,
    /// They need some, and the device has none.
    Missing,
}

/// Gives fixed addresses without a name server those of the device, as DHCP would. A network without a way out gets
/// those that are in it.
pub fn complete(addresses: &mut Addresses, device: &Addresses) -> Completed {
    let Addresses { ipv4, ipv6, .. } = addresses;
    let is_fixed = match ipv4.method {
        Method::Manual => true,
        Method::Auto => false,
        _ => ipv6.method == Method::Manual,
    };
    if !is_fixed || !ipv4.dns.is_empty() || !ipv6.dns.is_empty() {
        return Completed::AsTheyWere;
    }
    let is_way = has_way(ipv4) || has_way(ipv6);
    for (family, servers) in [(&mut *ipv4, &device.ipv4.dns), (&mut *ipv6, &device.ipv6.dns)] {
        for server in servers {
            let is_usable = matches!(family.method, Method::Manual | Method::Auto);
            if is_usable && (is_way || is_near(family, server)) {
                // Both lists are as long.
                let _ = family.dns.push(server.clone());
            }
        }
    }
    let is_given = !ipv4.dns.is_empty() || !ipv6.dns.is_empty();
    if is_given && addresses.search.is_empty() {
        addresses.search = device.search.clone();
    }
    match (is_given, is_way) {
        (true, _) => Completed::Given,
        (false, true) => Completed::Missing,
        (false, false) => Completed::AsTheyWere,
    }
}

/// Whether there is a way to other networks.
fn has_way(family: &Family) -> bool {
    !family.gateway.is_empty() || family.routes.iter().any(|route| route.to.prefix == 0)
}

/// Whether an address is in one of the networks of a family.
fn is_near(family: &Family, address: &str) -> bool {
    let bits = |text: &str| match text.parse() {
        Ok(IpAddr::V4(address)) => u128::from(address.to_bits()) << 96,
        Ok(IpAddr::V6(address)) => address.to_bits(),
        Err(_) => 0,
    };
    family.addresses.iter().any(|network| {
        let differing = bits(&network.address) ^ bits(address);
        differing.leading_zeros() >= u32::from(network.prefix)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Prefixed;
    use super::*;
    use crate::text::Text;

    fn all(bytes: &str, form: Form, key: &str) -> Vec<String> {
        let mut all = Vec::new();
        values(bytes.as_bytes(), form, key, &mut |value| all.push(value.to_string()));
        all
    }

    #[test]
    fn values_in_all_forms() {
        let file = "NTP=before\n[Time]\n#NTP=no\nNTP = a b\nNTP=\n [Other] \nNTP=c\n";
        assert_eq!(all(file, Form::Entry("Time"), "NTP"), ["before", "a b", ""]);
        assert_eq!(all(file, Form::Entry(""), "NTP"), ["before", "a b", "", "c"]);
        assert_eq!(all("X=\"DE\" \n", Form::Entry(""), "X"), ["DE"]);
        let file =
            "options cfg80211 a=1 regdom=DE\nregdom2=x\nEnvironment=\"p=http://a\" p=\"b c\"\n";
        assert_eq!(all(file, Form::Word, "regdom"), ["DE"]);
        assert_eq!(all(file, Form::Word, "p"), ["http://a", "b"]);
        let file = "server a iburst\n! server no\n%x\nservers b\n  server\tc\n";
        assert_eq!(all(file, Form::Directive, "server"), ["a", "c"]);
        let file = "network:\n  wifis:\n    wlan0:\n      #domain: FR\n      domain: \"DE\"\n      domains: x\n";
        assert_eq!(all(file, Form::Yaml, "domain"), ["DE"]);
    }

    #[test]
    fn countries_are_two_letters() {
        assert_eq!(country(" de # Germany"), Some(*b"DE"));
        assert_eq!(country("/usr/sbin/iw reg set AT"), Some(*b"AT"));
        assert_eq!(country("/usr/sbin/iw phy0 info"), None);
        for other in ["", "D", "DEU", "00", "D1", "é"] {
            assert_eq!(country(other), None, "{other}");
        }
    }

    #[test]
    fn time_servers_that_a_system_brings_are_no_own_ones() {
        for own in
            ["10.0.0.1", "ntp.plant.example", "fd00::1", "mypool.ntp.org.example", "xpool.ntp.org"]
        {
            assert!(is_own_time_server(own), "{own}");
        }
        for other in [
            "",
            "0.debian.pool.ntp.org",
            "pool.ntp.org",
            "127.127.1.0",
            "::1",
            "127.0.0.1",
            "ntp.ubuntu.com",
            "a b",
            "a\"b",
        ] {
            assert!(!is_own_time_server(other), "{other}");
        }
    }

    fn shown(found: &Addresses) -> String {
        let list = |family: &Family| {
            family.dns.iter().map(|dns| format!("{} ", &**dns)).collect::<String>()
        };
        format!("{}{}{}", list(&found.ipv4), list(&found.ipv6), &*found.search)
    }

    #[test]
    fn the_files_of_resolvers() {
        let mut found = Addresses::default();
        resolv_conf(b"# x\nsearch a b\nnameserver 127.0.0.53\nnameserver 10.0.0.1 \n nameserver fd00::1\nsearch c.example d\noptions edns0\n", &mut found);
        assert_eq!(shown(&found), "10.0.0.1 fd00::1 c.example d");
        let mut found = Addresses::default();
        resolv_conf(b"nameserver 127.0.0.53\x0b\nnameserver 10.0.0.1\n", &mut found);
        assert_eq!(shown(&found), "10.0.0.1 ");
        let mut found = Addresses::default();
        resolved_conf(b"[Resolve]\nDNS=10.0.0.9\nDNS=\nDNS=9.9.9.9#dns.quad9.net 10.0.0.2:53 10.0.0.3:5353 [fd00::1]:53%eth0 fd00::2%eth0#x 127.0.0.1\nDomains=x\nDomains=\nDomains=a.example ~b ~.\nFallbackDNS=8.8.8.8\n", &mut found);
        assert_eq!(shown(&found), "9.9.9.9 10.0.0.2 fd00::1 fd00::2 a.example");
    }

    #[test]
    fn dnsmasq_asks_for_any_name_or_for_some() {
        let mut found = Addresses::default();
        dnsmasq_conf(b"#server=10.0.0.8\nserver=/plant/10.0.0.9\nserver=10.0.0.1#53\nserver=10.0.0.2@eth0\nno-resolv\n", &mut found);
        assert_eq!(shown(&found), "10.0.0.1 10.0.0.2 ");
    }

    #[test]
    fn fixed_addresses_get_the_name_servers_of_the_device() {
        let device = {
            let mut device = Addresses::default();
            resolv_conf(
                b"search lan\nnameserver 10.0.0.53\nnameserver 9.9.9.9\nnameserver fd00::1\n",
                &mut device,
            );
            device
        };
        let fixed = |gateway: &str| {
            let mut fixed = Addresses::default();
            fixed.ipv4.method = Method::Manual;
            let address = Prefixed { address: Text::from("10.0.0.2"), prefix: 24 };
            fixed.ipv4.addresses.push(address).unwrap();
            fixed.ipv4.gateway = Text::from(gateway);
            fixed
        };
        let completed = |mut addresses: Addresses, device: &Addresses| {
            let what = complete(&mut addresses, device);
            (what, shown(&addresses))
        };
        let none = Addresses::default();
        let all = "10.0.0.53 9.9.9.9 fd00::1 lan".to_string();
        assert_eq!(completed(fixed("10.0.0.1"), &device), (Completed::Given, all));
        assert_eq!(completed(fixed(""), &device), (Completed::Given, "10.0.0.53 lan".into()));
        assert_eq!(completed(fixed("10.0.0.1"), &none), (Completed::Missing, "".into()));
        assert_eq!(completed(fixed(""), &none), (Completed::AsTheyWere, "".into()));
        assert_eq!(completed(none.clone(), &device), (Completed::AsTheyWere, "".into()));
        let mut own = fixed("10.0.0.1");
        own.ipv4.dns.push(Text::from("10.0.0.9")).unwrap();
        assert_eq!(completed(own, &device), (Completed::AsTheyWere, "10.0.0.9 ".into()));
        let mut four = fixed("10.0.0.1");
        four.ipv6.method = Method::Disabled;
        assert_eq!(completed(four, &device).1, "10.0.0.53 9.9.9.9 lan");
    }
}
