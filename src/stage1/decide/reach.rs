//! How the new OS is reached: what each interface will have, beside what is in force there now.
//!
//! Stands under all readers of settings: whatever they read or did not read, an address that is lost is found here. On
//! the way in, and where the last way online would be lost, a difference is refused; elsewhere it is warned of. What a
//! physical interface has and no settings explain becomes a keyfile. An address that came by DHCP is never made fixed.

use super::page::Page;
use super::report::Report;
use crate::address::shown;
use crate::balena::{config, keyfile};
use crate::cli::{Flag, Options};
use crate::error::Error;
use crate::network::given::{Family, Given, How};
use crate::network::leases::Lease;
use crate::network::live::{InForce, Link, Route, is_within};
use crate::network::manager::Kind;
use crate::network::{Address, Addresses, Method, Prefixed, Ssid, Wired, names};
use crate::new_os::new_files::NewFiles;
use crate::stage1::look::live::{self, Live, WayIn};
use crate::text::{Text, Writer};
use core::net::IpAddr;

/// The longest keyfile that is made here, in bytes.
const KEYFILE: usize = 4096;
/// What is said of a keyfile that has none.
const NO_NAME_SERVER: &str =
    "its address is taken from what is in force, and no name server goes with it: none is known";
/// What is said of the interface that has another metric than now beside others.
const PREFERRED: &str = "the new OS will prefer its router to the one that is preferred now";
/// Why a route is only warned of.
const LEARNED: &str = "a program that finds routes by itself has set it, and the new OS has none";
const MAYBE_NAMED: &str = "the new OS has it only where DHCP names it";
const BESIDE: &str = "the new OS will not have it";
/// What an interface has or will have, in words.
type Words = Text<220>;

/// The interfaces, for the page.
#[derive(Default)]
pub struct Reach {
    /// A line for each.
    lines: heapless::Vec<Words, 24>,
    /// What is refused, if anything: the interface, and how it differs.
    refused: Option<Words>,
    /// The first interface with a default route that will be another, should none stay as it is.
    changed_way: Option<Words>,
    keeps_a_way: bool,
    /// The metric that the IPv4 router which is preferred now has in the new OS.
    preferred: u32,
    /// The least of the others that settings name, and its interface.
    other: Option<(u32, Text<15>)>,
}

/// How what an interface will have compares with what is in force.
#[derive(Clone, PartialEq, Debug)]
enum Verdict {
    /// The same, which is this.
    Same(Words),
    /// No settings explain what is in force.
    Unexplained,
    /// Something else, or nothing.
    Differs(Words),
}

/// An interface, with what is known of it.
struct Port<'a> {
    link: &'a Link,
    is_wifi: bool,
    ssid: Option<Ssid>,
    /// Its addresses, and whether each came by DHCP.
    addresses: heapless::Vec<(&'a InForce, bool), 16>,
    is_way_in: bool,
    /// The only cable of the bridge that it is: what the new OS has, should it not have the bridge.
    cable: Option<&'a Link>,
    /// What DHCP has said of its IPv4, as far as its client has written that down.
    lease: Option<Lease>,
}

/// The name servers that the new OS will ask.
#[derive(Default)]
struct Servers {
    known: heapless::Vec<IpAddr, 32>,
    /// Others are named by somebody of whom nothing is known, of IPv4 or IPv6.
    is_open: [bool; 2],
}

/// Compares, and adds keyfiles for what no settings explain, with the name servers of the device. Whether that may be
/// is for [`Reach::check`].
pub fn compare(
    live: &Live,
    name_servers: &Addresses,
    new_files: &mut NewFiles,
    buffer: &mut [u8],
    report: &mut Report,
) -> Result<Reach, Error> {
    let mut reach = Reach::default();
    if live.state.is_cut {
        report.warn("this device has more interfaces, addresses or routes than are looked at: not all are compared with what the new OS will have");
    }
    tell_of_tunnel(live, new_files, report);
    let mut made = 0;
    let mut servers = Servers::of_config(new_files.config());
    let sharing = live::sharing_program();
    for link in &live.state.links {
        let port = Port::of(live, link, sharing, buffer, report);
        if port.addresses.is_empty() || !port.matters(live) {
            continue;
        }
        let mut verdict = port.verdict(live, new_files);
        if verdict == Verdict::Unexplained {
            made += 1;
            port.make_keyfile(live, name_servers, made, new_files)?;
            if name_servers.is_plain() && port.has_way(live) {
                let words: Words = crate::text!("{}: {}", link.name, NO_NAME_SERVER);
                report.warn(&words);
            }
            // What did not fit into it is missed here.
            if let lacking @ Verdict::Differs(_) = port.verdict(live, new_files) {
                verdict = lacking;
            }
        }
        reach.note(&port, &verdict, live, report);
        let given = port.best(new_files);
        reach.note_metric(&port, given.as_ref(), live);
        if !matches!(verdict, Verdict::Differs(_)) {
            port.tell_of_routes(live, given.as_ref(), report);
        }
        servers.add(&port, given.as_ref());
    }
    servers.compare(name_servers, report);
    reach.compare_metrics(live, report);
    if !reach.keeps_a_way {
        reach.refused = reach.refused.take().or(reach.changed_way.take());
    }
    Ok(reach)
}

/// Warns of a tunnel that this command is reached through, unless a keyfile makes it in the new OS, too.
fn tell_of_tunnel(live: &Live, new_files: &NewFiles, report: &mut Report) {
    let way_in = live.way_in.as_ref();
    // One that all goes through is an interface like others, and compared as they are.
    let number = way_in.and_then(|way| way.tunnel.filter(|tunnel| *tunnel != way.link));
    let Some(tunnel) = number.and_then(|number| live.state.link(number)) else { return };
    let mut given = new_files.connections().filter_map(Given::read);
    if given.any(|given| given.rank_for(tunnel, false, None).is_some()) {
        return;
    }
    let words: Words = crate::text!(
        "{}: the way in goes through this tunnel, which the new OS will not have: see to it that the device is reached without it",
        tunnel.name
    );
    report.warn(&words);
}

impl Reach {
    /// Refuses what would leave the device where nobody reaches it, and names the interface.
    pub fn check(&self, options: &Options) -> Result<(), Error> {
        match &self.refused {
            Some(words) if !options.has(Flag::NoNetworkCheck) => {
                let what = "those in force";
                Err(Error::refused("comparing the networks of the new OS with", what, words).advice(
                    "give the right settings as a keyfile (--nwmgr-cfg FILE), or go on all the same (--no-nwmgr-check)",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Lists the interfaces on a page.
    pub fn show(&self, page: &mut Page) {
        page.section("reach", "How it is reached");
        page.list("interfaces", "interfaces", "none is in use now");
        for line in &self.lines {
            page.entry(line);
        }
    }

    /// Which router the new OS prefers is said by the metrics: 100 of a cable and 600 of a Wi-Fi are NetworkManager's
    /// (nm_device_get_route_metric_default). What DHCP may name beside them is not known.
    fn note_metric(&mut self, port: &Port, given: Option<&Given>, live: &Live) {
        let said = given.and_then(|given| given.ipv4.metric);
        let metric = said.unwrap_or(if port.is_wifi { 600 } else { 100 });
        if live.state.default_route(false, None).is_some_and(|now| now.link == port.link.number) {
            self.preferred = metric;
        } else if given.is_some_and(|given| given.ipv4.gateway.is_some())
            && self.other.as_ref().is_none_or(|(least, _)| metric < *least)
        {
            self.other = Some((metric, port.link.name.clone()));
        }
    }

    /// Warns of another router than now that the new OS will prefer; where the way in goes by that of now, it is
    /// refused.
    fn compare_metrics(&mut self, live: &Live, report: &mut Report) {
        let Some((metric, name)) = &self.other else { return };
        if *metric < self.preferred {
            let words: Words = crate::text!("{}: {}", name, PREFERRED);
            report.warn(&words);
            let now = live.state.default_route(false, None).map(|now| now.link);
            if live.way_in.as_ref().map(|way| way.link) == now {
                self.refused.get_or_insert(words);
            }
        }
    }

    fn note(&mut self, port: &Port, verdict: &Verdict, live: &Live, report: &mut Report) {
        self.keeps_a_way |= port.has_way(live) && !matches!(verdict, Verdict::Differs(_));
        let what = match verdict {
            Verdict::Same(words) => words.clone(),
            Verdict::Unexplained => {
                let more = if port.has_leased() { ", and more by DHCP, as now" } else { "" };
                crate::text!("{}, taken from what is in force{}", port.listed(live, false), more)
            }
            Verdict::Differs(words) => {
                let words: Words = crate::text!("{}: {}", port.link.name, words);
                report.warn(&words);
                if port.is_way_in {
                    self.refused.get_or_insert(words.clone());
                } else if port.has_way(live) {
                    self.changed_way.get_or_insert(words.clone());
                }
                words
            }
        };
        let way_in: Text<80> = match &live.way_in {
            Some(WayIn { peer: Some(peer), link, .. }) if *link == port.link.number => {
                crate::text!(" (the way in, from {})", shown(*peer))
            }
            _ if port.is_way_in => Text::from(" (the way in)"),
            _ => Text::new(),
        };
        let line = match verdict {
            Verdict::Differs(_) => crate::text!("{}{}", what, way_in),
            _ => crate::text!("{}: {}{}", port.link.name, what, way_in),
        };
        crate::debug!("the new OS is reached by {}", line);
        // There are no more lines than interfaces of a device that matter.
        let _ = self.lines.push(line);
    }
}

impl<'a> Port<'a> {
    /// Looks at an interface. `sharing`: the program that gives the device addresses which others have at other times;
    /// these are told of, and then left out.
    fn of(
        live: &'a Live,
        link: &'a Link,
        sharing: Option<&str>,
        buffer: &mut [u8],
        report: &mut Report,
    ) -> Self {
        let is_wifi = live::is_wifi(link);
        let ssid = if is_wifi { live::joined(link) } else { None };
        let mut addresses = heapless::Vec::new();
        for address in live.state.addresses_of(link.number) {
            if let Some(program) = sharing.filter(|_| address.may_be_shared) {
                let what = in_words(&(address.address, address.prefix));
                let words: Words = crate::text!(
                    "{}: {} is not carried over: {} gives it to this device or to another, and the new OS has no {}",
                    link.name,
                    what,
                    program,
                    program
                );
                report.warn(&words);
                continue;
            }
            // More are not compared: keyfiles have no more, either.
            let is_leased = link.is_modem || live::is_leased(live, link, address, buffer);
            let _ = addresses.push((address, is_leased));
        }
        let is_way_in = live.way_in.as_ref().is_some_and(|way| way.link == link.number);
        let mut leased = addresses.iter().filter(|(_, is_leased)| *is_leased);
        let lease = leased.find_map(|(it, _)| live::lease(link, it.address, buffer));
        let cable = live.state.cable_of(link).filter(|cable| !live::is_wifi(cable));
        Self { link, is_wifi, ssid, addresses, is_way_in, cable, lease }
    }

    /// What is made by software has addresses of its own world (bridges of containers), unless a way leads over it.
    fn matters(&self, live: &Live) -> bool {
        !self.link.is_made_by_software || self.is_way_in || self.has_way(live)
    }

    /// A default route is by this interface.
    fn has_way(&self, live: &Live) -> bool {
        [false, true].into_iter().any(|is_ipv6| self.router(live, is_ipv6).is_some())
    }

    fn router<'l>(&self, live: &'l Live, is_ipv6: bool) -> Option<&'l Route> {
        live.state.default_route(is_ipv6, Some(self.link.number))
    }

    /// What is in force, in words: the fixed addresses, and the router of the first family that has one.
    fn in_force(&self, live: &Live) -> Words {
        self.listed(live, true)
    }

    fn has_leased(&self) -> bool {
        self.addresses.iter().any(|(_, is_leased)| *is_leased)
    }

    /// The addresses, with those of a lease or without, and the router.
    fn listed(&self, live: &Live, with_leased: bool) -> Words {
        Words::build(&mut |writer: &mut Writer| {
            let mut comma = "";
            for (address, _) in self.addresses.iter().filter(|(_, leased)| with_leased || !leased) {
                ufmt::uwrite!(writer, "{}{}/{}", comma, shown(address.address), address.prefix)?;
                comma = ", ";
            }
            let router = [false, true].into_iter().find_map(|is_ipv6| self.router(live, is_ipv6));
            match router.and_then(|route| route.via) {
                Some(via) => ufmt::uwrite!(writer, " via {}", shown(via)),
                None => Ok(()),
            }
        })
    }

    /// The keyfile that is best for it, or else for the cable of a bridge.
    fn best(&self, new_files: &NewFiles) -> Option<Given> {
        let own = self.best_for(self.link, new_files);
        own.or_else(|| self.cable.and_then(|cable| self.best_for(cable, new_files)))
    }

    fn best_for(&self, link: &Link, new_files: &NewFiles) -> Option<Given> {
        let mut best = None;
        let mut best_rank = None;
        for bytes in new_files.connections() {
            let Some(given) = Given::read(bytes) else { continue };
            let rank = given.rank_for(link, self.is_wifi, self.ssid.as_deref());
            if rank.is_some() && rank > best_rank {
                (best, best_rank) = (Some(given), rank);
            }
        }
        best
    }

    fn verdict(&self, live: &Live, new_files: &NewFiles) -> Verdict {
        let given = self.best(new_files);
        let now = self.in_force(live);
        if given.is_none()
            && let Some(why) = self.needs_settings()
        {
            return Verdict::Differs(crate::text!("has {} now; {}", now, why));
        }
        // What its network gives it is another address each time.
        if given.as_ref().is_some_and(|given| given.summary.kind == Kind::Gsm) {
            return Verdict::Same(crate::text!("{}, by a modem, as now", now));
        }
        let is_unknown = given.is_none();
        // What the new OS does with a cable that no keyfile is for.
        let plain = Family::default();
        let mut is_leased = false;
        for is_ipv6 in [false, true] {
            let family = given.as_ref().map_or(&plain, |given| given.family(is_ipv6));
            match self.compare(live, family, is_ipv6) {
                Compared::Nothing | Compared::Same => {}
                Compared::Leased => is_leased = true,
                Compared::Unexplained if is_unknown => return Verdict::Unexplained,
                Compared::Unexplained => {
                    let mut fixed = self
                        .addresses
                        .iter()
                        .filter(|(it, is_leased)| !is_leased && it.address.is_ipv6() == is_ipv6);
                    let missing = fixed.next().map(|(it, _)| in_words(&(it.address, it.prefix)));
                    return Verdict::Differs(crate::text!(
                        "has {} now, the new OS will ask DHCP and not have {}",
                        now,
                        missing.unwrap_or_default()
                    ));
                }
                Compared::Differs(will) => {
                    return Verdict::Differs(crate::text!("has {} now, the new OS {}", now, will));
                }
            }
        }
        let has_fixed = self.addresses.iter().any(|(_, is_leased)| !is_leased);
        let how = match (has_fixed, is_leased) {
            (true, true) => ", and more by DHCP, as now",
            (true, false) => ", as now",
            (false, _) => ", by DHCP, as now",
        };
        Verdict::Same(crate::text!("{}{}{}", now, how, self.on_its_cable(is_leased, new_files)))
    }

    /// Why the new OS does nothing with it without a keyfile; nothing for a cable, which asks DHCP then.
    fn needs_settings(&self) -> Option<&'static str> {
        let is_cable = !self.link.is_made_by_software || self.cable.is_some();
        if self.is_wifi {
            Some("no settings of its Wi-Fi are carried over")
        } else if self.link.is_modem {
            Some("it is a modem, and no settings of one are carried over")
        } else if !is_cable {
            Some("it is made by software, and no settings of it are carried over")
        } else {
            None
        }
    }

    /// What is said of a bridge whose addresses come to its cable.
    fn on_its_cable(&self, is_leased: bool, new_files: &NewFiles) -> Text<140> {
        match self.cable.filter(|_| !self.has_own(new_files)) {
            None => Text::new(),
            Some(cable) if cable.mac == self.link.mac || !is_leased => {
                crate::text!(", on its cable {}: the new OS has no bridge", cable.name)
            }
            Some(cable) => crate::text!(
                ", on its cable {}: the new OS has no bridge, and may get another address by the cable's hardware address",
                cable.name
            ),
        }
    }

    /// A keyfile is there for itself.
    fn has_own(&self, new_files: &NewFiles) -> bool {
        self.best_for(self.link, new_files).is_some()
    }

    /// One family of addresses, against what it will be.
    fn compare(&self, live: &Live, family: &Family, is_ipv6: bool) -> Compared {
        let of_family = |(address, _): &&(&InForce, bool)| address.address.is_ipv6() == is_ipv6;
        let own = || self.addresses.iter().filter(of_family);
        if own().next().is_none() {
            return Compared::Nothing;
        }
        let (route, is_beside) = (self.router(live, is_ipv6), self.is_beside(live, is_ipv6));
        let has = |address: &InForce| family.addresses.contains(&(address.address, address.prefix));
        if own().all(|(_, is_leased)| *is_leased) {
            let has_them_all = own().all(|(address, _)| has(address));
            let compared = self.compare_leased(family, is_beside, route, has_them_all);
            let stays = matches!(compared, Compared::Leased | Compared::Same);
            let lost = self.lost_route(live, family, is_ipv6).filter(|_| stays);
            return lost.map_or(compared, |route| Compared::Differs(lacks(route)));
        }
        let mut fixed = own().filter(|(_, is_leased)| !is_leased);
        if let Some((missing, _)) = fixed.find(|(address, _)| !has(address)) {
            return match family.how {
                How::Automatic if family.addresses.is_empty() => Compared::Unexplained,
                _ => Compared::Differs(will_have(family, missing)),
            };
        }
        let is_left_to_dhcp = family.how == How::Automatic && !family.is_never_default;
        match route.map(|route| route.via) {
            Some(via) if family.gateway == via && via.is_some() => {}
            Some(None) if family.is_default_on_link => {}
            Some(_) if is_left_to_dhcp && family.gateway.is_none() => {}
            Some(_) if is_beside && route.is_some_and(|route| route.is_automatic) => {}
            Some(_) => return Compared::Differs(will_route(family)),
            None => {}
        }
        match self.lost_route(live, family, is_ipv6) {
            Some(route) => Compared::Differs(lacks(route)),
            None => Compared::Same,
        }
    }

    /// A family that has what DHCP or a router gave it.
    fn compare_leased(
        &self,
        family: &Family,
        is_beside: bool,
        route: Option<&Route>,
        has_them_all: bool,
    ) -> Compared {
        let needs_router = route.is_some() && family.gateway.is_none();
        match family.how {
            How::Automatic if !family.is_never_default || !needs_router => Compared::Leased,
            How::Automatic => Compared::Differs(Text::from("takes no router from DHCP there")),
            How::Fixed if has_them_all => Compared::Same,
            _ if is_beside => Compared::Nothing,
            How::Fixed => {
                let will = family.addresses.first().map(in_words).unwrap_or_default();
                Compared::Differs(crate::text!("will have the fixed address {} there", will))
            }
            How::Not => Compared::Differs(Text::from("will have no address of the kind there")),
        }
    }

    /// A route by this interface that the new OS will not have, and that counts.
    fn lost_route<'l>(&self, live: &'l Live, family: &Family, is_ipv6: bool) -> Option<&'l Route> {
        let mut lost = self.lost_routes(live, family, is_ipv6);
        lost.find(|route| self.why_slight(live, route).is_none())
    }

    /// The routes by this interface that the new OS will not have.
    fn lost_routes<'l>(
        &self,
        live: &'l Live,
        family: &Family,
        is_ipv6: bool,
    ) -> impl Iterator<Item = &'l Route> {
        live.state.routes.iter().filter(move |route| {
            let is_own = route.link == self.link.number && route.to.is_ipv6() == is_ipv6;
            let is_known = family.routes.contains(&(route.to, route.prefix, route.via));
            // NetworkManager makes the one to a router that is on no network of the interface.
            let router = self.router(live, is_ipv6).and_then(|route| route.via);
            let is_router = Some(route.to) == family.gateway || Some(route.to) == router;
            let leads_to_router = is_router && route.via.is_none();
            let network = (route.to, route.prefix);
            let is_named = self.lease.as_ref().is_some_and(|lease| lease.routes.contains(&network));
            let stays = is_known
                || leads_to_router
                || is_named
                || self.goes_there_anyway(live, family, route);
            is_own && route.prefix > 0 && !route.is_automatic && !stays
        })
    }

    /// Why a route that is lost is warned of and no more; nothing for one that counts. That to whom this command is
    /// reached from always does.
    fn why_slight(&self, live: &Live, route: &Route) -> Option<&'static str> {
        let is_ipv6 = route.to.is_ipv6();
        let peer = live.way_in.as_ref().and_then(|way| way.peer);
        if peer.is_some_and(|peer| self.is_way_in && is_within(peer, route.to, route.prefix)) {
            return None;
        }
        let of_family = |(it, _): &&(&InForce, bool)| it.address.is_ipv6() == is_ipv6;
        let is_leased = self.addresses.iter().filter(of_family).all(|(_, is_leased)| *is_leased);
        // Who marks its routes has not set one without a mark.
        let is_marked = self.router(live, is_ipv6).is_some_and(|route| route.is_automatic);
        match () {
            () if route.is_learned => Some(LEARNED),
            () if is_leased && !is_marked && self.lease.is_none() => Some(MAYBE_NAMED),
            () if is_leased && self.is_beside(live, is_ipv6) => Some(BESIDE),
            () => None,
        }
    }

    /// Warns of the routes that are lost and do not count.
    fn tell_of_routes(&self, live: &Live, given: Option<&Given>, report: &mut Report) {
        let plain = Family::default();
        for is_ipv6 in [false, true] {
            let family = given.map_or(&plain, |given| given.family(is_ipv6));
            for route in self.lost_routes(live, family, is_ipv6) {
                let why = self.why_slight(live, route).unwrap_or(BESIDE);
                let words: Words =
                    crate::text!("{}: {}: {}", self.link.name, route_in_words(route), why);
                report.warn(&words);
            }
        }
    }

    /// What a route leads to is reached without it: by the default route, or as a network of its own.
    fn goes_there_anyway(&self, live: &Live, family: &Family, route: &Route) -> bool {
        let default = live.state.default_route(route.to.is_ipv6(), None);
        let is_by_default = route.via.is_some()
            && default.is_some_and(|it| it.link == route.link && it.via == route.via);
        let leased = self.addresses.iter().filter(|(_, is_leased)| *is_leased);
        let leased = leased.map(|(it, _)| (it.address, it.prefix));
        let mut own = family.addresses.iter().copied().chain(leased);
        let is_own_network = own
            .any(|(own, prefix)| prefix <= route.prefix && is_within(route.to, own, prefix))
            || matches!(route.to, IpAddr::V4(to) if to.is_link_local());
        is_by_default || route.via.is_none() && is_own_network
    }

    /// IPv6 beside an IPv4 that leads everywhere is in force on nearly every device, and seldom what it is reached by.
    fn is_beside(&self, live: &Live, is_ipv6: bool) -> bool {
        let peer = live.way_in.as_ref().and_then(|way| way.peer);
        let is_way_in = self.is_way_in && peer.is_some_and(|peer| peer.is_ipv6());
        is_ipv6 && self.router(live, false).is_some() && !is_way_in
    }

    /// Makes a keyfile of what is in force.
    fn make_keyfile(
        &self,
        live: &Live,
        name_servers: &Addresses,
        number: u32,
        new_files: &mut NewFiles,
    ) -> Result<(), Error> {
        let cable = self.cable.unwrap_or(self.link);
        let mut wired = Wired { interface: Text::from(&*cable.name), ..Wired::default() };
        if names::is_makers_mac(&cable.mac) {
            (wired.interface, wired.mac) = (Text::new(), cable.mac.clone());
        }
        let Addresses { ipv4, ipv6, .. } = &mut wired.addresses;
        for (address, _) in self.addresses.iter().filter(|(_, is_leased)| !is_leased) {
            let family = if address.address.is_ipv6() { &mut *ipv6 } else { &mut *ipv4 };
            let is_same = |(other, is_leased): &(&InForce, bool)| {
                *is_leased && other.address.is_ipv6() == address.address.is_ipv6()
            };
            // What DHCP gives beside it goes on.
            if !self.addresses.iter().any(is_same) {
                family.method = Method::Manual;
            }
            let address = Prefixed { address: written(address.address), prefix: address.prefix };
            // Nobody has more than 8 that no settings explain; what is left out is missed by whoever compares them
            // again.
            let _ = family.addresses.push(address);
        }
        for route in live.state.routes.iter().filter(|route| route.link == self.link.number) {
            add_route(route, if route.to.is_ipv6() { ipv6 } else { ipv4 });
        }
        for (family, known) in [(&mut *ipv4, &name_servers.ipv4), (&mut *ipv6, &name_servers.ipv6)]
        {
            if !family.addresses.is_empty() {
                family.dns = known.dns.clone();
            }
        }
        wired.addresses.search = name_servers.search.clone();
        let zero = if number < 10 { "0" } else { "" };
        let id: Text<40> = crate::text!("balena-in-force-{}{}", zero, number);
        let mut bytes = [0; KEYFILE];
        let length = keyfile::wired(&wired, &id, &mut bytes);
        let bytes = length.and_then(|length| bytes.get(..length)).ok_or_else(|| {
            Error::refused(
                "making a keyfile of",
                &self.link.name,
                "what is in force is too much for one",
            )
        })?;
        let path: Text<80> = crate::text!("system-connections/{}", id);
        new_files.add(&path, &self.link.name, bytes)
    }
}

/// Adds a route that is in force to what a keyfile says of its family.
fn add_route(route: &Route, family: &mut crate::network::Family) {
    let is_other = |via: IpAddr| via.is_ipv6() != route.to.is_ipv6();
    // No keyfile says a router of the other family; who compares again misses it.
    if family.addresses.is_empty() || route.is_automatic || route.via.is_some_and(is_other) {
        return;
    }
    let metric = Some(route.metric).filter(|metric| *metric > 0);
    let via = route.via.map(written).unwrap_or_default();
    if route.prefix == 0 && family.gateway.is_empty() {
        family.gateway = via;
        // Which of several ways is preferred.
        family.route_metric = metric;
    } else if route.prefix > 0 {
        let to = Prefixed { address: written(route.to), prefix: route.prefix };
        let _ = family.routes.push(crate::network::Route { to, via, metric });
    }
}

/// What came of one family.
#[derive(Clone, PartialEq, Debug)]
enum Compared {
    /// It has no addresses now.
    Nothing,
    Same,
    /// The same, by DHCP.
    Leased,
    Unexplained,
    /// What the new OS will do.
    Differs(Text<120>),
}

fn written(address: IpAddr) -> Address {
    Address::from(&*shown(address))
}

fn in_words((address, prefix): &(IpAddr, u8)) -> Text<48> {
    crate::text!("{}/{}", shown(*address), prefix)
}

fn will_have(family: &Family, missing: &InForce) -> Text<120> {
    let missing = in_words(&(missing.address, missing.prefix));
    match family.addresses.first() {
        Some(first) => crate::text!("will have {} and not {} there", in_words(first), missing),
        None => crate::text!("will not have {} there", missing),
    }
}

fn will_route(family: &Family) -> Text<120> {
    match family.gateway {
        Some(gateway) => crate::text!("will have the router {} there", shown(gateway)),
        None => Text::from("will have no router there: its default route is lost"),
    }
}

fn lacks(route: &Route) -> Text<120> {
    crate::text!("will not have {}", route_in_words(route))
}

fn route_in_words(route: &Route) -> Text<106> {
    let to = in_words(&(route.to, route.prefix));
    match route.via {
        Some(via) => crate::text!("the route to {} via {}", to, shown(via)),
        None => crate::text!("the route to {}", to),
    }
}

impl Servers {
    /// Those that the configuration of the new OS names (dnsServers), which it asks whatever DHCP says.
    fn of_config(config: &[u8]) -> Self {
        let mut servers = Self::default();
        let list = config::text::<512>(config, "dnsServers").unwrap_or_default();
        for server in list.split([' ', ',']).filter_map(|server| server.parse().ok()) {
            if servers.known.push(server).is_err() {
                servers.is_open = [true; 2];
            }
        }
        servers
    }

    /// Adds those that the new OS will ask by an interface. `given`: what its keyfile says.
    fn add(&mut self, port: &Port, given: Option<&Given>) {
        let plain = Family::default();
        for is_ipv6 in [false, true] {
            let family = given.map_or(&plain, |given| given.family(is_ipv6));
            let of_family = |(it, _): &(&InForce, bool)| it.address.is_ipv6() == is_ipv6;
            let asks_there = family.how == How::Automatic && !family.ignores_servers;
            let has_any = port.addresses.iter().any(of_family);
            let mut named: &[IpAddr] = &[];
            match &port.lease {
                _ if !(port.link.is_modem || asks_there && has_any) => {}
                Some(lease) if !is_ipv6 => named = &lease.servers,
                _ => {
                    // A router may name some of IPv6, and a client of whom nothing is known some of both.
                    self.is_open[usize::from(is_ipv6)] = true;
                }
            }
            for server in family.servers.iter().chain(named) {
                if !self.known.contains(server) && self.known.push(*server).is_err() {
                    self.is_open = [true; 2];
                }
            }
        }
    }

    /// Warns of the first that this device asks now and the new OS will not.
    fn compare(&self, now: &Addresses, report: &mut Report) {
        for (is_ipv6, servers) in [(false, &now.ipv4.dns), (true, &now.ipv6.dns)] {
            let is_missed = |server: &IpAddr| !self.known.contains(server);
            let mut addresses = servers.iter().filter_map(|server| server.parse::<IpAddr>().ok());
            let missed = addresses.find(is_missed);
            let is_open = self.is_open.get(usize::from(is_ipv6)).copied().unwrap_or(true);
            let Some(missed) = missed.filter(|_| !is_open) else { continue };
            let other = self.known.iter().find(|known| known.is_ipv6() == is_ipv6);
            let will: Text<48> = match other {
                Some(other) => crate::text!("{}", shown(*other)),
                None => Text::from("none"),
            };
            let words: Words = crate::text!(
                "{} is asked for names now, the new OS will ask {}: put it into config.json (dnsServers) if it is needed",
                shown(missed),
                will
            );
            report.warn(&words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::live::State;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// `eth0`, with `A/P` for a fixed address and `A/P dhcp` for one that was leased, its routers, and other routes.
    struct Now {
        live: Live,
        leased: Vec<bool>,
    }

    fn prefixed(text: &str) -> (IpAddr, u8) {
        let (address, prefix) = text.split_once('/').unwrap();
        (ip(address), prefix.parse().unwrap())
    }

    fn now(addresses: &[&str], routes: &[(&str, &str)]) -> Now {
        let mut state = State::default();
        let (name, mac) = (Text::from("eth0"), Text::from("52:54:00:12:34:56"));
        state.links.push(Link { number: 2, name, mac, ..Link::default() }).unwrap();
        let mut leased = Vec::new();
        for text in addresses {
            let plain = text.trim_end_matches(" dhcp");
            leased.push(plain != *text);
            let (address, prefix) = prefixed(plain);
            let (is_permanent, may_be_shared) = (true, false);
            let found = InForce { link: 2, address, prefix, is_permanent, may_be_shared };
            state.addresses.push(found).unwrap();
        }
        for (to, via) in routes {
            let (to, prefix) = prefixed(to);
            let via = Some(ip(via)).filter(|via| !via.is_unspecified());
            let (is_automatic, is_learned) = (false, false);
            let route = Route { link: 2, to, prefix, via, metric: 0, is_automatic, is_learned };
            state.routes.push(route).unwrap();
        }
        let way_in = Some(WayIn { link: 2, peer: None, tunnel: None });
        Now { live: Live { state, way_in }, leased }
    }

    impl Now {
        fn port(&self) -> Port<'_> {
            let state = &self.live.state;
            let addresses = state.addresses.iter().zip(self.leased.iter().copied()).collect();
            let link = state.links.first().unwrap();
            let cable = state.cable_of(link);
            let (ssid, lease, is_way_in) = (None, None, true);
            Port { link, is_wifi: false, ssid, addresses, is_way_in, cable, lease }
        }

        fn verdict(&self, files: &NewFiles) -> String {
            match self.port().verdict(&self.live, files) {
                Verdict::Same(words) => words.to_string(),
                Verdict::Unexplained => "unexplained".into(),
                Verdict::Differs(words) => format!("! {}", &*words),
            }
        }
    }

    fn keyfile(rest: &str) -> NewFiles {
        let mut files = NewFiles::new();
        let text = format!("[connection]\nid=a\ntype=ethernet\n{rest}");
        files.add("system-connections/a", "", text.as_bytes()).unwrap();
        files
    }

    /// What the device asks for names.
    fn servers() -> Addresses {
        let mut known = Addresses { search: Text::from("lan.example"), ..Addresses::default() };
        known.ipv4.dns.push(Text::from("10.0.0.53")).unwrap();
        known
    }

    const FIXED: &str = "[ipv4]\nmethod=manual\naddress1=10.0.0.5/24,10.0.0.1\n";
    const ROUTER: (&str, &str) = ("0.0.0.0/0", "10.0.0.1");

    #[test]
    fn what_stays_is_the_same() {
        let fixed = now(&["10.0.0.5/24"], &[ROUTER]);
        assert_eq!(fixed.verdict(&keyfile(FIXED)), "10.0.0.5/24 via 10.0.0.1, as now");
        let leased = now(&["10.0.0.7/24 dhcp"], &[ROUTER]);
        for files in [NewFiles::new(), keyfile(""), keyfile("[ipv4]\nmethod=auto\n")] {
            assert_eq!(leased.verdict(&files), "10.0.0.7/24 via 10.0.0.1, by DHCP, as now");
        }
        let both = now(&["10.0.0.5/24", "10.0.0.7/24 dhcp"], &[ROUTER]);
        let files = keyfile("[ipv4]\nmethod=auto\naddress1=10.0.0.5/24\n");
        assert_eq!(both.verdict(&files), "10.0.0.5/24, 10.0.0.7/24 via 10.0.0.1, as now");
        // A lease that is the fixed address of the keyfile, and IPv6 by advertisements beside it.
        let leased = now(&["10.0.0.5/24 dhcp", "2001:db8::5/64 dhcp"], &[ROUTER]);
        assert!(!leased.verdict(&keyfile(FIXED)).starts_with('!'));
        let by_its_link =
            now(&["203.0.113.7/32"], &[("0.0.0.0/0", "10.0.0.1"), ("10.0.0.1/32", "0.0.0.0")]);
        let files = keyfile("[ipv4]\nmethod=manual\naddress1=203.0.113.7/32,10.0.0.1\n");
        assert!(!by_its_link.verdict(&files).starts_with('!'));
    }

    #[test]
    fn what_is_lost_or_another_is_named() {
        let fixed = now(&["10.0.0.5/24"], &[ROUTER, ("172.16.0.0/12", "10.0.0.9")]);
        let differs = |rest: &str| fixed.verdict(&keyfile(rest));
        let starts = "! has 10.0.0.5/24 via 10.0.0.1 now, the new OS will";
        for (rest, end) in [
            (
                "[ipv4]\nmethod=manual\naddress1=10.0.0.6/24,10.0.0.1\n",
                "have 10.0.0.6/24 and not 10.0.0.5/24 there",
            ),
            (
                "[ipv4]\nmethod=manual\naddress1=10.0.0.5/16,10.0.0.1\n",
                "have 10.0.0.5/16 and not 10.0.0.5/24 there",
            ),
            (
                "[ipv4]\nmethod=manual\naddress1=10.0.0.5/24\n",
                "have no router there: its default route is lost",
            ),
            (
                "[ipv4]\nmethod=manual\naddress1=10.0.0.5/24,10.0.0.2\n",
                "have the router 10.0.0.2 there",
            ),
            ("[ipv4]\nmethod=disabled\n", "not have 10.0.0.5/24 there"),
            (FIXED, "not have the route to 172.16.0.0/12 via 10.0.0.9"),
            ("[ipv4]\nmethod=auto\n", "ask DHCP and not have 10.0.0.5/24"),
        ] {
            assert_eq!(differs(rest), format!("{starts} {end}"), "{rest}");
        }
        let whole = format!("{FIXED}route1=172.16.0.0/12,10.0.0.9\n");
        assert!(!differs(&whole).starts_with('!'));
        let leased = now(&["10.0.0.7/24 dhcp"], &[ROUTER]);
        for (rest, end) in [
            (FIXED, "will have the fixed address 10.0.0.5/24 there"),
            ("[ipv4]\nmethod=disabled\n", "will have no address of the kind there"),
            ("[ipv4]\nmethod=auto\nnever-default=true\n", "takes no router from DHCP there"),
        ] {
            let wanted = format!("! has 10.0.0.7/24 via 10.0.0.1 now, the new OS {end}");
            assert_eq!(leased.verdict(&keyfile(rest)), wanted, "{rest}");
        }
        let ipv6 = now(&["fd00::5/64"], &[("::/0", "fe80::1")]);
        assert_eq!(ipv6.verdict(&NewFiles::new()), "unexplained");
        assert!(
            ipv6.verdict(&keyfile("[ipv6]\nmethod=manual\naddress1=fd00::5/64\n")).starts_with('!')
        );
    }

    #[test]
    fn routes_that_lead_where_others_lead_are_not_missed() {
        let of = |route| now(&["10.0.0.5/24"], &[ROUTER, route]).verdict(&keyfile(FIXED));
        for route in [
            ("203.0.113.9/32", "10.0.0.1"),
            ("169.254.0.0/16", "0.0.0.0"),
            ("10.0.0.0/24", "0.0.0.0"),
        ] {
            assert!(!of(route).starts_with('!'), "{route:?}");
        }
        for route in [("203.0.113.9/32", "10.0.0.2"), ("10.9.0.0/16", "0.0.0.0")] {
            assert!(of(route).starts_with('!'), "{route:?}");
        }
    }

    #[test]
    fn an_ipv6_without_ipv4_is_what_the_device_is_reached_by() {
        let without = keyfile("[ipv6]\nmethod=disabled\n");
        let alone = now(&["2001:db8::5/64 dhcp"], &[("::/0", "fe80::1")]);
        assert!(alone.verdict(&without).starts_with('!'));
        let beside =
            now(&["10.0.0.7/24 dhcp", "2001:db8::5/64 dhcp"], &[ROUTER, ("::/0", "fe80::1")]);
        assert!(!beside.verdict(&without).starts_with('!'));
    }

    #[test]
    fn a_router_of_the_other_family_is_missed_and_a_metric_is_kept() {
        let mut by_hand = now(&["10.0.0.5/24"], &[("0.0.0.0/0", "fe80::1")]);
        let made = |now: &Now| {
            let mut files = NewFiles::new();
            now.port().make_keyfile(&now.live, &servers(), 1, &mut files).unwrap();
            let text = String::from_utf8(files.connections().next().unwrap().to_vec()).unwrap();
            (text, now.verdict(&files))
        };
        let (text, verdict) = made(&by_hand);
        assert!(!text.contains("fe80") && verdict.contains("its default route is lost"), "{text}");
        // Nor does one count that somebody else has written.
        let files = keyfile("[ipv4]\nmethod=manual\naddress1=10.0.0.5/24,fe80::1\n");
        assert!(by_hand.verdict(&files).contains("its default route is lost"));
        by_hand.live.state.routes[0].via = Some(ip("10.0.0.1"));
        by_hand.live.state.routes[0].metric = 200;
        let (text, verdict) = made(&by_hand);
        assert!(text.contains("\nroute-metric=200\n") && !verdict.starts_with('!'), "{text}");
    }

    #[test]
    fn another_router_than_now_that_is_preferred_is_refused() {
        let mut two = now(&["10.0.0.5/24"], &[ROUTER, ("0.0.0.0/0", "10.1.0.1")]);
        let link = Link { number: 3, name: Text::from("eth1"), ..Link::default() };
        two.live.state.links.push(link).unwrap();
        two.live.state.routes[1].link = 3;
        two.live.state.routes[1].metric = 50;
        let said = |two: &Now, first: &str, second: &str| {
            let mut reach = Reach::default();
            let second = format!("address1=10.1.0.5/24{second}");
            for (link, rest) in two.live.state.links.iter().zip([first, &second]) {
                let port = Port { link, ..two.port() };
                let rest = format!("[ipv4]\nmethod=manual\n{rest}\n");
                let given = port.best(&keyfile(&rest));
                reach.note_metric(&port, given.as_ref(), &two.live);
            }
            let mut report = Report::quiet();
            reach.compare_metrics(&two.live, &mut report);
            (report.warnings().next().map(str::to_string), reach.refused.is_some())
        };
        let fixed = "address1=10.0.0.5/24,10.0.0.1";
        let slow = format!("{fixed}\nroute-metric=500");
        let refused = (Some(format!("eth1: {PREFERRED}")), true);
        assert_eq!(said(&two, &slow, ",10.1.0.1"), refused);
        assert_eq!(said(&two, fixed, ",10.1.0.1\nroute-metric=10"), refused);
        for (first, second) in [
            (fixed, ",10.1.0.1"),
            (&slow, ""),
            (&slow, ",10.1.0.1\nroute-metric=501"),
            ("address1=10.0.0.5/24,10.0.0.1\nroute-metric=-1", ",10.1.0.1"),
        ] {
            assert_eq!(said(&two, first, second), (None, false), "{first} {second}");
        }
        // Whoever is reached by the other one is told.
        two.live.way_in = Some(WayIn { link: 3, peer: None, tunnel: None });
        assert_eq!(said(&two, &slow, ",10.1.0.1"), (refused.0, false));
    }

    #[test]
    fn what_no_settings_explain_becomes_a_keyfile_that_is_the_same() {
        let by_hand = now(
            &["10.0.0.5/24", "fd00::5/64"],
            &[ROUTER, ("::/0", "fe80::1"), ("172.16.0.0/12", "10.0.0.9")],
        );
        let mut files = NewFiles::new();
        assert_eq!(by_hand.verdict(&files), "unexplained");
        by_hand.port().make_keyfile(&by_hand.live, &servers(), 1, &mut files).unwrap();
        let text = String::from_utf8(files.connections().next().unwrap().to_vec()).unwrap();
        assert!(
            text.contains("id=balena-in-force-01")
                && text.contains("mac-address=") == names::is_makers_mac("52:54:00:12:34:56"),
            "{text}"
        );
        assert!(text.contains("dns=10.0.0.53;") && text.contains("lan.example"), "{text}");
        assert_eq!(by_hand.verdict(&files), "10.0.0.5/24, fd00::5/64 via 10.0.0.1, as now");
        // Beside DHCP it goes on.
        let both = now(&["10.0.0.5/24", "10.0.0.7/24 dhcp"], &[ROUTER]);
        let mut files = NewFiles::new();
        assert_eq!(both.verdict(&files), "unexplained");
        both.port().make_keyfile(&both.live, &servers(), 1, &mut files).unwrap();
        let text = String::from_utf8(files.connections().next().unwrap().to_vec()).unwrap();
        assert!(text.contains("method=auto") && !text.contains("10.0.0.7"), "{text}");
        assert!(!both.verdict(&files).starts_with('!'));
    }

    #[test]
    fn what_software_makes_must_be_in_a_keyfile_and_a_wifi_too() {
        let mut bridge = now(&["10.0.0.5/24"], &[ROUTER]);
        bridge.live.state.links[0].is_made_by_software = true;
        let verdict = bridge.verdict(&NewFiles::new());
        assert!(
            verdict.ends_with("it is made by software, and no settings of it are carried over")
        );
        let mut files = NewFiles::new();
        let text = format!("[connection]\ntype=bridge\ninterface-name=eth0\n{FIXED}");
        files.add("system-connections/a", "", text.as_bytes()).unwrap();
        assert!(!bridge.verdict(&files).starts_with('!'));
        let mut modem = now(&["10.64.0.7/32"], &[("0.0.0.0/0", "0.0.0.0")]);
        modem.live.state.links[0].name = Text::from("ppp0");
        modem.live.state.links[0].is_made_by_software = true;
        modem.live.state.links[0].is_modem = true;
        let none = modem.verdict(&NewFiles::new());
        assert!(none.ends_with("it is a modem, and no settings of one are carried over"), "{none}");
        let mut files = NewFiles::new();
        files.add("system-connections/a", "", b"[connection]\nid=a\ntype=gsm\n").unwrap();
        assert_eq!(modem.verdict(&files), "10.64.0.7/32, by a modem, as now");
        let wifi = now(&["10.0.0.7/24 dhcp"], &[ROUTER]);
        let port = Port { is_wifi: true, ..wifi.port() };
        assert!(matches!(port.verdict(&wifi.live, &keyfile("")), Verdict::Differs(_)));
    }

    #[test]
    fn a_tunnel_that_the_way_in_goes_through_is_warned_of() {
        let mut now = now(&["10.0.0.5/24"], &[ROUTER]);
        let name = Text::from("wg0");
        let tunnel =
            Link { number: 3, name, is_made_by_software: true, is_tunnel: true, ..Link::default() };
        now.live.state.links.push(tunnel).unwrap();
        let warned = |now: &Now, files: &NewFiles| {
            let mut report = Report::quiet();
            tell_of_tunnel(&now.live, files, &mut report);
            report.warnings().any(|text| {
                text.starts_with("wg0: the way in goes through this tunnel, which the new OS")
            })
        };
        let wireguard = |name: &str| {
            let mut files = NewFiles::new();
            let text = format!("[connection]\nid=a\ntype=wireguard\ninterface-name={name}\n");
            files.add("system-connections/a", "", text.as_bytes()).unwrap();
            files
        };
        assert!(!warned(&now, &NewFiles::new()));
        let way_in = |link| Some(WayIn { link, peer: Some(ip("10.9.0.1")), tunnel: Some(3) });
        now.live.way_in = way_in(2);
        assert!(warned(&now, &NewFiles::new()) && warned(&now, &wireguard("wg1")));
        assert!(!warned(&now, &wireguard("wg0")));
        // Then it is refused as an interface that is lost.
        now.live.way_in = way_in(3);
        assert!(!warned(&now, &NewFiles::new()));
    }

    /// The warning about name servers: the device asks `now`, and the new OS what its keyfile, a lease and config.json
    /// say.
    fn server_warning(
        now_asks: &[&str],
        rest: &str,
        lease: Option<&[&str]>,
        config: &str,
    ) -> String {
        let address = if lease.is_some() { "10.0.0.5/24 dhcp" } else { "10.0.0.5/24" };
        let now = now(&[address], &[ROUTER]);
        let lease = lease.map(|servers| Lease {
            address: ip("10.0.0.5"),
            servers: servers.iter().map(|server| ip(server)).collect(),
            routes: heapless::Vec::new(),
        });
        let port = Port { lease, ..now.port() };
        let mut asked = Addresses::default();
        for server in now_asks {
            let family = if server.contains(':') { &mut asked.ipv6 } else { &mut asked.ipv4 };
            family.dns.push(Text::from(*server)).unwrap();
        }
        let mut files = keyfile(rest);
        files.add("config.json", "", config.as_bytes()).unwrap();
        let mut servers = Servers::of_config(files.config());
        servers.add(&port, port.best(&files).as_ref());
        let mut report = Report::quiet();
        servers.compare(&asked, &mut report);
        assert!(report.warnings().count() < 2);
        report.warnings().next().map(str::to_string).unwrap_or_default()
    }

    #[test]
    fn a_name_server_that_the_new_os_will_not_ask_is_named() {
        let fixed = format!("{FIXED}dns=10.0.0.53;\n");
        let missed = |asked: &[&str], lease, config| {
            let rest = if lease { "" } else { fixed.as_str() };
            let leased: &[&str] = &["10.0.0.53"];
            server_warning(asked, rest, lease.then_some(leased), config)
        };
        for lease in [false, true] {
            assert_eq!(missed(&["10.0.0.53"], lease, "{}"), "");
            let words = missed(&["10.0.0.53", "10.0.0.54"], lease, "{}");
            let starts = "10.0.0.54 is asked for names now, the new OS will ask 10.0.0.53:";
            assert!(words.starts_with(starts), "{words}");
            // It is in config.json already.
            let config = "{\"dnsServers\":\"9.9.9.9 10.0.0.54\"}";
            assert_eq!(missed(&["10.0.0.53", "10.0.0.54"], lease, config), "");
            let other = "{\"dnsServers\":\"9.9.9.9\"}";
            assert_ne!(missed(&["10.0.0.54"], lease, other), "");
            for odd in ["", "{\"dnsServers\":null}", "{\"dnsServers\":\"null\"}"] {
                assert_ne!(missed(&["10.0.0.54"], lease, odd), "", "{odd}");
            }
        }
    }

    #[test]
    fn a_name_server_may_be_named_where_nobody_has_written_down_what_was_said() {
        // A lease of which no file is known, on a keyfile that asks DHCP: anything may come.
        let leased = now(&["10.0.0.7/24 dhcp"], &[ROUTER]);
        let of = |rest: &str, asked: &[&str]| {
            let files = keyfile(rest);
            let mut servers = Servers::default();
            servers.add(&leased.port(), leased.port().best(&files).as_ref());
            let mut known = Addresses::default();
            for server in asked {
                known.ipv4.dns.push(Text::from(*server)).unwrap();
            }
            let mut report = Report::quiet();
            servers.compare(&known, &mut report);
            report.warnings().count()
        };
        assert_eq!(of("", &["10.0.0.54"]), 0);
        assert_eq!(of("[ipv4]\nmethod=auto\nignore-auto-dns=true\n", &["10.0.0.54"]), 1);
        // None is asked now, so none is missed.
        assert_eq!(of("[ipv4]\nmethod=auto\nignore-auto-dns=true\n", &[]), 0);
    }

    /// The routes of a device with this address that are warned of and not refused.
    fn slight(
        address: &str,
        lease: Option<&str>,
        is_learned: bool,
        peer: Option<&str>,
    ) -> Vec<String> {
        let mut now = now(&[address], &[ROUTER, ("172.16.0.0/12", "10.0.0.9")]);
        now.live.state.routes[1].is_learned = is_learned;
        let peer = peer.map(ip);
        now.live.way_in = Some(WayIn { link: 2, peer, tunnel: None });
        let lease = lease.map(|route| {
            let routes = heapless::Vec::from_slice(&[prefixed(route)]).unwrap();
            Lease { address: ip("10.0.0.5"), servers: heapless::Vec::new(), routes }
        });
        let port = Port { lease, ..now.port() };
        let files = if address.ends_with("dhcp") { NewFiles::new() } else { keyfile(FIXED) };
        if matches!(port.verdict(&now.live, &files), Verdict::Differs(_)) {
            return vec!["refused".into()];
        }
        let mut report = Report::quiet();
        port.tell_of_routes(&now.live, port.best(&files).as_ref(), &mut report);
        report.warnings().map(str::to_string).collect()
    }

    #[test]
    fn a_route_that_is_lost_is_refused_or_warned_of_by_who_has_set_it() {
        let (fixed, leased) = ("10.0.0.5/24", "10.0.0.5/24 dhcp");
        let starts = "eth0: the route to 172.16.0.0/12 via 10.0.0.9: ";
        assert_eq!(slight(fixed, None, false, None), ["refused"]);
        assert_eq!(slight(fixed, None, true, None), [format!("{starts}{LEARNED}")]);
        // The other end of this command is reached by it: that counts, whoever has set it.
        assert_eq!(slight(fixed, None, true, Some("172.16.3.4")), ["refused"]);
        assert_eq!(slight(fixed, None, true, Some("10.9.3.4")), [format!("{starts}{LEARNED}")]);
        // Beside a lease it may have come by DHCP; its client has written down that it did, or that it did not.
        assert_eq!(slight(leased, None, false, None), [format!("{starts}{MAYBE_NAMED}")]);
        assert_eq!(slight(leased, Some("172.16.0.0/12"), false, None), [""; 0]);
        assert_eq!(slight(leased, Some("172.17.0.0/16"), false, None), ["refused"]);
    }

    #[test]
    fn the_addresses_of_a_bridge_go_to_its_only_cable() {
        let mut bridged = now(&["10.0.0.5/24"], &[ROUTER]);
        let mac = Text::from("00:1b:21:00:00:0a");
        let port = |number, name: &str, mac: &Text<17>| Link {
            number,
            name: Text::from(name),
            mac: mac.clone(),
            master: 2,
            ..Link::default()
        };
        {
            let bridge = &mut bridged.live.state.links[0];
            (bridge.name, bridge.is_bridge, bridge.is_made_by_software) =
                (Text::from("br0"), true, true);
            bridge.mac = mac.clone();
        }
        bridged.live.state.links.push(port(3, "eth0", &mac)).unwrap();
        let mut files = NewFiles::new();
        assert_eq!(bridged.verdict(&files), "unexplained");
        bridged.port().make_keyfile(&bridged.live, &servers(), 1, &mut files).unwrap();
        let text = String::from_utf8(files.connections().next().unwrap().to_vec()).unwrap();
        assert!(text.contains("mac-address=00:1b:21:00:00:0a\n"), "{text}");
        let words = "10.0.0.5/24 via 10.0.0.1, as now, on its cable eth0: the new OS has no bridge";
        assert_eq!(bridged.verdict(&files), words);
        // A lease goes by the hardware address, which a bridge may have of its own.
        let leased = |mac: &str| {
            let mut leased = now(&["10.0.0.7/24 dhcp"], &[ROUTER]);
            leased.live.state.links = bridged.live.state.links.clone();
            leased.live.state.links[0].mac = Text::from(mac);
            leased.verdict(&NewFiles::new())
        };
        assert!(leased("00:1b:21:00:00:0a").ends_with("the new OS has no bridge"));
        assert!(leased("02:00:00:00:00:01").contains("may get another address"));
        // With two cables it is not known which one it is.
        bridged.live.state.links.push(port(4, "eth1", &mac)).unwrap();
        assert!(bridged.verdict(&NewFiles::new()).starts_with('!'));
    }

    #[test]
    fn a_profile_for_any_cable_is_taken_before_one_for_this_one_when_its_priority_is_higher() {
        let leased = now(&["10.0.0.7/24 dhcp"], &[ROUTER]);
        let mut files = keyfile(&format!("interface-name=eth0\nautoconnect-priority=1\n{FIXED}"));
        assert!(leased.verdict(&files).starts_with('!'));
        let any = "[connection]\nid=any\ntype=ethernet\nautoconnect-priority=2\n";
        files.add("system-connections/any", "", any.as_bytes()).unwrap();
        assert!(!leased.verdict(&files).starts_with('!'));
    }
}
