//! The settings of one interface while they are read, whichever file they come from: values are checked on the way in,
//! and what was wrong with them is remembered until all is known.

use super::names::{self, is_interface, is_wireless, made_by_software};
use super::wifi;
use super::{
    Address, Addresses, Family, Finding, Findings, Method, Prefixed, Route, Ssid, Wifi, Wired,
    Wireless, WpaFile,
};
use crate::text::{Text, printable};
use core::net::IpAddr;

/// Why something is lost or doubtful.
pub(super) mod why {
    pub use crate::network::wifi::{BAD_DNS, LOOPBACK_DNS, MANY_DNS, SEARCH};
    pub const NO_PREFIX: &str = "its address has no netmask";
    pub const BAD_ADDRESS: &str = "its address or netmask makes no sense";
    pub const NO_ADDRESS: &str = "its settings are static, and no address is among them";
    pub const MANY_ADDRESSES: &str =
        "it has more than 8 addresses of a kind; the others are left out";
    pub const NO_INTERFACE: &str = "its settings go by neither the name nor the hardware address of one interface, and are not carried over";
    pub const BAD_GATEWAY: &str = "its router's address makes no sense and is left out";
    pub const GATEWAYS: &str =
        "it has more than one router; the one of the lowest metric is used, or the first";
    pub const LONE_GATEWAY: &str =
        "its router is left out: without a fixed address, DHCP names the router";
    pub const MTU: &str = "its MTU is left out: it is not a number from 68 to 65535";
    pub const BAD_ROUTE: &str =
        "a route is left out: it is more than a network and a router, or makes no sense";
    pub const NO_DEFAULT: &str =
        "its default route is more than a router or makes no sense, and cannot be carried over";
    pub const MANY_ROUTES: &str = "it has more than 8 routes of a kind; the others are left out";
    pub const METRIC: &str = "its metric is not carried over; the new OS has its own";
    pub const COMMANDS: &str =
        "commands that were run when it came up are not carried over (routes among them)";
    pub const ADVERTISED: &str = "router advertisements were not listened to; the new OS does, as it has other settings for IPv6";
    pub const IDENTITY: &str = "what it tells the DHCP server of itself is not carried over; the address may be another one";
    pub const NEW_MAC: &str = "it was given another hardware address; the new OS uses its own";
    pub const WIRELESS: &str =
        "the address settings of a Wi-Fi are not carried over; it will use DHCP";
    pub const WPA_FILE: &str = "its Wi-Fis are in a file of wpa_supplicant's own: its address settings are not carried over to them; they will use DHCP";
    pub const SEVERAL_WIFIS: &str = "it has settings for more than one Wi-Fi: its address settings are not carried over to them; they will use DHCP";
    pub const LOST_WIFI: &str = "its address settings are not carried over: they belong to a Wi-Fi that cannot be carried over from here";
    pub const ACCESS_POINT: &str = "it is, or may be, an access point of this device: its address settings are not carried over";
}

/// Families of addresses, to be added up.
pub(super) const IPV4: u8 = 1;
pub(super) const IPV6: u8 = 2;

/// What is known of the default route of one family, beside the router.
#[derive(Clone, Copy, Default)]
struct DefaultRoute {
    metric: Option<u32>,
    /// There is one that cannot be carried over.
    is_missed: bool,
}

/// The settings of one interface.
pub(super) struct Draft {
    wired: Wired,
    /// What messages call it.
    name: Text<64>,
    is_wireless: bool,
    /// The first Wi-Fi that it joins.
    wifi: Option<Wifi>,
    /// Another one is named, or one that cannot be carried over: whose the addresses are is not known.
    has_other_wifis: bool,
    has_wpa_file: bool,
    /// The path of that file.
    wpa_file: WpaFile,
    /// The Wi-Fi whose settings these are, whatever the interface.
    ssid: Ssid,
    /// What is said of one Wi-Fi takes the place of what is said of the interface.
    pub(super) is_whole: bool,
    /// Its Wi-Fis, if it has any, are in files of another program.
    pub(super) has_wifis_apart: bool,
    /// It is an access point of this device.
    pub(super) is_access_point: bool,
    /// DHCP, or whatever else is automatic for IPv4, goes on beside fixed addresses.
    pub(super) automatic4: bool,
    /// The same for IPv6.
    pub(super) automatic6: bool,
    /// Router advertisements are not listened to.
    pub(super) ignores_routers: bool,
    /// There is no IPv6.
    pub(super) no_ipv6: bool,
    /// A router holds beside what DHCP names, and before it.
    pub(super) has_own_router: bool,
    /// IPv4 is an address for the link itself, unless something else is said.
    pub(super) is_link_local4: bool,
    /// The same for IPv6.
    pub(super) is_link_local6: bool,
    default4: DefaultRoute,
    default6: DefaultRoute,
    lost: Option<&'static str>,
    is_left_out: bool,
    doubts: heapless::Vec<&'static str, 32>,
}

impl Draft {
    /// For the interface of this name; one that cannot be a name loses what is static.
    pub(super) fn new(name: &[u8]) -> Self {
        let shown: Text<64> = printable(name);
        let interface = if is_interface(&shown) { Text::from(&*shown) } else { Text::new() };
        Self {
            wired: Wired { interface, ..Wired::default() },
            is_wireless: is_wireless(&shown),
            name: shown,
            wifi: None,
            has_other_wifis: false,
            has_wpa_file: false,
            wpa_file: WpaFile::new(),
            ssid: Ssid::new(),
            is_whole: false,
            has_wifis_apart: false,
            is_access_point: false,
            automatic4: false,
            automatic6: false,
            ignores_routers: false,
            no_ipv6: false,
            has_own_router: false,
            is_link_local4: false,
            is_link_local6: false,
            default4: DefaultRoute::default(),
            default6: DefaultRoute::default(),
            lost: None,
            is_left_out: false,
            doubts: heapless::Vec::new(),
        }
    }

    /// For the interface with this hardware address, in any spelling.
    pub(super) fn set_mac(&mut self, mac: &str) {
        self.wired.mac = names::mac(mac);
    }

    /// It is a Wi-Fi, whatever its name.
    pub(super) fn set_wireless(&mut self) {
        self.is_wireless = true;
    }

    /// The Wi-Fis that it joins are in this file of wpa_supplicant's own. With more than one it is not known whose the
    /// addresses are.
    pub(super) fn set_wpa_file(&mut self, path: &str) {
        let is_same = self.has_wifis_apart && *self.wpa_file == *path;
        self.has_wifis_apart = !self.has_wpa_file || is_same;
        self.is_wireless = true;
        self.has_wpa_file = true;
        self.wpa_file = Text::from(path);
    }

    /// These are the settings for one Wi-Fi, whichever interface joins it.
    pub(super) fn set_ssid(&mut self, ssid: Ssid) {
        self.is_wireless = true;
        self.ssid = ssid;
    }

    /// It joins this Wi-Fi, which gets its addresses unless there is another one.
    pub(super) fn add_wifi(&mut self, wifi: Wifi, found: &mut Findings) {
        self.is_wireless = true;
        match &self.wifi {
            None => self.wifi = Some(wifi),
            // As for IPv4, so for IPv6.
            Some(first) if first.ssid == wifi.ssid => {}
            Some(_) => {
                self.has_other_wifis = true;
                found(Finding::Wifi(wifi));
            }
        }
    }

    /// It joins a Wi-Fi that cannot be carried over.
    pub(super) fn lose_wifi(&mut self) {
        self.is_wireless = true;
        self.has_other_wifis = true;
    }

    /// Its name is not the kernel's name of an interface.
    pub(super) fn set_nameless(&mut self) {
        self.wired.interface = Text::new();
    }

    /// Whatever its settings are, the new OS does not need them.
    pub(super) fn leave_out(&mut self, why: &'static str) {
        self.is_left_out = true;
        self.doubt(why);
    }

    /// It cannot be carried over. The first reason is kept.
    pub(super) fn lose(&mut self, why: &'static str) {
        self.lost = self.lost.or(Some(why));
    }

    /// Whether it has a fixed address.
    pub(super) fn is_fixed(&self) -> bool {
        self.wired.addresses.is_fixed()
    }

    /// Whether this is the name of the interface.
    pub(super) fn is_called(&self, name: &str) -> bool {
        !name.is_empty() && *self.name == *name
    }

    /// Whether it has an address, or asks for one.
    pub(super) fn has_network(&self) -> bool {
        self.automatic4 || self.automatic6 || self.is_fixed()
    }

    /// True when it is known that it cannot be carried over.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// A part of it does not survive. Each reason is given once.
    pub(super) fn doubt(&mut self, why: &'static str) {
        if !self.doubts.contains(&why) {
            // There are fewer reasons than room.
            let _ = self.doubts.push(why);
        }
    }

    fn family(&mut self, address: IpAddr) -> &mut Family {
        if address.is_ipv6() {
            &mut self.wired.addresses.ipv6
        } else {
            &mut self.wired.addresses.ipv4
        }
    }

    /// Sets something of these families.
    pub(super) fn each(&mut self, families: u8, set: &dyn Fn(&mut Family)) {
        let Addresses { ipv4, ipv6, .. } = &mut self.wired.addresses;
        for (bit, family) in [(IPV4, ipv4), (IPV6, ipv6)] {
            if families & bit != 0 {
                set(family);
            }
        }
    }

    /// The metric of all routes of these families; true when it is a number.
    pub(super) fn set_metric(&mut self, families: u8, text: &str) {
        let metric = text.parse().ok();
        self.each(families, &|family| family.route_metric = metric);
        if metric.is_none() && !text.is_empty() {
            self.doubt(why::METRIC);
        }
    }

    /// Whether this is the first of its fixed addresses, which the kernel sends from by itself.
    pub(super) fn is_first(&self, text: &str) -> bool {
        let Addresses { ipv4, ipv6, .. } = &self.wired.addresses;
        let is_it = |family: &Family| {
            let first = family.addresses.first().and_then(|first| first.address.parse().ok());
            first.is_some_and(|first: IpAddr| text.parse() == Ok(first))
        };
        is_it(ipv4) || is_it(ipv6)
    }

    /// A fixed address, `A/P`, `A/MASK`, or `A` with `mask` (`255.255.255.0` or a number of bits).
    pub(super) fn add_address(&mut self, text: &str, mask: Option<&str>) {
        let (address, prefixed) = match prefixed(text, mask) {
            Ok((_, Prefixed { prefix: 0, .. })) => return self.lose(why::BAD_ADDRESS),
            // systemd-networkd takes a free range for 0.0.0.0.
            Ok((address, _)) if address.is_unspecified() => return self.lose(why::BAD_ADDRESS),
            Ok(all) => all,
            Err(why) => return self.lose(why),
        };
        let list = &mut self.family(address).addresses;
        if !list.contains(&prefixed) && list.push(prefixed).is_err() {
            self.doubt(why::MANY_ADDRESSES);
        }
    }

    /// Forgets the fixed addresses.
    pub(super) fn clear_addresses(&mut self) {
        self.wired.addresses.ipv4.addresses.clear();
        self.wired.addresses.ipv6.addresses.clear();
    }

    /// The router for all that has no other route.
    pub(super) fn set_gateway(&mut self, text: &str) {
        self.add_gateway(text, None);
    }

    /// The same with a metric. Of several, the one of the lowest is used.
    pub(super) fn add_gateway(&mut self, text: &str, metric: Option<u32>) {
        let Ok(address) = text.parse::<IpAddr>() else { return self.doubt(why::BAD_GATEWAY) };
        let Addresses { ipv4, ipv6, .. } = &mut self.wired.addresses;
        let (gateway, route) = match address {
            IpAddr::V4(_) => (&mut ipv4.gateway, &mut self.default4),
            IpAddr::V6(_) => (&mut ipv6.gateway, &mut self.default6),
        };
        let is_same = gateway.is_empty() || **gateway == *text;
        // None is the kernel's 0, which is before all others.
        if gateway.is_empty() || metric.unwrap_or(0) < route.metric.unwrap_or(0) {
            *gateway = Address::from(text);
            route.metric = metric;
        }
        if !is_same {
            self.doubt(why::GATEWAYS);
        }
    }

    /// There is a route that cannot be carried over; the default one of these families.
    pub(super) fn miss_route(&mut self, families: u8) {
        self.default4.is_missed |= families & IPV4 != 0;
        self.default6.is_missed |= families & IPV6 != 0;
        self.doubt(why::BAD_ROUTE);
    }

    /// Forgets the routers and the routes.
    pub(super) fn clear_routes(&mut self) {
        (self.default4, self.default6) = Default::default();
        self.each(IPV4 | IPV6, &|family| {
            family.gateway = Address::new();
            family.routes.clear();
        });
    }

    /// A name server.
    pub(super) fn add_dns(&mut self, text: &str) {
        let Ok(address) = text.parse::<IpAddr>() else { return self.doubt(why::BAD_DNS) };
        if names::is_loopback(text) {
            return self.doubt(why::LOOPBACK_DNS);
        }
        if !self.family(address).add_dns(text) {
            self.doubt(why::MANY_DNS);
        }
    }

    /// Forgets the name servers.
    pub(super) fn clear_dns(&mut self) {
        self.wired.addresses.ipv4.dns.clear();
        self.wired.addresses.ipv6.dns.clear();
    }

    /// A domain that names are looked up in.
    pub(super) fn add_search(&mut self, domain: &str) {
        if !self.wired.addresses.add_search(domain) {
            self.doubt(why::SEARCH);
        }
    }

    /// Forgets the search domains.
    pub(super) fn clear_search(&mut self) {
        self.wired.addresses.search = Text::new();
    }

    /// The largest packet in bytes.
    pub(super) fn set_mtu(&mut self, text: &str) {
        match text.parse() {
            Ok(mtu @ 68..=65535) => self.wired.addresses.mtu = mtu,
            _ => self.doubt(why::MTU),
        }
    }

    /// A route to the network `to`, by the router `via`, which may be empty. The default route by a router sets that.
    pub(super) fn add_route(&mut self, to: &str, via: &str, metric: Option<u32>) {
        let network = prefixed(to, None).or_else(|_| single_host(to));
        let (Ok((address, to)), gateway) = (network, via.parse::<IpAddr>()) else {
            return self.doubt(why::BAD_ROUTE);
        };
        let fits = gateway.map_or(via.is_empty(), |gateway| gateway.is_ipv6() == address.is_ipv6());
        match (fits, to.prefix) {
            (true, 0) if !via.is_empty() => return self.add_gateway(via, metric),
            (true, _) => {}
            (false, 0) => return self.miss_route(if address.is_ipv6() { IPV6 } else { IPV4 }),
            (false, _) => return self.miss_route(0),
        }
        let route = Route { to, via: Address::from(via), metric };
        let routes = &mut self.family(address).routes;
        if !routes.contains(&route) && routes.push(route).is_err() {
            self.doubt(why::MANY_ROUTES);
        }
    }

    /// Hands over what has come together.
    pub(super) fn finish(mut self, found: &mut Findings) {
        self.settle();
        let Wired { interface, mac, addresses, .. } = &self.wired;
        let has_settings = !addresses.is_plain() || self.lost.is_some();
        // Whatever else is not carried over: without a fixed address, DHCP gives a network.
        let is_needed = self.lost.is_some() || addresses.is_fixed();
        let made = made_by_software(&self.name).filter(|_| mac.is_empty());
        let is_nameless = interface.is_empty() && mac.is_empty();
        let lost = self.lost.or(made).or(is_nameless.then_some(why::NO_INTERFACE));
        match lost {
            _ if self.is_wireless => self.finish_wifi(has_settings && !self.is_left_out, found),
            _ if !has_settings || self.is_left_out => {}
            Some(why) if is_needed => found(Finding::Lost(self.name.clone(), why)),
            Some(why) => self.doubt(why),
            None => {
                // Whether name and hardware address last is the caller's matter, which knows the machine.
                found(Finding::Wired(self.wired));
            }
        }
        for why in self.doubts {
            found(Finding::Doubtful(self.name.clone(), why));
        }
    }

    /// Hands over the Wi-Fi, if it is known, with the addresses if these are settled; else the addresses alone.
    fn finish_wifi(&mut self, has_settings: bool, found: &mut Findings) {
        let mut wifi = self.wifi.take();
        let is_whole = self.is_whole && self.has_wifis_apart && !self.ssid.is_empty();
        // Whatever is not carried over: those of the interface are not for this Wi-Fi.
        let Wired { interface, mac, .. } = &self.wired;
        let plain = Wired { interface: interface.clone(), mac: mac.clone(), ..Wired::default() };
        let mut apart = is_whole.then_some(plain);
        let why = match &mut wifi {
            Some(wifi) if self.lost.is_none() && !self.has_other_wifis => {
                wifi.addresses.inherit(&self.wired.addresses);
                None
            }
            Some(_) if self.has_other_wifis => Some(why::SEVERAL_WIFIS),
            // It may be there in other settings, without these addresses.
            None if self.has_other_wifis => Some(why::LOST_WIFI),
            None if self.is_access_point => Some(why::ACCESS_POINT),
            None if has_settings && self.is_for_wifis_apart() => {
                apart = Some(core::mem::take(&mut self.wired));
                None
            }
            None if self.has_wpa_file => Some(why::WPA_FILE),
            _ => {
                if let Some(why) = self.lost {
                    self.doubt(why);
                }
                Some(why::WIRELESS)
            }
        };
        if let Some(settings) = apart {
            let (ssid, wpa_file) = (self.ssid.clone(), self.wpa_file.clone());
            found(Finding::Wireless(Wireless { ssid, settings, wpa_file, is_whole }));
        }
        if let Some(wifi) = wifi {
            found(Finding::Wifi(wifi));
        }
        if let Some(why) = why.filter(|_| has_settings) {
            self.doubt(why);
        }
    }

    /// Whether it is said for which interface or for which Wi-Fi the settings are, and the Wi-Fis are elsewhere.
    fn is_for_wifis_apart(&self) -> bool {
        let is_named = !(self.wired.interface.is_empty() && self.wired.mac.is_empty());
        self.lost.is_none() && self.has_wifis_apart && (is_named || !self.ssid.is_empty())
    }

    /// Decides how each family is set, and leaves out what NetworkManager would refuse the whole for.
    fn settle(&mut self) {
        let Addresses { ipv4, ipv6, .. } = &mut self.wired.addresses;
        let mut doubts = [None; 3];
        let is_kept = self.has_own_router;
        doubts[0] = settle_default(ipv4, self.default4, is_kept, ("0.0.0.0", 0));
        doubts[1] = settle_default(ipv6, self.default6, is_kept, ("::", 1024));
        let is_empty = |family: &Family| {
            let Family { addresses, dns, routes, .. } = family;
            addresses.is_empty() && dns.is_empty() && routes.is_empty()
        };
        if !ipv4.addresses.is_empty() && !self.automatic4 {
            ipv4.method = Method::Manual;
        } else if self.is_link_local4 && !self.automatic4 && !self.is_wireless && is_empty(ipv4) {
            *ipv4 = Family { method: Method::LinkLocal, ..Family::default() };
        }
        // A fixed IPv6 address without a router still needs the advertisements for its routes.
        let is_whole = self.ignores_routers || !ipv6.gateway.is_empty() || has_default(ipv6);
        if !ipv6.addresses.is_empty() && !self.automatic6 && is_whole {
            ipv6.method = Method::Manual;
        } else if (self.no_ipv6 || self.is_link_local6) && is_empty(ipv6) {
            let method = if self.no_ipv6 { Method::Disabled } else { Method::LinkLocal };
            *ipv6 = Family { method, ..Family::default() };
        } else if self.is_link_local6 && ipv6.addresses.is_empty() {
            doubts[2] = Some(why::ADVERTISED);
        }
        let is_missed = |family: &Family, route: DefaultRoute| {
            let has_none = family.gateway.is_empty() && !has_default(family);
            route.is_missed && has_none && family.method == Method::Manual
        };
        let is_cut_off = is_missed(ipv4, self.default4) || is_missed(ipv6, self.default6);
        for family in [ipv4, ipv6] {
            // These are about what comes by itself.
            let is_auto = family.method == Method::Auto;
            family.ignores_auto_dns &= is_auto;
            family.ignores_auto_routes &= is_auto;
            family.never_default &= is_auto;
        }
        if is_cut_off {
            self.lose(why::NO_DEFAULT);
        }
        for why in doubts.into_iter().flatten().filter(|_| self.lost.is_none()) {
            // At most as many as are not there yet.
            let _ = self.doubts.push(why);
        }
    }
}

/// Whether one of its routes is the default one.
fn has_default(family: &Family) -> bool {
    family.routes.iter().any(|route| route.to.prefix == 0)
}

/// Puts the default route where NetworkManager takes it: `gateway` goes with a fixed address alone, and not beside
/// `never-default` (_init_from_connection_ip in nm-l3-config-data.c). `is_kept`: without one, it holds before what DHCP
/// names. `(nowhere, usual)`: the network of a default route, and the metric that the kernel gives it.
fn settle_default(
    family: &mut Family,
    route: DefaultRoute,
    is_kept: bool,
    (nowhere, usual): (&str, u32),
) -> Option<&'static str> {
    let is_fixed = !family.addresses.is_empty();
    if family.gateway.is_empty() || is_fixed && !family.never_default {
        family.route_metric = route.metric.or(family.route_metric);
        return None;
    }
    let via = core::mem::take(&mut family.gateway);
    if !is_fixed && !is_kept {
        return Some(why::LONE_GATEWAY);
    }
    // 1024 is what systemd-networkd gives to the routes of DHCP.
    let metric = route.metric.unwrap_or(usual);
    let behind = family.route_metric.unwrap_or(1024).max(metric.saturating_add(1));
    family.route_metric = Some(behind);
    family.never_default = false;
    let to = Prefixed { address: Address::from(nowhere), prefix: 0 };
    let is_full = family.routes.push(Route { to, via, metric: Some(metric) }).is_err();
    is_full.then_some(why::MANY_ROUTES)
}

/// An address with its prefix: `A/P`, `A/MASK`, or `A` with `mask`.
fn prefixed(text: &str, mask: Option<&str>) -> Result<(IpAddr, Prefixed), &'static str> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, mask),
    };
    let ip: IpAddr = address.parse().map_err(|_| why::BAD_ADDRESS)?;
    let version = if ip.is_ipv6() { 6 } else { 4 };
    let prefix = wifi::prefix(mask.ok_or(why::NO_PREFIX)?, version).ok_or(why::BAD_ADDRESS)?;
    Ok((ip, Prefixed { address: Address::from(address), prefix }))
}

/// A network that is a single host.
fn single_host(text: &str) -> Result<(IpAddr, Prefixed), &'static str> {
    let most = if text.contains(':') { "128" } else { "32" };
    prefixed(text, Some(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said() {
        let mut draft = Draft::new(b"eth0");
        for last in 1..=9 {
            draft.add_address(&format!("10.0.0.{last}/24"), None);
            draft.add_dns(&format!("10.0.1.{last}"));
            draft.add_route(&format!("10.{last}.0.0/16"), "10.0.0.1", None);
            draft.add_search(&format!("{}.example", "x".repeat(30)));
            draft.add_search(&format!("{}{last}.example", "x".repeat(30)));
        }
        let mut reasons = Vec::new();
        draft.finish(&mut |finding| match finding {
            Finding::Wired(Wired { addresses, .. }) => {
                assert_eq!(addresses.ipv4.addresses.len(), 8);
                assert_eq!(addresses.ipv4.dns.len(), 4);
                assert_eq!(addresses.search.len(), 118);
            }
            Finding::Doubtful(_, why) => reasons.push(why),
            _ => panic!(),
        });
        assert_eq!(reasons.len(), 4);
        for why in [why::MANY_ADDRESSES, why::MANY_DNS, why::MANY_ROUTES, why::SEARCH] {
            assert!(reasons.contains(&why), "{why}");
        }
    }
}
