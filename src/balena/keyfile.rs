//! Keyfiles for the NetworkManager of the new OS: one for a Wi-Fi, one for an interface with a cable.
//!
//! The form is that of nm-settings-keyfile(5) and of GKeyFile; the groups and keys of a migrated Wi-Fi are those that
//! balena's own tools write. Opens no file. What does not fit is refused: half a keyfile is none.

use crate::network::{Addresses, Enterprise, Family, Method, Route, Security, Wifi, Wired};
use crate::text::Text;

/// The bytes of a keyfile, as far as they fit.
struct Output<'a> {
    bytes: &'a mut [u8],
    length: usize,
    is_whole: bool,
}

impl Output<'_> {
    fn byte(&mut self, byte: u8) {
        match self.bytes.get_mut(self.length) {
            Some(place) => {
                *place = byte;
                self.length += 1;
            }
            None => self.is_whole = false,
        }
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
    }

    /// A group's header, after an empty line unless it is the first.
    fn group(&mut self, name: &str) {
        if self.length > 0 {
            self.byte(b'\n');
        }
        self.byte(b'[');
        self.text(name);
        self.text("]\n");
    }

    fn key(&mut self, key: &str) {
        self.text(key);
        self.byte(b'=');
    }

    fn number(&mut self, number: u32) {
        let digits: Text<10> = crate::text!("{}", number);
        self.text(&digits);
    }

    /// A line whose value needs no escapes.
    fn plain(&mut self, key: &str, value: &str) {
        self.key(key);
        self.text(value);
        self.byte(b'\n');
    }

    /// A line with any text. GKeyFile takes blanks away at the start of a value, and some editors at its end.
    fn value(&mut self, key: &str, value: &str) {
        self.key(key);
        let start = value.len() - value.trim_start_matches(' ').len();
        let end = value.trim_end_matches(' ').len();
        for (at, byte) in value.bytes().enumerate() {
            match byte {
                b' ' if at < start || at >= end => self.text("\\s"),
                b'\t' => self.text("\\t"),
                b'\n' => self.text("\\n"),
                b'\r' => self.text("\\r"),
                b'\\' => self.text("\\\\"),
                _ => self.byte(byte),
            }
        }
        self.byte(b'\n');
    }

    fn length(&self) -> Option<usize> {
        self.is_whole.then_some(self.length)
    }
}

/// Writes the keyfile of a Wi-Fi named `id` into `output` and gives its length; nothing when it does not fit, or when
/// fixed addresses are asked for and none is given.
pub fn wifi(wifi: &Wifi, id: &str, output: &mut [u8]) -> Option<usize> {
    let mut output = Output { bytes: output, length: 0, is_whole: true };
    output.group("connection");
    output.value("id", id);
    output.plain("type", "wifi");
    if !wifi.autoconnect {
        output.plain("autoconnect", "false");
    }
    if wifi.priority != 0 {
        priority(&mut output, wifi.priority);
    }
    output.group("wifi");
    // Always: probing for a Wi-Fi by name finds those as well that announce themselves.
    output.plain("hidden", "true");
    output.plain("mode", "infrastructure");
    mtu(&mut output, wifi.addresses.mtu);
    ssid(&mut output, &wifi.ssid);
    addresses(&mut output, &wifi.addresses)?;
    security(&mut output, &wifi.security);
    output.length()
}

/// Writes the keyfile of an interface with a cable, like [`wifi`].
pub fn wired(wired: &Wired, id: &str, output: &mut [u8]) -> Option<usize> {
    let mut output = Output { bytes: output, length: 0, is_whole: true };
    output.group("connection");
    output.value("id", id);
    output.plain("type", "ethernet");
    if !wired.interface.is_empty() {
        output.value("interface-name", &wired.interface);
    }
    if wired.priority != 0 {
        priority(&mut output, wired.priority);
    }
    output.group("ethernet");
    if !wired.mac.is_empty() {
        output.plain("mac-address", &wired.mac);
    }
    mtu(&mut output, wired.addresses.mtu);
    addresses(&mut output, &wired.addresses)?;
    output.length()
}

/// Which of several is taken: the highest, in the range that NetworkManager takes (nm-settings-nmcli(5)).
fn priority(output: &mut Output, priority: i32) {
    let priority: Text<11> = crate::text!("{}", priority.clamp(-999, 999));
    output.plain("autoconnect-priority", &priority);
}

/// The largest packet, when it is said.
fn mtu(output: &mut Output, bytes: u32) {
    if bytes > 0 {
        output.key("mtu");
        output.number(bytes);
        output.byte(b'\n');
    }
}

/// A name as text where NetworkManager cannot read it as anything else, else as the numbers of its bytes. (A text of
/// digits and semicolons is such a list itself, and the escapes of `;` and `\` differ between versions.)
fn ssid(output: &mut Output, ssid: &[u8]) {
    let text = core::str::from_utf8(ssid).unwrap_or_default();
    let is_odd = |character: char| character.is_control() || matches!(character, ';' | '\\');
    let is_number = |character: char| character.is_ascii_digit() || character == ' ';
    let is_text = !text.is_empty()
        && text.trim().len() == text.len()
        && !text.contains(is_odd)
        && !text.chars().all(is_number);
    if is_text {
        return output.plain("ssid", text);
    }
    output.key("ssid");
    for byte in ssid {
        output.number(u32::from(*byte));
        output.byte(b';');
    }
    output.byte(b'\n');
}

fn security(output: &mut Output, security: &Security) {
    let (management, key): (_, Option<&str>) = match security {
        Security::Open => return,
        Security::Psk(key) => ("wpa-psk", Some(key)),
        Security::Sae(password) => ("sae", Some(password)),
        Security::Enterprise(_) => ("wpa-eap", None),
        Security::Owe => ("owe", None),
    };
    output.group("wifi-security");
    output.plain("auth-alg", "open");
    output.plain("key-mgmt", management);
    if let Some(key) = key {
        output.value("psk", key);
    }
    if let Security::Enterprise(login) = security {
        enterprise(output, login);
    }
}

fn enterprise(output: &mut Output, login: &Enterprise) {
    output.group("802-1x");
    output.key("eap");
    output.text(&login.method);
    output.text(";\n");
    output.value("identity", &login.identity);
    if !login.anonymous_identity.is_empty() {
        output.value("anonymous-identity", &login.anonymous_identity);
    }
    output.value("password", &login.password);
    match login.phase2.strip_prefix("eap-") {
        Some(method) => output.plain("phase2-autheap", method),
        None if login.phase2.is_empty() => {}
        None => output.plain("phase2-auth", &login.phase2),
    }
}

fn addresses(output: &mut Output, addresses: &Addresses) -> Option<()> {
    let Addresses { ipv4, ipv6, search, mtu: _ } = addresses;
    // Domains are the host's, whichever version of IP brings them.
    let (with_ipv4, with_ipv6) = match ipv4.method {
        Method::Disabled => ("", &**search),
        _ => (&**search, ""),
    };
    output.group("ipv4");
    family(output, ipv4, false, with_ipv4)?;
    output.group("ipv6");
    output.plain("addr-gen-mode", "stable-privacy");
    family(output, ipv6, true, with_ipv6)
}

/// One family of addresses (nm-settings-keyfile(5), "ipv4").
fn family(output: &mut Output, family: &Family, is_ipv6: bool, search: &str) -> Option<()> {
    let method = match family.method {
        Method::Auto => "auto",
        Method::Manual if family.addresses.is_empty() => return None,
        Method::Manual => "manual",
        Method::Disabled => "disabled",
        Method::LinkLocal => "link-local",
    };
    output.plain("method", method);
    // NetworkManager refuses these two with anything else (nm_setting_ip6_config verify()).
    if matches!(family.method, Method::Disabled | Method::LinkLocal) {
        return Some(());
    }
    for (number, address) in (1..).zip(&family.addresses) {
        numbered(output, "address", number, &address.address, address.prefix);
        if number == 1 && !family.gateway.is_empty() {
            output.byte(b',');
            output.text(&family.gateway);
        }
        output.byte(b'\n');
    }
    // The version of a server decides, not where a reader put it: NetworkManager drops the whole line otherwise.
    let mut is_first = true;
    for server in family.dns.iter().filter(|server| server.as_bytes().contains(&b':') == is_ipv6) {
        if is_first {
            output.key("dns");
        }
        is_first = false;
        output.text(server);
        output.byte(b';');
    }
    if !is_first {
        output.byte(b'\n');
    }
    if !search.is_empty() {
        output.key("dns-search");
        for domain in search.split_ascii_whitespace() {
            output.text(domain);
            output.byte(b';');
        }
        output.byte(b'\n');
    }
    for (number, to) in (1..).zip(&family.routes) {
        route(output, number, to, is_ipv6);
    }
    if let Some(metric) = family.route_metric {
        output.key("route-metric");
        output.number(metric);
        output.byte(b'\n');
    }
    for (key, is_set) in [
        ("ignore-auto-dns", family.ignores_auto_dns),
        ("ignore-auto-routes", family.ignores_auto_routes),
        ("never-default", family.never_default),
    ] {
        if is_set {
            output.plain(key, "true");
        }
    }
    Some(())
}

fn numbered(output: &mut Output, key: &str, number: u32, address: &str, prefix: u8) {
    output.text(key);
    output.number(number);
    output.byte(b'=');
    output.text(address);
    output.byte(b'/');
    output.number(u32::from(prefix));
}

fn route(output: &mut Output, number: u32, route: &Route, is_ipv6: bool) {
    numbered(output, "route", number, &route.to.address, route.to.prefix);
    let nowhere = if is_ipv6 { "::" } else { "0.0.0.0" };
    let via: &str = match route.via.is_empty() {
        // A metric comes third, so something has to stand second.
        true if route.metric.is_some() => nowhere,
        _ => &route.via,
    };
    if !via.is_empty() {
        output.byte(b',');
        output.text(via);
    }
    if let Some(metric) = route.metric {
        output.byte(b',');
        output.number(metric);
    }
    output.byte(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Finding, Prefixed, connman, iwd, manager, names, supplicant};
    use core::fmt::Write as _;
    use std::path::Path;

    /// What a file of the old OS becomes: keyfiles, and a line for all that is lost or in doubt.
    fn outcome(kind: &str, name: &str, bytes: &[u8]) -> String {
        let mut text = String::new();
        let mut wifis = 0;
        let mut found = |finding| match finding {
            Finding::Wifi(found) => {
                wifis += 1;
                let mut buffer = [0; 4096];
                let length = wifi(&found, &format!("balena-wifi-{wifis:02}"), &mut buffer).unwrap();
                writeln!(text, "{}", str::from_utf8(&buffer[..length]).unwrap()).unwrap();
            }
            Finding::Wired(found) => {
                let mut buffer = [0; 4096];
                let length = wired(&found, "balena-01", &mut buffer).unwrap();
                writeln!(text, "{}", str::from_utf8(&buffer[..length]).unwrap()).unwrap();
            }
            Finding::Wireless(_) => unreachable!(),
            Finding::Lost(name, why) | Finding::LostWifi(name, why) => {
                writeln!(text, "# lost: {}: {why}\n", &*name).unwrap()
            }
            Finding::Doubtful(name, why) => {
                writeln!(text, "# doubtful: {}: {why}\n", &*name).unwrap()
            }
        };
        match kind {
            "supplicant" => supplicant::parse(bytes, &mut found),
            "connman" => connman::parse(bytes, &mut found),
            "iwd" => iwd::parse(name, bytes, &mut found),
            _ => match manager::summarise(bytes) {
                Ok(mut summary) => {
                    summary.name_after(name);
                    text = described(&summary);
                    summary.findings(&names::name_may_change, &mut |finding| {
                        match finding {
                            Finding::Lost(name, why) | Finding::LostWifi(name, why) => {
                                writeln!(text, "# lost: {}: {why}", &*name)
                            }
                            Finding::Doubtful(name, why) => {
                                writeln!(text, "# doubtful: {}: {why}", &*name)
                            }
                            _ => unreachable!(),
                        }
                        .unwrap()
                    });
                }
                Err(why) => writeln!(text, "# refused: {why}").unwrap(),
            },
        }
        text
    }

    fn described(summary: &manager::Summary) -> String {
        format!(
            "{:?} id={} uuid={} ssid={:?} interface={} mac={} autoconnect={} priority={} own={} volatile={}\n",
            summary.kind,
            &*summary.id,
            &*summary.uuid,
            String::from_utf8_lossy(&summary.ssid),
            &*summary.interface_name,
            summary.mac_pinned,
            summary.autoconnect,
            summary.priority,
            summary.is_own_network,
            summary.is_volatile,
        )
    }

    #[test]
    fn every_fixture_becomes_what_stands_beside_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/network");
        let mut wrong = Vec::new();
        for (kind, least) in [("supplicant", 8), ("connman", 8), ("iwd", 10), ("manager", 8)] {
            let entries = std::fs::read_dir(folder.join(kind)).unwrap();
            let mut count = 0;
            for path in entries.map(|entry| entry.unwrap().path()) {
                let name = path.file_name().unwrap().to_str().unwrap();
                if name.ends_with(".expected") {
                    continue;
                }
                count += 1;
                let outcome = outcome(kind, name, &std::fs::read(&path).unwrap());
                let beside = path.with_file_name(format!("{name}.expected"));
                if std::env::var_os("BLESS").is_some() {
                    std::fs::write(&beside, &outcome).unwrap();
                }
                if std::fs::read_to_string(&beside).unwrap_or_default() != outcome {
                    wrong.push(format!("{}:\n{outcome}", path.display()));
                }
            }
            assert!(count >= least, "{kind}: {count} fixtures");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn no_part_of_a_fixture_is_harmful() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/network");
        for kind in ["supplicant", "connman", "iwd", "manager"] {
            for entry in std::fs::read_dir(folder.join(kind)).unwrap() {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                for at in 0..bytes.len() {
                    outcome(kind, "x.8021x", &bytes[..at]);
                    outcome(kind, "x.psk", &bytes[at..]);
                }
            }
        }
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let names: [&[u8]; 9] = [
            b"plain",
            b" ",
            b"7",
            b"1;2;",
            b"a;b",
            b"a\\sb",
            b"\xff\x00",
            b"#x",
            "caf\u{e9} ".as_bytes(),
        ];
        for name in names {
            let ssid = heapless::Vec::from_slice(name).unwrap();
            let mut buffer = [0; 1024];
            let length = wifi(&Wifi::new(ssid, Security::Open), "x", &mut buffer).unwrap();
            let summary = manager::summarise(&buffer[..length]).unwrap();
            assert_eq!(summary.ssid.as_slice(), name);
            assert_eq!(summary.kind, manager::Kind::Wifi);
        }
    }

    fn full() -> Wired {
        let address = |text| Text::from(text);
        let route = |to, prefix, via, metric| Route {
            to: Prefixed { address: address(to), prefix },
            via: address(via),
            metric,
        };
        let mut wired = Wired { interface: Text::from("eth0"), ..Wired::default() };
        wired.addresses.search = Text::from("a.example b.example");
        wired.addresses.mtu = 1400;
        wired.addresses.ipv4.method = Method::Manual;
        wired.addresses.ipv4.gateway = address("10.0.0.1");
        for (at, prefix) in [("10.0.0.2", 8), ("192.168.0.2", 24)] {
            wired.addresses.ipv4.addresses.push(Prefixed { address: address(at), prefix }).unwrap();
        }
        wired.addresses.ipv4.dns.push(address("9.9.9.9")).unwrap();
        wired.addresses.ipv4.dns.push(address("2620:fe::fe")).unwrap();
        wired.addresses.ipv4.routes.push(route("172.16.0.0", 12, "10.0.0.9", Some(7))).unwrap();
        wired.addresses.ipv4.routes.push(route("172.32.0.0", 12, "", Some(8))).unwrap();
        wired.addresses.ipv4.routes.push(route("172.48.0.0", 12, "10.0.0.9", None)).unwrap();
        wired.addresses.ipv6.routes.push(route("2001:db8::", 32, "", Some(9))).unwrap();
        wired
    }

    #[test]
    fn a_wired_interface_with_everything() {
        let mut buffer = [0; 1024];
        let length = wired(&full(), "balena-01", &mut buffer).unwrap();
        let wanted = "[connection]\nid=balena-01\ntype=ethernet\ninterface-name=eth0\n\n\
            [ethernet]\nmtu=1400\n\n\
            [ipv4]\nmethod=manual\naddress1=10.0.0.2/8,10.0.0.1\naddress2=192.168.0.2/24\n\
            dns=9.9.9.9;\ndns-search=a.example;b.example;\n\
            route1=172.16.0.0/12,10.0.0.9,7\nroute2=172.32.0.0/12,0.0.0.0,8\n\
            route3=172.48.0.0/12,10.0.0.9\n\n\
            [ipv6]\naddr-gen-mode=stable-privacy\nmethod=auto\nroute1=2001:db8::/32,::,9\n";
        assert_eq!(str::from_utf8(&buffer[..length]).unwrap(), wanted);
        for short in 0..length {
            assert_eq!(wired(&full(), "balena-01", &mut buffer[..short]), None);
        }
    }

    #[test]
    fn fixed_addresses_without_one_are_no_keyfile() {
        let mut wired_ = full();
        wired_.addresses.ipv4.addresses.clear();
        assert_eq!(wired(&wired_, "x", &mut [0; 1024]), None);
    }
}
