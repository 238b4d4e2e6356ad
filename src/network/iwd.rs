//! iwd's files, one for each Wi-Fi, named after it (iwd.network(5)).
//!
//! Opens no file.

use super::ini::{self, Line};
use super::wifi::{self, Login};
use super::{Finding, Findings, Method, Security, Wifi};
use crate::text::{Text, printable};

/// The keys of a login through a tunnel.
struct Tunnel {
    certificate: &'static str,
    server: &'static str,
    method: &'static str,
    identity: &'static str,
    password: &'static str,
    hash: &'static str,
}

const PEAP: Tunnel = Tunnel {
    certificate: "EAP-PEAP-CACert",
    server: "EAP-PEAP-ServerDomainMask",
    method: "EAP-PEAP-Phase2-Method",
    identity: "EAP-PEAP-Phase2-Identity",
    password: "EAP-PEAP-Phase2-Password",
    hash: "EAP-PEAP-Phase2-Password-Hash",
};
const TTLS: Tunnel = Tunnel {
    certificate: "EAP-TTLS-CACert",
    server: "EAP-TTLS-ServerDomainMask",
    method: "EAP-TTLS-Phase2-Method",
    identity: "EAP-TTLS-Phase2-Identity",
    password: "EAP-TTLS-Phase2-Password",
    hash: "EAP-TTLS-Phase2-Password-Hash",
};

/// A file.
struct Profile<'a> {
    bytes: &'a [u8],
}

/// True when a file of this name is a network's that can be carried over.
pub fn is_network(name: &str) -> bool {
    let protection = name.rsplit_once('.').map(|(_, protection)| protection);
    matches!(protection, Some("open" | "psk" | "8021x"))
}

/// Reads the file of that name (`SSID.psk` or `=HEX.psk`, likewise `.open` and `.8021x`); other names say nothing.
pub fn parse(name: &str, bytes: &[u8], found: &mut Findings) {
    if name.ends_with(".conf") {
        let why = "logins of Hotspot 2.0 are not carried over";
        return found(Finding::Doubtful(printable(name.as_bytes()), why));
    }
    let Some((encoded, protection)) = name.rsplit_once('.').filter(|_| is_network(name)) else {
        return;
    };
    let ssid = match encoded.strip_prefix('=') {
        Some(digits) => wifi::hex(digits.as_bytes()).unwrap_or_default(),
        None => wifi::Value::from_slice(encoded.as_bytes()).unwrap_or_default(),
    };
    let shown = wifi::shown(&ssid);
    let Some(ssid) = wifi::ssid(&ssid) else {
        return found(Finding::Doubtful(shown, "its file is not named after a Wi-Fi"));
    };
    let profile = Profile { bytes };
    let security = match profile.security(protection) {
        Ok(security) => security,
        Err(why) => return found(Finding::LostWifi(shown, why)),
    };
    let is_login = matches!(security, Security::Enterprise(_));
    let mut wifi = Wifi::new(ssid, security);
    let doubts = profile.settings(&mut wifi);
    found(Finding::Wifi(wifi));
    for why in doubts.into_iter().flatten() {
        found(Finding::Doubtful(shown.clone(), why));
    }
    if is_login && [PEAP.server, TTLS.server].iter().any(|key| profile.security_key(key).is_some())
    {
        found(Finding::Doubtful(shown.clone(), wifi::SERVER_NAME));
    }
}

/// Reads the file of iwd's daemon for cables (`ead`): a login.
pub fn parse_cable(_: &str, _: &[u8], found: &mut Findings) {
    found(Finding::Lost(Text::from("802.1X on a cable"), wifi::CABLE_LOGIN));
}

impl<'a> Profile<'a> {
    /// The last value of a key, as it is written, when it is not empty.
    fn raw(&self, wanted: &str, key: &str) -> Option<&'a str> {
        let (mut group, mut last) = ("", None);
        for line in ini::lines(self.bytes) {
            match line {
                // A certificate in the file; it does not end the group around it.
                Line::Group(name) if name.starts_with('@') => {}
                Line::Group(name) => group = name,
                _ if group == wanted => last = line.value_of(key).or(last),
                _ => {}
            }
        }
        last.filter(|value| !value.is_empty())
    }

    fn security_key(&self, key: &str) -> Option<&'a str> {
        self.raw("Security", key)
    }

    fn is_switched_off(&self, mode: &str) -> bool {
        let list = self.raw("Settings", "DisabledTransitionModes").unwrap_or_default();
        list.split(',').any(|item| item.trim() == mode)
    }

    fn security(&self, protection: &str) -> Result<Security, &'static str> {
        if self.security_key("EncryptedSecurity").is_some() {
            return Err("its settings are encrypted");
        }
        match protection {
            "open" if self.is_switched_off("open") => Ok(Security::Owe),
            "open" => Ok(Security::Open),
            "psk" => self.key(),
            _ => self.login(),
        }
    }

    fn key(&self) -> Result<Security, &'static str> {
        let only_sae = self.is_switched_off("personal");
        if self.security_key("PasswordIdentifier").is_some() {
            return Err(wifi::PASSWORD_ID);
        }
        match (self.security_key("Passphrase"), self.security_key("PreSharedKey")) {
            (Some(passphrase), _) => {
                let passphrase = ini::text(passphrase).ok_or(wifi::BAD_KEY)?;
                match wifi::key(&passphrase) {
                    // A raw key is kept as PreSharedKey.
                    Ok(key) if key.len() < 64 && only_sae => Ok(Security::Sae(passphrase)),
                    Ok(key) if key.len() < 64 => Ok(Security::Psk(key)),
                    _ => Err(wifi::BAD_KEY),
                }
            }
            (None, Some(key)) if !only_sae && key.trim_end().len() == 64 => {
                wifi::key(key.trim_end()).map(Security::Psk)
            }
            (None, Some(_)) => Err(wifi::BAD_KEY),
            // For WPA3 iwd keeps points on a curve (SAE-PT-Group19) that only it can use.
            (None, None) => Err(wifi::NO_KEY),
        }
    }

    fn login(&self) -> Result<Security, &'static str> {
        let method = self.security_key("EAP-Method").unwrap_or_default().trim_end();
        let tunnel = match method {
            _ if method.eq_ignore_ascii_case("PEAP") => &PEAP,
            _ if method.eq_ignore_ascii_case("TTLS") => &TTLS,
            _ => return self.plain_login(method),
        };
        if self.security_key(tunnel.certificate).is_some() {
            return Err(wifi::CERTIFICATES);
        }
        if self.security_key(tunnel.hash).is_some() && self.security_key(tunnel.password).is_none()
        {
            return Err(wifi::HASHED);
        }
        let outer = self.text("EAP-Identity")?;
        let inner = self.text(tunnel.identity)?;
        let (identity, anonymous_identity) =
            if inner.is_empty() { (outer, Text::new()) } else { (inner, outer) };
        let phase2 = self.security_key(tunnel.method).unwrap_or_default().trim_end();
        let login = Login {
            methods: Text::from(method),
            identity,
            anonymous_identity,
            password: self.password(tunnel.password)?,
            phase2: match phase2.strip_prefix("Tunneled-") {
                Some(phase2) => Text::from(phase2),
                None if phase2.is_empty() => Text::new(),
                None => crate::text!("eap-{}", phase2),
            },
        };
        login.check()
    }

    /// A login without a tunnel.
    fn plain_login(&self, method: &str) -> Result<Security, &'static str> {
        let certificates = ["EAP-TLS-ClientCert", "EAP-TLS-ClientKeyBundle", "EAP-TLS-CACert"];
        if certificates.iter().any(|key| self.security_key(key).is_some()) {
            return Err(wifi::CERTIFICATES);
        }
        if self.security_key("EAP-Password-Hash").is_some()
            && self.security_key("EAP-Password").is_none()
        {
            return Err(wifi::HASHED);
        }
        let login = Login {
            methods: Text::from(method),
            identity: self.text("EAP-Identity")?,
            password: self.password("EAP-Password")?,
            ..Login::default()
        };
        login.check()
    }

    fn text(&self, key: &str) -> Result<Text<128>, &'static str> {
        ini::text(self.security_key(key).unwrap_or_default()).ok_or(wifi::LONG_LOGIN)
    }

    fn password(&self, key: &str) -> Result<Option<Text<128>>, &'static str> {
        self.text(key).map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    /// Takes over what is not protection, and gives what is left out of it.
    fn settings(&self, wifi: &mut Wifi) -> [Option<&'static str>; 6] {
        let flag = |key| self.raw("Settings", key).map(ini::is_true);
        wifi.hidden = flag("Hidden").unwrap_or(false);
        wifi.autoconnect = flag("AutoConnect").or(flag("Autoconnect")).unwrap_or(true);
        let get = |group, key| self.raw(group, key).unwrap_or_default();
        let mut is_whole = true;
        if let Some(at) = self.raw("IPv4", "Address") {
            let (at, slash) = at.split_once('/').unwrap_or((at, ""));
            let mask = self.raw("IPv4", "Netmask").unwrap_or("24");
            let length = wifi::prefix(if slash.is_empty() { mask } else { slash }, 4);
            is_whole &=
                wifi::set_address(&mut wifi.addresses.ipv4, 4, at, length, get("IPv4", "Gateway"));
        }
        if let Some(at) = self.raw("IPv6", "Address") {
            let (at, slash) = at.split_once('/').unwrap_or((at, "128"));
            let gateway = get("IPv6", "Gateway");
            is_whole &=
                wifi::set_address(&mut wifi.addresses.ipv6, 6, at, wifi::prefix(slash, 6), gateway);
        }
        if self.raw("IPv6", "Enabled").is_some_and(|value| !ini::is_true(value)) {
            wifi.addresses.ipv6.method = Method::Disabled;
        }
        let mut add = |group| {
            let domains = get(group, "DomainName");
            let servers = wifi::add_name_servers(&mut wifi.addresses, get(group, "DNS"));
            [servers, wifi::add_domains(&mut wifi.addresses, domains)]
        };
        let ([dns4, domain4], [dns6, domain6]) = (add("IPv4"), add("IPv6"));
        let is_set = |group, key| self.raw(group, key).is_some();
        let is_random = flag("AlwaysRandomizeAddress") == Some(true);
        [
            (!is_whole).then_some(wifi::BAD_ADDRESS),
            dns4,
            dns6.filter(|_| dns4.is_none()),
            domain4.or(domain6),
            is_set("Network", "RoutePriorityOffset").then_some(super::draft::why::METRIC),
            (is_random || is_set("Settings", "AddressOverride")).then_some(wifi::NEW_MAC),
        ]
    }
}
