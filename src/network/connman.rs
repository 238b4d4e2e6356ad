//! connman's files: provisioning (`NAME.config`, doc/config-format.txt of connman) and what it remembers of each
//! service (`SERVICE/settings`).
//!
//! Opens no file. A file may hold several services; each is a group of its own. The global settings of connman
//! (groups `global`, `WiFi`, `Wired`) say nothing about a network.

use super::ini::{self, Line, Lines};
use super::names::{self, is_interface};
use super::wifi::{self, Login};
use super::{Addresses, Family, Finding, Findings, Method, Security, Wifi, Wired};
use crate::text::{Text, printable};

/// A group, and the lines behind its name.
struct Service<'a> {
    group: &'a str,
    lines: Lines<'a>,
}

/// The values of `IPvN.method` and its neighbours, for either version.
const STORED: [[&str; 4]; 2] = [
    ["IPv4.method", "IPv4.local_address", "IPv4.netmask_prefixlen", "IPv4.gateway"],
    ["IPv6.method", "IPv6.local_address", "IPv6.netmask_prefixlen", "IPv6.gateway"],
];
/// How the names of services begin that are not carried over.
const OTHERS: [(&str, &str); 4] = [
    ("cellular_", "it is a modem's; its settings, which another program has, are not carried over"),
    ("bluetooth_", "it is a network over Bluetooth; these are not carried over"),
    ("gadget_", "it is a network of a USB gadget; these are not carried over"),
    ("vpn_", names::TUNNEL),
];
/// What a setting of one's own makes connman do that no keyfile says, or that it says otherwise.
const NOT_BY_ITSELF: &str =
    "connman does not bring it up by itself (AutoConnect); the new OS will, with these settings";
const SERVER_NAMES: [&str; 4] =
    ["SubjectMatch", "AltSubjectMatch", "DomainSuffixMatch", "DomainMatch"];

/// Reads a file of either kind.
pub fn parse(bytes: &[u8], found: &mut Findings) {
    let mut lines = ini::lines(bytes);
    while let Some(line) = lines.next() {
        if let Line::Group(group) = line {
            Service { group, lines: lines.clone() }.read(found);
        }
    }
}

impl<'a> Service<'a> {
    /// The last value of a key, as it is written.
    fn untrimmed(&self, key: &str) -> Option<&'a str> {
        let lines = self.lines.clone().take_while(|line| !matches!(line, Line::Group(_)));
        lines.filter_map(|line| line.value_of(key)).last()
    }

    /// A value without blanks behind it, when it is not empty.
    fn raw(&self, key: &str) -> Option<&'a str> {
        self.untrimmed(key).map(str::trim_end).filter(|value| !value.is_empty())
    }

    /// The decoded value, empty when there is none; nothing when it is too long. A password may end in a blank.
    fn text(&self, key: &str) -> Option<Text<128>> {
        ini::text(self.untrimmed(key).unwrap_or_default())
    }

    fn read(&self, found: &mut Findings) {
        let is_provisioned = self.group.starts_with("service_");
        let is = |kind, start: &str| {
            is_provisioned && self.raw("Type") == Some(kind) || self.group.starts_with(start)
        };
        if is("wifi", "wifi_") {
            self.wifi(found);
        } else if is("ethernet", "ethernet_") {
            self.wired(found);
        } else if let Some((_, why)) =
            OTHERS.iter().find(|(start, _)| self.group.starts_with(start))
        {
            found(Finding::Doubtful(self.shown(), why));
        } else if is_provisioned {
            found(Finding::Doubtful(self.shown(), "connman knows no service of its Type"));
        }
    }

    /// What a service is called in messages that has no better name.
    fn shown(&self) -> Text<64> {
        printable(self.group.as_bytes())
    }

    /// The part of a remembered service's name with this number: `wifi_MAC_SSID_managed_SECURITY`,
    /// `ethernet_MAC_cable`.
    fn part(&self, number: usize) -> &'a str {
        if self.group.starts_with("service_") {
            ""
        } else {
            self.group.split('_').nth(number).unwrap_or_default()
        }
    }

    /// The name's bytes: in hexadecimal digits, as text, or from the name of the service.
    fn ssid(&self) -> wifi::Value {
        let digits = self.raw("SSID").unwrap_or_else(|| self.part(2));
        if let Some(name) = wifi::hex(digits.as_bytes()).filter(|name| !name.is_empty()) {
            return name;
        }
        let name = self.text("Name").unwrap_or_default();
        wifi::Value::from_slice(name.as_bytes()).unwrap_or_default()
    }

    fn security(&self) -> Result<Security, &'static str> {
        let stored = self.group.rsplit_once('_').map_or("", |(_, last)| last);
        let stored = if self.part(0).is_empty() { "" } else { stored };
        let security = self.raw("Security").unwrap_or(stored);
        let has_key = self.raw("Passphrase").is_some();
        match security {
            "ieee8021x" => return self.login(),
            _ if self.raw("EAP").is_some() => return self.login(),
            "wep" => return Err(wifi::WEP),
            // Without a word about protection, having no key means to need none.
            "none" | "" if !has_key => return Ok(Security::Open),
            _ if !has_key => return Err(wifi::NO_KEY),
            _ => {}
        }
        let key = self.text("Passphrase").ok_or(wifi::BAD_KEY)?;
        match security {
            "sae" => wifi::text_of(key.as_bytes()).map(Security::Sae).ok_or(wifi::BAD_KEY),
            _ => wifi::key(&key).map(Security::Psk),
        }
    }

    fn login(&self) -> Result<Security, &'static str> {
        if ["CACertFile", "ClientCertFile", "PrivateKeyFile"]
            .iter()
            .any(|key| self.raw(key).is_some())
        {
            return Err(wifi::CERTIFICATES);
        }
        let password = match self.raw("Passphrase") {
            Some(_) => Some(self.text("Passphrase").ok_or(wifi::LONG_LOGIN)?),
            None => None,
        };
        let login = Login {
            methods: Text::from(self.raw("EAP").unwrap_or_default()),
            identity: self.text("Identity").ok_or(wifi::LONG_LOGIN)?,
            anonymous_identity: self.text("AnonymousIdentity").ok_or(wifi::LONG_LOGIN)?,
            password,
            phase2: Text::from(self.raw("Phase2").unwrap_or_default()),
        };
        login.check()
    }

    fn wifi(&self, found: &mut Findings) {
        // Seen by connman, and never chosen by anybody.
        if self.raw("Favorite").is_some_and(|value| !ini::is_true(value)) {
            return;
        }
        let name = self.ssid();
        let shown = wifi::shown(&name);
        let Some(ssid) = wifi::ssid(&name) else {
            return found(Finding::Doubtful(shown, "it has no valid name: 1 to 32 bytes"));
        };
        let security = match self.security() {
            Ok(security) => security,
            Err(why) => return found(Finding::LostWifi(shown, why)),
        };
        let is_login = matches!(security, Security::Enterprise(_));
        let mut wifi = Wifi::new(ssid, security);
        wifi.hidden = self.raw("Hidden").is_some_and(ini::is_true);
        wifi.autoconnect = self.raw("AutoConnect").is_none_or(ini::is_true);
        let doubts = self.addresses(&mut wifi.addresses);
        found(Finding::Wifi(wifi));
        for why in doubts.into_iter().flatten() {
            found(Finding::Doubtful(shown.clone(), why));
        }
        if is_login && SERVER_NAMES.iter().any(|key| self.raw(key).is_some()) {
            found(Finding::Doubtful(shown.clone(), wifi::SERVER_NAME));
        }
        if self.raw("MAC").is_some() || self.raw("Interface").is_some() {
            let why = "it is no longer bound to one of the device's interfaces";
            found(Finding::Doubtful(shown, why));
        }
    }

    fn wired(&self, found: &mut Findings) {
        let mut wired = Wired::default();
        let doubts = self.addresses(&mut wired.addresses);
        let device = self.raw("Interface").or(self.raw("DeviceName")).unwrap_or_default();
        wired.interface =
            Some(device).filter(|name| is_interface(name)).map(Text::from).unwrap_or_default();
        wired.mac = names::mac(self.raw("MAC").unwrap_or_else(|| self.part(1)));
        let name = if device.is_empty() { self.shown() } else { printable(device.as_bytes()) };
        if let Some(why) = names::made_by_software(device) {
            return found(Finding::Lost(name, why));
        }
        let is_left_alone = self.raw("AutoConnect").is_some_and(|value| !ini::is_true(value));
        let is_plain = wired.addresses.is_plain();
        let alone = (is_left_alone && !is_plain).then_some(NOT_BY_ITSELF);
        for why in doubts.into_iter().flatten().chain(alone) {
            found(Finding::Doubtful(name.clone(), why));
        }
        // Without an interface they are for any cable, as in NetworkManager.
        if !is_plain {
            found(Finding::Wired(wired));
        }
    }

    /// Both families of addresses, and what belongs to both; gives what is left out of it.
    fn addresses(&self, addresses: &mut Addresses) -> [Option<&'static str>; 3] {
        let mut is_whole = true;
        for (version, family) in [(4, &mut addresses.ipv4), (6, &mut addresses.ipv6)] {
            let provisioned = if version == 4 { "IPv4" } else { "IPv6" };
            let [method, local, length, gateway] = STORED[usize::from(version == 6)];
            is_whole &= match (self.raw(provisioned), self.raw(method)) {
                (Some(value), _) => set_provisioned(family, version, value),
                (None, Some("off")) => {
                    family.method = Method::Disabled;
                    true
                }
                (None, Some("manual" | "fixed")) => {
                    let length = self.raw(length).and_then(|text| wifi::prefix(text, version));
                    let at = self.raw(local).unwrap_or_default();
                    let gateway = self.raw(gateway).unwrap_or_default();
                    wifi::set_address(family, version, at, length, gateway)
                }
                (None, method) => method != Some("6to4"),
            };
        }
        let bad_domain = ["SearchDomains", "Domains", "Domain"]
            .map(|key| wifi::add_domains(addresses, self.raw(key).unwrap_or_default()));
        [
            (!is_whole).then_some(wifi::BAD_ADDRESS),
            wifi::add_name_servers(addresses, self.raw("Nameservers").unwrap_or_default()),
            bad_domain.into_iter().flatten().next(),
        ]
    }
}

/// Sets a family from `off`, `dhcp`, `auto` or `ADDRESS/MASK/ROUTER`; false when it is none of them.
fn set_provisioned(family: &mut Family, version: u8, value: &str) -> bool {
    match value {
        "off" => {
            family.method = Method::Disabled;
            true
        }
        "dhcp" | "auto" => true,
        _ => {
            let mut parts = value.splitn(3, '/');
            let at = parts.next().unwrap_or_default();
            let length = parts.next().and_then(|text| wifi::prefix(text, version));
            wifi::set_address(family, version, at, length, parts.next().unwrap_or_default())
        }
    }
}
