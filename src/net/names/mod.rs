//! Names to addresses, by a resolver of our own: that of the C library takes 20 KB.
//!
//! First /etc/hosts, then the servers of /etc/resolv.conf; nothing else that a nsswitch.conf may name. Fixed memory:
//! the stack, of which it takes less than 32 KiB.

pub mod config;
pub mod hosts;
pub mod message;
pub mod query;

use self::config::Config;
use super::Addresses;
use super::deadline::Deadline;
use crate::address::shown;
use crate::error::Error;
use crate::text::{Text, printable};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// So many addresses of a family are taken: then there is room for the other.
const MOST_OF_A_FAMILY: usize = 8;

/// The addresses of a host: a name, or an address in text form (IPv6 with or without brackets). IPv6 first.
pub fn resolve(host: &str, deadline: Deadline) -> Result<Addresses, Error> {
    resolve_by(host, "/etc/hosts", "/etc/resolv.conf", deadline)
}

/// The same by these files.
pub fn resolve_by(
    host: &str,
    hosts: &str,
    resolv_conf: &str,
    deadline: Deadline,
) -> Result<Addresses, Error> {
    let mut found = Addresses::new();
    if let Some(address) = literal(host) {
        add(&mut found, address);
        return Ok(found);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if let Some(why) = objection(name) {
        let object: Text<160> = printable(host.as_bytes());
        return Err(Error::refused("resolving", &object, why));
    }
    if is_this_machine(name) {
        add(&mut found, Ipv6Addr::LOCALHOST.into());
        add(&mut found, Ipv4Addr::LOCALHOST.into());
        return Ok(found);
    }
    found = hosts::find(hosts, name);
    if found.is_empty() {
        found = query::resolve(host, &Config::read(resolv_conf), deadline)?;
    }
    let mut sorted = Addresses::new();
    for wanted in [false, true] {
        let of_family = found.iter().filter(|address| address.is_ipv4() == wanted);
        of_family.for_each(|address| add(&mut sorted, *address));
    }
    for address in &sorted {
        crate::debug!("{} is {}", host, shown(*address));
    }
    Ok(sorted)
}

/// Adds an address that is not there yet, while there is room for its family.
fn add(found: &mut Addresses, address: IpAddr) {
    let of_family = found.iter().filter(|known| known.is_ipv4() == address.is_ipv4());
    if of_family.count() < MOST_OF_A_FAMILY && !found.contains(&address) {
        // There is room for two families.
        let _ = found.push(address);
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inside {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// Why a text is no name of a host, if it is none.
fn objection(name: &str) -> Option<&'static str> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..64).contains(&label.len()) && label.bytes().all(is_of_name);
    if !name.is_ascii() {
        return Some("not in ASCII: write its form that begins with xn--");
    }
    // RFC 1035, 2.3.4, without the length of the first label and the root.
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Some("not the name of a host");
    }
    // RFC 1123, 2.1: then it was meant as an address.
    let last = name.rsplit('.').next().unwrap_or_default();
    last.bytes().all(|byte| byte.is_ascii_digit()).then_some("neither an address nor a name")
}

/// `localhost`, and whatever is below it, is nobody else, whatever servers and files say (RFC 6761, 6.3).
fn is_this_machine(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    /// Without any server to ask.
    fn resolved(host: &str) -> Result<Vec<String>, String> {
        let over = Deadline::after(Duration::ZERO);
        match resolve_by(host, "/dev/null", "/dev/null", over) {
            Ok(found) => Ok(found.iter().map(|address| address.to_string()).collect()),
            Err(error) => {
                let text: Text<512> = crate::text!("{}", error);
                Err(text.to_string())
            }
        }
    }

    #[test]
    fn addresses_are_taken_as_they_are() {
        for (host, wanted) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            assert_eq!(resolved(host).unwrap(), [wanted]);
        }
    }

    #[test]
    fn localhost_is_always_this_machine() {
        for host in ["localhost", "LocalHost.", "a.b.localhost"] {
            assert_eq!(resolved(host).unwrap(), ["::1", "127.0.0.1"]);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_before_anyone_is_asked() {
        let long = "x".repeat(64);
        let longer = ["xxx"; 64].join(".");
        let bad = "not the name of a host";
        let number = "neither an address nor a name";
        for (host, why) in [
            ("", bad),
            (".", bad),
            ("a..b", bad),
            (".a", bad),
            ("a b", bad),
            ("a/b", bad),
            ("[192.0.2.1]", bad),
            ("[::1", bad),
            ("fe80::1%lo", bad),
            (&long, bad),
            (&longer, bad),
            ("127.1", number),
            ("192.0.2.300", number),
            ("a.1", number),
            ("b\u{fc}cher.example", "not in ASCII"),
        ] {
            let error = resolved(host).unwrap_err();
            assert!(
                error.contains(host.get(..160).unwrap_or(host)) && error.contains(why),
                "{error}"
            );
        }
        assert!(resolved("a\x1bb").unwrap_err().starts_with("resolving a?b: not the name"));
        assert!(resolved("_a-b.1x.example.").unwrap_err().contains("no time"));
    }

    #[test]
    fn ipv6_comes_first_and_each_family_has_its_room() {
        let path = std::env::temp_dir().join(format!("takeover-names-{}", std::process::id()));
        let mut file = String::new();
        for number in 1..20 {
            file +=
                &format!("192.0.2.{number} many\n2001:db8::{number} many\n192.0.2.{number} many\n");
        }
        std::fs::write(&path, file).unwrap();
        let over = Deadline::after(Duration::ZERO);
        let found = resolve_by("Many", path.to_str().unwrap(), "/dev/null", over).unwrap();
        std::fs::remove_file(&path).unwrap();
        let shown: Vec<_> = found.iter().map(|address| address.to_string()).collect();
        assert_eq!(shown.len(), 16);
        assert_eq!((&*shown[0], &*shown[7]), ("2001:db8::1", "2001:db8::8"));
        assert_eq!((&*shown[8], &*shown[15]), ("192.0.2.1", "192.0.2.8"));
    }
}
