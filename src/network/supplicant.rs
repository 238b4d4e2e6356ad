//! wpa_supplicant.conf, read the way wpa_supplicant reads it (wpa_supplicant.conf(5); config_file.c and config.c of
//! hostap).
//!
//! Opens no file. A network is carried over with its protection or given up by name: where `key_mgmt` is missing, its
//! default is WPA-PSK WPA-EAP, so a network without a key is never taken for an open one.

use super::wifi::{self, Login, Value};
use super::{Finding, Findings, Security, Wifi};
use crate::text::Text;
use core::iter::FilterMap;
use core::slice::Split;

const WEP_KEYS: [&str; 4] = ["wep_key0", "wep_key1", "wep_key2", "wep_key3"];
const CERTIFICATES: [&str; 13] = [
    "ca_cert",
    "ca_path",
    "client_cert",
    "private_key",
    "ca_cert2",
    "ca_path2",
    "client_cert2",
    "private_key2",
    "pac_file",
    "engine_id",
    "machine_private_key",
    "machine_client_cert",
    "machine_ca_cert",
];
/// Which access points it may be joined by, beside `bssid`; the second two are the earlier names of the first.
const ACCESS_POINTS: [&str; 4] =
    ["bssid_accept", "bssid_ignore", "bssid_whitelist", "bssid_blacklist"];
const ANY_NAME: &str = "it is for any Wi-Fi that fits; the new OS joins only those that are named";
const SERVER_NAMES: [&str; 5] = [
    "subject_match",
    "altsubject_match",
    "domain_suffix_match",
    "domain_match",
    "check_cert_subject",
];

const NONE: u8 = 1;
const PSK: u8 = 2;
const SAE: u8 = 4;
const EAP: u8 = 8;
const OWE: u8 = 16;
/// 802.1X on a cable, or with WEP.
const CABLE: u8 = 32;
/// What `key_mgmt` may name. The fast transition and SHA-256 forms are what NetworkManager asks for by itself.
const MANAGEMENTS: [(&str, u8); 16] = [
    ("NONE", NONE),
    ("WPA-PSK", PSK),
    ("WPA-PSK-SHA256", PSK),
    ("FT-PSK", PSK),
    ("SAE", SAE),
    ("SAE-EXT-KEY", SAE),
    ("FT-SAE", SAE),
    ("FT-SAE-EXT-KEY", SAE),
    ("WPA-EAP", EAP),
    ("WPA-EAP-SHA256", EAP),
    ("WPA-EAP-SHA384", EAP),
    ("FT-EAP", EAP),
    ("FT-EAP-SHA384", EAP),
    ("OWE", OWE),
    ("IEEE8021X", CABLE),
    // Only says that the button may be used; the key comes from elsewhere.
    ("WPS", 0),
];

/// Lines that are still to come; a copy costs nothing.
type Lines<'a> = FilterMap<Split<'a, u8, fn(&u8) -> bool>, fn(&'a [u8]) -> Option<&'a [u8]>>;

/// A network block: the lines behind its first one.
struct Block<'a> {
    lines: Lines<'a>,
}

/// Reads a configuration file.
pub fn parse(bytes: &[u8], found: &mut Findings) {
    let is_end: fn(&u8) -> bool = |byte| *byte == b'\n';
    let mut lines: Lines = bytes.split(is_end).filter_map(content);
    while let Some(line) = lines.next() {
        let block = Block { lines: lines.clone() };
        let mut is_closed = || lines.any(|line| line == b"}");
        match line {
            b"network={" if is_closed() => finish(&block, found),
            b"network={" => {
                let why = "its block is not closed, and wpa_supplicant refuses the file";
                found(Finding::LostWifi(block.name(), why));
            }
            b"cred={" => {
                let why = "logins of Hotspot 2.0 are not carried over";
                found(Finding::Doubtful(Text::from("a cred block"), why));
                is_closed();
            }
            _ if line.starts_with(b"blob-base64-") && line.ends_with(b"{") => {
                is_closed();
            }
            // A global setting: of this radio and this program, not of a network.
            _ => {}
        }
    }
}

/// Calls `visit` with the path of each configuration file that a command names which starts wpa_supplicant; the command
/// is a line of a script or a unit, or its arguments with NULs between them (wpa_supplicant(8): -c, -I).
pub fn named_files<'a>(command: &'a [u8], visit: &mut dyn FnMut(&'a str)) {
    // Those that stand for themselves; all others take a value.
    const FLAGS: &[u8] = b"BdhKLMNqstuvTW";
    if !command.windows(14).any(|part| part == b"wpa_supplicant") {
        return;
    }
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\0\"'".contains(byte);
    let mut words = command.split(is_end).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let Some((_, options)) = word.split_first().filter(|(first, _)| **first == b'-') else {
            continue;
        };
        let flags = options.iter().take_while(|byte| FLAGS.contains(byte)).count();
        let value = options.get(flags + 1..).filter(|value| !value.is_empty());
        if let Some(b'c' | b'I') = options.get(flags)
            && let Some(path) = value.or_else(|| words.next())
            // Those of a template are among the usual ones.
            && !path.iter().any(|byte| b"%$`".contains(byte))
            && path.starts_with(b"/")
        {
            visit(core::str::from_utf8(path).unwrap_or_default());
        }
    }
}

/// A line without its comment and the blanks around it, or nothing when nothing is left. A `#` is a comment outside of
/// quotation marks, and behind the last of several: a name may have one in it. So wpa_supplicant 2.10 reads them;
/// before that, only what is behind the last one was a comment.
fn content(line: &[u8]) -> Option<&[u8]> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let line = line.get(start..)?;
    if line.first() == Some(&b'#') {
        return None;
    }
    let first = line.iter().position(|byte| *byte == b'"');
    let last = line.iter().rposition(|byte| *byte == b'"');
    let from = if first == last { 0 } else { last.unwrap_or(0) };
    let mut is_quoted = false;
    let comment = line.iter().enumerate().position(|(at, byte)| {
        is_quoted ^= *byte == b'"';
        *byte == b'#' && (!is_quoted || at > from)
    });
    let line = line.get(..comment.unwrap_or(line.len()))?;
    let end = line.iter().rposition(|byte| !is_blank(byte))?;
    line.get(..=end)
}

impl<'a> Block<'a> {
    /// The last value of a field, as it is written; `NULL` unsets it.
    fn raw(&self, field: &str) -> Option<&'a [u8]> {
        let value = |line: &'a [u8]| line.strip_prefix(field.as_bytes())?.strip_prefix(b"=");
        let lines = self.lines.clone().take_while(|line| *line != b"}");
        lines.filter_map(value).last().filter(|value| *value != b"NULL")
    }

    fn has_any(&self, fields: &[&str]) -> bool {
        let is_set = |value: &[u8]| !value.is_empty() && value != b"\"\"";
        fields.iter().any(|field| self.raw(field).is_some_and(is_set))
    }

    fn string(&self, field: &str) -> Option<Value> {
        string(self.raw(field)?)
    }

    /// The text of a field, empty when it is not set; nothing when it is set to what is no text.
    fn text(&self, field: &str) -> Option<Text<128>> {
        match self.raw(field) {
            Some(raw) => wifi::text_of(&string(raw)?),
            None => Some(Text::new()),
        }
    }

    fn number(&self, field: &str) -> i32 {
        let text = self.raw(field).and_then(|value| core::str::from_utf8(value).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn name(&self) -> Text<64> {
        wifi::shown(&self.string("ssid").unwrap_or_default())
    }

    /// The kinds of key management that are allowed.
    fn management(&self) -> u8 {
        let Some(list) = self.raw("key_mgmt") else {
            return PSK | EAP;
        };
        let kind = |name: &[u8]| {
            let known = MANAGEMENTS.iter().find(|(known, _)| known.as_bytes() == name);
            known.map_or(0, |(_, kind)| *kind)
        };
        list.split(|byte| matches!(byte, b' ' | b'\t')).fold(0, |all, name| all | kind(name))
    }

    fn has_login(&self) -> bool {
        self.has_any(&["eap", "identity", "password", "private_key", "client_cert"])
    }

    /// How the network is protected, or why that cannot be carried over.
    fn security(&self) -> Result<Security, &'static str> {
        let management = self.management();
        let allows = |kind| management & kind != 0;
        let psk = self.raw("psk");
        if self.has_any(&WEP_KEYS) && !allows(SAE | OWE) && psk.is_none() && !self.has_login() {
            return Err(wifi::WEP);
        }
        // NetworkManager's wpa-psk offers WPA3 with the same passphrase as well.
        if let Some(psk) = psk.filter(|_| allows(PSK)) {
            return pre_shared(psk).map(Security::Psk);
        }
        if allows(SAE) && (psk.is_some() || self.raw("sae_password").is_some()) {
            return self.sae();
        }
        if allows(EAP) && self.has_login() {
            return self.login();
        }
        match management {
            _ if allows(NONE) => Ok(Security::Open),
            _ if allows(OWE) => Ok(Security::Owe),
            _ if allows(PSK | SAE | EAP) => Err(wifi::NO_KEY),
            _ => Err("its key management is not one that the new OS has"),
        }
    }

    fn sae(&self) -> Result<Security, &'static str> {
        if self.has_any(&["sae_password_id"]) {
            return Err(wifi::PASSWORD_ID);
        }
        let raw_key = "WPA3 needs its password, and only a key made from it is in the settings";
        let password = match (self.raw("sae_password"), self.raw("psk")) {
            (Some(password), _) => string(password),
            (None, Some(psk)) if psk.starts_with(b"ext:") => return Err(wifi::ELSEWHERE),
            (None, Some(psk)) if !psk.starts_with(b"\"") => return Err(raw_key),
            (None, psk) => psk.and_then(string),
        };
        let password = password.and_then(|password| wifi::text_of(&password));
        let password = password.filter(|password| !password.is_empty());
        password.map(Security::Sae).ok_or("its password is not a text of 1 to 128 bytes")
    }

    fn login(&self) -> Result<Security, &'static str> {
        if self.has_any(&CERTIFICATES) {
            return Err(wifi::CERTIFICATES);
        }
        let password = match self.raw("password") {
            Some(raw) if raw.starts_with(b"hash:") => return Err(wifi::HASHED),
            Some(raw) if raw.starts_with(b"ext:") => return Err(wifi::ELSEWHERE),
            Some(_) => Some(self.text("password").ok_or("its password is not a text")?),
            None => None,
        };
        let not_text = "its user name is not a text";
        let methods = core::str::from_utf8(self.raw("eap").unwrap_or_default()).unwrap_or_default();
        let login = Login {
            methods: Text::from(methods),
            identity: self.text("identity").ok_or(not_text)?,
            anonymous_identity: self.text("anonymous_identity").ok_or(not_text)?,
            password,
            phase2: phase2(&self.text("phase2").ok_or("its phase2 options are not a text")?),
        };
        login.check()
    }
}

/// A key as `psk` has it: a passphrase in quotation marks, or 64 digits.
fn pre_shared(raw: &[u8]) -> Result<Text<64>, &'static str> {
    if raw.starts_with(b"ext:") {
        return Err(wifi::ELSEWHERE);
    }
    let quoted = raw.strip_prefix(b"\"");
    let bare = match quoted {
        // What stands behind the last quotation mark is ignored.
        Some(rest) => rest.rsplitn(2, |byte| *byte == b'"').last().unwrap_or_default(),
        None => raw,
    };
    let key = core::str::from_utf8(bare).map_err(|_| wifi::BAD_KEY)?;
    // 64 characters in quotation marks are no key, 63 without them no passphrase.
    if (key.len() == 64) == quoted.is_none() { wifi::key(key) } else { Err(wifi::BAD_KEY) }
}

/// The first method that `phase2="auth=… "` or `autheap=…` names.
fn phase2(options: &str) -> Text<32> {
    for option in options.split_ascii_whitespace() {
        match option.split_once('=') {
            Some(("auth", method)) => return Text::from(method),
            Some(("autheap", method)) => return crate::text!("eap-{}", method),
            _ => {}
        }
    }
    Text::new()
}

/// A string as wpa_supplicant writes them: `"text"`, `P"text with escapes"` or hexadecimal digits.
fn string(raw: &[u8]) -> Option<Value> {
    if let Some(rest) = raw.strip_prefix(b"\"") {
        return Value::from_slice(rest.strip_suffix(b"\"")?).ok();
    }
    match raw.strip_prefix(b"P\"") {
        Some(rest) => unescaped(rest.strip_suffix(b"\"")?),
        None => wifi::hex(raw),
    }
}

/// Decodes the escapes of `P"…"` (printf_decode of hostap): a backslash before anything unknown is left out.
fn unescaped(mut text: &[u8]) -> Option<Value> {
    let mut value = Value::new();
    while let Some((byte, rest)) = text.split_first() {
        text = rest;
        if *byte != b'\\' {
            value.push(*byte).ok()?;
            continue;
        }
        let Some((escape, rest)) = text.split_first() else {
            break;
        };
        let (base, most, digits) = match escape {
            b'x' => (16, 2, rest),
            b'0'..=b'7' => (8, 3, text),
            _ => {
                let simple = b"n\nr\rt\te\x1b".as_chunks::<2>().0;
                let meant = simple.iter().find(|[name, _]| name == escape);
                value.push(meant.map_or(*escape, |[_, meant]| *meant)).ok()?;
                text = rest;
                continue;
            }
        };
        let (number, length) = leading_number(digits, base, most);
        text = digits.get(length..).unwrap_or_default();
        if length > 0 {
            value.push(number).ok()?;
        }
    }
    Some(value)
}

/// The number at the start of a text, of at most `most` digits, and how many there are. Too large ones lose their
/// high bits, as they do in C.
fn leading_number(text: &[u8], base: u8, most: usize) -> (u8, usize) {
    let (mut number, mut length) = (0u8, 0);
    for byte in text.iter().take(most) {
        let Some(digit) = wifi::digit(*byte).filter(|digit| *digit < base) else {
            break;
        };
        number = number.wrapping_mul(base).wrapping_add(digit);
        length += 1;
    }
    (number, length)
}

/// Says what became of a block.
fn finish(block: &Block, found: &mut Findings) {
    let name = block.name();
    let is_nameless = !block.has_any(&["ssid"]);
    if is_nameless && (block.management() & CABLE != 0 || block.has_login()) {
        return found(Finding::Lost(Text::from("802.1X on a cable"), wifi::CABLE_LOGIN));
    }
    let Some(ssid) = block.string("ssid").and_then(|name| wifi::ssid(&name)) else {
        let why = if is_nameless { ANY_NAME } else { "it has no valid name: 1 to 32 bytes" };
        return found(Finding::Doubtful(name, why));
    };
    let mode = block.number("mode");
    if matches!(mode, 2..=4) || block.number("disabled") == 2 {
        let why = "it is an access point or a Wi-Fi Direct group of this device, not a way online";
        return found(Finding::Doubtful(name, why));
    }
    if mode != 0 {
        let why = "ad-hoc and mesh networks are not carried over";
        return found(Finding::LostWifi(name, why));
    }
    let security = match block.security() {
        Ok(security) => security,
        Err(why) => return found(Finding::LostWifi(name, why)),
    };
    let doubts = doubts(block, &security);
    let mut wifi = Wifi::new(ssid, security);
    wifi.hidden = block.number("scan_ssid") == 1;
    wifi.priority = block.number("priority");
    wifi.autoconnect = block.number("disabled") == 0;
    found(Finding::Wifi(wifi));
    for why in doubts {
        found(Finding::Doubtful(name.clone(), why));
    }
}

/// What does not survive of a network that does.
fn doubts(block: &Block, security: &Security) -> impl Iterator<Item = &'static str> + use<> {
    let is_login = matches!(security, Security::Enterprise(_));
    let bssid = block.raw("bssid").unwrap_or_default();
    let is_pinned = !matches!(bssid, b"" | b"\"\"" | b"any");
    let two_passwords = matches!(security, Security::Psk(_))
        && block.management() & SAE != 0
        && block.raw("sae_password").is_some();
    [
        (
            is_pinned || block.has_any(&ACCESS_POINTS),
            "it is no longer bound to one access point (bssid)",
        ),
        (is_login && block.has_any(&SERVER_NAMES), wifi::SERVER_NAME),
        (is_login && block.has_any(&["phase1"]), "its phase1 options are not carried over"),
        (two_passwords, "its WPA3 password is not carried over beside its WPA2 passphrase"),
        (block.has_any(&["scan_freq", "freq_list"]), "it is no longer bound to some frequencies"),
        (block.has_any(&["mac_addr"]), wifi::NEW_MAC),
    ]
    .into_iter()
    .filter_map(|(applies, why)| applies.then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Finding> {
        let mut all = Vec::new();
        parse(text, &mut |finding| all.push(finding));
        all
    }

    /// The one finding of a block with these lines and the name `n`.
    fn one(lines: &str) -> Finding {
        let mut all = all(format!("network={{\nssid=\"n\"\n{lines}\n}}\n").as_bytes());
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn security(lines: &str) -> Security {
        match one(lines) {
            Finding::Wifi(wifi) => wifi.security,
            other => panic!("{other:?}"),
        }
    }

    fn lost(lines: &str) -> &'static str {
        match one(lines) {
            Finding::LostWifi(name, why) if &*name == "n" => why,
            other => panic!("{other:?}"),
        }
    }

    fn ssid(value: &[u8]) -> Option<Vec<u8>> {
        let text = [b"network={\nkey_mgmt=NONE\nssid=", value, b"\n}"].concat();
        match all(&text).remove(0) {
            Finding::Wifi(wifi) => Some(wifi.ssid.to_vec()),
            _ => None,
        }
    }

    #[test]
    fn names_in_all_their_forms() {
        assert_eq!(ssid(b"\"a b\"").unwrap(), b"a b");
        assert_eq!(ssid(b"\"a\"b\"").unwrap(), b"a\"b");
        assert_eq!(ssid(b"\"#1 # 2\" # three").unwrap(), b"#1 # 2");
        assert_eq!(ssid(b"616263").unwrap(), b"abc");
        assert_eq!(ssid(b"\"\xe9\"").unwrap(), b"\xe9");
        assert_eq!(
            ssid(b"P\"\\\"\\\\\\n\\r\\t\\e\\x41\\x4z\\101\\q\"").unwrap(),
            b"\"\\\n\r\t\x1bA\x04zAq"
        );
        assert_eq!(ssid(b"P\"a\\xzz\"").unwrap(), b"azz");
        assert_eq!(ssid(&[b"\"".as_slice(), &[b'x'; 32], b"\""].concat()).unwrap(), [b'x'; 32]);
        for bad in [&b"\"\""[..], b"abc", b"a", b"\"a", b"\"a\"b", b"P\"a", b"NULL", b"", b"zz"] {
            assert_eq!(ssid(bad), None, "{bad:?}");
        }
        assert_eq!(ssid(&[b"\"".as_slice(), &[b'x'; 33], b"\""].concat()), None);
    }

    #[test]
    fn nothing_becomes_an_open_network_unasked() {
        assert_eq!(security("key_mgmt=NONE"), Security::Open);
        assert_eq!(lost(""), wifi::NO_KEY);
        assert_eq!(lost("key_mgmt=WPA-PSK"), wifi::NO_KEY);
        assert_eq!(lost("key_mgmt=SAE"), wifi::NO_KEY);
        assert_eq!(lost("key_mgmt=WPA-EAP"), wifi::NO_KEY);
        assert_eq!(lost("key_mgmt=NONE\nwep_key0=\"abcde\""), wifi::WEP);
        assert_eq!(lost("wep_key3=0102030405"), wifi::WEP);
        for odd in ["IEEE8021X", "WPA-NONE", "DPP", "WPS", "\"NONE\"", "none", "OSEN"] {
            lost(&format!("key_mgmt={odd}"));
        }
        assert_eq!(security("key_mgmt=OWE"), Security::Owe);
    }

    #[test]
    fn keys_of_wpa() {
        let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
        assert_eq!(security("psk=\"12345678\""), Security::Psk(Text::from("12345678")));
        assert_eq!(security("psk=\"1234\"678\" x"), Security::Psk(Text::from("1234\"678")));
        assert_eq!(security(&format!("psk={digits}")), Security::Psk(Text::from(digits.as_str())));
        assert_eq!(lost(&format!("psk=\"{digits}\"")), wifi::BAD_KEY);
        assert_eq!(lost("psk=\"1234567\""), wifi::BAD_KEY);
        assert_eq!(lost("psk=12345678"), wifi::BAD_KEY);
        assert_eq!(lost("psk=ext:home"), wifi::ELSEWHERE);
        assert!(lost(&format!("key_mgmt=SAE\npsk={digits}")).contains("WPA3"));
        assert_eq!(lost("key_mgmt=SAE\npsk=ext:home"), wifi::ELSEWHERE);
        assert_eq!(security("key_mgmt=SAE\nsae_password=\"1\""), Security::Sae(Text::from("1")));
        let mixed = "key_mgmt=WPA-PSK FT-SAE\tSAE\npsk=\"12345678\"";
        assert_eq!(security(mixed), Security::Psk(Text::from("12345678")));
    }

    #[test]
    fn logins_that_cannot_be_carried_over_are_lost() {
        let login = "key_mgmt=WPA-EAP\neap=PEAP\nidentity=\"i\"\n";
        for (line, why) in [
            ("password=hash:0123456789abcdef0123456789abcdef", wifi::HASHED),
            ("password=ext:x", wifi::ELSEWHERE),
            ("password=\"p\"\nca_cert=\"/etc/ca.pem\"", wifi::CERTIFICATES),
            ("password=\"p\"\nprivate_key=\"blob://k\"", wifi::CERTIFICATES),
        ] {
            assert_eq!(lost(&format!("{login}{line}")), why);
        }
        lost(&format!("{login}password=NULL"));
        lost(&format!("{login}password=\"{}\"", "p".repeat(129)));
        lost(&format!("{login}password=\"p\"\nphase2=\"auth=TLS\""));
        lost("key_mgmt=WPA-EAP\neap=TLS SIM\nidentity=\"i\"\npassword=\"p\"");
        lost("key_mgmt=WPA-EAP\neap=PEAP\npassword=\"p\"");
        lost("key_mgmt=WPA-EAP\nidentity=\"i\"\npassword=\"p\"");
    }

    #[test]
    fn what_is_no_network_to_join() {
        for lines in ["mode=2\npsk=\"12345678\"", "disabled=2\npsk=\"12345678\"", "mode=3"] {
            assert!(matches!(one(lines), Finding::Doubtful(..)));
        }
        lost("mode=1\nkey_mgmt=NONE");
        lost("mode=5\nkey_mgmt=SAE\npsk=\"12345678\"");
        assert!(all(b"ssid=\"outside\"\nnetwork = {\n}\n").is_empty());
        for any in ["", "ssid=\"\"\n"] {
            let text = format!("network={{\n{any}key_mgmt=NONE\n}}");
            assert!(matches!(&all(text.as_bytes())[..], [Finding::Doubtful(_, ANY_NAME)]));
        }
        assert_eq!(all(b"cred={\nssid=\"x\"\n}\nblob-base64-a={\nnetwork={\n}\n").len(), 1);
        assert!(matches!(&all(b"network={\nssid=\"n\"")[..], [Finding::LostWifi(..)]));
    }

    #[test]
    fn the_files_that_a_command_names() {
        for (command, wanted) in [
            ("ExecStart=/sbin/wpa_supplicant -B -c/etc/wifi/a.conf -iwlan0", "/etc/wifi/a.conf"),
            ("wpa_supplicant -Bc /etc/a.conf -Dnl80211 -I /etc/b.conf", "/etc/a.conf /etc/b.conf"),
            (
                "/sbin/wpa_supplicant\0-u\0-s\0-O\0/run/wpa_supplicant\0-c\0/etc/a.conf\0",
                "/etc/a.conf",
            ),
            ("wpa_supplicant_args=\"-B -i wlan0 -c/etc/a.conf\"", "/etc/a.conf"),
            ("wpa_supplicant -c/etc/wpa_supplicant/wpa_supplicant-%I.conf -i%I", ""),
            ("wpa_supplicant -u -s -O \"DIR=/run/wpa_supplicant GROUP=netdev\"", ""),
            ("wpa_supplicant -c", ""),
            ("hostapd -c/etc/a.conf", ""),
            ("wpa_supplicant -cshort", ""),
        ] {
            let mut found = Vec::new();
            named_files(command.as_bytes(), &mut |path| found.push(path));
            assert_eq!(found.join(" "), wanted, "{command}");
        }
    }

    #[test]
    fn a_comment_is_what_wpa_supplicant_takes_for_one() {
        // Each value as wpa_supplicant 2.10 prints it with -dd -K.
        for (line, wanted) in [
            ("\"a#b\" #c \"d\"", "a#b"),
            ("\"a\" # the \"new\" one", "a"),
            ("\"a\" # say \"please", "a"),
            ("\"a\"# \"", "a"),
            ("\"a\"b\" # c", "a\"b"),
            ("\"ab # c\" d\" # e", "ab # c\" d"),
            ("\"a\"#b\"c\" # e", "a"),
            ("\"a\"b\"c\" # e \"", "a\"b\"c"),
            ("\"a#\"b\"", "a#\"b"),
            ("\"a\" \"b\"", "a\" \"b"),
            ("6162 # \"x", "ab"),
            ("6162 # x \"y\" z", "ab"),
            ("P\"a\\\"b\" # x", "a\"b"),
        ] {
            assert_eq!(ssid(line.as_bytes()).as_deref(), Some(wanted.as_bytes()), "{line}");
        }
        for line in
            ["\"a\"b # c\" # d", "\"a\"b\" # \"c", "P\"a\\\"b\" # \"c", "\"a # b", "\"a\" b # c"]
        {
            assert_eq!(ssid(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_login_on_a_cable_is_lost_by_name() {
        for management in ["key_mgmt=IEEE8021X", "key_mgmt=WPA-EAP IEEE8021X", "", "ssid=\"\""] {
            let text =
                format!("network={{\n{management}\neap=PEAP\nidentity=\"a\"\npassword=\"p\"\n}}");
            let wanted = Finding::Lost(Text::from("802.1X on a cable"), wifi::CABLE_LOGIN);
            assert_eq!(all(text.as_bytes()), [wanted]);
        }
        // With a name it is a Wi-Fi with keys of WEP.
        lost("key_mgmt=IEEE8021X\neap=PEAP\nidentity=\"a\"\npassword=\"p\"");
    }

    #[test]
    fn what_it_is_bound_to_is_told() {
        for line in [
            "bssid_accept=02:00:00:00:00:01",
            "bssid_blacklist=02:00:00:00:00:01",
            "freq_list=2412",
            "mac_addr=1",
        ] {
            let text = format!("network={{\nssid=\"n\"\nkey_mgmt=NONE\n{line}\n}}");
            let all = all(text.as_bytes());
            assert!(matches!(&all[..], [Finding::Wifi(_), Finding::Doubtful(..)]), "{all:?}");
        }
        assert_eq!(
            lost("key_mgmt=SAE\nsae_password=\"12345678\"\nsae_password_id=\"x\""),
            wifi::PASSWORD_ID
        );
    }

    #[test]
    fn any_part_of_a_file_is_harmless() {
        let file = include_bytes!("../../tests/fixtures/network/supplicant/oddities.conf");
        for end in 0..file.len() {
            all(&file[..end]);
            all(&file[end..]);
        }
        for byte in 0..=255 {
            all(&[b"network={\nssid=P\"\\", &[byte][..], b"\"\npsk=\"\n}"].concat());
        }
    }
}
