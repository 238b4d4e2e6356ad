//! What the readers of Wi-Fi settings have in common: names, keys, logins, addresses.
//!
//! A password that does not fit, or that the new OS could not use, is a reason to give up a network: it is never cut
//! and never left out.

use super::names;
use super::{Address, Addresses, Enterprise, Family, Method, Prefixed, Security, Ssid};
use crate::text::{Text, printable};
use core::net::IpAddr;

/// A name or a secret as bytes.
pub type Value = heapless::Vec<u8, 128>;

/// Why a key is not carried over.
pub const BAD_KEY: &str =
    "its key is neither a passphrase of 8 to 63 characters nor 64 hexadecimal digits";
/// Why a network with an unknown password is not carried over.
pub const NO_KEY: &str = "its key is not in the settings";
/// Why 802.1X with certificates is not carried over.
pub const CERTIFICATES: &str = "its login uses certificate files, which are not carried over";
/// Why 802.1X on a cable is not carried over.
pub const CABLE_LOGIN: &str = "the login that its cable needs is not carried over";
/// Why a network is not carried over whose password goes by an identifier.
pub const PASSWORD_ID: &str = "its password has an identifier, which the new OS cannot send";
/// What is said of a hardware address of its own.
pub const NEW_MAC: &str = "the hardware address that is set for it is not carried over";
/// Why a WEP network is not carried over.
pub const WEP: &str = "it is protected by WEP, which the new OS does not support";
/// Why a hashed password is not carried over.
pub const HASHED: &str = "only a hash of its password is in the settings";
/// Why a password that is kept elsewhere is not carried over.
pub const ELSEWHERE: &str = "its password is kept outside of the settings";
/// Why a long login is not carried over.
pub const LONG_LOGIN: &str = "its user name or its password is longer than 128 bytes";
/// What is said when a fixed address is left out.
pub const BAD_ADDRESS: &str = "its fixed address cannot be read: DHCP is used";
/// What is said of a name server that is none.
pub const BAD_DNS: &str = "a name server is left out: it is not a plain IP address";
/// What is said of a name server at 127.0.0.1 and the like.
pub const LOOPBACK_DNS: &str =
    "a name server of the old OS itself (127.0.0.1 and the like) is left out";
/// What is said of more name servers than are carried over.
pub const MANY_DNS: &str = "it has more than 4 name servers of a kind; the others are left out";
/// What is said of search domains that are none, or too many.
pub const SEARCH: &str =
    "some of its search domains are left out: they are too long or no plain domains";
/// What is said when a check of the server's name is left out.
pub const SERVER_NAME: &str = "the check of the login server's name is not carried over";

/// The methods of EAP that need no more than a user name and a password, as NetworkManager spells them. MD5, GTC and
/// MSCHAPV2 alone make no keys for a Wi-Fi (RFC 4017, 2.2), FAST needs a file of its own.
const METHODS: [&str; 4] = ["peap", "ttls", "pwd", "leap"];

/// What NetworkManager takes as `phase2-auth` (nm-settings-nmcli(5)).
const TUNNELLED: [&str; 7] = ["pap", "chap", "mschap", "mschapv2", "gtc", "otp", "md5"];

/// What NetworkManager takes as `phase2-autheap`.
const TUNNELLED_EAP: [&str; 4] = ["md5", "mschapv2", "otp", "gtc"];

/// A login as it was read, undecided.
#[derive(Default)]
pub struct Login {
    /// Methods of EAP, separated by blanks, of any case; the first usable one is taken.
    pub methods: Text<64>,
    /// Who logs in; nothing when it is not said.
    pub identity: Text<128>,
    /// Who is named outside the tunnel.
    pub anonymous_identity: Text<128>,
    /// The password; nothing when it is not said.
    pub password: Option<Text<128>>,
    /// The method inside the tunnel, of any case, with `eap-` in front when it is EAP inside TTLS.
    pub phase2: Text<32>,
}

impl Login {
    /// The login in NetworkManager's terms, or why it cannot be.
    pub fn check(&self) -> Result<Security, &'static str> {
        let mut methods = self.methods.split_ascii_whitespace();
        let method = methods
            .find_map(|method| known(&METHODS, method))
            .ok_or("its EAP method is not named or needs more than a user name and a password")?;
        if self.identity.is_empty() {
            return Err("its user name is not in the settings");
        }
        let password = self.password.clone().filter(|password| !password.is_empty());
        let password = password.ok_or("its password is not in the settings")?;
        // NetworkManager refuses a whole keyfile for a NUL, and no one types the others.
        let texts = [&self.identity, &self.anonymous_identity, &password];
        if texts.iter().any(|text| text.chars().any(char::is_control)) {
            return Err("its user name or its password has control characters");
        }
        Ok(Security::Enterprise(Enterprise {
            method: Text::from(method),
            identity: self.identity.clone(),
            anonymous_identity: self.anonymous_identity.clone(),
            password,
            phase2: inner(method, &self.phase2)?,
        }))
    }
}

/// The method inside a tunnel. NetworkManager wants one for PEAP and TTLS; where the old OS was told none, MSCHAPv2
/// is what its negotiation ends with nearly everywhere.
fn inner(method: &str, phase2: &str) -> Result<Text<16>, &'static str> {
    if !matches!(method, "peap" | "ttls") {
        return Ok(Text::new());
    }
    let is_eap = phase2.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("eap-"));
    let bare = if is_eap { phase2.get(4..).unwrap_or_default() } else { phase2 };
    let unknown = "the method inside its login's tunnel is not one that the new OS has";
    match (bare.is_empty(), method, is_eap) {
        (true, "ttls", _) => Ok(Text::from("eap-mschapv2")),
        (true, _, _) => Ok(Text::from("mschapv2")),
        // Everything inside PEAP is EAP: no need to say so.
        (false, "ttls", true) => {
            let name = known(&TUNNELLED_EAP, bare).ok_or(unknown)?;
            Ok(crate::text!("eap-{}", name))
        }
        (false, _, _) => known(&TUNNELLED, bare).map(Text::from).ok_or(unknown),
    }
}

/// The entry of a list of lower-case names that `name` is, whatever its case.
fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().copied().find(|known| known.eq_ignore_ascii_case(name))
}

/// The name of a Wi-Fi, when these bytes are one.
pub fn ssid(bytes: &[u8]) -> Option<Ssid> {
    Ssid::from_slice(bytes).ok().filter(|ssid| !ssid.is_empty())
}

/// A name as it is shown.
pub fn shown(ssid: &[u8]) -> Text<64> {
    if ssid.is_empty() { Text::from("a Wi-Fi without a name") } else { printable(ssid) }
}

/// The whole text, or nothing when it does not fit: secrets are not cut.
pub fn whole<const N: usize>(text: &str) -> Option<Text<N>> {
    (text.len() <= N).then(|| Text::from(text))
}

/// A text of these bytes, or nothing when they are not UTF-8 without control characters, or too many. NetworkManager
/// reads UTF-8 only.
pub fn text_of(bytes: &[u8]) -> Option<Text<128>> {
    let text = core::str::from_utf8(bytes).ok()?;
    whole(text).filter(|text| !text.chars().any(char::is_control))
}

/// A key of WPA: a passphrase of 8 to 63 bytes, or the key itself in hexadecimal digits. IEEE 802.11, J.4, knows ASCII
/// only, but wpa_supplicant and NetworkManager ask for no more than these lengths and no control characters
/// (wpa_config_parse_psk of hostap, nm_utils_wpa_psk_valid): networks with other passphrases work.
pub fn key(text: &str) -> Result<Text<64>, &'static str> {
    let is_raw = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_passphrase = (8..64).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_raw || is_passphrase { whole(text).ok_or(BAD_KEY) } else { Err(BAD_KEY) }
}

/// The bytes of a string of hexadecimal digits, or nothing when it is not one or too long.
pub fn hex(digits: &[u8]) -> Option<Value> {
    let mut value = Value::new();
    let (pairs, rest) = digits.as_chunks::<2>();
    for [high, low] in pairs {
        value.push(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    rest.is_empty().then_some(value)
}

/// The value of a hexadecimal digit.
pub fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// An address, when it is one of the wanted version of IP.
pub fn address(text: &str, version: u8) -> Option<Address> {
    let text = text.trim();
    let fits = match text.parse::<IpAddr>().ok()? {
        IpAddr::V4(_) => version == 4,
        IpAddr::V6(_) => version == 6,
    };
    if fits { whole(text) } else { None }
}

/// A prefix length from its number or, for IPv4, from a mask (255.255.255.0 is 24).
pub fn prefix(text: &str, version: u8) -> Option<u8> {
    let text = text.trim();
    let longest = if version == 4 { 32 } else { 128 };
    if let Ok(length) = text.parse::<u8>() {
        return (length <= longest).then_some(length);
    }
    let Ok(IpAddr::V4(mask)) = text.parse() else {
        return None;
    };
    let (mask, ones) = (mask.to_bits(), mask.to_bits().leading_ones());
    (mask.count_ones() == ones && version == 4).then_some(u8::try_from(ones).ok()?)
}

/// Sets a fixed address; false when something of it is not an address.
pub fn set_address(
    family: &mut Family,
    version: u8,
    at: &str,
    length: Option<u8>,
    gateway: &str,
) -> bool {
    let (Some(at), Some(length)) = (address(at, version), length) else {
        return false;
    };
    family.method = Method::Manual;
    family.addresses.clear();
    let is_whole = family.addresses.push(Prefixed { address: at, prefix: length }).is_ok();
    family.gateway = address(gateway, version).unwrap_or_default();
    is_whole && (gateway.trim().is_empty() || !family.gateway.is_empty())
}

/// Adds name servers, separated by anything that is in no address; each goes to its version of IP. Gives why one was
/// left out.
pub fn add_name_servers(addresses: &mut Addresses, servers: &str) -> Option<&'static str> {
    let mut left_out = None;
    // Blanks of any kind, as address() takes them off: else one behind 127.0.0.1 would hide what it is.
    let is_end = |byte: char| matches!(byte, ',' | ';') || byte.is_whitespace();
    for server in servers.split(is_end).filter(|server| !server.is_empty()) {
        let (family, server) = match (address(server, 4), address(server, 6)) {
            _ if names::is_loopback(server) => {
                left_out = Some(LOOPBACK_DNS);
                continue;
            }
            (Some(server), _) => (&mut addresses.ipv4, server),
            (_, Some(server)) => (&mut addresses.ipv6, server),
            _ => {
                left_out = Some(BAD_DNS);
                continue;
            }
        };
        // Four of each are more than the resolver looks at (resolv.conf(5): MAXNS is 3).
        if !family.add_dns(&server) {
            left_out = Some(MANY_DNS);
        }
    }
    left_out
}

/// Adds search domains, separated likewise. Gives why one was left out.
pub fn add_domains(addresses: &mut Addresses, domains: &str) -> Option<&'static str> {
    let parts = domains.split([',', ';', ' ', '\t']).filter(|domain| !domain.is_empty());
    let mut is_whole = true;
    for domain in parts {
        is_whole &= addresses.add_search(domain);
    }
    if is_whole { None } else { Some(SEARCH) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert!(
            key("12345678").is_ok() && key(&"a".repeat(63)).is_ok() && key("Größe-2024").is_ok()
        );
        assert!(key(&"0aF9".repeat(16)).is_ok());
        for bad in ["1234567", &"g".repeat(64), &"a".repeat(65), &"ß".repeat(32), "1234567\n", ""]
        {
            assert_eq!(key(bad), Err(BAD_KEY));
        }
    }

    #[test]
    fn prefixes_and_masks() {
        assert_eq!(prefix("24", 4), Some(24));
        assert_eq!(prefix("255.255.255.128", 4), Some(25));
        assert_eq!(prefix("0.0.0.0", 4), Some(0));
        assert_eq!(prefix("255.255.255.255", 4), Some(32));
        for bad in ["255.0.255.0", "33", "300", ""] {
            assert_eq!(prefix(bad, 4), None, "{bad}");
        }
        assert_eq!(prefix("128", 6), Some(128));
        assert_eq!(prefix("255.255.255.0", 6), None);
    }

    #[test]
    fn a_tunnel_has_a_method_that_network_manager_knows() {
        assert_eq!(&*inner("peap", "").unwrap(), "mschapv2");
        assert_eq!(&*inner("ttls", "").unwrap(), "eap-mschapv2");
        assert_eq!(&*inner("ttls", "PAP").unwrap(), "pap");
        assert_eq!(&*inner("ttls", "EAP-GTC").unwrap(), "eap-gtc");
        assert_eq!(&*inner("peap", "EAP-MSCHAPV2").unwrap(), "mschapv2");
        assert_eq!(&*inner("pwd", "x").unwrap(), "");
        assert!(inner("ttls", "eap-pap").is_err() && inner("peap", "tls").is_err());
        assert!(inner("peap", "é€").is_err());
    }

    #[test]
    fn a_login_without_password_or_with_control_characters_is_none() {
        let login = |identity: &str, anonymous: &str, password: &str| Login {
            methods: Text::from("PEAP"),
            identity: Text::from(identity),
            anonymous_identity: Text::from(anonymous),
            password: Some(Text::from(password)),
            phase2: Text::new(),
        };
        assert!(login("a", "", "c d").check().is_ok());
        for odd in [login("a\0", "b", "c"), login("a", "b\n", "c"), login("a", "b", "\x1bc")] {
            assert!(odd.check().is_err_and(|why| why.contains("control characters")));
        }
        assert!(login("a", "b", "").check().is_err_and(|why| why.contains("not in the settings")));
    }

    #[test]
    fn name_servers_and_domains_that_are_left_out_are_said() {
        let mut addresses = Addresses::default();
        assert_eq!(
            add_name_servers(&mut addresses, "10.0.0.1;10.0.0.1, fd00::1 fD00:0::1 10.0.0.2;"),
            None
        );
        assert_eq!((addresses.ipv4.dns.len(), addresses.ipv6.dns.len()), (2, 1));
        for (server, why) in [
            ("127.0.0.1", LOOPBACK_DNS),
            ("::1", LOOPBACK_DNS),
            ("x", BAD_DNS),
            ("10.0.0.3 10.0.0.4 10.0.0.5", MANY_DNS),
        ] {
            assert_eq!(add_name_servers(&mut addresses, server), Some(why));
        }
        assert_eq!(add_domains(&mut addresses, "a.example;b.example;"), None);
        assert_eq!(add_domains(&mut addresses, "a=b,c.example"), Some(SEARCH));
        assert_eq!(&*addresses.search, "a.example b.example c.example");
    }

    #[test]
    fn hexadecimal_digits() {
        assert_eq!(hex(b"00fF").unwrap().as_slice(), &[0, 255]);
        assert!(hex(b"0").is_none() && hex(b"0g").is_none() && hex(&[b'0'; 258]).is_none());
    }

    #[test]
    fn a_long_password_is_given_up_and_not_cut() {
        assert!(text_of(&[b'a'; 128]).is_some() && text_of(&[b'a'; 129]).is_none());
        assert!(text_of(b"\xff").is_none() && text_of(b"a\nb").is_none());
    }
}
