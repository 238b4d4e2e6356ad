//! What servers and the files of the resolver say.

use std::net::IpAddr;
use takeover::net::Addresses;
use takeover::net::names::config::{Config, MOST_SERVERS};
use takeover::net::names::hosts;
use takeover::net::names::message::{self, A, AAAA, Answer, Query};

/// An answer to one of two questions for `a.example`, by its identifier: 1 for A, 2 for AAAA.
pub fn dns(bytes: &[u8]) -> bool {
    let mut query = Query::new("a", "example").unwrap();
    let mut is_taken = false;
    for (kind, id) in [(A, [0, 1]), (AAAA, [0, 2])] {
        let query = query.ask(kind, id);
        let mut found = Addresses::new();
        let answer = message::read(bytes, query, &mut found);
        assert_eq!(answer == Some(Answer::Addresses), !found.is_empty());
        check_addresses(&found);
        if answer.is_some() {
            assert_eq!(bytes[..2], id);
            assert!(bytes[12..].to_ascii_lowercase().starts_with(&query[12..]));
        }
        is_taken |= answer == Some(Answer::Addresses);
    }
    is_taken
}

fn check_addresses(found: &Addresses) {
    let of_family = |is_v4| found.iter().filter(move |address| address.is_ipv4() == is_v4).count();
    assert!(of_family(true) <= 8 && of_family(false) <= 8);
    for (at, address) in found.iter().enumerate() {
        assert!(!found[..at].contains(address));
        let shown = takeover::address::shown(*address);
        assert_eq!(shown.parse::<IpAddr>().unwrap(), *address);
    }
}

/// /etc/resolv.conf: true when it names a server.
pub fn resolv_conf(bytes: &[u8]) -> bool {
    let mut config = Config::default();
    bytes.split(|byte| *byte == b'\n').for_each(|line| config.take(line));
    assert!(config.servers.len() <= MOST_SERVERS);
    assert!(config.ndots <= 15);
    assert!((1..=30).contains(&config.timeout) && (1..=5).contains(&config.attempts));
    for domain in config.search.split_ascii_whitespace() {
        // A domain is whole, as it is in the file.
        let is_in_file = bytes.split(|byte| byte.is_ascii_whitespace() || b"#;".contains(byte));
        assert!(is_in_file.into_iter().any(|word| word == domain.as_bytes()), "{domain}");
    }
    !config.servers.is_empty()
}

/// /etc/hosts: true when it has the name `a.example`.
pub fn hosts(bytes: &[u8]) -> bool {
    let mut found = Addresses::new();
    bytes.split(|byte| *byte == b'\n').for_each(|line| hosts::take(line, "a.example", &mut found));
    check_addresses(&found);
    let lower = bytes.to_ascii_lowercase();
    assert!(found.is_empty() || lower.windows(9).any(|word| word == b"a.example"));
    !found.is_empty()
}
