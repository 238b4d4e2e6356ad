//! /etc/resolv.conf: which servers are asked, and how (resolv.conf(5)).

use crate::files;
use crate::text::{Text, Writer};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::str::SplitAsciiWhitespace;
use ufmt::uWrite;

/// So many servers are asked; C libraries ask three.
pub const MOST_SERVERS: usize = 4;

const PORT: u16 = 53;

/// Which servers are asked, and how.
#[derive(Clone)]
pub struct Config {
    /// The servers, in the order in which they are asked.
    pub servers: heapless::Vec<SocketAddr, MOST_SERVERS>,
    /// The domains in which names are searched, with blanks between.
    pub search: Text<256>,
    /// A name with so many dots is asked for as it is before it is searched.
    pub ndots: u8,
    /// The longest wait for one server, in seconds.
    pub timeout: u8,
    /// How often each server is waited for so long, at most.
    pub attempts: u8,
}

impl Config {
    /// What a file says; without one, as with one that names no server, those of this machine are asked.
    pub fn read(path: &str) -> Self {
        let mut config = Self::default();
        // A file that cannot be read names no server.
        let _ = files::for_each_line(path, &mut |line: &[u8]| config.take(line));
        if config.servers.is_empty() {
            for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
                let _ = config.servers.push(SocketAddr::new(address, PORT));
            }
        }
        config
    }

    /// Takes a line.
    pub fn take(&mut self, line: &[u8]) {
        let line = core::str::from_utf8(line).unwrap_or_default();
        // Whole lines and the ends of lines can be comments.
        let end = line.find(['#', ';']).unwrap_or(line.len());
        let mut words = line.get(..end).unwrap_or_default().split_ascii_whitespace();
        match words.next().unwrap_or_default() {
            "nameserver" => {
                if let Some(server) = words.next().and_then(server) {
                    let _ = self.servers.push(server);
                }
            }
            // The last one holds.
            "search" | "domain" => self.search = joined(words),
            "options" => words.for_each(|option| self.take_option(option)),
            _ => {}
        }
    }

    fn take_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or_default();
        let Ok(value) = value.parse::<u8>() else {
            return;
        };
        // The limits of glibc and musl.
        match name {
            "ndots" => self.ndots = value.min(15),
            "timeout" => self.timeout = value.clamp(1, 30),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: heapless::Vec::new(),
            search: Text::new(),
            ndots: 1,
            timeout: 5,
            attempts: 2,
        }
    }
}

/// The words that fit, with blanks between: none is cut.
fn joined(words: SplitAsciiWhitespace<'_>) -> Text<256> {
    let (text, is_cut) = Text::<256>::build_whole(&mut |writer: &mut Writer<'_>| {
        for word in words.clone() {
            writer.write_str(word)?;
            writer.write_str(" ")?;
        }
        Ok(())
    });
    let whole = text.rsplit_once(' ').map_or("", |(whole, _)| whole);
    if is_cut { Text::from(whole) } else { text }
}

/// The server at an address, which may name its interface: `fe80::1%eth0` (RFC 4007, 11.2).
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT));
    };
    let address = address.parse::<Ipv6Addr>().ok()?;
    let scope = zone.parse().ok().or_else(|| interface_index(zone))?;
    Some(SocketAddrV6::new(address, PORT, 0, scope).into())
}

/// The number of the interface with this name.
fn interface_index(name: &str) -> Option<u32> {
    // A name, not a path.
    if name.starts_with('.') || name.contains('/') {
        return None;
    }
    let mut buffer = [0; 16];
    let path = crate::format!("/sys/class/net/{}/ifindex", name);
    files::text_at(path, &mut buffer)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Config {
        let mut config = Config::default();
        text.as_bytes().split(|byte| *byte == b'\n').for_each(|line| config.take(line));
        config
    }

    fn servers(text: &str) -> Vec<String> {
        parsed(text).servers.iter().map(|server| server.to_string()).collect()
    }

    #[test]
    fn servers_are_taken_in_their_order() {
        let text = "# a comment\nnameserver 192.0.2.1\n ; another\nnameserver\t2001:db8::1 # why\nnameserver\n\
                    nameserver 127.0.0.53;x\nnameserver ns.example\nnameserver fe80::1%3\n";
        let wanted = ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.53:53", "[fe80::1%3]:53"];
        assert_eq!(servers(text), wanted);
        assert_eq!(servers(&format!("{text}nameserver 192.0.2.9")), wanted);
    }

    #[test]
    fn the_interface_of_a_server_has_a_name_or_a_number() {
        assert_eq!(servers("nameserver fe80::1%lo"), ["[fe80::1%1]:53"]);
        let none = ["fe80::1%none0", "fe80::1%", "fe80::1%../lo", "fe80::1%a/b", "192.0.2.1%lo"];
        for text in none {
            assert!(servers(&format!("nameserver {text}")).is_empty(), "{text}");
        }
    }

    #[test]
    fn the_last_search_list_holds_and_its_words_are_never_cut() {
        let config = parsed("search a.example  b.example\tc.example\nfoo bar\n");
        assert!(config.search.split_ascii_whitespace().eq(["a.example", "b.example", "c.example"]));
        let config = parsed("search a.example\ndomain d.example");
        assert!(config.search.split_ascii_whitespace().eq(["d.example"]));
        let many = ["twenty.bytes.example"; 30].join(" ");
        let config = parsed(&format!("search {many}"));
        assert!(config.search.split_ascii_whitespace().eq(["twenty.bytes.example"; 12]));
        let one = "x".repeat(300);
        assert!(parsed(&format!("search {one}")).search.is_empty());
    }

    #[test]
    fn options_are_taken_within_limits_and_others_do_no_harm() {
        let of = |text| {
            let config = parsed(text);
            (config.ndots, config.timeout, config.attempts)
        };
        assert_eq!(of(""), (1, 5, 2));
        assert_eq!(of("options edns0 trust-ad rotate ndots:2 timeout:1 attempts:3"), (2, 1, 3));
        assert_eq!(of("options ndots:99\noptions timeout:99 attempts:99"), (15, 30, 5));
        assert_eq!(of("options ndots:0 timeout:0 attempts:0"), (0, 1, 1));
        assert_eq!(of("options ndots: timeout attempts:x ndots:-1 timeout:999"), (1, 5, 2));
    }

    #[test]
    fn without_a_file_and_without_servers_this_machine_is_asked() {
        for path in ["/nonexistent/resolv.conf", "/dev/null"] {
            let config = Config::read(path);
            let servers: Vec<_> = config.servers.iter().map(|server| server.to_string()).collect();
            assert_eq!(servers, ["127.0.0.1:53", "[::1]:53"]);
        }
    }
}
