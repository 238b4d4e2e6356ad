//! Reading the network settings of the old OS: NetworkManager, wpa_supplicant, connman, iwd, ifupdown,
//! systemd-networkd and dhcpcd.
//!
//! Each reader is a function over the bytes of one file that hands what it finds to the caller, one finding at a time;
//! none opens a file, and none allocates. Secrets are in the findings and nowhere else: never in a reason or a name.

pub mod beside;
mod commands;
pub mod connman;
pub mod dhcpcd;
mod draft;
#[cfg(test)]
mod fixtures;
pub mod given;
pub mod ifupdown;
pub mod ini;
pub mod iwd;
pub mod leases;
pub mod live;
pub mod manager;
pub mod matching;
pub mod names;
pub mod networkd;
#[cfg(feature = "http")]
pub mod routes;
pub mod supplicant;
pub mod wifi;
mod words;

use crate::text::Text;
use core::net::IpAddr;

/// The name of a Wi-Fi: up to 32 bytes of any kind (IEEE 802.11, 9.4.2.2).
pub type Ssid = heapless::Vec<u8, 32>;

/// The path of a file of wpa_supplicant. What is longer is cut, and then no file's.
pub type WpaFile = Text<96>;

/// An IP address as it was written; checked to be one.
pub type Address = Text<45>;

/// How a Wi-Fi is protected.
// There is no heap to put the large one in; few are alive at once.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum Security {
    /// Not at all.
    Open,
    /// WPA or WPA2 with a passphrase of 8 to 63 characters, or a key of 64 hexadecimal digits.
    Psk(Text<64>),
    /// WPA3 with a password.
    Sae(Text<128>),
    /// 802.1X with a user name and a password.
    Enterprise(Enterprise),
    /// Encrypted without a password (OWE, "Enhanced Open").
    Owe,
}

/// What 802.1X needs, when no certificate file is involved.
#[derive(Clone, PartialEq, Debug)]
pub struct Enterprise {
    /// The method: peap, ttls, pwd, fast, leap or md5.
    pub method: Text<8>,
    /// Who logs in.
    pub identity: Text<128>,
    /// Who is named outside the tunnel; may be empty.
    pub anonymous_identity: Text<128>,
    /// The password.
    pub password: Text<128>,
    /// The method inside the tunnel: mschapv2, pap, …, with `eap-` in front when it is an EAP method inside TTLS; may
    /// be empty.
    pub phase2: Text<16>,
}

/// A configured Wi-Fi.
#[derive(Clone, PartialEq, Debug)]
pub struct Wifi {
    /// Its name.
    pub ssid: Ssid,
    /// Its protection.
    pub security: Security,
    /// It does not announce itself.
    pub hidden: bool,
    /// Higher is tried first; 0 when nothing is said.
    pub priority: i32,
    /// It is joined without being asked.
    pub autoconnect: bool,
    /// The addresses on it.
    pub addresses: Addresses,
}

impl Wifi {
    /// A Wi-Fi with nothing said about it but its name and its protection: joined by itself, addresses by DHCP.
    pub fn new(ssid: Ssid, security: Security) -> Self {
        let addresses = Addresses::default();
        Self { ssid, security, hidden: false, priority: 0, autoconnect: true, addresses }
    }
}

/// How one family of addresses is set.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Method {
    /// DHCP, or router advertisements.
    #[default]
    Auto,
    /// The addresses that are listed.
    Manual,
    /// Not at all.
    Disabled,
    /// No more than an address for the link itself.
    LinkLocal,
}

/// An address with the length of its prefix.
#[derive(Clone, PartialEq, Debug)]
pub struct Prefixed {
    /// The address.
    pub address: Address,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
}

/// A route that is not the default one.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// Where to.
    pub to: Prefixed,
    /// By which router; empty for none.
    pub via: Address,
    /// Lower is preferred; none when nothing is said.
    pub metric: Option<u32>,
}

/// The settings of one family of addresses.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Family {
    /// How.
    pub method: Method,
    /// The addresses, when they are fixed.
    pub addresses: heapless::Vec<Prefixed, 8>,
    /// The router; empty for none.
    pub gateway: Address,
    /// Name servers.
    pub dns: heapless::Vec<Address, 4>,
    /// Other routes; a default one only where it has no router, or where `gateway` cannot be used.
    pub routes: heapless::Vec<Route, 8>,
    /// The metric of all its routes, the lower the better; none when nothing is said.
    pub route_metric: Option<u32>,
    /// Name servers that DHCP or a router names are not used.
    pub ignores_auto_dns: bool,
    /// Nor are their routes, but for the default one.
    pub ignores_auto_routes: bool,
    /// Nor is their default route.
    pub never_default: bool,
}

impl Family {
    /// Adds a name server, unless it is there in some spelling; false when it is none or does not fit.
    pub(super) fn add_dns(&mut self, server: &str) -> bool {
        let Ok(address) = server.parse::<IpAddr>() else { return false };
        let is_known = self.dns.iter().any(|other| other.parse() == Ok(address));
        is_known || self.dns.push(Text::from(server)).is_ok()
    }

    fn inherit(&mut self, from: &Self) {
        if self.method == Method::Disabled {
            return;
        }
        let own = core::mem::replace(self, from.clone());
        if !own.dns.is_empty() {
            self.dns = own.dns;
        }
    }
}

/// The addresses of an interface, and what goes with them.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Addresses {
    /// IPv4.
    pub ipv4: Family,
    /// IPv6.
    pub ipv6: Family,
    /// Domains that names are looked up in, separated by blanks.
    pub search: Text<128>,
    /// The largest packet in bytes; 0 when nothing is said.
    pub mtu: u32,
}

impl Addresses {
    /// True when nothing is said: what plain DHCP gives.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a domain, unless it is there; false when it is none or does not fit.
    pub(super) fn add_search(&mut self, domain: &str) -> bool {
        if self.search.split(' ').any(|other| other == domain) {
            return true;
        }
        let blank = if self.search.is_empty() { "" } else { " " };
        let all: Text<256> = crate::text!("{}{}{}", self.search, blank, domain);
        let fits = names::is_domain(domain) && all.len() <= 128;
        if fits {
            self.search = Text::from(&*all);
        }
        fits
    }

    /// True when there are fixed ones.
    pub fn is_fixed(&self) -> bool {
        !(self.ipv4.addresses.is_empty() && self.ipv6.addresses.is_empty())
    }

    /// For a Wi-Fi: takes those of the interface that joins it, as far as it has none itself. One with fixed addresses
    /// keeps all of its own, others their name servers, their domains and what is switched off.
    pub fn inherit(&mut self, from: &Self) {
        if self.is_fixed() {
            return;
        }
        self.ipv4.inherit(&from.ipv4);
        self.ipv6.inherit(&from.ipv6);
        if self.search.is_empty() {
            self.search = from.search.clone();
        }
        if self.mtu == 0 {
            self.mtu = from.mtu;
        }
    }
}

/// A configured interface with a cable.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Wired {
    /// The kernel's name of the interface; empty when the setting is for whatever has `mac`.
    pub interface: Text<15>,
    /// The hardware address that the setting is for, `aa:bb:cc:dd:ee:ff`; empty for none.
    pub mac: Text<17>,
    /// Of several for one interface the highest is taken, from -999 to 999; 0 when nothing is said.
    pub priority: i32,
    /// The addresses on it.
    pub addresses: Addresses,
}

/// Settings for Wi-Fis that stand apart from these: for one by its name, or for all that one interface joins.
#[derive(Clone, PartialEq, Debug)]
pub struct Wireless {
    /// The Wi-Fi; empty for all.
    pub ssid: Ssid,
    /// The settings. The interface, by its name or its hardware address, is always named when the Wi-Fi is not.
    pub settings: Wired,
    /// The file of wpa_supplicant that they are for the Wi-Fis of, as a path; empty when none is named.
    pub wpa_file: WpaFile,
    /// For one Wi-Fi: they take the place of those of the interface, and are not added to them. They may then say
    /// nothing.
    pub is_whole: bool,
}

impl Wireless {
    /// What it is called in messages.
    pub fn name(&self) -> Text<64> {
        match (self.ssid.is_empty(), self.settings.interface.is_empty()) {
            (false, _) => wifi::shown(&self.ssid),
            (true, false) => Text::from(&*self.settings.interface),
            (true, true) => Text::from(&*self.settings.mac),
        }
    }
}

/// What a reader found. The variants differ in size by 3 KiB; one finding lives at a time, and there is no heap to put
/// the large one on.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum Finding {
    /// A Wi-Fi.
    Wifi(Wifi),
    /// An interface with a cable, with something that plain DHCP would not give.
    Wired(Wired),
    /// What the Wi-Fis of a wireless interface get, which are in other files.
    Wireless(Wireless),
    /// A network that the new OS would need and that cannot be carried over: its name, and why.
    Lost(Text<64>, &'static str),
    /// The same, of a Wi-Fi: whoever wants no Wi-Fis, or others, does not miss it. Its SSID as it is shown.
    LostWifi(Text<64>, &'static str),
    /// Something of less weight that does not survive, or may not: its name, and why.
    Doubtful(Text<64>, &'static str),
}

/// Where findings go.
pub type Findings<'a> = dyn FnMut(Finding) + 'a;
