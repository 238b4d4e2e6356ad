//! What a DHCP client of IPv4 has written down of its lease: the address, and what the server said beside it.
//!
//! Each function is over the bytes of one file; none opens one. The files are those of systemd-networkd,
//! NetworkManager, dhclient and dhcpcd; udhcpc and connman keep none.

use core::net::{IpAddr, Ipv4Addr};
use heapless::Vec;

/// What a server of DHCP has said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The address that it gave.
    pub address: IpAddr,
    /// The name servers.
    pub servers: Vec<IpAddr, 8>,
    /// The networks, with the lengths of their prefixes, that it has routes to (RFC 3442).
    pub routes: Vec<(IpAddr, u8), 16>,
}

impl Lease {
    fn of(address: Ipv4Addr) -> Self {
        Self { address: address.into(), servers: Vec::new(), routes: Vec::new() }
    }

    /// Adds name servers of a list, where they are addresses.
    fn add_servers(&mut self, list: &str) {
        let parts = list.split([' ', ',']).filter_map(|part| part.trim().parse::<IpAddr>().ok());
        for server in parts {
            // A client asks the first three.
            let _ = self.servers.push(server);
        }
    }

    /// Adds the networks of an option 121: the length of a prefix, as many octets of the network as that has, and the
    /// four octets of a router.
    fn add_routes(&mut self, mut octets: &[u8]) {
        while let Some((prefix, rest)) = octets.split_first().filter(|(prefix, _)| **prefix <= 32) {
            let length = usize::from(prefix.div_ceil(8));
            let Some((network, rest)) = rest.split_at_checked(length) else { return };
            let mut to = [0; 4];
            to.iter_mut().zip(network).for_each(|(to, from)| *to = *from);
            // A client sets no bit behind the prefix (RFC 3442, "Local Subnet Routes").
            let mask = u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
            let to = Ipv4Addr::from_bits(u32::from_be_bytes(to) & mask);
            // With more, one of them is missed by whoever compares.
            let _ = self.routes.push((to.into(), *prefix));
            octets = rest.get(4..).unwrap_or_default();
        }
    }
}

/// A file of systemd-networkd, `/run/systemd/netif/leases/NUMBER`: `ADDRESS=`, `DNS=`.
pub fn networkd(bytes: &[u8]) -> Option<Lease> {
    entries(bytes, "ADDRESS", "DNS")
}

/// A file of NetworkManager, `/run/NetworkManager/devices/NUMBER`: `dhcp4.ip_address=`, `dhcp4.domain_name_servers=`.
pub fn manager(bytes: &[u8]) -> Option<Lease> {
    entries(bytes, "dhcp4.ip_address", "dhcp4.domain_name_servers")
}

/// `KEY=VALUE` with these keys. Both programs mark their routes, so none is looked for.
fn entries(bytes: &[u8], address: &str, servers: &str) -> Option<Lease> {
    let value = |wanted| super::ini::lines(bytes).find_map(|line| line.value_of(wanted));
    let mut lease = Lease::of(value(address)?.trim_end().parse().ok()?);
    lease.add_servers(value(servers).unwrap_or_default());
    Some(lease)
}

/// The last lease of an address in a file of dhclient (dhclient.leases(5)), which adds each one that it gets.
pub fn dhclient(bytes: &[u8], wanted: IpAddr) -> Option<Lease> {
    let (mut current, mut last): (Option<Lease>, _) = (None, None);
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = core::str::from_utf8(line).unwrap_or_default().trim();
        let line = line.strip_suffix(';').unwrap_or(line);
        let option = line.strip_prefix("option ").and_then(|option| option.split_once(' '));
        if let Some(address) = line.strip_prefix("fixed-address ") {
            current = address.parse().ok().map(Lease::of);
        } else if line == "}" {
            last = current.take().filter(|lease| lease.address == wanted).or(last);
        } else if let (Some((name, value)), Some(lease)) = (option, &mut current) {
            match name {
                "domain-name-servers" => lease.add_servers(value),
                // Debian's names of the options 121 and 249.
                "rfc3442-classless-static-routes"
                | "classless-static-routes"
                | "ms-classless-static-routes" => lease.add_routes(&octets(value)),
                _ => {}
            }
        }
    }
    last
}

/// Numbers that commas separate.
fn octets(list: &str) -> Vec<u8, 128> {
    list.split(',').map_while(|octet| octet.trim().parse().ok()).take(128).collect()
}

/// A message of DHCP (RFC 2131, 2), as dhcpcd keeps it.
pub fn message(bytes: &[u8]) -> Option<Lease> {
    let yours: [u8; 4] = *bytes.get(16..)?.first_chunk()?;
    let mut lease = Lease::of(Ipv4Addr::from(yours));
    // Behind 236 bytes and a number that says that there are options: type, length, value.
    let mut options = bytes.get(240..).unwrap_or_default();
    while let [kind, rest @ ..] = options {
        match (*kind, rest) {
            (255, _) => break,
            (0, _) => options = rest,
            (kind, [length, rest @ ..]) => {
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
                    break;
                };
                match kind {
                    6 => {
                        for server in value.as_chunks::<4>().0 {
                            let _ = lease.servers.push(Ipv4Addr::from(*server).into());
                        }
                    }
                    121 => lease.add_routes(value),
                    _ => {}
                }
                options = rest;
            }
            _ => break,
        }
    }
    Some(lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_networkd_and_networkmanager_write_down() {
        let networkd_file =
            b"# for systemd\nADDRESS=10.7.0.51\nROUTER=10.7.0.1\nDNS=10.7.0.53 10.7.0.54\n";
        let manager_file =
            b"[device]\nmanaged=true\n[dhcp4]\ndhcp4.domain_name_servers=10.7.0.53 10.7.0.54\n\
            dhcp4.ip_address=10.7.0.51\n";
        for lease in [networkd(networkd_file), manager(manager_file)] {
            let lease = lease.unwrap();
            assert_eq!(lease.address, ip("10.7.0.51"));
            assert_eq!(lease.servers.as_slice(), [ip("10.7.0.53"), ip("10.7.0.54")]);
        }
        assert_eq!(networkd(manager_file), None);
        assert_eq!(manager(b"[device]\nmanaged=true\n"), None);
    }

    #[test]
    fn the_last_lease_of_dhclient_counts() {
        let lease = |address: &str, server: &str| {
            format!(
                "lease {{\n  interface \"eth0\";\n  fixed-address {address};\n  option domain-name-servers {server};\n  \
                     option rfc3442-classless-static-routes 12,172,31,10,7,0,3,0,10,7,0,1;\n}}\n"
            )
        };
        let all = ["10.7.0.50", "10.7.0.51", "10.7.0.50", "10.7.0.52"];
        let servers = ["10.7.0.1", "10.7.0.2", "10.7.0.3,10.7.0.4", "10.7.0.5"];
        let text: String =
            all.iter().zip(servers).map(|(one, server)| lease(one, server)).collect();
        let found = dhclient(text.as_bytes(), ip("10.7.0.50")).unwrap();
        assert_eq!(found.servers.as_slice(), [ip("10.7.0.3"), ip("10.7.0.4")]);
        assert_eq!(found.routes.as_slice(), [(ip("172.16.0.0"), 12), (ip("0.0.0.0"), 0)]);
        assert_eq!(dhclient(text.as_bytes(), ip("10.7.0.5")), None);
    }

    #[test]
    fn a_message_as_dhcpcd_keeps_it() {
        let mut bytes = vec![0; 236];
        bytes[16..20].copy_from_slice(&[10, 7, 0, 60]);
        bytes.extend([99, 130, 83, 99, 53, 1, 5, 0, 6, 8, 10, 7, 0, 53, 9, 9, 9, 9]);
        bytes.extend([121, 8, 24, 10, 9, 0, 10, 7, 0, 3, 255, 6, 4, 1, 1, 1, 1]);
        let lease = message(&bytes).unwrap();
        assert_eq!(lease.address, ip("10.7.0.60"));
        assert_eq!(lease.servers.as_slice(), [ip("10.7.0.53"), ip("9.9.9.9")]);
        assert_eq!(lease.routes.as_slice(), [(ip("10.9.0.0"), 24)]);
        for cut in 0..bytes.len() {
            message(&bytes[..cut]);
        }
        assert_eq!(message(&bytes[..16]), None);
    }
}
