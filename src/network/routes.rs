//! Which interface leads to an address, by the kernel's tables of routes: /proc/net/route and /proc/net/ipv6_route.
//!
//! Rules that choose another table than the main one (ip-rule(8)) are not looked at.

use crate::text::Text;
use core::net::IpAddr;

/// <linux/route.h>: the route is in use; it refuses what it is for.
const RTF_UP: u32 = 1;
const RTF_REJECT: u32 = 0x200;

/// The best route to an address, of those that were shown.
pub struct Way {
    address: IpAddr,
    best: Option<Rank>,
    interface: Text<16>,
}

/// A longer prefix is better, then a smaller metric.
type Rank = (u32, core::cmp::Reverse<u32>);

/// A line of a table. IPv4 is in the upper bits.
struct Route<'a> {
    destination: u128,
    prefix: u32,
    metric: u32,
    flags: u32,
    interface: &'a str,
}

impl Way {
    /// None is known yet.
    pub const fn to(address: IpAddr) -> Self {
        Self { address, best: None, interface: Text::new() }
    }

    /// Looks at a line of the table of the address's kind; one that is no route is passed over.
    pub fn consider(&mut self, line: &str) {
        let (route, address) = match self.address {
            IpAddr::V4(address) => (of_ipv4(line), u128::from(address.to_bits()) << 96),
            IpAddr::V6(address) => (of_ipv6(line), address.to_bits()),
        };
        let Some(route) = route else { return };
        let outside = 128_u32.saturating_sub(route.prefix);
        let is_inside = (address ^ route.destination).checked_shr(outside).unwrap_or(0) == 0;
        let is_in_use = route.flags & (RTF_UP | RTF_REJECT) == RTF_UP;
        let rank = Some((route.prefix, core::cmp::Reverse(route.metric)));
        if is_inside && is_in_use && rank > self.best {
            self.best = rank;
            self.interface = Text::from(route.interface);
        }
    }

    /// Its interface; empty where there is no route.
    pub fn interface(&self) -> &str {
        &self.interface
    }
}

/// Interface, destination, gateway, flags, two counters, metric and mask: addresses as the memory of this machine has
/// them, in hexadecimal (fib_route_seq_show in net/ipv4/fib_trie.c). The first line has names.
fn of_ipv4(line: &str) -> Option<Route<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let interface = fields.next()?;
    let address = |text| Some(u32::from_be_bytes(hexadecimal(text)?.to_ne_bytes()));
    let destination = address(fields.next()?)?;
    let flags = hexadecimal(fields.nth(1)?)?;
    let metric = fields.nth(2)?.parse().ok()?;
    let mask = address(fields.next()?)?;
    let destination = u128::from(destination) << 96;
    Some(Route { destination, prefix: mask.count_ones(), metric, flags, interface })
}

/// Destination and prefix, source and prefix, gateway, metric, two counters, flags and interface, all but the last in
/// hexadecimal (rt6_native_seq_show in net/ipv6/ip6_fib.c).
fn of_ipv6(line: &str) -> Option<Route<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let destination = u128::from_str_radix(fields.next()?, 16).ok()?;
    let prefix = hexadecimal(fields.next()?).filter(|prefix| *prefix <= 128)?;
    let metric = hexadecimal(fields.nth(3)?)?;
    let flags = hexadecimal(fields.nth(2)?)?;
    Some(Route { destination, prefix, metric, flags, interface: fields.next()? })
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t0000000A\t00000000\t0001\t0\t0\t100\t000000FF\t0\t0\t0
wlan0\t0000010A\t00000000\t0001\t0\t0\t900\t0000FFFF\t0\t0\t0
eth2\t0000020A\t00000000\t0000\t0\t0\t0\t0000FFFF\t0\t0\t0
*\t0000030A\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0
";

    const IPV6: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
20010db8000000000000000000000000 30 00000000000000000000000000000000 00 00000000000000000000000000000000 00000001 00000001 00000000 00000001     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003    wlan0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    fn way(address: &str, table: &str) -> String {
        let mut way = Way::to(address.parse().unwrap());
        table.lines().for_each(|line| way.consider(line));
        way.interface().to_string()
    }

    // The fixture has the addresses as a little-endian machine shows them.
    #[cfg(target_endian = "little")]
    #[test]
    fn the_longest_prefix_and_then_the_smallest_metric_decide() {
        for (address, interface) in [
            ("8.8.8.8", "eth0"),
            ("10.9.0.1", "eth1"),
            ("10.1.0.1", "wlan0"),
            ("10.2.0.1", "eth1"),
            ("10.3.0.1", "eth1"),
        ] {
            assert_eq!(way(address, IPV4), interface, "{address}");
        }
    }

    #[test]
    fn ipv6_likewise() {
        for (address, interface) in
            [("2001:db8::1", "eth0"), ("2001:db8:0:1::1", "eth1"), ("2001:db9::1", "wlan0")]
        {
            assert_eq!(way(address, IPV6), interface, "{address}");
        }
    }

    #[test]
    fn what_is_no_route_leads_nowhere() {
        for line in ["", "Iface Destination", "eth0 x 0 1 0 0 0 0", "eth0 00000000 0 0003"] {
            assert_eq!(way("8.8.8.8", line), "");
            assert_eq!(way("::1", line), "");
        }
        let odd = IPV6.replace(" 40 ", " ff ").lines().next().unwrap().to_string();
        assert_eq!(way("2001:db8::1", &odd), "");
    }
}
