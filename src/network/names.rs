//! What the names and hardware addresses of interfaces say, and whether they outlive the old OS.

use crate::text::Text;
use core::net::IpAddr;

/// Whether the new OS may have another name for what the old one calls `interface`.
///
/// Only `eth0` and `wlan0` count as lasting: balenaOS turns the device-tree names of systemd 252 (`end0`) back into the
/// kernel's (meta-balena, recipes-core/systemd, 80-ignore-devicetree-alias.link), and the one on-board port of a board
/// without PCI is the kernel's `eth0`. Its on-board Wi-Fi is the kernel's `wlan0`: systemd has no names for what is on
/// an SDIO bus (systemd.net-naming-scheme(7)). Every other name depends on things in which two systems may differ: the
/// naming rules of their versions of systemd (`enp3s0`, `eno1`), a rule of Debian's (`enx…`, on balenaOS `eth0`), or
/// the order in which drivers find their devices (`eth1`). On a machine with PCI even these two are not safe, nor is
/// `wlan0` where a Wi-Fi is on USB: `networks::sources::name_may_change` of stage 1 looks at the machine, too.
pub fn name_may_change(interface: &str) -> bool {
    !matches!(interface, "eth0" | "wlan0")
}

/// Whether a `.link` file of systemd or a rule of udev gives an interface this name: `Name=eth0` or `NAME="eth0"`. A
/// rule that looks for the name (`NAME=="eth0"`) does not.
pub fn gives_name(bytes: &[u8], interface: &str) -> bool {
    bytes.split(|byte| *byte == b'\n').any(|line| {
        let line = core::str::from_utf8(line).unwrap_or_default().trim();
        let is_it = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or_default();
            matches!(key.trim(), "Name" | "NAME") && value.trim().trim_matches('"') == interface
        };
        !line.starts_with(['#', ';']) && line.split(',').any(is_it)
    })
}

/// Whether it is a hardware address that a maker has given to one piece of hardware, `aa:bb:cc:dd:ee:ff`: neither all
/// zeros, nor of a group, nor locally administered (IEEE 802, 8.2.2), as what an old OS has made up.
pub fn is_makers_mac(mac: &str) -> bool {
    let first = mac.get(..2).and_then(|octet| u8::from_str_radix(octet, 16).ok());
    is_mac(mac) && first.is_some_and(|octet| octet & 3 == 0) && mac != "00:00:00:00:00:00"
}

/// A hardware address as `aa:bb:cc:dd:ee:ff`, from any spelling with or without `:`, `-` and `.`; empty when it is
/// none.
pub(super) fn mac(text: &str) -> Text<17> {
    let mut digits = heapless::Vec::<u8, 12>::new();
    let mut written = text.bytes().filter(|byte| !matches!(byte, b':' | b'-' | b'.'));
    let is_whole = written
        .all(|byte| byte.is_ascii_hexdigit() && digits.push(byte.to_ascii_lowercase()).is_ok());
    let mut mac = Text::new();
    if is_whole && digits.is_full() {
        for octet in digits.as_chunks::<2>().0 {
            let colon = if mac.is_empty() { "" } else { ":" };
            mac = crate::text!("{}{}{}", mac, colon, super::words::text(octet));
        }
    }
    mac
}

/// Whether it is of the form `aa:bb:cc:dd:ee:ff`.
fn is_mac(text: &str) -> bool {
    let is_octet = |octet: &str| octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
    text.len() == 17 && text.split(':').all(is_octet)
}

/// Whether it is the address of a machine itself, as that of a resolver on it: nobody else answers there.
pub(super) fn is_loopback(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// Whether it can be the name of a single interface: 1 to 15 bytes (IFNAMSIZ), and no pattern.
pub(super) fn is_interface(name: &str) -> bool {
    is_plain(name, 15)
}

/// Whether it can be a search domain, and means nothing else in a keyfile: at most 120 bytes of names and dots.
pub(super) fn is_domain(text: &str) -> bool {
    is_plain(text, 120)
}

/// Whether it is 1 to `most` letters of ASCII, digits, dots, hyphens and underscores.
fn is_plain(text: &str, most: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=most).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Whether it is the name of a Wi-Fi, as the kernel (`wlan0`), systemd (`wlp2s0`, `wlx…`) and old drivers have it.
pub(super) fn is_wireless(name: &str) -> bool {
    let numbered = |start| {
        let rest = name.strip_prefix(start).unwrap_or_default();
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.starts_with("wl") || numbered("ath") || numbered("ra")
}

/// Why an interface of this name cannot be carried over: it is made by software, out of others. None for hardware.
pub(super) fn made_by_software(name: &str) -> Option<&'static str> {
    if name.contains('.') {
        return Some(VLAN);
    }
    let kind = STARTS.iter().find(|(start, _)| name.starts_with(start));
    kind.map(|(_, why)| *why)
}

/// How the names of interfaces made by software begin, and what they are.
const STARTS: [(&str, &str); 12] = [
    ("vlan", VLAN),
    ("br", BRIDGE),
    ("virbr", BRIDGE),
    ("bond", BOND),
    ("team", BOND),
    ("tun", TUNNEL),
    ("tap", TUNNEL),
    ("wg", TUNNEL),
    ("ppp", TUNNEL),
    ("veth", OTHER),
    ("docker", OTHER),
    ("dummy", OTHER),
];

/// Kinds of interfaces that are made by software, as systemd.netdev(5), the kernel and its drivers call them.
const KINDS: [(&str, &str); 5] = [
    ("vlan 802.1Q", VLAN),
    ("bridge", BRIDGE),
    ("bond bonding team", BOND),
    (
        "wireguard tun tap ppp sit ipip gre gretap ip6gre ip6gretap ip6tnl vti vti6 erspan l2tp fou geneve xfrm",
        TUNNEL,
    ),
    ("veth dummy macvlan macvtap ipvlan ipvtap vxlan vrf macsec ifb vcan nlmon netdevsim", OTHER),
];

/// Why an interface of this kind cannot be carried over; none for a kind that is not known.
pub(super) fn of_kind(kind: &[u8]) -> Option<&'static str> {
    let is_it = |kinds: &str| kinds.split(' ').any(|known| known.as_bytes() == kind);
    KINDS.iter().find(|(kinds, _)| is_it(kinds)).map(|(_, why)| *why)
}

pub(super) const VLAN: &str = "it is a VLAN; these are not carried over";
/// Why a bridge is not carried over.
pub const BRIDGE: &str = "it is a bridge; these are not carried over";
pub(super) const BOND: &str = "it is a bond of interfaces; these are not carried over";
pub(super) const TUNNEL: &str = "it is a tunnel or a dial-up link; these are not carried over";
pub(super) const OTHER: &str = "it is an interface made by software; these are not carried over";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_a_board_keeps_its_name() {
        assert!(!name_may_change("eth0") && !name_may_change("wlan0"));
        for name in
            ["eth1", "wlan1", "wlp2s0", "end0", "enp3s0", "eno1", "enx001122334455", "usb0", ""]
        {
            assert!(name_may_change(name), "{name}");
        }
    }

    #[test]
    fn who_gives_an_interface_its_name() {
        for given in ["[Link]\nName=eth0\n", "[Link]\n Name = eth0", "A==\"b\", NAME=\"eth0\"\n"] {
            assert!(gives_name(given.as_bytes(), "eth0"), "{given}");
        }
        for other in [
            "",
            "[Link]\nName=eth01\n",
            "[Link]\n#Name=eth0\n",
            "[Match]\nOriginalName=eth0\n",
            "NAME==\"eth0\", RUN=\"x\"\n",
            "#A==\"b\", NAME=\"eth0\"\n",
        ] {
            assert!(!gives_name(other.as_bytes(), "eth0"), "{other}");
        }
    }

    #[test]
    fn what_a_maker_gives_is_one_address_of_its_own() {
        assert!(is_makers_mac("b8:27:eb:12:34:56") && is_makers_mac("00:1B:21:00:00:00"));
        for other in [
            "",
            "00:00:00:00:00:00",
            "02:27:eb:12:34:56",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "b8:27:eb:12:34",
            "b8:27:eb:12:34:56:78",
            "b8:27:eb:12:34-56",
            "+8:27:eb:12:34:56",
            "b8:27:eb:12:3\u{e9}:5",
        ] {
            assert!(!is_makers_mac(other), "{other}");
        }
    }

    #[test]
    fn hardware_addresses_have_one_spelling() {
        for written in ["B8-27-EB-12-34-56", "b827.eb12.3456", "b827eb123456", "b8:27:eb:12:34:56"]
        {
            assert_eq!(&*mac(written), "b8:27:eb:12:34:56", "{written}");
        }
        for other in
            ["", "b8:27:eb:12:34", "b8:27:eb:12:34:56:78", "zz:27:eb:12:34:56", "b8:27:eb:12:34:é"]
        {
            assert_eq!(&*mac(other), "", "{other}");
        }
    }

    #[test]
    fn only_a_machine_itself_answers_at_these() {
        for own in ["127.0.0.1", "127.0.0.53", "::1", "0.0.0.0", "::"] {
            assert!(is_loopback(own), "{own}");
        }
        assert!(!is_loopback("10.0.0.1") && !is_loopback("fe80::1") && !is_loopback("x"));
    }

    #[test]
    fn names_tell_what_is_no_hardware() {
        assert_eq!(made_by_software("eth0.10"), Some(VLAN));
        assert_eq!(made_by_software("br0"), Some(BRIDGE));
        assert_eq!(made_by_software("enp3s0"), None);
        assert!(is_wireless("wlp2s0") && is_wireless("ra0") && !is_wireless("rack0"));
        assert!(is_interface("eth0") && !is_interface("") && !is_interface("en*"));
        assert!(!is_interface("sixteen-letters-"));
        assert!(is_domain("lan.example") && !is_domain("") && !is_domain("a\0b"));
        assert!(!is_domain("a;b") && !is_domain(&"x".repeat(121)));
    }
}
