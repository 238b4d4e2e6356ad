//! Keyfiles of the old OS's NetworkManager: they are carried over byte for byte, so only what must be known about one
//! is read.
//!
//! Opens no file. The grammar is GKeyFile's, the keys those of nm-settings-keyfile(5).

use super::ini::{self, Line};
use super::names::{is_interface, made_by_software};
use super::wifi;
use super::{Finding, Findings, Ssid};
use crate::text::{Text, printable};

/// What a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    /// A Wi-Fi.
    Wifi,
    /// An interface with a cable.
    Ethernet,
    /// A modem.
    Gsm,
    /// A VPN by a plugin.
    Vpn,
    /// WireGuard.
    Wireguard,
    /// A bridge, which others belong to.
    Bridge,
    /// Something else.
    #[default]
    Other,
}

/// Types as NetworkManager writes them, now and in earlier times (`802-…`).
const KINDS: [(&str, Kind); 9] = [
    ("wifi", Kind::Wifi),
    ("802-11-wireless", Kind::Wifi),
    ("ethernet", Kind::Ethernet),
    ("802-3-ethernet", Kind::Ethernet),
    ("gsm", Kind::Gsm),
    ("cdma", Kind::Gsm),
    ("vpn", Kind::Vpn),
    ("wireguard", Kind::Wireguard),
    ("bridge", Kind::Bridge),
];

/// Keys of 802.1X whose value is a file, unless it holds the data itself.
const FILES: [&str; 9] = [
    "ca-cert",
    "ca-path",
    "client-cert",
    "private-key",
    "phase2-ca-cert",
    "phase2-ca-path",
    "phase2-client-cert",
    "phase2-private-key",
    "pac-file",
];
/// Keys of VPN plugins whose value is a file.
const VPN_FILES: [&str; 9] =
    ["ca", "cert", "key", "ta", "tls-crypt", "tls-auth", "crl-verify-file", "config", "usercert"];

/// What is known about a connection.
#[derive(Clone, Default, Debug)]
pub struct Summary {
    /// Its name; empty when the file's name is its name.
    pub id: Text<64>,
    /// Its unique identifier; empty when there is none.
    pub uuid: Text<36>,
    /// What it is.
    pub kind: Kind,
    /// The Wi-Fi's name; empty for all others.
    pub ssid: Ssid,
    /// The only interface it is for; empty for any.
    pub interface_name: Text<15>,
    /// The name of the interface that a VLAN or the like is made on; empty for none, or when that goes otherwise.
    pub parent: Text<15>,
    /// It is for one hardware address only.
    pub mac_pinned: bool,
    /// That address, as it is written.
    pub mac_address: Text<17>,
    /// It comes up by itself.
    pub autoconnect: bool,
    /// Higher is tried first.
    pub priority: i32,
    /// Its login uses certificate or key files.
    pub has_certificate_files: bool,
    /// Another part of it is in files.
    pub refers_to_files: bool,
    /// A secret that it needs is not in the file: an agent has it, or it is asked for.
    pub lacks_secrets: bool,
    /// It is only for certain users of the old OS.
    pub is_private: bool,
    /// It has fixed addresses, alone or beside others.
    pub is_fixed: bool,
    /// It is an access point or ad-hoc network of this device.
    pub is_own_network: bool,
    /// NetworkManager made it itself, for as long as it runs.
    pub is_volatile: bool,
}

impl Summary {
    /// What it is called in messages.
    pub fn name(&self) -> Text<64> {
        if self.ssid.is_empty() { self.id.clone() } else { wifi::shown(&self.ssid) }
    }

    /// Says what of it does not survive, or may not. `name_may_change`: whether the new OS may call an interface of
    /// this name something else, as [`super::names::name_may_change`] says for any machine.
    pub fn findings(&self, name_may_change: &dyn Fn(&str) -> bool, found: &mut Findings) {
        let mut say = |applies: bool, is_lost: bool, why| {
            if applies {
                let name = self.name();
                found(match (is_lost, self.kind) {
                    (true, Kind::Wifi) => Finding::LostWifi(name, why),
                    (true, _) => Finding::Lost(name, why),
                    (false, _) => Finding::Doubtful(name, why),
                });
            }
        };
        // The others are given that name by NetworkManager, which makes them.
        let is_bound = !self.interface_name.is_empty()
            && matches!(self.kind, Kind::Wifi | Kind::Ethernet | Kind::Gsm);
        // A device can come online without its VPN.
        let is_needed = !matches!(self.kind, Kind::Vpn | Kind::Wireguard);
        say(self.has_certificate_files, is_needed, wifi::CERTIFICATES);
        say(self.lacks_secrets, is_needed, "a secret that it needs is not in its file");
        say(self.is_private, is_needed, "it is only for certain users of the old OS");
        say(self.refers_to_files, false, "it refers to files, which are not carried over");
        say(
            is_bound && name_may_change(&self.interface_name),
            false,
            "it is bound to an interface name, which the new OS may not use",
        );
        // One that is made by software has its name from another keyfile.
        let is_above = !self.parent.is_empty() && made_by_software(&self.parent).is_none();
        say(
            is_above && name_may_change(&self.parent),
            false,
            "the interface below it goes by a name, which the new OS may not use",
        );
        say(self.mac_pinned, false, "it is bound to one hardware address");
    }
}

/// True when NetworkManager takes a file of that name for a connection, and a person would too: no hidden file, no
/// backup, no leftover of a package or an editor (nm_keyfile_utils_ignore_filename of NetworkManager).
pub fn is_connection_file_name(name: &str) -> bool {
    const NOT: [&str; 18] = [
        "~",
        ".ignore",
        ".rpmsave",
        ".rpmnew",
        ".rpmorig",
        ".swp",
        ".swpx",
        ".bak",
        ".old",
        ".orig",
        ".pem",
        ".der",
        ".nmmeta",
        ".dpkg-old",
        ".dpkg-dist",
        ".dpkg-new",
        ".dpkg-bak",
        ".ucf-dist",
    ];
    let last = name.rsplit_once('.').map_or("", |(_, last)| last);
    // What mkstemp(3) makes: NetworkManager takes it for a file that is being written.
    let is_temporary = last.len() == 6 && last.bytes().all(|byte| byte.is_ascii_alphanumeric());
    !name.is_empty()
        && !name.starts_with('.')
        && !is_temporary
        && !NOT.iter().any(|end| name.ends_with(end))
}

/// What is only needed until the end of the file.
#[derive(Default)]
struct Pending {
    has_group: bool,
    has_type: bool,
    /// The type that a group's name implies.
    implied: Option<Kind>,
    needs_psk: bool,
    has_psk: bool,
    needs_login: bool,
    has_password: bool,
    has_private_key: bool,
}

/// Reads a keyfile; the reason when it is none.
pub fn summarise(bytes: &[u8]) -> Result<Summary, &'static str> {
    let mut summary = Summary { autoconnect: true, ..Summary::default() };
    let mut pending = Pending::default();
    let mut group = "";
    if core::str::from_utf8(bytes).is_err() {
        return Err("it is not UTF-8 text");
    }
    for line in ini::lines(bytes) {
        match line {
            Line::Group(name) => {
                group = plain_name(name);
                pending.has_group |= group == "connection";
                pending.implied = pending.implied.or(kind(group));
            }
            Line::Entry(..) if group.is_empty() => {
                return Err("it begins with something else than a group");
            }
            Line::Entry(key, value) => note(&mut summary, &mut pending, (group, key, value)),
            Line::Bad => return Err("one of its lines is neither a group nor key=value"),
        }
    }
    finish(summary, &pending)
}

fn finish(mut summary: Summary, pending: &Pending) -> Result<Summary, &'static str> {
    if !pending.has_group {
        return Err("it has no [connection]");
    }
    if !pending.has_type {
        // NetworkManager takes the type from the groups as well.
        summary.kind = pending.implied.ok_or("it has no type=")?;
    }
    if summary.kind == Kind::Wifi && summary.ssid.is_empty() {
        return Err("it has no valid ssid=");
    }
    let lacks_password = pending.needs_login && !pending.has_password && !pending.has_private_key;
    summary.lacks_secrets |= pending.needs_psk && !pending.has_psk || lacks_password;
    Ok(summary)
}

fn kind(name: &str) -> Option<Kind> {
    KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// The name of a group without its history.
fn plain_name(group: &str) -> &str {
    match group {
        "802-11-wireless" => "wifi",
        "802-11-wireless-security" => "wifi-security",
        "802-3-ethernet" => "ethernet",
        _ => group,
    }
}

/// Takes note of one entry: its group, its key, its value.
fn note(summary: &mut Summary, pending: &mut Pending, entry: (&str, &str, &str)) {
    let (group, key, untrimmed) = entry;
    let value = untrimmed.trim_end();
    match (group, key) {
        ("connection", _) => note_connection(summary, pending, key, value),
        (".nmmeta", "nm-generated" | "volatile" | "external") => {
            summary.is_volatile |= ini::is_true(value);
        }
        ("wifi", "ssid") => summary.ssid = ssid(untrimmed).unwrap_or_default(),
        ("wifi", "mode") => summary.is_own_network = matches!(value, "ap" | "adhoc" | "mesh"),
        ("wifi" | "ethernet", "mac-address") => {
            summary.mac_pinned |= !value.is_empty();
            summary.mac_address = printable(value.as_bytes());
        }
        // Else it is the UUID of a connection.
        (_, "parent") if is_interface(value) => summary.parent = Text::from(value),
        // `address1`, in earlier times `addresses1` or `addresses`: method=manual has one, and auto may.
        ("ipv4" | "ipv6", _) if key.starts_with("address") => summary.is_fixed |= !value.is_empty(),
        ("wifi-security", "key-mgmt") => {
            pending.needs_psk = matches!(value, "wpa-psk" | "sae");
            pending.needs_login = matches!(value, "wpa-eap" | "ieee8021x" | "wpa-eap-suite-b-192");
        }
        ("wifi-security", "psk") => pending.has_psk |= !value.is_empty(),
        ("802-1x", "password" | "password-raw") => pending.has_password |= !value.is_empty(),
        ("802-1x", _) if FILES.contains(&key) => {
            pending.has_private_key |= key.ends_with("private-key");
            summary.has_certificate_files |= is_file(value);
        }
        ("vpn", _) if VPN_FILES.contains(&key) => {
            summary.refers_to_files |= value.starts_with('/');
        }
        // `psk-flags` and its like: 1, an agent has it; 2, it is asked for; 4, it is not needed.
        ("wifi-security" | "802-1x" | "gsm" | "cdma" | "vpn" | "wireguard", _)
            if key.ends_with("-flags") =>
        {
            let flags = value.parse::<u32>().unwrap_or(0);
            summary.lacks_secrets |= flags & 3 != 0 && flags & 4 == 0 && is_secret(key);
        }
        _ => {}
    }
}

/// True for the keys whose flags are about secrets; `wps-method` and others have flags too.
fn is_secret(key: &str) -> bool {
    const SECRETS: [&str; 8] = [
        "psk-flags",
        "password-flags",
        "password-raw-flags",
        "leap-password-flags",
        "wep-key-flags",
        "private-key-password-flags",
        "private-key-flags",
        "pin-flags",
    ];
    SECRETS.contains(&key)
}

fn note_connection(summary: &mut Summary, pending: &mut Pending, key: &str, value: &str) {
    match key {
        "id" => summary.id = printable(ini::text(value).unwrap_or_default().as_bytes()),
        "uuid" => summary.uuid = Text::from(value),
        "type" => {
            pending.has_type = !value.is_empty();
            summary.kind = kind(value).unwrap_or_default();
        }
        "interface-name" => summary.interface_name = printable(value.as_bytes()),
        "autoconnect" => summary.autoconnect = ini::is_true(value),
        "autoconnect-priority" => summary.priority = value.parse().unwrap_or(0),
        "permissions" => summary.is_private = value.contains("user:"),
        _ => {}
    }
}

/// True when a certificate is named and not contained. Other forms are paths or the numbers of a path's bytes.
fn is_file(value: &str) -> bool {
    !value.is_empty() && !value.starts_with("data:;base64,")
}

/// A name: the numbers of its bytes, each followed by a semicolon, or text.
fn ssid(value: &str) -> Option<Ssid> {
    if let Some(name) = numbers(value) {
        return Some(name);
    }
    // A semicolon may stand behind a backslash.
    let text = ini::text(value)?;
    let mut name = Ssid::new();
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' || bytes.peek() != Some(&b';') {
            name.push(byte).ok()?;
        }
    }
    wifi::ssid(&name)
}

fn numbers(value: &str) -> Option<Ssid> {
    let mut name = Ssid::new();
    for number in value.trim().strip_suffix(';')?.split(';') {
        name.push(number.trim().parse().ok()?).ok()?;
    }
    Some(name)
}
/// The key of a line, when its value is a secret; `group` is the line that its group begins with. Rather one too many.
pub fn without_secret<'a>(group: &[u8], line: &'a [u8]) -> Option<&'a [u8]> {
    const WORDS: [&str; 6] =
        ["psk", "password", "private-key", "wep-key", "preshared-key", "secret"];
    let at = line.iter().position(|byte| *byte == b'=')?;
    let key = line.get(..at)?;
    let name = core::str::from_utf8(key).ok()?.trim();
    let has_word = WORDS.iter().any(|word| name.contains(*word)) && !name.ends_with("-flags");
    (group == b"[vpn-secrets]" || name == "pin" || has_word).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_keys() {
        let is_hidden =
            |group: &str, line: &str| without_secret(group.as_bytes(), line.as_bytes()).is_some();
        for line in [
            "psk=x",
            "password=x",
            "wep-key0=x",
            "private-key-password=x",
            "pin=1",
            "preshared-key=x",
        ] {
            assert!(is_hidden("[wifi-security]", line), "{line}");
        }
        assert!(is_hidden("[vpn-secrets]", "anything=x"));
        for line in ["ssid=psk", "psk-flags=1", "[psk]", "key-mgmt=wpa-psk", "pinned=1"] {
            assert!(!is_hidden("[wifi]", line), "{line}");
        }
    }
}
