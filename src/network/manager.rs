//! Keyfiles of the old OS's NetworkManager: they are carried over byte for byte, so only what must be known about one
//! is read.
//!
//! Opens no file. The grammar is GKeyFile's, the keys those of nm-settings-keyfile(5).

use super::beside::{Form, values};
use super::ini::{self, Line};
use super::names::{is_interface, is_loopback, made_by_software};
use super::wifi;
use super::words::is_like;
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

/// The highest priority that there is (nm-settings-nmcli(5), connection.autoconnect-priority).
const HIGHEST: i32 = 999;

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

/// Other types whose group may stand for them.
const OTHERS: [&str; 11] = [
    "vlan",
    "bond",
    "team",
    "macvlan",
    "vxlan",
    "ip-tunnel",
    "infiniband",
    "dummy",
    "bluetooth",
    "pppoe",
    "adsl",
];
/// What the NetworkManager of balenaOS has no part for: how a type begins, and what is said of it.
const ABSENT: [(&str, &str); 4] = [
    (
        "vpn",
        "it needs a VPN plug-in of NetworkManager, which the new OS does not have: it will not come up",
    ),
    ("team", "it needs teamd, which the new OS does not have: it will not come up"),
    ("ovs-", "it needs Open vSwitch, which the new OS does not have: it will not come up"),
    ("wimax", "it is a WiMAX, which the new OS does not have: it will not come up"),
];
/// How the names of certificate files end for NetworkManager (nm_keyfile_detect_unqualified_path_scheme).
const CERTIFICATE_ENDINGS: [&str; 7] = [".pem", ".cert", ".crt", ".cer", ".p12", ".der", ".key"];

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

/// What is said of what does not come up by itself.
pub const NOT_BY_ITSELF: &str = "it does not come up by itself, neither will it on the new OS";
/// What is said of a name server that is the old OS itself.
const ASKS_OLD_OS: &str =
    "a name server of it is the old OS itself: the new OS has to be given another one";
/// What is said of a fixed address without a name server.
pub const NO_NAME_SERVER: &str =
    "no name server goes with its fixed address: the new OS asks its default ones";

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
    /// Its IPv4 addresses are fixed and there is a router, but nobody to ask for names.
    pub lacks_name_server: bool,
    /// A name server that it names is the old OS itself.
    pub asks_old_os: bool,
    /// It only comes up together with a VPN.
    pub needs_vpn: bool,
    /// Why NetworkManager of the new OS does not bring it up.
    pub absent: Option<&'static str>,
    /// It is an access point or ad-hoc network of this device.
    pub is_own_network: bool,
    /// NetworkManager made it itself, for as long as it runs.
    pub is_volatile: bool,
}

impl Summary {
    /// As NetworkManager does, calls it like its file where it has no name itself.
    pub fn name_after(&mut self, file: &str) {
        if self.id.is_empty() {
            let name = file.strip_suffix(".nmconnection").unwrap_or(file);
            self.id = printable(name.as_bytes());
        }
    }

    /// Whether it comes up by itself on whatever has a cable.
    pub fn is_for_any_cable(&self) -> bool {
        let is_bound = self.mac_pinned || !self.interface_name.is_empty();
        self.kind == Kind::Ethernet && self.autoconnect && !is_bound
    }

    /// The priority that settings of one interface need, to be taken rather than this one.
    pub fn priority_before(&self) -> i32 {
        if self.is_for_any_cable() { self.priority.saturating_add(1).clamp(0, HIGHEST) } else { 0 }
    }

    /// Whether nothing can be taken rather than it.
    pub fn is_before_all(&self) -> bool {
        self.is_for_any_cable() && self.priority >= HIGHEST
    }

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
        say(
            self.needs_vpn,
            is_needed,
            "it only comes up together with a VPN (secondaries=), which the new OS may not have",
        );
        say(self.absent.is_some(), false, self.absent.unwrap_or_default());
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
        // Whether a Wi-Fi that nobody joins is missed depends on the others.
        let is_device = matches!(self.kind, Kind::Ethernet | Kind::Gsm);
        say(is_device && !self.autoconnect, false, NOT_BY_ITSELF);
        say(self.asks_old_os, false, ASKS_OLD_OS);
        say(self.lacks_name_server, false, NO_NAME_SERVER);
    }
}

/// What NetworkManager.conf says about whose settings hold (NetworkManager.conf(5)). Its files are taken in the order
/// in which NetworkManager reads them.
#[derive(Default)]
pub struct Config {
    /// The folder of its connections; empty for the usual one.
    pub folder: Text<255>,
    has_ifupdown: bool,
    is_ifupdown_managed: bool,
    unmanaged: Text<500>,
}

impl Config {
    /// Takes a file.
    pub fn take(&mut self, bytes: &[u8]) {
        values(bytes, Form::Entry("keyfile"), "path", &mut |path| self.folder = Text::from(path));
        values(bytes, Form::Entry("main"), "plugins", &mut |list| {
            self.has_ifupdown = list.split([',', ';', ' ']).any(|plugin| plugin == "ifupdown");
        });
        values(bytes, Form::Entry("ifupdown"), "managed", &mut |value| {
            self.is_ifupdown_managed = ini::is_true(value);
        });
        values(bytes, Form::Entry("keyfile"), "unmanaged-devices", &mut |list| {
            self.unmanaged = Text::from(list);
        });
        values(bytes, Form::Entry("keyfile"), "unmanaged-devices+", &mut |list| {
            self.unmanaged = crate::text!("{},{}", self.unmanaged, list);
        });
        self.take_devices(bytes);
    }

    /// Takes the groups `device` and `device-NAME`, which are for the devices that they name.
    fn take_devices(&mut self, bytes: &[u8]) {
        let (mut devices, mut is_unmanaged, mut is_device) = ("", false, false);
        for line in ini::lines(bytes).chain([Line::Group("")]) {
            match line {
                Line::Group(name) => {
                    if is_unmanaged {
                        let all = if devices.is_empty() { "*" } else { devices };
                        self.unmanaged = crate::text!("{},{}", self.unmanaged, all);
                    }
                    (devices, is_unmanaged) = ("", false);
                    is_device = name == "device" || name.starts_with("device-");
                }
                Line::Entry("match-device", list) if is_device => devices = list.trim_end(),
                Line::Entry("managed", value) => is_unmanaged = is_device && !ini::is_true(value),
                _ => {}
            }
        }
    }

    /// Whether it leaves the interfaces alone that are in /etc/network/interfaces.
    pub fn leaves_ifupdown_alone(&self) -> bool {
        self.has_ifupdown && !self.is_ifupdown_managed
    }

    /// Whether it leaves this interface alone; either of name and hardware address may be empty.
    pub fn leaves_alone(&self, interface: &str, mac: &str) -> bool {
        let items = || self.unmanaged.split([',', ';', ' ']).filter(|item| !item.is_empty());
        let is_it = |item: &str| match item.split_once(':') {
            Some(("interface-name", name)) => {
                let name = name.strip_prefix('=').or(name.strip_prefix('~')).unwrap_or(name);
                !interface.is_empty() && is_like(name.as_bytes(), interface.as_bytes())
            }
            Some(("mac", address)) => !mac.is_empty() && address.eq_ignore_ascii_case(mac),
            // In earlier times without a word before it.
            _ => item == "*" || !mac.is_empty() && item.eq_ignore_ascii_case(mac),
        };
        // Whether one is an exception may depend on what is not known of it.
        !items().any(|item| item.starts_with("except:")) && items().any(is_it)
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
    has_type: bool,
    is_manual: bool,
    has_router: bool,
    has_name_server: bool,
    /// The type that a group's name implies.
    implied: Option<Kind>,
    /// What is said of that type.
    absent: Option<&'static str>,
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
                let is_other = || OTHERS.contains(&group).then_some(Kind::Other);
                pending.implied = pending.implied.or_else(|| kind(group)).or_else(is_other);
                pending.absent = pending.absent.or(absent(group));
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
    // NetworkManager needs no [connection].
    if !pending.has_type {
        // NetworkManager takes the type from the groups as well.
        summary.kind = pending.implied.ok_or("it has no type=")?;
        summary.absent = pending.absent;
    }
    if summary.kind == Kind::Wifi && summary.ssid.is_empty() {
        return Err("it has no valid ssid=");
    }
    let lacks_password = pending.needs_login && !pending.has_password && !pending.has_private_key;
    summary.lacks_secrets |= pending.needs_psk && !pending.has_psk || lacks_password;
    summary.lacks_name_server =
        pending.is_manual && pending.has_router && !pending.has_name_server && !summary.asks_old_os;
    Ok(summary)
}

fn kind(name: &str) -> Option<Kind> {
    KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// Why the new OS does not bring up what is of this type.
fn absent(name: &str) -> Option<&'static str> {
    ABSENT.iter().find(|(start, _)| name.starts_with(start)).map(|(_, why)| *why)
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
        ("ipv4" | "ipv6", _) if key.starts_with("address") => {
            summary.is_fixed |= !value.is_empty();
            // In earlier times `ADDRESS;PREFIX;ROUTER;`.
            let mut parts = value.split([',', ';']);
            pending.has_router |= parts.by_ref().nth(1).is_some_and(|part| !part.is_empty());
        }
        ("ipv4" | "ipv6", "gateway") => pending.has_router |= !value.is_empty(),
        ("ipv4", "method") => pending.is_manual = value == "manual",
        ("ipv4" | "ipv6", "dns") => {
            for server in value.split([',', ';', ' ']).filter(|server| !server.is_empty()) {
                let is_old_os = is_loopback(server);
                summary.asks_old_os |= is_old_os;
                pending.has_name_server |= !is_old_os;
            }
        }
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
            summary.absent = absent(value);
        }
        "interface-name" => summary.interface_name = printable(value.as_bytes()),
        "autoconnect" => summary.autoconnect = ini::is_true(value),
        "autoconnect-priority" => summary.priority = value.parse().unwrap_or(0),
        "secondaries" => summary.needs_vpn = !value.is_empty(),
        "permissions" => summary.is_private = value.contains("user:"),
        _ => {}
    }
}

/// True when a certificate is named and not contained: as base64, or as the numbers of its bytes, which may also be
/// those of a path. As in nm_keyfile_detect_unqualified_path_scheme of NetworkManager, but that a text is a path in any
/// case: whether there is such a file is not looked at.
fn is_file(value: &str) -> bool {
    if value.is_empty() || value.starts_with("data:;base64,") {
        return false;
    }
    let numbers = || bytes(value).into_iter().flatten();
    if bytes(value).is_none() || numbers().any(|number| number.is_none()) {
        return true;
    }
    let mut path = heapless::Vec::<u8, 500>::new();
    let fits = numbers().flatten().all(|byte| path.push(byte).is_ok());
    let text = core::str::from_utf8(&path).unwrap_or_default().trim_end_matches('\0');
    let is_path = text.contains('/') || CERTIFICATE_ENDINGS.iter().any(|end| text.ends_with(end));
    fits && is_path && !text.contains('\0')
}

/// The numbers that a list holds, each followed by a semicolon; nothing for what is no list.
fn bytes(value: &str) -> Option<impl Iterator<Item = Option<u8>>> {
    let list = value.trim().strip_suffix(';')?;
    Some(list.split(';').map(|number| number.trim().parse().ok()))
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
    for byte in bytes(value)? {
        name.push(byte?).ok()?;
    }
    Some(name)
}
/// The key of a line, when its value is a secret; `group` is the line that its group begins with. Rather one too many.
pub fn without_secret<'a>(group: &[u8], line: &'a [u8]) -> Option<&'a [u8]> {
    // `preshared-key` has no other word, `cert-pass` is of OpenVPN, `mka-cak` of MACsec.
    const WORDS: [&str; 7] =
        ["psk", "pass", "private-key", "wep-key", "preshared-key", "secret", "-cak"];
    let at = line.iter().position(|byte| *byte == b'=')?;
    let key = line.get(..at)?;
    let name = core::str::from_utf8(key).ok()?.trim();
    let has_word = WORDS.iter().any(|word| name.contains(*word)) && !name.ends_with("-flags");
    (group == b"[vpn-secrets]" || name == "pin" || has_word).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of the connection of these lines.
    fn said(text: &str) -> Vec<(bool, &'static str)> {
        let mut said = Vec::new();
        let summary = summarise(text.as_bytes()).unwrap();
        summary.findings(&|_| false, &mut |finding| match finding {
            Finding::Lost(_, why) | Finding::LostWifi(_, why) => said.push((true, why)),
            Finding::Doubtful(_, why) => said.push((false, why)),
            other => panic!("{other:?}"),
        });
        said
    }

    #[test]
    fn its_configuration_says_what_it_leaves_alone() {
        let config = |text: &str| {
            let mut config = Config::default();
            text.split("---\n").for_each(|file| config.take(file.as_bytes()));
            config
        };
        let files =
            "[keyfile]\npath=/data/nm\n---\n[main]\nplugins=ifupdown,keyfile\n[keyfile]\npath=/b\n";
        assert_eq!(&*config(files).folder, "/b");
        assert!(config(files).leaves_ifupdown_alone());
        assert!(!config(&format!("{files}[ifupdown]\nmanaged=true\n")).leaves_ifupdown_alone());
        assert!(!config("[ifupdown]\nmanaged=false\n").leaves_ifupdown_alone(), "no such plugin");
        for (text, is_left) in [
            (
                "[keyfile]\nunmanaged-devices=x\n[keyfile]\nunmanaged-devices+=interface-name:eth0",
                true,
            ),
            ("[device]\nmatch-device=interface-name:eth0\nmanaged=0\n", true),
            ("[device-lan]\nmanaged=false\nmatch-device=mac:02:00:00:00:00:0a\n[main]\n", true),
            (
                "[device]\nmanaged=1\n[device-b]\nmatch-device=interface-name:eth1\nmanaged=0\n",
                false,
            ),
            ("[device]\nmanaged=0\n", true),
            ("[other]\nmanaged=0\n", false),
        ] {
            let is_it = config(text).leaves_alone("eth0", "02:00:00:00:00:0a");
            assert_eq!(is_it, is_left, "{text}");
        }
        for (list, is_left) in [
            ("interface-name:eth0", true),
            ("mac:02:00:00:00:00:02;interface-name:eth*", true),
            ("mac:02:00:00:00:00:0A", true),
            ("02:00:00:00:00:0a", true),
            ("*", true),
            ("*,except:interface-name:wlan0", false),
            ("interface-name:eth1;type:wifi", false),
            ("", false),
        ] {
            let config = config(&format!("[keyfile]\nunmanaged-devices={list}\n"));
            assert_eq!(config.leaves_alone("eth0", "02:00:00:00:00:0a"), is_left, "{list}");
            assert_eq!(config.leaves_alone("", ""), list == "*", "{list}");
        }
    }

    #[test]
    fn a_certificate_is_a_file_or_the_data_itself() {
        let numbers = |text: &str| text.bytes().map(|byte| format!("{byte};")).collect::<String>();
        for file in
            ["/etc/ca.pem", "hallo", "data:text", "7;x;", ";", "300;", "file:///ca", "pkcs11:x"]
        {
            assert!(is_file(file), "{file}");
        }
        for path in ["/etc/ca", "file:///ca\0", "ca.pem", "ca.p12\0"] {
            assert!(is_file(&numbers(path)), "{path}");
        }
        let long = format!("/{}.pem", "x".repeat(500));
        for data in ["hallo", "a/b\0c", &long] {
            assert!(!is_file(&numbers(data)), "{data}");
        }
        assert!(!is_file("") && !is_file("data:;base64,AAAA") && !is_file("48;130;255;"));
    }

    #[test]
    fn what_the_new_os_has_no_part_for_is_said() {
        for kind in ["vpn", "team", "ovs-bridge", "ovs-port", "wimax"] {
            let said = said(&format!("[connection]\ntype={kind}\n"));
            assert!(
                said.iter().any(|(lost, why)| !lost && why.contains("will not come up")),
                "{kind}: {said:?}"
            );
        }
        assert!(said("[vpn]\n").iter().any(|(_, why)| why.contains("will not come up")));
        // A secret of a VPN, which is no type.
        assert_eq!(said("[connection]\ntype=ethernet\n[vpn-secrets]\n"), []);
        for kind in ["wireguard", "vlan", "bond", "gsm"] {
            assert_eq!(said(&format!("[connection]\ntype={kind}\n")), []);
        }
    }

    #[test]
    fn the_type_may_be_a_group() {
        for (group, kind) in
            [("802-3-ethernet", Kind::Ethernet), ("vlan", Kind::Other), ("gsm", Kind::Gsm)]
        {
            let mut summary = summarise(format!("[{group}]\n[ipv4]\n").as_bytes()).unwrap();
            assert_eq!(summary.kind, kind);
            summary.name_after("port 1.nmconnection");
            assert_eq!(&*summary.name(), "port 1");
        }
        assert!(summarise(b"[ipv4]\n").is_err());
    }

    #[test]
    fn what_does_not_come_up_by_itself_or_not_alone_is_said() {
        let cable = "[connection]\ntype=ethernet\n";
        assert_eq!(said(&format!("{cable}autoconnect=false\n")), [(false, NOT_BY_ITSELF)]);
        assert!(said(&format!("{cable}secondaries=u1;\n"))[0].0);
        assert_eq!(said(&format!("{cable}secondaries=\n")), []);
        assert_eq!(said("[connection]\ntype=wireguard\nautoconnect=false\n"), []);
    }

    #[test]
    fn name_servers_that_are_missing_or_the_old_os_are_said() {
        let said = |lines: &str| said(&format!("[ethernet]\n[ipv4]\nmethod=manual\n{lines}"));
        let lacks = [(false, NO_NAME_SERVER)];
        for router in [
            "address1=10.0.0.2/8,10.0.0.1",
            "addresses1=10.0.0.2;8;10.0.0.1;",
            "address1=10.0.0.2/8\ngateway=10.0.0.1",
        ] {
            assert_eq!(said(router), lacks);
            assert_eq!(said(&format!("{router}\ndns=9.9.9.9;")), []);
            assert_eq!(said(&format!("{router}\n[ipv6]\ndns=2620:fe::fe")), []);
            let old_os = [(false, ASKS_OLD_OS)];
            assert_eq!(said(&format!("{router}\ndns=127.0.0.53;")), old_os);
            assert_eq!(said(&format!("{router}\ndns=9.9.9.9,127.0.0.53")), old_os);
        }
        assert_eq!(said("address1=10.0.0.2/8"), [], "a network of its own");
    }

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
            "mka-cak=x",
            "cert-pass=x",
        ] {
            assert!(is_hidden("[wifi-security]", line), "{line}");
        }
        assert!(is_hidden("[vpn-secrets]", "anything=x"));
        for line in ["ssid=psk", "psk-flags=1", "[psk]", "key-mgmt=wpa-psk", "pinned=1"] {
            assert!(!is_hidden("[wifi]", line), "{line}");
        }
    }
}
