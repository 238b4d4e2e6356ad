//! IP addresses for people, without core::fmt: that of the standard library takes kilobytes.

use crate::text::{Text, Writer};
use core::convert::Infallible;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use ufmt::{uWrite, uwrite};

/// An address (RFC 5952 for IPv6).
pub fn shown(address: IpAddr) -> Text<40> {
    Text::build(&mut |writer: &mut Writer<'_>| write(writer, address))
}

/// An address with the number of its interface, where it has one, and a port; IPv6 in brackets.
pub fn shown_with_port(address: SocketAddr) -> Text<64> {
    let (ip, port) = (address.ip(), address.port());
    match address {
        SocketAddr::V4(_) => crate::text!("{}:{}", shown(ip), port),
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            crate::text!("[{}%{}]:{}", shown(ip), v6.scope_id(), port)
        }
        SocketAddr::V6(_) => crate::text!("[{}]:{}", shown(ip), port),
    }
}

fn write(writer: &mut Writer<'_>, address: IpAddr) -> Result<(), Infallible> {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets(),
        // RFC 5952, 5: what is known to hold an IPv4 address shows it.
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => {
                writer.write_str("::ffff:")?;
                v4.octets()
            }
            None => return write_v6(writer, v6),
        },
    };
    let [a, b, c, d] = octets;
    uwrite!(writer, "{}.{}.{}.{}", a, b, c, d)
}

fn write_v6(writer: &mut Writer<'_>, address: Ipv6Addr) -> Result<(), Infallible> {
    let groups = address.segments();
    let (start, length) = longest_zeros(&groups);
    for (at, group) in groups.into_iter().enumerate() {
        if at == start && length > 0 {
            writer.write_str("::")?;
        } else if at < start || at >= start + length {
            let is_first = at == 0 || (length > 0 && at == start + length);
            uwrite!(writer, "{}{:x}", if is_first { "" } else { ":" }, group)?;
        }
    }
    Ok(())
}

/// Where the longest run of zeros begins, and its length; none where it is a single group (RFC 5952, 4.2).
fn longest_zeros(groups: &[u16; 8]) -> (usize, usize) {
    let mut longest = (0, 0);
    let mut length = 0;
    for (at, group) in groups.iter().enumerate() {
        length = if *group == 0 { length + 1 } else { 0 };
        if length > longest.1 && length > 1 {
            longest = (at + 1 - length, length);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(address: &str) -> String {
        shown(address.parse().unwrap()).to_string()
    }

    #[test]
    fn addresses_are_shown_as_the_standard_library_shows_them() {
        for address in [
            "::",
            "::1",
            "1::",
            "192.0.2.1",
            "255.255.255.255",
            "2001:db8::1",
            "2001:db8::1:0:0:1",
            "2001:0:0:1::1",
            "1:0:2:3:4:5:6:7",
            "::2:3:4:5:6:7",
            "1:2:3:4:5:6::",
            "fe80::abcd:ef01:2345:6789",
            "2001:db8:1111:2222:3333:4444:5555:6666",
            "::ffff:192.0.2.1",
        ] {
            assert_eq!(text(address), address);
        }
        let mut random = 1u128;
        for _ in 0..2000 {
            random = random.wrapping_mul(0x2d99_787f_ea79_3a56_3bb5_e331_5a2b_a4d5).wrapping_add(7);
            // Some groups are zero, in every pattern.
            let groups = (0..8).fold(0, |all, group| all | (random >> group & 1) << (16 * group));
            let address = Ipv6Addr::from_bits(random & (groups * 0xffff));
            assert_eq!(*text(&address.to_string()), address.to_string());
        }
    }

    #[test]
    fn ports_follow_brackets() {
        for address in ["192.0.2.1:80", "[::1]:443", "[fe80::1%3]:53"] {
            assert_eq!(&*shown_with_port(address.parse().unwrap()), address);
        }
    }
}
