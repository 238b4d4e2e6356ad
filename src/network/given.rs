//! What a keyfile will give an interface of the new OS: its addresses, its router, its routes.
//!
//! Whoever wrote it (we, the user, NetworkManager), the bytes are read that the new OS will read
//! (nm-settings-keyfile(5)). Opens no file.

use super::ini::{self, Line};
use super::live::Link;
use super::manager::{Kind, Summary, summarise};
use core::net::IpAddr;
use heapless::Vec;

/// How one family of addresses is set.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum How {
    /// By DHCP or by router advertisements, beside what is listed.
    #[default]
    Automatic,
    /// As listed.
    Fixed,
    /// Not at all, or only on the link, or as somebody else's router.
    Not,
}

/// A network and the router to it; none for what is on the link.
pub type To = (IpAddr, u8, Option<IpAddr>);

/// The settings of one family.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Family {
    /// How.
    pub how: How,
    /// The addresses, with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8), 16>,
    /// The router of the default route that is set here.
    pub gateway: Option<IpAddr>,
    /// There is a default route without a router.
    pub is_default_on_link: bool,
    /// What DHCP says of routers is not taken.
    pub is_never_default: bool,
    /// What DHCP says of name servers is not taken.
    pub ignores_servers: bool,
    /// The name servers.
    pub servers: Vec<IpAddr, 8>,
    /// The other routes.
    pub routes: Vec<To, 32>,
    /// The metric of its routes, where it is said.
    pub metric: Option<u32>,
}

/// What a keyfile gives.
pub struct Given {
    /// What is known of it else.
    pub summary: Summary,
    /// IPv4.
    pub ipv4: Family,
    /// IPv6.
    pub ipv6: Family,
    /// It belongs to a bridge, a bond or the like, which has the addresses.
    pub is_port: bool,
}

impl Given {
    /// Reads a keyfile; nothing when it is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let summary = summarise(bytes).ok()?;
        let (ipv4, ipv6) = (Family::default(), Family::default());
        let mut given = Self { summary, ipv4, ipv6, is_port: false };
        let mut group = "";
        for line in ini::lines(bytes) {
            match (line, group) {
                (Line::Group(name), _) => group = name,
                (Line::Entry("master" | "controller", value), "connection") => {
                    given.is_port = !value.trim_end().is_empty();
                }
                (Line::Entry(key, value), "ipv4") => given.ipv4.note(key, value.trim_end()),
                (Line::Entry(key, value), "ipv6") => given.ipv6.note(key, value.trim_end()),
                _ => {}
            }
        }
        Some(given)
    }

    /// One family.
    pub fn family(&self, is_ipv6: bool) -> &Family {
        if is_ipv6 { &self.ipv6 } else { &self.ipv4 }
    }

    /// How well it is for an interface: its priority, and how much of the interface it names. NetworkManager goes by
    /// the priority, then by when each was used last, which in a new OS is never, and then by the uuid; what a keyfile
    /// names does not count (nm_settings_connection_cmp_autoconnect_priority in nm-settings-connection.c). Nothing when
    /// it is for another one. `ssid`: the Wi-Fi that it has joined, as far as it is one and that is known.
    pub fn rank_for(&self, link: &Link, is_wifi: bool, ssid: Option<&[u8]>) -> Option<(i32, u8)> {
        let Summary { kind, interface_name, mac_address, .. } = &self.summary;
        // The name is that of the modem (cdc-wdm0, ttyUSB2), not of the interface that it makes.
        if *kind == Kind::Gsm {
            return (link.is_modem && self.summary.autoconnect)
                .then_some((self.summary.priority, 1));
        }
        let is_kind = match kind {
            Kind::Wifi => is_wifi && !self.summary.is_own_network,
            Kind::Ethernet => !is_wifi && !link.is_made_by_software && !link.is_modem,
            _ => link.is_made_by_software && *interface_name == link.name,
        };
        let is_name = interface_name.is_empty() || *interface_name == link.name;
        let is_mac = mac_address.is_empty() || mac_address.eq_ignore_ascii_case(&link.mac);
        let is_ssid = ssid.is_none_or(|ssid| !is_wifi || *ssid == *self.summary.ssid);
        // One that belongs to another gives no addresses.
        let is_its_own = !self.is_port && self.summary.autoconnect;
        if !(is_kind && is_name && is_mac && is_ssid && is_its_own) {
            return None;
        }
        let named = u8::from(!interface_name.is_empty()) + u8::from(!mac_address.is_empty());
        Some((self.summary.priority, named))
    }
}

impl Family {
    fn note(&mut self, key: &str, value: &str) {
        // `address1`, `addresses1`, and in earlier times a list without a number.
        let is_numbered = |name: &str| {
            let rest = key.strip_prefix(name).unwrap_or("-");
            rest.bytes().all(|byte| byte.is_ascii_digit())
        };
        match key {
            "method" => {
                self.how = match value {
                    "auto" | "dhcp" => How::Automatic,
                    "manual" => How::Fixed,
                    _ => How::Not,
                }
            }
            "gateway" => self.gateway = value.parse().ok().or(self.gateway),
            "never-default" => self.is_never_default = ini::is_true(value),
            "ignore-auto-dns" => self.ignores_servers = ini::is_true(value),
            "dns" => self.note_servers(value),
            // -1 is none.
            "route-metric" => self.metric = value.parse().ok(),
            _ if is_numbered("address") || is_numbered("addresses") => self.note_address(value),
            _ if is_numbered("route") || is_numbered("routes") => self.note_route(value),
            _ => {}
        }
    }

    /// `ADDRESS;ADDRESS;`, since NetworkManager 1.46 also `dns+tls://ADDRESS#NAME` and the like.
    fn note_servers(&mut self, value: &str) {
        for server in value.split([';', ',']) {
            let server = server.rsplit("//").next().unwrap_or_default();
            let server = server.split(['#', '%']).next().unwrap_or_default();
            if let Ok(address) = server.trim().trim_matches(['[', ']']).parse() {
                // With more than there is room for, one is called missing that is not: it is only warned of.
                let _ = self.servers.push(address);
            }
        }
    }

    /// `ADDRESS/PREFIX[,ROUTER]`, in earlier times `ADDRESS;PREFIX;ROUTER;`.
    fn note_address(&mut self, value: &str) {
        let mut fields = fields(value);
        let Some(address) = fields.next().and_then(|text| text.parse::<IpAddr>().ok()) else {
            return;
        };
        let prefix = fields.next().and_then(|text| text.parse().ok());
        // What NetworkManager takes where nothing is said.
        let prefix = prefix.unwrap_or(if address.is_ipv6() { 64 } else { 24 });
        // More than there is room for are not missed: then the comparison finds them lacking.
        let _ = self.addresses.push((address, prefix));
        let router = fields.next().and_then(|text| text.parse().ok());
        // NetworkManager takes no router of the other family.
        let is_one =
            |router: &IpAddr| !router.is_unspecified() && router.is_ipv6() == address.is_ipv6();
        self.gateway = self.gateway.or(router.filter(is_one));
    }

    /// `NETWORK/PREFIX[,ROUTER[,METRIC]]`.
    fn note_route(&mut self, value: &str) {
        let mut fields = fields(value);
        let Some(to) = fields.next().and_then(|text| text.parse::<IpAddr>().ok()) else {
            return;
        };
        let whole = if to.is_ipv6() { 128 } else { 32 };
        let prefix = fields.next().and_then(|text| text.parse().ok()).unwrap_or(whole);
        let via = fields.next().and_then(|text| text.parse::<IpAddr>().ok());
        let via = via.filter(|via| !via.is_unspecified());
        match (prefix, via) {
            (0, Some(_)) => self.gateway = self.gateway.or(via),
            (0, None) => self.is_default_on_link = true,
            // As above.
            _ => drop(self.routes.push((to, prefix, via))),
        }
    }
}

/// What stands between the marks of both forms.
fn fields(value: &str) -> impl Iterator<Item = &str> {
    value.split(['/', ',', ';']).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    fn given(rest: &str) -> Given {
        let text = format!("[connection]\nid=a\ntype=ethernet\n{rest}");
        Given::read(text.as_bytes()).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_routers_in_all_forms() {
        for rest in [
            "[ipv4]\nmethod=manual\naddress1=10.0.0.5/24,10.0.0.1\n",
            "[ipv4]\nmethod=manual\naddress=10.0.0.5/24\ngateway=10.0.0.1\n",
            "[ipv4]\nmethod=manual\naddresses1=10.0.0.5;24;10.0.0.1;\n",
            "[ipv4]\nmethod=manual\naddress1=10.0.0.5/24\nroute1=0.0.0.0/0,10.0.0.1,100\n",
        ] {
            let Family { how, addresses, gateway, .. } = given(rest).ipv4;
            assert_eq!((how, gateway), (How::Fixed, Some(ip("10.0.0.1"))), "{rest}");
            assert_eq!(addresses.as_slice(), [(ip("10.0.0.5"), 24)], "{rest}");
        }
        let family =
            given("[ipv6]\nmethod=manual\naddress1=fd00::7\naddress2=fd00::8/64,::\n").ipv6;
        assert_eq!(family.addresses.as_slice(), [(ip("fd00::7"), 64), (ip("fd00::8"), 64)]);
        assert_eq!(family.gateway, None);
    }

    #[test]
    fn methods_routes_and_what_dhcp_may_not() {
        assert_eq!(given("").ipv4, Family::default());
        for (method, how) in [
            ("auto", How::Automatic),
            ("manual", How::Fixed),
            ("disabled", How::Not),
            ("ignore", How::Not),
            ("link-local", How::Not),
            ("shared", How::Not),
        ] {
            assert_eq!(given(&format!("[ipv6]\nmethod={method}\n")).ipv6.how, how, "{method}");
        }
        let rest = "[ipv4]\nnever-default=true\nroute1=172.16.0.0/12,10.20.30.1\nroute2=10.9.0.7\n\
                    route1_options=table=254\nroute3=0.0.0.0/0\n";
        let Family { is_never_default, routes, gateway, is_default_on_link, .. } = given(rest).ipv4;
        assert!(is_never_default && is_default_on_link && gateway.is_none());
        let near = (ip("10.9.0.7"), 32, None);
        assert_eq!(routes.as_slice(), [(ip("172.16.0.0"), 12, Some(ip("10.20.30.1"))), near]);
        assert!(given("[connection]\nmaster=br0\n").is_port);
        let rest = "[ipv4]\ndns=10.0.0.53;dns+tls://9.9.9.9#dns.example;\nignore-auto-dns=true\n";
        let Family { servers, ignores_servers, .. } = given(rest).ipv4;
        assert_eq!(servers.as_slice(), [ip("10.0.0.53"), ip("9.9.9.9")]);
        assert!(ignores_servers);
    }

    #[test]
    fn whom_it_is_for() {
        let link = |name: &str, is_made_by_software| Link {
            number: 2,
            name: Text::from(name),
            mac: Text::from("52:54:00:12:34:56"),
            is_made_by_software,
            ..Link::default()
        };
        let link = |name: &str, is_made_by_software| Link {
            is_modem: name.starts_with("ww") || name.starts_with("ppp"),
            ..link(name, is_made_by_software)
        };
        let (eth0, bridge) = (link("eth0", false), link("br0", true));
        let rank = |rest: &str, link: &Link| given(rest).rank_for(link, false, None);
        assert_eq!(rank("", &eth0), Some((0, 0)));
        assert_eq!(rank("autoconnect-priority=7\n", &eth0), Some((7, 0)));
        assert_eq!(rank("interface-name=eth0\n", &eth0), Some((0, 1)));
        assert_eq!(rank("interface-name=eth1\n", &eth0), None);
        assert_eq!(rank("[ethernet]\nmac-address=52:54:00:12:34:56\n", &eth0), Some((0, 1)));
        assert_eq!(rank("[ethernet]\nmac-address=52:54:00:12:34:57\n", &eth0), None);
        assert_eq!(rank("autoconnect=false\n", &eth0), None);
        assert_eq!(rank("master=br0\n", &eth0), None);
        assert_eq!(rank("", &bridge), None);
        let keyfile = b"[connection]\ntype=bridge\ninterface-name=br0\n";
        assert_eq!(Given::read(keyfile).unwrap().rank_for(&bridge, false, None), Some((0, 1)));
        let wifi = Given::read(b"[connection]\ntype=wifi\n[wifi]\nssid=site\n").unwrap();
        let wlan0 = link("wlan0", false);
        assert_eq!(wifi.rank_for(&wlan0, false, None), None);
        assert_eq!(wifi.rank_for(&wlan0, true, None), Some((0, 0)));
        assert_eq!(wifi.rank_for(&wlan0, true, Some(b"site")), Some((0, 0)));
        assert_eq!(wifi.rank_for(&wlan0, true, Some(b"other")), None);
        let modem = Given::read(b"[connection]\ntype=gsm\ninterface-name=cdc-wdm0\n").unwrap();
        assert_eq!(modem.rank_for(&link("wwan0", false), false, None), Some((0, 1)));
        assert_eq!(modem.rank_for(&link("ppp0", true), false, None), Some((0, 1)));
        assert_eq!(modem.rank_for(&eth0, false, None), None);
        assert!(Given::read(b"[connection]\n").is_none());
    }
}
