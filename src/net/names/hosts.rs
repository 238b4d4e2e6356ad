//! /etc/hosts (hosts(5)).

use super::add;
use crate::files;
use crate::net::Addresses;
use core::net::IpAddr;

/// The addresses that a file has for a name, in the order of its lines; none where there is no such file.
pub fn find(path: &str, name: &str) -> Addresses {
    let mut found = Addresses::new();
    // A file that cannot be read has no names.
    let _ = files::for_each_line(path, &mut |line: &[u8]| take(line, name, &mut found));
    found
}

/// Takes the address of a line that has this name.
pub fn take(line: &[u8], name: &str, found: &mut Addresses) {
    let mut words = line
        .split(|byte| *byte == b'#')
        .next()
        .unwrap_or_default()
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let address =
        words.next().and_then(|word| core::str::from_utf8(word).ok()?.parse::<IpAddr>().ok());
    let is_named =
        |word: &[u8]| word.strip_suffix(b".").unwrap_or(word).eq_ignore_ascii_case(name.as_bytes());
    if let Some(address) = address
        && words.any(is_named)
    {
        add(found, address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# 192.0.2.9 api.example.org\n\
        127.0.0.1\tlocalhost\n\
        192.0.2.1 Api.Example.org api # api.example.com\n\
        not-an-address api.example.org\n\
        192.0.2.300 api.example.org\n\
        192.0.2.7\n\
        \n\
          2001:db8::1   other api.example.org.\r\n\
        192.0.2.1 api.example.org\n\
        fe80::1%lo api.example.org\n\
        192.0.2.2 xapi.example.org api.example.orgx\n\
        192.0.2.3 \u{e9} caf\u{e9} api.example.org";

    fn found(name: &str) -> Vec<String> {
        let mut found = Addresses::new();
        FILE.as_bytes().split(|byte| *byte == b'\n').for_each(|line| take(line, name, &mut found));
        found.iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn all_lines_with_a_name_count_whatever_its_case() {
        let all = ["192.0.2.1", "2001:db8::1", "192.0.2.3"];
        assert_eq!(found("api.example.org"), all);
        assert_eq!(found("API.example.ORG"), all);
        assert_eq!(found("api"), ["192.0.2.1"]);
        assert!(found("api.example.com").is_empty());
        assert!(found("192.0.2.7").is_empty());
    }

    #[test]
    fn a_file_is_read_whatever_its_length() {
        let path = std::env::temp_dir().join(format!("takeover-hosts-{}", std::process::id()));
        let mut file = "0.0.0.0 blocked.example\n".repeat(20_000);
        file += "192.0.2.1 last.example";
        std::fs::write(&path, file).unwrap();
        let found = find(path.to_str().unwrap(), "last.example");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&*found, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(find("/nonexistent/hosts", "last.example").is_empty());
    }
}
