//! Reads `/etc/network/interfaces` and the files that it includes (interfaces(5) of Debian's ifupdown 0.8, with what
//! ifupdown2 and ifupdown-ng add).
//!
//! Included files are handed over behind the main one, each behind [`FILE`] and its path in a line, so that two that
//! set the same interface are merged as ifupdown merges them; [`source`] says which they are. Behind them, each behind
//! [`FOREIGN`], come the files of wpa_supplicant that [`wpa_file`] names. Whether an interface is `auto` is not looked
//! at: what is only brought up by hand is taken along, too.

use super::commands::{self, Outcome};
use super::draft::{Draft, IPV4, IPV6, why};
use super::names::{self, made_by_software};
use super::words::{FILE, FOREIGN, Words, files, is_like, lines, text, unquoted, words};
use super::{Finding, Findings, Security, Ssid, Wifi, supplicant, wifi};
use crate::text::{Text, printable};

const TEMPLATE: &str = "it is a template, or made from one; these are not carried over";
const MAPPING: &str = "a script chooses its settings; nothing of that is carried over";
const WPA_FILE: &str =
    "its Wi-Fis are in this file, which could not be read: they are not carried over";
const INCLUDED: &str =
    "the settings in this are not carried over: only files by name or by a plain pattern are read";
const MANY: &str = "it has more than 32 interfaces; the others are left out";
const METHOD: &str = "its method is not carried over; it will use DHCP";
const NOT_IP: &str = "it is no IP network; these are not carried over";
const EMPTY_BRIDGE: &str = "it is a bridge without ports; the new OS will not have it";
const WEP: &str = "it is protected by WEP, which is not carried over";
const ENTERPRISE: &str = "it is protected by 802.1X, which is not carried over from this file";
const KEY_FILE: &str = "its key is in a file of its own, which is not carried over";
const DNS_AT_LO: &str =
    "name servers for all interfaces are not carried over: no interface here has an address";
const OTHER_NAME: &str = "these settings are not in force: it is brought up with other ones (=)";

/// Hands over what the files say.
pub fn parse(bytes: &[u8], found: &mut Findings) {
    let main = bytes.split(|byte| *byte == FOREIGN).next().unwrap_or_default();
    elsewhere(main, found);
    let mut seen: heapless::Vec<&[u8], 32> = heapless::Vec::new();
    let mut has_network = false;
    for line in lines(main) {
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
        has_network |= stanzas(bytes, main, name, found);
    }
    if !has_network && lo_lines(main).next().is_some() {
        found(Finding::Doubtful(Text::from("lo"), DNS_AT_LO));
    }
}

/// The interface that an alias (`eth0:1`) is a second name of.
fn physical(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == b':').next().unwrap_or_default()
}

/// What is no stanza of an interface: files elsewhere, templates, scripts.
fn elsewhere(main: &[u8], found: &mut Findings) {
    for line in lines(main) {
        let mut words = words(line);
        let keyword = words.next().unwrap_or_default();
        let why = match keyword {
            b"template" => TEMPLATE,
            b"mapping" => MAPPING,
            _ => {
                let is_source = is_source(keyword);
                for path in words.filter(|path| is_source && source_of(keyword, path).is_none()) {
                    found(Finding::Doubtful(printable(path), INCLUDED));
                }
                continue;
            }
        };
        found(Finding::Doubtful(printable(words.rest()), why));
    }
}

/// How a line begins that includes a folder; ifupdown looks at no more of the word.
const SOURCE_FOLDER: &[u8] = b"source-dir";
/// Where a path without a slash in front begins: the folder of the main file.
const FOLDER: &str = "/etc/network/";

fn is_source(keyword: &[u8]) -> bool {
    keyword == b"source" || keyword.starts_with(SOURCE_FOLDER)
}

/// Files that are included.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Source<'a> {
    /// What stands before the folder.
    pub above: &'static str,
    /// The folder that they are in.
    pub folder: &'a str,
    /// What their names are like, with what a shell has for that; none for all names that ifupdown takes from a
    /// folder.
    pub pattern: Option<&'a str>,
}

impl Source<'_> {
    /// Whether a file of this name in the folder is one.
    pub fn has(&self, name: &str) -> bool {
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        match self.pattern {
            Some(pattern) => is_like(pattern.as_bytes(), name.as_bytes()),
            None => name.bytes().all(is_usual),
        }
    }
}

/// The files that are included in the place of this number, of all that can be read.
pub fn source(bytes: &[u8], number: usize) -> Option<Source<'_>> {
    let mut sources = lines(bytes).flat_map(|line| {
        let mut words = words(line);
        let keyword = words.next().unwrap_or_default();
        words.filter_map(move |path| source_of(keyword, path))
    });
    sources.nth(number)
}

/// What is included by a path in a line with this keyword; nothing when it is no such line, or when the path has more
/// than patterns for the last name of what wordexp(3) knows.
fn source_of<'a>(keyword: &[u8], path: &'a [u8]) -> Option<Source<'a>> {
    let path = core::str::from_utf8(path).ok().filter(|_| is_source(keyword))?;
    let path = path.strip_prefix("./").unwrap_or(path);
    let above = if path.starts_with('/') { "" } else { FOLDER };
    if keyword.starts_with(SOURCE_FOLDER) {
        let folder = path.trim_end_matches('/');
        let is_plain = !folder.contains(|character| is_special(character) || is_glob(character));
        return is_plain.then_some(Source { above, folder, pattern: None });
    }
    let (folder, pattern) = path.rsplit_once('/').unwrap_or(("", path));
    let is_plain = !path.contains(is_special) && !folder.contains(is_glob) && !pattern.is_empty();
    is_plain.then_some(Source { above, folder, pattern: Some(pattern) })
}

fn is_glob(character: char) -> bool {
    "*?[]".contains(character)
}

fn is_special(character: char) -> bool {
    "{}()$`'\"\\~|&;<>".contains(character)
}

/// Whether a file is there already, by its path.
pub fn has_file(bytes: &[u8], path: &str) -> bool {
    files(bytes, FILE).chain(files(bytes, FOREIGN)).any(|(known, _)| known == path)
}

/// The file of wpa_supplicant, of this number, that has to be read along: it is none of those that are read anyway, or
/// the names in it say what settings its Wi-Fis have.
pub fn wpa_file(bytes: &[u8], number: usize) -> Option<&str> {
    let main = bytes.split(|byte| *byte == FOREIGN).next()?;
    let mut paths = lines(main).filter_map(|line| {
        let mut words = words(line);
        let key = key(words.next()?)?;
        let path = unquoted(words.rest());
        let is_wanted = key == Key::WpaRoam || key == Key::WpaFile && !is_usual_wpa_file(path);
        is_wanted.then_some(text(path)).filter(|path| path.starts_with('/'))
    });
    paths.nth(number)
}

/// Files of wpa_supplicant that only these settings name: their paths, and what is in them.
pub fn wpa_files(bytes: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    files(bytes, FOREIGN).filter(|(path, _)| !is_usual_wpa_file(path.as_bytes()))
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
    Use,
    Identity,
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
const KEYS: [(&str, Key); 64] = [
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
    ("use", Key::Use),
    ("client", Key::Identity),
    ("clientid", Key::Identity),
    ("client-id", Key::Identity),
    ("vendor", Key::Identity),
    ("vendorid", Key::Identity),
    ("script", Key::Other),
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
    // Of ifupdown-ng (interfaces-wifi(5)).
    ("wifi-ssid", Key::WpaSsid),
    ("wifi-psk", Key::WpaPsk),
    ("wifi-config-path", Key::WpaFile),
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
    /// Without a method, it is static when it has an address.
    is_open: bool,
    address: &'a str,
    netmask: Option<&'a str>,
    gateway: &'a str,
    metric: &'a str,
    peer: &'a str,
    /// A Wi-Fi, as far as it is known.
    ssid: &'a [u8],
    psk: &'a [u8],
    key_mgmt: &'a str,
    hidden: bool,
    priority: i32,
    /// The Wi-Fis, or a login on a cable, are in a file of wpa_supplicant's own.
    wpa_file: Option<&'a [u8]>,
    is_for_cable: bool,
    lost: Option<&'static str>,
}

/// All stanzas of this name, for each interface that they are for; true when one of these has an address or asks for
/// one.
fn stanzas(bytes: &[u8], main: &[u8], name: &[u8], found: &mut Findings) -> bool {
    let mut has_network = false;
    for_each_bearer(main, name, &mut |bearer| {
        has_network |= interface(bytes, main, name, Bearer::Interface(bearer), found);
    });
    if has_network {
        return true;
    }
    for_each_place(bytes, main, name, &mut |path, ssid| {
        has_network |= interface(bytes, main, name, Bearer::Wifi(path, ssid), found);
    });
    if has_network {
        return true;
    }
    if is_with_another(main, name) {
        found(Finding::Doubtful(printable(name), OTHER_NAME));
        return false;
    }
    interface(bytes, main, name, Bearer::Named, found)
}

/// Whose settings stanzas are.
#[derive(Clone, Copy)]
enum Bearer<'a> {
    /// Those of the interface of their name.
    Named,
    /// Those of another interface, which the lines say (`auto eth0=home`, `rename eth0=lan`): a name, or a pattern
    /// that begins with a slash.
    Interface(&'a [u8]),
    /// Those of a Wi-Fi in this file.
    Wifi(&'a str, &'a Ssid),
}

/// Calls `visit` with each interface that is brought up with the settings of this name, or renamed to it.
fn for_each_bearer(main: &[u8], name: &[u8], visit: &mut dyn FnMut(&[u8])) {
    let mut seen: heapless::Vec<&[u8], 8> = heapless::Vec::new();
    for (bearer, _) in pairs(main).filter(|(bearer, logical)| *logical == name && *bearer != name) {
        if !seen.contains(&bearer) && seen.push(bearer).is_ok() {
            visit(bearer);
        }
    }
}

/// Both sides of each `INTERFACE=NAME` of the lines that bring up or rename.
fn pairs(main: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let all = lines(main).flat_map(|line| {
        let mut words = words(line);
        let is_one = words.next().is_some_and(|first| brings_up(first) || first == b"rename");
        words.filter(move |_| is_one)
    });
    all.filter_map(|word| super::words::assignment(word))
}

fn brings_up(keyword: &[u8]) -> bool {
    keyword == b"auto" || keyword.starts_with(b"allow-")
}

/// Whether the interface of this name is brought up with settings of another name only.
fn is_with_another(main: &[u8], name: &[u8]) -> bool {
    pairs(main).any(|(bearer, logical)| bearer == name && logical != name) && !is_auto(main, name)
}

/// Whether a line brings up the interface of this name.
fn is_auto(main: &[u8], name: &[u8]) -> bool {
    lines(main).any(|line| {
        let mut words = words(line);
        words.next().is_some_and(brings_up) && words.any(|word| word == name)
    })
}

/// Calls `visit` with each Wi-Fi that has the settings of this name where interfaces roam, and the path of its file:
/// the one that its `id_str` names, or those called `default` (wpa_action(8) of Debian).
fn for_each_place(bytes: &[u8], main: &[u8], name: &[u8], visit: &mut dyn FnMut(&str, &Ssid)) {
    let roams = |path: &str| {
        lines(main).any(|line| {
            let mut words = words(line);
            let is_roaming = words.next().and_then(key) == Some(Key::WpaRoam);
            is_roaming && unquoted(words.rest()) == path.as_bytes()
        })
    };
    for (path, file) in files(bytes, FOREIGN).filter(|(path, _)| roams(path)) {
        for_each_network(file, &mut |id, ssid| {
            if name == if id.is_empty() { b"default" } else { id } {
                visit(path, ssid);
            }
        });
    }
}

/// Calls `visit` with the `id_str` and the name of each Wi-Fi in a file of wpa_supplicant.
fn for_each_network(file: &[u8], visit: &mut dyn FnMut(&[u8], &Ssid)) {
    let (mut begin, mut at) = (None, 0);
    let mut id: &[u8] = b"";
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        let before = at;
        at += line.len();
        let line = line.trim_ascii();
        if line.starts_with(b"network={") {
            (begin, id) = (Some(before), b"");
        } else if let Some(value) = line.strip_prefix(b"id_str=") {
            id = unquoted(value);
        } else if line.starts_with(b"}") {
            let block = begin.take().and_then(|begin| file.get(begin..at));
            supplicant::parse(block.unwrap_or_default(), &mut |finding| {
                if let Finding::Wifi(wifi) = finding {
                    visit(id, &wifi.ssid);
                }
            });
        }
    }
}

/// The lines of the stanzas of the loop that are for all: name servers and search domains.
fn lo_lines(main: &[u8]) -> impl Iterator<Item = (Key, Words<'_>)> {
    let mut is_lo = false;
    lines(main).filter_map(move |line| {
        let mut words = words(line);
        match key(words.next().unwrap_or_default())? {
            Key::Iface => is_lo = words.next() == Some(b"lo"),
            Key::Other => is_lo = false,
            key @ (Key::Dns | Key::Search) if is_lo => return Some((key, words)),
            _ => {}
        }
        None
    })
}

/// All stanzas of this name; true when there is a network with them.
fn interface(bytes: &[u8], main: &[u8], name: &[u8], bearer: Bearer, found: &mut Findings) -> bool {
    let mut draft = draft(name, bearer);
    let mut stanza: Option<Stanza> = None;
    for line in lines(main) {
        let mut words = words(line);
        let key = key(words.next().unwrap_or_default());
        if let Some(Key::Iface | Key::Other) = key {
            close(stanza.take(), bytes, &mut draft, found);
        }
        match (key, &mut stanza) {
            (Some(Key::Iface), _) if physical(words.next().unwrap_or_default()) == name => {
                stanza = Some(open(&mut words, &mut draft));
            }
            (Some(Key::Map), _) if words.by_ref().last() == Some(name) => draft.set_nameless(),
            (Some(key), Some(stanza)) => {
                wifi_option(key, &words, stanza);
                option(key, &mut words, stanza, &mut draft);
            }
            _ => {}
        }
    }
    close(stanza.take(), bytes, &mut draft, found);
    if matches!(bearer, Bearer::Named) && !draft.is_lost() {
        if may_be_a_place(main, name) {
            draft.set_nameless();
            draft.set_wpa_file("");
        } else if may_be_mapped(main, name) {
            draft.set_nameless();
        }
    }
    let has_network = draft.has_network();
    for (key, mut words) in lo_lines(main).filter(|_| has_network) {
        all_words(key, &mut words, &mut draft);
    }
    draft.finish(found);
    has_network
}

/// The settings of this name before anything is read.
fn draft(name: &[u8], bearer: Bearer) -> Draft {
    let mut draft = match bearer {
        Bearer::Named | Bearer::Wifi(..) => Draft::new(name),
        Bearer::Interface(bearer) => Draft::new(bearer),
    };
    match bearer {
        Bearer::Wifi(path, ssid) => {
            draft.set_nameless();
            draft.set_ssid(ssid.clone());
            draft.set_wpa_file(path);
            draft.is_whole = true;
        }
        Bearer::Interface(pattern) if pattern.starts_with(b"/") => {
            let mac = pattern.strip_prefix(b"/mac/").unwrap_or_default();
            draft.set_nameless();
            draft.set_mac(text(mac));
        }
        Bearer::Interface(bearer) => {
            made_by_software(text(bearer)).iter().for_each(|why| draft.lose(why))
        }
        Bearer::Named => made_by_software(text(name)).iter().for_each(|why| draft.lose(why)),
    }
    draft
}

/// Whether these may be the settings for a Wi-Fi and not for an interface: with `wpa-roam`, they go by the `id_str` of
/// the Wi-Fi (README.Debian of wpasupplicant). Names of most interfaces have a number, and what is to come up by itself
/// is an interface.
fn may_be_a_place(main: &[u8], name: &[u8]) -> bool {
    let roams = |line| words(line).next().and_then(key) == Some(Key::WpaRoam);
    let has_number = name.iter().any(u8::is_ascii_digit);
    !has_number && lines(main).any(roams) && !is_auto(main, name)
}

/// Whether these may be settings that a script chooses: it says their name, which then is none of an interface.
fn may_be_mapped(main: &[u8], name: &[u8]) -> bool {
    let mut mapped = lines(main).filter_map(|line| line.strip_prefix(b"mapping")).peekable();
    let is_it = |patterns: &[u8]| words(patterns).any(|pattern| is_like(pattern, name));
    mapped.peek().is_some() && !is_auto(main, name) && !mapped.any(is_it)
}

/// Whether the Wi-Fis of this file are read anyway.
fn is_usual_wpa_file(path: &[u8]) -> bool {
    let folders: [&[u8]; 2] = [b"/etc/wpa_supplicant/wpa_supplicant", b"/etc/wpa_supplicant"];
    let is_there = |name: &[u8]| name.ends_with(b".conf") && !name.contains(&b'/');
    folders.iter().any(|folder| path.strip_prefix(*folder).is_some_and(is_there))
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
        ("inet" | "inet6", "manual" | "loopback") => {}
        // Neither ifupdown2 nor ifupdown-ng needs a method.
        ("inherits" | "", _) => {
            return Stanza { is_static: true, is_open: true, ..Stanza::default() };
        }
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
    let families = if stanza.is_v6 { IPV6 } else { IPV4 };
    match key {
        // Without a method that uses them, these are only variables for scripts.
        Key::Address if stanza.is_static => {
            // ifupdown2 takes several.
            add_address(stanza, draft);
            stanza.address = words.text();
        }
        Key::Netmask if stanza.is_static => stanza.netmask = Some(words.text()),
        Key::Gateway if stanza.is_static => {
            add_gateway(stanza, draft);
            stanza.gateway = words.text();
        }
        Key::Dns | Key::Search => all_words(key, words, draft),
        Key::Mtu => draft.set_mtu(words.text()),
        Key::Mac => draft.doubt(why::NEW_MAC),
        Key::Metric if stanza.is_static => stanza.metric = words.text(),
        Key::Metric => draft.set_metric(families, words.text()),
        Key::Peer if stanza.is_static => stanza.peer = words.text(),
        Key::AcceptRa if stanza.is_v6 => {
            draft.ignores_routers = words.text() == "0";
            draft.is_link_local6 = draft.ignores_routers;
        }
        Key::Use if words.text() == "dhcp" => draft.automatic4 = true,
        Key::Identity => draft.doubt(why::IDENTITY),
        Key::Command => {
            // The first address is what the device sends from: its own comes before those of commands.
            if stanza.netmask.is_some() || stanza.address.contains('/') {
                add_address(stanza, draft);
            }
            command(words.rest(), stanza, draft);
        }
        Key::BridgePorts if words.text() == "none" => draft.leave_out(EMPTY_BRIDGE),
        Key::BridgePorts => draft.lose(names::BRIDGE),
        Key::Bond => draft.lose(names::BOND),
        Key::Vlan => draft.lose(names::VLAN),
        _ => {}
    }
}

/// Name servers or search domains.
fn all_words(key: Key, words: &mut Words, draft: &mut Draft) {
    match key {
        Key::Dns => words.for_each(|word| draft.add_dns(text(word))),
        _ => words.for_each(|word| draft.add_search(text(word))),
    }
}

/// A command that is run when it comes up.
fn command(line: &[u8], stanza: &Stanza, draft: &mut Draft) {
    let own = stanza.address.split('/').next().unwrap_or_default();
    commands::run(line, own, draft, &mut |outcome, draft| match outcome {
        Outcome::Done => {}
        Outcome::Unknown => draft.doubt(why::COMMANDS),
        Outcome::LostDefault(families) => {
            draft.doubt(why::COMMANDS);
            draft.miss_route(families);
        }
    });
}

/// One line of a stanza that is about a Wi-Fi.
fn wifi_option<'a>(key: Key, words: &Words<'a>, stanza: &mut Stanza<'a>) {
    let value = unquoted(words.rest());
    match key {
        Key::WpaFile | Key::WpaRoam => stanza.wpa_file = Some(value),
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
fn close(stanza: Option<Stanza>, bytes: &[u8], draft: &mut Draft, found: &mut Findings) {
    let Some(stanza) = stanza else { return };
    match (stanza.wpa_file, stanza.is_for_cable) {
        (Some(path), false) => {
            draft.set_wpa_file(text(path));
            if !is_usual_wpa_file(path) && !has_file(bytes, text(path)) {
                // The Wi-Fis that are read are not those of this interface.
                draft.has_wifis_apart = false;
                found(Finding::Doubtful(printable(path), WPA_FILE));
            }
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
    if stanza.address.is_empty() && !stanza.is_open {
        return draft.lose(why::NO_ADDRESS);
    }
    add_address(&stanza, draft);
    add_gateway(&stanza, draft);
}

/// The address of a stanza, if there is one. What is assumed when there is no netmask differs between versions of
/// ifupdown; that a netmask holds in place of the prefix its own tests say.
fn add_address(stanza: &Stanza, draft: &mut Draft) {
    let bare = stanza.address.split('/').next().unwrap_or_default();
    match (stanza.netmask, stanza.peer) {
        _ if bare.is_empty() => {}
        // The prefix is that of the peer then.
        (_, peer) if !peer.is_empty() => {
            draft.add_address(bare, Some(if peer.contains(':') { "128" } else { "32" }));
            if peer != stanza.gateway {
                draft.add_route(peer, "", None);
            }
        }
        (Some(_), _) => draft.add_address(bare, stanza.netmask),
        (None, _) => draft.add_address(stanza.address, None),
    }
}

/// The router of a stanza, if there is one.
fn add_gateway(stanza: &Stanza, draft: &mut Draft) {
    if !stanza.gateway.is_empty() {
        draft.add_gateway(stanza.gateway, stanza.metric.parse().ok());
    }
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
            (
                "source /etc/network/interfaces.d/*",
                "/etc/network/interfaces.d",
                "eth0 eth0.cfg eth0~",
            ),
            ("source interfaces.d/*.cfg", "/etc/network/interfaces.d", "eth0.cfg"),
            ("  source ./interfaces.d/eth?.*", "/etc/network/interfaces.d", "eth0.cfg"),
            ("source /srv/x/eth0", "/srv/x", "eth0"),
            ("source eth0", "/etc/network/", "eth0"),
            (
                "source /etc/network/interfaces.d/*0*",
                "/etc/network/interfaces.d",
                "eth0 eth0.cfg eth0~",
            ),
            ("source interfaces.d/eth[0]", "/etc/network/interfaces.d", "eth0"),
            ("source interfaces.d/*1", "/etc/network/interfaces.d", ""),
            ("source interfaces.d/???", "/etc/network/interfaces.d", ""),
            ("source-directory /etc/network/interfaces.d", "/etc/network/interfaces.d", "eth0"),
            ("source-directory interfaces.d/", "/etc/network/interfaces.d", "eth0"),
            ("source-dir /srv/net.d", "/srv/net.d", "eth0"),
        ];
        for (main, folder, wanted) in cases {
            let source = super::source(main.as_bytes(), 0).expect(main);
            assert_eq!(format!("{}{}", source.above, source.folder), folder, "{main}");
            let read = ["eth0", "eth0.cfg", "eth0~"].into_iter().filter(|name| source.has(name));
            assert_eq!(read.collect::<Vec<_>>().join(" "), wanted, "{main}");
            assert_eq!(super::source(main.as_bytes(), 1), None);
        }
        for main in [
            "source interfaces.d/",
            "source-directory interfaces.d/*",
            "source interfaces.*/eth0",
            "source interfaces.d/$x",
            "source ~/x",
            "# source interfaces.d/*",
            "iface interfaces.d/eth0 inet dhcp",
            "",
        ] {
            assert_eq!(super::source(main.as_bytes(), 0), None, "{main}");
        }
        let two = super::source(b"source /a/b /c/d\nsource $x\nsource /e/f", 2);
        assert_eq!(two.map(|source| source.folder), Some("/e"));
    }

    #[test]
    fn the_wifis_of_a_roaming_interface_have_the_settings_of_their_places() {
        let main = "iface wlan0 inet manual\nwpa-roam /srv/roam\niface home2 inet static\naddress 10.0.0.2/8\n\
            iface default inet dhcp\nmtu 1400\niface eth0 inet dhcp\n";
        let roam = "network={\n\tssid=\"Casa }\"\n id_str=\"home2\"\n\tpsk=\"12345678\"\n}\n\
            network={\nssid=\"Bar\"\nkey_mgmt=NONE\n}\nnetwork={\nssid=\"Lost\"\nid_str=\"home2\"\n}\n";
        assert_eq!(super::wpa_file(main.as_bytes(), 0), Some("/srv/roam"));
        assert_eq!(super::wpa_file(main.as_bytes(), 1), None);
        let bytes = format!("{main}\n\x01/srv/roam\n{roam}");
        let mut all = Vec::new();
        super::parse(bytes.as_bytes(), &mut |finding| match finding {
            Finding::Wireless(apart) => {
                assert!(apart.is_whole && &*apart.wpa_file == "/srv/roam");
                let name = String::from_utf8(apart.ssid.to_vec()).unwrap();
                all.push((name, apart.settings.addresses.is_fixed(), apart.settings.addresses.mtu));
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(all, [("Casa }".to_string(), true, 0), ("Bar".to_string(), false, 1400)]);
        assert_eq!(super::wpa_files(bytes.as_bytes()).count(), 1);
        let usual = bytes.replace("/srv/roam", "/etc/wpa_supplicant/wpa_supplicant.conf");
        assert_eq!(super::wpa_files(usual.as_bytes()).count(), 0);
        assert!(super::wpa_file(usual.as_bytes(), 0).is_some());
    }

    #[test]
    fn hostile_files_do_no_harm() {
        fixtures::torture("ifupdown", super::parse);
    }
}
