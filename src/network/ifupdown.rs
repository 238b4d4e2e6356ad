//! Reads `/etc/network/interfaces` and the files in `interfaces.d` (interfaces(5) of Debian's ifupdown 0.8).
//!
//! Two files that set the same interface give two findings for it; hand them over as one, with a line feed between, and
//! they are merged as ifupdown merges them: [`includes`] says which. Whether an interface is `auto` is not looked at:
//! what is only brought up by hand is taken along, too.

use super::draft::{Draft, why};
use super::names::{self, made_by_software};
use super::wifi;
use super::words::{Words, lines, text, unquoted, words};
use super::{Finding, Findings, Security, Ssid, Wifi};
use crate::text::{Text, printable};

const TEMPLATE: &str = "it is a template, or made from one; these are not carried over";
const MAPPING: &str = "a script chooses its settings; nothing of that is carried over";
const WPA_FILE: &str = "the Wi-Fis in this file are not carried over: it is none of the usual ones";
const INCLUDED: &str = "the settings in this are not carried over: only files of interfaces.d are read, by name or by a plain pattern";
const MANY: &str = "it has more than 32 interfaces; the others are left out";
const METHOD: &str = "its method is not carried over; it will use DHCP";
const NOT_IP: &str = "it is no IP network; these are not carried over";
const PEER: &str = "it is a point-to-point link; these are not carried over";
const EMPTY_BRIDGE: &str = "it is a bridge without ports; the new OS will not have it";
const WEP: &str = "it is protected by WEP, which is not carried over";
const ENTERPRISE: &str = "it is protected by 802.1X, which is not carried over from this file";
const KEY_FILE: &str = "its key is in a file of its own, which is not carried over";

/// Hands over what one file says.
pub fn parse(bytes: &[u8], found: &mut Findings) {
    elsewhere(bytes, found);
    let mut seen: heapless::Vec<&[u8], 32> = heapless::Vec::new();
    for line in lines(bytes) {
        let mut words = words(line);
        if words.next() != Some(b"iface") {
            continue;
        }
        let name = physical(words.next().unwrap_or_default());
        if name == b"lo" || name.is_empty() || seen.contains(&name) {
            continue;
        }
        if seen.push(name).is_err() {
            return found(Finding::Doubtful(Text::from("interfaces"), MANY));
        }
        interface(bytes, name, found);
    }
}

/// The interface that an alias (`eth0:1`) is a second name of.
fn physical(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == b':').next().unwrap_or_default()
}

/// What is no stanza of an interface: files elsewhere, templates, scripts.
fn elsewhere(bytes: &[u8], found: &mut Findings) {
    for line in lines(bytes) {
        let mut words = words(line);
        let keyword = words.next().unwrap_or_default();
        let why = match keyword {
            b"template" => TEMPLATE,
            b"mapping" => MAPPING,
            _ => {
                let is_source = keyword == b"source" || keyword.starts_with(SOURCE_FOLDER);
                for path in words.filter(|path| is_source && part(keyword, path).is_none()) {
                    found(Finding::Doubtful(printable(path), INCLUDED));
                }
                continue;
            }
        };
        found(Finding::Doubtful(printable(words.rest()), why));
    }
}

/// Whether ifupdown reads the file of this name in `interfaces.d`, by what its main file says, or another that it
/// reads.
pub fn includes(text: &[u8], name: &[u8]) -> bool {
    // What ifupdown takes from a folder.
    let is_usual =
        name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    lines(text).any(|line| {
        let mut words = words(line);
        let keyword = words.next().unwrap_or_default();
        words.any(|path| match part(keyword, path) {
            Some(Part::Folder) => is_usual,
            Some(Part::Pattern(pattern)) => matches(pattern, name),
            None => false,
        })
    })
}

/// How a line begins that includes a folder; ifupdown looks at no more of the word.
const SOURCE_FOLDER: &[u8] = b"source-dir";

/// What is included of `interfaces.d`.
enum Part<'a> {
    /// The whole.
    Folder,
    /// Files whose names are like this, with `*` and `?`.
    Pattern(&'a [u8]),
}

/// What a line that includes files means; nothing when it is no such line, or when it is about other files, or has more
/// than `*` and `?` of what wordexp(3) knows. A path without a slash in front is below the folder of the main file.
fn part<'a>(keyword: &[u8], path: &'a [u8]) -> Option<Part<'a>> {
    let below = path.strip_prefix(b"/etc/network/").unwrap_or(path);
    let rest = below.strip_prefix(b"./").unwrap_or(below).strip_prefix(b"interfaces.d")?;
    if keyword.starts_with(SOURCE_FOLDER) {
        return matches!(rest, b"" | b"/").then_some(Part::Folder);
    }
    let pattern = rest.strip_prefix(b"/").filter(|_| keyword == b"source")?;
    let is_special = |byte: &u8| b"/[]{}()$`'\"\\~|&;<>".contains(byte);
    (!pattern.iter().any(is_special)).then_some(Part::Pattern(pattern))
}

/// Whether the whole name is like the pattern: `*` is any bytes, `?` any byte.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // The last star, and how much of the name stands before what it is taken for.
    let mut star = None;
    while let Some(byte) = name.get(seen) {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                star = Some((at, seen));
                at += 1;
            }
            (Some(wanted), _) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
            }
            (_, Some((place, before))) => {
                star = Some((place, before + 1));
                at = place + 1;
                seen = before + 1;
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

/// What a line is about.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Iface,
    /// Begins something else than an interface.
    Other,
    /// A line of a mapping: what a script says, and the name of the settings for it.
    Map,
    Address,
    Netmask,
    Gateway,
    Dns,
    Search,
    Mtu,
    Mac,
    Metric,
    Peer,
    AcceptRa,
    Command,
    BridgePorts,
    Bond,
    Vlan,
    WpaFile,
    WpaRoam,
    WpaDriver,
    WpaSsid,
    WpaPsk,
    WpaKeyMgmt,
    WpaHidden,
    WpaPriority,
    WpaEap,
    WpaKeyFile,
    Wep,
}

/// The words that lines begin with. `_` is the same as `-`: scripts see both as `_`.
const KEYS: [(&str, Key); 54] = [
    ("iface", Key::Iface),
    ("auto", Key::Other),
    ("no-auto-down", Key::Other),
    ("no-scripts", Key::Other),
    ("mapping", Key::Other),
    ("template", Key::Other),
    ("map", Key::Map),
    ("rename", Key::Other),
    ("source", Key::Other),
    ("source-directory", Key::Other),
    ("address", Key::Address),
    ("netmask", Key::Netmask),
    ("gateway", Key::Gateway),
    ("dns-nameservers", Key::Dns),
    ("dns-nameserver", Key::Dns),
    ("dns-search", Key::Search),
    ("dns-domain", Key::Search),
    ("mtu", Key::Mtu),
    ("hwaddress", Key::Mac),
    ("metric", Key::Metric),
    ("pointopoint", Key::Peer),
    ("accept-ra", Key::AcceptRa),
    ("up", Key::Command),
    ("pre-up", Key::Command),
    ("post-up", Key::Command),
    ("bridge-ports", Key::BridgePorts),
    ("bond-slaves", Key::Bond),
    ("bond-mode", Key::Bond),
    ("bond-master", Key::Bond),
    ("bond-primary", Key::Bond),
    ("slaves", Key::Bond),
    ("vlan-raw-device", Key::Vlan),
    ("vlan-id", Key::Vlan),
    ("wpa-conf", Key::WpaFile),
    ("wpa-roam", Key::WpaRoam),
    ("wpa-driver", Key::WpaDriver),
    ("wpa-ssid", Key::WpaSsid),
    ("wpa-essid", Key::WpaSsid),
    ("wireless-essid", Key::WpaSsid),
    ("wpa-psk", Key::WpaPsk),
    ("wpa-passphrase", Key::WpaPsk),
    ("wpa-key-mgmt", Key::WpaKeyMgmt),
    ("wpa-scan-ssid", Key::WpaHidden),
    ("wpa-priority", Key::WpaPriority),
    ("wpa-eap", Key::WpaEap),
    ("wpa-identity", Key::WpaEap),
    ("wpa-psk-file", Key::WpaKeyFile),
    ("wpa-passphrase-file", Key::WpaKeyFile),
    ("wpa-wep-key0", Key::Wep),
    ("wpa-wep-key1", Key::Wep),
    ("wireless-key", Key::Wep),
    ("wireless-key1", Key::Wep),
    ("wireless-key2", Key::Wep),
    ("wireless-enc", Key::Wep),
];

fn key(word: &[u8]) -> Option<Key> {
    if word.starts_with(b"allow-") {
        return Some(Key::Other);
    }
    let dashes = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let is_it = |name: &str| name.bytes().eq(word.iter().map(|&byte| dashes(byte)));
    KEYS.iter().find(|(name, _)| is_it(name)).map(|(_, key)| *key)
}

/// What is put together over the lines of one stanza.
#[derive(Default)]
struct Stanza<'a> {
    is_v6: bool,
    is_static: bool,
    address: &'a str,
    netmask: Option<&'a str>,
    /// A Wi-Fi, as far as it is known.
    ssid: &'a [u8],
    psk: &'a [u8],
    key_mgmt: &'a str,
    hidden: bool,
    priority: i32,
    /// The Wi-Fis, or a login on a cable, are in a file of wpa_supplicant's own.
    wpa_file: Option<&'a [u8]>,
    /// That file is not read.
    is_elsewhere: bool,
    is_for_cable: bool,
    lost: Option<&'static str>,
}

/// All stanzas of one interface.
fn interface(bytes: &[u8], name: &[u8], found: &mut Findings) {
    let mut draft = Draft::new(name);
    if let Some(why) = made_by_software(text(name)) {
        draft.lose(why);
    }
    let mut stanza: Option<Stanza> = None;
    for line in lines(bytes) {
        let mut words = words(line);
        let key = key(words.next().unwrap_or_default());
        if let Some(Key::Iface | Key::Other) = key {
            close(stanza.take(), &mut draft, found);
        }
        match (key, &mut stanza) {
            (Some(Key::Iface), _) if physical(words.next().unwrap_or_default()) == name => {
                stanza = Some(open(&mut words, &mut draft));
            }
            (Some(Key::Map), _) if words.by_ref().last() == Some(name) => draft.set_nameless(),
            (Some(key), Some(stanza)) => {
                wifi_option(key, &words, stanza, found);
                option(key, &mut words, stanza, &mut draft);
            }
            _ => {}
        }
    }
    close(stanza.take(), &mut draft, found);
    if !draft.is_lost() && may_be_a_place(bytes, name) {
        draft.set_nameless();
        draft.set_wpa_file("");
    }
    draft.finish(found);
}

/// Whether these may be the settings for a Wi-Fi and not for an interface: with `wpa-roam`, they go by the `id_str` of
/// the Wi-Fi (README.Debian of wpasupplicant). Names of most interfaces have a number, and what is to come up by itself
/// is an interface.
fn may_be_a_place(bytes: &[u8], name: &[u8]) -> bool {
    let mut has_roaming = false;
    for line in lines(bytes) {
        let mut words = words(line);
        let first = words.next().unwrap_or_default();
        if (first == b"auto" || first.starts_with(b"allow-")) && words.any(|word| word == name) {
            return false;
        }
        has_roaming |= key(first) == Some(Key::WpaRoam);
    }
    has_roaming && !name.iter().any(u8::is_ascii_digit)
}

/// Whether the Wi-Fis of this file are read anyway.
fn is_usual_wpa_file(path: &[u8]) -> bool {
    let name = path.strip_prefix(b"/etc/wpa_supplicant/wpa_supplicant").unwrap_or_default();
    name.ends_with(b".conf") && !name.contains(&b'/')
}

/// What follows the name in the first line of a stanza: family, method, template.
fn open<'a>(words: &mut Words, draft: &mut Draft) -> Stanza<'a> {
    let (family, method) = (words.text(), words.text());
    let is_v6 = family == "inet6";
    if family == "inherits" || method == "inherits" || words.text() == "inherits" {
        draft.doubt(TEMPLATE);
    }
    match (family, method) {
        ("inet" | "inet6", "static") => {
            return Stanza { is_v6, is_static: true, ..Stanza::default() };
        }
        ("inet", "dhcp" | "bootp") => draft.automatic4 = true,
        ("inet6", "auto" | "dhcp") => draft.automatic6 = true,
        ("inet" | "inet6", "manual" | "loopback") | ("inherits" | "", _) => {}
        ("inet" | "inet6", "tunnel" | "ppp" | "wvdial" | "6to4" | "v4tunnel") => {
            draft.lose(names::TUNNEL);
        }
        ("inet" | "inet6", _) => draft.doubt(METHOD),
        _ => draft.doubt(NOT_IP),
    }
    Stanza { is_v6, ..Stanza::default() }
}

/// One line of a stanza that is not about a Wi-Fi.
fn option<'a>(key: Key, words: &mut Words<'a>, stanza: &mut Stanza<'a>, draft: &mut Draft) {
    match key {
        // Without a method that uses them, these are only variables for scripts.
        Key::Address if stanza.is_static => stanza.address = words.text(),
        Key::Netmask if stanza.is_static => stanza.netmask = Some(words.text()),
        Key::Gateway if stanza.is_static => draft.set_gateway(words.text()),
        Key::Dns => words.for_each(|word| draft.add_dns(text(word))),
        Key::Search => words.for_each(|word| draft.add_search(text(word))),
        Key::Mtu => draft.set_mtu(words.text()),
        Key::Mac => draft.doubt(why::NEW_MAC),
        Key::Metric => draft.doubt(why::METRIC),
        Key::Peer => draft.lose(PEER),
        Key::AcceptRa if stanza.is_v6 => draft.ignores_routers = words.text() == "0",
        Key::Command => draft.doubt(why::COMMANDS),
        Key::BridgePorts if words.text() == "none" => draft.leave_out(EMPTY_BRIDGE),
        Key::BridgePorts => draft.lose(names::BRIDGE),
        Key::Bond => draft.lose(names::BOND),
        Key::Vlan => draft.lose(names::VLAN),
        _ => {}
    }
}

/// One line of a stanza that is about a Wi-Fi.
fn wifi_option<'a>(key: Key, words: &Words<'a>, stanza: &mut Stanza<'a>, found: &mut Findings) {
    let value = unquoted(words.rest());
    match key {
        Key::WpaFile | Key::WpaRoam => {
            stanza.wpa_file = Some(value);
            if !is_usual_wpa_file(value) {
                stanza.is_elsewhere = true;
                found(Finding::Doubtful(printable(value), WPA_FILE));
            }
        }
        Key::WpaDriver => stanza.is_for_cable = value == b"wired",
        Key::WpaSsid => stanza.ssid = value,
        Key::WpaPsk => stanza.psk = value,
        Key::WpaKeyMgmt => stanza.key_mgmt = text(value),
        Key::WpaHidden => stanza.hidden = value == b"1",
        Key::WpaPriority => stanza.priority = text(value).parse().unwrap_or_default(),
        Key::WpaEap => stanza.lost = Some(ENTERPRISE),
        Key::WpaKeyFile => stanza.lost = Some(KEY_FILE),
        Key::Wep => stanza.lost = Some(WEP),
        _ => {}
    }
}

/// The end of a stanza.
fn close(stanza: Option<Stanza>, draft: &mut Draft, found: &mut Findings) {
    let Some(stanza) = stanza else { return };
    match (stanza.wpa_file, stanza.is_for_cable) {
        (Some(path), false) => {
            draft.set_wpa_file(text(path));
            // The Wi-Fis that are read are not those of this interface.
            draft.has_wifis_apart &= !stanza.is_elsewhere;
        }
        (Some(_), true) => draft.lose(ENTERPRISE),
        _ => {}
    }
    if !stanza.ssid.is_empty() {
        match wifi_of(&stanza) {
            Ok(wifi) => draft.add_wifi(wifi, found),
            Err(why) => {
                draft.lose_wifi();
                found(Finding::LostWifi(printable(stanza.ssid), why));
            }
        }
    } else if let Some(why) = stanza.lost {
        // 802.1X on a cable.
        draft.lose(why);
    }
    if !stanza.is_static {
        return;
    }
    if stanza.address.is_empty() {
        return draft.lose(why::NO_ADDRESS);
    }
    // What is assumed when there is no netmask differs between versions of ifupdown.
    draft.add_address(stanza.address, stanza.netmask);
}

/// The Wi-Fi of a stanza.
fn wifi_of(stanza: &Stanza) -> Result<Wifi, &'static str> {
    let is_open = stanza.psk.is_empty() && matches!(stanza.key_mgmt, "" | "NONE");
    let key = wifi::key(text(stanza.psk));
    let security = match stanza.lost {
        Some(why) => Err(why),
        None if is_open => Ok(Security::Open),
        None if stanza.key_mgmt.contains("EAP") => Err(ENTERPRISE),
        // What is made from a passphrase is none: WPA3 needs the passphrase.
        None if stanza.key_mgmt == "SAE" => match key {
            Ok(key) if key.len() < 64 => Ok(Security::Sae(Text::from(&*key))),
            _ => Err(wifi::BAD_KEY),
        },
        None => key.map(Security::Psk),
    };
    let ssid = Ssid::from_slice(stanza.ssid).map_err(|_| "its name is longer than 32 bytes")?;
    Ok(Wifi { hidden: stanza.hidden, priority: stanza.priority, ..Wifi::new(ssid, security?) })
}

#[cfg(test)]
mod tests {
    use crate::network::{Finding, Security, fixtures, wifi};
    use crate::text::Text;

    #[test]
    fn fixtures_give_exactly_these_findings() {
        fixtures::check("ifupdown", super::parse);
    }

    #[test]
    fn a_key_is_what_wpa_supplicant_takes_for_one() {
        let security = |key: &str, management: &str| {
            let text = format!(
                "iface wlan0 inet dhcp\nwpa-ssid n\nwpa-psk {key}\nwpa-key-mgmt {management}\n"
            );
            let mut security = None;
            super::parse(text.as_bytes(), &mut |finding| match finding {
                Finding::Wifi(wifi) => security = Some(wifi.security),
                Finding::LostWifi(_, why) => assert_eq!(why, wifi::BAD_KEY),
                other => panic!("{other:?}"),
            });
            security
        };
        let digits = "0aF9".repeat(16);
        for key in ["12345678", "Größe-2024", &"a".repeat(63), &digits] {
            assert_eq!(security(key, "WPA-PSK"), Some(Security::Psk(Text::from(key))));
        }
        assert_eq!(security("Größe-2024", "SAE"), Some(Security::Sae(Text::from("Größe-2024"))));
        for (key, management) in [("1234567", "WPA-PSK"), ("1234567", "SAE"), (&digits, "SAE")] {
            assert_eq!(security(key, management), None);
        }
    }

    #[test]
    fn what_is_read_is_what_ifupdown_reads() {
        let cases = [
            ("source /etc/network/interfaces.d/*", "eth0 eth0.cfg eth0~"),
            ("source interfaces.d/*.cfg", "eth0.cfg"),
            ("  source ./interfaces.d/eth?.* x", "eth0.cfg"),
            ("source /srv/x /etc/network/interfaces.d/eth0", "eth0"),
            ("source /etc/network/interfaces.d/*0*", "eth0 eth0.cfg eth0~"),
            ("source-directory /etc/network/interfaces.d", "eth0"),
            ("source-directory interfaces.d/", "eth0"),
            ("source interfaces.d", ""),
            ("source-directory interfaces.d/*", ""),
            ("source interfaces.d/eth[0]", ""),
            ("source interfaces.d/$x", ""),
            ("source interfaces.d/sub/*", ""),
            ("source interfaces.d/*1", ""),
            ("source interfaces.d/???", ""),
            ("source /etc/interfaces.d/*", ""),
            ("# source interfaces.d/*", ""),
            ("iface interfaces.d/eth0 inet dhcp", ""),
            ("", ""),
        ];
        for (main, wanted) in cases {
            let names = ["eth0", "eth0.cfg", "eth0~"].into_iter();
            let read = names.filter(|name| super::includes(main.as_bytes(), name.as_bytes()));
            assert_eq!(read.collect::<Vec<_>>().join(" "), wanted, "{main}");
        }
    }

    #[test]
    fn a_pattern_of_stars_takes_no_time() {
        let pattern = b"*a".repeat(30_000);
        assert!(!super::matches(&pattern, &b"a".repeat(255)));
        assert!(super::matches(&b"*a".repeat(100), &b"a".repeat(255)));
    }

    #[test]
    fn hostile_files_do_no_harm() {
        fixtures::torture("ifupdown", super::parse);
    }
}
